use egui_kittest::Harness;
use egui_kittest::kittest::Queryable;

use super::Experiment;
use super::machine::{Gpus, Images, Machine};
use crate::app::command::Command;
use crate::app::context::Action;
use crate::app::sample;
use crate::app::testing::{Stage, harness, shoot};
use crate::app::view::RunView;

fn machine() -> Machine {
    let gpus = Gpus { adapters: Vec::new(), engine: "WGSL on Example GPU (discrete)".into() };
    let text = "built in: 1,797 handwritten digits, 8×8 grey".into();
    Machine::fixed(gpus, Images { text, command: None, missing: false })
}

fn stage(run: RunView) -> Stage<Experiment> {
    Stage::new(Experiment::on(machine()), run)
}

fn shown<'a>(run: RunView, size: [f32; 2]) -> Harness<'a, Stage<Experiment>> {
    let mut harness = harness(stage(run), size, 1.0, true);
    harness.run();
    harness
}

#[test]
fn pictures() {
    for (size, name) in [([360.0, 900.0], "360x900"), ([512.0, 350.0], "512x350"), ([1000.0, 700.0], "1000x700")] {
        for dark in [true, false] {
            for live in [true, false] {
                let run = if live { sample::run() } else { RunView::default() };
                let mut stage = stage(run);
                stage.form.load_preset(if live { "cifar10-small" } else { "digits-60s" }).unwrap();
                stage.form.set("optimizer.lr", serde_json::json!(0.05)).unwrap();
                stage.form.set("attack.epsilon", serde_json::json!("16/255")).unwrap();
                if !live {
                    stage.form.set("optimizer.epochs", serde_json::json!(0)).unwrap();
                }
                let mut harness = harness(stage, size, 2.0, dark);
                harness.run();
                let theme = if dark { "dark" } else { "light" };
                shoot(&mut harness, &format!("{name}-{theme}-{}", if live { "live" } else { "idle" }));
            }
        }
    }
}

#[test]
fn start_asks_for_a_run() {
    let mut harness = shown(RunView::default(), [360.0, 900.0]);
    harness.get_by_label("Start").click();
    harness.run();
    assert!(matches!(harness.state().actions[..], [Action::Command(Command::Start)]));
}
