//! The range: hundreds of real engines on a model of the world, in virtual time, with and without adversaries.
//!
//! ```text
//!   earth ─ delays ─▶ ┌───────────── World ─────────────┐ ─▶ report: delivery, spread, forks, bans, credit, gain, agreement
//!   plan ── who ────▶ │ mesh · offers · sync · devices  │
//!   brain ─ tricks ─▶ └── Engine × N, real receipts ────┘
//! ```
//!
//! Engines, receipts, signatures and roots are real, at the devnet shape; an attempt, a signature and a root are computed once for all engines. Wires,
//! clocks, devices' times and scores of peers are modelled (docs/reliability.md says how). One thread, one seed, the same run everywhere. Unlike
//! [`crate::sim`], which is after the order of disks and wires in a crash, this is after numbers: how fast, how often, what a cheater gains.

mod brain;
mod carry;
mod earth;
mod node;
mod plan;
mod report;
mod tricks;
mod world;

pub use plan::{Kind, Plan};
pub use report::{Report, Summary};
pub use world::World;
