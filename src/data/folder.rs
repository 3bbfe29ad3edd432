//! Image folders: PNG and JPEG files, one directory per class.

use std::io::Cursor;
use std::path::{Path, PathBuf};

use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits};
use rayon::prelude::*;

use super::fit::{check_memory, check_request, convert_channels, fit_square};
use super::reading::{describe_start, entries, read_file};
use super::{DataError, Dataset, ImageShape, TrainTest};

/// Largest width or height that is decoded.
pub const MAX_SIDE: u32 = 16_384;
/// Largest number of pixels that is decoded, as a guard against decompression bombs.
pub const MAX_PIXELS: u64 = 1 << 26;
const MAX_FILE_BYTES: u64 = 1 << 28;
/// Maximum nesting of directories below a class directory; a link to a parent would otherwise never end.
const MAX_DEPTH: usize = 8;
/// Number of images decoded in parallel before their results are checked.
const BATCH: usize = 1024;

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
/// `max(1, ⌊n / 5⌋)` of the `n` images of each class, in file order.
///
/// * Classes are the directories in bytewise order of their names; the images of a class are all files below its
///   directory in bytewise order of their paths. Names that start with a dot are ignored everywhere; so are files
///   next to the class directories, unless they are images.
/// * The format is detected from a file's content, never from its name. Anything but PNG and JPEG is an error.
/// * Grey or colour is a property of the whole set. A colour file with equal channels is a colour file; a palette is
///   colour. Mixed files are an error unless the number of channels is given.
/// * 16-bit samples become 8-bit ones: `round(v / 257)`. An alpha channel is dropped if it is opaque everywhere; a
///   pixel that is not opaque is an error, because any background would be arbitrary.
/// * Without an image size all files must have the same size.
/// * An orientation in EXIF data is not applied (as in torchvision).
/// * A truncated JPEG file is an error. Damage within its compressed pixels usually decodes to wrong pixels: the format
///   has no checksum (PNG has).
///
/// # Errors
/// Returns an error if a file is not an image or cannot be decoded, if images differ in kind or size, if a class has no
/// image, or if the parts have different classes.
pub fn load_folder(directory: &Path, options: FolderOptions) -> Result<TrainTest, DataError> {
    let name = directory.file_name().map_or_else(|| "folder".into(), |n| n.to_string_lossy().into_owned());
    check_request(&name, options.channels, options.image_size)?;
    let (classes, train, test) = list(directory)?;
    let mut decoder = SetDecoder { options, first: None };
    let mut load = |files: &[(PathBuf, u32)]| {
        let (shape, images) = decoder.decode_all(directory, files)?;
        Dataset::new(name.clone(), classes.clone(), shape, images, files.iter().map(|f| f.1).collect())
    };
    Ok(TrainTest { train: load(&train)?, test: load(&test)? })
}

/// The shape of the first training image of a folder; no other file is read.
pub(super) fn first_shape(directory: &Path) -> Result<ImageShape, DataError> {
    let directory = parts(directory)?.map_or_else(|| directory.to_path_buf(), |(train, _)| train);
    let (_, class) = class_directories(&directory)?.swap_remove(0);
    Ok(decode_file(&files_of_class(&class, 1)?.swap_remove(0))?.shape)
}

type Files = Vec<(PathBuf, u32)>;

/// Class names, and the files of both parts with their classes.
fn list(directory: &Path) -> Result<(Vec<String>, Files, Files), DataError> {
    let with_index = |files: Vec<PathBuf>, class: usize| files.into_iter().map(move |f| (f, class as u32));
    match parts(directory)? {
        Some((train, test)) => {
            let (train_classes, test_classes) = (class_directories(&train)?, class_directories(&test)?);
            let names: Vec<String> = train_classes.iter().map(|c| c.0.clone()).collect();
            let test_names: Vec<String> = test_classes.iter().map(|c| c.0.clone()).collect();
            for (has, here, lacks, there) in
                [(&names, &train, &test_names, &test), (&test_names, &test, &names, &train)]
            {
                if let Some(class) = has.iter().find(|n| !lacks.contains(n)) {
                    let what = format!("has no directory '{class}', which {} has", here.display());
                    return Err(DataError::format(there, what));
                }
            }
            let files = |classes: &[(String, PathBuf)]| {
                let mut all = Files::new();
                for (i, (_, path)) in classes.iter().enumerate() {
                    all.extend(with_index(files_of_class(path, 1)?, i));
                }
                Ok::<_, DataError>(all)
            };
            Ok((names, files(&train_classes)?, files(&test_classes)?))
        }
        None => {
            let classes = class_directories(directory)?;
            let (mut train, mut test) = (Files::new(), Files::new());
            for (i, (_, path)) in classes.iter().enumerate() {
                let mut files = files_of_class(path, 2)?;
                let held_out = (files.len() / 5).max(1);
                test.extend(with_index(files.split_off(files.len() - held_out), i));
                train.extend(with_index(files, i));
            }
            Ok((classes.into_iter().map(|c| c.0).collect(), train, test))
        }
    }
}

/// The directories `train` and `test`; `None` if the folder has no parts.
fn parts(directory: &Path) -> Result<Option<(PathBuf, PathBuf)>, DataError> {
    let (train, test) = (directory.join("train"), directory.join("test"));
    if train.is_dir() && test.is_dir() {
        return Ok(Some((train, test)));
    }
    // `train` may also be a class (a vehicle). Then there are other directories that are not named like parts.
    let is_part = |name: &str| ["train", "test", "val", "valid", "validation"].contains(&name);
    let mut directories = Vec::new();
    for entry in entries(directory)? {
        if entry.path().is_dir() {
            directories.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    if !directories.is_empty() && directories.iter().all(|d| is_part(d)) {
        let what = format!(
            "expected the directories train and test, found {}; fairtat takes its validation images from train",
            directories.join(", ")
        );
        return Err(DataError::format(directory, what));
    }
    Ok(None)
}

/// Whether a directory looks like an image folder: parts that hold directories, or directories that hold images.
pub(super) fn is_folder(directory: &Path) -> bool {
    let directories = |path: &Path| -> Vec<PathBuf> {
        entries(path).unwrap_or_default().iter().map(std::fs::DirEntry::path).filter(|p| p.is_dir()).collect()
    };
    let parts = [directory.join("train"), directory.join("test")];
    if parts.iter().all(|part| !directories(part).is_empty()) {
        return true;
    }
    directories(directory).iter().any(|class| {
        let files = entries(class).unwrap_or_default();
        files.iter().take(16).any(|file| starts_as_image(&file.path()))
    })
}

fn starts_as_image(path: &Path) -> bool {
    let mut head = [0; 16];
    let read = std::fs::File::open(path).and_then(|mut f| super::reading::fill(&mut f, &mut head));
    read.is_ok_and(|n| format_of(&head[..n]).is_some())
}

fn format_of(head: &[u8]) -> Option<ImageFormat> {
    image::guess_format(head).ok().filter(|f| matches!(f, ImageFormat::Png | ImageFormat::Jpeg))
}

/// Names and paths of the class directories.
fn class_directories(directory: &Path) -> Result<Vec<(String, PathBuf)>, DataError> {
    let mut classes = Vec::new();
    for entry in entries(directory)? {
        let path = entry.path();
        if path.is_dir() {
            match entry.file_name().into_string() {
                Ok(name) => classes.push((name, path)),
                Err(_) => return Err(DataError::format(path, "the name of this class is not UTF-8; rename it")),
            }
        } else if starts_as_image(&path) {
            return Err(DataError::format(
                path,
                "is an image next to the class directories, expected it in one of them",
            ));
        }
    }
    if classes.len() < 2 {
        let what = format!("expected a directory for each of at least two classes, found {}", classes.len());
        return Err(DataError::format(directory, what));
    }
    Ok(classes)
}

/// All files below a class directory, of which there must be at least `least`.
fn files_of_class(directory: &Path, least: usize) -> Result<Vec<PathBuf>, DataError> {
    fn walk(directory: &Path, depth: usize, files: &mut Vec<PathBuf>) -> Result<(), DataError> {
        if depth > MAX_DEPTH {
            let what = format!("is nested more than {MAX_DEPTH} directories deep (a link to a parent?)");
            return Err(DataError::format(directory, what));
        }
        for entry in entries(directory)? {
            let path = entry.path();
            // `DirEntry::file_type` needs no further system call, but does not follow links.
            let kind = entry.file_type().map_err(DataError::reading(&path))?;
            if kind.is_dir() || (kind.is_symlink() && path.is_dir()) {
                walk(&path, depth + 1, files)?;
            } else {
                files.push(path);
            }
        }
        Ok(())
    }
    let mut files = Vec::new();
    walk(directory, 0, &mut files)?;
    files.sort_by(|a, b| a.as_os_str().as_encoded_bytes().cmp(b.as_os_str().as_encoded_bytes()));
    if files.len() < least {
        let class = directory.file_name().unwrap_or_default().to_string_lossy();
        let why = if least > 1 { " (one to train on, one to test on)" } else { "" };
        let what = format!("class '{class}' has {} images, expected at least {least}{why}", files.len());
        return Err(DataError::format(directory, what));
    }
    Ok(files)
}

/// One decoded file: planar bytes.
struct Decoded {
    shape: ImageShape,
    planar: Vec<u8>,
}

/// Decodes the files of a set and compares each with the first.
struct SetDecoder {
    options: FolderOptions,
    first: Option<(PathBuf, ImageShape)>,
}

impl SetDecoder {
    fn decode_all(&mut self, directory: &Path, files: &[(PathBuf, u32)]) -> Result<(ImageShape, Vec<u8>), DataError> {
        let mut images: Vec<u8> = Vec::new();
        for batch in files.chunks(BATCH) {
            let decoded: Vec<_> = batch.par_iter().map(|(path, _)| self.decode(path)).collect();
            for ((path, _), image) in batch.iter().zip(decoded) {
                let image = image?;
                let (first_path, first_shape) = self.first.get_or_insert_with(|| (path.clone(), image.shape));
                compare(first_path, *first_shape, path, image.shape)?;
                if images.is_empty() {
                    check_memory(&directory.display().to_string(), files.len(), 0, image.shape)?;
                    let bytes = image.shape.len().saturating_mul(files.len());
                    images.try_reserve_exact(bytes).map_err(|_| {
                        let what = format!("{} images of {} need {bytes} bytes of memory", files.len(), image.shape);
                        DataError::format(directory, what)
                    })?;
                }
                images.extend_from_slice(&image.planar);
            }
        }
        match &self.first {
            Some((_, shape)) => Ok((*shape, images)),
            None => Err(DataError::format(directory, "holds no image")),
        }
    }

    fn decode(&self, path: &Path) -> Result<Decoded, DataError> {
        let Decoded { mut shape, mut planar } = decode_file(path)?;
        if let Some(channels) = self.options.channels.filter(|c| *c != shape.channels) {
            planar = convert_channels(&planar, shape.channels, channels).into_owned();
            shape.channels = channels;
        }
        if let Some(size) = self.options.image_size.filter(|s| (*s, *s) != (shape.height, shape.width)) {
            planar = fit_square(&planar, shape, size);
            shape = ImageShape::new(shape.channels, size, size);
        }
        Ok(Decoded { shape, planar })
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

/// One PNG or JPEG file as planar bytes of `shape`, by the rules of a folder: converted to grey or colour, cropped to
/// the largest centred square, then scaled.
///
/// # Errors
/// Returns an error if the file is not an image or cannot be decoded, or if no image can be converted to `shape`.
pub fn load_image(path: &Path, shape: ImageShape) -> Result<Vec<u8>, DataError> {
    let bytes = read_file(path, MAX_FILE_BYTES)?;
    let Some(format) = format_of(&bytes) else {
        let start = describe_start(&bytes, &mut std::io::empty());
        return Err(DataError::format(path, format!("is neither PNG nor JPEG: {start}; save the image as PNG first")));
    };
    fit_to(path, decode_bytes(path, &bytes, format)?, shape)
}

/// An image in memory, 4 bytes (red, green, blue, alpha) per pixel, as planar bytes of `shape`; see [`load_image`].
/// `name` is used in messages.
///
/// # Errors
/// Returns an error if the sizes do not agree, if a pixel is not opaque, or if no image can be converted to `shape`.
pub fn image_from_rgba(
    name: &str,
    width: usize,
    height: usize,
    rgba: &[u8],
    shape: ImageShape,
) -> Result<Vec<u8>, DataError> {
    let name = Path::new(name);
    let expected = width.checked_mul(height).and_then(|pixels| pixels.checked_mul(4));
    if width == 0 || height == 0 || expected != Some(rgba.len()) {
        let what = format!("is {width}×{height} pixels of 4 bytes, found {} bytes", rgba.len());
        return Err(DataError::format(name, what));
    }
    opaque(name, rgba, 4, width)?;
    let planar = (0..3).flat_map(|c| rgba.iter().skip(c).step_by(4).copied()).collect();
    fit_to(name, Decoded { shape: ImageShape::new(3, height, width), planar }, shape)
}

fn fit_to(path: &Path, image: Decoded, to: ImageShape) -> Result<Vec<u8>, DataError> {
    let planar = convert_channels(&image.planar, image.shape.channels, to.channels);
    let from = ImageShape { channels: to.channels, ..image.shape };
    if from == to {
        return Ok(planar.into_owned());
    }
    if to.height != to.width || planar.len() != from.len() {
        let what = format!("cannot be converted to {to}: only to squares with 1 or 3 channels");
        return Err(DataError::format(path, what));
    }
    Ok(fit_square(&planar, from, to.height))
}

fn decode_file(path: &Path) -> Result<Decoded, DataError> {
    let bytes = read_file(path, MAX_FILE_BYTES)?;
    let Some(format) = format_of(&bytes) else {
        let what = format!(
            "is neither PNG nor JPEG: {}; remove it or start its name with a dot",
            describe_start(&bytes, &mut std::io::empty())
        );
        return Err(DataError::format(path, what));
    };
    decode_bytes(path, &bytes, format)
}

fn decode_bytes(path: &Path, bytes: &[u8], format: ImageFormat) -> Result<Decoded, DataError> {
    let unreadable = |e: image::ImageError| DataError::format(path, format!("cannot be decoded: {e}"));
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(MAX_PIXELS * 16);
    reader.limits(limits);
    let decoder = reader.into_decoder().map_err(unreadable)?;
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
    planar_bytes(path, DynamicImage::from_decoder(decoder).map_err(unreadable)?)
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
fn planar_bytes(path: &Path, image: DynamicImage) -> Result<Decoded, DataError> {
    let (width, height) = (image.width() as usize, image.height() as usize);
    let color = image.color();
    let channels = if color.has_color() { 3 } else { 1 };
    let (samples, stride) = match (color.has_color(), color.has_alpha()) {
        (false, false) => (image.into_luma8().into_raw(), 1),
        (false, true) => (image.into_luma_alpha8().into_raw(), 2),
        (true, false) => (image.into_rgb8().into_raw(), 3),
        (true, true) => (image.into_rgba8().into_raw(), 4),
    };
    if color.has_alpha() {
        opaque(path, &samples, stride, width)?;
    }
    let planar = (0..channels).flat_map(|c| samples.iter().skip(c).step_by(stride).copied()).collect();
    Ok(Decoded { shape: ImageShape::new(channels, height, width), planar })
}

/// Checks that the last of every `stride` bytes, a pixel's alpha, is 255.
fn opaque(path: &Path, samples: &[u8], stride: usize, width: usize) -> Result<(), DataError> {
    match samples.chunks_exact(stride).position(|pixel| pixel[stride - 1] != u8::MAX) {
        None => Ok(()),
        Some(i) => {
            let what = format!(
                "is not opaque at column {}, row {}; save it without transparency, on the background of your choice",
                i % width,
                i / width
            );
            Err(DataError::format(path, what))
        }
    }
}

#[cfg(test)]
#[path = "folder_tests.rs"]
mod tests;
