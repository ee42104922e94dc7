//! What a full disk does to the store on files: a reserve that is kept free, and a database that is opened anew after a write failed.
//!
//! ```text
//! commit ─▶ is the reserve free? ──no──▶ Full: nothing was tried
//!               │ yes
//!               ▼
//!           Cellar::commit ──no space──▶ Full; most reads go on ──next commit that finds room──▶ closed, and opened anew as it was last flushed
//! ```
//!
//! The reserve stops writing before the disk does, so the second path is for what statistics do not tell: quotas, other writers, a disk that filled
//! within one commit. sled 0.34.7 refuses everything that writes after one failed write, and a read writes where it meets a page that is due to be split
//! or merged: such a read is Full too. It closes cleanly and opens as it was last flushed.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use tops_protocol::engine::{BanRow, HeadRow, Op, OutboxState, ShareRow, Snapshot, StandingRow};
use tops_protocol::ledger::LedgerRow;
use tops_protocol::{Height, Millis, PublicKey, ReceiptId, Root, UnitId};

use crate::{Cursor, OutboxCounts, OutboxRow, Page, ReceiptFilter, Store, StoreFault};

/// Space that is left free on the store's disk: room for a rewriting of the outbox's journal, for sled's segments and snapshot, and for the operator to
/// move. On a small disk it is a part of it.
pub const RESERVE_BYTES: u64 = 64 << 20;
/// The reserve is at most this part of the disk.
pub const RESERVE_PART: u64 = 16;
/// Files that are left free, on disks that count them.
const RESERVE_FILES: u64 = 8;

/// Watches the space of one directory's disk. Writing stops below the reserve, and goes on above it and a half.
pub(crate) struct Room {
    dir: PathBuf,
    short: AtomicBool,
}

/// What a disk has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Space {
    bytes: u64,
    bytes_free: u64,
    files: u64,
    files_free: u64,
}

/// The space that this process may use; `None`: the system does not say.
fn space(dir: &Path) -> Option<Space> {
    let told = rustix::fs::statvfs(dir).ok()?;
    Some(Space {
        bytes: told.f_blocks.saturating_mul(told.f_frsize),
        bytes_free: told.f_bavail.saturating_mul(told.f_frsize),
        files: told.f_files,
        files_free: told.f_favail,
    })
}

fn mebibytes(bytes: u64) -> String {
    let tenths = bytes / (1 << 20) * 10 + bytes % (1 << 20) * 10 / (1 << 20);
    format!("{}.{} MiB", tenths / 10, tenths % 10)
}

/// Why nothing more is written; `None`: there is room. `short`: it was so before.
fn shortage(space: Space, short: bool) -> Option<String> {
    let reserve = RESERVE_BYTES.min(space.bytes / RESERVE_PART);
    let wanted = if short { reserve + reserve / 2 } else { reserve };
    if space.bytes_free < wanted {
        return Some(format!("{} are free and {} are wanted", mebibytes(space.bytes_free), mebibytes(wanted)));
    }
    (space.files > 0 && space.files_free < RESERVE_FILES).then(|| "it takes no more files".to_owned())
}

impl Room {
    pub(crate) fn new(dir: &Path) -> Self {
        Self { dir: dir.to_path_buf(), short: AtomicBool::new(false) }
    }

    /// [`StoreFault::Full`] while there is too little.
    pub(crate) fn check(&self) -> Result<(), StoreFault> {
        let Some(space) = space(&self.dir) else { return Ok(()) };
        let why = shortage(space, self.short.load(Ordering::Relaxed));
        self.short.store(why.is_some(), Ordering::Relaxed);
        why.map_or(Ok(()), |why| Err(StoreFault::Full { path: self.dir.clone(), why }))
    }
}

/// Opens the files once more.
type Open = Box<dyn Fn() -> Result<Arc<dyn Store>, StoreFault> + Send + Sync>;

/// The store on files, which is opened anew after a full disk.
pub(crate) struct Reopened {
    room: Room,
    open: Open,
    store: RwLock<Option<Arc<dyn Store>>>,
    /// A write found no space: the database takes nothing more, and is read but for pages that were about to be split or merged.
    failed: AtomicBool,
    /// Commits are one at a time, reopening included.
    commits: Mutex<()>,
    /// What the counts were when it was closed.
    counts: Mutex<OutboxCounts>,
}

/// A holder that panicked left a whole value.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Reopened {
    pub(crate) fn new(dir: &Path, store: Arc<dyn Store>, open: Open) -> Self {
        let store = RwLock::new(Some(store));
        Self { room: Room::new(dir), open, store, failed: AtomicBool::new(false), commits: Mutex::default(), counts: Mutex::default() }
    }

    fn now(&self) -> Option<Arc<dyn Store>> {
        self.store.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, store: Option<Arc<dyn Store>>) {
        *self.store.write().unwrap_or_else(PoisonError::into_inner) = store;
    }

    fn read<T>(&self, read: impl FnOnce(&dyn Store) -> Result<T, StoreFault>) -> Result<T, StoreFault> {
        match self.now() {
            Some(store) => read(&*store),
            None => Err(StoreFault::Full { path: self.room.dir.clone(), why: "the database is closed until there is".into() }),
        }
    }

    fn opened(&self) -> Result<Arc<dyn Store>, StoreFault> {
        if let Some(store) = self.now() {
            if !self.failed.load(Ordering::Relaxed) {
                return Ok(store);
            }
            *lock(&self.counts) = store.outbox_counts();
            self.set(None);
        }
        let store = (self.open)().map_err(|fault| match fault {
            // A reader still holds the database that was closed.
            StoreFault::InUse { path } => {
                StoreFault::Full { path, why: "the database is still being closed after a write found none".into() }
            }
            other => other,
        })?;
        tracing::info!(path = %self.room.dir.display(), "the database is open again, as it was last flushed");
        self.failed.store(false, Ordering::Relaxed);
        self.set(Some(Arc::clone(&store)));
        Ok(store)
    }
}

impl Store for Reopened {
    fn commit(&self, batches: &[Vec<Op>]) -> Result<(), StoreFault> {
        let _one = lock(&self.commits);
        if batches.iter().all(Vec::is_empty) {
            return Ok(());
        }
        self.room.check()?;
        let store = self.opened()?;
        let result = store.commit(batches);
        if matches!(result, Err(StoreFault::Full { .. })) {
            self.failed.store(true, Ordering::Relaxed);
        }
        result
    }

    fn room(&self) -> Result<(), StoreFault> {
        self.room.check()?;
        self.read(|_| Ok(()))
    }

    fn snapshot(&self, heads_from: Height) -> Result<Snapshot, StoreFault> {
        self.read(|store| store.snapshot(heads_from))
    }
    fn head(&self, root: &Root) -> Result<Option<HeadRow>, StoreFault> {
        self.read(|store| store.head(root))
    }
    fn head_wires(&self, roots: &[Root]) -> Result<Vec<Vec<u8>>, StoreFault> {
        self.read(|store| store.head_wires(roots))
    }
    fn share_wires(&self, units: &[UnitId]) -> Result<Vec<Vec<u8>>, StoreFault> {
        self.read(|store| store.share_wires(units))
    }
    fn ban_wires(&self, miners: &[PublicKey]) -> Result<Vec<Vec<u8>>, StoreFault> {
        self.read(|store| store.ban_wires(miners))
    }
    fn share(&self, unit: &UnitId) -> Result<Option<ShareRow>, StoreFault> {
        self.read(|store| store.share(unit))
    }
    fn receipt(&self, id: &ReceiptId) -> Result<Option<ShareRow>, StoreFault> {
        self.read(|store| store.receipt(id))
    }
    fn receipts(&self, filter: &ReceiptFilter, after: Option<&Cursor>, limit: usize) -> Result<Page<ShareRow>, StoreFault> {
        self.read(|store| store.receipts(filter, after, limit))
    }
    fn main_heads(&self, from: Option<Height>, limit: usize) -> Result<Vec<HeadRow>, StoreFault> {
        self.read(|store| store.main_heads(from, limit))
    }
    fn ledger_row(&self, miner: &PublicKey) -> Result<Option<LedgerRow>, StoreFault> {
        self.read(|store| store.ledger_row(miner))
    }
    fn ledger(&self, after: Option<&Cursor>, limit: usize) -> Result<Page<(PublicKey, LedgerRow)>, StoreFault> {
        self.read(|store| store.ledger(after, limit))
    }
    fn standing(&self, miner: &PublicKey) -> Result<Option<StandingRow>, StoreFault> {
        self.read(|store| store.standing(miner))
    }
    fn ban(&self, miner: &PublicKey) -> Result<Option<BanRow>, StoreFault> {
        self.read(|store| store.ban(miner))
    }
    fn bans(&self, after: Option<&Cursor>, limit: usize) -> Result<Page<BanRow>, StoreFault> {
        self.read(|store| store.bans(after, limit))
    }
    fn outbox_row(&self, unit: &UnitId) -> Result<Option<OutboxRow>, StoreFault> {
        self.read(|store| store.outbox_row(unit))
    }
    fn outbox(&self, state: OutboxState, after: Option<&Cursor>, limit: usize) -> Result<Page<OutboxRow>, StoreFault> {
        self.read(|store| store.outbox(state, after, limit))
    }
    fn outbox_counts(&self) -> OutboxCounts {
        self.now().map_or_else(|| *lock(&self.counts), |store| store.outbox_counts())
    }
    fn mark_attempt(&self, unit: &UnitId, at: Millis, note: &str) -> Result<(), StoreFault> {
        self.read(|store| store.mark_attempt(unit, at, note))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writing_stops_at_the_reserve_and_goes_on_half_above_it() {
        let disk = |bytes_free| Space { bytes: 1 << 40, bytes_free, files: 0, files_free: 0 };
        assert_eq!(shortage(disk(RESERVE_BYTES), false), None);
        assert_eq!(shortage(disk(RESERVE_BYTES - 1), false).as_deref(), Some("63.9 MiB are free and 64.0 MiB are wanted"));
        assert!(shortage(disk(RESERVE_BYTES * 3 / 2 - 1), true).is_some());
        assert_eq!(shortage(disk(RESERVE_BYTES * 3 / 2), true), None);
        // A sixteenth of a small disk.
        let small = Space { bytes: 32 << 20, bytes_free: 2 << 20, files: 0, files_free: 0 };
        assert_eq!(shortage(small, false), None);
        assert!(shortage(Space { bytes_free: (2 << 20) - 1, ..small }, false).is_some());
        let crowded = Space { files: 1_000, files_free: RESERVE_FILES - 1, ..disk(1 << 30) };
        assert_eq!(shortage(crowded, false).as_deref(), Some("it takes no more files"));
        assert!(space(Path::new(".")).is_some_and(|space| space.bytes > 0));
    }
}
