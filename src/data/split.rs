//! The validation split: held-out training images of every class.
//!
//! Of the `n_k` training images of class `k`, `max(1, ⌊n_k · fraction⌋)` or a given number are validation images. They
//! are the first ones of the class in the order of the set (with 2 %, the split of the authors of FAIR-TAT on
//! CIFAR-10), or random ones.

use super::{DataError, Dataset};
use crate::rng::{Purpose, Stream};

/// Number of validation images of each class.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ValidationSize {
    /// This fraction of the images of each class, rounded down, and at least one image.
    Fraction(f64),
    /// This number of images of each class.
    PerClass(usize),
}

impl Default for ValidationSize {
    /// 2 % of each class.
    fn default() -> Self {
        Self::Fraction(0.02)
    }
}

/// Which images of a class are validation images.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ValidationChoice {
    /// The first ones in the order of the set.
    #[default]
    First,
    /// Random ones: a function of this seed, the class and the number of its images.
    Random(u64),
}

/// Splits a training set into the indices of training and of validation images, both ascending.
///
/// # Errors
/// Returns [`DataError::Inconsistent`] if a class has no image or would have no training image left, if a fraction is
/// outside `(0, 1)`, or if the number per class is zero.
pub fn split(
    set: &Dataset,
    size: ValidationSize,
    choice: ValidationChoice,
) -> Result<(Vec<usize>, Vec<usize>), DataError> {
    let fail = |what: String| Err(DataError::Inconsistent { name: set.name().into(), what });
    match size {
        ValidationSize::Fraction(f) if !(f > 0.0 && f < 1.0) => {
            return fail(format!("a validation fraction of {f} was requested, expected more than 0 and less than 1"));
        }
        ValidationSize::PerClass(0) => {
            return fail("0 validation images per class were requested, expected at least 1".into());
        }
        _ => {}
    }
    let mut by_class: Vec<Vec<usize>> = vec![Vec::new(); set.classes()];
    for (i, &label) in set.labels().iter().enumerate() {
        by_class[label as usize].push(i);
    }
    let (mut train, mut validation) = (Vec::with_capacity(set.len()), Vec::new());
    for (class, mut indices) in by_class.into_iter().enumerate() {
        let name = &set.class_names()[class];
        let wanted = match size {
            ValidationSize::PerClass(n) => n,
            // A product that is mathematically whole, such as 100 × 0.29, may be a rounding error below it.
            ValidationSize::Fraction(f) => ((indices.len() as f64 * f + 1e-9).floor() as usize).max(1),
        };
        if indices.is_empty() {
            return fail(format!("class '{name}' has no image"));
        }
        if wanted >= indices.len() {
            let (images, takes) = match indices.len() {
                1 => ("1 image".to_owned(), "which validation takes"),
                n if wanted == n => (format!("{n} images"), "which validation takes"),
                n => (format!("{n} images"), "fewer than validation takes"),
            };
            return fail(format!(
                "class '{name}' has {images}, {takes}; raise --limit or lower --validation-per-class"
            ));
        }
        if let ValidationChoice::Random(seed) = choice {
            Stream::new(seed, Purpose::Split, 0, class as u32).sequence().shuffle(&mut indices);
        }
        validation.extend_from_slice(&indices[..wanted]);
        train.extend_from_slice(&indices[wanted..]);
    }
    train.sort_unstable();
    validation.sort_unstable();
    Ok((train, validation))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::ImageShape;
    use super::*;

    fn set(classes: usize, labels: Vec<u32>) -> Dataset {
        let names = (0..classes).map(|k| format!("class{k}")).collect();
        let images = vec![0; labels.len()];
        Dataset::new("set", names, ImageShape::new(1, 1, 1), images, labels).unwrap()
    }

    #[test]
    fn default_takes_the_first_two_percent_of_each_class() {
        let labels: Vec<u32> = (0..1000).map(|i| i % 2).collect();
        let (train, validation) = split(&set(2, labels), ValidationSize::default(), ValidationChoice::First).unwrap();
        assert_eq!(validation, (0..20).collect::<Vec<_>>());
        assert_eq!(train, (20..1000).collect::<Vec<_>>());
    }

    #[test]
    fn sizes_round_down_to_at_least_one() {
        let sizes = |n: usize, size| {
            let labels = (0..2 * n as u32).map(|i| i / n as u32).collect();
            split(&set(2, labels), size, ValidationChoice::First).unwrap().1.len() / 2
        };
        assert_eq!(sizes(49, ValidationSize::default()), 1);
        assert_eq!(sizes(149, ValidationSize::default()), 2);
        assert_eq!(sizes(5000, ValidationSize::default()), 100);
        assert_eq!(sizes(100, ValidationSize::Fraction(0.29)), 29);
        assert_eq!(sizes(5000, ValidationSize::PerClass(300)), 300);
    }

    #[test]
    fn impossible_splits_name_the_class() {
        let message = |labels, size| split(&set(3, labels), size, ValidationChoice::First).unwrap_err().to_string();
        let text = message(vec![0, 0, 2, 2], ValidationSize::default());
        assert!(text.contains("class 'class1' has no image"), "{text}");
        let text = message(vec![0, 0, 1, 2, 2], ValidationSize::default());
        assert!(
            text.contains("class 'class1' has 1 image, which validation takes; raise --limit or lower --val"),
            "{text}"
        );
        let text = message(vec![0, 0, 0, 1, 1, 2, 2], ValidationSize::PerClass(2));
        assert!(text.contains("class 'class1' has 2 images, which validation takes; "), "{text}");
        let text = message(vec![0, 0, 0, 0, 1, 1, 2, 2], ValidationSize::PerClass(3));
        assert!(text.contains("class 'class1' has 2 images, fewer than validation takes; "), "{text}");
        for size in
            [0.0, 1.0, -0.1, f64::NAN].map(ValidationSize::Fraction).into_iter().chain([ValidationSize::PerClass(0)])
        {
            assert!(message(vec![0, 0, 1, 1, 2, 2], size).contains("requested"));
        }
    }

    #[test]
    fn random_choice_depends_only_on_the_seed() {
        let labels: Vec<u32> = (0..2000).map(|i| i % 4).collect();
        let set = set(4, labels);
        let run = |seed| split(&set, ValidationSize::Fraction(0.1), ValidationChoice::Random(seed)).unwrap();
        assert_eq!(run(1), run(1));
        assert_ne!(run(1), run(2));
        assert_ne!(run(1).1, split(&set, ValidationSize::Fraction(0.1), ValidationChoice::First).unwrap().1);
        // 200 draws from 0..2000 without replacement: mean 999.5, standard error below 41.
        let mean = run(1).1.iter().sum::<usize>() as f64 / 200.0;
        assert!((mean - 999.5).abs() < 5.0 * 41.0, "{mean}");
    }

    proptest! {
        #[test]
        fn parts_are_disjoint_complete_and_ascending(
            labels in prop::collection::vec(0u32..3, 1..200),
            fraction in 0.001..0.999f64,
            seed: u64,
        ) {
            let set = set(3, labels);
            let size = ValidationSize::Fraction(fraction);
            for choice in [ValidationChoice::First, ValidationChoice::Random(seed)] {
                if let Ok((train, validation)) = split(&set, size, choice) {
                    prop_assert!(train.is_sorted() && validation.is_sorted());
                    let mut all = [train.clone(), validation.clone()].concat();
                    all.sort_unstable();
                    prop_assert_eq!(all, (0..set.len()).collect::<Vec<_>>());
                    prop_assert!(set.select(&train).unwrap().class_counts().iter().all(|n| *n > 0));
                    prop_assert!(set.select(&validation).unwrap().class_counts().iter().all(|n| *n > 0));
                }
            }
        }
    }
}
