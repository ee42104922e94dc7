//! What is being asked of peers: statuses, the heads of a better chain, single heads, differing epochs of shares, bans (spec §6).
//!
//! Holds only the state of conversations, each bounded; what an answer means is decided where the chain is. One download of
//! heads and one pull of shares run at a time.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

use super::io::{AskId, Digest, Output, Peer, Query};
use crate::types::{Height, Millis, Root, U256, UnitId};
use crate::verify::Contextual;

/// A question without an answer for this long has failed.
const ASK_TIMEOUT_MS: u64 = 15_000;
/// How long a peer whose chain proved false or empty is not asked for it again.
const SHUN_MS: u64 = 10_000;
/// Single heads that are wanted at a time; further ones come by download.
const WANTED_MAX: usize = 256;
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
    /// Single heads.
    ByRoot,
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
}

/// The download of a better chain.
#[derive(Debug)]
pub struct Offer {
    /// From whom.
    pub peer: Peer,
    /// Its claimed tip.
    pub height: Height,
    /// Its claimed work.
    pub work: U256,
    /// The highest head that came so far.
    pub last: Option<(Height, Root)>,
    /// The lowest head of this download that was taken without an audit: where to cut when a later one proves false.
    pub first_claimed: Option<Root>,
    /// The page whose audits are open; `None` while the next is asked for.
    pub page: Option<Page>,
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
    /// Whether a question is open.
    pub asking: bool,
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
    /// The bans' page that is being asked for, and the peer's digest.
    pub bans: Option<(Peer, Digest)>,
    shunned: BTreeMap<Peer, Millis>,
    wanted: BTreeMap<Root, Millis>,
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
    /// Forgets a peer.
    pub fn down(&mut self, peer: Peer) {
        self.shunned.remove(&peer);
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

    /// Does not ask the peer for its chain for a while.
    pub fn shun(&mut self, peer: Peer, now: Millis) {
        self.shunned.insert(peer, now.plus(SHUN_MS));
    }
    /// Whether the peer is not asked for its chain now.
    pub fn is_shunned(&self, peer: Peer, now: Millis) -> bool {
        self.shunned.get(&peer).is_some_and(|until| *until > now)
    }

    /// Whether to ask for this head now.
    pub fn want(&mut self, root: Root, now: Millis) -> bool {
        self.wanted.retain(|_, since| now.since(*since) < WANTED_AGAIN_MS);
        let want = self.wanted.len() < WANTED_MAX && !self.wanted.contains_key(&root);
        if want {
            self.wanted.insert(root, now);
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
            self.pull = Some(Pull { peer, epochs, after: None, clean: true, asking: false });
        }
    }
    /// The current epoch of the pull is through.
    pub fn epoch_pulled(&mut self, now: Millis) {
        let Some(pull) = &mut self.pull else { return };
        if let Some((epoch, digest)) = pull.epochs.pop_front()
            && pull.clean
        {
            self.pulled.insert((pull.peer, epoch), (digest, now));
        }
        pull.after = None;
        pull.clean = true;
        if pull.epochs.is_empty() {
            self.pull = None;
        }
    }
    /// Forgets what was pulled of epochs below the horizon.
    pub fn prune(&mut self, horizon: u64) {
        self.pulled.retain(|(_, epoch), _| *epoch >= horizon);
    }

    /// Whether the peer's bans should be asked for.
    pub fn wants_bans(&self, peer: Peer, digest: Digest, now: Millis) -> bool {
        self.bans.is_none() && self.bans_pulled.get(&peer).is_none_or(|(old, at)| *old != digest || now.since(*at) >= BANS_PULLED_FOR_MS)
    }
    /// All pages of bans came.
    pub fn bans_done(&mut self, now: Millis) {
        if let Some((peer, digest)) = self.bans.take() {
            self.bans_pulled.insert(peer, (digest, now));
        }
    }
}
