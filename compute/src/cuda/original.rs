//! Attempts of the original's work function (spec §2) through the same products.
//!
//! Sequential streams and shuffles stay on the host, over all its cores; the two products run on the device, one attempt after the
//! other, on matrices padded with zeros to whole tiles. Of the outputs only the sample is kept. Meant for the solo worker and for checking
//! its receipts: never for the network.

use std::collections::VecDeque;

use rayon::prelude::*;
use tops_kernels::cuda::physical_row;
use tops_protocol::Root;
use tops_protocol::work::v1::{self, AttemptV1, Mix, ShapeV1, Variant, WeightsV1};

use super::launch::{self, Product};
use super::{Buffer, Card};
use crate::backend::DeviceFault;

/// Sizes are padded to a multiple of this: whole tiles of every product, in rows, columns and contraction.
const PADDING: usize = 256;
/// Shapes whose weights are kept; the one unused for longest goes first.
const KEPT_SHAPES: usize = 4;
/// Host memory that prepared attempts may take at once.
const PREPARED_LIMIT: usize = 512 << 20;

/// Weights of v1 shapes on one card.
#[derive(Default)]
pub(super) struct Originals {
    kept: VecDeque<Layers>,
}

/// Both layers, transposed to a row per output neuron, padded, in the order that the products read.
struct Layers {
    n: u32,
    k: u32,
    first: Buffer,
    second: Buffer,
}

/// What the host makes of an attempt.
struct Prepared {
    /// Activations, padded.
    a: Vec<u8>,
    /// The mixed variant's negated columns, padded.
    marked: Option<Vec<u8>>,
    positions: Vec<u32>,
}

impl Originals {
    /// The roots of the attempts, in their order.
    pub(super) fn roots(&mut self, card: &Card, attempts: &[AttemptV1]) -> Result<Vec<Root>, DeviceFault> {
        let mut roots = Vec::with_capacity(attempts.len());
        let mut rest = attempts;
        while !rest.is_empty() {
            let (mut taken, mut bytes) = (0, 0);
            while taken < rest.len() && (taken == 0 || bytes + host_bytes(rest[taken].shape) <= PREPARED_LIMIT) {
                bytes += host_bytes(rest[taken].shape);
                taken += 1;
            }
            let (some, later) = rest.split_at(taken);
            let prepared: Vec<Prepared> = some.par_iter().map(prepare).collect();
            for (attempt, prepared) in some.iter().zip(&prepared) {
                roots.push(self.root(card, attempt.shape, prepared)?);
            }
            rest = later;
        }
        Ok(roots)
    }

    fn root(&mut self, card: &Card, shape: ShapeV1, prepared: &Prepared) -> Result<Root, DeviceFault> {
        let layers = self.layers(card, shape)?;
        let (rows, n, k) = padded(shape);
        let wide = |size: usize| u32::try_from(size).unwrap_or_else(|_| unreachable!("sizes are at most 8192"));
        let (a, y1, y2) = (card.allocate(rows * k)?, card.allocate(rows * n)?, card.allocate(rows * n)?);
        card.upload(&prepared.a, &a)?;
        let clamped = match &prepared.marked {
            None => None,
            Some(marked) => {
                let (on_card, out) = (card.allocate(k)?, card.allocate(n * k)?);
                card.upload(marked, &on_card)?;
                card.launch(&launch::clamp_columns(&layers.first, &on_card, n, wide(k), &out))?;
                Some((on_card, out))
            }
        };
        let first = clamped.as_ref().map_or(&layers.first, |(_, out)| out);
        card.launch(&launch::product(card, &a, first, &y1, Product { rows, n: wide(n), k: wide(k), shift: v1::SHIFT }))?;
        card.launch(&launch::product(card, &y1, &layers.second, &y2, Product { rows, n: wide(n), k: wide(n), shift: v1::SHIFT }))?;
        card.wait(&card.mark()?)?;
        let mut outputs = vec![0; shape.m() as usize * n];
        card.download(&y2, &mut outputs)?;
        let columns = shape.n() as usize;
        let sample: Vec<u8> = prepared
            .positions
            .iter()
            .map(|&position| {
                let (row, column) = (position as usize / columns, position as usize % columns);
                outputs[row * n + column]
            })
            .collect();
        Ok(v1::sample_root(&sample, shape))
    }

    fn layers(&mut self, card: &Card, shape: ShapeV1) -> Result<&Layers, DeviceFault> {
        match self.kept.iter().position(|kept| (kept.n, kept.k) == (shape.n(), shape.k())) {
            Some(at) => self.kept.swap(0, at),
            None => {
                self.kept.truncate(KEPT_SHAPES - 1);
                let weights = WeightsV1::new(shape);
                let (_, n, k) = padded(shape);
                let permuted = card.architecture.permuted();
                let place = |w: &[i8], inputs: usize, padded_inputs: usize| {
                    let bytes = transposed(w, shape.n() as usize, inputs, n, padded_inputs, permuted);
                    let buffer = card.allocate(bytes.len())?;
                    card.upload(&bytes, &buffer)?;
                    Ok::<_, DeviceFault>(buffer)
                };
                let first = place(weights.w1(), shape.k() as usize, k)?;
                let second = place(weights.w2(), shape.n() as usize, n)?;
                self.kept.push_front(Layers { n: shape.n(), k: shape.k(), first, second });
            }
        }
        self.kept.front().ok_or_else(|| unreachable!("put there above"))
    }
}

/// Padded rows, n and k.
fn padded(shape: ShapeV1) -> (usize, usize, usize) {
    let pad = |size: u32| (size as usize).next_multiple_of(PADDING);
    (pad(shape.m()), pad(shape.n()), pad(shape.k()))
}

/// Host memory that an attempt takes while it is prepared: activations, and the positions that are shuffled.
fn host_bytes(shape: ShapeV1) -> usize {
    let (rows, n, k) = padded(shape);
    rows * k * 2 + rows * n * 4
}

fn prepare(attempt: &AttemptV1) -> Prepared {
    let shape = attempt.shape;
    let (rows, _, padded_k) = padded(shape);
    let k = shape.k() as usize;
    let seed = v1::seed16(&attempt.prev_hash, attempt.nonce);
    let mix = match attempt.variant {
        Variant::Plain => None,
        Variant::Mixed => Some(Mix::new(&seed, shape.k())),
    };
    let mut a = vec![0; rows * padded_k];
    for (row, to) in v1::activations(&seed, shape).chunks_exact(k).zip(a.chunks_exact_mut(padded_k)) {
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

/// `w` (inputs × n, row-major) as n_padded rows of padded inputs, in the order that the products read.
fn transposed(w: &[i8], n: usize, inputs: usize, n_padded: usize, inputs_padded: usize, permuted: bool) -> Vec<u8> {
    let mut out = vec![0; n_padded * inputs_padded];
    for neuron in 0..n {
        let row = if permuted { physical_row(neuron) } else { neuron };
        for (input, to) in out[row * inputs_padded..][..inputs].iter_mut().enumerate() {
            *to = w[input * n + neuron].cast_unsigned();
        }
    }
    out
}
