//! A synthetic evaluation of the synthetic run: AutoAttack with its controls on 300 images.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{HARD, images};
use crate::app::evaluation::EvaluationView;
use crate::attack::{AttackSettings, Cost, norm_name};
use crate::config::{EngineOptions, Experiment};
use crate::evaluate::robustness::{Described, Entry, Evaluation, Fallen, Held, Role, Row, Suite, Wanted};
use crate::train::run_steps;
use crate::worker::evaluation::*;

const DIRECTORY: &str = "runs/cifar10-small/evaluation";

/// AutoAttack and PGD on the best checkpoint of the run.
pub(in crate::app) fn job() -> EvaluationJob {
    EvaluationJob {
        checkpoints: vec![PathBuf::from("runs/cifar10-small/checkpoints/best.safetensors")],
        wanted: vec![Wanted::Suite(Suite::AutoAttack)],
        settings: AttackSettings::default(),
        controls: true,
        limit: Some(300),
        directory: None,
        keep_images: false,
        engine: EngineOptions::default(),
        foreign: None,
        skip: 0,
    }
}

fn experiment() -> Experiment {
    Experiment::preset("cifar10-small").unwrap_or_default()
}

/// The answer to [`Evaluator::look`], for checkpoints that all exist.
pub(in crate::app) fn prospect(job: &EvaluationJob, held: &Held) -> Arc<Prospect> {
    let experiment = experiment();
    let run = run_steps(&experiment);
    let candidate = |path: &PathBuf| Candidate {
        path: path.clone(),
        found: Ok(Known {
            about: format!(
                "FAIR-TAT, {} on cifar10, 18 epochs; {}, ε {}",
                experiment.model.arch,
                norm_name(run.norm),
                run.eval_epsilon
            ),
            own: (run.eval_epsilon, run.norm),
            entries: job.plan(&experiment).map(|plan| plan.entries),
            directory: job.directory.clone().unwrap_or_else(|| PathBuf::from(DIRECTORY)),
            held: held.clone(),
        }),
    };
    Arc::new(Prospect { job: job.clone(), checkpoints: job.checkpoints.iter().map(candidate).collect() })
}

/// Share of the images of the easiest class that withstand an attack; of the hardest class, half as many.
fn strength(entry: &Entry) -> f64 {
    match (entry.role, entry.suite, entry.name.as_str()) {
        (Role::Control, _, "pgd-20") => 0.62,
        (Role::Control, _, "pgd-100") => 0.61,
        (Role::Control, ..) | (_, _, "clean") => 0.95,
        (_, _, "apgd-ce") => 0.6,
        (_, _, "apgd-t") => 0.52,
        _ => 0.51,
    }
}

/// The verdicts of all attacks of the job.
fn evaluation() -> Evaluation {
    let set = images(30);
    let mut evaluation = Evaluation::new(&set);
    let entries = job().plan(&experiment()).map(|plan| plan.entries).unwrap_or_default();
    let mut left = set.len() as u64;
    for entry in entries {
        let share = strength(&entry);
        let survives = |(i, label): (usize, &u32)| {
            let luck = ((i / 10) as f64 * 0.618_033_988_75 + 0.13 * f64::from(*label)).fract();
            luck < share * (1.0 - 0.5 * HARD[*label as usize])
        };
        let wrong = |i: usize, label: u32| if label == 3 { 5 } else { (label + 1 + i as u32 % 3) % 10 };
        let predictions: Vec<u32> = set
            .labels()
            .iter()
            .enumerate()
            .map(|(i, label)| if survives((i, label)) { *label } else { wrong(i, *label) })
            .collect();
        let standing = predictions.iter().zip(set.labels()).filter(|(a, b)| a == b).count() as u64;
        let attacked = if entry.suite.is_some() { left } else { set.len() as u64 };
        left = if entry.role == Role::Attack { standing } else { left };
        let seconds = 0.02 * f64::from(entry.attack.steps.max(1)) * f64::from(entry.attack.targets.max(1));
        let cost = Cost::default();
        evaluation.rows.push(Row { entry, attacked, predictions, without_gradient: 0, targets: None, cost, seconds });
    }
    evaluation
}

fn described() -> Described {
    let run = run_steps(&experiment());
    Described {
        program: "fairtat".into(),
        checkpoint: "runs/cifar10-small/checkpoints/best.safetensors".into(),
        checkpoint_sha256: "0".repeat(64),
        network_sha256: "1".repeat(64),
        architecture: experiment().model.arch.name().into(),
        method: Some("FAIR-TAT".into()),
        dataset: "cifar10".into(),
        part: "test".into(),
        engine: "wgsl (Example GPU, Vulkan)".into(),
        norm: run.norm,
        epsilon: run.eval_epsilon.to_string(),
        seed: 0,
        command: String::new(),
    }
}

fn began(evaluation: &Evaluation) -> EvaluationUpdate {
    EvaluationUpdate::Began(Box::new(Began {
        checkpoint: 0,
        directory: Path::new(DIRECTORY).into(),
        described: described(),
        entries: evaluation.rows.iter().map(|row| row.entry.clone()).collect(),
        images: evaluation.labels().len(),
        warnings: Vec::new(),
    }))
}

/// The updates of the first attacks: the first `whole` of them are done, and half of the next.
pub(in crate::app) fn first(whole: usize) -> Vec<EvaluationUpdate> {
    let evaluation = evaluation();
    let mut updates = vec![EvaluationUpdate::Started(Box::new(job())), began(&evaluation)];
    for (entry, row) in evaluation.rows.iter().enumerate().take(whole + 1) {
        let images = row.attacked as usize;
        let left = evaluation.flags(&row.predictions).iter().filter(|flag| **flag == 1).count();
        let half = entry == whole;
        updates.push(EvaluationUpdate::Progress(AttackProgress {
            checkpoint: 0,
            entry,
            images,
            done: images as f64 * if half { 0.5 } else { 1.0 },
            standing: if half { usize::midpoint(images, left) } else { left },
            seconds: row.seconds,
            rate: Some(2.5),
        }));
    }
    updates
}

/// The updates of the whole evaluation; `warnings` speak against it.
pub(in crate::app) fn all(warnings: &[&str]) -> Vec<EvaluationUpdate> {
    let mut evaluation = evaluation();
    evaluation.warnings = warnings.iter().map(|text| (*text).to_owned()).collect();
    let mut updates = vec![EvaluationUpdate::Started(Box::new(job())), began(&evaluation)];
    let set = images(30);
    let rows = evaluation.rows.clone();
    updates.push(EvaluationUpdate::Finished(Arc::new(FinishedEvaluation {
        checkpoint: 0,
        directory: Path::new(DIRECTORY).into(),
        described: described(),
        evaluation: evaluation.clone(),
    })));
    for (entry, row) in rows.iter().enumerate().skip(1) {
        let sign = |i: usize| if (i * 7919 + entry) % 13 < 6 { -1.0 } else { 1.0 };
        let radius = row.entry.attack.epsilon.value();
        let images: Vec<Fallen> = evaluation
            .fallen(row)
            .into_iter()
            .take(8)
            .map(|number| {
                let clean: Vec<f32> = set.image(number).iter().map(|v| f32::from(*v) / 255.0).collect();
                let adversarial =
                    clean.iter().enumerate().map(|(i, v)| (v + sign(i) * radius).clamp(0.0, 1.0)).collect();
                Fallen { number, label: set.labels()[number], prediction: row.predictions[number], clean, adversarial }
            })
            .collect();
        if !images.is_empty() && row.entry.role == Role::Attack {
            updates.push(EvaluationUpdate::Fallen(Arc::new(FallenImages {
                checkpoint: 0,
                entry,
                shape: set.shape(),
                images,
            })));
        }
    }
    updates.push(EvaluationUpdate::Ended(EvaluationEnd::Done));
    updates
}

/// The view after these updates.
pub(in crate::app) fn view(updates: Vec<EvaluationUpdate>) -> EvaluationView {
    let mut view = EvaluationView::default();
    updates.into_iter().for_each(|update| view.apply(update));
    view
}
