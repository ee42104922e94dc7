//! The twin: the same store over maps, for simulations and tests, that loses and breaks what it is told to.
//!
//! A [`MemoryDisk`] outlives the stores that are opened on it, as a disk outlives processes. It never touches a file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tops_protocol::types::NetworkId;

use crate::StoreFault;
use crate::cellar::Cellar;
use crate::disk::{Changes, Disk, KeyRange, Order, Visit, Visitor, behind};
use crate::journal::{self, HeadFault, Journal};
use crate::plan::OutboxBounds;
use crate::sled::Opened;
use crate::tables::Table;

/// What is to go wrong next; each happens once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// This many transactions pass, then one is refused: a group of batches ends in its middle.
    Apply {
        /// Transactions that pass first.
        after: usize,
    },
    /// Everything is applied, but the flush fails: a crash now forgets it.
    Sync,
    /// Rows are durable, the journal does not get its frames.
    Journal,
}

/// A place in the trees.
type Place = (Table, Vec<u8>);

#[derive(Default)]
struct Inner {
    trees: BTreeMap<Table, BTreeMap<Vec<u8>, Vec<u8>>>,
    /// What changes since the last flush replaced, oldest first.
    undo: Vec<(Place, Option<Vec<u8>>)>,
    journal: Option<Vec<u8>>,
    fault: Option<Fault>,
    suspect: bool,
    full: bool,
}

/// Trees and a journal in memory. Clones are the same disk.
#[derive(Clone, Default)]
pub struct MemoryDisk(Arc<Mutex<Inner>>);

fn injected(action: &'static str) -> StoreFault {
    StoreFault::Io { path: PathBuf::from("memory"), action, why: "a fault was injected".into() }
}

impl Inner {
    fn room(&self) -> Result<(), StoreFault> {
        if self.full { Err(StoreFault::Full { path: PathBuf::from("memory"), why: "it was told to be full".into() }) } else { Ok(()) }
    }

    fn set(&mut self, table: Table, key: &[u8], value: Option<Vec<u8>>) -> Option<Vec<u8>> {
        let tree = self.trees.entry(table).or_default();
        match value {
            Some(value) => tree.insert(key.to_vec(), value),
            None => tree.remove(key),
        }
    }
}

impl MemoryDisk {
    /// An empty disk.
    pub fn new() -> Self {
        Self::default()
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens the store on this disk, with everything that opening files does: damaged trees are set aside (here: thrown away) and the outbox comes
    /// back from the journal.
    ///
    /// # Errors
    /// As [`crate::sled::open`], but for files and locks.
    pub fn open(&self, network: NetworkId) -> Result<Opened, StoreFault> {
        self.open_bounded(network, OutboxBounds::STANDARD)
    }

    pub(crate) fn open_bounded(&self, network: NetworkId, bounds: OutboxBounds) -> Result<Opened, StoreFault> {
        let path = Path::new("memory");
        let mut set_aside = None;
        if std::mem::take(&mut self.inner().suspect) {
            self.lose_trees();
            set_aside = Some(path.join("db.damaged"));
        }
        let journal = {
            let mut inner = self.inner();
            match inner.journal.as_deref().map(|bytes| journal::read(bytes, &network)) {
                None => Journal::default(),
                Some(Ok(journal)) => journal,
                Some(Err(HeadFault::Damaged)) => {
                    inner.journal = None;
                    Journal::default()
                }
                Some(Err(HeadFault::Format { found })) => {
                    return Err(StoreFault::Format { path: path.join("outbox.journal"), found, known: journal::FORMAT });
                }
                Some(Err(HeadFault::OtherNetwork { found })) => {
                    return Err(StoreFault::OtherNetwork {
                        path: path.join("outbox.journal"),
                        found: found.to_hex(),
                        wanted: network.to_hex(),
                    });
                }
            }
        };
        let (cellar, fresh) = match Cellar::open(self.clone(), network, bounds, journal.clone(), path) {
            Err(StoreFault::Damaged { what }) => {
                tracing::warn!(%what, "the store is damaged and was set aside");
                self.lose_trees();
                set_aside = Some(path.join("db.damaged"));
                Cellar::open(self.clone(), network, bounds, journal, path)?
            }
            other => other?,
        };
        Ok(Opened { store: Arc::new(cellar), fresh, set_aside })
    }

    /// Arms a fault; an armed one is replaced.
    pub fn inject(&self, fault: Fault) {
        self.inner().fault = Some(fault);
    }

    /// Takes nothing more, or does again.
    pub fn set_full(&self, full: bool) {
        self.inner().full = full;
    }

    /// The power fails: what was not flushed is forgotten. Stores still open on this disk must not be used again.
    pub fn crash(&self) {
        let mut inner = self.inner();
        while let Some(((table, key), before)) = inner.undo.pop() {
            inner.set(table, &key, before);
        }
    }

    /// The trees are gone; the journal stays.
    pub fn lose_trees(&self) {
        let mut inner = self.inner();
        inner.trees.clear();
        inner.undo.clear();
    }

    /// Flips a bit of the value that is `nth` of all, counted around. Does nothing on an empty disk.
    pub fn flip_bit(&self, nth: usize, bit: usize) {
        let mut inner = self.inner();
        let count: usize = inner.trees.values().map(BTreeMap::len).sum();
        if count == 0 {
            return;
        }
        if let Some(value) = inner.trees.values_mut().flat_map(BTreeMap::values_mut).nth(nth % count) {
            let bit = bit % (8 * value.len());
            value[bit / 8] ^= 1 << (bit % 8);
        }
    }

    /// Cuts the journal to its first `len` bytes.
    pub fn cut_journal(&self, len: usize) {
        if let Some(journal) = &mut self.inner().journal {
            journal.truncate(len);
        }
    }

    /// The journal's length in bytes.
    pub fn journal_len(&self) -> usize {
        self.inner().journal.as_ref().map_or(0, Vec::len)
    }
}

impl Disk for MemoryDisk {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreFault> {
        Ok(self.inner().trees.get(&table).and_then(|tree| tree.get(key)).cloned())
    }

    fn scan(&self, table: Table, range: KeyRange, order: Order, visit: &mut Visitor<'_>) -> Result<(), StoreFault> {
        // One key a turn, so that visitors may read the disk themselves.
        let mut left = Some(range);
        while let Some(range) = left {
            let found = {
                let inner = self.inner();
                let mut keys = inner.trees.get(&table).into_iter().flat_map(|tree| tree.range(range.clone()));
                let next = if order == Order::Up { keys.next() } else { keys.next_back() };
                next.map(|(key, value)| (key.clone(), value.clone()))
            };
            let Some((key, value)) = found else { break };
            if visit(&key, &value)? == Visit::Stop {
                break;
            }
            left = behind(range, order, &key);
        }
        Ok(())
    }

    fn apply(&self, changes: &Changes) -> Result<(), StoreFault> {
        let mut inner = self.inner();
        inner.room()?;
        match inner.fault {
            Some(Fault::Apply { after: 0 }) => {
                inner.fault = None;
                return Err(injected("written"));
            }
            Some(Fault::Apply { after }) => inner.fault = Some(Fault::Apply { after: after - 1 }),
            _ => {}
        }
        for ((table, key), value) in changes {
            let before = inner.set(*table, key, value.clone());
            inner.undo.push(((*table, key.clone()), before));
        }
        Ok(())
    }

    fn sync(&self) -> Result<(), StoreFault> {
        let mut inner = self.inner();
        inner.room()?;
        if inner.fault == Some(Fault::Sync) {
            inner.fault = None;
            return Err(injected("flushed"));
        }
        inner.undo.clear();
        Ok(())
    }

    fn journal_append(&self, bytes: &[u8]) -> Result<(), StoreFault> {
        let mut inner = self.inner();
        inner.room()?;
        if inner.fault == Some(Fault::Journal) {
            inner.fault = None;
            return Err(injected("appended"));
        }
        inner.journal.get_or_insert_default().extend_from_slice(bytes);
        Ok(())
    }

    fn journal_replace(&self, bytes: &[u8]) -> Result<(), StoreFault> {
        let mut inner = self.inner();
        inner.room()?;
        if inner.fault == Some(Fault::Journal) {
            inner.fault = None;
            return Err(injected("replaced"));
        }
        inner.journal = Some(bytes.to_vec());
        Ok(())
    }

    fn room(&self) -> Result<(), StoreFault> {
        self.inner().room()
    }

    fn suspect(&self, _what: &str) {
        self.inner().suspect = true;
    }
}
