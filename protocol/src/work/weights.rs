//! Weights (spec §1.3): constants of the shape, one row per output neuron.
//!
//! Those of `standard` are 32 MiB and take a few tens of milliseconds to make: callers make them once and share them.

use alloc::vec::Vec;

use crate::types::Shape;

/// Both layers of one shape, i8, row-major, one row per output neuron.
#[derive(Clone, PartialEq, Eq)]
pub struct Weights {
    n: u32,
    k: u32,
    w1: Vec<i8>,
    w2: Vec<i8>,
}

impl Weights {
    /// Makes the weights of `shape`: `n·k + n·n` bytes. They do not depend on m.
    pub fn new(shape: Shape) -> Self {
        let (n, k) = (shape.n(), shape.k());
        Self { n, k, w1: layer(1, n, k), w2: layer(2, n, n) }
    }
    /// The first layer, n × k.
    pub fn w1(&self) -> &[i8] {
        &self.w1
    }
    /// The second layer, n × n.
    pub fn w2(&self) -> &[i8] {
        &self.w2
    }
    /// Whether these are the weights of `shape`.
    pub fn fit(&self, shape: Shape) -> bool {
        (self.n, self.k) == (shape.n(), shape.k())
    }
}

impl core::fmt::Debug for Weights {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Weights({}x{}, {}x{})", self.n, self.k, self.n, self.n)
    }
}

/// The XOF whose bytes `[64i, 64i + 64)` are the stream states of row i: `DK("weight rows", layer u8 ‖ n u32 ‖ cols u32)`.
pub fn row_states(layer: u8, n: u32, cols: u32) -> blake3::OutputReader {
    source(layer, n, cols).finalize_xof()
}

fn source(layer: u8, n: u32, cols: u32) -> blake3::Hasher {
    let mut hasher = super::derive_key("weight rows");
    hasher.update(&[layer]);
    hasher.update(&n.to_le_bytes());
    hasher.update(&cols.to_le_bytes());
    hasher
}

/// One layer, n × cols, row-major.
pub fn layer(layer: u8, n: u32, cols: u32) -> Vec<i8> {
    super::activations::rows(&source(layer, n, cols), n as usize, cols as usize)
}
