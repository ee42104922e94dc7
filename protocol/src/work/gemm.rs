//! One layer (spec §1.4): a product with i32 accumulation, ReLU, right shift, clamp to 127.
//!
//! No sum can overflow: at most 8192 terms of magnitude at most 2^14 stay below 2^27.

use alloc::vec::Vec;

/// `min(127, max(0, X·Wᵀ) >> shift)` with X `m × k` and W `n × k`, both row-major; the result is `m × n`, row-major.
pub fn layer(x: &[i8], w: &[i8], m: usize, n: usize, k: usize, shift: u32) -> Vec<i8> {
    let mut y = Vec::with_capacity(m * n);
    for row in x.chunks_exact(k).take(m) {
        for neuron in w.chunks_exact(k).take(n) {
            y.push(quantise(dot(row, neuron), shift));
        }
    }
    y
}

/// `min(127, max(0, acc) >> shift)`.
pub fn quantise(acc: i32, shift: u32) -> i8 {
    i8::try_from(acc.max(0) >> shift).unwrap_or(i8::MAX)
}

fn dot(x: &[i8], w: &[i8]) -> i32 {
    x.iter().zip(w).map(|(&x, &w)| i32::from(x) * i32::from(w)).sum()
}
