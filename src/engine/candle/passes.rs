//! Forward and backward passes over a network's layers.

use candle_core::{Device, Result, Tensor};

use super::activation::Activation;
use super::conv::ConvShape;
use super::ops::{Cache, NormSaved, Ops};
use crate::engine::BatchNormMode;
use crate::model::{BATCH_NORM_EPSILON, BATCH_NORM_MOMENTUM, Network, Op, Value};

/// A gradient for every array of the state; `None` for running statistics.
pub(super) type Gradients = Vec<Option<Tensor>>;

/// One step of a pass, compiled from a layer. `at` is the index of the layer's first array in the state.
#[derive(Debug)]
enum LayerStep {
    Normalize {
        mean: Tensor,
        inverse_std: Tensor,
    },
    Conv {
        at: usize,
        shape: ConvShape,
        packed: Cache,
    },
    /// Batch norm; if `relu`, it also computes the ReLU that follows it.
    Norm {
        at: usize,
        relu: bool,
    },
    Relu,
    /// A ReLU that the batch norm before it computes.
    Fused,
    Add,
    MaxPool {
        size: usize,
    },
    GlobalPool {
        height: usize,
        width: usize,
    },
    Linear {
        at: usize,
    },
}

/// A network compiled for a device.
#[derive(Debug)]
pub(super) struct Compiled {
    steps: Vec<(LayerStep, Vec<Value>)>,
    ops: Ops,
    arrays: usize,
}

/// The values of a forward pass that the backward pass needs.
#[derive(Debug)]
pub(super) struct Tape {
    values: Vec<Option<Activation>>,
    norms: Vec<Option<NormSaved>>,
    logits: Tensor,
    mode: BatchNormMode,
}

impl Tape {
    /// `B × K`.
    pub(super) fn logits(&self) -> &Tensor {
        &self.logits
    }

    /// The first value that holds NaN or infinity: 0 for the images, then the outputs of the layers in order.
    pub(super) fn first_not_finite(&self) -> Result<Option<Value>> {
        for (i, value) in self.values.iter().enumerate() {
            let Some(value) = value else { continue };
            if !value.is_finite()? {
                return Ok(Some(i));
            }
        }
        Ok(None)
    }
}

impl Compiled {
    pub(super) fn new(network: &Network, device: &Device, ops: Ops) -> Result<Self> {
        let readers = network.readers();
        let mut at = 0;
        let mut steps: Vec<(LayerStep, Vec<Value>)> = Vec::with_capacity(network.layers.len());
        for (i, layer) in network.layers.iter().enumerate() {
            let input = network.shape_of(layer.inputs[0]);
            let mut arrays = 0;
            let step = match &layer.op {
                Op::Normalize { mean, std } => {
                    let shape = (1, mean.len(), 1, 1);
                    let mean = Tensor::from_slice(mean, shape, device)?;
                    let inverse_std = Tensor::from_slice(std, shape, device)?.recip()?;
                    LayerStep::Normalize { mean, inverse_std }
                }
                Op::Conv2d { in_channels, out_channels, kernel, stride, padding } => {
                    arrays = 1;
                    let shape = ConvShape {
                        in_channels: *in_channels,
                        height: input.height,
                        width: input.width,
                        out_channels: *out_channels,
                        out_height: layer.shape.height,
                        out_width: layer.shape.width,
                        kernel: *kernel,
                        stride: *stride,
                        padding: *padding,
                    };
                    LayerStep::Conv { at, shape, packed: Cache::default() }
                }
                Op::BatchNorm { .. } => {
                    arrays = 4;
                    let next = network.layers.get(i + 1);
                    let relu =
                        readers[i + 1] == 1 && next.is_some_and(|next| next.op == Op::Relu && next.inputs[0] == i + 1);
                    LayerStep::Norm { at, relu }
                }
                Op::Relu if matches!(steps.last(), Some((LayerStep::Norm { relu: true, .. }, _))) => LayerStep::Fused,
                Op::Relu => LayerStep::Relu,
                Op::Add => LayerStep::Add,
                Op::MaxPool { size } => LayerStep::MaxPool { size: *size },
                Op::GlobalAvgPool => LayerStep::GlobalPool { height: input.height, width: input.width },
                Op::Linear { .. } => {
                    arrays = 2;
                    LayerStep::Linear { at }
                }
            };
            at += arrays;
            steps.push((step, layer.inputs.clone()));
        }
        Ok(Self { steps, ops, arrays: at })
    }

    /// Runs the network on `x`, `B × C × H × W` in `[0, 1]`. Train mode updates the running statistics in `arrays`.
    pub(super) fn forward(&self, arrays: &mut [Tensor], x: &Tensor, mode: BatchNormMode) -> Result<Tape> {
        let ops = &self.ops;
        let mut values: Vec<Option<Activation>> = Vec::with_capacity(self.steps.len() + 1);
        let mut norms = Vec::with_capacity(self.steps.len());
        values.push(Some(ops.enter(x)?));
        for (step, inputs) in &self.steps {
            let input = value(&values, inputs[0])?;
            let mut saved = None;
            let output = match step {
                LayerStep::Normalize { mean, inverse_std } => ops.normalize(input, mean, inverse_std)?,
                LayerStep::Conv { at, shape, packed } => ops.conv(input, &arrays[*at], shape, packed)?,
                LayerStep::Norm { at, relu } => {
                    let running = match mode {
                        BatchNormMode::Train => None,
                        BatchNormMode::Eval => Some((&arrays[at + 2], &arrays[at + 3])),
                    };
                    let (weight, bias) = (&arrays[*at], &arrays[at + 1]);
                    let (output, kept) = ops.norm(input, weight, bias, running, BATCH_NORM_EPSILON, *relu)?;
                    if let Some((mean, variance)) = kept.batch_moments() {
                        let count = input.per_channel()? as f64;
                        // PyTorch normalises with the biased variance and stores the unbiased one.
                        let unbiased = (variance * (count / (count - 1.0).max(1.0)))?;
                        arrays[at + 2] = moved(&arrays[at + 2], mean)?;
                        arrays[at + 3] = moved(&arrays[at + 3], &unbiased)?;
                    }
                    saved = Some(kept);
                    output
                }
                LayerStep::Relu => ops.relu(input)?,
                LayerStep::Fused => input.clone(),
                LayerStep::Add => ops.add(input, value(&values, inputs[1])?)?,
                LayerStep::MaxPool { size } => ops.max_pool(input, *size)?,
                LayerStep::GlobalPool { .. } => ops.maps(&ops.global_pool(input)?)?,
                LayerStep::Linear { at } => {
                    ops.maps(&input.features()?.matmul(&arrays[*at].t()?)?.broadcast_add(&arrays[at + 1])?)?
                }
            };
            values.push(Some(output));
            norms.push(saved);
        }
        let logits = value(&values, self.steps.len())?.features()?;
        Ok(Tape { values, norms, logits, mode })
    }

    /// Gradient with respect to the images, from the gradient with respect to the logits.
    pub(super) fn input_gradient(&self, arrays: &[Tensor], tape: Tape, logits: Tensor) -> Result<Tensor> {
        let (input, _) = self.backward(arrays, tape, logits, false)?;
        input.ok_or_else(|| candle_core::Error::Msg("the network does not read its input".into()))?.tensor()
    }

    /// Gradient with respect to every parameter, from the gradient with respect to the logits.
    pub(super) fn parameter_gradients(&self, arrays: &[Tensor], tape: Tape, logits: Tensor) -> Result<Gradients> {
        Ok(self.backward(arrays, tape, logits, true)?.1)
    }

    /// If `parameters`, computes the gradients of the parameters but not that of the images; otherwise the reverse.
    fn backward(
        &self,
        arrays: &[Tensor],
        mut tape: Tape,
        logits: Tensor,
        parameters: bool,
    ) -> Result<(Option<Activation>, Gradients)> {
        let ops = &self.ops;
        let mut found: Gradients = vec![None; if parameters { self.arrays } else { 0 }];
        let mut gradients: Vec<Option<Activation>> = vec![None; self.steps.len() + 1];
        gradients[self.steps.len()] = Some(ops.maps(&logits)?);
        // If only parameters need gradients, nothing before the first layer with parameters does.
        let first =
            if parameters { self.steps.iter().position(|(step, _)| step.has_parameters()).unwrap_or(0) } else { 0 };
        for (i, (step, inputs)) in self.steps.iter().enumerate().skip(first).rev() {
            let Some(dy) = gradients[i + 1].take() else { continue };
            let output = tape.values[i + 1].take();
            let wanted = !parameters || i > first;
            let dx = match step {
                LayerStep::Normalize { inverse_std, .. } => Some(ops.normalize_backward(&dy, inverse_std)?),
                LayerStep::Conv { at, shape, packed } => {
                    if parameters {
                        let x = value(&tape.values, inputs[0])?;
                        found[*at] = Some(ops.conv_weight_gradient(x, &dy, shape)?);
                    }
                    wanted.then(|| ops.conv_input_gradient(&dy, &arrays[*at], shape, packed)).transpose()?
                }
                LayerStep::Norm { at, relu } => {
                    let saved = tape.norms[i].take();
                    let saved = saved.ok_or_else(|| {
                        candle_core::Error::Msg("batch norm has no saved values; its backward pass ran before".into())
                    })?;
                    Some(match tape.mode {
                        BatchNormMode::Train => {
                            let g = ops.norm_backward(&saved, &dy, BATCH_NORM_EPSILON, *relu)?;
                            if parameters {
                                found[*at] = Some(g.weight);
                                found[at + 1] = Some(g.bias);
                            }
                            g.input
                        }
                        BatchNormMode::Eval => ops.affine_backward(&saved, &dy, *relu)?,
                    })
                }
                LayerStep::Relu => {
                    let y = output.ok_or_else(|| {
                        candle_core::Error::Msg("ReLU has no saved output; its backward pass ran before".into())
                    })?;
                    Some(ops.relu_backward(&y, &dy)?)
                }
                LayerStep::Fused => Some(dy),
                LayerStep::Add => {
                    accumulate(ops, &mut gradients[inputs[1]], dy.clone())?;
                    Some(dy)
                }
                LayerStep::MaxPool { size } => {
                    Some(ops.max_pool_backward(value(&tape.values, inputs[0])?, &dy, *size)?)
                }
                LayerStep::GlobalPool { height, width } => {
                    Some(ops.global_pool_backward(&dy.features()?, *height, *width)?)
                }
                LayerStep::Linear { at } => {
                    let dy = dy.features()?;
                    if parameters {
                        let x = &value(&tape.values, inputs[0])?.features()?;
                        found[*at] = Some(dy.t()?.matmul(x)?);
                        found[at + 1] = Some(dy.sum(0)?);
                    }
                    Some(ops.maps(&dy.matmul(&arrays[*at])?)?)
                }
            };
            if let Some(dx) = dx {
                accumulate(ops, &mut gradients[inputs[0]], dx)?;
            }
        }
        Ok((gradients[0].take(), found))
    }
}

impl LayerStep {
    const fn has_parameters(&self) -> bool {
        matches!(self, Self::Conv { .. } | Self::Norm { .. } | Self::Linear { .. })
    }
}

fn value(values: &[Option<Activation>], index: Value) -> Result<&Activation> {
    values[index].as_ref().ok_or_else(|| candle_core::Error::Msg(format!("value {index} has already been freed")))
}

/// A running statistic after one batch: `(1 - momentum) · old + momentum · new`.
fn moved(running: &Tensor, batch: &Tensor) -> Result<Tensor> {
    let momentum = f64::from(BATCH_NORM_MOMENTUM);
    (running * (1.0 - momentum))? + (batch * momentum)?
}

fn accumulate(ops: &Ops, sum: &mut Option<Activation>, gradient: Activation) -> Result<()> {
    *sum = Some(match sum.take() {
        None => gradient,
        Some(sum) => ops.accumulate(sum, gradient)?,
    });
    Ok(())
}

/// Adds the gradients of two views.
pub(super) fn add_gradients(a: Gradients, b: Gradients) -> Result<Gradients> {
    a.into_iter().zip(b).map(|pair| if let (Some(a), Some(b)) = pair { (a + b).map(Some) } else { Ok(None) }).collect()
}
