//! Finds the state dict in a checkpoint.
//!
//! Training scripts save `{'epoch': 9, 'net': model.state_dict(), 'optimizer': …}` under names of their own. A state
//! dict is a dict with a tensor whose name ends in `weight`; if there is none, a dict with any tensor.

use super::pickle::{Id, Pickle, printable};
use super::tensors::is_tensor;

/// The names under which state dicts are expected, the preferred one first. A state dict at the top comes before all of
/// them.
pub const WRAPPERS: [&str; 6] = ["state_dict", "model_state_dict", "net", "model", "ema", "last"];

/// Dicts within dicts.
const MAX_DEPTH: usize = 4;
/// State dicts in one file; also bounds the search in a file in which dicts contain each other.
const MAX_FOUND: usize = 64;
/// Dicts that are looked at.
const MAX_VISITS: usize = 20_000;

/// Bytes in a key that may lead to a state dict.
const MAX_KEY: usize = 256;

/// A state dict in a checkpoint.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Found {
    /// The keys that lead to it; empty at the top.
    path: Vec<String>,
    /// The dict.
    pub(super) dict: Id,
}

impl Found {
    /// The keys that lead to it, such as `net` or `last.model`; empty at the top.
    pub(super) fn name(&self) -> String {
        self.path.join(".")
    }

    /// Position in the order of preference: that of each key, `WRAPPERS.len()` for other keys.
    fn rank(&self) -> Vec<usize> {
        let rank = |key: &String| WRAPPERS.iter().position(|known| known == key).unwrap_or(WRAPPERS.len());
        self.path.iter().map(rank).collect()
    }
}

/// The state dict that `weights` names, or the preferred one, and the names of the others.
///
/// # Errors
/// Returns what the file holds, if there is no state dict, if `weights` names none, or if several have names that say
/// nothing.
pub(super) fn choose(pickle: &Pickle<'_>, weights: Option<&str>) -> Result<(Found, Vec<String>), String> {
    let mut found = search(pickle, |name| name.ends_with("weight"));
    if found.is_empty() {
        found = search(pickle, |_| true);
    }
    if found.is_empty() {
        return Err(nothing(pickle));
    }
    found.sort_by_key(Found::rank);
    let names: Vec<String> = found.iter().map(Found::name).collect();
    let listed = || names.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(", ");
    let chosen = match weights {
        Some(wanted) => {
            // The whole path, or its last key if that is unambiguous.
            let whole = names.iter().position(|name| name == wanted);
            let mut last = (0..found.len()).filter(|i| found[*i].path.last().is_some_and(|key| key == wanted));
            let only = last.next().filter(|_| last.next().is_none());
            whole.or(only).ok_or_else(|| format!("has no state dict '{}'; it has {}", printable(wanted), listed()))?
        }
        None if found.len() > 1 && found[0].rank() == found[1].rank() => {
            return Err(format!("has several state dicts: {}; choose one with --weights", listed()));
        }
        None => 0,
    };
    let chosen = found.swap_remove(chosen);
    let name = chosen.name();
    Ok((chosen, names.into_iter().filter(|other| *other != name).collect()))
}

/// The name of a state dict in a message.
pub(super) fn quoted(name: &str) -> String {
    if name.is_empty() { "the one at the top".into() } else { format!("'{}'", printable(name)) }
}

/// All dicts with a tensor whose name fits, from the top down.
fn search(pickle: &Pickle<'_>, fits: impl Fn(&str) -> bool) -> Vec<Found> {
    let mut found: Vec<Found> = Vec::new();
    let mut level = vec![Found { path: Vec::new(), dict: pickle.root() }];
    let mut visits = 0;
    for _ in 0..=MAX_DEPTH {
        let mut below = Vec::new();
        for at in level {
            let Some(items) = pickle.dict(at.dict) else { continue };
            let named = || items.iter().filter_map(|(key, value)| Some((pickle.text(*key)?, *value)));
            if named().any(|(name, value)| fits(name) && is_tensor(pickle, value)) {
                if found.len() < MAX_FOUND {
                    found.push(at);
                }
                continue;
            }
            let short = |key: &str| key.len() <= MAX_KEY;
            for (key, dict) in named().filter(|(key, value)| short(key) && pickle.dict(*value).is_some()) {
                visits += 1;
                if visits <= MAX_VISITS {
                    let path = at.path.iter().cloned().chain([key.to_owned()]).collect();
                    below.push(Found { path, dict });
                }
            }
        }
        level = below;
    }
    found
}

/// What a file without a state dict holds instead.
fn nothing(pickle: &Pickle<'_>) -> String {
    let advice = "expected a state dict; in Python, torch.save(model.state_dict(), 'weights.pth') writes one";
    let root = pickle.root();
    if is_tensor(pickle, root) {
        return format!("holds a single tensor, {advice}");
    }
    if let Some(((module, class), _)) = pickle.call(root) {
        let class = printable(&format!("{module}.{class}"));
        return format!("holds a whole object of the Python class {class}, whose code is not in the file, {advice}");
    }
    match pickle.dict(root) {
        Some(items) => {
            let keys: Vec<&str> = items.iter().filter_map(|(key, _)| pickle.text(*key)).collect();
            let mut shown: Vec<String> = keys.iter().take(12).map(|key| format!("'{}'", printable(key))).collect();
            if shown.is_empty() {
                shown.push("none".into());
            }
            let module = items.iter().find_map(|(key, value)| {
                let (((module, class), _), key) = (pickle.call(*value)?, pickle.text(*key)?);
                let class = printable(&format!("{module}.{class}"));
                WRAPPERS.contains(&key).then(|| format!("; its '{key}' is a whole object of the class {class}"))
            });
            format!(
                "holds no tensors by name: its keys are {}{}; {advice}",
                shown.join(", "),
                module.unwrap_or_default()
            )
        }
        None => format!("holds neither a dict nor tensors, {advice}"),
    }
}
