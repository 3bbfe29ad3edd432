// The assignment of a block of 256 rows and a tile of `columns` quads to 256 lanes: `lanes` rows at a time, so that a
// lane has HELD rows of one quad.
#import "shared/grid.wgsl"
#import "shared/lanes.wgsl"

struct Params {
    rows: u32,
    quads: u32,
    columns: u32,
    tiles: u32,
    lanes: u32,
    first_block: u32,
}

struct Place {
    // Index in this dispatch; the partials start at `first_block`.
    block: u32,
    quad: u32,
    // The lane's first row in the block, and the end of the block's rows (0 for lanes without work).
    row: u32,
    end: u32,
    live: bool,
}

fn place(index: u32, lane: u32) -> Place {
    let block = index / params.tiles;
    let column = lane % params.columns;
    let quad = index % params.tiles * params.columns + column;
    let row = lane / params.columns;
    let live = block * 256u < params.rows && quad < params.quads && row < params.lanes;
    var end = 0u;
    if live {
        end = min(256u, params.rows - block * 256u);
    }
    return Place(block, quad, row, end, live);
}
