//! The implementation of the trait [`Engine`]: the programs that a call replays, its inputs and its outputs.

use std::collections::{BTreeMap, HashMap};

use bytemuck::Zeroable;

use super::WgslEngine;
use super::not_finite::{GRADIENT, LOGITS};
use super::transfer::unpack;
use crate::engine::checks::{check_batch_norm, check_images, check_running};
use crate::engine::held::{self, Held, SetAside};
use crate::engine::loss::{GradientScale, with_worst_case};
use crate::engine::search_spec::least_likely;
use crate::engine::wgsl::kernels::call::{Call, ImageInfo};
use crate::engine::wgsl::kernels::{attack, loss};
use crate::engine::wgsl::program::{Fixed, Place};
use crate::engine::wgsl::programs::{self, AttackStep, Key};
use crate::engine::wgsl::tuning::KernelTable;
use crate::engine::{
    Batch, BatchNormMode, BatchStats, Engine, EngineError, EngineState, Input, LossSpec, Objective, SearchSpec,
    SgdStep, Start, View, Views,
};
use crate::model::{Array, Network, State};

impl WgslEngine {
    fn held(&self, views: &Views) -> Result<&Held, EngineError> {
        held::current(self.held.as_ref(), views)
    }

    /// Copies an input to the network's input buffer, and returns its labels.
    fn resolve(
        &mut self,
        input: &Input<'_>,
        objective: Option<(&Objective, GradientScale)>,
        mode: BatchNormMode,
    ) -> Result<Vec<u32>, EngineError> {
        let labels = match input {
            Input::Batch(batch) => {
                batch.check(self.network.input, self.network.classes)?;
                batch.labels.to_vec()
            }
            Input::View(views, view) => {
                self.held(views)?.check_view(*view)?;
                self.show(*view)?;
                self.held(views)?.labels.clone()
            }
            Input::Images(data, labels) => {
                check_images(data, labels, self.network.input, self.network.classes)?;
                labels.to_vec()
            }
        };
        let n = labels.len();
        check_batch_norm(&self.network, n, mode)?;
        if let Some((objective, _)) = objective {
            objective.check(n, self.network.classes)?;
        }
        let mut info = match input {
            Input::Batch(batch) => ImageInfo::for_batch(batch),
            Input::View(..) | Input::Images(..) => ImageInfo::for_labels(&labels),
        };
        let mut call = match input {
            Input::Batch(batch) => Call::for_batch(batch),
            Input::View(..) | Input::Images(..) => Call::zeroed(),
        };
        if let Some((objective, scale)) = objective {
            ImageInfo::aim(&mut info, objective);
            call = call.with_objective(objective).with_scale(scale);
        }
        self.write_info(Fixed::Info, &info)?;
        self.write_call(n, Fixed::Call, &call)?;
        match input {
            Input::Batch(batch) => {
                self.write_pixels(batch)?;
                self.replay(n, &Key::Prepare { view: false })?;
            }
            Input::View(_, view) => self.copy_images(n, Fixed::of_view(*view), Fixed::Input)?,
            Input::Images(data, _) => self.write_images(Fixed::Input, data)?,
        }
        Ok(labels)
    }

    /// Logits of the last forward pass over the network's input, checked to be finite.
    fn read_logits(&mut self, images: usize, mode: BatchNormMode) -> Result<Vec<f32>, EngineError> {
        let shape = self.network.shape_of(self.network.layers.len());
        let logits = self.read_named(images, Fixed::Logits, shape)?;
        if logits.iter().all(|v| v.is_finite()) { Ok(logits) } else { Err(self.not_finite(images, mode)) }
    }

    /// Logits of each view after the forward passes of a training step, checked to be finite.
    fn read_logits_of_views(&mut self, images: usize, key: &Key, views: &[View]) -> Result<Vec<Vec<f32>>, EngineError> {
        self.pacer.finish(&self.gpu)?;
        let shape = self.network.shape_of(self.network.layers.len());
        let mut all = Vec::new();
        for (v, view) in views.iter().enumerate() {
            let Some(recorded) = self.sets.last().and_then(|set| set.programs.get(key)) else { return Ok(all) };
            let ranges: Vec<_> = recorded.logits[v].iter().map(|slice| recorded.range(*slice)).collect();
            let logits = unpack(&self.gpu.read(&ranges)?, shape);
            if !logits.iter().all(|v| v.is_finite()) {
                self.copy_images(images, Fixed::of_view(*view), Fixed::Input)?;
                return Err(self.not_finite(images, BatchNormMode::Train));
            }
            all.push(logits);
        }
        Ok(all)
    }

    /// Copies the current iterate of images that were never misclassified into the snapshots, before a view is used.
    fn show(&mut self, view: View) -> Result<(), EngineError> {
        let Some(held) = &self.held else { return Ok(()) };
        if self.shown || !matches!(view, View::LastClean | View::FirstAdversarial) {
            return Ok(());
        }
        let (n, snapshots, at_end) = (held.labels.len(), held.spec.snapshots, held.taken == held.spec.steps);
        if snapshots.last_clean && !at_end {
            if held.taken == 0 {
                // No step has written the snapshot yet.
                self.copy_images(n, Fixed::Adversarial, Fixed::LastClean)?;
            }
            self.copy_images(n, Fixed::LastClean, Fixed::LastCleanKept)?;
        }
        self.replay(n, &Key::Finish(snapshots))?;
        self.shown = true;
        Ok(())
    }

    /// Undoes [`Self::show`] before the search continues.
    fn hide_snapshots(&mut self) -> Result<(), EngineError> {
        if let (true, Some(held)) = (self.shown, &self.held)
            && held.spec.snapshots.last_clean
            && held.taken < held.spec.steps
        {
            let n = held.labels.len();
            self.copy_images(n, Fixed::LastCleanKept, Fixed::LastClean)?;
        }
        self.shown = false;
        Ok(())
    }

    /// Writes the inputs of a search, except its images, when it starts or continues.
    fn write_search(&mut self, info: &[ImageInfo], call: Call, spec: &SearchSpec) -> Result<(), EngineError> {
        let n = info.len();
        let scale = GradientScale::of_search(&self.network, spec.batch_norm);
        self.write_info(Fixed::SearchInfo, info)?;
        self.write_call(n, Fixed::SearchCall, &call.with_scale(scale))?;
        self.write(n, Fixed::SearchFlag, 16, &[0u32; 4])
    }

    /// Writes the flags of the images of a search whose gradient was zero.
    fn write_without_gradient(&mut self, without: &[bool]) -> Result<(), EngineError> {
        let mut words = vec![0u32; attack::gradient_flags_bytes(without.len()) as usize / 4];
        let images = words.len() - without.len();
        words[images..].iter_mut().zip(without).for_each(|(word, without)| *word = u32::from(*without));
        self.write(without.len(), Fixed::GradientFlag, 4 * words.len() as u64, &words)
    }

    /// Waits for a search, and reads its state of each image.
    fn read_info(&mut self, images: usize) -> Result<Vec<ImageInfo>, EngineError> {
        self.pacer.finish(&self.gpu)?;
        let bytes = (images * size_of::<ImageInfo>()) as u64;
        let info = self.buffer(images, Fixed::SearchInfo, bytes)?;
        Ok(bytemuck::pod_collect_to_vec(&self.gpu.read(&[(&info, 0, bytes)])?[0]))
    }

    /// Waits for a search, and reads its results, except the images, into `held`. Returns whether a logit, and whether
    /// the gradient of an image, was not finite.
    fn read_search(&mut self, held: &mut Held) -> Result<[bool; 2], EngineError> {
        self.pacer.finish(&self.gpu)?;
        let images = held.labels.len();
        let bytes = (images * size_of::<ImageInfo>()) as u64;
        let flags_bytes = attack::gradient_flags_bytes(images);
        let flags =
            [self.buffer(images, Fixed::SearchFlag, 16)?, self.buffer(images, Fixed::GradientFlag, flags_bytes)?];
        let info = self.buffer(images, Fixed::SearchInfo, bytes)?;
        let read = self.gpu.read(&[(&flags[0], 0, 4), (&flags[1], 0, flags_bytes), (&info, 0, bytes)])?;
        let raised = |bytes: &[u8]| bytes.iter().any(|byte| *byte != 0);
        let info: Vec<ImageInfo> = bytemuck::pod_collect_to_vec(&read[2]);
        if held.spec.objective.is_targeted() {
            held.targets = Some(info.iter().map(|image| image.target).collect());
        }
        let (bad_gradient, zero) = read[1].split_at(16);
        held.without_gradient = zero.chunks(4).map(raised).collect();
        held.budgets = info.iter().map(|image| image.budget).collect();
        Ok([raised(&read[0]), raised(bad_gradient)])
    }

    /// Uploads arrays to their locations in the parameter slabs, or in the momentum slabs.
    pub(super) fn upload(&self, values: &State, momentum: bool) -> Result<(), EngineError> {
        for (spec, placed) in self.specs.iter().zip(&self.parameters.arrays) {
            if momentum && !spec.trained {
                continue;
            }
            let Some(array) = values.0.get(&spec.name) else { continue };
            let home = home_of(placed.place, momentum);
            let Some(buffer) = self.buffers.get(&home) else { continue };
            self.gpu.queue.write_buffer(buffer, placed.place.offset, bytemuck::cast_slice(&placed.pack(array)));
        }
        Ok(self.gpu.check()?)
    }
}

/// The buffer of an array, or of its momentum.
const fn home_of(place: Place, momentum: bool) -> Fixed {
    match place.home {
        Fixed::Parameters(slab) if momentum => Fixed::Momentum(slab),
        home => home,
    }
}

impl Engine for WgslEngine {
    fn describe(&self) -> String {
        format!("wgsl ({}, {:?})", self.gpu.info.name, self.gpu.info.backend)
    }

    fn name(&self) -> String {
        "wgsl".into()
    }

    fn network(&self) -> &Network {
        &self.network
    }

    fn kernels(&self) -> Option<KernelTable> {
        Some(self.choices())
    }

    fn begin(&mut self, batch: &Batch<'_>, spec: &SearchSpec) -> Result<Views, EngineError> {
        batch.check(self.network.input, self.network.classes)?;
        spec.check(batch.len(), self.network.input, self.network.classes)?;
        let n = batch.len();
        check_batch_norm(&self.network, n, spec.batch_norm)?;
        // The buffers of the views are overwritten below.
        self.held = None;
        self.set(n)?;
        self.generation += 1;
        let mut held = Held::new(self.generation, batch, spec);
        let mut info = ImageInfo::for_search(batch, spec);
        self.write_pixels(batch)?;
        self.write_search(&info, Call::for_batch(batch).with_search(spec), spec)?;
        self.write_without_gradient(&held.without_gradient)?;
        if let Start::Given(values) = &spec.start {
            self.write_images(Fixed::Delta, values)?;
        }
        if let Objective::Drawn(table) = &spec.objective {
            let bytes = programs::table_bytes(table.classes(), 1);
            self.write(n, Fixed::Thresholds, bytes, table.thresholds())?;
            self.replay(n, &Key::Targets)?;
        }
        self.replay(n, &Key::Prepare { view: true })?;
        if spec.objective == Objective::LeastLikely {
            self.copy_images(n, Fixed::Clean, Fixed::Input)?;
            self.replay(n, &Key::Forward(BatchNormMode::Eval))?;
            let logits = self.read_logits(n, BatchNormMode::Eval)?;
            let targets = least_likely(&logits, batch.labels, self.network.classes);
            info.iter_mut().zip(&targets).for_each(|(image, target)| image.target = *target);
            self.write_info(Fixed::SearchInfo, &info)?;
            held.targets = Some(targets);
        }
        if spec.objective == Objective::KlToClean {
            self.copy_images(n, Fixed::Clean, Fixed::Input)?;
            self.replay(n, &Key::Forward(spec.batch_norm))?;
            self.read_logits(n, spec.batch_norm)?;
            let shape = self.network.shape_of(self.network.layers.len());
            self.copy(n, Fixed::Logits, Fixed::Reference, shape)?;
        }
        self.replay(n, &Key::Start)?;
        self.shown = false;
        let views = held.views();
        self.held = Some(held);
        Ok(views)
    }

    fn advance(&mut self, views: &Views, steps: u32) -> Result<(), EngineError> {
        self.held(views)?.check_steps(steps)?;
        if steps > 0 {
            self.hide_snapshots()?;
        }
        // After an error the search is no longer held.
        let Some(mut held) = self.held.take() else { return Ok(()) };
        let (n, batch_norm) = (views.len(), held.spec.batch_norm);
        let step = Key::Attack(AttackStep::of(&held.spec));
        for _ in 0..steps {
            self.replay(n, &step)?;
        }
        held.taken += steps;
        let [bad_logits, bad_gradient] = self.read_search(&mut held)?;
        if bad_logits || bad_gradient {
            // Since the error, the steps have left the images unchanged.
            self.copy_images(n, Fixed::Adversarial, Fixed::Input)?;
            let what = match self.find_not_finite(n, batch_norm)? {
                what if what == LOGITS && bad_gradient => GRADIENT.to_owned(),
                what => what,
            };
            return Err(EngineError::NotFinite { what, batch: n });
        }
        self.held = Some(held);
        Ok(())
    }

    fn set_aside(&mut self, views: &Views) -> Result<SetAside, EngineError> {
        self.held(views)?;
        self.hide_snapshots()?;
        let mut held = self.held(views)?.clone();
        let n = views.len();
        let info = self.read_info(n)?;
        if held.spec.objective.is_targeted() {
            held.targets = Some(info.iter().map(|image| image.target).collect());
        }
        let mut images = Vec::new();
        for view in held::kept_views(held.spec.snapshots) {
            images.push((view, self.read_named(n, Fixed::of_view(view), self.network.input)?));
        }
        let delta = self.read_named(n, Fixed::Delta, self.network.input)?;
        let reference = if held.spec.objective == Objective::KlToClean {
            let shape = self.network.shape_of(self.network.layers.len());
            self.read_named(n, Fixed::Reference, shape)?
        } else {
            Vec::new()
        };
        let progress = info.iter().map(ImageInfo::progress).collect();
        Ok(SetAside { held, progress, views: images, delta, reference })
    }

    fn take_up(&mut self, search: &SetAside) -> Result<Views, EngineError> {
        search.check(self.network.input, self.network.classes)?;
        self.held = None;
        self.generation += 1;
        let held = Held { generation: self.generation, ..search.held.clone() };
        self.set(held.labels.len())?;
        let info = ImageInfo::of_search(&held, &search.progress);
        self.write_search(&info, Call::of_search(&held), &held.spec)?;
        self.write_without_gradient(&held.without_gradient)?;
        for (view, images) in &search.views {
            self.write_images(Fixed::of_view(*view), images)?;
        }
        self.write_images(Fixed::Delta, &search.delta)?;
        if !search.reference.is_empty() {
            let shape = self.network.shape_of(self.network.layers.len());
            self.write_tensor(Fixed::Reference, &search.reference, shape)?;
        }
        self.shown = false;
        let views = held.views();
        self.held = Some(held);
        Ok(views)
    }

    fn train_step(&mut self, views: &Views, loss: &LossSpec, sgd: &SgdStep) -> Result<BatchStats, EngineError> {
        loss.check(views.len(), self.network.classes)?;
        check_batch_norm(&self.network, views.len(), BatchNormMode::Train)?;
        let held = self.held(views)?;
        let names = loss.views();
        names.iter().try_for_each(|view| held.check_view(*view))?;
        names.iter().try_for_each(|view| self.show(*view))?;
        let held = self.held(views)?;
        let (labels, budgets) = (held.labels.clone(), held.budgets.clone());
        let info = ImageInfo::for_labels(&labels);
        let n = info.len();
        let terms = loss::encode_terms(loss, &names, &labels);
        let key = Key::Train { views: names.clone(), terms: terms.len() };
        self.write_info(Fixed::Info, &info)?;
        self.write_call(n, Fixed::Call, &Call::zeroed().with_sgd(sgd))?;
        self.write(n, Fixed::Terms(terms.len()), 4 * terms.len() as u64, &terms)?;
        self.ensure(n, &key)?;
        let table = self.network.classes * self.network.classes;
        let counts_bytes = programs::table_bytes(self.network.classes, programs::counted_tables(names.len()));
        self.write(n, Fixed::Counts, counts_bytes, &vec![0u32; names.len() * table])?;
        let [forwarded, pause] = self.pauses_of(n, &key);
        self.replay_part(n, &key, 0, forwarded)?;
        let (mut logits, mut class_factors) = (Vec::new(), Vec::new());
        if loss.worst_case.is_some() || loss.keep_logits {
            logits = self.read_logits_of_views(n, &key, &names)?;
            let (resolved, factors) = with_worst_case(loss, &names, &logits, &labels, self.network.classes);
            if loss.worst_case.is_some() {
                let terms = loss::encode_terms(&resolved, &names, &labels);
                self.write(n, Fixed::Terms(terms.len()), 4 * terms.len() as u64, &terms)?;
            }
            class_factors = factors;
        }
        self.replay_part(n, &key, forwarded, pause)?;
        self.pacer.finish(&self.gpu)?;
        let words_of_image = loss::result_words(names.len());
        let results_bytes = 4 * (words_of_image * n) as u64;
        let results = self.buffer(n, Fixed::Results, results_bytes)?;
        let counts = self.buffer(n, Fixed::Counts, counts_bytes)?;
        let counted = programs::table_bytes(self.network.classes, names.len());
        let read = self.gpu.read(&[(&results, 0, results_bytes), (&counts, 0, counted)])?;
        let [words, counts] = [&read[0], &read[1]].map(|bytes| bytemuck::pod_collect_to_vec::<u8, u32>(bytes));
        let predictions: Vec<(View, Vec<u32>)> = names
            .iter()
            .enumerate()
            .map(|(v, view)| (*view, words.chunks(words_of_image).map(|word| word[1 + v]).collect()))
            .collect();
        if let Some((view, _)) = predictions.iter().find(|(_, found)| found.contains(&u32::MAX)) {
            self.copy_images(n, Fixed::of_view(*view), Fixed::Input)?;
            return Err(self.not_finite(n, BatchNormMode::Train));
        }
        let confusion = names.iter().copied().zip(counts.chunks(table).map(<[u32]>::to_vec)).collect();
        let value = words.chunks(words_of_image).map(|word| f64::from(f32::from_bits(word[0]))).sum();
        self.replay_part(n, &key, pause, usize::MAX)?;
        self.pacer.flush(&self.gpu)?;
        let logits = if loss.keep_logits { names.into_iter().zip(logits).collect() } else { Vec::new() };
        Ok(BatchStats { loss: value, predictions, confusion, logits, class_factors, budgets })
    }

    fn logits(&mut self, input: &Input<'_>, mode: BatchNormMode) -> Result<Vec<f32>, EngineError> {
        let n = self.resolve(input, None, mode)?.len();
        self.replay(n, &Key::Forward(mode))?;
        self.read_logits(n, mode)
    }

    fn prefers_few_sizes(&self) -> bool {
        true
    }

    fn scaled_input_gradient(
        &mut self,
        input: &Input<'_>,
        objective: &Objective,
        scale: GradientScale,
        mode: BatchNormMode,
    ) -> Result<(Vec<f32>, Vec<f32>), EngineError> {
        objective.check_without_search()?;
        let n = self.resolve(input, Some((objective, scale)), mode)?.len();
        let key = Key::Gradient(mode);
        self.replay(n, &key)?;
        let logits = self.read_logits(n, mode)?;
        let Some(recorded) = self.sets.last().and_then(|set| set.programs.get(&key)) else {
            return Err(EngineError::Invalid("a batch needs at least one image".into()));
        };
        let ranges: Vec<_> = recorded.image_gradient.iter().map(|slice| recorded.range(*slice)).collect();
        let gradient = unpack(&self.gpu.read(&ranges)?, self.network.input);
        if gradient.iter().all(|v| v.is_finite()) {
            Ok((logits, gradient))
        } else {
            Err(EngineError::NotFinite { what: GRADIENT.into(), batch: n })
        }
    }

    fn targets(&mut self, views: &Views) -> Result<Option<&[u32]>, EngineError> {
        let held = self.held(views)?;
        if held.targets.is_none() && held.spec.objective.is_targeted() {
            let info = self.read_info(views.len())?;
            if let Some(held) = &mut self.held {
                held.targets = Some(info.iter().map(|image| image.target).collect());
            }
        }
        Ok(self.held(views)?.targets.as_deref())
    }

    fn without_gradient(&self, views: &Views) -> Result<&[bool], EngineError> {
        Ok(&self.held(views)?.without_gradient)
    }

    fn read_view(&mut self, views: &Views, view: View) -> Result<Vec<f32>, EngineError> {
        self.held(views)?.check_view(view)?;
        self.show(view)?;
        self.read_named(views.len(), Fixed::of_view(view), self.network.input)
    }

    fn state(&mut self) -> Result<EngineState, EngineError> {
        self.pacer.finish(&self.gpu)?;
        let mut read = HashMap::new();
        for (home, buffer) in &self.buffers {
            if matches!(home, Fixed::Parameters(_) | Fixed::Momentum(_) | Fixed::Running) {
                let bytes = self.gpu.read(&[(buffer, 0, buffer.size())])?.remove(0);
                read.insert(*home, bytemuck::pod_collect_to_vec::<u8, f32>(&bytes));
            }
        }
        let find = |place: Place, momentum: bool| -> &[f32] {
            let (from, len) = (place.offset as usize / 4, place.size as usize / 4);
            read.get(&home_of(place, momentum)).and_then(|values| values.get(from..from + len)).unwrap_or_default()
        };
        let (mut model, mut momentum) = (BTreeMap::new(), BTreeMap::new());
        for (spec, placed) in self.specs.iter().zip(&self.parameters.arrays) {
            let array = |of_momentum| -> Array { placed.unpack(find(placed.place, of_momentum)) };
            model.insert(spec.name.clone(), array(false));
            if spec.trained {
                momentum.insert(spec.name.clone(), array(true));
            }
        }
        Ok(EngineState { model: State(model), momentum: State(momentum) })
    }

    fn running_statistics(&mut self) -> Result<State, EngineError> {
        self.pacer.finish(&self.gpu)?;
        let Some(buffer) = self.buffers.get(&Fixed::Running) else { return Ok(State::default()) };
        let bytes = self.gpu.read(&[(buffer, 0, buffer.size())])?.remove(0);
        let values = bytemuck::pod_collect_to_vec::<u8, f32>(&bytes);
        let running = self.specs.iter().zip(&self.parameters.arrays).filter(|(spec, _)| !spec.trained);
        let read = running.map(|(spec, placed)| {
            let (from, len) = (placed.place.offset as usize / 4, placed.place.size as usize / 4);
            (spec.name.clone(), placed.unpack(values.get(from..from + len).unwrap_or_default()))
        });
        Ok(State(read.collect()))
    }

    fn load_running_statistics(&mut self, running: &State) -> Result<(), EngineError> {
        check_running(running, &self.network)?;
        self.pacer.flush(&self.gpu)?;
        self.upload(running, false)
    }

    fn load_model(&mut self, model: &State) -> Result<(), EngineError> {
        model.check(&self.network)?;
        self.pacer.finish(&self.gpu)?;
        self.transformed = false;
        self.upload(model, false)
    }

    fn load_state(&mut self, state: &EngineState) -> Result<(), EngineError> {
        state.check_momentum(&self.network)?;
        self.load_model(&state.model)?;
        self.upload(&state.momentum, true)
    }
}
