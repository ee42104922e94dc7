//! This node's own work: what it mines on, and its hits on their way from the device to the network.
//!
//! Durable before public: a receipt is published only after the commit that holds it.

use alloc::vec::Vec;

use super::io::{Job, Note, Output, Topic};
use super::{AWAITING_SIGNATURE_MAX, Engine};
use crate::receipt::{Draft, KERNEL_V2, Receipt, Text};
use crate::types::{Attempt, Root, Signature};
use crate::verify::Semantic;

/// What the miner was told last.
#[derive(Debug, Default)]
pub(super) struct JobState {
    told: Option<Job>,
    /// Whether a peer has told its tip, and its chain was fetched if it was better. Before that a miner would work on a stale head.
    pub(super) in_touch: bool,
}

/// A hit whose signature is on its way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Awaited {
    /// The head it is keyed on.
    prev_hash: Root,
    /// As the CPU recomputed it.
    root: Root,
}

impl JobState {
    pub(super) fn is_mining(&self) -> bool {
        self.told.is_some()
    }
}

impl Engine {
    /// Tells the miner when what to mine on has changed.
    pub(super) fn update_job(&mut self, out: &mut Vec<Output>) {
        let ready = self.config.mining.is_some() && (self.config.alone || self.job.in_touch);
        let tip = self.chain.tip();
        let job = ready.then(|| self.chain.facts(&tip)).flatten().map(|facts| Job {
            prev_hash: facts.root,
            height: facts.height,
            share_target: facts.share_target,
            head_target: facts.head_target,
            min_timestamp: facts.median.plus(1),
        });
        if job != self.job.told {
            self.job.told = job;
            out.push(Output::Job(job));
        }
    }

    /// A hit, recomputed on the CPU. Late ones are dropped here and nowhere else.
    pub(super) fn found(&mut self, attempt: Attempt, root: Root, batch: u64, time_ms: u64, out: &mut Vec<Output>) {
        let facts = self.chain.facts(&attempt.prev_hash).copied();
        let fresh = facts.filter(|facts| {
            facts.height.0 + self.chain.spec().stale_window() >= self.chain.height().0
                && root.ticket() <= facts.share_target
                && attempt.timestamp > facts.median
        });
        let (Some(facts), Some(mining)) = (fresh, &self.config.mining) else {
            out.push(Output::Note(Note::LateHit));
            return;
        };
        if self.awaiting.len() >= AWAITING_SIGNATURE_MAX {
            // A signature that has not come while its head grew stale never will.
            let (chain, height) = (&self.chain, self.chain.height().0);
            let fresh = |prev: &Root| chain.facts(prev).is_some_and(|facts| facts.height.0 + chain.spec().stale_window() >= height);
            self.awaiting.retain(|_, awaited| fresh(&awaited.prev_hash));
        }
        if attempt.miner != mining.miner || self.awaiting.len() >= AWAITING_SIGNATURE_MAX {
            out.push(Output::Note(Note::LateHit));
            return;
        }
        let draft = Draft::new(Receipt {
            device_did: mining.device_did.clone(),
            epoch_id: facts.height.next().0,
            prev_hash: attempt.prev_hash,
            nonce: attempt.nonce,
            work_root: root,
            shape: attempt.shape,
            batch,
            time_ms,
            kernel_ver: Text::cleaned(KERNEL_V2),
            driver_hint: mining.driver_hint.clone(),
            network: self.chain.spec().tag(),
            miner: attempt.miner,
            timestamp: attempt.timestamp,
            sig: Signature([0; 64]),
        });
        self.awaiting.insert(draft.receipt().unit(), Awaited { prev_hash: attempt.prev_hash, root });
        out.push(Output::Sign { draft });
    }

    /// The signed receipt: kept first, then published and acknowledged.
    pub(super) fn signed(&mut self, receipt: Semantic, out: &mut Vec<Output>) {
        let unit = receipt.unit();
        let Some(Awaited { root, .. }) = self.awaiting.remove(&unit) else { return };
        let Some(facts) = self.chain.facts(&receipt.receipt().prev_hash).copied() else { return };
        let audited = receipt.contextual(&facts).ok().and_then(|share| share.audited(root).ok());
        let Some(audited) = audited else { return };
        let share = audited.contextual();
        if self.shares.get(&unit).is_some() {
            return;
        }
        if share.is_head() {
            self.join(share, true, out);
        } else {
            self.accept(share, true, out);
        }
        // A banned key's share and one below retention are kept nowhere, and what is not kept is not published.
        let kept = self.shares.get(&unit).is_some();
        if kept || self.chain.unit(&root) == Some(unit) {
            let topic = if share.is_head() { Topic::Heads } else { Topic::Receipts };
            self.then.push(Output::Publish { topic, receipt: share.semantic().clone() });
        }
        if kept {
            self.then.push(Output::Note(Note::Acknowledged { unit, head: share.is_head() }));
        }
    }
}
