//! Names and lists of the corruptions, and their severities.

/// A corruption of Hendrycks and Dietterich. Names are those of the files of CIFAR-10-C.
///
/// The discriminant is part of the random numbers, so it must not change.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, clap::ValueEnum, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
#[repr(u32)]
pub enum Corruption {
    /// Normal noise on every value
    GaussianNoise = 0,
    /// Poisson noise, as of a sensor in low light
    ShotNoise = 1,
    /// Values replaced by black or white
    ImpulseNoise = 2,
    /// A lens out of focus
    DefocusBlur = 3,
    /// Frosted glass: pixels change places
    GlassBlur = 4,
    /// A camera that moves on a line
    MotionBlur = 5,
    /// A camera that moves towards the subject
    ZoomBlur = 6,
    /// Falling snow
    Snow = 7,
    /// Ice on the lens; drawn here, photos in the published files
    Frost = 8,
    /// Fog, a plasma fractal
    Fog = 9,
    /// Brighter (value in HSV)
    Brightness = 10,
    /// Less contrast
    Contrast = 11,
    /// A random affine map, then small random displacements
    ElasticTransform = 12,
    /// A lower resolution
    Pixelate = 13,
    /// JPEG artefacts
    JpegCompression = 14,
    /// Normal noise in proportion to the value
    SpeckleNoise = 15,
    /// A Gaussian filter
    GaussianBlur = 16,
    /// Drops of water or mud on the lens
    Spatter = 17,
    /// Less or more saturation in HSV
    Saturate = 18,
}

impl Corruption {
    /// All corruptions: the fifteen of the benchmark, then the four that its authors set aside for validation.
    pub const ALL: [Self; 19] = [
        Self::GaussianNoise,
        Self::ShotNoise,
        Self::ImpulseNoise,
        Self::DefocusBlur,
        Self::GlassBlur,
        Self::MotionBlur,
        Self::ZoomBlur,
        Self::Snow,
        Self::Frost,
        Self::Fog,
        Self::Brightness,
        Self::Contrast,
        Self::ElasticTransform,
        Self::Pixelate,
        Self::JpegCompression,
        Self::SpeckleNoise,
        Self::GaussianBlur,
        Self::Spatter,
        Self::Saturate,
    ];

    /// The fifteen of the benchmark, which RobustBench uses.
    pub const STANDARD: [Self; 15] = [
        Self::GaussianNoise,
        Self::ShotNoise,
        Self::ImpulseNoise,
        Self::DefocusBlur,
        Self::GlassBlur,
        Self::MotionBlur,
        Self::ZoomBlur,
        Self::Snow,
        Self::Frost,
        Self::Fog,
        Self::Brightness,
        Self::Contrast,
        Self::ElasticTransform,
        Self::Pixelate,
        Self::JpegCompression,
    ];

    /// The eighteen of FAIR-TAT's evaluation: all but `glass_blur`.
    pub const AUTHORS: [Self; 18] = [
        Self::GaussianNoise,
        Self::ShotNoise,
        Self::ImpulseNoise,
        Self::DefocusBlur,
        Self::MotionBlur,
        Self::ZoomBlur,
        Self::Snow,
        Self::Frost,
        Self::Fog,
        Self::Brightness,
        Self::Contrast,
        Self::ElasticTransform,
        Self::Pixelate,
        Self::JpegCompression,
        Self::SpeckleNoise,
        Self::GaussianBlur,
        Self::Spatter,
        Self::Saturate,
    ];

    /// The name in CIFAR-10-C: `gaussian_noise`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::GaussianNoise => "gaussian_noise",
            Self::ShotNoise => "shot_noise",
            Self::ImpulseNoise => "impulse_noise",
            Self::DefocusBlur => "defocus_blur",
            Self::GlassBlur => "glass_blur",
            Self::MotionBlur => "motion_blur",
            Self::ZoomBlur => "zoom_blur",
            Self::Snow => "snow",
            Self::Frost => "frost",
            Self::Fog => "fog",
            Self::Brightness => "brightness",
            Self::Contrast => "contrast",
            Self::ElasticTransform => "elastic_transform",
            Self::Pixelate => "pixelate",
            Self::JpegCompression => "jpeg_compression",
            Self::SpeckleNoise => "speckle_noise",
            Self::GaussianBlur => "gaussian_blur",
            Self::Spatter => "spatter",
            Self::Saturate => "saturate",
        }
    }

    /// A heading for tables and figures: `Gaussian noise`.
    pub const fn title(self) -> &'static str {
        match self {
            Self::GaussianNoise => "Gaussian noise",
            Self::ShotNoise => "Shot noise",
            Self::ImpulseNoise => "Impulse noise",
            Self::DefocusBlur => "Defocus blur",
            Self::GlassBlur => "Glass blur",
            Self::MotionBlur => "Motion blur",
            Self::ZoomBlur => "Zoom blur",
            Self::Snow => "Snow",
            Self::Frost => "Frost",
            Self::Fog => "Fog",
            Self::Brightness => "Brightness",
            Self::Contrast => "Contrast",
            Self::ElasticTransform => "Elastic transform",
            Self::Pixelate => "Pixelate",
            Self::JpegCompression => "JPEG compression",
            Self::SpeckleNoise => "Speckle noise",
            Self::GaussianBlur => "Gaussian blur",
            Self::Spatter => "Spatter",
            Self::Saturate => "Saturate",
        }
    }

    /// The file in CIFAR-10-C: `gaussian_noise.npy`.
    pub fn file(self) -> String {
        format!("{}.npy", self.name())
    }
}

impl std::fmt::Display for Corruption {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

/// The strength of a corruption, 1 (weakest) to 5.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct Severity(u8);

impl Severity {
    /// 1 to 5.
    pub const ALL: [Self; 5] = [Self(1), Self(2), Self(3), Self(4), Self(5)];

    /// 1 to 5.
    pub const fn get(self) -> u8 {
        self.0
    }

    /// The severity's constant, of those for severities 1 to 5.
    pub(super) const fn of<T: Copy>(self, constants: [T; 5]) -> T {
        constants[self.0 as usize - 1]
    }
}

impl TryFrom<u8> for Severity {
    type Error = String;

    fn try_from(value: u8) -> Result<Self, String> {
        if (1..=5).contains(&value) { Ok(Self(value)) } else { Err(format!("severity {value}, expected 1 to 5")) }
    }
}

impl From<Severity> for u8 {
    fn from(severity: Severity) -> Self {
        severity.0
    }
}

impl std::str::FromStr for Severity {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let value: u8 = text.trim().parse().map_err(|_| format!("severity '{text}', expected 1 to 5"))?;
        value.try_into()
    }
}

impl std::fmt::Display for Severity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}
