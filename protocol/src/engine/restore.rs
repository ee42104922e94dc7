//! A new life from what a store kept. Rows that cannot be read are left out; sync brings them again.
//!
//! What the store holds and this life does not take over is removed with the first commit.

use alloc::vec::Vec;

use super::chain::Place;
use super::exchange::LIGHT_RECENT;
use super::io::{Op, Snapshot};
use super::{Config, Engine};
use crate::codec;
use crate::ledger::LedgerRow;
use crate::types::Height;
use crate::verify::Structural;

impl Engine {
    /// The lowest height whose head row a snapshot for this configuration should hold, given the stored main chain's length. A light node
    /// looks at the last heads too, whether an earlier life had audited them, and at one below, to cut there.
    pub fn heads_wanted_from(config: &Config, main_height: u64) -> Height {
        let recent = if config.light { LIGHT_RECENT + 1 } else { 0 };
        Height(main_height.saturating_sub(recent.max(config.retain_epochs + 2 * super::HEADS_BELOW_RETENTION)))
    }

    /// Puts the stored state in place. The ledger is taken as it was written.
    pub fn restore(config: Config, mut snapshot: Snapshot) -> Self {
        let mut engine = Self::new(config);
        for row in &snapshot.heads {
            let at = usize::try_from(row.height.0.saturating_sub(1)).unwrap_or(usize::MAX);
            if !row.audited && snapshot.main.get(at) != Some(&row.root) {
                // A claim beside the main chain is the rest of some download: it weighs nothing any more, and may not come to.
                engine.ops.push(Op::DropHead(row.root));
                continue;
            }
            let (Some(place), Ok(receipt)) = (Place::from_bytes(&row.place), codec::receipt_from_wire(&row.wire)) else { continue };
            engine.chain.restore_head(row.root, receipt.prev_hash, receipt.unit(), row.audited, place);
        }
        let whole = snapshot.main.last().is_none_or(|tip| engine.chain.contains(tip));
        engine.chain.restore_main(core::mem::take(&mut snapshot.main));
        // What was taken as claimed stands only below audited heads (spec §4): a download that an earlier life did not end is cut out.
        let claimed = engine.chain.unsettled(LIGHT_RECENT);
        if !whole || claimed.is_some_and(|lowest| !engine.chain.has_parent(&lowest)) {
            return Self::anew(engine.config, snapshot);
        }
        if engine.config.light {
            engine.chain.doubt_stored();
        }
        for row in snapshot.shares {
            let network = engine.chain.spec().clone();
            let share = Structural::from_wire(&row.wire, &network).ok().map(Structural::known_signed);
            let Some(semantic) = share else { continue };
            let facts = engine.chain.facts(&semantic.receipt().prev_hash).copied();
            if let Some(share) = facts.and_then(|facts| semantic.contextual(&facts).ok()) {
                engine.shares.restore(&share, row.state);
            }
        }
        let chain = &engine.chain;
        engine.shares.mark_earning(|head| chain.earns(head), |root| chain.is_main(root));
        for (miner, row) in snapshot.ledger {
            engine.shares.restore_ledger(miner, row);
        }
        engine.standing.restore(snapshot.standing, &snapshot.bans);
        snapshot.outbox.into_iter().for_each(|row| engine.outbox.restore(row));
        engine.pruned = snapshot.horizon;
        // Another branch may be the best then, with claims of its own.
        while let Some(lowest) = engine.chain.unsettled(LIGHT_RECENT).filter(|lowest| engine.chain.has_parent(lowest)) {
            engine.cut(lowest, &mut Vec::new());
        }
        engine
    }

    /// A life that begins at genesis, because nothing else in the store has a place: without its tip, or with a tip that stands on claims
    /// which reach below what memory holds. Peers have it all; but what was delivered, and what was forgotten and must not come back, is known
    /// here alone.
    fn anew(config: Config, snapshot: Snapshot) -> Self {
        let mut engine = Self::new(config);
        let ops = &mut engine.ops;
        ops.push(Op::CutMain { from: Height(1) });
        ops.extend(snapshot.heads.iter().map(|row| Op::DropHead(row.root)));
        ops.extend(snapshot.shares.iter().map(|row| Op::DropShare { unit: row.unit }));
        ops.extend(snapshot.standing.iter().map(|(miner, _)| Op::DropStanding { miner: *miner }));
        ops.extend(snapshot.bans.iter().map(|ban| Op::DropBan { miner: ban.miner }));
        ops.extend(snapshot.ledger.iter().map(|(miner, _)| Op::PutLedger { miner: *miner, row: LedgerRow::default() }));
        snapshot.outbox.into_iter().for_each(|row| engine.outbox.restore(row));
        engine.pruned = snapshot.horizon;
        engine
    }

    /// Roots of the main chain, lowest first, from `from` up: what the API pages through.
    pub fn main_roots(&self, from: Height, most: usize) -> Vec<crate::types::Root> {
        (from.0..=self.chain.height().0).take(most).filter_map(|height| self.chain.main_at(Height(height))).collect()
    }
}
