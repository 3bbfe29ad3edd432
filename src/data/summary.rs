//! Counts and channel statistics of a data set.

use rayon::prelude::*;

use super::{Dataset, ImageShape, TrainTest};

/// Mean and standard deviation (population, over all pixels) of each channel, in `[0, 1]` units.
///
/// Computed from integer histograms, so the result does not depend on the number of threads.
pub fn channel_statistics(set: &Dataset) -> (Vec<f32>, Vec<f32>) {
    let shape = set.shape();
    let plane = shape.height * shape.width;
    let empty = || vec![[0u64; 256]; shape.channels];
    let histograms = set
        .images()
        .par_chunks_exact(shape.len())
        .fold(empty, |mut histograms, image| {
            for (histogram, values) in histograms.iter_mut().zip(image.chunks_exact(plane)) {
                for value in values {
                    histogram[usize::from(*value)] += 1;
                }
            }
            histograms
        })
        .reduce(empty, |mut sum, part| {
            sum.iter_mut().flatten().zip(part.iter().flatten()).for_each(|(s, p)| *s += p);
            sum
        });
    let count = (set.len() * plane) as f64;
    let moments = histograms.iter().map(|histogram| {
        let sum =
            |f: &dyn Fn(f64) -> f64| (0u32..).zip(histogram).map(|(v, n)| f(f64::from(v)) * *n as f64).sum::<f64>();
        let mean = sum(&|v| v) / count;
        let variance = sum(&|v| (v - mean).powi(2)) / count;
        ((mean / 255.0) as f32, (variance.sqrt() / 255.0) as f32)
    });
    moments.unzip()
}

/// Counts and channel statistics, as text (`Display`) and machine-readable (`Serialize`).
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Summary {
    /// Name of the set.
    pub name: String,
    /// Shape of every image.
    pub shape: ImageShape,
    /// Class names, in the order of the labels.
    pub class_names: Vec<String>,
    /// Training images of each class.
    pub train_counts: Vec<usize>,
    /// Test images of each class.
    pub test_counts: Vec<usize>,
    /// Mean of each channel of the training images, in `[0, 1]`.
    pub mean: Vec<f32>,
    /// Standard deviation of each channel of the training images, in `[0, 1]` units.
    pub std: Vec<f32>,
}

/// Counts and channel statistics of a data set.
pub fn describe(data: &TrainTest) -> Summary {
    let (mean, std) = channel_statistics(&data.train);
    Summary {
        name: data.train.name().into(),
        shape: data.train.shape(),
        class_names: data.train.class_names().to_vec(),
        train_counts: data.train.class_counts(),
        test_counts: data.test.class_counts(),
        mean,
        std,
    }
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let list = |values: &[f32]| values.iter().map(|v| format!("{v:.4}")).collect::<Vec<_>>().join(", ");
        let (train, test): (usize, usize) = (self.train_counts.iter().sum(), self.test_counts.iter().sum());
        writeln!(
            f,
            "{}: {} classes, images of {} (channels×height×width)",
            self.name,
            self.class_names.len(),
            self.shape
        )?;
        writeln!(f, "mean {}; standard deviation {}", list(&self.mean), list(&self.std))?;
        let width = self.class_names.iter().map(|n| n.chars().count()).max().unwrap_or(0).max(5);
        writeln!(f, "{:>5}  {:width$}  {:>8}  {:>8}", "class", "name", "training", "test")?;
        for (k, name) in self.class_names.iter().enumerate() {
            writeln!(f, "{k:>5}  {name:width$}  {:>8}  {:>8}", self.train_counts[k], self.test_counts[k])?;
        }
        write!(f, "{:>5}  {:width$}  {train:>8}  {test:>8}", "", "total")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set() -> Dataset {
        let names = vec!["cat".to_owned(), "dog".to_owned()];
        // First channel 0, 255, 0, 255; second 51 everywhere; third 0 to 153 in steps of 51.
        let images = vec![0, 255, 51, 51, 0, 51, 0, 255, 51, 51, 102, 153];
        Dataset::new("set", names, ImageShape::new(3, 1, 2), images, vec![0, 1]).unwrap()
    }

    #[test]
    fn statistics_of_each_channel_are_exact() {
        let (mean, std) = channel_statistics(&set());
        assert_eq!(mean, [0.5, 0.2, 0.3]);
        // Third channel: 0, 0.2, 0.4, 0.6, variance 0.05.
        assert_eq!(std, [0.5, 0.0, 0.05f64.sqrt() as f32]);
    }

    #[test]
    fn summary_has_counts_and_totals() {
        let test = set().select(&[1, 0, 1]).unwrap();
        let summary = describe(&TrainTest::new(set(), test));
        assert_eq!((&summary.train_counts, &summary.test_counts), (&vec![1, 1], &vec![1, 2]));
        let text = summary.to_string();
        assert!(text.contains("2 classes, images of 3×1×2") && text.contains("mean 0.5000, 0.2000, 0.3000"), "{text}");
        assert!(text.ends_with("total         2         3"), "{text}");
    }
}
