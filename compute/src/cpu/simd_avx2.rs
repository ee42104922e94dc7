//! The kernels for 256-bit vectors: AVX-VNNI's `vpdpbusd`, and plain AVX2.
//!
//! AVX2's `vpmaddubsw` saturates pairs of products at 16 bits. With inputs of 0..=127 no pair can reach that (2·127·128 = 32,512), so the
//! second layer uses it; the first layer's inputs go to 255, so both sides are widened to 16 bits and multiplied by `vpmaddwd`.
//! Only [`super::isa`] calls these, after it has seen the instructions.
#![allow(unsafe_code)]

use std::arch::x86_64::*;

use super::isa::{LayerJob, RowsJob};
use super::layout::{BLOCK, Inputs, LINES, Line, QUADS, TILE};

/// Rows that share a line of weights in registers with 8-bit inputs: a line of a tile's block.
const ROWS: usize = 4;
/// The same with 16-bit inputs, whose sums take twice the registers.
const WIDE_ROWS: usize = 2;

/// See [`super::isa::Isa::layer`].
#[target_feature(enable = "avx2")]
pub(super) fn layer(job: &LayerJob<'_>, out: &mut [Line]) {
    match job.weights.inputs {
        Inputs::Plain => narrow(job, out),
        Inputs::Biased => wide(job, out),
    }
}

/// A layer of 8-bit inputs, written once for two instruction sets: `$step` adds four products to each of eight sums.
macro_rules! narrow {
    ($(#[$doc:meta])* $visibility:vis $name:ident, $features:literal, $step:expr) => {
        $(#[$doc])*
        #[target_feature(enable = $features)]
        $visibility fn $name(job: &LayerJob<'_>, out: &mut [Line]) {
            let blocks = job.weights.blocks;
            for (s, strip) in job.strips.clone().enumerate() {
                let init: &[i32; BLOCK] = job.weights.init[strip * BLOCK..].first_chunk().unwrap_or_else(|| unreachable!("padded"));
                let w = job.weights.strip(strip).as_chunks::<QUADS>().0;
                for (tile, x) in job.x.chunks_exact(blocks * LINES).enumerate() {
                    for part in 0..TILE / ROWS {
                        let mut acc = [halves(init); ROWS];
                        for (x, w) in x.as_chunks::<LINES>().0.iter().zip(w) {
                            for (quad, w) in w.iter().enumerate() {
                                let w = load(w);
                                for (r, acc) in acc.iter_mut().enumerate() {
                                    let four = _mm256_set1_epi32(word(&x[part], r, quad));
                                    *acc = [$step(acc[0], four, w[0]), $step(acc[1], four, w[1])];
                                }
                            }
                        }
                        for (r, acc) in acc.into_iter().enumerate() {
                            store(acc, job.shift, &mut out[(tile * job.strips.len() + s) * LINES + part].0, r);
                        }
                    }
                }
            }
        }
    };
}

narrow!(
    /// See [`super::isa::Isa::layer`].
    pub(super) layer_vnni, "avx2,avxvnni", _mm256_dpbusd_avx_epi32
);
narrow!(
    /// Inputs of 0..=127.
    narrow, "avx2", four_products
);

/// Adds four products to each of eight sums; exact where `four` holds 0..=127.
#[inline]
#[target_feature(enable = "avx2")]
fn four_products(acc: __m256i, four: __m256i, w: __m256i) -> __m256i {
    _mm256_add_epi32(acc, _mm256_madd_epi16(_mm256_maddubs_epi16(four, w), _mm256_set1_epi16(1)))
}

/// A layer of 8-bit inputs that use all eight bits: everything widened to 16.
#[target_feature(enable = "avx2")]
fn wide(job: &LayerJob<'_>, out: &mut [Line]) {
    let blocks = job.weights.blocks;
    // Each tile's rows widened once: four 16-bit columns, which are one quad of one row, a 64-bit word.
    let mut words = vec![0_i64; blocks * QUADS * TILE];
    for (tile, x) in job.x.chunks_exact(blocks * LINES).enumerate() {
        for (i, words) in words.as_chunks_mut::<TILE>().0.iter_mut().enumerate() {
            let (block, quad) = (i / QUADS, i % QUADS);
            for (r, wide) in words.iter_mut().enumerate() {
                let four = word(&x[block * LINES + r / ROWS], r % ROWS, quad).to_le_bytes();
                *wide = four.iter().rev().fold(0, |wide, &byte| wide << 16 | i64::from(byte));
            }
        }
        for (s, strip) in job.strips.clone().enumerate() {
            let init: &[i32; BLOCK] = job.weights.init[strip * BLOCK..].first_chunk().unwrap_or_else(|| unreachable!("padded"));
            for first in (0..TILE).step_by(WIDE_ROWS) {
                // Four neurons a vector, two sums each: columns 0 and 1 of the quads, columns 2 and 3.
                let mut acc = [[_mm256_setzero_si256(); 4]; WIDE_ROWS];
                for (words, w) in words.as_chunks::<TILE>().0.iter().zip(job.weights.strip(strip)) {
                    let quarter = |i: usize| {
                        let bytes: &[u8; 16] = w.0[i * 16..].first_chunk().unwrap_or_else(|| unreachable!("four quarters a line"));
                        // SAFETY: sixteen bytes are there; the load needs no alignment.
                        _mm256_cvtepi8_epi16(unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) })
                    };
                    let w = [quarter(0), quarter(1), quarter(2), quarter(3)];
                    for (r, acc) in acc.iter_mut().enumerate() {
                        let four = _mm256_set1_epi64x(words[first + r]);
                        for (acc, w) in acc.iter_mut().zip(w) {
                            *acc = _mm256_add_epi32(*acc, _mm256_madd_epi16(four, w));
                        }
                    }
                }
                for (r, acc) in acc.into_iter().enumerate() {
                    let [low, high] = halves(init);
                    let sums = [_mm256_add_epi32(low, joined(acc[0], acc[1])), _mm256_add_epi32(high, joined(acc[2], acc[3]))];
                    let row = first + r;
                    store(sums, job.shift, &mut out[(tile * job.strips.len() + s) * LINES + row / ROWS].0, row % ROWS);
                }
            }
        }
    }
}

/// Eight neurons' sums from two vectors of four neurons with two sums each.
#[inline]
#[target_feature(enable = "avx2")]
fn joined(a: __m256i, b: __m256i) -> __m256i {
    _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_hadd_epi32(a, b))
}

/// Four columns of one row of a line of rows.
#[inline]
fn word(line: &Line, row: usize, quad: usize) -> i32 {
    let at = row * BLOCK + quad * 4;
    i32::from_le_bytes([line.0[at], line.0[at + 1], line.0[at + 2], line.0[at + 3]])
}

#[inline]
#[target_feature(enable = "avx2")]
fn halves(init: &[i32; BLOCK]) -> [__m256i; 2] {
    // SAFETY: sixteen numbers are two vectors of eight; the loads need no alignment.
    unsafe { [_mm256_loadu_si256(init.as_ptr().cast()), _mm256_loadu_si256(init.as_ptr().add(8).cast())] }
}

#[inline]
#[target_feature(enable = "avx2")]
fn load(line: &Line) -> [__m256i; 2] {
    // SAFETY: a line is 64 bytes aligned to 64: two vectors of 32.
    unsafe { [_mm256_load_si256(line.0.as_ptr().cast()), _mm256_load_si256(line.0.as_ptr().add(32).cast())] }
}

/// ReLU, shift and saturation of sixteen neurons of one row, into that row's place in a line.
#[inline]
#[target_feature(enable = "avx2")]
fn store(acc: [__m256i; 2], shift: u32, out: &mut [u8; 64], row: usize) {
    let shift = _mm_cvtsi32_si128(shift.cast_signed());
    let y = acc.map(|acc| _mm256_srl_epi32(_mm256_max_epi32(acc, _mm256_setzero_si256()), shift));
    let y = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packs_epi32(y[0], y[1]));
    let y = _mm_packs_epi16(_mm256_castsi256_si128(y), _mm256_extracti128_si256::<1>(y));
    let out: &mut [u8; BLOCK] = out[row * BLOCK..].first_chunk_mut().unwrap_or_else(|| unreachable!("four rows a line"));
    // SAFETY: sixteen bytes are there; the store needs no alignment.
    unsafe { _mm_storeu_si128(out.as_mut_ptr().cast(), y) };
}

/// See [`super::isa::Isa::rows`]: two rows a vector, a row in each 128-bit lane.
#[target_feature(enable = "avx2")]
pub(super) fn rows(job: &RowsJob<'_>, out: &mut [Line]) {
    let bias = _mm256_set1_epi8(i8::MIN);
    for (states, out) in job.states.as_chunks::<{ 64 * TILE }>().0.iter().zip(out.chunks_exact_mut(job.blocks * LINES)) {
        let mut pairs: [[__m256i; 4]; TILE / 2] = core::array::from_fn(|pair| transposed(states, pair * 2));
        for out in out.as_chunks_mut::<LINES>().0 {
            for (pair, s) in pairs.iter_mut().enumerate() {
                let word = _mm256_xor_si256(step(s), bias);
                let out: &mut [u8; 32] = out[pair / 2].0[pair % 2 * 32..].first_chunk_mut().unwrap_or_else(|| unreachable!("two halves"));
                // SAFETY: 32 bytes are there; the store needs no alignment.
                unsafe { _mm256_storeu_si256(out.as_mut_ptr().cast(), word) };
            }
        }
    }
}

/// The states of two rows: vector w holds word w of each row's four streams, a row in each lane.
#[target_feature(enable = "avx2")]
fn transposed(states: &[u8; 64 * TILE], first: usize) -> [__m256i; 4] {
    core::array::from_fn(|word| {
        let words: [i32; 8] = core::array::from_fn(|i| {
            let at = (first + i / 4) * 64 + i % 4 * 16 + word * 4;
            i32::from_le_bytes([states[at], states[at + 1], states[at + 2], states[at + 3]])
        });
        // SAFETY: `words` is 32 bytes; the load needs no alignment.
        unsafe { _mm256_loadu_si256(words.as_ptr().cast()) }
    })
}

/// One step of eight Xoshiro128++ streams.
#[inline]
#[target_feature(enable = "avx2")]
fn step(s: &mut [__m256i; 4]) -> __m256i {
    let rotl7 = |x| _mm256_or_si256(_mm256_slli_epi32::<7>(x), _mm256_srli_epi32::<25>(x));
    let rotl11 = |x| _mm256_or_si256(_mm256_slli_epi32::<11>(x), _mm256_srli_epi32::<21>(x));
    let out = _mm256_add_epi32(rotl7(_mm256_add_epi32(s[0], s[3])), s[0]);
    let t = _mm256_slli_epi32::<9>(s[1]);
    s[2] = _mm256_xor_si256(s[2], s[0]);
    s[3] = _mm256_xor_si256(s[3], s[1]);
    s[1] = _mm256_xor_si256(s[1], s[2]);
    s[0] = _mm256_xor_si256(s[0], s[3]);
    s[2] = _mm256_xor_si256(s[2], t);
    s[3] = rotl11(s[3]);
    out
}
