//! Pipeline cache on disk, so that the driver does not compile every shader at every start.
//!
//! Only Vulkan exports compiled pipelines. A file consists of `MAGIC`, the SHA-256 of the data, and the driver's data.
//! The checksum is needed because wgpu checks the header of the data but not its body, and a driver need not survive a
//! damaged body. The file's name identifies the adapter, its driver and the version of this program; a file that does
//! not match is ignored and replaced.
//!
//! Some drivers export an empty cache and have their own: Mesa's lavapipe returns 32 bytes, and starts as fast without
//! our file.
//!
//! The same directory holds, as JSON, the kernels that were measured to be fastest on each device
//! ([`super::kernel_tables`]).

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use sha2::{Digest, Sha256};

use super::error::scoped;
use crate::files::{FileError, write_atomic};

const MAGIC: &[u8; 8] = b"fairtat1";
type Checksum = [u8; 32];
/// Maximum size of a cache in bytes. A cache only grows; beyond this size its file is deleted, so that
/// the next start begins a new one.
const LARGEST: usize = 64 << 20;

/// The directory for compiled pipelines: below `FAIRTAT_CACHE`, or in the platform's cache directory. `None` if
/// `FAIRTAT_CACHE` is set but empty (no cache), or if the user has no home directory.
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
    /// Whether a pipeline was compiled since the last [`Self::save`].
    grown: AtomicBool,
    /// Checksum of the data in the file. `None` if there is no intact file.
    on_disk: Mutex<Option<Checksum>>,
}

impl PipelineStore {
    /// Loads the store of this device from `folder`, or creates an empty one. `None` if the backend has no pipeline
    /// cache.
    pub(super) fn open(device: &wgpu::Device, info: &wgpu::AdapterInfo, folder: &Path) -> Option<Self> {
        if !device.features().contains(wgpu::Features::PIPELINE_CACHE) {
            return None;
        }
        let path = folder.join(file_name(info)?);
        let bytes = crate::files::read(&path).unwrap_or_default();
        let data = unpack(&bytes);
        let on_disk = Mutex::new(data.map(checksum));
        let cache = data.and_then(|data| create(device, Some(data))).or_else(|| create(device, None))?;
        Some(Self { cache, path, grown: AtomicBool::new(false), on_disk })
    }

    /// The cache to pass when pipelines are created.
    pub(super) const fn cache(&self) -> &wgpu::PipelineCache {
        &self.cache
    }

    /// Records that a pipeline was compiled.
    pub(super) fn grew(&self) {
        self.grown.store(true, Ordering::Relaxed);
    }

    /// Writes the file if the data has changed.
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
        // Other processes may read the file at the same time.
        write_atomic(&self.path, &pack(&data))?;
        *on_disk = found;
        Ok(())
    }
}

fn create(device: &wgpu::Device, data: Option<&[u8]>) -> Option<wgpu::PipelineCache> {
    let descriptor = wgpu::PipelineCacheDescriptor { label: Some("fairtat"), data, fallback: true };
    #[allow(unsafe_code)]
    // SAFETY: the data was returned by `PipelineCache::get_data` on this adapter with this driver: the file's name
    // matches, its checksum is correct, and it lies in a directory that only this user writes to.
    scoped(device, || unsafe { device.create_pipeline_cache(&descriptor) }).ok()
}

/// `None` if the backend has no pipeline cache.
fn file_name(info: &wgpu::AdapterInfo) -> Option<String> {
    let key = wgpu::util::pipeline_cache_key(info)?;
    let driver = short_hash(&[&info.name, &info.driver, &info.driver_info, env!("CARGO_PKG_VERSION")]);
    Some(format!("{key}-{driver}.bin"))
}

/// The first bytes of a hash, for file names that distinguish devices.
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

/// The driver's data. `None` if the file is damaged.
fn unpack(bytes: &[u8]) -> Option<&[u8]> {
    let rest = bytes.strip_prefix(MAGIC)?;
    let (checksum, data) = rest.split_first_chunk::<32>()?;
    (self::checksum(data) == *checksum).then_some(data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_file_is_ignored() {
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
