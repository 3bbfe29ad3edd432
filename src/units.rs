//! Distances between images in `[0, 1]`, usually written as `8/255`.

use std::fmt;
use std::str::FromStr;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A radius or step size in `[0, 1]` pixel units. Read and written as `8/255`, or as a decimal.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Epsilon(f64);

impl Epsilon {
    /// No distance.
    pub const ZERO: Self = Self(0.0);

    /// `levels / 255`.
    pub const fn levels(levels: f64) -> Self {
        Self(levels / 255.0)
    }

    /// The distance itself.
    ///
    /// # Errors
    /// Returns an error if it is negative or not a number.
    pub fn new(value: f64) -> Result<Self, String> {
        if value.is_finite() && value >= 0.0 {
            Ok(Self(value))
        } else {
            Err(format!("expected a distance of at least 0, found {value}"))
        }
    }

    /// As `f32`, for engines.
    pub const fn value(self) -> f32 {
        self.0 as f32
    }

    /// As `f64`.
    pub const fn exact(self) -> f64 {
        self.0
    }

    /// `distance` rounded to a short form in the notation of `self`: three decimals of `k/255`, or four significant
    /// digits of a decimal. Not rounded if that would change it by more than 1 %.
    pub(crate) fn rounded_like(self, distance: f64) -> Self {
        let rounded = match self.as_levels() {
            Some(_) => Self::levels((distance * 255.0 * 1000.0).round() / 1000.0),
            None => Self(format!("{distance:.3e}").parse().unwrap_or(distance)),
        };
        if (rounded.0 - distance).abs() <= 0.01 * distance { rounded } else { Self(distance) }
    }

    /// `k` of `k/255`; `None` if it has more than three decimals.
    fn as_levels(self) -> Option<f64> {
        let levels = self.0 * 255.0;
        let rounded = (levels * 1000.0).round() / 1000.0;
        // Only if parsing the fraction gives exactly the same number.
        (Self::levels(rounded) == self).then_some(rounded)
    }
}

/// `8/255`, or a decimal if `k` of `k/255` has more than three decimals.
impl fmt::Display for Epsilon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.as_levels() {
            Some(levels) => write!(f, "{levels}/255"),
            None => write!(f, "{}", self.0),
        }
    }
}

impl FromStr for Epsilon {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |part: &str| {
            let expected = "expected a fraction such as 8/255 or a decimal such as 0.031";
            part.trim().parse::<f64>().map_err(|_| format!("'{text}' is not a distance; {expected}"))
        };
        match text.split_once('/') {
            Some((numerator, denominator)) => Self::new(number(numerator)? / number(denominator)?),
            None => Self::new(number(text)?),
        }
    }
}

impl Serialize for Epsilon {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.as_levels() {
            Some(_) => serializer.serialize_str(&self.to_string()),
            None => serializer.serialize_f64(self.0),
        }
    }
}

impl<'de> Deserialize<'de> for Epsilon {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl Visitor<'_> for Reader {
            type Value = Epsilon;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a fraction such as \"8/255\" or a decimal such as 0.031")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Epsilon, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_f64<E: de::Error>(self, value: f64) -> Result<Epsilon, E> {
                Epsilon::new(value).map_err(E::custom)
            }

            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Epsilon, E> {
                Epsilon::new(value as f64).map_err(E::custom)
            }

            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Epsilon, E> {
                Epsilon::new(value as f64).map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fractions_and_decimals() {
        assert_eq!("8/255".parse::<Epsilon>().unwrap(), Epsilon::levels(8.0));
        assert_eq!("0.5".parse::<Epsilon>().unwrap().exact(), 0.5);
        assert_eq!(Epsilon::levels(8.0).to_string(), "8/255");
        assert_eq!(Epsilon::levels(1.5).to_string(), "1.5/255");
        assert_eq!(Epsilon::new(0.005).unwrap().to_string(), "0.005");
        assert_eq!(Epsilon::new(0.0310001).unwrap().to_string(), "0.0310001");
        for bad in ["", "8/0", "x", "-1/255", "8/255/2", "inf", "nan"] {
            assert!(bad.parse::<Epsilon>().is_err(), "{bad}");
        }
    }

    #[test]
    fn rounding_keeps_the_notation() {
        let like =
            |epsilon: &str, distance: f64| epsilon.parse::<Epsilon>().unwrap().rounded_like(distance).to_string();
        assert_eq!(like("8/255", 2.5 * (8.0 / 255.0) / 20.0), "1/255");
        assert_eq!(like("8/255", 2.5 * (8.0 / 255.0) / 7.0), "2.857/255");
        assert_eq!(like("0.03137", 2.5 * 0.03137 / 8.0), "0.009803");
        assert_eq!(like("0.5", 2.5 * 0.5 / 20.0), "15.938/255");
        assert_eq!(like("8/255", 0.0), "0/255");
        // A hundredth of a level would be rounded to zero or by more than 1 %.
        assert_eq!(like("0.01/255", 0.0000049), "0.0000049");
    }

    #[test]
    fn values_survive_writing_and_reading() {
        let thousandths = (0..1000).map(|k| f64::from(k) / 1000.0);
        let levels = (0..2550).map(|k| f64::from(k) / 10.0 / 255.0);
        for value in thousandths.chain(levels).chain([1.0 / 3.0, 2.5]) {
            let epsilon = Epsilon::new(value).unwrap();
            let text = serde_json::to_string(&epsilon).unwrap();
            assert_eq!(serde_json::from_str::<Epsilon>(&text).unwrap(), epsilon, "{value} {text}");
        }
    }
}
