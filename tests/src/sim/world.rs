//! Virtual time, the wires, and the driver's part: what goes in and out of every engine, in order.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap};
use std::rc::Rc;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tops_protocol::engine::{
    Answer, AnswerId, AskId, AuditId, AuditOutcome, Input, Message, Note, Op, OutboxState, Output, Peer, PeerFault, Query, Reply, Topic,
    Verdict,
};
use tops_protocol::receipt::Draft;
use tops_protocol::verify::{Semantic, Structural};
use tops_protocol::{Attempt, Nonce, Root, UnitId};

use super::node::{Bytes, Node};
use super::plan::{Plan, START_MS};
use super::truth::Truth;

/// The driver's tick.
const TICK_MS: u64 = 250;
/// Gossip's heartbeat: what a neighbour lacks is offered anew.
const HEARTBEAT_MS: u64 = 1_000;
/// How long gossip remembers messages that it may still hand out.
const CACHE_MS: u64 = 12_000;
/// How long the driver waits for an answer.
const ANSWER_MS: u64 = 5_000;
/// How long it takes until a closed connection is noticed.
const NOTICED_MS: u64 = 1_500;

enum Event {
    Tick { node: usize, life: u32 },
    Heartbeat { node: usize, life: u32 },
    Mine { node: usize, life: u32 },
    Found { node: usize, life: u32, attempt: Attempt, root: Root },
    Audited { node: usize, life: u32, audit: AuditId, outcome: AuditOutcome },
    Flush { node: usize, life: u32 },
    Gossip { to: usize, from: usize, bytes: Rc<Bytes> },
    Query { to: usize, from: usize, life: u32, ask: AskId, query: Query },
    Reply { to: usize, life: u32, from: usize, ask: AskId, reply: Reply },
    Delivered { node: usize, life: u32, unit: UnitId },
    Start(usize),
    Kill(usize),
    Close { a: usize, b: usize },
    Connect { a: usize, b: usize },
    Split(bool),
}

/// What happened, counted.
#[derive(Debug, Default, Clone)]
pub struct Counts {
    /// Units that their miners acknowledged.
    pub acknowledged: u64,
    /// Verdicts on messages of honest senders' making, by kind.
    pub verdicts: BTreeMap<Verdict, u64>,
    /// Receipts that stages 1 and 2 refused.
    pub garbage: u64,
    /// Penalties.
    pub penalties: BTreeMap<PeerFault, u64>,
    /// Refusals at stage 3, by label.
    pub refused: BTreeMap<&'static str, u64>,
    /// Deepest reorganisation.
    pub deepest: u64,
    /// Nodes that banned a key: (node, key's node).
    pub bans: BTreeSet<(usize, usize)>,
    /// Penalised peers, by who and whom.
    pub penalised: BTreeSet<(usize, usize, PeerFault)>,
    /// Inputs that engines took.
    pub inputs: u64,
}

/// A run.
pub struct World {
    /// What it looks like.
    pub plan: Plan,
    /// Everybody.
    pub nodes: Vec<Node>,
    /// The work function.
    pub truth: Truth,
    /// What happened.
    pub counts: Counts,
    /// What the aggregator got: unit → how often, by node.
    pub delivered: BTreeMap<UnitId, BTreeMap<usize, u32>>,
    delivering: BTreeSet<(usize, u32, UnitId)>,
    /// Ids of messages that honest engines made.
    honest: BTreeSet<[u8; 20]>,
    now_ms: u64,
    rng: StdRng,
    queue: BinaryHeap<Reverse<(u64, u64, usize)>>,
    events: HashMap<usize, Event>,
    sequence: u64,
    links: BTreeSet<(usize, usize)>,
    split: bool,
    semantics: HashMap<Vec<u8>, Semantic>,
    next_message: u64,
    next_answer: u64,
}

impl World {
    /// Sets the run up; nothing has happened yet. `cheats` are put in by the caller before [`World::run`].
    pub fn new(plan: Plan) -> Self {
        let mut rng = StdRng::seed_from_u64(plan.seed);
        let mut nodes: Vec<Node> = (0..plan.nodes)
            .map(|i| Node::new(i, plan.seed, &plan.network, i < plan.miners, plan.bridges.contains(&i), plan.audit_ppm))
            .collect();
        for node in &mut nodes {
            let skew = i64::try_from(plan.skew_ms).unwrap_or(0);
            node.skew_ms = rng.random_range(-skew..=skew);
        }
        let mut links: BTreeSet<(usize, usize)> = plan.links.iter().flatten().map(|&(a, b)| (a.min(b), a.max(b))).collect();
        for a in 1..if plan.links.is_some() { 0 } else { plan.nodes } {
            for _ in 0..plan.degree {
                let b = rng.random_range(0..a);
                links.insert((b, a));
            }
        }
        let mut world = Self {
            nodes,
            truth: Truth::new(),
            counts: Counts::default(),
            delivered: BTreeMap::new(),
            delivering: BTreeSet::new(),
            honest: BTreeSet::new(),
            now_ms: START_MS,
            rng,
            queue: BinaryHeap::new(),
            events: HashMap::new(),
            sequence: 0,
            links,
            split: false,
            semantics: HashMap::new(),
            next_message: 0,
            next_answer: 0,
            plan,
        };
        let late: BTreeMap<usize, u64> = world.plan.late.iter().copied().collect();
        for node in 0..world.nodes.len() {
            world.at(late.get(&node).copied().unwrap_or(0), Event::Start(node));
        }
        for (node, when, dead) in world.plan.crashes.clone() {
            world.at(when, Event::Kill(node));
            world.at(when + dead, Event::Start(node));
        }
        if let Some(split) = &world.plan.split {
            let (from, to) = (split.from_ms, split.to_ms);
            world.at(from, Event::Split(true));
            world.at(to, Event::Split(false));
        }
        world
    }

    /// Milliseconds since the start.
    pub fn elapsed(&self) -> u64 {
        self.now_ms - START_MS
    }

    /// Runs until `until_ms` after the start.
    pub fn run_until(&mut self, until_ms: u64) {
        while let Some(Reverse((at, _, _))) = self.queue.peek() {
            if *at > START_MS + until_ms {
                break;
            }
            let Some(Reverse((at, _, key))) = self.queue.pop() else { break };
            self.now_ms = at;
            if let Some(event) = self.events.remove(&key) {
                self.happen(event);
            }
        }
        self.now_ms = START_MS + until_ms;
    }

    /// Mines, stops, and settles.
    pub fn run(&mut self) {
        self.run_until(self.plan.mining_ms + self.plan.settling_ms);
    }

    /// Runs until all live engines agree on tip, ledger and bans, or until the plan's end; gives how long after mining's end that was.
    pub fn run_until_agreed(&mut self) -> Option<u64> {
        let (from, to) = (self.plan.mining_ms, self.plan.mining_ms + self.plan.settling_ms);
        // The last hits take a moment from the device to the engine.
        let mut at = from + 1_000;
        self.run_until(at);
        loop {
            if self.agreed() {
                // What is on its way to disks and to the aggregator arrives.
                self.run_until(at + 3_000);
                return Some(at - from);
            }
            if at >= to {
                return None;
            }
            at += 1_000;
            self.run_until(at);
        }
    }

    /// Whether all engines show one tip, one ledger, and one set of bans, and nothing is open.
    pub fn agreed(&self) -> bool {
        let honest = || self.nodes.iter().filter(|n| n.cheat.is_none());
        // A node that is down comes back, and then has to catch up.
        if honest().any(|n| n.engine.is_none()) {
            return false;
        }
        let mut views = honest().filter_map(|n| n.engine.as_ref()).map(|e| {
            let v = e.view();
            ((v.tip, v.ledger_digest, v.undecided == 0), v.ban_digest)
        });
        let Some((first, bans)) = views.next() else { return true };
        let mut one_list = true;
        let alike = views.all(|(view, other)| {
            one_list &= other == bans;
            view == first
        });
        first.2 && alike && (one_list || super::invariants::agreement::bans_agree(self).is_ok())
    }

    /// A receipt's bytes past stages 1 and 2, each computed once.
    pub fn semantic(&mut self, wire: &[u8]) -> Option<Semantic> {
        if let Some(semantic) = self.semantics.get(wire) {
            return Some(semantic.clone());
        }
        let semantic = Structural::from_wire(wire, &self.plan.network).ok()?.semantic().ok()?;
        self.semantics.insert(wire.to_vec(), semantic.clone());
        Some(semantic)
    }

    /// Signs a draft with a node's key.
    ///
    /// # Panics
    /// When the draft is not of this network or not of that key.
    pub fn sign(&mut self, node: usize, draft: Draft) -> Semantic {
        let sig = self.nodes[node].key.sign(&draft.prehash());
        let receipt = draft.with_signature(sig);
        match self.semantic(&receipt.to_wire()) {
            Some(semantic) => semantic,
            None => panic!("node {node} signs what does not stand"),
        }
    }

    /// Bytes as gossip carries them.
    pub fn bytes(&mut self, topic: Topic, wire: &[u8]) -> Rc<Bytes> {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&[topic as u8]);
        hasher.update(wire);
        let mut id = [0; 20];
        id.copy_from_slice(&hasher.finalize().as_bytes()[..20]);
        let receipt = self.semantic(wire);
        Rc::new(Bytes { id, topic, receipt })
    }

    /// Puts a message of a node's making on its wires, whatever its engine thinks of it.
    pub fn shout(&mut self, node: usize, topic: Topic, wire: &[u8]) {
        let bytes = self.bytes(topic, wire);
        if self.nodes[node].seen.insert(bytes.id) {
            self.nodes[node].cache.push_back((self.now_ms, Rc::clone(&bytes)));
            self.forward(node, None, &bytes);
        }
    }

    /// Gives an engine an input and carries out what it says.
    pub fn input(&mut self, node: usize, input: Input) {
        let now = self.nodes[node].clock(self.now_ms);
        self.counts.inputs += 1;
        let Some(engine) = self.nodes[node].engine.as_mut() else { return };
        let outputs = engine.handle(input, now);
        self.carry_out(node, outputs);
    }

    fn at(&mut self, after_start_ms: u64, event: Event) {
        self.schedule(START_MS + after_start_ms, event);
    }

    fn after(&mut self, delay_ms: u64, event: Event) {
        self.schedule(self.now_ms + delay_ms, event);
    }

    fn schedule(&mut self, at: u64, event: Event) {
        self.sequence += 1;
        let key = usize::try_from(self.sequence).unwrap_or(usize::MAX);
        self.queue.push(Reverse((at, self.sequence, key)));
        self.events.insert(key, event);
    }

    fn delay(&mut self) -> u64 {
        let (low, high) = self.plan.delay_ms;
        self.rng.random_range(low..=high)
    }

    fn chance(&mut self, part: f64) -> bool {
        part > 0.0 && self.rng.random_bool(part)
    }

    /// Whether a wire between two nodes carries anything now.
    fn carries(&self, a: usize, b: usize) -> bool {
        let apart = self.split && self.plan.split.as_ref().is_some_and(|split| split.side[a] != split.side[b]);
        !apart && self.nodes[a].engine.is_some() && self.nodes[b].engine.is_some()
    }

    fn lives(&self, node: usize, life: u32) -> bool {
        self.nodes[node].life == life && self.nodes[node].engine.is_some()
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Tick { node, life } if self.lives(node, life) => {
                self.input(node, Input::Tick);
                self.after(TICK_MS, Event::Tick { node, life });
            }
            Event::Heartbeat { node, life } if self.lives(node, life) => self.heartbeat(node, life),
            Event::Mine { node, life } if self.lives(node, life) => self.mine(node, life),
            Event::Found { node, life, attempt, root } if self.lives(node, life) => {
                self.input(node, Input::Found { attempt, root, batch: 1, time_ms: 1 });
            }
            Event::Audited { node, life, audit, outcome } if self.lives(node, life) => self.input(node, Input::Audited { audit, outcome }),
            Event::Flush { node, life } if self.lives(node, life) => self.flush(node),
            Event::Gossip { to, from, bytes } => self.receive(to, from, &bytes),
            Event::Query { to, from, life, ask, query } if self.carries(to, from) && self.lives(from, life) => {
                let Some(peer) = self.nodes[to].numbers.get(&from).copied() else { return };
                let answer = AnswerId(self.next_answer);
                self.next_answer += 1;
                self.nodes[to].answers.insert(answer, (from, life, ask));
                self.input(to, Input::Ask { peer, answer, query });
            }
            Event::Reply { to, life, from, ask, reply } if self.lives(to, life) => {
                if let Some(peer) = self.nodes[to].numbers.get(&from).copied() {
                    self.input(to, Input::Reply { peer, ask, reply });
                }
            }
            Event::Delivered { node, life, unit } if self.lives(node, life) => {
                self.delivering.remove(&(node, life, unit));
                *self.delivered.entry(unit).or_default().entry(node).or_default() += 1;
                self.input(node, Input::Delivered { unit, taken: true });
            }
            Event::Start(node) if self.nodes[node].engine.is_none() => self.start(node),
            Event::Kill(node) if self.nodes[node].engine.is_some() => {
                self.nodes[node].kill();
                for other in self.neighbours(node) {
                    self.after(NOTICED_MS, Event::Close { a: other, b: node });
                }
            }
            Event::Close { a, b } => self.close(a, b),
            Event::Connect { a, b } => self.connect(a, b),
            Event::Split(begins) => self.partition(begins),
            _ => {}
        }
    }

    fn neighbours(&self, node: usize) -> Vec<usize> {
        self.links
            .iter()
            .filter_map(|&(a, b)| {
                if a == node {
                    Some(b)
                } else if b == node {
                    Some(a)
                } else {
                    None
                }
            })
            .collect()
    }

    fn start(&mut self, node: usize) {
        self.nodes[node].start();
        let life = self.nodes[node].life;
        // What was due when the node died is sent now; the aggregator may see it a second time.
        match self.nodes[node].store().outbox(OutboxState::Due, None, tops_store::PAGE_MAX) {
            Ok(due) => {
                for row in due.rows {
                    self.deliver(node, life, row.unit, 100);
                }
            }
            Err(fault) => panic!("node {node}: {fault}"),
        }
        let offset = self.rng.random_range(0..TICK_MS);
        self.after(offset, Event::Tick { node, life });
        self.after(offset * 4, Event::Heartbeat { node, life });
        if self.nodes[node].mines {
            self.after(offset, Event::Mine { node, life });
        }
        for other in self.neighbours(node) {
            let delay = self.delay();
            self.after(delay, Event::Connect { a: node, b: other });
        }
    }

    fn connect(&mut self, a: usize, b: usize) {
        if !self.carries(a, b) {
            return;
        }
        // A side that has not noticed the end of the last connection notices it now.
        for (x, y) in [(a, b), (b, a)] {
            self.close_side(x, y);
        }
        for (x, y) in [(a, b), (b, a)] {
            let peer = self.nodes[x].connect(y);
            self.input(x, Input::PeerUp { peer });
        }
    }

    fn close(&mut self, a: usize, b: usize) {
        if !self.carries(a, b) {
            self.close_side(a, b);
        }
    }

    fn close_side(&mut self, at: usize, to: usize) {
        if let Some(peer) = self.nodes[at].numbers.remove(&to) {
            self.nodes[at].peers.remove(&peer);
            self.input(at, Input::PeerDown { peer });
        }
    }

    fn partition(&mut self, begins: bool) {
        self.split = begins;
        let Some(split) = self.plan.split.clone() else { return };
        let across: Vec<(usize, usize)> = self.links.iter().copied().filter(|&(a, b)| split.side[a] != split.side[b]).collect();
        for (a, b) in across {
            if begins && split.closes {
                self.after(NOTICED_MS, Event::Close { a, b });
                self.after(NOTICED_MS, Event::Close { a: b, b: a });
            } else if !begins {
                let delay = self.rng.random_range(0..5_000);
                let open = self.nodes[a].numbers.contains_key(&b) && self.nodes[b].numbers.contains_key(&a);
                if !open {
                    self.after(delay, Event::Connect { a, b });
                }
            }
        }
    }

    /// One attempt, then the next after an exponential time.
    fn mine(&mut self, node: usize, life: u32) {
        if self.elapsed() >= self.plan.mining_ms {
            return;
        }
        let mean_ms = 1_000.0 * self.plan.miners as f64 / self.plan.attempts_per_sec;
        let wait = -mean_ms * (1.0 - self.rng.random::<f64>()).ln();
        self.after(1 + wait as u64, Event::Mine { node, life });
        let clock = self.nodes[node].clock(self.now_ms);
        let Some(job) = self.nodes[node].job else { return };
        self.nodes[node].nonce += 1;
        let Some(nonce) = Nonce::new(self.nodes[node].nonce) else { return };
        let attempt = Attempt {
            prev_hash: job.prev_hash,
            miner: self.nodes[node].miner(),
            nonce,
            timestamp: clock.max(job.min_timestamp),
            shape: self.plan.network.shape(),
        };
        let root = self.truth.root(&attempt);
        if root.ticket() <= job.share_target && !super::cheat::found(self, node, &job, attempt, root) {
            let late = self.rng.random_range(0..300);
            self.after(late, Event::Found { node, life, attempt, root });
        }
    }

    /// Sends a unit to the aggregator, as a bridge does: once while it is on its way, also when a reorganisation makes it due again.
    fn deliver(&mut self, node: usize, life: u32, unit: UnitId, delay: u64) {
        if self.delivering.insert((node, life, unit)) {
            self.after(delay, Event::Delivered { node, life, unit });
        }
    }

    fn flush(&mut self, node: usize) {
        let Some((batch, then)) = self.nodes[node].unflushed.pop_front() else { return };
        if let Err(fault) = self.nodes[node].store().commit(std::slice::from_ref(&batch)) {
            panic!("node {node}: {fault}");
        }
        let life = self.nodes[node].life;
        for op in &batch {
            if let Op::PutOutbox { unit, state: OutboxState::Due, .. } = op {
                let delay = self.delay() + 20;
                self.deliver(node, life, *unit, delay);
            }
        }
        self.carry_out(node, then);
    }

    fn carry_out(&mut self, node: usize, outputs: Vec<Output>) {
        let life = self.nodes[node].life;
        for output in outputs {
            match output {
                Output::Verdict { message, verdict } => self.verdict(node, message, verdict),
                Output::Publish { topic, receipt } => self.publish(node, topic, &receipt),
                Output::Audit { audit, attempt, claimed, .. } => {
                    let unable = self.plan.unable;
                    let outcome =
                        if self.chance(unable) { AuditOutcome::Unable } else { AuditOutcome::Computed(self.truth.root(&attempt)) };
                    let _ = claimed;
                    let takes = self.rng.random_range(1..40);
                    self.after(takes, Event::Audited { node, life, audit, outcome });
                }
                // Too late to call it back: the result comes all the same.
                Output::CancelAudit { .. } => {}
                Output::Commit { batch, then } => {
                    self.nodes[node].unflushed.push_back((batch, then));
                    // One writer: batches are flushed in their order.
                    let takes = self.nodes[node].unflushed.len() as u64;
                    self.after(takes, Event::Flush { node, life });
                }
                Output::Sign { draft } => {
                    let receipt = self.sign(node, draft);
                    self.input(node, Input::Signed { receipt });
                }
                Output::Job(job) => self.nodes[node].job = job,
                Output::Ask { peer, ask, query } => self.ask(node, peer, ask, query),
                Output::Answer { answer, with } => self.answer(node, answer, with),
                Output::Penalise { peer, fault } => {
                    *self.counts.penalties.entry(fault).or_default() += 1;
                    if let Some(&whom) = self.nodes[node].peers.get(&peer) {
                        self.counts.penalised.insert((node, whom, fault));
                    }
                }
                Output::Note(note) => self.note(node, &note),
            }
        }
    }

    fn note(&mut self, node: usize, note: &Note) {
        match note {
            Note::Acknowledged { unit, .. } => {
                self.counts.acknowledged += 1;
                self.nodes[node].acknowledged.insert(*unit);
                super::invariants::durable::own_receipt_is_stored(self, node, unit);
            }
            Note::Refused { fault } => *self.counts.refused.entry(fault.label()).or_default() += 1,
            Note::Tip { undone, .. } => self.counts.deepest = self.counts.deepest.max(*undone),
            Note::FalseRoot { miner, banned: true } => {
                let whose = self.nodes.iter().position(|n| n.miner() == *miner).unwrap_or(usize::MAX);
                self.counts.bans.insert((node, whose));
            }
            _ => {}
        }
    }

    fn publish(&mut self, node: usize, topic: Topic, receipt: &Semantic) {
        let wire = receipt.wire().to_vec();
        let bytes = self.bytes(topic, &wire);
        if self.nodes[node].cheat.is_none() {
            self.honest.insert(bytes.id);
        }
        self.shout(node, topic, &wire);
    }

    fn forward(&mut self, node: usize, except: Option<usize>, bytes: &Rc<Bytes>) {
        let to: Vec<usize> = self.nodes[node].numbers.keys().copied().filter(|&to| Some(to) != except).collect();
        for to in to {
            let copies = 1 + usize::from(self.chance(self.plan.twice));
            for _ in 0..copies {
                if !self.chance(self.plan.loss) {
                    let delay = self.delay();
                    self.after(delay, Event::Gossip { to, from: node, bytes: Rc::clone(bytes) });
                }
            }
        }
    }

    /// IHAVE and IWANT in one: a neighbour gets what it has not seen of the last seconds.
    fn heartbeat(&mut self, node: usize, life: u32) {
        let old = self.now_ms.saturating_sub(CACHE_MS);
        while self.nodes[node].cache.front().is_some_and(|(at, _)| *at < old) {
            self.nodes[node].cache.pop_front();
        }
        let peers: Vec<usize> = self.nodes[node].numbers.keys().copied().collect();
        if !peers.is_empty() {
            let to = peers[self.rng.random_range(0..peers.len())];
            let recent = self.now_ms.saturating_sub(3 * HEARTBEAT_MS);
            let lacks: Vec<Rc<Bytes>> = self.nodes[node]
                .cache
                .iter()
                .filter(|(at, bytes)| *at >= recent && !self.nodes[to].seen.contains(&bytes.id))
                .map(|(_, bytes)| Rc::clone(bytes))
                .collect();
            for bytes in lacks {
                if !self.chance(self.plan.loss) {
                    let delay = 2 * self.delay();
                    self.after(delay, Event::Gossip { to, from: node, bytes });
                }
            }
        }
        super::invariants::verdicts::none_is_late(self, node);
        self.after(HEARTBEAT_MS, Event::Heartbeat { node, life });
    }

    fn receive(&mut self, to: usize, from: usize, bytes: &Rc<Bytes>) {
        if !self.carries(to, from) {
            return;
        }
        let Some(peer) = self.nodes[to].numbers.get(&from).copied() else { return };
        // Now and then gossip has forgotten that it saw a message: the engine must know it all the same.
        let forgot = self.chance(0.02);
        if !self.nodes[to].seen.insert(bytes.id) && !forgot {
            return;
        }
        let Some(receipt) = bytes.receipt.clone() else {
            self.counts.garbage += 1;
            return;
        };
        super::cheat::overheard(self, to, bytes);
        let message = Message(self.next_message);
        self.next_message += 1;
        self.nodes[to].open.insert(message, (Rc::clone(bytes), from, self.now_ms));
        self.input(to, Input::Gossip { peer, message, topic: bytes.topic, receipt });
    }

    fn verdict(&mut self, node: usize, message: Message, verdict: Verdict) {
        let Some((bytes, from, _)) = self.nodes[node].open.remove(&message) else {
            panic!("node {node} gives a second verdict on {message:?}");
        };
        if self.honest.contains(&bytes.id) {
            *self.counts.verdicts.entry(verdict).or_default() += 1;
        }
        super::invariants::verdicts::is_fair(self, node, &bytes, verdict);
        if verdict == Verdict::Accept {
            self.nodes[node].cache.push_back((self.now_ms, Rc::clone(&bytes)));
            self.forward(node, Some(from), &bytes);
        }
    }

    /// Whether an honest engine made this message.
    pub fn is_honest(&self, bytes: &Bytes) -> bool {
        self.honest.contains(&bytes.id)
    }

    /// The oldest message of a node without a verdict, in milliseconds of waiting.
    pub fn longest_wait(&self, node: usize) -> u64 {
        self.nodes[node].open.values().map(|(_, _, since)| self.now_ms - since).max().unwrap_or(0)
    }

    fn ask(&mut self, node: usize, peer: Peer, ask: AskId, query: Query) {
        let life = self.nodes[node].life;
        let Some(&to) = self.nodes[node].peers.get(&peer) else { return };
        let failing = self.plan.failing;
        if self.chance(failing) || !self.carries(node, to) {
            self.after(ANSWER_MS, Event::Reply { to: node, life, from: to, ask, reply: Reply::Failed });
        } else {
            let delay = self.delay();
            self.after(delay, Event::Query { to, from: node, life, ask, query });
            // A question that meets a dead node or a split is answered by the clock; engines drop the second answer.
            self.after(ANSWER_MS, Event::Reply { to: node, life, from: to, ask, reply: Reply::Failed });
        }
    }

    fn answer(&mut self, node: usize, answer: AnswerId, with: Answer) {
        let Some((to, life, ask)) = self.nodes[node].answers.remove(&answer) else {
            panic!("node {node} answers {answer:?} twice");
        };
        let semantics = |world: &mut Self, wires: Result<Vec<Vec<u8>>, tops_store::StoreFault>| -> Vec<Semantic> {
            match wires {
                Ok(wires) => wires.iter().filter_map(|wire| world.semantic(wire)).collect(),
                Err(fault) => panic!("node {node}: {fault}"),
            }
        };
        let reply = match with {
            Answer::Status(status) => Reply::Status(status),
            Answer::Heads(roots) => {
                let wires = self.nodes[node].store().head_wires(&roots);
                Reply::Heads(semantics(self, wires))
            }
            Answer::Shares { units, more } => {
                let wires = self.nodes[node].store().share_wires(&units);
                Reply::Shares { receipts: semantics(self, wires), more }
            }
            Answer::Bans { miners, more } => {
                let wires = self.nodes[node].store().ban_wires(&miners);
                Reply::Bans { receipts: semantics(self, wires), more }
            }
            Answer::Refused => Reply::Failed,
        };
        let failing = self.plan.failing;
        if !self.chance(failing) {
            let delay = self.delay();
            self.after(delay, Event::Reply { to, life, from: node, ask, reply });
        }
    }
}
