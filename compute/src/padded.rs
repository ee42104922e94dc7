//! What the host does for a GPU that runs the original's work function (spec §2): streams, shuffles, and matrices padded with zeros.
//!
//! A GPU multiplies whole tiles, so rows, neurons and columns are padded to a multiple of its step. Zeros change no sum, and what padding
//! gives is never sampled. Nothing here touches a device.

use rayon::prelude::*;
use tops_protocol::Root;
use tops_protocol::work::v1::{self, AttemptV1, Mix, ShapeV1, Variant};

use crate::backend::DeviceFault;

/// Sizes are padded to a multiple of this: whole tiles of every GPU's product, in rows, columns and contraction.
const STEP: usize = 256;
/// Host memory that prepared attempts may take at once; later ones are prepared when these are done.
const PREPARED_LIMIT: usize = 512 << 20;

/// Padded sizes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Padded {
    pub(crate) rows: usize,
    pub(crate) n: usize,
    pub(crate) k: usize,
}

impl Padded {
    /// The sizes of `shape`.
    pub(crate) fn new(shape: ShapeV1) -> Self {
        let pad = |size: u32| (size as usize).next_multiple_of(STEP);
        Self { rows: pad(shape.m()), n: pad(shape.n()), k: pad(shape.k()) }
    }

    /// Host memory that an attempt takes while it is prepared: activations twice, and the draws of a shuffle.
    fn host_bytes(self) -> usize {
        self.rows * self.k * 2 + self.rows * self.n * 4
    }
}

/// What an attempt needs beside its weights.
pub(crate) struct Prepared {
    /// Activations, rows × k, padded; negated columns have −127 for −128.
    pub(crate) a: Vec<u8>,
    /// The mixed variant's negated columns, one byte each, padded: W1 has −127 for −128 there.
    pub(crate) marked: Option<Vec<u8>>,
    /// Which outputs are sampled, as they lie in padded rows.
    pub(crate) positions: Vec<u32>,
}

/// The roots of the attempts, in their order: each prepared over all cores, and finished by `root`, one after the other.
pub(crate) fn roots(
    attempts: &[AttemptV1],
    mut root: impl FnMut(ShapeV1, &Prepared) -> Result<Root, DeviceFault>,
) -> Result<Vec<Root>, DeviceFault> {
    let mut roots = Vec::with_capacity(attempts.len());
    let mut rest = attempts;
    while !rest.is_empty() {
        let (mut taken, mut bytes) = (0, 0);
        while taken < rest.len() && (taken == 0 || bytes + Padded::new(rest[taken].shape).host_bytes() <= PREPARED_LIMIT) {
            bytes += Padded::new(rest[taken].shape).host_bytes();
            taken += 1;
        }
        let (some, later) = rest.split_at(taken);
        let prepared: Vec<Prepared> = some.par_iter().map(prepare).collect();
        for (attempt, prepared) in some.iter().zip(&prepared) {
            roots.push(root(attempt.shape, prepared)?);
        }
        rest = later;
    }
    Ok(roots)
}

/// Makes everything of an attempt but its products.
fn prepare(attempt: &AttemptV1) -> Prepared {
    let shape = attempt.shape;
    let Padded { rows, n, k } = Padded::new(shape);
    let seed = v1::seed16(&attempt.prev_hash, attempt.nonce);
    let mix = match attempt.variant {
        Variant::Plain => None,
        Variant::Mixed => Some(Mix::new(&seed, shape.k())),
    };
    let mut a = vec![0; rows * k];
    for (row, to) in v1::activations(&seed, shape).chunks_exact(shape.k() as usize).zip(a.chunks_exact_mut(k)) {
        for (column, (&value, to)) in row.iter().zip(to).enumerate() {
            *to = mix.as_ref().map_or(value, |mix| mix.clamped(column, value)).cast_unsigned();
        }
    }
    let marked = mix.map(|mix| {
        let mut marked: Vec<u8> = mix.negated.iter().map(|&negated| negated.into()).collect();
        marked.resize(k, 0);
        marked
    });
    let mut positions = crate::sample::positions(&seed, shape);
    let padded_n = u32::try_from(n).unwrap_or_else(|_| unreachable!("padded sizes are at most 8192"));
    for position in &mut positions {
        *position = *position / shape.n() * padded_n + *position % shape.n();
    }
    Prepared { a, marked, positions }
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
