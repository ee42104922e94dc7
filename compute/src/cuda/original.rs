//! Attempts of the original's work function (spec §2) through the same products.
//!
//! Sequential streams and shuffles stay on the host, over all its cores; the two products run on the device, one attempt after the
//! other, on matrices padded with zeros to whole tiles. Of the outputs only the sample is kept. Meant for the solo worker and for checking
//! its receipts: never for the network.

use std::collections::VecDeque;

use tops_kernels::cuda::physical_row;
use tops_protocol::Root;
use tops_protocol::work::v1::{self, AttemptV1, ShapeV1, WeightsV1};

use super::launch::{self, Product};
use super::{Buffer, Card};
use crate::backend::DeviceFault;
use crate::padded::{self, Padded, Prepared};

/// Shapes whose weights are kept; the one unused for longest goes first.
const KEPT_SHAPES: usize = 4;

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

impl Originals {
    /// The roots of the attempts, in their order.
    pub(super) fn roots(&mut self, card: &Card, attempts: &[AttemptV1]) -> Result<Vec<Root>, DeviceFault> {
        padded::roots(attempts, |shape, prepared| self.root(card, shape, prepared))
    }

    fn root(&mut self, card: &Card, shape: ShapeV1, prepared: &Prepared) -> Result<Root, DeviceFault> {
        let layers = self.layers(card, shape)?;
        let Padded { rows, n, k } = Padded::new(shape);
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
        let sample: Vec<u8> = prepared.positions.iter().map(|&position| outputs[position as usize]).collect();
        Ok(v1::sample_root(&sample, shape))
    }

    fn layers(&mut self, card: &Card, shape: ShapeV1) -> Result<&Layers, DeviceFault> {
        match self.kept.iter().position(|kept| (kept.n, kept.k) == (shape.n(), shape.k())) {
            Some(at) => self.kept.swap(0, at),
            None => {
                self.kept.truncate(KEPT_SHAPES - 1);
                let weights = WeightsV1::new(shape);
                let Padded { n, k, .. } = Padded::new(shape);
                let row = |neuron| if card.architecture.permuted() { physical_row(neuron) } else { neuron };
                let place = |w: &[i8], inputs: usize| {
                    let bytes = padded::transposed(w, shape.n() as usize, [n, inputs], row);
                    let buffer = card.allocate(bytes.len())?;
                    card.upload(&bytes, &buffer)?;
                    Ok::<_, DeviceFault>(buffer)
                };
                let (first, second) = (place(weights.w1(), k)?, place(weights.w2(), n)?);
                self.kept.push_front(Layers { n: shape.n(), k: shape.k(), first, second });
            }
        }
        self.kept.front().ok_or_else(|| unreachable!("put there above"))
    }
}
