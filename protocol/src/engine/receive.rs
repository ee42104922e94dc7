//! What happens to a receipt that passed stage 2: stage 3, and where it goes from there (spec §5).

use alloc::vec::Vec;

use super::audits::{Claim, Waiter};
use super::held::Held;
use super::io::{Message, Note, Output, Peer, PeerFault, Priority, Query, ShareState, Topic, Verdict};
use super::sync::Asked;
use super::{Engine, RECHECKS_PER_TICK};
use crate::error::{Consequence, ContextFault};
use crate::types::{Millis, PublicKey, Root, UnitId};
use crate::verify::{Contextual, Semantic};

/// Shares of one miner on one head beyond this many times `2^share_log2` are audited before they are forwarded.
const CROWD_FACTOR: usize = 4;

/// How a receipt came.
#[derive(Debug, Clone, Copy)]
pub(super) enum Source {
    /// By gossip: a verdict is owed.
    Gossip { peer: Peer, message: Message, topic: Topic, since: Millis },
    /// Asked for.
    Sync { peer: Peer },
}

impl Source {
    fn peer(self) -> Peer {
        match self {
            Self::Gossip { peer, .. } | Self::Sync { peer } => peer,
        }
    }
    fn waiter(self) -> Waiter {
        match self {
            Self::Gossip { peer, message, topic, since } => Waiter::Gossip { peer, message, topic, since },
            Self::Sync { peer } => Waiter::Delivered { peer },
        }
    }
}

/// What became of a receipt for now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    /// Known, accepted, in audit, or turned away for good.
    Settled,
    /// It may be right later: ask again.
    Later,
    /// Wrong in a way that every node sees.
    Faulty,
}

impl Engine {
    pub(super) fn gossip(&mut self, peer: Peer, message: Message, topic: Topic, receipt: Semantic, out: &mut Vec<Output>) {
        let source = Source::Gossip { peer, message, topic, since: self.now };
        if topic == Topic::Alerts {
            self.take_alert(receipt, peer, message, out);
        } else {
            // Also of what is held: a clock that is behind takes every receipt to be ahead.
            self.peers.stamp_came(peer, receipt.receipt().timestamp, self.now);
            self.take(receipt, source, out);
        }
    }

    pub(super) fn take_again(&mut self, held: Vec<Held>, out: &mut Vec<Output>) {
        for Held { peer, message, topic, receipt, since, .. } in held {
            self.peers.hold_done(peer);
            self.take(receipt, Source::Gossip { peer, message, topic, since }, out);
        }
    }

    /// Stage 3 and the choice of what follows.
    pub(super) fn take(&mut self, receipt: Semantic, source: Source, out: &mut Vec<Output>) -> Taken {
        let Some(facts) = self.chain.facts(&receipt.receipt().prev_hash).copied() else {
            return self.hold(receipt, source, ContextFault::UnknownParent, out);
        };
        let share = match receipt.contextual(&facts) {
            Ok(share) => share,
            Err(fault) => return self.refuse(source, fault, out),
        };
        if let Source::Gossip { topic, .. } = source
            && (topic == Topic::Heads) != share.is_head()
        {
            return self.refuse(source, ContextFault::WrongTopic, out);
        }
        // Only what waiting can make right is held.
        if share.semantic().too_early_until(self.now).is_some() {
            return self.hold(share.semantic().clone(), source, ContextFault::AheadOfClock, out);
        }
        if share.is_head() { self.take_head(share, source, out) } else { self.take_share(share, source, out) }
    }

    /// A candidate for the chain: judged by nothing but its validity.
    fn take_head(&mut self, share: Contextual, source: Source, out: &mut Vec<Output>) -> Taken {
        let claim = (share.semantic().unit(), share.semantic().root());
        // Another unit with a head's root is fraud by somebody, and is audited like any candidate, as is a head that was taken as claimed.
        let seen = self.chain.unit(&claim.1) == Some(claim.0) && self.chain.is_audited(&claim.1);
        if seen && !self.misses_share_of(&share, source) {
            return self.refuse(source, ContextFault::Seen, out);
        }
        if !self.pins_allow(&share) {
            return self.refuse(source, ContextFault::Stale, out);
        }
        let full = match source {
            Source::Gossip { .. } => self.audits.is_full_to_forward_heads(),
            Source::Sync { .. } => self.audits.is_full_for_heads(),
        };
        if full {
            return self.refuse(source, ContextFault::PoolFull, out);
        }
        let budgeted = match source {
            Source::Gossip { peer, .. } => self.peers.may_forward(peer, self.now),
            Source::Sync { .. } => true,
        };
        if !budgeted {
            return self.refuse(source, ContextFault::OverBudget, out);
        }
        if self.audits.contains(&claim) {
            if !self.audits.join(&claim, source.waiter(), Priority::Head) {
                if let Source::Gossip { peer, .. } = source {
                    self.peers.forward_done(peer);
                }
                return self.refuse(source, ContextFault::Seen, out);
            }
        } else {
            self.audits.open(share, source.waiter(), Priority::Head);
        }
        if let Some(rival) = self.rival_of(&claim) {
            self.recheck(&rival, Priority::Forward);
        }
        Taken::Settled
    }

    /// Whether a head of the tree is offered by sync because its share is not in the table, and may enter it.
    fn misses_share_of(&self, head: &Contextual, source: Source) -> bool {
        let receipt = head.semantic().receipt();
        matches!(source, Source::Sync { .. })
            && self.shares.get(&head.semantic().unit()).is_none()
            && receipt.epoch_id >= self.horizon()
            && !self.standing.is_banned(&receipt.miner)
    }

    /// The accepted share that cannot be true together with this claim: its unit with another root, or its root of another unit.
    fn rival_of(&self, (unit, root): &Claim) -> Option<UnitId> {
        match self.shares.get(unit) {
            Some(known) => (known.root != *root).then_some(*unit),
            None => self.shares.unit_of_root(root),
        }
    }

    /// Whether the network file's checkpoints agree with this head.
    pub(super) fn pins_allow(&self, head: &Contextual) -> bool {
        let receipt = head.semantic().receipt();
        self.config.checkpoints.iter().all(|(height, root)| height.0 != receipt.epoch_id || *root == receipt.work_root)
    }

    fn take_share(&mut self, share: Contextual, source: Source, out: &mut Vec<Output>) -> Taken {
        let (unit, root) = (share.semantic().unit(), share.semantic().root());
        let receipt = share.semantic().receipt();
        let (prev, miner, epoch) = (receipt.prev_hash, receipt.miner, receipt.epoch_id);
        if self.standing.is_banned(&miner) {
            return self.refuse(source, ContextFault::Banned, out);
        }
        let lowest = match source {
            Source::Gossip { .. } => (self.chain.height().0 + 1).saturating_sub(self.chain.spec().stale_window()),
            Source::Sync { .. } => self.horizon(),
        };
        if epoch < lowest {
            return self.refuse(source, ContextFault::Stale, out);
        }
        let known = self.shares.get(&unit).is_some_and(|known| known.root == root);
        if known || self.audits.contains(&(unit, root)) {
            return self.refuse(source, ContextFault::Seen, out);
        }
        let rival = self.rival_of(&(unit, root));
        let must = rival.is_some()
            || self.audits.has_rival(&unit, &root)
            || self.audits.has_root(&root)
            || self.chain.unit(&root).is_some_and(|other| other != unit)
            || self.is_crowded(&prev, &miner)
            || !self.standing.trusts(&miner, share.weight(), self.config.audit_rate);
        if must && let Source::Gossip { peer, .. } = source {
            if self.audits.is_full_to_forward() {
                return self.refuse(source, ContextFault::PoolFull, out);
            }
            if !self.peers.may_forward(peer, self.now) {
                return self.refuse(source, ContextFault::OverBudget, out);
            }
            self.audits.open(share, source.waiter(), Priority::Forward);
        } else {
            let drawn = must || self.draw(&share.semantic().id().0, self.config.audit_rate.ppm());
            // A full pool drops what is drawn, and nothing else: flooding it must not silence those who are trusted.
            if drawn && self.audits.is_full() {
                return self.refuse(source, ContextFault::PoolFull, out);
            }
            let asked_for = matches!(source, Source::Sync { .. }) && !self.audits.is_full();
            let room = asked_for || self.audits.has_room();
            if let Source::Gossip { message, .. } = source {
                out.push(Output::Verdict { message, verdict: Verdict::Accept });
            }
            if drawn || (room && self.config.audit_shard.holds(&unit)) {
                self.audits.open(share, Waiter::Delivered { peer: source.peer() }, Priority::Share);
            } else {
                self.accept(&share, false, out);
            }
        }
        // One unit with two roots, or two units with one root: the older one is looked at as well.
        if let Some(rival) = rival {
            self.recheck(&rival, Priority::Forward);
        }
        Taken::Settled
    }

    fn is_crowded(&self, head: &Root, miner: &PublicKey) -> bool {
        let limit = CROWD_FACTOR << self.chain.spec().share_log2();
        self.audits.count_on(head, miner) >= limit || self.shares.count_on(head, miner) + self.audits.count_on(head, miner) >= limit
    }

    /// Audits an accepted share that was not looked at.
    pub(super) fn recheck(&mut self, unit: &UnitId, priority: Priority) {
        let Some(share) = self.shares.evidence(unit).cloned() else { return };
        let claim = (*unit, share.semantic().root());
        if !self.audits.contains(&claim) {
            self.audits.open(share, Waiter::Recheck, priority);
        }
    }

    /// An idle node looks at what it let pass under load.
    pub(super) fn recheck_idle(&mut self) {
        let shard = self.config.audit_shard;
        let units: Vec<UnitId> = self.shares.unaudited().iter().filter(|unit| shard.holds(unit)).take(RECHECKS_PER_TICK).copied().collect();
        for unit in units {
            self.recheck(&unit, Priority::Share);
        }
    }

    /// A claim of fraud is taken only against a key that has shares here and is not banned yet.
    fn take_alert(&mut self, receipt: Semantic, peer: Peer, message: Message, out: &mut Vec<Output>) {
        let source = Source::Gossip { peer, message, topic: Topic::Alerts, since: self.now };
        let miner = receipt.receipt().miner;
        let claim = (receipt.unit(), receipt.root());
        let facts = self.chain.facts(&receipt.receipt().prev_hash).copied();
        let in_time = receipt.receipt().epoch_id >= self.horizon() && receipt.too_early_until(self.now).is_none();
        let share = facts.filter(|_| in_time).and_then(|facts| receipt.contextual(&facts).ok());
        let (Some(share), true, false) = (share, self.standing.has_shares(&miner), self.standing.is_banned(&miner)) else {
            out.push(Output::Verdict { message, verdict: Verdict::Ignore });
            return;
        };
        let known = self.shares.get(&claim.0);
        if known.is_some_and(|known| known.root == claim.1 && known.state == ShareState::Audited) {
            out.push(Output::Note(Note::FalseAlert));
            out.push(Output::Verdict { message, verdict: Verdict::Reject });
            return;
        }
        if self.audits.is_full_to_forward_heads() {
            self.refuse(source, ContextFault::PoolFull, out);
            return;
        }
        if !self.peers.may_forward(peer, self.now) {
            self.refuse(source, ContextFault::OverBudget, out);
            return;
        }
        if !self.audits.contains(&claim) {
            self.audits.open(share, source.waiter(), Priority::Alert);
        } else if !self.audits.join(&claim, source.waiter(), Priority::Alert) {
            self.peers.forward_done(peer);
            out.push(Output::Verdict { message, verdict: Verdict::Ignore });
        }
    }

    /// Keeps a gossiped receipt for a moment, asking for its head meanwhile; what was asked for is told to come later.
    fn hold(&mut self, receipt: Semantic, source: Source, fault: ContextFault, out: &mut Vec<Output>) -> Taken {
        let (prev, epoch, due) = (receipt.receipt().prev_hash, receipt.receipt().epoch_id, receipt.too_early_until(self.now));
        let peer = source.peer();
        if let Source::Gossip { message, topic, since, .. } = source {
            if self.holds.is_full() || !self.peers.may_hold(peer, self.now) {
                out.push(Output::Note(Note::Refused { fault }));
                out.push(Output::Verdict { message, verdict: Verdict::Ignore });
            } else {
                let due = due.filter(|_| fault == ContextFault::AheadOfClock);
                self.holds.put(peer, message, topic, receipt, since, due);
            }
        }
        if fault == ContextFault::UnknownParent && epoch >= self.horizon() {
            self.want_head(prev, peer, out);
        }
        Taken::Later
    }

    /// Asks whoever brought something that is keyed on an unknown head for that head.
    pub(super) fn want_head(&mut self, root: Root, peer: Peer, out: &mut Vec<Output>) {
        if self.peers.get(peer).is_some() && self.sync.want(root, peer, self.now) {
            self.sync.ask(peer, Asked::ByRoot(root), Query::HeadsByRoot { roots: alloc::vec![root] }, self.now, out);
        }
    }

    /// Turns a receipt away; its deliverer pays what the fault says.
    fn refuse(&mut self, source: Source, fault: ContextFault, out: &mut Vec<Output>) -> Taken {
        let consequence = fault.consequence();
        if !matches!(fault, ContextFault::Seen) {
            out.push(Output::Note(Note::Refused { fault }));
        }
        match source {
            Source::Gossip { message, .. } => {
                let verdict = if consequence == Consequence::Reject { Verdict::Reject } else { Verdict::Ignore };
                out.push(Output::Verdict { message, verdict });
            }
            Source::Sync { peer } if consequence == Consequence::Reject => {
                out.push(Output::Penalise { peer, fault: PeerFault::BadReply });
            }
            Source::Sync { .. } => {}
        }
        match (consequence, fault) {
            (Consequence::Reject, _) => Taken::Faulty,
            (_, ContextFault::PoolFull | ContextFault::OverBudget) => Taken::Later,
            _ => Taken::Settled,
        }
    }
}
