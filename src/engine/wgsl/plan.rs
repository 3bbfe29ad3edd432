//! The engine's plan for a network and a batch size, computed without a device: algorithms, arithmetic, memory.

use std::collections::BTreeSet;

use serde::Serialize;

use super::kernel::Work;
use super::kernels::conv::Pass;
use super::lower::{self, geometry};
use super::memory;
use super::parameters::Parameters;
use super::program::{DispatchKind, Program};
use super::programs::{self, AttackStep, Key, Target};
use super::recorded::transient_lives;
use super::tuning::Choices;
use crate::engine::{BatchNormMode, EngineError, View};
use crate::model::{Network, Op};

/// Maximum number of floating-point operations of one dispatch in plans: that of a discrete GPU.
const BUDGET: u64 = 20_000_000_000;

/// One layer of a plan. Numbers are for the whole batch.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LayerPlan {
    /// PyTorch's module path.
    pub name: String,
    /// What it computes.
    pub operation: String,
    /// Channels × height × width of its output.
    pub output: String,
    /// How it is computed, such as the tile of a convolution.
    pub algorithm: String,
    /// Floating-point operations of the forward pass.
    pub flops_forward: u64,
    /// Floating-point operations of the backward pass to its input.
    pub flops_backward: u64,
    /// Floating-point operations of the backward pass to its weights.
    pub flops_weights: u64,
    /// Bytes that the forward pass moves.
    pub bytes_forward: u64,
    /// Index of the buffer that holds its output in a training step. `None` if the output is not materialised.
    pub buffer: Option<usize>,
    /// Bytes of its output; 0 if it is not materialised.
    pub bytes_output: u64,
}

/// A list of dispatches that is recorded once and replayed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ProgramPlan {
    /// What it does.
    pub name: &'static str,
    /// Number of dispatches.
    pub dispatches: usize,
    /// Floating-point operations.
    pub flops: u64,
    /// Bytes moved.
    pub bytes: u64,
    /// Bytes of the buffers that it shares with other programs.
    pub transient_bytes: u64,
}

/// Bytes on the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct MemoryPlan {
    /// Parameters, gradients, momentum, running statistics, class-by-class tables.
    pub parameters: u64,
    /// Images, perturbations, labels, results.
    pub batch: u64,
    /// Activations and their gradients, shared by all programs.
    pub activations: u64,
    /// Memory of the activations if none shared memory.
    pub activations_unshared: u64,
    /// Additional memory for batches of the other sizes. They share all buffers that are large enough.
    pub other_sizes: u64,
    /// The total: `parameters`, `batch`, `activations` and `other_sizes`.
    pub total: u64,
}

/// The engine's plan for a network and a batch size.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Plan {
    /// Architecture.
    pub architecture: String,
    /// Images in a batch.
    pub batch: usize,
    /// Sizes of the other batches of an epoch.
    pub other_sizes: Vec<usize>,
    /// Shape of an image.
    pub image: String,
    /// Images in each range that the batch is split into, so that a binding holds every activation.
    pub ranges: Vec<usize>,
    /// The layers in execution order.
    pub layers: Vec<LayerPlan>,
    /// One step of an attack, and the update.
    pub programs: Vec<ProgramPlan>,
    /// Sizes of the shared buffers.
    pub buffers: Vec<u64>,
    /// Memory.
    pub memory: MemoryPlan,
}

impl Plan {
    /// Plans FAIR-TAT training of `network` with batches of `batch` images, within `wgpu::Limits::default()`.
    ///
    /// # Errors
    /// If `batch` is zero, if the network is invalid, or if a single image or array is larger than a binding.
    pub fn new(network: &Network, batch: usize) -> Result<Self, EngineError> {
        Self::for_epoch(network, &[batch])
    }

    /// The same for an epoch with batches of several sizes, the largest first: arithmetic and buffers are those of the
    /// largest.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn for_epoch(network: &Network, sizes: &[usize]) -> Result<Self, EngineError> {
        Self::with(network, sizes, &Choices::default())
    }

    /// The same with one kernel per layer and without Winograd's algorithm.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn without_fusion(network: &Network, batch: usize) -> Result<Self, EngineError> {
        Self::with(network, &[batch], &Choices::plain())
    }

    fn with(network: &Network, sizes: &[usize], choices: &Choices) -> Result<Self, EngineError> {
        let (batch, others) = match sizes {
            [batch, others @ ..] if sizes.iter().all(|size| *size > 0) => (*batch, others),
            _ => return Err(EngineError::Invalid("a batch needs at least one image".into())),
        };
        network.check()?;
        let limits = wgpu::Limits::default();
        let parameters = Parameters::new(network, &limits)?;
        let target = Target { network, parameters: &parameters, batch, limits: &limits, budget: BUDGET, choices };
        // Rejects batches that are too large before anything is allocated per image.
        lower::ranges(network, batch, &limits)?;
        let prepare = programs::build(&Key::Prepare { view: true }, target)?;
        let build = |key: Key| programs::build(&key, target);
        let [attack, train] = training_programs(target)?;
        let (start, targets) = (build(Key::Start)?, build(Key::Targets)?);

        let mut buffers = Vec::new();
        let mut programs = Vec::new();
        let mut unshared = 0;
        let mut outputs = Vec::new();
        for (name, program) in [("attack step", &attack), ("update", &train)] {
            let (ids, lives) = transient_lives(program);
            let slots = memory::place(&lives, &mut buffers);
            unshared = unshared.max(lives.iter().map(|life| life.size).sum());
            let used: BTreeSet<usize> = slots.iter().copied().collect();
            let work = total(program, |_| true);
            programs.push(ProgramPlan {
                name,
                dispatches: program.steps.len(),
                flops: work.flops,
                bytes: work.bytes,
                transient_bytes: used.iter().map(|slot| buffers[*slot]).sum(),
            });
            // The last program is the update; all its outputs are kept for the backward pass.
            outputs = ids.into_iter().zip(slots).collect();
        }
        let layers = network.layers.iter().enumerate();
        let layers =
            layers.map(|(i, layer)| layer_plan(network, choices, [&train, &attack], &outputs, i, layer)).collect();
        let mut memory = memory_plan(&[&prepare, &start, &targets, &attack, &train], &buffers, unshared);
        let mut shared = buffers.clone();
        for size in others {
            for program in &training_programs(Target { batch: *size, ..target })? {
                memory::place(&transient_lives(program).1, &mut shared);
            }
        }
        memory.other_sizes = shared[buffers.len()..].iter().sum();
        memory.total += memory.other_sizes;
        Ok(Self {
            architecture: network.architecture.clone(),
            batch,
            other_sizes: others.to_vec(),
            image: network.input.to_string(),
            ranges: lower::ranges(network, batch, &limits)?,
            layers,
            programs,
            buffers,
            memory,
        })
    }
}

/// A step of an attack, and the update.
fn training_programs(target: Target<'_>) -> Result<[Program; 2], EngineError> {
    let views = vec![View::Adversarial];
    let loss = crate::engine::LossSpec::cross_entropy(View::Adversarial);
    let terms = super::kernels::loss::terms_len(&loss, target.batch);
    let attack = programs::build(&Key::Attack(AttackStep::plain(BatchNormMode::Train)), target)?;
    Ok([attack, programs::build(&Key::Train { views, terms }, target)?])
}

fn total(program: &Program, wanted: impl Fn(&super::program::ProgramStep) -> bool) -> Work {
    let steps = program.steps.iter().filter(|step| wanted(step));
    steps.fold(Work::default(), |sum, step| Work {
        flops: sum.flops + step.dispatch.work.flops,
        bytes: sum.bytes + step.dispatch.work.bytes,
    })
}

fn layer_plan(
    network: &Network,
    choices: &Choices,
    [train, attack]: [&Program; 2],
    outputs: &[(usize, usize)],
    i: usize,
    layer: &crate::model::Layer,
) -> LayerPlan {
    let of = |program: &Program, kind: DispatchKind| total(program, |s| s.layer == Some(i) && s.kind == kind);
    let forward = of(train, DispatchKind::Forward);
    let written = train.outputs.iter().find(|(found, ..)| *found == i);
    let slot = written
        .and_then(|(_, _, slices)| slices.first())
        .and_then(|slice| outputs.iter().find(|(id, _)| *id == slice.buffer.0).map(|(_, slot)| *slot));
    let algorithm = match geometry(network, layer) {
        Some(conv) => [Pass::Forward, Pass::InputGradient, Pass::WeightGradient]
            .map(|pass| choices.of(&conv, pass).to_string())
            .join(", "),
        None if forward == Work::default() => "with the layer before".into(),
        None => "elementwise or reduction".into(),
    };
    LayerPlan {
        name: layer.name.clone(),
        operation: operation(&layer.op),
        output: layer.shape.to_string(),
        algorithm,
        flops_forward: forward.flops,
        flops_backward: of(attack, DispatchKind::Backward).flops,
        flops_weights: of(train, DispatchKind::Weights).flops,
        bytes_forward: forward.bytes,
        buffer: slot,
        bytes_output: written.map_or(0, |(_, _, slices)| slices.iter().map(|slice| slice.size).sum()),
    }
}

fn operation(op: &Op) -> String {
    match op {
        Op::Normalize { .. } => "normalize".into(),
        Op::Conv2d { kernel, stride, .. } => format!("conv {kernel}x{kernel} s{stride}"),
        Op::BatchNorm { .. } => "batch norm".into(),
        Op::Relu => "relu".into(),
        Op::Add => "add".into(),
        Op::MaxPool { size } => format!("max pool {size}x{size}"),
        Op::GlobalAvgPool => "global pool".into(),
        Op::Linear { .. } => "linear".into(),
    }
}

fn memory_plan(programs: &[&Program], buffers: &[u64], unshared: u64) -> MemoryPlan {
    let mut seen = BTreeSet::new();
    let (mut parameters, mut batch) = (0, 0);
    for spec in programs.iter().flat_map(|program| &program.buffers) {
        let Some(home) = spec.home else { continue };
        if seen.insert(home) {
            *(if home.of_batch() { &mut batch } else { &mut parameters }) += spec.size;
        }
    }
    let activations = buffers.iter().sum();
    MemoryPlan {
        parameters,
        batch,
        activations,
        activations_unshared: unshared,
        other_sizes: 0,
        total: parameters + batch + activations,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::ImageShape;
    use crate::model::Architecture;

    fn plan(architecture: Architecture, side: usize, batch: usize) -> (Network, Plan) {
        let normalisation: (&[f32], &[f32]) = (&[0.5; 3], &[0.25; 3]);
        let network = architecture.build(ImageShape::new(3, side, side), 10, Some(normalisation), None);
        let plan = Plan::new(&network, batch).unwrap();
        (network, plan)
    }

    #[test]
    fn arithmetic_is_that_of_the_network() {
        let batch = 128;
        let (network, fused) = plan(Architecture::PreActResNet18, 32, batch);
        let plan = Plan::without_fusion(&network, batch).unwrap();
        let sum = |pass: fn(&LayerPlan) -> u64| -> u64 {
            plan.layers.iter().filter(|layer| layer.operation.starts_with("conv")).map(pass).sum()
        };
        let linear = 512 * 10;
        let expected = 2 * batch as u64 * (network.multiply_adds() - linear);
        assert_eq!(sum(|layer| layer.flops_forward), expected);
        // Splitting the pixels of a weight gradient (split-K) only adds the sum of the parts.
        let weights = sum(|layer| layer.flops_weights);
        assert!(weights >= expected && weights < expected + expected / 100, "{weights} {expected}");
        let gradients = sum(|layer| layer.flops_backward);
        assert!(gradients >= expected && gradients < expected + expected / 100, "{gradients} {expected}");
        // An attack computes no weight gradient: two passes where an update has three.
        let [attack, update] = &plan.programs[..] else { panic!("{:?}", plan.programs) };
        assert!(attack.flops < update.flops - expected * 9 / 10, "{attack:?} {update:?}");
        // F(4,3) needs a quarter of the multiplications. It computes 88 % of the arithmetic; transforms add to it.
        let less = attack.flops as f64 / fused.programs[0].flops as f64;
        assert!((2.5..3.2).contains(&less), "{less}");
    }

    #[test]
    fn memory_of_the_papers_network_stays_small() {
        let memory = |batch| plan(Architecture::PreActResNet18, 32, batch).1.memory;
        let (large, small) = (memory(128), memory(32));
        assert!(large.total < 1_288_490_188, "{large:?}: above 1.2 GiB");
        assert!(small.total < 512 << 20, "{small:?}");
        for plan in [large, small] {
            assert_eq!(plan.total, plan.parameters + plan.batch + plan.activations);
            // Every activation of a forward pass is kept, so sharing saves little there; it saves most for the
            // workspaces of Winograd's algorithm.
            let ratio = plan.activations_unshared as f64 / plan.activations as f64;
            assert!((4.0..10.0).contains(&ratio), "{ratio}");
        }
    }

    /// The batch sizes of an epoch differ by one.
    #[test]
    fn a_second_batch_size_takes_hardly_any_memory() {
        let normalisation: (&[f32], &[f32]) = (&[0.5; 3], &[0.25; 3]);
        for (architecture, side, width) in [
            (Architecture::DigitsCnn, 8, None),
            (Architecture::SmallCnn, 32, Some(16)),
            (Architecture::ResNet20, 32, None),
            (Architecture::PreActResNet18, 32, None),
            (Architecture::WideResNet28x10, 32, Some(16)),
        ] {
            let network = architecture.build(ImageShape::new(3, side, side), 10, Some(normalisation), width);
            for batch in [2, 17, 33, 60, 64, 100, 128, 129, 200] {
                let memory = Plan::for_epoch(&network, &[batch, batch - 1]).unwrap().memory;
                let alone = Plan::new(&network, batch).unwrap().memory;
                assert_eq!(memory.total, alone.total + memory.other_sizes);
                assert!(memory.other_sizes * 50 <= alone.total, "{architecture} {batch}: {memory:?}");
            }
        }
    }

    #[test]
    fn a_batch_beyond_a_binding_is_cut_and_an_absurd_one_refused() {
        let (_, plan) = plan(Architecture::WideResNet34x10, 32, 300);
        assert_eq!(plan.ranges, [150, 150]);
        assert!(plan.buffers.iter().all(|size| *size <= 128 << 20));
        let network = Architecture::SmallCnn.build(ImageShape::new(3, 32, 32), 10, None, None);
        let error = Plan::new(&network, 4_000_000_000).unwrap_err().to_string();
        assert!(error.contains("binding"), "{error}");
        assert!(Plan::new(&network, 0).is_err());
    }
}
