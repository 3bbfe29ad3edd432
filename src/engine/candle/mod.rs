//! The Candle engine: the reference for the other engines, and the engine for machines without a GPU.
//!
//! Forward and backward passes are written out over the layer list instead of being recorded by automatic
//! differentiation: an attack needs only the gradient with respect to the image, and a tape would compute every weight
//! gradient as well.

mod activation;
mod conv;
mod field;
mod kernels;
mod ops;
mod passes;
mod portable;
mod product;
mod search;
mod winograd;

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};

use self::ops::Ops;
use self::passes::{Compiled, Gradients, Tape};
use self::search::Search;
use super::checks::{check_batch_norm, check_images, check_running};
use super::held::{self, Held, SetAside};
use super::loss::{self, GradientScale};
use super::{
    Batch, BatchNormMode, BatchStats, Engine, EngineError, EngineState, Input, LossSpec, Objective, SearchSpec,
    SgdStep, View, Views,
};
use crate::model::{Array, Network, State, StateSpec};

/// Device on which Candle computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CandleDevice {
    /// All cores of the CPU.
    #[default]
    Cpu,
    /// An NVIDIA GPU; needs the cargo feature `cuda`.
    Cuda(usize),
    /// An Apple GPU; needs the cargo feature `metal`.
    Metal(usize),
}

impl CandleDevice {
    /// The devices that this build supports, the CPU first.
    pub fn available() -> Vec<Self> {
        let mut devices = vec![Self::Cpu];
        if candle_core::utils::cuda_is_available() {
            devices.push(Self::Cuda(0));
        }
        if candle_core::utils::metal_is_available() {
            devices.push(Self::Metal(0));
        }
        devices
    }

    fn open(self) -> Result<Device, EngineError> {
        let unavailable = |name: &str| {
            EngineError::Unavailable(format!(
                "this build of fairtat has no {name}; build it with `cargo build --release --features {name}`"
            ))
        };
        Ok(match self {
            Self::Cpu => Device::Cpu,
            Self::Cuda(_) if !candle_core::utils::cuda_is_available() => return Err(unavailable("cuda")),
            Self::Metal(_) if !candle_core::utils::metal_is_available() => return Err(unavailable("metal")),
            Self::Cuda(index) => Device::new_cuda(index)?,
            Self::Metal(index) => Device::new_metal(index)?,
        })
    }
}

impl std::fmt::Display for CandleDevice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Cpu => match rayon::current_num_threads() {
                1 => f.write_str("cpu, 1 thread"),
                threads => write!(f, "cpu, {threads} threads"),
            },
            Self::Cuda(index) => write!(f, "cuda {index}"),
            Self::Metal(index) => write!(f, "metal {index}"),
        }
    }
}

/// Runs a [`Network`] with Candle.
#[derive(Debug)]
pub struct CandleEngine {
    network: Network,
    device: Device,
    device_name: CandleDevice,
    compiled: Compiled,
    specs: Vec<StateSpec>,
    /// Parameters and running statistics in the order of `specs`.
    arrays: Vec<Tensor>,
    /// Momentum in the same order; `None` for running statistics.
    momentum: Vec<Option<Tensor>>,
    search: Option<Search>,
    generation: u64,
}

impl CandleEngine {
    /// An engine for `network` with the parameters of `state`.
    ///
    /// # Errors
    /// Returns an error if `network` cannot run ([`Network::check`]), the device is not available, or `state` does not
    /// fit.
    pub fn new(network: Network, state: &State, device: CandleDevice) -> Result<Self, EngineError> {
        network.check()?;
        let opened = device.open()?;
        let ops = Ops::new(opened.is_cpu());
        let compiled = Compiled::new(&network, &opened, ops)?;
        let specs = network.state_specs();
        let mut engine = Self {
            network,
            device: opened,
            device_name: device,
            compiled,
            specs,
            arrays: Vec::new(),
            momentum: Vec::new(),
            search: None,
            generation: 0,
        };
        engine.load_model(state)?;
        engine.reset_momentum()?;
        Ok(engine)
    }

    fn reset_momentum(&mut self) -> Result<(), EngineError> {
        let zeros = |(spec, array): (&StateSpec, &Tensor)| spec.trained.then(|| array.zeros_like()).transpose();
        self.momentum = self.specs.iter().zip(&self.arrays).map(zeros).collect::<Result<_, _>>()?;
        Ok(())
    }

    fn upload(&self, array: &Array) -> Result<Tensor, EngineError> {
        Ok(Tensor::from_slice(&array.data, array.shape.as_slice(), &self.device)?)
    }

    fn images(&self, data: Vec<f32>) -> Result<Tensor, EngineError> {
        let shape = self.network.input;
        let n = data.len() / shape.len();
        Ok(Tensor::from_vec(data, (n, shape.channels, shape.height, shape.width), &self.device)?)
    }

    fn prepare(&self, batch: &Batch<'_>) -> Result<Tensor, EngineError> {
        batch.check(self.network.input, self.network.classes)?;
        self.images(batch.prepare(self.network.input))
    }

    fn held(&self, views: &Views) -> Result<&Held, EngineError> {
        held::current(self.search.as_ref().map(|search| &search.held), views)
    }

    /// The search of these views.
    fn search(&self, views: &Views) -> Result<&Search, EngineError> {
        let held = self.held(views)?;
        let search = self.search.as_ref().filter(|search| search.held.generation == held.generation);
        search.ok_or_else(|| EngineError::Invalid("these views are no longer valid".into()))
    }

    /// The images of an input, and their labels.
    fn resolve(&self, input: &Input<'_>) -> Result<(Tensor, Vec<u32>), EngineError> {
        match input {
            Input::Batch(batch) => Ok((self.prepare(batch)?, batch.labels.to_vec())),
            Input::View(views, view) => Ok((self.search(views)?.view(*view)?, self.held(views)?.labels.clone())),
            Input::Images(data, labels) => {
                check_images(data, labels, self.network.input, self.network.classes)?;
                Ok((self.images(data.to_vec())?, labels.to_vec()))
            }
        }
    }

    /// Logits on the host. If they are not finite, the error names the first value that is not.
    fn read_logits(&self, tape: &Tape) -> Result<Vec<f32>, EngineError> {
        let values: Vec<f32> = tape.logits().flatten_all()?.to_vec1()?;
        if values.iter().all(|v| v.is_finite()) {
            return Ok(values);
        }
        let what = match tape.first_not_finite()? {
            None => "logits".into(),
            Some(0) => "images".into(),
            Some(value) => format!("output of layer '{}'", self.network.layers[value - 1].name),
        };
        Err(EngineError::NotFinite { what, batch: tape.logits().dim(0)? })
    }

    fn step(&mut self, gradients: &Gradients, sgd: &SgdStep) -> Result<(), EngineError> {
        for (i, gradient) in gradients.iter().enumerate() {
            let (Some(gradient), Some(momentum)) = (gradient, &self.momentum[i]) else { continue };
            let decayed = (gradient + (&self.arrays[i] * sgd.weight_decay)?)?;
            let moved = ((momentum * sgd.momentum)? + &decayed)?;
            let direction = if sgd.nesterov { (decayed + (&moved * sgd.momentum)?)? } else { moved.clone() };
            self.arrays[i] = (&self.arrays[i] - (&direction * sgd.lr)?)?;
            self.momentum[i] = Some(moved);
        }
        Ok(())
    }

    fn read(array: &Tensor) -> Result<Array, EngineError> {
        Ok(Array { shape: array.dims().to_vec(), data: array.flatten_all()?.to_vec1()? })
    }
}

impl Engine for CandleEngine {
    fn describe(&self) -> String {
        format!("candle ({})", self.device_name)
    }

    fn name(&self) -> String {
        let device = match self.device_name {
            CandleDevice::Cpu => "cpu",
            CandleDevice::Cuda(_) => "cuda",
            CandleDevice::Metal(_) => "metal",
        };
        format!("candle-{device}")
    }

    fn network(&self) -> &Network {
        &self.network
    }

    fn begin(&mut self, batch: &Batch<'_>, spec: &SearchSpec) -> Result<Views, EngineError> {
        self.search = None;
        let clean = self.prepare(batch)?;
        spec.check(batch.len(), self.network.input, self.network.classes)?;
        check_batch_norm(&self.network, batch.len(), spec.batch_norm)?;
        let search = self.begin_search(batch, clean, spec)?;
        let views = search.held.views();
        self.search = Some(search);
        Ok(views)
    }

    fn advance(&mut self, views: &Views, steps: u32) -> Result<(), EngineError> {
        self.held(views)?.check_steps(steps)?;
        let Some(mut search) = self.search.take() else { return Ok(()) };
        self.advance_search(&mut search, steps)?;
        self.search = Some(search);
        Ok(())
    }

    fn set_aside(&mut self, views: &Views) -> Result<SetAside, EngineError> {
        let search = self.search(views)?;
        let read = |images: &Tensor| -> Result<Vec<f32>, EngineError> { Ok(images.flatten_all()?.to_vec1()?) };
        let kept = held::kept_views(search.held.spec.snapshots).into_iter();
        let views = kept.map(|view| Ok((view, read(&search.kept(view))?)));
        Ok(SetAside {
            held: search.held.clone(),
            progress: search.progress.clone(),
            views: views.collect::<Result<_, EngineError>>()?,
            delta: read(&search.delta)?,
            reference: search.reference.clone().unwrap_or_default(),
        })
    }

    fn take_up(&mut self, search: &SetAside) -> Result<Views, EngineError> {
        search.check(self.network.input, self.network.classes)?;
        self.generation += 1;
        let held = Held { generation: self.generation, ..search.held.clone() };
        let images = |view| self.images(search.images(view).to_vec());
        let snapshot = |view| held.check_view(view).is_ok().then(|| images(view)).transpose();
        let objective = match (&held.spec.objective, &held.targets) {
            (objective, Some(targets)) if objective.is_targeted() => Objective::Targeted(targets.clone()),
            (objective, _) => objective.clone(),
        };
        let found = Search {
            progress: search.progress.clone(),
            reference: (objective == Objective::KlToClean).then(|| search.reference.clone()),
            objective,
            clean: images(View::Clean)?,
            delta: self.images(search.delta.clone())?,
            adversarial: images(View::Adversarial)?,
            last_clean: snapshot(View::LastClean)?,
            first_adversarial: snapshot(View::FirstAdversarial)?,
            held,
        };
        let views = found.held.views();
        self.search = Some(found);
        Ok(views)
    }

    fn train_step(&mut self, views: &Views, loss: &LossSpec, sgd: &SgdStep) -> Result<BatchStats, EngineError> {
        loss.check(views.len(), self.network.classes)?;
        check_batch_norm(&self.network, views.len(), BatchNormMode::Train)?;
        let held = self.held(views)?;
        let (labels, names, budgets) = (held.labels.clone(), loss.views(), held.budgets.clone());
        names.iter().try_for_each(|view| held.check_view(*view))?;
        let (mut tapes, mut logits) = (Vec::new(), Vec::new());
        for &view in &names {
            let x = self.search(views)?.view(view)?;
            let tape = self.compiled.forward(&mut self.arrays, &x, BatchNormMode::Train)?;
            logits.push(self.read_logits(&tape)?);
            tapes.push(tape);
        }
        let classes = self.network.classes;
        let (loss, class_factors) = loss::with_worst_case(loss, &names, &logits, &labels, classes);
        let (value, logit_gradients) = loss::outer(&loss, &names, &logits, &labels, classes);
        let mut total: Option<Gradients> = None;
        for (tape, gradient) in tapes.into_iter().zip(logit_gradients) {
            let gradient = Tensor::from_vec(gradient, (labels.len(), classes), &self.device)?;
            let gradients = self.compiled.parameter_gradients(&self.arrays, tape, gradient)?;
            total = Some(match total {
                None => gradients,
                Some(total) => passes::add_gradients(total, gradients)?,
            });
        }
        if let Some(total) = total {
            self.step(&total, sgd)?;
        }
        let predict = |z: &Vec<f32>| z.chunks(classes).map(loss::argmax).collect();
        let predictions: Vec<(View, Vec<u32>)> = names.iter().copied().zip(logits.iter().map(predict)).collect();
        let count = |(view, found): &(View, Vec<u32>)| (*view, loss::confusion(&labels, found, classes));
        let confusion = predictions.iter().map(count).collect();
        let logits = if loss.keep_logits { names.into_iter().zip(logits).collect() } else { Vec::new() };
        Ok(BatchStats { loss: value, predictions, confusion, logits, class_factors, budgets })
    }

    fn logits(&mut self, input: &Input<'_>, mode: BatchNormMode) -> Result<Vec<f32>, EngineError> {
        let (x, labels) = self.resolve(input)?;
        check_batch_norm(&self.network, labels.len(), mode)?;
        let tape = self.compiled.forward(&mut self.arrays, &x, mode)?;
        self.read_logits(&tape)
    }

    fn scaled_input_gradient(
        &mut self,
        input: &Input<'_>,
        objective: &Objective,
        scale: GradientScale,
        mode: BatchNormMode,
    ) -> Result<(Vec<f32>, Vec<f32>), EngineError> {
        objective.check_without_search()?;
        let (x, labels) = self.resolve(input)?;
        objective.check(labels.len(), self.network.classes)?;
        check_batch_norm(&self.network, labels.len(), mode)?;
        let (logits, gradient) = self.gradient_at(&x, &labels, objective, scale, mode, None)?;
        Ok((logits, gradient.flatten_all()?.to_vec1()?))
    }

    fn targets(&mut self, views: &Views) -> Result<Option<&[u32]>, EngineError> {
        Ok(self.held(views)?.targets.as_deref())
    }

    fn without_gradient(&self, views: &Views) -> Result<&[bool], EngineError> {
        Ok(&self.held(views)?.without_gradient)
    }

    fn read_view(&mut self, views: &Views, view: View) -> Result<Vec<f32>, EngineError> {
        Ok(self.search(views)?.view(view)?.flatten_all()?.to_vec1()?)
    }

    fn state(&mut self) -> Result<EngineState, EngineError> {
        let (mut model, mut momentum) = (BTreeMap::new(), BTreeMap::new());
        for ((spec, array), direction) in self.specs.iter().zip(&self.arrays).zip(&self.momentum) {
            model.insert(spec.name.clone(), Self::read(array)?);
            if let Some(direction) = direction {
                momentum.insert(spec.name.clone(), Self::read(direction)?);
            }
        }
        Ok(EngineState { model: State(model), momentum: State(momentum) })
    }

    fn running_statistics(&mut self) -> Result<State, EngineError> {
        let running = self.specs.iter().zip(&self.arrays).filter(|(spec, _)| !spec.trained);
        let read = running.map(|(spec, array)| Ok((spec.name.clone(), Self::read(array)?)));
        Ok(State(read.collect::<Result<_, EngineError>>()?))
    }

    fn load_running_statistics(&mut self, running: &State) -> Result<(), EngineError> {
        check_running(running, &self.network)?;
        for i in 0..self.specs.len() {
            if let Some(array) = running.0.get(&self.specs[i].name) {
                self.arrays[i] = self.upload(array)?;
            }
        }
        Ok(())
    }

    fn load_model(&mut self, model: &State) -> Result<(), EngineError> {
        model.check(&self.network)?;
        self.arrays = self.specs.iter().map(|spec| self.upload(&model.0[&spec.name])).collect::<Result<_, _>>()?;
        Ok(())
    }

    fn load_state(&mut self, state: &EngineState) -> Result<(), EngineError> {
        state.check_momentum(&self.network)?;
        let upload =
            |spec: &StateSpec| state.momentum.0.get(&spec.name).filter(|_| spec.trained).map(|a| self.upload(a));
        let momentum = self.specs.iter().map(|spec| upload(spec).transpose()).collect::<Result<_, _>>()?;
        self.load_model(&state.model)?;
        self.momentum = momentum;
        Ok(())
    }
}
