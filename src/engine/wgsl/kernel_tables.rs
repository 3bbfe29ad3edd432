//! Tables of measured kernels on disk, one per device, in the directory of the pipeline cache ([`super::cache`]).

use std::path::Path;

use super::cache::short_hash;
use super::tuning::{KernelChoice, KernelDevice, KernelTable};
use crate::files::{FileError, write_atomic};

/// The measurements of this device so far. Empty if the file cannot be read or belongs to another program.
pub(super) fn load(folder: &Path, device: &KernelDevice) -> Vec<KernelChoice> {
    let text = crate::files::read(&folder.join(file_name(device))).unwrap_or_default();
    let table = serde_json::from_slice::<KernelTable>(&text).ok().filter(|table| table.device == *device);
    table.map_or(Vec::new(), |table| table.convolutions)
}

/// Replaces the measurements of a device.
pub(super) fn save(folder: &Path, table: &KernelTable) -> Result<(), FileError> {
    let path = folder.join(file_name(&table.device));
    let mut text = serde_json::to_vec_pretty(table).map_err(|e| FileError::writing(&path)(e.into()))?;
    text.push(b'\n');
    write_atomic(&path, &text)
}

/// One file per device and driver: it replaces the measurements of earlier versions of the program.
fn file_name(device: &KernelDevice) -> String {
    format!("kernels-{}.json", short_hash(&[&device.adapter, &device.backend, &device.driver]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_come_back_and_damaged_or_foreign_files_are_none() {
        use crate::data::ImageShape;
        use crate::engine::wgsl::tuning::Choices;
        use crate::model::Architecture;
        let device = KernelDevice {
            adapter: "a GPU".into(),
            backend: "vulkan".into(),
            driver: "a driver 1.2".into(),
            program: "fairtat 1".into(),
            shaders: "0a".into(),
        };
        let network = Architecture::SmallCnn.build(ImageShape::new(3, 9, 9), 4, None, Some(8));
        let table = crate::engine::wgsl::autotune::table(device.clone(), &network, &Choices::default());
        assert!(table.convolutions.len() >= 3);
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("pipelines");
        assert!(load(&folder, &device).is_empty());
        save(&folder, &table).unwrap();
        assert_eq!(load(&folder, &device), table.convolutions);

        let file = folder.join(file_name(&device));
        let text = std::fs::read(&file).unwrap();
        for damaged in [&text[..text.len() / 2], b"", b"[]", b"{\"device\": 1}", b"\xff"] {
            std::fs::write(&file, damaged).unwrap();
            assert!(load(&folder, &device).is_empty());
        }
        save(&folder, &table).unwrap();
        // Another driver has a separate file; other shaders and another program overwrite this one.
        let driver = KernelDevice { driver: "a driver 1.3".into(), ..device.clone() };
        let shaders = KernelDevice { shaders: "0b".into(), ..device.clone() };
        let program = KernelDevice { program: "fairtat 2".into(), ..device.clone() };
        for other in [&driver, &shaders, &program] {
            assert!(load(&folder, other).is_empty(), "{other:?}");
        }
        for other in [driver, shaders] {
            save(&folder, &KernelTable { device: other, convolutions: Vec::new() }).unwrap();
        }
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 2);
        assert!(load(&folder, &device).is_empty());
    }
}
