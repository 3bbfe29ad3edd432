// What is known of one image of a batch. The twin of `ImageInfo` in src/engine/wgsl/kernels/call.rs; `active` and
// `target` are reserved words in WGSL.
struct ImageInfo {
    label: u32,
    goal: u32,
    id: u32,
    is_active: u32,
    epsilon: f32,
    step_size: f32,
    unused0: u32,
    unused1: u32,
}
