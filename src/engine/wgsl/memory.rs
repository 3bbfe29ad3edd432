//! Memory planning for transient buffers: buffers whose lifetimes do not overlap share a slot.

/// The size of a buffer and its lifetime, from the first to the last step, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Life {
    pub(super) size: u64,
    pub(super) first: usize,
    pub(super) last: usize,
}

/// Assigns every buffer to a slot and returns the slot of each. `slots` holds the sizes of existing slots; new ones are
/// appended.
///
/// Buffers are placed largest first, each in the smallest slot that is large enough and free during its whole lifetime.
/// Each slot is a separate buffer on the device, because a dispatch may not read one range of a buffer and write
/// another.
pub(super) fn place(lives: &[Life], slots: &mut Vec<u64>) -> Vec<usize> {
    let mut order: Vec<usize> = (0..lives.len()).collect();
    order.sort_by_key(|i| (std::cmp::Reverse(lives[*i].size), lives[*i].first, *i));
    let mut taken: Vec<Vec<(usize, usize)>> = vec![Vec::new(); slots.len()];
    let mut placed = vec![0; lives.len()];
    for i in order {
        let life = lives[i];
        let free = |slot: &usize| {
            slots[*slot] >= life.size
                && taken[*slot].iter().all(|(first, last)| life.last < *first || *last < life.first)
        };
        let slot = (0..slots.len()).filter(free).min_by_key(|slot| slots[*slot]).unwrap_or_else(|| {
            slots.push(life.size);
            taken.push(Vec::new());
            slots.len() - 1
        });
        taken[slot].push((life.first, life.last));
        placed[i] = slot;
    }
    placed
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn life((size, first, len): (u64, usize, usize)) -> Life {
        Life { size, first, last: first + len }
    }

    #[test]
    fn a_chain_needs_two_slots() {
        let lives: Vec<Life> = (0..9).map(|i| life((100, i, 1))).collect();
        let mut slots = Vec::new();
        place(&lives, &mut slots);
        assert_eq!(slots, [100, 100]);
    }

    proptest! {
        #[test]
        fn nothing_overlaps_and_everything_fits(
            lives in proptest::collection::vec((1u64..1000, 0usize..50, 0usize..20), 1..60),
            existing in proptest::collection::vec(1u64..1000, 0..5),
        ) {
            let lives: Vec<Life> = lives.into_iter().map(life).collect();
            let mut slots = existing.clone();
            let placed = place(&lives, &mut slots);
            prop_assert_eq!(&slots[..existing.len()], &existing[..]);
            for (i, a) in lives.iter().enumerate() {
                prop_assert!(slots[placed[i]] >= a.size);
                for (j, b) in lives.iter().enumerate().skip(i + 1) {
                    prop_assert!(placed[i] != placed[j] || a.last < b.first || b.last < a.first);
                }
            }
            // At most one slot per buffer, and at least the memory that is live at any one step.
            let at = |t: usize| lives.iter().filter(|l| l.first <= t && t <= l.last).map(|l| l.size).sum::<u64>();
            let peak = (0..80).map(at).max().unwrap_or(0);
            prop_assert!(slots.iter().sum::<u64>() >= peak);
            prop_assert!(slots.len() <= existing.len() + lives.len());
        }
    }
}
