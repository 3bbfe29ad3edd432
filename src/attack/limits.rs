//! The largest distance between two images, which limits radius and step size.

use crate::data::ImageShape;
use crate::engine::Norm;
use crate::units::Epsilon;

/// Largest distance between two images with values in `[0, 1]`: 1 in L∞, `√(C·H·W)` in L2. `None` for L2 if the shape
/// of the images is not known.
pub fn largest_distance(norm: Norm, shape: Option<ImageShape>) -> Option<f64> {
    match norm {
        Norm::Linf => Some(1.0),
        Norm::L2 => shape.map(|shape| (shape.len() as f64).sqrt()),
    }
}

/// Rejects a radius or step size that is larger than the distance between any two images. Usually `8` was typed for
/// `8/255`. 0 is allowed: a radius of 0 is a control, and a step of 0 has a warning ([`super::Attack::warning`]).
///
/// # Errors
/// Returns a message with the expected and the found value, which suggests `8/255` for `8`.
pub fn check_distance(distance: Epsilon, norm: Norm, shape: Option<ImageShape>) -> Result<(), String> {
    let Some(largest) = largest_distance(norm, shape) else { return Ok(()) };
    let found = distance.exact();
    if found <= largest {
        return Ok(());
    }
    let largest = match (norm, shape) {
        (Norm::L2, Some(shape)) => format!("{largest:.2}, the largest L2 distance between images of {shape} in [0, 1]"),
        _ => "1, as images are in [0, 1]".to_owned(),
    };
    // No suggestion for a value typed as a fraction: its denominator was not forgotten.
    let as_typed = (found * 1000.0).round() / 1000.0;
    let meant =
        if found <= 255.0 && as_typed == found { format!("; did you mean {found}/255?") } else { String::new() };
    Err(format!("expected at most {largest}, found {found}{meant}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_eight_is_rejected_and_its_fraction_suggested() {
        let (digits, cifar) = (Some(ImageShape::new(1, 8, 8)), Some(ImageShape::new(3, 32, 32)));
        for (distance, norm, shape, expected) in [
            ("8/255", Norm::Linf, None, None),
            ("0", Norm::Linf, cifar, None),
            ("1", Norm::Linf, cifar, None),
            ("8", Norm::Linf, None, Some("expected at most 1, as images are in [0, 1], found 8; did you mean 8/255?")),
            ("1.5", Norm::Linf, cifar, Some("found 1.5; did you mean 1.5/255?")),
            ("300", Norm::Linf, None, Some("found 300")),
            ("8", Norm::L2, None, None),
            ("8", Norm::L2, digits, None),
            ("55.4", Norm::L2, cifar, None),
            (
                "9",
                Norm::L2,
                digits,
                Some("8.00, the largest L2 distance between images of 1×8×8 in [0, 1], found 9; did"),
            ),
            ("128", Norm::L2, cifar, Some("expected at most 55.43")),
        ] {
            let found = check_distance(distance.parse().unwrap(), norm, shape);
            match expected {
                None => assert_eq!(found, Ok(()), "{distance} {norm:?}"),
                Some(expected) => assert!(found.as_ref().is_err_and(|found| found.contains(expected)), "{found:?}"),
            }
        }
        for odd in ["300/255", "300"] {
            let message = check_distance(odd.parse().unwrap(), Norm::Linf, None).unwrap_err();
            assert!(!message.contains("did you mean"), "{message}");
        }
    }
}
