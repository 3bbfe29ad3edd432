//! The target of every reader: its name is that of the binary.
#![no_main]

use std::path::PathBuf;
use std::sync::LazyLock;

use fairtat::readers::{READERS, Reader};
use libfuzzer_sys::fuzz_target;

static READER: LazyLock<&Reader> = LazyLock::new(|| {
    let found = READERS.iter().find(|reader| reader.name == env!("CARGO_BIN_NAME"));
    found.expect("a target has the name of its reader")
});
static PATH: LazyLock<PathBuf> = LazyLock::new(|| {
    let memory = PathBuf::from("/dev/shm");
    let directory = if memory.is_dir() { memory } else { std::env::temp_dir() };
    directory.join(format!("fairtat-fuzz-{}-{}", READER.name, std::process::id()))
});

fuzz_target!(|bytes: &[u8]| {
    std::fs::write(&*PATH, bytes).expect("the temporary file can be written");
    // An error is fine; a panic, a hang or too much memory is not.
    drop((READER.read)(&PATH));
});
