//! ONNX: the network as a graph with the weights as initialisers.
//!
//! Operator set 17, IR version 8. Input `images` (`[batch, C, H, W]` in `[0, 1]`), output `logits` (`[batch, K]`); the
//! number of images is free. Normalisation is part of the graph, batch norm uses the running statistics. Initialisers
//! have the names of the state dict. Source: `onnx.proto` and `Operators.md` of the ONNX project.

use std::path::Path;

use prost::Message;

use super::messages::{
    Attribute, Dimension, Entry, Graph, Model, Node, OperatorSet, Shape, Tensor, TensorType, Type, ValueInfo,
};
use super::{Facts, bytes, check};
use crate::files::write_atomic;
use crate::model::network::{BATCH_NORM_EPSILON, Layer, Network, Op, Value};
use crate::model::state::{Array, ModelError, State};

const OPERATOR_SET: i64 = 17;
const IR_VERSION: i64 = 8;
/// `TensorProto.DataType.FLOAT`.
const FLOAT: i32 = 1;
/// Parsers of protocol buffers refuse longer messages.
const LIMIT: usize = i32::MAX as usize;

/// Writes the network as an `.onnx` file, atomically, with the facts as `metadata_props`. The same arrays and facts
/// always give the same bytes.
///
/// # Errors
/// [`ModelError::Mismatch`] or [`ModelError::Layers`] if the state does not fit the network; [`ModelError::Format`] if
/// the file would exceed 2 GiB; [`ModelError::File`] if it cannot be written.
pub fn save_onnx(path: &Path, network: &Network, state: &State, facts: &Facts) -> Result<(), ModelError> {
    check(network, Some(state))?;
    let model = model(network, state, facts);
    let length = model.encoded_len();
    if length > LIMIT {
        let what = format!("an ONNX file holds at most {LIMIT} bytes, this network needs {length}; use another format");
        return Err(ModelError::Format { path: path.into(), what });
    }
    Ok(write_atomic(path, &model.encode_to_vec())?)
}

/// The whole message.
pub(super) fn model(network: &Network, state: &State, facts: &Facts) -> Model {
    let mut facts = facts.clone();
    facts.insert("architecture".into(), network.architecture.clone());
    let normalises = network.layers.iter().any(|layer| matches!(layer.op, Op::Normalize { .. }));
    let images = if normalises { "values in [0, 1]; the graph normalises them" } else { "values in [0, 1]" };
    facts.insert("images".into(), images.into());
    let dimension = |n: usize| Dimension { value: Some(n as i64), parameter: None };
    let batch = || Dimension { value: None, parameter: Some("batch".into()) };
    let value = |name: &str, dimensions: Vec<Dimension>| {
        let tensor = TensorType { element: FLOAT, shape: Some(Shape { dimensions }) };
        ValueInfo { name: name.into(), kind: Some(Type { tensor: Some(tensor) }) }
    };
    let input = network.input;
    let mut graph = Graph {
        name: network.architecture.clone(),
        inputs: vec![value(
            "images",
            vec![batch(), dimension(input.channels), dimension(input.height), dimension(input.width)],
        )],
        outputs: vec![value("logits", vec![batch(), dimension(network.classes)])],
        ..Graph::default()
    };
    for (i, layer) in network.layers.iter().enumerate() {
        add_layer(&mut graph, network, layer, i + 1);
    }
    for spec in network.state_specs() {
        if let Some(array) = state.0.get(&spec.name) {
            graph.initializers.push(tensor(&spec.name, array));
        }
    }
    Model {
        ir_version: IR_VERSION,
        producer_name: "fairtat".into(),
        producer_version: env!("CARGO_PKG_VERSION").into(),
        graph: Some(graph),
        operator_sets: vec![OperatorSet { domain: String::new(), version: OPERATOR_SET }],
        metadata: facts.into_iter().map(|(key, value)| Entry { key, value }).collect(),
    }
}

fn tensor(name: &str, array: &Array) -> Tensor {
    let dimensions = array.shape.iter().map(|n| *n as i64).collect();
    Tensor { dimensions, data_type: FLOAT, name: name.into(), raw_data: bytes(array) }
}

/// Name of a value. Layers without parameters share names, so theirs are numbered.
fn name_of(network: &Network, value: Value) -> String {
    match value {
        0 => "images".into(),
        _ if value == network.layers.len() => "logits".into(),
        _ => node_name(network, value),
    }
}

/// Name of the node that computes a value other than the images.
fn node_name(network: &Network, value: Value) -> String {
    let Layer { name, op, .. } = &network.layers[value - 1];
    match op {
        Op::Conv2d { .. } | Op::BatchNorm { .. } | Op::Linear { .. } => name.clone(),
        _ => format!("{name}_{value}"),
    }
}

/// The nodes of the layer that computes `value`.
fn add_layer(graph: &mut Graph, network: &Network, layer: &Layer, value: Value) {
    let (node, output) = (node_name(network, value), name_of(network, value));
    let mut inputs: Vec<String> = layer.inputs.iter().map(|value| name_of(network, *value)).collect();
    let mut parameters = |names: &[&str]| inputs.extend(names.iter().map(|name| format!("{}.{name}", layer.name)));
    let (operator, attributes) = match &layer.op {
        Op::Normalize { mean, std } => {
            for (name, values) in [("mean", mean), ("std", std)] {
                let array = Array { shape: vec![1, values.len(), 1, 1], data: values.clone() };
                graph.initializers.push(tensor(&format!("{}.{name}", layer.name), &array));
            }
            let (centred, x) = (format!("{node}.centred"), name_of(network, layer.inputs[0]));
            let mean = format!("{}.mean", layer.name);
            graph.nodes.push(Node::new(&centred, "Sub", vec![x, mean], &centred, vec![]));
            inputs = vec![centred, format!("{}.std", layer.name)];
            ("Div", vec![])
        }
        Op::Conv2d { kernel, stride, padding, .. } => {
            parameters(&["weight"]);
            let attributes = vec![
                Attribute::of_integers("kernel_shape", &[*kernel; 2]),
                Attribute::of_integers("strides", &[*stride; 2]),
                Attribute::of_integers("pads", &[*padding; 4]),
            ];
            ("Conv", attributes)
        }
        Op::BatchNorm { .. } => {
            parameters(&["weight", "bias", "running_mean", "running_var"]);
            ("BatchNormalization", vec![Attribute::of_float("epsilon", BATCH_NORM_EPSILON)])
        }
        Op::Relu => ("Relu", vec![]),
        Op::Add => ("Add", vec![]),
        Op::MaxPool { size } => (
            "MaxPool",
            vec![Attribute::of_integers("kernel_shape", &[*size; 2]), Attribute::of_integers("strides", &[*size; 2])],
        ),
        Op::GlobalAvgPool => {
            // Maps of one pixel, which become features.
            let maps = format!("{node}.maps");
            graph.nodes.push(Node::new(&maps, "GlobalAveragePool", inputs, &maps, vec![]));
            inputs = vec![maps];
            ("Flatten", vec![Attribute::of_integer("axis", 1)])
        }
        Op::Linear { .. } => {
            parameters(&["weight", "bias"]);
            ("Gemm", vec![Attribute::of_integer("transB", 1)])
        }
    };
    graph.nodes.push(Node::new(&node, operator, inputs, &output, attributes));
}
