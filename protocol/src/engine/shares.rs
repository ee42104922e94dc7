//! The table of accepted shares, who earns by them, and their digests for sync (spec §3, §4, §6).
//!
//! One unit, one row, one entry in the ledger at most. Whether a share earns depends on the main chain and on its miner's
//! standing; both are told from outside, and [`Shares::settle`] moves the ledger accordingly. What is undecided is not here.
//!
//! What peers are told of, by digest and by page alike, is what earns, without heads that were taken as claimed: whoever serves a head
//! answers for it. Digest and page leave out the same, or an epoch could never be pulled to its end. A peer that audited such a head tells
//! more than this node until it has looked too, which the pull itself brings about: the head comes again, and is audited as it comes.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::cell::Cell;

use super::audits::count_down;
use super::io::{Digest, Op, SHARES_PER_REPLY, ShareRow, ShareState};
use crate::ledger::{Entry, LedgerRow};
use crate::network::derive_key_context;
use crate::types::{Millis, PublicKey, Root, U256, UnitId};
use crate::verify::{Contextual, Semantic};

/// An accepted share.
#[derive(Debug, Clone)]
pub struct Share {
    /// The head it is keyed on.
    pub prev: Root,
    /// Its root.
    pub root: Root,
    /// Its epoch.
    pub epoch: u64,
    /// Its miner.
    pub miner: PublicKey,
    /// What it earns when it earns.
    pub weight: U256,
    /// Where it stands.
    pub state: ShareState,
    /// `Some(counted as a head of the main chain)` while it earns.
    earning: Option<bool>,
    /// Kept while unaudited: what a later audit or an alert needs.
    evidence: Option<Contextual>,
}

/// A share that began or ceased to earn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turn {
    /// Which.
    pub unit: UnitId,
    /// Its epoch.
    pub epoch: u64,
    /// Whether it earns now.
    pub earns: bool,
}

/// All accepted shares within retention, and the ledger.
#[derive(Debug, Default)]
pub struct Shares {
    by_unit: BTreeMap<UnitId, Share>,
    by_root: BTreeMap<Root, UnitId>,
    by_epoch: BTreeMap<u64, BTreeSet<UnitId>>,
    by_head: BTreeMap<Root, BTreeSet<UnitId>>,
    by_miner: BTreeMap<PublicKey, BTreeSet<UnitId>>,
    /// How many shares of a miner are keyed on a head.
    on_head: BTreeMap<(Root, PublicKey), usize>,
    unaudited: BTreeSet<UnitId>,
    ledger: BTreeMap<PublicKey, LedgerRow>,
    digests: BTreeMap<u64, Computed>,
    /// Memo of [`Shares::ledger_digest`]; emptied whenever a row changes.
    ledger_digest: Cell<Option<[u8; 32]>>,
}

/// An epoch whose digest changed within this time may differ from a peer's by what is on its way: twice the age of what peers are told.
const MOVING_MS: u64 = 2 * super::exchange::TOLD_AGE_MS;

/// An epoch's digest as it was last computed.
#[derive(Debug, Clone, Copy)]
struct Computed {
    digest: Digest,
    at: Millis,
    /// Whether the epoch has changed since.
    stale: bool,
    /// When it was last computed to be another than before.
    moved: Millis,
}

/// First eight bytes of `DK("set digest", ids ascending)`, and their number.
pub fn digest_of<'a>(ids: impl Iterator<Item = &'a [u8]>) -> Digest {
    let mut hasher = blake3::Hasher::new_derive_key(&derive_key_context("set digest"));
    let mut count = 0u32;
    for id in ids {
        hasher.update(id);
        count = count.saturating_add(1);
    }
    let mut hash = [0; 8];
    if count > 0 {
        hash.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    }
    Digest { count, hash }
}

impl Shares {
    /// Shares in memory.
    pub fn len(&self) -> usize {
        self.by_unit.len()
    }
    /// The share of a unit.
    pub fn get(&self, unit: &UnitId) -> Option<&Share> {
        self.by_unit.get(unit)
    }
    /// The unit that was accepted with this root.
    pub fn unit_of_root(&self, root: &Root) -> Option<UnitId> {
        self.by_root.get(root).copied()
    }
    /// Shares that were accepted without a look.
    pub fn unaudited(&self) -> &BTreeSet<UnitId> {
        &self.unaudited
    }
    /// What a later audit of an unaudited share needs.
    pub fn evidence(&self, unit: &UnitId) -> Option<&Contextual> {
        self.by_unit.get(unit).and_then(|share| share.evidence.as_ref())
    }
    /// How many accepted shares of a miner are keyed on a head.
    pub fn count_on(&self, head: &Root, miner: &PublicKey) -> usize {
        self.on_head.get(&(*head, *miner)).copied().unwrap_or_default()
    }
    /// Whether a share earns now.
    pub fn earns(&self, unit: &UnitId) -> bool {
        self.by_unit.get(unit).is_some_and(|share| share.earning.is_some())
    }
    /// Whether peers are told of a share: it earns, and is no head that was taken as claimed.
    fn is_told(&self, unit: &UnitId) -> bool {
        let claimed = |share: &Share| share.evidence.as_ref().is_some_and(Contextual::is_head);
        self.by_unit.get(unit).is_some_and(|share| share.earning.is_some() && !claimed(share))
    }
    /// The ledger.
    pub fn ledger(&self) -> &BTreeMap<PublicKey, LedgerRow> {
        &self.ledger
    }

    /// Enters a share that was accepted. It does not earn before [`Shares::settle`]. No-op for a known unit.
    pub fn accept(&mut self, share: &Contextual, audited: bool, ops: &mut Vec<Op>) {
        let semantic = share.semantic();
        let unit = semantic.unit();
        if self.by_unit.contains_key(&unit) {
            return;
        }
        let state = if audited { ShareState::Audited } else { ShareState::Unaudited };
        self.index(semantic, share.weight(), state, (!audited).then(|| share.clone()));
        let receipt = semantic.receipt();
        ops.push(Op::PutShare(ShareRow { unit, epoch: receipt.epoch_id, miner: receipt.miner, state, wire: semantic.wire().to_vec() }));
    }

    /// Puts back a stored share.
    pub fn restore(&mut self, share: &Contextual, state: ShareState) {
        let evidence = (state == ShareState::Unaudited).then(|| share.clone());
        self.index(share.semantic(), share.weight(), state, evidence);
    }

    /// Puts back a stored row of the ledger.
    pub fn restore_ledger(&mut self, miner: PublicKey, row: LedgerRow) {
        self.ledger_digest.take();
        self.ledger.insert(miner, row);
    }

    fn index(&mut self, semantic: &Semantic, weight: U256, state: ShareState, evidence: Option<Contextual>) {
        let (unit, r) = (semantic.unit(), semantic.receipt());
        self.by_root.entry(r.work_root).or_insert(unit);
        self.by_epoch.entry(r.epoch_id).or_default().insert(unit);
        self.by_head.entry(r.prev_hash).or_default().insert(unit);
        self.by_miner.entry(r.miner).or_default().insert(unit);
        *self.on_head.entry((r.prev_hash, r.miner)).or_default() += 1;
        if state == ShareState::Unaudited {
            self.unaudited.insert(unit);
        }
        let (prev, root, epoch, miner) = (r.prev_hash, r.work_root, r.epoch_id, r.miner);
        self.by_unit.insert(unit, Share { prev, root, epoch, miner, weight, state, earning: None, evidence });
    }

    /// A share that was accepted without a look has been recomputed, and stands.
    pub fn confirm(&mut self, unit: &UnitId, ops: &mut Vec<Op>) -> bool {
        match self.by_unit.get_mut(unit) {
            Some(share) if share.state == ShareState::Unaudited => {
                share.state = ShareState::Audited;
                share.evidence = None;
                self.unaudited.remove(unit);
                changed(&mut self.digests, share.epoch);
                ops.push(Op::SetShare { unit: *unit, state: ShareState::Audited });
                true
            }
            _ => false,
        }
    }

    /// The units that are keyed on these heads.
    pub fn keyed_on(&self, heads: &BTreeSet<Root>) -> BTreeSet<UnitId> {
        heads.iter().filter_map(|head| self.by_head.get(head)).flatten().copied().collect()
    }

    /// Brings the ledger into line for these units. `earns(head)`: shares keyed on it earn; `is_main(root)`: it is a main head.
    pub fn settle(
        &mut self,
        units: impl IntoIterator<Item = UnitId>,
        earns: impl Fn(&Root) -> bool,
        is_main: impl Fn(&Root) -> bool,
        ops: &mut Vec<Op>,
    ) -> Vec<Turn> {
        let (mut turns, mut rows) = (Vec::new(), BTreeSet::new());
        for unit in units {
            let Some(share) = self.by_unit.get_mut(&unit) else { continue };
            let target = (share.state != ShareState::Void && earns(&share.prev)).then(|| is_main(&share.root));
            if target == share.earning {
                continue;
            }
            self.ledger_digest.take();
            let row = self.ledger.entry(share.miner).or_default();
            let entry = |head| Entry { miner: share.miner, weight: share.weight, head };
            if let Some(head) = share.earning {
                row.undo(&entry(head));
            }
            if let Some(head) = target {
                row.apply(&entry(head));
            }
            if share.earning.is_some() != target.is_some() {
                turns.push(Turn { unit, epoch: share.epoch, earns: target.is_some() });
                changed(&mut self.digests, share.epoch);
            }
            share.earning = target;
            rows.insert(share.miner);
        }
        for miner in rows {
            let row = self.ledger.get(&miner).copied().unwrap_or_default();
            ops.push(Op::PutLedger { miner, row });
        }
        turns
    }

    /// After a restart: marks as earning what earned, without moving the ledger, which was stored.
    pub fn mark_earning(&mut self, earns: impl Fn(&Root) -> bool, is_main: impl Fn(&Root) -> bool) {
        for share in self.by_unit.values_mut() {
            share.earning = (share.state != ShareState::Void && earns(&share.prev)).then(|| is_main(&share.root));
        }
        self.digests.clear();
    }

    /// A ban: all shares of the miner become void, all its credit is gone.
    pub fn void(&mut self, miner: &PublicKey, ops: &mut Vec<Op>) -> Vec<Turn> {
        let mut turns = Vec::new();
        for unit in self.by_miner.get(miner).into_iter().flatten() {
            let Some(share) = self.by_unit.get_mut(unit) else { continue };
            if share.state == ShareState::Void {
                continue;
            }
            share.state = ShareState::Void;
            share.evidence = None;
            self.unaudited.remove(unit);
            ops.push(Op::SetShare { unit: *unit, state: ShareState::Void });
            if share.earning.take().is_some() {
                turns.push(Turn { unit: *unit, epoch: share.epoch, earns: false });
                changed(&mut self.digests, share.epoch);
            }
        }
        self.ledger_digest.take();
        let row = self.ledger.entry(*miner).or_default();
        row.void();
        ops.push(Op::PutLedger { miner: *miner, row: *row });
        turns
    }

    /// Forgets the shares of epochs below `horizon`; the ledger keeps their sums. Gives what [`Shares::forget`] gives.
    pub fn prune(&mut self, horizon: u64, ops: &mut Vec<Op>) -> Vec<(PublicKey, U256)> {
        let kept = self.by_epoch.split_off(&horizon);
        let old = core::mem::replace(&mut self.by_epoch, kept);
        self.digests = self.digests.split_off(&horizon);
        self.forget(old.into_values().flatten(), ops)
    }

    /// Forgets shares; what they earn stays in the ledger. Gives the miner of each, and the weight that it was trusted for.
    pub fn forget(&mut self, units: impl IntoIterator<Item = UnitId>, ops: &mut Vec<Op>) -> Vec<(PublicKey, U256)> {
        let mut miners = Vec::new();
        for unit in units {
            let Some(share) = self.by_unit.remove(&unit) else { continue };
            if self.by_root.get(&share.root) == Some(&unit) {
                self.by_root.remove(&share.root);
            }
            remove_from(&mut self.by_epoch, &share.epoch, &unit);
            remove_from(&mut self.by_head, &share.prev, &unit);
            remove_from(&mut self.by_miner, &share.miner, &unit);
            count_down(&mut self.on_head, &(share.prev, share.miner));
            self.unaudited.remove(&unit);
            ops.push(Op::DropShare { unit });
            let trusted = if share.state == ShareState::Audited { share.weight } else { U256::ZERO };
            miners.push((share.miner, trusted));
        }
        miners
    }

    /// Count and digest of the epoch's units that peers are told of, at most `age_ms` out of date: however often it is asked for within that
    /// time, the units are hashed once.
    pub fn digest(&mut self, epoch: u64, age_ms: u64, now: Millis) -> Digest {
        let before = self.digests.get(&epoch).copied();
        if let Some(Computed { digest, at, stale, .. }) = before
            && (!stale || now.since(at) < age_ms)
        {
            return digest;
        }
        let units = self.by_epoch.get(&epoch).into_iter().flatten().filter(|unit| self.is_told(unit));
        let digest = digest_of(units.map(|unit| unit.0.as_slice()));
        let moved = before.filter(|before| before.digest == digest).map_or(now, |before| before.moved);
        self.digests.insert(epoch, Computed { digest, at: now, stale: false, moved });
        digest
    }
    /// Whether the epoch's digest was lately seen to change: what a peer says of it may be out of date.
    pub fn is_moving(&self, epoch: u64, now: Millis) -> bool {
        self.digests.get(&epoch).is_some_and(|computed| now.since(computed.moved) < MOVING_MS)
    }

    /// A page of the epoch's units that peers are told of, above `after`, and whether there are more.
    pub fn page(&self, epoch: u64, after: Option<UnitId>) -> (Vec<UnitId>, bool) {
        use core::ops::Bound::{Excluded, Unbounded};
        let Some(units) = self.by_epoch.get(&epoch) else { return (Vec::new(), false) };
        let from = after.map_or(Unbounded, Excluded);
        let mut page: Vec<UnitId> =
            units.range((from, Unbounded)).filter(|unit| self.is_told(unit)).take(SHARES_PER_REPLY + 1).copied().collect();
        let more = page.len() > SHARES_PER_REPLY;
        page.truncate(SHARES_PER_REPLY);
        (page, more)
    }

    /// `DK("ledger", rows)` of all miners with credit, in the order of keys: equal on nodes that credit the same. Hashed when it is asked for
    /// after a row has changed, and then no more.
    pub fn ledger_digest(&self) -> [u8; 32] {
        if let Some(digest) = self.ledger_digest.get() {
            return digest;
        }
        let mut hasher = blake3::Hasher::new_derive_key(&derive_key_context("ledger"));
        for (miner, row) in self.ledger.iter().filter(|(_, row)| row.shares > 0) {
            hasher.update(&miner.0);
            hasher.update(&row.credit.to_be_bytes::<32>());
            hasher.update(&row.shares.to_le_bytes());
            hasher.update(&row.heads.to_le_bytes());
        }
        let digest = *hasher.finalize().as_bytes();
        self.ledger_digest.set(Some(digest));
        digest
    }
}

fn changed(digests: &mut BTreeMap<u64, Computed>, epoch: u64) {
    if let Some(computed) = digests.get_mut(&epoch) {
        computed.stale = true;
    }
}

fn remove_from<K: Ord>(index: &mut BTreeMap<K, BTreeSet<UnitId>>, key: &K, unit: &UnitId) {
    if let Some(units) = index.get_mut(key) {
        units.remove(unit);
        if units.is_empty() {
            index.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::NetworkSpec;
    use crate::receipt::{KERNEL_V2, Receipt, Text};
    use crate::types::{Height, Nonce, Signature};
    use crate::verify::{ParentFacts, Structural};
    use proptest::prelude::*;

    /// A share that nobody signed or computed: the table asks for neither.
    fn share(nonce: u64, miner: u8, head: u8) -> Contextual {
        let facts = ParentFacts {
            root: Root([head; 32]),
            height: Height(head.into()),
            head_target: U256::ZERO,
            share_target: U256::MAX,
            median: Millis(0),
        };
        let receipt = Receipt {
            device_did: Text::cleaned("test"),
            epoch_id: facts.height.0 + 1,
            prev_hash: facts.root,
            nonce: Nonce::new(nonce).unwrap(),
            work_root: Root(*blake3::hash(&nonce.to_le_bytes()).as_bytes()),
            shape: NetworkSpec::dev().shape(),
            batch: 1,
            time_ms: 1,
            kernel_ver: Text::cleaned(KERNEL_V2),
            driver_hint: Text::cleaned("test"),
            network: NetworkSpec::dev().tag(),
            miner: PublicKey([miner; 33]),
            timestamp: Millis(1),
            sig: Signature([0; 64]),
        };
        Structural::of_any_network(receipt).unwrap().known_signed().contextual(&facts).unwrap()
    }

    fn settle(shares: &mut Shares, units: &[UnitId], earn: bool) {
        shares.settle(units.iter().copied(), |_| earn, |_| false, &mut Vec::new());
    }

    proptest! {
        /// What is counted is what a walk over the table would find, and nothing is left of what went.
        #[test]
        fn the_counts_are_those_of_the_table(steps in proptest::collection::vec((0u8..3, 0u8..3, any::<bool>()), 1..60)) {
            let mut shares = Shares::default();
            let mut units = Vec::new();
            for (nonce, (miner, head, forgets)) in (0u64..).zip(steps) {
                let next = share(nonce, miner, head);
                units.push(next.semantic().unit());
                shares.accept(&next, true, &mut Vec::new());
                shares.accept(&next, false, &mut Vec::new());
                if forgets {
                    let unit = units.remove(usize::from(miner) % units.len());
                    shares.forget([unit, unit], &mut Vec::new());
                }
                for (head, miner) in (0..3).flat_map(|head| (0..3).map(move |miner| (Root([head; 32]), PublicKey([miner; 33])))) {
                    let found = shares.by_unit.values().filter(|share| (share.prev, share.miner) == (head, miner)).count();
                    prop_assert_eq!(shares.count_on(&head, &miner), found);
                }
            }
            shares.forget(units, &mut Vec::new());
            prop_assert!(shares.on_head.is_empty() && shares.by_head.is_empty());
        }
    }

    #[test]
    fn the_ledger_is_hashed_after_a_change_and_then_no_more() {
        let mut shares = Shares::default();
        let (first, second) = (share(1, 1, 1), share(2, 2, 1));
        let units = [first.semantic().unit(), second.semantic().unit()];
        let empty = shares.ledger_digest();
        assert_eq!(shares.ledger_digest.get(), Some(empty));
        shares.accept(&first, true, &mut Vec::new());
        shares.accept(&second, true, &mut Vec::new());
        assert_eq!(shares.ledger_digest.get(), Some(empty), "they do not earn yet");
        settle(&mut shares, &units, true);
        assert_eq!(shares.ledger_digest.get(), None);
        let both = shares.ledger_digest();
        assert_ne!(both, empty);
        settle(&mut shares, &units, true);
        assert_eq!(shares.ledger_digest.get(), Some(both), "nothing has changed");
        shares.void(&PublicKey([1; 33]), &mut Vec::new());
        let one = shares.ledger_digest();
        assert!(one != both && one != empty);
        settle(&mut shares, &units, false);
        assert_eq!(shares.ledger_digest(), empty);
        shares.restore_ledger(PublicKey([3; 33]), LedgerRow { shares: 1, ..LedgerRow::default() });
        assert_ne!(shares.ledger_digest(), empty);
    }

    #[test]
    fn a_digest_is_hashed_once_within_its_age() {
        let mut shares = Shares::default();
        let units: Vec<UnitId> = (1..=3)
            .map(|nonce| {
                let next = share(nonce, 1, 1);
                shares.accept(&next, true, &mut Vec::new());
                next.semantic().unit()
            })
            .collect();
        settle(&mut shares, &units[..1], true);
        let counts = |shares: &mut Shares, age_ms, now| shares.digest(2, age_ms, Millis(now)).count;
        assert_eq!(counts(&mut shares, 1_000, 5_000), 1);
        settle(&mut shares, &units[1..2], true);
        assert_eq!((counts(&mut shares, 1_000, 5_999), counts(&mut shares, 1_000, 6_000)), (1, 2));
        settle(&mut shares, &units[2..], true);
        assert_eq!((counts(&mut shares, 1_000, 6_999), counts(&mut shares, 0, 6_999)), (2, 3), "fresh when it is asked for fresh");
        assert_eq!(counts(&mut shares, 1_000, 7_000), 3);
    }
}
