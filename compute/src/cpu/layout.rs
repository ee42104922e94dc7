//! How matrices lie in memory on a CPU. One layout for every instruction set, so that they can be compared and exchanged.
//!
//! ```text
//! rows (A, Y1, Y2):  [tile of 8 rows][block of 16 columns][8 rows][16 bytes]        u8: A + 128, or Y as it is
//! weights:           [strip of 16 neurons][block of 16 columns][4 quads][16 neurons][4 columns]   i8
//! ```
//!
//! A quad is what one dot-product instruction takes: four columns of sixteen neurons in a cache line. Accumulators start at `init`, which
//! takes back the 128 that was added to A: `init[j] = −128·Σ w[j]`; Y is never negative and needs nothing. Rows, neurons and columns
//! past the end are padding: their weights are zero, and what they give is never read.

use rayon::prelude::*;

/// Rows of a tile.
pub(super) const TILE: usize = 8;
/// Columns of a block, and neurons of a strip: a strip of one layer is a block of the next.
pub(super) const BLOCK: usize = 16;
/// Lines of a block of a tile of rows.
pub(super) const LINES: usize = TILE * BLOCK / 64;
/// Lines of a block of a strip of weights.
pub(super) const QUADS: usize = 4;

/// A cache line, aligned like one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C, align(64))]
pub(super) struct Line(pub(super) [u8; 64]);

impl Line {
    pub(super) const ZERO: Self = Self([0; 64]);
}

/// How many lines hold `tiles` tiles of `blocks` blocks.
pub(super) fn lines(tiles: usize, blocks: usize) -> usize {
    tiles * blocks * LINES
}

/// One layer's weights.
#[derive(Clone)]
pub(super) struct Packed {
    pub(super) strips: usize,
    pub(super) blocks: usize,
    pub(super) inputs: Inputs,
    pub(super) data: Vec<Line>,
    pub(super) init: Vec<i32>,
}

/// What is added to a layer's inputs so that they are unsigned.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Inputs {
    /// Full-range i8, stored plus 128.
    Biased,
    /// 0..=127, stored as they are.
    Plain,
}

impl Packed {
    /// Packs `neurons` rows of `cols` weights each; `weight(j, c)` is column c of neuron j.
    pub(super) fn new(neurons: usize, cols: usize, inputs: Inputs, weight: impl Fn(usize, usize) -> i8 + Sync) -> Self {
        let (strips, blocks) = (neurons.div_ceil(BLOCK), cols.div_ceil(BLOCK));
        let mut data = super::simd_memory::zeroed(strips * blocks * QUADS);
        let mut init = vec![0; strips * BLOCK];
        data.par_chunks_mut(blocks * QUADS).zip(init.par_chunks_mut(BLOCK)).enumerate().for_each(|(strip, (lines, init))| {
            for (quad, line) in lines.iter_mut().enumerate() {
                for (i, byte) in line.0.iter_mut().enumerate() {
                    let (j, c) = (strip * BLOCK + i / 4, quad * 4 + i % 4);
                    if j < neurons && c < cols {
                        let w = weight(j, c);
                        *byte = w.cast_unsigned();
                        init[i / 4] -= i32::from(w) * 128;
                    }
                }
            }
            if inputs == Inputs::Plain {
                init.fill(0);
            }
        });
        Self { strips, blocks, inputs, data, init }
    }

    /// The lines of one strip.
    pub(super) fn strip(&self, strip: usize) -> &[Line] {
        &self.data[strip * self.blocks * QUADS..][..self.blocks * QUADS]
    }

    /// The same with −128 replaced by −127 in the columns where `clamp` says so (the mixed variant of spec §2). Biased inputs only.
    pub(super) fn clamped(&self, clamp: &[bool]) -> Self {
        let mut packed = self.clone();
        let floors: Vec<i8> = (0..self.blocks * BLOCK).map(|c| if clamp.get(c).is_some_and(|&on| on) { -127 } else { -128 }).collect();
        packed.data.par_chunks_mut(self.blocks * QUADS).zip(packed.init.par_chunks_mut(BLOCK)).for_each(|(lines, init)| {
            for (line, floors) in lines.iter_mut().zip(floors.as_chunks::<4>().0) {
                for (j, quad) in line.0.as_chunks_mut::<4>().0.iter_mut().enumerate() {
                    for (byte, &floor) in quad.iter_mut().zip(floors) {
                        let raised = byte.cast_signed() < floor;
                        *byte = byte.cast_signed().max(floor).cast_unsigned();
                        init[j] -= i32::from(raised) * 128;
                    }
                }
            }
        });
        packed
    }
}

/// Where a row's block lies: line and offset in it.
fn place(row: usize, block: usize, blocks: usize) -> (usize, usize) {
    let (tile, r) = (row / TILE, row % TILE);
    ((tile * blocks + block) * LINES + r / 4, r % 4 * BLOCK)
}

/// Packs row-major full-range values as biased inputs.
pub(super) fn pack_biased(a: &[i8], cols: usize) -> Vec<Line> {
    let (rows, blocks) = (a.len() / cols, cols.div_ceil(BLOCK));
    let mut out = vec![Line::ZERO; lines(rows.div_ceil(TILE), blocks)];
    for (row, values) in a.chunks_exact(cols).enumerate() {
        for (block, values) in values.chunks(BLOCK).enumerate() {
            let (line, at) = place(row, block, blocks);
            for (out, value) in out[line].0[at..].iter_mut().zip(values) {
                *out = value.cast_unsigned() ^ 0x80;
            }
        }
    }
    out
}

/// One value of packed rows.
pub(super) fn value(y: &[Line], row: usize, col: usize, blocks: usize) -> u8 {
    let (line, at) = place(row, col / BLOCK, blocks);
    y[line].0[at + col % BLOCK]
}

/// The m·n bytes of `y` (m rows from its first tile on, whole tiles) in hashing order: 64-column panels, row by row (spec §1.5).
pub(super) fn panels(y: &[Line], m: usize, blocks: usize, out: &mut Vec<u8>) {
    const PANEL: usize = 64 / BLOCK;
    out.clear();
    for panel in 0..blocks / PANEL {
        for row in 0..m {
            for block in 0..PANEL {
                let (line, at) = place(row, panel * PANEL + block, blocks);
                out.extend_from_slice(&y[line].0[at..at + BLOCK]);
            }
        }
    }
}

/// Puts a part of the columns (`part_blocks` blocks from `first` on, packed by itself) where it belongs.
pub(super) fn merge(part: &[Line], first: usize, part_blocks: usize, whole: &mut [Line], blocks: usize) {
    for (part, whole) in part.chunks_exact(part_blocks * LINES).zip(whole.chunks_exact_mut(blocks * LINES)) {
        whole[first * LINES..][..part.len()].copy_from_slice(part);
    }
}
