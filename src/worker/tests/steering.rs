//! Tests of pausing, single steps, radii set by hand, changes of the experiment, and stopping.

use super::*;
use crate::engine::Norm;
use crate::units::Epsilon;

const HOURS: Duration = Duration::from_secs(3600);

/// Requests eight images of every step of every attack.
fn wish() -> Request {
    Request::Examples(Some(ExamplesWish { count: 48, every: Duration::ZERO }))
}

fn next_batch(driver: &mut Driver) -> BatchPoint {
    driver.until("a batch", |update| if let Update::Batch(point) = update { Some(point.clone()) } else { None })
}

fn log(path: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(path.join("log.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Largest change of a value in each image.
fn radii(examples: &Examples) -> Vec<f32> {
    let image = examples.shape.len();
    let pairs = examples.clean.chunks(image).zip(examples.adversarial.chunks(image));
    pairs.map(|(a, b)| a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)).collect()
}

#[test]
fn a_run_that_is_stopped_while_it_is_opened_ends_at_once_and_is_no_failure() {
    let dir = tempfile::tempdir().unwrap();
    let path = run_in(&dir);
    let mut driver = Driver::new();
    driver.begin(experiment(), &path, false);
    driver.send(Request::Stop { save: true });
    assert!(matches!(driver.until_ended(), Ended::Discarded));
    assert!(!path.exists());
    assert!(!driver.told.iter().any(|update| matches!(update, Update::Failed(_) | Update::Opened(_))));
}

#[test]
fn a_run_is_steered_from_its_first_batch_to_its_report() {
    let dir = tempfile::tempdir().unwrap();
    let path = run_in(&dir);
    let mut driver = Driver::new();
    driver.begin(experiment(), &path, true);
    driver.until_paused();
    assert!(driver.batches().is_empty(), "it waits before the first batch");
    let pause = Duration::from_millis(1500);
    std::thread::sleep(pause);

    driver.send(Request::OneBatch);
    let first = next_batch(&mut driver);
    assert_eq!(first.done, 1);
    let [all, attack, update, statistics] = first.seconds;
    let rest = all - attack - update - statistics;
    assert!((0.0..pause.as_secs_f64()).contains(&rest), "the pause counts as training: {:?}", first.seconds);
    driver.until_paused();

    // An attack has three steps: after each of the first two the run waits within the attack.
    driver.send(wish());
    let mut steps = Vec::new();
    for _ in 0..3 {
        driver.send(Request::OneAttackStep);
        driver.until("the attack or a batch", |update| match update {
            Update::Phase(Phase::Attack) | Update::Batch(_) => Some(()),
            _ => None,
        });
        driver.until_paused();
        steps.push(driver.examples().last().unwrap().step);
    }
    assert_eq!(steps, [(1, 3), (2, 3), (3, 3)]);
    assert_eq!(driver.batches().iter().map(|point| point.done).collect::<Vec<_>>(), [1, 2]);

    // A radius set by hand applies from the next batch.
    let mut holds = vec![Hold::default(); 10];
    holds[3] = Hold { epsilon: Some(0.5 / 255.0), locked: true };
    holds[4] = Hold { epsilon: Some(1.0 / 255.0), locked: false };
    driver.send(Request::Epsilon(holds.clone()));
    let held = |update: &Update| if let Update::Held(holds) = update { Some(holds.clone()) } else { None };
    assert_eq!(driver.until("the radii", held), holds);
    driver.send(Request::OneBatch);
    let point = next_batch(&mut driver);
    driver.until_paused();
    assert_eq!((point.epsilon[3], point.epsilon[4]), (0.5 / 255.0, 1.0 / 255.0));
    assert_eq!(point.epsilon[5], point.rule[5]);
    assert!(point.rule[3] > point.epsilon[3]);
    let examples = driver.examples().last().unwrap().clone();
    assert_eq!(examples.batch, 2);
    for ((radius, epsilon), label) in radii(&examples).into_iter().zip(&examples.epsilon).zip(&examples.labels) {
        assert!((f64::from(*epsilon) - point.epsilon[*label as usize]).abs() < 1e-8);
        assert!(radius <= epsilon + 1e-6, "class {label}: {radius} > {epsilon}");
    }
    assert!(examples.labels.contains(&3) && examples.labels.contains(&4));

    // The learning rate changes now, the method in the next epoch, the seed never.
    let mut changed = experiment();
    changed.optimizer.lr = 0.0125;
    changed.fairness.lambda_rob = 0.75;
    changed.run.seed = 9;
    driver.send(Request::Change(Box::new(changed.clone())));
    driver.until("a warning", |update| {
        matches!(update, Update::Warning(text) if text.contains("run.seed")).then_some(())
    });
    let in_force = |update: &Update| if let Update::Changed(e) = update { Some(e.clone()) } else { None };
    changed.run.seed = experiment().run.seed;
    assert_eq!(*driver.until("the change", in_force), changed);
    driver.send(Request::OneBatch);
    let point = next_batch(&mut driver);
    assert_eq!((changed.optimizer.lr, changed.optimizer.epochs), (0.0125, 2));
    assert_eq!((point.lr, point.done), (changed.optimizer.lr_at(0, 3, 4), 4));

    // The epoch ends, and the radii set by hand stay until they are given back.
    driver.until_paused();
    driver.send(Request::OneBatch);
    let point = next_batch(&mut driver);
    assert_eq!((point.epoch, point.epsilon[3], point.epsilon[4]), (1, 0.5 / 255.0, 1.0 / 255.0));
    driver.until_paused();
    holds[4] = Hold::default();
    driver.send(Request::Epsilon(holds.clone()));
    assert_eq!(driver.until("one radius given back", held), holds);
    driver.send(Request::OneBatch);
    let point = next_batch(&mut driver);
    assert_eq!((point.epsilon[3], point.epsilon[4]), (0.5 / 255.0, point.rule[4]));
    driver.until_paused();
    driver.send(Request::Stop { save: true });
    assert!(matches!(driver.until_ended(), Ended::Saved));
    drop(driver);

    let (directory, written) = crate::train::RunDir::open(&path).unwrap();
    assert_eq!(written, changed);
    let text = std::fs::read_to_string(path.join("config.toml")).unwrap();
    assert!(text.starts_with("# ") && text.contains("in epoch 1 before batch 4"), "{text}");
    assert_eq!(Experiment::load(&path.join("config.begin.toml")).unwrap(), experiment());
    let events: Vec<_> = log(&path).into_iter().filter(|line| line["event"] != "epoch").collect();
    let names: Vec<_> = events.iter().map(|line| line["event"].as_str().unwrap()).collect();
    assert_eq!(names, ["hold", "change", "checkpoint", "hold", "checkpoint"]);
    assert_eq!((events[3]["epoch"].as_u64(), events[3]["batch"].as_u64()), (Some(1), Some(1)), "one is given back");
    assert_eq!((events[0]["batch"].as_u64(), events[0]["new"][3]["epsilon"].as_f64()), (Some(2), Some(0.5 / 255.0)));
    let fields = events[1]["fields"].as_array().unwrap();
    let lr = fields.iter().find(|field| field["field"] == "optimizer.lr").unwrap();
    assert_eq!((lr["old"].as_f64(), lr["new"].as_f64()), (Some(experiment().optimizer.lr), Some(0.0125)));
    assert_eq!(fields.len(), 2);
    let (_, classes) = directory.read_rows().unwrap();
    assert_eq!((classes[3].epsilon, classes[4].epsilon), (0.5 / 255.0, 1.0 / 255.0), "in force when the epoch ended");

    // A resume keeps all of it.
    let mut driver = Driver::new();
    driver.resume(&path, false);
    assert_eq!(*driver.opened().experiment, changed);
    assert_eq!(driver.until("the radii", held)[3], holds[3]);
    let point = next_batch(&mut driver);
    assert_eq!((point.epoch, point.done, point.lr), (1, 3, changed.optimizer.lr_at(1, 2, 4)));
    assert_eq!(point.epsilon[3], 0.5 / 255.0);
    assert!(matches!(driver.until_ended(), Ended::Finished(_)));
    assert!(path.join("evaluation.json").exists());
}

/// A change for the next epoch does not affect the rest of this one, even if the run is stopped in between.
#[test]
fn a_change_waits_for_its_epoch_through_a_stop() {
    let dir = tempfile::tempdir().unwrap();
    let [whole, stopped] = ["whole", "stopped"].map(|name| dir.path().join(name));
    let mut changed = experiment();
    changed.attack.epsilon = crate::units::Epsilon::levels(20.0);
    changed.fairness.clean_passes = 0;
    for path in [&whole, &stopped] {
        let mut driver = Driver::new();
        driver.begin(experiment(), path, true);
        driver.until_paused();
        driver.send(Request::OneBatch);
        driver.until_paused();
        driver.send(Request::Change(Box::new(changed.clone())));
        if path == &stopped {
            driver.send(Request::OneBatch);
            driver.until_paused();
            driver.send(Request::Stop { save: true });
            assert!(matches!(driver.until_ended(), Ended::Saved));
            driver.resume(path, false);
        } else {
            driver.send(Request::Continue);
        }
        assert!(matches!(driver.until_ended(), Ended::Finished(_)));
    }
    for name in ["classes.csv", "checkpoints/last.safetensors"] {
        let [a, b] = [&whole, &stopped].map(|path| std::fs::read(path.join(name)).unwrap());
        assert!(a == b, "{name} differs");
    }
    let (_, classes) = crate::train::RunDir::open(&whole).unwrap().0.read_rows().unwrap();
    let base = |epoch: usize| classes[10 * epoch].epsilon;
    assert_eq!(base(0), experiment().attack.epsilon.exact());
    assert_ne!(base(1), base(0));
    assert!(classes[0].train_clean_accuracy.is_some() && classes[10].train_clean_accuracy.is_none());
}

#[test]
fn invalid_changes_are_rejected_and_the_run_continues() {
    let dir = tempfile::tempdir().unwrap();
    let path = run_in(&dir);
    let mut driver = Driver::new();
    driver.begin(experiment(), &path, true);
    driver.until_paused();
    let config = std::fs::read(path.join("config.toml")).unwrap();
    let mut wrong = experiment();
    wrong.optimizer.lr = f64::NAN;
    driver.send(Request::Change(Box::new(wrong)));
    let failure = driver.failure();
    assert!(failure.what.contains("optimizer.lr") && failure.run.is_none(), "{failure:?}");
    let mut misfit = experiment();
    misfit.fairness.fixed_target = 10;
    driver.send(Request::Change(Box::new(misfit)));
    assert!(driver.failure().what.contains("fairness.fixed_target"));
    let mut forgotten = experiment();
    forgotten.evaluation.eval_epsilon = Some(Epsilon::new(8.0).unwrap());
    driver.send(Request::Change(Box::new(forgotten)));
    let what = driver.failure().what;
    assert!(what.contains("evaluation.eval_epsilon") && what.contains("did you mean 8/255?"), "{what}");
    // In L2 the largest distance depends on the shape: images of 8 × 8 pixels are at most 8 apart.
    let mut beyond = experiment();
    (beyond.attack.norm, beyond.attack.epsilon) = (Norm::L2, Epsilon::new(9.0).unwrap());
    driver.send(Request::Change(Box::new(beyond)));
    assert!(driver.failure().what.contains("attack.epsilon: expected at most 8.00"));
    for holds in [vec![Hold::default(); 9], vec![Hold { epsilon: Some(-0.1), locked: false }; 10]] {
        driver.send(Request::Epsilon(holds));
        assert!(driver.failure().what.contains("radius"));
    }
    assert_eq!(std::fs::read(path.join("config.toml")).unwrap(), config);
    assert!(!path.join("config.begin.toml").exists() && !path.join("log.jsonl").exists());
    driver.send(Request::Continue);
    assert!(matches!(driver.until_ended(), Ended::Finished(_)));
}

#[test]
fn each_change_that_makes_the_evaluation_too_weak_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    let mut driver = Driver::new();
    driver.begin(experiment(), &run_in(&dir), true);
    driver.until_paused();
    let mut weak = experiment();
    weak.evaluation.eval_step_size = Some(Epsilon::levels(1.0));
    let warnings = |driver: &Driver| {
        driver.all(|update| match update {
            Update::Warning(text) if text.starts_with("PGD-2, L∞, ε 24/255, step 1/255, ") => Some(()),
            _ => None,
        })
    };
    // Weak, still weak after a batch, good, and weak again.
    for (change, told) in [(Some(&weak), 1), (None, 1), (Some(&experiment()), 1), (Some(&weak), 2)] {
        if let Some(change) = change {
            driver.send(Request::Change(Box::new(change.clone())));
        }
        driver.send(Request::OneBatch);
        next_batch(&mut driver);
        driver.until_paused();
        assert_eq!(warnings(&driver).len(), told);
    }
    driver.send(Request::Stop { save: false });
    driver.until_ended();
}

#[test]
fn the_number_of_epochs_can_grow_until_the_end_but_not_fall_below_those_done() {
    let dir = tempfile::tempdir().unwrap();
    let mut driver = Driver::new();
    driver.begin(experiment(), &run_in(&dir), false);
    assert!(matches!(driver.until_ended(), Ended::Finished(_)));
    driver.resume(&run_in(&dir), true);
    driver.until_paused();
    let with = |epochs| {
        let mut e = experiment();
        e.optimizer.epochs = epochs;
        Request::Change(Box::new(e))
    };
    driver.send(with(1));
    assert!(driver.failure().what.contains("expected at least 3"));
    driver.send(with(3));
    driver.send(Request::Continue);
    let Ended::Finished(_) = driver.until_ended() else { panic!("not finished") };
    assert_eq!(crate::train::RunDir::open(&run_in(&dir)).unwrap().0.read_rows().unwrap().0.len(), 3);
}

#[test]
fn stopping_without_saving_leaves_earlier_files_as_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let path = run_in(&dir);
    let mut driver = Driver::new();
    driver.begin(experiment(), &path, true);
    driver.until_paused();
    for _ in 0..4 {
        driver.send(Request::OneBatch);
        driver.until_paused();
    }
    let files = ["checkpoints/resume.safetensors", "log.jsonl", "metrics.csv", "checkpoints/last.safetensors"];
    let read = || files.map(|name| std::fs::read(path.join(name)).unwrap());
    let before = read();
    driver.send(Request::OneBatch);
    driver.until_paused();
    // Also in the middle of an attack.
    driver.send(Request::OneAttackStep);
    driver.until_paused();
    driver.send(Request::Stop { save: false });
    assert!(matches!(driver.until_ended(), Ended::Discarded));
    assert!(read() == before);
    driver.resume(&path, true);
    let info = driver.opened();
    assert_eq!((info.history.len(), info.checkpoints.as_slice()), (1, &[1.0][..]));
}

#[test]
fn slow_motion_shows_every_step_and_ends_on_request() {
    let dir = tempfile::tempdir().unwrap();
    let mut driver = Driver::new();
    driver.send(Request::Speed(Speed::Step(HOURS)));
    driver.send(wish());
    driver.begin(experiment(), &run_in(&dir), false);
    let step = |update: &Update| if let Update::Examples(e) = update { Some((e.batch, e.step)) } else { None };
    assert_eq!(driver.until("the start of the attack", step), (0, (0, 3)));
    // Paused within the attack, one step at a time.
    driver.send(Request::Pause);
    driver.until_paused();
    driver.send(Request::OneAttackStep);
    assert_eq!(driver.until("a step", step), (0, (1, 3)));
    driver.until_paused();
    driver.send(Request::Speed(Speed::Step(Duration::from_millis(1))));
    driver.send(Request::Continue);
    let mut steps = Vec::new();
    while steps.last() != Some(&(1, (3, 3))) {
        steps.push(driver.until("a step", step));
    }
    let one = |batch, from: u32| (from..=3).map(move |done| (batch, (done, 3)));
    let all: Vec<_> = one(0, 2).chain(one(1, 0)).collect();
    // The mailbox keeps only the newest examples; those received are in order.
    let mut expected = all.iter();
    assert!(steps.iter().all(|step| expected.any(|e| e == step)), "{steps:?}");
    driver.send(Request::Speed(Speed::Full));
    driver.send(Request::Examples(None));
    assert!(matches!(driver.until_ended(), Ended::Finished(_)));
    assert_eq!(driver.batches().len(), 8);
}

#[test]
fn a_batch_and_an_epoch_take_the_time_that_the_speed_prescribes() {
    const TIME: Duration = Duration::from_millis(300);
    let dir = tempfile::tempdir().unwrap();
    for (speed, waits_after) in [(Speed::Batch(HOURS), 1), (Speed::Epoch(HOURS), 4)] {
        let mut driver = Driver::new();
        driver.send(Request::Speed(speed));
        let run = dir.path().join(format!("after-{waits_after}"));
        driver.begin(experiment(), &run, false);
        (0..waits_after).for_each(|_| drop(next_batch(&mut driver)));
        std::thread::sleep(TIME);
        driver.send(Request::Pause);
        driver.until_paused();
        assert_eq!(driver.batches().len(), waits_after, "{speed:?}");
        // The wait ends at once with another speed; the batch after the next takes its time again. Measured from before
        // the first of them can come: a message that is received late makes it longer, never shorter.
        let began = Instant::now();
        driver.send(Request::Continue);
        driver.send(Request::Speed(Speed::Batch(TIME)));
        next_batch(&mut driver);
        next_batch(&mut driver);
        assert!(began.elapsed() >= TIME, "{speed:?}: {:?}", began.elapsed());
        driver.send(Request::Speed(Speed::Full));
        assert!(matches!(driver.until_ended(), Ended::Finished(_)));
        assert_eq!(driver.batches().len(), 8);
    }
}

/// A stop within an attack finishes the batch first, because its running statistics have changed already.
#[test]
fn a_stop_within_an_attack_trains_the_batch_and_saves() {
    let dir = tempfile::tempdir().unwrap();
    let mut driver = Driver::new();
    driver.begin(experiment(), &run_in(&dir), true);
    driver.until_paused();
    driver.send(Request::OneAttackStep);
    driver.until("the attack", |update| matches!(update, Update::Phase(Phase::Attack)).then_some(()));
    driver.until_paused();
    let clock = Instant::now();
    drop(driver);
    assert!(clock.elapsed() < Duration::from_secs(5));
    let mut driver = Driver::new();
    driver.resume(&run_in(&dir), true);
    assert_eq!(driver.opened().checkpoints, [0.25]);
}

#[test]
fn an_evaluation_can_be_paused() {
    let dir = tempfile::tempdir().unwrap();
    let mut e = experiment();
    e.evaluation.eval_batch_size = 1;
    let mut driver = Driver::new();
    driver.begin(e, &run_in(&dir), true);
    driver.until_paused();
    driver.send(Request::Continue);
    driver.until("an evaluation", |update| matches!(update, Update::Evaluating { .. }).then_some(()));
    driver.send(Request::Pause);
    driver.until_paused();
    let done = driver.all(|update| matches!(update, Update::Epoch(_)).then_some(())).len();
    assert_eq!(done, 0, "paused within the first evaluation");
    driver.send(Request::Stop { save: true });
    assert!(matches!(driver.until_ended(), Ended::Saved));
    driver.resume(&run_in(&dir), false);
    assert_eq!(driver.opened().checkpoints, [1.0]);
    assert!(matches!(driver.until_ended(), Ended::Finished(_)));
}
