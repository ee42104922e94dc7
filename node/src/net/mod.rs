//! The network: libp2p on one side, `Input` and `Output` on the other. It decides nothing about receipts.

pub mod behaviour;
pub mod book;
pub mod budget;
pub mod codec;
pub mod dial;
pub mod gate;
pub mod limits;
pub mod line;
pub mod numbers;
pub mod remembered;
pub mod scoring;
pub mod task;
pub mod ways;
