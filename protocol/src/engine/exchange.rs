//! What is said with peers: statuses, a better chain, shares that differ, bans (spec §6). The conversations' state is in `sync`.

use alloc::vec::Vec;

use super::audits::{ROOM, Waiter};
use super::io::*;
use super::receive::{Source, Taken};
use super::sync::{Asked, BARREN_MS, Offer, PAUSE_MS, PROMPT_MS, Page, SHUN_MS, Talk};
use super::{Engine, SyncState};
use crate::types::{Height, Root};
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
            self.audits.leave_offer(out);
            self.sync.offer = None;
        }
        if self.sync.pull.as_ref().is_some_and(|pull| pull.peer == peer) {
            self.sync.pull = None;
        }
        if self.sync.bans.is_some_and(|(other, ..)| other == peer) {
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
        self.begin_offer();
        self.ask_heads(out);
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
            // Who boasts and says nothing must not keep a conversation from those who have something to say.
            Asked::Heads => {
                self.sync.shun(peer, Talk::Heads, PAUSE_MS, self.now);
                if self.sync.offer.as_ref().is_some_and(|offer| offer.peer == peer) {
                    self.sync.offer = None;
                }
            }
            Asked::Shares => {
                self.sync.shun(peer, Talk::Shares, PAUSE_MS, self.now);
                if self.sync.pull.as_ref().is_some_and(|pull| pull.peer == peer) {
                    self.sync.pull = None;
                }
            }
            Asked::Bans => {
                self.sync.shun(peer, Talk::Shares, PAUSE_MS, self.now);
                self.sync.bans = None;
            }
            Asked::ByRoot(_) => {}
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
            (Asked::ByRoot(root), Reply::Heads(heads)) => self.single_head_came(peer, root, heads, out),
            (Asked::Shares, Reply::Shares { receipts, more }) => self.shares_came(peer, receipts, more, out),
            (Asked::Bans, Reply::Bans { receipts, more }) => self.bans_came(peer, receipts, more, out),
            (asked, Reply::Failed) => self.ask_failed(peer, asked),
            (asked, _) => {
                out.push(Output::Penalise { peer, fault: PeerFault::BadReply });
                self.sync.shun(peer, asked.talk(), SHUN_MS, self.now);
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
        let shunned = self.sync.is_shunned(peer, Talk::Shares, now);
        let better = self.chain.is_better(status.work, &status.tip) && !self.chain.contains(&status.tip);
        self.job.in_touch |= !better;
        let same_tip = status.tip == self.chain.tip();
        let mut differing = Vec::new();
        let mut equal = same_tip && status.bans == self.standing.digest();
        // Nothing earns that is keyed above the tip: epochs beyond are a lie, and are not even looked at.
        let epochs = horizon..=self.chain.height().0 + 1;
        for (offset, theirs) in (0u64..).zip(&status.epochs) {
            let Some(epoch) = status.first_epoch.checked_add(offset).filter(|epoch| epochs.contains(epoch)) else { continue };
            if self.shares.digest(epoch) != *theirs {
                equal = false;
                if theirs.count > 0 {
                    differing.push((epoch, *theirs));
                }
            }
        }
        let known_tip = self.chain.contains(&status.tip);
        if let Some(state) = self.peers.get_mut(peer) {
            state.in_step = equal;
            state.status = Some(status);
            state.status_at = Some(now);
        }
        self.begin_offer();
        self.ask_heads(out);
        if known_tip && !shunned && self.sync.offer.is_none() && self.sync.pull.is_none() {
            self.sync.start_pull(peer, differing.into_iter(), now);
        }
        self.pull_on(out);
        self.ask_bans(peer, out);
    }

    /// Asks for a peer's bans when they differ; shares first: a ban counts only against a key that has shares here.
    fn ask_bans(&mut self, peer: Peer, out: &mut Vec<Output>) {
        let Some(status) = self.peers.get(peer).and_then(|state| state.status.as_ref()) else { return };
        let (tip, theirs) = (status.tip, status.bans);
        if self.chain.contains(&tip)
            && self.sync.pull.is_none()
            && theirs.count > 0
            && theirs != self.standing.digest()
            && !self.sync.is_shunned(peer, Talk::Shares, self.now)
            && self.sync.wants_bans(peer, theirs, self.now)
        {
            self.sync.bans = Some((peer, theirs, self.now));
            self.sync.ask(peer, Asked::Bans, Query::Bans { after: None }, self.now, out);
        }
    }

    // Heads.

    /// Begins the download of a better chain, if a peer says that it has one: of those, one that kept its word so far.
    fn begin_offer(&mut self) {
        if self.sync.offer.is_some() {
            return;
        }
        let (chain, sync, now) = (&self.chain, &self.sync, self.now);
        let better = |status: &Status| chain.is_better(status.work, &status.tip) && !chain.contains(&status.tip);
        self.sync.offer = self
            .peers
            .iter()
            .filter(|(peer, _)| !sync.is_shunned(*peer, Talk::Heads, now))
            .filter_map(|(peer, state)| state.status.as_ref().filter(|status| better(status)).map(|status| (peer, status)))
            .min_by_key(|(peer, _)| sync.strikes(*peer, Talk::Heads))
            .map(|(peer, status)| Offer::new(peer, status.tip, status.height, status.work));
    }

    /// Asks for the next page of the download, when no audits of the last one are open and this node's pace allows it.
    fn ask_heads(&mut self, out: &mut Vec<Output>) {
        let now = self.now;
        let Some(offer) = self.sync.offer.as_mut().filter(|offer| offer.page.is_none() && offer.asked.is_none()) else { return };
        let (peer, last) = (offer.peer, offer.last);
        if !self.peers.may_page(peer, now) {
            return;
        }
        offer.asked = Some(now);
        let mut locator = self.chain.locator(self.chain.height(), LOCATOR_MAX - 1);
        if let Some(last) = last {
            locator.insert(0, last);
        }
        self.sync.ask(peer, Asked::Heads, Query::Heads { locator }, now, out);
    }

    /// A page of a chain that is said to be better: every head is checked in its place, the drawn ones are audited, then all join.
    fn heads_came(&mut self, peer: Peer, heads: Vec<Semantic>, out: &mut Vec<Output>) {
        let now = self.now;
        let Some(offer) = self.sync.offer.as_mut().filter(|offer| offer.peer == peer && offer.page.is_none()) else { return };
        let waited = offer.asked.take().map_or(0, |since| now.since(since));
        offer.ended = heads.len() < HEADS_PER_REPLY;
        let claimed_height = offer.height.0;
        let last = heads.last().map(|head| (Height(head.receipt().epoch_id), head.root()));
        // Heads of the main chain are known also where memory has let them go.
        let chain = &self.chain;
        let known = |head: &Semantic| {
            let root = head.root();
            chain.contains(&root) || chain.main_at(Height(head.receipt().epoch_id)) == Some(root)
        };
        let fresh: Vec<Semantic> = heads.into_iter().skip_while(known).take(HEADS_PER_REPLY).collect();
        let Some(first) = fresh.first() else {
            // All known by now: go on behind them, unless that is all it has, or it takes its time.
            let reached = !self.chain.is_better(offer.work, &offer.tip);
            offer.barren_ms += waited;
            if reached || offer.ended || offer.barren_ms > BARREN_MS {
                self.end_offer(out);
            } else {
                offer.last = last.or(offer.last);
                self.ask_heads(out);
            }
            return;
        };
        let mut prev = first.receipt().prev_hash;
        let Some(mut place) = self.chain.place(&prev).cloned() else {
            // It left our chain below retention, where nothing is added; that is nobody's fault.
            self.offer_lost(out);
            return;
        };
        let light = self.config.light;
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
            // Old by the peer's word, and by a stamp that the median rule keeps from lying on a recent head.
            let old = light
                && place.height.0.saturating_add(LIGHT_RECENT) <= claimed_height
                && self.now.since(place.time()) >= LIGHT_RECENT * 1_000 * u64::from(self.chain.spec().spacing_secs());
            let drawn = !old || self.draw(&head.semantic().id().0, LIGHT_PER_MILLION);
            page.push((head, drawn));
            prev = root;
        }
        if page.is_empty() {
            self.end_offer(out);
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
            self.audits.leave_offer(out);
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
        offer.barren_ms = 0;
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
        let Some(offer) = &self.sync.offer else { return };
        if offer.ended || !self.chain.is_better(offer.work, &offer.tip) {
            self.end_offer(out);
        } else {
            self.ask_heads(out);
        }
    }

    /// The download is through: shares come next.
    fn end_offer(&mut self, out: &mut Vec<Output>) {
        let Some(offer) = self.sync.offer.take() else { return };
        self.job.in_touch = true;
        // What was left unaudited was so because its last 2,048 heads would be audited: they must have come.
        let came = offer.last.is_some_and(|last| last.0 >= offer.height)
            || self.chain.place(&offer.tip).is_some_and(|place| place.height >= offer.height);
        if let Some(lowest) = offer.first_claimed.filter(|_| !came) {
            self.sync.shun(offer.peer, Talk::Heads, SHUN_MS, self.now);
            self.cut(lowest, out);
        } else if self.chain.is_better(offer.work, &offer.tip) {
            // It has less than it said, or takes its time.
            let base = if offer.barren_ms > BARREN_MS { SHUN_MS } else { PAUSE_MS };
            self.sync.shun(offer.peer, Talk::Heads, base, self.now);
        } else {
            self.sync.forgive(offer.peer, Talk::Heads);
        }
        self.prune();
        self.ask_status(offer.peer, out);
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
        self.audits.leave_offer(out);
        let Some(offer) = self.sync.offer.take() else { return };
        self.sync.shun(offer.peer, Talk::Heads, SHUN_MS, self.now);
        self.job.in_touch = true;
        if let Some(lowest) = offer.first_claimed {
            self.cut(lowest, out);
        }
    }

    /// A single head that was missing, or none.
    fn single_head_came(&mut self, peer: Peer, wanted: Root, heads: Vec<Semantic>, out: &mut Vec<Output>) {
        if heads.len() > 1 || heads.iter().any(|head| head.root() != wanted) {
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

    /// Asks for the next page of the pull, when devices are not behind already and this node's pace allows it.
    fn pull_on(&mut self, out: &mut Vec<Output>) {
        let room = self.audits.len() < ROOM / 2;
        let Some(pull) = self.sync.pull.as_mut().filter(|pull| room && pull.asked.is_none()) else { return };
        let Some((epoch, _)) = pull.epochs.front().copied() else {
            self.sync.pull = None;
            return;
        };
        let (peer, after) = (pull.peer, pull.after);
        if !self.peers.may_page(peer, self.now) {
            return;
        }
        pull.asked = Some(self.now);
        self.sync.ask(peer, Asked::Shares, Query::Shares { epoch, after }, self.now, out);
    }

    fn shares_came(&mut self, peer: Peer, receipts: Vec<Semantic>, more: bool, out: &mut Vec<Output>) {
        let now = self.now;
        let Some(pull) = self.sync.pull.as_mut().filter(|pull| pull.peer == peer) else { return };
        let Some(waited) = pull.asked.take().map(|since| now.since(since)) else { return };
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
        let (count, before) = (receipts.len(), self.shares.len() + self.audits.len());
        let mut clean = true;
        for receipt in receipts {
            match self.take(receipt, Source::Sync { peer }, out) {
                Taken::Settled => {}
                Taken::Later => clean = false,
                Taken::Faulty => {
                    self.sync.shun(peer, Talk::Shares, SHUN_MS, now);
                    self.sync.pull = None;
                    return;
                }
            }
        }
        let barren = self.shares.len() + self.audits.len() <= before;
        if let Some(pull) = &mut self.sync.pull {
            pull.clean &= clean;
            pull.came += count;
            pull.after = after;
            pull.barren_ms = if barren { pull.barren_ms + waited } else { 0 };
            if pull.barren_ms > BARREN_MS {
                self.sync.shun(peer, Talk::Shares, SHUN_MS, now);
                self.sync.pull = None;
            } else {
                if !more {
                    self.sync.epoch_pulled(now);
                }
                if !barren || (!more && waited < PROMPT_MS) {
                    self.sync.forgive(peer, Talk::Shares);
                }
            }
        }
        self.pull_on(out);
        self.ask_bans(peer, out);
    }

    // Bans.

    /// A ban is taken on its proof alone: the receipt is audited here, and only if the key has shares here.
    fn bans_came(&mut self, peer: Peer, receipts: Vec<Semantic>, more: bool, out: &mut Vec<Output>) {
        if self.sync.bans.is_none_or(|(other, ..)| other != peer) {
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
            let due = receipt.receipt().epoch_id >= self.horizon()
                && receipt.too_early_until(self.now).is_none()
                && self.standing.has_shares(&miner)
                && !self.standing.is_banned(&miner);
            if !due {
                continue;
            }
            let prev = receipt.receipt().prev_hash;
            let Some(facts) = self.chain.facts(&prev).copied() else {
                // A key that others credit here must not hide its fraud on a head that it showed to few.
                self.want_head(prev, peer, out);
                continue;
            };
            if let Ok(share) = receipt.contextual(&facts)
                && !self.audits.is_full_for_heads()
                && !self.audits.contains(&claim)
            {
                self.audits.open(share, Waiter::Ban { peer }, Priority::Alert);
            }
        }
        match (more, last) {
            (true, Some(_)) if !self.sync.bans_in_time(self.now) => {
                self.sync.shun(peer, Talk::Shares, SHUN_MS, self.now);
                self.sync.bans_done(self.now);
            }
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
