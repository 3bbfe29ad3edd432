//! What the program says about damaged files of a run, and that its advice can be followed.

use super::*;

fn cut(path: &Path) {
    let bytes = std::fs::read(path).unwrap();
    std::fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
}

/// The commands in a message.
fn commands(message: &str) -> Vec<Vec<&str>> {
    message.split('`').skip(1).step_by(2).map(|command| command.split(' ').collect()).collect()
}

#[test]
fn a_damaged_resume_checkpoint_is_answered_with_what_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    ok(d, &[&TINY[..], &["1"]].concat());
    let file = |name: &str| d.join(format!("run/checkpoints/{name}.safetensors"));
    let whole = std::fs::read(file("resume")).unwrap();
    cut(&file("resume"));
    let follow = |message: &str| {
        for command in commands(message) {
            assert_eq!(command[0], "fairtat", "{message}");
            ok(d, &command[1..]);
        }
    };
    let message = fails(d, &["resume", "run"], 1);
    assert!(message.contains("resume.safetensors: not a whole safetensors file"), "{message}");
    assert!(message.contains("begin another run from the weights in run/checkpoints/best.safetensors, which is whole"));
    assert_eq!(commands(&message).len(), 2, "{message}");
    follow(&message);
    // The next one that is whole.
    cut(&file("best"));
    let message = fails(d, &["resume", "run"], 1);
    assert!(message.contains("the weights in run/checkpoints/last.safetensors, which is whole"), "{message}");
    follow(&message);
    for name in ["last", "ema", "fawa"] {
        std::fs::write(file(name), "").unwrap();
    }
    let message = fails(d, &["resume", "run"], 1);
    assert!(message.contains("no other checkpoint of the run can be read"), "{message}");
    assert_eq!(commands(&message), [["fairtat", "train", "--config", "run/config.toml"]], "{message}");
    follow(&message);
    // Another copy, as advised: what was exported is written again.
    std::fs::write(file("resume"), whole).unwrap();
    ok(d, &["resume", "run"]);
}

#[test]
fn a_results_file_that_cannot_be_written_is_refused_before_anything_is_computed() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    std::fs::write(d.join("file"), "").unwrap();
    for command in [
        // The file of the network does not even exist.
        &["eval", "nope.safetensors"][..],
        &["eval", "nope.safetensors", "other.safetensors"],
        &["post", "normalize-head", "nope.safetensors"],
        &["plan", "--arch", "small-cnn"],
        &["engines"],
        &["bench", "--seconds", "100000"],
    ] {
        let message = fails(d, &[command, &["--json", "file/results.json"]].concat(), 1);
        let expected =
            "error: --json: cannot write file/results.json: Not a directory (os error 20); name another file\n";
        assert!(message.ends_with(expected), "{command:?}: {message}");
        assert!(!cfg!(unix) || names(d).len() == 1, "{:?}", names(d));
    }
}
