//! The attempt seed (spec §1.1): everything that an attempt is bound to, in 32 bytes.

use crate::types::{Attempt, UnitId};

/// Length of the seed's preimage: prev_hash 32, miner 33, nonce 8, timestamp 8, m, n, k 4 each.
pub const PREIMAGE_LEN: usize = 93;

/// Where the nonce begins in the preimage (8 bytes, little-endian): what differs between the attempts of one batch.
pub const NONCE_OFFSET: usize = 65;

/// `prev_hash[32] ‖ miner[33] ‖ nonce u64 ‖ timestamp_ms u64 ‖ m u32 ‖ n u32 ‖ k u32`, little-endian.
pub fn preimage(attempt: &Attempt) -> [u8; PREIMAGE_LEN] {
    let mut out = [0; PREIMAGE_LEN];
    out[..32].copy_from_slice(&attempt.prev_hash.0);
    out[32..65].copy_from_slice(&attempt.miner.0);
    out[65..73].copy_from_slice(&attempt.nonce.get().to_le_bytes());
    out[73..81].copy_from_slice(&attempt.timestamp.0.to_le_bytes());
    out[81..85].copy_from_slice(&attempt.shape.m().to_le_bytes());
    out[85..89].copy_from_slice(&attempt.shape.n().to_le_bytes());
    out[89..93].copy_from_slice(&attempt.shape.k().to_le_bytes());
    out
}

/// The attempt seed, which is the id of the unit that the attempt would earn (spec §1.1, §3).
pub fn unit_id(attempt: &Attempt) -> UnitId {
    let mut hasher = super::derive_key("attempt seed");
    hasher.update(&preimage(attempt));
    UnitId(*hasher.finalize().as_bytes())
}
