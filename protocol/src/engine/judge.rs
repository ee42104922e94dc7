//! What follows from an audit: a true share is accepted, a true head joins the chain, a false root costs its miner (spec §5).

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use super::audits::{Case, Waiter};
use super::chain::Reorg;
use super::io::{HeadRow, Note, Op, Output, Peer, PeerFault, Topic, Verdict};
use super::sync::{SHUN_MS, Talk};
use super::{Engine, FORWARD_DEPTH};
use crate::types::{Root, UnitId};
use crate::verify::Contextual;

impl Engine {
    pub(super) fn judge(&mut self, case: Case, computed: Root, out: &mut Vec<Output>) {
        match case.share.clone().audited(computed) {
            Ok(audited) => self.stands(audited.contextual(), &case.waiters, out),
            Err(_) => self.is_false(&case.share, &case.waiters, out),
        }
    }

    /// No device could tell: says nothing about the receipt, so nobody pays and nothing is kept. What was asked for is asked for again.
    pub(super) fn unaudited(&mut self, case: Case, out: &mut Vec<Output>) {
        out.push(Output::Note(Note::Unaudited));
        self.release(&case.waiters, Verdict::Ignore, out);
        let epoch = case.share.semantic().receipt().epoch_id;
        for waiter in &case.waiters {
            match *waiter {
                Waiter::Offer => self.offer_unaudited(out),
                Waiter::Delivered { peer } => {
                    self.sync.unsettle(peer, epoch);
                    self.sync.rest(self.now);
                }
                Waiter::Ban { .. } => self.sync.rest(self.now),
                Waiter::Gossip { .. } | Waiter::Late { .. } | Waiter::Recheck => {}
            }
        }
    }

    /// Answers whoever waits with one verdict, and gives back budgets.
    pub(super) fn release(&mut self, waiters: &[Waiter], verdict: Verdict, out: &mut Vec<Output>) {
        for waiter in waiters {
            match *waiter {
                Waiter::Gossip { peer, message, .. } => {
                    self.peers.forward_done(peer);
                    out.push(Output::Verdict { message, verdict });
                }
                Waiter::Late { peer, .. } => self.peers.forward_done(peer),
                _ => {}
            }
        }
    }

    fn stands(&mut self, share: &Contextual, waiters: &[Waiter], out: &mut Vec<Output>) {
        // No two units share a root (spec §1.6): what was taken as claimed under another one is false.
        let (unit, root) = (share.semantic().unit(), share.semantic().root());
        if self.chain.unit(&root).is_some_and(|other| other != unit) {
            self.cut(root, out);
        }
        let receipt = share.semantic().receipt();
        let banned = self.standing.is_banned(&receipt.miner);
        let near = receipt.epoch_id + FORWARD_DEPTH > self.chain.height().0;
        for waiter in waiters {
            match *waiter {
                Waiter::Gossip { peer, message, topic, .. } => {
                    self.peers.forward_done(peer);
                    let verdict = match topic {
                        Topic::Heads if near => Verdict::Accept,
                        Topic::Receipts if !banned => Verdict::Accept,
                        Topic::Alerts => Verdict::Reject,
                        _ => Verdict::Ignore,
                    };
                    if topic == Topic::Alerts {
                        out.push(Output::Note(Note::FalseAlert));
                    }
                    out.push(Output::Verdict { message, verdict });
                }
                Waiter::Late { peer, .. } => self.peers.forward_done(peer),
                Waiter::Ban { peer } => out.push(Output::Penalise { peer, fault: PeerFault::BadReply }),
                Waiter::Delivered { .. } | Waiter::Recheck | Waiter::Offer => {}
            }
        }
        if waiters.contains(&Waiter::Offer) {
            self.offer_progress(out);
        }
        if !share.is_head() {
            self.accept(share, true, out);
        } else {
            self.join(share, true, out);
        }
    }

    fn is_false(&mut self, share: &Contextual, waiters: &[Waiter], out: &mut Vec<Output>) {
        let miner = share.semantic().receipt().miner;
        let banned = self.standing.is_banned(&miner);
        let punish = !banned && self.standing.has_shares(&miner);
        let mut by_alert = false;
        for waiter in waiters {
            match *waiter {
                Waiter::Gossip { peer, message, topic, .. } => {
                    self.peers.forward_done(peer);
                    let verdict = match topic {
                        Topic::Heads => Verdict::Reject,
                        Topic::Alerts if punish => Verdict::Accept,
                        _ => Verdict::Ignore,
                    };
                    by_alert |= topic == Topic::Alerts;
                    out.push(Output::Verdict { message, verdict });
                    if topic == Topic::Receipts && !punish && !banned {
                        self.pays(peer, out);
                    }
                }
                Waiter::Late { peer, topic } => {
                    self.peers.forward_done(peer);
                    match topic {
                        Topic::Heads => self.brought_false_head(peer, out),
                        Topic::Receipts if !punish && !banned => self.pays(peer, out),
                        _ => {}
                    }
                }
                // Whoever serves a head by sync has audited it, a light node too: as claimed it takes heads, and tells them to nobody.
                Waiter::Delivered { peer } if share.is_head() => self.brought_false_head(peer, out),
                Waiter::Delivered { peer } if !punish && !banned => self.pays(peer, out),
                Waiter::Offer => self.offer_failed(out),
                _ => {}
            }
        }
        out.push(Output::Note(Note::FalseRoot { miner, banned: punish }));
        // A light node took it as claimed.
        if share.is_head() && self.chain.unit(&share.semantic().root()) == Some(share.semantic().unit()) {
            self.cut(share.semantic().root(), out);
        }
        if punish {
            self.ban(share, by_alert, out);
        }
    }

    fn brought_false_head(&mut self, peer: Peer, out: &mut Vec<Output>) {
        out.push(Output::Penalise { peer, fault: PeerFault::FalseHead });
        self.sync.shun(peer, Talk::Heads, SHUN_MS, self.now);
    }

    /// A false share of a key without standing: its deliverer loses score, with room for bad luck.
    fn pays(&mut self, peer: Peer, out: &mut Vec<Output>) {
        if self.peers.false_share(peer, self.now) {
            out.push(Output::Penalise { peer, fault: PeerFault::FalseShare });
        }
    }

    /// The receipt is the proof. All credit of the key is void; its valid heads stay; the proof is passed on.
    fn ban(&mut self, proof: &Contextual, by_alert: bool, out: &mut Vec<Output>) {
        let miner = proof.semantic().receipt().miner;
        if !self.standing.ban(proof.semantic(), &mut self.ops) {
            return;
        }
        let turns = self.shares.void(&miner, &mut self.ops);
        self.turned(turns);
        let shares = &self.shares;
        self.outbox.banned(&miner, |unit| shares.get(unit).is_some(), &mut self.ops);
        let muted = |case: &Case| !case.share.is_head() && case.share.semantic().receipt().miner == miner;
        for case in self.audits.drop_if(muted, out) {
            self.release(&case.waiters, Verdict::Ignore, out);
        }
        if !by_alert {
            self.then.push(Output::Publish { topic: Topic::Alerts, receipt: proof.semantic().clone() });
        }
    }

    /// A head joins the tree, as audited or as claimed; its share is accepted with it, and what waited for it is taken again. Whoever found it,
    /// it does not join against a checkpoint.
    pub(super) fn join(&mut self, head: &Contextual, audited: bool, out: &mut Vec<Output>) {
        if !self.pins_allow(head) {
            return;
        }
        let root = head.semantic().root();
        let reorg = match self.chain.insert(head, audited) {
            Some(reorg) => reorg,
            // It is in the tree as claimed, or without its share, and was recomputed after all.
            None if audited && self.chain.unit(&root) == Some(head.semantic().unit()) => {
                self.chain.confirm(&root);
                Reorg::default()
            }
            None => return,
        };
        let (height, place) = match self.chain.place(&root) {
            Some(place) => (place.height, place.to_bytes()),
            None => unreachable!("it was inserted just now"),
        };
        self.ops.push(Op::PutHead(HeadRow { root, height, audited, place, wire: head.semantic().wire().to_vec() }));
        self.accept(head, audited, out);
        self.reorganise(reorg, out);
        let waiting = self.holds.parent_came(&root);
        self.take_again(waiting, out);
    }

    /// Takes a head out of the tree, with all that stands and is keyed on it: one that proved false, or was taken as claimed and may not stay.
    pub(super) fn cut(&mut self, lowest: Root, out: &mut Vec<Output>) {
        let (removed, reorg) = self.chain.remove_branch(lowest);
        self.reorganise(reorg, out);
        let heads: BTreeSet<Root> = removed.iter().map(|(root, _)| *root).collect();
        let won: Vec<UnitId> = removed.iter().filter_map(|(_, unit)| *unit).collect();
        let mut lost = self.shares.keyed_on(&heads);
        // What nobody looked at was accepted as the head that it claimed to be, and goes with it.
        lost.extend(won.iter().filter(|unit| self.shares.evidence(unit).is_some()));
        let turns = self.shares.settle(lost.iter().copied(), |_| false, |_| false, &mut self.ops);
        self.turned(turns);
        for (miner, trusted) in self.shares.forget(lost, &mut self.ops) {
            self.standing.retired(&miner, trusted, &mut self.ops);
        }
        // What is left of what won them counts as a head no more.
        self.settle(won);
        for root in heads {
            self.ops.push(Op::DropHead(root));
        }
    }

    /// Enters a share into the table and the ledger, unless its unit is there, its miner is banned, or it lies below retention by now.
    pub(super) fn accept(&mut self, share: &Contextual, audited: bool, out: &mut Vec<Output>) {
        let (unit, receipt) = (share.semantic().unit(), share.semantic().receipt());
        if self.standing.is_banned(&receipt.miner) || receipt.epoch_id < self.horizon() {
            return;
        }
        if let Some(known) = self.shares.get(&unit) {
            let (same, epoch) = (known.root == receipt.work_root, known.epoch);
            if same && audited && self.shares.confirm(&unit, &mut self.ops) {
                self.standing.confirmed(&receipt.miner, share.weight(), &mut self.ops);
                self.queue_for_bridge(share, epoch);
                out.push(Output::Note(Note::Confirmed { unit }));
            }
            return;
        }
        self.shares.accept(share, audited, &mut self.ops);
        self.standing.accepted(&receipt.miner, share.weight(), audited, &mut self.ops);
        self.settle([unit]);
        if audited {
            self.queue_for_bridge(share, receipt.epoch_id);
        }
        out.push(Output::Note(Note::Accepted {
            unit,
            miner: receipt.miner,
            epoch: receipt.epoch_id,
            head: share.is_head(),
            audited,
            age_ms: self.now.since(receipt.timestamp),
        }));
    }

    /// Only what this node audited itself goes to an aggregator.
    fn queue_for_bridge(&mut self, share: &Contextual, epoch: u64) {
        let Some(bridge) = self.config.bridge else { return };
        let (unit, miner) = (share.semantic().unit(), share.semantic().receipt().miner);
        let own = self.config.mining.as_ref().is_some_and(|mining| mining.miner == miner);
        if bridge.shard.holds(&unit) && (bridge.scope == super::BridgeScope::All || own) {
            self.outbox.enter(unit, epoch, miner, &mut self.ops);
            self.ripen();
        }
    }
}
