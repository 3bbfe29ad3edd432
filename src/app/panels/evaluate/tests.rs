use egui_kittest::Harness;
use egui_kittest::kittest::Queryable;

use super::*;
use crate::app::context::{Format, OpenFor};
use crate::app::sample;
use crate::app::testing::{Stage, harness, shoot};
use crate::app::view::RunView;
use crate::evaluate::robustness::{Suite, Wanted};
use crate::worker::Failure;
use crate::worker::evaluation::{Candidate, EvaluationEnd, EvaluationStage, EvaluationUpdate};

type Window = Harness<'static, Stage<Evaluate>>;

fn window(run: RunView) -> Window {
    let mut harness = harness(Stage::new(Evaluate::default(), run), [1500.0, 1300.0], 1.0, true);
    harness.run_steps(4);
    harness
}

fn press(window: &mut Window, label: &str) {
    window.get_by_label(label).click();
    window.run_steps(4);
}

/// The jobs that the panel has asked about, and those that it has started.
fn asked(window: &mut Window) -> (Vec<EvaluationJob>, Vec<EvaluationJob>) {
    let (mut looks, mut starts) = (Vec::new(), Vec::new());
    for action in std::mem::take(&mut window.state_mut().actions) {
        match action {
            Action::LookAtEvaluation(job) => looks.push(*job),
            Action::StartEvaluation(job) => starts.push(*job),
            other => panic!("{other:?}"),
        }
    }
    (looks, starts)
}

fn tell(window: &mut Window, updates: impl IntoIterator<Item = EvaluationUpdate>) {
    updates.into_iter().for_each(|update| window.state_mut().evaluation.apply(update));
    window.run_steps(4);
}

/// Answers the newest question.
fn answer(window: &mut Window, held: &Held) -> EvaluationJob {
    let job = asked(window).0.pop().unwrap();
    tell(window, [EvaluationUpdate::Prospect(sample::evaluation::prospect(&job, held))]);
    job
}

#[test]
fn the_choices_become_a_job() {
    let mut window = window(sample::run());
    assert!(window.query_by_label("How robust is a network really?").is_some());
    // Nothing is asked, and nothing starts, without a checkpoint.
    press(&mut window, "Start evaluation");
    assert!(asked(&mut window).0.is_empty());
    press(&mut window, "Best of this run");
    let job = answer(&mut window, &Held::Nothing);
    assert_eq!(job.checkpoints, [PathBuf::from("runs/cifar10-small/checkpoints/best.safetensors")]);
    assert_eq!((job.wanted.len(), job.controls, job.limit), (1, false, Some(1000)));
    assert_eq!((job.settings, job.directory), (Default::default(), None));
    assert!(window.query_by_label("cifar10-small/best").is_some());
    assert!(window.query_by_label_contains("on cifar10").is_some());
    assert!(window.query_by_label("→ runs/cifar10-small/evaluation").is_some());

    for label in ["AutoAttack", "PGD", "Square", "All test images", "Write the adversarial images"] {
        press(&mut window, label);
    }
    let job = answer(&mut window, &Held::Nothing);
    let square = "square".parse::<Wanted>().unwrap();
    assert_eq!(job.wanted, [square, Wanted::Suite(Suite::AutoAttack)]);
    assert!(job.controls && job.keep_images && job.limit.is_none());
    press(&mut window, "Controls that check the attacks");
    press(&mut window, "own number");
    press(&mut window, "That of the checkpoint's experiment");
    press(&mut window, "L2");
    let job = answer(&mut window, &Held::Nothing);
    assert!(!job.controls);
    assert_eq!((job.settings.steps, job.settings.norm), (Some(20), Some(crate::engine::Norm::L2)));
    assert_eq!(job.settings.epsilon, Some(crate::units::Epsilon::levels(127.5)));
    shoot(&mut window, "evaluate-choices");

    press(&mut window, "Copy as command");
    let [Action::CopyText(command)] = &window.state().actions[..] else { panic!("{:?}", window.state().actions) };
    assert!(command.starts_with("fairtat eval runs/cifar10-small/checkpoints/best.safetensors "), "{command}");
    assert!(command.contains("--attack square,autoattack --steps 20 --norm l2 --epsilon 127.5/255"), "{command}");
    assert!(command.ends_with("--report runs/cifar10-small/evaluation --save-images"), "{command}");
    window.state_mut().actions.clear();

    press(&mut window, "Start evaluation");
    assert_eq!(asked(&mut window).1, [job]);
}

#[test]
fn checkpoints_are_typed_chosen_and_removed() {
    let mut window = window(RunView::default());
    assert!(window.query_by_label("Best of this run").is_none());
    window.get_by_label("Path of a checkpoint").click();
    window.run_steps(2);
    window.get_by_label("Path of a checkpoint").type_text("weights/net.pth");
    window.run_steps(2);
    window.key_press(egui::Key::Enter);
    window.run_steps(4);
    assert_eq!(window.state().panel.choices.checkpoints, [PathBuf::from("weights/net.pth")]);
    window.state_mut().panel.add("runs/a".into());
    window.run_steps(4);
    press(&mut window, "Files without an experiment belong to that of the panel Experiment");
    let job = answer(&mut window, &Held::Nothing);
    assert_eq!(job.checkpoints.len(), 2);
    let foreign = job.foreign.unwrap();
    assert_eq!((foreign.experiment.as_ref(), foreign.normalize), (&window.state().form.experiment, None));
    window.state_mut().panel.choices.normalize = "cifar11".into();
    window.run_steps(4);
    assert!(window.query_by_label_contains("expected cifar10, cifar100").is_some());
    window.state_mut().panel.choices.normalize = "none".into();
    window.run_steps(4);
    let foreign = answer(&mut window, &Held::Nothing).foreign.unwrap();
    assert_eq!(foreign.normalize, Some("none".parse().unwrap()));
    press(&mut window, "Remove net.pth");
    assert_eq!(window.state().panel.choices.checkpoints, [PathBuf::from("runs/a")]);
    window.state_mut().actions.clear();
    for (label, purpose) in [("File…", OpenFor::Evaluate), ("Run…", OpenFor::EvaluateRun), ("Choose…", OpenFor::Report)]
    {
        press(&mut window, label);
        let opened =
            window.state().actions.iter().any(|action| matches!(action, Action::Open(open) if *open == purpose));
        assert!(opened, "{label}");
    }
    window.state_mut().panel.report_to(Path::new("reports/x"));
    window.state_mut().actions.clear();
    window.run_steps(4);
    assert_eq!(answer(&mut window, &Held::Nothing).directory, Some(PathBuf::from("reports/x")));
}

#[test]
fn an_unfinished_evaluation_is_resumed() {
    let mut window = window(sample::run());
    press(&mut window, "Best of this run");
    answer(&mut window, &Held::Same);
    assert!(window.query_by_label_contains("unfinished; Resume continues it").is_some());
    press(&mut window, "Resume evaluation");
    assert_eq!(asked(&mut window).1.len(), 1);
    // Of several checkpoints, those that are done are left out.
    window.state_mut().panel.add("runs/b".into());
    window.run_steps(4);
    let job = answer(&mut window, &Held::Same);
    let mut updates = sample::evaluation::all(&[]);
    updates[0] = EvaluationUpdate::Started(Box::new(job.clone()));
    updates.pop();
    updates.push(EvaluationUpdate::Ended(EvaluationEnd::Cancelled));
    tell(&mut window, updates);
    let again = answer(&mut window, &Held::Same);
    assert_eq!(again, job, "what a directory holds is asked again after an end");
    press(&mut window, "Resume evaluation");
    assert_eq!(asked(&mut window).1, [EvaluationJob { skip: 1, ..job.clone() }]);
    let started = EvaluationUpdate::Started(Box::new(EvaluationJob { skip: 1, ..job }));
    tell(&mut window, [started]);
    let view = &window.state().evaluation;
    assert!(view.checkpoints[0].finished.is_some() && view.checkpoints[1].began.is_none());
}

#[test]
fn progress_is_shown_attack_by_attack() {
    let mut window = window(sample::run());
    tell(&mut window, sample::evaluation::first(2));
    assert!(window.query_by_label("attack 3 of 9: APGD-T").is_some());
    assert!(window.query_by_label("clean: 100 % done").is_some());
    assert!(window.query_by_label("APGD-T: 50 % done").is_some());
    assert!(window.query_by_label("FAB-T: 0 % done").is_some());
    assert_eq!(window.query_all_by_label("to come").count(), 6);
    assert_eq!(window.query_all_by_label_contains(" withstand").count(), 3);
    assert!(window.query_all_by_label_contains(" left").count() >= 1);
    assert!(window.query_by_label("Accuracy by class").is_none());
    press(&mut window, "Cancel evaluation");
    let cancels = window.state().actions.iter().any(|a| matches!(a, Action::Command(Command::CancelEvaluation)));
    assert!(cancels);
    window.state_mut().evaluation.status = EvaluationStatus::Cancelling;
    window.run_steps(2);
    assert!(window.query_by_label("Cancelling…").is_some());
    let stage = EvaluationStage::Saving;
    window.state_mut().evaluation.status = EvaluationStatus::Running;
    tell(&mut window, [EvaluationUpdate::Stage { checkpoint: 0, stage }]);
    assert!(window.query_by_label("writing the report").is_some());
}

#[test]
fn the_result_is_a_table_with_examples_and_exports() {
    let mut window = window(sample::run());
    tell(&mut window, sample::evaluation::all(&["Gradients may be masked"]));
    assert!(window.query_by_label("These numbers may be too high").is_some());
    assert!(window.query_by_label("Gradients may be masked").is_some());
    assert!(window.query_by_label_contains("Worst class: cat, ").is_some());
    for column in ["+ APGD-T", "+ FAB-T", "+ Square", "worst case"] {
        assert_eq!(window.query_all_by_label(column).count(), 1, "{column}");
    }
    let clean = window.query_all_by_label_contains("Test image").count();
    assert!(clean >= 24, "{clean}");
    shoot(&mut window, "evaluate-done");
    press(&mut window, "Open report");
    press(&mut window, "Copy path");
    let actions = std::mem::take(&mut window.state_mut().actions);
    let [Action::OpenPath(path), Action::CopyText(text)] = &actions[..] else { panic!("{actions:?}") };
    assert_eq!(
        (path.as_path(), text.as_str()),
        (Path::new("runs/cifar10-small/evaluation/report.md"), "runs/cifar10-small/evaluation")
    );
    for (which, format) in [("Save numbers as CSV…", Format::Csv), ("Save as SVG…", Format::Svg)] {
        let menu = if format == Format::Csv { "Export evaluation" } else { "Export adversarial examples" };
        press(&mut window, menu);
        press(&mut window, which);
    }
    let actions = std::mem::take(&mut window.state_mut().actions);
    let [Action::Export(table, Format::Csv), Action::Export(images, Format::Svg)] = &actions[..] else {
        panic!("{actions:?}")
    };
    assert!(table.csv.starts_with("name,attack,class,accuracy,low,high,images\nclean,"), "{}", table.csv);
    assert!(table.csv.contains("worst-case,") && table.svg.contains("APGD-T"));
    assert!(
        images.svg.contains("APGD-CE") && images.name == "cifar10-small-best-adversarial-apgd-ce",
        "{}",
        images.name
    );
    assert_eq!(images.csv.lines().count(), 9);
}

#[test]
fn what_cannot_be_evaluated_says_so_beside_the_choice() {
    let mut window = window(sample::run());
    press(&mut window, "Best of this run");
    let job = asked(&mut window).0.pop().unwrap();
    let failure = Failure {
        doing: "opening x".into(),
        what: "x does not record its network and data".into(),
        advice: Some("Set the panel Experiment.".into()),
        run: None,
    };
    let candidate = Candidate { path: job.checkpoints[0].clone(), found: Err(failure.clone()) };
    let prospect = Prospect { job, checkpoints: vec![candidate] };
    tell(&mut window, [EvaluationUpdate::Prospect(Arc::new(prospect))]);
    assert!(window.query_by_label("x does not record its network and data").is_some());
    assert!(window.query_by_label("Set the panel Experiment.").is_some());
    press(&mut window, "Start evaluation");
    assert!(asked(&mut window).1.is_empty(), "it cannot start");

    // CW is for L2. It can be chosen there, and the norm changed afterwards.
    press(&mut window, "CW");
    assert!(!window.state().panel.choices.wanted.contains(&"cw".parse().unwrap()));
    press(&mut window, "That of the checkpoint's experiment");
    press(&mut window, "L2");
    press(&mut window, "CW");
    assert!(window.state().panel.choices.wanted.contains(&"cw".parse().unwrap()));
    press(&mut window, "L∞");
    answer(&mut window, &Held::Nothing);
    assert!(window.query_by_label_contains("CW searches the nearest image in L2").is_some());
    press(&mut window, "Start evaluation");
    assert!(asked(&mut window).1.is_empty());
    press(&mut window, "CW");
    answer(&mut window, &Held::Other("limit was 7, now 1000".into()));
    assert!(window.query_by_label_contains("another unfinished evaluation: limit was 7").is_some());
    press(&mut window, "Start evaluation");
    assert!(asked(&mut window).1.is_empty(), "it would not be mixed in");

    // A failure of the evaluation itself.
    let started = EvaluationUpdate::Started(Box::new(sample::evaluation::job()));
    let failed = EvaluationUpdate::Failed { checkpoint: 0, failure };
    tell(&mut window, [started, failed, EvaluationUpdate::Ended(EvaluationEnd::Done)]);
    assert!(window.query_by_label("failed").is_some());
    assert!(window.query_all_by_label("Set the panel Experiment.").count() >= 1);
}
