//! From the outputs to the work root (spec §1.5, §1.6).

use alloc::vec::Vec;

use crate::types::{Root, UnitId};

/// Columns of a panel: one row of a panel is one 64-byte BLAKE3 block.
pub const PANEL_COLS: usize = 64;

/// The m·n bytes of `y2` (m × n, row-major) in hashing order: panels of 64 columns from left to right, row by row inside a panel.
pub fn panels(y2: &[i8], m: usize, n: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(m * n);
    for left in (0..n).step_by(PANEL_COLS) {
        for row in y2.chunks_exact(n).take(m) {
            out.extend(row[left..left + PANEL_COLS].iter().map(|y| y.cast_unsigned()));
        }
    }
    out
}

/// `H(Y2 by panels)`; n is a multiple of 64.
pub fn output_digest(y2: &[i8], m: usize, n: usize) -> [u8; 32] {
    *blake3::hash(&panels(y2, m, n)).as_bytes()
}

/// `DK("work root", seed ‖ digest)`: the root commits to every field that the seed binds and to every output byte.
pub fn finish_root(seed: &UnitId, digest: &[u8; 32]) -> Root {
    let mut hasher = super::derive_key("work root");
    hasher.update(&seed.0);
    hasher.update(digest);
    Root(*hasher.finalize().as_bytes())
}
