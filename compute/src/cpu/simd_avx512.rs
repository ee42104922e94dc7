//! The kernels for AVX-512 with VNNI: `vpdpbusd` takes four columns of sixteen neurons at once.
//!
//! ```text
//! tile of 8 rows × 3 strips of 16 neurons: 24 accumulators
//! each quad of columns: 3 lines of weights, 8 broadcasts of 4 bytes, 24 vpdpbusd
//! ```
//!
//! All strips of a group of three pass over all tiles of rows before the next group is taken, so that weights come from memory once; and
//! while they pass, the next group is asked for, a part with each tile, so that it is in the L2 cache when its turn comes.
//! Only [`super::isa`] calls these, after it has seen the instructions.
#![allow(unsafe_code)]

use std::arch::x86_64::*;

use super::isa::{LayerJob, RowsJob};
use super::layout::{BLOCK, LINES, Line, QUADS, TILE};

/// Strips that share a tile's broadcasts.
const GROUP: usize = 3;

/// See [`super::isa::Isa::layer`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub(super) fn layer(job: &LayerJob<'_>, out: &mut [Line]) {
    let mut strip = job.strips.start;
    while strip < job.strips.end {
        let taken = GROUP.min(job.strips.end - strip);
        match taken {
            1 => strips::<1>(job, strip, out),
            2 => strips::<2>(job, strip, out),
            _ => strips::<GROUP>(job, strip, out),
        }
        strip += taken;
    }
}

/// `N` strips from `first` on, for all tiles of rows.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn strips<const N: usize>(job: &LayerJob<'_>, first: usize, out: &mut [Line]) {
    let blocks = job.weights.blocks;
    let weights: [&[Line]; N] = core::array::from_fn(|s| job.weights.strip(first + s));
    let init = &job.weights.init[first * BLOCK..][..N * BLOCK];
    let out_at = first - job.strips.start;
    let next = (first + N).min(job.weights.strips)..(first + N + GROUP).min(job.weights.strips);
    let next = &job.weights.data[next.start * blocks * QUADS..next.end * blocks * QUADS];
    let tiles = job.x.len() / (blocks * LINES);
    let ask_each = next.len().div_ceil(tiles.max(1) * blocks);
    let mut ask = next.as_ptr();
    let shift = _mm_cvtsi32_si128(job.shift.cast_signed());
    for (x, out) in job.x.chunks_exact(blocks * LINES).zip(out.chunks_exact_mut(job.strips.len() * LINES)) {
        let acc = tile(x, weights, init, ask, ask_each);
        ask = ask.wrapping_add(ask_each * blocks);
        for (s, out) in out[out_at * LINES..][..N * LINES].chunks_exact_mut(LINES).enumerate() {
            for (r, acc) in acc.iter().enumerate() {
                let y = _mm512_srl_epi32(_mm512_max_epi32(acc[s], _mm512_setzero_si512()), shift);
                let y = _mm512_cvtsepi32_epi8(y);
                let out: &mut [u8; BLOCK] =
                    out[r / 4].0[r % 4 * BLOCK..].first_chunk_mut().unwrap_or_else(|| unreachable!("four rows a line"));
                // SAFETY: `out` is sixteen bytes that this function may write; the store needs no alignment.
                unsafe { _mm_storeu_si128(out.as_mut_ptr().cast(), y) };
            }
        }
    }
}

/// The accumulators of one tile of rows and `N` strips. Meanwhile `ask_each` lines a block are brought into the L2 cache, from `ask` on.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn tile<const N: usize>(x: &[Line], weights: [&[Line]; N], init: &[i32], ask: *const Line, ask_each: usize) -> [[__m512i; N]; TILE] {
    let blocks = x.len() / LINES;
    assert!(weights.iter().all(|w| w.len() == blocks * QUADS) && init.len() == N * BLOCK);
    // SAFETY: `init` has N times sixteen entries, by the assertion; the load needs no alignment.
    let start: [__m512i; N] = core::array::from_fn(|s| unsafe { _mm512_loadu_si512(init.as_ptr().add(s * BLOCK).cast()) });
    let mut acc = [start; TILE];
    let x: *const i32 = x.as_ptr().cast();
    let w: [*const Line; N] = core::array::from_fn(|s| weights[s].as_ptr());
    for block in 0..blocks {
        for i in 0..ask_each {
            // A prefetch reads nothing that the program sees, also past the end of the weights.
            _mm_prefetch::<_MM_HINT_T1>(ask.wrapping_add(block * ask_each + i).cast());
        }
        for quad in 0..QUADS {
            let at = block * QUADS + quad;
            // SAFETY: `at` is below `blocks · QUADS`, each strip's length by the assertion; lines are aligned to 64 bytes.
            let lines: [__m512i; N] = core::array::from_fn(|s| unsafe { _mm512_load_si512(w[s].add(at).cast()) });
            for (r, acc) in acc.iter_mut().enumerate() {
                // SAFETY: a block of `x` is two lines, 32 words; r · 4 + quad is below 32 and `block` below `blocks`.
                let four = _mm512_set1_epi32(unsafe { *x.add(block * LINES * 16 + r * 4 + quad) });
                for (acc, line) in acc.iter_mut().zip(lines) {
                    *acc = _mm512_dpbusd_epi32(*acc, four, line);
                }
            }
        }
    }
    acc
}

/// See [`super::isa::Isa::rows`]: four rows a vector, a row in each 128-bit lane.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(super) fn rows(job: &RowsJob<'_>, out: &mut [Line]) {
    let bias = _mm512_set1_epi8(i8::MIN);
    for (states, out) in job.states.as_chunks::<{ 64 * TILE }>().0.iter().zip(out.chunks_exact_mut(job.blocks * LINES)) {
        let mut halves = [transposed(states, 0), transposed(states, 4)];
        for out in out.as_chunks_mut::<LINES>().0 {
            for (s, out) in halves.iter_mut().zip(out) {
                let word = step(s);
                // SAFETY: a line is 64 bytes, aligned to 64.
                unsafe { _mm512_store_si512(out.0.as_mut_ptr().cast(), _mm512_xor_si512(word, bias)) };
            }
        }
    }
}

/// The states of four rows: vector w holds word w of each row's four streams, a row in each lane.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn transposed(states: &[u8; 64 * TILE], first: usize) -> [__m512i; 4] {
    core::array::from_fn(|word| {
        let words: [i32; 16] = core::array::from_fn(|i| {
            let at = (first + i / 4) * 64 + i % 4 * 16 + word * 4;
            i32::from_le_bytes([states[at], states[at + 1], states[at + 2], states[at + 3]])
        });
        // SAFETY: `words` is 64 bytes; the load needs no alignment.
        unsafe { _mm512_loadu_si512(words.as_ptr().cast()) }
    })
}

/// One step of sixteen Xoshiro128++ streams.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn step(s: &mut [__m512i; 4]) -> __m512i {
    let out = _mm512_add_epi32(_mm512_rol_epi32::<7>(_mm512_add_epi32(s[0], s[3])), s[0]);
    let t = _mm512_slli_epi32::<9>(s[1]);
    s[2] = _mm512_xor_si512(s[2], s[0]);
    s[3] = _mm512_xor_si512(s[3], s[1]);
    s[1] = _mm512_xor_si512(s[1], s[2]);
    s[0] = _mm512_xor_si512(s[0], s[3]);
    s[2] = _mm512_xor_si512(s[2], t);
    s[3] = _mm512_rol_epi32::<11>(s[3]);
    out
}
