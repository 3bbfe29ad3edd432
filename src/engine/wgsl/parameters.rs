//! The location of each array of a network's state on the device, and the order of its values.
//!
//! Parameters, their gradients and their momentum lie in slabs of the same layout, so that one dispatch updates a whole
//! slab. Channel counts are rounded up to quads; the padding is zero, has zero gradients and stays zero.

use super::error::{GpuError, readable};
use super::kernel::padded;
use super::program::{Fixed, Place};
use crate::model::{Array, Network, Op};

/// Alignment of binding offsets in `wgpu::Limits::default()`.
pub(super) const ALIGNMENT: u64 = 256;
/// A new slab begins if an array would make a non-empty slab larger than this; well below the largest binding.
const SLAB: u64 = 32 << 20;

/// The order of an array's values on the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    /// `out × in × k × k` on the host, `k × k × in × out` on the device.
    Conv { outputs: usize, inputs: usize, kernel: usize },
    /// `out × in` on the host, `in × out` on the device.
    Linear { outputs: usize, inputs: usize },
    /// One value per channel.
    Channels(usize),
}

impl Order {
    /// Host index and device index of every value.
    fn pairs(self) -> Vec<(usize, usize)> {
        match self {
            Self::Channels(n) => (0..n).map(|i| (i, i)).collect(),
            Self::Linear { outputs, inputs } => Self::Conv { outputs, inputs, kernel: 1 }.pairs(),
            Self::Conv { outputs, inputs, kernel } => {
                let taps = kernel * kernel;
                let mut pairs = Vec::with_capacity(outputs * inputs * taps);
                for o in 0..outputs {
                    for i in 0..inputs {
                        for tap in 0..taps {
                            let device = (tap * padded(inputs) + i) * padded(outputs) + o;
                            pairs.push(((o * inputs + i) * taps + tap, device));
                        }
                    }
                }
                pairs
            }
        }
    }

    fn len(self) -> usize {
        match self {
            Self::Channels(n) => padded(n),
            Self::Linear { outputs, inputs } => padded(inputs) * padded(outputs),
            Self::Conv { outputs, inputs, kernel } => kernel * kernel * padded(inputs) * padded(outputs),
        }
    }
}

/// One array of the state on the device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Placed {
    /// Its location. Gradient and momentum have the same location in their own slabs.
    pub(super) place: Place,
    /// Shape on the host.
    shape: Vec<usize>,
    order: Order,
}

impl Placed {
    /// The values in the order of the device.
    pub(super) fn pack(&self, array: &Array) -> Vec<f32> {
        let mut out = vec![0.0; self.order.len()];
        for (host, device) in self.order.pairs() {
            out[device] = array.data[host];
        }
        out
    }

    /// The array from values in the order of the device.
    pub(super) fn unpack(&self, values: &[f32]) -> Array {
        let mut data = vec![0.0; self.shape.iter().product()];
        for (host, device) in self.order.pairs() {
            data[host] = values[device];
        }
        Array { shape: self.shape.clone(), data }
    }
}

/// The whole state on the device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Parameters {
    /// Arrays in the order of [`Network::state_specs`].
    pub(super) arrays: Vec<Placed>,
    /// Index of the first array of each layer.
    pub(super) first: Vec<usize>,
    /// Bytes of each slab.
    pub(super) slabs: Vec<u64>,
    /// Bytes of the running statistics.
    pub(super) running: u64,
}

impl Parameters {
    /// Plans the layout of the state of `network`.
    ///
    /// # Errors
    /// [`GpuError::Limits`] if an array exceeds the maximum size of a binding.
    pub(super) fn new(network: &Network, limits: &wgpu::Limits) -> Result<Self, GpuError> {
        let specs = network.state_specs();
        let (mut arrays, mut first, mut slabs, mut running) = (Vec::new(), Vec::new(), vec![0u64], 0u64);
        for layer in &network.layers {
            first.push(arrays.len());
            let orders = match layer.op {
                Op::Conv2d { in_channels, out_channels, kernel, .. } => {
                    vec![Order::Conv { outputs: out_channels, inputs: in_channels, kernel }]
                }
                Op::BatchNorm { channels } => vec![Order::Channels(channels); 4],
                Op::Linear { in_features, out_features } => {
                    vec![Order::Linear { outputs: out_features, inputs: in_features }, Order::Channels(out_features)]
                }
                Op::Normalize { .. } | Op::Relu | Op::Add | Op::MaxPool { .. } | Op::GlobalAvgPool => Vec::new(),
            };
            // Mean and variance of a layer are bound together, so they are adjacent.
            let mut statistics = 0;
            for order in orders {
                let spec = &specs[arrays.len()];
                let size = 4 * order.len() as u64;
                if size > limits.max_storage_buffer_binding_size {
                    return Err(GpuError::Limits(format!(
                        "'{}' takes {}, a binding of this adapter holds {}; --width makes the network smaller",
                        spec.name,
                        readable(size),
                        readable(limits.max_storage_buffer_binding_size)
                    )));
                }
                let place = if spec.trained {
                    if slabs.last().is_some_and(|slab| *slab > 0 && slab + size > SLAB) {
                        slabs.push(0);
                    }
                    let slab = slabs.len() - 1;
                    let offset = slabs[slab];
                    slabs[slab] = (offset + size).next_multiple_of(ALIGNMENT);
                    Place { home: Fixed::Parameters(slab), offset, size }
                } else {
                    statistics += 1;
                    let offset = running;
                    running += size;
                    if statistics == 2 {
                        running = running.next_multiple_of(ALIGNMENT);
                    }
                    Place { home: Fixed::Running, offset, size }
                };
                arrays.push(Placed { place, shape: spec.shape.clone(), order });
            }
        }
        Ok(Self { arrays, first, slabs, running })
    }

    /// Array number `which` of a layer.
    pub(super) fn of(&self, layer: usize, which: usize) -> Place {
        self.arrays[self.first[layer] + which].place
    }

    /// Running mean and variance of a batch norm layer, as one range.
    pub(super) fn running_of(&self, layer: usize) -> Place {
        let mean = self.of(layer, 2);
        Place { size: 2 * mean.size, ..mean }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::ImageShape;
    use crate::model::{Architecture, State};

    #[test]
    fn arrays_come_back_as_they_went_and_do_not_overlap() {
        let network = Architecture::ResNet20.build(ImageShape::new(3, 9, 9), 10, None, Some(5));
        let layout = Parameters::new(&network, &wgpu::Limits::default()).unwrap();
        let state = State::initialise(&network, 1);
        let mut ranges = Vec::new();
        for (spec, placed) in network.state_specs().iter().zip(&layout.arrays) {
            let array = &state.0[&spec.name];
            let packed = placed.pack(array);
            assert_eq!(4 * packed.len() as u64, placed.place.size);
            assert_eq!(&placed.unpack(&packed), array, "{}", spec.name);
            let sum = |values: &[f32]| values.iter().map(|v| f64::from(*v)).sum::<f64>();
            assert!((sum(&packed) - sum(&array.data)).abs() < 1e-9, "padding holds something");
            ranges.push((placed.place.home, placed.place.offset, placed.place.offset + placed.place.size));
        }
        ranges.sort();
        assert!(ranges.windows(2).all(|w| w[0].0 != w[1].0 || w[0].2 <= w[1].1));
        let mean = layout.running_of(1);
        assert_eq!((mean.home, mean.size % ALIGNMENT), (Fixed::Running, mean.size));
    }

    #[test]
    fn order_on_the_device_is_tap_input_output() {
        let order = Order::Conv { outputs: 2, inputs: 3, kernel: 2 };
        let place = Place { home: Fixed::Parameters(0), offset: 0, size: 0 };
        let placed = Placed { place, shape: vec![2, 3, 2, 2], order };
        let array = Array { shape: vec![2, 3, 2, 2], data: (0..24).map(|i| i as f32).collect() };
        let packed = placed.pack(&array);
        // weight[o = 1][i = 2][ky = 1][kx = 0] is value 22 of the array.
        assert_eq!(packed[(2 * 4 + 2) * 4 + 1], 22.0);
    }

    #[test]
    fn the_largest_network_takes_several_slabs_below_a_binding() {
        let network = Architecture::WideResNet34x10.build(ImageShape::new(3, 32, 32), 10, None, None);
        let layout = Parameters::new(&network, &wgpu::Limits::default()).unwrap();
        assert!(layout.slabs.len() > 4 && layout.slabs.iter().all(|s| *s <= 128 << 20));
        let parameters: u64 = 4 * network.parameter_count() as u64;
        let total: u64 = layout.slabs.iter().sum();
        assert!(total >= parameters && total < parameters + parameters / 100);
    }
}
