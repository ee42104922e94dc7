//! Of each address only so many connections are being set up at a time: who they are shows at the end of it, and who keeps silent has the
//! whole time that a set-up may take.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::{IpAddr, Ipv6Addr};
use std::task::{Context, Poll};

use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::behaviour::{ConnectionEstablished, ListenFailure};
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm, dummy,
};
use libp2p::{Multiaddr, PeerId};

/// As many of one address: a household behind one router comes in, and one address cannot fill all places.
const PER_ADDRESS: usize = 32;

/// The address has too many connections that are being set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many handshakes of one address")]
pub struct Crowded;

/// The behaviour; it has no protocol of its own.
#[derive(Debug, Default)]
pub struct Door {
    /// Incoming connections that are being set up; the connection limits bound them.
    coming: HashMap<ConnectionId, IpAddr>,
}

impl NetworkBehaviour for Door {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Infallible;

    fn handle_pending_inbound_connection(&mut self, id: ConnectionId, _: &Multiaddr, from: &Multiaddr) -> Result<(), ConnectionDenied> {
        // Of IPv6 every customer has at least a network of 64 bits to himself.
        let ip = from.iter().find_map(|part| match part {
            Protocol::Ip4(ip) => Some(IpAddr::from(ip)),
            Protocol::Ip6(ip) => Some(ip.to_ipv4_mapped().map_or(Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64).into(), IpAddr::from)),
            _ => None,
        });
        let Some(ip) = ip else { return Ok(()) };
        if self.coming.values().filter(|other| **other == ip).count() >= PER_ADDRESS {
            return Err(ConnectionDenied::new(Crowded));
        }
        self.coming.insert(id, ip);
        Ok(())
    }

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        if let FromSwarm::ConnectionEstablished(ConnectionEstablished { connection_id, .. })
        | FromSwarm::ListenFailure(ListenFailure { connection_id, .. }) = event
        {
            self.coming.remove(&connection_id);
        }
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        Poll::Pending
    }
}
