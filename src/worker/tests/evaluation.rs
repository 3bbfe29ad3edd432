//! Evaluations in their own thread: complete, cancelled and resumed, refused.

use super::*;
use crate::attack::{AttackKind, AttackSettings};
use crate::config::EngineOptions;
use crate::engine::Norm;
use crate::evaluate::robustness::{Evaluation, Held, Suite, Wanted};
use crate::units::Epsilon;
use crate::worker::evaluation::*;

/// A run of one epoch whose evaluations have four batches.
fn trained(directory: &Path) -> Experiment {
    let mut e = experiment();
    e.optimizer.epochs = 1;
    e.evaluation.eval_batch_size = 5;
    let mut driver = Driver::new();
    driver.begin(e.clone(), directory, false);
    driver.until_ended();
    e
}

fn job(checkpoint: &Path) -> EvaluationJob {
    EvaluationJob {
        checkpoints: vec![checkpoint.into()],
        wanted: vec![Wanted::Attack(AttackKind::Fgsm), Wanted::Attack(AttackKind::Pgd)],
        settings: AttackSettings::default(),
        controls: false,
        limit: Some(20),
        directory: None,
        keep_images: false,
        engine: EngineOptions { engine: EngineChoice::Candle, ..EngineOptions::default() },
        foreign: None,
        skip: 0,
    }
}

/// An evaluation thread that waits until each update is fetched.
struct Stepped {
    woken: Receiver<()>,
    fetched: Sender<()>,
    /// Dropped after the channels, because its thread may wait on them.
    evaluator: Evaluator,
}

impl Stepped {
    fn new() -> Self {
        let ((sender, woken), (fetched, go_on)) = (channel(), channel());
        let go_on = Mutex::new(go_on);
        let wake = move || {
            if sender.send(()).is_ok() {
                go_on.lock().unwrap().recv().unwrap_or(());
            }
        };
        Self { woken, fetched, evaluator: Evaluator::spawn(wake).unwrap() }
    }

    /// Waits for an update that `pick` accepts; returns it and those before it.
    fn until<T>(
        &mut self,
        mut pick: impl FnMut(&Evaluator, &EvaluationUpdate) -> Option<T>,
    ) -> (T, Vec<EvaluationUpdate>) {
        let mut told = Vec::new();
        loop {
            assert!(self.woken.recv_timeout(PATIENCE).is_ok(), "{told:?}");
            let mut found = None;
            for update in self.evaluator.updates() {
                found = found.or(pick(&self.evaluator, &update));
                told.push(update);
            }
            self.fetched.send(()).unwrap();
            if let Some(found) = found {
                return (found, told);
            }
        }
    }

    fn evaluate(&mut self, job: EvaluationJob) -> (EvaluationEnd, Vec<EvaluationUpdate>) {
        self.evaluator.start(job).unwrap();
        self.until(ended)
    }

    fn look(&mut self, job: EvaluationJob) -> Candidate {
        self.evaluator.look(job).unwrap();
        let (prospect, _) = self.until(|_, update| match update {
            EvaluationUpdate::Prospect(prospect) => Some(Arc::clone(prospect)),
            _ => None,
        });
        prospect.checkpoints[0].clone()
    }
}

fn ended(_: &Evaluator, update: &EvaluationUpdate) -> Option<EvaluationEnd> {
    match update {
        EvaluationUpdate::Ended(end) => Some(*end),
        _ => None,
    }
}

fn result(told: &[EvaluationUpdate]) -> Arc<FinishedEvaluation> {
    let finished = told.iter().find_map(|update| match update {
        EvaluationUpdate::Finished(finished) => Some(Arc::clone(finished)),
        _ => None,
    });
    finished.unwrap_or_else(|| panic!("{told:?}"))
}

fn failure(told: &[EvaluationUpdate]) -> Failure {
    let failed = told.iter().find_map(|update| match update {
        EvaluationUpdate::Failed { failure, .. } => Some(failure.clone()),
        _ => None,
    });
    failed.unwrap_or_else(|| panic!("{told:?}"))
}

fn verdicts(evaluation: &Evaluation) -> Vec<(String, Vec<u32>, crate::attack::Cost)> {
    evaluation.rows.iter().map(|row| (row.entry.name.clone(), row.predictions.clone(), row.cost)).collect()
}

#[test]
fn a_cancelled_evaluation_is_continued_with_the_same_result() {
    let place = tempfile::tempdir().unwrap();
    let run = place.path().join("run");
    trained(&run);
    let job = job(&run);
    let mut stepped = Stepped::new();

    let Ok(known) = stepped.look(job.clone()).found else { panic!() };
    assert_eq!((known.directory.clone(), &known.held), (run.join("evaluation"), &Held::Nothing));
    assert!(known.about.contains("on digits, 1 epoch; L∞, ε "), "{}", known.about);
    let names: Vec<String> = known.entries.unwrap().into_iter().map(|entry| entry.name).collect();
    assert_eq!(names, ["clean", "fgsm", "pgd-20"]);

    let (end, told) = stepped.evaluate(job.clone());
    assert_eq!(end, EvaluationEnd::Done);
    let whole = result(&told);
    assert!(run.join("evaluation/report.md").exists());
    // Every attack is told of to its end, and what it did is shown.
    for (entry, row) in whole.evaluation.rows.iter().enumerate() {
        let last = told.iter().rev().find_map(|update| match update {
            EvaluationUpdate::Progress(progress) if progress.entry == entry => Some(*progress),
            _ => None,
        });
        let last = last.unwrap();
        let withstood = row.predictions.iter().zip(whole.evaluation.labels()).filter(|(a, b)| a == b).count();
        assert!(last.is_done() && last.images == 20 && last.standing == withstood, "{last:?}");
        let fell = if entry == 0 { 0 } else { whole.evaluation.fallen(row).len() };
        let shown = told.iter().find_map(|update| match update {
            EvaluationUpdate::Fallen(fallen) if fallen.entry == entry => Some(Arc::clone(fallen)),
            _ => None,
        });
        let shown = shown.map_or(Vec::new(), |fallen| fallen.images.clone());
        assert_eq!(shown.len(), fell.min(8));
        for image in shown {
            assert_eq!(whole.evaluation.labels()[image.number], image.label);
            assert_eq!(row.predictions[image.number], image.prediction);
            let changes = image.clean.iter().zip(&image.adversarial).map(|(a, b)| (a - b).abs());
            let largest = changes.fold(0.0, f32::max);
            assert!(largest > 0.0 && largest <= row.entry.attack.epsilon.value() + 1e-6, "{largest}");
        }
    }

    // The same again goes to another directory. It is cancelled when PGD begins.
    stepped.evaluator.start(job.clone()).unwrap();
    let (end, told) = stepped.until(|evaluator, update| {
        if let EvaluationUpdate::Progress(progress) = update
            && progress.entry == 2
        {
            evaluator.cancel();
        }
        ended(evaluator, update)
    });
    assert_eq!(end, EvaluationEnd::Cancelled, "{told:?}");
    let second = run.join("evaluation-2");
    assert!(second.join("unfinished/fgsm-00003.safetensors").exists() && !second.join("report.md").exists());
    let Ok(known) = stepped.look(job.clone()).found else { panic!() };
    assert_eq!((known.directory, known.held), (second.clone(), Held::Same));
    let Ok(other) = stepped.look(EvaluationJob { limit: Some(10), ..job.clone() }).found else { panic!() };
    assert_eq!((other.directory, other.held), (run.join("evaluation-3"), Held::Nothing));

    // Another thread, as after a crash of the program.
    drop(stepped);
    let mut stepped = Stepped::new();
    let (end, told) = stepped.evaluate(job);
    assert_eq!(end, EvaluationEnd::Done);
    let resumed = result(&told);
    assert_eq!(resumed.directory, second);
    assert_eq!(verdicts(&resumed.evaluation), verdicts(&whole.evaluation));
    for name in ["clean", "fgsm", "pgd-20", "worst-case"] {
        let flags = |directory: &str| std::fs::read(run.join(directory).join(format!("flags/{name}.npy"))).unwrap();
        assert_eq!(flags("evaluation"), flags("evaluation-2"), "{name}");
    }
    assert!(!second.join("unfinished").exists());
}

#[test]
fn what_cannot_be_evaluated_says_why_and_what_to_do() {
    let place = tempfile::tempdir().unwrap();
    let run = place.path().join("run");
    let experiment = trained(&run);
    let mut stepped = Stepped::new();
    let told = |stepped: &mut Stepped, job: EvaluationJob| {
        let (_, told) = stepped.evaluate(job);
        let failure = failure(&told);
        assert!(failure.advice.is_some(), "{failure:?}");
        failure.to_string()
    };
    let none = told(&mut stepped, job(&place.path().join("none.safetensors")));
    assert!(none.contains("none.safetensors"), "{none}");
    let empty = place.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    assert!(told(&mut stepped, job(&empty)).contains("choose a .safetensors file"));

    // CW in L∞ is known before anything starts.
    let cw = EvaluationJob { wanted: vec![Wanted::Attack(AttackKind::Cw)], ..job(&run) };
    let Ok(known) = stepped.look(cw.clone()).found else { panic!() };
    assert!(known.entries.unwrap_err().contains("CW"));
    assert!(told(&mut stepped, cw).contains("other norm"));

    let settings = AttackSettings { epsilon: Some(Epsilon::levels(510.0)), ..AttackSettings::default() };
    assert!(told(&mut stepped, EvaluationJob { settings, ..job(&run) }).contains("smaller epsilon"));
    let few = told(&mut stepped, EvaluationJob { limit: Some(3), ..job(&run) });
    assert!(few.contains("without images") && few.contains("another number of images"), "{few}");

    let report = place.path().join("report");
    let chosen = EvaluationJob { directory: Some(report.clone()), limit: Some(10), ..job(&run) };
    assert_eq!(stepped.evaluate(chosen.clone()).0, EvaluationEnd::Done);
    let Ok(known) = stepped.look(chosen.clone()).found else { panic!() };
    assert_eq!(known.held, Held::Report);
    assert!(told(&mut stepped, chosen.clone()).contains("holds a report already"));
    std::fs::remove_file(report.join("report.json")).unwrap();
    std::fs::create_dir(report.join("unfinished")).unwrap();
    std::fs::write(report.join("unfinished/plan.json"), r#"{"limit": 7}"#).unwrap();
    let message = told(&mut stepped, chosen);
    assert!(
        message.contains("another unfinished evaluation") && message.contains("its settings to continue"),
        "{message}"
    );

    // Weights of another program need an experiment.
    let (state, _) = crate::model::State::load(&run.join("checkpoints/best.safetensors")).unwrap();
    let foreign = place.path().join("foreign.safetensors");
    state.save(&foreign, &crate::model::Facts::new()).unwrap();
    let message = told(&mut stepped, job(&foreign));
    assert!(message.contains("panel Experiment"), "{message}");
    let known = Foreign { experiment: Box::new(experiment), normalize: None };
    let message = told(&mut stepped, EvaluationJob { foreign: Some(known.clone()), ..job(&foreign) });
    assert!(message.contains("field “Normalisation”"), "{message}");
    let known = Foreign { normalize: Some("none".parse().unwrap()), ..known };
    let (end, told) = stepped.evaluate(EvaluationJob { foreign: Some(known), ..job(&foreign) });
    assert_eq!(end, EvaluationEnd::Done);
    assert_eq!(result(&told).directory, place.path().join("foreign-evaluation"));
}

#[test]
fn several_checkpoints_follow_each_other_and_a_broken_one_is_left_out() {
    let place = tempfile::tempdir().unwrap();
    let run = place.path().join("run");
    trained(&run);
    let mut many = job(&run.join("checkpoints/best.safetensors"));
    many.checkpoints.push(place.path().join("none.safetensors"));
    many.checkpoints.push(run.join("checkpoints/last.safetensors"));
    let mut stepped = Stepped::new();
    let (end, told) = stepped.evaluate(many.clone());
    assert_eq!(end, EvaluationEnd::Done);
    let done: Vec<(usize, PathBuf)> = told
        .iter()
        .filter_map(|update| match update {
            EvaluationUpdate::Finished(finished) => Some((finished.checkpoint, finished.directory.clone())),
            _ => None,
        })
        .collect();
    assert_eq!(done, [(0, run.join("evaluation")), (2, run.join("evaluation-2"))]);
    assert!(failure(&told).doing.contains("none.safetensors"));
    let (_, told) = stepped.evaluate(EvaluationJob { skip: 2, ..many });
    assert_eq!(result(&told).checkpoint, 2);
}

#[test]
fn the_command_line_does_the_same() {
    let experiment = experiment();
    let wanted = |text: &[&str]| text.iter().map(|name| name.parse::<Wanted>().unwrap()).collect::<Vec<_>>();
    let directory = Path::new("runs/a b/evaluation");
    let epsilon = Some(Epsilon::levels(2.5));
    for (names, settings, controls, limit) in [
        (&["fgsm", "pgd"][..], AttackSettings::default(), false, Some(20)),
        (&[][..], AttackSettings::default(), false, None),
        (&["autoattack", "apgd-ce", "square"][..], AttackSettings { steps: Some(7), ..Default::default() }, true, None),
        (
            &["autoattack-small", "rand", "noise", "pgd-targeted"][..],
            AttackSettings { norm: Some(Norm::Linf), epsilon, seed: 3, restarts: Some(2), ..Default::default() },
            false,
            Some(100),
        ),
        (&["cw", "fab-t"][..], AttackSettings { norm: Some(Norm::L2), epsilon, ..Default::default() }, true, None),
    ] {
        let job = EvaluationJob { wanted: wanted(names), settings, controls, limit, ..job(Path::new("it's")) };
        let line = job.command_line(&job.checkpoints[0], directory, None);
        let output = std::process::Command::new("sh").args(["-c", &format!("printf '%s\\0' {line}")]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let words: Vec<String> = text.trim_end_matches('\0').split('\0').map(str::to_owned).collect();
        let (plan, images, report) = crate::cli::evaluated_by(&words, &experiment).unwrap();
        assert_eq!(plan, job.plan(&experiment).unwrap(), "{line}");
        assert_eq!((images, report.as_deref()), (limit, Some(directory)), "{line}");
        assert!(line.contains(r"'it'\''s'") && line.contains("--engine candle"), "{line}");
    }
    assert!(Suite::ALL.iter().all(|suite| Wanted::Suite(*suite).name().parse() == Ok(Wanted::Suite(*suite))));
}
