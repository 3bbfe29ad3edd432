//! Names of a state dict without what wrappers around the network add.
//!
//! `nn.DataParallel` adds `module.`, `torch.compile` `_orig_mod.`, a `nn.Sequential(normalise, network)` `1.`, and
//! classes that hold the network as an attribute its name. Such a prefix is removed if every array has it, apart from
//! the buffers of a normalisation layer, which lie beside the network.

use std::collections::BTreeMap;

use super::normalise::{self, Buffers};

/// Prefixes that are removed, in any order and nesting.
pub const PREFIXES: [&str; 6] = ["module.", "_orig_mod.", "model.", "net.", "1.", "backbone."];

/// More wrappers than this around a network are a damaged file.
const MAX_PREFIXES: usize = 16;

/// Arrays under the names of the network.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Plain<T> {
    /// Parameters and running statistics.
    pub(super) arrays: BTreeMap<String, T>,
    /// The buffers of a normalisation layer, under the names that they have beside the network.
    pub(super) normalisation: Buffers<T>,
    /// The prefixes that were removed, joined.
    pub(super) prefix: String,
}

/// Removes prefixes, counters of batches and the buffers of a normalisation layer. If `most`, a prefix is also removed
/// from those arrays that have it if more than half of them do.
pub(super) fn plain<T>(mut arrays: BTreeMap<String, T>, most: bool) -> Plain<T> {
    // PyTorch's counter of batches matters only to batch norm without momentum.
    arrays.retain(|name, _| name != "num_batches_tracked" && !name.ends_with(".num_batches_tracked"));
    let mut normalisation = Buffers::new();
    let mut prefix = String::new();
    for _ in 0..MAX_PREFIXES {
        let buffers: Vec<String> = arrays.keys().filter(|name| normalise::is_buffer(name)).cloned().collect();
        for name in buffers {
            normalisation.extend(arrays.remove_entry(&name));
        }
        let having =
            |prefix: &str| arrays.keys().filter(|name| name.len() > prefix.len() && name.starts_with(prefix)).count();
        let shared = |count: usize| count > 0 && (count == arrays.len() || most && count * 2 > arrays.len());
        let Some(found) = PREFIXES.into_iter().find(|prefix| shared(having(prefix))) else { break };
        let rename = |name: String| name.strip_prefix(found).map(str::to_owned).unwrap_or(name);
        // The network's arrays come last, so that they take precedence over others that had their names already.
        let (inner, outer): (Vec<_>, Vec<_>) = arrays.into_iter().partition(|(name, _)| name.starts_with(found));
        arrays = outer.into_iter().chain(inner).map(|(name, array)| (rename(name), array)).collect();
        prefix.push_str(found);
    }
    Plain { arrays, normalisation, prefix }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(names: &[&str], most: bool) -> (Vec<String>, Vec<String>, String) {
        let plain = plain(names.iter().map(|name| ((*name).to_owned(), ())).collect(), most);
        (plain.arrays.into_keys().collect(), plain.normalisation.into_keys().collect(), plain.prefix)
    }

    fn owned(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn prefixes_in_any_nesting() {
        let own = ["bn1.weight", "conv1.weight"];
        for prefix in
            ["", "module.", "module._orig_mod.", "_orig_mod.module.model.net.backbone.1.", "1.module.", "net.net."]
        {
            let names = own.map(|name| format!("{prefix}{name}"));
            let counter = format!("{prefix}bn1.num_batches_tracked");
            assert_eq!(of(&[&names[0], &names[1], &counter], false), (owned(&own), vec![], prefix.into()));
        }
    }

    #[test]
    fn normalisation_lies_beside_the_network_at_any_level() {
        for names in [
            ["module.0.mean", "module.0.std", "module.1.conv1.weight"],
            ["module.mu", "module.sigma", "module.model.conv1.weight"],
            ["module.model.normalize.mean", "module.model.normalize.std", "module.model.conv1.weight"],
            ["mean", "std", "conv1.weight"],
        ] {
            let (arrays, buffers, _) = of(&names, false);
            assert_eq!((arrays, buffers.len()), (owned(&["conv1.weight"]), 2), "{names:?}");
        }
    }

    #[test]
    fn a_prefix_of_only_some_arrays_stays_unless_most_is_enough() {
        let names = ["head.weight", "model.bn.weight", "model.conv1.weight"];
        assert_eq!(of(&names, false).0, owned(&names));
        assert_eq!(of(&names, true).0, owned(&["bn.weight", "conv1.weight", "head.weight"]));
        assert_eq!(of(&["module."], false).0, owned(&["module."]));
        assert_eq!(of(&[], true).0, owned(&[]));
    }
}
