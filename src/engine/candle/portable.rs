//! The operations of [`super::ops`] as Candle tensor operations: for all of Candle's devices, and as the twin that the
//! CPU kernels are tested against.

use candle_core::{D, Result, Tensor};

use super::activation::{Activation, NormBackward};
use super::conv::ConvShape;

/// One value per channel, reshaped to broadcast over `B × C × H × W`.
fn per_channel(values: &Tensor) -> Result<Tensor> {
    values.reshape((1, values.elem_count(), 1, 1))
}

pub(super) fn conv(x: &Tensor, weight: &Tensor, shape: &ConvShape) -> Result<Tensor> {
    x.conv2d(weight, shape.padding, shape.stride, 1, 1)
}

pub(super) fn conv_input_gradient(dy: &Tensor, weight: &Tensor, shape: &ConvShape) -> Result<Tensor> {
    // A strided forward pass may not reach the last rows and columns; the transposed pass leaves them out, so they are
    // padded with zeros.
    let reached = (shape.out_height - 1) * shape.stride + shape.kernel;
    let reached_width = (shape.out_width - 1) * shape.stride + shape.kernel;
    let full = dy.conv_transpose2d(weight, 0, 0, shape.stride, 1)?;
    let full = full.pad_with_zeros(2, 0, (shape.height + 2 * shape.padding).saturating_sub(reached))?;
    let full = full.pad_with_zeros(3, 0, (shape.width + 2 * shape.padding).saturating_sub(reached_width))?;
    full.narrow(2, shape.padding, shape.height)?.narrow(3, shape.padding, shape.width)?.contiguous()
}

pub(super) fn conv_weight_gradient(x: &Tensor, dy: &Tensor, shape: &ConvShape) -> Result<Tensor> {
    let (x, dy) = (x.transpose(0, 1)?.contiguous()?, dy.transpose(0, 1)?.contiguous()?);
    // Stride and dilation swap roles when the output's gradient is used as the kernel.
    let dw = x.conv2d(&dy, shape.padding, 1, shape.stride, 1)?;
    dw.transpose(0, 1)?.narrow(2, 0, shape.kernel)?.narrow(3, 0, shape.kernel)?.contiguous()
}

pub(super) fn moments(x: &Tensor) -> Result<(Tensor, Tensor)> {
    let mean = x.mean((0, 2, 3))?;
    let variance = x.broadcast_sub(&per_channel(&mean)?)?.sqr()?.mean((0, 2, 3))?;
    Ok((mean, variance))
}

pub(super) fn affine(x: &Tensor, scale: &Tensor, shift: &Tensor, relu: bool) -> Result<Tensor> {
    let y = x.broadcast_mul(&per_channel(scale)?)?.broadcast_add(&per_channel(shift)?)?;
    if relu { self::relu(&y) } else { Ok(y) }
}

/// `max(x, 0)` as a product, because Candle's `relu` turns NaN into 0.
pub(super) fn relu(x: &Tensor) -> Result<Tensor> {
    x * x.gt(0.0)?.to_dtype(x.dtype())?
}

/// `dy` where `y` is positive, 0 elsewhere.
pub(super) fn relu_backward(y: &Tensor, dy: &Tensor) -> Result<Tensor> {
    dy * y.gt(0.0)?.to_dtype(dy.dtype())?
}

pub(super) fn affine_backward(x: &Tensor, dy: &Tensor, scale: &Tensor, shift: &Tensor, relu: bool) -> Result<Tensor> {
    let dy = if relu { relu_backward(&affine(x, scale, shift, true)?, dy)? } else { dy.clone() };
    dy.broadcast_mul(&per_channel(scale)?)
}

#[allow(clippy::too_many_arguments, reason = "the inputs of one backward pass")]
pub(super) fn norm_backward(
    x: &Tensor,
    dy: &Tensor,
    scale: &Tensor,
    shift: &Tensor,
    mean: &Tensor,
    variance: &Tensor,
    epsilon: f32,
    relu: bool,
) -> Result<NormBackward> {
    let dy = if relu { relu_backward(&affine(x, scale, shift, true)?, dy)? } else { dy.clone() };
    let rstd = (variance + f64::from(epsilon))?.sqrt()?.recip()?;
    let normalised = x.broadcast_sub(&per_channel(mean)?)?.broadcast_mul(&per_channel(&rstd)?)?;
    let count = (x.elem_count() / mean.elem_count()) as f64;
    let bias = dy.sum((0, 2, 3))?;
    let weight = (&dy * &normalised)?.sum((0, 2, 3))?;
    let input = dy
        .broadcast_sub(&per_channel(&(&bias / count)?)?)?
        .sub(&normalised.broadcast_mul(&per_channel(&(&weight / count)?)?)?)?
        .broadcast_mul(&per_channel(scale)?)?;
    Ok(NormBackward { input: Activation::Tensor(input), weight, bias })
}

pub(super) fn max_pool(x: &Tensor, size: usize) -> Result<Tensor> {
    x.max_pool2d(size)
}

/// Routes each window's gradient to its largest value: the first in row-major order if several are equal; the first NaN
/// takes precedence over all numbers, as in PyTorch and the CPU kernel. Rows and columns outside all windows get zero.
pub(super) fn max_pool_backward(x: &Tensor, dy: &Tensor, size: usize) -> Result<Tensor> {
    let (n, channels, height, width) = x.dims4()?;
    let (_, _, oh, ow) = dy.dims4()?;
    let inside = x.narrow(2, 0, oh * size)?.narrow(3, 0, ow * size)?;
    let windows = inside.reshape(&[n, channels, oh, size, ow, size][..])?;
    // Value `k` of every window, `n × channels × oh × ow`.
    let value = |k: usize| windows.narrow(3, k / size, 1)?.narrow(5, k % size, 1)?.reshape(dy.shape())?.contiguous();
    let mut best = value(0)?;
    let mut position = dy.zeros_like()?;
    for k in 1..size * size {
        let value = value(k)?;
        // Larger, or the first NaN. A comparison with NaN is false.
        let larger = value.gt(&best)?;
        let first_nan = (value.ne(&value)? * best.eq(&best)?)?;
        let takes_over = (larger + first_nan)?;
        best = takes_over.where_cond(&value, &best)?;
        position = takes_over.where_cond(&position.ones_like()?.affine(k as f64, 0.0)?, &position)?;
    }
    let zeros = dy.zeros_like()?;
    let of_value = |k: usize| position.eq(k as f32)?.where_cond(dy, &zeros)?.reshape((n, channels, oh, 1, ow, 1));
    let rows = (0..size).map(|y| {
        let row = (0..size).map(|x| of_value(y * size + x)).collect::<Result<Vec<_>>>()?;
        Tensor::cat(&row, 5)
    });
    let dx = Tensor::cat(&rows.collect::<Result<Vec<_>>>()?, 3)?.reshape((n, channels, oh * size, ow * size))?;
    dx.pad_with_zeros(2, 0, height - oh * size)?.pad_with_zeros(3, 0, width - ow * size)
}

/// Mean over the pixels: `B × C × H × W` to `B × C`.
pub(super) fn global_pool(x: &Tensor) -> Result<Tensor> {
    x.flatten_from(2)?.mean(D::Minus1)
}
