// Data of one image of a batch. The twin of `ImageInfo` in src/engine/wgsl/kernels/call.rs; `goal` is its `target`, a
// reserved word in WGSL.
struct ImageInfo {
    label: u32,
    goal: u32,
    id: u32,
    // Bits: see below.
    status: u32,
    epsilon: f32,
    step_size: f32,
    // Remaining steps while the image is misclassified.
    budget: u32,
    // Number of steps of the search that have computed its prediction.
    steps: u32,
}

// Steps still move the image.
const STATUS_ACTIVE: u32 = 1u;
// One of its iterates was misclassified.
const STATUS_MISCLASSIFIED: u32 = 2u;
// The iterate of this step is the first one that is misclassified.
const STATUS_FIRST: u32 = 4u;
