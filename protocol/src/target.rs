//! Compact targets, work, and the ASERT schedule (spec §4).
//!
//! All arithmetic is integer and the same everywhere; nothing here knows a chain, only the numbers that a chain gives it.

use crate::network::NetworkSpec;
use crate::types::U256;

type U512 = ruint::Uint<512, 8>;

/// Heads between two anchors of the schedule.
pub const ANCHOR_INTERVAL: u64 = 256;

/// Fixed-point bits of the ASERT exponent.
const RADIX_BITS: u32 = 16;

/// A target in Bitcoin's nBits form. Only values that expand to a positive 256-bit integer exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Bits(u32);

/// Why a number is no compact target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BitsFault {
    /// The sign bit is set.
    #[error("the compact target {bits:#010x} is negative")]
    Negative {
        /// The refused value.
        bits: u32,
    },
    /// It expands to zero.
    #[error("the compact target {bits:#010x} is zero")]
    Zero {
        /// The refused value.
        bits: u32,
    },
    /// It expands past 256 bits.
    #[error("the compact target {bits:#010x} overflows 256 bits")]
    Overflow {
        /// The refused value.
        bits: u32,
    },
}

impl Bits {
    /// Checks that the number is a target.
    pub fn new(bits: u32) -> Result<Self, BitsFault> {
        expand(bits).map(|_| Self(bits))
    }
    /// The 32-bit form.
    pub fn get(self) -> u32 {
        self.0
    }
    /// The target that it stands for.
    pub fn target(self) -> U256 {
        // `new` is the only constructor besides `from_target`, whose results expand by construction.
        expand(self.0).unwrap_or(U256::from(1))
    }
    /// The shortest compact form of a positive target; low bits are cut off, as Bitcoin does.
    pub fn from_target(target: U256) -> Self {
        let target = target.max(U256::from(1));
        let mut size = target.bit_len().div_ceil(8);
        let mantissa = if size <= 3 { target << (8 * (3 - size)) } else { target >> (8 * (size - 3)) };
        let mut mantissa = mantissa.as_limbs()[0] as u32;
        // The mantissa is signed: a set top bit moves it down a byte.
        if mantissa & 0x0080_0000 != 0 {
            mantissa >>= 8;
            size += 1;
        }
        Self(mantissa | (size as u32) << 24)
    }
}

fn expand(bits: u32) -> Result<U256, BitsFault> {
    let size = bits >> 24;
    let word = bits & 0x007f_ffff;
    let value = if size <= 3 { word >> (8 * (3 - size)) } else { word };
    if value == 0 {
        return Err(BitsFault::Zero { bits });
    }
    if bits & 0x0080_0000 != 0 {
        return Err(BitsFault::Negative { bits });
    }
    if size > 34 || (word > 0xff && size > 33) || (word > 0xffff && size > 32) {
        return Err(BitsFault::Overflow { bits });
    }
    let value = U256::from(value);
    Ok(if size <= 3 { value } else { value << (8 * (size as usize - 3)) })
}

/// Attempts that a target stands for in expectation: `⌊2^256 / (target + 1)⌋`, saturating at 2^256 − 1 for target 0.
pub fn work(target: U256) -> U256 {
    if target.is_zero() {
        return U256::MAX;
    }
    if target == U256::MAX {
        return U256::from(1);
    }
    // 2^256 / (t+1) = ((2^256 − 1 − t) / (t+1)) + 1, all within 256 bits.
    (!target) / (target + U256::from(1)) + U256::from(1)
}

/// `min(2^256 − 1, head_target · 2^share_log2)`.
pub fn share_target(head_target: U256, share_log2: u32) -> U256 {
    if head_target.leading_zeros() < share_log2 as usize { U256::MAX } else { head_target << share_log2 as usize }
}

/// The head from which a target is computed (spec §4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Anchor {
    /// Its height.
    pub height: u64,
    /// The schedule time of its parent, seconds.
    pub parent_time_secs: i64,
    /// Its own compact target.
    pub bits: Bits,
}

/// The height of the anchor for a head at `height` ≥ 2.
pub fn anchor_height(height: u64) -> u64 {
    1 + ANCHOR_INTERVAL * (height.saturating_sub(2) / ANCHOR_INTERVAL)
}

/// The aserti3-2d target of the head that follows one at `tip_height` with schedule time `tip_time_secs` (spec §4).
///
/// Signed 64-bit seconds; the exponent is truncated toward zero, shifts saturate, and the result is never easier than `easiest`.
pub fn asert(anchor: Anchor, tip_height: u64, tip_time_secs: i64, spacing_secs: u32, half_life_secs: u32, easiest: Bits) -> Bits {
    let time_diff = i128::from(tip_time_secs) - i128::from(anchor.parent_time_secs);
    let height_diff = i128::from(tip_height) - i128::from(anchor.height);
    let exponent = ((time_diff - i128::from(spacing_secs) * (height_diff + 1)) << RADIX_BITS) / i128::from(half_life_secs.max(1));
    let shifts = exponent >> RADIX_BITS;
    let frac = (exponent - (shifts << RADIX_BITS)) as u64;
    // 2^x ≈ 1 + 0.695502049·x + 0.2262698·x² + 0.0782318·x³ for 0 ≤ x < 1, in 48-bit fixed point.
    let frac = u128::from(frac);
    let factor =
        ((195_766_423_245_049u128 * frac + 971_821_376u128 * frac * frac + 5_127u128 * frac * frac * frac + (1u128 << 47)) >> 48) + 65_536;
    let mut target: U512 = U512::from(anchor.bits.target()) * U512::from(factor);
    let shifts = shifts - i128::from(RADIX_BITS);
    if shifts < 0 {
        let by = (-shifts).min(511) as usize;
        target >>= by;
    } else {
        let by = shifts.min(511) as usize;
        // Saturate instead of losing high bits.
        target = if target.leading_zeros() < by { U512::MAX } else { target << by };
    }
    if target.is_zero() {
        return Bits::from_target(U256::from(1));
    }
    let limit = easiest.target();
    if target > U512::from(limit) {
        return easiest;
    }
    Bits::from_target(U256::from_limbs_slice(&target.as_limbs()[..4]))
}

/// The bits of a head at `height`, from its anchor and its parent's place in the schedule. Height 1 has the genesis bits.
pub fn next_bits(spec: &NetworkSpec, height: u64, anchor: Anchor, parent_time_secs: i64) -> Bits {
    if height <= 1 {
        return spec.genesis_bits();
    }
    asert(anchor, height - 1, parent_time_secs, spec.spacing_secs(), spec.half_life_secs(), spec.easiest_bits())
}
