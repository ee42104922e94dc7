//! What adversaries do beside mining: what they copy, flood, keep quiet, and answer.

use rand::Rng;
use tops_protocol::engine::{AnswerId, AskId, Digest, Input, Peer, Query, Reply, Status, Topic};
use tops_protocol::receipt::Draft;
use tops_protocol::{Height, Millis, Receipt, Root, U256};

use super::brain::Brain;
use super::plan::Kind;
use super::world::{SECOND_US, World};

/// Bad messages of all adversaries together in a quarter of a second.
const FLOOD: usize = 20;
/// Questions of one of them in a quarter of a second.
const QUESTIONS: usize = 200;
/// Adversaries around a victim or a newcomer, and honest nodes that it knows.
const AROUND: usize = 12;
const FRIENDS: usize = 2;
/// The victim: a node that mines.
const VICTIM: u32 = 1;

impl Brain {
    /// Who is to be where before the run.
    pub(super) fn prepare(&mut self, world: &mut World) {
        match self.kind {
            Kind::Silent => world.silent = true,
            Kind::Eclipse => {
                world.victim = Some(VICTIM);
                world.measure.excluded.insert(VICTIM);
            }
            Kind::ColdBoot | Kind::SlowLoris => {
                world.measure.excluded.insert(VICTIM);
                world.nodes[VICTIM as usize].alive = false;
            }
            _ => {}
        }
    }

    /// Who knows whom, where that is not left to chance.
    pub(super) fn rewire(&self, world: &mut World) {
        if !matches!(self.kind, Kind::Eclipse | Kind::ColdBoot | Kind::SlowLoris) {
            return;
        }
        let links = std::mem::take(&mut world.nodes[VICTIM as usize].links);
        for link in links {
            world.nodes[link.to as usize].links.retain(|back| back.to != VICTIM);
        }
        for &node in self.nodes.iter().take(AROUND) {
            world.link(VICTIM, node, true);
        }
        if self.kind != Kind::Eclipse {
            for friend in 0..FRIENDS as u32 {
                world.link(VICTIM, VICTIM + 1 + friend, true);
            }
        }
    }

    /// When the victim is freed, the newcomer starts, or the flash comes.
    fn half(world: &World) -> u64 {
        world.plan.mining_us() / 2 / SECOND_US
    }

    /// Every quarter of a second.
    pub(super) fn act(&mut self, world: &mut World) {
        let half = Self::half(world);
        match self.kind {
            Kind::Replay if world.mining() => self.replay(world),
            Kind::Flood if world.mining() => self.flood(world),
            Kind::Flash => {
                if world.is_due(half) && !world.silent && !world.is_due(half + 1) {
                    for node in self.nodes.clone() {
                        for _ in 0..3 {
                            self.invent(world, node);
                        }
                    }
                }
                world.silent = world.is_due(half) && !world.is_due(half + 30);
            }
            Kind::Eclipse | Kind::ColdBoot | Kind::SlowLoris => {
                if world.measure.freed_at_us.is_none() && world.is_due(half) {
                    world.measure.freed_at_us = Some(world.now_us);
                    if self.kind == Kind::Eclipse {
                        world.link(VICTIM, VICTIM + 1, true);
                    }
                    world.start_again(VICTIM);
                }
                let reference = world.measure.reference as usize;
                if world.measure.freed_at_us.is_some()
                    && world.measure.returned_at_us.is_none()
                    && world.nodes[VICTIM as usize].tip == world.nodes[reference].tip
                {
                    world.measure.returned_at_us = Some(world.now_us);
                }
            }
            _ => {}
        }
    }

    /// An adversary's node takes a message, before its engine does.
    pub(super) fn heard(&mut self, world: &mut World, node: u32, msg: u32) {
        let (topic, receipt) = (world.messages[msg as usize].topic, world.messages[msg as usize].receipt.clone());
        let Some(receipt) = receipt else { return };
        match self.kind {
            Kind::Withhold if topic == Topic::Heads => self.public_head(world, receipt.root(), receipt.receipt().epoch_id),
            Kind::Copier if topic == Topic::Receipts && self.copied.insert(msg) => {
                let heard = receipt.receipt().clone();
                let (own, standing) = (world.nodes[node as usize].miner, self.shown.get(&node).copied().unwrap_or(0));
                if standing < 3 || world.measure.is_watched(&heard.miner) {
                    return;
                }
                let copy = Draft::new(Receipt { miner: own, ..heard });
                if let Some(copy) = world.sign(node, copy) {
                    world.by_wire.insert(copy.wire().to_vec(), copy.clone());
                    world.measure.lied(copy.unit(), own);
                    let msg = world.message(Topic::Receipts, Some(copy.clone()), copy.wire());
                    self.copied.insert(msg);
                    world.shout(node, msg);
                }
            }
            _ => {}
        }
    }

    /// Messages that gossip has forgotten, and old shares of their own in new clothes.
    fn replay(&mut self, world: &mut World) {
        let old = world.messages.iter().take_while(|old| old.since_us + 120 * SECOND_US < world.now_us).count();
        if old == 0 {
            return;
        }
        for _ in 0..3 {
            let node = self.any(world);
            let at = world.rng.random_range(0..old);
            let (topic, receipt) = (world.messages[at].topic, world.messages[at].receipt.clone());
            let Some(receipt) = receipt else { continue };
            let msg = world.message(topic, Some(receipt.clone()), receipt.wire());
            world.shout(node, msg);
            let receipt = receipt.receipt().clone();
            if receipt.miner == world.nodes[node as usize].miner {
                let dressed = Draft::new(Receipt { time_ms: world.rng.random_range(2..1_000_000), ..receipt });
                if let Some(dressed) = world.sign(node, dressed) {
                    let msg = world.message(topic, Some(dressed.clone()), dressed.wire());
                    world.shout(node, msg);
                }
            }
        }
    }

    fn flood(&mut self, world: &mut World) {
        for _ in 0..FLOOD {
            let node = self.any(world);
            self.flood_one(world, node);
        }
        let node = self.any(world);
        let links: Vec<u32> = world.nodes[node as usize].links.iter().map(|link| link.to).collect();
        if links.is_empty() {
            return;
        }
        let to = links[world.rng.random_range(0..links.len())];
        for i in 0..QUESTIONS as u64 {
            let query = if i % 2 == 0 { Query::Status { from_epoch: 0 } } else { Query::Shares { epoch: i, after: None } };
            let answer = AnswerId(world.next_answer);
            world.next_answer += 1;
            world.answers.insert(answer, (to, node, AskId(u64::MAX)));
            world.input(to, Input::Ask { peer: Peer(node.into()), answer, query });
        }
    }

    /// One bad message, of every kind in turn by chance.
    fn flood_one(&mut self, world: &mut World, node: u32) {
        let kind = world.rng.random_range(0..9);
        let (topic, receipt) = match kind {
            0 => {
                let garbage: [u8; 32] = world.rng.random();
                let msg = world.message(Topic::Receipts, None, &garbage);
                world.shout(node, msg);
                return;
            }
            1 => (Topic::Receipts, self.strangers_lie(world, node, false)),
            2 => (Topic::Heads, self.strangers_lie(world, node, true)),
            // A true share as an alert.
            3 => {
                let recent = world.messages.iter().rev().find(|old| old.topic == Topic::Receipts && old.receipt.is_some());
                (Topic::Alerts, recent.and_then(|old| old.receipt.clone()))
            }
            // A true alert: a key gets a share accepted, then lies.
            4 if self.shown.get(&node).copied().unwrap_or(0) > 0 => {
                let lie = self.lie(world, node, false);
                self.rotate(world, node);
                (Topic::Receipts, lie)
            }
            4 => return,
            // On a head that nobody knows; ahead of every clock; of another epoch; on the wrong topic.
            _ => {
                let Some(lie) = self.strangers_lie(world, node, false) else { return };
                let mut bad = Receipt { miner: world.nodes[node as usize].miner, ..lie.receipt().clone() };
                match kind {
                    5 => bad.prev_hash = Root(world.rng.random()),
                    6 => bad.timestamp = Millis(bad.timestamp.0 + 3_600_000),
                    7 => bad.epoch_id += 1,
                    _ => {}
                }
                let topic = if kind == 8 { Topic::Heads } else { Topic::Receipts };
                (topic, world.sign(node, Draft::new(bad)))
            }
        };
        if let Some(receipt) = receipt {
            world.by_wire.insert(receipt.wire().to_vec(), receipt.clone());
            let msg = world.message(topic, Some(receipt.clone()), receipt.wire());
            world.shout(node, msg);
        }
    }

    /// What an adversary makes of its engine's answer, and by how much it comes later, microseconds.
    pub(super) fn answers(&self, world: &World, to: u32, reply: Reply) -> (Reply, u64) {
        match (self.kind, reply) {
            // The victim is to believe that it is alone.
            (Kind::Eclipse, Reply::Status(_)) if to == VICTIM => {
                let genesis = world.plan.network.genesis();
                let status = Status {
                    tip: genesis,
                    height: Height(0),
                    work: U256::ZERO,
                    first_epoch: 1,
                    epochs: Vec::new(),
                    bans: Digest::default(),
                };
                (Reply::Status(status), 0)
            }
            (Kind::Eclipse, _) if to == VICTIM => (Reply::Failed, 0),
            (Kind::ColdBoot, Reply::Status(status)) => {
                let tip = Root(*blake3::hash(&world.now_us.to_le_bytes()).as_bytes());
                (Reply::Status(Status { tip, height: Height(status.height.0 + 1_000), work: U256::MAX, ..status }), 0)
            }
            (Kind::ColdBoot, _) => (Reply::Failed, 9 * SECOND_US),
            (Kind::SlowLoris, Reply::Status(status)) => (Reply::Status(status), 0),
            (Kind::SlowLoris, Reply::Heads(mut heads)) => {
                heads.truncate(1);
                (Reply::Heads(heads), 9 * SECOND_US)
            }
            (Kind::SlowLoris, Reply::Shares { mut receipts, .. }) => {
                let more = receipts.len() > 1;
                receipts.truncate(1);
                (Reply::Shares { receipts, more }, 9 * SECOND_US)
            }
            (Kind::SlowLoris, reply) => (reply, 9 * SECOND_US),
            (_, reply) => (reply, 0),
        }
    }
}
