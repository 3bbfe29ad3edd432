//! The data set `digits`: 1,797 real handwritten digits of 8×8 grey pixels, built into the program.
//!
//! The images are the test part of "Optical Recognition of Handwritten Digits" by E. Alpaydin and C. Kaynak (UCI
//! Machine Learning Repository, 1998, <https://doi.org/10.24432/C50P49>, CC BY 4.0): 32×32 bitmaps of digits written on
//! preprinted forms, each 4×4 block counted into one value from 0 to 16. The crate `smartcore` contains them.
//!
//! * A value `v` becomes the byte `round(255·v / 16)`, halves up: 0 → 0, 8 → 128, 16 → 255.
//! * Classes are named "0" to "9".
//! * The last fifth of each class in the order of the file (`⌊n / 5⌋` images) is the test part: 1,442 images for
//!   training, 355 for testing. The file is ordered by writer, so most test digits are by writers that are not in the
//!   training part.

use super::{DataError, Dataset, ImageShape, TrainTest};

const NAME: &str = "digits";
const SHAPE: ImageShape = ImageShape::new(1, 8, 8);
/// Number of images of each digit, as published.
const CLASS_COUNTS: [usize; 10] = [178, 182, 177, 183, 181, 182, 181, 179, 174, 180];

/// The handwritten digits, split as the module describes.
///
/// # Errors
/// Returns [`DataError::Inconsistent`] if the data in `smartcore` is not the set described here: another number of
/// images, another shape, a value that is not from 0 to 16, or other class counts.
pub fn digits() -> Result<TrainTest, DataError> {
    let source = smartcore::dataset::digits::load_dataset();
    let expected: usize = CLASS_COUNTS.iter().sum();
    if source.num_samples != expected || source.num_features != SHAPE.len() {
        return Err(inconsistent(format!(
            "expected {expected} images of {} values, found {} of {}",
            SHAPE.len(),
            source.num_samples,
            source.num_features
        )));
    }
    let images = bytes(&source.data)?;
    let labels = classes(&source.target)?;
    let names = (0..CLASS_COUNTS.len()).map(|digit| digit.to_string()).collect();
    let all = Dataset::new(NAME, names, SHAPE, images, labels)?;
    if all.class_counts() != CLASS_COUNTS {
        return Err(inconsistent(format!("expected class counts {CLASS_COUNTS:?}, found {:?}", all.class_counts())));
    }
    let (train, test) = split(all.labels());
    Ok(TrainTest::new(all.select(&train)?, all.select(&test)?))
}

fn inconsistent(what: String) -> DataError {
    DataError::Inconsistent {
        name: NAME.into(),
        what: format!("{what}; the crate smartcore contains another data set"),
    }
}

/// Values 0 to 16 as bytes: `round(255·v / 16)`.
fn bytes(values: &[f32]) -> Result<Vec<u8>, DataError> {
    let byte = |(i, &v): (usize, &f32)| match whole(v, 16) {
        Some(v) => Ok(((v * 255 + 8) / 16) as u8),
        None => Err(inconsistent(format!("value {i} is {v}, expected a whole number of 0 to 16"))),
    };
    values.iter().enumerate().map(byte).collect()
}

fn classes(targets: &[f32]) -> Result<Vec<u32>, DataError> {
    let class = |(i, &v): (usize, &f32)| {
        whole(v, 9).ok_or_else(|| inconsistent(format!("image {i} has label {v}, expected a whole number of 0 to 9")))
    };
    targets.iter().enumerate().map(class).collect()
}

/// `value` as an integer if it is one of `0..=max`; `None` for all others, NaN and infinities included.
fn whole(value: f32, max: u32) -> Option<u32> {
    (0..=max).find(|&n| n as f32 == value)
}

/// Indices of the train and of the test part, both in file order.
fn split(labels: &[u32]) -> (Vec<usize>, Vec<usize>) {
    let mut seen = [0; CLASS_COUNTS.len()];
    (0..labels.len()).partition(|&i| {
        let class = labels[i] as usize;
        seen[class] += 1;
        seen[class] <= CLASS_COUNTS[class] - CLASS_COUNTS[class] / 5
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn parts_have_the_stated_sizes() {
        let TrainTest { train, test, .. } = digits().unwrap();
        assert_eq!((train.len(), test.len()), (1442, 355));
        assert_eq!(train.shape(), ImageShape::new(1, 8, 8));
        assert_eq!(test.class_counts(), [35, 36, 35, 36, 36, 36, 36, 35, 34, 36]);
        assert_eq!(train.class_counts(), [143, 146, 142, 147, 145, 146, 145, 144, 140, 144]);
        assert_eq!(train.class_names()[7], "7");
        assert_eq!(train.class_names(), test.class_names());
    }

    #[test]
    fn parts_share_no_image() {
        let TrainTest { train, test, .. } = digits().unwrap();
        let seen: HashSet<&[u8]> = (0..train.len()).map(|i| train.image(i)).collect();
        assert!((0..test.len()).all(|i| !seen.contains(test.image(i))));
    }

    /// The first line of the published file `optdigits.tes`, a zero, scaled.
    #[test]
    fn the_first_image_is_the_publishers_first() {
        let values = [
            [0, 0, 5, 13, 9, 1, 0, 0],
            [0, 0, 13, 15, 10, 15, 5, 0],
            [0, 3, 15, 2, 0, 11, 8, 0],
            [0, 4, 12, 0, 0, 8, 8, 0],
            [0, 5, 8, 0, 0, 9, 8, 0],
            [0, 4, 11, 0, 1, 12, 7, 0],
            [0, 2, 14, 5, 10, 12, 0, 0],
            [0, 0, 6, 13, 10, 0, 0, 0],
        ];
        let train = digits().unwrap().train;
        let expected: Vec<u8> = values.iter().flatten().map(|&v| (f64::from(v) * 255.0 / 16.0).round() as u8).collect();
        assert_eq!(train.labels()[0], 0);
        assert_eq!(train.image(0), expected);
    }

    #[test]
    fn every_value_becomes_its_rounded_byte() {
        let values: Vec<f32> = (0..=16u8).map(f32::from).collect();
        let expected: Vec<u8> = (0..=16).map(|v| (f64::from(v) * 255.0 / 16.0).round() as u8).collect();
        assert_eq!(bytes(&values).unwrap(), expected);
        assert_eq!((expected[0], expected[8], expected[16]), (0, 128, 255));
    }

    #[test]
    fn values_out_of_range_are_named() {
        for bad in [16.5, -1.0, 17.0, f32::NAN, f32::INFINITY] {
            let message = bytes(&[0.0, bad]).unwrap_err().to_string();
            assert!(message.contains("value 1 is") && message.contains("0 to 16"), "{message}");
        }
        let message = classes(&[3.0, 10.0]).unwrap_err().to_string();
        assert!(message.contains("image 1 has label 10"), "{message}");
    }
}
