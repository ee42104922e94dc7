//! Many whole nodes in one process, over libp2p's memory transport, on wires that a seed makes worse.
//!
//! ```text
//!   pace ──a true hit──▶ node: engine, verifier, auditor, store, net ◀── wires: delay, loss, cuts ──▶ the other nodes
//!                          └──events──▶ report: who had which share when
//! ```
//!
//! Everything of a node is real but its disk, its HTTP and its search: hits are found by one processor for all at a given rate, and audits ask
//! it too, each root once. A signature is computed once as well, and every node looks at what came of it. A node has no threads of its own, as
//! it has elsewhere for signatures and commits: two hundred times four of them on two processors would measure the system's scheduler.
//! Adversaries are nodes of the real network task whose mind is replaced; see [`adversary`].

pub mod adversary;
mod device;
mod member;
mod pace;
mod pump;
mod report;
mod runs;
mod wires;

pub use device::Remembering;
pub use member::{Member, network};
pub use pace::Pace;
pub use report::Report;
pub use runs::{Eclipse, Plan, Returned, eclipse, run};
pub use wires::{Weather, Wires};
