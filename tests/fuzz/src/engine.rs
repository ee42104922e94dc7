//! `Engine::handle` under any sequence of inputs: it never panics, keeps its bounds, answers every message and question once, says the same
//! twice, and what it commits is a chain that a new life takes over.
//!
//! ```text
//!   bytes ──arbitrary──▶ Plan ──▶ inputs ──▶ two engines ──▶ equal outputs ──▶ checks, the memory store, what is open
//!                                   ▲────────── audits, drafts, questions that are open ◀──────────┘
//! ```

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use arbitrary::{Arbitrary, Unstructured};
use tops_protocol::engine::*;
use tops_protocol::receipt::Draft;
use tops_protocol::verify::{Semantic, Structural};
use tops_protocol::{Attempt, Height, Millis, Nonce, Receipt, Root, Text, UnitId};
use tops_store::Store;
use tops_store::memory::MemoryDisk;

use crate::palette::{GENESIS_MS, MAIN, Palette, SPACING_MS};

/// Steps of one run; the rest of the bytes is not looked at.
const STEPS_MAX: usize = 200;
/// Undecided claims at most: the pool and the heads above it.
const UNDECIDED: usize = 4_096 + 512;
/// Audits that devices hold.
const IN_FLIGHT: usize = 64;
/// Receipts on hold.
const HELD: usize = 4_096;
/// Own questions that one peer has open at most, far above what an honest engine needs.
const OPEN_ASKS_PER_PEER: usize = 64;
/// After so long every gossip message has its verdict: 9 s for an audit, 3 s on hold before it.
const SETTLED_MS: u64 = 12_500;

/// The operator's choices and the steps.
#[derive(Debug, Arbitrary)]
struct Setup {
    mines: bool,
    alone: bool,
    light: bool,
    bridge: bool,
    own: bool,
    audit_ppm: u16,
    shard: u8,
    checkpoint: Option<(u8, bool)>,
    secret: u8,
    /// How far the clock stands when the engine starts.
    clock: u8,
}

/// What happens next.
#[derive(Debug, Arbitrary)]
enum Step {
    Up(u8),
    Down(u8),
    Gossip {
        peer: u8,
        topic: u8,
        pick: u16,
    },
    Changed {
        peer: u8,
        topic: u8,
        pick: u16,
        change: Change,
    },
    /// Gossip of several neighbours in the palette, where they belong.
    Run {
        peer: u8,
        from: u16,
        count: u8,
    },
    Audit {
        which: u8,
        how: Outcome,
    },
    AuditAll,
    Found {
        nonce: u8,
        old: bool,
    },
    Sign(u8),
    Ask {
        peer: u8,
        question: Question,
    },
    Honest {
        which: u8,
        height: u8,
    },
    Reply {
        which: u8,
        reply: Said,
    },
    Stray {
        peer: u8,
        ask: u8,
        reply: Said,
    },
    Delivered {
        pick: u16,
        taken: bool,
    },
    Replay(u16),
    Tick {
        ms: u16,
    },
    Ticks(u8),
    Restart,
}

#[derive(Debug, Arbitrary)]
enum Outcome {
    True,
    Unable,
    Other(u8),
}

/// A field of a palette receipt is replaced; its miner signs again.
#[derive(Debug, Arbitrary)]
enum Change {
    Nonce(u16),
    Root([u8; 3]),
    RootOf(u16),
    Epoch(u16),
    Stamp(i32),
    Prev(u16),
    Hint(u8),
    Miner(u8),
}

#[derive(Debug, Arbitrary)]
enum Question {
    Status(u16),
    Heads { picks: Vec<(u8, u16)> },
    ByRoot { picks: Vec<u16> },
    Shares { epoch: u16, after: Option<u16> },
    Bans { after: Option<u8> },
}

#[derive(Debug, Arbitrary)]
enum Said {
    Status { tip: u16, height: u16, work: Option<u8>, first: u16, epochs: Vec<u8>, bans: u8 },
    Heads { from: u16, count: u8, backwards: bool },
    Shares { picks: Vec<u16>, more: bool },
    EpochOf { pick: u16, more: bool },
    Bans { picks: Vec<u16>, more: bool },
    Failed,
    Invalid,
}

struct Run<'a> {
    palette: &'a Palette,
    config: Config,
    engine: Engine,
    twin: Engine,
    disk: MemoryDisk,
    store: Arc<dyn Store>,
    now: Millis,
    up: BTreeSet<Peer>,
    audits: Vec<(AuditId, Attempt)>,
    drafts: VecDeque<Draft>,
    asks: Vec<(Peer, AskId, Query)>,
    asked: BTreeSet<AskId>,
    /// Messages without a verdict, and when they came.
    open: BTreeMap<Message, Millis>,
    /// Questions of peers without an answer.
    unanswered: BTreeMap<AnswerId, Query>,
    job: Option<Job>,
    jobs: Vec<Job>,
    next: u64,
}

/// One run over the bytes.
pub fn run(palette: &Palette, bytes: &[u8]) {
    let mut u = Unstructured::new(bytes);
    let Ok(setup) = Setup::arbitrary(&mut u) else { return };
    let mut run = Run::new(palette, &setup);
    for _ in 0..STEPS_MAX {
        if u.is_empty() {
            break;
        }
        let Ok(step) = Step::arbitrary(&mut u) else { break };
        run.step(step);
    }
    run.settle();
}

impl<'a> Run<'a> {
    fn new(palette: &'a Palette, setup: &Setup) -> Self {
        let own = &palette.keys[0];
        let mining = Mining { miner: own.public(), device_did: Text::cleaned("did:own"), driver_hint: Text::cleaned("CPU") };
        let shard = Shard::new(u64::from(setup.shard % 3) + 1, u64::from(setup.shard) % (u64::from(setup.shard % 3) + 1));
        let shard = shard.unwrap_or(Shard::ALL);
        let scope = if setup.own { BridgeScope::Own } else { BridgeScope::All };
        let checkpoint = setup.checkpoint.map(|(at, right)| {
            let at = usize::from(at) % MAIN;
            let root = palette.main[if right { at } else { (at + 1) % MAIN }].root();
            (Height(at as u64 + 1), root)
        });
        let config = Config {
            network: palette.spec.clone(),
            mining: setup.mines.then_some(mining),
            alone: setup.alone,
            light: setup.light && !setup.mines,
            audit_rate: AuditRate::from_ppm(u32::from(setup.audit_ppm) * 16).unwrap_or(AuditRate::DEFAULT),
            audit_shard: shard,
            bridge: setup.bridge.then_some(Bridge { scope, shard, depth: 2 }),
            retain_epochs: RETAIN_EPOCHS_MIN,
            checkpoints: checkpoint.into_iter().collect(),
            secret: [setup.secret; 32],
        };
        let disk = MemoryDisk::new();
        let store = disk.open(palette.spec.id()).expect("an empty disk opens").store;
        let behind = SPACING_MS * MAIN as u64 * u64::from(setup.clock) / 255;
        Self {
            engine: Engine::new(config.clone()),
            twin: Engine::new(config.clone()),
            now: Millis((palette.now().0).saturating_sub(behind).max(GENESIS_MS)),
            palette,
            config,
            disk,
            store,
            up: BTreeSet::new(),
            audits: Vec::new(),
            drafts: VecDeque::new(),
            asks: Vec::new(),
            asked: BTreeSet::new(),
            open: BTreeMap::new(),
            unanswered: BTreeMap::new(),
            job: None,
            jobs: Vec::new(),
            next: 0,
        }
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn pick(&self, at: u16) -> &'a Semantic {
        &self.palette.all[usize::from(at) % self.palette.all.len()]
    }

    fn picks(&self, at: &[u16], most: usize) -> Vec<Semantic> {
        at.iter().take(most).map(|at| self.pick(*at).clone()).collect()
    }

    /// A peer that is up; most inputs are only ever given for such.
    fn peer(&mut self, tag: u8) -> Peer {
        let peer = Peer(u64::from(tag % 6));
        if !self.up.contains(&peer) {
            self.up.insert(peer);
            self.give(Input::PeerUp { peer });
        }
        peer
    }

    fn gossip(&mut self, peer: u8, topic: Topic, receipt: Semantic) {
        let peer = self.peer(peer);
        let message = Message(self.number());
        self.open.insert(message, self.now);
        self.give(Input::Gossip { peer, message, topic, receipt });
    }

    fn belongs(&self, receipt: &Semantic) -> Topic {
        let facts = self.palette.facts(&receipt.receipt().prev_hash);
        if facts.is_some_and(|facts| receipt.root().ticket() <= facts.head_target) { Topic::Heads } else { Topic::Receipts }
    }

    fn topic(&self, tag: u8, receipt: &Semantic) -> Topic {
        match tag % 8 {
            0 => Topic::Heads,
            1 => Topic::Receipts,
            2 => Topic::Alerts,
            _ => self.belongs(receipt),
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Up(tag) => drop(self.peer(tag)),
            Step::Down(tag) => {
                let peer = Peer(u64::from(tag % 6));
                if self.up.remove(&peer) {
                    self.asks.retain(|(to, ..)| *to != peer);
                    self.give(Input::PeerDown { peer });
                }
            }
            Step::Gossip { peer, topic, pick } => {
                let receipt = self.pick(pick).clone();
                self.gossip(peer, self.topic(topic, &receipt), receipt);
            }
            Step::Changed { peer, topic, pick, change } => {
                if let Some(receipt) = self.changed(pick, change) {
                    self.gossip(peer, self.topic(topic, &receipt), receipt);
                }
            }
            Step::Run { peer, from, count } => {
                for at in 0..u16::from(count % 32) {
                    let receipt = self.pick(from.wrapping_add(at)).clone();
                    self.gossip(peer, self.belongs(&receipt), receipt);
                }
            }
            Step::Audit { which, how } => {
                if !self.audits.is_empty() {
                    let (audit, attempt) = self.audits.swap_remove(usize::from(which) % self.audits.len());
                    let outcome = match how {
                        Outcome::True => AuditOutcome::Computed(self.palette.root(&attempt)),
                        Outcome::Unable => AuditOutcome::Unable,
                        Outcome::Other(byte) => AuditOutcome::Computed(Root([byte; 32])),
                    };
                    self.give(Input::Audited { audit, outcome });
                }
            }
            Step::AuditAll => self.audit_all(),
            Step::Found { nonce, old } => self.found(nonce, old),
            Step::Sign(which) => {
                if !self.drafts.is_empty() {
                    let at = usize::from(which) % self.drafts.len();
                    if let Some(draft) = self.drafts.remove(at) {
                        self.sign(draft);
                    }
                }
            }
            Step::Ask { peer, question } => {
                let (peer, query) = (self.peer(peer), self.query(question));
                let answer = AnswerId(self.number());
                self.unanswered.insert(answer, query.clone());
                self.give(Input::Ask { peer, answer, query });
            }
            Step::Honest { which, height } => {
                if !self.asks.is_empty() {
                    let (peer, ask, query) = self.asks.swap_remove(usize::from(which) % self.asks.len());
                    let reply = self.honest(&query, usize::from(height) * MAIN / 255);
                    self.give(Input::Reply { peer, ask, reply });
                }
            }
            Step::Reply { which, reply } => {
                if !self.asks.is_empty() {
                    let (peer, ask, _) = self.asks.swap_remove(usize::from(which) % self.asks.len());
                    let reply = self.said(reply);
                    self.give(Input::Reply { peer, ask, reply });
                }
            }
            Step::Stray { peer, ask, reply } => {
                let (peer, reply) = (self.peer(peer), self.said(reply));
                let ask = AskId(u64::from(ask));
                self.asks.retain(|(to, open, _)| (*to, *open) != (peer, ask));
                self.give(Input::Reply { peer, ask, reply });
            }
            Step::Delivered { pick, taken } => self.give(Input::Delivered { unit: self.pick(pick).unit(), taken }),
            Step::Replay(pick) => self.give(Input::Replay { unit: self.pick(pick).unit() }),
            Step::Tick { ms } => self.tick(u64::from(ms)),
            Step::Ticks(count) => (0..count % 64).for_each(|_| self.tick(250)),
            Step::Restart => self.restart(),
        }
    }

    fn tick(&mut self, ms: u64) {
        self.now = self.now.plus(ms);
        self.give(Input::Tick);
        let now = self.now;
        if let Some((message, since)) = self.open.iter().find(|(_, since)| now.since(**since) > SETTLED_MS) {
            panic!("message {message:?} of {since:?} has no verdict at {now:?}");
        }
    }

    fn audit_all(&mut self) {
        // Every answer may cause further audits; a run is bounded by what the palette holds.
        for _ in 0..4 * self.palette.all.len() {
            let Some((audit, attempt)) = self.audits.pop() else { break };
            let root = self.palette.root(&attempt);
            self.give(Input::Audited { audit, outcome: AuditOutcome::Computed(root) });
        }
    }

    fn found(&mut self, nonce: u8, old: bool) {
        let job = if old { self.jobs.first().copied() } else { self.job };
        let (Some(job), Some(mining)) = (job, &self.config.mining) else { return };
        let nonce = Nonce::new((1 << 40) + u64::from(nonce)).expect("below 2^53");
        let timestamp = Millis((self.now.0 / SPACING_MS) * SPACING_MS).max(job.min_timestamp);
        let attempt = Attempt { prev_hash: job.prev_hash, miner: mining.miner, nonce, timestamp, shape: self.palette.spec.shape() };
        let root = self.palette.root(&attempt);
        if root.ticket() <= job.share_target {
            self.give(Input::Found { attempt, root, batch: 1, time_ms: 1 });
        }
    }

    fn sign(&mut self, draft: Draft) {
        let sig = self.palette.keys[0].sign(&draft.prehash());
        let wire = draft.with_signature(sig).to_wire();
        let receipt = Structural::from_wire(&wire, &self.palette.spec).expect("a draft is well formed").semantic().expect("and signed");
        self.give(Input::Signed { receipt });
    }

    fn changed(&self, pick: u16, change: Change) -> Option<Semantic> {
        let mut receipt: Receipt = self.pick(pick).receipt().clone();
        match change {
            Change::Nonce(nonce) => receipt.nonce = Nonce::new(u64::from(nonce))?,
            Change::Root(first) => receipt.work_root.0[..3].copy_from_slice(&first),
            Change::RootOf(other) => receipt.work_root = self.pick(other).root(),
            Change::Epoch(epoch) => receipt.epoch_id = u64::from(epoch),
            Change::Stamp(by) => receipt.timestamp = Millis(receipt.timestamp.0.saturating_add_signed(i64::from(by))),
            Change::Prev(other) => receipt.prev_hash = self.pick(other).root(),
            Change::Hint(byte) => receipt.driver_hint = Text::cleaned(&format!("hint {byte}")),
            Change::Miner(tag) => receipt.miner = self.palette.keys[usize::from(tag % 4)].public(),
        }
        self.palette.sign(receipt)
    }

    fn query(&self, question: Question) -> Query {
        match question {
            Question::Status(from_epoch) => Query::Status { from_epoch: u64::from(from_epoch) },
            Question::Heads { picks } => {
                let pairs = picks.iter().take(LOCATOR_MAX).map(|(height, pick)| (Height(u64::from(*height)), self.pick(*pick).root()));
                Query::Heads { locator: pairs.collect() }
            }
            Question::ByRoot { picks } => {
                Query::HeadsByRoot { roots: picks.iter().take(ROOTS_PER_ASK).map(|pick| self.pick(*pick).root()).collect() }
            }
            Question::Shares { epoch, after } => Query::Shares { epoch: u64::from(epoch), after: after.map(|pick| self.pick(pick).unit()) },
            Question::Bans { after } => Query::Bans { after: after.map(|tag| self.palette.keys[usize::from(tag % 4)].public()) },
        }
    }

    /// What an honest peer at this height of the main chain answers.
    fn honest(&self, query: &Query, height: usize) -> Reply {
        let main = &self.palette.main[..height.clamp(1, MAIN)];
        match query {
            Query::Status { from_epoch } => {
                let tip = main[main.len() - 1].root();
                let first_epoch = (*from_epoch).max((main.len() as u64).saturating_sub(RETAIN_EPOCHS_MIN));
                let digests = (first_epoch..=main.len() as u64 + 1).take(EPOCHS_PER_STATUS).map(|epoch| self.digest(epoch));
                Reply::Status(Status {
                    tip,
                    height: self.palette.height(&tip),
                    work: self.palette.work(&tip),
                    first_epoch,
                    epochs: digests.collect(),
                    bans: Digest::default(),
                })
            }
            Query::Heads { locator } => {
                let known = |(height, root): &(Height, Root)| {
                    height.0.checked_sub(1).and_then(|at| main.get(usize::try_from(at).ok()?)).is_some_and(|head| head.root() == *root)
                };
                let above = locator.iter().find(|pair| known(pair)).map_or(0, |(height, _)| usize::try_from(height.0).unwrap_or(0));
                Reply::Heads(main.iter().skip(above).take(HEADS_PER_REPLY).cloned().collect())
            }
            Query::HeadsByRoot { roots } => {
                let named = |root: &Root| self.palette.all.iter().find(|head| head.root() == *root).cloned();
                Reply::Heads(roots.iter().filter_map(named).collect())
            }
            Query::Shares { epoch, after } => {
                let mut receipts = self.of_epoch(*epoch);
                receipts.retain(|receipt| after.is_none_or(|after| receipt.unit() > after));
                Reply::Shares { receipts, more: false }
            }
            Query::Bans { .. } => Reply::Bans { receipts: Vec::new(), more: false },
        }
    }

    fn of_epoch(&self, epoch: u64) -> Vec<Semantic> {
        let of = self.palette.all.iter().filter(|receipt| receipt.receipt().epoch_id == epoch);
        let by_unit: BTreeMap<UnitId, Semantic> = of.map(|receipt| (receipt.unit(), receipt.clone())).collect();
        by_unit.into_values().take(SHARES_PER_REPLY).collect()
    }

    fn digest(&self, epoch: u64) -> Digest {
        let count = self.of_epoch(epoch).len() as u32;
        Digest { count, hash: if count == 0 { [0; 8] } else { [7; 8] } }
    }

    fn said(&self, said: Said) -> Reply {
        match said {
            Said::Status { tip, height, work, first, epochs, bans } => {
                let tip = self.pick(tip).root();
                let status = Status {
                    tip,
                    height: if height == 0 { self.palette.height(&tip) } else { Height(u64::from(height)) },
                    work: work.map_or_else(|| self.palette.work(&tip), |bits| tops_protocol::U256::from(1u8) << usize::from(bits)),
                    first_epoch: u64::from(first),
                    epochs: epochs.iter().map(|count| Digest { count: u32::from(*count), hash: [*count; 8] }).collect(),
                    bans: Digest { count: u32::from(bans), hash: [bans; 8] },
                };
                Reply::Status(status)
            }
            Said::Heads { from, count, backwards } => {
                let mut heads: Vec<Semantic> = (0..u16::from(count)).map(|at| self.pick(from.wrapping_add(at)).clone()).collect();
                if backwards {
                    heads.reverse();
                }
                Reply::Heads(heads)
            }
            Said::Shares { picks, more } => Reply::Shares { receipts: self.picks(&picks, SHARES_PER_REPLY), more },
            Said::EpochOf { pick, more } => Reply::Shares { receipts: self.of_epoch(self.pick(pick).receipt().epoch_id), more },
            Said::Bans { picks, more } => Reply::Bans { receipts: self.picks(&picks, BANS_PER_REPLY), more },
            Said::Failed => Reply::Failed,
            Said::Invalid => Reply::Invalid,
        }
    }

    fn give(&mut self, input: Input) {
        let outputs = self.engine.handle(input.clone(), self.now);
        assert_eq!(outputs, self.twin.handle(input, self.now), "the same input at the same time gives the same outputs");
        for output in outputs {
            match output {
                Output::Commit { batch, then } => {
                    assert!(!batch.is_empty(), "nothing is not committed");
                    self.store.commit(&[batch]).expect("the store takes what the engine writes");
                    for output in then {
                        assert!(!matches!(output, Output::Commit { .. }), "a commit does not wait for another");
                        self.take(output);
                    }
                }
                output => self.take(output),
            }
        }
        self.bounds();
    }

    fn take(&mut self, output: Output) {
        match output {
            Output::Verdict { message, .. } => {
                assert!(self.open.remove(&message).is_some(), "one verdict a message, and only for messages that came");
            }
            Output::Audit { audit, attempt, .. } => {
                assert!(self.audits.iter().all(|(open, _)| *open != audit), "an audit is asked for once");
                self.audits.push((audit, attempt));
            }
            Output::CancelAudit { audit } => self.audits.retain(|(open, _)| *open != audit),
            Output::Sign { draft } => self.drafts.push_back(draft),
            Output::Job(job) => {
                self.job = job;
                if let Some(job) = job {
                    assert!(job.head_target <= job.share_target, "a head is a share");
                    self.jobs.truncate(8);
                    self.jobs.push(job);
                }
            }
            Output::Ask { peer, ask, query } => {
                assert!(self.up.contains(&peer), "only who is there is asked");
                assert!(self.asked.insert(ask), "every question has a number of its own");
                match &query {
                    Query::Heads { locator } => {
                        assert!(locator.len() <= LOCATOR_MAX);
                        assert!(locator.windows(2).all(|pair| pair[0].0 > pair[1].0), "a locator falls");
                    }
                    Query::HeadsByRoot { roots } => assert!((1..=ROOTS_PER_ASK).contains(&roots.len())),
                    Query::Status { .. } | Query::Shares { .. } | Query::Bans { .. } => {}
                }
                self.asks.push((peer, ask, query));
                let open = self.asks.iter().filter(|(to, ..)| *to == peer).count();
                assert!(open <= OPEN_ASKS_PER_PEER, "{open} questions are open with one peer");
            }
            Output::Answer { answer, with } => {
                let query = self.unanswered.remove(&answer).expect("one answer a question");
                self.answered(&query, &with);
            }
            Output::Publish { receipt, .. } => assert_eq!(receipt.receipt().network, self.palette.spec.tag()),
            Output::Penalise { .. } | Output::Note(_) => {}
            Output::Commit { .. } => unreachable!("a commit is taken apart before"),
        }
    }

    /// What is told to peers names rows that are there, as many as allowed.
    fn answered(&self, query: &Query, with: &Answer) {
        match (query, with) {
            (_, Answer::Refused) => {}
            (Query::Status { .. }, Answer::Status(status)) => assert!(status.epochs.len() <= EPOCHS_PER_STATUS),
            (Query::Heads { .. }, Answer::Heads(roots)) => {
                assert!(roots.len() <= HEADS_PER_REPLY);
                assert_eq!(self.store.head_wires(roots).expect("the store reads").len(), roots.len());
            }
            (Query::HeadsByRoot { roots: asked }, Answer::Heads(roots)) => {
                assert!(roots.len() <= asked.len());
                assert_eq!(self.store.head_wires(roots).expect("the store reads").len(), roots.len());
            }
            (Query::Shares { .. }, Answer::Shares { units, .. }) => {
                assert!(units.len() <= SHARES_PER_REPLY && units.is_sorted());
                assert_eq!(self.store.share_wires(units).expect("the store reads").len(), units.len());
            }
            (Query::Bans { .. }, Answer::Bans { miners, .. }) => {
                assert!(miners.len() <= BANS_PER_REPLY && miners.is_sorted());
                assert_eq!(self.store.ban_wires(miners).expect("the store reads").len(), miners.len());
            }
            (query, with) => panic!("{query:?} was answered with {with:?}"),
        }
    }

    fn bounds(&self) {
        let view = self.engine.view();
        assert!(view.undecided <= UNDECIDED && view.audits_in_flight <= IN_FLIGHT && view.held <= HELD, "{view:?}");
        assert!(self.audits.len() <= IN_FLIGHT);
        assert_eq!(view.peers.len(), self.up.len());
        assert!(view.unaudited <= view.shares);
        assert_eq!(view.mining, self.job.is_some());
    }

    /// A life ends with all that was not committed; the next one begins with the same chain, credit and bans.
    fn restart(&mut self) {
        let before = essence(&self.engine);
        self.disk.crash();
        self.store = self.disk.open(self.palette.spec.id()).expect("what was committed opens").store;
        let main = self.store.main_heads(None, 1).expect("the store reads").first().map_or(0, |head| head.height.0);
        let from = Engine::heads_wanted_from(&self.config, main).max(Height(1));
        let snapshot = self.store.snapshot(from).expect("the store reads");
        assert_eq!(snapshot.main.len() as u64, self.engine.view().height.0, "the stored chain has no gaps and ends at the tip");
        self.engine = Engine::restore(self.config.clone(), snapshot.clone());
        self.twin = Engine::restore(self.config.clone(), snapshot);
        if !self.config.light {
            assert_eq!(before, essence(&self.engine), "a restart changes nothing that is durable");
        }
        self.audits.clear();
        self.asks.clear();
        self.asked.clear();
        self.drafts.clear();
        self.open.clear();
        self.job = None;
        self.jobs.clear();
        let up = std::mem::take(&mut self.up);
        for peer in up {
            self.up.insert(peer);
            self.give(Input::PeerUp { peer });
        }
    }

    /// At the end devices answer nothing any more: every message still gets its verdict.
    fn settle(&mut self) {
        for _ in 0..SETTLED_MS / 500 + 1 {
            self.tick(500);
        }
        assert!(self.open.is_empty(), "{} messages have no verdict", self.open.len());
        assert!(self.unanswered.is_empty(), "{} questions have no answer", self.unanswered.len());
    }
}

/// What must survive a restart.
fn essence(engine: &Engine) -> impl PartialEq + std::fmt::Debug + use<> {
    let view = engine.view();
    (
        (view.tip, view.height, view.work, view.head_bits),
        (view.shares, view.unaudited, view.bans, view.ban_digest),
        (view.miners, view.ledger_digest, view.outbox),
    )
}
