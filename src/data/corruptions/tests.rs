//! Properties of single corruptions by closed forms and hand values, and of all of them on all sizes.

use clap::ValueEnum as _;

use super::filters::{Border, Tap, disk, gaussian as gaussian_filter, gaussian_weights, motion_taps, zoom};
use super::picture::Plane;
use super::*;
use crate::rng::{Purpose, Stream};

const RGB: ImageShape = ImageShape::new(3, 32, 32);

fn severity(value: u8) -> Severity {
    Severity::try_from(value).unwrap()
}

fn draws(corruption: Corruption) -> Draws {
    Draws { seed: 5, corruption, severity: severity(3), id: 1 }
}

/// Smooth colours with an edge and some texture.
fn image(shape: ImageShape, id: u32) -> Vec<u8> {
    let random = Stream::new(1, Purpose::Test, 0, id);
    (0..shape.len())
        .map(|i| {
            let (c, y, x) = (i / (shape.height * shape.width), i / shape.width % shape.height, i % shape.width);
            let (y, x) = (y as f32 / shape.height as f32, x as f32 / shape.width as f32);
            let figure = if (y - 0.5).hypot(x - 0.4) < 0.3 { 70.0 } else { 0.0 };
            (60.0 + 50.0 * y + 20.0 * c as f32 * x + figure + 12.0 * random.symmetric(i as u32)) as u8
        })
        .collect()
}

fn moments(values: &[u8]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().map(|v| f64::from(*v)).sum::<f64>() / n;
    (mean, values.iter().map(|v| (f64::from(*v) - mean).powi(2)).sum::<f64>() / n)
}

#[test]
fn names_are_those_of_the_files() {
    assert_eq!(Corruption::ALL.len(), Corruption::value_variants().len());
    for (i, corruption) in Corruption::ALL.into_iter().enumerate() {
        assert_eq!(corruption as usize, i);
        assert_eq!(Corruption::from_str(corruption.name(), false), Ok(corruption));
        assert_eq!(serde_json::to_string(&corruption).unwrap(), format!("\"{corruption}\""));
        assert_eq!(corruption.file(), format!("{}.npy", corruption.name()));
        assert_eq!(corruption.title().to_lowercase().replace(' ', "_"), corruption.name());
        assert_eq!(Corruption::STANDARD.contains(&corruption), i < 15);
        assert_eq!(Corruption::AUTHORS.contains(&corruption), corruption != Corruption::GlassBlur);
    }
    for text in ["0", "6", "-1", "x", ""] {
        assert!(text.parse::<Severity>().unwrap_err().contains("expected 1 to 5"));
    }
    assert_eq!("5".parse::<Severity>(), Ok(Severity::ALL[4]));
    assert!(serde_json::from_str::<Severity>("6").is_err());
}

#[test]
fn every_corruption_takes_every_size() {
    for shape in [
        ImageShape::new(1, 1, 1),
        ImageShape::new(3, 1, 1),
        ImageShape::new(3, 1, 40),
        ImageShape::new(3, 2, 3),
        ImageShape::new(1, 3, 2),
        ImageShape::new(3, 5, 4),
        ImageShape::new(1, 8, 8),
        ImageShape::new(3, 17, 33),
        RGB,
        ImageShape::new(3, 70, 65),
    ] {
        for fill in [None, Some(0), Some(255)] {
            let image = fill.map_or_else(|| image(shape, 0), |value| vec![value; shape.len()]);
            for corruption in Corruption::ALL {
                for severity in Severity::ALL {
                    let out = corrupt(corruption, severity, &image, shape, 0, 0);
                    assert_eq!(out.len(), shape.len(), "{corruption} {severity} {shape}");
                }
            }
        }
    }
    assert!(corrupt(Corruption::Fog, severity(1), &[], ImageShape::new(3, 0, 5), 0, 0).is_empty());
}

#[test]
fn an_image_depends_on_seed_and_number_only() {
    let images: Vec<u8> = (0..6).flat_map(|id| image(RGB, id)).collect();
    let names = vec!["a".to_owned(), "b".to_owned()];
    let set = Dataset::new("test", names, RGB, images, vec![0, 1, 0, 1, 0, 1]).unwrap();
    let threads = |n: usize| rayon::ThreadPoolBuilder::new().num_threads(n).build().unwrap();
    for corruption in Corruption::ALL {
        let make = |set: &Dataset, seed| corrupt_set(set, corruption, severity(3), seed).unwrap();
        let one = threads(1).install(|| make(&set, 7));
        assert_eq!(one, threads(3).install(|| make(&set, 7)));
        assert_eq!(one.labels(), set.labels());
        assert_eq!(one.name(), format!("test-{corruption}-3"));
        let few = make(&set.select(&[0, 1]).unwrap(), 7);
        assert_eq!(few.images(), &one.images()[..2 * RGB.len()]);
        assert_eq!(one.image(4), corrupt(corruption, severity(3), set.image(4), RGB, 7, 4));
        let random = !matches!(
            corruption,
            Corruption::DefocusBlur
                | Corruption::ZoomBlur
                | Corruption::GaussianBlur
                | Corruption::Brightness
                | Corruption::Contrast
                | Corruption::Saturate
                | Corruption::Pixelate
                | Corruption::JpegCompression
        );
        assert_eq!(make(&set, 8) != one, random, "{corruption}");
    }
}

#[test]
fn other_numbers_of_channels_are_rejected() {
    let set =
        Dataset::new("x", vec!["a".into(), "b".into()], ImageShape::new(2, 1, 1), vec![0; 4], vec![0, 1]).unwrap();
    let message = corrupt_set(&set, Corruption::Fog, severity(1), 0).unwrap_err().to_string();
    assert!(message.contains("2 channels, expected 1 (grey) or 3"), "{message}");
}

/// Mean squared difference to the clean image, over several images.
fn damage(corruption: Corruption, severity: Severity) -> f64 {
    let one = |id| {
        let clean = image(RGB, id);
        let out = corrupt(corruption, severity, &clean, RGB, 3, id);
        clean.iter().zip(&out).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum::<f64>()
    };
    (0..40).map(one).sum::<f64>() / (40 * RGB.len()) as f64
}

/// Not so: glass_blur (at severity 4 a weaker filter), motion_blur (from 3 to 4 only the radius grows, beyond three
/// standard deviations), elastic_transform (the affine map gets weaker), saturate (1 and 2 remove, 3 to 5 add), spatter
/// (water, then mud), snow (not every image has a flake), frost (bright and dark ice by chance, and the image itself gets
/// darker), and pixelate (27 blocks can meet an image's edges better than 28).
#[test]
fn damage_grows_with_severity() {
    let exempt = [
        Corruption::GlassBlur,
        Corruption::MotionBlur,
        Corruption::ElasticTransform,
        Corruption::Saturate,
        Corruption::Spatter,
        Corruption::Snow,
        Corruption::Frost,
        Corruption::Pixelate,
    ];
    let mut wrong = Vec::new();
    for corruption in Corruption::ALL {
        let found = Severity::ALL.map(|severity| damage(corruption, severity));
        let grows = found.windows(2).all(|pair| pair[0] < pair[1]);
        if found[4] < 1.0 || !grows && !exempt.contains(&corruption) {
            wrong.push((corruption, found));
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}

/// On grey far from black and white, truncation takes ½ on average and adds the variance of a uniform remainder, 1/12.
#[test]
fn noise_has_its_closed_form_moments() {
    let shape = ImageShape::new(1, 256, 256);
    let (n, level) = ((256 * 256) as f64, 120.0);
    for (i, severity) in Severity::ALL.into_iter().enumerate() {
        for (corruption, deviation) in [
            (Corruption::GaussianNoise, 255.0 * [0.04, 0.06, 0.08, 0.09, 0.1][i]),
            (Corruption::SpeckleNoise, level * [0.06, 0.1, 0.12, 0.16, 0.2][i]),
            (Corruption::ShotNoise, (level * 255.0 / noise::PHOTONS[i]).sqrt()),
        ] {
            let out = corrupt(corruption, severity, &vec![level as u8; shape.len()], shape, 1, 0);
            let (mean, variance) = moments(&out);
            // Steps of a Poisson variable are coarse, so its remainder is not quite uniform.
            let coarse = if corruption == Corruption::ShotNoise { 0.2 } else { 0.0 };
            let expected = deviation * deviation + 1.0 / 12.0;
            assert!(
                (mean - level + 0.5).abs() < 5.0 * deviation / n.sqrt() + coarse,
                "{corruption} {severity}: {mean}"
            );
            // Kurtosis of a Poisson variable exceeds 3 by the inverse of its mean, which is over 20 here.
            assert!(
                (variance / expected - 1.0).abs() < 5.0 * (2.1 / n).sqrt() + coarse / expected,
                "{corruption} {severity}: {variance}, expected {expected}"
            );
        }
    }
}

#[test]
fn poisson_quantiles_invert_the_distribution() {
    for mean in [0.0, 0.2, 1.0, 7.5, 50.0, 500.0] {
        let table = noise::Poisson::new(mean);
        let (mut total, mut square) = (0.0, 0.0);
        for i in 0..20_000 {
            let k = table.quantile((f64::from(i) + 0.5) / 20_000.0);
            total += k;
            square += k * k;
        }
        let found = total / 20_000.0;
        assert!((found - mean).abs() < 0.01 * (1.0 + mean.sqrt()), "{mean}: {found}");
        let variance = square / 20_000.0 - found * found;
        assert!((variance - mean).abs() < 0.01 * (1.0 + mean), "{mean}: {variance}");
    }
    // exp(−2), and two more terms of it.
    let table = noise::Poisson::new(2.0);
    assert_eq!([0.1353, 0.1354, 0.4060, 0.4061].map(|u| table.quantile(u)), [0.0, 1.0, 1.0, 2.0]);
}

#[test]
fn impulses_have_their_share() {
    let shape = ImageShape::new(3, 128, 128);
    for (share, severity) in noise::IMPULSES.into_iter().zip(Severity::ALL) {
        let out = corrupt(Corruption::ImpulseNoise, severity, &vec![100; shape.len()], shape, 2, 0);
        let n = shape.len() as f64;
        for value in [0, 255] {
            let found = out.iter().filter(|v| **v == value).count() as f64 / n;
            let error = (share / 2.0 / n).sqrt();
            assert!((found - share / 2.0).abs() < 5.0 * error, "{severity}: {value} has the share {found}");
        }
        assert!(out.iter().all(|v| matches!(v, 0 | 100 | 255)));
    }
}

#[test]
fn kernels_are_normalised_and_symmetric() {
    let sum = |taps: &[Tap]| taps.iter().map(|t| t.weight).sum::<f64>();
    for scale in [1.0, 2.5, 7.0] {
        for (radius, sigma) in blur::DEFOCUS {
            let taps = disk(radius * scale, sigma * scale, f64::round(scale) as usize);
            // Weights in single precision.
            assert!((sum(&taps) - 1.0).abs() < 1e-6);
            let weight =
                |dy: isize, dx: isize| taps.iter().find(|t| (t.dy, t.dx) == (dy, dx)).map_or(0.0, |t| t.weight);
            for tap in &taps {
                for (dy, dx) in [(-tap.dy, tap.dx), (tap.dx, tap.dy)] {
                    assert!((weight(dy, dx) - tap.weight).abs() < 1e-12);
                }
            }
        }
    }
    // Radius 1 is a cross of five pixels; sigma 0.2 moves 4·10⁻⁶ of each to its neighbours.
    let cross = disk(1.0, 0.2, 1);
    assert!(cross.iter().filter(|t| t.dy.abs() + t.dx.abs() <= 1).all(|t| (t.weight - 0.2).abs() < 1e-4));
    for angle in [-135.0, -45.0, 0.0, 20.0, 45.0] {
        let taps = motion_taps(6.0, 2.0, angle);
        assert_eq!(taps.len(), 13);
        assert!((sum(&taps) - 1.0).abs() < 1e-12);
        assert!(taps.windows(2).all(|pair| pair[0].weight > pair[1].weight));
        let last = taps.last().unwrap();
        assert!((last.dx as f64 - 12.0 * f64::to_radians(angle).cos()).abs() <= 0.5);
        assert!((last.dy as f64 - 12.0 * f64::to_radians(angle).sin()).abs() <= 0.5);
    }
    for sigma in [0.8, 1.0, 3.0] {
        let radius = (4.0 * sigma + 0.5) as usize;
        let weights = gaussian_weights(sigma, radius);
        let moment =
            |p: i32| weights.iter().enumerate().map(|(i, w)| w * (i as f64 - radius as f64).powi(p)).sum::<f64>();
        assert!((moment(0) - 1.0).abs() < 1e-12 && moment(1).abs() < 1e-12);
        assert!((moment(2) / (sigma * sigma) - 1.0).abs() < 0.005, "{sigma}: {}", moment(2));
    }
}

#[test]
fn borders_fold_as_in_the_libraries() {
    let folded = |border: Border, n: usize| (-5..7).map(|i| border.index(i, n)).collect::<Vec<_>>();
    assert_eq!(folded(Border::Nearest, 3), [0, 0, 0, 0, 0, 0, 1, 2, 2, 2, 2, 2]);
    assert_eq!(folded(Border::Reflect, 3), [1, 2, 2, 1, 0, 0, 1, 2, 2, 1, 0, 0]);
    assert_eq!(folded(Border::Reflect101, 3), [1, 0, 1, 2, 1, 0, 1, 2, 1, 0, 1, 2]);
    for border in [Border::Nearest, Border::Reflect, Border::Reflect101] {
        assert_eq!(folded(border, 1), [0; 12]);
    }
}

/// All but the last digit: a value of 100/255 may become 99.99…, which is truncated.
#[test]
fn uniform_images_stay_uniform() {
    for shape in [RGB, ImageShape::new(1, 9, 70)] {
        for level in [0, 1, 100, 255] {
            let image = vec![level; shape.len()];
            for corruption in [
                Corruption::DefocusBlur,
                Corruption::GlassBlur,
                Corruption::MotionBlur,
                Corruption::ZoomBlur,
                Corruption::GaussianBlur,
                Corruption::Contrast,
                Corruption::ElasticTransform,
                Corruption::Pixelate,
            ] {
                for severity in Severity::ALL {
                    let out = corrupt(corruption, severity, &image, shape, 0, 0);
                    let least = level.saturating_sub(if corruption == Corruption::GlassBlur { 2 } else { 1 });
                    assert!(out.iter().all(|v| (least..=level).contains(v)), "{corruption} {severity} {level}");
                }
            }
        }
    }
}

#[test]
fn zoom_enlarges_the_centre() {
    let ramp = Plane::from_fn(32, 32, |_, x| x as f64);
    assert_eq!(zoom(&ramp, 1.0), ramp);
    // ⌈32 / 2⌉ = 16 columns from 8 on become 32: steps of 15/31.
    let twice = zoom(&ramp, 2.0);
    for x in 0..32 {
        assert!((twice.at(3, x) - (8.0 + x as f64 * 15.0 / 31.0)).abs() < 1e-12);
    }
    // 27 columns from 2 on become round(32.4) = 32.
    assert!((zoom(&ramp, 1.2).at(0, 31) - 28.0).abs() < 1e-12);
    let impulse = Plane::from_fn(9, 9, |y, x| f64::from(u8::from((y, x) == (4, 4))));
    let blurred = gaussian_filter(&impulse, 1.0, 4.0, Border::Nearest);
    assert!((blurred.at(4, 5) / blurred.at(4, 4) - (-0.5_f64).exp()).abs() < 1e-12);
}

#[test]
fn colours_by_hand() {
    let shape = ImageShape::new(3, 1, 2);
    // Red (200, 100, 50) and grey 60.
    let image = [200, 60, 100, 60, 50, 60];
    let at = |corruption, value| corrupt(corruption, severity(value), &image, shape, 0, 0);
    // V = 200/255 + 0.1 scales all three by 225.5/200; grey 60 becomes 85.5.
    assert_eq!(at(Corruption::Brightness, 2), [225, 85, 112, 85, 56, 85]);
    // S = 0.75 becomes 0.225 and 1: (200, 155 + 45/3, 155) and (200, 200/3, 0).
    assert_eq!(at(Corruption::Saturate, 1), [200, 60, 170, 60, 155, 60]);
    // 0.75 · 2 + 0.1 is clipped to 1; the grey pixel has hue 0 and gets S = 0.1.
    assert_eq!(at(Corruption::Saturate, 4), [200, 60, 66, 54, 0, 54]);
    // Means 130, 80, 55; factor 0.5.
    let contrast = at(Corruption::Contrast, 2);
    for (found, expected) in contrast.iter().zip([165.0, 95.0, 90.0, 70.0, 52.5, 57.5]) {
        assert!((f64::from(*found) - expected).abs() <= 1.0, "{contrast:?}");
    }
    for colour in [[0.2, 0.5, 0.9], [0.9, 0.1, 0.1], [0.3, 0.8, 0.2], [0.4, 0.4, 0.1], [0.0; 3], [1.0; 3]] {
        let back = colour::hsv_to_rgb(colour::rgb_to_hsv(colour));
        assert!(back.iter().zip(colour).all(|(a, b)| (a - b).abs() < 1e-12), "{colour:?}: {back:?}");
    }
    let grey = ImageShape::new(1, 1, 2);
    assert_eq!(corrupt(Corruption::Saturate, severity(5), &[7, 200], grey, 0, 0), [7, 200]);
}

#[test]
fn fog_is_a_plasma_from_0_to_1() {
    for side in [2, 8, 32, 128] {
        let plasma = fog::plasma(side, 2.0, &draws(Corruption::Fog));
        let low = plasma.values.iter().copied().fold(f64::INFINITY, f64::min);
        assert_eq!((low, plasma.max()), (0.0, 1.0));
    }
    assert_eq!(fog::plasma(1, 2.0, &draws(Corruption::Fog)).values, [0.0]);
    // A faster decay gives a smoother map.
    let roughness = |decay| {
        let plasma = fog::plasma(32, decay, &draws(Corruption::Fog));
        plasma.values.windows(2).map(|pair| (pair[1] - pair[0]).abs()).sum::<f64>()
    };
    assert!(roughness(3.0) < roughness(1.5));
    assert!(corrupt(Corruption::Fog, severity(5), &[0; 3072], RGB, 0, 0).iter().all(|v| *v == 0));
}

/// Each pixel is a copy of one at most `reach` away per pass, and the outermost ones stay.
#[test]
fn glass_copies_near_pixels() {
    let ids = Plane::from_fn(32, 32, |y, x| (y * 32 + x) as f64);
    let mut picture = Picture { planes: vec![ids.clone()] };
    blur::shuffle(&mut picture, 1, 1, &draws(Corruption::GlassBlur));
    let mut moved = [0; 4];
    for y in 0..32 {
        for x in 0..32 {
            let source = picture.planes[0].at(y, x) as usize;
            let (dy, dx) = (y - source / 32, x - source % 32);
            // From the lower right on, so that the pixels above and to the left are still the original ones.
            assert!(dy <= 1 && dx <= 1);
            assert!((dy, dx) == (0, 0) || (y >= 2 && x >= 2));
            moved[2 * dy + dx] += usize::from(y >= 2 && x >= 2);
        }
    }
    assert!(moved.iter().all(|count| (170..280).contains(count)), "{moved:?}");
}

#[test]
fn pixelate_averages_boxes() {
    let plane: Vec<u8> = (0..16).map(|i| i * 10).collect();
    // 4×4 → 2×2: means of (0, 10, 40, 50) and so on.
    assert_eq!(pixelate::resize(&plane, 4, 2, 2), [25, 45, 105, 125]);
    assert_eq!(pixelate::resize(&[25, 45, 105, 125], 2, 4, 4)[..8], [25, 25, 45, 45, 25, 25, 45, 45]);
    assert_eq!(pixelate::resize(&plane, 4, 4, 4), plane);
    assert_eq!(pixelate::resize(&[7], 1, 3, 2), [7; 6]);
    let shape = ImageShape::new(1, 100, 100);
    let out = corrupt(Corruption::Pixelate, severity(5), &image(shape, 0), shape, 0, 0);
    let (clean, coarse) = (moments(&image(shape, 0)), moments(&out));
    assert!((clean.0 - coarse.0).abs() < 1.0 && coarse.1 < clean.1);
}

#[test]
fn jpeg_loses_less_at_higher_quality() {
    let clean = image(RGB, 0);
    let error = |quality| {
        let out = jpeg::round_trip(&clean, RGB, quality);
        clean.iter().zip(&out).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum::<f64>() / 3072.0
    };
    let errors = [100, 80, 65, 50, 40, 10].map(error);
    assert!(errors.windows(2).all(|pair| pair[0] < pair[1]), "{errors:?}");
    // At quality 100 all steps are 1; what remains is rounding, 1/12 for each of a few operations.
    let grey = ImageShape::new(1, 32, 32);
    let out = jpeg::round_trip(&clean[..1024], grey, 100);
    assert!(out.iter().zip(&clean).all(|(a, b)| a.abs_diff(*b) <= 1));
    // Uniform blocks have only a mean, in steps of 1/8 of an entry of the table.
    for (quality, step) in [(100, 1), (50, 16)] {
        let out = jpeg::round_trip(&[77; 1024], grey, quality);
        assert!(out.iter().all(|v| v.abs_diff(77) <= step / 16 + 1 && *v == out[0]), "{quality}: {}", out[0]);
    }
}

#[test]
fn elastic_severities_keep_the_picture() {
    // Severity 1 is only an affine map: a linear ramp stays linear inside.
    let shape = ImageShape::new(1, 64, 64);
    let ramp: Vec<u8> = (0..shape.len()).map(|i| (2 * (i % 64) + i / 64) as u8).collect();
    let out = corrupt(Corruption::ElasticTransform, severity(1), &ramp, shape, 0, 2);
    for y in 20..44 {
        for x in 20..43 {
            let second =
                i32::from(out[y * 64 + x - 1]) + i32::from(out[y * 64 + x + 1]) - 2 * i32::from(out[y * 64 + x]);
            assert!(second.abs() <= 1, "at {y}, {x}: {second}");
        }
    }
}

#[test]
fn frost_has_the_statistics_of_ice() {
    let values = frost::pattern(32, 32, 1.0, 30.0, &draws(Corruption::Frost));
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let variance = values.iter().map(|v| v * v).sum::<f64>() / n;
    assert!(mean.abs() < 1e-9 && (variance - 1.0).abs() < 1e-9);
    let near: f64 =
        (0..32 * 31).map(|i| (i / 31, i % 31)).map(|(y, x)| values[y * 32 + x] * values[y * 32 + x + 1]).sum();
    assert!((0.3..0.8).contains(&(near / (32.0 * 31.0))), "correlation of neighbours {}", near / (32.0 * 31.0));
}

/// Drops of `spatter`: values that OpenCV gives, see `tests/published/corruptions.py`.
#[test]
fn edges_and_distances_by_hand() {
    // A bright square in the middle: its edge is the ring of pixels inside or outside its rim.
    let level: Vec<u8> =
        (0..144).map(|i| if (4..8).contains(&(i / 12)) && (4..8).contains(&(i % 12)) { 200 } else { 0 }).collect();
    let found = edges::canny(edges::Bytes { height: 12, width: 12, values: &level }, 50, 150);
    assert!(found.iter().any(|edge| *edge));
    for (i, edge) in found.iter().enumerate() {
        let far = |v: usize| 4usize.saturating_sub(v).max(v.saturating_sub(7));
        assert!(!edge || far(i / 12).max(far(i % 12)) <= 1, "{i}");
    }
    let mut single = vec![false; 49];
    single[24] = true;
    let distance = edges::distance(&single, 7, 3.5);
    let row = |y: usize| distance[7 * y..7 * y + 7].iter().map(|d| (d * 100.0).round() / 100.0).collect::<Vec<_>>();
    assert_eq!(row(3), [3.0, 2.0, 1.0, 0.0, 1.0, 2.0, 3.0]);
    assert_eq!(row(2), [3.2, 2.2, 1.4, 1.0, 1.4, 2.2, 3.2]);
    assert_eq!(row(1), [3.5, 2.8, 2.2, 2.0, 2.2, 2.8, 3.5]);
    let mut levels = [5, 5, 7, 9, 9, 9];
    edges::equalize(&mut levels);
    assert_eq!(levels, [0, 0, 64, 255, 255, 255]);
    edges::equalize(&mut levels[..2]);
    assert_eq!(levels[0], 0);
}
