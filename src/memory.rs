//! Whether something fits the memory of this machine, asked before it is allocated: an allocation that fails ends the
//! program without a word, and one that the system only promises ends it later.

use std::path::Path;
use std::sync::OnceLock;

use crate::files;

/// Something that needs more memory than the machine has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} at least {}, {}: {advice}", size(*needed), compared(*total))]
pub struct TooLarge {
    /// What it is, with its verb: `1,797 images of 1×4096×4096 need`.
    what: String,
    /// Bytes.
    needed: u128,
    /// Bytes of the machine. `None` if no machine has as much.
    total: Option<u64>,
    /// What to do.
    advice: &'static str,
}

/// Checks that `needed` bytes fit this machine: its memory, or the part of it that a container may use. `what` is the
/// beginning of the sentence: `1,797 images of 1×4096×4096 need`.
///
/// # Errors
/// If they do not fit.
pub fn check(needed: u128, what: impl FnOnce() -> String, advice: &'static str) -> Result<(), TooLarge> {
    check_against(total(), needed, what, advice)
}

fn check_against(
    total: Option<u64>,
    needed: u128,
    what: impl FnOnce() -> String,
    advice: &'static str,
) -> Result<(), TooLarge> {
    // More than any machine has is refused even where its memory is not known.
    let most = total.unwrap_or(ADDRESS_SPACE);
    if needed <= u128::from(most) { Ok(()) } else { Err(TooLarge { what: what(), needed, total, advice }) }
}

/// Bytes that a processor can address.
const ADDRESS_SPACE: u64 = 1 << 48;

/// As [`check`], for what is computed about another machine: refuses only what fits none, and what arithmetic with 64 bits
/// could therefore not describe.
///
/// # Errors
/// If no machine has as much memory.
pub fn check_address_space(needed: u128, what: impl FnOnce() -> String, advice: &'static str) -> Result<(), TooLarge> {
    check_against(None, needed, what, advice)
}

fn compared(total: Option<u64>) -> String {
    match total {
        Some(total) => format!("but this machine has {} of memory", size(u128::from(total))),
        None => "more than any machine has".into(),
    }
}

/// Bytes of memory that this program may use. `None` if the system does not say.
fn total() -> Option<u64> {
    static TOTAL: OnceLock<Option<u64>> = OnceLock::new();
    *TOTAL.get_or_init(|| installed().into_iter().chain(limit_of_groups()).min())
}

/// Bytes of memory of the machine.
#[cfg(unix)]
#[allow(unsafe_code, reason = "the standard library cannot ask how much memory there is")]
fn installed() -> Option<u64> {
    use nix::libc;
    // SAFETY: `sysconf` takes any number and reads no memory of ours.
    let [pages, size] = [libc::_SC_PHYS_PAGES, libc::_SC_PAGESIZE].map(|name| unsafe { libc::sysconf(name) });
    // -1 if the system does not know.
    u64::try_from(pages).ok()?.checked_mul(u64::try_from(size).ok()?).filter(|bytes| *bytes > 0)
}

#[cfg(not(unix))]
fn installed() -> Option<u64> {
    None
}

/// The least memory that Linux allows any of this process's control groups: a container or a job of a batch system.
fn limit_of_groups() -> Option<u64> {
    let groups = files::of_kernel(Path::new("/proc/self/cgroup"))?;
    let read = |directory: &Path, file: &str| limit(&files::of_kernel(&directory.join(file))?);
    groups.lines().filter_map(|line| limit_of_group(line, Path::new("/sys/fs/cgroup"), &read)).min()
}

/// The limit of a line of `/proc/self/cgroup`, `ID:CONTROLLERS:PATH`, and of the groups above it. Within a container the
/// path may be that of the host, which is not there: the root is then the container's own group.
fn limit_of_group(line: &str, root: &Path, read: &dyn Fn(&Path, &str) -> Option<u64>) -> Option<u64> {
    let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
    let (root, file) = match controllers {
        "" => (root.to_path_buf(), "memory.max"),
        _ if controllers.split(',').any(|name| name == "memory") => (root.join("memory"), "memory.limit_in_bytes"),
        _ => return None,
    };
    let own = root.join(path.trim_start_matches('/'));
    own.ancestors().take_while(|group| group.starts_with(&root)).filter_map(|group| read(group, file)).min()
}

/// The number in a file of a control group; `None` for `max`.
fn limit(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

/// Such as `28.1 GiB`.
pub fn size(bytes: u128) -> String {
    const UNITS: [&str; 7] = ["bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let (mut value, mut unit) = (bytes as f64, 0);
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} {}", UNITS[0]) } else { format!("{value:.1} {}", UNITS[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_refused_with_both_numbers() {
        let check = |needed| check_against(Some(16 << 30), needed, || "two images need".into(), "choose smaller ones");
        assert!(check(16 << 30).is_ok());
        let expected =
            "two images need at least 28.1 GiB, but this machine has 16.0 GiB of memory: choose smaller ones";
        assert_eq!(check(30_172_235_000).unwrap_err().to_string(), expected);
        assert!(check(u128::MAX).unwrap_err().to_string().contains("EiB, but"));
        let expected = "it needs at least 1.0 PiB, more than any machine has: take less";
        let refused = check_address_space(1 << 50, || "it needs".into(), "take less").unwrap_err();
        assert_eq!(refused.to_string(), expected);
        assert!(check_address_space(1 << 40, String::new, "").is_ok());
    }

    #[test]
    #[cfg(unix)]
    fn this_machine_has_memory() {
        assert!(installed().is_some_and(|bytes| bytes >= 256 << 20), "{:?}", installed());
        assert!(total() <= installed());
    }

    #[test]
    fn a_container_has_the_memory_of_its_groups() {
        let files = [
            ("/c/memory.max", "max\n"),
            ("/c/job/memory.max", "2048\n"),
            ("/c/job/step/memory.max", "4096\n"),
            ("/c/memory/memory.limit_in_bytes", "1024\n"),
        ];
        let read = |directory: &Path, file: &str| {
            let path = directory.join(file);
            files.iter().find(|(name, _)| Path::new(name) == path).and_then(|(_, text)| limit(text))
        };
        let of = |line: &str| limit_of_group(line, Path::new("/c"), &read);
        assert_eq!((of("0::/job/step"), of("0::/"), of("0::/job/other")), (Some(2048), None, Some(2048)));
        assert_eq!((of("4:cpu,memory:/docker/0a"), of("5:pids:/job"), of("")), (Some(1024), None, None));
    }
}
