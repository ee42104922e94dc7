//! The law of the tops network: what an attempt is, what a receipt is, which chain of heads is the best, who earned what, and every
//! decision that a node takes.
//!
//! ```text
//! bytes ──codec──▶ Receipt ──verify──▶ Structural ▶ Semantic ▶ Contextual ▶ Audited
//!                                                      │                       ▲
//!                                    engine::Engine::handle(input, now) ──▶ outputs (audit, commit, publish, …)
//! ```
//!
//! Nothing in here does IO, reads a clock, draws a random number, waits, or depends on the machine. Time and bytes come in as
//! arguments; what should happen goes out as values. The text of the rules is `docs/spec.md`; items cite it as `spec §n`.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod codec;
pub mod engine;
pub mod error;
pub mod keys;
pub mod ledger;
pub mod network;
pub mod receipt;
pub mod target;
pub mod types;
pub mod verify;
pub mod work;

pub use network::NetworkSpec;
pub use receipt::{Draft, Receipt, Text};
pub use types::{Attempt, Height, Millis, NetworkTag, Nonce, PublicKey, ReceiptId, Root, Shape, Signature, U256, UnitId};
