//! The programs of the engine, each for one batch size.

use super::error::{GpuError, readable};
use super::kernel::{Dispatch, Slice};
use super::kernels::attack::Keep;
use super::kernels::call::{Call, ImageInfo};
use super::kernels::stem::Search;
use super::kernels::{attack, loss, sgd};
use super::lower::{Lower, Objective, Tensor, Want, ranges};
use super::parameters::Parameters;
use super::program::{DispatchKind, Fixed, Program};
use super::tuning::Choices;
use crate::engine::{BatchNormMode, SearchSpec, Snapshots, View};
use crate::model::Network;

/// Identifies a program.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Key {
    /// From bytes to images in `[0, 1]`, in the clean view of a search or in the network's input.
    Prepare { view: bool },
    /// Draws the target class of each image.
    Targets,
    /// The starting point of a search.
    Start,
    /// One step of a search: forward, loss, backward to the image, step.
    Attack(AttackStep),
    /// Copies the current iterate of images that were never misclassified into the snapshots.
    Finish(Snapshots),
    /// Forward pass over the network's input.
    Forward(BatchNormMode),
    /// The same with one kernel per layer, so that every layer's output can be inspected.
    Layers(BatchNormMode),
    /// Forward pass, objective, backward pass to the image.
    Gradient(BatchNormMode),
    /// Transforms the weights for Winograd's algorithm. Needed after every change except by [`Self::Train`], which ends
    /// with it.
    Transform,
    /// Forward over the views, outer loss; then backward to the parameters and the update.
    Train {
        /// The views that the loss uses.
        views: Vec<View>,
        /// Length of its encoded terms in words.
        terms: usize,
    },
}

/// What a step of a search does besides moving the images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct AttackStep {
    pub(super) batch_norm: BatchNormMode,
    /// Whether it adds noise.
    pub(super) noise: bool,
    pub(super) snapshots: Snapshots,
}

impl AttackStep {
    /// A step without noise and snapshots.
    pub(super) fn plain(batch_norm: BatchNormMode) -> Self {
        Self { batch_norm, noise: false, snapshots: Snapshots::default() }
    }

    /// The step of a search.
    pub(super) fn of(spec: &SearchSpec) -> Self {
        Self { batch_norm: spec.batch_norm, noise: spec.noise > 0.0, snapshots: spec.snapshots }
    }
}

impl Key {
    /// Whether the program reads the transformed weights.
    pub(super) const fn reads_weights(&self) -> bool {
        match self {
            Self::Prepare { .. }
            | Self::Targets
            | Self::Start
            | Self::Finish(_)
            | Self::Transform
            | Self::Layers(_) => false,
            Self::Attack(_) | Self::Forward(_) | Self::Gradient(_) | Self::Train { .. } => true,
        }
    }
}

/// The inputs of [`build`] that all programs share.
#[derive(Debug, Clone, Copy)]
pub(super) struct Target<'a> {
    pub(super) network: &'a Network,
    pub(super) parameters: &'a Parameters,
    pub(super) batch: usize,
    pub(super) limits: &'a wgpu::Limits,
    /// Maximum number of floating-point operations of one dispatch.
    pub(super) budget: u64,
    pub(super) choices: &'a Choices,
}

/// Bytes of a batch's pixels, in whole words.
///
/// # Errors
/// [`GpuError::Limits`] if they do not fit into a binding.
pub(super) fn pixel_bytes(network: &Network, batch: usize, limits: &wgpu::Limits) -> Result<u64, GpuError> {
    let pixels = (batch * network.input.len()).next_multiple_of(4) as u64;
    if pixels > limits.max_storage_buffer_binding_size {
        return Err(GpuError::Limits(format!(
            "the pixels of a batch of {batch} images of {} take {}, a binding of this adapter holds {}; a smaller \
             batch fits",
            network.input,
            readable(pixels),
            readable(limits.max_storage_buffer_binding_size)
        )));
    }
    Ok(pixels)
}

/// Builds a program.
///
/// # Errors
/// [`GpuError::Limits`] if the batch does not fit into bindings.
pub(super) fn build(key: &Key, target: Target<'_>) -> Result<Program, GpuError> {
    let Target { network, parameters, batch, limits, budget, choices } = target;
    let pixels = pixel_bytes(network, batch, limits)?;
    let tables = match key {
        Key::Targets => 1,
        Key::Train { views, .. } => counted_tables(views.len()),
        _ => 0,
    };
    let tables = table_bytes(network.classes, tables);
    if tables > limits.max_storage_buffer_binding_size {
        return Err(GpuError::Limits(format!(
            "tables of {0} × {0} classes take {1}, a binding of this adapter holds {2}; the Candle engine has no such \
             limit",
            network.classes,
            readable(tables),
            readable(limits.max_storage_buffer_binding_size)
        )));
    }
    let ranges = ranges(network, batch, limits)?;
    let plain = Choices::plain();
    let choices = if matches!(key, Key::Layers(_)) { &plain } else { choices };
    let (binding, program) = (limits.max_storage_buffer_binding_size, Program::default());
    let lower = Lower { network, parameters, ranges, budget, binding, choices, program };
    let mut build = Builder { lower, batch };
    match key {
        Key::Prepare { view } => build.prepare(*view, pixels),
        Key::Targets => build.targets(),
        Key::Start => build.start(),
        Key::Attack(step) => build.attack(*step),
        Key::Finish(snapshots) => build.finish(*snapshots),
        Key::Transform => build.lower.transform_weights(),
        Key::Forward(mode) | Key::Layers(mode) => {
            let (x, logits) = (build.input(), build.logits());
            build.lower.forward(x, logits, *mode, false);
        }
        Key::Gradient(mode) => {
            // Every network has layers that read its input, so the gradient exists.
            let call = (build.call(), build.info(), build.whole(Fixed::Flag, 16));
            let x = build.input();
            let gradient = build.objective(x, call, *mode, Vec::new(), Want::Image);
            build.lower.program.image_gradient = gradient.unwrap_or_default();
        }
        Key::Train { views, terms } => build.train(views, *terms),
    }
    Ok(build.lower.program)
}

/// Bytes of `tables` tables of `classes × classes` words.
pub(super) const fn table_bytes(classes: usize, tables: usize) -> u64 {
    (tables * classes * classes * size_of::<u32>()) as u64
}

/// Number of tables of confusion counts for a loss on `views` views: at least two, so that the method may change
/// without new buffers.
pub(super) fn counted_tables(views: usize) -> usize {
    views.max(2)
}

/// The named buffer of a range of images.
type Home = fn(usize) -> Fixed;

struct Builder<'a> {
    lower: Lower<'a>,
    batch: usize,
}

impl Builder<'_> {
    fn whole(&mut self, home: Fixed, bytes: usize) -> Slice {
        self.lower.whole(home, bytes as u64)
    }

    fn call(&mut self) -> Slice {
        self.whole(Fixed::Call, size_of::<Call>())
    }

    fn info(&mut self) -> Slice {
        self.whole(Fixed::Info, self.batch * size_of::<ImageInfo>())
    }

    /// Settings and image information of the search.
    fn of_search(&mut self) -> (Slice, Slice) {
        let info = self.batch * size_of::<ImageInfo>();
        (self.whole(Fixed::SearchCall, size_of::<Call>()), self.whole(Fixed::SearchInfo, info))
    }

    fn images(&mut self, home: fn(usize) -> Fixed) -> Tensor {
        self.lower.named(home, self.lower.network.input)
    }

    fn input(&mut self) -> Tensor {
        self.images(Fixed::Input)
    }

    fn logits(&mut self) -> Tensor {
        self.lower.named(Fixed::Logits, self.logits_shape())
    }

    fn logits_shape(&self) -> crate::data::ImageShape {
        self.lower.network.shape_of(self.lower.network.layers.len())
    }

    fn prepare(&mut self, view: bool, pixels: u64) {
        let (call, info) = if view { self.of_search() } else { (self.call(), self.info()) };
        let pixels = self.lower.whole(Fixed::Pixels, pixels);
        let into = self.images(if view { Fixed::Clean } else { Fixed::Input });
        let shape = self.lower.network.input;
        for (r, images, first) in self.lower.parts() {
            let dispatch = attack::prepare(images, first, shape, pixels, call, info, into[r]);
            self.lower.program.push(None, DispatchKind::Other, dispatch);
        }
    }

    fn targets(&mut self) {
        let (call, info) = self.of_search();
        let classes = self.lower.network.classes;
        let thresholds = self.lower.whole(Fixed::Thresholds, table_bytes(classes, 1));
        let dispatch = loss::sample_targets(self.batch, 0, classes, call, thresholds, info);
        self.lower.program.push(None, DispatchKind::Other, dispatch);
    }

    fn start(&mut self) {
        let (call, info) = self.of_search();
        let (clean, delta) = (self.images(Fixed::Clean), self.images(Fixed::Delta));
        let x = self.images(Fixed::Adversarial);
        let shape = self.lower.network.input;
        for (r, images, first) in self.lower.parts() {
            let dispatch = attack::pgd_start(images, first, shape, call, info, clean[r], delta[r], x[r]);
            self.lower.program.push(None, DispatchKind::Other, dispatch);
        }
    }

    /// Forward, objective and backward to the image. `between` runs after the objective has computed the predictions.
    fn objective(
        &mut self,
        x: Tensor,
        (call, info, flag): (Slice, Slice, Slice),
        mode: BatchNormMode,
        between: Vec<Dispatch>,
        want: Want<'_>,
    ) -> Option<Tensor> {
        let logits = self.logits();
        let reference = self.lower.named(Fixed::Reference, self.logits_shape());
        let tape = self.lower.body(x, &logits, mode);
        self.lower.attack(&tape, Objective { call, info, reference, flag, between }, want)
    }

    fn attack(&mut self, step: AttackStep) {
        let (call, info) = self.of_search();
        let flags_bytes = attack::gradient_flags_bytes(self.batch);
        let (stopped, flags) = (self.whole(Fixed::SearchFlag, 16), self.lower.whole(Fixed::GradientFlag, flags_bytes));
        let (clean, delta) = (self.images(Fixed::Clean), self.images(Fixed::Delta));
        let x = self.images(Fixed::Adversarial);
        let parts = self.lower.parts();
        let search = |r: usize| Search { call, info, clean: clean[r], delta: delta[r], x: x[r], stopped, flags };
        let searches: Vec<Search> = parts.iter().map(|(r, ..)| search(*r)).collect();
        let shape = self.lower.network.input;
        let mut between = self.snapshots(step.snapshots, &x, [Keep::LastClean, Keep::FirstAdversarial]);
        if step.noise {
            let noise = |(r, images, first): &(usize, usize, usize)| {
                attack::noise(*images, *first, shape, call, info, delta[*r])
            };
            between.extend(parts.iter().map(noise));
        }
        let want = Want::Step(&searches);
        let Some(gradient) = self.objective(x, (call, info, stopped), step.batch_norm, between, want) else { return };
        for ((_, images, first), (gradient, search)) in parts.into_iter().zip(gradient.into_iter().zip(searches)) {
            let Search { clean, delta, x, .. } = search;
            let dispatch =
                attack::pgd_step(images, first, shape, call, info, clean, gradient, delta, x, stopped, flags);
            self.lower.program.push(None, DispatchKind::Other, dispatch);
        }
    }

    /// Copies `x` into the snapshots in use, with one rule each for last clean and first adversarial.
    fn snapshots(&mut self, kept: Snapshots, x: &Tensor, rules: [Keep; 2]) -> Vec<Dispatch> {
        let (_, info) = self.of_search();
        let shape = self.lower.network.input;
        let homes: [(bool, Home); 2] =
            [(kept.last_clean, Fixed::LastClean), (kept.first_adversarial, Fixed::FirstAdversarial)];
        let mut all = Vec::new();
        for ((kept, home), rule) in homes.into_iter().zip(rules) {
            if kept {
                let to = self.images(home);
                let parts = self.lower.parts().into_iter();
                all.extend(parts.map(|(r, n, first)| attack::snapshot(n, first, shape, rule, info, x[r], to[r])));
            }
        }
        all
    }

    fn finish(&mut self, kept: Snapshots) {
        let x = self.images(Fixed::Adversarial);
        for dispatch in self.snapshots(kept, &x, [Keep::NeverMisclassified; 2]) {
            self.lower.program.push(None, DispatchKind::Other, dispatch);
        }
    }

    fn train(&mut self, views: &[View], terms: usize) {
        let classes = self.lower.network.classes;
        let (call, info) = (self.call(), self.info());
        let terms = self.whole(Fixed::Terms(terms), 4 * terms);
        let results = self.whole(Fixed::Results, self.batch * 4 * loss::result_words(views.len()));
        let parts = self.lower.parts();
        // The logits of all views share one buffer, and so do their gradients: the loss then has the same number of
        // bindings for any number of views.
        let mut blocks = |label: &'static str| -> Vec<Vec<Slice>> {
            let of_range = |(_, images, _): &(usize, usize, usize)| {
                let stride = 4 * loss::view_stride(*images, classes) as u64;
                let whole = self.lower.program.transient(views.len() as u64 * stride, label);
                let block = |v: usize| {
                    let size = super::lower::bytes(*images, self.logits_shape());
                    Slice { offset: v as u64 * stride, size, ..whole }
                };
                (0..views.len()).map(block).collect()
            };
            parts.iter().map(of_range).collect()
        };
        let (logits, found) = (blocks("logits"), blocks("gradient of the logits"));
        let of_view = |blocks: &[Vec<Slice>], v: usize| -> Tensor { blocks.iter().map(|views| views[v]).collect() };
        let mut tapes = Vec::new();
        for (v, view) in views.iter().enumerate() {
            let x = self.images(Fixed::of_view(*view));
            tapes.push(self.lower.forward(x, of_view(&logits, v), BatchNormMode::Train, true));
        }
        let forwarded = self.lower.program.steps.len();
        self.lower.program.logits = (0..views.len()).map(|v| of_view(&logits, v)).collect();
        let whole = |views: &[Slice]| Slice {
            offset: 0,
            size: views.iter().map(|s| s.offset + s.size).max().unwrap_or(0),
            ..views[0]
        };
        for (r, images, first) in self.lower.parts() {
            let dispatch = loss::outer_loss(
                images,
                first,
                classes,
                views.len(),
                info,
                terms,
                whole(&logits[r]),
                whole(&found[r]),
                results,
            );
            self.lower.program.push(None, DispatchKind::Other, dispatch);
        }
        let counts = self.lower.whole(Fixed::Counts, table_bytes(classes, counted_tables(views.len())));
        let dispatch = loss::confusion(self.batch, 0, classes, views.len(), info, results, counts);
        self.lower.program.push(None, DispatchKind::Other, dispatch);
        self.lower.program.pauses = Some([forwarded, self.lower.program.steps.len()]);
        for (v, tape) in tapes.iter().enumerate() {
            self.lower.backward(tape, of_view(&found, v), Want::Parameters { accumulate: v > 0 });
        }
        for (slab, bytes) in self.lower.parameters.slabs.iter().enumerate() {
            let place = |home| super::program::Place { home, offset: 0, size: *bytes };
            let program = &mut self.lower.program;
            let parameter = program.fixed(place(Fixed::Parameters(slab)), *bytes);
            let gradient = program.fixed(place(Fixed::Gradients(slab)), *bytes);
            let momentum = program.fixed(place(Fixed::Momentum(slab)), *bytes);
            program.push(None, DispatchKind::Other, sgd::sgd(bytes / 16, call, gradient, parameter, momentum));
        }
        self.lower.transform_weights();
    }
}
