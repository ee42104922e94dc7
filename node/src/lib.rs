//! The hall: wires protocol, devices, store and network into a running node. It holds no rules; those are the protocol's.
//!
//! ```text
//!   net ──▶ verifier ──▶ driver ◀──▶ Engine ──▶ store, miner, auditor, bridge, net
//!                          └──▶ state::Shared ──▶ http
//! ```
//!
//! The binary is a thin door to this library, so that tests can speak the wire and run nodes in process.

pub mod auditor;
pub mod bridge;
pub mod check;
pub mod cli;
pub mod commands;
pub mod config;
pub mod credit;
pub mod devices;
pub mod driver;
pub mod http;
pub mod keys;
pub mod miner;
pub mod net;
pub mod networks;
pub mod progress;
pub mod run;
pub mod sealed;
pub mod settings;
pub mod shutdown;
pub mod state;
pub mod telemetry;
pub mod verifier;
