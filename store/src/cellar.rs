//! The store's one implementation, over any [`Disk`]: opening and reconciling, commits, reads.
//!
//! Commits are one at a time. Reads take no lock: between an index and its row a commit may remove the row, and such a row is left out. Only
//! [`Store::snapshot`] holds commits back, so it is one moment.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tops_protocol::codec::{self, AnyReceipt};
use tops_protocol::engine::{BanRow, HeadRow, Op, OutboxEntry, OutboxState, ShareRow, Snapshot, StandingRow};
use tops_protocol::ledger::LedgerRow;
use tops_protocol::types::NetworkId;
use tops_protocol::{Height, Millis, PublicKey, ReceiptId, Root, UnitId};

use crate::disk::{Changes, Disk, KeyRange, Order, Visit, behind, everything, prefix};
use crate::journal::{self, Journal};
use crate::plan::{OutboxBounds, OutboxSums, Plan};
use crate::tables::{self, Attempts, FORMAT, FORMAT_KEY, NETWORK_KEY, OUTBOX_SEQ_KEY, OutboxValue, Table};
use crate::{Cursor, NOTE_MAX, OutboxCounts, OutboxRow, PAGE_MAX, Page, ReceiptFilter, Store, StoreFault};

/// Head rows below this many newest ones are not read at open; their checksums are checked when they are served.
const HEADS_CHECKED: usize = 65_536;

pub(crate) struct Cellar<D> {
    disk: D,
    network: NetworkId,
    bounds: OutboxBounds,
    commit: Mutex<Kept>,
    /// Apart from `commit`, so that a page of counters never waits for the disk.
    counts: Mutex<OutboxCounts>,
}

/// What only commits touch.
struct Kept {
    sums: OutboxSums,
    journal_bytes: u64,
    /// After the last rewriting.
    journal_base: u64,
    /// A commit failed, so the journal may lack rows that the trees have: the next one rewrites it.
    journal_stale: bool,
}

/// A lock whose holder panicked guards plain sums that are only replaced whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether a page takes another row.
fn room(limit: usize) -> usize {
    limit.clamp(1, PAGE_MAX)
}

impl<D: Disk> Cellar<D> {
    /// Checks or writes format and network, reads every value, and makes trees and journal agree on the outbox.
    /// `journal` is what could be read of it; `path` is for words. Also says whether the trees were empty.
    pub(crate) fn open(
        disk: D,
        network: NetworkId,
        bounds: OutboxBounds,
        journal: Journal,
        path: &Path,
    ) -> Result<(Self, bool), StoreFault> {
        let fresh = check_meta(&disk, &network, path)?;
        check_values(&disk)?;
        let mut sums = reconcile(&disk, journal)?;
        disk.scan(Table::Outbox, everything(), Order::Up, &mut |key, value| {
            let (_, row) = tables::read_outbox(key, value)?;
            sums.add(row.state, row.epoch);
            Ok(Visit::More)
        })?;
        let mut kept = Kept { sums, journal_bytes: 0, journal_base: 0, journal_stale: false };
        rewrite_journal(&disk, &network, &mut kept)?;
        let counts = Mutex::new(counts(&kept.sums));
        Ok((Self { disk, network, bounds, commit: Mutex::new(kept), counts }, fresh))
    }

    /// Tells the disk when a value proves wrong.
    fn watched<T>(&self, result: Result<T, StoreFault>) -> Result<T, StoreFault> {
        if let Err(StoreFault::Damaged { what }) = &result {
            self.disk.suspect(what);
        }
        result
    }

    fn read<T>(&self, table: Table, key: &[u8], read: impl FnOnce(&[u8], &[u8]) -> Result<T, StoreFault>) -> Result<Option<T>, StoreFault> {
        self.watched(self.disk.get(table, key).and_then(|value| value.map(|value| read(key, &value)).transpose()))
    }

    /// A page over an index whose keys lead to rows. `row` gives `None` for a row that a commit has just removed.
    fn page<T>(
        &self,
        table: Table,
        range: KeyRange,
        order: Order,
        after: Option<&Cursor>,
        limit: usize,
        mut row: impl FnMut(&[u8], &[u8]) -> Result<Option<T>, StoreFault>,
    ) -> Result<Page<T>, StoreFault> {
        let mut page = Page { rows: Vec::new(), next: None };
        let range = match after {
            None => Some(range),
            Some(cursor) => behind(range, order, &cursor.0),
        };
        let Some(range) = range else { return Ok(page) };
        let limit = room(limit);
        let mut last = Vec::new();
        let scanned = self.disk.scan(table, range, order, &mut |key, value| {
            if page.rows.len() == limit {
                page.next = Some(Cursor(std::mem::take(&mut last)));
                return Ok(Visit::Stop);
            }
            if let Some(row) = row(key, value)? {
                page.rows.push(row);
                last = key.to_vec();
            }
            Ok(Visit::More)
        });
        self.watched(scanned)?;
        Ok(page)
    }

    fn outbox_full(&self, unit: UnitId, row: OutboxValue) -> Result<OutboxRow, StoreFault> {
        let Attempts { count: attempts, at, note } = self.read(Table::Attempts, &unit.0, tables::read_attempts)?.unwrap_or_default();
        Ok(OutboxRow { unit, epoch: row.epoch, state: row.state, text: row.text, attempts, at, note })
    }

    fn commit_all(&self, batches: &[Vec<Op>], kept: &mut Kept) -> Result<(), StoreFault> {
        let (mut applied, mut frames) = (false, Vec::new());
        for batch in batches {
            let mut plan = Plan::new(&self.disk, kept.sums, self.bounds);
            for op in batch {
                plan.op(op)?;
            }
            let planned = plan.finish()?;
            if planned.changes.is_empty() {
                continue;
            }
            self.disk.apply(&planned.changes)?;
            applied = true;
            kept.sums = planned.sums;
            if !planned.journal.is_empty() {
                frames.extend(journal::frame(kept.sums.seq, &planned.journal));
            }
        }
        if applied {
            self.disk.sync()?;
        }
        // Behind the trees: a crash in between leaves them with the higher number, and they hold everything.
        if !frames.is_empty() || kept.journal_stale {
            kept.journal_bytes += frames.len() as u64;
            if kept.journal_stale || kept.journal_bytes > journal::LARGE.max(2 * kept.journal_base) {
                rewrite_journal(&self.disk, &self.network, kept)?;
            } else {
                self.disk.journal_append(&frames)?;
            }
        }
        Ok(())
    }
}

fn counts(sums: &OutboxSums) -> OutboxCounts {
    OutboxCounts {
        waiting: sums.count(OutboxState::Waiting),
        due: sums.count(OutboxState::Due),
        delivered: sums.count(OutboxState::Delivered),
        dead: sums.count(OutboxState::Dead),
        void: sums.count(OutboxState::Void),
        evicted: sums.evicted,
    }
}

/// Checks format and network, or writes them to empty trees: `true`.
fn check_meta(disk: &impl Disk, network: &NetworkId, path: &Path) -> Result<bool, StoreFault> {
    let mut changes = Changes::new();
    match disk.get(Table::Meta, FORMAT_KEY)? {
        Some(row) => {
            let found = tables::read_format(&row)?;
            if found != FORMAT {
                return Err(StoreFault::Format { path: path.to_path_buf(), found, known: FORMAT });
            }
            let row =
                disk.get(Table::Meta, NETWORK_KEY)?.ok_or_else(|| StoreFault::Damaged { what: "the network's row is missing".into() })?;
            let found = NetworkId(tables::read_hash(Table::Meta, NETWORK_KEY, &row)?);
            if found != *network {
                return Err(StoreFault::OtherNetwork { path: path.to_path_buf(), found: found.to_hex(), wanted: network.to_hex() });
            }
            return Ok(false);
        }
        None => {
            changes.insert((Table::Meta, FORMAT_KEY.to_vec()), Some(tables::format_row(FORMAT)));
            changes.insert((Table::Meta, NETWORK_KEY.to_vec()), Some(tables::network_value(network)));
        }
    }
    for table in Table::ALL {
        disk.scan(table, everything(), Order::Up, &mut |_, _| {
            Err(StoreFault::Damaged { what: format!("rows in {table} but no format row") })
        })?;
    }
    disk.apply(&changes)?;
    disk.sync()?;
    Ok(true)
}

/// Reads every value but old heads', and counts every index against its rows.
fn check_values(disk: &impl Disk) -> Result<(), StoreFault> {
    let mut rows = BTreeMap::new();
    for table in Table::ALL.into_iter().filter(|t| *t != Table::Heads) {
        let mut count = 0u64;
        disk.scan(table, everything(), Order::Up, &mut |key, value| {
            tables::check(table, key, value)?;
            count += 1;
            Ok(Visit::More)
        })?;
        rows.insert(table, count);
    }
    let pairs = [
        (Table::Shares, Table::SharesByEpoch),
        (Table::Shares, Table::SharesByMiner),
        (Table::Shares, Table::Receipts),
        (Table::Ledger, Table::LedgerByCredit),
        (Table::Outbox, Table::OutboxByState),
    ];
    for (table, index) in pairs {
        if rows.get(&table) != rows.get(&index) {
            return Err(StoreFault::Damaged { what: format!("{table} and {index} differ in length") });
        }
    }
    let mut left = HEADS_CHECKED;
    disk.scan(Table::HeadsByHeight, everything(), Order::Down, &mut |key, _| {
        let root = tables::key_tail::<32>(Table::HeadsByHeight, key)?;
        let row =
            disk.get(Table::Heads, &root)?.ok_or_else(|| StoreFault::Damaged { what: "a head of heads_by_height is missing".into() })?;
        tables::read_head(&root, &row)?;
        left -= 1;
        Ok(if left == 0 { Visit::Stop } else { Visit::More })
    })
}

/// Whichever of trees and journal has seen more batches is the whole truth about the outbox. Trees that never had a row know nothing.
fn reconcile(disk: &impl Disk, journal: Journal) -> Result<OutboxSums, StoreFault> {
    let seq = disk.get(Table::Meta, OUTBOX_SEQ_KEY)?.map(|row| tables::read_outbox_seq(&row)).transpose()?.unwrap_or(0);
    if (seq > 0 && seq >= journal.seq) || (seq == 0 && journal.seq == 0 && journal.rows.is_empty()) {
        return Ok(OutboxSums { seq, ..OutboxSums::default() });
    }
    let mut changes = Changes::new();
    for table in [Table::Outbox, Table::OutboxByState] {
        disk.scan(table, everything(), Order::Up, &mut |key, _| {
            changes.insert((table, key.to_vec()), None);
            Ok(Visit::More)
        })?;
    }
    for (unit, row) in &journal.rows {
        let key = tables::state_key(row.state, row.epoch, unit);
        changes.insert((Table::Outbox, unit.0.to_vec()), Some(tables::outbox_value(unit, row)));
        let value = tables::seal(Table::OutboxByState, &key, &[]);
        changes.insert((Table::OutboxByState, key), Some(value));
    }
    disk.scan(Table::Attempts, everything(), Order::Up, &mut |key, _| {
        if !changes.get(&(Table::Outbox, key.to_vec())).is_some_and(Option::is_some) {
            changes.insert((Table::Attempts, key.to_vec()), None);
        }
        Ok(Visit::More)
    })?;
    // At least one, so that from now on the trees count.
    let seq = journal.seq.max(1);
    changes.insert((Table::Meta, OUTBOX_SEQ_KEY.to_vec()), Some(tables::outbox_seq_value(seq)));
    tracing::info!(rows = journal.rows.len(), "the outbox was restored from its journal");
    disk.apply(&changes)?;
    disk.sync()?;
    Ok(OutboxSums { seq, ..OutboxSums::default() })
}

fn rewrite_journal(disk: &impl Disk, network: &NetworkId, kept: &mut Kept) -> Result<(), StoreFault> {
    let mut rows = Vec::new();
    disk.scan(Table::Outbox, everything(), Order::Up, &mut |key, value| {
        rows.push(tables::read_outbox(key, value)?);
        Ok(Visit::More)
    })?;
    let bytes = journal::rewritten(network, kept.sums.seq, rows.into_iter());
    disk.journal_replace(&bytes)?;
    kept.journal_bytes = bytes.len() as u64;
    kept.journal_base = kept.journal_bytes;
    kept.journal_stale = false;
    Ok(())
}

impl<D: Disk> Store for Cellar<D> {
    fn commit(&self, batches: &[Vec<Op>]) -> Result<(), StoreFault> {
        let mut kept = lock(&self.commit);
        let result = self.commit_all(batches, &mut kept);
        match result {
            Ok(()) => *lock(&self.counts) = counts(&kept.sums),
            Err(_) => kept.journal_stale = true,
        }
        self.watched(result)
    }

    fn room(&self) -> Result<(), StoreFault> {
        self.disk.room()
    }

    fn snapshot(&self, heads_from: Height) -> Result<Snapshot, StoreFault> {
        let _no_commits = lock(&self.commit);
        let mut all = Snapshot::default();
        let disk = &self.disk;
        let mut read = || {
            disk.scan(Table::Main, everything(), Order::Up, &mut |key, value| {
                let height = u64::from_be_bytes(tables::whole_key(Table::Main, key)?);
                if height != all.main.len() as u64 + 1 {
                    return Err(StoreFault::Damaged { what: format!("the main chain has no head before height {height}") });
                }
                all.main.push(Root(tables::read_hash(Table::Main, key, value)?));
                Ok(Visit::More)
            })?;
            let from = (std::ops::Bound::Included(tables::number_key(heads_from.0).to_vec()), std::ops::Bound::Unbounded);
            disk.scan(Table::HeadsByHeight, from, Order::Up, &mut |key, _| {
                let root = tables::key_tail::<32>(Table::HeadsByHeight, key)?;
                let row = disk
                    .get(Table::Heads, &root)?
                    .ok_or_else(|| StoreFault::Damaged { what: "a head of heads_by_height is missing".into() })?;
                all.heads.push(tables::read_head(&root, &row)?);
                Ok(Visit::More)
            })?;
            disk.scan(Table::Shares, everything(), Order::Up, &mut |key, value| {
                all.shares.push(tables::read_share(key, value)?);
                Ok(Visit::More)
            })?;
            disk.scan(Table::Standing, everything(), Order::Up, &mut |key, value| {
                all.standing.push(tables::read_standing(key, value)?);
                Ok(Visit::More)
            })?;
            disk.scan(Table::Bans, everything(), Order::Up, &mut |key, value| {
                all.bans.push(tables::read_ban(key, value)?);
                Ok(Visit::More)
            })?;
            disk.scan(Table::Ledger, everything(), Order::Up, &mut |key, value| {
                all.ledger.push(tables::read_ledger(key, value)?);
                Ok(Visit::More)
            })?;
            disk.scan(Table::Outbox, everything(), Order::Up, &mut |key, value| {
                let (unit, row) = tables::read_outbox(key, value)?;
                let receipt = codec::receipt_from_text(row.text.as_bytes()).ok();
                let miner = receipt.and_then(|receipt| if let AnyReceipt::V2(receipt) = receipt { Some(receipt.miner) } else { None });
                all.outbox.push(OutboxEntry { unit, epoch: row.epoch, state: row.state, miner });
                Ok(Visit::More)
            })?;
            all.horizon = disk.get(Table::Meta, tables::HORIZON_KEY)?.map(|row| tables::read_horizon(&row)).transpose()?.unwrap_or(0);
            Ok(())
        };
        let read = read();
        self.watched(read)?;
        Ok(all)
    }

    fn head(&self, root: &Root) -> Result<Option<HeadRow>, StoreFault> {
        self.read(Table::Heads, &root.0, tables::read_head)
    }

    fn head_wires(&self, roots: &[Root]) -> Result<Vec<Vec<u8>>, StoreFault> {
        roots.iter().filter_map(|root| self.head(root).map(|row| row.map(|row| row.wire)).transpose()).collect()
    }

    fn share_wires(&self, units: &[UnitId]) -> Result<Vec<Vec<u8>>, StoreFault> {
        units.iter().filter_map(|unit| self.share(unit).map(|row| row.map(|row| row.wire)).transpose()).collect()
    }

    fn ban_wires(&self, miners: &[PublicKey]) -> Result<Vec<Vec<u8>>, StoreFault> {
        miners.iter().filter_map(|miner| self.ban(miner).map(|row| row.map(|row| row.wire)).transpose()).collect()
    }

    fn share(&self, unit: &UnitId) -> Result<Option<ShareRow>, StoreFault> {
        self.read(Table::Shares, &unit.0, tables::read_share)
    }

    fn receipt(&self, id: &ReceiptId) -> Result<Option<ShareRow>, StoreFault> {
        match self.read(Table::Receipts, &id.0, |key, value| tables::read_hash(Table::Receipts, key, value))? {
            Some(unit) => self.share(&UnitId(unit)),
            None => Ok(None),
        }
    }

    fn receipts(&self, filter: &ReceiptFilter, after: Option<&Cursor>, limit: usize) -> Result<Page<ShareRow>, StoreFault> {
        let (table, range) = match (filter.miner, filter.epoch) {
            (None, None) => (Table::SharesByEpoch, everything()),
            (None, Some(epoch)) => (Table::SharesByEpoch, prefix(&tables::number_key(epoch))),
            (Some(miner), None) => (Table::SharesByMiner, prefix(&miner.0)),
            (Some(miner), Some(epoch)) => (Table::SharesByMiner, prefix(&[&miner.0[..], &tables::number_key(epoch)].concat())),
        };
        self.page(table, range, Order::Down, after, limit, |key, _| self.share(&UnitId(tables::key_tail(table, key)?)))
    }

    fn main_heads(&self, from: Option<Height>, limit: usize) -> Result<Vec<HeadRow>, StoreFault> {
        let end = from.map_or(std::ops::Bound::Unbounded, |h| std::ops::Bound::Included(tables::number_key(h.0).to_vec()));
        let range = (std::ops::Bound::Unbounded, end);
        let page = self.page(Table::Main, range, Order::Down, None, limit, |key, value| {
            self.head(&Root(tables::read_hash(Table::Main, key, value)?))
        })?;
        Ok(page.rows)
    }

    fn ledger_row(&self, miner: &PublicKey) -> Result<Option<LedgerRow>, StoreFault> {
        Ok(self.read(Table::Ledger, &miner.0, tables::read_ledger)?.map(|(_, row)| row))
    }

    fn ledger(&self, after: Option<&Cursor>, limit: usize) -> Result<Page<(PublicKey, LedgerRow)>, StoreFault> {
        self.page(Table::LedgerByCredit, everything(), Order::Up, after, limit, |key, _| {
            let miner = tables::key_tail::<33>(Table::LedgerByCredit, key)?;
            self.read(Table::Ledger, &miner, tables::read_ledger)
        })
    }

    fn standing(&self, miner: &PublicKey) -> Result<Option<StandingRow>, StoreFault> {
        Ok(self.read(Table::Standing, &miner.0, tables::read_standing)?.map(|(_, row)| row))
    }

    fn ban(&self, miner: &PublicKey) -> Result<Option<BanRow>, StoreFault> {
        self.read(Table::Bans, &miner.0, tables::read_ban)
    }

    fn bans(&self, after: Option<&Cursor>, limit: usize) -> Result<Page<BanRow>, StoreFault> {
        self.page(Table::Bans, everything(), Order::Up, after, limit, |key, value| tables::read_ban(key, value).map(Some))
    }

    fn outbox_row(&self, unit: &UnitId) -> Result<Option<OutboxRow>, StoreFault> {
        self.read(Table::Outbox, &unit.0, tables::read_outbox)?.map(|(unit, row)| self.outbox_full(unit, row)).transpose()
    }

    fn outbox(&self, state: OutboxState, after: Option<&Cursor>, limit: usize) -> Result<Page<OutboxRow>, StoreFault> {
        let range = prefix(&[tables::outbox_code(state)]);
        self.page(Table::OutboxByState, range, Order::Up, after, limit, |key, _| {
            let row = self.outbox_row(&UnitId(tables::key_tail(Table::OutboxByState, key)?))?;
            // A commit may have moved it on since the index was read.
            Ok(row.filter(|row| row.state == state))
        })
    }

    fn outbox_counts(&self) -> OutboxCounts {
        *lock(&self.counts)
    }

    fn mark_attempt(&self, unit: &UnitId, at: Millis, note: &str) -> Result<(), StoreFault> {
        // With commits held back the row cannot leave between the look and the mark.
        let _no_commits = lock(&self.commit);
        if self.read(Table::Outbox, &unit.0, tables::read_outbox)?.is_none() {
            return Ok(());
        }
        let Attempts { count, .. } = self.read(Table::Attempts, &unit.0, tables::read_attempts)?.unwrap_or_default();
        let note = &note[..note.floor_char_boundary(NOTE_MAX)];
        let value = tables::attempts_value(unit, count.saturating_add(1), at, note);
        let changes = Changes::from([((Table::Attempts, unit.0.to_vec()), Some(value))]);
        self.watched(self.disk.apply(&changes))
    }
}
