//! What is said with peers: statuses, a better chain, shares that differ, bans (spec §6). The conversations' state is in `sync`.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use super::audits::{ROOM, Waiter};
use super::io::*;
use super::receive::{Source, Taken};
use super::sync::{Asked, Offer, Page};
use super::{Engine, SyncState};
use crate::types::{Height, Root, UnitId};
use crate::verify::{Contextual, Semantic};

/// A light node audits all of the last heads of a chain that it fetches …
const LIGHT_RECENT: u64 = 2_048;
/// … and this part of the older ones: 1 in 64, in parts per million.
const LIGHT_PER_MILLION: u32 = 15_625;
/// The status of some peer is asked for this often at least and at most, a quarter of the spacing in between.
const STATUS_EVERY_MS: (u64, u64) = (1_000, 4_000);
/// The status of one peer is not asked for more often than this, whatever happens.
const STATUS_PAUSE_MS: u64 = 500;

impl Engine {
    pub(super) fn peer_up(&mut self, peer: Peer, out: &mut Vec<Output>) {
        self.peers.up(peer, self.now);
        self.ask_status(peer, out);
    }

    pub(super) fn peer_down(&mut self, peer: Peer, out: &mut Vec<Output>) {
        self.peers.down(peer);
        self.sync.down(peer);
        for (peer, asked) in self.sync.failed(self.now, Some(peer)) {
            self.ask_failed(peer, asked);
        }
        if self.sync.offer.as_ref().is_some_and(|offer| offer.peer == peer) {
            self.drop_offer_audits(out);
            self.sync.offer = None;
        }
        if self.sync.pull.as_ref().is_some_and(|pull| pull.peer == peer) {
            self.sync.pull = None;
        }
        if self.sync.bans.is_some_and(|(other, _)| other == peer) {
            self.sync.bans = None;
        }
    }

    /// The clock's part: time-outs, whose status is asked next, and the pull that waits for room.
    pub(super) fn exchange(&mut self, out: &mut Vec<Output>) {
        for (peer, asked) in self.sync.failed(self.now, None) {
            self.ask_failed(peer, asked);
        }
        let (low, high) = STATUS_EVERY_MS;
        let every = (u64::from(self.chain.spec().spacing_secs()) * 250).clamp(low, high);
        let peers: Vec<Peer> = self.peers.iter().map(|(peer, _)| peer).collect();
        if let Some(peer) = self.sync.status_turn(peers.into_iter(), every, self.now) {
            self.ask_status(peer, out);
        }
        self.pull_on(out);
    }

    fn ask_status(&mut self, peer: Peer, out: &mut Vec<Output>) {
        let (now, from_epoch) = (self.now, self.horizon().max(1));
        let Some(state) = self.peers.get_mut(peer) else { return };
        let pause = state.status_asked.is_some_and(|at| now.since(at) < STATUS_PAUSE_MS);
        if state.status_ask.is_some() || pause {
            return;
        }
        let ask = self.sync.ask(peer, Asked::Status, Query::Status { from_epoch }, now, out);
        state.status_ask = Some(ask);
        state.status_asked = Some(now);
    }

    fn ask_failed(&mut self, peer: Peer, asked: Asked) {
        match asked {
            Asked::Status => {
                if let Some(state) = self.peers.get_mut(peer) {
                    state.status_ask = None;
                }
            }
            Asked::Heads => {
                if self.sync.offer.as_ref().is_some_and(|offer| offer.peer == peer) {
                    self.sync.offer = None;
                }
            }
            Asked::Shares => {
                if self.sync.pull.as_ref().is_some_and(|pull| pull.peer == peer) {
                    self.sync.pull = None;
                }
            }
            Asked::Bans => self.sync.bans = None,
            Asked::ByRoot => {}
        }
    }

    /// A peer asks: what it may know, as long as it does not ask too much.
    pub(super) fn asked(&mut self, peer: Peer, answer: AnswerId, query: Query, out: &mut Vec<Output>) {
        if !self.peers.may_ask(peer, self.now) {
            out.push(Output::Answer { answer, with: Answer::Refused });
            out.push(Output::Penalise { peer, fault: PeerFault::Greedy });
            return;
        }
        let with = match query {
            Query::Status { from_epoch } => Answer::Status(self.status(from_epoch)),
            Query::Heads { locator } => {
                let locator = &locator[..locator.len().min(LOCATOR_MAX)];
                Answer::Heads(self.chain.after(locator, HEADS_PER_REPLY))
            }
            Query::HeadsByRoot { roots } => {
                let known = |root: &Root| self.chain.unit(root).is_some();
                Answer::Heads(roots.into_iter().take(ROOTS_PER_ASK).filter(known).collect())
            }
            Query::Shares { epoch, after } => {
                let (units, more) = self.shares.page(epoch, after);
                Answer::Shares { units, more }
            }
            Query::Bans { after } => {
                let (miners, more) = self.standing.page(after);
                Answer::Bans { miners, more }
            }
        };
        out.push(Output::Answer { answer, with });
    }

    fn status(&mut self, from_epoch: u64) -> Status {
        let top = self.chain.height().0 + 1;
        let first_epoch = from_epoch.max(self.horizon()).max(1);
        let epochs = (first_epoch..=top).take(EPOCHS_PER_STATUS).map(|epoch| self.shares.digest(epoch)).collect();
        Status {
            tip: self.chain.tip(),
            height: self.chain.height(),
            work: self.chain.tip_place().work,
            first_epoch,
            epochs,
            bans: self.standing.digest(),
        }
    }

    /// A peer answered.
    pub(super) fn replied(&mut self, peer: Peer, ask: AskId, reply: Reply, out: &mut Vec<Output>) {
        let Some(asked) = self.sync.answered(peer, ask) else { return };
        if asked == Asked::Status
            && let Some(state) = self.peers.get_mut(peer)
        {
            state.status_ask = None;
        }
        match (asked, reply) {
            (Asked::Status, Reply::Status(status)) => self.status_came(peer, status, out),
            (Asked::Heads, Reply::Heads(heads)) => self.heads_came(peer, heads, out),
            (Asked::ByRoot, Reply::Heads(heads)) => self.single_heads_came(peer, heads, out),
            (Asked::Shares, Reply::Shares { receipts, more }) => self.shares_came(peer, receipts, more, out),
            (Asked::Bans, Reply::Bans { receipts, more }) => self.bans_came(peer, receipts, more, out),
            (asked, Reply::Failed) => self.ask_failed(peer, asked),
            (asked, _) => {
                out.push(Output::Penalise { peer, fault: PeerFault::BadReply });
                self.sync.shun(peer, self.now);
                self.ask_failed(peer, asked);
            }
        }
    }

    fn status_came(&mut self, peer: Peer, status: Status, out: &mut Vec<Output>) {
        if status.epochs.len() > EPOCHS_PER_STATUS {
            out.push(Output::Penalise { peer, fault: PeerFault::BadReply });
            return;
        }
        let (now, horizon) = (self.now, self.horizon().max(1));
        let better = self.chain.is_better(status.work, &status.tip) && !self.chain.contains(&status.tip);
        if better {
            if self.sync.offer.is_none() && !self.sync.is_shunned(peer, now) {
                self.sync.offer =
                    Some(Offer { peer, height: status.height, work: status.work, last: None, first_claimed: None, page: None });
                self.ask_heads(out);
            }
        } else {
            self.job.in_touch = true;
        }
        let same_tip = status.tip == self.chain.tip();
        let bans = self.standing.digest();
        let mut differing = Vec::new();
        let mut equal = same_tip && status.bans == bans;
        for (epoch, theirs) in (status.first_epoch..).zip(&status.epochs).filter(|(epoch, _)| *epoch >= horizon) {
            if self.shares.digest(epoch) != *theirs {
                equal = false;
                if theirs.count > 0 {
                    differing.push((epoch, *theirs));
                }
            }
        }
        let known_tip = self.chain.contains(&status.tip);
        if known_tip && self.sync.offer.is_none() && self.sync.pull.is_none() {
            self.sync.start_pull(peer, differing.into_iter(), now);
        }
        // Shares first: a ban counts only against a key that has shares here.
        if known_tip
            && self.sync.pull.is_none()
            && status.bans != bans
            && status.bans.count > 0
            && self.sync.wants_bans(peer, status.bans, now)
        {
            self.sync.bans = Some((peer, status.bans));
            self.sync.ask(peer, Asked::Bans, Query::Bans { after: None }, now, out);
        }
        if let Some(state) = self.peers.get_mut(peer) {
            state.in_step = equal;
            state.status = Some(status);
            state.status_at = Some(now);
        }
        self.pull_on(out);
    }

    // Heads.

    fn ask_heads(&mut self, out: &mut Vec<Output>) {
        let Some(offer) = &self.sync.offer else { return };
        let (peer, last) = (offer.peer, offer.last);
        let mut locator = self.chain.locator(self.chain.height(), LOCATOR_MAX - 1);
        if let Some(last) = last {
            locator.insert(0, last);
        }
        self.sync.ask(peer, Asked::Heads, Query::Heads { locator }, self.now, out);
    }

    /// A page of a chain that is said to be better: every head is checked in its place, the drawn ones are audited, then all join.
    fn heads_came(&mut self, peer: Peer, heads: Vec<Semantic>, out: &mut Vec<Output>) {
        let Some(offer) = self.sync.offer.as_ref().filter(|offer| offer.peer == peer && offer.page.is_none()) else { return };
        let (light, claimed_height) = (self.config.light, offer.height.0);
        let last = heads.last().map(|head| (Height(head.receipt().epoch_id), head.root()));
        let known_so_far = offer.last;
        let fresh: Vec<Semantic> = heads.into_iter().skip_while(|head| self.chain.contains(&head.root())).take(HEADS_PER_REPLY).collect();
        let Some(first) = fresh.first() else {
            // All known by now: go on behind them, unless the peer has said so before or its work is reached.
            let reached = self.chain.tip_place().work >= offer.work;
            match (&mut self.sync.offer, last) {
                (Some(offer), Some(last)) if !reached && known_so_far.is_none_or(|known| known.0 < last.0) => {
                    offer.last = Some(last);
                    self.ask_heads(out);
                }
                _ => self.end_offer(peer, out),
            }
            return;
        };
        let mut prev = first.receipt().prev_hash;
        let Some(mut place) = self.chain.place(&prev).cloned() else {
            self.bad_offer(peer, out);
            return;
        };
        let mut page: Vec<(Contextual, bool)> = Vec::new();
        for head in fresh {
            if head.too_early_until(self.now).is_some() {
                break;
            }
            let facts = place.facts(self.chain.spec(), prev);
            let root = head.root();
            let head = match head.contextual(&facts) {
                Ok(head) if head.is_head() && self.pins_allow(&head) => head,
                _ => {
                    self.bad_offer(peer, out);
                    return;
                }
            };
            place = place.child(self.chain.spec(), head.semantic().receipt().timestamp);
            let old = light && place.height.0 + LIGHT_RECENT <= claimed_height;
            let drawn = !old || self.draw(&head.semantic().id().0, LIGHT_PER_MILLION);
            page.push((head, drawn));
            prev = root;
        }
        if page.is_empty() {
            self.end_offer(peer, out);
            return;
        }
        let drawn: Vec<Contextual> = page.iter().filter(|(_, drawn)| *drawn).map(|(head, _)| head.clone()).collect();
        if let Some(offer) = &mut self.sync.offer {
            offer.page = Some(Page { heads: page, open: drawn.len() });
        }
        let mut unjoined = 0;
        for head in drawn {
            let claim = (head.semantic().unit(), head.semantic().root());
            if !self.audits.contains(&claim) {
                self.audits.open(head, Waiter::Offer, Priority::Head);
            } else if !self.audits.join(&claim, Waiter::Offer, Priority::Head) {
                unjoined += 1;
            }
        }
        if unjoined > 0 {
            self.drop_offer_audits(out);
            self.sync.offer = None;
        } else {
            self.offer_ready(out);
        }
    }

    /// One audit of the download passed.
    pub(super) fn offer_progress(&mut self, out: &mut Vec<Output>) {
        if let Some(page) = self.sync.offer.as_mut().and_then(|offer| offer.page.as_mut()) {
            page.open = page.open.saturating_sub(1);
            self.offer_ready(out);
        }
    }

    /// When all audits of the page passed: its heads join in order, and the next page is asked for.
    fn offer_ready(&mut self, out: &mut Vec<Output>) {
        let Some(offer) = &mut self.sync.offer else { return };
        if offer.page.as_ref().is_none_or(|page| page.open > 0) {
            return;
        }
        let Some(page) = offer.page.take() else { return };
        let (peer, target) = (offer.peer, offer.work);
        if offer.first_claimed.is_none() {
            offer.first_claimed = page.heads.iter().find(|(_, drawn)| !drawn).map(|(head, _)| head.semantic().root());
        }
        offer.last = page.heads.last().map(|(head, _)| {
            let receipt = head.semantic().receipt();
            (Height(receipt.epoch_id), receipt.work_root)
        });
        for (head, drawn) in &page.heads {
            self.join(head, *drawn, out);
        }
        if self.chain.tip_place().work >= target {
            self.end_offer(peer, out);
        } else if self.sync.offer.is_some() {
            self.ask_heads(out);
        }
    }

    /// The download is through: shares come next.
    fn end_offer(&mut self, peer: Peer, out: &mut Vec<Output>) {
        if let Some(offer) = self.sync.offer.take() {
            self.job.in_touch = true;
            if self.chain.tip_place().work < offer.work {
                // It claimed more than it has.
                self.sync.shun(peer, self.now);
            }
            self.prune();
            self.ask_status(peer, out);
        }
    }

    fn bad_offer(&mut self, peer: Peer, out: &mut Vec<Output>) {
        out.push(Output::Penalise { peer, fault: PeerFault::FalseHead });
        self.offer_lost(out);
    }

    /// An audit of the download failed (`Some`: that root is false), or could not be done.
    pub(super) fn offer_failed(&mut self, false_root: Option<Root>, out: &mut Vec<Output>) {
        if let (Some(offer), Some(_)) = (&self.sync.offer, false_root) {
            out.push(Output::Penalise { peer: offer.peer, fault: PeerFault::FalseHead });
        }
        self.offer_lost(out);
    }

    fn offer_lost(&mut self, out: &mut Vec<Output>) {
        self.drop_offer_audits(out);
        let Some(offer) = self.sync.offer.take() else { return };
        self.sync.shun(offer.peer, self.now);
        self.job.in_touch = true;
        let Some(lowest) = offer.first_claimed else { return };
        let (removed, reorg) = self.chain.remove_branch(lowest);
        self.reorganise(reorg, out);
        // Shares keyed on removed heads no longer earn; `reorganise` has seen to those of the former main chain.
        let removed: BTreeSet<Root> = removed.into_iter().collect();
        let touched: Vec<UnitId> = self.shares.keyed_on(&removed).into_iter().collect();
        self.settle(touched);
        for root in removed {
            self.ops.push(Op::DropHead(root));
        }
    }

    fn drop_offer_audits(&mut self, out: &mut Vec<Output>) {
        self.audits.drop_if(|case| case.waiters.iter().all(|waiter| *waiter == Waiter::Offer), out);
    }

    /// Single heads that were missing.
    fn single_heads_came(&mut self, peer: Peer, heads: Vec<Semantic>, out: &mut Vec<Output>) {
        if heads.len() > ROOTS_PER_ASK {
            out.push(Output::Penalise { peer, fault: PeerFault::BadReply });
            return;
        }
        for head in heads {
            if self.take(head, Source::Sync { peer }, out) == Taken::Later {
                // Its own parent is missing too: a whole branch is, which a download brings if it is better.
                self.ask_status(peer, out);
            }
        }
    }

    // Shares.

    /// Asks for the next page of the pull, when devices are not behind already.
    fn pull_on(&mut self, out: &mut Vec<Output>) {
        let room = self.audits.len() < ROOM / 2;
        let Some(pull) = self.sync.pull.as_mut().filter(|pull| room && !pull.asking) else { return };
        let Some((epoch, _)) = pull.epochs.front().copied() else {
            self.sync.pull = None;
            return;
        };
        pull.asking = true;
        let (peer, after) = (pull.peer, pull.after);
        self.sync.ask(peer, Asked::Shares, Query::Shares { epoch, after }, self.now, out);
    }

    fn shares_came(&mut self, peer: Peer, receipts: Vec<Semantic>, more: bool, out: &mut Vec<Output>) {
        let Some(pull) = self.sync.pull.as_mut().filter(|pull| pull.peer == peer && pull.asking) else { return };
        pull.asking = false;
        let (epoch, mut after) = (pull.epochs.front().map(|(epoch, _)| *epoch), pull.after);
        let mut ordered = receipts.len() <= SHARES_PER_REPLY && (!more || !receipts.is_empty());
        for receipt in &receipts {
            ordered &= Some(receipt.receipt().epoch_id) == epoch && Some(receipt.unit()) > after;
            after = Some(receipt.unit());
        }
        if !ordered {
            out.push(Output::Penalise { peer, fault: PeerFault::BadReply });
            self.sync.pull = None;
            return;
        }
        let mut clean = true;
        for receipt in receipts {
            match self.take(receipt, Source::Sync { peer }, out) {
                Taken::Settled => {}
                Taken::Later => clean = false,
                Taken::Faulty => {
                    self.sync.pull = None;
                    return;
                }
            }
        }
        if let Some(pull) = &mut self.sync.pull {
            pull.clean &= clean;
            pull.after = after;
            if !more {
                self.sync.epoch_pulled(self.now);
            }
        }
        self.pull_on(out);
    }

    // Bans.

    /// A ban is taken on its proof alone: the receipt is audited here, and only if the key has shares here.
    fn bans_came(&mut self, peer: Peer, receipts: Vec<Semantic>, more: bool, out: &mut Vec<Output>) {
        if self.sync.bans.is_none_or(|(other, _)| other != peer) {
            return;
        }
        let last = receipts.last().map(|receipt| receipt.receipt().miner);
        let mut after = None;
        for receipt in receipts.into_iter().take(BANS_PER_REPLY) {
            let miner = receipt.receipt().miner;
            let claim = (receipt.unit(), receipt.root());
            if Some(miner) <= after {
                out.push(Output::Penalise { peer, fault: PeerFault::BadReply });
                self.sync.bans = None;
                return;
            }
            after = Some(miner);
            let facts = self.chain.facts(&receipt.receipt().prev_hash).copied();
            let due = receipt.receipt().epoch_id >= self.horizon() && self.standing.has_shares(&miner) && !self.standing.is_banned(&miner);
            let share = facts.filter(|_| due).and_then(|facts| receipt.contextual(&facts).ok());
            if let Some(share) = share
                && !self.audits.contains(&claim)
            {
                self.audits.open(share, Waiter::Ban { peer }, Priority::Alert);
            }
        }
        match (more, last) {
            (true, Some(after)) => {
                self.sync.ask(peer, Asked::Bans, Query::Bans { after: Some(after) }, self.now, out);
            }
            _ => self.sync.bans_done(self.now),
        }
    }

    /// How far this node is with its peers.
    pub(super) fn sync_state(&self) -> SyncState {
        if let Some(offer) = &self.sync.offer {
            SyncState::Heads(offer.height)
        } else if self.peers.iter().any(|(_, state)| state.status.is_some()) {
            SyncState::InStep
        } else {
            SyncState::Lonely
        }
    }
}
