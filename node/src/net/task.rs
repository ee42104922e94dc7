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
//! One owner of the swarm holds every table that ties a number to a libp2p name; what it does with them stands in `lines`, `messages` and
//! `turns`.

mod lines;
mod messages;
mod turns;

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet, VecDeque};
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, bail};
use futures::StreamExt;
use libp2p::core::transport::ListenerId;
use libp2p::gossipsub::{self, MessageAcceptance, MessageId, PublishError, TopicHash};
use libp2p::identity::Keypair;
use libp2p::multiaddr::Protocol;
use libp2p::request_response::{self, OutboundRequestId, ResponseChannel};
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{ConnectionError, ConnectionId, DialError, SwarmEvent};
use libp2p::{Multiaddr, PeerId, Swarm, autonat, dcutr, identify, kad, mdns, ping, relay};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;
use tops_protocol::NetworkTag;
use tops_protocol::engine::{AnswerId, AskId, Message, Peer, PeerFault, Query, Topic, Verdict};
use tracing::{debug, info, trace, warn};

use super::behaviour::{Behaviour, Event, Extras, Names, SyncEvent, swarm};
use super::book::{Book, Reach, listed, reach};
use super::budget::Budget;
use super::codec::{RawReply, WireFault};
use super::dial::complaint;
use super::gate::Refused;
use super::line::is_flood;
use super::numbers::Numbers;
use super::remembered::Remembered;
use super::ways::{self, Ways};
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
    /// Whether to be reached through relays, and to reach others so, where there is no direct way.
    pub relay: bool,
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
    pub peers: Arc<[PeerInfo]>,
    /// Where this node listens, with its id.
    pub listening: Arc<[String]>,
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
    let ways = ways::internet(&settings.key).context("the network cannot be started")?;
    start_over(settings, ways, shared)
}

/// The same over given ways to other nodes.
///
/// # Errors
/// As [`start`].
pub fn start_over(settings: Settings, ways: Ways, shared: Shared) -> anyhow::Result<Net> {
    let names = Names::new(settings.tag);
    // Whoever says where it is reached, or listens only where its neighbours are, knows better than a rendezvous.
    let near = |a: &Multiaddr| matches!(reach(a), Some(Reach::Loopback | Reach::Private));
    let neighbourly = !settings.relay && !settings.listen.is_empty() && settings.listen.iter().all(near);
    let probed = settings.external.is_empty() && !neighbourly;
    let extras = Extras { neighbours: settings.mdns, relayed: settings.relay, probed };
    let mut swarm = swarm(&settings.key, &names, &settings.agent, extras, ways).context("the network cannot be started")?;
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
    let local = *swarm.local_peer_id();
    let (command_tx, commands) = mpsc::channel(limits::NET_COMMANDS);
    let (events, event_rx) = mpsc::channel(limits::NET_EVENTS);
    let (view_tx, view) = watch::channel(Arc::new(NetView::default()));
    let remembered = Remembered::open(settings.remembered);
    let mut book = Book::new(local, settings.bootstrap, settings.relay, Instant::now());
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
        relays: settings.relay.then(HashMap::new),
        out_of_reach: false,
        useful: Instant::now(),
        exchanged: Instant::now(),
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
    /// Whether the line goes through a relay.
    relayed: bool,
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
    /// For messages that come to nothing.
    useless: Budget,
    /// How many came past that, since the last one that counted as greed.
    overdrawn: u32,
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
    /// Relays that are connected, when the operator wants any, with what is listened on there; bounded by the connections.
    relays: Option<HashMap<PeerId, Relayed>>,
    /// Whether a rendezvous found that nobody reaches this node.
    out_of_reach: bool,
    /// When gossip last brought something that was accepted.
    useful: Instant,
    /// When a line was last given up for another one.
    exchanged: Instant,
    seconds: Instant,
}

/// A relay.
struct Relayed {
    address: Multiaddr,
    listener: Option<ListenerId>,
    asked: Option<Instant>,
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
}
