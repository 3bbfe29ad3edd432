//! The values between layers: tensors on any device, or fields on the CPU.

use std::sync::Arc;

use candle_core::{Device, Result, Tensor};

use super::field::Field;

/// The output of a layer. Features are maps of 1×1, so that every layer can read every value.
#[derive(Debug, Clone)]
pub(super) enum Activation {
    /// `B × C × H × W`, on any device.
    Tensor(Tensor),
    /// `B × C × H × W` on the CPU.
    Field(Arc<Field>),
}

use Activation::{Field as OnCpu, Tensor as OnDevice};

impl Activation {
    pub(super) fn tensor(&self) -> Result<Tensor> {
        match self {
            OnDevice(tensor) => Ok(tensor.clone()),
            OnCpu(field) => Tensor::from_vec(field.to_planes(), &field.dims(), &Device::Cpu),
        }
    }

    /// The value as features, `B × C`, for maps of 1×1.
    pub(super) fn features(&self) -> Result<Tensor> {
        self.tensor()?.flatten_from(1)
    }

    pub(super) fn dims4(&self) -> Result<[usize; 4]> {
        match self {
            OnDevice(tensor) => tensor.dims4().map(<[usize; 4]>::from),
            OnCpu(field) => Ok(field.dims()),
        }
    }

    /// Number of values of each channel in the batch.
    pub(super) fn per_channel(&self) -> Result<usize> {
        let [images, _, height, width] = self.dims4()?;
        Ok(images * height * width)
    }

    /// Whether all values are finite.
    pub(super) fn is_finite(&self) -> Result<bool> {
        Ok(match self {
            OnDevice(tensor) => tensor.flatten_all()?.to_vec1::<f32>()?.iter().all(|v| v.is_finite()),
            OnCpu(field) => field.lines.iter().all(|line| line.0.iter().all(|v| v.is_finite())),
        })
    }
}

/// Gradients from the backward pass of batch norm with batch statistics.
#[derive(Debug)]
pub(super) struct NormBackward {
    pub(super) input: Activation,
    pub(super) weight: Tensor,
    pub(super) bias: Tensor,
}
