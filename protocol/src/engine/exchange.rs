//! What is said with peers: statuses, a better chain, shares that differ, bans (spec §6). The conversations' state is in `sync`.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use super::audits::{ROOM, Waiter};
use super::io::*;
use super::receive::{Source, Taken};
use super::sync::{Asked, BARREN_MS, Offer, PAGE_TRIES_MAX, PAUSE_MS, PROMPT_MS, Page, SHARE_WORTH_MS, SHUN_MS, Talk};
use super::{Engine, SyncState};
use crate::types::{Height, Root};
use crate::verify::{Contextual, Semantic};

/// A light node audits all of the last heads of a chain that it fetches …
pub(super) const LIGHT_RECENT: u64 = 2_048;
/// … and this part of the older ones: 1 in 64, in parts per million.
const LIGHT_PER_MILLION: u32 = 15_625;
/// The status of some peer is asked for this often at least and at most, a quarter of the spacing in between.
const STATUS_EVERY_MS: (u64, u64) = (1_000, 4_000);
/// The status of one peer is not asked for more often than this, whatever happens.
const STATUS_PAUSE_MS: u64 = 500;
/// Digests that this node tells may be so much out of date, so that however many ask, an epoch is hashed once in this time.
pub(super) const TOLD_AGE_MS: u64 = 1_000;

impl Engine {
    pub(super) fn peer_up(&mut self, peer: Peer, out: &mut Vec<Output>) {
        self.peers.up(peer, self.now);
        self.ask_status(peer, out);
    }

    pub(super) fn peer_down(&mut self, peer: Peer, out: &mut Vec<Output>) {
        self.peers.down(peer, self.now);
        self.sync.down(peer);
        for (peer, asked) in self.sync.failed(self.now, Some(peer)) {
            self.ask_failed(peer, asked, out);
        }
        self.drop_offer_of(peer, out);
        self.end_pulls_of(peer);
    }

    fn drop_offer_of(&mut self, peer: Peer, out: &mut Vec<Output>) {
        if self.sync.offer.as_ref().is_some_and(|offer| offer.peer == peer) {
            self.drop_offer(out);
        }
    }

    fn end_pulls_of(&mut self, peer: Peer) {
        self.sync.pull.take_if(|pull| pull.peer == peer);
        self.sync.bans.take_if(|bans| bans.peer == peer);
    }

    /// The clock's part: time-outs, whose status is asked next, and the pulls that wait for room.
    pub(super) fn exchange(&mut self, out: &mut Vec<Output>) {
        for (peer, asked) in self.sync.failed(self.now, None) {
            self.ask_failed(peer, asked, out);
        }
        if self.sync.offer.as_ref().is_some_and(|offer| offer.is_stuck(self.now)) {
            self.offer_unaudited(out);
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
        self.bans_on(out);
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

    fn ask_failed(&mut self, peer: Peer, asked: Asked, out: &mut Vec<Output>) {
        match asked {
            Asked::Status => {
                if let Some(state) = self.peers.get_mut(peer) {
                    state.status_ask = None;
                }
            }
            // Who boasts and says nothing must not keep a conversation from those who have something to say.
            Asked::Heads if self.asks_page_again(peer) => {}
            Asked::Heads => {
                self.sync.shun(peer, Talk::Heads, PAUSE_MS, self.now);
                self.drop_offer_of(peer, out);
            }
            Asked::Shares | Asked::Bans => {
                self.sync.shun(peer, Talk::Shares, PAUSE_MS, self.now);
                self.end_pulls_of(peer);
            }
            Asked::ByRoot(_) => {}
        }
    }

    /// Whether a page that did not come is waited for once more: a light node would lose what it took as claimed, all of a long download.
    fn asks_page_again(&mut self, peer: Peer) -> bool {
        if self.peers.get(peer).is_none() || self.sync.is_shunned(peer, Talk::Heads, self.now) {
            return false;
        }
        let claims = |offer: &&mut Offer| offer.peer == peer && offer.asked.is_some() && offer.first_claimed.is_some();
        let Some(offer) = self.sync.offer.as_mut().filter(claims) else { return false };
        offer.tries += 1;
        offer.asked = None;
        offer.tries < PAGE_TRIES_MAX
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
                let known = |root: &Root| self.chain.unit(root).is_some() && self.chain.is_audited(root);
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
        let (top, now) = (self.chain.height().0 + 1, self.now);
        let first_epoch = from_epoch.max(self.horizon()).max(1);
        let epochs = (first_epoch..=top).take(EPOCHS_PER_STATUS).map(|epoch| self.shares.digest(epoch, TOLD_AGE_MS, now)).collect();
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
            (asked, Reply::Failed) => self.ask_failed(peer, asked, out),
            (asked, _) => {
                out.push(Output::Penalise { peer, fault: PeerFault::BadReply });
                self.sync.shun(peer, asked.talk(), SHUN_MS, self.now);
                self.ask_failed(peer, asked, out);
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
        // Bans may differ for good between nodes in step: a key without accepted shares at a node is not banned there.
        let mut equal = same_tip;
        // Nothing earns that is keyed above the tip: epochs beyond are a lie, and are not even looked at.
        let epochs = horizon..=self.chain.height().0 + 1;
        // Gossip still brings shares of these. While it does, sets differ by what is on its way, and a pull would bring what is here: then only
        // a peer that has more is asked. Once an epoch rests, or takes no gossip any more, any difference counts.
        let open = (self.chain.height().0 + 1).saturating_sub(self.chain.spec().stale_window());
        for (offset, theirs) in (0u64..).zip(&status.epochs) {
            let Some(epoch) = status.first_epoch.checked_add(offset).filter(|epoch| epochs.contains(epoch)) else { continue };
            // What is compared is never out of date: this node asks seldom, and would pull for nothing.
            let ours = self.shares.digest(epoch, 0, now);
            if ours != *theirs {
                equal = false;
                let on_its_way = epoch >= open && theirs.count <= ours.count && self.shares.is_moving(epoch, now);
                if theirs.count > 0 && !on_its_way {
                    differing.push((epoch, *theirs));
                }
            }
        }
        let known_tip = self.chain.contains(&status.tip);
        let resting = self.sync.is_resting(now);
        if let Some(state) = self.peers.get_mut(peer) {
            state.in_step = equal;
            state.status = Some(status);
            state.status_at = Some(now);
        }
        self.begin_offer();
        self.ask_heads(out);
        // A download that has brought nothing yet may be nothing but a boast: it must not keep shares from coming.
        let downloading = self.sync.offer.as_ref().is_some_and(|offer| offer.last.is_some() || offer.page.is_some());
        if known_tip && !shunned && !resting && !downloading && self.sync.pull.is_none() {
            self.sync.start_pull(peer, differing.into_iter(), now);
        }
        self.pull_on(out);
        self.pull_bans(peer, out);
    }

    /// Begins to pull a peer's bans when they differ; shares first: a ban counts only against a key that has shares here.
    fn pull_bans(&mut self, peer: Peer, out: &mut Vec<Output>) {
        let Some(status) = self.peers.get(peer).and_then(|state| state.status.as_ref()) else { return };
        let (tip, theirs) = (status.tip, status.bans);
        if self.chain.contains(&tip)
            && self.sync.pull.is_none()
            && theirs.count > 0
            && theirs != self.standing.digest()
            && !self.sync.is_shunned(peer, Talk::Shares, self.now)
            && self.sync.wants_bans(peer, theirs, self.now)
        {
            self.sync.start_bans(peer, theirs);
            self.bans_on(out);
        }
    }

    // Heads.

    /// Begins the download of a better chain, if a peer says that it has one: of those, one that kept its word so far.
    fn begin_offer(&mut self) {
        if self.sync.offer.is_some() || self.sync.is_resting(self.now) {
            return;
        }
        let (chain, sync, now) = (&self.chain, &self.sync, self.now);
        let better = |status: &Status| chain.is_better(status.work, &status.tip) && !chain.contains(&status.tip);
        let best = self
            .peers
            .iter()
            .filter(|(peer, _)| !sync.is_shunned(*peer, Talk::Heads, now))
            .filter_map(|(peer, state)| state.status.as_ref().filter(|status| better(status)).map(|status| (peer, status)))
            .min_by_key(|(peer, _)| sync.strikes(*peer, Talk::Heads))
            .map(|(peer, status)| (peer, status.tip, status.height, status.work));
        self.sync.offer = best.map(|(peer, tip, height, work)| self.sync.new_offer(peer, tip, height, work));
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
        let (claimed_height, ordinal) = (offer.height.0, offer.ordinal);
        let known = heads.iter().map_while(|head| self.chain.height_of(head)).count();
        let last = heads[..known].last().and_then(|head| Some((self.chain.height_of(head)?, head.root())));
        let fresh: Vec<Semantic> = heads.into_iter().skip(known).take(HEADS_PER_REPLY).collect();
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
        let mut roots = BTreeSet::new();
        for head in fresh {
            if head.too_early_until(self.now).is_some() {
                break;
            }
            let facts = place.facts(self.chain.spec(), prev);
            let root = head.root();
            let head = match head.contextual(&facts) {
                // No two units share a root, so no root comes twice.
                Ok(head) if head.is_head() && self.pins_allow(&head) && roots.insert(root) => head,
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
            // A root that another unit has here is fraud by somebody.
            let drawn = !old || self.chain.contains(&root) || self.draw_of_offer(ordinal, &head);
            page.push((head, drawn));
            prev = root;
        }
        if page.is_empty() {
            self.end_offer(out);
            return;
        }
        let drawn: Vec<Contextual> = page.iter().filter(|(_, drawn)| *drawn).map(|(head, _)| head.clone()).collect();
        if let Some(offer) = &mut self.sync.offer {
            offer.page = Some(Page { heads: page, open: drawn.len(), heard: now });
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
            self.drop_offer(out);
        } else {
            self.offer_ready(out);
        }
    }

    /// Whether a light node looks at an old head of this download. A head that was let pass once is drawn anew in the next.
    fn draw_of_offer(&self, ordinal: u64, head: &Contextual) -> bool {
        let mut salted = [0; 40];
        salted[..8].copy_from_slice(&ordinal.to_le_bytes());
        salted[8..].copy_from_slice(&head.semantic().id().0);
        self.draw(&salted, LIGHT_PER_MILLION)
    }

    /// One audit of the download passed.
    pub(super) fn offer_progress(&mut self, out: &mut Vec<Output>) {
        if let Some(page) = self.sync.offer.as_mut().and_then(|offer| offer.page.as_mut()) {
            page.open = page.open.saturating_sub(1);
            page.heard = self.now;
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
        (offer.barren_ms, offer.tries) = (0, 0);
        offer.last = page.heads.last().map(|(head, _)| {
            let receipt = head.semantic().receipt();
            (Height(receipt.epoch_id), receipt.work_root)
        });
        for (head, drawn) in &page.heads {
            let root = head.semantic().root();
            // Before it joins, so that nothing that its joining sets off forgets what a cut needs.
            if let Some(offer) = self.sync.offer.as_mut().filter(|_| !drawn && !self.chain.contains(&root)) {
                offer.first_claimed.get_or_insert(root);
            }
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
        let Some(offer) = &self.sync.offer else { return };
        let (peer, barren) = (offer.peer, offer.barren_ms > BARREN_MS);
        let has_less = self.chain.is_better(offer.work, &offer.tip);
        self.job.in_touch = true;
        // What was left unaudited was so because the last heads would be audited: they must have come.
        let ends = [offer.last.map_or(offer.tip, |(_, last)| last), offer.tip, self.chain.tip()];
        if offer.first_claimed.is_some_and(|lowest| !ends.iter().any(|end| self.is_settled(end, &lowest))) {
            self.sync.shun(peer, Talk::Heads, SHUN_MS, self.now);
            self.drop_offer(out);
        } else if has_less {
            // It has less than it said, or takes its time.
            self.sync.shun(peer, Talk::Heads, if barren { SHUN_MS } else { PAUSE_MS }, self.now);
        } else {
            self.sync.forgive(peer, Talk::Heads);
        }
        self.sync.offer = None;
        self.prune();
        self.ask_status(peer, out);
    }

    /// Whether so many audited heads end here, above one that was taken as claimed, that it may stay (spec §4, first sync).
    fn is_settled(&self, end: &Root, claimed: &Root) -> bool {
        self.chain.stands_on(end, claimed) && self.chain.lowest_claimed(end, LIGHT_RECENT).is_none()
    }

    /// Gives the download up as if it had never been: its audits go on only where somebody else waits, and what it took as claimed is cut out.
    fn drop_offer(&mut self, out: &mut Vec<Output>) {
        self.audits.leave_offer(out);
        if let Some(lowest) = self.sync.offer.take().and_then(|offer| offer.first_claimed) {
            self.cut(lowest, out);
        }
    }

    fn bad_offer(&mut self, peer: Peer, out: &mut Vec<Output>) {
        out.push(Output::Penalise { peer, fault: PeerFault::FalseHead });
        self.offer_lost(out);
    }

    /// An audit of the download failed: a root in it is false.
    pub(super) fn offer_failed(&mut self, out: &mut Vec<Output>) {
        if let Some(offer) = &self.sync.offer {
            self.bad_offer(offer.peer, out);
        }
    }

    /// Nobody could audit the download's heads. That is this node's own fault: nobody is shunned, and it tries again after a rest.
    pub(super) fn offer_unaudited(&mut self, out: &mut Vec<Output>) {
        self.drop_offer(out);
        self.sync.rest(self.now);
    }

    fn offer_lost(&mut self, out: &mut Vec<Output>) {
        if let Some(offer) = &self.sync.offer {
            self.sync.shun(offer.peer, Talk::Heads, SHUN_MS, self.now);
            self.job.in_touch = true;
        }
        self.drop_offer(out);
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
        let room = self.audits.len() < ROOM / 2 && !self.sync.is_resting(self.now);
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
        let new = (self.shares.len() + self.audits.len()).saturating_sub(before) as u64;
        if let Some(pull) = &mut self.sync.pull {
            pull.clean &= clean;
            pull.came += count;
            pull.after = after;
            pull.barren_ms = (pull.barren_ms + waited).saturating_sub(new.saturating_mul(SHARE_WORTH_MS));
            if pull.barren_ms > BARREN_MS {
                self.sync.shun(peer, Talk::Shares, SHUN_MS, now);
                self.sync.pull = None;
            } else {
                if !more {
                    self.sync.epoch_pulled(now);
                }
                if waited < PROMPT_MS && (new > 0 || !more) {
                    self.sync.forgive(peer, Talk::Shares);
                }
            }
        }
        self.pull_on(out);
        self.pull_bans(peer, out);
    }

    // Bans.

    /// Asks for the next page of bans, when devices are not behind already and this node's pace allows it.
    fn bans_on(&mut self, out: &mut Vec<Output>) {
        let room = self.audits.len() < ROOM / 2 && !self.sync.is_resting(self.now);
        let Some(bans) = self.sync.bans.as_mut().filter(|bans| room && bans.asked.is_none()) else { return };
        let (peer, after) = (bans.peer, bans.after);
        if !self.peers.may_page(peer, self.now) {
            return;
        }
        bans.asked = Some(self.now);
        self.sync.ask(peer, Asked::Bans, Query::Bans { after }, self.now, out);
    }

    /// A ban is taken on its proof alone: the receipt is audited here, and only if the key has shares here.
    fn bans_came(&mut self, peer: Peer, receipts: Vec<Semantic>, more: bool, out: &mut Vec<Output>) {
        let now = self.now;
        let Some(bans) = self.sync.bans.as_mut().filter(|bans| bans.peer == peer) else { return };
        let Some(waited) = bans.asked.take().map(|since| now.since(since)) else { return };
        bans.waited_ms += waited;
        bans.pages += 1;
        let mut after = bans.after;
        let ends = !more || receipts.is_empty();
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
        let Some(bans) = &mut self.sync.bans else { return };
        bans.after = after;
        let over = bans.is_over();
        if ends || over {
            if !ends {
                self.sync.shun(peer, Talk::Shares, SHUN_MS, now);
            }
            self.sync.bans_done(now);
        }
        self.bans_on(out);
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
