//! What is being asked of peers: statuses, the heads of a better chain, single heads, differing epochs of shares, bans (spec §6).
//!
//! Holds only the state of conversations, each bounded; what an answer means is decided where the chain is. One download of
//! heads and one pull of shares run at a time.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

use super::io::{AskId, Digest, Output, Peer, Query};
use crate::types::{Height, Millis, PublicKey, Root, U256, UnitId};
use crate::verify::Contextual;

/// A question without an answer for this long has failed.
const ASK_TIMEOUT_MS: u64 = 15_000;
/// How long a peer whose chain proved false, or that kept a conversation for nothing, is not asked again …
pub const SHUN_MS: u64 = 10_000;
/// … one that only did not answer, or has less than it said, which loss and reorganisations do as well …
pub const PAUSE_MS: u64 = 1_000;
/// … which doubles while it goes on, up to so many times the first.
const SHUN_TIMES_MAX: u64 = 64;
/// After this time without a fault a peer's next one counts as its first.
const SHUN_FORGOTTEN_MS: u64 = 600_000;
/// Peers that are shunned or were lately; of more, whose time ran out first is forgotten.
const SHUNNED_MAX: usize = 4_096;
/// After audits that no device could do, nothing that needs many of them is begun for this long, with whomever.
const REST_MS: u64 = 3_000;
/// An open page of heads is given up when no device has answered for one of them in this time.
const PAGE_AUDITS_MS: u64 = 30_000;
/// A page that ends an epoch within this time shows a peer that answers.
pub const PROMPT_MS: u64 = 2_000;
/// A conversation may wait so long for answers that bring nothing new; then another peer has its turn.
pub const BARREN_MS: u64 = 10_000;
/// A share that is new pays for so much of that waiting: who has many is worth a slow line, who lets them drip is not.
pub const SHARE_WORTH_MS: u64 = 50;
/// Waiting for all pages of one peer's bans together takes this long at most, or the rest is left for another time …
const BANS_MS: u64 = 30_000;
/// … as it is after so many pages: more keys are never banned within retention.
const BANS_PAGES_MAX: u32 = 1_024;
/// A page of heads that did not come is asked for again so often, when giving the download up would lose what was taken as claimed.
pub const PAGE_TRIES_MAX: u8 = 3;
/// Single heads that are wanted at a time, and of one peer; further ones come by download.
const WANTED_MAX: usize = 1_024;
const WANTED_PER_PEER: usize = 16;
/// A head that was asked for and did not come may be asked for again after this.
const WANTED_AGAIN_MS: u64 = 2_000;
/// A completed pull of an epoch is not repeated for this long while the peer's digest stays.
const PULLED_FOR_MS: u64 = 30_000;
/// Likewise for bans; sooner, because a ban waits for the audits of its key's shares.
const BANS_PULLED_FOR_MS: u64 = 5_000;
/// Epochs in one pull; the next status brings the rest.
const PULL_EPOCHS_MAX: usize = 256;

/// What was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// A status.
    Status,
    /// A page of a better chain.
    Heads,
    /// A single head.
    ByRoot(Root),
    /// A page of an epoch.
    Shares,
    /// A page of bans.
    Bans,
}

/// Heads of one page, their audits open.
#[derive(Debug)]
pub struct Page {
    /// In order, each keyed on the one before; `bool`: drawn for audit.
    pub heads: Vec<(Contextual, bool)>,
    /// Audits that are still open.
    pub open: usize,
    /// When a device last answered for one of them.
    pub heard: Millis,
}

/// The download of a better chain.
#[derive(Debug)]
pub struct Offer {
    /// From whom.
    pub peer: Peer,
    /// Its claimed tip.
    pub tip: Root,
    /// That one's claimed height.
    pub height: Height,
    /// Its claimed work.
    pub work: U256,
    /// Which download this is: what is drawn in one is not what is drawn in the next, also of the same heads.
    pub ordinal: u64,
    /// The highest head that came so far.
    pub last: Option<(Height, Root)>,
    /// The lowest head of this download that was taken without an audit: where to cut when a later one proves false.
    pub first_claimed: Option<Root>,
    /// The page whose audits are open; `None` while the next is asked for.
    pub page: Option<Page>,
    /// Since when a question is open; `None` while the next may not be asked yet.
    pub asked: Option<Millis>,
    /// How long it waited for pages without a head that was new.
    pub barren_ms: u64,
    /// How often the next page was asked for and did not come.
    pub tries: u8,
    /// Whether the last page was not full: the peer has no more.
    pub ended: bool,
}

impl Offer {
    /// Whether no device has answered for the open page for too long.
    pub fn is_stuck(&self, now: Millis) -> bool {
        self.page.as_ref().is_some_and(|page| now.since(page.heard) >= PAGE_AUDITS_MS)
    }
}

/// A pull of differing epochs from one peer.
#[derive(Debug)]
pub struct Pull {
    /// From whom.
    pub peer: Peer,
    /// Epochs to go, ascending, with the peer's digests.
    pub epochs: VecDeque<(u64, Digest)>,
    /// The last unit of the current epoch that came.
    pub after: Option<UnitId>,
    /// Whether all that came of the current epoch could be judged.
    pub clean: bool,
    /// How many came of the current epoch.
    pub came: usize,
    /// Since when a question is open.
    pub asked: Option<Millis>,
    /// How long it waited, less what the new shares that came were worth.
    pub barren_ms: u64,
}

/// The bans of one peer, page by page.
#[derive(Debug)]
pub struct BansPull {
    /// From whom.
    pub peer: Peer,
    /// Its digest.
    pub digest: Digest,
    /// The last key that came.
    pub after: Option<PublicKey>,
    /// Since when a question is open.
    pub asked: Option<Millis>,
    /// How long its answers took so far.
    pub waited_ms: u64,
    /// How many came.
    pub pages: u32,
}

impl BansPull {
    /// Whether the peer has had its time, whatever it still has.
    pub fn is_over(&self) -> bool {
        self.waited_ms >= BANS_MS || self.pages >= BANS_PAGES_MAX
    }
}

/// What a peer is not asked for while it is shunned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Talk {
    /// Its chain.
    Heads,
    /// Its shares and bans.
    Shares,
}

impl Asked {
    /// The conversation that the question belongs to.
    pub fn talk(&self) -> Talk {
        match self {
            Self::Status | Self::Heads | Self::ByRoot(_) => Talk::Heads,
            Self::Shares | Self::Bans => Talk::Shares,
        }
    }
}

/// A peer that is not asked for a while.
#[derive(Debug)]
struct Shunned {
    until: Millis,
    times: u32,
}

/// All conversations.
#[derive(Debug, Default)]
pub struct Sync {
    next: u64,
    open: BTreeMap<AskId, (Peer, Asked, Millis)>,
    /// The download of heads.
    pub offer: Option<Offer>,
    /// The pull of shares.
    pub pull: Option<Pull>,
    /// The pull of bans.
    pub bans: Option<BansPull>,
    /// Downloads begun in this life.
    offers: u64,
    /// Before this, nothing is begun that needs many audits.
    rest_until: Millis,
    shunned: BTreeMap<(Peer, Talk), Shunned>,
    wanted: BTreeMap<(Peer, Root), Millis>,
    pulled: BTreeMap<(Peer, u64), (Digest, Millis)>,
    bans_pulled: BTreeMap<Peer, (Digest, Millis)>,
    turn: Option<Peer>,
    status_due: Millis,
}

impl Sync {
    /// Asks, and remembers what.
    pub fn ask(&mut self, peer: Peer, asked: Asked, query: Query, now: Millis, out: &mut Vec<Output>) -> AskId {
        let ask = AskId(self.next);
        self.next += 1;
        self.open.insert(ask, (peer, asked, now));
        out.push(Output::Ask { peer, ask, query });
        ask
    }
    /// The question that this is an answer to; late and foreign answers have none.
    pub fn answered(&mut self, peer: Peer, ask: AskId) -> Option<Asked> {
        match self.open.get(&ask) {
            Some((asked_peer, ..)) if *asked_peer == peer => self.open.remove(&ask).map(|(_, asked, _)| asked),
            _ => None,
        }
    }
    /// Questions that have waited too long, or whose peer is gone; they are forgotten.
    pub fn failed(&mut self, now: Millis, gone: Option<Peer>) -> Vec<(Peer, Asked)> {
        let late: Vec<AskId> = self
            .open
            .iter()
            .filter(|(_, (peer, _, since))| gone == Some(*peer) || now.since(*since) >= ASK_TIMEOUT_MS)
            .map(|(ask, _)| *ask)
            .collect();
        late.into_iter().filter_map(|ask| self.open.remove(&ask)).map(|(peer, asked, _)| (peer, asked)).collect()
    }
    /// Forgets what was said with a peer; that it is shunned goes on.
    pub fn down(&mut self, peer: Peer) {
        self.bans_pulled.remove(&peer);
        self.pulled.retain(|(other, _), _| *other != peer);
    }

    /// The peer whose turn it is to be asked for its status, when the time has come.
    pub fn status_turn(&mut self, peers: impl Iterator<Item = Peer>, every_ms: u64, now: Millis) -> Option<Peer> {
        if now < self.status_due {
            return None;
        }
        self.status_due = now.plus(every_ms);
        let (mut first, mut next) = (None, None);
        for peer in peers {
            first = first.or(Some(peer));
            if next.is_none() && Some(peer) > self.turn {
                next = Some(peer);
            }
        }
        self.turn = next.or(first);
        self.turn
    }

    /// Does not ask the peer for a while, and for twice as long the next time.
    pub fn shun(&mut self, peer: Peer, talk: Talk, base_ms: u64, now: Millis) {
        if self.shunned.len() >= SHUNNED_MAX
            && !self.shunned.contains_key(&(peer, talk))
            && let Some(first) = self.shunned.iter().min_by_key(|(_, row)| row.until).map(|(who, _)| *who)
        {
            self.shunned.remove(&first);
        }
        let row = self.shunned.entry((peer, talk)).or_insert(Shunned { until: now, times: 0 });
        row.times = if now.since(row.until) < SHUN_FORGOTTEN_MS { (row.times + 1).min(16) } else { 1 };
        row.until = row.until.max(now.plus(base_ms * (1 << (row.times - 1)).min(SHUN_TIMES_MAX)));
    }
    /// How often the peer was shunned lately: whoever never was has the next turn.
    pub fn strikes(&self, peer: Peer, talk: Talk) -> u32 {
        self.shunned.get(&(peer, talk)).map_or(0, |row| row.times)
    }
    /// The peer kept its word.
    pub fn forgive(&mut self, peer: Peer, talk: Talk) {
        self.shunned.remove(&(peer, talk));
    }
    /// Whether the peer is not asked now.
    pub fn is_shunned(&self, peer: Peer, talk: Talk, now: Millis) -> bool {
        self.shunned.get(&(peer, talk)).is_some_and(|row| row.until > now)
    }

    /// No device could tell: whoever is asked, what comes could not be audited now. Says nothing about any peer.
    pub fn rest(&mut self, now: Millis) {
        self.rest_until = now.plus(REST_MS);
    }
    /// Whether that is so now.
    pub fn is_resting(&self, now: Millis) -> bool {
        now < self.rest_until
    }

    /// A download of what a peer says that it has.
    pub fn new_offer(&mut self, peer: Peer, tip: Root, height: Height, work: U256) -> Offer {
        self.offers += 1;
        let (ordinal, last, first_claimed, page, asked) = (self.offers, None, None, None, None);
        Offer { peer, tip, height, work, ordinal, last, first_claimed, page, asked, barren_ms: 0, tries: 0, ended: false }
    }

    /// Whether to ask the peer for this head now.
    pub fn want(&mut self, root: Root, peer: Peer, now: Millis) -> bool {
        self.wanted.retain(|_, since| now.since(*since) < WANTED_AGAIN_MS);
        let of_peer = self.wanted.range((peer, Root([0; 32]))..=(peer, Root([255; 32]))).count();
        // Questions that it has not answered yet count too, for as long as they are open: who keeps silent is not asked the more.
        let unanswered = self.open.values().filter_map(|(to, asked, _)| match asked {
            Asked::ByRoot(root) if *to == peer => Some(*root),
            _ => None,
        });
        let (mut open, mut asked) = (0, self.wanted.contains_key(&(peer, root)));
        for other in unanswered {
            open += 1;
            asked |= other == root;
        }
        let want = self.wanted.len() < WANTED_MAX && of_peer.max(open) < WANTED_PER_PEER && !asked;
        if want {
            self.wanted.insert((peer, root), now);
        }
        want
    }

    /// Starts to pull epochs that differ and were not pulled lately.
    pub fn start_pull(&mut self, peer: Peer, epochs: impl Iterator<Item = (u64, Digest)>, now: Millis) {
        let fresh = |epoch: &u64, digest: &Digest| {
            self.pulled.get(&(peer, *epoch)).is_none_or(|(old, at)| old != digest || now.since(*at) >= PULLED_FOR_MS)
        };
        let epochs: VecDeque<_> = epochs.filter(|(epoch, digest)| fresh(epoch, digest)).take(PULL_EPOCHS_MAX).collect();
        if !epochs.is_empty() {
            self.pull = Some(Pull { peer, epochs, after: None, clean: true, came: 0, asked: None, barren_ms: 0 });
        }
    }
    /// The current epoch of the pull is through.
    pub fn epoch_pulled(&mut self, now: Millis) {
        let Some(pull) = &mut self.pull else { return };
        // Fewer than it said: some were on their way to its disk, or it lied; neither settles the epoch.
        if let Some((epoch, digest)) = pull.epochs.pop_front()
            && pull.clean
            && pull.came >= digest.count as usize
        {
            self.pulled.insert((pull.peer, epoch), (digest, now));
        }
        pull.after = None;
        pull.clean = true;
        pull.came = 0;
        if pull.epochs.is_empty() {
            self.pull = None;
        }
    }
    /// Forgets what was pulled of epochs below the horizon.
    pub fn prune(&mut self, horizon: u64) {
        self.pulled.retain(|(_, epoch), _| *epoch >= horizon);
    }

    /// A share that came from the peer was not kept: its epoch is not settled.
    pub fn unsettle(&mut self, peer: Peer, epoch: u64) {
        self.pulled.remove(&(peer, epoch));
    }

    /// Whether the peer's bans should be asked for.
    pub fn wants_bans(&self, peer: Peer, digest: Digest, now: Millis) -> bool {
        self.bans.is_none() && self.bans_pulled.get(&peer).is_none_or(|(old, at)| *old != digest || now.since(*at) >= BANS_PULLED_FOR_MS)
    }
    /// Starts to pull a peer's bans.
    pub fn start_bans(&mut self, peer: Peer, digest: Digest) {
        self.bans = Some(BansPull { peer, digest, after: None, asked: None, waited_ms: 0, pages: 0 });
    }
    /// All pages of bans came, or all that are taken now.
    pub fn bans_done(&mut self, now: Millis) {
        if let Some(bans) = self.bans.take() {
            self.bans_pulled.insert(bans.peer, (bans.digest, now));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_too_many_who_are_shunned_the_first_is_forgotten() {
        let mut sync = Sync::default();
        for peer in 0..SHUNNED_MAX as u64 + 3 {
            sync.shun(Peer(peer), Talk::Heads, SHUN_MS, Millis(1_000 + peer));
        }
        let now = Millis(1_000 + SHUNNED_MAX as u64);
        assert_eq!(sync.shunned.len(), SHUNNED_MAX);
        let shunned = |peer| sync.is_shunned(Peer(peer), Talk::Heads, now);
        assert_eq!((shunned(0), shunned(2), shunned(3), shunned(SHUNNED_MAX as u64 + 2)), (false, false, true, true));
    }
}
