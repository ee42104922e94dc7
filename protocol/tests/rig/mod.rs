//! One engine on a bench: real keys, real attempts, a plain table for a store, and a clock that the test moves.
//!
//! ```text
//!   test ──Input──▶ Engine ──▶ outputs ──▶ Commit: the table · Audit: the reference · Sign: the key · the rest: kept to be looked at
//! ```
//!
//! The network is so easy that half of all attempts are heads and the other half shares, so nothing is pretended but the clock.

#![allow(dead_code, missing_docs, clippy::unwrap_used, clippy::expect_used)]

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};

use tops_protocol::engine::*;
use tops_protocol::keys::SecretKey;
use tops_protocol::network::Fields;
use tops_protocol::receipt::{Draft, KERNEL_V2};
use tops_protocol::verify::{ParentFacts, Semantic, Structural};
use tops_protocol::work::{self, Weights};
use tops_protocol::{Attempt, Height, Millis, NetworkSpec, Nonce, PublicKey, Receipt, Root, Signature, Text, UnitId};

pub const GENESIS_MS: u64 = 1_800_000_000_000;

pub fn key(tag: u8) -> SecretKey {
    SecretKey::from_bytes(&[tag; 32]).unwrap()
}

/// A network where every second attempt is a head and every other one a share.
pub fn easy(stale_window: u32) -> NetworkSpec {
    let fields = Fields {
        m: 16,
        n: 256,
        k: 256,
        spacing_secs: 4,
        half_life_secs: 60,
        genesis_bits: 0x207f_ffff,
        easiest_bits: 0x207f_ffff,
        share_log2: 4,
        stale_window,
        genesis_time_ms: GENESIS_MS,
    };
    NetworkSpec::new(fields).unwrap()
}

/// The tree of all heads that a test made, and what it takes to make more.
pub struct World {
    pub spec: NetworkSpec,
    weights: Weights,
    places: BTreeMap<Root, Place>,
    /// Roots that were computed already: an audit of what the world made costs nothing.
    computed: RefCell<BTreeMap<Attempt, Root>>,
    nonce: u64,
}

impl World {
    pub fn new() -> Self {
        let spec = easy(3);
        let places = BTreeMap::from([(spec.genesis(), Place::genesis(&spec))]);
        Self { weights: Weights::new(spec.shape()), places, computed: RefCell::default(), spec, nonce: 0 }
    }
    pub fn genesis(&self) -> Root {
        self.spec.genesis()
    }
    pub fn facts(&self, head: Root) -> ParentFacts {
        self.places[&head].facts(&self.spec, head)
    }
    pub fn height(&self, head: Root) -> u64 {
        self.places[&head].height.0
    }
    pub fn work(&self, head: Root) -> tops_protocol::U256 {
        self.places[&head].work
    }
    /// The stamp that keeps the schedule: genesis plus a spacing a height.
    pub fn stamp(&self, prev: Root) -> Millis {
        Millis(GENESIS_MS + 4_000 * (self.height(prev) + 1)).max(self.facts(prev).median.plus(1))
    }
    pub fn root(&self, attempt: &Attempt) -> Root {
        *self.computed.borrow_mut().entry(*attempt).or_insert_with(|| work::root(attempt, &self.weights))
    }
    pub fn receipt(&self, attempt: Attempt, root: Root, epoch: u64, key: &SecretKey, hint: &str) -> Semantic {
        let draft = Draft::new(Receipt {
            device_did: Text::cleaned("did:test"),
            epoch_id: epoch,
            prev_hash: attempt.prev_hash,
            nonce: attempt.nonce,
            work_root: root,
            shape: attempt.shape,
            batch: 1,
            time_ms: 1,
            kernel_ver: Text::cleaned(KERNEL_V2),
            driver_hint: Text::cleaned(hint),
            network: self.spec.tag(),
            miner: attempt.miner,
            timestamp: attempt.timestamp,
            sig: Signature([0; 64]),
        });
        let sig = key.sign(&draft.prehash());
        self.read(&draft.with_signature(sig).to_wire())
    }
    pub fn read(&self, wire: &[u8]) -> Semantic {
        Structural::from_wire(wire, &self.spec).unwrap().semantic().unwrap()
    }
    pub fn attempt(&mut self, prev: Root, miner: PublicKey, timestamp: Millis) -> Attempt {
        self.nonce += 1;
        Attempt { prev_hash: prev, miner, nonce: Nonce::new(self.nonce).unwrap(), timestamp, shape: self.spec.shape() }
    }
    fn search(&mut self, prev: Root, key: &SecretKey, stamp: Millis, wanted: impl Fn(Root) -> bool) -> Semantic {
        loop {
            let attempt = self.attempt(prev, key.public(), stamp);
            let root = self.root(&attempt);
            if wanted(root) {
                return self.receipt(attempt, root, self.height(prev) + 1, key, "CPU");
            }
        }
    }
    /// A true head; children can be made on it at once.
    pub fn head_at(&mut self, prev: Root, key: &SecretKey, stamp: Millis) -> Semantic {
        let target = self.facts(prev).head_target;
        let head = self.search(prev, key, stamp, |root| root.ticket() <= target);
        let place = self.places[&prev].child(&self.spec, stamp);
        self.places.insert(head.root(), place);
        head
    }
    pub fn head(&mut self, prev: Root, key: &SecretKey) -> Semantic {
        let stamp = self.stamp(prev);
        self.head_at(prev, key, stamp)
    }
    /// `count` true heads, each on the one before.
    pub fn chain(&mut self, prev: Root, key: &SecretKey, count: usize) -> Vec<Semantic> {
        let mut tip = prev;
        let mut heads = Vec::new();
        for _ in 0..count {
            let head = self.head(tip, key);
            tip = head.root();
            heads.push(head);
        }
        heads
    }
    /// A true share that is no head.
    pub fn share(&mut self, prev: Root, key: &SecretKey) -> Semantic {
        let (stamp, facts) = (self.stamp(prev), self.facts(prev));
        self.search(prev, key, stamp, |root| root.ticket() > facts.head_target && root.ticket() <= facts.share_target)
    }
    /// A share with an invented root.
    pub fn false_share(&mut self, prev: Root, key: &SecretKey) -> Semantic {
        let attempt = self.attempt(prev, key.public(), self.stamp(prev));
        let mut root = *blake3::hash(&self.nonce.to_le_bytes()).as_bytes();
        root[0] = 0xf0;
        self.receipt(attempt, Root(root), self.height(prev) + 1, key, "CPU")
    }
    /// A head with an invented root; children can be made on it.
    pub fn false_head_at(&mut self, prev: Root, key: &SecretKey, stamp: Millis) -> Semantic {
        let attempt = self.attempt(prev, key.public(), stamp);
        let mut root = *blake3::hash(&self.nonce.to_le_bytes()).as_bytes();
        (root[0], root[1]) = (0, 0);
        let place = self.places[&prev].child(&self.spec, stamp);
        self.places.insert(Root(root), place);
        self.receipt(attempt, Root(root), self.height(prev) + 1, key, "CPU")
    }
    pub fn false_head(&mut self, prev: Root, key: &SecretKey) -> Semantic {
        let stamp = self.stamp(prev);
        self.false_head_at(prev, key, stamp)
    }
}

/// What a store would hold.
#[derive(Debug, Clone, Default)]
pub struct Table {
    pub heads: BTreeMap<Root, HeadRow>,
    pub main: BTreeMap<u64, Root>,
    pub shares: BTreeMap<UnitId, ShareRow>,
    pub standing: BTreeMap<PublicKey, StandingRow>,
    pub bans: BTreeMap<PublicKey, BanRow>,
    pub ledger: BTreeMap<PublicKey, tops_protocol::ledger::LedgerRow>,
    pub outbox: BTreeMap<UnitId, OutboxEntry>,
    pub horizon: u64,
}

impl Table {
    pub fn apply(&mut self, batch: &[Op]) {
        for op in batch.iter().cloned() {
            match op {
                Op::PutHead(row) => drop(self.heads.insert(row.root, row)),
                Op::DropHead(root) => drop(self.heads.remove(&root)),
                Op::PutMain { height, root } => drop(self.main.insert(height.0, root)),
                Op::CutMain { from } => drop(self.main.split_off(&from.0)),
                Op::PutShare(row) => drop(self.shares.insert(row.unit, row)),
                Op::SetShare { unit, state } => self.shares.get_mut(&unit).expect("a share that is set is there").state = state,
                Op::DropShare { unit } => drop(self.shares.remove(&unit)),
                Op::PutStanding { miner, row } => drop(self.standing.insert(miner, row)),
                Op::DropStanding { miner } => drop(self.standing.remove(&miner)),
                Op::PutBan(row) => drop(self.bans.insert(row.miner, row)),
                Op::DropBan { miner } => drop(self.bans.remove(&miner)),
                Op::PutLedger { miner, row } => drop(self.ledger.insert(miner, row)),
                Op::PutOutbox { unit, epoch, state } => {
                    let known = self.outbox.get(&unit).and_then(|row| row.miner);
                    let miner = known.or_else(|| self.shares.get(&unit).map(|share| share.miner));
                    self.outbox.insert(unit, OutboxEntry { unit, epoch, state, miner });
                }
                Op::PutHorizon { epoch } => self.horizon = epoch,
                Op::DropOutbox { unit } => drop(self.outbox.remove(&unit)),
            }
        }
    }
    pub fn snapshot(&self, from: Height) -> Snapshot {
        let mut heads: Vec<HeadRow> = self.heads.values().filter(|row| row.height >= from).cloned().collect();
        heads.sort_by_key(|row| row.height);
        Snapshot {
            main: self.main.values().copied().collect(),
            heads,
            shares: self.shares.values().cloned().collect(),
            standing: self.standing.iter().map(|(miner, row)| (*miner, *row)).collect(),
            bans: self.bans.values().cloned().collect(),
            ledger: self.ledger.iter().map(|(miner, row)| (*miner, *row)).collect(),
            outbox: self.outbox.values().copied().collect(),
            horizon: self.horizon,
        }
    }
}

pub struct Rig {
    pub engine: Engine,
    pub config: Config,
    pub now: Millis,
    /// Whether audits are answered at once; else they wait in `audits`.
    pub auto: bool,
    pub audits: VecDeque<(AuditId, Priority, Attempt)>,
    pub verdicts: BTreeMap<Message, Vec<(Verdict, Millis)>>,
    pub asks: Vec<(Peer, AskId, Query)>,
    pub answers: BTreeMap<AnswerId, Answer>,
    pub published: Vec<(Topic, Semantic)>,
    pub penalised: Vec<(Peer, PeerFault)>,
    pub notes: Vec<Note>,
    pub job: Option<Job>,
    pub table: Table,
    pub commits: u64,
    /// Every batch is applied twice, and after each the engine is rebuilt from the table and compared.
    pub paranoid: bool,
    signer: SecretKey,
    next: u64,
}

pub fn config(world: &World) -> Config {
    Config {
        network: world.spec.clone(),
        mining: None,
        alone: false,
        light: false,
        audit_rate: AuditRate::DEFAULT,
        audit_shard: Shard::ALL,
        bridge: Some(Bridge { scope: BridgeScope::All, shard: Shard::ALL, depth: 2 }),
        retain_epochs: RETAIN_EPOCHS_MIN,
        checkpoints: Vec::new(),
        secret: [9; 32],
    }
}

pub fn mining(key: &SecretKey) -> Option<Mining> {
    Some(Mining { miner: key.public(), device_did: Text::cleaned("did:own"), driver_hint: Text::cleaned("CPU") })
}

/// Lets `to` ask and `from` answer for this long.
pub fn talk(world: &World, to: &mut Rig, from: &mut Rig, ms: u64) {
    for _ in 0..ms.div_ceil(250) {
        to.now = to.now.max(from.now);
        to.tick(world, 250);
        to.serve_from(world, 1, from, 1_000);
    }
}

/// What must survive a restart.
pub fn essence(engine: &Engine) -> impl PartialEq + std::fmt::Debug + use<> {
    let view = engine.view();
    (
        (view.tip, view.height, view.work, view.head_bits),
        (view.shares, view.unaudited, view.bans, view.ban_digest),
        (view.miners, view.ledger_digest, view.outbox),
    )
}

impl Rig {
    pub fn new(world: &World) -> Self {
        Self::with(config(world))
    }
    pub fn with(config: Config) -> Self {
        Self {
            engine: Engine::new(config.clone()),
            config,
            now: Millis(GENESIS_MS + 10_000_000),
            auto: true,
            audits: VecDeque::new(),
            verdicts: BTreeMap::new(),
            asks: Vec::new(),
            answers: BTreeMap::new(),
            published: Vec::new(),
            penalised: Vec::new(),
            notes: Vec::new(),
            job: None,
            table: Table::default(),
            commits: 0,
            paranoid: false,
            signer: key(200),
            next: 0,
        }
    }
    /// A new life from what the table holds.
    pub fn restart(&mut self) {
        self.engine = self.restored();
        self.audits.clear();
        self.asks.clear();
    }
    pub fn restored(&self) -> Engine {
        let from = Engine::heads_wanted_from(&self.config, self.table.main.len() as u64);
        Engine::restore(self.config.clone(), self.table.snapshot(from))
    }
    pub fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
    pub fn give(&mut self, world: &World, input: Input) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            let outputs = self.engine.handle(input, self.now);
            let mut open: VecDeque<Output> = outputs.into();
            while let Some(output) = open.pop_front() {
                match output {
                    Output::Commit { batch, then } => {
                        self.table.apply(&batch);
                        self.commits += 1;
                        if self.paranoid {
                            let once = format!("{:?}", self.table);
                            self.table.apply(&batch.iter().filter(|op| !matches!(op, Op::SetShare { .. })).cloned().collect::<Vec<_>>());
                            self.table.apply(
                                &batch
                                    .iter()
                                    .filter(|op| matches!(op, Op::SetShare { unit, .. } if self.table.shares.contains_key(unit)))
                                    .cloned()
                                    .collect::<Vec<_>>(),
                            );
                            assert_eq!(once, format!("{:?}", self.table), "a batch can be repeated without harm");
                            assert_eq!(essence(&self.engine), essence(&self.restored()), "a restart changes nothing");
                        }
                        for output in then.into_iter().rev() {
                            open.push_front(output);
                        }
                    }
                    Output::Audit { audit, priority, attempt, .. } if self.auto => {
                        let _ = priority;
                        inputs.push_back(Input::Audited { audit, outcome: AuditOutcome::Computed(world.root(&attempt)) });
                    }
                    Output::Audit { audit, priority, attempt, .. } => self.audits.push_back((audit, priority, attempt)),
                    Output::CancelAudit { audit } => self.audits.retain(|(other, ..)| *other != audit),
                    Output::Sign { draft } => {
                        let sig = self.signer.sign(&draft.prehash());
                        let receipt = Structural::from_wire(&draft.with_signature(sig).to_wire(), &world.spec).unwrap().semantic().unwrap();
                        inputs.push_back(Input::Signed { receipt });
                    }
                    Output::Verdict { message, verdict } => self.verdicts.entry(message).or_default().push((verdict, self.now)),
                    Output::Publish { topic, receipt } => self.published.push((topic, receipt)),
                    Output::Job(job) => self.job = job,
                    Output::Ask { peer, ask, query } => self.asks.push((peer, ask, query)),
                    Output::Answer { answer, with } => drop(self.answers.insert(answer, with)),
                    Output::Penalise { peer, fault } => self.penalised.push((peer, fault)),
                    Output::Note(note) => self.notes.push(note),
                }
            }
        }
    }
    pub fn mines_with(mut self, key: &SecretKey) -> Self {
        self.signer = key.clone();
        self
    }
    pub fn send(&mut self, world: &World, peer: u64, topic: Topic, receipt: &Semantic) -> Message {
        let message = Message(self.number());
        self.give(world, Input::Gossip { peer: Peer(peer), message, topic, receipt: receipt.clone() });
        message
    }
    /// Gossips where it belongs and gives the verdict so far.
    pub fn gossip(&mut self, world: &World, peer: u64, receipt: &Semantic) -> Option<Verdict> {
        let facts = world.places.get(&receipt.receipt().prev_hash).map(|place| place.facts(&world.spec, receipt.receipt().prev_hash));
        let head = facts.is_some_and(|facts| receipt.root().ticket() <= facts.head_target);
        let message = self.send(world, peer, if head { Topic::Heads } else { Topic::Receipts }, receipt);
        self.verdict(message)
    }
    pub fn verdict(&self, message: Message) -> Option<Verdict> {
        let all = self.verdicts.get(&message)?;
        assert_eq!(all.len(), 1, "one message, one verdict");
        Some(all[0].0)
    }
    pub fn tick(&mut self, world: &World, ms: u64) {
        let end = self.now.plus(ms);
        while self.now < end {
            self.now = self.now.plus(250).min(end);
            self.give(world, Input::Tick);
        }
    }
    pub fn audit_one(&mut self, world: &World) -> bool {
        let Some((audit, _, attempt)) = self.audits.pop_front() else { return false };
        self.give(world, Input::Audited { audit, outcome: AuditOutcome::Computed(world.root(&attempt)) });
        true
    }
    pub fn audit_all(&mut self, world: &World) {
        while self.audit_one(world) {}
    }
    pub fn up(&mut self, world: &World, peer: u64) {
        self.give(world, Input::PeerUp { peer: Peer(peer) });
    }
    /// Takes the oldest open question to this peer that fits.
    pub fn asked(&mut self, peer: u64, fits: impl Fn(&Query) -> bool) -> Option<(AskId, Query)> {
        let at = self.asks.iter().position(|(to, _, query)| *to == Peer(peer) && fits(query))?;
        let (_, ask, query) = self.asks.remove(at);
        Some((ask, query))
    }
    /// Takes all open questions to this peer.
    pub fn asked_of(&mut self, peer: u64) -> Vec<(AskId, Query)> {
        let (of, rest) = self.asks.drain(..).partition(|(to, ..)| *to == Peer(peer));
        self.asks = rest;
        let of: Vec<(Peer, AskId, Query)> = of;
        of.into_iter().map(|(_, ask, query)| (ask, query)).collect()
    }
    pub fn reply(&mut self, world: &World, peer: u64, ask: AskId, reply: Reply) {
        self.give(world, Input::Reply { peer: Peer(peer), ask, reply });
    }
    /// Waits until this peer is asked for its status, and tells it.
    pub fn tell_status(&mut self, world: &World, peer: u64, status: Status) {
        for _ in 0..200 {
            if let Some((ask, _)) = self.asked(peer, |query| matches!(query, Query::Status { .. })) {
                return self.reply(world, peer, ask, Reply::Status(status));
            }
            self.tick(world, 250);
        }
        panic!("peer {peer} was never asked for its status");
    }
    pub fn status_of(&mut self, world: &World, from_epoch: u64) -> Status {
        self.up(world, 9_999);
        let answer = AnswerId(self.number());
        self.give(world, Input::Ask { peer: Peer(9_999), answer, query: Query::Status { from_epoch } });
        self.give(world, Input::PeerDown { peer: Peer(9_999) });
        match self.answers.remove(&answer) {
            Some(Answer::Status(status)) => status,
            other => panic!("no status but {other:?}"),
        }
    }
    pub fn credit(&self, key: &SecretKey) -> tops_protocol::ledger::LedgerRow {
        self.table.ledger.get(&key.public()).copied().unwrap_or_default()
    }
    pub fn state(&self, receipt: &Semantic) -> Option<ShareState> {
        self.table.shares.get(&receipt.unit()).map(|row| row.state)
    }
    pub fn outbox(&self, receipt: &Semantic) -> Option<OutboxState> {
        self.table.outbox.get(&receipt.unit()).map(|row| row.state)
    }
    pub fn refused(&self, fault: tops_protocol::error::ContextFault) -> bool {
        self.notes.contains(&Note::Refused { fault })
    }
    /// Answers every question of this rig from another one, until none is left or `most` were answered.
    pub fn serve_from(&mut self, world: &World, peer: u64, other: &mut Rig, most: usize) -> usize {
        let mut served = 0;
        other.now = other.now.max(self.now);
        while served < most {
            let Some((ask, query)) = self.asked(peer, |_| true) else { break };
            let reply = other.answer(world, query);
            self.reply(world, peer, ask, reply);
            served += 1;
        }
        served
    }
    /// What this rig's engine and table answer to a question.
    pub fn answer(&mut self, world: &World, query: Query) -> Reply {
        let answer = AnswerId(self.number());
        self.give(world, Input::PeerUp { peer: Peer(8_888) });
        self.give(world, Input::Ask { peer: Peer(8_888), answer, query });
        self.give(world, Input::PeerDown { peer: Peer(8_888) });
        self.asks.retain(|(peer, ..)| *peer != Peer(8_888));
        let read = |wire: &Vec<u8>| world.read(wire);
        match self.answers.remove(&answer) {
            Some(Answer::Status(status)) => Reply::Status(status),
            Some(Answer::Heads(roots)) => {
                Reply::Heads(roots.iter().filter_map(|root| self.table.heads.get(root)).map(|row| read(&row.wire)).collect())
            }
            Some(Answer::Shares { units, more }) => Reply::Shares {
                receipts: units.iter().filter_map(|unit| self.table.shares.get(unit)).map(|row| read(&row.wire)).collect(),
                more,
            },
            Some(Answer::Bans { miners, more }) => Reply::Bans {
                receipts: miners.iter().filter_map(|miner| self.table.bans.get(miner)).map(|row| read(&row.wire)).collect(),
                more,
            },
            Some(Answer::Refused) | None => Reply::Failed,
        }
    }
}
