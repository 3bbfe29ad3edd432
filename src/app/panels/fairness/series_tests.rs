use egui::Key;
use egui_kittest::kittest::Queryable;

use super::tests::{Shown, tall};
use super::*;
use crate::app::context::{Action, Format};
use crate::app::sample;
use crate::app::testing::{Stage, harness, shoot};
use crate::config::MethodChoice;

/// Difficulty of a class, between 0 and 1.
fn hard(class: usize) -> f64 {
    (0.15 + 0.618_033_988_75 * class as f64).fract()
}

/// Weights as WAT has them: all 2 at first, concentrating on the hardest class.
fn concentrating(_: &str, epoch: u32, class: usize) -> f64 {
    let power = |class: usize| (4.0 * f64::from(epoch) / 17.0 * hard(class)).exp();
    let average = power(3) / 2.0;
    let sum = (0..10).map(power).sum::<f64>() + average;
    if epoch == 0 { 2.0 } else { 10.0 * (power(class) + average) / sum }
}

/// Weights as DAFA has them: measured once, all 1 before.
fn measured(_: &str, epoch: u32, class: usize) -> f64 {
    if epoch < 9 { 1.0 } else { 0.8 + 0.4 * hard(class) }
}

/// As TRIX: weights from 0 and a switch.
fn switched(name: &str, epoch: u32, class: usize) -> f64 {
    let weak = hard(class) > 0.5 + 0.02 * f64::from(epoch);
    match name {
        "weight" if epoch == 0 => 1.0,
        "weight" => (2.0 * hard(class) + 0.3 * (f64::from(epoch) + 3.0 * class as f64).sin() - 0.2).max(0.0),
        _ => f64::from(u8::from(epoch > 0 && !weak)),
    }
}

/// As FRL: weights with mean `1 / K`, and multipliers of the hard classes.
fn limited(_: &str, epoch: u32, class: usize) -> f64 {
    0.1 + 0.02 * f64::from(epoch) * (hard(class) - 0.485) * 0.3
}

/// As Friendly adversarial training with a budget of 3: easy classes use less and less.
fn used(_: &str, epoch: u32, class: usize) -> f64 {
    3.0 * (0.1 + 0.9 * hard(class)) * (-0.08 * f64::from(epoch)).exp()
}

/// The description of the cell that the keyboard has selected in a heatmap.
fn selected(harness: &Shown<'_>, title: &str) -> String {
    harness.get_by_label(&format!("{title} by class and epoch")).value().unwrap()
}

#[test]
fn bars_and_heatmap_show_what_a_method_adapts() {
    let run = sample::run_of(MethodChoice::Frl, 10, |name, epoch, class| {
        0.05 + 0.01 * class as f64 + if name == "clean_weight" { 0.001 * f64::from(epoch) } else { 0.0 }
    });
    let harness = tall(run);
    // Mean 0.045 + 0.05 + 0.017 in the last epoch.
    let text = "cat: Weight of the clean loss 0.097, 0.87 × the mean weight";
    assert!(harness.query_by_label(text).is_some());
    assert!(harness.query_by_label("mean 0.112").is_some());
    assert_eq!(selected(&harness, "Weight of the boundary loss"), "airplane, epoch 1: 0.050, 0.53 × the mean weight");
    let mut run = sample::run_of(MethodChoice::Frl, 10, |_, _, _| 0.1);
    run.epochs.iter_mut().flat_map(|epoch| &mut epoch.classes).for_each(|row| row.series.clear());
    let harness = tall(run);
    for text in ["Weight of the clean loss", "Weight of the boundary loss"] {
        assert!(harness.query_by_label(text).is_some(), "{text}");
    }
    assert!(harness.query_all_by_label_contains("Known from the end of the first epoch").count() >= 2);
}

#[test]
fn budgets_are_compared_with_the_budget_of_their_epoch() {
    let mut run = sample::run_of(MethodChoice::Fat, 10, used);
    let experiment = run.experiment.as_mut().unwrap();
    (experiment.fat.tau, experiment.fat.tau_epochs) = (vec![2, 3], vec![4]);
    let harness = tall(run);
    assert!(harness.query_by_label("budget 3").is_some());
    let text = selected(&harness, "Steps after the first mistake");
    assert!(text.starts_with("airplane, epoch 1: ") && text.ends_with(" of 2 steps"), "{text}");
}

/// The first epochs of a run that was resumed with another method have no values.
#[test]
fn epochs_without_values_stay_empty() {
    let mut run = sample::run_of(MethodChoice::Trix, 10, switched);
    run.epochs[..4].iter_mut().flat_map(|epoch| &mut epoch.classes).for_each(|row| row.series.clear());
    let harness = tall(run);
    assert_eq!(selected(&harness, "Weight of the loss"), "airplane, epoch 1: not measured");
}

#[test]
fn a_cell_selects_its_epoch() {
    let mut harness = tall(sample::run_of(MethodChoice::Dafa, 10, measured));
    harness.get_by_label("Weight of the loss by class and epoch").focus();
    harness.run();
    harness.key_press(Key::ArrowRight);
    harness.key_press(Key::ArrowRight);
    harness.key_press(Key::Enter);
    harness.run();
    assert_eq!(harness.state().focus.epoch, Some(2));
    assert!(harness.query_by_label("cat: Weight of the loss 1.000, 1.00 × the mean weight").is_some());
}

#[test]
fn exports_have_the_values_of_all_epochs() {
    let run = sample::run_of(MethodChoice::Dafa, 10, measured);
    let mut harness = tall(run);
    harness.get_by_label("Export Weight of the loss").click();
    harness.run();
    harness.get_by_label("Save numbers as CSV…").click();
    harness.run();
    let [Action::Export(export, Format::Csv)] = &harness.state().actions[..] else { panic!() };
    assert_eq!(export.csv.lines().count(), 1 + 18 * 10);
    assert_eq!(export.csv.lines().next(), Some("epoch,class,name,weight"));
    assert_eq!(export.csv.lines().nth(1 + 17 * 10 + 3), Some(format!("17,3,cat,{}", measured("", 17, 3)).as_str()));
    assert!(export.svg.contains("Weight of the loss") && export.name.ends_with("weight"), "{}", export.name);
    if let Some(directory) = std::env::var_os("SHOTS") {
        std::fs::write(std::path::Path::new(&directory).join("series.svg"), &export.svg).unwrap();
        let png = crate::evaluate::figures::png(&export.svg).unwrap();
        std::fs::write(std::path::Path::new(&directory).join("series-figure.png"), png).unwrap();
    }
}

type Values = fn(&str, u32, usize) -> f64;

/// Writes pictures for viewing if `SHOTS` is set; otherwise only checks that every series can be drawn.
#[test]
fn they_draw_in_both_themes_and_at_every_size() {
    let runs: [(&str, MethodChoice, Values); 5] = [
        ("wat", MethodChoice::Wat, concentrating),
        ("dafa", MethodChoice::Dafa, measured),
        ("trix", MethodChoice::Trix, switched),
        ("frl", MethodChoice::Frl, limited),
        ("fat", MethodChoice::Fat, used),
    ];
    for (name, method, values) in runs {
        for (theme, dark, size) in
            [("dark", true, [1600.0, 1900.0]), ("light", false, [1024.0, 1900.0]), ("narrow", false, [512.0, 2600.0])]
        {
            if theme == "narrow" && name != "frl" {
                continue;
            }
            let run = sample::run_of(method, 10, values);
            let mut harness = harness(Stage::new(Fairness::default(), run), size, 1.0, dark);
            harness.run();
            shoot(&mut harness, &format!("series-{name}-{theme}"));
        }
    }
    for (classes, dark) in [(2, false), (100, true)] {
        let run = sample::run_of(MethodChoice::Trix, classes, switched);
        let mut harness = harness(Stage::new(Fairness::default(), run), [1600.0, 2200.0], 1.0, dark);
        harness.run();
        shoot(&mut harness, &format!("series-{classes}"));
    }
}
