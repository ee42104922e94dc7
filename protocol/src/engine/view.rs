//! What an engine shows of itself to people: a copy, made on request, that nothing depends on.

use alloc::vec::Vec;

use super::io::{Digest, Peer};
use crate::types::{Height, Millis, NetworkId, Root, U256};

/// A peer as the engine sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerView {
    /// Its number.
    pub peer: Peer,
    /// The tip that it last told.
    pub tip: Option<(Height, Root)>,
    /// Whether tip and shares were last seen equal to ours. Bans do not count: who never took a share of a key does not ban it.
    pub in_step: bool,
    /// When its last status came.
    pub status_at: Option<Millis>,
}

/// How far this node is with its peers' chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SyncState {
    /// No peer has told its tip yet.
    Lonely,
    /// Heads of a better chain are being fetched; the height that is aimed at.
    Heads(Height),
    /// The chain is the best that is known; shares may still be coming.
    InStep,
}

/// The engine at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// Which network.
    pub network: NetworkId,
    /// The best head.
    pub tip: Root,
    /// Its height.
    pub height: Height,
    /// Its cumulative work.
    pub work: U256,
    /// The tip's timestamp.
    pub tip_time: Millis,
    /// What the next head must meet.
    pub head_target: U256,
    /// Compact form of that.
    pub head_bits: u32,
    /// What a share on the tip must meet.
    pub share_target: U256,
    /// Heads in memory, on all branches.
    pub heads: usize,
    /// Shares in memory.
    pub shares: usize,
    /// Of these, accepted without a look.
    pub unaudited: usize,
    /// Receipts whose fate is open.
    pub undecided: usize,
    /// Audits that devices are busy with.
    pub audits_in_flight: usize,
    /// Receipts held for their parent or the clock.
    pub held: usize,
    /// Banned keys.
    pub bans: usize,
    /// Miners in the ledger.
    pub miners: usize,
    /// Digest of the shares keyed in the last retained epochs that count for sync, all in one.
    pub ledger_digest: [u8; 32],
    /// Digest over the bans.
    pub ban_digest: Digest,
    /// Receipts on their way to the aggregator: waiting, due.
    pub outbox: (usize, usize),
    /// Whether the miner has a job.
    pub mining: bool,
    /// Sync with peers.
    pub sync: SyncState,
    /// How far the local clock is ahead of the middle of the peers' stamps, milliseconds; negative: behind. `None` when fewer than three peers
    /// have gossiped receipts within ten minutes. A right clock seems ahead by the age of fresh receipts, a few seconds at most.
    pub clock_off_ms: Option<i64>,
    /// The peers.
    pub peers: Vec<PeerView>,
}

impl View {
    /// The engine's bounded pools: name, places taken, places there are.
    pub fn pools(&self) -> [(&'static str, usize, usize); 4] {
        [
            ("held", self.held, super::held::HELD_TOTAL_MAX),
            ("undecided", self.undecided, super::audits::UNDECIDED_MAX),
            ("audits_in_flight", self.audits_in_flight, super::audits::IN_FLIGHT_MAX),
            ("outbox_unsent", self.outbox.0 + self.outbox.1, super::outbox::OUTBOX_UNSENT_MAX),
        ]
    }
}
