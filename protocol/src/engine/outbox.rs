//! Which audited receipts are due at the aggregator (spec §5): deep enough, and earning.
//!
//! Rows outlive the table of shares after a damaged store, so that a unit that was delivered is never queued again. What is owed to the
//! aggregator outlives retention too: it may be away for longer than this node keeps shares.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use super::io::{Op, OutboxEntry, OutboxState};
use crate::types::{PublicKey, UnitId};

/// Rows that are owed for so many epochs are dropped: four times the longest retention that sync can name.
pub const OUTBOX_AGE_EPOCHS: u64 = 4 * super::io::EPOCHS_PER_STATUS as u64;
/// Rows that may be owed at once (about 60 MB of texts in the store); past it the oldest are dropped.
pub const OUTBOX_UNSENT_MAX: usize = 65_536;

#[derive(Debug, Clone, Copy)]
struct Row {
    epoch: u64,
    state: OutboxState,
    miner: Option<PublicKey>,
}

/// The outbox's states; the receipts themselves are the store's.
#[derive(Debug, Default)]
pub struct Outbox {
    rows: BTreeMap<UnitId, Row>,
    /// Waiting rows by epoch, so that a new tip looks at the ripe ones only.
    waiting: BTreeSet<(u64, UnitId)>,
    /// Due rows and dead letters by epoch: nobody else has them.
    owed: BTreeSet<(u64, UnitId)>,
    due: usize,
}

impl Outbox {
    /// Puts back a stored row.
    pub fn restore(&mut self, row: OutboxEntry) {
        let OutboxEntry { unit, epoch, state, miner } = row;
        self.put(unit, Row { epoch, state, miner });
    }
    /// Rows that wait, rows that are due.
    pub fn counts(&self) -> (usize, usize) {
        (self.waiting.len(), self.due)
    }

    fn put(&mut self, unit: UnitId, row: Row) {
        self.take(&unit);
        self.rows.insert(unit, row);
        match row.state {
            OutboxState::Waiting => {
                self.waiting.insert((row.epoch, unit));
            }
            OutboxState::Due => {
                self.due += 1;
                self.owed.insert((row.epoch, unit));
            }
            OutboxState::Dead => {
                self.owed.insert((row.epoch, unit));
            }
            OutboxState::Delivered | OutboxState::Void => {}
        }
    }

    fn take(&mut self, unit: &UnitId) {
        let Some(Row { epoch, state, .. }) = self.rows.remove(unit) else { return };
        self.waiting.remove(&(epoch, *unit));
        self.owed.remove(&(epoch, *unit));
        if state == OutboxState::Due {
            self.due -= 1;
        }
    }

    fn set(&mut self, unit: UnitId, row: Row, state: OutboxState, ops: &mut Vec<Op>) {
        self.put(unit, Row { state, ..row });
        ops.push(Op::PutOutbox { unit, epoch: row.epoch, state });
    }

    fn drop_row(&mut self, unit: UnitId, ops: &mut Vec<Op>) {
        self.take(&unit);
        ops.push(Op::DropOutbox { unit });
    }

    /// An audited share enters, unless its unit is known here.
    pub fn enter(&mut self, unit: UnitId, epoch: u64, miner: PublicKey, ops: &mut Vec<Op>) {
        if !self.rows.contains_key(&unit) {
            let state = OutboxState::Waiting;
            self.set(unit, Row { epoch, state, miner: Some(miner) }, state, ops);
        }
    }

    /// What is keyed at or below `ripe_epoch` and earns becomes due.
    pub fn ripen(&mut self, ripe_epoch: u64, earns: impl Fn(&UnitId) -> bool, ops: &mut Vec<Op>) {
        let ripe: Vec<(u64, UnitId)> =
            self.waiting.iter().take_while(|(epoch, _)| *epoch <= ripe_epoch).filter(|(_, unit)| earns(unit)).copied().collect();
        for (_, unit) in ripe {
            if let Some(row) = self.rows.get(&unit).copied() {
                self.set(unit, row, OutboxState::Due, ops);
            }
        }
    }

    /// A share began or ceased to earn.
    pub fn turned(&mut self, unit: &UnitId, earns: bool, ops: &mut Vec<Op>) {
        let Some(row) = self.rows.get(unit).copied() else { return };
        let next = match (row.state, earns) {
            (OutboxState::Due, false) => OutboxState::Waiting,
            (OutboxState::Delivered, false) => OutboxState::Void,
            (OutboxState::Void, true) => OutboxState::Delivered,
            _ => return,
        };
        self.set(*unit, row, next, ops);
    }

    /// The aggregator has answered. A receipt that ceased to earn while it was on its way is listed as void. `earns` is `None` for a share that
    /// retention dropped: then the row knows, because nothing below retention changes any more.
    pub fn delivered(&mut self, unit: &UnitId, taken: bool, earns: Option<bool>, ops: &mut Vec<Op>) {
        let Some(row) = self.rows.get(unit).copied() else { return };
        // A dead letter that was in flight when it was replayed may be taken yet.
        if !matches!(row.state, OutboxState::Due | OutboxState::Waiting | OutboxState::Dead) {
            return;
        }
        let next = match (taken, earns.unwrap_or(row.state != OutboxState::Waiting)) {
            (false, _) => OutboxState::Dead,
            (true, true) => OutboxState::Delivered,
            (true, false) => OutboxState::Void,
        };
        self.set(*unit, row, next, ops);
    }

    /// A dead letter is to be sent again; one that does not earn now waits until it does. `earns` as in [`Self::delivered`].
    pub fn replay(&mut self, unit: &UnitId, earns: Option<bool>, ops: &mut Vec<Op>) {
        let Some(row) = self.rows.get(unit).copied().filter(|row| row.state == OutboxState::Dead) else { return };
        let next = if earns.unwrap_or(true) { OutboxState::Due } else { OutboxState::Waiting };
        self.set(*unit, row, next, ops);
    }

    /// A dead letter is to be forgotten. Its share keeps its state and its credit; it does not enter again, because a share enters once.
    pub fn discard(&mut self, unit: &UnitId, ops: &mut Vec<Op>) {
        if self.rows.get(unit).is_some_and(|row| row.state == OutboxState::Dead) {
            self.drop_row(*unit, ops);
        }
    }

    /// A ban voids everything of a key: what is owed for a share that only the outbox still knows is owed no more. The table of shares turns the
    /// others.
    pub fn banned(&mut self, miner: &PublicKey, known: impl Fn(&UnitId) -> bool, ops: &mut Vec<Op>) {
        let of_miner = |unit: &UnitId| self.rows.get(unit).is_some_and(|row| row.miner == Some(*miner));
        let void: Vec<UnitId> = self.owed.iter().map(|(_, unit)| *unit).filter(|unit| of_miner(unit) && !known(unit)).collect();
        for unit in void {
            self.drop_row(unit, ops);
        }
    }

    /// Forgets rows of epochs below `horizon`, but what is owed: that goes when it is [`OUTBOX_AGE_EPOCHS`] below `top`, or when there is too
    /// much of it.
    pub fn prune(&mut self, horizon: u64, top: u64, ops: &mut Vec<Op>) {
        let floor = horizon.min(top.saturating_sub(OUTBOX_AGE_EPOCHS));
        let surplus = self.owed.len().saturating_sub(OUTBOX_UNSENT_MAX);
        let unowed = self.rows.iter().filter(|(unit, row)| row.epoch < horizon && !self.owed.contains(&(row.epoch, **unit)));
        let overdue = self.owed.iter().enumerate().take_while(|(at, (epoch, _))| *at < surplus || *epoch < floor);
        let old: Vec<UnitId> = unowed.map(|(unit, _)| *unit).chain(overdue.map(|(_, (_, unit))| *unit)).collect();
        for unit in old {
            self.drop_row(unit, ops);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(n: u32) -> UnitId {
        let mut unit = UnitId([0; 32]);
        unit.0[..4].copy_from_slice(&n.to_be_bytes());
        unit
    }

    fn outbox(rows: &[(u32, u64, OutboxState)]) -> Outbox {
        let mut outbox = Outbox::default();
        for &(n, epoch, state) in rows {
            outbox.restore(OutboxEntry { unit: unit(n), epoch, state, miner: Some(PublicKey([n as u8; 33])) });
        }
        outbox
    }

    fn dropped(outbox: &mut Outbox, horizon: u64, top: u64) -> Vec<UnitId> {
        let mut ops = Vec::new();
        outbox.prune(horizon, top, &mut ops);
        ops.into_iter().filter_map(|op| if let Op::DropOutbox { unit } = op { Some(unit) } else { None }).collect()
    }

    #[test]
    fn what_is_owed_outlives_retention_and_everything_else_does_not() {
        use OutboxState::{Dead, Delivered, Due, Void, Waiting};
        let mut outbox = outbox(&[(1, 5, Waiting), (2, 5, Due), (3, 5, Dead), (4, 5, Delivered), (5, 5, Void), (6, 10, Delivered)]);
        assert_eq!(dropped(&mut outbox, 10, 1_500), [unit(1), unit(4), unit(5)]);
        assert_eq!(outbox.counts(), (0, 1));
        // The aggregator is back, and takes it.
        let mut ops = Vec::new();
        outbox.delivered(&unit(2), true, None, &mut ops);
        assert!(matches!(ops[..], [Op::PutOutbox { state: Delivered, .. }]));
        assert_eq!(outbox.counts(), (0, 0));
        assert_eq!(dropped(&mut outbox, 10, 1_500), [unit(2)]);
    }

    #[test]
    fn what_is_owed_for_ever_goes_in_the_end() {
        let mut outbox = outbox(&[(1, 5, OutboxState::Due), (2, 6, OutboxState::Dead)]);
        assert_eq!(dropped(&mut outbox, 5 + OUTBOX_AGE_EPOCHS, 5 + OUTBOX_AGE_EPOCHS), []);
        assert_eq!(dropped(&mut outbox, 6 + OUTBOX_AGE_EPOCHS, 6 + OUTBOX_AGE_EPOCHS), [unit(1)]);
        assert_eq!(outbox.counts(), (0, 0));
    }

    #[test]
    fn too_much_that_is_owed_loses_its_oldest() {
        let mut outbox = Outbox::default();
        for n in 0..OUTBOX_UNSENT_MAX as u32 + 3 {
            outbox.restore(OutboxEntry { unit: unit(n), epoch: n.into(), state: OutboxState::Due, miner: None });
        }
        assert_eq!(dropped(&mut outbox, 0, 0), [unit(0), unit(1), unit(2)]);
        assert_eq!(outbox.counts(), (0, OUTBOX_UNSENT_MAX));
    }

    #[test]
    fn a_ban_cancels_what_only_the_outbox_still_knows() {
        use OutboxState::{Dead, Delivered, Due};
        let mut outbox = outbox(&[(1, 5, Due), (2, 5, Due), (3, 5, Dead)]);
        let mut ops = Vec::new();
        for (miner, known) in [(1, true), (2, false), (3, false)] {
            outbox.banned(&PublicKey([miner; 33]), |_| known, &mut ops);
        }
        assert!(matches!(ops[..], [Op::DropOutbox { unit: two }, Op::DropOutbox { unit: three }] if (two, three) == (unit(2), unit(3))));
        outbox.delivered(&unit(2), true, None, &mut ops);
        assert_eq!((ops.len(), outbox.counts()), (2, (0, 1)));
        outbox.delivered(&unit(1), true, Some(true), &mut ops);
        assert!(matches!(ops.last(), Some(Op::PutOutbox { state: Delivered, .. })));
    }

    #[test]
    fn a_dead_letter_is_replayed_and_nothing_else() {
        use OutboxState::{Dead, Due, Waiting};
        let mut outbox = outbox(&[(1, 5, Dead), (2, 5, Dead), (3, 5, Due)]);
        let mut ops = Vec::new();
        for (n, earns) in [(1, Some(true)), (2, Some(false)), (3, Some(true)), (4, None)] {
            outbox.replay(&unit(n), earns, &mut ops);
        }
        assert!(matches!(ops[..], [Op::PutOutbox { state: Due, .. }, Op::PutOutbox { state: Waiting, .. }]));
        assert_eq!(outbox.counts(), (1, 2));
    }

    #[test]
    fn a_dead_letter_is_dropped_and_nothing_else() {
        use OutboxState::{Dead, Delivered, Due, Void, Waiting};
        let mut outbox = outbox(&[(1, 5, Dead), (2, 5, Due), (3, 5, Waiting), (4, 5, Delivered), (5, 5, Void)]);
        let mut ops = Vec::new();
        for n in [1, 1, 2, 3, 4, 5, 6] {
            outbox.discard(&unit(n), &mut ops);
        }
        assert!(matches!(ops[..], [Op::DropOutbox { unit: one }] if one == unit(1)));
        // An answer that comes late finds no row.
        outbox.delivered(&unit(1), true, Some(true), &mut ops);
        assert_eq!((ops.len(), outbox.counts()), (1, (1, 1)));
    }
}
