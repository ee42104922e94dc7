//! Many real engines, one thread, virtual time, one seed.
//!
//! ```text
//!            ┌ gossip: delay, loss, duplicates, partition ┐
//!  Engine ◀──┤ sync: questions and answers, some fail     ├──▶ Engine      each with its memory store, clock skew and key
//!            └ devices: audits take time, some cannot     ┘
//! ```
//!
//! Everything is real but the wires, the clock and the disk: engines, stores, receipts, signatures, and the work function at the
//! devnet shape with targets so easy that a head comes every few attempts. A seed gives the same run on every machine. What must hold is in [`invariants`], a file
//! each; what cheaters do is in [`cheat`].

pub mod cheat;
pub mod invariants;
mod node;
mod plan;
mod truth;
mod world;

pub use node::{Bytes, Node};
pub use plan::Plan;
pub use truth::Truth;
pub use world::World;

/// The environment variable that re-runs one seed.
pub const SEED_VARIABLE: &str = "TOPS_SIM_SEED";

/// The seeds to run: `range`, or only the one in [`SEED_VARIABLE`].
///
/// # Panics
/// When the variable is no number.
pub fn seeds(range: std::ops::Range<u64>) -> Vec<u64> {
    match std::env::var(SEED_VARIABLE) {
        Ok(seed) => match seed.parse() {
            Ok(seed) => vec![seed],
            Err(_) => panic!("{SEED_VARIABLE} must be a number"),
        },
        Err(_) => range.collect(),
    }
}

/// Runs `check` for every seed, also after one failed; says which failed and how to run each again.
///
/// # Panics
/// When a seed fails.
pub fn for_seeds(range: std::ops::Range<u64>, check: impl Fn(u64)) {
    let mut failed = Vec::new();
    for seed in seeds(range) {
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| check(seed))).is_err() {
            eprintln!("seed {seed} fails; run it alone with {SEED_VARIABLE}={seed}");
            failed.push(seed);
        }
    }
    assert!(failed.is_empty(), "these seeds fail: {failed:?}");
}
