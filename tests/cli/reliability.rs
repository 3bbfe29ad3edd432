//! `docs/reliability.md` names tests that exist.

use super::*;

/// All Rust sources below a directory, one after the other. Hidden directories hold other things.
fn sources(directory: &Path, text: &mut String) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let (path, name) = {
            let entry = entry.unwrap();
            (entry.path(), entry.file_name().into_string().unwrap())
        };
        if path.is_dir() && !name.starts_with('.') {
            sources(&path, text);
        } else if name.ends_with(".rs") {
            text.push_str(&std::fs::read_to_string(&path).unwrap());
        }
    }
}

#[test]
fn every_promise_names_tests_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(root.join("docs/reliability.md")).unwrap();
    let mut text = String::new();
    for directory in ["src", "tests"] {
        sources(&root.join(directory), &mut text);
    }
    let promises: Vec<&str> =
        page.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| promise")).collect();
    assert!(promises.len() > 20, "{promises:?}");
    for promise in promises {
        let tests: Vec<&str> = promise.rsplit('|').nth(1).unwrap().split('`').skip(1).step_by(2).collect();
        assert!(!tests.is_empty(), "{promise}");
        for test in tests {
            let (before, _) = text.split_once(&format!("fn {test}(")).unwrap_or_else(|| panic!("no function {test}"));
            // Attributes such as cfg may stand between.
            assert!(before.lines().rev().take(4).any(|line| line.trim() == "#[test]"), "{test} is no test");
        }
    }
}
