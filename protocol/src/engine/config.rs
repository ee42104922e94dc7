//! What an operator decides for an engine; everything else is the network's law.

use alloc::vec::Vec;

use crate::network::NetworkSpec;
use crate::receipt::Text;
use crate::types::{Height, PublicKey, Root, UnitId};

/// A rate in (0, 1], held in parts per million so that no decision depends on floating point.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct AuditRate(u32);

impl AuditRate {
    /// One in ten.
    pub const DEFAULT: Self = Self(100_000);
    /// Everything.
    pub const ALL: Self = Self(1_000_000);

    /// `None` unless 0 < ppm ≤ 1,000,000.
    pub fn from_ppm(ppm: u32) -> Option<Self> {
        (1..=1_000_000).contains(&ppm).then_some(Self(ppm))
    }
    /// Parts per million.
    pub fn ppm(self) -> u32 {
        self.0
    }
    /// ⌈1 / rate⌉.
    pub fn inverse(self) -> u64 {
        1_000_000u64.div_ceil(u64::from(self.0))
    }
}

/// `d:r`: the units whose first eight bytes, as a little-endian integer, leave r when divided by d (spec §5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shard {
    divisor: u64,
    remainder: u64,
}

impl Shard {
    /// The shard that holds everything.
    pub const ALL: Self = Self { divisor: 1, remainder: 0 };

    /// `None` unless remainder < divisor.
    pub fn new(divisor: u64, remainder: u64) -> Option<Self> {
        (remainder < divisor).then_some(Self { divisor, remainder })
    }
    /// Whether the unit is in it.
    pub fn holds(self, unit: &UnitId) -> bool {
        let mut first = [0; 8];
        first.copy_from_slice(&unit.0[..8]);
        u64::from_le_bytes(first) % self.divisor == self.remainder
    }
}

/// Which audited receipts go to the aggregator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BridgeScope {
    /// All that this node audited.
    All,
    /// This node's own.
    Own,
}

/// The way to the aggregator; without one nothing is queued for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bridge {
    /// Which receipts.
    pub scope: BridgeScope,
    /// Which units of them.
    pub shard: Shard,
    /// Heads on top of a receipt's head before it is sent.
    pub depth: u64,
}

/// What this node mines with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mining {
    /// Its key.
    pub miner: PublicKey,
    /// `device_did` of its receipts.
    pub device_did: Text,
    /// `driver_hint` of its receipts.
    pub driver_hint: Text,
}

/// An engine's settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The law's numbers.
    pub network: NetworkSpec,
    /// `None`: a light node.
    pub mining: Option<Mining>,
    /// Mine without having heard from a peer.
    pub alone: bool,
    /// Audit only a part of old heads at first sync (spec §4).
    pub light: bool,
    /// The least part of shares that is audited under load.
    pub audit_rate: AuditRate,
    /// Beyond that part, only these units are audited.
    pub audit_shard: Shard,
    /// The aggregator's way.
    pub bridge: Option<Bridge>,
    /// Epochs below the tip that are kept.
    pub retain_epochs: u64,
    /// Heads that the network file pins.
    pub checkpoints: Vec<(Height, Root)>,
    /// Private randomness: who is audited, who is asked. Never leaves the node.
    pub secret: [u8; 32],
}

/// Epochs that are kept unless the operator says otherwise: six hours on `main`,
/// about 50 MB of memory when every head has its 64 shares.
pub const RETAIN_EPOCHS_DEFAULT: u64 = 1_440;
/// Fewer would drop shares that the stale window still takes.
pub const RETAIN_EPOCHS_MIN: u64 = 64;
/// A status holds no more digests.
pub const RETAIN_EPOCHS_MAX: u64 = super::io::EPOCHS_PER_STATUS as u64;
