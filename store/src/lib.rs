//! The durable state of a node: heads, shares with their indexes, standing, bans, the ledger, and the bridge's outbox.
//!
//! ```text
//! engine ── Vec<Op> ──▶ Writer (one thread, group commit) ──▶ Store::commit ──┬─▶ sled, one transaction a batch, flushed, fsynced
//!                              │ on_durable(Ok)                               └─▶ outbox.journal, fsynced
//! node, HTTP, sync ────────────┴────────────▶ Store's reads
//! ```
//!
//! The store decides nothing: a row is what the engine says. It keeps its indexes in the same transaction as the rows, notices damage
//! by checksums, and keeps the outbox apart, so that a lost database costs a resync and never a delivery.
//! The layout is in [`tables`]; the twin in [`memory`] runs the same code over maps and breaks on demand.

mod cellar;
#[cfg(test)]
#[path = "../tests/common/mod.rs"]
mod common;
mod disk;
mod journal;
pub mod memory;
mod plan;
#[doc(hidden)]
pub mod probe;
pub mod sled;
mod space;
pub mod tables;
mod writer;

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use tops_protocol::engine::{BanRow, HeadRow, Op, OutboxState, ShareRow, Snapshot, StandingRow};
use tops_protocol::ledger::LedgerRow;
use tops_protocol::{Height, Millis, PublicKey, ReceiptId, Root, UnitId};

pub use plan::{EVICTIONS_PER_BATCH, OUTBOX_MARKS_MAX};
pub use space::{RESERVE_BYTES, RESERVE_PART};
pub use writer::{GROUP_BATCHES_MAX, GROUP_OPS_MAX, LOOK_EVERY, OnDurable, QueueFull, RETRY_FIRST, RETRY_LAST, WRITER_QUEUE, Writer};

/// Most rows of a page; a larger wish gets this many.
pub const PAGE_MAX: usize = 256;
/// Longest note kept beside a delivery attempt, in bytes; longer ones are cut.
pub const NOTE_MAX: usize = 256;

/// Why the store could not do it. All are this node's own: no peer pays for them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreFault {
    /// The operating system refused.
    #[error("{path} could not be {action} ({why}): check free space and permissions, then start again")]
    Io {
        /// Which file or directory.
        path: PathBuf,
        /// What was tried, as a participle.
        action: &'static str,
        /// The system's words.
        why: String,
    },
    /// The disk is full, or nearly. Nothing of what was asked is promised; it may be asked again, and works when there is space.
    #[error("there is no room on the disk of {path} ({why}): free some space, the node goes on by itself")]
    Full {
        /// Which file or directory.
        path: PathBuf,
        /// How much is missing, or the system's words.
        why: String,
    },
    /// What is stored is not what was written. At the next open the database is set aside and a new one begun.
    #[error("the store is damaged ({what}): start again, the damaged part is set aside and its contents come back from the peers")]
    Damaged {
        /// Where it showed.
        what: String,
    },
    /// Another process has it open.
    #[error("{path} is in use by another process: stop that one, or choose another --data-dir")]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// Not a format of this version.
    #[error("{path} has format {found} and this version knows {known}: use the version that wrote it, or choose another --data-dir")]
    Format {
        /// The directory or file.
        path: PathBuf,
        /// What it says.
        found: u32,
        /// The newest one that this version reads.
        known: u32,
    },
    /// It holds another network's rows.
    #[error("{path} belongs to the network {found}, not to {wanted}: choose another --data-dir")]
    OtherNetwork {
        /// The directory or file.
        path: PathBuf,
        /// Whose it is.
        found: String,
        /// Whose it should be.
        wanted: String,
    },
    /// A share's wire form is no receipt, so it has no id; nothing of its batch was written.
    #[error("the share {unit} does not hold a receipt: this is a bug, please report it")]
    NotAReceipt {
        /// Which.
        unit: UnitId,
    },
    /// The writer stopped before this batch, after an earlier fault or at shutdown.
    #[error("the store's writer has stopped")]
    Stopped,
}

/// Where a page ended: the place of its last row, opaque. Its text is lower-case hex.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cursor(Vec<u8>);

/// A text that is no cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is not a cursor of an earlier page")]
pub struct CursorFault;

impl Cursor {
    /// The longest place: a miner's key, an epoch and a unit.
    const BYTES_MAX: usize = 73;
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for Cursor {
    type Err = CursorFault;
    fn from_str(text: &str) -> Result<Self, CursorFault> {
        let digits = text.as_bytes();
        if digits.is_empty() || !digits.len().is_multiple_of(2) || digits.len() > 2 * Self::BYTES_MAX {
            return Err(CursorFault);
        }
        let digit = |d: u8| match d {
            b'0'..=b'9' => Ok(d - b'0'),
            b'a'..=b'f' => Ok(d - b'a' + 10),
            _ => Err(CursorFault),
        };
        digits.chunks_exact(2).map(|pair| Ok(digit(pair[0])? << 4 | digit(pair[1])?)).collect::<Result<_, _>>().map(Self)
    }
}

/// Some rows of a list, and where the next ones begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// At most [`PAGE_MAX`] rows.
    pub rows: Vec<T>,
    /// `None`: that was the end.
    pub next: Option<Cursor>,
}

/// Which receipts to list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReceiptFilter {
    /// Only those of this epoch.
    pub epoch: Option<u64>,
    /// Only those of this miner.
    pub miner: Option<PublicKey>,
}

/// A receipt on its way to the aggregator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboxRow {
    /// Its unit, which is also the idempotency key.
    pub unit: UnitId,
    /// Its epoch.
    pub epoch: u64,
    /// Where it is.
    pub state: OutboxState,
    /// The text form to send; empty once the aggregator has it.
    pub text: String,
    /// Deliveries tried since it is in this state, or before it died.
    pub attempts: u32,
    /// When the last one was, by the node's clock.
    pub at: Option<Millis>,
    /// What came of it.
    pub note: String,
}

/// Rows of the outbox by state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OutboxCounts {
    /// Not deep enough, or not earning now.
    pub waiting: u64,
    /// To be sent.
    pub due: u64,
    /// The aggregator has them.
    pub delivered: u64,
    /// Refused for good.
    pub dead: u64,
    /// Delivered, and void or without earnings since.
    pub void: u64,
    /// Dropped unsent, or by the outbox's bounds, since the process began.
    pub evicted: u64,
}

/// What a node keeps. Every method may block on the disk; none blocks longer than a commit takes.
pub trait Store: Send + Sync {
    /// Writes every batch in a transaction of its own, in order, and returns when all of them are on the disk. On a fault nothing is promised
    /// of any of them, none is written in part, and the store should be opened anew; but after [`StoreFault::Full`] the same batches may be given
    /// again, before any other. Batches of nothing cost nothing.
    ///
    /// # Errors
    /// [`StoreFault::Full`], [`StoreFault::Io`], [`StoreFault::Damaged`], [`StoreFault::NotAReceipt`].
    fn commit(&self, batches: &[Vec<Op>]) -> Result<(), StoreFault>;

    /// Whether a commit would find room now. Costs a look at the disk's statistics.
    ///
    /// # Errors
    /// [`StoreFault::Full`].
    fn room(&self) -> Result<(), StoreFault>;

    /// Everything for [`tops_protocol::engine::Engine`]'s restore: the whole main chain, head rows from `heads_from` up on any branch, and all other rows.
    fn snapshot(&self, heads_from: Height) -> Result<Snapshot, StoreFault>;

    /// One head, on any branch.
    fn head(&self, root: &Root) -> Result<Option<HeadRow>, StoreFault>;
    /// Wire forms of these heads in this order; unknown ones are left out.
    fn head_wires(&self, roots: &[Root]) -> Result<Vec<Vec<u8>>, StoreFault>;
    /// Wire forms of these shares in this order; unknown ones are left out.
    fn share_wires(&self, units: &[UnitId]) -> Result<Vec<Vec<u8>>, StoreFault>;
    /// Wire forms of these bans' receipts in this order; unknown ones are left out.
    fn ban_wires(&self, miners: &[PublicKey]) -> Result<Vec<Vec<u8>>, StoreFault>;

    /// A share by its unit.
    fn share(&self, unit: &UnitId) -> Result<Option<ShareRow>, StoreFault>;
    /// A share by its receipt's id.
    fn receipt(&self, id: &ReceiptId) -> Result<Option<ShareRow>, StoreFault>;
    /// Shares, newest epoch first.
    fn receipts(&self, filter: &ReceiptFilter, after: Option<&Cursor>, limit: usize) -> Result<Page<ShareRow>, StoreFault>;
    /// The main chain from height `from` (`None`: the tip) downwards.
    fn main_heads(&self, from: Option<Height>, limit: usize) -> Result<Vec<HeadRow>, StoreFault>;

    /// A miner's sums.
    fn ledger_row(&self, miner: &PublicKey) -> Result<Option<LedgerRow>, StoreFault>;
    /// The ledger, largest credit first.
    fn ledger(&self, after: Option<&Cursor>, limit: usize) -> Result<Page<(PublicKey, LedgerRow)>, StoreFault>;
    /// What is known of a key.
    fn standing(&self, miner: &PublicKey) -> Result<Option<StandingRow>, StoreFault>;
    /// One ban.
    fn ban(&self, miner: &PublicKey) -> Result<Option<BanRow>, StoreFault>;
    /// Bans in the order of keys.
    fn bans(&self, after: Option<&Cursor>, limit: usize) -> Result<Page<BanRow>, StoreFault>;

    /// One row of the outbox with its text.
    fn outbox_row(&self, unit: &UnitId) -> Result<Option<OutboxRow>, StoreFault>;
    /// Rows of the outbox in one state, oldest epoch first: what is due, the dead letters, what was delivered and is void.
    fn outbox(&self, state: OutboxState, after: Option<&Cursor>, limit: usize) -> Result<Page<OutboxRow>, StoreFault>;
    /// How many rows are in which state; from memory.
    fn outbox_counts(&self) -> OutboxCounts;
    /// Counts a delivery attempt and keeps its time and its note for people, cut to [`NOTE_MAX`]. Not flushed: a crash may forget it.
    fn mark_attempt(&self, unit: &UnitId, at: Millis, note: &str) -> Result<(), StoreFault>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_survives_its_text_and_nothing_else_reads() {
        let cursor = Cursor(vec![0, 9, 0xab, 0xff]);
        assert_eq!(cursor.to_string().parse(), Ok(cursor));
        for bad in ["", "0", "AB", "zz", "é0", &"0".repeat(148)] {
            assert_eq!(bad.parse::<Cursor>(), Err(CursorFault), "{bad}");
        }
    }
}
