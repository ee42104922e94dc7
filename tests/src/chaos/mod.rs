//! The range of real processes whose links are cut and whose hosts are killed (network namespaces, one machine, one seed).
//!
//! ```text
//!   plan (seed) ──▶ range: starts, splits, cuts, kills, restarts, heals ──▶ judge: one head, one ledger, nothing flushed lost, bounds kept
//!                     └── ground: namespaces, veth pairs, bridges
//! ```
//!
//! Beside it [`light`]: what following a network at `main`'s rate costs a light node, in a control group that allows it a quarter of a core.

pub mod cgroup;
pub mod ground;
mod judge;
pub mod light;
pub mod memory;
pub mod plan;
mod range;

pub use range::{Options, Summary, conduct};
