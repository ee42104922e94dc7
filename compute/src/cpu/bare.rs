//! One bare product, for benches that compare it with other libraries' products: no generation, no hashing.

use super::isa::{Isa, LayerJob};
use super::layout::{BLOCK, Inputs, Line, Packed, TILE, lines};

/// A product of `rows` × `cols` activations with `cols` × `neurons` weights, ReLU and shift included, on the calling thread.
pub struct Bare {
    isa: Isa,
    x: Vec<Line>,
    weights: Packed,
    y: Vec<Line>,
}

impl Bare {
    /// Made-up operands of full range. `rows` is a multiple of 8, `cols` and `neurons` of 16.
    pub fn new(isa: Isa, rows: usize, neurons: usize, cols: usize) -> Self {
        let mix = |i: usize| ((i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8;
        let tiles = rows / TILE;
        let x = (0..lines(tiles, cols / BLOCK)).map(|i| Line(core::array::from_fn(|j| mix(i * 64 + j)))).collect();
        let weights = Packed::new(neurons, cols, Inputs::Biased, |j, c| mix(j * cols + c + 7).cast_signed());
        let y = vec![Line::ZERO; lines(tiles, weights.strips)];
        Self { isa, x, weights, y }
    }

    /// Computes the product once.
    pub fn run(&mut self) {
        let strips = 0..self.weights.strips;
        self.isa.layer(&LayerJob { x: &self.x, weights: &self.weights, strips, shift: 13 }, &mut self.y);
        std::hint::black_box(&self.y);
    }
}
