//! One simulated node: an engine with its memory disk, its clock, its key, and what a driver keeps around them.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

use tops_protocol::engine::{
    AnswerId, AskId, AuditRate, Bridge, BridgeScope, Config, Engine, Job, Message, Mining, Op, Output, Peer, RETAIN_EPOCHS_DEFAULT, Shard,
    Topic,
};
use tops_protocol::keys::SecretKey;
use tops_protocol::verify::Semantic;
use tops_protocol::{Height, Millis, NetworkSpec, PublicKey, Text, UnitId};
use tops_store::Store;
use tops_store::memory::MemoryDisk;

use super::cheat::Cheat;

/// A gossip message as it travels: its id is that of the bytes, as on the real wire (spec §6).
#[derive(Debug)]
pub struct Bytes {
    /// `H(topic ‖ bytes)[..20]`.
    pub id: [u8; 20],
    /// On which topic.
    pub topic: Topic,
    /// What stages 1 and 2 make of the bytes; `None`: they refuse them.
    pub receipt: Option<Semantic>,
}

/// A node; dead while it has no engine.
pub struct Node {
    /// Its settings.
    pub config: Config,
    /// Its key, also when it does not mine.
    pub key: SecretKey,
    /// Whether it mines.
    pub mines: bool,
    /// Its clock's error.
    pub skew_ms: i64,
    /// How it cheats.
    pub cheat: Option<Cheat>,
    /// Its mind.
    pub engine: Option<Engine>,
    /// Counts its lives, so that what belongs to an earlier one is dropped.
    pub life: u32,
    /// Units of its own that it said are durable and public.
    pub acknowledged: BTreeSet<UnitId>,
    disk: MemoryDisk,
    store: Arc<dyn Store>,
    pub(super) job: Option<Job>,
    pub(super) nonce: u64,
    pub(super) peers: BTreeMap<Peer, usize>,
    pub(super) numbers: BTreeMap<usize, Peer>,
    pub(super) next_number: u64,
    pub(super) seen: HashSet<[u8; 20]>,
    pub(super) cache: VecDeque<(u64, Rc<Bytes>)>,
    pub(super) open: BTreeMap<Message, (Rc<Bytes>, usize, u64)>,
    pub(super) unflushed: VecDeque<(Vec<Op>, Vec<Output>)>,
    pub(super) answers: BTreeMap<AnswerId, (usize, u32, AskId)>,
}

impl Node {
    pub(super) fn new(index: usize, seed: u64, network: &NetworkSpec, mines: bool, bridges: bool, audit_ppm: u32) -> Self {
        let mut scalar = [0; 32];
        scalar[..8].copy_from_slice(&seed.to_be_bytes());
        scalar[8..16].copy_from_slice(&(index as u64 + 1).to_be_bytes());
        scalar[31] = 1;
        let Some(key) = SecretKey::from_bytes(&scalar) else { unreachable!("far below the order and not zero") };
        let text = |text: &str| Text::cleaned(text);
        let mining = Mining { miner: key.public(), device_did: text(&format!("did:sim:{index}")), driver_hint: text("CPU") };
        let config = Config {
            network: network.clone(),
            mining: mines.then_some(mining),
            alone: false,
            light: !mines && index.is_multiple_of(5),
            audit_rate: AuditRate::from_ppm(audit_ppm).unwrap_or(AuditRate::ALL),
            audit_shard: Shard::ALL,
            bridge: bridges.then_some(Bridge { scope: BridgeScope::All, shard: Shard::ALL, depth: 2 }),
            retain_epochs: RETAIN_EPOCHS_DEFAULT,
            checkpoints: Vec::new(),
            secret: scalar,
        };
        let disk = MemoryDisk::new();
        let store = Self::opened(&disk, network);
        Self {
            config,
            key,
            mines,
            skew_ms: 0,
            cheat: None,
            engine: None,
            life: 0,
            acknowledged: BTreeSet::new(),
            disk,
            store,
            job: None,
            nonce: 0,
            peers: BTreeMap::new(),
            numbers: BTreeMap::new(),
            next_number: 0,
            seen: HashSet::new(),
            cache: VecDeque::new(),
            open: BTreeMap::new(),
            unflushed: VecDeque::new(),
            answers: BTreeMap::new(),
        }
    }

    fn opened(disk: &MemoryDisk, network: &NetworkSpec) -> Arc<dyn Store> {
        match disk.open(network.id()) {
            Ok(opened) => opened.store,
            Err(fault) => panic!("the memory store does not open: {fault}"),
        }
    }

    /// Its public key.
    pub fn miner(&self) -> PublicKey {
        self.key.public()
    }
    /// Its store.
    pub fn store(&self) -> &dyn Store {
        self.store.as_ref()
    }
    /// Its clock.
    pub fn clock(&self, now_ms: u64) -> Millis {
        Millis(now_ms.saturating_add_signed(self.skew_ms))
    }

    /// Begins a life with what the disk holds.
    pub(super) fn start(&mut self) {
        self.store = Self::opened(&self.disk, &self.config.network);
        let height = match self.store.main_heads(None, 1) {
            Ok(heads) => heads.first().map_or(0, |head| head.height.0),
            Err(fault) => panic!("{fault}"),
        };
        let snapshot = match self.store.snapshot(Engine::heads_wanted_from(&self.config, height).max(Height(1))) {
            Ok(snapshot) => snapshot,
            Err(fault) => panic!("{fault}"),
        };
        self.engine = Some(Engine::restore(self.config.clone(), snapshot));
    }

    /// Dies without a word: what was not flushed is gone, and so is all memory.
    pub(super) fn kill(&mut self) {
        self.disk.crash();
        self.engine = None;
        self.life += 1;
        self.job = None;
        self.peers.clear();
        self.numbers.clear();
        self.seen.clear();
        self.cache.clear();
        self.open.clear();
        self.unflushed.clear();
        self.answers.clear();
    }

    /// A number for a new connection, never used before in this life.
    pub(super) fn connect(&mut self, to: usize) -> Peer {
        let number = Peer(self.next_number);
        self.next_number += 1;
        self.peers.insert(number, to);
        self.numbers.insert(to, number);
        number
    }
}
