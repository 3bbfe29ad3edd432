//! The operations of a network, forward and backward. Each runs a CPU kernel if the activations are fields on the CPU,
//! and tensor operations otherwise.

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{CpuStorage, Device, Error, Result, Storage, Tensor, TensorId};

use super::activation::Activation::{self, Field as OnCpu, Tensor as OnDevice};
use super::activation::NormBackward;
use super::conv::{ConvShape, Packed};
use super::field::{BufferPool, Field, Line, blocks};
use super::kernels::{self, Affine, MaxPool};
use super::portable;

/// Calls `f` with the values of a contiguous `f32` tensor on the CPU.
pub(super) fn with_values<R>(tensor: &Tensor, f: impl FnOnce(&[f32]) -> R) -> Result<R> {
    let (storage, layout) = tensor.storage_and_layout();
    let Some((start, end)) = layout.contiguous_offsets() else {
        return Err(Error::Msg(format!("a tensor of shape {:?} is not contiguous", tensor.shape())));
    };
    match &*storage {
        Storage::Cpu(CpuStorage::F32(values)) => Ok(f(&values[start..end])),
        _ => Err(Error::Msg(format!("expected f32 on the CPU, found {:?}", tensor.dtype()))),
    }
}

/// The error of an operation whose two operands are of different kinds.
fn mixed() -> Error {
    Error::Msg("an operation got a tensor and a field; both operands must be of the same kind".into())
}

/// Chooses between the CPU kernels and their twin: by the kind of the operand, and for new values by `kernels`.
#[derive(Debug, Clone)]
pub(super) struct Ops {
    kernels: bool,
    memory: Arc<BufferPool>,
}

/// Weights of a convolution in the layout of the CPU kernels, packed once for each version of the weights.
#[derive(Debug, Default)]
pub(super) struct Cache(Mutex<[Option<Version>; 2]>);

/// The tensor from which the weights were packed, and the packed weights.
type Version = (TensorId, Arc<Packed>);

impl Cache {
    /// Weights for the forward pass, or for the input gradient if `turned`.
    fn get(&self, weight: &Tensor, shape: &ConvShape, turned: bool) -> Result<Arc<Packed>> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = &mut kept[usize::from(turned)];
        if let Some((id, packed)) = kept
            && *id == weight.id()
        {
            return Ok(Arc::clone(packed));
        }
        // Free the old weights first: in a large network they take most of the memory.
        *kept = None;
        let pack = |w: &[f32]| if turned { shape.pack_for_input(w) } else { shape.pack(w) };
        let packed = Arc::new(with_values(weight, pack)?);
        *kept = Some((weight.id(), Arc::clone(&packed)));
        Ok(packed)
    }
}

/// Values of a batch norm's forward pass that its backward pass needs.
#[derive(Debug, Clone)]
pub(super) struct NormSaved {
    input: Activation,
    /// `weight · rstd` and `bias - mean · scale`.
    scale: Tensor,
    shift: Tensor,
    /// Mean and biased variance of the batch; `None` if running statistics were used.
    batch: Option<(Tensor, Tensor)>,
}

impl NormSaved {
    /// Mean and biased variance of the batch; `None` if running statistics were used.
    pub(super) fn batch_moments(&self) -> Option<&(Tensor, Tensor)> {
        self.batch.as_ref()
    }

    fn affine(&self, relu: bool) -> Result<Vec<Affine>> {
        let lines = |t: &Tensor| with_values(t, |v| Line::fill(v.iter().copied(), blocks(v.len())));
        let pairs = lines(&self.scale)?.into_iter().zip(lines(&self.shift)?);
        Ok(pairs.map(|(scale, shift)| Affine { scale, shift, relu }).collect())
    }
}

impl Ops {
    pub(super) fn new(kernels: bool) -> Self {
        Self { kernels, memory: Arc::default() }
    }

    /// Images as an operand of the operations below.
    pub(super) fn enter(&self, x: &Tensor) -> Result<Activation> {
        if !self.kernels {
            return Ok(OnDevice(x.clone()));
        }
        self.memory.begin(x.dim(0)?);
        let field = with_values(x, |v| x.dims4().map(|dims| Field::from_planes(&self.memory, dims.into(), v)))??;
        Ok(OnCpu(Arc::new(field)))
    }

    /// Features, `B × C`, as maps of 1×1.
    pub(super) fn maps(&self, features: &Tensor) -> Result<Activation> {
        let (n, channels) = features.dims2()?;
        self.enter(&features.reshape((n, channels, 1, 1))?)
    }

    /// A new field, written by `write`.
    fn field(&self, dims: [usize; 4], write: impl FnOnce(&mut Field)) -> Activation {
        let mut field = Field::new(&self.memory, dims);
        write(&mut field);
        OnCpu(Arc::new(field))
    }

    pub(super) fn conv(&self, x: &Activation, weight: &Tensor, shape: &ConvShape, cache: &Cache) -> Result<Activation> {
        let x = match x {
            OnDevice(x) => return portable::conv(x, weight, shape).map(OnDevice),
            OnCpu(x) => x,
        };
        let packed = cache.get(weight, shape, false)?;
        let dims = [x.images, shape.out_channels, shape.out_height, shape.out_width];
        Ok(self.field(dims, |y| shape.forward(x, &packed, y)))
    }

    pub(super) fn conv_input_gradient(
        &self,
        dy: &Activation,
        weight: &Tensor,
        shape: &ConvShape,
        cache: &Cache,
    ) -> Result<Activation> {
        let dy = match dy {
            OnDevice(dy) => return portable::conv_input_gradient(dy, weight, shape).map(OnDevice),
            OnCpu(dy) => dy,
        };
        let packed = cache.get(weight, shape, true)?;
        let dims = [dy.images, shape.in_channels, shape.height, shape.width];
        Ok(self.field(dims, |dx| shape.input_gradient(dy, &packed, dx)))
    }

    pub(super) fn conv_weight_gradient(&self, x: &Activation, dy: &Activation, shape: &ConvShape) -> Result<Tensor> {
        match (x, dy) {
            (OnDevice(x), OnDevice(dy)) => portable::conv_weight_gradient(x, dy, shape),
            (OnCpu(x), OnCpu(dy)) => {
                let dims = (shape.out_channels, shape.in_channels, shape.kernel, shape.kernel);
                Tensor::from_vec(shape.weight_gradient(x, dy), dims, &Device::Cpu)
            }
            _ => Err(mixed()),
        }
    }

    /// `(x - mean) / std` for each channel.
    pub(super) fn normalize(&self, x: &Activation, mean: &Tensor, inverse_std: &Tensor) -> Result<Activation> {
        match x {
            OnDevice(x) => x.broadcast_sub(mean)?.broadcast_mul(inverse_std).map(OnDevice),
            OnCpu(_) => {
                let scale = inverse_std.flatten_all()?;
                let shift = (mean.flatten_all()?.neg()? * &scale)?;
                let saved = NormSaved { input: x.clone(), scale, shift, batch: None };
                self.affine(x, &saved, false)
            }
        }
    }

    /// Backward of [`Self::normalize`].
    pub(super) fn normalize_backward(&self, dy: &Activation, inverse_std: &Tensor) -> Result<Activation> {
        match dy {
            OnDevice(dy) => dy.broadcast_mul(inverse_std).map(OnDevice),
            OnCpu(_) => {
                let scale = inverse_std.flatten_all()?;
                let saved = NormSaved { input: dy.clone(), shift: scale.zeros_like()?, scale, batch: None };
                self.affine(dy, &saved, false)
            }
        }
    }

    fn affine(&self, x: &Activation, saved: &NormSaved, relu: bool) -> Result<Activation> {
        match x {
            OnDevice(x) => portable::affine(x, &saved.scale, &saved.shift, relu).map(OnDevice),
            OnCpu(x) => {
                let affine = saved.affine(relu)?;
                Ok(self.field(x.dims(), |y| kernels::affine(x, &affine, y)))
            }
        }
    }

    /// Batch norm, followed by a ReLU if `relu`. `running` are mean and variance to use instead of the batch's.
    pub(super) fn norm(
        &self,
        x: &Activation,
        weight: &Tensor,
        bias: &Tensor,
        running: Option<(&Tensor, &Tensor)>,
        epsilon: f32,
        relu: bool,
    ) -> Result<(Activation, NormSaved)> {
        let batch = match (running, x) {
            (Some(_), _) => None,
            (None, OnDevice(x)) => Some(portable::moments(x)?),
            (None, OnCpu(x)) => {
                let (mean, variance): (Vec<f32>, Vec<f32>) = kernels::moments(x).into_iter().unzip();
                let on = |values| Tensor::from_vec(values, x.channels, &Device::Cpu);
                Some((on(mean)?, on(variance)?))
            }
        };
        let (mean, variance) = match (&batch, running) {
            (Some((mean, variance)), _) => (mean, variance),
            (None, Some(running)) => running,
            (None, None) => return Err(Error::Msg("batch norm needs statistics".into())),
        };
        let scale = (weight / (variance + f64::from(epsilon))?.sqrt()?)?;
        let shift = (bias - (mean * &scale)?)?;
        let saved = NormSaved { input: x.clone(), scale, shift, batch };
        let y = self.affine(x, &saved, relu)?;
        Ok((y, saved))
    }

    /// Backward of [`Self::norm`] with batch statistics.
    pub(super) fn norm_backward(
        &self,
        saved: &NormSaved,
        dy: &Activation,
        epsilon: f32,
        relu: bool,
    ) -> Result<NormBackward> {
        let Some((mean, variance)) = &saved.batch else {
            return Err(Error::Msg("parameters of batch norm have no gradient with running statistics".into()));
        };
        let (x, dy) = match (&saved.input, dy) {
            (OnDevice(x), OnDevice(dy)) => {
                return portable::norm_backward(x, dy, &saved.scale, &saved.shift, mean, variance, epsilon, relu);
            }
            (OnCpu(x), OnCpu(dy)) => (x, dy),
            _ => return Err(mixed()),
        };
        let moments: Vec<(f32, f32)> = mean.to_vec1::<f32>()?.into_iter().zip(variance.to_vec1::<f32>()?).collect();
        let affine = saved.affine(relu)?;
        let mut dx = Field::new(&self.memory, x.dims());
        let g = kernels::norm_backward(x, dy, &affine, &moments, epsilon, &mut dx);
        Ok(NormBackward {
            input: OnCpu(Arc::new(dx)),
            weight: Tensor::from_vec(g.weight, x.channels, &Device::Cpu)?,
            bias: Tensor::from_vec(g.bias, x.channels, &Device::Cpu)?,
        })
    }

    /// Backward of [`Self::norm`] with running statistics: only the gradient of the input.
    pub(super) fn affine_backward(&self, saved: &NormSaved, dy: &Activation, relu: bool) -> Result<Activation> {
        match (&saved.input, dy) {
            (OnDevice(x), OnDevice(dy)) => {
                portable::affine_backward(x, dy, &saved.scale, &saved.shift, relu).map(OnDevice)
            }
            (OnCpu(x), OnCpu(dy)) => {
                let affine = saved.affine(relu)?;
                Ok(self.field(x.dims(), |dx| kernels::affine_backward(x, dy, &affine, dx)))
            }
            _ => Err(mixed()),
        }
    }

    pub(super) fn relu(&self, x: &Activation) -> Result<Activation> {
        match x {
            OnDevice(x) => portable::relu(x).map(OnDevice),
            OnCpu(x) => Ok(self.field(x.dims(), |y| kernels::relu(&x.lines, &mut y.lines))),
        }
    }

    /// `dy` where the ReLU's output `y` is positive.
    pub(super) fn relu_backward(&self, y: &Activation, dy: &Activation) -> Result<Activation> {
        match (y, dy) {
            (OnDevice(y), OnDevice(dy)) => portable::relu_backward(y, dy).map(OnDevice),
            (OnCpu(y), OnCpu(dy)) => {
                Ok(self.field(y.dims(), |dx| kernels::relu_backward(&y.lines, &dy.lines, &mut dx.lines)))
            }
            _ => Err(mixed()),
        }
    }

    pub(super) fn add(&self, a: &Activation, b: &Activation) -> Result<Activation> {
        match (a, b) {
            (OnDevice(a), OnDevice(b)) => (a + b).map(OnDevice),
            (OnCpu(a), OnCpu(b)) => Ok(self.field(a.dims(), |y| kernels::add(&a.lines, &b.lines, &mut y.lines))),
            _ => Err(mixed()),
        }
    }

    /// `sum + a`, in place if one of the two has no other reader.
    pub(super) fn accumulate(&self, sum: Activation, a: Activation) -> Result<Activation> {
        match (sum, a) {
            (OnCpu(mut sum), OnCpu(mut a)) => {
                if Arc::get_mut(&mut sum).is_none() {
                    std::mem::swap(&mut sum, &mut a);
                }
                if let Some(field) = Arc::get_mut(&mut sum) {
                    kernels::add_to(&mut field.lines, &a.lines);
                    return Ok(OnCpu(sum));
                }
                self.add(&OnCpu(sum), &OnCpu(a))
            }
            (sum, a) => self.add(&sum, &a),
        }
    }

    pub(super) fn max_pool(&self, x: &Activation, size: usize) -> Result<Activation> {
        match x {
            OnDevice(x) => portable::max_pool(x, size).map(OnDevice),
            OnCpu(x) => {
                let [images, channels, height, width] = x.dims();
                let pool = MaxPool { height, width, size };
                let dims = [images, channels, height / size, width / size];
                Ok(self.field(dims, |y| pool.forward(&x.lines, &mut y.lines)))
            }
        }
    }

    pub(super) fn max_pool_backward(&self, x: &Activation, dy: &Activation, size: usize) -> Result<Activation> {
        match (x, dy) {
            (OnDevice(x), OnDevice(dy)) => portable::max_pool_backward(x, dy, size).map(OnDevice),
            (OnCpu(x), OnCpu(dy)) => {
                let pool = MaxPool { height: x.height, width: x.width, size };
                Ok(self.field(x.dims(), |dx| pool.backward(&x.lines, &dy.lines, &mut dx.lines)))
            }
            _ => Err(mixed()),
        }
    }

    /// Mean over the pixels: `B × C × H × W` to features, `B × C`.
    pub(super) fn global_pool(&self, x: &Activation) -> Result<Tensor> {
        match x {
            OnDevice(x) => portable::global_pool(x),
            OnCpu(x) => Tensor::from_vec(kernels::global_pool(x), (x.images, x.channels), &Device::Cpu),
        }
    }

    /// Backward of [`Self::global_pool`] for a plane of `height × width`.
    pub(super) fn global_pool_backward(&self, dy: &Tensor, height: usize, width: usize) -> Result<Activation> {
        let (n, channels) = dy.dims2()?;
        if self.kernels {
            let mut dx = Field::new(&self.memory, [n, channels, height, width]);
            with_values(dy, |dy| kernels::global_pool_backward(dy, &mut dx))?;
            return Ok(OnCpu(Arc::new(dx)));
        }
        let share = (dy / (height * width) as f64)?.reshape((n, channels, 1, 1))?;
        share.broadcast_as((n, channels, height, width))?.contiguous().map(OnDevice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Purpose, Stream};
    use candle_core::DType;

    /// The CPU kernels and their twin.
    const BOTH: [bool; 2] = [true, false];

    fn random(shape: &[usize], sample: u32) -> Tensor {
        let stream = Stream::new(5, Purpose::Test, 0, sample);
        let data: Vec<f32> = (0..shape.iter().product::<usize>()).map(|i| stream.normal(i as u32)).collect();
        Tensor::from_vec(data, shape, &Device::Cpu).unwrap()
    }

    /// Compares the results of `run` with the kernels and with their twin.
    fn compare(run: impl Fn(&Ops, &dyn Fn(&Tensor) -> Activation) -> Vec<Tensor>) {
        let [kernels, portable] = BOTH.map(|kernels| {
            let ops = Ops::new(kernels);
            run(&ops, &|x| ops.enter(x).unwrap())
        });
        assert!(!kernels.is_empty() && kernels.len() == portable.len());
        kernels.iter().zip(&portable).for_each(|(a, b)| close(a, b));
    }

    fn close(a: &Tensor, b: &Tensor) {
        assert_eq!(a.dims(), b.dims());
        let (a, b): (Vec<f32>, Vec<f32>) =
            (a.flatten_all().unwrap().to_vec1().unwrap(), b.flatten_all().unwrap().to_vec1().unwrap());
        let norm = |v: &mut dyn Iterator<Item = f64>| v.map(|x| x * x).sum::<f64>().sqrt();
        let difference = norm(&mut a.iter().zip(&b).map(|(a, b)| f64::from(a - b)));
        let size = norm(&mut b.iter().map(|b| f64::from(*b)));
        assert!(size > 0.0 && difference <= 2e-6 * size, "relative difference {}", difference / size);
    }

    /// Odd sizes, strides, one pixel, one image, several blocks per image and several images per block.
    const CASES: [(usize, usize, usize, usize, usize, usize, usize); 11] = [
        (7, 3, 41, 41, 20, 3, 1),
        (1, 20, 41, 33, 5, 3, 2),
        (5, 4, 8, 8, 6, 3, 1),
        (9, 4, 7, 5, 6, 3, 2),
        (3, 8, 4, 4, 8, 1, 1),
        (3, 8, 9, 8, 8, 1, 2),
        (70, 2, 2, 2, 3, 3, 1),
        (2, 3, 1, 1, 4, 3, 1),
        (2, 1, 6, 11, 2, 5, 3),
        (2, 2, 3, 2, 3, 5, 1),
        (1, 1, 40, 40, 2, 7, 1),
    ];

    fn cases() -> impl Iterator<Item = (ConvShape, usize)> {
        CASES.into_iter().map(|(n, in_channels, height, width, out_channels, kernel, stride)| {
            let padding = kernel / 2;
            let out = |size: usize| (size + 2 * padding - kernel) / stride + 1;
            let (out_height, out_width) = (out(height), out(width));
            let shape =
                ConvShape { in_channels, height, width, out_channels, out_height, out_width, kernel, stride, padding };
            (shape, n)
        })
    }

    #[test]
    fn convolution_matches_tensor_operations() {
        for (s, n) in cases() {
            let x = random(&[n, s.in_channels, s.height, s.width], 0);
            let w = random(&[s.out_channels, s.in_channels, s.kernel, s.kernel], 1);
            let dy = random(&[n, s.out_channels, s.out_height, s.out_width], 2);
            compare(|ops, enter| {
                let (x, dy, cache) = (enter(&x), enter(&dy), Cache::default());
                vec![
                    ops.conv(&x, &w, &s, &cache).unwrap().tensor().unwrap(),
                    ops.conv_input_gradient(&dy, &w, &s, &cache).unwrap().tensor().unwrap(),
                    ops.conv_weight_gradient(&x, &dy, &s).unwrap(),
                ]
            });
        }
    }

    #[test]
    fn batch_norm_matches_tensor_operations() {
        for (n, channels, height, width) in [(7, 5, 9, 11), (1, 3, 2, 2), (16, 33, 4, 4), (300, 2, 1, 1)] {
            let x = ((random(&[n, channels, height, width], 0) * 2.0).unwrap() + 1.5).unwrap();
            let dy = random(&[n, channels, height, width], 1);
            let (w, b) = (random(&[channels], 2), random(&[channels], 3));
            let (mean, variance) = (random(&[channels], 4), random(&[channels], 5).abs().unwrap());
            for relu in [false, true] {
                for running in [None, Some((&mean, &variance))] {
                    compare(|ops, enter| {
                        let (x, dy) = (enter(&x), enter(&dy));
                        let (y, saved) = ops.norm(&x, &w, &b, running, 1e-5, relu).unwrap();
                        let y = y.tensor().unwrap();
                        if running.is_some() {
                            return vec![y, ops.affine_backward(&saved, &dy, relu).unwrap().tensor().unwrap()];
                        }
                        let g = ops.norm_backward(&saved, &dy, 1e-5, relu).unwrap();
                        vec![y, g.input.tensor().unwrap(), g.weight, g.bias]
                    });
                }
            }
        }
    }

    #[test]
    fn pooling_and_elementwise_match_tensor_operations() {
        for (height, width) in [(8, 8), (7, 9), (2, 3)] {
            let x = random(&[3, 4, height, width], 0);
            let dy = random(&[3, 4, height / 2, width / 2], 1);
            compare(|ops, enter| {
                let (x, dy) = (enter(&x), enter(&dy));
                let y = ops.max_pool(&x, 2).unwrap();
                let mean = ops.global_pool(&x).unwrap();
                let dx = ops.max_pool_backward(&x, &dy, 2).unwrap();
                let shared = ops.global_pool_backward(&mean, height, width).unwrap();
                vec![y.tensor().unwrap(), dx.tensor().unwrap(), shared.tensor().unwrap(), mean]
            });
            let dy = random(&[3, 4, height, width], 2);
            compare(|ops, enter| {
                let (x, dy) = (enter(&x), enter(&dy));
                let y = ops.relu(&x).unwrap();
                let dx = ops.relu_backward(&y, &dy).unwrap();
                let twice = ops.accumulate(ops.add(&x, &dy).unwrap(), x.clone()).unwrap();
                let shared = ops.accumulate(x.clone(), dy.clone()).unwrap();
                [y, dx, twice, shared].iter().map(|a| a.tensor().unwrap()).collect()
            });
        }
    }

    /// On every path the first of equal values gets the gradient, as in PyTorch. Rounding makes values equal in most
    /// windows. Rows and columns outside all windows get zero.
    #[test]
    fn max_pool_gives_the_gradient_of_equal_values_to_the_first() {
        for (size, height, width) in [(2, 8, 8), (2, 7, 9), (2, 2, 3), (3, 9, 6), (3, 8, 11), (1, 2, 3)] {
            let (n, channels) = (3, 20);
            let x = (random(&[n, channels, height, width], 3) * 1.5).unwrap().round().unwrap();
            let dy = random(&[n, channels, height / size, width / size], 4);
            let run = |kernels| {
                let ops = Ops::new(kernels);
                let dx = ops.max_pool_backward(&ops.enter(&x).unwrap(), &ops.enter(&dy).unwrap(), size).unwrap();
                dx.features().unwrap().to_vec2::<f32>().unwrap()
            };
            let [kernels, portable] = BOTH.map(run);
            assert_eq!(kernels, portable, "windows of {size} in {height} × {width}");
        }
        for kernels in BOTH {
            let ops = Ops::new(kernels);
            let ones = |side: usize| ops.enter(&Tensor::ones((1, 1, side, side), DType::F32, &Device::Cpu).unwrap());
            let dx = ops.max_pool_backward(&ones(2).unwrap(), &ones(1).unwrap(), 2).unwrap();
            assert_eq!(dx.features().unwrap().to_vec2::<f32>().unwrap(), [[1.0, 0.0, 0.0, 0.0]]);
        }
    }

    #[test]
    fn the_number_of_threads_does_not_change_a_bit() {
        let (s, n) = cases().next().unwrap();
        let x = random(&[n, s.in_channels, s.height, s.width], 0);
        let dy = random(&[n, s.out_channels, s.out_height, s.out_width], 2);
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let ops = Ops::new(true);
            let (x, dy) = (ops.enter(&x).unwrap(), ops.enter(&dy).unwrap());
            let dw = pool.install(|| ops.conv_weight_gradient(&x, &dy, &s)).unwrap();
            dw.flatten_all().unwrap().to_vec1::<f32>().unwrap()
        };
        assert_eq!(run(1), run(3));
    }
}
