//! The protocols of the gate, their bounds, and its one loop.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io::Write;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use futures::StreamExt;
use libp2p::core::transport::ListenerId;
use libp2p::kad::store::{MemoryStore, MemoryStoreConfig};
use libp2p::multiaddr::Protocol;
use libp2p::swarm::{NetworkBehaviour, SwarmEvent};
use libp2p::{
    Multiaddr, PeerId, StreamProtocol, Swarm, SwarmBuilder, autonat, connection_limits, identify, kad, memory_connection_limits, noise,
    ping, relay, tcp, yamux,
};
use tracing::{debug, info, warn};

use crate::door::Door;
use crate::options::{self, Options};

/// Handshakes under way; more are refused before any cryptography.
const PENDING_MAX: u32 = 128;
/// How long one may take; who keeps silent gives the place back.
const SETUP_WITHIN: Duration = Duration::from_secs(10);
/// Resident memory above which no connection is taken.
const MEMORY_MAX: usize = 1 << 30;
/// Streams of one connection; more are reset.
const STREAMS_PER_CONNECTION: usize = 64;
/// A connection that nothing uses is closed after so long; nodes come back when they need peers.
const IDLE: Duration = Duration::from_secs(15 * 60);
/// A peer that has not said who it is after so long is dropped.
const IDENTIFY_WITHIN: Duration = Duration::from_secs(10);
/// How often a peer may say anew who it is. Of what it says sooner only the last is kept, and looked at in a later turn.
const IDENTIFY_EVERY: Duration = Duration::from_secs(2);
/// Addresses that are told of one peer: those that reach farthest.
const ADDRESSES_PER_PEER: usize = 8;
/// The longest address with its peer, in bytes; longer ones are not taken.
const ADDRESS_BYTES_MAX: usize = 128;
/// The largest packet of the table's protocol, as nodes have it: a full answer fits. Larger ones break the stream.
const KAD_PACKET_MAX: usize = 64 * 1024;
/// The table's fullest answer: per peer its id, and addresses with their tags. Beside those that it is told, the table adds the address of
/// each line that was dialled, and a peer has two lines at most. Twice that, since such an address may be a longer name.
const _: () = assert!(2 * kad::K_VALUE.get() * ((ADDRESSES_PER_PEER + 2) * (ADDRESS_BYTES_MAX + 4) + 64) < KAD_PACKET_MAX);
/// Reservations for relayed connections, in all and of one peer; more are refused.
const RESERVATIONS: (usize, usize) = (128, 2);
/// Relayed connections, in all and of one peer; more are refused.
const CIRCUITS: (usize, usize) = (64, 4);
/// What one relayed connection may carry: enough to agree on a direct one.
const CIRCUIT_BYTES: u64 = 1 << 20;
/// How long one relayed connection may last.
const CIRCUIT_TIME: Duration = Duration::from_secs(120);
/// How often it looks at what took too long and tells how many are here.
const TURN: Duration = Duration::from_secs(5);

#[derive(NetworkBehaviour)]
#[behaviour(to_swarm = "Event")]
struct Behaviour {
    memory: memory_connection_limits::Behaviour,
    limits: connection_limits::Behaviour,
    door: Door,
    identify: identify::Behaviour,
    ping: ping::Behaviour,
    autonat: autonat::Behaviour,
    kad: kad::Behaviour<MemoryStore>,
    relay: relay::Behaviour,
}

#[derive(Debug)]
enum Event {
    Identify(Box<identify::Event>),
    Ping(ping::Event),
    Relay(relay::Event),
    /// Nothing that the gate acts on.
    Other,
}

impl From<Infallible> for Event {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}
impl From<identify::Event> for Event {
    fn from(event: identify::Event) -> Self {
        Self::Identify(Box::new(event))
    }
}
impl From<relay::Event> for Event {
    fn from(event: relay::Event) -> Self {
        Self::Relay(event)
    }
}
impl From<ping::Event> for Event {
    fn from(event: ping::Event) -> Self {
        Self::Ping(event)
    }
}
impl From<autonat::Event> for Event {
    fn from(_: autonat::Event) -> Self {
        Self::Other
    }
}
impl From<kad::Event> for Event {
    fn from(_: kad::Event) -> Self {
        Self::Other
    }
}

/// A name on the wire that holds the network's tag; nodes use the same ones.
fn protocol(tag: &str, what: &str) -> anyhow::Result<StreamProtocol> {
    StreamProtocol::try_from_owned(format!("/tops/{tag}/{what}")).map_err(|_| anyhow::anyhow!("a protocol's name is wrong"))
}

fn behaviour(local: PeerId, key: libp2p::identity::PublicKey, tag: &str, connections: u32) -> anyhow::Result<Behaviour> {
    let limits = connection_limits::ConnectionLimits::default()
        .with_max_established(Some(connections))
        .with_max_pending_incoming(Some(PENDING_MAX))
        .with_max_pending_outgoing(Some(PENDING_MAX))
        .with_max_established_per_peer(Some(2));
    let identify = identify::Config::new(format!("/tops/{tag}/2"), key)
        .with_agent_version(format!("tops-bootstrap/{}", env!("CARGO_PKG_VERSION")))
        .with_push_listen_addr_updates(true)
        .with_cache_size(0);
    let autonat = autonat::Config { only_global_ips: false, max_peer_addresses: ADDRESSES_PER_PEER, ..Default::default() };
    // Only addresses are kept: no records, no providers.
    let records = MemoryStoreConfig { max_records: 0, max_value_bytes: 0, max_providers_per_key: 0, max_provided_keys: 0 };
    let mut table = kad::Config::new(protocol(tag, "kad/2")?);
    table
        .set_max_packet_size(KAD_PACKET_MAX)
        .set_record_filtering(kad::StoreInserts::FilterBoth)
        .set_query_timeout(Duration::from_secs(10))
        // Nodes fill the table by coming; the gate looks for nobody.
        .set_periodic_bootstrap_interval(None);
    let mut table = kad::Behaviour::with_config(local, MemoryStore::with_config(local, records), table);
    table.set_mode(Some(kad::Mode::Server));
    let (per_peer, minute) = (NonZeroU32::new(8).unwrap_or(NonZeroU32::MIN), Duration::from_secs(60));
    let relay = relay::Config {
        max_reservations: RESERVATIONS.0,
        max_reservations_per_peer: RESERVATIONS.1,
        max_circuits: CIRCUITS.0,
        max_circuits_per_peer: CIRCUITS.1,
        max_circuit_bytes: CIRCUIT_BYTES,
        max_circuit_duration: CIRCUIT_TIME,
        ..Default::default()
    }
    .reservation_rate_per_peer(per_peer, minute)
    .circuit_src_per_peer(per_peer, minute);
    Ok(Behaviour {
        memory: memory_connection_limits::Behaviour::with_max_bytes(MEMORY_MAX),
        limits: connection_limits::Behaviour::new(limits),
        door: Door::default(),
        identify: identify::Behaviour::new(identify),
        ping: ping::Behaviour::new(ping::Config::new().with_interval(Duration::from_secs(15))),
        autonat: autonat::Behaviour::new(local, autonat),
        kad: table,
        relay: relay::Behaviour::new(local, relay),
    })
}

/// How far an address reaches: this machine 0, its neighbours 1, everywhere 2; `None` for one that cannot be dialled.
fn reach(address: &Multiaddr) -> Option<u8> {
    let ip = match address.iter().next()? {
        Protocol::Ip4(ip) => std::net::IpAddr::V4(ip),
        Protocol::Ip6(ip) => std::net::IpAddr::V6(ip),
        Protocol::Dns(_) | Protocol::Dns4(_) | Protocol::Dns6(_) => return Some(2),
        _ => return None,
    };
    if ip.is_unspecified() || ip.is_multicast() {
        return None;
    }
    let private = match ip {
        std::net::IpAddr::V4(v4) => v4.is_private() || v4.is_link_local() || (v4.octets()[0] == 100 && v4.octets()[1] & 0xc0 == 64),
        std::net::IpAddr::V6(v6) => v6.is_unique_local() || v6.is_unicast_link_local(),
    };
    Some(if ip.is_loopback() {
        0
    } else if private {
        1
    } else {
        2
    })
}

/// What the table is to tell of a peer: where the gate reached it, then what reaches farthest, each once and in a fixed order. Few, since
/// an answer with more addresses than a packet holds breaks the stream, and then nobody finds anybody.
fn listed(peer: PeerId, dialled: Option<Multiaddr>, mut known: Vec<Multiaddr>) -> Vec<Multiaddr> {
    known.sort_unstable_by(|a, b| reach(b).cmp(&reach(a)).then_with(|| a.cmp(b)));
    let mut listed: Vec<Multiaddr> = Vec::new();
    for address in dialled.into_iter().chain(known).map(|a| a.with_p2p(peer).unwrap_or_else(|a| a)) {
        if listed.len() < ADDRESSES_PER_PEER && address.len() <= ADDRESS_BYTES_MAX && !listed.contains(&address) {
            listed.push(address);
        }
    }
    listed
}

/// Whether the address leads to a peer directly, or through this gate: whether another relay keeps its word is not known here.
fn leads(address: &Multiaddr, local: PeerId) -> bool {
    let parts: Vec<_> = address.iter().collect();
    let relays: Vec<_> = parts.windows(2).filter(|pair| pair[1] == Protocol::P2pCircuit).map(|pair| &pair[0]).collect();
    match relays.as_slice() {
        [] => !parts.contains(&Protocol::P2pCircuit),
        [Protocol::P2p(relay)] => *relay == local,
        _ => false,
    }
}

struct Visitor {
    address: Multiaddr,
    /// Where the gate called it, when it did.
    dialled: Option<Multiaddr>,
    since: Instant,
    /// When it last said who it is and was heard.
    heard: Option<Instant>,
    /// What it said too soon after that; the last of it.
    later: Option<Box<identify::Info>>,
    /// What the table was last told of it.
    listed: Option<Vec<Multiaddr>>,
}

/// Where the gate is, as it was told.
struct Told {
    file: Option<PathBuf>,
    /// Whether the file was ever written.
    written: bool,
    addresses: Vec<Multiaddr>,
}

impl Told {
    fn new(file: Option<PathBuf>) -> Self {
        Self { file, written: false, addresses: Vec::new() }
    }

    /// Tells one more address on stdout and in the file.
    ///
    /// # Errors
    /// When the file could never be written: whoever asked for it waits for it. Later, those who are connected matter more.
    fn tell(&mut self, address: Multiaddr) -> anyhow::Result<()> {
        if self.addresses.contains(&address) {
            return Ok(());
        }
        self.addresses.push(address.clone());
        if let Some(file) = &self.file {
            match write(file, &self.addresses) {
                Ok(()) => self.written = true,
                Err(e) if self.written => warn!(file = %file.display(), error = %e, %address, "the file lacks this address"),
                Err(e) => return Err(e).with_context(|| format!("--addr-file {} cannot be written", file.display())),
            }
        }
        // Whoever started the gate may have read what it wanted and be gone.
        let _ = writeln!(std::io::stdout(), "{address}");
        Ok(())
    }
}

/// Written aside and renamed, so that a reader never sees half of it.
fn write(file: &Path, addresses: &[Multiaddr]) -> std::io::Result<()> {
    let aside = file.with_extension("new");
    let text: String = addresses.iter().map(|address| format!("{address}\n")).collect();
    std::fs::write(&aside, text)?;
    std::fs::rename(&aside, file)
}

struct Gate {
    swarm: Swarm<Behaviour>,
    says: String,
    kad: StreamProtocol,
    visitors: HashMap<PeerId, Visitor>,
    told: Told,
}

/// Runs until SIGINT or SIGTERM.
pub async fn run(options: Options) -> anyhow::Result<()> {
    let network = options::network(&options.network)?;
    let tag = network.tag().to_hex();
    let key = options::identity(&options.key_file)?;
    let local = key.public().to_peer_id();
    let behaviour = behaviour(local, key.public(), &tag, options.connections)?;
    let multiplexer = || {
        let mut config = yamux::Config::default();
        config.set_max_num_streams(STREAMS_PER_CONNECTION);
        config
    };
    let builder = SwarmBuilder::with_existing_identity(key)
        .with_tokio()
        .with_tcp(tcp::Config::default().nodelay(true), noise::Config::new, multiplexer)?
        .with_quic()
        .with_dns()
        .context("the system's DNS settings cannot be read")?
        .with_behaviour(|_| behaviour);
    let swarm = match builder {
        Ok(builder) => {
            builder.with_swarm_config(|config| config.with_idle_connection_timeout(IDLE)).with_connection_timeout(SETUP_WITHIN).build()
        }
        Err(never) => match never {},
    };
    let told = Told::new(options.addr_file);
    let mut gate = Gate { swarm, says: format!("/tops/{tag}/2"), kad: protocol(&tag, "kad/2")?, visitors: HashMap::new(), told };
    let mut open: Vec<ListenerId> = Vec::new();
    // Before anybody is told that it is open.
    let mut stop = std::pin::pin!(stopped());
    for address in &options.listen {
        // The transport shares ports between processes; two gates on one port would each get half of the calls.
        let mut parts = address.iter();
        let ip: Option<std::net::IpAddr> = match parts.next() {
            Some(Protocol::Ip4(ip)) => Some(ip.into()),
            Some(Protocol::Ip6(ip)) => Some(ip.into()),
            _ => None,
        };
        if let (Some(ip), Some(Protocol::Tcp(port))) = (ip, parts.next())
            && port != 0
            && let Err(e) = std::net::TcpListener::bind((ip, port))
            && e.kind() == std::io::ErrorKind::AddrInUse
        {
            bail!("cannot listen on {address} ({e}): choose another address with --listen");
        }
    }
    for address in &options.listen {
        match gate.swarm.listen_on(address.clone()) {
            Ok(listener) => open.push(listener),
            Err(e) if matches!(address.iter().next(), Some(Protocol::Ip6(_))) => warn!(%address, error = %e, "not listening here"),
            Err(e) => bail!("cannot listen on {address} ({e}): choose another address with --listen"),
        }
    }
    for address in &options.external_address {
        gate.swarm.add_external_address(address.clone());
        gate.say(address.clone())?;
    }
    info!(network = options.network, id = %network.id(), peer = %local, "the gate is open");
    let mut turns = tokio::time::interval(TURN);
    loop {
        tokio::select! {
            event = gate.swarm.select_next_some() => {
                if let SwarmEvent::NewListenAddr { address, listener_id } = &event {
                    debug!(?listener_id, %address, "listening");
                    // Whom it relays for is told these addresses of the gate: without any, no relay.
                    if options.external_address.is_empty() && reach(address).is_some_and(|reach| reach > 0) {
                        gate.swarm.add_external_address(address.clone());
                    }
                    gate.say(address.clone())?;
                }
                if let SwarmEvent::ListenerClosed { listener_id, reason, .. } = &event {
                    open.retain(|listener| listener != listener_id);
                    warn!(?reason, "no longer listening");
                    if open.is_empty() {
                        bail!("nothing is listened on any more");
                    }
                }
                gate.on(event);
            }
            _ = turns.tick() => gate.turn(),
            () = &mut stop => break,
        }
    }
    info!("the gate is closed");
    Ok(())
}

/// Listens for signals from now on, and resolves at the first one; the next one ends the process, since nothing here needs a clean end.
fn stopped() -> impl Future<Output = ()> {
    #[cfg(unix)]
    let signals = {
        use tokio::signal::unix::{SignalKind, signal};
        (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    };
    async move {
        #[cfg(unix)]
        if let (Ok(mut interrupt), Ok(mut terminate)) = signals {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            return;
        }
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl Gate {
    /// Tells where the gate is, with its identity.
    fn say(&mut self, address: Multiaddr) -> anyhow::Result<()> {
        let local = *self.swarm.local_peer_id();
        self.told.tell(address.with_p2p(local).unwrap_or_else(|address| address))
    }

    fn on(&mut self, event: SwarmEvent<Event>) {
        match event {
            SwarmEvent::Behaviour(Event::Identify(event)) => {
                if let identify::Event::Received { peer_id, info, .. } = *event {
                    self.on_identify(peer_id, info);
                }
            }
            SwarmEvent::Behaviour(Event::Ping(ping::Event { peer, connection, result: Err(failure) }))
                if !matches!(failure, ping::Failure::Unsupported) =>
            {
                // Nothing else notices: TCP waits a quarter of an hour for an answer, and the table keeps whom it believes connected.
                debug!(%peer, %failure, "closed a line that does not answer");
                self.swarm.close_connection(connection);
            }
            SwarmEvent::Behaviour(Event::Relay(event)) => debug!(?event, "relay"),
            SwarmEvent::ConnectionEstablished { peer_id, endpoint, .. } => {
                let address = endpoint.get_remote_address().clone();
                let dialled = endpoint.is_dialer().then(|| address.clone());
                let since = Instant::now();
                let visitor = self.visitors.entry(peer_id).or_insert_with(|| Visitor {
                    address,
                    dialled: None,
                    since,
                    heard: None,
                    later: None,
                    listed: None,
                });
                visitor.dialled = dialled.or(visitor.dialled.take());
            }
            SwarmEvent::ConnectionClosed { peer_id, num_established: 0, .. } => {
                self.visitors.remove(&peer_id);
            }
            SwarmEvent::IncomingConnectionError { send_back_addr, error, .. } => {
                debug!(%send_back_addr, %error, "a connection was not taken")
            }
            _ => {}
        }
    }

    fn on_identify(&mut self, peer: PeerId, info: identify::Info) {
        let Some(visitor) = self.visitors.get_mut(&peer) else { return };
        if visitor.heard.is_some_and(|heard| heard.elapsed() < IDENTIFY_EVERY) {
            visitor.later = Some(Box::new(info));
            return;
        }
        self.identified(peer, info);
    }

    fn identified(&mut self, peer: PeerId, info: identify::Info) {
        if info.protocol_version != self.says {
            let says: String = info.protocol_version.chars().filter(char::is_ascii_graphic).take(64).collect();
            info!(%peer, says, "sent away a peer of another network");
            // It may have gone already.
            let _ = self.swarm.disconnect_peer_id(peer);
            return;
        }
        let Some(visitor) = self.visitors.get_mut(&peer) else { return };
        visitor.heard = Some(Instant::now());
        let heard = reach(&visitor.address).unwrap_or(2);
        let local = *self.swarm.local_peer_id();
        let usable = |address: &Multiaddr| reach(address).is_some_and(|reach| reach >= heard) && leads(address, local);
        let listed = if info.protocols.contains(&self.kad) {
            listed(peer, visitor.dialled.clone(), info.listen_addrs.into_iter().filter(usable).collect())
        } else {
            Vec::new()
        };
        // The table only ever adds to what it has of a peer: what has changed is told anew, from nothing.
        if visitor.listed.as_ref() != Some(&listed) {
            let table = &mut self.swarm.behaviour_mut().kad;
            table.remove_peer(&peer);
            for address in &listed {
                table.add_address(&peer, address.clone());
            }
            visitor.listed = Some(listed);
        }
    }

    fn turn(&mut self) {
        let due: Vec<_> = self
            .visitors
            .iter_mut()
            .filter(|(_, v)| v.heard.is_some_and(|heard| heard.elapsed() >= IDENTIFY_EVERY))
            .filter_map(|(peer, v)| Some((*peer, v.later.take()?)))
            .collect();
        for (peer, info) in due {
            self.identified(peer, *info);
        }
        let silent: Vec<_> =
            self.visitors.iter().filter(|(_, v)| v.heard.is_none() && v.since.elapsed() > IDENTIFY_WITHIN).map(|(peer, _)| *peer).collect();
        for peer in silent {
            debug!(%peer, "dropped a peer that does not say who it is");
            // It may have gone already.
            let _ = self.swarm.disconnect_peer_id(peer);
        }
        debug!(visitors = self.visitors.len(), "here");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(port: u16) -> Multiaddr {
        format!("/ip4/127.0.0.1/tcp/{port}").parse().unwrap()
    }

    #[test]
    fn a_file_that_can_no_longer_be_written_does_not_close_the_gate() {
        let dir = tempfile::tempdir().unwrap();
        let gone = dir.path().join("gone");
        std::fs::create_dir(&gone).unwrap();
        let file = gone.join("addr");
        let mut told = Told::new(Some(file.clone()));
        told.tell(address(1)).unwrap();
        told.tell(address(2)).unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), format!("{}\n{}\n", address(1), address(2)));
        std::fs::remove_dir_all(&gone).unwrap();
        told.tell(address(3)).unwrap();
        let never = Told::new(Some(file)).tell(address(1)).unwrap_err();
        assert!(never.to_string().starts_with("--addr-file "), "{never}");
    }

    #[test]
    fn only_this_gate_is_known_to_relay() {
        let (gate, other, peer) = (PeerId::random(), PeerId::random(), PeerId::random());
        let through = |relay: PeerId| -> Multiaddr { format!("/ip4/8.8.8.8/tcp/1/p2p/{relay}/p2p-circuit/p2p/{peer}").parse().unwrap() };
        assert!(leads(&address(1), gate) && leads(&through(gate), gate));
        assert!(!leads(&through(other), gate));
        assert!(!leads(&format!("/ip4/8.8.8.8/tcp/1/p2p-circuit/p2p/{peer}").parse().unwrap(), gate));
        let twice: Multiaddr = format!("/ip4/8.8.8.8/tcp/1/p2p/{gate}/p2p-circuit/p2p/{other}/p2p-circuit").parse().unwrap();
        assert!(!leads(&twice, gate));
    }

    #[test]
    fn what_is_told_of_a_peer_is_bounded() {
        let peer = PeerId::random();
        let far: Multiaddr = "/ip4/8.8.8.8/tcp/1".parse().unwrap();
        let long: Multiaddr = format!("/dns/{}/tcp/1", "a".repeat(ADDRESS_BYTES_MAX)).parse().unwrap();
        let known = (1..1_000).map(address).chain([far.clone(), long]).collect();
        let told = listed(peer, Some(address(5)), known);
        assert_eq!(told.len(), ADDRESSES_PER_PEER);
        assert_eq!(told[0], address(5).with_p2p(peer).unwrap());
        assert_eq!(told[1], far.with_p2p(peer).unwrap());
    }
}
