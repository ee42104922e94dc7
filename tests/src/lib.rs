//! The range: what the crates' own tests cannot see, because it takes many nodes or real processes.
//!
//! [`sim`] runs many real engines in virtual time under one seed, [`range`] hundreds of them on a model of the world; [`memnet`] runs whole nodes in one
//! process over libp2p; [`flood`] is a peer that sends too much; [`chaos`] cuts links and kills hosts. The programs beside it are a receiving
//! aggregator and the testnet's conductor. Nothing in here is part of the product.

pub mod aggregator;
pub mod chaos;
pub mod flood;
pub mod memnet;
pub mod range;
pub mod sim;
pub mod testnet;
