//! The instruction sets that a CPU may have, and the two kernels that each of them provides.
//!
//! Detection happens at run time; every set computes the same bytes, so which one runs is never visible in a result.
#![allow(unsafe_code)]

use core::ops::Range;

use super::layout::{LINES, Line, Packed, TILE};
use super::portable;
#[cfg(target_arch = "x86_64")]
use super::{simd_avx2, simd_avx512};

/// An instruction set that this machine has: values exist only for what was detected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Isa(Set);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Set {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni,
    #[cfg(target_arch = "x86_64")]
    AvxVnni,
    #[cfg(target_arch = "x86_64")]
    Avx2,
}

/// Rows through one layer: `min(127, max(0, init + X·Wᵀ) >> shift)`.
pub(super) struct LayerJob<'a> {
    /// Whole tiles of rows.
    pub(super) x: &'a [Line],
    /// The layer.
    pub(super) weights: &'a Packed,
    /// Which strips of neurons to compute: the output has one block a strip.
    pub(super) strips: Range<usize>,
    /// The right shift.
    pub(super) shift: u32,
}

/// Rows of activations from their stream states, biased by 128.
pub(super) struct RowsJob<'a> {
    /// 64 bytes a row (spec §1.2), whole tiles.
    pub(super) states: &'a [u8],
    /// Blocks of 16 columns a row.
    pub(super) blocks: usize,
}

impl Isa {
    /// Plain Rust.
    pub const PORTABLE: Self = Self(Set::Portable);

    /// Everything that this machine has, the fastest first.
    pub fn detected() -> Vec<Self> {
        let mut sets = Vec::new();
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512vnni")
        {
            sets.push(Self(Set::Avx512Vnni));
        }
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") {
            if is_x86_feature_detected!("avxvnni") {
                sets.push(Self(Set::AvxVnni));
            }
            sets.push(Self(Set::Avx2));
        }
        sets.push(Self::PORTABLE);
        sets
    }

    /// The fastest that this machine has.
    pub fn best() -> Self {
        Self::detected().first().copied().unwrap_or(Self::PORTABLE)
    }

    /// Its name, as `devices` shows it.
    pub fn name(self) -> &'static str {
        match self.0 {
            Set::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Set::Avx512Vnni => "avx512-vnni",
            #[cfg(target_arch = "x86_64")]
            Set::AvxVnni => "avx-vnni",
            #[cfg(target_arch = "x86_64")]
            Set::Avx2 => "avx2",
        }
    }

    /// Runs one layer; `out` holds as many tiles as the input, `job.strips.len()` blocks each.
    pub(super) fn layer(self, job: &LayerJob<'_>, out: &mut [Line]) {
        let tiles = job.x.len() / (job.weights.blocks * LINES);
        assert_eq!(job.x.len(), tiles * job.weights.blocks * LINES, "whole tiles of the layer's width");
        assert_eq!(out.len(), tiles * job.strips.len() * LINES, "a block a strip");
        assert!(job.strips.end <= job.weights.strips, "strips of the layer");
        match self.0 {
            Set::Portable => portable::layer(job, out),
            // SAFETY: such a value exists only where `detected` saw these instructions.
            #[cfg(target_arch = "x86_64")]
            Set::Avx512Vnni => unsafe { simd_avx512::layer(job, out) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Set::AvxVnni => unsafe { simd_avx2::layer_vnni(job, out) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Set::Avx2 => unsafe { simd_avx2::layer(job, out) },
        }
    }

    /// Makes rows of activations; `out` holds whole tiles.
    pub(super) fn rows(self, job: &RowsJob<'_>, out: &mut [Line]) {
        assert_eq!(job.states.len() % (64 * TILE), 0, "whole tiles of states");
        assert_eq!(out.len(), job.states.len() / (64 * TILE) * job.blocks * LINES, "a tile of rows a tile of states");
        match self.0 {
            Set::Portable => portable::rows(job, out),
            // SAFETY: such a value exists only where `detected` saw these instructions.
            #[cfg(target_arch = "x86_64")]
            Set::Avx512Vnni => unsafe { simd_avx512::rows(job, out) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Set::AvxVnni | Set::Avx2 => unsafe { simd_avx2::rows(job, out) },
        }
    }
}
