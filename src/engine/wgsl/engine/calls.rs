//! The trait [`Engine`]: which programs a call replays, and what goes in and out.

use std::collections::{BTreeMap, HashMap};

use bytemuck::Zeroable;

use super::not_finite::{GRADIENT, LOGITS};
use super::transfer::unpack;
use super::{Held, WgslEngine};
use crate::engine::checks::{check_batch_norm, check_images, check_running};
use crate::engine::loss::GradientScale;
use crate::engine::wgsl::kernels::call::{Call, ImageInfo};
use crate::engine::wgsl::kernels::{attack, loss};
use crate::engine::wgsl::program::{Fixed, Place};
use crate::engine::wgsl::programs::{self, Key};
use crate::engine::wgsl::tuning::KernelTable;
use crate::engine::{
    Batch, BatchNormMode, BatchStats, Engine, EngineError, EngineState, Input, LossSpec, Objective, PerturbSpec,
    SgdStep, Start, View, Views,
};
use crate::model::{Array, Network, State};

/// What a search leaves beside images.
#[derive(Debug)]
struct Search {
    /// Logits were not finite.
    bad_logits: bool,
    /// The gradient of an image was not finite.
    bad_gradient: bool,
    /// The target of each image; 0 where it had none.
    targets: Vec<u32>,
    /// Whether each image's gradient was exactly zero in some step.
    without_gradient: Vec<bool>,
}

impl WgslEngine {
    fn held(&self, views: &Views) -> Result<&Held, EngineError> {
        match &self.held {
            Some(held) if held.generation == views.generation => Ok(held),
            _ => Err(EngineError::Invalid("these views are gone: a later perturbation has replaced them".into())),
        }
    }

    /// Brings an input to where the network reads it, and gives its labels.
    fn resolve(
        &mut self,
        input: &Input<'_>,
        objective: Option<&Objective>,
        mode: BatchNormMode,
    ) -> Result<Vec<u32>, EngineError> {
        let labels = match input {
            Input::Batch(batch) => {
                batch.check(self.network.input, self.network.classes)?;
                batch.labels.to_vec()
            }
            Input::View(views, _) => self.held(views)?.labels.clone(),
            Input::Images(data, labels) => {
                check_images(data, labels, self.network.input, self.network.classes)?;
                labels.to_vec()
            }
        };
        let n = labels.len();
        check_batch_norm(&self.network, n, mode)?;
        if let Some(objective) = objective {
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
        if let Some(objective) = objective {
            ImageInfo::aim(&mut info, objective);
            call = call.with_objective(objective);
        }
        self.write_info(&info)?;
        self.write_call(n, &call)?;
        match input {
            Input::Batch(batch) => {
                self.write_pixels(batch)?;
                self.replay(n, &Key::Prepare { view: false })?;
            }
            Input::View(_, view) => {
                let from = match view {
                    View::Clean => Fixed::Clean,
                    View::Adversarial => Fixed::Adversarial,
                };
                self.copy_images(n, from, Fixed::Input)?;
            }
            Input::Images(data, _) => self.write_images(Fixed::Input, data)?,
        }
        Ok(labels)
    }

    /// Logits of the last forward pass over the network's input, checked to be numbers.
    fn read_logits(&mut self, images: usize, mode: BatchNormMode) -> Result<Vec<f32>, EngineError> {
        let shape = self.network.shape_of(self.network.layers.len());
        let logits = self.read_named(images, Fixed::Logits, shape)?;
        if logits.iter().all(|v| v.is_finite()) { Ok(logits) } else { Err(self.not_finite(images, mode)) }
    }

    /// Waits for a search, and reads what it left beside images.
    fn read_search(&mut self, images: usize) -> Result<Search, EngineError> {
        self.pacer.finish(&self.gpu)?;
        let bytes = (images * size_of::<ImageInfo>()) as u64;
        let flags_bytes = attack::gradient_flags_bytes(images);
        let flags = [self.buffer(images, Fixed::Flag, 16)?, self.buffer(images, Fixed::GradientFlag, flags_bytes)?];
        let info = self.buffer(images, Fixed::Info, bytes)?;
        let read = self.gpu.read(&[(&flags[0], 0, 4), (&flags[1], 0, flags_bytes), (&info, 0, bytes)])?;
        let raised = |bytes: &[u8]| bytes.iter().any(|byte| *byte != 0);
        let info: Vec<ImageInfo> = bytemuck::pod_collect_to_vec(&read[2]);
        let targets = info.iter().map(|image| image.target).collect();
        let (bad_gradient, zero) = read[1].split_at(16);
        let without_gradient = zero.chunks(4).map(raised).collect();
        Ok(Search { bad_logits: raised(&read[0]), bad_gradient: raised(bad_gradient), targets, without_gradient })
    }

    /// Uploads an array to its place in a kind of slab.
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

/// Where an array lies, or where its momentum does.
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

    fn perturb(&mut self, batch: &Batch<'_>, spec: &PerturbSpec) -> Result<Views, EngineError> {
        batch.check(self.network.input, self.network.classes)?;
        spec.check(batch.len(), self.network.input, self.network.classes)?;
        let n = batch.len();
        check_batch_norm(&self.network, n, spec.batch_norm)?;
        // The buffers of the views are about to change.
        self.held = None;
        self.set(n)?;
        self.write_pixels(batch)?;
        self.write_info(&ImageInfo::for_perturb(batch, spec))?;
        let scale = GradientScale::of_search(&self.network, spec.batch_norm);
        self.write_call(n, &Call::for_perturb(batch, spec).with_scale(scale))?;
        self.write(n, Fixed::Flag, 16, &[0u32; 4])?;
        let flags_bytes = attack::gradient_flags_bytes(n);
        self.write(n, Fixed::GradientFlag, flags_bytes, &vec![0u8; flags_bytes as usize])?;
        if let Start::Given(values) = &spec.start {
            self.write_images(Fixed::Delta, values)?;
        }
        if let Objective::Drawn(table) = &spec.objective {
            let bytes = programs::table_bytes(table.classes(), 1);
            self.write(n, Fixed::Thresholds, bytes, table.thresholds())?;
            self.replay(n, &Key::Targets)?;
        }
        self.replay(n, &Key::Prepare { view: true })?;
        if spec.objective == Objective::KlToClean {
            self.copy_images(n, Fixed::Clean, Fixed::Input)?;
            self.replay(n, &Key::Forward(spec.batch_norm))?;
            self.read_logits(n, spec.batch_norm)?;
            let shape = self.network.shape_of(self.network.layers.len());
            self.copy(n, Fixed::Logits, Fixed::Reference, shape)?;
        }
        self.replay(n, &Key::Start)?;
        for _ in 0..spec.steps {
            self.replay(n, &Key::Attack(spec.batch_norm))?;
        }
        self.copy_images(n, Fixed::Input, Fixed::Adversarial)?;
        let Search { bad_logits, bad_gradient, targets, without_gradient } = self.read_search(n)?;
        if bad_logits || bad_gradient {
            // The images have stayed where it happened.
            let what = match self.find_not_finite(n, spec.batch_norm)? {
                what if what == LOGITS && bad_gradient => GRADIENT.to_owned(),
                what => what,
            };
            return Err(EngineError::NotFinite { what, batch: n });
        }
        self.generation += 1;
        let generation = self.generation;
        let targets = matches!(spec.objective, Objective::Targeted(_) | Objective::Drawn(_)).then_some(targets);
        self.held = Some(Held { generation, labels: batch.labels.to_vec(), targets, without_gradient });
        Ok(Views { generation, len: n })
    }

    fn train_step(&mut self, views: &Views, loss: &LossSpec, sgd: &SgdStep) -> Result<BatchStats, EngineError> {
        loss.check(views.len())?;
        check_batch_norm(&self.network, views.len(), BatchNormMode::Train)?;
        let held = self.held(views)?;
        let info = ImageInfo::for_labels(&held.labels);
        let n = info.len();
        let names = loss.views();
        let terms = loss::encode_terms(loss, &names, n);
        let key = Key::Train { views: names.clone(), terms: terms.len() };
        self.write_info(&info)?;
        self.write_call(n, &Call::zeroed().with_sgd(sgd))?;
        self.write(n, Fixed::Terms(terms.len()), 4 * terms.len() as u64, &terms)?;
        self.ensure(n, &key)?;
        let table = self.network.classes * self.network.classes;
        let counts_bytes = programs::table_bytes(self.network.classes, 2);
        self.write(n, Fixed::Counts, counts_bytes, &vec![0u32; names.len() * table])?;
        let pause = self.pause_of(n, &key);
        self.replay_part(n, &key, 0, pause)?;
        self.pacer.finish(&self.gpu)?;
        let results = self.buffer(n, Fixed::Results, 12 * n as u64)?;
        let counts = self.buffer(n, Fixed::Counts, counts_bytes)?;
        let counted = programs::table_bytes(self.network.classes, names.len());
        let read = self.gpu.read(&[(&results, 0, 12 * n as u64), (&counts, 0, counted)])?;
        let [words, counts] = [&read[0], &read[1]].map(|bytes| bytemuck::pod_collect_to_vec::<u8, u32>(bytes));
        let predictions: Vec<(View, Vec<u32>)> = names
            .iter()
            .enumerate()
            .map(|(v, view)| (*view, words.chunks(3).map(|word| word[1 + v]).collect()))
            .collect();
        if let Some((view, _)) = predictions.iter().find(|(_, found)| found.contains(&u32::MAX)) {
            let from = match view {
                View::Clean => Fixed::Clean,
                View::Adversarial => Fixed::Adversarial,
            };
            self.copy_images(n, from, Fixed::Input)?;
            return Err(self.not_finite(n, BatchNormMode::Train));
        }
        let confusion = names.iter().copied().zip(counts.chunks(table).map(<[u32]>::to_vec)).collect();
        let value = words.chunks(3).map(|word| f64::from(f32::from_bits(word[0]))).sum();
        self.replay_part(n, &key, pause, usize::MAX)?;
        self.pacer.flush(&self.gpu)?;
        Ok(BatchStats { loss: value, predictions, confusion })
    }

    fn logits(&mut self, input: &Input<'_>, mode: BatchNormMode) -> Result<Vec<f32>, EngineError> {
        let n = self.resolve(input, None, mode)?.len();
        self.replay(n, &Key::Forward(mode))?;
        self.read_logits(n, mode)
    }

    fn input_gradient(
        &mut self,
        input: &Input<'_>,
        objective: &Objective,
        mode: BatchNormMode,
    ) -> Result<(Vec<f32>, Vec<f32>), EngineError> {
        objective.check_without_search()?;
        let n = self.resolve(input, Some(objective), mode)?.len();
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

    fn targets(&self, views: &Views) -> Result<Option<&[u32]>, EngineError> {
        Ok(self.held(views)?.targets.as_deref())
    }

    fn without_gradient(&self, views: &Views) -> Result<&[bool], EngineError> {
        Ok(&self.held(views)?.without_gradient)
    }

    fn read_view(&mut self, views: &Views, view: View) -> Result<Vec<f32>, EngineError> {
        self.held(views)?;
        let home = match view {
            View::Clean => Fixed::Clean,
            View::Adversarial => Fixed::Adversarial,
        };
        self.read_named(views.len(), home, self.network.input)
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
