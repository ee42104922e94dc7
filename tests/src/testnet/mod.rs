//! The yard's conductor: real processes on one machine, watched over HTTP, judged at the end.
//!
//! ```text
//!   gate ◀── miner 1 (bridge) ── miner 2 … ── light node          aggregator ◀── miner 1
//!              └──────── GET /v1/status, /v1/receipts … ──────────┴──▶ conductor: a line a second, then the checks, then the summary
//! ```
//!
//! It changes nothing that an operator could not change: flags, signals, and `POST /v1/mining`.

pub(crate) mod checks;
mod outage;
pub mod process;
pub(crate) mod run;

pub use outage::NAMESPACE;
pub use process::Binaries;
pub use run::{Options, Scenario, Summary, conduct};
