//! Finds the residual blocks of a network, so that the loader has one class for all blocks that differ only in numbers.

use std::ops::Range;

use crate::model::network::{Network, Op, Value};

/// Consecutive layers that compute one value from one value and whose names share a prefix, such as `layer1.0`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Block {
    /// The prefix.
    pub(super) name: String,
    /// Indices of its layers.
    pub(super) layers: Range<usize>,
    /// The value that it reads.
    pub(super) entry: Value,
}

impl Block {
    /// The value that it computes.
    pub(super) fn output(&self) -> Value {
        self.layers.end
    }
}

/// All blocks in the order of execution.
pub(super) fn find(network: &Network) -> Vec<Block> {
    let layers = &network.layers;
    let mut blocks = Vec::new();
    let mut begin = 0;
    while begin < layers.len() {
        let mut end = begin + 1;
        if let Some(prefix) = prefix(&layers[begin].name) {
            // Layers without parameters have no path: those between and directly after the others belong to the block.
            let belongs = |i: usize| match layers[i].op {
                Op::Relu | Op::Add => true,
                _ => self::prefix(&layers[i].name) == Some(prefix),
            };
            while end < layers.len() && belongs(end) {
                end += 1;
            }
            if let Some(entry) = entry(network, begin..end) {
                blocks.push(Block { name: prefix.to_owned(), layers: begin..end, entry });
            }
        }
        begin = end;
    }
    blocks
}

/// `layer1.0` of `layer1.0.conv1`: all up to the first number that is not the last part.
fn prefix(name: &str) -> Option<&str> {
    let mut length = 0;
    for part in name.split('.') {
        length += part.len();
        if length == name.len() {
            return None;
        }
        if is_number(part) {
            return Some(&name[..length]);
        }
        length += 1;
    }
    None
}

/// Whether a part of a path is an index.
pub(super) fn is_number(part: &str) -> bool {
    !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit())
}

/// The only value from outside that these layers read; `None` if there are several, or if layers outside read more than
/// their last value.
fn entry(network: &Network, range: Range<usize>) -> Option<Value> {
    let inside = |value: &Value| *value > range.start && *value <= range.end;
    let mut read = network.layers[range.clone()].iter().flat_map(|layer| &layer.inputs).filter(|value| !inside(value));
    let entry = *read.next()?;
    let others = network.layers.iter().enumerate().filter(|(i, _)| !range.contains(i));
    let mut read_outside = others.flat_map(|(_, layer)| &layer.inputs);
    let closed = read.all(|value| *value == entry) && !read_outside.any(|value| inside(value) && *value != range.end);
    closed.then_some(entry)
}

/// What a number of a layer means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Channels,
    Kernel,
    Stride,
    Padding,
    Size,
}

/// The numbers of an operation, in the order in which [`super::body::constructor`] expects them.
fn numbers(op: &Op) -> Vec<(Role, usize)> {
    match *op {
        Op::Conv2d { in_channels, out_channels, kernel, stride, padding } => vec![
            (Role::Channels, in_channels),
            (Role::Channels, out_channels),
            (Role::Kernel, kernel),
            (Role::Stride, stride),
            (Role::Padding, padding),
        ],
        Op::BatchNorm { channels } => vec![(Role::Channels, channels)],
        Op::Linear { in_features, out_features } => {
            vec![(Role::Channels, in_features), (Role::Channels, out_features)]
        }
        Op::MaxPool { size } => vec![(Role::Size, size)],
        Op::Normalize { .. } | Op::Relu | Op::Add | Op::GlobalAvgPool => vec![],
    }
}

/// The numbers of an operation as text.
pub(super) fn literals(op: &Op) -> Vec<String> {
    numbers(op).into_iter().map(|(_, number)| number.to_string()).collect()
}

/// Blocks with the same layers up to their numbers.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Kind {
    /// Indices of the blocks; never empty.
    pub(super) members: Vec<usize>,
    /// Names of the numbers in which the blocks differ.
    pub(super) parameters: Vec<String>,
    /// For each block, the values of the parameters.
    pub(super) arguments: Vec<Vec<usize>>,
    /// For each layer, its numbers as text: literals and names of parameters.
    pub(super) texts: Vec<Vec<String>>,
}

/// Groups blocks by kind, in the order of their first members.
pub(super) fn kinds(network: &Network, blocks: &[Block]) -> Vec<Kind> {
    let alike = |a: &Block, b: &Block| {
        let (first, second) = (&network.layers[a.layers.clone()], &network.layers[b.layers.clone()]);
        first.len() == second.len()
            && first.iter().zip(second).all(|(x, y)| {
                let same_inputs = x.inputs.len() == y.inputs.len()
                    && x.inputs.iter().zip(&y.inputs).all(|(v, w)| relative(*v, a) == relative(*w, b));
                let same_name = relative_name(&x.name, a) == relative_name(&y.name, b);
                same_inputs && same_name && std::mem::discriminant(&x.op) == std::mem::discriminant(&y.op)
            })
    };
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for (i, block) in blocks.iter().enumerate() {
        match groups.iter_mut().find(|group| alike(&blocks[group[0]], block)) {
            Some(group) => group.push(i),
            None => groups.push(vec![i]),
        }
    }
    groups.into_iter().map(|members| kind(network, blocks, members)).collect()
}

fn kind(network: &Network, blocks: &[Block], members: Vec<usize>) -> Kind {
    let of = |member: &usize| -> Vec<(Role, usize)> {
        network.layers[blocks[*member].layers.clone()].iter().flat_map(|layer| numbers(&layer.op)).collect()
    };
    let tables: Vec<_> = members.iter().map(of).collect();
    let column = |i: usize| -> Vec<usize> { tables.iter().map(|table| table[i].1).collect() };
    // A column for each position whose number varies; equal columns of one role are one parameter.
    let mut columns: Vec<(Role, Vec<usize>)> = Vec::new();
    for (i, (role, first)) in tables[0].iter().enumerate() {
        let column = (*role, column(i));
        if column.1.iter().any(|number| number != first) && !columns.contains(&column) {
            columns.push(column);
        }
    }
    let names = names(&columns);
    let texts: Vec<String> = (0..tables[0].len())
        .map(|i| {
            let column = (tables[0][i].0, column(i));
            let found = columns.iter().position(|known| *known == column);
            found.map_or_else(|| tables[0][i].1.to_string(), |found| names[found].clone())
        })
        .collect();
    let mut rest = texts.into_iter();
    let layers = &network.layers[blocks[members[0]].layers.clone()];
    let texts = layers.iter().map(|layer| rest.by_ref().take(numbers(&layer.op).len()).collect()).collect();
    let arguments = (0..members.len()).map(|i| columns.iter().map(|(_, column)| column[i]).collect()).collect();
    Kind { members, parameters: names, arguments, texts }
}

/// `inputs` and `outputs` if there are two numbers of channels, `channels` if there is one.
fn names(columns: &[(Role, Vec<usize>)]) -> Vec<String> {
    let count = |role| columns.iter().filter(|(other, _)| *other == role).count();
    let mut names = Vec::new();
    for (i, (role, _)) in columns.iter().enumerate() {
        let before = columns[..i].iter().filter(|(other, _)| other == role).count();
        let name = match role {
            Role::Channels if count(*role) == 2 => ["inputs", "outputs"][before],
            Role::Channels => "channels",
            Role::Kernel => "kernel",
            Role::Stride => "stride",
            Role::Padding => "padding",
            Role::Size => "size",
        };
        let numbered = count(*role) > if *role == Role::Channels { 2 } else { 1 };
        names.push(if numbered { format!("{name}{}", before + 1) } else { name.to_owned() });
    }
    names
}

/// A value as the block counts it: 0 is what it reads, `i + 1` the output of its layer `i`.
pub(super) fn relative(value: Value, block: &Block) -> Value {
    if value == block.entry { 0 } else { value - block.layers.start }
}

/// The name of a layer inside its block.
pub(super) fn relative_name<'a>(name: &'a str, block: &Block) -> &'a str {
    name.strip_prefix(&block.name).and_then(|rest| rest.strip_prefix('.')).unwrap_or(name)
}
