//! Who may be connected, and once: refuses peers that were dropped for a reason, keeps one connection of each peer, and lets an address begin
//! only so many handshakes, and have so many open, since who it is shows after the expensive part.
//!
//! When two nodes dial each other at the same moment, a plain limit of one makes each refuse the other's connection, and both are lost.
//! Here a second connection is taken, and after a moment both ends keep the one that the smaller peer id dialled and close the other. The
//! moment also lets a gate dial back to see whether this node can be reached. A direct connection is kept before a relayed one.

use std::cmp::Reverse;
use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::net::{IpAddr, Ipv6Addr};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::behaviour::{ConnectionClosed, ConnectionEstablished, ListenFailure};
use libp2p::swarm::{
    CloseConnection, ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
    dummy,
};
use libp2p::{Multiaddr, PeerId};

use super::budget::Budget;
use super::limits::{HANDSHAKES_ADDRESSES, HANDSHAKES_BURST, HANDSHAKES_OPEN, HANDSHAKES_PER_SEC, REFUSED_MAX, SECOND_CONNECTION};

/// The peer was dropped for a reason not long ago.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the peer is refused for now")]
pub struct Refused;

/// The address begins too many handshakes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many handshakes from one address")]
pub struct Hasty;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Line {
    id: ConnectionId,
    outbound: bool,
    relayed: bool,
    since: Instant,
}

/// The behaviour; it has no protocol of its own.
pub struct Gate {
    local: PeerId,
    lines: HashMap<PeerId, Vec<Line>>,
    refused: HashMap<PeerId, Instant>,
    /// Handshakes by address. Full: the one with most left is forgotten.
    handshakes: HashMap<IpAddr, Budget>,
    /// Incoming connections that are being set up; the connection limits bound them.
    coming: HashMap<ConnectionId, IpAddr>,
    close: VecDeque<(PeerId, CloseConnection)>,
    waker: Option<Waker>,
}

impl Gate {
    /// Everybody may come.
    pub fn new(local: PeerId) -> Self {
        Self {
            local,
            lines: HashMap::new(),
            refused: HashMap::new(),
            handshakes: HashMap::new(),
            coming: HashMap::new(),
            close: VecDeque::new(),
            waker: None,
        }
    }

    /// Closes the peer's connections and refuses new ones for so long.
    pub fn refuse(&mut self, peer: PeerId, how_long: Duration) {
        let now = Instant::now();
        if self.refused.len() >= REFUSED_MAX {
            self.refused.retain(|_, until| *until > now);
        }
        if self.refused.len() >= REFUSED_MAX
            && let Some(first) = self.refused.iter().min_by_key(|(_, until)| **until).map(|(peer, _)| *peer)
        {
            self.refused.remove(&first);
        }
        self.refused.insert(peer, now + how_long);
        self.close.push_back((peer, CloseConnection::All));
        self.wake();
    }

    /// Whether it is refused now.
    pub fn refuses(&self, peer: &PeerId) -> bool {
        self.refused.get(peer).is_some_and(|until| *until > Instant::now())
    }

    /// How many are remembered as refused.
    pub fn refused(&self) -> usize {
        self.refused.len()
    }

    /// How many addresses' handshakes are counted.
    pub fn knocking(&self) -> usize {
        self.handshakes.len()
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn admit(&self, peer: &PeerId) -> Result<dummy::ConnectionHandler, ConnectionDenied> {
        if self.refuses(peer) { Err(ConnectionDenied::new(Refused)) } else { Ok(dummy::ConnectionHandler) }
    }

    /// Whether the address may begin one more handshake.
    fn may_knock(&mut self, from: IpAddr, now: Instant) -> bool {
        if self.coming.values().filter(|ip| **ip == from).count() >= HANDSHAKES_OPEN {
            return false;
        }
        if self.handshakes.len() >= HANDSHAKES_ADDRESSES && !self.handshakes.contains_key(&from) {
            let quietest = self.handshakes.iter_mut().map(|(ip, budget)| (budget.part_left(now), *ip)).max_by(|a, b| a.0.total_cmp(&b.0));
            if let Some((_, quietest)) = quietest {
                self.handshakes.remove(&quietest);
            }
        }
        self.handshakes.entry(from).or_insert_with(|| Budget::new(HANDSHAKES_BURST, HANDSHAKES_PER_SEC, now)).take(1.0, now)
    }

    /// Closes second connections whose moment is over.
    pub fn tidy(&mut self, now: Instant) {
        for (peer, lines) in self.lines.iter().filter(|(_, lines)| lines.len() > 1) {
            if lines.iter().any(|line| now.saturating_duration_since(line.since) < SECOND_CONNECTION) {
                continue;
            }
            let Some(kept) = keep(&self.local, peer, lines) else { continue };
            self.close.extend(lines.iter().filter(|line| line.id != kept).map(|line| (*peer, CloseConnection::One(line.id))));
        }
        if !self.close.is_empty() {
            self.wake();
        }
    }
}

/// The connection that both ends keep: direct before relayed, dialled by the smaller id, and of several such the newest, since who dials
/// again may have lost the earlier one while the other end has not noticed.
fn keep(local: &PeerId, peer: &PeerId, lines: &[Line]) -> Option<ConnectionId> {
    lines.iter().min_by_key(|line| (line.relayed, line.outbound != (local < peer), Reverse(line.since))).map(|line| line.id)
}

/// Whose address it is: a host of IPv4, or a network of 64 bits of IPv6, of which every customer has at least one to himself.
fn whose(address: &Multiaddr) -> Option<IpAddr> {
    address.iter().find_map(|part| match part {
        Protocol::Ip4(ip) => Some(IpAddr::from(ip)),
        Protocol::Ip6(ip) => Some(ip.to_ipv4_mapped().map_or(Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64).into(), IpAddr::from)),
        _ => None,
    })
}

impl NetworkBehaviour for Gate {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Infallible;

    fn handle_pending_inbound_connection(&mut self, id: ConnectionId, _: &Multiaddr, from: &Multiaddr) -> Result<(), ConnectionDenied> {
        match whose(from) {
            Some(ip) if !self.may_knock(ip, Instant::now()) => Err(ConnectionDenied::new(Hasty)),
            Some(ip) => {
                self.coming.insert(id, ip);
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.admit(&peer)
    }

    fn handle_pending_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: Option<PeerId>,
        _: &[Multiaddr],
        _: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        if let Some(peer) = peer {
            self.admit(&peer)?;
        }
        Ok(Vec::new())
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.admit(&peer)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ListenFailure(ListenFailure { connection_id, .. }) => drop(self.coming.remove(&connection_id)),
            FromSwarm::ConnectionEstablished(ConnectionEstablished { peer_id, connection_id, endpoint, .. }) => {
                self.coming.remove(&connection_id);
                let line =
                    Line { id: connection_id, outbound: endpoint.is_dialer(), relayed: endpoint.is_relayed(), since: Instant::now() };
                self.lines.entry(peer_id).or_default().push(line);
            }
            FromSwarm::ConnectionClosed(ConnectionClosed { peer_id, connection_id, .. }) => {
                if let Some(lines) = self.lines.get_mut(&peer_id) {
                    lines.retain(|line| line.id != connection_id);
                    if lines.is_empty() {
                        self.lines.remove(&peer_id);
                    }
                }
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        if let Some((peer_id, connection)) = self.close.pop_front() {
            return Poll::Ready(ToSwarm::CloseConnection { peer_id, connection });
        }
        self.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(n: usize, outbound: bool, relayed: bool, since: Instant) -> Line {
        Line { id: ConnectionId::new_unchecked(n), outbound, relayed, since }
    }

    #[test]
    fn both_ends_keep_the_same_connection() {
        let (a, b, now) = (PeerId::random(), PeerId::random(), Instant::now());
        for relayed in [[false, false], [true, false], [false, true]] {
            // a dialled the first, b the second.
            let at_a = [line(1, true, relayed[0], now), line(2, false, relayed[1], now)];
            let at_b = [line(1, false, relayed[0], now), line(2, true, relayed[1], now)];
            let kept = keep(&a, &b, &at_a);
            assert_eq!(kept, keep(&b, &a, &at_b));
            let expected = match relayed {
                [true, false] => 2,
                [false, true] => 1,
                _ => 1 + usize::from(b < a),
            };
            assert_eq!(kept, Some(ConnectionId::new_unchecked(expected)));
        }
    }

    #[test]
    fn who_dials_again_keeps_the_new_connection() {
        let (a, b, now) = (PeerId::random(), PeerId::random(), Instant::now());
        let later = now + Duration::from_secs(1);
        for outbound in [true, false] {
            let lines = [line(1, outbound, false, now), line(2, outbound, false, later)];
            assert_eq!(keep(&a, &b, &lines), Some(ConnectionId::new_unchecked(2)));
        }
    }

    #[test]
    fn a_second_connection_lives_for_its_moment_only() {
        let (local, peer, now) = (PeerId::random(), PeerId::random(), Instant::now());
        let mut gate = Gate::new(local);
        gate.lines.insert(peer, vec![line(1, true, false, now), line(2, false, false, now)]);
        gate.tidy(now);
        assert!(gate.close.is_empty());
        gate.tidy(now + SECOND_CONNECTION);
        assert_eq!(gate.close.len(), 1);
    }

    #[test]
    fn an_address_begins_only_so_many_handshakes_and_others_go_on() {
        let (mut gate, now) = (Gate::new(PeerId::random()), Instant::now());
        let (hasty, other) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let taken = (0..10 * HANDSHAKES_BURST).filter(|_| gate.may_knock(hasty, now)).count();
        assert_eq!(taken, HANDSHAKES_BURST as usize);
        assert!(gate.may_knock(other, now));
        for n in 0..2 * HANDSHAKES_ADDRESSES as u32 {
            gate.may_knock(IpAddr::from(n.to_be_bytes()), now);
        }
        assert!(gate.handshakes.len() <= HANDSHAKES_ADDRESSES);
        assert!(!gate.may_knock(hasty, now), "who knocks most is forgotten last");
        assert!(gate.may_knock(hasty, now + Duration::from_secs(1)));
    }

    #[test]
    fn an_address_is_whoever_can_have_no_other_for_nothing() {
        let of = |address: &str| whose(&address.parse().unwrap());
        assert_ne!(of("/ip4/10.0.0.1/tcp/1"), of("/ip4/10.0.0.2/tcp/1"));
        assert_eq!(of("/ip6/2001:db8:0:7::1/tcp/1"), of("/ip6/2001:db8:0:7:ffff::2/udp/1/quic-v1"));
        assert_ne!(of("/ip6/2001:db8:0:7::1/tcp/1"), of("/ip6/2001:db8:0:8::1/tcp/1"));
        assert_eq!(of("/ip6/::ffff:10.0.0.1/tcp/1"), of("/ip4/10.0.0.1/tcp/2"));
        assert_eq!(of("/memory/7"), None);
    }

    #[test]
    fn an_address_has_only_so_many_handshakes_open() {
        let mut gate = Gate::new(PeerId::random());
        let (here, mute, other) = ("/ip4/10.0.0.9/tcp/1".parse().unwrap(), "/ip4/10.0.0.1/tcp/1", "/ip4/10.0.0.2/tcp/1");
        let mut ids = 0..;
        let mut comes = |gate: &mut Gate, from: &str| {
            let id = ConnectionId::new_unchecked(ids.next().unwrap());
            (id, gate.handle_pending_inbound_connection(id, &here, &from.parse().unwrap()).is_ok())
        };
        let taken: Vec<ConnectionId> =
            (0..2 * HANDSHAKES_OPEN).map(|_| comes(&mut gate, mute)).filter_map(|(id, taken)| taken.then_some(id)).collect();
        assert_eq!(taken.len(), HANDSHAKES_OPEN);
        assert!(comes(&mut gate, other).1, "others come in");
        let error = libp2p::swarm::ListenError::Aborted;
        let (local_addr, send_back_addr) = (&here, &mute.parse().unwrap());
        gate.on_swarm_event(FromSwarm::ListenFailure(ListenFailure {
            local_addr,
            send_back_addr,
            error: &error,
            connection_id: taken[0],
            peer_id: None,
        }));
        assert_eq!([(); 2].map(|()| comes(&mut gate, mute).1), [true, false], "one has ended");
    }

    #[test]
    fn refusals_end_and_are_bounded() {
        let mut gate = Gate::new(PeerId::random());
        let peer = PeerId::random();
        gate.refuse(peer, Duration::ZERO);
        assert!(gate.admit(&peer).is_ok());
        gate.refuse(peer, Duration::from_secs(60));
        assert!(gate.admit(&peer).is_err());
        for _ in 0..2 * REFUSED_MAX {
            gate.refuse(PeerId::random(), Duration::from_secs(30));
        }
        assert!(gate.refused.len() <= REFUSED_MAX);
        assert!(gate.refuses(&peer), "the ones whose time ends first go first");
    }
}
