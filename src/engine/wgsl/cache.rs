//! Compiled pipelines on disk, so that the driver does not compile every shader at every start.
//!
//! Only Vulkan hands its compiled pipelines out. A file is `MAGIC`, the SHA-256 of what follows, and what the driver gave.
//! The checksum is there because wgpu checks the header of the data and not its body, and a driver is not obliged to
//! survive a damaged body. The file's name holds the adapter, its driver and the version of this program; a file that
//! does not fit is ignored and written anew.
//!
//! Some drivers hand out an empty cache and keep one of their own: Mesa's lavapipe gives 32 bytes, and starts as fast
//! without our file.
//!
//! Beside them lies, as JSON, which kernels were measured to be fastest on each device ([`super::kernel_tables`]).

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use sha2::{Digest, Sha256};

use super::error::scoped;
use crate::files::{FileError, write_atomic};

const MAGIC: &[u8; 8] = b"fairtat1";
type Checksum = [u8; 32];
/// A cache only grows; beyond this it begins anew.
const LARGEST: usize = 64 << 20;

/// The platform's directory for compiled pipelines, or below `FAIRTAT_CACHE`. None when that is set and empty (no cache),
/// or when the user has no home.
pub(super) fn default_folder() -> Option<PathBuf> {
    let platform = directories::BaseDirs::new().map(|base| base.cache_dir().join("fairtat"));
    folder_from(std::env::var_os("FAIRTAT_CACHE").map(PathBuf::from), platform)
}

fn folder_from(chosen: Option<PathBuf>, platform: Option<PathBuf>) -> Option<PathBuf> {
    let base = match chosen {
        Some(path) if path.as_os_str().is_empty() => None,
        Some(path) => Some(path),
        None => platform,
    };
    base.map(|base| base.join("pipelines"))
}

/// The pipelines of one device.
#[derive(Debug)]
pub(super) struct PipelineStore {
    cache: wgpu::PipelineCache,
    path: PathBuf,
    /// Whether something was compiled since the last [`Self::save`].
    grown: AtomicBool,
    /// Checksum of the data in the file, if it is whole.
    on_disk: Mutex<Option<Checksum>>,
}

impl PipelineStore {
    /// What `folder` has for this device, or an empty store. None where the back end keeps no pipelines.
    pub(super) fn open(device: &wgpu::Device, info: &wgpu::AdapterInfo, folder: &Path) -> Option<Self> {
        if !device.features().contains(wgpu::Features::PIPELINE_CACHE) {
            return None;
        }
        let path = folder.join(file_name(info)?);
        let bytes = std::fs::read(&path).unwrap_or_default();
        let data = unpack(&bytes);
        let on_disk = Mutex::new(data.map(checksum));
        let cache = data.and_then(|data| create(device, Some(data))).or_else(|| create(device, None))?;
        Some(Self { cache, path, grown: AtomicBool::new(false), on_disk })
    }

    /// For the creation of pipelines.
    pub(super) const fn cache(&self) -> &wgpu::PipelineCache {
        &self.cache
    }

    /// Says that a pipeline was compiled.
    pub(super) fn grew(&self) {
        self.grown.store(true, Ordering::Relaxed);
    }

    /// Writes the file, if there is something new.
    pub(super) fn save(&self) -> Result<(), FileError> {
        if !self.grown.swap(false, Ordering::Relaxed) {
            return Ok(());
        }
        let Some(data) = self.cache.get_data() else { return Ok(()) };
        let mut on_disk = self.on_disk.lock().unwrap_or_else(PoisonError::into_inner);
        let found = Some(checksum(&data));
        if *on_disk == found {
            return Ok(());
        }
        if data.len() > LARGEST {
            return match std::fs::remove_file(&self.path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(FileError::removing(&self.path)(error)),
                _ => Ok(()),
            };
        }
        // Other starts of the program read the file meanwhile.
        write_atomic(&self.path, &pack(&data))?;
        *on_disk = found;
        Ok(())
    }
}

fn create(device: &wgpu::Device, data: Option<&[u8]>) -> Option<wgpu::PipelineCache> {
    let descriptor = wgpu::PipelineCacheDescriptor { label: Some("fairtat"), data, fallback: true };
    #[allow(unsafe_code)]
    // SAFETY: the data came out of `PipelineCache::get_data` on this adapter with this driver: the file's name says so,
    // its checksum holds, and it lies in a directory that only this user writes to.
    scoped(device, || unsafe { device.create_pipeline_cache(&descriptor) }).ok()
}

/// None where the back end keeps no pipelines.
fn file_name(info: &wgpu::AdapterInfo) -> Option<String> {
    let key = wgpu::util::pipeline_cache_key(info)?;
    let driver = short_hash(&[&info.name, &info.driver, &info.driver_info, env!("CARGO_PKG_VERSION")]);
    Some(format!("{key}-{driver}.bin"))
}

/// The beginning of a hash, for file names that tell devices apart.
pub(super) fn short_hash(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

fn checksum(data: &[u8]) -> Checksum {
    Sha256::digest(data).into()
}

fn pack(data: &[u8]) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&checksum(data));
    bytes.extend_from_slice(data);
    bytes
}

/// The driver's data, if the file is whole.
fn unpack(bytes: &[u8]) -> Option<&[u8]> {
    let rest = bytes.strip_prefix(MAGIC)?;
    let (checksum, data) = rest.split_first_chunk::<32>()?;
    (self::checksum(data) == *checksum).then_some(data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_file_is_no_file() {
        let bytes = pack(b"what a driver gave");
        assert_eq!(unpack(&bytes), Some(&b"what a driver gave"[..]));
        assert_eq!(unpack(&[]), None);
        assert_eq!(unpack(&bytes[..30]), None);
        assert_eq!(unpack(&bytes[..bytes.len() - 1]), None);
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x10;
            assert_eq!(unpack(&damaged), None, "byte {at}");
        }
    }

    #[test]
    fn the_folder_can_be_chosen_or_switched_off() {
        let platform = Some(PathBuf::from("home/cache"));
        assert_eq!(folder_from(None, platform.clone()), Some(PathBuf::from("home/cache/pipelines")));
        assert_eq!(folder_from(Some("here".into()), platform.clone()), Some(PathBuf::from("here/pipelines")));
        assert_eq!(folder_from(Some("".into()), platform), None);
        assert_eq!(folder_from(None, None), None);
    }
}
