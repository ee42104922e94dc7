//! The CUDA images: entry points, the layout of what they read and write, and which device takes which.
//!
//! An attempt goes through these entry points in one stream (rows = attempts · m; buffers hold [`padded_rows`] rows):
//!
//! ```text
//! attempt_rows   records ─────────────▶ seeds, states
//! Sm90a:   product_born   states, W1 ─▶ y1            product_hash  y1, W2 ─▶ cvs                 (n ≥ HASHED_FROM)
//!                                                     product_store y1, W2 ─▶ y2 ─chunk_hashes─▶ cvs   (narrower)
//! others:  expand_rows    states ─▶ a ─product─▶ y1 ─product─▶ y2 ─chunk_hashes─▶ cvs
//! tickets        seeds, cvs, target ──▶ roots, hits
//! ```
//!
//! Weights are made on the device by `weight_rows` and `expand_rows`, in [`physical_row`] order where [`Architecture::permuted`].
//!
//! | buffer | bytes | layout |
//! |---|---|---|
//! | records | 88 each | [`attempt_record`] |
//! | seeds, roots | 32 · attempts | 8 little-endian words |
//! | states | 64 · padded rows | per row 4 streams of 4 words |
//! | a, y1, y2 | padded rows · (k or n) | i8, row-major |
//! | W1, W2 | n · k, n · n | i8, a row per output neuron |
//! | cvs | [`cvs_bytes`] | 32 a chunk, chunk = panel · (m/16) + row group; overwritten by `tickets` |
//! | hits | 4 + 36 · capacity | a count, then (attempt, root) of at most `capacity` hits in no order |
//!
//! Scalars are u32, buffers are 64-bit device addresses, a [`Target`](target_words) is eight words by value, a tensor map 128 bytes by
//! value with 64-byte alignment. Parameters, in order, are listed at each [`Entry`].

use crate::digests;

/// What the products are built for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Architecture {
    /// Compute capability 9.0 exactly: wgmma, TMA, clusters of two.
    Sm90a,
    /// From 8.0 on: mma.sync.
    Mma,
    /// From 6.1 on: dp4a.
    Dp4a,
}

/// A binary and what it must hash to.
#[derive(Debug, Clone, Copy)]
pub struct Image {
    /// What it is built for.
    pub architecture: Architecture,
    /// A cubin, or PTX text without a final NUL.
    pub bytes: &'static [u8],
    /// BLAKE3 of `bytes`, hex: compare before loading.
    pub digest: &'static str,
}

const SM_90A: Image = Image { architecture: Architecture::Sm90a, bytes: include_bytes!("../bin/sm_90a.cubin"), digest: digests::SM_90A };
const GENERIC_SM80: Image =
    Image { architecture: Architecture::Mma, bytes: include_bytes!("../bin/generic_sm80.ptx"), digest: digests::GENERIC_SM80 };
const GENERIC_SM61: Image =
    Image { architecture: Architecture::Dp4a, bytes: include_bytes!("../bin/generic_sm61.ptx"), digest: digests::GENERIC_SM61 };

/// The images that a device of this compute capability runs, fastest first; none below 6.1.
pub fn images_for(major: i32, minor: i32) -> &'static [Image] {
    match (major, minor) {
        (9, 0) => &[SM_90A, GENERIC_SM80, GENERIC_SM61],
        (8.., _) => &[GENERIC_SM80, GENERIC_SM61],
        (7, _) | (6, 1..) => &[GENERIC_SM61],
        _ => &[],
    }
}

impl Architecture {
    /// The name that a device shows.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sm90a => "sm_90a",
            Self::Mma => "generic-mma",
            Self::Dp4a => "generic-dp4a",
        }
    }

    /// Whether weight rows are stored in [`physical_row`] order; else in the order of neurons.
    pub fn permuted(self) -> bool {
        match self {
            Self::Sm90a | Self::Mma => true,
            Self::Dp4a => false,
        }
    }

    /// Rows that a product takes at once: buffers hold a multiple of it.
    pub fn row_step(self) -> usize {
        match self {
            Self::Sm90a => 256,
            Self::Mma | Self::Dp4a => 128,
        }
    }
}

/// An entry point, with its parameters in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Entry {
    /// `records, record_step, nonce_step, attempts, m, n, k, seeds, states`: attempt i is record i·record_step with i·nonce_step added to its
    /// nonce. Grid ⌈rows / 128⌉.
    AttemptRows,
    /// `layer, n, cols, rows, states`. Grid ⌈rows / 128⌉.
    WeightRows,
    /// `states, rows, cols, permuted, out`. Grid ⌈rows / 64⌉.
    ExpandRows,
    /// `y, rows, m, n, cvs`. Grid ⌈rows / 16 · n / 64 / 128⌉.
    ChunkHashes,
    /// `seeds, cvs, attempts, chunks, each, target, roots, hits, capacity`, each = [`ticket_attempts`]; the count must be zeroed before.
    /// Grid ⌈attempts / each⌉.
    Tickets,
    /// `w, marked, rows, cols, out`: v1's mixed weights. Grid ⌈rows · cols / 1024⌉.
    ClampColumns,
    /// Sm90a: `w_map, states, y, rows, n, k, shift`, A made on chip. Grid: whole clusters of two blocks, as many as fit at once.
    ProductBorn,
    /// Sm90a: `a_map, w_map, cvs, rows, n, k, m, shift`: outputs hashed on chip. k here is the contraction, n for the second product.
    ProductHash,
    /// Sm90a: `a_map, w_map, y, rows, n, k, shift`.
    ProductStore,
    /// Mma, 98,304 bytes of shared memory: `a, w, y, rows, n, k, shift`. Grid rows/128 · n/256.
    ProductMma,
    /// The same with 147,456.
    ProductMmaWide,
    /// Dp4a: the same parameters, no dynamic shared memory. Grid rows/128 · n/128.
    ProductDp4a,
}

impl Entry {
    /// Its name in the image.
    pub fn name(self) -> &'static str {
        match self {
            Self::AttemptRows => "attempt_rows",
            Self::WeightRows => "weight_rows",
            Self::ExpandRows => "expand_rows",
            Self::ChunkHashes => "chunk_hashes",
            Self::Tickets => "tickets",
            Self::ClampColumns => "clamp_columns",
            Self::ProductBorn => "product_born",
            Self::ProductHash => "product_hash",
            Self::ProductStore => "product_store",
            Self::ProductMma => "product_mma",
            Self::ProductMmaWide => "product_mma_wide",
            Self::ProductDp4a => "product_dp4a",
        }
    }

    /// The entry points of an image.
    pub fn all(architecture: Architecture) -> &'static [Self] {
        match architecture {
            Architecture::Sm90a => &[
                Self::AttemptRows,
                Self::WeightRows,
                Self::ExpandRows,
                Self::ChunkHashes,
                Self::Tickets,
                Self::ClampColumns,
                Self::ProductBorn,
                Self::ProductHash,
                Self::ProductStore,
            ],
            Architecture::Mma => &[
                Self::AttemptRows,
                Self::WeightRows,
                Self::ExpandRows,
                Self::ChunkHashes,
                Self::Tickets,
                Self::ClampColumns,
                Self::ProductMma,
                Self::ProductMmaWide,
            ],
            Architecture::Dp4a => &[
                Self::AttemptRows,
                Self::WeightRows,
                Self::ExpandRows,
                Self::ChunkHashes,
                Self::Tickets,
                Self::ClampColumns,
                Self::ProductDp4a,
            ],
        }
    }

    /// Threads a block.
    pub fn threads(self) -> u32 {
        match self {
            Self::AttemptRows | Self::WeightRows | Self::ChunkHashes | Self::Tickets => 128,
            Self::ExpandRows | Self::ClampColumns | Self::ProductMma | Self::ProductMmaWide | Self::ProductDp4a => 256,
            Self::ProductBorn | Self::ProductHash | Self::ProductStore => 384,
        }
    }

    /// Dynamic shared memory a block, in bytes: allow it before the first launch.
    pub fn shared_bytes(self) -> u32 {
        // Sm90a: stages, the tile that is hashed, two barriers a stage and a consumer group, and 1,024 to align.
        match self {
            Self::ProductBorn => 7 * 32_768 + (7 + 2) * 16 + 1024,
            Self::ProductStore => 4 * 49_152 + (4 + 2) * 16 + 1024,
            Self::ProductHash => 4 * 49_152 + 32 * 1040 + (4 + 2) * 16 + 1024,
            Self::ProductMma => 98_304,
            Self::ProductMmaWide => 147_456,
            _ => 0,
        }
    }
}

/// Sm90a: from this n on the second product hashes its outputs on chip; below, a tile is multiplied sooner than it is hashed.
pub const HASHED_FROM: u32 = 4096;

/// Columns of a product's tile on Sm90a: with [`Architecture::row_step`], what a cluster takes at once.
pub const TILE_COLUMNS: u32 = 256;

/// Blocks a cluster on Sm90a.
pub const CLUSTER: u32 = 2;

/// A tensor map's box on Sm90a, for A and for W alike: bytes of k by rows, with 128-byte swizzle.
pub const TENSOR_BOX: [u32; 2] = [128, 128];

/// The size of an [`attempt_record`].
pub const RECORD_BYTES: usize = 88;

/// What a seed binds (spec §1.1), as `attempt_rows` reads it: `prev_hash`, the key's first 32 bytes, its last one in a word, a word of zero,
/// nonce, timestamp; little-endian.
pub fn attempt_record(prev_hash: &[u8; 32], miner: &[u8; 33], nonce: u64, timestamp_ms: u64) -> [u8; RECORD_BYTES] {
    let mut out = [0; RECORD_BYTES];
    out[..32].copy_from_slice(prev_hash);
    out[32..65].copy_from_slice(miner);
    out[72..80].copy_from_slice(&nonce.to_le_bytes());
    out[80..].copy_from_slice(&timestamp_ms.to_le_bytes());
    out
}

/// A big-endian 256-bit target as the eight words that `tickets` takes.
pub fn target_words(target: &[u8; 32]) -> [u32; 8] {
    let mut out = [0; 8];
    for (word, bytes) in out.iter_mut().zip(target.chunks_exact(4)) {
        *word = bytes.iter().fold(0, |word, &byte| (word << 8) | u32::from(byte));
    }
    out
}

/// Where neuron `neuron` of a permuted weight matrix lies.
///
/// The sixteen accumulators that a thread of an n8 product holds in 64 columns are then sixteen neighbouring outputs.
pub fn physical_row(neuron: usize) -> usize {
    let c = neuron % 64;
    (neuron - c) + ((c >> 1) & 7) * 8 + (c >> 4) * 2 + (c & 1)
}

/// Rows that buffers hold for `rows` rows.
pub fn padded_rows(architecture: Architecture, rows: usize) -> usize {
    rows.next_multiple_of(architecture.row_step())
}

/// Chunks of an attempt's outputs: 1,024 bytes, sixteen rows of a panel.
pub fn chunks(m: u32, n: u32) -> u32 {
    m / 16 * (n / 64)
}

/// The size of the chaining values of `rows` rows of shape (m, n). Padding rows hash too, so the last attempt may be one that nobody asked for.
pub fn cvs_bytes(architecture: Architecture, rows: usize, m: u32, n: u32) -> usize {
    padded_rows(architecture, rows).div_ceil(m as usize) * chunks(m, n) as usize * 32
}

/// Attempts that a block of `tickets` merges, 1..=8: about 512 chunks.
pub fn ticket_attempts(chunks: u32) -> u32 {
    (512 / chunks).clamp(1, 8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_is_in_its_image() {
        for image in images_for(9, 0) {
            for entry in Entry::all(image.architecture) {
                let name = entry.name().as_bytes();
                assert!(
                    image.bytes.windows(name.len()).any(|bytes| bytes == name),
                    "{} has no {}",
                    image.architecture.name(),
                    entry.name()
                );
            }
        }
    }

    #[test]
    fn devices_take_what_they_can_run() {
        let names = |major, minor| images_for(major, minor).iter().map(|image| image.architecture.name()).collect::<Vec<_>>();
        assert_eq!(names(9, 0), ["sm_90a", "generic-mma", "generic-dp4a"]);
        assert_eq!(names(12, 0), ["generic-mma", "generic-dp4a"]);
        assert_eq!(names(7, 5), ["generic-dp4a"]);
        assert!(names(6, 0).is_empty());
    }

    #[test]
    fn physical_rows_are_a_permutation_inside_each_group() {
        let mut seen: Vec<usize> = (0..256).map(physical_row).collect();
        assert!(seen.iter().enumerate().all(|(neuron, row)| neuron / 64 == row / 64));
        seen.sort_unstable();
        assert_eq!(seen, (0..256).collect::<Vec<_>>());
        // Physical row 8j+2q+e holds neuron 16q+2j+e.
        assert_eq!(physical_row(16 * 3 + 2 * 5 + 1), 8 * 5 + 2 * 3 + 1);
    }

    #[test]
    fn padding_rows_have_room_for_their_chaining_values() {
        // 19 attempts of 240 rows end in row 4,560; the padding reaches 4,608: into a twentieth attempt.
        assert_eq!(cvs_bytes(Architecture::Sm90a, 19 * 240, 240, 512), 20 * 120 * 32);
        assert_eq!(cvs_bytes(Architecture::Sm90a, 16 * 16, 16, 4096), 16 * 64 * 32);
    }

    #[test]
    fn words_of_a_target_are_big_endian() {
        let mut target = [0; 32];
        (target[0], target[3], target[31]) = (0x12, 0x34, 0x56);
        assert_eq!(target_words(&target), [0x1200_0034, 0, 0, 0, 0, 0, 0, 0x56]);
    }
}
