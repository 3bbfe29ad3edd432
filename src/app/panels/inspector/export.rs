//! Export of figures and numbers.

use std::fmt::Write;

use super::{attack, map as plane};
use crate::app::context::Export;
use crate::app::view::RunView;
use crate::app::widgets::{export_file_name as file_name, export_title as in_directory};
use crate::engine::loss::argmax;
use crate::evaluate::figures::{Context, Example, PlaneFigure, adversarial_examples, decision_map};
use crate::worker::{DecisionMap, Inspection};

fn figure_context(run: &RunView, names: &[String], attack: String, radius: f64) -> Context {
    let title = run.experiment.as_ref().map_or_else(String::new, |experiment| {
        let (method, data, arch) = (experiment.fairness.method, &experiment.data.dataset, experiment.model.arch);
        format!("{} on {data}, {arch}", method.title())
    });
    Context {
        title: in_directory(run, &title),
        train_attack: attack.clone(),
        attack,
        train_robust: "train robust",
        statistics: String::new(),
        frozen_after: None,
        class_names: names.to_vec(),
        base_epsilon: radius,
    }
}

/// Original, perturbation and adversarial image of a step.
pub(super) fn triple(shown: &Inspection, step: usize, run: &RunView, names: &[String]) -> Option<Export> {
    let (clean, current) = (shown.steps.first()?, shown.steps.get(step + 1)?);
    let (shape, settings) = (shown.job.subject.shape, &shown.job.attack);
    let line = format!("{}; after step {step}, {}", attack::describe(settings, names), shown.job.subject.name);
    let example = Example {
        original: clean.image.clone(),
        adversarial: current.image.clone(),
        channels: shape.channels,
        height: shape.height,
        width: shape.width,
        label: shown.label as usize,
        target: settings.target.map(|target| target as usize),
        prediction: argmax(&current.probabilities) as usize,
        clean_prediction: Some(argmax(&clean.probabilities) as usize),
        epsilon: settings.epsilon.exact(),
    };
    let context = figure_context(run, names, line, settings.epsilon.exact());
    let svg = adversarial_examples(&[example], &context).ok()?.svg;
    let mut csv = String::from("channel,row,column,original,adversarial,difference\n");
    for (i, (before, after)) in clean.image.iter().zip(&current.image).enumerate() {
        let (pixel, plane) = (i % (shape.height * shape.width), i / (shape.height * shape.width));
        let (row, column) = (pixel / shape.width, pixel % shape.width);
        let _ = writeln!(csv, "{plane},{row},{column},{before},{after},{}", after - before);
    }
    Some(Export { name: file_name(run, &format!("attack-step-{step}")), svg, csv })
}

/// The decision map.
pub(super) fn map(shown: &DecisionMap, step: Option<usize>, run: &RunView, names: &[String]) -> Option<Export> {
    let job = &shown.job;
    let [right, up] = shown.axes.map(|axis| plane::describe(axis, names));
    let figure = PlaneFigure {
        image: &job.subject.name,
        axes: [&right, &up],
        resolution: job.resolution,
        extent: shown.extent,
        predictions: &shown.predictions,
        confidence: &shown.confidence,
        ball: &shown.ball,
        path: &shown.path,
        step,
        norm: crate::attack::norm_name(job.attack.norm),
        epsilon: job.attack.epsilon.exact(),
    };
    let context = figure_context(run, names, String::new(), job.attack.epsilon.exact());
    let svg = decision_map(&figure, &context).ok()?.svg;
    let n = job.resolution;
    let offset = |index: usize| match n {
        1 => 0.0,
        _ => shown.extent * (2.0 * index as f64 / (n - 1) as f64 - 1.0),
    };
    let mut csv = String::from("right,up,class,name,confidence\n");
    for (i, (class, confidence)) in shown.predictions.iter().zip(&shown.confidence).enumerate() {
        let name = names.get(*class as usize).map_or("", String::as_str).replace('"', "\"\"");
        let _ = writeln!(csv, "{},{},{class},\"{name}\",{confidence}", offset(i % n), -offset(i / n));
    }
    Some(Export { name: file_name(run, "decision-map"), svg, csv })
}
