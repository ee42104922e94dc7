//! Attempts of the original's work function (spec §2) through the same products.
//!
//! Sequential streams and shuffles stay on the host; the two products run on the device, one attempt after the other, on matrices padded
//! with zeros to whole tiles, and of the outputs only the sample comes back. Meant for the solo worker and for checking its receipts: never
//! for the network.

use std::collections::VecDeque;

use tops_kernels::opencl::physical_row;
use tops_protocol::Root;
use tops_protocol::work::v1::{self, ShapeV1, WeightsV1};

use super::attempts::Pacer;
use super::launch::{self, Layer};
use super::{Buffer, Card};
use crate::backend::DeviceFault;
use crate::padded::{self, Padded, Prepared};

/// Shapes whose weights are kept; the one unused for longest goes first.
const KEPT_SHAPES: usize = 2;

/// Weights of v1 shapes on one card.
#[derive(Default)]
pub(super) struct Originals {
    kept: VecDeque<Layers>,
}

/// Both layers, transposed to a row per output neuron, padded, in the order that the product reads.
struct Layers {
    n: u32,
    k: u32,
    first: Buffer,
    second: Buffer,
}

impl Originals {
    /// The root of one attempt.
    pub(super) fn root(&mut self, card: &Card, pacer: &mut Pacer, shape: ShapeV1, prepared: &Prepared) -> Result<Root, DeviceFault> {
        let layers = self.layers(card, shape)?;
        let Padded { rows, n, k } = Padded::new(shape);
        let wide = |size: usize| u32::try_from(size).unwrap_or_else(|_| unreachable!("padded sizes are at most 8192"));
        let (a, y1, y2) = (card.allocate(rows * k)?, card.allocate(rows * n)?, card.allocate(rows * n)?);
        let (positions, sample) = (card.allocate(prepared.positions.len() * 4)?, card.allocate(prepared.positions.len())?);
        let clamped = match &prepared.marked {
            None => None,
            Some(marked) => Some((marked, card.allocate(k)?, card.allocate(n * k)?)),
        };
        card.upload(&prepared.a, &a)?;
        let places: Vec<u8> = prepared.positions.iter().flat_map(|position| position.to_le_bytes()).collect();
        card.upload(&places, &positions)?;
        if let Some((marked, on_card, out)) = &clamped {
            card.upload(marked, on_card)?;
            pacer.short(card, &launch::clamp_columns(&layers.first, on_card, wide(n), wide(k), out))?;
        }
        let first = clamped.as_ref().map_or(&layers.first, |(_, _, out)| out);
        pacer.product(card, [&a, first, &y1], Layer { rows, n: wide(n), k: wide(k), shift: v1::SHIFT }, None)?;
        pacer.product(card, [&y1, &layers.second, &y2], Layer { rows, n: wide(n), k: wide(n), shift: v1::SHIFT }, None)?;
        pacer.short(card, &launch::pick_values(&y2, rows * n, &positions, prepared.positions.len(), &sample))?;
        pacer.finish(card)?;
        let mut values = vec![0; prepared.positions.len()];
        card.download(&sample, &mut values)?;
        Ok(v1::sample_root(&values, shape))
    }

    fn layers(&mut self, card: &Card, shape: ShapeV1) -> Result<&Layers, DeviceFault> {
        match self.kept.iter().position(|kept| (kept.n, kept.k) == (shape.n(), shape.k())) {
            Some(at) => self.kept.swap(0, at),
            None => {
                self.kept.truncate(KEPT_SHAPES - 1);
                let weights = WeightsV1::new(shape);
                let Padded { n, k, .. } = Padded::new(shape);
                let (first, second) = (card.allocate(n * k)?, card.allocate(n * n)?);
                let columns = shape.n() as usize;
                let place = |neuron| if card.product.permuted() { physical_row(neuron) } else { neuron };
                card.upload(&padded::transposed(weights.w1(), columns, [n, k], place), &first)?;
                card.upload(&padded::transposed(weights.w2(), columns, [n, n], place), &second)?;
                self.kept.push_front(Layers { n: shape.n(), k: shape.k(), first, second });
            }
        }
        self.kept.front().ok_or_else(|| unreachable!("put there above"))
    }
}
