//! Where peers can be dialled, and when to try again. Holds addresses only; the network task dials.
//!
//! Bootstrap addresses are tried for ever, since a node whose peers vanished has nothing else to do. Other peers come from identify and from
//! the table of peers; one that never answers is forgotten. An address is taken only if this node could reach it from where it heard of it:
//! a loopback address from a loopback connection, a private one from a private one.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use libp2p::multiaddr::Protocol;
use libp2p::swarm::ConnectionId;
use libp2p::{Multiaddr, PeerId};
use rand::Rng;

use super::limits::{ADDRESS_BOOK_MAX, ADDRESS_BYTES_MAX, ADDRESSES_PER_PEER, REDIAL_BOOTSTRAP_LAST, REDIAL_FIRST, REDIAL_LAST};

/// Failed dials after which a peer that never answered is forgotten.
const FORGET_AFTER: u32 = 8;

/// How far an address reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reach {
    /// This machine.
    Loopback,
    /// This machine's network.
    Private,
    /// Everywhere, or a name.
    Global,
}

/// How far the address reaches; `None` for one that cannot be dialled: wildcards, multicast, no host at all.
pub fn reach(address: &Multiaddr) -> Option<Reach> {
    let of_ip = |ip: IpAddr| {
        if ip.is_unspecified() || ip.is_multicast() {
            return None;
        }
        let private = match ip {
            IpAddr::V4(v4) => v4.is_private() || v4.is_link_local() || (v4.octets()[0] == 100 && v4.octets()[1] & 0xc0 == 64),
            IpAddr::V6(v6) => v6.is_unique_local() || v6.is_unicast_link_local(),
        };
        Some(if ip.is_loopback() {
            Reach::Loopback
        } else if private {
            Reach::Private
        } else {
            Reach::Global
        })
    };
    match address.iter().next()? {
        Protocol::Ip4(ip) => of_ip(ip.into()),
        Protocol::Ip6(ip) => of_ip(ip.into()),
        // Between nodes of one process.
        Protocol::Memory(_) => Some(Reach::Loopback),
        Protocol::Dns(_) | Protocol::Dns4(_) | Protocol::Dns6(_) | Protocol::Dnsaddr(_) => Some(Reach::Global),
        _ => None,
    }
}

/// The peer that an address ends with.
pub fn peer_of(address: &Multiaddr) -> Option<PeerId> {
    address.iter().fold(None, |last, part| match part {
        Protocol::P2p(peer) => Some(peer),
        // The one before it is the relay.
        Protocol::P2pCircuit => None,
        _ => last,
    })
}

/// What the table of peers is to tell of a peer: where this node reached it, then what reaches farthest, each once and in a fixed order.
/// Few, since an answer with more addresses than a packet holds breaks the stream, and then nobody finds anybody.
pub fn listed(peer: PeerId, dialled: Option<Multiaddr>, mut known: Vec<Multiaddr>) -> Vec<Multiaddr> {
    known.sort_unstable_by(|a, b| reach(b).cmp(&reach(a)).then_with(|| a.cmp(b)));
    let mut listed: Vec<Multiaddr> = Vec::new();
    for address in dialled.into_iter().chain(known).map(|a| a.with_p2p(peer).unwrap_or_else(|a| a)) {
        if listed.len() < ADDRESSES_PER_PEER && !listed.contains(&address) {
            listed.push(address);
        }
    }
    listed
}

/// Twice the last wait, with up to a half more so that many nodes do not knock together.
fn wait(failures: u32, last: Duration) -> Duration {
    let base = REDIAL_FIRST.saturating_mul(1 << failures.min(12)).min(last);
    base + base.mul_f64(rand::rng().random_range(0.0..0.5))
}

#[derive(Debug)]
struct Entry {
    addresses: Vec<Multiaddr>,
    failures: u32,
    answered: bool,
    due: Instant,
}

/// One configured address.
#[derive(Debug)]
pub struct Bootstrap {
    /// As the operator gave it.
    pub address: Multiaddr,
    /// Who answers there: named in the address, or learned.
    pub peer: Option<PeerId>,
    /// The dial that is under way.
    pub dial: Option<ConnectionId>,
    failures: u32,
    /// Failures in a row that speak against the address.
    missed: u32,
    due: Instant,
    own: bool,
}

impl Bootstrap {
    /// Whether the operator said who answers there.
    pub fn named(&self) -> bool {
        peer_of(&self.address).is_some()
    }

    /// Counts a failure that speaks against the address; gives the count when it is worth telling: the 1st, 8th, 64th and so on.
    pub fn missed(&mut self) -> Option<u32> {
        self.missed = self.missed.saturating_add(1);
        (self.missed.is_power_of_two() && self.missed.trailing_zeros().is_multiple_of(3)).then_some(self.missed)
    }
}

/// The book.
#[derive(Debug)]
pub struct Book {
    local: PeerId,
    /// Whether this node can call through relays.
    relays: bool,
    peers: HashMap<PeerId, Entry>,
    bootstrap: Vec<Bootstrap>,
}

impl Book {
    /// With the configured addresses, all due now.
    pub fn new(local: PeerId, bootstrap: Vec<Multiaddr>, relays: bool, now: Instant) -> Self {
        let entry = |address: Multiaddr| {
            let peer = peer_of(&address);
            Bootstrap { own: peer == Some(local), peer, address, dial: None, failures: 0, missed: 0, due: now }
        };
        Self { local, relays, peers: HashMap::new(), bootstrap: bootstrap.into_iter().map(entry).collect() }
    }

    /// How many peers it knows.
    pub fn len(&self) -> usize {
        self.peers.len()
    }
    /// Whether it knows nobody.
    pub fn is_empty(&self) -> bool {
        self.peers.is_empty()
    }

    /// Adds addresses of a peer that were heard over a connection of this reach.
    pub fn learn(&mut self, peer: PeerId, addresses: impl IntoIterator<Item = Multiaddr>, heard: Reach, now: Instant) -> Vec<Multiaddr> {
        if peer == self.local {
            return Vec::new();
        }
        let usable = |address: &Multiaddr| {
            let names_it = peer_of(address).is_none_or(|named| named == peer);
            let relays = address.iter().filter(|part| *part == Protocol::P2pCircuit).count();
            names_it && relays <= usize::from(self.relays) && reach(address).is_some_and(|reach| reach >= heard)
        };
        let fresh: Vec<Multiaddr> = addresses
            .into_iter()
            .filter(usable)
            .map(|a| a.with_p2p(peer).unwrap_or_else(|a| a))
            .filter(|a| a.len() <= ADDRESS_BYTES_MAX)
            .take(4 * ADDRESSES_PER_PEER)
            .collect();
        if fresh.is_empty() {
            return fresh;
        }
        if self.peers.len() >= ADDRESS_BOOK_MAX && !self.peers.contains_key(&peer) {
            let worst = self.peers.iter().max_by_key(|(_, entry)| (entry.failures, !entry.answered)).map(|(peer, _)| *peer);
            if let Some(worst) = worst {
                self.peers.remove(&worst);
            }
        }
        let entry = self.peers.entry(peer).or_insert_with(|| Entry { addresses: Vec::new(), failures: 0, answered: false, due: now });
        for address in &fresh {
            if !entry.addresses.contains(address) {
                if entry.addresses.len() == ADDRESSES_PER_PEER {
                    entry.addresses.remove(0);
                }
                entry.addresses.push(address.clone());
            }
        }
        fresh
    }

    /// The peer is connected. Gives the bootstrap addresses that lead to it and had failed before, with how often.
    pub fn answered(&mut self, peer: &PeerId, dial: ConnectionId) -> Vec<(Multiaddr, u32)> {
        if let Some(entry) = self.peers.get_mut(peer) {
            entry.failures = 0;
            entry.answered = true;
        }
        let mut reached = Vec::new();
        for boot in &mut self.bootstrap {
            if boot.dial == Some(dial) {
                boot.dial = None;
                boot.peer = Some(*peer);
            }
            if boot.peer == Some(*peer) {
                boot.failures = 0;
                if boot.missed > 0 {
                    reached.push((boot.address.clone(), std::mem::take(&mut boot.missed)));
                }
            }
        }
        reached
    }

    /// Its last connection is gone: try again soon, not at once.
    pub fn left(&mut self, peer: &PeerId, now: Instant) {
        if let Some(entry) = self.peers.get_mut(peer) {
            entry.due = now + wait(0, REDIAL_LAST);
        }
        for boot in self.bootstrap.iter_mut().filter(|boot| boot.peer == Some(*peer)) {
            boot.due = now + wait(0, REDIAL_BOOTSTRAP_LAST);
        }
    }

    /// A dial failed. `counts` is false when the peer answered and one of the two ends did not want a second connection.
    pub fn failed(&mut self, peer: Option<PeerId>, dial: ConnectionId, counts: bool, now: Instant) {
        if let Some(entry) = peer.and_then(|peer| self.peers.get_mut(&peer)) {
            entry.failures += u32::from(counts);
            entry.due = now + wait(entry.failures, REDIAL_LAST);
            if let (Some(peer), true) = (peer, entry.failures >= FORGET_AFTER && !entry.answered) {
                self.peers.remove(&peer);
            }
        }
        for boot in self.bootstrap.iter_mut().filter(|boot| boot.dial == Some(dial)) {
            boot.dial = None;
            if !counts && peer.is_some() {
                boot.peer = peer;
            }
            boot.failures += u32::from(counts);
            boot.due = now + wait(boot.failures, REDIAL_BOOTSTRAP_LAST);
        }
    }

    /// Another peer than the one that was named answered at the address: that one is learned anew.
    pub fn wrong_peer(&mut self, named: PeerId, address: &Multiaddr) {
        if let Some(entry) = self.peers.get_mut(&named) {
            entry.addresses.retain(|known| known != address);
            if entry.addresses.is_empty() {
                self.peers.remove(&named);
            }
        }
        for boot in self.bootstrap.iter_mut().filter(|boot| boot.peer == Some(named) && peer_of(&boot.address).is_none()) {
            boot.peer = None;
        }
    }

    /// The dial reached this node itself.
    pub fn own(&mut self, dial: ConnectionId) {
        for boot in self.bootstrap.iter_mut().filter(|boot| boot.dial == Some(dial)) {
            boot.own = true;
            boot.dial = None;
        }
    }

    /// Bootstrap addresses to dial now.
    pub fn bootstrap_due(&mut self, connected: impl Fn(&PeerId) -> bool, now: Instant) -> impl Iterator<Item = &mut Bootstrap> {
        self.bootstrap
            .iter_mut()
            .filter(move |boot| !boot.own && boot.dial.is_none() && boot.due <= now && !boot.peer.as_ref().is_some_and(&connected))
    }

    /// The bootstrap address that this dial was for.
    pub fn bootstrap_of(&mut self, dial: ConnectionId) -> Option<&mut Bootstrap> {
        self.bootstrap.iter_mut().find(|boot| boot.dial == Some(dial))
    }

    /// Whether a configured bootstrap address leads to this peer.
    pub fn is_bootstrap(&self, peer: &PeerId) -> bool {
        self.bootstrap.iter().any(|boot| boot.peer.as_ref() == Some(peer))
    }

    /// Whether it holds a peer that is not among these.
    pub fn knows_others(&self, these: impl Fn(&PeerId) -> bool) -> bool {
        self.peers.keys().any(|peer| !these(peer))
    }

    /// Up to `count` peers to dial now, those that failed least first; they are not due again until the dial's outcome or the longest wait.
    pub fn take_due(&mut self, count: usize, skip: impl Fn(&PeerId) -> bool, now: Instant) -> Vec<(PeerId, Vec<Multiaddr>)> {
        let mut due: Vec<_> = self
            .peers
            .iter()
            .filter(|(peer, entry)| entry.due <= now && !skip(peer))
            .map(|(peer, entry)| (entry.failures, rand::rng().random::<u32>(), *peer))
            .collect();
        due.sort_unstable();
        due.truncate(count);
        let mut out = Vec::with_capacity(due.len());
        for (_, _, peer) in due {
            if let Some(entry) = self.peers.get_mut(&peer) {
                entry.due = now + REDIAL_LAST;
                out.push((peer, entry.addresses.clone()));
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Multiaddr {
        text.parse().unwrap()
    }

    #[test]
    fn addresses_are_taken_only_from_where_they_can_be_reached() {
        let now = Instant::now();
        let mut book = Book::new(PeerId::random(), vec![], false, now);
        let peer = PeerId::random();
        let all = [
            "/ip4/127.0.0.1/tcp/1",
            "/ip4/10.0.0.1/tcp/1",
            "/ip4/8.8.8.8/tcp/1",
            "/ip4/0.0.0.0/tcp/1",
            "/ip6/::1/udp/1/quic-v1",
            "/dns/example.org/tcp/1",
        ];
        let learn = |book: &mut Book, heard| book.learn(peer, all.iter().map(|a| address(a)), heard, now).len();
        assert_eq!(learn(&mut book, Reach::Loopback), 5);
        assert_eq!(learn(&mut book, Reach::Private), 3);
        assert_eq!(learn(&mut book, Reach::Global), 2);
        let other = format!("/ip4/8.8.8.8/tcp/1/p2p/{}", PeerId::random());
        assert!(book.learn(peer, [address(&other)], Reach::Loopback, now).is_empty(), "it names somebody else");
        let long = format!("/dns/{}/tcp/1", "a".repeat(ADDRESS_BYTES_MAX));
        assert!(book.learn(peer, [address(&long)], Reach::Loopback, now).is_empty(), "it is too long");
    }

    #[test]
    fn the_table_is_told_what_was_reached_and_what_reaches_farthest() {
        let (peer, dialled) = (PeerId::random(), address("/ip4/10.0.0.9/tcp/9"));
        let near = (1..=ADDRESSES_PER_PEER).map(|port| format!("/ip4/127.0.0.1/tcp/{port}"));
        let all: Vec<Multiaddr> = near.chain(["/ip4/8.8.8.8/tcp/1".to_owned()]).map(|a| address(&a)).collect();
        let told = listed(peer, Some(dialled.clone()), all.clone());
        assert_eq!(told.len(), ADDRESSES_PER_PEER);
        assert_eq!(told[0], dialled.with_p2p(peer).unwrap());
        assert_eq!(told[1], address("/ip4/8.8.8.8/tcp/1").with_p2p(peer).unwrap());
        let turned: Vec<Multiaddr> = all.iter().rev().chain(&all).cloned().collect();
        assert_eq!(listed(peer, None, all), listed(peer, None, turned), "the order of the telling does not matter");
    }

    #[test]
    fn the_book_is_bounded() {
        let now = Instant::now();
        let mut book = Book::new(PeerId::random(), vec![], false, now);
        let peer = PeerId::random();
        for port in 1..1_000 {
            book.learn(peer, [address(&format!("/ip4/127.0.0.1/tcp/{port}"))], Reach::Loopback, now);
        }
        assert_eq!(book.take_due(9, |_| false, now)[0].1.len(), ADDRESSES_PER_PEER);
        for _ in 0..2 * ADDRESS_BOOK_MAX {
            book.learn(PeerId::random(), [address("/ip4/127.0.0.1/tcp/9")], Reach::Loopback, now);
        }
        assert!(book.len() <= ADDRESS_BOOK_MAX);
    }

    #[test]
    fn bootstrap_is_tried_for_ever_and_others_are_forgotten() {
        let (mut now, dial) = (Instant::now(), ConnectionId::new_unchecked(1));
        let mut book = Book::new(PeerId::random(), vec![address("/ip4/127.0.0.1/tcp/1")], false, now);
        let peer = PeerId::random();
        book.learn(peer, [address("/ip4/127.0.0.1/tcp/2")], Reach::Loopback, now);
        for _ in 0..100 {
            for boot in book.bootstrap_due(|_| false, now) {
                boot.dial = Some(dial);
            }
            book.failed(None, dial, true, now);
            assert_eq!(book.bootstrap_due(|_| false, now).count(), 0, "not at once");
            book.failed(Some(peer), ConnectionId::new_unchecked(2), true, now);
            now += 2 * REDIAL_BOOTSTRAP_LAST;
            assert_eq!(book.bootstrap_due(|_| false, now).count(), 1);
        }
        assert!(book.is_empty());
    }

    #[test]
    fn failures_are_told_seldom_and_the_end_of_them_once() {
        let (now, peer, dial) = (Instant::now(), PeerId::random(), ConnectionId::new_unchecked(1));
        let mut book = Book::new(PeerId::random(), vec![address("/ip4/127.0.0.1/tcp/1")], false, now);
        for boot in book.bootstrap_due(|_| false, now) {
            boot.dial = Some(dial);
        }
        let boot = book.bootstrap_of(dial).unwrap();
        assert!(!boot.named());
        let told: Vec<u32> = (0..600).filter_map(|_| boot.missed()).collect();
        assert_eq!(told, [1, 8, 64, 512]);
        assert_eq!(book.answered(&peer, dial), [(address("/ip4/127.0.0.1/tcp/1"), 600)]);
        assert!(book.answered(&peer, dial).is_empty());
    }

    #[test]
    fn an_address_without_an_id_learns_it() {
        let (now, dial, peer) = (Instant::now(), ConnectionId::new_unchecked(1), PeerId::random());
        let mut book = Book::new(PeerId::random(), vec![address("/ip4/127.0.0.1/tcp/1")], false, now);
        for boot in book.bootstrap_due(|_| false, now) {
            boot.dial = Some(dial);
        }
        book.answered(&peer, dial);
        assert!(book.is_bootstrap(&peer));
        assert_eq!(book.bootstrap_due(|p| *p == peer, now).count(), 0);
        assert_eq!(book.bootstrap_due(|_| false, now).count(), 1);
    }
}
