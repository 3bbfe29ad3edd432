// Updates the progress of a search with the prediction on the current iterate. The twin of `ImageProgress` in
// src/engine/held.rs. Needs `call`, and `info` to be writable.

// Called by one lane of a workgroup, for image `position` of the batch.
fn look(position: u32, is_wrong: bool) {
    let status = info[position].status;
    let budget = info[position].budget;
    let is_spent = budget == 0u;
    let stops = (call.stop == STOP_WHILE_MISCLASSIFIED && is_wrong && is_spent) || (call.stop == STOP_SPENT && is_spent);
    let is_active = (status & STATUS_ACTIVE) != 0u && !stops;
    let was_misclassified = (status & STATUS_MISCLASSIFIED) != 0u;
    var next = select(0u, STATUS_ACTIVE, is_active);
    next |= select(0u, STATUS_MISCLASSIFIED, was_misclassified || is_wrong);
    next |= select(0u, STATUS_FIRST, is_wrong && !was_misclassified);
    info[position].status = next;
    info[position].budget = budget - select(0u, 1u, is_active && is_wrong && !is_spent);
    info[position].steps += 1u;
}
