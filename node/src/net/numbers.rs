//! The engine's numbers of peers. Who comes back within [`KEPT`] gets the number that it had, so that what the engine counts by peer is not
//! begun anew by hanging up.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use libp2p::PeerId;
use tops_protocol::engine::Peer;

use super::limits::GONE_PEERS_MAX;

/// How long the number of a peer that left is kept for it.
pub const KEPT: Duration = Duration::from_secs(3_600);

/// Numbers of connected peers and of those that left lately.
#[derive(Debug, Default)]
pub struct Numbers {
    last: u64,
    numbers: HashMap<PeerId, Peer>,
    ids: HashMap<Peer, PeerId>,
    /// Who left and has not come back, the first to leave in front. A peer that comes and goes stands here once for each leaving; only its last
    /// one counts.
    gone: VecDeque<(Instant, PeerId)>,
    left: HashMap<PeerId, Instant>,
}

impl Numbers {
    /// The peer is connected.
    pub fn came(&mut self, id: PeerId, now: Instant) -> Peer {
        self.forget(now);
        self.left.remove(&id);
        if let Some(number) = self.numbers.get(&id) {
            return *number;
        }
        self.last += 1;
        let number = Peer(self.last);
        self.numbers.insert(id, number);
        self.ids.insert(number, id);
        number
    }

    /// Its last connection is gone.
    pub fn left(&mut self, id: PeerId, now: Instant) {
        self.left.insert(id, now);
        self.gone.push_back((now, id));
        self.forget(now);
    }

    /// Who has this number, connected or not.
    pub fn id(&self, number: Peer) -> Option<PeerId> {
        self.ids.get(&number).copied()
    }

    fn forget(&mut self, now: Instant) {
        while let Some(&(since, id)) = self.gone.front() {
            let stays_away = self.left.get(&id) == Some(&since);
            if stays_away && self.left.len() <= GONE_PEERS_MAX && now.duration_since(since) < KEPT && self.gone.len() <= 2 * GONE_PEERS_MAX
            {
                return;
            }
            self.gone.pop_front();
            if stays_away {
                self.left.remove(&id);
                if let Some(number) = self.numbers.remove(&id) {
                    self.ids.remove(&number);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_comes_back_is_who_it_was_for_an_hour() {
        let (mut numbers, now) = (Numbers::default(), Instant::now());
        let (a, b) = (PeerId::random(), PeerId::random());
        let (first, second) = (numbers.came(a, now), numbers.came(b, now));
        assert_ne!(first, second);
        numbers.left(a, now);
        assert_eq!(numbers.id(first), Some(a), "what it did is still found out");
        assert_eq!(numbers.came(a, now + KEPT / 2), first);
        numbers.left(a, now + KEPT / 2);
        assert_eq!(numbers.came(a, now + KEPT), first, "the hour begins when it left last");
        numbers.left(a, now + KEPT);
        let back = numbers.came(a, now + 3 * KEPT);
        assert!(back != first && numbers.id(first).is_none());
        assert_eq!(numbers.came(b, now + 3 * KEPT), second, "it never left");
    }

    #[test]
    fn the_list_is_bounded_whoever_comes_and_goes() {
        let (mut numbers, now) = (Numbers::default(), Instant::now());
        let stays = PeerId::random();
        let number = numbers.came(stays, now);
        let restless = PeerId::random();
        for _ in 0..4 * GONE_PEERS_MAX {
            for id in [restless, PeerId::random()] {
                numbers.came(id, now);
                numbers.left(id, now);
            }
        }
        assert!(numbers.numbers.len() <= GONE_PEERS_MAX + 1 && numbers.ids.len() == numbers.numbers.len());
        assert!(numbers.left.len() <= GONE_PEERS_MAX && numbers.gone.len() <= 2 * GONE_PEERS_MAX);
        assert_eq!(numbers.came(stays, now), number);
    }
}
