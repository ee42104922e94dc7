//! Gossiped receipts that may turn out right soon: their head is unknown yet, or their clock is ahead (spec §5, Hold).
//!
//! Bounded by peer, altogether, and in time. What runs out is ignored; if it was good, sync brings it.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use super::io::{Message, Peer, Topic};
use crate::types::{Millis, Root};
use crate::verify::Semantic;

/// The longest hold.
pub const HOLD_MS: u64 = 3_000;
/// Receipts on hold at a time, of all peers together (about 3 MB); a further one is ignored.
pub const HELD_TOTAL_MAX: usize = 4_096;

/// A receipt on hold.
#[derive(Debug, Clone)]
pub struct Held {
    /// Who delivered it.
    pub peer: Peer,
    /// Which message.
    pub message: Message,
    /// On which topic.
    pub topic: Topic,
    /// The receipt.
    pub receipt: Semantic,
    /// When it came.
    pub since: Millis,
    /// When its clock is close enough; zero when it waits for its head.
    due: Millis,
}

/// All receipts on hold.
#[derive(Debug, Default)]
pub struct Holds {
    rows: BTreeMap<u64, Held>,
    by_parent: BTreeMap<Root, BTreeSet<u64>>,
    next: u64,
}

impl Holds {
    /// How many are held.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether no further receipt is held.
    pub fn is_full(&self) -> bool {
        self.rows.len() >= HELD_TOTAL_MAX
    }

    /// Holds a receipt until its head comes (`due` = `None`) or its time has come.
    pub fn put(&mut self, peer: Peer, message: Message, topic: Topic, receipt: Semantic, since: Millis, due: Option<Millis>) {
        let key = self.next;
        self.next += 1;
        if due.is_none() {
            self.by_parent.entry(receipt.receipt().prev_hash).or_default().insert(key);
        }
        self.rows.insert(key, Held { peer, message, topic, receipt, since, due: due.unwrap_or_default() });
    }

    /// Releases what waited for this head.
    pub fn parent_came(&mut self, head: &Root) -> Vec<Held> {
        let keys = self.by_parent.remove(head).unwrap_or_default();
        keys.into_iter().filter_map(|key| self.rows.remove(&key)).collect()
    }

    /// Releases what is due by the clock, and what is held too long: `(again, expired)`.
    pub fn tick(&mut self, now: Millis) -> (Vec<Held>, Vec<Held>) {
        let (mut again, mut expired) = (Vec::new(), Vec::new());
        let keys: Vec<u64> = self
            .rows
            .iter()
            .filter(|(_, held)| (held.due.0 > 0 && held.due <= now) || now.since(held.since) >= HOLD_MS)
            .map(|(key, _)| *key)
            .collect();
        for key in keys {
            let Some(held) = self.rows.remove(&key) else { continue };
            if let Some(keys) = self.by_parent.get_mut(&held.receipt.receipt().prev_hash) {
                keys.remove(&key);
                if keys.is_empty() {
                    self.by_parent.remove(&held.receipt.receipt().prev_hash);
                }
            }
            if held.due.0 > 0 && held.due <= now { again.push(held) } else { expired.push(held) }
        }
        (again, expired)
    }
}
