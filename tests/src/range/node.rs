//! One node of the range: an engine, and what a driver, a mesh and a device keep around it.

use std::collections::{HashMap, VecDeque};

use rand::Rng;
use rand::rngs::StdRng;
use tops_protocol::engine::{AuditId, AuditOutcome, AuditRate, Config, Engine, Job, Mining, Output, RETAIN_EPOCHS_DEFAULT, Shard, Topic};
use tops_protocol::keys::SecretKey;
use tops_protocol::verify::Semantic;
use tops_protocol::{Millis, PublicKey, Root, Text, U256, UnitId};

use super::earth;
use super::plan::{Plan, START_MS};

/// A peer below the first is not heard, below the second disconnected.
pub use tops_node::net::scoring::{DROP, GRAYLIST};

/// A connection, as one side sees it.
#[derive(Debug, Clone)]
pub struct Link {
    /// To whom.
    pub to: u32,
    /// Whether messages are forwarded on it, or only offered.
    pub mesh: bool,
    /// Messages that every node rejects, by topic, and the application's part; both decay.
    invalid: [f64; 3],
    application: f64,
    at_us: u64,
}

impl Link {
    pub fn new(to: u32, mesh: bool) -> Self {
        Self { to, mesh, invalid: [0.0; 3], application: 0.0, at_us: 0 }
    }
    fn decay(&mut self, now_us: u64) {
        let secs = now_us.saturating_sub(self.at_us) as f64 / 1e6;
        self.at_us = now_us;
        self.invalid.iter_mut().for_each(|n| *n *= 0.5f64.powf(secs / 180.0));
        self.application *= 0.5f64.powf(secs / 120.0);
    }
    /// The score, as the node's gossip computes it: the square of invalid messages, and what the engine saw.
    pub fn score(&mut self, now_us: u64) -> f64 {
        self.decay(now_us);
        let squares: f64 = [30.0, 12.0, 12.0].iter().zip(&self.invalid).map(|(weight, n)| -weight * n * n).sum();
        squares - self.application
    }
    pub fn reject(&mut self, topic: Topic, now_us: u64) -> f64 {
        self.decay(now_us);
        self.invalid[topic as usize] += 1.0;
        self.score(now_us)
    }
    pub fn penalise(&mut self, cost: f64, now_us: u64) -> f64 {
        self.decay(now_us);
        self.application += cost;
        self.score(now_us)
    }
}

/// A node.
pub struct Node {
    pub engine: Engine,
    pub key: SecretKey,
    pub miner: PublicKey,
    pub adversary: bool,
    pub faulty: bool,
    pub light: bool,
    /// Whether it has started.
    pub alive: bool,
    pub place: earth::Place,
    pub skew_ms: i64,
    /// Which half it falls into when the network is split.
    pub side: bool,
    pub links: Vec<Link>,
    /// What it has accepted and may still offer.
    pub cache: VecDeque<(u64, u32)>,
    pub device: VecDeque<(AuditId, AuditOutcome)>,
    pub device_free_us: u64,
    /// What waits for its commit.
    pub unflushed: VecDeque<Vec<Output>>,
    pub job: Option<Job>,
    pub nonce: u64,
    pub tip: Root,
    pub height: u64,
    /// Units that it has in another form than the world's first.
    pub variants: HashMap<UnitId, Semantic>,
    pub bans: HashMap<PublicKey, Semantic>,
    /// Adversaries' credit in its ledger.
    pub credit: HashMap<PublicKey, U256>,
}

/// A key that depends on seed and number alone.
pub fn key_of(seed: u64, number: u64) -> SecretKey {
    let mut scalar = [0; 32];
    scalar[..8].copy_from_slice(&seed.to_be_bytes());
    scalar[8..16].copy_from_slice(&(number + 1).to_be_bytes());
    scalar[31] = 1;
    match SecretKey::from_bytes(&scalar) {
        Some(key) => key,
        None => unreachable!("far below the order and not zero"),
    }
}

impl Node {
    pub fn new(index: usize, plan: &Plan, mines: bool, rng: &mut StdRng) -> Self {
        let key = key_of(plan.seed, index as u64);
        let adversary = index >= plan.engines - plan.adversaries();
        let faulty = adversary && plan.kind == super::Kind::FaultyDevice;
        let text = |text: &str| Text::cleaned(text);
        let mining = Mining { miner: key.public(), device_did: text(&format!("did:range:{index}")), driver_hint: text("CPU") };
        // Whatever is in nobody's shard is audited only when it is drawn or must be.
        let nobodys = Shard::new(u64::MAX, u64::MAX - 1).unwrap_or(Shard::ALL);
        let light = !mines && index.is_multiple_of(2);
        let config = Config {
            network: plan.network.clone(),
            mining: (mines && (!adversary || faulty)).then_some(mining),
            alone: false,
            light,
            audit_rate: AuditRate::from_ppm(plan.audit_ppm).unwrap_or(AuditRate::DEFAULT),
            audit_shard: if plan.only_drawn { nobodys } else { Shard::ALL },
            bridge: None,
            retain_epochs: RETAIN_EPOCHS_DEFAULT,
            checkpoints: Vec::new(),
            secret: rng.random(),
        };
        Self {
            tip: plan.network.genesis(),
            engine: Engine::new(config),
            miner: key.public(),
            key,
            adversary: adversary && !faulty,
            faulty,
            light,
            alive: true,
            place: earth::settle(rng),
            skew_ms: rng.random_range(-300..=300),
            side: index.is_multiple_of(2),
            links: Vec::new(),
            cache: VecDeque::new(),
            device: VecDeque::new(),
            device_free_us: 0,
            unflushed: VecDeque::new(),
            job: None,
            nonce: 0,
            height: 0,
            variants: HashMap::new(),
            bans: HashMap::new(),
            credit: HashMap::new(),
        }
    }
    /// Its clock.
    pub fn clock(&self, now_us: u64) -> Millis {
        Millis((START_MS + now_us / 1_000).saturating_add_signed(self.skew_ms))
    }
    pub fn link(&mut self, to: u32) -> Option<&mut Link> {
        self.links.iter_mut().find(|link| link.to == to)
    }
}
