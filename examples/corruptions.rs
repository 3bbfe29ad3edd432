//! Looks at the corruptions, and writes them in the layout of CIFAR-10-C.
//!
//! ```sh
//! cargo run --release --example corruptions -- --dataset shapes --image 3 --sheet sheet.png
//! cargo run --release --example corruptions -- --dataset cifar10 --path DIR --npy OUT --count 200
//! ```
//!
//! The sheet has a row for each corruption, in the order that is printed: the clean image, then severities 1 to 5. The
//! arrays are `CORRUPTION.npy` and `labels.npy` of the first images of the test set, and the same images without
//! corruption in `clean.npy`; `tests/published/corruptions.py` reads them.

#![allow(clippy::print_stdout, reason = "its output is a list")]

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use fairtat::data::corruptions::{Corruption, Severity, corrupt, corrupt_set};
use fairtat::data::{Dataset, ImageShape, SourceOptions, load};
use fairtat::files::write_atomic;

/// Draws a sheet of all corruptions, or writes them as arrays.
#[derive(Debug, Parser)]
struct Options {
    /// Name of the data set: shapes, digits, cifar10, …
    #[arg(long, default_value = "shapes")]
    dataset: String,
    /// Directory of the data set
    #[arg(long)]
    path: Option<PathBuf>,
    /// Crop and scale all images to this size
    #[arg(long)]
    size: Option<usize>,
    /// Seed of the corruptions
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Image of the test set to show
    #[arg(long, default_value_t = 0)]
    image: usize,
    /// PNG file for the sheet
    #[arg(long)]
    sheet: Option<PathBuf>,
    /// Screen pixels for each pixel of the sheet
    #[arg(long, default_value_t = 4)]
    zoom: u32,
    /// Directory for the arrays
    #[arg(long)]
    npy: Option<PathBuf>,
    /// Number of images in the arrays
    #[arg(long, default_value_t = 100)]
    count: usize,
    /// Corruptions; all if not given
    #[arg(long, value_enum, num_args = 1..)]
    corruptions: Vec<Corruption>,
}

fn main() -> Result<()> {
    let options = Options::parse();
    ensure!(options.sheet.is_some() || options.npy.is_some(), "give --sheet FILE.png, --npy DIRECTORY, or both");
    let source = SourceOptions {
        dataset: options.dataset.clone(),
        path: options.path.clone(),
        image_size: options.size,
        root: PathBuf::from("data"),
        channels: None,
        seed: 0,
    };
    let test = load(&source)?.test;
    let all = if options.corruptions.is_empty() { &Corruption::ALL[..] } else { &options.corruptions };
    if let Some(path) = &options.sheet {
        ensure!(options.image < test.len(), "image {}, expected 0 to {}", options.image, test.len() - 1);
        sheet(path, &test, all, &options)?;
    }
    if let Some(directory) = &options.npy {
        let count = options.count.min(test.len());
        let set = test.select(&(0..count).collect::<Vec<_>>())?;
        arrays(directory, &set, all, options.seed)?;
    }
    Ok(())
}

/// Writes one row for each corruption.
fn sheet(path: &Path, test: &Dataset, corruptions: &[Corruption], options: &Options) -> Result<()> {
    const GAP: u32 = 1;
    let (shape, clean) = (test.shape(), test.image(options.image));
    let (height, width) = (shape.height as u32, shape.width as u32);
    let columns = 1 + Severity::ALL.len() as u32;
    let size = [columns * (width + GAP) - GAP, corruptions.len() as u32 * (height + GAP) - GAP];
    let mut sheet = image::RgbImage::from_pixel(size[0] * options.zoom, size[1] * options.zoom, image::Rgb([128; 3]));
    for (row, corruption) in corruptions.iter().enumerate() {
        println!("{corruption}");
        let corrupted = Severity::ALL
            .iter()
            .map(|severity| corrupt(*corruption, *severity, clean, shape, options.seed, options.image as u32));
        for (column, pixels) in std::iter::once(clean.to_vec()).chain(corrupted).enumerate() {
            let (top, left) = (row as u32 * (height + GAP), column as u32 * (width + GAP));
            for (y, x) in (0..height * options.zoom).flat_map(|y| (0..width * options.zoom).map(move |x| (y, x))) {
                let colour = colour(&pixels, shape, (y / options.zoom) as usize, (x / options.zoom) as usize);
                sheet.put_pixel(left * options.zoom + x, top * options.zoom + y, image::Rgb(colour));
            }
        }
    }
    sheet.save(path).with_context(|| format!("cannot write {}", path.display()))
}

fn colour(pixels: &[u8], shape: ImageShape, y: usize, x: usize) -> [u8; 3] {
    [0, 1, 2].map(|c| pixels[c.min(shape.channels - 1) * shape.height * shape.width + y * shape.width + x])
}

/// Writes the layout of CIFAR-10-C.
fn arrays(directory: &Path, set: &Dataset, corruptions: &[Corruption], seed: u64) -> Result<()> {
    let shape = set.shape();
    let dimensions = |count: usize| vec![count, shape.height, shape.width, shape.channels];
    for corruption in corruptions {
        let mut bytes = Vec::new();
        for severity in Severity::ALL {
            bytes.extend(interleaved(&corrupt_set(set, *corruption, severity, seed)?));
        }
        write_npy(&directory.join(corruption.file()), &dimensions(5 * set.len()), &bytes)?;
    }
    write_npy(&directory.join("clean.npy"), &dimensions(set.len()), &interleaved(set))?;
    let labels: Vec<u8> =
        set.labels().iter().map(|label| u8::try_from(*label)).collect::<Result<_, _>>().context("over 256 classes")?;
    write_npy(&directory.join("labels.npy"), &[5 * set.len()], &labels.repeat(5))
}

fn interleaved(set: &Dataset) -> Vec<u8> {
    let (shape, plane) = (set.shape(), set.shape().height * set.shape().width);
    let image = |i: usize| {
        let image = set.image(i);
        (0..plane).flat_map(move |pixel| (0..shape.channels).map(move |c| image[c * plane + pixel]))
    };
    (0..set.len()).flat_map(image).collect()
}

/// An array of unsigned bytes in version 1 of NumPy's format.
fn write_npy(path: &Path, shape: &[usize], values: &[u8]) -> Result<()> {
    let sizes: String = shape.iter().map(|size| format!("{size}, ")).collect();
    let header = format!("{{'descr': '|u1', 'fortran_order': False, 'shape': ({sizes}), }}");
    let header = format!("{header:<117}\n");
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(values);
    Ok(write_atomic(path, &bytes)?)
}
