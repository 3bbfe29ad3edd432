//! Structs that are declared twice, in Rust and in WGSL.
//!
//! `gpu_struct!` declares the Rust side and, for tests, lists its members. `validation.rs` compares them with the
//! shader as naga parses it: names, types and offsets must be equal.

/// The layout of a struct that shaders read.
#[cfg(test)]
#[derive(Debug, Clone, Copy)]
pub(super) struct Layout {
    /// Its name in Rust.
    pub(super) name: &'static str,
    /// Files of the kernels that declare it as `Params`.
    pub(super) kernels: &'static [&'static str],
    /// Name, type and offset of each member. A vector of WGSL is an array in Rust.
    pub(super) members: &'static [(&'static str, &'static str, usize)],
    /// Size in bytes.
    pub(super) size: usize,
}

/// The parameters of a dispatch. Only `gpu_struct!` implements this trait, so that all of them are compared with the
/// shaders.
pub(super) trait Params: bytemuck::Pod {
    /// Files of the kernels that read them.
    const KERNELS: &'static [&'static str];
}

/// Declares a struct with the memory layout of WGSL. `struct RowsParams for "norm_statistics.wgsl" { … }` is the struct
/// `Params` of that kernel; a struct without `for` has the same name in WGSL.
///
/// A module lists the `LAYOUT` of its structs in `layouts`, next to `variants`.
macro_rules! gpu_struct {
    (@declare [$($file:literal),*] $(#[$meta:meta])* $vis:vis struct $name:ident {
        $($(#[$doc:meta])* $member_vis:vis $member:ident: $type:ty),+ $(,)?
    }) => {
        $(#[$meta])*
        #[repr(C)]
        #[derive(Debug, Clone, Copy, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
        $vis struct $name {
            $($(#[$doc])* $member_vis $member: $type),+
        }

        #[cfg(test)]
        impl $name {
            pub(in crate::engine::wgsl) const LAYOUT: $crate::engine::wgsl::layout::Layout =
                $crate::engine::wgsl::layout::Layout {
                    name: stringify!($name),
                    kernels: &[$($file),*],
                    members: &[$((stringify!($member), stringify!($type), std::mem::offset_of!($name, $member))),+],
                    size: size_of::<$name>(),
                };
        }
    };
    ($(#[$meta:meta])* $vis:vis struct $name:ident for $($file:literal),+ { $($members:tt)+ }) => {
        gpu_struct! { @declare [$($file),+] $(#[$meta])* $vis struct $name { $($members)+ } }

        impl $crate::engine::wgsl::layout::Params for $name {
            const KERNELS: &'static [&'static str] = &[$($file),+];
        }
    };
    ($(#[$meta:meta])* $vis:vis struct $name:ident { $($members:tt)+ }) => {
        gpu_struct! { @declare [] $(#[$meta])* $vis struct $name { $($members)+ } }
    };
}
pub(super) use gpu_struct;
