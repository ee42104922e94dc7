//! What each peer may ask of this node, and what it has said (spec §5, §6). Bounded by the number of connections and by a few constants.
//!
//! A peer's budgets outlive its connection: its number comes back with it, so leaving and coming again gives no new ones.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;

use super::io::{AskId, Peer, Status};
use crate::types::Millis;

/// Audits before forwarding that one peer may have open; more are ignored.
pub const FORWARD_AUDITS_MAX: u32 = 64;
/// Audits before forwarding that one peer may cause a second, and at once after a rest.
const FORWARD_AUDITS_PER_SEC: u64 = 32;
const FORWARD_AUDITS_BURST: u64 = 128;
/// Questions that one peer may ask a second, and at once after a rest; more are refused.
const ASKS_PER_SEC: u64 = 64;
const ASKS_BURST: u64 = 512;
/// Pages that this node asks one peer for, likewise; the next waits. With statuses and single heads on top it stays below the peer's budget.
const PAGES_PER_SEC: u64 = 40;
const PAGES_BURST: u64 = 256;
/// Receipts held for one peer; more are ignored.
const HELD_MAX: u32 = 16;
/// False shares of keys without standing that are put down to bad luck, a minute.
const FALSE_SHARES_PER_MIN: u64 = 4;
/// The last stamps that a peer delivered count for what it says of the time; a further one takes the oldest one's place …
const STAMPS_PER_PEER: usize = 8;
/// … for this long, so that a clock that was set right is not blamed for long …
const STAMPS_FOR_MS: u64 = 600_000;
/// … and so many peers must have delivered some before the local clock is compared: of fewer, one liar would be half.
const CLOCK_PEERS_MIN: usize = 3;

/// Tokens that come back with time; in thousandths, so that slow rates are exact.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    milli: u64,
    at: Millis,
}

impl Bucket {
    fn full(burst: u64, now: Millis) -> Self {
        Self { milli: burst * 1_000, at: now }
    }
    fn take(&mut self, milli_per_ms: u64, burst: u64, now: Millis) -> bool {
        let back = now.since(self.at).min(3_600_000).saturating_mul(milli_per_ms);
        self.milli = self.milli.saturating_add(back).min(burst * 1_000);
        self.at = now;
        let taken = self.milli >= 1_000;
        if taken {
            self.milli -= 1_000;
        }
        taken
    }
}

/// A connected peer.
#[derive(Debug)]
pub struct PeerState {
    forward: Bucket,
    asks: Bucket,
    luck: Bucket,
    pages: Bucket,
    forward_open: u32,
    /// Receipts of this peer that are held.
    held: u32,
    /// Its last status.
    pub status: Option<Status>,
    /// When that came.
    pub status_at: Option<Millis>,
    /// When it was last asked for one.
    pub status_asked: Option<Millis>,
    /// The open question about its status.
    pub status_ask: Option<AskId>,
    /// Whether tip and shares were equal to ours at its last status.
    pub in_step: bool,
    /// When its last receipts came, and how far the local clock was past their stamps; the oldest first.
    stamps: VecDeque<(Millis, i64)>,
}

/// Deliverers that gossip but do not speak sync (a rendezvous), remembered at a time; the oldest is forgotten.
const GUESTS_MAX: usize = 256;
/// Peers that left, remembered at a time; of more, who left first is forgotten, and begins anew when it comes back.
const GONE_MAX: usize = 1_024;
/// Who has been away for this long is forgotten: every budget would be full again.
const GONE_MS: u64 = 3_600_000;

/// All peers that are connected, or were lately.
#[derive(Debug, Default)]
pub struct Peers {
    peers: BTreeMap<Peer, PeerState>,
    guests: BTreeMap<Peer, PeerState>,
    /// With the time when they left.
    gone: BTreeMap<Peer, (Millis, PeerState)>,
    by_leaving: BTreeSet<(Millis, Peer)>,
}

impl PeerState {
    fn new(now: Millis) -> Self {
        Self {
            forward: Bucket::full(FORWARD_AUDITS_BURST, now),
            asks: Bucket::full(ASKS_BURST, now),
            luck: Bucket::full(FALSE_SHARES_PER_MIN, now),
            pages: Bucket::full(PAGES_BURST, now),
            forward_open: 0,
            held: 0,
            status: None,
            status_at: None,
            status_asked: None,
            status_ask: None,
            in_step: false,
            stamps: VecDeque::new(),
        }
    }
    /// How far the local clock is past what this peer's receipts say, of the fresh ones the middle one.
    fn clock_off_ms(&self, now: Millis) -> Option<i64> {
        middle(self.stamps.iter().filter(|(at, _)| now.since(*at) < STAMPS_FOR_MS).map(|(_, off)| *off).collect())
    }
}

/// The lower middle of some numbers.
fn middle(mut numbers: Vec<i64>) -> Option<i64> {
    numbers.sort_unstable();
    numbers.get(numbers.len().saturating_sub(1) / 2).copied()
}

impl Peers {
    /// A peer came, for the first time or again. What it did before, as a guest as well, still counts.
    pub fn up(&mut self, peer: Peer, now: Millis) {
        let known = self.come_back(peer).or_else(|| self.guests.remove(&peer));
        self.peers.entry(peer).or_insert_with(|| known.unwrap_or_else(|| PeerState::new(now)));
    }
    /// A peer is gone: what it said is forgotten, what it used up is not.
    pub fn down(&mut self, peer: Peer, now: Millis) {
        if let Some(state) = self.peers.remove(&peer).or_else(|| self.guests.remove(&peer)) {
            let state = PeerState { status: None, status_at: None, status_ask: None, in_step: false, stamps: VecDeque::new(), ..state };
            self.gone.insert(peer, (now, state));
            self.by_leaving.insert((now, peer));
        }
        while let Some((left, first)) = self.by_leaving.first().copied()
            && (self.gone.len() > GONE_MAX || now.since(left) > GONE_MS)
        {
            self.come_back(first);
        }
    }
    fn come_back(&mut self, peer: Peer) -> Option<PeerState> {
        let (left, state) = self.gone.remove(&peer)?;
        self.by_leaving.remove(&(left, peer));
        Some(state)
    }
    /// A peer's budgets, wherever it is.
    fn known(&mut self, peer: Peer) -> Option<&mut PeerState> {
        if let Some(state) = self.peers.get_mut(&peer) {
            return Some(state);
        }
        match self.gone.get_mut(&peer) {
            Some((_, state)) => Some(state),
            None => self.guests.get_mut(&peer),
        }
    }
    /// A peer, while connected.
    pub fn get(&self, peer: Peer) -> Option<&PeerState> {
        self.peers.get(&peer)
    }
    /// A peer, while connected.
    pub fn get_mut(&mut self, peer: Peer) -> Option<&mut PeerState> {
        self.peers.get_mut(&peer)
    }
    /// All, in the order of their numbers.
    pub fn iter(&self) -> impl Iterator<Item = (Peer, &PeerState)> {
        self.peers.iter().map(|(peer, state)| (*peer, state))
    }
    /// Whoever delivered a message, though it may have left since; one that does not speak sync gets a guest's place.
    fn deliverer(&mut self, peer: Peer, now: Millis) -> &mut PeerState {
        if let Some(state) = self.peers.get_mut(&peer) {
            return state;
        }
        if let Some((_, state)) = self.gone.get_mut(&peer) {
            return state;
        }
        if self.guests.len() >= GUESTS_MAX && !self.guests.contains_key(&peer) {
            self.guests.pop_first();
        }
        self.guests.entry(peer).or_insert_with(|| PeerState::new(now))
    }

    /// Takes room for an audit before forwarding; give it back with [`Peers::forward_done`].
    pub fn may_forward(&mut self, peer: Peer, now: Millis) -> bool {
        let state = self.deliverer(peer, now);
        let may = state.forward_open < FORWARD_AUDITS_MAX && state.forward.take(FORWARD_AUDITS_PER_SEC, FORWARD_AUDITS_BURST, now);
        if may {
            state.forward_open += 1;
        }
        may
    }
    /// Such an audit ended.
    pub fn forward_done(&mut self, peer: Peer) {
        if let Some(state) = self.known(peer) {
            state.forward_open = state.forward_open.saturating_sub(1);
        }
    }
    /// Counts a held receipt in; `false` when the peer has too many.
    pub fn may_hold(&mut self, peer: Peer, now: Millis) -> bool {
        let state = self.deliverer(peer, now);
        let may = state.held < HELD_MAX;
        state.held += u32::from(may);
        may
    }
    /// A held receipt was released.
    pub fn hold_done(&mut self, peer: Peer) {
        if let Some(state) = self.known(peer) {
            state.held = state.held.saturating_sub(1);
        }
    }
    /// Whether the peer may ask now. Its first question may overtake the news of its coming.
    pub fn may_ask(&mut self, peer: Peer, now: Millis) -> bool {
        self.deliverer(peer, now).asks.take(ASKS_PER_SEC, ASKS_BURST, now)
    }
    /// Whether this node may ask the peer for a page now, without being greedy.
    pub fn may_page(&mut self, peer: Peer, now: Millis) -> bool {
        self.peers.get_mut(&peer).is_some_and(|state| state.pages.take(PAGES_PER_SEC, PAGES_BURST, now))
    }
    /// A receipt that is gossiped now bears this stamp. Whether it is true is not asked: what one peer brings moves that peer's word alone.
    pub fn stamp_came(&mut self, peer: Peer, stamp: Millis, now: Millis) {
        let Some(state) = self.peers.get_mut(&peer) else { return };
        if state.stamps.len() >= STAMPS_PER_PEER {
            state.stamps.pop_front();
        }
        let off = if now >= stamp { now.since(stamp).cast_signed() } else { -stamp.since(now).cast_signed() };
        state.stamps.push_back((now, off));
    }
    /// How far the local clock is ahead of the middle one of the connected peers; negative: behind. `None` when too few have delivered receipts lately.
    /// A receipt is as old as the search that found it and its way here took, so a right clock seems some seconds ahead at most.
    pub fn clock_off_ms(&self, now: Millis) -> Option<i64> {
        let offs: Vec<i64> = self.peers.values().filter_map(|state| state.clock_off_ms(now)).collect();
        if offs.len() < CLOCK_PEERS_MIN { None } else { middle(offs) }
    }
    /// The peer delivered a false share of a key without standing; whether that is more than bad luck.
    pub fn false_share(&mut self, peer: Peer, now: Millis) -> bool {
        // A token every fifteen seconds: time is counted in quarter minutes.
        let slow = Millis(now.0 / (60 / FALSE_SHARES_PER_MIN));
        let state = self.deliverer(peer, now);
        if state.luck.at > slow {
            state.luck.at = slow;
        }
        !state.luck.take(1, FALSE_SHARES_PER_MIN, slow)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uses_up(peers: &mut Peers, peer: Peer, now: Millis) -> usize {
        core::iter::repeat_with(|| peers.may_forward(peer, now)).take_while(|may| *may).count()
    }

    #[test]
    fn who_left_is_remembered_for_an_hour_and_up_to_a_bound() {
        let mut peers = Peers::default();
        let left = |i: u64| Millis(1_000_000 + i);
        let many = GONE_MAX as u64 + 10;
        for i in 0..many {
            peers.up(Peer(i), left(i));
            assert_eq!(uses_up(&mut peers, Peer(i), left(i)), FORWARD_AUDITS_MAX as usize);
            peers.down(Peer(i), left(i));
        }
        assert_eq!((peers.gone.len(), peers.by_leaving.len()), (GONE_MAX, GONE_MAX));
        let now = left(many);
        for i in [10, many - 1] {
            peers.up(Peer(i), now);
            assert_eq!(uses_up(&mut peers, Peer(i), now), 0, "it has all of its audits open still");
            peers.forward_done(Peer(i));
            assert_eq!(uses_up(&mut peers, Peer(i), now), 1);
        }
        peers.up(Peer(0), now);
        assert_eq!(uses_up(&mut peers, Peer(0), now), FORWARD_AUDITS_MAX as usize, "who left first is forgotten");
        // What ends while a peer is away is counted too.
        peers.forward_done(Peer(20));
        peers.up(Peer(20), now);
        assert_eq!(uses_up(&mut peers, Peer(20), now), 1);
        // An hour later nobody is left but who leaves now.
        peers.down(Peer(0), now.plus(GONE_MS + 1));
        assert_eq!((peers.gone.len(), peers.by_leaving.len()), (1, 1));
    }

    #[test]
    fn what_a_peer_said_goes_with_it() {
        let mut peers = Peers::default();
        peers.up(Peer(1), Millis(1));
        if let Some(state) = peers.get_mut(Peer(1)) {
            (state.status_at, state.status_ask, state.in_step) = (Some(Millis(1)), Some(AskId(1)), true);
        }
        peers.down(Peer(1), Millis(2));
        assert!(peers.get(Peer(1)).is_none() && peers.iter().next().is_none());
        peers.up(Peer(1), Millis(3));
        let state = peers.get(Peer(1)).unwrap();
        assert!(state.status_at.is_none() && state.status_ask.is_none() && !state.in_step);
    }
}
