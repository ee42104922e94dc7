//! What is fuzzed, as plain functions: the targets call them with new bytes, `tests/tests/corpus.rs` with the kept ones.
#![allow(clippy::unwrap_used, clippy::expect_used)]

pub mod cellar;
pub mod engine;
#[cfg(feature = "node")]
pub mod hall;
pub mod law;
pub mod palette;
