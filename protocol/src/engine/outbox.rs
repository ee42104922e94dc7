//! Which audited receipts are due at the aggregator (spec §5): deep enough, and earning.
//!
//! Rows outlive the table of shares after a damaged store, so that a unit that was delivered is never queued again.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use super::io::{Op, OutboxState};
use crate::types::UnitId;

/// The outbox's states; the receipts themselves are the store's.
#[derive(Debug, Default)]
pub struct Outbox {
    rows: BTreeMap<UnitId, (u64, OutboxState)>,
    /// Waiting rows by epoch, so that a new tip looks at the ripe ones only.
    waiting: BTreeSet<(u64, UnitId)>,
    due: usize,
}

impl Outbox {
    /// Puts back a stored row.
    pub fn restore(&mut self, unit: UnitId, epoch: u64, state: OutboxState) {
        self.put(unit, epoch, state);
    }
    /// Rows that wait, rows that are due.
    pub fn counts(&self) -> (usize, usize) {
        (self.waiting.len(), self.due)
    }

    fn put(&mut self, unit: UnitId, epoch: u64, state: OutboxState) {
        if let Some((old_epoch, old)) = self.rows.insert(unit, (epoch, state)) {
            if old == OutboxState::Due {
                self.due -= 1;
            }
            self.waiting.remove(&(old_epoch, unit));
        }
        match state {
            OutboxState::Waiting => {
                self.waiting.insert((epoch, unit));
            }
            OutboxState::Due => self.due += 1,
            _ => {}
        }
    }

    fn set(&mut self, unit: UnitId, epoch: u64, state: OutboxState, ops: &mut Vec<Op>) {
        self.put(unit, epoch, state);
        ops.push(Op::PutOutbox { unit, epoch, state });
    }

    /// An audited share enters, unless its unit is known here.
    pub fn enter(&mut self, unit: UnitId, epoch: u64, ops: &mut Vec<Op>) {
        if !self.rows.contains_key(&unit) {
            self.set(unit, epoch, OutboxState::Waiting, ops);
        }
    }

    /// What is keyed at or below `ripe_epoch` and earns becomes due.
    pub fn ripen(&mut self, ripe_epoch: u64, earns: impl Fn(&UnitId) -> bool, ops: &mut Vec<Op>) {
        let ripe: Vec<(u64, UnitId)> =
            self.waiting.iter().take_while(|(epoch, _)| *epoch <= ripe_epoch).filter(|(_, unit)| earns(unit)).copied().collect();
        for (epoch, unit) in ripe {
            self.set(unit, epoch, OutboxState::Due, ops);
        }
    }

    /// A share began or ceased to earn.
    pub fn turned(&mut self, unit: &UnitId, earns: bool, ops: &mut Vec<Op>) {
        let Some((epoch, state)) = self.rows.get(unit).copied() else { return };
        let next = match (state, earns) {
            (OutboxState::Due, false) => OutboxState::Waiting,
            (OutboxState::Delivered, false) => OutboxState::Void,
            (OutboxState::Void, true) => OutboxState::Delivered,
            _ => return,
        };
        self.set(*unit, epoch, next, ops);
    }

    /// The aggregator has answered. A receipt that ceased to earn while it was on its way is listed as void.
    pub fn delivered(&mut self, unit: &UnitId, taken: bool, earns: bool, ops: &mut Vec<Op>) {
        let Some((epoch, state)) = self.rows.get(unit).copied() else { return };
        // A dead letter may be replayed by hand, and taken then.
        if !matches!(state, OutboxState::Due | OutboxState::Waiting | OutboxState::Dead) {
            return;
        }
        let next = match (taken, earns) {
            (false, _) => OutboxState::Dead,
            (true, true) => OutboxState::Delivered,
            (true, false) => OutboxState::Void,
        };
        self.set(*unit, epoch, next, ops);
    }

    /// Forgets rows of epochs below `horizon`.
    pub fn prune(&mut self, horizon: u64, ops: &mut Vec<Op>) {
        let old: Vec<UnitId> = self.rows.iter().filter(|(_, (epoch, _))| *epoch < horizon).map(|(unit, _)| *unit).collect();
        for unit in old {
            if let Some((epoch, state)) = self.rows.remove(&unit) {
                self.waiting.remove(&(epoch, unit));
                if state == OutboxState::Due {
                    self.due -= 1;
                }
                ops.push(Op::DropOutbox { unit });
            }
        }
    }
}
