//! Virtual time, the mesh, and the miners: what happens when.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};

use rand::rngs::StdRng;
use rand::seq::index;
use rand::{Rng, SeedableRng};
use tops_protocol::engine::{AnswerId, AskId, Input, Message, Peer, Place, Query, Reply, Topic};
use tops_protocol::receipt::{Draft, KERNEL_V2};
use tops_protocol::verify::{Semantic, Structural};
use tops_protocol::{Attempt, Millis, Nonce, Receipt, Root, Signature, Text, UnitId};

use super::brain::Brain;
use super::earth;
use super::node::{GRAYLIST, Link, Node};
use super::plan::{ATTEMPTS_PER_HEAD, Kind, Plan, SPACING_SECS, START_MS};
use super::report::Measure;
use crate::sim::Truth;

pub(super) const SECOND_US: u64 = 1_000_000;
const TICK_US: u64 = 250_000;
const HEARTBEAT_US: u64 = SECOND_US;
/// Members of a node's mesh, and connections in all.
const MESH: usize = 8;
const CONNECTIONS: usize = 16;
/// How many peers outside of the mesh are offered what is new at each heartbeat, and how far back.
const OFFERED: usize = 6;
const OFFERED_FOR_US: u64 = 3 * SECOND_US;
/// What gossip has seen for longer than this it takes as new.
const SEEN_FOR_US: u64 = 120 * SECOND_US;
/// The driver gives up a question after this.
pub(super) const ANSWER_US: u64 = 10 * SECOND_US;
/// How long everybody has after mining ends.
const SETTLING_US: u64 = 60 * SECOND_US;

/// What is on the queue.
pub(super) enum Event {
    Tick(u32),
    Heartbeat(u32),
    Arrive { to: u32, from: u32, msg: u32 },
    Audited(u32),
    Flush(u32),
    Mine { adversaries: bool },
    Found { node: u32, attempt: Box<Attempt>, root: Root },
    Query { to: u32, from: u32, ask: AskId, query: Box<Query> },
    Reply { to: u32, from: u32, ask: AskId, reply: Box<Reply> },
    Start(u32),
    Connect { a: u32, b: u32 },
    Split(bool),
    Act,
}

/// A message, known by its bytes.
pub(super) struct Gossip {
    pub topic: Topic,
    /// `None`: stages 1 and 2 refuse it.
    pub receipt: Option<Semantic>,
    pub since_us: u64,
    /// When it comes to each node, tenths of a millisecond; 0: it has come.
    eta: Vec<u32>,
}

struct Entry(u64, u64, Event);
impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        (self.0, self.1) == (other.0, other.1)
    }
}
impl Eq for Entry {}
impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.0, self.1).cmp(&(other.0, other.1))
    }
}

/// A head that somebody found, shown or not.
pub(super) struct Found {
    pub place: Place,
    pub parent: Root,
}

/// A run.
pub struct World {
    pub(super) plan: Plan,
    pub(super) nodes: Vec<Node>,
    pub(super) messages: Vec<Gossip>,
    pub(super) measure: Measure,
    pub(super) brain: Option<Brain>,
    pub(super) rng: StdRng,
    pub(super) now_us: u64,
    pub(super) truth: Truth,
    /// All heads by root.
    pub(super) heads: HashMap<Root, Found>,
    pub(super) head_receipts: HashMap<Root, Semantic>,
    /// Receipts by unit, the world's first form of each, and units that have more than one.
    pub(super) by_unit: HashMap<UnitId, Semantic>,
    pub(super) many: HashSet<UnitId>,
    pub(super) by_wire: HashMap<Vec<u8>, Semantic>,
    ids: HashMap<[u8; 20], u32>,
    queue: BinaryHeap<Reverse<Entry>>,
    sequence: u64,
    pub(super) split: bool,
    /// Whether adversaries forward nothing, and to whom they never do.
    pub(super) silent: bool,
    pub(super) victim: Option<u32>,
    pub(super) answers: HashMap<AnswerId, (u32, u32, AskId)>,
    pub(super) next_answer: u64,
    /// Miners and the sum of the hash rates up to each.
    rates: Vec<(u32, f64)>,
}

impl World {
    /// Sets the run up; nothing has happened yet.
    pub fn new(plan: Plan) -> Self {
        let mut rng = StdRng::seed_from_u64(plan.seed ^ 0x7261_6e67_6500);
        let honest = plan.engines - plan.adversaries();
        // Four of five honest nodes mine; what each has follows Pareto's law with the exponent 1.16, by which a fifth of them has four fifths.
        let nodes: Vec<Node> = (0..plan.engines).map(|i| Node::new(i, &plan, i % 5 != 4, &mut rng)).collect();
        let mut rates = Vec::new();
        let mut sum = 0.0;
        for (i, node) in nodes.iter().enumerate().filter(|(i, node)| i % 5 != 4 && !node.adversary) {
            let rate = (1.0 - rng.random::<f64>()).powf(-1.0 / 1.16).min(0.05 * honest.max(100) as f64);
            sum += rate;
            rates.push((i as u32, sum));
            let _ = node;
        }
        let genesis = Found { place: Place::genesis(&plan.network), parent: plan.network.genesis() };
        let mut world = Self {
            measure: Measure::new(&plan, &nodes),
            brain: None,
            now_us: 0,
            truth: Truth::new(),
            heads: HashMap::from([(plan.network.genesis(), genesis)]),
            head_receipts: HashMap::new(),
            by_unit: HashMap::new(),
            many: HashSet::new(),
            by_wire: HashMap::new(),
            ids: HashMap::new(),
            messages: Vec::new(),
            queue: BinaryHeap::new(),
            sequence: 0,
            split: false,
            silent: false,
            victim: None,
            answers: HashMap::new(),
            next_answer: 0,
            rates,
            nodes,
            rng,
            plan,
        };
        world.brain = Brain::new(&mut world);
        world.wire();
        for node in 0..world.nodes.len() as u32 {
            if world.nodes[node as usize].alive {
                world.after(0, Event::Start(node));
            }
        }
        world.after(SECOND_US, Event::Mine { adversaries: false });
        if world.brain.is_some() {
            world.after(SECOND_US, Event::Mine { adversaries: true });
            world.after(SECOND_US, Event::Act);
        }
        if let Some((from, to)) = world.plan.partition {
            world.at(from * SECOND_US, Event::Split(true));
            world.at(to * SECOND_US, Event::Split(false));
        }
        world
    }

    /// Draws the connections: every node opens half of its own.
    fn wire(&mut self) {
        let n = self.nodes.len();
        for a in 0..n {
            let opens = (CONNECTIONS / 2).min(n - 1);
            for b in index::sample(&mut self.rng, n, opens) {
                self.link(a as u32, b as u32, true);
            }
        }
        if let Some(brain) = self.brain.take() {
            brain.rewire(self);
            self.brain = Some(brain);
        }
    }

    /// Joins two nodes, in the mesh while both have room there.
    pub(super) fn link(&mut self, a: u32, b: u32, may_mesh: bool) {
        if a == b || self.nodes[a as usize].links.iter().any(|link| link.to == b) {
            return;
        }
        let room = |node: &Node| node.links.iter().filter(|link| link.mesh).count() < MESH + 1;
        let mesh = may_mesh && room(&self.nodes[a as usize]) && room(&self.nodes[b as usize]);
        self.nodes[a as usize].links.push(Link::new(b, mesh));
        self.nodes[b as usize].links.push(Link::new(a, mesh));
    }

    /// Runs to the end; gives what was measured.
    pub fn run(mut self) -> super::Report {
        let end = self.plan.mining_us() + SETTLING_US;
        while let Some(Reverse(Entry(at, _, event))) = self.queue.pop() {
            if at > end {
                break;
            }
            self.now_us = at;
            self.happen(event);
        }
        self.now_us = end;
        super::report::report(&self)
    }

    pub(super) fn at(&mut self, at_us: u64, event: Event) {
        self.sequence += 1;
        self.queue.push(Reverse(Entry(at_us, self.sequence, event)));
    }
    pub(super) fn after(&mut self, delay_us: u64, event: Event) {
        self.at(self.now_us + delay_us, event);
    }
    /// Whether anybody mines now.
    pub(super) fn mining(&self) -> bool {
        self.now_us < self.plan.mining_us()
    }
    fn asleep(&self) -> Option<u64> {
        let (from, long) = self.plan.sleep?;
        let (from, to) = (from * SECOND_US, (from + long) * SECOND_US);
        (from..to).contains(&self.now_us).then_some(to)
    }
    pub(super) fn carries(&self, a: u32, b: u32) -> bool {
        let (a, b) = (&self.nodes[a as usize], &self.nodes[b as usize]);
        a.alive && b.alive && !(self.split && a.side != b.side)
    }
    pub(super) fn delay_us(&mut self, a: u32, b: u32) -> u64 {
        let (a, b) = (self.nodes[a as usize].place, self.nodes[b as usize].place);
        earth::delay_us(a, b, &mut self.rng)
    }

    /// Gives an engine an input and carries out what it says.
    pub(super) fn input(&mut self, node: u32, input: Input) {
        let at = &mut self.nodes[node as usize];
        if !at.alive {
            return;
        }
        let now = at.clock(self.now_us);
        let outputs = at.engine.handle(input, now);
        self.measure.inputs += 1;
        self.carry_out(node, outputs);
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Tick(node) => {
                self.input(node, Input::Tick);
                // Nothing happens in a sleep that a second would not show.
                let every = if self.asleep().is_some() { 16 * TICK_US } else { TICK_US };
                self.after(every, Event::Tick(node));
            }
            Event::Heartbeat(node) => self.heartbeat(node),
            Event::Arrive { to, from, msg } => self.arrive(to, from, msg),
            Event::Audited(node) => {
                if let Some((audit, outcome)) = self.nodes[node as usize].device.pop_front() {
                    self.input(node, Input::Audited { audit, outcome });
                }
            }
            Event::Flush(node) => {
                if let Some(then) = self.nodes[node as usize].unflushed.pop_front() {
                    self.carry_out(node, then);
                }
            }
            Event::Mine { adversaries } => self.mine(adversaries),
            Event::Found { node, attempt, root } => {
                self.input(node, Input::Found { attempt: *attempt, root, batch: 1, time_ms: 1 });
            }
            Event::Query { to, from, ask, query } => {
                if self.carries(to, from) {
                    let answer = AnswerId(self.next_answer);
                    self.next_answer += 1;
                    self.answers.insert(answer, (to, from, ask));
                    self.input(to, Input::Ask { peer: Peer(from.into()), answer, query: *query });
                }
            }
            Event::Reply { to, from, ask, reply } => self.input(to, Input::Reply { peer: Peer(from.into()), ask, reply: *reply }),
            Event::Start(node) => self.start(node),
            Event::Connect { a, b } => self.connect(a, b),
            Event::Split(begins) => self.partition(begins),
            Event::Act => {
                if let Some(mut brain) = self.brain.take() {
                    brain.act(self);
                    self.brain = Some(brain);
                }
                self.after(TICK_US, Event::Act);
            }
        }
    }

    pub(super) fn start(&mut self, node: u32) {
        self.nodes[node as usize].alive = true;
        let offset = self.rng.random_range(0..TICK_US);
        self.after(offset, Event::Tick(node));
        let offset = self.rng.random_range(0..HEARTBEAT_US);
        self.after(offset, Event::Heartbeat(node));
        let others: Vec<u32> = self.nodes[node as usize].links.iter().map(|link| link.to).collect();
        for other in others {
            if self.nodes[other as usize].alive {
                let delay = self.delay_us(node, other);
                self.after(delay, Event::Connect { a: node, b: other });
            }
        }
    }

    /// A node that was down starts; one that is up meets those whom it does not know yet.
    pub(super) fn start_again(&mut self, node: u32) {
        if !self.nodes[node as usize].alive {
            self.start(node);
            return;
        }
        if let Some(last) = self.nodes[node as usize].links.last().map(|link| link.to) {
            self.after(0, Event::Connect { a: node, b: last });
        }
    }

    fn connect(&mut self, a: u32, b: u32) {
        if self.carries(a, b) && self.nodes[a as usize].link(b).is_some() {
            self.input(a, Input::PeerUp { peer: Peer(b.into()) });
            self.input(b, Input::PeerUp { peer: Peer(a.into()) });
        }
    }

    /// Ends a connection; the side that wanted it so finds another peer.
    pub(super) fn disconnect(&mut self, a: u32, b: u32) {
        let had = self.nodes[a as usize].links.len();
        self.nodes[a as usize].links.retain(|link| link.to != b);
        self.nodes[b as usize].links.retain(|link| link.to != a);
        if self.nodes[a as usize].links.len() == had {
            return;
        }
        self.input(a, Input::PeerDown { peer: Peer(b.into()) });
        self.input(b, Input::PeerDown { peer: Peer(a.into()) });
        let other = self.rng.random_range(0..self.nodes.len()) as u32;
        if self.nodes[other as usize].alive && other != b {
            self.link(a, other, true);
            let delay = self.delay_us(a, other);
            self.after(delay, Event::Connect { a, b: other });
        }
    }

    fn partition(&mut self, begins: bool) {
        let mut across = Vec::new();
        for (a, node) in self.nodes.iter().enumerate() {
            across.extend(
                node.links
                    .iter()
                    .map(|link| link.to)
                    .filter(|&b| (a as u32) < b && self.nodes[b as usize].side != node.side)
                    .map(|b| (a as u32, b)),
            );
        }
        if begins {
            for (a, b) in across {
                self.input(a, Input::PeerDown { peer: Peer(b.into()) });
                self.input(b, Input::PeerDown { peer: Peer(a.into()) });
            }
            self.split = true;
        } else {
            self.split = false;
            self.measure.healed_at = Some((self.now_us, self.best_height()));
            for (a, b) in across {
                let delay = self.rng.random_range(0..5 * SECOND_US);
                self.after(delay, Event::Connect { a, b });
            }
        }
    }

    pub(super) fn best_height(&self) -> u64 {
        self.nodes.iter().filter(|node| node.alive && !node.adversary).map(|node| node.height).max().unwrap_or(0)
    }

    /// Whether all honest nodes that are up show one tip.
    pub(super) fn one_tip(&self) -> bool {
        let mut tips = self.nodes.iter().filter(|node| node.alive && !node.adversary).map(|node| node.tip);
        let first = tips.next();
        tips.all(|tip| Some(tip) == first)
    }

    // Mining.

    /// One attempt of one side, then the next after an exponential time.
    fn mine(&mut self, adversaries: bool) {
        if !self.mining() {
            return;
        }
        if let Some(until) = self.asleep() {
            self.at(until + 1, Event::Mine { adversaries });
            return;
        }
        let part = if adversaries { self.plan.rate() } else { 1.0 - self.plan.rate() };
        if part <= 0.0 {
            return;
        }
        let mean_us = f64::from(SPACING_SECS) * 1e6 / ATTEMPTS_PER_HEAD / part;
        let wait = earth::exponential_us(&mut self.rng, mean_us);
        self.after(1 + wait, Event::Mine { adversaries });
        if adversaries {
            if let Some(mut brain) = self.brain.take() {
                brain.mine(self);
                self.brain = Some(brain);
            }
            return;
        }
        let Some((_, sum)) = self.rates.last().copied() else { return };
        let draw = self.rng.random::<f64>() * sum;
        let at = self.rates.partition_point(|(_, up_to)| *up_to <= draw).min(self.rates.len() - 1);
        let node = self.rates[at].0;
        let Some(job) = self.nodes[node as usize].job else { return };
        let stamp = self.nodes[node as usize].clock(self.now_us).max(job.min_timestamp);
        let Some((attempt, root)) = self.attempt(node, job.prev_hash, stamp) else { return };
        if root.ticket() <= job.share_target {
            self.measure.found(&self.plan.network, job.share_target, None);
            // A launch ends before its hits are read.
            let late = self.rng.random_range(0..150_000);
            self.after(late, Event::Found { node, attempt: Box::new(attempt), root });
        }
    }

    /// Makes one attempt with a node's key.
    pub(super) fn attempt(&mut self, node: u32, prev_hash: Root, timestamp: Millis) -> Option<(Attempt, Root)> {
        let at = &mut self.nodes[node as usize];
        at.nonce += 1;
        let attempt = Attempt { prev_hash, miner: at.miner, nonce: Nonce::new(at.nonce)?, timestamp, shape: self.plan.network.shape() };
        Some((attempt, self.truth.root_once(&attempt)))
    }

    /// A receipt signed by a node's key.
    pub(super) fn receipt(&mut self, node: u32, attempt: Attempt, root: Root, epoch_id: u64, hint: &str) -> Option<Semantic> {
        let draft = Draft::new(Receipt {
            device_did: Text::cleaned("did:range"),
            epoch_id,
            prev_hash: attempt.prev_hash,
            nonce: attempt.nonce,
            work_root: root,
            shape: attempt.shape,
            batch: 1,
            time_ms: 1,
            kernel_ver: Text::cleaned(KERNEL_V2),
            driver_hint: Text::cleaned(hint),
            network: self.plan.network.tag(),
            miner: attempt.miner,
            timestamp: attempt.timestamp,
            sig: Signature([0; 64]),
        });
        self.sign(node, draft)
    }

    /// Stages 1 and 2, once for all engines.
    pub(super) fn sign(&mut self, node: u32, draft: Draft) -> Option<Semantic> {
        let sig = self.nodes[node as usize].key.sign(&draft.prehash());
        let wire = draft.with_signature(sig).to_wire();
        let semantic = Structural::from_wire(&wire, &self.plan.network).ok()?.semantic().ok()?;
        self.know(&semantic);
        Some(semantic)
    }

    /// Keeps a receipt for whoever is asked for it.
    fn know(&mut self, semantic: &Semantic) {
        match self.by_unit.get(&semantic.unit()) {
            None => {
                self.by_unit.insert(semantic.unit(), semantic.clone());
            }
            Some(first) if first.wire() != semantic.wire() => {
                self.many.insert(semantic.unit());
                self.by_wire.insert(semantic.wire().to_vec(), semantic.clone());
                let first = first.clone();
                self.by_wire.insert(first.wire().to_vec(), first);
            }
            Some(_) => {}
        }
    }

    /// Enters a true head into the world's tree.
    pub(super) fn know_head(&mut self, semantic: &Semantic) {
        let receipt = semantic.receipt();
        if let Some(parent) = self.heads.get(&receipt.prev_hash) {
            let place = parent.place.child(&self.plan.network, receipt.timestamp);
            self.head_receipts.entry(receipt.work_root).or_insert_with(|| semantic.clone());
            self.heads.entry(receipt.work_root).or_insert(Found { place, parent: receipt.prev_hash });
        }
    }

    /// What the tree says of work on a head.
    pub(super) fn facts(&self, head: &Root) -> Option<tops_protocol::verify::ParentFacts> {
        self.heads.get(head).map(|found| found.place.facts(&self.plan.network, *head))
    }

    // Gossip.

    /// A message by its bytes; what gossip saw long ago is a new one.
    pub(super) fn message(&mut self, topic: Topic, receipt: Option<Semantic>, bytes: &[u8]) -> u32 {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&[topic as u8]);
        hasher.update(bytes);
        let mut id = [0; 20];
        id.copy_from_slice(&hasher.finalize().as_bytes()[..20]);
        if let Some(&known) = self.ids.get(&id)
            && self.now_us < self.messages[known as usize].since_us + SEEN_FOR_US
        {
            return known;
        }
        let msg = self.messages.len() as u32;
        self.messages.push(Gossip { topic, receipt, since_us: self.now_us, eta: vec![u32::MAX; self.nodes.len()] });
        self.ids.insert(id, msg);
        msg
    }

    /// Sends a message to a peer, unless it comes there sooner by another way.
    pub(super) fn send(&mut self, from: u32, to: u32, msg: u32, trips: u64) {
        if self.messages[msg as usize].eta[to as usize] == 0 || !self.carries(from, to) {
            return;
        }
        let delay = (0..trips).map(|_| self.delay_us(from, to)).sum::<u64>();
        let work = 300 + earth::exponential_us(&mut self.rng, 300.0);
        let at = self.now_us + delay + work;
        let tenths = (at / 100).min(u64::from(u32::MAX) - 1) as u32;
        let eta = &mut self.messages[msg as usize].eta[to as usize];
        if tenths < *eta {
            *eta = tenths.max(1);
            self.at(at, Event::Arrive { to, from, msg });
        }
    }

    /// Sends a message on all connections of a node, as gossip does with its own.
    pub(super) fn shout(&mut self, node: u32, msg: u32) {
        if self.messages[msg as usize].eta[node as usize] == 0 {
            return;
        }
        self.messages[msg as usize].eta[node as usize] = 0;
        self.nodes[node as usize].cache.push_back((self.now_us, msg));
        let to: Vec<u32> = self.nodes[node as usize].links.iter().map(|link| link.to).collect();
        for to in to {
            if self.victim != Some(to) || !self.nodes[node as usize].adversary {
                self.send(node, to, msg, 1);
            }
        }
    }

    /// A message that a node accepted goes on in its mesh.
    pub(super) fn forward(&mut self, node: u32, from: u32, msg: u32) {
        self.nodes[node as usize].cache.push_back((self.now_us, msg));
        let to: Vec<u32> = self.nodes[node as usize].links.iter().filter(|link| link.mesh && link.to != from).map(|link| link.to).collect();
        for to in to {
            if self.speaks(node, to) {
                self.send(node, to, msg, 1);
            }
        }
    }

    fn speaks(&self, node: u32, to: u32) -> bool {
        !self.nodes[node as usize].adversary || (!self.silent && self.victim != Some(to))
    }

    /// Offers what is new to some peers outside of the mesh: who lacks it asks for it.
    fn heartbeat(&mut self, node: u32) {
        self.after(HEARTBEAT_US, Event::Heartbeat(node));
        let old = self.now_us.saturating_sub(OFFERED_FOR_US);
        let at = &mut self.nodes[node as usize];
        while at.cache.front().is_some_and(|(since, _)| *since < old) {
            at.cache.pop_front();
        }
        if at.cache.is_empty() {
            return;
        }
        let outside: Vec<u32> = at.links.iter().filter(|link| !link.mesh).map(|link| link.to).collect();
        let recent: Vec<u32> = at.cache.iter().map(|(_, msg)| *msg).collect();
        for pick in index::sample(&mut self.rng, outside.len(), OFFERED.min(outside.len())) {
            let to = outside[pick];
            if !self.speaks(node, to) {
                continue;
            }
            for &msg in &recent {
                if self.messages[msg as usize].eta[to as usize] != 0 {
                    self.send(node, to, msg, 3);
                }
            }
        }
        if let Some((_, from)) = self.measure.healed_at
            && self.measure.agreed_after.is_none()
            && self.one_tip()
        {
            self.measure.agreed_after = Some(self.best_height() - from);
        }
    }

    fn arrive(&mut self, to: u32, from: u32, msg: u32) {
        if self.messages[msg as usize].eta[to as usize] == 0 {
            return;
        }
        if !self.carries(to, from) {
            self.messages[msg as usize].eta[to as usize] = u32::MAX;
            return;
        }
        let now_us = self.now_us;
        let Some(link) = self.nodes[to as usize].link(from) else {
            // It may come by another way.
            self.messages[msg as usize].eta[to as usize] = u32::MAX;
            return;
        };
        if link.score(now_us) < GRAYLIST {
            self.messages[msg as usize].eta[to as usize] = u32::MAX;
            return;
        }
        self.messages[msg as usize].eta[to as usize] = 0;
        let (topic, receipt) = (self.messages[msg as usize].topic, self.messages[msg as usize].receipt.clone());
        let Some(receipt) = receipt else {
            self.punish(to, from, Some(topic), 0.0);
            return;
        };
        if self.nodes[to as usize].adversary
            && let Some(mut brain) = self.brain.take()
        {
            brain.heard(self, to, msg);
            self.brain = Some(brain);
        }
        let message = Message(u64::from(msg) << 32 | u64::from(from));
        self.input(to, Input::Gossip { peer: Peer(from.into()), message, topic, receipt });
    }

    /// A peer loses score; below the limit its connection ends.
    pub(super) fn punish(&mut self, node: u32, peer: u32, rejected: Option<Topic>, cost: f64) {
        let now_us = self.now_us;
        let Some(link) = self.nodes[node as usize].link(peer) else { return };
        let score = match rejected {
            Some(topic) => link.reject(topic, now_us),
            None => link.penalise(cost, now_us),
        };
        if score < super::node::DROP {
            self.measure.dropped(self.nodes[peer as usize].adversary);
            self.disconnect(node, peer);
        }
    }

    /// The time since the run's start at which a stamp would be right.
    pub(super) fn is_due(&self, secs: u64) -> bool {
        self.now_us >= secs * SECOND_US
    }

    /// The plan's kind.
    pub(super) fn kind(&self) -> Kind {
        self.plan.kind
    }

    /// Virtual time as a stamp.
    pub(super) fn stamp(&self) -> Millis {
        Millis(START_MS + self.now_us / 1_000)
    }
}
