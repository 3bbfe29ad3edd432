use std::fs;

use image::{GrayImage, ImageBuffer, Luma, LumaA, Rgb, RgbImage, Rgba};
use proptest::prelude::*;

use super::super::folder_files::is_folder;
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
    assert!(text.contains("train/b/0.png") && text.contains("is a colour image"), "{text}");
}

#[test]
fn transparent_images_are_composited_on_white_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    small_set(dir.path());
    let mut image = ImageBuffer::from_pixel(2, 1, LumaA([100u8, 255]));
    image.put_pixel(1, 0, LumaA([100, 51]));
    for name in ["train/a/0.png", "train/b/0.png", "test/a/0.png", "test/b/0.png"] {
        put(dir.path(), name, &png(&DynamicImage::ImageLumaA8(image.clone())));
        image.put_pixel(1, 0, LumaA([7, 0]));
    }
    let data = load_folder(dir.path(), KEEP).unwrap();
    // A fifth of 100 and four fifths of 255; then nothing of 7.
    assert_eq!(data.train.images(), [100, 224, 100, 255]);
    assert_eq!(data.notes, ["4 images were transparent and composited on white"]);
    let rgba = [10, 20, 30, 0, 10, 20, 30, 255];
    let image = image_from_rgba("c", 2, 1, &rgba, ImageShape::new(3, 1, 2)).unwrap();
    assert_eq!(image, LoadedImage { pixels: vec![255, 10, 255, 20, 255, 30], on_white: true });
}

/// A JPEG file with an orientation in its EXIF data.
fn with_orientation(image: &DynamicImage, orientation: u8) -> Vec<u8> {
    let jpeg = encode(image, ImageFormat::Jpeg);
    // The segment APP1: a big-endian TIFF header and one entry, tag 0x0112 of the type SHORT.
    let mut exif = b"\xff\xe1\x00\x22Exif\0\0MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0".to_vec();
    exif.extend([orientation, 0, 0, 0, 0, 0, 0]);
    [&jpeg[..2], &exif, &jpeg[2..]].concat()
}

#[test]
fn the_orientation_in_exif_data_is_applied() {
    let dir = tempfile::tempdir().unwrap();
    // Dark on the left of 32×16 pixels.
    let image = GrayImage::from_fn(32, 16, |x, _| Luma([if x < 16 { 0 } else { 255 }]));
    let image = DynamicImage::ImageLuma8(image);
    for name in ["train/a/0", "train/b/0", "test/a/0", "test/b/0"] {
        put(dir.path(), name, &with_orientation(&image, 6));
    }
    let data = load_folder(dir.path(), KEEP).unwrap();
    assert_eq!(data.train.shape(), ImageShape::new(1, 32, 16));
    assert_eq!(first_shape(dir.path()).unwrap(), data.train.shape());
    // Turned clockwise: what was left is on top.
    let pixels = data.train.image(0);
    assert!(pixels[..16].iter().all(|v| *v < 30) && pixels[31 * 16..].iter().all(|v| *v > 225), "{pixels:?}");
    assert_eq!(data.notes, ["4 images were turned or mirrored as the EXIF data says"]);
    let path = dir.path().join("train/a/0");
    let opened = load_image(&path, ImageShape::new(1, 32, 16)).unwrap();
    assert_eq!(opened.pixels, pixels, "an image that is opened alone");
    // The size that counts is that after turning.
    put(dir.path(), "test/b/0", &encode(&image, ImageFormat::Jpeg));
    let text = message(dir.path(), KEEP);
    assert!(text.contains("test/b/0: is 32×16 pixels") && text.contains("train/a/0 is 16×32"), "{text}");
}

#[test]
fn litter_is_skipped_counted_and_named() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    small_set(root);
    let clean = load_folder(root, KEEP).unwrap();
    assert!(clean.notes.is_empty(), "{:?}", clean.notes);
    for name in [
        "train/a/Thumbs.db",
        "train/a/.DS_Store",
        "train/b/._0.png",
        "train/b/deep/desktop.ini",
        "train/b/boxes.txt",
        "train/labels.csv",
        "__MACOSX/train/a/._0.png",
        "train/@eaDir/0.png/thumb.jpg",
        "test/a/.ipynb_checkpoints/0.png",
        "README.md",
    ] {
        put(root, name, b"no image");
    }
    let data = load_folder(root, KEEP).unwrap();
    assert_eq!((&data.train, &data.test), (&clean.train, &clean.test));
    let expected = "10 files and directories that are no images were skipped: README.md, __MACOSX, test/a/.ipynb_checkpoints, \
                    train/@eaDir and 6 more";
    assert_eq!(data.notes, [expected]);
    // An image is an image whatever its name, and a file that is neither is named.
    put(root, "train/b/boxes.txt", &png(&grey(9, 2, 2)));
    assert_eq!(load_folder(root, KEEP).unwrap().train.len(), clean.train.len() + 1);
    put(root, "train/b/1.gif", b"GIF89a......");
    assert!(message(root, KEEP).contains("train/b/1.gif: is neither PNG nor JPEG"));
}

#[test]
fn parts_have_many_names() {
    for (train, test, note) in [
        ("Train", "Test", None),
        ("Training", "testing", None),
        ("train", "val", Some("there is no directory test: the images of val are the test part")),
        ("train", "Validation", Some("there is no directory test: the images of Validation are the test part")),
    ] {
        let dir = tempfile::tempdir().unwrap();
        small_set(dir.path());
        for (from, to) in [("train", train), ("test", test)] {
            fs::rename(dir.path().join(from), dir.path().join("x")).unwrap();
            fs::rename(dir.path().join("x"), dir.path().join(to)).unwrap();
        }
        assert!(is_folder(dir.path()), "{train}, {test}");
        let data = load_folder(dir.path(), KEEP).unwrap();
        assert_eq!((data.train.images()[0], data.test.images()[0]), (1, 2));
        assert_eq!(data.notes, note.map(str::to_owned).into_iter().collect::<Vec<_>>());
    }
    let dir = tempfile::tempdir().unwrap();
    small_set(dir.path());
    put(dir.path(), "val/a/0.png", &png(&grey(9, 2, 2)));
    let data = load_folder(dir.path(), KEEP).unwrap();
    assert_eq!(data.test.images()[0], 2);
    assert_eq!(data.notes, ["val is not read: validation images are held out from train"]);
    put(dir.path(), "TEST/a/0.png", &png(&grey(9, 2, 2)));
    // Not on a file system without case.
    if dir.path().join("TEST/b").exists() {
        return;
    }
    assert!(message(dir.path(), KEEP).contains("holds both TEST and test"));
}

#[test]
fn tiny_imagenet_is_read_as_it_is_published() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    for (i, class) in ["n01", "n02"].iter().enumerate() {
        put(root, &format!("train/{class}/images/{class}_0.JPEG"), &png(&grey(i as u8, 2, 2)));
        put(root, &format!("train/{class}/{class}_boxes.txt"), b"n01_0.JPEG\t0\t0\t1\t1\n");
    }
    for i in 0..3 {
        put(root, &format!("val/images/val_{i}.JPEG"), &png(&grey(10 + i, 2, 2)));
    }
    put(root, "val/val_annotations.txt", b"val_0.JPEG\tn02\t0\t0\t1\t1\nval_2.JPEG\tn01\nval_1.JPEG n02\n");
    put(root, "test/images/test_0.JPEG", &png(&grey(99, 2, 2)));
    for name in ["wnids.txt", "words.txt"] {
        put(root, name, b"n01\nn02\n");
    }
    assert!(is_folder(root));
    let data = load_folder(root, KEEP).unwrap();
    assert_eq!(data.train.class_names(), ["n01", "n02"]);
    assert_eq!((data.test.labels(), data.test.image(2)[0]), (&[1, 1, 0][..], 12));
    assert_eq!(data.notes[0], "test has no directories of classes: the images of val are the test part");
    assert!(data.notes[1].starts_with("4 files and directories that are no images were skipped: "), "{:?}", data.notes);
    for (annotations, expected) in [
        (&b"val_0.JPEG\tn03\n"[..], "line 1: 'n03' is not the directory of a class in train"),
        (b"val_0.JPEG\tn01\n\nval_0.JPEG\tn01\n", "line 3: 'val_0.JPEG' is listed twice"),
        (b"val_0.JPEG\n", "line 1: expected a file and its class"),
        (b"val_0.JPEG\tn01\nval_1.JPEG\tn01\n", "val_2.JPEG: has no line in"),
        (b"val_0.JPEG\tn01\nval_1.JPEG\tn01\nval_2.JPEG\tn01\n../../x\tn01\n", "lists 4 images, of which 3 are there"),
    ] {
        put(root, "val/val_annotations.txt", annotations);
        let text = message(root, KEEP);
        assert!(text.contains(expected), "{text}");
    }
    // As ImageNet's own validation images are published: without classes.
    fs::remove_file(root.join("val/val_annotations.txt")).unwrap();
    let text = message(root, KEEP);
    assert!(
        text.contains("val: has no directory of a class of") && text.contains("such as 'n01'; sort its images"),
        "{text}"
    );
    // As on Kaggle: without labels.
    fs::remove_dir_all(root.join("val")).unwrap();
    fs::remove_dir_all(root.join("test")).unwrap();
    put(root, "test/0.png", &png(&grey(1, 2, 2)));
    assert!(is_folder(root));
    let text = message(root, KEEP);
    assert!(text.contains("test: has no directory of a class of") && text.contains("itself as the path"), "{text}");
}

#[test]
fn classes_that_are_numbers_are_sorted_as_numbers() {
    let dir = tempfile::tempdir().unwrap();
    let put_classes = |names: &[&str]| {
        for name in names {
            for i in 0..2 {
                put(dir.path(), &format!("{name}/{i}.png"), &png(&grey(name.len() as u8, 2, 2)));
            }
        }
    };
    put_classes(&["0", "1", "9"]);
    let data = load_folder(dir.path(), KEEP).unwrap();
    assert!(data.notes.is_empty(), "the order is the same either way: {:?}", data.notes);
    put_classes(&["10", "2", "007"]);
    let data = load_folder(dir.path(), KEEP).unwrap();
    assert_eq!(data.train.class_names(), ["0", "1", "2", "007", "9", "10"]);
    assert_eq!(data.notes, ["the class directories are numbers and sorted as such: 2 comes before 10"]);
    put_classes(&["other"]);
    let data = load_folder(dir.path(), KEEP).unwrap();
    assert_eq!(data.train.class_names()[..3], ["0", "007", "1"], "not all are numbers");
}

#[test]
fn class_names_are_read_for_folders() {
    let dir = tempfile::tempdir().unwrap();
    small_set(dir.path());
    put(dir.path(), "class_names.txt", "\u{feff}cat\r\ndog\r\n".as_bytes());
    let data = load_folder(dir.path(), KEEP).unwrap();
    assert_eq!((data.train.class_names(), data.train.images()[0]), (&["cat".to_owned(), "dog".to_owned()][..], 1));
    assert_eq!(data.notes, ["class_names.txt names the class directories in their order: a is 'cat', b is 'dog'"]);
    put(dir.path(), "class_names.txt", b"b\na\n");
    let data = load_folder(dir.path(), KEEP).unwrap();
    assert_eq!((data.train.class_names(), data.train.images()[0]), (&["b".to_owned(), "a".to_owned()][..], 0));
    assert_eq!(data.test.images()[0], 3);
    assert_eq!(data.notes, ["class_names.txt gives the order of the classes"]);
    put(dir.path(), "class_names.txt", b"cat\n");
    assert!(message(dir.path(), KEEP).contains("expected a name for each of the 2 class directories, found 1"));
}

#[test]
fn a_class_without_test_images_keeps_its_place() {
    let dir = tempfile::tempdir().unwrap();
    small_set(dir.path());
    put(dir.path(), "train/c/0.png", &png(&grey(5, 2, 2)));
    fs::remove_file(dir.path().join("test/a/0.png")).unwrap();
    let data = load_folder(dir.path(), KEEP).unwrap();
    assert_eq!((data.test.class_names().len(), data.test.class_counts()), (3, vec![0, 1, 0]));
    assert_eq!(data.train.class_counts(), [1, 1, 1]);
    put(dir.path(), "test/d/0.png", &png(&grey(5, 2, 2)));
    assert!(message(dir.path(), KEEP).contains("train: has no directory 'd'"));
}

#[cfg(unix)]
#[test]
fn a_pipe_in_a_folder_is_named_and_never_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    small_set(dir.path());
    let pipe = dir.path().join("train/a/1.png");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let text = message(dir.path(), KEEP);
    assert!(text.contains("train/a/1.png: it is a pipe, expected a regular file"), "{text}");
    assert!(is_folder(dir.path()));
}

/// Also where a directory's name continues that of a file with a character before `/`.
#[test]
fn the_first_image_is_found_without_reading_what_follows_it() {
    let dir = tempfile::tempdir().unwrap();
    small_set(dir.path());
    for (name, side) in [("a/b.png", 3), ("a-b/c.png", 4), ("a/a/z.png", 5), ("a/notes.txt", 0)] {
        let bytes = if side == 0 { b"text".to_vec() } else { png(&grey(9, side, side)) };
        put(&dir.path().join("train/a"), name, &bytes);
    }
    fs::remove_file(dir.path().join("train/a/0.png")).unwrap();
    let first = first_file(dir.path()).unwrap();
    assert_eq!(first, dir.path().join("train/a/a-b/c.png"));
    assert_eq!(list(dir.path()).unwrap().train[0].0, first);
    // A directory after it that nothing may read.
    let deep = (0..9).fold(dir.path().join("train/a/z"), |path, _| path.join("z"));
    fs::create_dir_all(deep).unwrap();
    assert!(list(dir.path()).is_err());
    assert_eq!(first_shape(dir.path()).unwrap(), ImageShape::new(1, 4, 4));
    // Without any image the error is that of the whole reader.
    let empty = tempfile::tempdir().unwrap();
    put(empty.path(), "a/notes.txt", b"text");
    put(empty.path(), "b/0.png", &png(&grey(1, 2, 2)));
    assert!(first_file(empty.path()).unwrap_err().to_string().contains("has 0 images"));
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
        let text = message(dir.path(), FolderOptions { image_size: Some(2), channels: Some(1) });
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
    assert!(text.contains("class 'c' has 0 images, expected at least 1"), "{text}");
    fs::remove_dir(root.join("train/c")).unwrap();
    put(root, "train/stray.png", &png(&grey(0, 2, 2)));
    assert!(message(root, KEEP).contains("next to the class directories"));
    fs::remove_file(root.join("train/stray.png")).unwrap();
    fs::remove_dir_all(root.join("test")).unwrap();
    let text = message(root, KEEP);
    assert!(
        text.contains("expected the directories train and test (or val), found train; without a test part"),
        "{text}"
    );
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
        if let Ok(image) = decode_file(&path, &|_| Ok(())) {
            prop_assert_eq!(image.planar.len(), image.shape.len());
        }
    }
}

/// Converted to text, two such names would be the same.
#[cfg(target_os = "linux")]
#[test]
fn names_of_classes_that_are_not_utf_8_are_refused_in_every_part() {
    use std::os::unix::ffi::OsStrExt;
    for part in ["", "train", "test"] {
        let dir = tempfile::tempdir().unwrap();
        let image = png(&grey(7, 2, 2));
        let parts: &[&str] = if part.is_empty() { &[""] } else { &["train", "test"] };
        for place in parts {
            for class in ["a", "b"] {
                for number in 0..2 {
                    put(
                        dir.path(),
                        &Path::new(place).join(class).join(format!("{number}.png")).display().to_string(),
                        &image,
                    );
                }
            }
        }
        for name in [b"cat\xff", b"cat\xfe"] {
            let class = dir.path().join(part).join(std::ffi::OsStr::from_bytes(name));
            fs::create_dir(&class).unwrap();
            fs::write(class.join("0.png"), &image).unwrap();
        }
        let message = message(dir.path(), FolderOptions::default());
        assert!(message.ends_with("the name of this class is not UTF-8; rename it"), "{message}");
        assert!(message.contains(&dir.path().join(part).display().to_string()), "{message}");
    }
}
