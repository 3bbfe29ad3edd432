//! External images, converted to the shape of the network like the images of a data folder.

use std::path::Path;

use crate::data::{DataError, Dataset, ImageShape, LoadedImage, image_from_rgba, load_image};
use crate::worker::Subject;

/// Reads a PNG or JPEG file.
///
/// # Errors
/// As [`load_image`]; the message names the file and suggests what to do.
pub fn subject_from_file(path: &Path, shape: ImageShape) -> Result<Subject, DataError> {
    let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
    Ok(subject(&name, load_image(path, shape)?, shape))
}

/// Converts an image with 4 bytes per pixel, as read from the clipboard.
///
/// # Errors
/// As [`image_from_rgba`].
pub fn subject_from_rgba(
    name: &str,
    width: usize,
    height: usize,
    rgba: &[u8],
    shape: ImageShape,
) -> Result<Subject, DataError> {
    Ok(subject(name, image_from_rgba(name, width, height, rgba, shape)?, shape))
}

/// An image without a label, whose name says what its background is if it had none.
fn subject(name: &str, LoadedImage { pixels, on_white }: LoadedImage, shape: ImageShape) -> Subject {
    let name = if on_white { format!("{name}, transparent pixels on white") } else { name.to_owned() };
    Subject { name, shape, pixels: pixels.into(), label: None }
}

/// Image `index` of a part of the data set, such as `test`; `None` if there is no such image.
pub fn subject_from_set(part: &str, set: &Dataset, index: usize) -> Option<Subject> {
    let label = *set.labels().get(index)?;
    let name = format!("{part} image {index}");
    Some(Subject { name, shape: set.shape(), pixels: set.image(index).into(), label: Some(label) })
}

/// The number of this image in a part of the data set; `None` if [`subject_from_set`] did not make it of that part.
pub fn image_of(part: &str, subject: &Subject) -> Option<usize> {
    let number = subject.name.strip_prefix(part)?.strip_prefix(" image ")?;
    number.parse().ok().filter(|_| subject.label.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_cut_scaled_and_converted() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cat.png");
        // Blue bars to the left and right of a square of red over green.
        let image = image::RgbImage::from_fn(48, 32, |x, y| match x {
            8..40 if y < 16 => image::Rgb([255, 0, 0]),
            8..40 => image::Rgb([0, 255, 0]),
            _ => image::Rgb([0, 0, 255]),
        });
        image.save(&path).unwrap();
        let colour = subject_from_file(&path, ImageShape::new(3, 4, 4)).unwrap();
        assert_eq!((colour.name.as_str(), colour.label), ("cat.png", None));
        assert_eq!(colour.pixels[..4], [255; 4], "red at the top");
        assert_eq!(colour.pixels[28..32], [255; 4], "green at the bottom");
        assert!(colour.pixels[32..].iter().all(|v| *v == 0), "no blue: {:?}", &colour.pixels[32..]);
        let grey = subject_from_file(&path, ImageShape::new(1, 32, 32)).unwrap();
        assert_eq!((grey.pixels[0], grey.pixels[31 * 32]), (76, 150));
    }

    #[test]
    fn transparent_pixels_are_white_and_the_name_says_so() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cat.png");
        let opacity = |x: u32| if x < 2 { 0 } else { 255 };
        let image = image::RgbaImage::from_fn(4, 4, |x, _| image::Rgba([10, 10, 10, opacity(x)]));
        image.save(&path).unwrap();
        let shape = ImageShape::new(1, 4, 4);
        let subject = subject_from_file(&path, shape).unwrap();
        assert_eq!(subject.name, "cat.png, transparent pixels on white");
        assert_eq!(subject.pixels[..4], [255, 255, 10, 10]);
        let pasted = subject_from_rgba("pasted image", 4, 4, &image, shape).unwrap();
        assert_eq!(
            (pasted.name.as_str(), &pasted.pixels),
            ("pasted image, transparent pixels on white", &subject.pixels)
        );
    }

    #[test]
    fn what_is_no_image_says_so() {
        let directory = tempfile::tempdir().unwrap();
        let shape = ImageShape::new(1, 8, 8);
        let error = |name: &str, bytes: &[u8]| {
            let path = directory.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            subject_from_file(&path, shape).unwrap_err().to_string()
        };
        let message = error("note.png", b"hello");
        assert!(message.contains("note.png") && message.contains("neither PNG nor JPEG"), "{message}");
        assert!(message.contains("save the image as PNG"), "{message}");
        let message = error("cut.png", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR");
        assert!(message.contains("cannot be decoded"), "{message}");
        let message = subject_from_file(&directory.path().join("none.png"), shape).unwrap_err().to_string();
        assert!(message.contains("none.png"), "{message}");
    }

    #[test]
    fn pasted_pixels_become_a_subject() {
        let shape = ImageShape::new(1, 2, 2);
        let rgba = [200, 200, 200, 255].repeat(16);
        let subject = subject_from_rgba("pasted image", 4, 4, &rgba, shape).unwrap();
        assert_eq!(*subject.pixels, [200; 4]);
        let error = |rgba: &[u8], shape| subject_from_rgba("pasted image", 4, 4, rgba, shape).unwrap_err().to_string();
        assert!(error(&rgba[1..], shape).contains("found 63 bytes"));
        assert!(error(&rgba, ImageShape::new(1, 2, 3)).contains("cannot be converted to 1×2×3"));
    }

    #[test]
    fn images_of_a_set_are_named_by_part_and_number() {
        let set = crate::app::sample::images(1);
        let subject = subject_from_set("test", &set, 3).unwrap();
        assert_eq!((subject.name.as_str(), subject.label), ("test image 3", Some(3)));
        assert_eq!(*subject.pixels, *set.image(3));
        assert!(subject_from_set("test", &set, 10).is_none());
    }
}
