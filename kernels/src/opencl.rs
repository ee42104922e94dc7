//! The OpenCL source, which is built on the device that runs it, and what its host must know.
//!
//! One portable source for every vendor; how bytes are multiplied is a define ([`Product`]). The host tries the products that a device may
//! have, fastest first, and takes the first that builds and passes the suite. Buffers: rows padded to [`ROW_STEP`], n to [`TILE_COLUMNS`], k to 64.

pub use crate::cuda::{RECORD_BYTES, attempt_record, chunks, physical_row, target_words};

/// OpenCL C 1.2; parameters of each kernel are described at its definition.
pub const SOURCE: &str = include_str!("../opencl/attempt.cl");

/// Rows that a product's tile has: buffers hold a multiple of it.
pub const ROW_STEP: usize = 128;

/// Columns that a product's tile has.
pub const TILE_COLUMNS: usize = 128;

/// Work-items of `tickets`, one work-group an attempt.
pub const TICKET_ITEMS: usize = 64;

/// Words of a hit: the attempt, its root.
pub const HIT_WORDS: usize = 9;

/// How tiles are multiplied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Product {
    /// NVIDIA from compute capability 8.0: mma.sync by inline PTX.
    Mma,
    /// NVIDIA from 6.1: dp4a by inline PTX.
    Dp4a,
    /// `cl_khr_integer_dot_product`.
    Dot,
    /// Plain arithmetic.
    Plain,
}

impl Product {
    /// Every product, fastest first.
    pub const ALL: [Self; 4] = [Self::Mma, Self::Dp4a, Self::Dot, Self::Plain];

    /// The name that a device shows.
    pub fn name(self) -> &'static str {
        match self {
            Self::Mma => "mma",
            Self::Dp4a => "dp4a",
            Self::Dot => "dot",
            Self::Plain => "plain",
        }
    }

    /// Build options.
    pub fn options(self) -> &'static str {
        match self {
            Self::Mma => "-D PRODUCT_MMA",
            Self::Dp4a => "-D PRODUCT_DP4A",
            Self::Dot => "-cl-std=CL3.0 -D PRODUCT_DOT",
            Self::Plain => "",
        }
    }

    /// Work-items of `product`, one work-group a tile.
    pub fn items(self) -> usize {
        match self {
            Self::Mma => 128,
            Self::Dp4a | Self::Dot | Self::Plain => 256,
        }
    }

    /// Local memory that `product` takes.
    pub fn local_bytes(self) -> usize {
        match self {
            Self::Mma => 48 << 10,
            Self::Dp4a | Self::Dot | Self::Plain => 2 * 16 * (128 + 4) * 4,
        }
    }

    /// Whether weight rows lie in [`physical_row`] order; else in the order of neurons.
    pub fn permuted(self) -> bool {
        matches!(self, Self::Mma)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_define_is_one_that_the_source_reads() {
        for product in Product::ALL {
            for define in product.options().split("-D ").skip(1) {
                let name = define.split(['=', ' ']).next().unwrap_or_default();
                assert!(SOURCE.contains(name), "{} defines {name}", product.name());
            }
        }
    }

    #[test]
    fn the_context_keys_are_those_of_the_cuda_sources() {
        let cuda = include_str!("../cuda/blake3.cuh");
        for name in ["ATTEMPT_SEED_KEY", "ACTIVATION_ROWS_KEY", "WEIGHT_ROWS_KEY", "WORK_ROOT_KEY"] {
            let words = |text: &str, begin: &str| {
                let line = text.lines().find(|line| line.starts_with(begin)).unwrap_or_else(|| panic!("no {begin}")).to_owned();
                line.split(['{', '}', ',', ' ', ';']).filter(|word| word.starts_with("0x")).map(str::to_owned).collect::<Vec<_>>()
            };
            let ours = words(SOURCE, &format!("__constant uint {name}["));
            assert_eq!(ours.len(), 8);
            assert_eq!(ours, words(cuda, &format!("#define {name} ")));
        }
    }
}
