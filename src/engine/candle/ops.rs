//! The operations a network is made of, forward and backward. Each goes to a CPU kernel where the tensors lie on the
//! CPU, and to tensor operations elsewhere.

use candle_core::{CpuStorage, Error, Result, Storage, Tensor};

use super::conv::ConvShape;
use super::kernels::{self, Affine, Pool};
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

fn with_two<R>(a: &Tensor, b: &Tensor, f: impl FnOnce(&[f32], &[f32]) -> R) -> Result<R> {
    with_values(a, |a| with_values(b, |b| f(a, b)))?
}

/// Chooses between the CPU kernels and their twin. A value instead of a test of the device, so that tests can run both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ops {
    pub(super) kernels: bool,
}

/// What the backward pass of batch norm with batch statistics gives.
#[derive(Debug)]
pub(super) struct NormBackward {
    pub(super) input: Tensor,
    pub(super) weight: Tensor,
    pub(super) bias: Tensor,
}

/// What a batch norm layer did in a forward pass, for its backward pass.
#[derive(Debug, Clone)]
pub(super) struct NormSaved {
    pub(super) input: Tensor,
    /// `weight · rstd` and `bias - mean · scale`.
    scale: Tensor,
    shift: Tensor,
    /// Mean and biased variance of the batch; none with running statistics.
    batch: Option<(Tensor, Tensor)>,
}

impl NormSaved {
    /// Mean and biased variance of the batch, if the layer used them.
    pub(super) fn batch_moments(&self) -> Option<&(Tensor, Tensor)> {
        self.batch.as_ref()
    }

    fn affine(&self) -> Result<Vec<Affine>> {
        let (scale, shift) = (self.scale.to_vec1::<f32>()?, self.shift.to_vec1::<f32>()?);
        Ok(scale.into_iter().zip(shift).map(|(scale, shift)| Affine { scale, shift }).collect())
    }
}

/// Pixels in a plane of `B × C × H × W`.
fn pixels(x: &Tensor) -> Result<usize> {
    let (_, _, height, width) = x.dims4()?;
    Ok(height * width)
}

impl Ops {
    pub(super) fn conv(self, x: &Tensor, weight: &Tensor, shape: &ConvShape) -> Result<Tensor> {
        if !self.kernels {
            return portable::conv(x, weight, shape);
        }
        let y = with_two(x, weight, |x, w| shape.forward(x, w))?;
        Tensor::from_vec(y, (x.dim(0)?, shape.out_channels, shape.out_height, shape.out_width), x.device())
    }

    pub(super) fn conv_input_gradient(self, dy: &Tensor, weight: &Tensor, shape: &ConvShape) -> Result<Tensor> {
        if !self.kernels {
            return portable::conv_input_gradient(dy, weight, shape);
        }
        let dx = with_two(dy, weight, |dy, w| shape.input_gradient(dy, w))?;
        Tensor::from_vec(dx, (dy.dim(0)?, shape.in_channels, shape.height, shape.width), dy.device())
    }

    pub(super) fn conv_weight_gradient(self, x: &Tensor, dy: &Tensor, shape: &ConvShape) -> Result<Tensor> {
        if !self.kernels {
            return portable::conv_weight_gradient(x, dy, shape);
        }
        let dw = with_two(x, dy, |x, dy| shape.weight_gradient(x, dy))?;
        Tensor::from_vec(dw, (shape.out_channels, shape.in_channels, shape.kernel, shape.kernel), x.device())
    }

    /// Batch norm, with ReLU behind it if asked for. `running` are mean and variance to use instead of the batch's.
    pub(super) fn norm(
        self,
        x: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        running: Option<(&Tensor, &Tensor)>,
        epsilon: f32,
        relu: bool,
    ) -> Result<(Tensor, NormSaved)> {
        let batch = match running {
            Some(_) => None,
            None if self.kernels => {
                let channels = weight.elem_count();
                let pixels = pixels(x)?;
                let (mean, variance): (Vec<f32>, Vec<f32>) =
                    with_values(x, |x| kernels::moments(x, channels, pixels))?.into_iter().unzip();
                let on = |values| Tensor::from_vec(values, channels, x.device());
                Some((on(mean)?, on(variance)?))
            }
            None => Some(portable::moments(x)?),
        };
        let (mean, variance) = match (&batch, running) {
            (Some((mean, variance)), _) => (mean, variance),
            (None, Some(running)) => running,
            (None, None) => return Err(Error::Msg("batch norm needs statistics".into())),
        };
        let scale = (weight / (variance + f64::from(epsilon))?.sqrt()?)?;
        let shift = (bias - (mean * &scale)?)?;
        let saved = NormSaved { input: x.clone(), scale, shift, batch };
        let y = if self.kernels {
            let (affine, pixels) = (saved.affine()?, pixels(x)?);
            let y = with_values(x, |x| kernels::affine(x, &affine, pixels, relu))?;
            Tensor::from_vec(y, x.shape(), x.device())?
        } else {
            portable::affine(x, &saved.scale, &saved.shift, relu)?
        };
        Ok((y, saved))
    }

    /// Backward of [`Self::norm`] with batch statistics.
    pub(super) fn norm_backward(
        self,
        saved: &NormSaved,
        dy: &Tensor,
        epsilon: f32,
        relu: bool,
    ) -> Result<NormBackward> {
        let x = &saved.input;
        let Some((mean, variance)) = &saved.batch else {
            return Err(Error::Msg("parameters of batch norm have no gradient with running statistics".into()));
        };
        if !self.kernels {
            return portable::norm_backward(x, dy, &saved.scale, &saved.shift, mean, variance, epsilon, relu);
        }
        let moments: Vec<(f32, f32)> = mean.to_vec1::<f32>()?.into_iter().zip(variance.to_vec1::<f32>()?).collect();
        let (affine, pixels) = (saved.affine()?, pixels(x)?);
        let g = with_two(x, dy, |x, dy| kernels::norm_backward(x, dy, &affine, &moments, epsilon, pixels, relu))?;
        Ok(NormBackward {
            input: Tensor::from_vec(g.input, x.shape(), x.device())?,
            weight: Tensor::from_vec(g.weight, affine.len(), x.device())?,
            bias: Tensor::from_vec(g.bias, affine.len(), x.device())?,
        })
    }

    /// Backward of [`Self::norm`] with running statistics: to the input only.
    pub(super) fn affine_backward(self, saved: &NormSaved, dy: &Tensor, relu: bool) -> Result<Tensor> {
        let x = &saved.input;
        if !self.kernels {
            return portable::affine_backward(x, dy, &saved.scale, &saved.shift, relu);
        }
        let (affine, pixels) = (saved.affine()?, pixels(x)?);
        let dx = with_two(x, dy, |x, dy| kernels::affine_backward(x, dy, &affine, pixels, relu))?;
        Tensor::from_vec(dx, x.shape(), x.device())
    }

    pub(super) fn relu(self, x: &Tensor) -> Result<Tensor> {
        if !self.kernels {
            return portable::relu(x);
        }
        Tensor::from_vec(with_values(x, |x| kernels::map(x, kernels::relu))?, x.shape(), x.device())
    }

    /// `dy` where the ReLU's output `y` is positive.
    pub(super) fn relu_backward(self, y: &Tensor, dy: &Tensor) -> Result<Tensor> {
        if !self.kernels {
            return portable::relu_backward(y, dy);
        }
        let dx = with_two(y, dy, |y, dy| kernels::zip(y, dy, |y, dy| if y > 0.0 { dy } else { 0.0 }))?;
        Tensor::from_vec(dx, y.shape(), y.device())
    }

    pub(super) fn add(self, a: &Tensor, b: &Tensor) -> Result<Tensor> {
        if !self.kernels {
            return a + b;
        }
        Tensor::from_vec(with_two(a, b, |a, b| kernels::zip(a, b, |a, b| a + b))?, a.shape(), a.device())
    }

    pub(super) fn max_pool(self, x: &Tensor, size: usize) -> Result<Tensor> {
        if !self.kernels {
            return portable::max_pool(x, size);
        }
        let (n, channels, height, width) = x.dims4()?;
        let y = with_values(x, |x| Pool { height, width, size }.forward(x))?;
        Tensor::from_vec(y, (n, channels, height / size, width / size), x.device())
    }

    pub(super) fn max_pool_backward(self, x: &Tensor, dy: &Tensor, size: usize) -> Result<Tensor> {
        if !self.kernels {
            return portable::max_pool_backward(x, dy, size);
        }
        let (_, _, height, width) = x.dims4()?;
        let dx = with_two(x, dy, |x, dy| Pool { height, width, size }.backward(x, dy))?;
        Tensor::from_vec(dx, x.shape(), x.device())
    }

    /// Mean over the pixels: `B × C × H × W` to `B × C`.
    pub(super) fn global_pool(self, x: &Tensor) -> Result<Tensor> {
        portable::global_pool(x)
    }

    /// Backward of [`Self::global_pool`] for a plane of `height × width`.
    pub(super) fn global_pool_backward(self, dy: &Tensor, height: usize, width: usize) -> Result<Tensor> {
        let (n, channels) = dy.dims2()?;
        let share = (dy / (height * width) as f64)?.reshape((n, channels, 1, 1))?;
        share.broadcast_as((n, channels, height, width))?.contiguous()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Purpose, Stream};
    use candle_core::Device;

    const KERNELS: Ops = Ops { kernels: true };
    const PORTABLE: Ops = Ops { kernels: false };

    fn random(shape: &[usize], sample: u32) -> Tensor {
        let stream = Stream::new(5, Purpose::Test, 0, sample);
        let data: Vec<f32> = (0..shape.iter().product::<usize>()).map(|i| stream.normal(i as u32)).collect();
        Tensor::from_vec(data, shape, &Device::Cpu).unwrap()
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

    /// Odd sizes, strides, one pixel, one image, several blocks an image and several images a block.
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
    fn convolution_matches_candles() {
        for (s, n) in cases() {
            let x = random(&[n, s.in_channels, s.height, s.width], 0);
            let w = random(&[s.out_channels, s.in_channels, s.kernel, s.kernel], 1);
            let dy = random(&[n, s.out_channels, s.out_height, s.out_width], 2);
            close(&KERNELS.conv(&x, &w, &s).unwrap(), &PORTABLE.conv(&x, &w, &s).unwrap());
            let dx = |ops: Ops| ops.conv_input_gradient(&dy, &w, &s).unwrap();
            close(&dx(KERNELS), &dx(PORTABLE));
            let dw = |ops: Ops| ops.conv_weight_gradient(&x, &dy, &s).unwrap();
            close(&dw(KERNELS), &dw(PORTABLE));
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
                    let (y, saved) = KERNELS.norm(&x, &w, &b, running, 1e-5, relu).unwrap();
                    let (y2, saved2) = PORTABLE.norm(&x, &w, &b, running, 1e-5, relu).unwrap();
                    close(&y, &y2);
                    if running.is_some() {
                        let dx = |ops: Ops, saved| ops.affine_backward(saved, &dy, relu).unwrap();
                        close(&dx(KERNELS, &saved), &dx(PORTABLE, &saved2));
                    } else {
                        let g = KERNELS.norm_backward(&saved, &dy, 1e-5, relu).unwrap();
                        let g2 = PORTABLE.norm_backward(&saved2, &dy, 1e-5, relu).unwrap();
                        close(&g.input, &g2.input);
                        close(&g.weight, &g2.weight);
                        close(&g.bias, &g2.bias);
                    }
                }
            }
        }
    }

    #[test]
    fn pooling_and_elementwise_match_tensor_operations() {
        for (height, width) in [(8, 8), (7, 9), (2, 3)] {
            let x = random(&[3, 4, height, width], 0);
            let dy = random(&[3, 4, height / 2, width / 2], 1);
            close(&KERNELS.max_pool(&x, 2).unwrap(), &PORTABLE.max_pool(&x, 2).unwrap());
            let dx = |ops: Ops| ops.max_pool_backward(&x, &dy, 2).unwrap();
            close(&dx(KERNELS), &dx(PORTABLE));
            let (y, dy) = (KERNELS.relu(&x).unwrap(), random(&[3, 4, height, width], 2));
            close(&y, &PORTABLE.relu(&x).unwrap());
            close(&KERNELS.relu_backward(&y, &dy).unwrap(), &PORTABLE.relu_backward(&y, &dy).unwrap());
            close(&KERNELS.add(&x, &dy).unwrap(), &PORTABLE.add(&x, &dy).unwrap());
        }
    }

    #[test]
    fn the_number_of_threads_does_not_change_a_bit() {
        let (s, n) = cases().next().unwrap();
        let x = random(&[n, s.in_channels, s.height, s.width], 0);
        let dy = random(&[n, s.out_channels, s.out_height, s.out_width], 2);
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let dw = pool.install(|| KERNELS.conv_weight_gradient(&x, &dy, &s)).unwrap();
            dw.flatten_all().unwrap().to_vec1::<f32>().unwrap()
        };
        assert_eq!(run(1), run(3));
    }
}
