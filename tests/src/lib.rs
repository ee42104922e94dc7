//! The range: what the crates' own tests cannot see, because it takes many nodes or real processes.
//!
//! [`sim`] runs many real engines in virtual time under one seed. The programs beside it are a receiving aggregator and the testnet's
//! conductor. [`chaos`] cuts links and kills hosts. Nothing in here is part of the product.

pub mod aggregator;
pub mod chaos;
pub mod sim;
pub mod testnet;
