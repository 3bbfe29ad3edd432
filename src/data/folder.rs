//! Image folders: PNG and JPEG files, one directory per class.

use std::io::Cursor;
use std::path::{Path, PathBuf};

use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits};
use rayon::prelude::*;

use super::fit::{check_memory, check_request, convert_channels, fit_square};
use super::folder_files::{Listing, first_file, list};
use super::reading::{describe_start, read_file};
use super::{DataError, Dataset, ImageShape, TrainTest};

/// Largest width or height that is decoded.
pub const MAX_SIDE: u32 = 16_384;
/// Largest number of pixels that is decoded, as a guard against decompression bombs.
pub const MAX_PIXELS: u64 = 1 << 26;
const MAX_FILE_BYTES: u64 = 1 << 28;
/// Number of images decoded in parallel before their results are checked.
const BATCH: usize = 1024;
/// Every channel of what is behind a transparent image.
const BACKGROUND: u8 = 255;

/// Size and channels to which the images of a folder are converted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FolderOptions {
    /// Side of the square to which every image is converted: the largest centred square is cropped, then scaled with a
    /// triangle filter (an average over all source pixels when shrinking, bilinear when enlarging).
    pub image_size: Option<usize>,
    /// 1 or 3 channels for every image: converted to grey by Rec. 601 luma, to colour by repetition.
    pub channels: Option<usize>,
}

/// Reads an image folder.
///
/// Layouts: `DIR/train/CLASS/…` with `DIR/test/CLASS/…`, or only `DIR/CLASS/…`. In the second the test part is the last
/// `max(1, ⌊n / 5⌋)` of the `n` images of each class, in file order. Case does not matter in the names of the parts;
/// without `test`, or if that has no classes (Tiny-ImageNet, Imagenette), `val` is the test part. The classes of
/// Tiny-ImageNet's `val/images` come from `val_annotations.txt`.
///
/// * Classes are the directories in bytewise order of their names, or in the order of their numbers if all names are
///   numbers; the images of a class are all files below its directory in bytewise order of their paths.
///   `DIR/class_names.txt` gives the classes other names, in that order, or lists the directories in another order. A
///   class may lack test images, but not training images.
/// * Hidden files, what operating systems leave behind (`Thumbs.db`, `__MACOSX`), files next to the class directories
///   and files with extensions such as `.txt` are skipped unless they are images; a note counts them.
/// * The format is detected from a file's content, never from its name. Anything but PNG and JPEG is an error.
/// * Grey or colour is a property of the whole set. A colour file with equal channels is a colour file; a palette is
///   colour. Mixed files are an error unless the number of channels is given.
/// * 16-bit samples become 8-bit ones: `round(v / 257)`. Transparent pixels are composited on white.
/// * Without an image size all files must have the same size.
/// * The orientation in EXIF data is applied first.
/// * A truncated JPEG file is an error. Damage within its compressed pixels usually decodes to wrong pixels: the format
///   has no checksum (PNG has).
///
/// # Errors
/// Returns an error if a file is not an image or cannot be decoded, if images differ in kind or size, if a class has no
/// training image, or if the test part has a class that the training part lacks.
pub fn load_folder(directory: &Path, options: FolderOptions) -> Result<TrainTest, DataError> {
    let name = directory.file_name().map_or_else(|| "folder".into(), |n| n.to_string_lossy().into_owned());
    check_request(&name, options.channels, options.image_size)?;
    let Listing { names, train, test, mut notes } = list(directory)?;
    let mut decoder = SetDecoder { options, first: None, turned: 0, transparent: 0 };
    let mut load = |files: &[(PathBuf, u32)]| {
        let (shape, images) = decoder.decode_all(directory, files)?;
        Dataset::new(name.clone(), names.clone(), shape, images, files.iter().map(|f| f.1).collect())
    };
    let (train, test) = (load(&train)?, load(&test)?);
    notes.extend(decoder.notes());
    Ok(TrainTest { train, test, notes })
}

/// The shape of the first training image of a folder; no other file is read.
pub(super) fn first_shape(directory: &Path) -> Result<ImageShape, DataError> {
    Ok(decode_file(&first_file(directory)?, &|_| Ok(()))?.shape)
}

pub(super) fn starts_as_image(path: &Path) -> bool {
    let mut head = [0; 16];
    let read = super::reading::open(path).map(|(mut file, _)| super::reading::fill(&mut file, &mut head).unwrap_or(0));
    read.is_ok_and(|n| format_of(&head[..n]).is_some())
}

fn format_of(head: &[u8]) -> Option<ImageFormat> {
    image::guess_format(head).ok().filter(|f| matches!(f, ImageFormat::Png | ImageFormat::Jpeg))
}

/// One decoded file: planar bytes.
struct Decoded {
    shape: ImageShape,
    planar: Vec<u8>,
    /// Whether its EXIF data says that it lies on its side, its head or is mirrored.
    turned: bool,
    /// Whether it was composited on [`BACKGROUND`].
    transparent: bool,
}

/// Decodes the files of a set and compares each with the first.
struct SetDecoder {
    options: FolderOptions,
    first: Option<(PathBuf, ImageShape)>,
    turned: usize,
    transparent: usize,
}

impl SetDecoder {
    fn decode_all(&mut self, directory: &Path, files: &[(PathBuf, u32)]) -> Result<(ImageShape, Vec<u8>), DataError> {
        let shape = match (&self.first, files.first()) {
            (Some((_, shape)), _) => *shape,
            (None, Some((path, _))) => {
                let shape = self.decode(path)?.shape;
                self.first.insert((path.clone(), shape)).1
            }
            (None, None) => return Err(DataError::format(directory, "holds no image")),
        };
        let mut images: Vec<u8> = Vec::new();
        check_memory(&directory.display().to_string(), files.len(), 0, shape)?;
        let bytes = shape.len().saturating_mul(files.len());
        images.try_reserve_exact(bytes).map_err(|_| {
            let what = format!("{} images of {shape} need {bytes} bytes of memory", files.len());
            DataError::format(directory, what)
        })?;
        for batch in files.chunks(BATCH) {
            let decoded: Vec<_> = batch.par_iter().map(|(path, _)| self.decode(path)).collect();
            for image in decoded {
                let image = image?;
                self.turned += usize::from(image.turned);
                self.transparent += usize::from(image.transparent);
                images.extend_from_slice(&image.planar);
            }
        }
        Ok((shape, images))
    }

    fn notes(&self) -> Vec<String> {
        let count = |n: usize| if n == 1 { "1 image was".to_owned() } else { format!("{n} images were") };
        let mut notes = Vec::new();
        if self.turned > 0 {
            notes.push(format!("{} turned or mirrored as the EXIF data says", count(self.turned)));
        }
        if self.transparent > 0 {
            notes.push(format!("{} transparent and composited on white", count(self.transparent)));
        }
        notes
    }

    /// As the set's other images. An image of another kind or size is refused before its pixels are decoded.
    fn decode(&self, path: &Path) -> Result<Decoded, DataError> {
        let FolderOptions { channels, image_size } = self.options;
        let fitted = |shape: ImageShape| ImageShape {
            channels: channels.unwrap_or(shape.channels),
            height: image_size.unwrap_or(shape.height),
            width: image_size.unwrap_or(shape.width),
        };
        let check = |found: ImageShape| match &self.first {
            Some((first, expected)) => compare(first, *expected, path, fitted(found)),
            None => Ok(()),
        };
        let mut image = decode_file(path, &check)?;
        let to = fitted(image.shape);
        if image.shape.channels != to.channels {
            image.planar = convert_channels(&image.planar, image.shape.channels, to.channels).into_owned();
            image.shape.channels = to.channels;
        }
        if image.shape != to {
            image.planar = fit_square(&image.planar, image.shape, to.height);
            image.shape = to;
        }
        Ok(image)
    }
}

/// Checks that `path` has the kind and size of the set's first file.
fn compare(first: &Path, expected: ImageShape, path: &Path, found: ImageShape) -> Result<(), DataError> {
    let kind = |shape: ImageShape| if shape.channels == 1 { "grey" } else { "colour" };
    let first = first.display();
    if expected.channels != found.channels {
        let what = format!(
            "is a {} image, but {first} is a {} one; --channels 1 or 3 (channels) converts them",
            kind(found),
            kind(expected)
        );
        return Err(DataError::format(path, what));
    }
    if expected != found {
        let what = format!(
            "is {}×{} pixels (width × height), but {first} is {}×{}; --image-size N (image_size) cuts and scales them",
            found.width, found.height, expected.width, expected.height
        );
        return Err(DataError::format(path, what));
    }
    Ok(())
}

/// An image that was converted to a shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadedImage {
    /// Its planar bytes.
    pub pixels: Vec<u8>,
    /// Whether some of its pixels were transparent, which were composited on white.
    pub on_white: bool,
}

/// One PNG or JPEG file as planar bytes of `shape`, by the rules of a folder: converted to grey or colour, cropped to
/// the largest centred square, then scaled.
///
/// # Errors
/// Returns an error if the file is not an image or cannot be decoded, or if no image can be converted to `shape`.
pub fn load_image(path: &Path, shape: ImageShape) -> Result<LoadedImage, DataError> {
    let bytes = read_file(path, MAX_FILE_BYTES)?;
    let Some(format) = format_of(&bytes) else {
        let start = describe_start(&bytes, &mut std::io::empty());
        return Err(DataError::format(path, format!("is neither PNG nor JPEG: {start}; save the image as PNG first")));
    };
    fit_to(path, decode_bytes(path, &bytes, format, &|_| Ok(()))?, shape)
}

/// An image in memory, 4 bytes (red, green, blue, alpha) per pixel, as planar bytes of `shape`; see [`load_image`].
/// `name` is used in messages.
///
/// # Errors
/// Returns an error if the sizes do not agree, or if no image can be converted to `shape`.
pub fn image_from_rgba(
    name: &str,
    width: usize,
    height: usize,
    rgba: &[u8],
    shape: ImageShape,
) -> Result<LoadedImage, DataError> {
    let name = Path::new(name);
    let expected = width.checked_mul(height).and_then(|pixels| pixels.checked_mul(4));
    if width == 0 || height == 0 || expected != Some(rgba.len()) {
        let what = format!("is {width}×{height} pixels of 4 bytes, found {} bytes", rgba.len());
        return Err(DataError::format(name, what));
    }
    let (planar, transparent) = planes(rgba, 3, true);
    fit_to(name, Decoded { shape: ImageShape::new(3, height, width), planar, turned: false, transparent }, shape)
}

fn fit_to(path: &Path, image: Decoded, to: ImageShape) -> Result<LoadedImage, DataError> {
    let planar = convert_channels(&image.planar, image.shape.channels, to.channels);
    let from = ImageShape { channels: to.channels, ..image.shape };
    let loaded = |pixels| Ok(LoadedImage { pixels, on_white: image.transparent });
    if from == to {
        return loaded(planar.into_owned());
    }
    if to.height != to.width || planar.len() != from.len() {
        let what = format!("cannot be converted to {to}: only to squares with 1 or 3 channels");
        return Err(DataError::format(path, what));
    }
    loaded(fit_square(&planar, from, to.height))
}

/// Decodes a file; `check` gets its shape before its pixels are decoded.
fn decode_file(path: &Path, check: Check<'_>) -> Result<Decoded, DataError> {
    let bytes = read_file(path, MAX_FILE_BYTES)?;
    let Some(format) = format_of(&bytes) else {
        let what = format!(
            "is neither PNG nor JPEG: {}; remove it or convert it",
            describe_start(&bytes, &mut std::io::empty())
        );
        return Err(DataError::format(path, what));
    };
    decode_bytes(path, &bytes, format, check)
}

type Check<'a> = &'a dyn Fn(ImageShape) -> Result<(), DataError>;

fn decode_bytes(path: &Path, bytes: &[u8], format: ImageFormat, check: Check<'_>) -> Result<Decoded, DataError> {
    let unreadable = |e: image::ImageError| DataError::format(path, format!("cannot be decoded: {e}"));
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(MAX_PIXELS * 16);
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(unreadable)?;
    let (width, height) = decoder.dimensions();
    if width > MAX_SIDE || height > MAX_SIDE || u64::from(width) * u64::from(height) > MAX_PIXELS {
        let what =
            format!("is {width}×{height} pixels, expected sides up to {MAX_SIDE} and at most {MAX_PIXELS} pixels");
        return Err(DataError::format(path, what));
    }
    if format == ImageFormat::Jpeg && !jpeg_is_complete(bytes) {
        let what = format!("its JPEG data stops at byte {} without an end marker; it is truncated", bytes.len());
        return Err(DataError::format(path, what));
    }
    // Damaged EXIF data says nothing.
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let (width, height) = match orientation {
        Orientation::Rotate90 | Orientation::Rotate270 | Orientation::Rotate90FlipH | Orientation::Rotate270FlipH => {
            (height, width)
        }
        _ => (width, height),
    };
    let channels = if decoder.color_type().has_color() { 3 } else { 1 };
    check(ImageShape::new(channels, height as usize, width as usize))?;
    let mut image = DynamicImage::from_decoder(decoder).map_err(unreadable)?;
    image.apply_orientation(orientation);
    Ok(Decoded { turned: orientation != Orientation::NoTransforms, ..planar_bytes(image) })
}

/// Whether an end-of-image marker follows the first scan. The decoder fills the missing part of a truncated file with
/// grey.
///
/// Entropy-coded data never contains `ff d9` (an `ff` there is followed by `00`); headers may, as they can hold
/// thumbnails.
fn jpeg_is_complete(bytes: &[u8]) -> bool {
    let mut at = 2;
    while let Some(&[0xff, marker, high, low]) = bytes.get(at..at + 4) {
        if marker == 0xff {
            at += 1;
            continue;
        }
        at += 2 + usize::from(u16::from_be_bytes([high, low]));
        if marker == 0xda {
            break;
        }
    }
    bytes.get(at..).is_some_and(|rest| rest.windows(2).any(|w| w == [0xff, 0xd9]))
}

/// Grey or colour planes of a decoded image.
fn planar_bytes(image: DynamicImage) -> Decoded {
    let (width, height) = (image.width() as usize, image.height() as usize);
    let color = image.color();
    let (channels, samples) = match (color.has_color(), color.has_alpha()) {
        (false, false) => (1, image.into_luma8().into_raw()),
        (false, true) => (1, image.into_luma_alpha8().into_raw()),
        (true, false) => (3, image.into_rgb8().into_raw()),
        (true, true) => (3, image.into_rgba8().into_raw()),
    };
    let (planar, transparent) = planes(&samples, channels, color.has_alpha());
    Decoded { shape: ImageShape::new(channels, height, width), planar, turned: false, transparent }
}

/// The planes of interleaved samples, and whether a pixel was transparent. The last sample of a pixel is its opacity `a`
/// if `alpha`; a value `v` then becomes `round((a · v + (255 - a) · BACKGROUND) / 255)`.
fn planes(samples: &[u8], channels: usize, alpha: bool) -> (Vec<u8>, bool) {
    let stride = channels + usize::from(alpha);
    let opacity = |pixel: &[u8]| if alpha { u32::from(pixel[channels]) } else { 255 };
    let value = |pixel: &[u8], c: usize| {
        let (a, v) = (opacity(pixel), u32::from(pixel[c]));
        ((a * v + (255 - a) * u32::from(BACKGROUND) + 127) / 255) as u8
    };
    let pixels = || samples.chunks_exact(stride);
    let planar = (0..channels).flat_map(|c| pixels().map(move |pixel| value(pixel, c))).collect();
    (planar, alpha && pixels().any(|pixel| opacity(pixel) < 255))
}

#[cfg(test)]
#[path = "folder_tests.rs"]
mod tests;
