//! One whole node of the process.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use libp2p::Multiaddr;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tops_compute::queue::Queue;
use tops_node::auditor::Auditor;
use tops_node::driver::{self, Clock, Parts};
use tops_node::keys;
use tops_node::miner::{self, Miner, Terms};
use tops_node::net::task::{Settings, start_over};
use tops_node::state::{Event, Identity, Shared};
use tops_node::verifier::{Verdicts, Verifier};
use tops_protocol::engine::{AuditRate, Config, Engine, Input, Mining, RETAIN_EPOCHS_DEFAULT, Shard};
use tops_protocol::keys::SecretKey;
use tops_protocol::network::Fields;
use tops_protocol::{Millis, NetworkSpec, Text, UnitId};
use tops_store::Writer;
use tops_store::memory::MemoryDisk;

use super::device::Remembering;
use super::wires::Wires;

/// A share every 64 attempts and a head every 256 shares: 13 seconds apart at 20 shares a second.
///
/// # Errors
/// Never, unless the law's bounds change.
pub fn network() -> anyhow::Result<NetworkSpec> {
    let now = u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis())?;
    Ok(NetworkSpec::new(Fields {
        m: 16,
        n: 256,
        k: 256,
        spacing_secs: 13,
        half_life_secs: 600,
        genesis_bits: 0x1f03_ffff,
        easiest_bits: 0x1f3f_ffff,
        share_log2: 8,
        stale_window: 3,
        genesis_time_ms: now,
    })?)
}

/// The key of the node with this number.
pub(super) fn key(node: u32) -> anyhow::Result<SecretKey> {
    let mut bytes = [0x5a; 32];
    bytes[..4].copy_from_slice(&node.to_be_bytes());
    SecretKey::from_bytes(&bytes).context("no key has these bytes")
}

/// Where it listens.
pub(super) fn address(node: u32, base: u64) -> Multiaddr {
    Multiaddr::empty().with(libp2p::multiaddr::Protocol::Memory(base + u64::from(node) + 1))
}

/// What all nodes of a process share.
#[derive(Clone)]
pub(super) struct Ground {
    pub(super) spec: NetworkSpec,
    pub(super) wires: Arc<Wires>,
    pub(super) device: Arc<Remembering>,
    /// In front of that device, for all of them.
    pub(super) queue: Arc<Queue>,
    /// What signatures came to.
    pub(super) verdicts: Verdicts,
    /// Memory addresses of this network begin here, so that two networks of one process do not meet.
    pub(super) base: u64,
}

impl Ground {
    pub(super) fn settings(&self, node: u32, bootstrap: &[u32]) -> anyhow::Result<Settings> {
        Ok(Settings {
            key: keys::identity(&key(node)?)?,
            tag: self.spec.tag(),
            agent: "memnet/1".into(),
            listen: vec![address(node, self.base)],
            external: vec![address(node, self.base)],
            bootstrap: bootstrap.iter().map(|other| address(*other, self.base)).collect(),
            mdns: false,
            relay: false,
            remembered: None,
        })
    }

    pub(super) fn shared(&self, node: u32, mines: bool) -> anyhow::Result<Shared> {
        let key = key(node)?;
        Ok(Shared::new(Identity {
            peer_id: keys::identity(&key)?.public().to_peer_id().to_string(),
            miner: key.public(),
            device_did: format!("did:memnet:{node}"),
            agent: "memnet/1".into(),
            network_name: "memnet".into(),
            verify_only: !mines,
            alone: false,
            started_at: Clock::new().now(),
        }))
    }
}

/// A share as a node came to know it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    pub(super) unit: UnitId,
    pub(super) at: Instant,
    /// Whether it is this node's own, now public.
    pub(super) own: bool,
}

/// A node that runs.
pub struct Member {
    /// Its number.
    pub node: u32,
    /// What it shows.
    pub shared: Shared,
    /// Hits for it; only miners have it.
    pub(super) hits: Option<mpsc::Sender<Input>>,
    stop: watch::Sender<bool>,
    all: JoinHandle<anyhow::Result<()>>,
    seen: JoinHandle<(Vec<Seen>, u64)>,
}

impl Member {
    pub(super) fn start(ground: &Ground, node: u32, bootstrap: &[u32], mines: bool) -> anyhow::Result<Self> {
        let key = key(node)?;
        let shared = ground.shared(node, mines)?;
        let settings = ground.settings(node, bootstrap)?;
        let ways = ground.wires.ways(node, &settings.key)?;
        let store = MemoryDisk::new().open(ground.spec.id())?.store;
        let mut secret = [0; 32];
        secret[..4].copy_from_slice(&node.to_be_bytes());
        let config = Config {
            network: ground.spec.clone(),
            mining: mines.then(|| Mining {
                miner: key.public(),
                device_did: Text::cleaned(&format!("did:memnet:{node}")),
                driver_hint: Text::cleaned("cpu"),
            }),
            alone: false,
            light: false,
            audit_rate: AuditRate::DEFAULT,
            audit_shard: Shard::ALL,
            bridge: None,
            retain_epochs: RETAIN_EPOCHS_DEFAULT,
            checkpoints: Vec::new(),
            secret,
        };
        let snapshot = store.snapshot(Engine::heads_wanted_from(&config, 0))?;
        let engine = Engine::restore(config, snapshot);
        let net = start_over(settings, ways, shared.clone())?;
        let clock = Clock::new();
        let ears = miner::ears();
        let queue = Arc::clone(&ground.queue);
        let (auditor, audited) = Auditor::new(Arc::clone(&queue), shared.clone());
        let (verifier, verified) = Verifier::here(ground.spec.clone(), mines.then(|| key.clone()), shared.clone(), ground.verdicts.clone());
        let (hits, miner) = if mines {
            let terms = Terms { miner: key.public(), shape: ground.spec.shape(), target: Duration::from_millis(300) };
            // Its thread hears of every job and has no device to search with; hits come from outside.
            let (miner, _) = Miner::start(ears, queue, terms, clock.clone(), shared.clone())?;
            let (hits, found) = mpsc::channel(64);
            (Some(hits), Some((miner, found)))
        } else {
            (None, None)
        };
        let (_, bridge) = driver::bridge_words();
        let (stop, stopped) = watch::channel(false);
        let seen = tokio::spawn(watch_events(shared.clone()));
        let parts = Parts {
            engine,
            clock,
            shared: shared.clone(),
            net,
            verifier,
            verified,
            auditor,
            audited,
            miner,
            writer: Writer::here(Arc::clone(&store)),
            store,
            bridge,
            stop: stopped,
        };
        let all = tokio::spawn(async move { Ok(driver::run(parts).await?) });
        Ok(Self { node, shared, hits, stop, all, seen })
    }

    /// Nodes that it is connected to.
    pub fn nodes(&self) -> usize {
        self.shared.view().map_or(0, |view| view.peers.iter().filter(|peer| peer.node).count())
    }

    /// A counter of it.
    pub fn counter(&self, name: &str) -> u64 {
        self.shared.counters().values().into_iter().find(|(known, _)| *known == name).map_or(0, |(_, value)| value)
    }

    /// Ends it; gives what it saw, and how many of its words were missed.
    pub(super) async fn stop(self) -> anyhow::Result<(Vec<Seen>, u64)> {
        self.stop.send_replace(true);
        self.all.await.context("a node's loop panicked")??;
        self.seen.await.context("a node's watcher panicked")
    }
}

/// Writes down every share with its time, until the node stops.
async fn watch_events(shared: Shared) -> (Vec<Seen>, u64) {
    let (mut events, mut seen, mut missed) = (shared.events(), Vec::new(), 0);
    let mut look = tokio::time::interval(Duration::from_millis(500));
    loop {
        let event = tokio::select! {
            event = events.recv() => event,
            _ = look.tick() => match events.try_recv() {
                Ok(event) => Ok(event),
                Err(_) if shared.stopping() => return (seen, missed),
                Err(_) => continue,
            },
        };
        match event {
            Ok(Event::Share { unit, .. }) => seen.push(Seen { unit, at: Instant::now(), own: false }),
            Ok(Event::Acknowledged { unit, .. }) => seen.push(Seen { unit, at: Instant::now(), own: true }),
            Ok(_) => {}
            Err(RecvError::Lagged(lost)) => missed += lost,
            Err(RecvError::Closed) => return (seen, missed),
        }
    }
}

/// The time, as nodes have it.
pub(super) fn now() -> Millis {
    Clock::new().now()
}
