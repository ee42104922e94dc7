//! The adversaries' common mind: they are one, know of each other's finds at once, and run honest engines to follow the chain.
//!
//! Here is what they mine on and what they do with what they find; the rest of their tricks is in [`super::tricks`].

use std::collections::{BTreeMap, HashSet, VecDeque};

use rand::Rng;
use tops_protocol::engine::{Input, Message, Peer, Topic};
use tops_protocol::verify::{ParentFacts, Semantic};
use tops_protocol::{Attempt, Millis, Nonce, Root, U256};

use super::plan::Kind;
use super::world::World;

/// True shares of a key before its first lie.
const STANDING: u32 = 3;
/// True shares that make a key trusted at an audit rate of one in ten, with some to spare.
const TRUSTED: u32 = 14;
/// Lies in the burst of a key that is thrown away.
const BURST: usize = 6;

/// Heads that only the adversaries know, and the shares on them.
#[derive(Default)]
pub(super) struct Private {
    tip: Option<Root>,
    height: u64,
    heads: VecDeque<Semantic>,
    shares: Vec<Semantic>,
    public_height: u64,
}

/// The mind.
pub(super) struct Brain {
    pub kind: Kind,
    pub nodes: Vec<u32>,
    /// True shares that each node's key has shown.
    pub shown: BTreeMap<u32, u32>,
    pub own_heads: HashSet<Root>,
    pub private: Private,
    side: Option<(Root, u32)>,
    pub next_key: u64,
    /// Messages that were copied already.
    pub copied: HashSet<u32>,
}

impl Brain {
    /// The plan's adversaries, if it has any that act.
    pub fn new(world: &mut World) -> Option<Self> {
        let kind = world.kind();
        if matches!(kind, Kind::None | Kind::FaultyDevice) {
            return None;
        }
        let nodes: Vec<u32> = (0..world.nodes.len() as u32).filter(|&i| world.nodes[i as usize].adversary).collect();
        if nodes.is_empty() {
            return None;
        }
        let mut brain = Self {
            kind,
            nodes,
            shown: BTreeMap::new(),
            own_heads: HashSet::new(),
            private: Private::default(),
            side: None,
            next_key: 1 << 32,
            copied: HashSet::new(),
        };
        brain.prepare(world);
        Some(brain)
    }

    pub fn any(&self, world: &mut World) -> u32 {
        self.nodes[world.rng.random_range(0..self.nodes.len())]
    }

    /// One attempt of all adversaries.
    pub fn mine(&mut self, world: &mut World) {
        let node = self.any(world);
        let prev = self.prev(world, node);
        let Some(facts) = world.facts(&prev) else { return };
        let stamp = self.stamp(world, node, &facts);
        let Some((attempt, root)) = world.attempt(node, prev, stamp) else { return };
        if root.ticket() > facts.share_target {
            return;
        }
        world.measure.found(&world.plan.network.clone(), facts.share_target, Some(()));
        world.truth.remember(&attempt, root);
        let Some(receipt) = world.receipt(node, attempt, root, facts.height.0 + 1, "CPU") else { return };
        world.know_true_head(&receipt);
        self.found(world, node, &facts, receipt);
    }

    fn ancestor(world: &World, mut head: Root, below: u64) -> Root {
        for _ in 0..below {
            match world.heads.get(&head) {
                Some(found) if found.place.height.0 > 0 => head = found.parent,
                _ => break,
            }
        }
        head
    }

    /// What to mine on.
    fn prev(&mut self, world: &mut World, node: u32) -> Root {
        let tip = world.nodes[node as usize].tip;
        match self.kind {
            Kind::Withhold => self.private.tip.unwrap_or(tip),
            Kind::Undercut if !self.own_heads.contains(&tip) => Self::ancestor(world, tip, 1),
            Kind::CheapOld if self.shown.get(&node).copied().unwrap_or(0) < TRUSTED => Self::ancestor(world, tip, 3),
            Kind::SideChains => match self.side {
                Some((head, long)) if long < 4 => head,
                _ => {
                    let below = world.rng.random_range(1..40);
                    let base = Self::ancestor(world, tip, below);
                    self.side = Some((base, 0));
                    base
                }
            },
            _ => tip,
        }
    }

    fn stamp(&self, world: &World, node: u32, facts: &ParentFacts) -> Millis {
        let clock = world.nodes[node as usize].clock(world.now_us);
        let (lowest, highest) = (facts.median.plus(1), world.stamp().plus(14_500));
        let height = facts.height.0 + 1;
        let wanted = match (self.kind, node % 4) {
            (Kind::Timestamps, 0) => lowest,
            (Kind::Timestamps, 1) => highest,
            (Kind::Timestamps, 2) if height == 1 => lowest,
            (Kind::Timestamps, 2) => highest,
            // The anchor's parent, the anchor, and what follows; the rest pulls the other way.
            (Kind::Timestamps, _) if height <= 2 || matches!(height % 256, 0..=2) => highest,
            (Kind::Timestamps, _) => lowest,
            _ => clock,
        };
        wanted.max(lowest)
    }

    /// Shows a receipt to everybody, the node's own engine first.
    pub fn show(world: &mut World, node: u32, topic: Topic, receipt: &Semantic) {
        let msg = world.message(topic, Some(receipt.clone()), receipt.wire());
        world.shout(node, msg);
        let message = Message(u64::from(msg) << 32 | u64::from(node));
        world.input(node, Input::Gossip { peer: Peer(node.into()), message, topic, receipt: receipt.clone() });
    }

    fn found(&mut self, world: &mut World, node: u32, facts: &ParentFacts, receipt: Semantic) {
        let head = receipt.root().ticket() <= facts.head_target;
        let topic = if head { Topic::Heads } else { Topic::Receipts };
        if head {
            self.own_heads.insert(receipt.root());
        }
        match self.kind {
            Kind::Withhold => return self.keep(world, node, facts, receipt, head),
            Kind::TwoRoots => return self.two_faced(world, node, facts, &receipt, head, topic),
            Kind::SideChains if head => self.side = Some((receipt.root(), self.side.map_or(0, |(_, long)| long) + 1)),
            _ => {}
        }
        Self::show(world, node, topic, &receipt);
        let shown = self.shown.entry(node).or_default();
        *shown += 1;
        let shown = *shown;
        match self.kind {
            Kind::Inventor if shown > STANDING => self.invent(world, node),
            Kind::CheapOld if shown > TRUSTED => self.invent(world, node),
            Kind::Rotation if shown >= TRUSTED => {
                for _ in 0..BURST {
                    self.invent(world, node);
                }
                self.rotate(world, node);
            }
            _ => {}
        }
    }

    /// A new key for a node; its old one keeps what it has.
    pub fn rotate(&mut self, world: &mut World, node: u32) {
        self.next_key += 1;
        let key = super::node::key_of(world.plan.seed, self.next_key);
        world.measure.watch(key.public());
        let at = &mut world.nodes[node as usize];
        (at.miner, at.key) = (key.public(), key);
        self.shown.remove(&node);
    }

    /// A lie of a key that nobody knows; the node keeps its own.
    pub fn strangers_lie(&mut self, world: &mut World, node: u32, as_head: bool) -> Option<Semantic> {
        self.next_key += 1;
        let stranger = super::node::key_of(world.plan.seed, self.next_key);
        let at = &mut world.nodes[node as usize];
        let own = (std::mem::replace(&mut at.miner, stranger.public()), std::mem::replace(&mut at.key, stranger));
        let lie = self.lie(world, node, as_head);
        let at = &mut world.nodes[node as usize];
        (at.miner, at.key) = own;
        lie
    }

    /// An attempt of a node on its tip that was never made, and a root for it.
    pub fn lie(&mut self, world: &mut World, node: u32, as_head: bool) -> Option<Semantic> {
        let tip = world.nodes[node as usize].tip;
        let facts = world.facts(&tip)?;
        let at = &mut world.nodes[node as usize];
        at.nonce += 1;
        let (miner, nonce) = (at.miner, Nonce::new(at.nonce)?);
        let timestamp = at.clock(world.now_us).max(facts.median.plus(1));
        let attempt = Attempt { prev_hash: tip, miner, nonce, timestamp, shape: world.plan.network.shape() };
        let lie = self.false_receipt(world, node, attempt, &facts, as_head)?;
        if !as_head {
            world.measure.lied(lie.unit(), miner);
        }
        Some(lie)
    }

    fn false_receipt(&mut self, world: &mut World, node: u32, attempt: Attempt, facts: &ParentFacts, as_head: bool) -> Option<Semantic> {
        let (low, high) = if as_head { (U256::ZERO, facts.head_target) } else { (facts.head_target, facts.share_target) };
        let offset = U256::from_limbs(std::array::from_fn(|_| world.rng.random())) % (high - low);
        let root = Root((low + U256::from(1) + offset).to_be_bytes());
        let receipt = world.receipt(node, attempt, root, facts.height.0 + 1, "CPU")?;
        world.by_wire.insert(receipt.wire().to_vec(), receipt.clone());
        Some(receipt)
    }

    pub fn invent(&mut self, world: &mut World, node: u32) {
        if let Some(lie) = self.lie(world, node, false) {
            let msg = world.message(Topic::Receipts, Some(lie.clone()), lie.wire());
            world.shout(node, msg);
        }
    }

    /// One unit with two roots, each for half of the peers.
    fn two_faced(&mut self, world: &mut World, node: u32, facts: &ParentFacts, receipt: &Semantic, head: bool, topic: Topic) {
        let Some(lie) = self.false_receipt(world, node, receipt.attempt(), facts, head) else { return };
        let truth = world.message(topic, Some(receipt.clone()), receipt.wire());
        let lie = world.message(topic, Some(lie.clone()), lie.wire());
        let to: Vec<u32> = world.nodes[node as usize].links.iter().map(|link| link.to).collect();
        for (i, to) in to.into_iter().enumerate() {
            world.send(node, to, if i % 2 == 0 { truth } else { lie }, 1);
        }
        Self::show(world, node, topic, receipt);
    }

    // Withheld heads, as Eyal and Sirer describe it.

    fn keep(&mut self, world: &mut World, node: u32, facts: &ParentFacts, receipt: Semantic, head: bool) {
        let private = self.private.tip == Some(receipt.receipt().prev_hash) && !self.private.heads.is_empty();
        if !head {
            if private {
                self.private.shares.push(receipt)
            } else {
                Self::show(world, node, Topic::Receipts, &receipt)
            }
            return;
        }
        // In a race at the same height the next head decides, so it is shown at once.
        let race = self.private.heads.is_empty() && self.private.tip.is_some() && facts.height.0 == self.private.public_height;
        self.private.tip = Some(receipt.root());
        self.private.height = facts.height.0 + 1;
        self.private.heads.push_back(receipt);
        if race && self.private.public_height > 0 {
            self.reveal(world, u64::MAX);
        }
    }

    /// Shows withheld heads up to a height, and the shares on what is known by then.
    fn reveal(&mut self, world: &mut World, up_to: u64) {
        let node = self.nodes[0];
        let mut known: HashSet<Root> = HashSet::new();
        while let Some(head) = self.private.heads.front().filter(|head| head.receipt().epoch_id <= up_to).cloned() {
            self.private.heads.pop_front();
            known.insert(head.root());
            // All adversaries show it at once.
            for node in self.nodes.clone() {
                Self::show(world, node, Topic::Heads, &head);
            }
        }
        let (shown, kept): (Vec<_>, Vec<_>) = std::mem::take(&mut self.private.shares)
            .into_iter()
            .partition(|share| up_to == u64::MAX || known.contains(&share.receipt().prev_hash));
        self.private.shares = kept;
        for share in shown {
            Self::show(world, node, Topic::Receipts, &share);
        }
    }

    /// A head of somebody else is public.
    pub fn public_head(&mut self, world: &mut World, root: Root, height: u64) {
        if self.own_heads.contains(&root) || height <= self.private.public_height {
            return;
        }
        self.private.public_height = height;
        if self.private.tip.is_none() {
            return;
        }
        match self.private.height.checked_sub(height) {
            // Behind: what was kept is lost, its shares may still earn.
            None => {
                self.reveal(world, u64::MAX);
                self.private.tip = None;
            }
            Some(0 | 1) => self.reveal(world, u64::MAX),
            Some(_) => self.reveal(world, height),
        }
    }
}
