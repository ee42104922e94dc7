//! What the host does for a GPU that runs the original's work function (spec §2): streams, shuffles, and matrices padded with zeros.
//!
//! A GPU multiplies whole tiles, so rows, neurons and columns are padded to a multiple of its step. Zeros change no sum, and what padding
//! gives is never sampled. Nothing here touches a device.

use tops_protocol::work::v1::{self, AttemptV1, Mix, ShapeV1, Variant};

/// Padded sizes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Padded {
    pub(crate) rows: usize,
    pub(crate) n: usize,
    pub(crate) k: usize,
}

impl Padded {
    /// The sizes of `shape`, each to a multiple of `step`.
    pub(crate) fn new(shape: ShapeV1, step: usize) -> Self {
        let pad = |size: u32| (size as usize).next_multiple_of(step);
        Self { rows: pad(shape.m()), n: pad(shape.n()), k: pad(shape.k()) }
    }
}

/// What an attempt needs beside its weights.
pub(crate) struct Prepared {
    /// Activations, rows × k, padded; negated columns have −127 for −128.
    pub(crate) a: Vec<u8>,
    /// The mixed variant's negated columns, one byte each, padded: W1 has −127 for −128 there.
    pub(crate) marked: Option<Vec<u8>>,
    /// Which of the m × n outputs are sampled.
    pub(crate) positions: Vec<u32>,
}

/// Makes everything of an attempt but its products.
pub(crate) fn prepare(attempt: &AttemptV1, step: usize) -> Prepared {
    let shape = attempt.shape;
    let Padded { rows, k: padded_k, .. } = Padded::new(shape, step);
    let seed = v1::seed16(&attempt.prev_hash, attempt.nonce);
    let mix = match attempt.variant {
        Variant::Plain => None,
        Variant::Mixed => Some(Mix::new(&seed, shape.k())),
    };
    let mut a = vec![0; rows * padded_k];
    for (row, to) in v1::activations(&seed, shape).chunks_exact(shape.k() as usize).zip(a.chunks_exact_mut(padded_k)) {
        for (column, (&value, to)) in row.iter().zip(to).enumerate() {
            *to = mix.as_ref().map_or(value, |mix| mix.clamped(column, value)).cast_unsigned();
        }
    }
    let marked = mix.map(|mix| {
        let mut marked: Vec<u8> = mix.negated.iter().map(|&negated| negated.into()).collect();
        marked.resize(padded_k, 0);
        marked
    });
    Prepared { a, marked, positions: crate::sample::positions(&seed, shape) }
}

/// `w` (inputs × columns, row-major) as one row an output neuron, padded to `rows` rows of `inputs`; neuron j lies in row `place(j)`.
pub(crate) fn transposed(w: &[i8], columns: usize, [rows, inputs]: [usize; 2], place: impl Fn(usize) -> usize) -> Vec<u8> {
    let mut out = vec![0; rows * inputs];
    // In strips of neurons, so that what is read together is used together.
    for first in (0..columns).step_by(64) {
        for (input, line) in w.chunks_exact(columns).enumerate() {
            for neuron in first..(first + 64).min(columns) {
                out[place(neuron) * inputs + input] = line[neuron].cast_unsigned();
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transposing_pads_with_zeros() {
        // Two inputs of three neurons.
        let w = [1, 2, 3, -4, -5, -6];
        let out = transposed(&w, 3, [4, 4], |neuron| 3 - neuron);
        assert_eq!(out.map_rows(4), [[0, 0, 0, 0], [3, 250, 0, 0], [2, 251, 0, 0], [1, 252, 0, 0]]);
    }

    trait MapRows {
        fn map_rows(&self, columns: usize) -> Vec<[u8; 4]>;
    }

    impl MapRows for Vec<u8> {
        fn map_rows(&self, columns: usize) -> Vec<[u8; 4]> {
            self.chunks_exact(columns).map(|row| [row[0], row[1], row[2], row[3]]).collect()
        }
    }
}
