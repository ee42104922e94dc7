//! From the engine's ops to changes of trees: rows, their indexes and the outbox's bounds, read through what the batch already changed.
//!
//! A plan writes nothing itself, and repeating a batch plans the same rows again. Ops on rows that are not there change nothing: a
//! repeated batch meets rows that its first run dropped.

use std::ops::Bound;

use tops_protocol::codec;
use tops_protocol::engine::{BanRow, HeadRow, OUTBOX_AGE_EPOCHS, OUTBOX_UNSENT_MAX, Op, OutboxState, ShareRow, ShareState};
use tops_protocol::ledger::LedgerRow;
use tops_protocol::{Height, PublicKey, Receipt, Root, UnitId};

use crate::StoreFault;
use crate::disk::{Changes, Disk, KeyRange, Order, Visit, prefix};
use crate::journal::{Entry, keeps_text};
use crate::tables::{self, OUTBOX_STATES, OutboxValue, Table};

/// Most marks of what was delivered. When there are more, the oldest are dropped and counted; the aggregator knows their units too.
pub const OUTBOX_MARKS_MAX: u64 = 524_288;
/// Most rows that the bounds drop in one batch; the rest follow with the next ones.
pub const EVICTIONS_PER_BATCH: usize = 1_024;

/// What the store remembers of its outbox between batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct OutboxSums {
    /// Batches that touched it.
    pub(crate) seq: u64,
    /// Rows by state, in the order of [`OUTBOX_STATES`].
    pub(crate) counts: [u64; 5],
    /// The newest epoch it has seen.
    pub(crate) newest: u64,
    /// Rows dropped by its bounds.
    pub(crate) evicted: u64,
}

fn slot(state: OutboxState) -> usize {
    // Codes are 1..=5.
    usize::from(tables::outbox_code(state)) - 1
}

impl OutboxSums {
    pub(crate) fn count(&self, state: OutboxState) -> u64 {
        self.counts[slot(state)]
    }
    pub(crate) fn add(&mut self, state: OutboxState, epoch: u64) {
        self.counts[slot(state)] += 1;
        self.newest = self.newest.max(epoch);
    }
    fn unsent(&self) -> u64 {
        OUTBOX_STATES.into_iter().filter(|s| keeps_text(*s)).map(|s| self.count(s)).sum()
    }
    fn marks(&self) -> u64 {
        OUTBOX_STATES.into_iter().filter(|s| !keeps_text(*s)).map(|s| self.count(s)).sum()
    }
}

/// The bounds, so that tests need not fill the real ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OutboxBounds {
    /// Rows that are not with the aggregator yet. When there are more, the oldest waiting ones are dropped and counted, then the oldest dead, then
    /// the oldest due. A dropped one whose share is still stored comes back when the engine names it again.
    pub(crate) unsent: u64,
    pub(crate) marks: u64,
    /// Rows so many epochs older than the outbox's newest are dropped and counted.
    pub(crate) age_epochs: u64,
}

impl OutboxBounds {
    pub(crate) const STANDARD: Self = Self { unsent: OUTBOX_UNSENT_MAX as u64, marks: OUTBOX_MARKS_MAX, age_epochs: OUTBOX_AGE_EPOCHS };
}

/// What one batch comes to.
pub(crate) struct Planned {
    pub(crate) changes: Changes,
    pub(crate) sums: OutboxSums,
    pub(crate) journal: Vec<Entry>,
}

/// A batch being planned.
pub(crate) struct Plan<'a, D> {
    disk: &'a D,
    bounds: OutboxBounds,
    changes: Changes,
    sums: OutboxSums,
    journal: Vec<Entry>,
}

impl<'a, D: Disk> Plan<'a, D> {
    pub(crate) fn new(disk: &'a D, sums: OutboxSums, bounds: OutboxBounds) -> Self {
        Self { disk, bounds, changes: Changes::new(), sums, journal: Vec::new() }
    }

    /// Adds one op.
    pub(crate) fn op(&mut self, op: &Op) -> Result<(), StoreFault> {
        match op {
            Op::PutHead(row) => self.put_head(row),
            Op::DropHead(root) => self.drop_head(root),
            Op::PutMain { height, root } => {
                let key = tables::number_key(height.0);
                self.put(Table::Main, &key, tables::seal(Table::Main, &key, &root.0));
                Ok(())
            }
            Op::CutMain { from } => self.cut_main(*from),
            Op::PutShare(row) => self.put_share(row),
            Op::SetShare { unit, state } => self.set_share(unit, *state),
            Op::DropShare { unit } => self.drop_share(unit),
            Op::PutStanding { miner, row } => {
                self.put(Table::Standing, &miner.0, tables::standing_value(miner, row));
                Ok(())
            }
            Op::DropStanding { miner } => {
                self.remove(Table::Standing, &miner.0);
                Ok(())
            }
            Op::PutBan(row) => {
                self.put_ban(row);
                Ok(())
            }
            Op::DropBan { miner } => {
                self.remove(Table::Bans, &miner.0);
                Ok(())
            }
            Op::PutLedger { miner, row } => self.put_ledger(miner, row),
            Op::PutOutbox { unit, epoch, state } => self.put_outbox(unit, *epoch, *state),
            Op::PutHorizon { epoch } => {
                self.put(Table::Meta, tables::HORIZON_KEY, tables::horizon_value(*epoch));
                Ok(())
            }
            Op::DropOutbox { unit } => {
                // Nobody else has what is dropped unsent: it is counted, whoever dropped it.
                let owed = self.outbox(unit)?.is_some_and(|row| matches!(row.state, OutboxState::Due | OutboxState::Dead));
                self.sums.evicted += u64::from(owed);
                self.drop_outbox(unit)
            }
        }
    }

    /// Applies the outbox's bounds and ends the batch.
    pub(crate) fn finish(mut self) -> Result<Planned, StoreFault> {
        if !self.journal.is_empty() {
            self.evict()?;
            self.sums.seq += 1;
            let row = tables::outbox_seq_value(self.sums.seq);
            self.put(Table::Meta, tables::OUTBOX_SEQ_KEY, row);
        }
        Ok(Planned { changes: self.changes, sums: self.sums, journal: self.journal })
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreFault> {
        match self.changes.get(&(table, key.to_vec())) {
            Some(changed) => Ok(changed.clone()),
            None => self.disk.get(table, key),
        }
    }

    fn put(&mut self, table: Table, key: &[u8], value: Vec<u8>) {
        self.changes.insert((table, key.to_vec()), Some(value));
    }

    fn index(&mut self, table: Table, key: &[u8]) {
        self.put(table, key, tables::seal(table, key, &[]));
    }

    fn remove(&mut self, table: Table, key: &[u8]) {
        self.changes.insert((table, key.to_vec()), None);
    }

    /// The first key of a range whose start is bounded, as the batch has made it so far.
    fn first_key(&self, table: Table, range: KeyRange) -> Result<Option<Vec<u8>>, StoreFault> {
        let bound = |bound: &Bound<Vec<u8>>| match bound {
            Bound::Included(key) => Bound::Included((table, key.clone())),
            Bound::Excluded(key) => Bound::Excluded((table, key.clone())),
            Bound::Unbounded => Bound::Unbounded,
        };
        let planned =
            self.changes.range((bound(&range.0), bound(&range.1))).take_while(|((t, _), _)| *t == table).find(|(_, value)| value.is_some());
        let planned = planned.map(|((_, key), _)| key.clone());
        let mut stored = None;
        self.disk.scan(table, range, Order::Up, &mut |key, _| {
            let removed = matches!(self.changes.get(&(table, key.to_vec())), Some(None));
            if !removed {
                stored = Some(key.to_vec());
            }
            Ok(if removed { Visit::More } else { Visit::Stop })
        })?;
        Ok(planned.into_iter().chain(stored).min())
    }

    fn put_head(&mut self, row: &HeadRow) -> Result<(), StoreFault> {
        let key = row.root.0;
        if let Some(value) = self.get(Table::Heads, &key)? {
            let old = tables::read_head(&key, &value)?;
            self.remove(Table::HeadsByHeight, &tables::height_key(old.height, &old.root));
        }
        self.index(Table::HeadsByHeight, &tables::height_key(row.height, &row.root));
        self.put(Table::Heads, &key, tables::head_value(row));
        Ok(())
    }

    fn drop_head(&mut self, root: &Root) -> Result<(), StoreFault> {
        if let Some(value) = self.get(Table::Heads, &root.0)? {
            let old = tables::read_head(&root.0, &value)?;
            self.remove(Table::HeadsByHeight, &tables::height_key(old.height, root));
            self.remove(Table::Heads, &root.0);
        }
        Ok(())
    }

    fn cut_main(&mut self, from: Height) -> Result<(), StoreFault> {
        let start = tables::number_key(from.0).to_vec();
        let mut cut: Vec<Vec<u8>> = self
            .changes
            .range((Table::Main, start.clone())..)
            .take_while(|((t, _), _)| *t == Table::Main)
            .map(|((_, key), _)| key.clone())
            .collect();
        self.disk.scan(Table::Main, (Bound::Included(start), Bound::Unbounded), Order::Up, &mut |key, _| {
            cut.push(key.to_vec());
            Ok(Visit::More)
        })?;
        for key in cut {
            self.remove(Table::Main, &key);
        }
        Ok(())
    }

    fn put_share(&mut self, row: &ShareRow) -> Result<(), StoreFault> {
        let old = self.share(&row.unit)?;
        let same = old.as_ref().is_some_and(|old| (old.epoch, old.miner, &old.wire) == (row.epoch, row.miner, &row.wire));
        if !same {
            if old.is_some() {
                self.drop_share(&row.unit)?;
            }
            let id = parse(&row.unit, &row.wire)?.id().0;
            self.put(Table::Receipts, &id, tables::seal(Table::Receipts, &id, &row.unit.0));
            self.index(Table::SharesByEpoch, &tables::epoch_key(row.epoch, &row.unit));
            self.index(Table::SharesByMiner, &tables::miner_key(&row.miner, row.epoch, &row.unit));
        }
        self.put(Table::Shares, &row.unit.0, tables::share_value(row));
        Ok(())
    }

    fn share(&self, unit: &UnitId) -> Result<Option<ShareRow>, StoreFault> {
        self.get(Table::Shares, &unit.0)?.map(|value| tables::read_share(&unit.0, &value)).transpose()
    }

    fn set_share(&mut self, unit: &UnitId, state: ShareState) -> Result<(), StoreFault> {
        if let Some(old) = self.share(unit)? {
            self.put(Table::Shares, &unit.0, tables::share_value(&ShareRow { state, ..old }));
        }
        Ok(())
    }

    fn drop_share(&mut self, unit: &UnitId) -> Result<(), StoreFault> {
        if let Some(old) = self.share(unit)? {
            self.remove(Table::Receipts, &parse(unit, &old.wire)?.id().0);
            self.remove(Table::SharesByEpoch, &tables::epoch_key(old.epoch, unit));
            self.remove(Table::SharesByMiner, &tables::miner_key(&old.miner, old.epoch, unit));
            self.remove(Table::Shares, &unit.0);
        }
        Ok(())
    }

    fn put_ban(&mut self, row: &BanRow) {
        self.put(Table::Bans, &row.miner.0, tables::ban_value(row));
    }

    fn put_ledger(&mut self, miner: &PublicKey, row: &LedgerRow) -> Result<(), StoreFault> {
        if let Some(value) = self.get(Table::Ledger, &miner.0)? {
            let (_, old) = tables::read_ledger(&miner.0, &value)?;
            self.remove(Table::LedgerByCredit, &tables::credit_key(old.credit, miner));
        }
        self.index(Table::LedgerByCredit, &tables::credit_key(row.credit, miner));
        self.put(Table::Ledger, &miner.0, tables::ledger_value(miner, row));
        Ok(())
    }

    fn outbox(&self, unit: &UnitId) -> Result<Option<OutboxValue>, StoreFault> {
        self.get(Table::Outbox, &unit.0)?.map(|value| tables::read_outbox(&unit.0, &value).map(|(_, row)| row)).transpose()
    }

    fn put_outbox(&mut self, unit: &UnitId, epoch: u64, state: OutboxState) -> Result<(), StoreFault> {
        let old = self.outbox(unit)?;
        let kept = old.as_ref().map(|old| old.text.as_str()).filter(|text| !text.is_empty());
        let (text, fresh) = if !keeps_text(state) {
            (String::new(), None)
        } else if let Some(kept) = kept {
            (kept.to_owned(), None)
        } else if let Some(share) = self.share(unit)? {
            let text = parse(unit, &share.wire)?.to_text();
            (text.clone(), Some(text))
        } else {
            // Neither a text nor a share to make it from: the bounds dropped the row and retention the share. There is nothing to send.
            tracing::warn!(%unit, ?state, "nothing is left to deliver for this unit");
            return Ok(());
        };
        let row = OutboxValue { state, epoch, text };
        if old.as_ref() == Some(&row) {
            return Ok(());
        }
        if let Some(old) = old {
            // The reason stays beside a row that died; any other change begins to count anew.
            self.take_outbox(unit, &old, state != OutboxState::Dead);
        }
        self.index(Table::OutboxByState, &tables::state_key(state, epoch, unit));
        self.put(Table::Outbox, &unit.0, tables::outbox_value(unit, &row));
        self.sums.add(state, epoch);
        self.journal.push(Entry::Put { unit: *unit, state, epoch, text: fresh });
        Ok(())
    }

    fn drop_outbox(&mut self, unit: &UnitId) -> Result<(), StoreFault> {
        if let Some(old) = self.outbox(unit)? {
            self.take_outbox(unit, &old, true);
            self.remove(Table::Outbox, &unit.0);
            self.journal.push(Entry::Drop { unit: *unit });
        }
        Ok(())
    }

    /// Takes a row out of its index, the sums and, if asked, the attempts.
    fn take_outbox(&mut self, unit: &UnitId, old: &OutboxValue, attempts: bool) {
        self.remove(Table::OutboxByState, &tables::state_key(old.state, old.epoch, unit));
        if attempts {
            self.remove(Table::Attempts, &unit.0);
        }
        let count = &mut self.sums.counts[slot(old.state)];
        *count = count.saturating_sub(1);
    }

    /// The unit and the epoch of the oldest row in a state.
    fn oldest(&self, state: OutboxState) -> Result<Option<(u64, UnitId)>, StoreFault> {
        let Some(key) = self.first_key(Table::OutboxByState, prefix(&[tables::outbox_code(state)]))? else { return Ok(None) };
        let unit = UnitId(tables::key_tail(Table::OutboxByState, &key)?);
        Ok(self.outbox(&unit)?.map(|row| (row.epoch, unit)))
    }

    fn evict(&mut self) -> Result<(), StoreFault> {
        let mut left = EVICTIONS_PER_BATCH;
        let floor = self.sums.newest.saturating_sub(self.bounds.age_epochs);
        for state in OUTBOX_STATES {
            while left > 0
                && let Some((_, unit)) = self.oldest(state)?.filter(|(epoch, _)| *epoch < floor)
            {
                self.evict_one(&unit)?;
                left -= 1;
            }
        }
        let unsent = [OutboxState::Waiting, OutboxState::Dead, OutboxState::Due];
        let marks = [OutboxState::Void, OutboxState::Delivered];
        while left > 0 && self.sums.unsent() > self.bounds.unsent {
            let Some(state) = unsent.into_iter().find(|s| self.sums.count(*s) > 0) else { break };
            let Some((_, unit)) = self.oldest(state)? else { break };
            self.evict_one(&unit)?;
            left -= 1;
        }
        while left > 0 && self.sums.marks() > self.bounds.marks {
            let Some(state) = marks.into_iter().find(|s| self.sums.count(*s) > 0) else { break };
            let Some((_, unit)) = self.oldest(state)? else { break };
            self.evict_one(&unit)?;
            left -= 1;
        }
        Ok(())
    }

    fn evict_one(&mut self, unit: &UnitId) -> Result<(), StoreFault> {
        self.sums.evicted += 1;
        self.drop_outbox(unit)
    }
}

fn parse(unit: &UnitId, wire: &[u8]) -> Result<Receipt, StoreFault> {
    codec::receipt_from_wire(wire).map_err(|_| StoreFault::NotAReceipt { unit: *unit })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Store;
    use crate::common::{NET, accepted, share};
    use crate::memory::MemoryDisk;
    use std::sync::Arc;

    fn open(disk: &MemoryDisk, bounds: OutboxBounds) -> Arc<dyn Store> {
        disk.open_bounded(NET, bounds).unwrap().store
    }

    #[test]
    fn a_full_outbox_drops_its_oldest_waiting_rows_first_and_counts_them() {
        let disk = MemoryDisk::new();
        let store = open(&disk, OutboxBounds { unsent: 4, marks: 2, age_epochs: 1_000 });
        let put = |n, state| Op::PutOutbox { unit: share(1, n, n).unit, epoch: n, state };
        for n in 1..=4 {
            store.commit(&[accepted(1, n, n)]).unwrap();
        }
        store.commit(&[vec![put(1, OutboxState::Due)], accepted(1, 5, 5), accepted(1, 6, 6)]).unwrap();
        let left =
            |store: &dyn Store| -> Vec<_> { (1..=9).filter(|n| store.outbox_row(&share(1, *n, *n).unit).unwrap().is_some()).collect() };
        // 2 and 3 were the oldest that waited; 1 is due.
        assert_eq!(left(&*store), [1, 4, 5, 6]);
        assert_eq!((store.outbox_counts().evicted, store.outbox_counts().waiting, store.outbox_counts().due), (2, 3, 1));
        // A dropped one whose share is stored comes back when it is named again, with its text.
        store.commit(&[vec![put(2, OutboxState::Due)]]).unwrap();
        assert_eq!(left(&*store), [1, 2, 5, 6]);
        assert!(!store.outbox_row(&share(1, 2, 2).unit).unwrap().unwrap().text.is_empty());
        // Marks have a bound of their own.
        store.commit(&[vec![put(1, OutboxState::Delivered), put(2, OutboxState::Delivered), put(5, OutboxState::Delivered)]]).unwrap();
        assert_eq!(left(&*store), [2, 5, 6]);
        // The journal says the same.
        drop(store);
        disk.lose_trees();
        assert_eq!(left(&*open(&disk, OutboxBounds::STANDARD)), [2, 5, 6]);
    }

    #[test]
    fn old_rows_leave_whatever_their_state() {
        let store = open(&MemoryDisk::new(), OutboxBounds { unsent: 100, marks: 100, age_epochs: 10 });
        for (n, state) in OUTBOX_STATES.into_iter().enumerate() {
            let n = n as u64 + 1;
            store.commit(&[accepted(1, n, n), vec![Op::PutOutbox { unit: share(1, n, n).unit, epoch: n, state }]]).unwrap();
        }
        store.commit(&[accepted(1, 12, 12)]).unwrap();
        assert_eq!(store.outbox_counts().evicted, 1);
        store.commit(&[accepted(1, 40, 40)]).unwrap();
        assert_eq!(store.outbox_counts(), crate::OutboxCounts { waiting: 1, evicted: 6, ..Default::default() });
    }
}
