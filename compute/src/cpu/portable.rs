//! The kernels in plain Rust: what runs where there is nothing better, and what the SIMD kernels are compared with.

use super::isa::{LayerJob, RowsJob};
use super::layout::{BLOCK, LINES, Line, QUADS, TILE};

/// See [`super::isa::Isa::layer`].
pub(super) fn layer(job: &LayerJob<'_>, out: &mut [Line]) {
    let (w, blocks) = (job.weights, job.weights.blocks);
    for (s, strip) in job.strips.clone().enumerate() {
        let lines = w.strip(strip);
        let init: [i32; BLOCK] = core::array::from_fn(|j| w.init[strip * BLOCK + j]);
        for (tile, x) in job.x.chunks_exact(blocks * LINES).enumerate() {
            let mut acc = [init; TILE];
            for (x, w) in x.chunks_exact(LINES).zip(lines.chunks_exact(QUADS)) {
                for (r, acc) in acc.iter_mut().enumerate() {
                    let x = &x[r / 4].0[r % 4 * BLOCK..][..BLOCK];
                    for (x, w) in x.as_chunks::<4>().0.iter().zip(w) {
                        let x = x.map(i16::from);
                        for (acc, w) in acc.iter_mut().zip(w.0.as_chunks::<4>().0) {
                            let w = w.map(|w| i16::from(w.cast_signed()));
                            *acc += i32::from(x[0]) * i32::from(w[0]) + i32::from(x[1]) * i32::from(w[1]);
                            *acc += i32::from(x[2]) * i32::from(w[2]) + i32::from(x[3]) * i32::from(w[3]);
                        }
                    }
                }
            }
            let at = (tile * job.strips.len() + s) * LINES;
            for (r, acc) in acc.iter().enumerate() {
                for (byte, &acc) in out[at + r / 4].0[r % 4 * BLOCK..].iter_mut().zip(acc) {
                    *byte = tops_protocol::work::gemm::quantise(acc, job.shift).cast_unsigned();
                }
            }
        }
    }
}

/// See [`super::isa::Isa::rows`].
pub(super) fn rows(job: &RowsJob<'_>, out: &mut [Line]) {
    for (tile, (states, out)) in job.states.chunks(64 * TILE).zip(out.chunks_exact_mut(job.blocks * LINES)).enumerate() {
        debug_assert!(tile * TILE * 64 < job.states.len());
        for (r, state) in states.as_chunks::<64>().0.iter().enumerate() {
            let words = state.as_chunks::<4>().0;
            let lane = |word: usize| -> [u32; 4] { core::array::from_fn(|stream| u32::from_le_bytes(words[4 * stream + word])) };
            let mut s = [lane(0), lane(1), lane(2), lane(3)];
            for out in out.chunks_exact_mut(LINES) {
                let out = &mut out[r / 4].0[r % 4 * BLOCK..][..BLOCK];
                for (bytes, word) in out.as_chunks_mut::<4>().0.iter_mut().zip(step(&mut s)) {
                    *bytes = (word ^ 0x8080_8080).to_le_bytes();
                }
            }
        }
    }
}

/// One step of four interleaved Xoshiro128++ streams, lane by lane.
fn step([s0, s1, s2, s3]: &mut [[u32; 4]; 4]) -> [u32; 4] {
    let mut out = [0; 4];
    for ((((out, s0), s1), s2), s3) in out.iter_mut().zip(s0).zip(s1).zip(s2).zip(s3) {
        *out = s0.wrapping_add(*s3).rotate_left(7).wrapping_add(*s0);
        let t = *s1 << 9;
        *s2 ^= *s0;
        *s3 ^= *s1;
        *s1 ^= *s2;
        *s0 ^= *s3;
        *s2 ^= t;
        *s3 = s3.rotate_left(11);
    }
    out
}
