//! Activations (spec §1.2) and the row generator that weights share: four interleaved Xoshiro128++ streams a row.

use alloc::vec;
use alloc::vec::Vec;

use crate::types::{Shape, UnitId};

/// Bytes of stream state a row: four streams of four u32 words.
pub const ROW_STATE_LEN: usize = 64;

/// One Xoshiro128++ stream. A zero state stays zero: unlike `rand_xoshiro`, nothing is special-cased.
struct Stream([u32; 4]);

impl Stream {
    fn next(&mut self) -> u32 {
        let s = &mut self.0;
        let out = s[0].wrapping_add(s[3]).rotate_left(7).wrapping_add(s[0]);
        let t = s[1] << 9;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = s[3].rotate_left(11);
        out
    }
}

/// Fills one row from its 64 bytes of state: word w is output ⌊w/4⌋ of stream w mod 4; each word gives four bytes, little-endian.
pub fn fill_row(state: &[u8; ROW_STATE_LEN], row: &mut [i8]) {
    let (words, _) = state.as_chunks::<4>();
    let mut streams: [Stream; 4] = core::array::from_fn(|s| Stream(core::array::from_fn(|i| u32::from_le_bytes(words[4 * s + i]))));
    for (w, out) in row.chunks_mut(4).enumerate() {
        let word = streams[w % 4].next().to_le_bytes();
        for (value, byte) in out.iter_mut().zip(word) {
            *value = byte.cast_signed();
        }
    }
}

/// `rows` rows of `cols` values, row i from bytes `[64i, 64i + 64)` of the hasher's output.
pub(super) fn rows(source: &blake3::Hasher, rows: usize, cols: usize) -> Vec<i8> {
    let mut states = source.finalize_xof();
    let mut out = vec![0; rows * cols];
    for row in out.chunks_exact_mut(cols) {
        let mut state = [0; ROW_STATE_LEN];
        states.fill(&mut state);
        fill_row(&state, row);
    }
    out
}

/// The XOF whose bytes `[64i, 64i + 64)` are the stream states of row i: `DK("activation rows", seed)`.
pub fn row_states(seed: &UnitId) -> blake3::OutputReader {
    source(seed).finalize_xof()
}

fn source(seed: &UnitId) -> blake3::Hasher {
    let mut hasher = super::derive_key("activation rows");
    hasher.update(&seed.0);
    hasher
}

/// `A`, m × k, row-major (spec §1.2).
pub fn activations(seed: &UnitId, shape: Shape) -> Vec<i8> {
    rows(&source(seed), shape.m() as usize, shape.k() as usize)
}
