//! The input normalisation of a foreign network: from the buffers of its file, or from the caller.
//!
//! A wrong normalisation costs accuracy without any message, so it is never guessed.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use crate::model::network::{Network, Op};

/// Modules that hold the buffers, with their dot; none if they lie beside the network's own modules.
const MODULES: [&str; 10] = [
    "",
    "0.",
    "normalize.",
    "normalizer.",
    "normalise.",
    "normaliser.",
    "norm.",
    "normalization.",
    "normalisation.",
    "norm_layer.",
];
/// Names of mean and standard deviation.
const PAIRS: [[&str; 2]; 2] = [["mean", "std"], ["mu", "sigma"]];

/// Differences that rounding to four digits and the choice of the estimator explain; those between two published
/// normalisations of a data set are ten times as large.
const TOLERANCE: f32 = 2e-3;

/// Buffers by name.
pub(super) type Buffers<T> = BTreeMap<String, T>;
/// Shape and values of an array.
pub(super) type Shaped = (Vec<usize>, Vec<f32>);
/// Mean and standard deviation of each channel.
type Statistics = (Vec<f32>, Vec<f32>);

/// Whether an array is a buffer of a normalisation layer.
pub(super) fn is_buffer(name: &str) -> bool {
    split(name).is_some()
}

/// Module, row of [`PAIRS`], and 0 for the mean or 1 for the standard deviation.
fn split(name: &str) -> Option<(&str, usize, usize)> {
    let start = name.rfind('.').map_or(0, |dot| dot + 1);
    let (module, field) = name.split_at(start);
    let find = |(row, pair): (usize, &[&str; 2])| pair.iter().position(|known| *known == field).map(|part| (row, part));
    let (row, part) = PAIRS.iter().enumerate().find_map(find)?;
    MODULES.contains(&module).then_some((module, row, part))
}

/// How images are normalised before the network: `(x - mean) / std` for each channel, with `x` in `[0, 1]`.
///
/// Written as `cifar10`, `cifar100`, `imagenet`, `mnist`, `none`, or as `MEAN/STD` with one number per channel, such as
/// `0.49,0.48,0.45/0.25,0.24,0.26`.
#[derive(Debug, Clone, PartialEq)]
pub enum Normalisation {
    /// Not at all.
    None,
    /// By these values.
    Values {
        /// Mean of each channel.
        mean: Vec<f32>,
        /// Standard deviation of each channel.
        std: Vec<f32>,
    },
}

impl Normalisation {
    /// That of a network's first layer.
    pub fn of(network: &Network) -> Self {
        match network.layers.first().map(|layer| &layer.op) {
            Some(Op::Normalize { mean, std }) => Self::Values { mean: mean.clone(), std: std.clone() },
            _ => Self::None,
        }
    }

    /// Checks the values of each channel.
    fn new(mean: Vec<f32>, std: Vec<f32>) -> Result<Self, String> {
        if mean.is_empty() || mean.len() != std.len() {
            return Err(format!(
                "expected as many means as standard deviations, found {} and {}",
                mean.len(),
                std.len()
            ));
        }
        if !mean.iter().all(|value| (-1.0..=1.5).contains(value)) {
            return Err(format!("expected means of images in [0, 1], found {mean:?}; divide them by 255"));
        }
        if !std.iter().all(|value| *value > 1e-6 && *value <= 10.0) {
            return Err(format!("expected positive standard deviations of images in [0, 1], found {std:?}"));
        }
        Ok(Self::Values { mean, std })
    }

    /// Mean and standard deviation for a network with `channels`: one value stands for all of them.
    fn for_channels(&self, channels: usize) -> Result<Option<Statistics>, String> {
        let Self::Values { mean, std } = self else { return Ok(None) };
        match mean.len() {
            found if found == channels => Ok(Some((mean.clone(), std.clone()))),
            1 => Ok(Some((vec![mean[0]; channels], vec![std[0]; channels]))),
            found => Err(format!("its normalisation has {found} channels, the images have {channels}")),
        }
    }
}

impl FromStr for Normalisation {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (mean, std) = match text {
            "none" => return Ok(Self::None),
            "cifar10" => (vec![0.4914, 0.4822, 0.4465], vec![0.2471, 0.2435, 0.2616]),
            "cifar100" => (vec![0.5071, 0.4867, 0.4408], vec![0.2675, 0.2565, 0.2761]),
            "imagenet" => (vec![0.485, 0.456, 0.406], vec![0.229, 0.224, 0.225]),
            "mnist" => (vec![0.1307], vec![0.3081]),
            values => {
                let numbers =
                    |list: &str| list.split(',').map(|number| number.trim().parse().ok()).collect::<Option<Vec<f32>>>();
                let parts = values.split_once('/').and_then(|(mean, std)| Some((numbers(mean)?, numbers(std)?)));
                parts.ok_or_else(|| {
                    format!(
                        "expected cifar10, cifar100, imagenet, mnist, none, or MEAN/STD such as \
                         0.49,0.48,0.45/0.25,0.24,0.26, found '{text}'"
                    )
                })?
            }
        };
        Self::new(mean, std)
    }
}

impl fmt::Display for Normalisation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |values: &[f32]| values.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        match self {
            Self::None => f.write_str("none"),
            Self::Values { mean, std } => write!(f, "{}/{}", list(mean), list(std)),
        }
    }
}

/// The normalisation that the buffers of a file describe, with their names. `None` if there are none.
///
/// # Errors
/// Returns the buffers that do not fit together.
pub(super) fn of_buffers(buffers: &Buffers<Shaped>) -> Result<Option<(Normalisation, String)>, String> {
    let mut found: Option<(Normalisation, String)> = None;
    for name in buffers.keys() {
        let Some((module, row, part)) = split(name) else { continue };
        let [mean, std] = PAIRS[row].map(|field| format!("{module}{field}"));
        let (Some(means), Some(stds)) = (buffers.get(&mean), buffers.get(&std)) else {
            let other = if part == 0 { std } else { mean };
            return Err(format!("has '{name}' without '{other}', so its normalisation is incomplete"));
        };
        let names = format!("'{mean}' and '{std}'");
        let channels = |(shape, values): &Shaped| match shape[..] {
            [_] | [_, 1, 1] | [1, _, 1, 1] | [] => Ok(values.clone()),
            _ => Err(format!("{names} have the shape {shape:?}, expected one value per channel")),
        };
        let here = Normalisation::new(channels(means)?, channels(stds)?).map_err(|what| format!("{names}: {what}"))?;
        match &found {
            Some((other, others)) if *other != here => {
                return Err(format!("normalises twice, by {others} ({other}) and by {names} ({here})"));
            }
            Some(_) => {}
            None => found = Some((here, names)),
        }
    }
    Ok(found)
}

/// Mean and standard deviation for the network, from the file or the caller; `None` if images are not normalised.
///
/// # Errors
/// If neither says how, or if they disagree, or if they are for another number of channels.
pub(super) fn resolve(
    stored: Option<&(Normalisation, String)>,
    given: Option<&Normalisation>,
    channels: usize,
) -> Result<Option<Statistics>, String> {
    match (stored, given) {
        (None, None) => Err("does not record how images are normalised; name it with --normalize: cifar10, cifar100, \
                             imagenet, mnist, none, or MEAN/STD such as 0.49,0.48,0.45/0.25,0.24,0.26"
            .into()),
        (None, Some(given)) => given.for_channels(channels),
        (Some((stored, _)), None) => stored.for_channels(channels),
        (Some((stored, names)), Some(given)) => {
            let (theirs, ours) = (stored.for_channels(channels)?, given.for_channels(channels)?);
            if !agree(theirs.as_ref(), ours.as_ref()) {
                return Err(format!(
                    "normalises images by {names} ({stored}), but {given} was named; leave out the normalisation to use \
                     that of the file"
                ));
            }
            Ok(theirs)
        }
    }
}

fn agree(a: Option<&Statistics>, b: Option<&Statistics>) -> bool {
    let near = |a: &[f32], b: &[f32]| a.iter().zip(b).all(|(a, b)| (a - b).abs() <= TOLERANCE);
    match (a, b) {
        (Some((mean, std)), Some((other_mean, other_std))) => near(mean, other_mean) && near(std, other_std),
        (None, None) => true,
        // A mean of 0 and a deviation of 1 is no normalisation.
        (Some((mean, std)), None) | (None, Some((mean, std))) => {
            mean.iter().all(|mean| *mean == 0.0) && std.iter().all(|std| *std == 1.0)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Name, shape and values.
    type Entry<'a> = (&'a str, &'a [usize], &'a [f32]);

    fn buffers(entries: &[Entry<'_>]) -> Buffers<Shaped> {
        entries.iter().map(|(name, shape, values)| ((*name).into(), (shape.to_vec(), values.to_vec()))).collect()
    }

    #[test]
    fn texts() {
        let cifar: Normalisation = "cifar10".parse().unwrap();
        assert_eq!(cifar.to_string(), "0.4914,0.4822,0.4465/0.2471,0.2435,0.2616");
        assert_eq!(cifar.to_string().parse(), Ok(cifar));
        assert_eq!("none".parse(), Ok(Normalisation::None));
        assert_eq!("0.5/0.25".parse(), Ok(Normalisation::Values { mean: vec![0.5], std: vec![0.25] }));
        for (text, expected) in [
            ("cifar", "expected cifar10, cifar100"),
            ("0.5", "MEAN/STD"),
            ("0.5,x/1,1", "MEAN/STD"),
            ("0.5,0.5/1", "found 2 and 1"),
            ("125/63", "divide them by 255"),
            ("0.5/0", "positive standard deviations"),
            ("NaN/1", "means"),
        ] {
            let error = text.parse::<Normalisation>().unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn buffers_in_every_shape() {
        let three = (&[0.5, 0.25, 0.125][..], &[0.25, 0.5, 1.0][..]);
        for shape in [&[3][..], &[3, 1, 1], &[1, 3, 1, 1]] {
            for [mean, std] in [["mu", "sigma"], ["0.mean", "0.std"], ["normalizer.mean", "normalizer.std"]] {
                let found = of_buffers(&buffers(&[(mean, shape, three.0), (std, shape, three.1)])).unwrap().unwrap();
                assert_eq!(found.0.to_string(), "0.5,0.25,0.125/0.25,0.5,1");
                assert_eq!(resolve(Some(&found), None, 3).unwrap().unwrap().0, three.0);
                assert!(resolve(Some(&found), None, 1).unwrap_err().contains("3 channels, the images have 1"));
            }
        }
        assert_eq!(of_buffers(&Buffers::new()), Ok(None));
    }

    #[test]
    fn buffers_that_do_not_fit_are_refused() {
        let cases: [(&[Entry<'_>], &str); 4] = [
            (&[("0.mean", &[1], &[0.5])], "'0.mean' without '0.std'"),
            (&[("mean", &[2, 2], &[0.5; 4]), ("std", &[2, 2], &[0.5; 4])], "shape [2, 2]"),
            (&[("mean", &[1], &[f32::NAN]), ("std", &[1], &[0.5])], "'mean' and 'std': expected means"),
            (
                &[("mean", &[1], &[0.5]), ("std", &[1], &[0.5]), ("mu", &[1], &[0.25]), ("sigma", &[1], &[0.5])],
                "normalises twice",
            ),
        ];
        for (entries, expected) in cases {
            let error = of_buffers(&buffers(entries)).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn the_caller_and_the_file_must_agree() {
        let stored =
            (Normalisation::Values { mean: vec![0.4914; 3], std: vec![0.247; 3] }, "'mu' and 'sigma'".to_owned());
        let near: Normalisation = "0.491/0.2471".parse().unwrap();
        assert_eq!(resolve(Some(&stored), Some(&near), 3).unwrap().unwrap().0, [0.4914; 3]);
        for far in ["none", "0.5/0.247", "0.4914/0.2"] {
            let error = resolve(Some(&stored), Some(&far.parse().unwrap()), 3).unwrap_err();
            assert!(error.contains("'mu' and 'sigma'") && error.contains("0.4914"), "{error}");
        }
        assert!(resolve(None, None, 3).unwrap_err().contains("--normalize"));
        assert_eq!(resolve(None, Some(&Normalisation::None), 3), Ok(None));
        let identity = (Normalisation::Values { mean: vec![0.0], std: vec![1.0] }, String::new());
        assert!(resolve(Some(&identity), Some(&Normalisation::None), 3).is_ok());
    }
}
