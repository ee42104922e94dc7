//! A new life from what a store kept. Rows that cannot be read are left out; sync brings them again.

use alloc::vec::Vec;

use super::chain::Place;
use super::io::Snapshot;
use super::{Config, Engine};
use crate::codec;
use crate::types::Height;
use crate::verify::Structural;

impl Engine {
    /// The lowest height whose head row a snapshot for this configuration should hold, given the stored main chain's length.
    pub fn heads_wanted_from(config: &Config, main_height: u64) -> Height {
        Height(main_height.saturating_sub(config.retain_epochs + 2 * super::HEADS_BELOW_RETENTION))
    }

    /// Puts the stored state in place. The ledger is taken as it was written.
    pub fn restore(config: Config, snapshot: Snapshot) -> Self {
        let mut engine = Self::new(config);
        for row in snapshot.heads {
            let (Some(place), Ok(receipt)) = (Place::from_bytes(&row.place), codec::receipt_from_wire(&row.wire)) else { continue };
            engine.chain.restore_head(row.root, receipt.prev_hash, receipt.unit(), place);
        }
        let whole = snapshot.main.last().is_none_or(|tip| engine.chain.contains(tip));
        if !whole {
            // Without its tip nothing else has a place, and peers have it all; but what was delivered is known here alone.
            let mut engine = Self::new(engine.config);
            snapshot.outbox.into_iter().for_each(|row| engine.outbox.restore(row));
            return engine;
        }
        engine.chain.restore_main(snapshot.main);
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
        engine
    }

    /// Roots of the main chain, lowest first, from `from` up: what the API pages through.
    pub fn main_roots(&self, from: Height, most: usize) -> Vec<crate::types::Root> {
        (from.0..=self.chain.height().0).take(most).filter_map(|height| self.chain.main_at(Height(height))).collect()
    }
}
