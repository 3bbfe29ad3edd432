use std::fs;

use image::{GrayImage, ImageBuffer, Luma, LumaA, Rgb, RgbImage, Rgba};
use proptest::prelude::*;

use super::*;

fn grey(value: u8, width: u32, height: u32) -> DynamicImage {
    DynamicImage::ImageLuma8(GrayImage::from_pixel(width, height, Luma([value])))
}

fn colour(value: [u8; 3], width: u32, height: u32) -> DynamicImage {
    DynamicImage::ImageRgb8(RgbImage::from_pixel(width, height, Rgb(value)))
}

fn encode(image: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

fn png(image: &DynamicImage) -> Vec<u8> {
    encode(image, ImageFormat::Png)
}

fn put(root: &Path, name: &str, bytes: &[u8]) {
    let path = root.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

fn message(root: &Path, options: FolderOptions) -> String {
    load_folder(root, options).unwrap_err().to_string()
}

const KEEP: FolderOptions = FolderOptions { image_size: None, channels: None };

/// Two classes in two parts, each with one grey 2×2 file.
fn small_set(root: &Path) {
    for (i, name) in ["train/b/0.png", "train/a/0.png", "test/a/0.png", "test/b/0.png"].iter().enumerate() {
        put(root, name, &png(&grey(i as u8, 2, 2)));
    }
}

#[test]
fn parts_classes_and_files_come_in_bytewise_order() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    let names =
        ["train/b/10.png", "train/b/9.png", "train/Z/x.jpg", "train/b/.hidden", "train/.git/x", "train/readme.txt"];
    for (i, name) in names.iter().enumerate() {
        put(root, name, &if i < 3 { png(&grey(i as u8, 2, 2)) } else { b"text".to_vec() });
    }
    put(root, "test/Z/deep/er/1.png", &png(&grey(7, 2, 2)));
    put(root, "test/b/1", &png(&grey(8, 2, 2)));
    assert!(is_folder(root));
    let data = load_folder(root, KEEP).unwrap();
    assert_eq!(data.train.class_names(), ["Z", "b"]);
    assert_eq!(data.train.labels(), [0, 1, 1]);
    // Z/x.jpg (a PNG by content), then b/10.png before b/9.png.
    assert_eq!((0..3).map(|i| data.train.image(i)[0]).collect::<Vec<_>>(), [2, 0, 1]);
    assert_eq!(data.test.images(), [7, 7, 7, 7, 8, 8, 8, 8]);
    assert_eq!(data.test.shape(), ImageShape::new(1, 2, 2));
}

#[test]
fn without_parts_the_last_fifth_of_each_class_is_held_out() {
    let dir = tempfile::tempdir().unwrap();
    for i in 0..11u8 {
        put(dir.path(), &format!("train/{i:02}.png"), &png(&grey(i, 1, 1)));
    }
    for i in 0..2u8 {
        put(dir.path(), &format!("bus/{i:02}.png"), &png(&grey(100 + i, 1, 1)));
    }
    assert!(is_folder(dir.path()));
    let data = load_folder(dir.path(), KEEP).unwrap();
    assert_eq!(data.train.class_names(), ["bus", "train"]);
    assert_eq!(data.train.images(), [100, 0, 1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(data.test.images(), [101, 9, 10]);
    fs::remove_file(dir.path().join("bus/00.png")).unwrap();
    let text = message(dir.path(), KEEP);
    assert!(text.contains("class 'bus' has 1 images, expected at least 2"), "{text}");
}

#[test]
fn colour_is_planar_and_jpeg_is_close() {
    let dir = tempfile::tempdir().unwrap();
    small_set(dir.path());
    for (name, format) in [("train/a/0.png", ImageFormat::Png), ("train/b/0.png", ImageFormat::Jpeg)] {
        put(dir.path(), name, &encode(&colour([10, 100, 200], 2, 1), format));
    }
    for name in ["test/a/0.png", "test/b/0.png"] {
        put(dir.path(), name, &png(&colour([1, 2, 3], 2, 1)));
    }
    let data = load_folder(dir.path(), KEEP).unwrap();
    assert_eq!(data.train.shape(), ImageShape::new(3, 1, 2));
    assert_eq!(data.train.image(0), [10, 10, 100, 100, 200, 200]);
    let differences = data.train.image(1).iter().zip(data.train.image(0)).map(|(a, b)| a.abs_diff(*b));
    assert!(differences.max().unwrap() <= 6, "{:?}", data.train.image(1));
}

#[test]
fn mixed_channels_are_refused_or_converted() {
    let dir = tempfile::tempdir().unwrap();
    small_set(dir.path());
    put(dir.path(), "test/b/0.png", &png(&colour([255, 0, 0], 2, 2)));
    let text = message(dir.path(), KEEP);
    let files = ["test/b/0.png", "train/a/0.png"];
    assert!(files.iter().all(|f| text.contains(f)) && text.contains("is a colour image"), "{text}");
    let with = |channels| load_folder(dir.path(), FolderOptions { channels: Some(channels), ..KEEP }).unwrap();
    assert_eq!(with(1).test.image(1), [76; 4]);
    assert_eq!(with(3).test.image(1), [255, 255, 255, 255, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(with(3).test.image(0), [2; 12]);
    assert!(
        message(dir.path(), FolderOptions { channels: Some(2), ..KEEP }).contains("expected 1 (grey) or 3 (colour)")
    );
}

#[test]
fn different_sizes_are_refused_or_scaled() {
    let dir = tempfile::tempdir().unwrap();
    small_set(dir.path());
    put(dir.path(), "train/b/1.png", &png(&grey(50, 9, 4)));
    let text = message(dir.path(), KEEP);
    assert!(text.contains("train/b/1.png") && text.contains("is 9×4 pixels") && text.contains("is 2×2"), "{text}");
    let data = load_folder(dir.path(), FolderOptions { image_size: Some(3), ..KEEP }).unwrap();
    assert_eq!(data.train.shape(), ImageShape::new(1, 3, 3));
    assert_eq!(data.train.image(2), [50; 9]);
}

#[test]
fn sixteen_bits_and_opaque_alpha_are_reduced() {
    let dir = tempfile::tempdir().unwrap();
    small_set(dir.path());
    let deep: ImageBuffer<Luma<u16>, _> = ImageBuffer::from_raw(2, 2, vec![0u16, 128, 129, 65535]).unwrap();
    put(dir.path(), "train/a/0.png", &png(&DynamicImage::ImageLuma16(deep)));
    let opaque = ImageBuffer::from_pixel(2, 2, LumaA([9u8, 255]));
    put(dir.path(), "train/b/0.png", &png(&DynamicImage::ImageLumaA8(opaque)));
    let data = load_folder(dir.path(), KEEP).unwrap();
    assert_eq!(data.train.images(), [0, 0, 1, 255, 9, 9, 9, 9]);
    let mut clear = ImageBuffer::from_pixel(2, 2, Rgba([9u8, 9, 9, 255]));
    clear.put_pixel(1, 0, Rgba([9, 9, 9, 254]));
    put(dir.path(), "train/b/0.png", &png(&DynamicImage::ImageRgba8(clear)));
    let text = message(dir.path(), KEEP);
    assert!(text.contains("train/b/0.png") && text.contains("not opaque at column 1, row 0"), "{text}");
}

#[test]
fn files_that_are_not_images_are_named() {
    let dir = tempfile::tempdir().unwrap();
    small_set(dir.path());
    let noise = DynamicImage::ImageRgb8(RgbImage::from_fn(64, 64, |x, y| Rgb([(x * y) as u8, (x * 7) as u8, y as u8])));
    let (whole_png, whole_jpeg) = (encode(&noise, ImageFormat::Png), encode(&noise, ImageFormat::Jpeg));
    let half = |bytes: &[u8]| bytes[..bytes.len() / 2].to_vec();
    for (bytes, expected) in [
        (b"<html>404</html>".to_vec(), "neither PNG nor JPEG: it holds an HTML page"),
        (b"GIF89a......".to_vec(), "neither PNG nor JPEG: it starts with the bytes 47 49 46"),
        (Vec::new(), "it is empty"),
        (half(&whole_png), "cannot be decoded"),
        (half(&whole_jpeg), "truncated"),
        (whole_jpeg[..whole_jpeg.len() - 2].to_vec(), "truncated"),
        (whole_jpeg[..20].to_vec(), "cannot be decoded"),
    ] {
        put(dir.path(), "train/b/1.png", &bytes);
        let text = message(dir.path(), KEEP);
        assert!(text.contains("train/b/1.png") && text.contains(expected), "{text}");
    }
}

#[test]
fn dimensions_beyond_the_limit_are_not_decoded() {
    let dir = tempfile::tempdir().unwrap();
    small_set(dir.path());
    let mut bytes = png(&grey(0, 2, 2));
    // Width and height of the header, and its checksum.
    bytes[16..24].copy_from_slice(&[0, 0, 0x40, 0, 0, 0, 0x40, 0]);
    let mut checksum = flate2::Crc::new();
    checksum.update(&bytes[12..29]);
    bytes[29..33].copy_from_slice(&checksum.sum().to_be_bytes());
    put(dir.path(), "train/b/1.png", &bytes);
    let text = message(dir.path(), KEEP);
    assert!(text.contains("is 16384×16384 pixels, expected sides up to 16384 and at most 67108864"), "{text}");
}

#[test]
fn classes_must_exist_and_agree() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    small_set(root);
    fs::create_dir(root.join("train/c")).unwrap();
    let text = message(root, KEEP);
    assert!(text.contains("test: has no directory 'c'"), "{text}");
    fs::create_dir(root.join("test/c")).unwrap();
    let text = message(root, KEEP);
    assert!(text.contains("class 'c' has 0 images, expected at least 1"), "{text}");
    for part in ["train/c", "test/c"] {
        fs::remove_dir(root.join(part)).unwrap();
    }
    put(root, "train/stray.png", &png(&grey(0, 2, 2)));
    assert!(message(root, KEEP).contains("next to the class directories"));
    fs::remove_file(root.join("train/stray.png")).unwrap();
    fs::rename(root.join("test"), root.join("val")).unwrap();
    let text = message(root, KEEP);
    assert!(text.contains("expected the directories train and test, found train, val"), "{text}");
    fs::remove_dir_all(root.join("val")).unwrap();
    fs::remove_dir_all(root.join("train")).unwrap();
    assert!(message(root, KEEP).contains("at least two classes, found 0"));
    assert!(!is_folder(root));
    assert!(matches!(load_folder(&root.join("none"), KEEP), Err(DataError::File(_))));
}

#[cfg(unix)]
#[test]
fn a_link_to_a_parent_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    small_set(dir.path());
    std::os::unix::fs::symlink("..", dir.path().join("train/a/loop")).unwrap();
    assert!(message(dir.path(), KEEP).contains("nested more than 8"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn a_changed_byte_gives_an_image_or_an_error(at in 0usize..400, value: u8, jpeg: bool) {
        let dir = tempfile::tempdir().unwrap();
        let mut bytes = encode(&colour([1, 200, 30], 8, 8), if jpeg { ImageFormat::Jpeg } else { ImageFormat::Png });
        let at = at % bytes.len();
        bytes[at] = value;
        let path = dir.path().join("f");
        fs::write(&path, bytes).unwrap();
        if let Ok(image) = decode_file(&path) {
            prop_assert_eq!(image.planar.len(), image.shape.len());
        }
    }
}
