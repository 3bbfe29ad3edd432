// Settings of a call of the engine. The twin of `Call` in src/engine/wgsl/kernels/call.rs.
const AUGMENT_NONE: u32 = 0u;
const AUGMENT_REFLECT: u32 = 2u;
const START_UNIFORM: u32 = 1u;
const START_NORMAL: u32 = 2u;
const START_GIVEN: u32 = 3u;
const NORM_L2: u32 = 1u;
const OBJECTIVE_TARGETED: u32 = 1u;
const OBJECTIVE_KL_TO_CLEAN: u32 = 2u;
const OBJECTIVE_DLR: u32 = 3u;
const OBJECTIVE_MARGIN: u32 = 4u;
const OBJECTIVE_DLR_TOWARDS: u32 = 5u;
const OBJECTIVE_MARGIN_TO: u32 = 6u;
const GRADIENT_PER_IMAGE: u32 = 1u;
const STOP_WHILE_MISCLASSIFIED: u32 = 1u;
const STOP_SPENT: u32 = 2u;

struct Call {
    // Low and high half.
    seed: vec2<u32>,
    epoch: u32,
    augment: u32,
    padding: u32,
    flip: u32,
    start: u32,
    start_purpose: u32,
    start_epoch: u32,
    deviation: f32,
    norm: u32,
    objective: u32,
    lr: f32,
    momentum: f32,
    weight_decay: f32,
    gradient_scale: u32,
    stop: u32,
    project_start: u32,
    noise: f32,
    nesterov: u32,
}
