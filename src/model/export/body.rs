//! The body of a PyTorch module: its submodules and its forward pass, from steps in the order of execution.

use super::blocks::is_number;
use crate::model::network::{Op, Value};

/// Longest line of the script.
pub(super) const WIDTH: usize = 120;

/// What a step calls.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Call {
    /// The submodule at this path, such as `layer1.0`.
    Module(String),
    /// `(x - mean) / std`.
    Normalize,
    /// ReLU.
    Relu,
    /// Sum of two values.
    Add,
    /// Maximum over windows of this size.
    MaxPool(String),
    /// Mean over rows and columns.
    Mean,
}

/// One step of the forward pass.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Step {
    pub(super) call: Call,
    /// The values that it reads.
    pub(super) inputs: Vec<Value>,
    /// The value that it computes.
    pub(super) output: Value,
    /// Whether a ReLU follows.
    pub(super) relu: bool,
}

impl Step {
    /// The step of a layer, with its numbers as text, and the expression that creates its module if it has one.
    pub(super) fn of(
        name: &str,
        op: &Op,
        inputs: Vec<Value>,
        output: Value,
        numbers: &[String],
    ) -> (Self, Option<String>) {
        let call = match op {
            Op::Normalize { .. } => Call::Normalize,
            Op::Conv2d { .. } | Op::BatchNorm { .. } | Op::Linear { .. } => Call::Module(name.to_owned()),
            Op::Relu => Call::Relu,
            Op::Add => Call::Add,
            Op::MaxPool { .. } => Call::MaxPool(numbers.concat()),
            Op::GlobalAvgPool => Call::Mean,
        };
        (Self { call, inputs, output, relu: false }, constructor(op, numbers))
    }
}

/// The expression that creates the module of an operation; `None` if it has no parameters.
fn constructor(op: &Op, numbers: &[String]) -> Option<String> {
    match (op, numbers) {
        (Op::Conv2d { .. }, [inputs, outputs, kernel, stride, padding]) => {
            let mut text = format!("nn.Conv2d({inputs}, {outputs}, {kernel}");
            for (name, value, default) in [("stride", stride, "1"), ("padding", padding, "0")] {
                if value != default {
                    text += &format!(", {name}={value}");
                }
            }
            Some(text + ", bias=False)")
        }
        (Op::BatchNorm { .. }, [channels]) => Some(format!("nn.BatchNorm2d({channels})")),
        (Op::Linear { .. }, [inputs, outputs]) => Some(format!("nn.Linear({inputs}, {outputs})")),
        _ => None,
    }
}

/// The submodules of a module by path.
#[derive(Debug, Default)]
pub(super) struct Tree {
    constructor: String,
    children: Vec<(String, Tree)>,
}

impl Tree {
    /// Adds a module. `Err` with the path if one of its parts cannot name a module in Python.
    pub(super) fn add(&mut self, path: &str, constructor: String) -> Result<(), String> {
        let mut node = self;
        for (depth, part) in path.split('.').enumerate() {
            let letter = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_';
            let named =
                part.bytes().next().is_some_and(letter) && part.bytes().all(|b| letter(b) || b.is_ascii_digit());
            if !(named || depth > 0 && is_number(part)) || ["mean", "std", "forward"].contains(&part) {
                return Err(path.to_owned());
            }
            let found = node.children.iter().position(|(name, _)| name == part);
            let index = found.unwrap_or_else(|| {
                node.children.push((part.to_owned(), Self::default()));
                node.children.len() - 1
            });
            node = &mut node.children[index].1;
        }
        node.constructor = constructor;
        Ok(())
    }

    fn at(&self, path: &str) -> Option<&Self> {
        path.split('.')
            .try_fold(self, |node, part| node.children.iter().find(|(name, _)| name == part).map(|(_, child)| child))
    }

    /// Whether the children are numbered from 0 without gaps.
    fn is_sequence(&self) -> bool {
        !self.children.is_empty() && self.children.iter().enumerate().all(|(i, (name, _))| *name == i.to_string())
    }

    /// The expression that creates this module, for a line that begins with `before` columns.
    fn expression(&self, indent: usize, before: usize) -> String {
        if self.children.is_empty() {
            return self.constructor.clone();
        }
        let sequence = self.is_sequence();
        let parts: Vec<String> = self
            .children
            .iter()
            .map(|(name, child)| {
                let key = if sequence { String::new() } else { format!("\"{name}\": ") };
                let text = child.expression(indent + 4, indent + 4 + key.len());
                key + &text
            })
            .collect();
        let (open, close) = if sequence { ("nn.Sequential(", ")") } else { ("nn.ModuleDict({", "})") };
        let line = format!("{open}{}{close}", parts.join(", "));
        if !line.contains('\n') && before + line.len() <= WIDTH {
            return line;
        }
        let inner = " ".repeat(indent + 4);
        let rows: String = parts.iter().map(|part| format!("{inner}{part},\n")).collect();
        format!("{open}\n{rows}{}{close}", " ".repeat(indent))
    }

    /// The assignments of `__init__`.
    pub(super) fn assignments(&self) -> Vec<String> {
        let line = |(name, child): &(String, Self)| {
            let start = format!("self.{name} = ");
            format!("{start}{}", child.expression(8, 8 + start.len()))
        };
        self.children.iter().map(line).collect()
    }

    /// The expression that names a submodule.
    fn access(&self, path: &str) -> String {
        let (mut node, mut text) = (self, String::from("self"));
        for (depth, part) in path.split('.').enumerate() {
            text += &match (depth, node.is_sequence()) {
                (0, _) => format!(".{part}"),
                (_, true) => format!("[{part}]"),
                (_, false) => format!("[\"{part}\"]"),
            };
            match node.at(part) {
                Some(child) => node = child,
                None => break,
            }
        }
        text
    }
}

/// The lines of `forward` in a module that reads value 0 as `argument`.
pub(super) fn forward(steps: Vec<Step>, tree: &Tree, argument: &str) -> Vec<String> {
    let steps = sequences(with_relu(steps), tree);
    let last_use = |value: Value| steps.iter().rposition(|step| step.inputs.contains(&value));
    // Names of the values that are still to be read.
    let mut names: Vec<(Value, String)> = vec![(0, argument.to_owned())];
    let mut lines = Vec::new();
    for (i, step) in steps.iter().enumerate() {
        let of = |value: &Value| names.iter().find(|(known, _)| known == value).map_or("?", |(_, name)| name.as_str());
        let read: Vec<&str> = step.inputs.iter().map(of).collect();
        let expression = expression(step, &read, tree);
        if i + 1 == steps.len() {
            lines.push(format!("return {expression}"));
            break;
        }
        // A value that is read for the last time leaves its name to the new one; the images keep theirs.
        let dying = step.inputs.iter().copied().filter(|value| last_use(*value) == Some(i));
        let dying: Vec<Value> = dying.collect();
        let inherited = dying.iter().find(|value| of(value) != "images").map(|value| of(value).to_owned());
        names.retain(|(value, _)| !dying.contains(value));
        let name = inherited.unwrap_or_else(|| free(&names));
        lines.push(format!("{name} = {expression}"));
        names.push((step.output, name));
    }
    lines
}

/// The first name that no value has.
fn free(names: &[(Value, String)]) -> String {
    let candidates =
        ["x", "y", "z"].map(str::to_owned).into_iter().chain((3..=names.len() + 3).map(|n| format!("x{n}")));
    let mut unused = candidates.filter(|name| names.iter().all(|(_, taken)| taken != name));
    unused.next().unwrap_or_default()
}

fn expression(step: &Step, read: &[&str], tree: &Tree) -> String {
    let x = read.first().copied().unwrap_or_default();
    let text = match &step.call {
        Call::Module(path) => format!("{}({x})", tree.access(path)),
        Call::Normalize => format!("({x} - self.mean) / self.std"),
        Call::Relu => format!("F.relu({x})"),
        Call::Add => read.join(" + "),
        Call::MaxPool(size) => format!("F.max_pool2d({x}, {size})"),
        Call::Mean => format!("{x}.mean(dim=(2, 3))"),
    };
    if step.relu { format!("F.relu({text})") } else { text }
}

fn readers(steps: &[Step], value: Value) -> usize {
    steps.iter().flat_map(|step| &step.inputs).filter(|read| **read == value).count()
}

/// Joins each ReLU with the step before it, if only the ReLU reads the value of that step.
fn with_relu(steps: Vec<Step>) -> Vec<Step> {
    let alone: Vec<bool> = steps.iter().map(|step| readers(&steps, step.output) == 1).collect();
    let mut joined: Vec<Step> = Vec::new();
    for (i, step) in steps.into_iter().enumerate() {
        match joined.last_mut() {
            Some(before)
                if step.call == Call::Relu && step.inputs == [before.output] && alone[i - 1] && !before.relu =>
            {
                before.relu = true;
                before.output = step.output;
            }
            _ => joined.push(step),
        }
    }
    joined
}

/// Joins the steps of whole sequences: `layer1.0` and `layer1.1` become `layer1` if nothing else reads what is between.
fn sequences(mut steps: Vec<Step>, tree: &Tree) -> Vec<Step> {
    while let Some((begin, length, path)) = (0..steps.len()).find_map(|begin| sequence(&steps, begin, tree)) {
        let Step { output, relu, .. } = steps[begin + length - 1];
        let inputs = steps[begin].inputs.clone();
        steps.splice(begin..begin + length, [Step { call: Call::Module(path), inputs, output, relu }]);
    }
    steps
}

/// Length and path of the sequence that begins with step `begin`.
fn sequence(steps: &[Step], begin: usize, tree: &Tree) -> Option<(usize, usize, String)> {
    let Call::Module(path) = &steps[begin].call else { return None };
    let parent = path.strip_suffix(".0")?;
    let node = tree.at(parent).filter(|node| node.is_sequence())?;
    let length = node.children.len();
    let members = steps.get(begin..begin + length)?;
    let named = members.iter().enumerate().all(|(i, step)| step.call == Call::Module(format!("{parent}.{i}")));
    let chained = members
        .windows(2)
        .all(|pair| pair[1].inputs == [pair[0].output] && readers(steps, pair[0].output) == 1 && !pair[0].relu);
    (named && chained).then(|| (begin, length, parent.to_owned()))
}
