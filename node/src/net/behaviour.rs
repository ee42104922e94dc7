//! The protocols that a node speaks, with their settings and the reasons. Only construction; what happens is in [`super::task`].
//!
//! Every name that goes over the wire holds the network's tag, so that nodes of two networks have nothing to say to each other even before
//! identify tells them apart.

use std::convert::Infallible;
use std::num::{NonZeroU8, NonZeroUsize};
use std::time::Duration;

use libp2p::core::Transport;
use libp2p::core::transport::timeout::TransportTimeout;
use libp2p::gossipsub::{self, IdentTopic, MessageAuthenticity, TopicHash, ValidationMode, WhitelistSubscriptionFilter};
use libp2p::identity::Keypair;
use libp2p::kad::store::{MemoryStore, MemoryStoreConfig};
use libp2p::request_response::{self, ProtocolSupport};
use libp2p::swarm::NetworkBehaviour;
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::{
    PeerId, StreamProtocol, Swarm, autonat, connection_limits, dcutr, identify, kad, mdns, memory_connection_limits, ping, relay, swarm,
};
use tops_protocol::NetworkTag;
use tops_protocol::engine::Topic;

use super::codec::SyncCodec;
use super::gate::Gate;
use super::ways::{self, Ways};
use super::{limits, scoring};

/// Gossip with our three topics and nothing else.
pub type Gossip = gossipsub::Behaviour<gossipsub::IdentityTransform, WhitelistSubscriptionFilter>;

/// All that a node speaks. Bounds come first: they see a connection before the others do.
#[derive(NetworkBehaviour)]
#[behaviour(to_swarm = "Event")]
pub struct Behaviour {
    /// Memory of the process.
    pub memory: memory_connection_limits::Behaviour,
    /// Numbers of connections.
    pub limits: connection_limits::Behaviour,
    /// Who may come, and once.
    pub gate: Gate,
    /// Who is who.
    pub identify: identify::Behaviour,
    /// Whether a line is alive.
    pub ping: ping::Behaviour,
    /// Whether others can reach this node, when nobody has said so.
    pub autonat: Toggle<autonat::Behaviour>,
    /// Lines through a relay, when the operator wants them.
    pub relay: Toggle<relay::client::Behaviour>,
    /// Direct lines in the place of relayed ones.
    pub punch: Toggle<dcutr::Behaviour>,
    /// Neighbours, when the operator wants them.
    pub mdns: Toggle<mdns::tokio::Behaviour>,
    /// The table of peers.
    pub kad: kad::Behaviour<MemoryStore>,
    /// Receipts on their way to everybody.
    pub gossip: Gossip,
    /// Questions and answers.
    pub sync: request_response::Behaviour<SyncCodec>,
}

/// What the protocols tell.
#[derive(Debug)]
pub enum Event {
    /// Who a peer is.
    Identify(Box<identify::Event>),
    /// How far a peer is.
    Ping(ping::Event),
    /// Whether others reach this node.
    Autonat(autonat::Event),
    /// A relay's answer.
    Relay(relay::client::Event),
    /// A direct line in the place of a relayed one, or none.
    Punch(dcutr::Event),
    /// A neighbour.
    Mdns(mdns::Event),
    /// The table of peers.
    Kad(Box<kad::Event>),
    /// A gossiped message, a subscription.
    Gossip(gossipsub::Event),
    /// A question or an answer.
    Sync(SyncEvent),
}

/// A question or an answer.
pub type SyncEvent =
    request_response::Event<<SyncCodec as request_response::Codec>::Request, <SyncCodec as request_response::Codec>::Response>;

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
impl From<ping::Event> for Event {
    fn from(event: ping::Event) -> Self {
        Self::Ping(event)
    }
}
impl From<autonat::Event> for Event {
    fn from(event: autonat::Event) -> Self {
        Self::Autonat(event)
    }
}
impl From<relay::client::Event> for Event {
    fn from(event: relay::client::Event) -> Self {
        Self::Relay(event)
    }
}
impl From<dcutr::Event> for Event {
    fn from(event: dcutr::Event) -> Self {
        Self::Punch(event)
    }
}
impl From<mdns::Event> for Event {
    fn from(event: mdns::Event) -> Self {
        Self::Mdns(event)
    }
}
impl From<kad::Event> for Event {
    fn from(event: kad::Event) -> Self {
        Self::Kad(Box::new(event))
    }
}
impl From<gossipsub::Event> for Event {
    fn from(event: gossipsub::Event) -> Self {
        Self::Gossip(event)
    }
}
impl From<SyncEvent> for Event {
    fn from(event: SyncEvent) -> Self {
        Self::Sync(event)
    }
}

/// The names of a network on the wire.
#[derive(Debug, Clone)]
pub struct Names {
    tag: String,
}

impl Names {
    /// Of this network.
    pub fn new(tag: NetworkTag) -> Self {
        Self { tag: tag.to_hex() }
    }
    /// What identify says; a peer that says otherwise is of another network.
    pub fn identify(&self) -> String {
        format!("/tops/{}/2", self.tag)
    }
    /// A topic of gossip (spec §6).
    pub fn topic(&self, topic: Topic) -> IdentTopic {
        let name = match topic {
            Topic::Heads => "heads",
            Topic::Receipts => "receipts",
            Topic::Alerts => "alerts",
        };
        IdentTopic::new(format!("/tops/{}/{name}/2", self.tag))
    }
    /// All topics with their hashes.
    pub fn topics(&self) -> [(Topic, TopicHash); 3] {
        [Topic::Heads, Topic::Receipts, Topic::Alerts].map(|topic| (topic, self.topic(topic).hash()))
    }
    /// The sync protocol (spec §6).
    pub fn sync(&self) -> StreamProtocol {
        protocol(format!("/tops/{}/sync/2", self.tag))
    }
    /// The table of peers.
    pub fn kad(&self) -> StreamProtocol {
        protocol(format!("/tops/{}/kad/2", self.tag))
    }
}

fn protocol(name: String) -> StreamProtocol {
    match StreamProtocol::try_from_owned(name) {
        Ok(protocol) => protocol,
        Err(_) => unreachable!("the name begins with a slash"),
    }
}

/// Why there is no network.
#[derive(Debug, thiserror::Error)]
pub enum BuildFault {
    /// Noise, or the system's resolver settings.
    #[error("the transports cannot be made (are the system's DNS settings readable?): {0}")]
    Transport(#[from] std::io::Error),
    /// No socket for multicast.
    #[error("neighbours cannot be looked for ({0}): leave out --mdns")]
    Mdns(std::io::Error),
    /// A setting that contradicts another.
    #[error("the gossip settings are wrong: {0}")]
    Gossip(String),
}

/// `H(topic ‖ raw bytes)[..20]`: an id made of decoded fields would let a malformed twin silence the real message (spec §6).
pub fn message_id(topic: &TopicHash, data: &[u8]) -> gossipsub::MessageId {
    let mut hasher = blake3::Hasher::new();
    hasher.update(topic.as_str().as_bytes()).update(data);
    gossipsub::MessageId::from(&hasher.finalize().as_bytes()[..20])
}

/// Gossip's settings: see the law's notes on each.
pub fn gossip_config() -> Result<gossipsub::Config, BuildFault> {
    gossipsub::ConfigBuilder::default()
        .heartbeat_interval(limits::HEARTBEAT)
        .heartbeat_initial_delay(Duration::from_millis(100))
        .history_length(limits::HISTORY)
        .history_gossip(limits::HISTORY_GOSSIP)
        .mesh_n(8)
        .mesh_n_low(6)
        .mesh_n_high(12)
        .mesh_outbound_min(3)
        // Receipts sign themselves; who brought one is nobody's business.
        .validation_mode(ValidationMode::Anonymous)
        .validate_messages()
        .max_transmit_size(limits::GOSSIP_PACKET_MAX)
        .duplicate_cache_time(limits::DUPLICATE_CACHE)
        .connection_handler_queue_len(limits::GOSSIP_QUEUE_PER_PEER)
        .publish_queue_duration(limits::GOSSIP_QUEUE_TIME)
        .forward_queue_duration(limits::GOSSIP_QUEUE_TIME)
        .max_publish_messages(limits::GOSSIP_MESSAGES_PER_PACKET)
        .max_ihave_messages_heartbeat(limits::IHAVE_PER_HEARTBEAT)
        .max_control_messages_sent(limits::CONTROL_IDS_MAX)
        // A mesh of silent members heals within half a minute: three rounds of two.
        .opportunistic_graft_ticks(10)
        .opportunistic_graft_peers(2)
        // Nodes of a small network come and go together; a minute of backoff would leave them without a mesh for as long.
        .prune_backoff(Duration::from_secs(10))
        .unsubscribe_backoff(Duration::from_secs(2))
        .message_id_fn(|message| message_id(&message.topic, &message.data))
        .build()
        .map_err(|e| BuildFault::Gossip(e.to_string()))
}

fn gossip(names: &Names) -> Result<Gossip, BuildFault> {
    let topics = names.topics();
    let filter = WhitelistSubscriptionFilter(topics.iter().map(|(_, hash)| hash.clone()).collect());
    let fault = |e: &str| BuildFault::Gossip(e.to_owned());
    let mut gossip = Gossip::new_with_subscription_filter(MessageAuthenticity::Anonymous, gossip_config()?, filter).map_err(fault)?;
    gossip.with_peer_score(scoring::params(topics), scoring::thresholds()).map_err(BuildFault::Gossip)?;
    for topic in [Topic::Heads, Topic::Receipts, Topic::Alerts] {
        gossip.subscribe(&names.topic(topic)).map_err(|e| BuildFault::Gossip(e.to_string()))?;
    }
    Ok(gossip)
}

fn table(local: PeerId, names: &Names) -> kad::Behaviour<MemoryStore> {
    let store = MemoryStoreConfig {
        max_records: limits::KAD_RECORDS_MAX,
        max_value_bytes: 0,
        max_providers_per_key: 0,
        max_provided_keys: limits::KAD_RECORDS_MAX,
    };
    let mut config = kad::Config::new(names.kad());
    config
        .set_query_timeout(limits::KAD_QUERY_TIMEOUT)
        .set_max_packet_size(limits::KAD_PACKET_MAX)
        .set_record_filtering(kad::StoreInserts::FilterBoth)
        .set_provider_publication_interval(None)
        .set_publication_interval(None)
        .set_replication_interval(None)
        // The discovery loop walks the table itself, often while there are few peers.
        .set_periodic_bootstrap_interval(None);
    let mut table = kad::Behaviour::with_config(local, MemoryStore::with_config(local, store), config);
    // A node answers from the start. If it waited until somebody had reached it, nodes without a rendezvous would wait for ever: nobody
    // else dials back. What others take of it are addresses that reach as far as the line on which they heard them, and a wrong one costs a
    // dial. A rendezvous that finds it out of reach takes it out of the table again.
    table.set_mode(Some(kad::Mode::Server));
    table
}

fn counts() -> connection_limits::ConnectionLimits {
    // One connection a peer is the gate's business: a plain limit loses both of two simultaneous dials. The second is there for the moment
    // in which the gate replaces the first.
    connection_limits::ConnectionLimits::default()
        .with_max_established(Some(limits::CONNECTIONS_MAX))
        .with_max_established_incoming(Some(limits::CONNECTIONS_INCOMING_MAX))
        .with_max_established_outgoing(Some(limits::CONNECTIONS_OUTGOING_MAX))
        .with_max_pending_incoming(Some(limits::PENDING_INCOMING_MAX))
        .with_max_pending_outgoing(Some(limits::PENDING_OUTGOING_MAX))
        .with_max_established_per_peer(Some(2))
}

/// What only some nodes speak. Each costs every line something whenever anything happens on it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Extras {
    /// mDNS.
    pub neighbours: bool,
    /// Lines through relays, and direct ones in their place where that can be.
    pub relayed: bool,
    /// A rendezvous is asked whether others can reach this node.
    pub probed: bool,
}

fn behaviour(
    key: &Keypair,
    names: &Names,
    agent: &str,
    extras: Extras,
    relay: Option<relay::client::Behaviour>,
) -> Result<Behaviour, BuildFault> {
    let local = key.public().to_peer_id();
    let identify = identify::Config::new(names.identify(), key.public())
        .with_agent_version(agent.to_owned())
        .with_push_listen_addr_updates(true)
        .with_interval(Duration::from_secs(120))
        .with_cache_size(0);
    let ping = ping::Config::new().with_interval(limits::PING_EVERY).with_timeout(limits::PING_WITHIN);
    let autonat = autonat::Config {
        boot_delay: Duration::from_secs(2),
        retry_interval: Duration::from_secs(30),
        throttle_server_period: Duration::from_secs(15),
        confidence_max: 1,
        max_peer_addresses: limits::ADDRESSES_PER_PEER,
        // Only a rendezvous dials back.
        use_connected: false,
        throttle_clients_global_max: 0,
        // Networks of private machines are networks too.
        only_global_ips: false,
        ..Default::default()
    };
    let sync = request_response::Config::default()
        .with_request_timeout(limits::ASK_TIMEOUT)
        .with_max_concurrent_streams(limits::SYNC_STREAMS_PER_PEER);
    Ok(Behaviour {
        memory: memory_connection_limits::Behaviour::with_max_bytes(limits::MEMORY_MAX),
        limits: connection_limits::Behaviour::new(counts()),
        gate: Gate::new(local),
        identify: identify::Behaviour::new(identify),
        ping: ping::Behaviour::new(ping),
        autonat: Toggle::from(extras.probed.then(|| autonat::Behaviour::new(local, autonat))),
        punch: Toggle::from(relay.is_some().then(|| dcutr::Behaviour::new(local))),
        relay: Toggle::from(relay),
        mdns: Toggle::from(
            extras.neighbours.then(|| mdns::tokio::Behaviour::new(mdns::Config::default(), local)).transpose().map_err(BuildFault::Mdns)?,
        ),
        kad: table(local, names),
        gossip: gossip(names)?,
        sync: request_response::Behaviour::with_codec(SyncCodec, [(names.sync(), ProtocolSupport::Full)], sync),
    })
}

/// Every protocol of a node over these ways to other nodes.
///
/// # Errors
/// [`BuildFault`] when the key cannot be used or a setting contradicts another.
pub fn swarm(key: &Keypair, names: &Names, agent: &str, extras: Extras, ways: Ways) -> Result<Swarm<Behaviour>, BuildFault> {
    let (ways, relay) = if extras.relayed {
        let (ways, relay) = ways::relayed(ways, key)?;
        (ways, Some(relay))
    } else {
        (ways, None)
    };
    let ways = TransportTimeout::new(ways, limits::SETUP_WITHIN).boxed();
    let behaviour = behaviour(key, names, agent, extras, relay)?;
    let config = swarm::Config::with_tokio_executor()
        .with_idle_connection_timeout(limits::IDLE_CONNECTION)
        .with_dial_concurrency_factor(NonZeroU8::new(limits::DIAL_CONCURRENCY).unwrap_or(NonZeroU8::MIN))
        .with_max_negotiating_inbound_streams(limits::STREAMS_PER_CONNECTION)
        .with_notify_handler_buffer_size(NonZeroUsize::new(64).unwrap_or(NonZeroUsize::MIN))
        .with_per_connection_event_buffer_size(64);
    Ok(Swarm::new(ways, behaviour, key.public().to_peer_id(), config))
}
