//! The work functions: what one attempt is, computed slowly, obviously and exactly.
//!
//! ```text
//! Attempt ──seed──▶ UnitId ──activations──▶ A ──gemm W1──▶ Y1 ──gemm W2──▶ Y2 ──root──▶ digest ──▶ Root
//! ```
//!
//! This is the reference that every device is held to, byte for byte, and the second path that repeats a mismatch before anybody is
//! called a liar. It never looks at the machine and never trades clarity for speed: the fast paths live in the compute crate.
//! [`v1`] is the original worker's function, for its receipts only.

pub mod activations;
pub mod gemm;
pub mod root;
pub mod seed;
pub mod v1;
pub mod weights;

pub use root::{finish_root, output_digest, panels};
pub use seed::unit_id;
pub use weights::Weights;

use alloc::vec::Vec;

use crate::types::{Attempt, Root, UnitId};

/// The name of this work function in receipts (`kernel_ver`).
pub const KERNEL_VER: &str = "gemm_int8_relu_q_v2";

/// An attempt with everything that was computed on the way (spec §1). Matrices are row-major.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    /// The attempt seed, which is the unit's id.
    pub seed: UnitId,
    /// Activations, m × k.
    pub a: Vec<i8>,
    /// The first layer's output, m × n, each 0..=127.
    pub y1: Vec<i8>,
    /// The second layer's output, m × n, each 0..=127.
    pub y2: Vec<i8>,
    /// BLAKE3 of `y2` by panels.
    pub digest: [u8; 32],
    /// The work root.
    pub root: Root,
}

/// Computes one attempt and keeps what was computed on the way.
///
/// `weights` must be those of the attempt's shape; weights of another shape give a value that is no root of this attempt.
pub fn attempt(attempt: &Attempt, weights: &Weights) -> Trace {
    let shape = attempt.shape;
    let (m, n, k) = (shape.m() as usize, shape.n() as usize, shape.k() as usize);
    let [s1, s2] = shape.shifts();
    let seed = seed::unit_id(attempt);
    let a = activations::activations(&seed, shape);
    let y1 = gemm::layer(&a, weights.w1(), m, n, k, s1);
    let y2 = gemm::layer(&y1, weights.w2(), m, n, n, s2);
    let digest = root::output_digest(&y2, m, n);
    let root = root::finish_root(&seed, &digest);
    Trace { seed, a, y1, y2, digest, root }
}

/// The work root of one attempt, by the reference.
pub fn root(attempt: &Attempt, weights: &Weights) -> Root {
    self::attempt(attempt, weights).root
}

/// `DK(name, ·)` as a hasher (spec, notation).
fn derive_key(name: &str) -> blake3::Hasher {
    blake3::Hasher::new_derive_key(&crate::network::derive_key_context(name))
}
