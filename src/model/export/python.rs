//! A script that loads checkpoints of a network in plain PyTorch, without this program.
//!
//! The modules have the names of the state dict, so that `load_state_dict` needs no conversion. Blocks that differ only in
//! numbers become one class. The rest of the script is `template.py`.

use super::blocks::{self, Block, Kind, literals, relative, relative_name};
use super::body::{Call, Step, Tree, WIDTH, forward};
use super::{PROBE_IMAGES, check, normalisation};
use crate::model::network::Network;
use crate::model::state::ModelError;

const TEMPLATE: &str = include_str!("template.py");

/// The text of [`LOADER`](super::LOADER) for checkpoints of `network`. It depends on nothing else, so that one script
/// serves all checkpoints of a run.
///
/// # Errors
/// [`ModelError::Layers`] if the layers do not fit together, or if their names cannot be names in Python.
pub fn loader(network: &Network) -> Result<String, ModelError> {
    check(network, None)?;
    let architecture = &network.architecture;
    if !architecture.chars().all(|c| c.is_ascii_alphanumeric() || "-_. ".contains(c)) {
        let what = "its name must consist of ASCII letters, digits and '-', '_' or '.'".into();
        return Err(ModelError::Layers { architecture: architecture.clone(), what });
    }
    let modules = modules(network).map_err(|path| {
        let what = format!("the layer '{path}' has a name that a module in Python cannot have");
        ModelError::Layers { architecture: architecture.clone(), what }
    })?;
    let input = network.input;
    let normalised = if normalisation(network).is_some() { "the network normalises them" } else { "not normalised" };
    let replacements = [
        ("{{ARCHITECTURE}}", architecture.clone()),
        ("{{SHAPE}}", format!("{} x {} x {}", input.channels, input.height, input.width)),
        ("{{DIMENSIONS}}", format!("{}, {}, {}", input.channels, input.height, input.width)),
        ("{{CLASSES}}", network.classes.to_string()),
        ("{{NORMALISED}}", normalised.to_owned()),
        ("{{COUNT}}", PROBE_IMAGES.to_string()),
        ("{{NETWORK}}", modules.trim_end().to_owned()),
    ];
    Ok(replacements.iter().fold(TEMPLATE.to_owned(), |text, (from, to)| text.replace(from, to)))
}

/// The classes of the blocks and of the network. `Err` with the path of a layer that cannot have its name.
fn modules(network: &Network) -> Result<String, String> {
    let blocks = blocks::find(network);
    let kinds = blocks::kinds(network, &blocks);
    let class = |kind: usize| match kinds.len() {
        1 => "Block".to_owned(),
        _ => format!("Block{}", kind + 1),
    };
    let mut text = String::new();
    for (i, kind) in kinds.iter().enumerate() {
        text += &block_class(network, &blocks, kind, &class(i))?;
    }

    let mut tree = Tree::default();
    let mut steps = Vec::new();
    let mut i = 0;
    while i < network.layers.len() {
        if let Some(index) = blocks.iter().position(|block| block.layers.start == i) {
            let block = &blocks[index];
            // Every block is a member of one kind.
            for (k, kind) in kinds.iter().enumerate() {
                for (_, arguments) in kind.members.iter().zip(&kind.arguments).filter(|(member, _)| **member == index) {
                    let arguments: Vec<String> = arguments.iter().map(usize::to_string).collect();
                    tree.add(&block.name, format!("{}({})", class(k), arguments.join(", ")))?;
                }
            }
            let call = Call::Module(block.name.clone());
            steps.push(Step { call, inputs: vec![block.entry], output: block.output(), relu: false });
            i = block.layers.end;
            continue;
        }
        let layer = &network.layers[i];
        let (step, constructor) = Step::of(&layer.name, &layer.op, layer.inputs.clone(), i + 1, &literals(&layer.op));
        if let Some(constructor) = constructor {
            tree.add(&layer.name, constructor)?;
        }
        steps.push(step);
        i += 1;
    }
    let mut begin = Vec::new();
    if let Some((mean, std)) = normalisation(network) {
        begin.push("# Not part of the state dict.".to_owned());
        for (name, values) in [("mean", mean), ("std", std)] {
            let values: Vec<String> = values.iter().map(|value| format!("{value:?}")).collect();
            let tensor = format!("torch.tensor([{}]).view(1, -1, 1, 1)", values.join(", "));
            let line = format!("self.register_buffer(\"{name}\", {tensor}, persistent=False)");
            begin.push(line);
        }
    }
    let documentation = "Reads images in [0, 1], N x C x H x W, and computes the logits, N x K.";
    text += &class_text("Network", documentation, &[], begin, &tree, &forward(steps, &tree, "images"), "images");
    Ok(text)
}

/// The class of all blocks of a kind.
fn block_class(network: &Network, blocks: &[Block], kind: &Kind, name: &str) -> Result<String, String> {
    let block = &blocks[kind.members[0]];
    let mut tree = Tree::default();
    let mut steps = Vec::new();
    for (i, (layer, numbers)) in network.layers[block.layers.clone()].iter().zip(&kind.texts).enumerate() {
        let inputs = layer.inputs.iter().map(|value| relative(*value, block)).collect();
        let name = relative_name(&layer.name, block);
        let (step, constructor) = Step::of(name, &layer.op, inputs, i + 1, numbers);
        if let Some(constructor) = constructor {
            tree.add(name, constructor)?;
        }
        steps.push(step);
    }
    let members: Vec<&str> = kind.members.iter().map(|member| blocks[*member].name.as_str()).collect();
    let lines = forward(steps, &tree, "x");
    Ok(class_text(name, &format!("{}.", members.join(", ")), &kind.parameters, Vec::new(), &tree, &lines, "x"))
}

/// A class and two empty lines.
fn class_text(
    name: &str,
    documentation: &str,
    parameters: &[String],
    begin: Vec<String>,
    tree: &Tree,
    forward: &[String],
    argument: &str,
) -> String {
    let mut arguments = vec!["self"];
    arguments.extend(parameters.iter().map(String::as_str));
    let mut lines = vec![format!("class {name}(nn.Module):")];
    lines.extend(docstring(documentation));
    lines.extend([
        String::new(),
        format!("    def __init__({}):", arguments.join(", ")),
        "        super().__init__()".to_owned(),
    ]);
    lines.extend(begin.iter().chain(&tree.assignments()).map(|line| format!("        {line}")));
    lines.extend([String::new(), format!("    def forward(self, {argument}):")]);
    lines.extend(forward.iter().map(|line| format!("        {line}")));
    lines.join("\n") + "\n\n\n"
}

/// The documentation of a class, wrapped between words.
fn docstring(text: &str) -> Vec<String> {
    let mut lines = vec!["    \"\"\"".to_owned()];
    for word in text.split(' ') {
        let last = lines.len() - 1;
        // Room for the closing quotes.
        if lines[last].len() + word.len() + 4 > WIDTH {
            lines.push(format!("    {word}"));
        } else {
            let separator = if lines[last].ends_with('"') { "" } else { " " };
            lines[last] += &format!("{separator}{word}");
        }
    }
    if lines.len() > 1 {
        lines.push("    \"\"\"".to_owned());
    } else {
        lines[0] += "\"\"\"";
    }
    lines
}
