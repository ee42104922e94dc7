//! Who may be connected, and once: refuses peers that were dropped for a reason, and keeps one connection of each peer.
//!
//! When two nodes dial each other at the same moment, a plain limit of one makes each refuse the other's connection, and both are lost.
//! Here both ends keep the connection that the smaller peer id dialled, and close the other. A direct connection replaces a relayed one.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use libp2p::core::transport::PortUse;
use libp2p::core::{Endpoint, multiaddr::Protocol};
use libp2p::swarm::behaviour::{ConnectionClosed, ConnectionEstablished};
use libp2p::swarm::{
    CloseConnection, ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
    dummy,
};
use libp2p::{Multiaddr, PeerId};

use super::limits::REFUSED_MAX;

/// Why a connection was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Closed {
    /// The peer was dropped for a reason not long ago.
    #[error("the peer is refused for now")]
    Refused,
    /// There is a connection to this peer already, and it is the one to keep.
    #[error("the peer is connected already")]
    Twice,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Line {
    id: ConnectionId,
    outbound: bool,
    relayed: bool,
}

/// The behaviour; it has no protocol of its own.
pub struct Gate {
    local: PeerId,
    lines: HashMap<PeerId, Vec<Line>>,
    refused: HashMap<PeerId, Instant>,
    close: VecDeque<(PeerId, CloseConnection)>,
    waker: Option<Waker>,
}

impl Gate {
    /// Everybody may come.
    pub fn new(local: PeerId) -> Self {
        Self { local, lines: HashMap::new(), refused: HashMap::new(), close: VecDeque::new(), waker: None }
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

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// Takes a new line or says why not; lines that it replaces are closed.
    fn admit(&mut self, peer: PeerId, new: Line) -> Result<(), Closed> {
        if self.refuses(&peer) {
            return Err(Closed::Refused);
        }
        let kept = |line: &Line| line.outbound == (self.local < peer);
        let better = |old: &Line| {
            if old.relayed == new.relayed { kept(&new) && !kept(old) } else { old.relayed }
        };
        let Some(old) = self.lines.get(&peer) else { return Ok(()) };
        if !old.iter().all(better) {
            return Err(Closed::Twice);
        }
        let replaced: Vec<_> = old.iter().map(|line| (peer, CloseConnection::One(line.id))).collect();
        self.close.extend(replaced);
        self.wake();
        Ok(())
    }
}

fn relayed(address: &Multiaddr) -> bool {
    address.iter().any(|part| part == Protocol::P2pCircuit)
}

impl NetworkBehaviour for Gate {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        let line = Line { id, outbound: false, relayed: relayed(local) || relayed(remote) };
        self.admit(peer, line).map(|()| dummy::ConnectionHandler).map_err(ConnectionDenied::new)
    }

    fn handle_pending_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: Option<PeerId>,
        _: &[Multiaddr],
        _: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        match peer {
            Some(peer) if self.refuses(&peer) => Err(ConnectionDenied::new(Closed::Refused)),
            _ => Ok(Vec::new()),
        }
    }

    fn handle_established_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        let line = Line { id, outbound: true, relayed: relayed(address) };
        self.admit(peer, line).map(|()| dummy::ConnectionHandler).map_err(ConnectionDenied::new)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(ConnectionEstablished { peer_id, connection_id, endpoint, .. }) => {
                let line = Line { id: connection_id, outbound: endpoint.is_dialer(), relayed: endpoint.is_relayed() };
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

    fn line(n: usize, outbound: bool) -> Line {
        Line { id: ConnectionId::new_unchecked(n), outbound, relayed: false }
    }

    fn with(local: PeerId, peer: PeerId, line: Line) -> Gate {
        let mut gate = Gate::new(local);
        gate.lines.insert(peer, vec![line]);
        gate
    }

    #[test]
    fn simultaneous_dials_leave_the_same_connection_at_both_ends() {
        let (a, b) = (PeerId::random(), PeerId::random());
        let (small, large) = if a < b { (a, b) } else { (b, a) };
        // Each end has its own dial first and then sees the other's.
        let mut at_small = with(small, large, line(1, true));
        assert_eq!(at_small.admit(large, line(2, false)), Err(Closed::Twice));
        let mut at_large = with(large, small, line(1, true));
        assert_eq!(at_large.admit(small, line(2, false)), Ok(()));
        assert_eq!(at_large.close.len(), 1, "the larger one closes its own dial");
        // And in the other order.
        let mut at_small = with(small, large, line(1, false));
        assert_eq!(at_small.admit(large, line(2, true)), Ok(()));
        let mut at_large = with(large, small, line(1, false));
        assert_eq!(at_large.admit(small, line(2, true)), Err(Closed::Twice));
    }

    #[test]
    fn a_direct_connection_replaces_a_relayed_one_and_not_the_reverse() {
        let (local, peer) = (PeerId::random(), PeerId::random());
        for outbound in [false, true] {
            let mut gate = with(local, peer, Line { relayed: true, ..line(1, outbound) });
            assert_eq!(gate.admit(peer, line(2, !outbound)), Ok(()));
            let mut gate = with(local, peer, line(1, outbound));
            assert_eq!(gate.admit(peer, Line { relayed: true, ..line(2, !outbound) }), Err(Closed::Twice));
        }
    }

    #[test]
    fn refusals_end_and_are_bounded() {
        let mut gate = Gate::new(PeerId::random());
        let peer = PeerId::random();
        gate.refuse(peer, Duration::ZERO);
        assert_eq!(gate.admit(peer, line(1, false)), Ok(()));
        gate.refuse(peer, Duration::from_secs(60));
        assert_eq!(gate.admit(peer, line(2, false)), Err(Closed::Refused));
        for _ in 0..2 * REFUSED_MAX {
            gate.refuse(PeerId::random(), Duration::from_secs(30));
        }
        assert!(gate.refused.len() <= REFUSED_MAX);
        assert!(gate.refuses(&peer), "the ones whose time ends first go first");
    }
}
