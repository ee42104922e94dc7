//! The task that owns the swarm: libp2p's events become [`NetEvent`]s, [`NetCommand`]s become calls.
//!
//! ```text
//!   swarm ──▶ peers, messages, asks, answers (numbers for the engine) ──NetEvent──▶ driver
//!   driver ──NetCommand──▶ verdicts, publications, questions, answers, penalties ──▶ swarm
//! ```
//!
//! The engine knows numbers only; this task knows what they stand for, and forgets in time. It never waits for the loop: what the loop does
//! not take is dropped if a peer can send it again and kept if it is about this node's own questions.
//!
//! Longer than other files because one owner of the swarm holds every table that ties a number to a libp2p name.

use std::collections::{HashMap, VecDeque};
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, bail};
use futures::StreamExt;
use libp2p::gossipsub::{self, MessageAcceptance, MessageId, PublishError, TopicHash};
use libp2p::identity::Keypair;
use libp2p::multiaddr::Protocol;
use libp2p::request_response::{self, OutboundRequestId, ResponseChannel};
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{ConnectionId, DialError, SwarmEvent};
use libp2p::{Multiaddr, PeerId, Swarm, autonat, identify, kad, mdns, ping};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;
use tops_protocol::NetworkTag;
use tops_protocol::engine::{AnswerId, AskId, Message, Peer, PeerFault, Query, Topic, Verdict};
use tracing::{debug, info, trace, warn};

use super::behaviour::{Behaviour, Event, Names, SyncEvent, swarm};
use super::book::{Book, Reach, listed, reach};
use super::codec::{RawReply, WireFault};
use super::dial::complaint;
use super::gate::Refused;
use super::numbers::Numbers;
use super::remembered::Remembered;
use super::{limits, scoring};
use crate::state::{PeerInfo, Shared, count};

/// What the network needs to know of the configuration.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The identity.
    pub key: Keypair,
    /// Which network.
    pub tag: NetworkTag,
    /// `name/version`.
    pub agent: String,
    /// Where to listen.
    pub listen: Vec<Multiaddr>,
    /// Where others reach this node, as far as the operator knows.
    pub external: Vec<Multiaddr>,
    /// Whom to call first.
    pub bootstrap: Vec<Multiaddr>,
    /// Whether to look for neighbours by mDNS.
    pub mdns: bool,
    /// Where peers outlive the process.
    pub remembered: Option<PathBuf>,
}

/// How a question ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answered {
    /// With this; its receipts are unchecked.
    With(RawReply),
    /// With nothing.
    Failed,
    /// With bytes that break the protocol, or an answer to another question.
    Invalid,
}

/// What the network tells the loop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NetEvent {
    /// A node of this network is connected.
    Up {
        /// Its number.
        peer: Peer,
    },
    /// It is gone.
    Down {
        /// Its number.
        peer: Peer,
    },
    /// A gossiped message of unchecked bytes; a [`NetCommand::Verdict`] is owed.
    Gossip {
        /// Who brought it.
        peer: Peer,
        /// Its number.
        message: Message,
        /// On which topic.
        topic: Topic,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// A peer asks; a [`NetCommand::Answer`] is owed.
    Asked {
        /// Who.
        peer: Peer,
        /// The question's number.
        answer: AnswerId,
        /// The question.
        query: Query,
    },
    /// A question of this node ended.
    Replied {
        /// Who was asked.
        peer: Peer,
        /// Which question.
        ask: AskId,
        /// How.
        answered: Answered,
    },
}

/// What the loop tells the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NetCommand {
    /// What is to become of a gossiped message.
    Verdict {
        /// Which.
        message: Message,
        /// What.
        verdict: Verdict,
    },
    /// Gossip this.
    Publish {
        /// Where.
        topic: Topic,
        /// A wire form.
        bytes: Vec<u8>,
    },
    /// Ask a peer; a [`NetEvent::Replied`] follows in any case.
    Ask {
        /// Whom.
        peer: Peer,
        /// The question's number.
        ask: AskId,
        /// The question.
        query: Query,
    },
    /// Answer a peer; `None`: say nothing.
    Answer {
        /// Which question.
        answer: AnswerId,
        /// With what.
        with: Option<RawReply>,
    },
    /// Take score from a peer.
    Penalise {
        /// Whom.
        peer: Peer,
        /// For what.
        fault: PeerFault,
    },
}

/// Who is connected, for people.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct NetView {
    /// The peers.
    pub peers: Vec<PeerInfo>,
    /// Where this node listens, with its id.
    pub listening: Vec<String>,
}

/// The loop's end of the network. When it is dropped, the task closes its connections and ends.
pub struct Net {
    /// Commands; see [`limits::NET_COMMANDS`].
    pub commands: mpsc::Sender<NetCommand>,
    /// Events; see [`limits::NET_EVENTS`].
    pub events: mpsc::Receiver<NetEvent>,
    /// Who is connected; at least once a second.
    pub view: watch::Receiver<Arc<NetView>>,
    /// The task.
    pub task: JoinHandle<()>,
    /// This node's id.
    pub peer_id: PeerId,
}

/// Begins to listen and to look for peers.
///
/// # Errors
/// When an IPv4 address cannot be listened on (IPv6 may be missing on a machine), or the transports cannot be made.
pub fn start(settings: Settings, shared: Shared) -> anyhow::Result<Net> {
    let names = Names::new(settings.tag);
    let mut swarm = swarm(settings.key.clone(), &names, &settings.agent, settings.mdns).context("the network cannot be started")?;
    let mut listening = 0usize;
    for address in &settings.listen {
        if let Some(socket) = tcp_socket(address)
            && let Err(e) = TcpListener::bind(socket)
            && e.kind() == ErrorKind::AddrInUse
        {
            bail!("cannot listen on {address} ({e}): is another node running? choose another address with --listen");
        }
    }
    for address in &settings.listen {
        match swarm.listen_on(address.clone()) {
            Ok(_) => listening += 1,
            Err(e) if matches!(address.iter().next(), Some(Protocol::Ip6(_))) => {
                warn!(%address, error = %e, "not listening here: this machine may have no IPv6")
            }
            Err(e) => {
                let why = anyhow::Error::from(e).root_cause().to_string();
                bail!("cannot listen on {address} ({why}): is another node running? choose another address with --listen")
            }
        }
    }
    if listening == 0 && !settings.listen.is_empty() {
        bail!("none of the addresses of --listen can be listened on");
    }
    for address in &settings.external {
        swarm.add_external_address(address.clone());
    }
    // Whoever says where it is reached, or listens only where its neighbours are, knows better than a rendezvous.
    let near = |a: &Multiaddr| matches!(reach(a), Some(Reach::Loopback | Reach::Private));
    let believed = !settings.external.is_empty() || (!settings.listen.is_empty() && settings.listen.iter().all(near));
    let local = *swarm.local_peer_id();
    let (command_tx, commands) = mpsc::channel(limits::NET_COMMANDS);
    let (events, event_rx) = mpsc::channel(limits::NET_EVENTS);
    let (view_tx, view) = watch::channel(Arc::new(NetView::default()));
    let remembered = Remembered::open(settings.remembered);
    let mut book = Book::new(local, settings.bootstrap, Instant::now());
    for (peer, address) in remembered.peers() {
        // They were reached from this machine.
        book.learn(peer, [address], Reach::Loopback, Instant::now());
    }
    let task = Task {
        topics: names.topics(),
        identify: names.identify(),
        sync: names.sync(),
        kad: names.kad(),
        local,
        believed,
        book,
        remembered,
        written: Instant::now(),
        swarm,
        commands,
        events,
        view: view_tx,
        shared,
        backlog: VecDeque::new(),
        peers: HashMap::new(),
        numbers: Numbers::default(),
        next: 0,
        messages: HashMap::new(),
        message_order: VecDeque::new(),
        asks: HashMap::new(),
        answers: HashMap::new(),
        outbox: VecDeque::new(),
        application: scoring::Application::default(),
        walked: None,
        seconds: Instant::now(),
    };
    Ok(Net { commands: command_tx, events: event_rx, view, task: tokio::spawn(task.run()), peer_id: local })
}

/// The socket of a TCP address with a port. The transport shares ports between processes (it dials from the port that it listens on), so two
/// nodes on one port would each get half of the calls: whether it is free is asked first.
fn tcp_socket(address: &Multiaddr) -> Option<SocketAddr> {
    let mut parts = address.iter();
    let ip: IpAddr = match parts.next()? {
        Protocol::Ip4(ip) => ip.into(),
        Protocol::Ip6(ip) => ip.into(),
        _ => return None,
    };
    match parts.next()? {
        Protocol::Tcp(port) if port != 0 => Some(SocketAddr::new(ip, port)),
        _ => None,
    }
}

/// From a port of its own: two nodes that dial each other from the ports that they listen on can end up with one TCP connection that both
/// believe to have opened, and no handshake succeeds on that.
fn to(peer: PeerId, addresses: Vec<Multiaddr>, condition: PeerCondition) -> DialOpts {
    DialOpts::peer_id(peer).addresses(addresses).condition(condition).allocate_new_port().build()
}

struct Connected {
    number: Peer,
    address: Multiaddr,
    /// Where this node called it, when it did.
    dialled: Option<Multiaddr>,
    outbound: bool,
    since: Instant,
    agent: String,
    /// When it last said who it is and was heard.
    heard: Option<Instant>,
    /// What it said too soon after that; the last of it.
    later: Option<Box<identify::Info>>,
    /// Whether it ever answered for the table of peers.
    tabled: bool,
    /// What the table of peers was last told of it.
    listed: Option<Vec<Multiaddr>>,
    up: bool,
    ping_ms: Option<u64>,
    open_messages: usize,
    open_answers: usize,
}

struct OpenMessage {
    id: MessageId,
    source: PeerId,
    at: Instant,
}

struct OpenAnswer {
    peer: PeerId,
    channel: ResponseChannel<Result<RawReply, WireFault>>,
    at: Instant,
}

struct Waiting {
    topic: Topic,
    bytes: Vec<u8>,
    since: Instant,
    due: Instant,
}

struct Task {
    topics: [(Topic, TopicHash); 3],
    identify: String,
    sync: libp2p::StreamProtocol,
    kad: libp2p::StreamProtocol,
    local: PeerId,
    /// Whether this node is reached is settled, whatever a rendezvous finds.
    believed: bool,
    book: Book,
    remembered: Remembered,
    written: Instant,
    swarm: Swarm<Behaviour>,
    commands: mpsc::Receiver<NetCommand>,
    events: mpsc::Sender<NetEvent>,
    view: watch::Sender<Arc<NetView>>,
    shared: Shared,
    /// What must not be lost and the loop has not taken yet; bounded by connections and open questions.
    backlog: VecDeque<NetEvent>,
    peers: HashMap<PeerId, Connected>,
    numbers: Numbers,
    /// Numbers of peers, messages and questions; never reused.
    next: u64,
    messages: HashMap<Message, OpenMessage>,
    message_order: VecDeque<(Instant, Message)>,
    asks: HashMap<OutboundRequestId, (Peer, AskId, Query)>,
    answers: HashMap<AnswerId, OpenAnswer>,
    outbox: VecDeque<Waiting>,
    application: scoring::Application,
    walked: Option<Instant>,
    seconds: Instant,
}

impl Task {
    async fn run(mut self) {
        let mut turns = tokio::time::interval(limits::DISCOVERY_TURN);
        turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let events = self.events.clone();
        loop {
            self.flush_backlog();
            let room = self.backlog.len() < limits::NET_BACKLOG;
            tokio::select! {
                event = self.swarm.select_next_some(), if room => self.on_swarm(event),
                command = self.commands.recv(), if room => match command {
                    Some(command) => self.on_command(command),
                    None => break,
                },
                _ = turns.tick() => self.turn(),
                permit = events.reserve(), if !self.backlog.is_empty() => match permit {
                    Ok(permit) => if let Some(event) = self.backlog.pop_front() { permit.send(event) },
                    Err(_) => break,
                },
            }
        }
        self.remember();
        let peers: Vec<_> = self.peers.keys().copied().collect();
        for peer in peers {
            // It may have gone meanwhile.
            let _ = self.swarm.disconnect_peer_id(peer);
        }
        // A moment for the closing to reach the peers, so that they do not wait for a ping to fail.
        let until = tokio::time::Instant::now() + std::time::Duration::from_millis(300);
        while self.swarm.connected_peers().next().is_some() {
            if tokio::time::timeout_at(until, self.swarm.select_next_some()).await.is_err() {
                break;
            }
        }
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Tells what must not be lost.
    fn tell(&mut self, event: NetEvent) {
        self.backlog.push_back(event);
        self.flush_backlog();
    }

    fn flush_backlog(&mut self) {
        while let Some(event) = self.backlog.pop_front() {
            if let Err(mpsc::error::TrySendError::Full(event) | mpsc::error::TrySendError::Closed(event)) = self.events.try_send(event) {
                self.backlog.push_front(event);
                return;
            }
        }
    }

    /// Tells what may be lost; gives it back when it is.
    fn offer(&mut self, event: NetEvent) -> Result<(), ()> {
        if self.backlog.is_empty() && self.events.try_send(event).is_ok() { Ok(()) } else { Err(()) }
    }

    // ---- libp2p's events ----------------------------------------------------------------------------------------------------------

    fn on_swarm(&mut self, event: SwarmEvent<Event>) {
        let now = Instant::now();
        match event {
            SwarmEvent::Behaviour(Event::Gossip(event)) => self.on_gossip(event, now),
            SwarmEvent::Behaviour(Event::Sync(event)) => self.on_sync(event, now),
            SwarmEvent::Behaviour(Event::Identify(event)) => self.on_identify(*event, now),
            SwarmEvent::Behaviour(Event::Kad(event)) => self.on_kad(*event, now),
            SwarmEvent::Behaviour(Event::Ping(ping::Event { peer, connection, result })) => match result {
                Ok(round) => {
                    if let Some(connected) = self.peers.get_mut(&peer) {
                        connected.ping_ms = Some(u64::try_from(round.as_millis()).unwrap_or(u64::MAX));
                    }
                }
                Err(ping::Failure::Unsupported) => {}
                // Nothing else notices: TCP waits a quarter of an hour for an answer, and a line that says nothing looks like a quiet one.
                Err(failure) => {
                    debug!(%peer, %failure, "closed a line that does not answer");
                    self.swarm.close_connection(connection);
                }
            },
            SwarmEvent::Behaviour(Event::Autonat(autonat::Event::StatusChanged { new, .. })) => {
                debug!(?new, "whether others reach this node");
                // A rendezvous tried: who cannot be reached steps out of the table of peers, where it would only cost others dials.
                if !self.believed {
                    let mode = if new == autonat::NatStatus::Private { kad::Mode::Client } else { kad::Mode::Server };
                    self.swarm.behaviour_mut().kad.set_mode(Some(mode));
                }
            }
            SwarmEvent::Behaviour(Event::Autonat(_)) => {}
            SwarmEvent::Behaviour(Event::Mdns(mdns::Event::Discovered(neighbours))) => {
                for (peer, address) in neighbours {
                    self.book.learn(peer, [address], Reach::Private, now);
                }
            }
            SwarmEvent::Behaviour(Event::Mdns(mdns::Event::Expired(_))) => {}
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, endpoint, .. } => {
                for (address, failures) in self.book.answered(&peer_id, connection_id) {
                    info!(peer = %peer_id, %address, failures, "a bootstrap peer is reached after failures");
                }
                count(&self.shared.counters().connections_opened);
                let (address, outbound) = (endpoint.get_remote_address().clone(), endpoint.is_dialer());
                let dialled = outbound.then(|| address.clone());
                if let Some(known) = self.peers.get_mut(&peer_id) {
                    (known.address, known.outbound) = (address, outbound);
                    known.dialled = dialled.or(known.dialled.take());
                    return;
                }
                debug!(peer = %peer_id, %address, outbound, "connected");
                let number = self.numbers.came(peer_id, now);
                let connected = Connected {
                    number,
                    address,
                    dialled,
                    outbound,
                    since: now,
                    agent: String::new(),
                    heard: None,
                    later: None,
                    tabled: false,
                    listed: None,
                    up: false,
                    ping_ms: None,
                    open_messages: 0,
                    open_answers: 0,
                };
                self.peers.insert(peer_id, connected);
            }
            SwarmEvent::ConnectionClosed { peer_id, num_established, cause, .. } => {
                count(&self.shared.counters().connections_closed);
                if num_established > 0 {
                    return;
                }
                debug!(peer = %peer_id, cause = cause.map(|c| c.to_string()), "disconnected");
                self.book.left(&peer_id, now);
                self.swarm.behaviour_mut().autonat.remove_server(&peer_id);
                if let Some(gone) = self.peers.remove(&peer_id) {
                    self.numbers.left(peer_id, now);
                    if gone.up {
                        info!(peer = %peer_id, nodes = self.nodes(), "a peer left");
                        self.tell(NetEvent::Down { peer: gone.number });
                    }
                }
            }
            SwarmEvent::OutgoingConnectionError { connection_id, peer_id, error } => {
                self.on_dial_error(connection_id, peer_id, &error, now)
            }
            SwarmEvent::IncomingConnectionError { send_back_addr, error, .. } => {
                trace!(%send_back_addr, %error, "a connection was not taken")
            }
            SwarmEvent::NewListenAddr { address, .. } => {
                info!(address = %address.with_p2p(self.local).unwrap_or_else(|a| a), "listening");
                self.publish_view(now);
            }
            SwarmEvent::ListenerClosed { addresses, reason, .. } => warn!(?addresses, ?reason, "no longer listening"),
            SwarmEvent::ListenerError { error, .. } => warn!(%error, "a listener had an error"),
            SwarmEvent::ExternalAddrConfirmed { address } => {
                info!(%address, "others reach this node here");
                // Identify tells of new addresses to listen on by itself, of these only when it is asked.
                let peers: Vec<_> = self.peers.keys().copied().collect();
                self.swarm.behaviour_mut().identify.push(peers);
            }
            _ => {}
        }
    }

    fn on_dial_error(&mut self, dial: ConnectionId, peer: Option<PeerId>, error: &DialError, now: Instant) {
        trace!(?peer, %error, "a dial failed");
        if let Some(boot) = self.book.bootstrap_of(dial)
            && let Some(complaint) = complaint(error, boot.named())
            && let Some(failures) = boot.missed()
        {
            let (cause, advice) = (complaint.cause, complaint.advice);
            warn!(address = %boot.address, failures, "a bootstrap address cannot be reached: {cause}; {advice}");
        }
        match error {
            DialError::LocalPeerId { .. } => self.book.own(dial),
            DialError::WrongPeerId { address, .. } => {
                if let Some(named) = peer {
                    self.book.wrong_peer(named, address);
                }
                self.book.failed(peer, dial, true, now);
            }
            // Not its fault: this node did not want it now.
            DialError::Denied { cause } => {
                let refused = cause.downcast_ref::<Refused>().is_some();
                self.book.failed(peer, dial, !refused, now);
            }
            DialError::DialPeerConditionFalse(_) => self.book.failed(peer, dial, false, now),
            _ => self.book.failed(peer, dial, true, now),
        }
    }

    fn on_identify(&mut self, event: identify::Event, now: Instant) {
        let (peer, info) = match event {
            identify::Event::Received { peer_id, info, .. } => (peer_id, info),
            identify::Event::Error { peer_id, error, .. } => {
                debug!(peer = %peer_id, %error, "a peer does not say who it is");
                return;
            }
            _ => return,
        };
        let Some(connected) = self.peers.get_mut(&peer) else { return };
        if connected.heard.is_some_and(|heard| now.duration_since(heard) < limits::IDENTIFY_EVERY) {
            connected.later = Some(Box::new(info));
            return;
        }
        self.identified(peer, info, now);
    }

    fn identified(&mut self, peer: PeerId, info: identify::Info, now: Instant) {
        if info.protocol_version != self.identify {
            let said: String = info.protocol_version.chars().filter(char::is_ascii_graphic).take(64).collect();
            if self.book.is_bootstrap(&peer) {
                warn!(%peer, says = said, expected = self.identify, "a bootstrap address leads to another network");
            } else {
                debug!(%peer, says = said, "dropped a peer of another network");
            }
            count(&self.shared.counters().foreign_peers);
            self.swarm.behaviour_mut().gate.refuse(peer, limits::REFUSED_FOR);
            return;
        }
        let Some(connected) = self.peers.get_mut(&peer) else { return };
        let heard = reach(&connected.address).unwrap_or(Reach::Global);
        connected.heard = Some(now);
        connected.agent = info.agent_version.chars().filter(|c| c.is_ascii_graphic() || *c == ' ').take(64).collect();
        let node = info.protocols.contains(&self.sync);
        let came_up = node && !connected.up;
        connected.up |= node;
        let number = connected.number;
        // A rendezvous tells whether others reach this node; nodes have better things to do.
        if !node && info.protocols.contains(&autonat::DEFAULT_PROTOCOL_NAME) {
            self.swarm.behaviour_mut().autonat.add_server(peer, None);
        }
        let known = self.book.learn(peer, info.listen_addrs, heard, now);
        let tabled = info.protocols.contains(&self.kad);
        let first = tabled && !connected.tabled;
        connected.tabled |= tabled;
        // The table only ever adds to what it has of a peer: what has changed is told anew, from nothing.
        let listed = if tabled { listed(peer, connected.dialled.clone(), known) } else { Vec::new() };
        if connected.listed.as_ref() != Some(&listed) {
            let table = &mut self.swarm.behaviour_mut().kad;
            table.remove_peer(&peer);
            for address in &listed {
                table.add_address(&peer, address.clone());
            }
            connected.listed = Some(listed);
        }
        if first && (!came_up || self.nodes() <= limits::PEERS_FEW) {
            // Somebody new to ask for others.
            self.walked = None;
        }
        if came_up {
            info!(%peer, nodes = self.nodes(), "a peer joined");
            self.tell(NetEvent::Up { peer: number });
        }
    }

    fn on_kad(&mut self, event: kad::Event, now: Instant) {
        let kad::Event::OutboundQueryProgressed { result: kad::QueryResult::GetClosestPeers(result), .. } = event else { return };
        let peers = match result {
            Ok(found) => found.peers,
            Err(kad::GetClosestPeersError::Timeout { peers, .. }) => peers,
        };
        // What the table says was heard from peers of this reach; the nearest one is good enough a guess, a wrong address costs a dial.
        let heard = self.peers.values().filter_map(|p| reach(&p.address)).min().unwrap_or(Reach::Global);
        for found in peers {
            self.book.learn(found.peer_id, found.addrs, heard, now);
        }
    }

    fn topic(&self, hash: &TopicHash) -> Option<Topic> {
        self.topics.iter().find(|(_, known)| known == hash).map(|(topic, _)| *topic)
    }

    fn hash(&self, topic: Topic) -> TopicHash {
        match self.topics.iter().find(|(known, _)| *known == topic) {
            Some((_, hash)) => hash.clone(),
            None => unreachable!("every topic is in the list"),
        }
    }

    fn on_gossip(&mut self, event: gossipsub::Event, now: Instant) {
        match event {
            gossipsub::Event::Message { propagation_source, message_id, message } => {
                count(&self.shared.counters().gossip_received);
                let taken = self.take_message(propagation_source, &message_id, message, now);
                if taken.is_none() {
                    count(&self.shared.counters().gossip_overflow);
                    self.report(&message_id, &propagation_source, Verdict::Ignore);
                }
            }
            gossipsub::Event::Subscribed { topic, .. } => {
                if let Some(topic) = self.topic(&topic) {
                    for waiting in self.outbox.iter_mut().filter(|waiting| waiting.topic == topic && waiting.due <= now + limits::HEARTBEAT)
                    {
                        waiting.due = now;
                    }
                    self.flush_outbox(now);
                }
            }
            gossipsub::Event::SlowPeer { peer_id, .. } => debug!(peer = %peer_id, "a peer takes messages too slowly"),
            gossipsub::Event::GossipsubNotSupported { .. } | gossipsub::Event::Unsubscribed { .. } => {}
        }
    }

    /// Numbers a message and hands it on; `None` when there is no room for it.
    fn take_message(&mut self, source: PeerId, id: &MessageId, message: gossipsub::Message, now: Instant) -> Option<()> {
        let topic = self.topic(&message.topic)?;
        let connected = self.peers.get(&source)?;
        if self.messages.len() >= limits::OPEN_MESSAGES_MAX || connected.open_messages >= limits::OPEN_MESSAGES_PER_PEER {
            return None;
        }
        let peer = connected.number;
        let number = Message(self.number());
        self.offer(NetEvent::Gossip { peer, message: number, topic, bytes: message.data }).ok()?;
        if let Some(connected) = self.peers.get_mut(&source) {
            connected.open_messages += 1;
        }
        self.messages.insert(number, OpenMessage { id: id.clone(), source, at: now });
        self.message_order.push_back((now, number));
        Some(())
    }

    fn report(&mut self, id: &MessageId, source: &PeerId, verdict: Verdict) {
        let (acceptance, counter) = match verdict {
            Verdict::Accept => (MessageAcceptance::Accept, &self.shared.counters().gossip_accepted),
            Verdict::Reject => (MessageAcceptance::Reject, &self.shared.counters().gossip_rejected),
            Verdict::Ignore => (MessageAcceptance::Ignore, &self.shared.counters().gossip_ignored),
        };
        count(counter);
        if !self.swarm.behaviour_mut().gossip.report_message_validation_result(id, source, acceptance) {
            count(&self.shared.counters().gossip_late_verdicts);
        }
    }

    fn close_message(&mut self, message: Message) -> Option<OpenMessage> {
        let open = self.messages.remove(&message)?;
        if let Some(connected) = self.peers.get_mut(&open.source) {
            connected.open_messages = connected.open_messages.saturating_sub(1);
        }
        Some(open)
    }

    fn on_sync(&mut self, event: SyncEvent, now: Instant) {
        match event {
            request_response::Event::Message { peer, message: request_response::Message::Request { request, channel, .. }, .. } => {
                let Some(connected) = self.peers.get(&peer) else { return };
                let number = connected.number;
                match request {
                    Ok(query) => {
                        let room = self.answers.len() < limits::OPEN_ANSWERS_MAX;
                        if !room || connected.open_answers >= limits::OPEN_ANSWERS_PER_PEER {
                            count(&self.shared.counters().sync_refused);
                            if room {
                                self.penalise(peer, PeerFault::Greedy, now);
                            }
                            return;
                        }
                        let answer = AnswerId(self.number());
                        if self.offer(NetEvent::Asked { peer: number, answer, query }).is_err() {
                            count(&self.shared.counters().sync_refused);
                            return;
                        }
                        if let Some(connected) = self.peers.get_mut(&peer) {
                            connected.open_answers += 1;
                        }
                        self.answers.insert(answer, OpenAnswer { peer, channel, at: now });
                    }
                    Err(fault) => {
                        debug!(%peer, %fault, "a question breaks the protocol");
                        self.penalise(peer, PeerFault::BadReply, now);
                    }
                }
            }
            request_response::Event::Message { message: request_response::Message::Response { request_id, response }, .. } => {
                let Some((peer, ask, query)) = self.asks.remove(&request_id) else { return };
                let answered = match response {
                    Ok(reply) if reply.answers(&query) => Answered::With(reply),
                    Ok(_) | Err(_) => Answered::Invalid,
                };
                self.tell(NetEvent::Replied { peer, ask, answered });
            }
            request_response::Event::OutboundFailure { request_id, error, .. } => {
                let Some((peer, ask, _)) = self.asks.remove(&request_id) else { return };
                debug!(?peer, %error, "a question has no answer");
                self.tell(NetEvent::Replied { peer, ask, answered: Answered::Failed });
            }
            request_response::Event::InboundFailure { peer, error, .. } => trace!(%peer, %error, "an answer did not arrive"),
            request_response::Event::ResponseSent { .. } => count(&self.shared.counters().sync_answered),
        }
    }

    // ---- the loop's commands --------------------------------------------------------------------------------------------------------

    fn on_command(&mut self, command: NetCommand) {
        let now = Instant::now();
        match command {
            NetCommand::Verdict { message, verdict } => match self.close_message(message) {
                Some(open) => self.report(&open.id, &open.source, verdict),
                None => count(&self.shared.counters().gossip_late_verdicts),
            },
            NetCommand::Publish { topic, bytes } => self.publish(Waiting { topic, bytes, since: now, due: now }, now),
            NetCommand::Ask { peer, ask, query } => {
                let id = self.numbers.id(peer).filter(|id| self.peers.contains_key(id) && self.asks.len() < limits::OPEN_ASKS_MAX);
                let Some(id) = id else {
                    return self.tell(NetEvent::Replied { peer, ask, answered: Answered::Failed });
                };
                let request = self.swarm.behaviour_mut().sync.send_request(&id, Ok(query.clone()));
                self.asks.insert(request, (peer, ask, query));
            }
            NetCommand::Answer { answer, with } => {
                let Some(open) = self.answers.remove(&answer) else { return };
                self.answer_closed(&open.peer);
                match with {
                    // The peer may have gone or given up: then there is nobody to tell.
                    Some(reply) => drop(self.swarm.behaviour_mut().sync.send_response(open.channel, Ok(reply))),
                    None => count(&self.shared.counters().sync_refused),
                }
            }
            NetCommand::Penalise { peer, fault } => {
                // Also one that has left meanwhile: it comes back with what it did.
                if let Some(id) = self.numbers.id(peer) {
                    self.penalise(id, fault, now);
                }
            }
        }
    }

    fn answer_closed(&mut self, peer: &PeerId) {
        if let Some(connected) = self.peers.get_mut(peer) {
            connected.open_answers = connected.open_answers.saturating_sub(1);
        }
    }

    fn penalise(&mut self, peer: PeerId, fault: PeerFault, now: Instant) {
        let score = self.application.penalise(peer, fault, now);
        debug!(%peer, ?fault, score, "a peer loses score");
        self.swarm.behaviour_mut().gossip.set_application_score(&peer, score);
    }

    /// Gossips, or keeps what nobody took. Gossip remembers a message before it queues it, so a retry is only possible once it has
    /// forgotten; meanwhile it still offers the message in its heartbeats.
    fn publish(&mut self, waiting: Waiting, now: Instant) {
        let hash = self.hash(waiting.topic);
        let due = match self.swarm.behaviour_mut().gossip.publish(hash, waiting.bytes.clone()) {
            Ok(_) => return count(&self.shared.counters().published),
            Err(PublishError::Duplicate) => return,
            Err(PublishError::NoPeersSubscribedToTopic) => now + limits::HEARTBEAT,
            Err(PublishError::AllQueuesFull(_)) => now + limits::DUPLICATE_CACHE + limits::HEARTBEAT,
            Err(error) => {
                warn!(%error, "a receipt could not be gossiped");
                return count(&self.shared.counters().publish_dropped);
            }
        };
        if waiting.since == now {
            count(&self.shared.counters().publish_deferred);
        }
        if self.outbox.len() == limits::OUTBOX_MAX {
            self.outbox.pop_front();
            count(&self.shared.counters().publish_dropped);
        }
        self.outbox.push_back(Waiting { due, ..waiting });
    }

    fn flush_outbox(&mut self, now: Instant) {
        let mut room = limits::OUTBOX_AT_ONCE;
        for waiting in std::mem::take(&mut self.outbox) {
            if now.duration_since(waiting.since) > limits::OUTBOX_AGE {
                count(&self.shared.counters().publish_dropped);
            } else if waiting.due <= now && room > 0 {
                room -= 1;
                self.publish(waiting, now);
            } else {
                self.outbox.push_back(waiting);
            }
        }
    }

    // ---- time -----------------------------------------------------------------------------------------------------------------------

    fn nodes(&self) -> usize {
        self.peers.values().filter(|peer| peer.up).count()
    }

    fn turn(&mut self) {
        let now = Instant::now();
        self.swarm.behaviour_mut().gate.tidy(now);
        self.discover(now);
        if now.duration_since(self.seconds) >= limits::HEARTBEAT {
            self.seconds = now;
            self.hear(now);
            self.forget(now);
            self.flush_outbox(now);
            self.judge(now);
            self.publish_view(now);
            if now.duration_since(self.written) >= limits::REMEMBER_EVERY {
                self.written = now;
                self.remember();
            }
        }
    }

    /// A few kilobytes, seldom, and only when they changed: not worth a thread.
    fn remember(&mut self) {
        let reached = self.peers.iter().filter(|(_, peer)| peer.up && peer.outbound);
        self.remembered.keep(reached.map(|(id, peer)| peer.address.clone().with_p2p(*id).unwrap_or_else(|a| a)));
    }

    fn discover(&mut self, now: Instant) {
        let nodes = self.nodes();
        if nodes < limits::PEERS_WANTED {
            let peers = &self.peers;
            let mut dials = Vec::new();
            for boot in self.book.bootstrap_due(|peer| peers.contains_key(peer), now) {
                let opts = match boot.peer {
                    Some(peer) => {
                        DialOpts::peer_id(peer).addresses(vec![boot.address.clone()]).condition(PeerCondition::Disconnected).build()
                    }
                    None => DialOpts::unknown_peer_id().address(boot.address.clone()).build(),
                };
                boot.dial = Some(opts.connection_id());
                dials.push(opts);
            }
            let gate = &self.swarm.behaviour().gate;
            let due = self.book.take_due(
                limits::DIALS_PER_TURN.min(limits::PEERS_WANTED - nodes),
                |peer| peers.contains_key(peer) || gate.refuses(peer),
                now,
            );
            dials.extend(due.into_iter().map(|(peer, addresses)| to(peer, addresses, PeerCondition::DisconnectedAndNotDialing)));
            for opts in dials {
                let (dial, peer) = (opts.connection_id(), opts.get_peer_id());
                if let Err(error) = self.swarm.dial(opts) {
                    self.on_dial_error(dial, peer, &error, now);
                }
            }
        }
        let every = if nodes < limits::PEERS_FEW { limits::WALK_OFTEN } else { limits::WALK_SELDOM };
        let due = self.walked.is_none_or(|walked| now.duration_since(walked) >= every);
        if due && self.peers.values().any(|peer| peer.heard.is_some()) {
            // Around this node's own place first, then anywhere.
            let key = if self.walked.is_none() { self.local } else { PeerId::random() };
            self.walked = Some(now);
            self.swarm.behaviour_mut().kad.get_closest_peers(key);
        }
    }

    /// Looks at what peers said of themselves too soon after the time before.
    fn hear(&mut self, now: Instant) {
        let due: Vec<_> = self
            .peers
            .iter_mut()
            .filter(|(_, p)| p.heard.is_some_and(|heard| now.duration_since(heard) >= limits::IDENTIFY_EVERY))
            .filter_map(|(peer, p)| Some((*peer, p.later.take()?)))
            .collect();
        for (peer, info) in due {
            self.identified(peer, *info, now);
        }
    }

    /// Drops what took too long.
    fn forget(&mut self, now: Instant) {
        while let Some(&(at, message)) = self.message_order.front() {
            let open = self.messages.contains_key(&message);
            if open && now.duration_since(at) < limits::VERDICT_WITHIN {
                break;
            }
            self.message_order.pop_front();
            if let Some(open) = self.close_message(message) {
                trace!(waited = ?now.duration_since(open.at), "no verdict came in time");
                count(&self.shared.counters().gossip_late_verdicts);
                self.report(&open.id, &open.source, Verdict::Ignore);
            }
        }
        let old: Vec<_> =
            self.answers.iter().filter(|(_, open)| now.duration_since(open.at) > limits::ASK_TIMEOUT).map(|(answer, _)| *answer).collect();
        for answer in old {
            if let Some(open) = self.answers.remove(&answer) {
                self.answer_closed(&open.peer);
            }
        }
        let silent: Vec<_> = self
            .peers
            .iter()
            .filter(|(_, p)| p.heard.is_none() && now.duration_since(p.since) > limits::IDENTIFY_WITHIN)
            .map(|(peer, _)| *peer)
            .collect();
        for peer in silent {
            debug!(%peer, "dropped a peer that does not say who it is");
            self.swarm.behaviour_mut().gate.refuse(peer, limits::IDENTIFY_WITHIN);
        }
    }

    /// Application scores decay; who has sunk too low is sent away.
    fn judge(&mut self, now: Instant) {
        for (peer, score) in self.application.refresh(now) {
            self.swarm.behaviour_mut().gossip.set_application_score(&peer, score);
        }
        let behaviour = self.swarm.behaviour_mut();
        for (peer, connected) in &self.peers {
            let score = behaviour.gossip.peer_score(peer).unwrap_or(0.0);
            if score < scoring::DROP {
                warn!(%peer, agent = connected.agent, score, "a peer misbehaves and is refused for a while");
                behaviour.gate.refuse(*peer, limits::REFUSED_FOR);
            }
        }
    }

    fn publish_view(&mut self, now: Instant) {
        let gossip = &self.swarm.behaviour().gossip;
        let mut peers: Vec<PeerInfo> = self
            .peers
            .iter()
            .map(|(id, peer)| PeerInfo {
                number: peer.number.0,
                peer_id: id.to_string(),
                address: peer.address.to_string(),
                outbound: peer.outbound,
                agent: peer.agent.clone(),
                node: peer.up,
                score: gossip.peer_score(id).unwrap_or(0.0),
                ping_ms: peer.ping_ms,
                connected_secs: now.duration_since(peer.since).as_secs(),
            })
            .collect();
        peers.sort_unstable_by_key(|peer| peer.number);
        let listening = self.swarm.listeners().map(|a| a.clone().with_p2p(self.local).unwrap_or_else(|a| a).to_string()).collect();
        for (name, used, limit) in [
            ("peers", self.peers.len(), limits::CONNECTIONS_MAX as usize),
            ("gossip_open", self.messages.len(), limits::OPEN_MESSAGES_MAX),
            ("publish_waiting", self.outbox.len(), limits::OUTBOX_MAX),
            ("asks_open", self.asks.len(), limits::OPEN_ASKS_MAX),
            ("answers_open", self.answers.len(), limits::OPEN_ANSWERS_MAX),
            ("net_backlog", self.backlog.len(), limits::NET_BACKLOG),
        ] {
            self.shared.set_pool(name, used, limit);
        }
        self.view.send_replace(Arc::new(NetView { peers, listening }));
    }
}
