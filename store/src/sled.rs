//! The store on files: sled 0.34.7 with every precaution that it was found to need, and the outbox's journal beside it.
//!
//! ```text
//! <dir>/store.lock               held while open, by the operating system's lock
//! <dir>/db/                      sled's own; db/db is the file that is fsynced
//! <dir>/db.suspect               a value proved wrong while running: the next open sets db/ aside
//! <dir>/db.damaged-<n>/          set aside, at most SET_ASIDE_MAX of them
//! <dir>/outbox.journal           the outbox (crate::journal); outbox.journal.new while it is rewritten
//! <dir>/outbox.journal.damaged-<n>
//! ```
//!
//! Each precaution has its reason in `docs/decisions/store.md`. sled may panic on damaged files, so every call into it is caught; and a damaged
//! database is never closed, because closing may panic or wait for a thread of sled's that is gone.

use std::fs::{self, File, TryLockError};
use std::io::{ErrorKind, Seek, SeekFrom, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use sled::Transactional;
use sled::transaction::{ConflictableTransactionError, TransactionError};
use tops_protocol::types::NetworkId;

use crate::cellar::Cellar;
use crate::disk::{Changes, Disk, KeyRange, Order, Visit, Visitor};
use crate::journal::{self, HeadFault, Journal};
use crate::plan::OutboxBounds;
use crate::space::Reopened;
use crate::tables::Table;
use crate::{Store, StoreFault};

/// Memory that sled may use for pages; sled's own default is 1 GiB.
pub const CACHE_BYTES: u64 = 64 << 20;
/// Most databases, and most journals, that are kept after they were set aside; the oldest are deleted.
pub const SET_ASIDE_MAX: u64 = 3;
/// A longer journal was not written by this code, and is set aside unread.
pub const JOURNAL_BYTES_MAX: u64 = 1 << 30;
/// How long an open waits for the files' former owner to let go.
const LOCK_WAIT: Duration = Duration::from_secs(2);

const DB: &str = "db";
const LOCK: &str = "store.lock";
const SUSPECT: &str = "db.suspect";
const JOURNAL: &str = "outbox.journal";

/// An open store, and what became of the one before.
pub struct Opened {
    /// The store.
    pub store: Arc<dyn Store>,
    /// It began empty, though the outbox may have come from its journal: ask the peers for everything.
    pub fresh: bool,
    /// Where the damaged one went.
    pub set_aside: Option<PathBuf>,
}

/// Opens the store of `network` in `dir`, which is made if it is not there. A damaged database is set aside and a new one begun.
///
/// # Errors
/// [`StoreFault::Full`], [`StoreFault::InUse`], [`StoreFault::Format`], [`StoreFault::OtherNetwork`], [`StoreFault::Io`]; each says what to do, and
/// nothing was changed. After [`StoreFault::Full`] it may be tried again.
pub fn open(dir: &Path, network: NetworkId) -> Result<Opened, StoreFault> {
    fs::create_dir_all(dir).map_err(|e| io(dir, "created", &e))?;
    let lock = Arc::new(take_lock(dir)?);
    let journal = read_journal(dir, &network)?;
    let mut set_aside = None;
    let suspect = dir.join(SUSPECT);
    if suspect.exists() {
        set_aside = put_aside(dir, DB)?;
        fs::remove_file(&suspect).map_err(|e| io(&suspect, "removed", &e))?;
    }
    let (store, fresh) = match open_files(dir, network, journal.clone(), &lock) {
        Err(StoreFault::Damaged { what }) => {
            set_aside = put_aside(dir, DB)?;
            tracing::warn!(%what, aside = ?set_aside, "the store is damaged and was set aside; its contents come back from the peers");
            open_files(dir, network, journal, &lock)?
        }
        other => other?,
    };
    let again = {
        let (dir, lock) = (dir.to_path_buf(), Arc::clone(&lock));
        // Damage is not set aside here: the next start does that, with everything that follows from it.
        move || open_files(&dir, network, read_journal(&dir, &network)?, &lock).map(|(store, _)| store)
    };
    Ok(Opened { store: Arc::new(Reopened::new(dir, store, Box::new(again))), fresh, set_aside })
}

/// No space, or no more than a quota allows.
fn is_full(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}

fn io(path: &Path, action: &'static str, error: &std::io::Error) -> StoreFault {
    let path = path.to_path_buf();
    if is_full(error.kind()) {
        return StoreFault::Full { path, why: "the system has no space left for it".into() };
    }
    StoreFault::Io { path, action, why: error.to_string() }
}

/// A rename or a new file is on the disk only when its directory is.
fn sync_dir(dir: &Path) -> Result<(), StoreFault> {
    File::open(dir).and_then(|d| d.sync_all()).map_err(|e| io(dir, "flushed", &e))
}

/// Locks the directory before anything in it is looked at. A process that was just killed may hold it for a moment longer.
fn take_lock(dir: &Path) -> Result<File, StoreFault> {
    let path = dir.join(LOCK);
    let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(|e| io(&path, "opened", &e))?;
    let began = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if began.elapsed() < LOCK_WAIT => thread::sleep(Duration::from_millis(10)),
            Err(TryLockError::WouldBlock) => return Err(StoreFault::InUse { path: dir.to_path_buf() }),
            Err(TryLockError::Error(e)) => return Err(io(&path, "locked", &e)),
        }
    }
}

/// Renames a damaged file or directory to `<name>.damaged-<n>`. `None`: there was none.
fn put_aside(dir: &Path, name: &str) -> Result<Option<PathBuf>, StoreFault> {
    let from = dir.join(name);
    if !from.exists() {
        return Ok(None);
    }
    let begin = format!("{name}.damaged-");
    let entries = fs::read_dir(dir).map_err(|e| io(dir, "read", &e))?;
    let mut numbers: Vec<u64> = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.strip_prefix(&begin)?.parse().ok()).collect();
    numbers.sort_unstable();
    let next = numbers.last().map_or(1, |n| n.saturating_add(1));
    let to = dir.join(format!("{begin}{next}"));
    fs::rename(&from, &to).map_err(|e| io(&from, "renamed", &e))?;
    for old in numbers.into_iter().filter(|n| n.saturating_add(SET_ASIDE_MAX) <= next) {
        let old = dir.join(format!("{begin}{old}"));
        let gone = if old.is_dir() { fs::remove_dir_all(&old) } else { fs::remove_file(&old) };
        if let Err(e) = gone {
            tracing::warn!(path = %old.display(), "an old damaged store could not be removed: {e}");
        }
    }
    sync_dir(dir)?;
    Ok(Some(to))
}

/// A kill while sled writes its snapshot leaves this file, and sled then refuses to open for ever. It is never needed.
fn remove_leftovers(db: &Path) -> Result<(), StoreFault> {
    let entries = match fs::read_dir(db) {
        Ok(entries) => entries,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(io(db, "read", &e)),
    };
    for entry in entries {
        let entry = entry.map_err(|e| io(db, "read", &e))?;
        let name = entry.file_name();
        if name.to_str().is_some_and(|n| n.starts_with("snap.") && n.ends_with(".generating")) {
            fs::remove_file(entry.path()).map_err(|e| io(&entry.path(), "removed", &e))?;
        }
    }
    Ok(())
}

fn read_journal(dir: &Path, network: &NetworkId) -> Result<Journal, StoreFault> {
    let path = dir.join(JOURNAL);
    let length = match fs::metadata(&path) {
        Ok(found) => found.len(),
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Journal::default()),
        Err(e) => return Err(io(&path, "read", &e)),
    };
    let read = if length > JOURNAL_BYTES_MAX {
        Err(HeadFault::Damaged)
    } else {
        let bytes = fs::read(&path).map_err(|e| io(&path, "read", &e))?;
        journal::read(&bytes, network).inspect(|journal| {
            let lost = bytes.len() - journal.good;
            if lost > 0 {
                tracing::warn!(lost, "the outbox's journal ends in bytes that are not whole; they were left out");
            }
        })
    };
    match read {
        Ok(journal) => Ok(journal),
        Err(HeadFault::Damaged) => {
            let aside = put_aside(dir, JOURNAL)?;
            tracing::warn!(?aside, "the outbox's journal is damaged and was set aside");
            Ok(Journal::default())
        }
        Err(HeadFault::Format { found }) => Err(StoreFault::Format { path, found, known: journal::FORMAT }),
        Err(HeadFault::OtherNetwork { found }) => Err(StoreFault::OtherNetwork { path, found: found.to_hex(), wanted: network.to_hex() }),
    }
}

/// Runs a piece of sled; a panic is damage.
fn caught<T>(path: &Path, run: impl FnOnce() -> Result<T, sled::Error>) -> Result<T, StoreFault> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(result) => result.map_err(|e| fault(path, &e)),
        Err(panic) => {
            let words = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
            Err(StoreFault::Damaged { what: format!("sled panicked: {}", words.unwrap_or("no message")) })
        }
    }
}

fn fault(path: &Path, error: &sled::Error) -> StoreFault {
    match error {
        sled::Error::Io(e) if !matches!(e.kind(), ErrorKind::UnexpectedEof | ErrorKind::InvalidData) => io(path, "used", e),
        other => StoreFault::Damaged { what: other.to_string() },
    }
}

/// sled's own lock outlives the database by the time its flushing thread takes to end.
fn open_sled(path: &Path) -> Result<sled::Db, StoreFault> {
    let began = Instant::now();
    loop {
        remove_leftovers(path)?;
        match caught(path, || sled::Config::new().path(path).cache_capacity(CACHE_BYTES).open()) {
            Err(StoreFault::Io { why, .. }) if why.contains("could not acquire lock") => {
                if began.elapsed() >= LOCK_WAIT {
                    return Err(StoreFault::InUse { path: path.to_path_buf() });
                }
                thread::sleep(Duration::from_millis(10));
            }
            other => return other,
        }
    }
}

fn open_files(dir: &Path, network: NetworkId, journal: Journal, lock: &Arc<File>) -> Result<(Arc<dyn Store>, bool), StoreFault> {
    let path = dir.join(DB);
    let db = open_sled(&path)?;
    let opened = (|| {
        let trees = Table::ALL.into_iter().map(|table| caught(&path, || db.open_tree(table.name()))).collect::<Result<Vec<_>, _>>()?;
        let data = path.join("db");
        let file = File::open(&data).map_err(|e| io(&data, "opened", &e))?;
        sync_dir(&path)?;
        sync_dir(dir)?;
        let disk = SledDisk {
            db: db.clone(),
            trees,
            file,
            dir: dir.to_path_buf(),
            path: path.clone(),
            journal: Mutex::default(),
            _lock: Arc::clone(lock),
        };
        Cellar::open(disk, network, OutboxBounds::STANDARD, journal, dir)
    })();
    match opened {
        Ok((cellar, fresh)) => Ok((Arc::new(cellar), fresh)),
        Err(fault) => {
            if matches!(fault, StoreFault::Damaged { .. }) {
                // Never closed: see the head of this file.
                std::mem::forget(db);
            }
            Err(fault)
        }
    }
}

/// The journal's file, and how much of it is whole.
#[derive(Default)]
struct JournalFile {
    file: Option<File>,
    len: u64,
}

struct SledDisk {
    db: sled::Db,
    /// In the order of [`Table::ALL`].
    trees: Vec<sled::Tree>,
    /// sled's flush ends in the page cache; this handle's fsync ends on the disk.
    file: File,
    dir: PathBuf,
    path: PathBuf,
    journal: Mutex<JournalFile>,
    /// Let go last.
    _lock: Arc<File>,
}

impl SledDisk {
    fn tree(&self, table: Table) -> &sled::Tree {
        &self.trees[table as usize]
    }
}

impl Disk for SledDisk {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreFault> {
        Ok(caught(&self.path, || self.tree(table).get(key))?.map(|value| value.to_vec()))
    }

    fn scan(&self, table: Table, range: KeyRange, order: Order, visit: &mut Visitor<'_>) -> Result<(), StoreFault> {
        let mut rows = self.tree(table).range::<Vec<u8>, _>(range);
        while let Some((key, value)) = caught(&self.path, || if order == Order::Up { rows.next() } else { rows.next_back() }.transpose())? {
            if visit(&key, &value)? == Visit::Stop {
                break;
            }
        }
        Ok(())
    }

    fn apply(&self, changes: &Changes) -> Result<(), StoreFault> {
        // Only the trees that change: a tree in a transaction costs a lock and a commit.
        let mut tables: Vec<Table> = changes.keys().map(|(table, _)| *table).collect();
        tables.dedup();
        let trees: Vec<&sled::Tree> = tables.iter().map(|table| self.tree(*table)).collect();
        caught(&self.path, || {
            let done = trees.as_slice().transaction(|views| {
                let mut at = 0;
                for ((table, key), value) in changes {
                    // Changes come in the order of tables.
                    while tables[at] != *table {
                        at += 1;
                    }
                    match value {
                        Some(value) => views[at].insert(key.as_slice(), value.as_slice())?,
                        None => views[at].remove(key.as_slice())?,
                    };
                }
                Ok::<(), ConflictableTransactionError<()>>(())
            });
            match done {
                Ok(()) | Err(TransactionError::Abort(())) => Ok(()),
                Err(TransactionError::Storage(e)) => Err(e),
            }
        })
    }

    fn sync(&self) -> Result<(), StoreFault> {
        caught(&self.path, || self.db.flush())?;
        self.file.sync_all().map_err(|e| io(&self.path, "flushed", &e))
    }

    fn journal_append(&self, bytes: &[u8]) -> Result<(), StoreFault> {
        let mut journal = self.journal.lock().unwrap_or_else(PoisonError::into_inner);
        let path = self.dir.join(JOURNAL);
        let fault = |e: std::io::Error| io(&path, "appended to", &e);
        let len = journal.len;
        let Some(file) = &mut journal.file else {
            // Opening writes the journal anew before anything is appended.
            return Err(fault(ErrorKind::NotFound.into()));
        };
        // An append that failed half-way is written over.
        file.seek(SeekFrom::Start(len)).map_err(fault)?;
        file.write_all(bytes).map_err(fault)?;
        file.sync_data().map_err(fault)?;
        journal.len += bytes.len() as u64;
        Ok(())
    }

    fn journal_replace(&self, bytes: &[u8]) -> Result<(), StoreFault> {
        let mut journal = self.journal.lock().unwrap_or_else(PoisonError::into_inner);
        let path = self.dir.join(JOURNAL);
        let new = self.dir.join(format!("{JOURNAL}.new"));
        let mut file = File::create(&new).map_err(|e| io(&new, "created", &e))?;
        file.write_all(bytes).and_then(|()| file.sync_all()).map_err(|e| io(&new, "written", &e))?;
        fs::rename(&new, &path).map_err(|e| io(&new, "renamed", &e))?;
        *journal = JournalFile { file: Some(file), len: bytes.len() as u64 };
        sync_dir(&self.dir)
    }

    fn suspect(&self, what: &str) {
        let path = self.dir.join(SUSPECT);
        if !path.exists() {
            // Never closed: see the head of this file.
            std::mem::forget(self.db.clone());
        }
        if let Err(e) = fs::write(&path, what) {
            tracing::warn!(path = %path.display(), "the store is damaged ({what}), and that could not be noted for the next start: {e}");
        }
    }
}
