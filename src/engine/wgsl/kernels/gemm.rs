//! Code that the matrix products share: tiles, and splitting work into dispatches of bounded size.

use serde::{Deserialize, Serialize};

use crate::engine::wgsl::kernel::{Dispatch, MAX_GROUPS, Work};

/// Rows, columns and depth of a workgroup's tile, and the rows and columns of a thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(in crate::engine::wgsl) struct Tile {
    pub(super) rows: u32,
    pub(super) columns: u32,
    pub(super) depth: u32,
    pub(super) thread_rows: u32,
    pub(super) thread_columns: u32,
    /// Whether lanes share loaded values by subgroup broadcasts instead of workgroup memory.
    #[serde(default)]
    pub(in crate::engine::wgsl) broadcast: bool,
}

impl Tile {
    pub(super) const fn new(rows: u32, columns: u32, depth: u32, thread_rows: u32, thread_columns: u32) -> Self {
        Self { rows, columns, depth, thread_rows, thread_columns, broadcast: false }
    }

    /// A tile of eight lanes, each with all rows and an eighth of the columns.
    const fn broadcast(rows: u32, columns: u32) -> Self {
        Self { rows, columns, depth: 4, thread_rows: rows, thread_columns: columns / 8, broadcast: true }
    }

    pub(super) const fn constants(self) -> [(&'static str, u32); 5] {
        [
            ("BM", self.rows),
            ("BN", self.columns),
            ("BK", self.depth),
            ("TM", self.thread_rows),
            ("TN", self.thread_columns),
        ]
    }

    /// Invocations of a workgroup.
    #[cfg(test)]
    pub(super) const fn threads(self) -> u32 {
        (self.rows / self.thread_rows) * (self.columns / self.thread_columns)
    }
}

impl std::fmt::Display for Tile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let how = if self.broadcast { " broadcast" } else { "" };
        write!(f, "{}x{}x{}{how}", self.rows, self.columns, self.depth)
    }
}

/// For large results on large GPUs: the most sums per loaded value.
pub(super) const HUGE: Tile = Tile::new(128, 128, 8, 8, 8);
pub(super) const TALL: Tile = Tile::new(128, 64, 16, 8, 8);
/// For many columns: 64 sums per thread, the most that fit in the registers of all GPUs.
pub(super) const WIDE: Tile = Tile::new(64, 64, 16, 8, 8);
pub(super) const MEDIUM: Tile = Tile::new(64, 32, 16, 8, 4);
/// For small results: more workgroups, each with less work.
pub(super) const SMALL: Tile = Tile::new(32, 32, 16, 4, 4);
pub(super) const NARROW: Tile = Tile::new(64, 16, 16, 4, 4);
/// For the gradient of an image of up to four channels.
pub(super) const SINGLE: Tile = Tile::new(128, 4, 16, 2, 4);

/// Tiles of products whose rows are pixels, or Winograd tiles of pixels.
pub(in crate::engine::wgsl) const PIXEL_TILES: [Tile; 7] = [HUGE, TALL, WIDE, MEDIUM, SMALL, NARROW, SINGLE];
/// Tiles of weight gradients.
pub(in crate::engine::wgsl) const WEIGHT_TILES: [Tile; 3] = [WIDE, MEDIUM, NARROW];

/// For devices that execute loads lane by lane, at a far higher cost than arithmetic: two loads for 32 sums of each
/// lane.
pub(super) const BROADCAST: Tile = Tile::broadcast(32, 32);
/// For more columns, with the same number of sums.
pub(super) const BROADCAST_WIDE: Tile = Tile::broadcast(16, 64);

/// Tiles of products whose rows are pixels, for subgroups of at least eight lanes.
pub(in crate::engine::wgsl) const BROADCAST_TILES: [Tile; 2] = [BROADCAST, BROADCAST_WIDE];
/// The tile of weight gradients for such subgroups.
pub(in crate::engine::wgsl) const BROADCAST_WEIGHTS: Tile = BROADCAST;

/// The batch size that tiles are chosen for. They must not depend on the actual batch size, or the last, smaller batch
/// would need other kernels.
pub(super) const NOMINAL_IMAGES: usize = 128;
/// Number of workgroups that keeps a large GPU busy.
pub(super) const BUSY_GROUPS: usize = 256;

/// The fixed choice for `rows` pixels per image and `columns` channels, with `slots` products in one dispatch.
pub(super) fn fixed_tile(rows: usize, columns: usize, slots: usize) -> Tile {
    let groups = |tile: Tile| {
        slots * (NOMINAL_IMAGES * rows).div_ceil(tile.rows as usize) * columns.div_ceil(tile.columns as usize)
    };
    let tile = match columns {
        0..=4 => return SINGLE,
        5..=16 => return NARROW,
        // Narrower columns if they compute a fifth less including padding, such as for 80 channels.
        _ if 5 * columns.next_multiple_of(32) <= 4 * columns.next_multiple_of(64) => MEDIUM,
        _ => WIDE,
    };
    if groups(tile) < BUSY_GROUPS { SMALL } else { tile }
}

/// The same for a device that uses subgroup broadcasts. `None` if there are too few columns.
pub(in crate::engine::wgsl) const fn broadcast_tile(columns: usize) -> Option<Tile> {
    match columns {
        0..=4 => None,
        _ if columns.next_multiple_of(32) < columns.next_multiple_of(64) => Some(BROADCAST),
        _ => Some(BROADCAST_WIDE),
    }
}

/// Splits `groups` workgroups into dispatches of at most `budget` FLOPs each, or of one workgroup. `dispatch` creates
/// one of them from its first workgroup, its grid and its share of `work`.
pub(super) fn cut(
    groups: usize,
    group_flops: usize,
    budget: u64,
    work: Work,
    dispatch: impl Fn(u32, [u32; 3], Work) -> Dispatch,
) -> Vec<Dispatch> {
    let groups = groups as u64;
    let chunk = (budget / (group_flops as u64).max(1)).clamp(1, u64::from(MAX_GROUPS));
    let until = |total: u64, end: u64| (u128::from(total) * u128::from(end) / u128::from(groups.max(1))) as u64;
    let mut all = Vec::new();
    let mut first = 0;
    while first < groups {
        let end = groups.min(first + chunk);
        let share = |total: u64| until(total, end) - until(total, first);
        let work = Work { flops: share(work.flops), bytes: share(work.bytes) };
        all.push(dispatch(first as u32, [(end - first) as u32, 1, 1], work));
        first = end;
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The distribution of loads over threads that the shaders rely on, and the limits of the base tier.
    #[test]
    fn tiles_fit() {
        for tile in [PIXEL_TILES.as_slice(), &WEIGHT_TILES].concat() {
            let Tile { rows, columns, depth, thread_rows, thread_columns, .. } = tile;
            let threads = tile.threads();
            assert!(rows % thread_rows == 0 && columns % thread_columns == 0 && thread_columns % 4 == 0);
            assert!(threads <= 256 && threads % (depth / 4) == 0, "{tile:?}");
            assert!((rows * depth / 4) % threads == 0 && columns * depth / 16 <= threads, "{tile:?}");
            assert!(4 * (rows * (depth + 4) + depth * columns + 4 * rows) <= 16_384, "{tile:?}");
            // Sums over the rows are a tree reduction in the memory of the source's tile.
            assert!((rows / thread_rows).is_power_of_two() && threads <= rows * (depth / 4 + 1), "{tile:?}");
        }
        for Tile { rows, columns, depth, thread_rows, thread_columns, .. } in WEIGHT_TILES {
            let threads = (rows / thread_rows) * (columns / thread_columns);
            assert!(thread_rows % 4 == 0 && threads % (rows / 4) == 0);
            assert!((depth * rows / 4) % threads == 0 && (depth * columns / 4) % threads == 0);
        }
        // Eight lanes of a subgroup share the rows; for weight gradients each loads four rows.
        for tile in BROADCAST_TILES {
            assert!(tile.threads() % 8 == 0 && tile.thread_rows == tile.rows && tile.thread_columns % 4 == 0, "{tile}");
            assert!(tile.broadcast && tile.rows % 8 == 0 && tile.depth == 4, "{tile}");
        }
        assert!(BROADCAST_TILES.contains(&BROADCAST_WEIGHTS) && BROADCAST_WEIGHTS.rows.is_multiple_of(32));
    }
}
