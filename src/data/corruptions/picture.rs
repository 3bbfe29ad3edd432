//! An image as numbers: planes of values in `[0, 1]`.

use crate::data::ImageShape;

/// One channel, row by row.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Plane {
    pub(super) height: usize,
    pub(super) width: usize,
    pub(super) values: Vec<f64>,
}

impl Plane {
    pub(super) fn from_fn(height: usize, width: usize, mut value: impl FnMut(usize, usize) -> f64) -> Self {
        let mut values = Vec::with_capacity(height * width);
        for y in 0..height {
            values.extend((0..width).map(|x| value(y, x)));
        }
        Self { height, width, values }
    }

    pub(super) fn at(&self, y: usize, x: usize) -> f64 {
        self.values[y * self.width + x]
    }

    /// The largest value; 0 if none is positive.
    pub(super) fn max(&self) -> f64 {
        self.values.iter().copied().fold(0.0, f64::max)
    }

    pub(super) fn map(mut self, f: impl Fn(f64) -> f64) -> Self {
        for value in &mut self.values {
            *value = f(*value);
        }
        self
    }
}

/// The planes of an image, one or three of equal size.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Picture {
    pub(super) planes: Vec<Plane>,
}

impl Picture {
    /// `C × H × W` bytes, none of the sizes 0.
    pub(super) fn new(image: &[u8], shape: ImageShape) -> Self {
        let plane = |bytes: &[u8]| Plane {
            height: shape.height,
            width: shape.width,
            values: bytes.iter().map(|v| f64::from(*v) / 255.0).collect(),
        };
        Self { planes: image.chunks_exact(shape.height * shape.width).map(plane).collect() }
    }

    pub(super) fn height(&self) -> usize {
        self.planes[0].height
    }

    pub(super) fn width(&self) -> usize {
        self.planes[0].width
    }

    /// [`super::length_scale`] of this image.
    pub(super) fn length_scale(&self) -> f64 {
        super::length_scale(self.height(), self.width())
    }

    /// Applies `f` to every plane.
    pub(super) fn map_planes(self, f: impl Fn(Plane) -> Plane) -> Self {
        Self { planes: self.planes.into_iter().map(f).collect() }
    }

    /// Rec. 601 luma of the pixel `i`.
    pub(super) fn luma(&self, i: usize) -> f64 {
        match &self.planes[..] {
            [red, green, blue] => luma([red.values[i], green.values[i], blue.values[i]]),
            [grey, ..] => grey.values[i],
            [] => 0.0,
        }
    }

    /// The colour in the form of this image: its channels, or its luma.
    pub(super) fn in_channels(&self, colour: [f64; 3]) -> Vec<f64> {
        if self.planes.len() == 3 { colour.to_vec() } else { vec![luma(colour); self.planes.len()] }
    }

    /// Clipped to `[0, 1]`, times 255, truncated.
    pub(super) fn truncated(&self) -> Vec<u8> {
        self.planes.iter().flat_map(|plane| &plane.values).map(|value| truncated(*value)).collect()
    }

    /// Clipped to `[0, 1]`, times 255, rounded.
    pub(super) fn rounded(&self) -> Vec<u8> {
        self.planes.iter().flat_map(|plane| &plane.values).map(|value| rounded(*value)).collect()
    }
}

pub(super) fn truncated(value: f64) -> u8 {
    (value.clamp(0.0, 1.0) * 255.0) as u8
}

pub(super) fn rounded(value: f64) -> u8 {
    (value.clamp(0.0, 1.0) * 255.0 + 0.5) as u8
}

fn luma([red, green, blue]: [f64; 3]) -> f64 {
    0.299 * red + 0.587 * green + 0.114 * blue
}
