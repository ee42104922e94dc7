//! How lines to other nodes are made: TCP and QUIC under names that the system resolves, noise, yamux; by way of a relay where the operator
//! wants it; or whatever raw lines a test brings.

use std::io;

use futures::{AsyncRead, AsyncWrite};
use libp2p::core::Transport;
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::Boxed;
use libp2p::core::upgrade::Version;
use libp2p::identity::Keypair;
use libp2p::{PeerId, dns, noise, quic, relay, tcp};

use super::limits;
use super::line::{Line, Multiplexer};

/// Makes lines on which both ends know each other and that carry many streams.
pub type Ways = Boxed<(PeerId, StreamMuxerBox)>;

/// TCP and QUIC, noise, yamux, names resolved by the system.
///
/// # Errors
/// When the machine's resolver settings cannot be read, or the key cannot be used.
pub fn internet(key: &Keypair) -> io::Result<Ways> {
    let mut quic = quic::Config::new(key);
    quic.max_concurrent_stream_limit = u32::try_from(limits::STREAMS_PER_CONNECTION).unwrap_or(u32::MAX);
    let quic = quic::tokio::Transport::new(quic).map(|(peer, line), _| (peer, StreamMuxerBox::new(Line::new(line))));
    let tcp = secured(tcp::tokio::Transport::new(tcp::Config::default().nodelay(true)), key)?;
    let both = tcp.or_transport(quic).map(|either, _| either.into_inner());
    Ok(dns::tokio::Transport::system(both)?.boxed())
}

/// Noise and yamux over raw lines.
///
/// # Errors
/// When the key cannot be used.
pub fn secured<T>(raw: T, key: &Keypair) -> io::Result<Ways>
where
    T: Transport + Send + Unpin + 'static,
    T::Output: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    T::Error: Send + Sync + 'static,
    T::Dial: Send + 'static,
    T::ListenerUpgrade: Send + 'static,
{
    let noise = noise::Config::new(key).map_err(io::Error::other)?;
    Ok(raw.upgrade(Version::V1Lazy).authenticate(noise).multiplex(Multiplexer::default()).boxed())
}

/// Lines through a relay as well, with the behaviour that asks relays for them.
///
/// # Errors
/// When the key cannot be used.
pub fn relayed(ways: Ways, key: &Keypair) -> io::Result<(Ways, relay::client::Behaviour)> {
    let (through, behaviour) = relay::client::new(key.public().to_peer_id());
    // Before the others: they would take the relay's own address out of a relayed one.
    let both = secured(through, key)?.or_transport(ways).map(|either, _| either.into_inner());
    Ok((both.boxed(), behaviour))
}
