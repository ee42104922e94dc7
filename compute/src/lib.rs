//! The engine room: devices that run attempts, and the one queue in front of them.
//!
//! Threads here block; each device has one owner. Everything that others need is [`backend::Backend`] and the queue. What a device is
//! stays in this crate and in the kernels' crate. It knows nothing of receipts, peers, stores or the chain.

pub mod backend;
pub mod bundle;
pub mod conformance;
pub mod cpu;
pub mod cuda;
pub mod health;
#[cfg(feature = "opencl")]
pub mod opencl;
mod padded;
pub mod queue;
mod sample;
pub mod select;
pub mod tune;
mod waited;
