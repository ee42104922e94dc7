//! What is known of keys: how far a miner is trusted before a look, and who is banned (spec §5).
//!
//! Trust is credit that this node recomputed itself; it only decides when a share is audited, never whether a true one counts.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::config::AuditRate;
use super::io::{BANS_PER_REPLY, BanRow, Digest, Op, StandingRow};
use super::shares::digest_of;
use crate::types::{PublicKey, U256};
use crate::verify::Semantic;

/// Standing and bans of all keys that have shares here.
#[derive(Debug, Default)]
pub struct Standing {
    rows: BTreeMap<PublicKey, StandingRow>,
    /// Key to the epoch of its false receipt.
    bans: BTreeMap<PublicKey, u64>,
}

impl Standing {
    /// Puts back what was stored.
    pub fn restore(&mut self, rows: Vec<(PublicKey, StandingRow)>, bans: &[BanRow]) {
        self.rows = rows.into_iter().collect();
        self.bans = bans.iter().map(|ban| (ban.miner, ban.epoch)).collect();
    }
    /// Whether the key is banned.
    pub fn is_banned(&self, miner: &PublicKey) -> bool {
        self.bans.contains_key(miner)
    }
    /// Whether the key has accepted shares here, so that a false root of it is punished.
    pub fn has_shares(&self, miner: &PublicKey) -> bool {
        self.rows.get(miner).is_some_and(|row| row.accepted > 0)
    }
    /// Whether a share of this weight may be forwarded before its audit.
    pub fn trusts(&self, miner: &PublicKey, weight: U256, rate: AuditRate) -> bool {
        let audited = self.rows.get(miner).map(|row| row.audited_weight).unwrap_or_default();
        !audited.is_zero() && audited >= weight.saturating_mul(U256::from(rate.inverse()))
    }
    /// A share was accepted.
    pub fn accepted(&mut self, miner: &PublicKey, weight: U256, audited: bool, ops: &mut Vec<Op>) {
        let row = self.rows.entry(*miner).or_default();
        row.accepted += 1;
        if audited {
            row.audited_weight = row.audited_weight.saturating_add(weight);
        }
        ops.push(Op::PutStanding { miner: *miner, row: *row });
    }
    /// An accepted share was recomputed later.
    pub fn confirmed(&mut self, miner: &PublicKey, weight: U256, ops: &mut Vec<Op>) {
        let row = self.rows.entry(*miner).or_default();
        row.audited_weight = row.audited_weight.saturating_add(weight);
        ops.push(Op::PutStanding { miner: *miner, row: *row });
    }
    /// A share fell below retention, and the weight that it was trusted for with it: good standing lasts as long as what earned it is kept. A key
    /// with nothing left is forgotten.
    pub fn retired(&mut self, miner: &PublicKey, trusted: U256, ops: &mut Vec<Op>) {
        let Some(row) = self.rows.get_mut(miner) else { return };
        row.accepted = row.accepted.saturating_sub(1);
        row.audited_weight = row.audited_weight.saturating_sub(trusted);
        if row.accepted == 0 {
            self.rows.remove(miner);
            ops.push(Op::DropStanding { miner: *miner });
        } else {
            ops.push(Op::PutStanding { miner: *miner, row: *row });
        }
    }
    /// Bans a key on the proof of a receipt whose root is false. `false` when it was banned already.
    pub fn ban(&mut self, proof: &Semantic, ops: &mut Vec<Op>) -> bool {
        let receipt = proof.receipt();
        if self.is_banned(&receipt.miner) {
            return false;
        }
        self.bans.insert(receipt.miner, receipt.epoch_id);
        // When the ban has run out, trust is earned anew.
        if let Some(row) = self.rows.get_mut(&receipt.miner) {
            row.audited_weight = U256::ZERO;
            ops.push(Op::PutStanding { miner: receipt.miner, row: *row });
        }
        ops.push(Op::PutBan(BanRow { miner: receipt.miner, epoch: receipt.epoch_id, wire: proof.wire().to_vec() }));
        true
    }
    /// Ends the bans whose receipt fell below retention.
    pub fn prune(&mut self, horizon: u64, ops: &mut Vec<Op>) {
        self.bans.retain(|miner, epoch| {
            let keep = *epoch >= horizon;
            if !keep {
                ops.push(Op::DropBan { miner: *miner });
            }
            keep
        });
    }
    /// How many keys are banned.
    pub fn bans(&self) -> usize {
        self.bans.len()
    }
    /// Count and digest of the banned keys.
    pub fn digest(&self) -> Digest {
        digest_of(self.bans.keys().map(|miner| miner.0.as_slice()))
    }
    /// A page of banned keys above `after`, and whether there are more.
    pub fn page(&self, after: Option<PublicKey>) -> (Vec<PublicKey>, bool) {
        use core::ops::Bound::{Excluded, Unbounded};
        let from = after.map_or(Unbounded, Excluded);
        let mut page: Vec<PublicKey> = self.bans.range((from, Unbounded)).take(BANS_PER_REPLY + 1).map(|(miner, _)| *miner).collect();
        let more = page.len() > BANS_PER_REPLY;
        page.truncate(BANS_PER_REPLY);
        (page, more)
    }
}
