//! The original worker's function, `gemm_int8_relu_q_v1` (spec §2): for the solo worker and for checking its receipts.
//!
//! It is bit-exact to the original with its weaknesses, so the network never takes it. Whole attempts are [`root`]; what a device
//! computes in its own way is in pieces: [`activations`], [`WeightsV1`], [`Mix`], [`sample_positions`], [`sample_root`].
//!
//! The mixed variant permutes and negates the columns of A and the rows of W1 alike. The permutation cancels in the product, and so
//! does the negation, but for −128: a negated column computes with −127 in its place on both sides ([`Mix::clamped`]).

use alloc::vec;
use alloc::vec::Vec;

use rand_chacha::ChaCha12Rng;
use rand_xoshiro::Xoshiro128PlusPlus;
use rand08::seq::SliceRandom;
use rand08::{RngCore, SeedableRng};

use crate::types::Root;

/// The name of this work function in receipts (`kernel_ver`).
pub const KERNEL_VER: &str = "gemm_int8_relu_q_v1";

/// How many outputs the root samples, where there are so many.
pub const SAMPLE_LEN: usize = 256;

/// Outputs are accumulators divided by 256, clamped to 0..=127: for what is not negative, a right shift.
pub const SHIFT: u32 = 8;

/// A v1 shape: A is m × k, W1 k × n, W2 n × n.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShapeV1 {
    m: u32,
    n: u32,
    k: u32,
}

impl ShapeV1 {
    /// The original's default.
    pub const DEFAULT: Self = Self { m: 1024, n: 1024, k: 1024 };

    /// `None` unless each is in 1..=8192.
    pub fn new(m: u32, n: u32, k: u32) -> Option<Self> {
        [m, n, k].iter().all(|x| (1..=8192).contains(x)).then_some(Self { m, n, k })
    }
    /// Rows of activations.
    pub fn m(self) -> u32 {
        self.m
    }
    /// Output neurons of both layers.
    pub fn n(self) -> u32 {
        self.n
    }
    /// Columns of activations.
    pub fn k(self) -> u32 {
        self.k
    }
    /// Operations of one attempt: 2·m·k·n + 2·m·n·n.
    pub fn ops(self) -> u64 {
        let (m, n, k) = (u64::from(self.m), u64::from(self.n), u64::from(self.k));
        2 * m * k * n + 2 * m * n * n
    }
    fn sizes(self) -> (usize, usize, usize) {
        (self.m as usize, self.n as usize, self.k as usize)
    }
}

/// Which build of the original made a receipt; receipts do not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Variant {
    /// As published.
    Plain,
    /// As deployed: columns permuted and negated first.
    Mixed,
}

/// Everything that a v1 attempt depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttemptV1 {
    /// The head that it builds on.
    pub prev_hash: Root,
    /// Its number.
    pub nonce: u32,
    /// Its shape.
    pub shape: ShapeV1,
    /// Which build of the original.
    pub variant: Variant,
}

/// Both layers of one shape, i8, in the original's order: one column per output neuron.
#[derive(Clone, PartialEq, Eq)]
pub struct WeightsV1 {
    n: u32,
    k: u32,
    w1: Vec<i8>,
    w2: Vec<i8>,
}

impl WeightsV1 {
    /// Makes the weights of `shape`: one stream gives W1, then W2. They do not depend on m.
    pub fn new(shape: ShapeV1) -> Self {
        let (_, n, k) = shape.sizes();
        let mut stream = Xoshiro128PlusPlus::from_seed(first16(&blake3::hash(b"FIXED_WEIGHTS_V1")));
        let w1 = low_bytes(&mut stream, k * n);
        let w2 = low_bytes(&mut stream, n * n);
        Self { n: shape.n, k: shape.k, w1, w2 }
    }
    /// The first layer, k × n, row-major.
    pub fn w1(&self) -> &[i8] {
        &self.w1
    }
    /// The second layer, n × n, row-major.
    pub fn w2(&self) -> &[i8] {
        &self.w2
    }
    /// Whether these are the weights of `shape`.
    pub fn fit(&self, shape: ShapeV1) -> bool {
        (self.n, self.k) == (shape.n, shape.k)
    }
}

impl core::fmt::Debug for WeightsV1 {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "WeightsV1({}x{}, {}x{})", self.k, self.n, self.n, self.n)
    }
}

/// The mixed variant's change of A's columns and W1's rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mix {
    /// New column j is old column `from[j]`.
    pub from: Vec<u32>,
    /// Whether an old column is negated on its way.
    pub negated: Vec<bool>,
}

impl Mix {
    /// The mix of an attempt with k columns.
    pub fn new(seed16: &[u8; 16], k: u32) -> Self {
        let mut from: Vec<u32> = (0..k).collect();
        from.shuffle(&mut shuffler(seed16));
        let mut stream = Xoshiro128PlusPlus::from_seed(*seed16);
        let negated = (0..k).map(|_| stream.next_u32() & 1 == 1).collect();
        Self { from, negated }
    }
    /// A value of old column `column` as it enters the product: −(−128) is 127.
    pub fn apply(&self, column: usize, value: i8) -> i8 {
        if self.negated[column] { value.checked_neg().unwrap_or(i8::MAX) } else { value }
    }
    /// The value which, left in place and not negated, gives the same products as [`Mix::apply`] on both sides.
    pub fn clamped(&self, column: usize, value: i8) -> i8 {
        if self.negated[column] { value.max(-127) } else { value }
    }
}

/// `H(prev_hash[32] ‖ nonce u32)[..16]`.
pub fn seed16(prev_hash: &Root, nonce: u32) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&prev_hash.0);
    hasher.update(&nonce.to_le_bytes());
    first16(&hasher.finalize())
}

/// `A`, m × k, row-major: the low byte of each word of one stream.
pub fn activations(seed16: &[u8; 16], shape: ShapeV1) -> Vec<i8> {
    let (m, _, k) = shape.sizes();
    low_bytes(&mut Xoshiro128PlusPlus::from_seed(*seed16), m * k)
}

/// `min(127, max(0, X·W) / 256)` with X `m × k` and W `k × n`, row-major.
pub fn layer(x: &[i8], w: &[i8], n: usize, k: usize) -> Vec<i8> {
    let mut y = Vec::with_capacity(x.len() / k * n);
    let mut acc = vec![0_i32; n];
    for row in x.chunks_exact(k) {
        acc.fill(0);
        for (&value, neurons) in row.iter().zip(w.chunks_exact(n)) {
            for (sum, &weight) in acc.iter_mut().zip(neurons) {
                *sum += i32::from(value) * i32::from(weight);
            }
        }
        y.extend(acc.iter().map(|&sum| super::gemm::quantise(sum, SHIFT)));
    }
    y
}

/// Where the root samples the m × n outputs (row-major positions): the first 256 of a shuffle, or all where there are fewer.
pub fn sample_positions(seed16: &[u8; 16], shape: ShapeV1) -> Vec<u32> {
    let mut positions: Vec<u32> = (0..shape.m * shape.n).collect();
    positions.shuffle(&mut shuffler(seed16));
    positions.truncate(SAMPLE_LEN);
    positions
}

/// `H(sample ‖ m u64 ‖ n u64 ‖ k u64)`.
pub fn sample_root(sample: &[u8], shape: ShapeV1) -> Root {
    let mut hasher = blake3::Hasher::new();
    hasher.update(sample);
    for size in [shape.m, shape.n, shape.k] {
        hasher.update(&u64::from(size).to_le_bytes());
    }
    Root(*hasher.finalize().as_bytes())
}

/// The work root of one attempt; makes the weights anew, which costs little beside the products.
pub fn root(prev_hash: &Root, nonce: u32, shape: ShapeV1, variant: Variant) -> Root {
    root_with(&AttemptV1 { prev_hash: *prev_hash, nonce, shape, variant }, &WeightsV1::new(shape))
}

/// The work root of one attempt with weights made before. Weights of another shape give a value that is no root of this attempt.
pub fn root_with(attempt: &AttemptV1, weights: &WeightsV1) -> Root {
    let shape = attempt.shape;
    let (_, n, k) = shape.sizes();
    let seed = seed16(&attempt.prev_hash, attempt.nonce);
    let a = activations(&seed, shape);
    let y1 = match attempt.variant {
        Variant::Plain => layer(&a, weights.w1(), n, k),
        Variant::Mixed => {
            let mix = Mix::new(&seed, shape.k);
            let mixed_a: Vec<i8> =
                a.chunks_exact(k).flat_map(|row| mix.from.iter().map(|&c| mix.apply(c as usize, row[c as usize]))).collect();
            let mixed_w1: Vec<i8> = mix
                .from
                .iter()
                .flat_map(|&c| weights.w1()[c as usize * n..][..n].iter().map(|&w| mix.apply(c as usize, w)).collect::<Vec<_>>())
                .collect();
            layer(&mixed_a, &mixed_w1, n, k)
        }
    };
    let y2 = layer(&y1, weights.w2(), n, n);
    let sample: Vec<u8> = sample_positions(&seed, shape).into_iter().map(|p| y2[p as usize].cast_unsigned()).collect();
    sample_root(&sample, shape)
}

/// A fresh `StdRng` of rand 0.8 from `H(seed16)`.
fn shuffler(seed16: &[u8; 16]) -> ChaCha12Rng {
    ChaCha12Rng::from_seed(*blake3::hash(seed16).as_bytes())
}

fn first16(hash: &blake3::Hash) -> [u8; 16] {
    let mut out = [0; 16];
    out.copy_from_slice(&hash.as_bytes()[..16]);
    out
}

fn low_bytes(stream: &mut Xoshiro128PlusPlus, len: usize) -> Vec<i8> {
    (0..len).map(|_| stream.next_u32().to_le_bytes()[0].cast_signed()).collect()
}
