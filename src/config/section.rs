//! The macro that declares a section of an experiment.

/// Declares a section: its struct with defaults, TOML keys and flags, and the row of each field.
///
/// ```text
/// section! {
///     /// The training attack (inner maximisation).              documentation of the struct
///     pub struct AttackConfig in attack "Training attack" {     field of `Experiment`, and heading of help and form
///         /// Base radius of the perturbation, such as 8/255     help text of the flag and of the form
///         #[arg(value_name = "K/255")]                           clap attributes other than `long`
///         epsilon: Epsilon = Epsilon::levels(8.0),               type and default
///             row("Epsilon", NextEpoch).range(0.0, 80.0);        label, when a change applies, range of the slider
///         /// Batch norm during the attack
///         attack_bn: BatchNormMode = BatchNormMode::Train,
///             row("Batch norm", Now).idle("The attack takes no steps.", |e| e.attack.steps == 0);
///     }
/// }
/// ```
///
/// This generates
///
/// * `pub struct AttackConfig` with public fields, which serde reads from the TOML section and clap from flags
///   (`--attack-bn`); if the name of a field clashes with another section's, `#[arg(id = "trades-beta")]` names the
///   flag;
/// * `impl Default for AttackConfig`;
/// * `AttackConfig::SECTION`, the rows that [`fields`](super::fields), [`applies`](super::applies()),
///   [`without_effect`](super::without_effect) and [`Experiment::validate`](super::Experiment::validate) read.
///
/// A row begins with [`row`](super::row::row), which takes a label and an [`Applies`](super::Applies), and continues
/// with the methods of [`Row`](super::row::Row): `range`, `unit`, `log`, `unset`, `first`, `valid`, `idle`, `only`. A
/// number without a range or an `Option` without `unset` does not compile. A new section is also a field of
/// `Experiment` and an element of [`SECTIONS`](super::sections::SECTIONS).
macro_rules! section {
    (
        $(#[$documentation:meta])*
        pub struct $config:ident in $section:ident $title:literal {
            $(
                $(#[$meta:meta])*
                $name:ident: $type:ty = $default:expr, $row:expr;
            )*
        }
    ) => {
        $(#[$documentation])*
        #[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize, clap::Args)]
        #[serde(default, deny_unknown_fields)]
        #[command(next_help_heading = $title)]
        pub struct $config {
            $(
                $(#[$meta])*
                // After the other attributes, which may name the flag.
                #[arg(long)]
                pub $name: $type,
            )*
        }

        impl Default for $config {
            fn default() -> Self {
                Self { $($name: $default),* }
            }
        }

        impl $config {
            /// The row of each field.
            pub(in crate::config) const SECTION: $crate::config::row::Section = $crate::config::row::Section {
                name: stringify!($section),
                entries: &[$({
                    const ENTRY: $crate::config::row::Entry = $crate::config::row::Entry::new::<$type>(
                        concat!(stringify!($section), ".", stringify!($name)),
                        $row,
                        |experiment| $crate::config::row::FieldType::numbers(&experiment.$section.$name),
                        |experiment| $crate::config::row::FieldType::distance(&experiment.$section.$name),
                    );
                    ENTRY
                }),*],
                command: || <Self as clap::Args>::augment_args(clap::Command::new(stringify!($section))),
            };
        }
    };
}

pub(super) use section;
