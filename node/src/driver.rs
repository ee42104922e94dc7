//! The one loop: inputs in, engine, outputs out in order. It holds no rules and it never blocks.
//!
//! ```text
//!   net, verifier, auditor, miner, bridge, time ──▶ Engine::handle ──▶ outputs, in order
//!                                                       └─ Commit { batch, then } ──▶ store ──flushed──▶ then
//! ```
//!
//! What must be durable first waits for its commit, and commits are flushed in order. Answers to peers wait for the commits before them too,
//! since they name rows. Everything that could wait is a bounded channel to a thread of its own; when one is full, the engine hears "unable"
//! or "failed", or a peer hears nothing.
//!
//! While the disk is full the loop turns on, and takes nothing that would have to be kept: gossip is let go without blame, questions of this node fail at
//! once, answers that come are let go, questions of peers are refused while commits wait, and the miner and the bridge rest. What was under way waits in the
//! writer, in its order, and goes on when there is room. Any other fault of the store ends the node: it could promise nothing any more.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::{Notify, mpsc, watch};
use tokio::time::MissedTickBehavior;
use tops_protocol::engine::{Answer, AnswerId, AuditId, AuditOutcome, Engine, Input, Message, Note, Op, Output, Peer, Reply, Verdict};
use tops_protocol::{Millis, UnitId};
use tops_store::{OnDurable, QueueFull, Store, StoreFault, Writer};
use tracing::{debug, error, info, warn};

use crate::auditor::Auditor;
use crate::miner::Miner;
use crate::net::codec::RawReply;
use crate::net::limits::{
    ANSWER_QUEUE, AUDIT_RESULTS, BRIDGE_WORDS, COMMITS_IN_FLIGHT, MINER_HITS, NET_COMMANDS, NET_EVENTS, VERIFIER_RESULTS,
};
use crate::net::task::{Answered, Net, NetCommand, NetEvent};
use crate::state::{Event, NodeView, Rejection, Shared, count};
use crate::verifier::{Task, Verified, Verifier};

/// How often the engine is told the time.
pub const TICK: Duration = Duration::from_millis(100);
/// How often the view for people is renewed; a new head renews it at once.
pub const VIEW_EVERY: Duration = Duration::from_millis(500);
/// A loop that has not turned for so long is reported as an error.
pub const STALL_ERROR: Duration = Duration::from_secs(30);
/// How long the end waits for commits that are under way.
const FLUSH_WITHIN: Duration = Duration::from_secs(5);
/// How long it waits for a disk that is full.
const FULL_WITHIN: Duration = Duration::from_millis(500);

/// The wall clock, made to never run backwards. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Clock(Arc<AtomicU64>);

impl Clock {
    /// Starts at the wall clock.
    pub fn new() -> Self {
        Self::default()
    }
    /// Milliseconds of Unix time; never less than before.
    pub fn now(&self) -> Millis {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX));
        Millis(self.0.fetch_max(wall, Ordering::Relaxed).max(wall))
    }
}

/// A word about a unit's way to the aggregator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BridgeWord {
    /// The aggregator took it, or refused it for good.
    Delivered {
        /// Which.
        unit: UnitId,
        /// `false`: refused for good.
        taken: bool,
    },
    /// The operator wants it sent again.
    Replay {
        /// Which.
        unit: UnitId,
    },
    /// The operator wants it forgotten.
    Discard {
        /// Which.
        unit: UnitId,
    },
}

impl From<BridgeWord> for Input {
    fn from(word: BridgeWord) -> Self {
        match word {
            BridgeWord::Delivered { unit, taken } => Self::Delivered { unit, taken },
            BridgeWord::Replay { unit } => Self::Replay { unit },
            BridgeWord::Discard { unit } => Self::Discard { unit },
        }
    }
}

/// What the loop is made of.
pub struct Parts {
    /// The mind.
    pub engine: Engine,
    /// The time.
    pub clock: Clock,
    /// What people see.
    pub shared: Shared,
    /// The network.
    pub net: Net,
    /// Signatures.
    pub verifier: Verifier,
    /// Their results.
    pub verified: mpsc::Receiver<Verified>,
    /// Audits.
    pub auditor: Auditor,
    /// Their results.
    pub audited: mpsc::Receiver<(AuditId, AuditOutcome)>,
    /// The miner; `None` for a light node.
    pub miner: Option<(Miner, mpsc::Receiver<Input>)>,
    /// The store, to answer peers from.
    pub store: Arc<dyn Store>,
    /// Its writer.
    pub writer: Writer,
    /// The bridge's words.
    pub bridge: mpsc::Receiver<BridgeWord>,
    /// Turns true when the node is to end.
    pub stop: watch::Receiver<bool>,
}

/// The channel for the bridge's words.
pub fn bridge_words() -> (mpsc::Sender<BridgeWord>, mpsc::Receiver<BridgeWord>) {
    mpsc::channel(BRIDGE_WORDS)
}

/// How many commits the writer has flushed, and whether one failed. A number and not a channel, so that no word of the writer can be lost.
#[derive(Default)]
struct Flushes {
    count: AtomicU64,
    fault: Mutex<Option<StoreFault>>,
    news: Notify,
}

impl Flushes {
    fn tell(&self, outcome: Result<(), StoreFault>) {
        match outcome {
            Ok(()) => {
                self.count.fetch_add(1, Ordering::Release);
            }
            Err(fault) => {
                self.fault.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(fault);
            }
        }
        self.news.notify_one();
    }

    fn fault(&self) -> Option<StoreFault> {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

struct Driver {
    engine: Engine,
    clock: Clock,
    shared: Shared,
    commands: mpsc::Sender<NetCommand>,
    verifier: Verifier,
    auditor: Auditor,
    miner: Option<Miner>,
    writer: Writer,
    /// Batches that the writer's queue had no room for, oldest first; bounded like `then`.
    unsent: VecDeque<(Vec<Op>, OnDurable)>,
    /// The disk is full.
    full: bool,
    desk: Desk,
    /// What waits for each commit that is not flushed, oldest first.
    then: VecDeque<Vec<Output>>,
    flushes: Arc<Flushes>,
    /// How many flushed commits have been followed up.
    followed: u64,
    net_view: watch::Receiver<Arc<crate::net::task::NetView>>,
    viewed: Instant,
    nodes: usize,
}

/// Runs until `stop` or a fault of the store.
///
/// # Errors
/// The store's fault; the node has stopped mining and gossiping by then.
pub async fn run(parts: Parts) -> Result<(), StoreFault> {
    let Parts { engine, clock, shared, net, verifier, mut verified, auditor, mut audited, miner, store, writer, mut bridge, mut stop } =
        parts;
    let Net { commands, mut events, view: net_view, task: net_task, peer_id: _ } = net;
    let (miner, mut found) = match miner {
        Some((miner, found)) => (Some(miner), found),
        None => (None, mpsc::channel(1).1),
    };
    let flushes = Arc::new(Flushes::default());
    let desk = Desk::start(store, commands.clone(), shared.clone())?;
    let mut driver = Driver {
        engine,
        clock,
        shared,
        commands,
        verifier,
        auditor,
        miner,
        writer,
        unsent: VecDeque::new(),
        full: false,
        desk,
        then: VecDeque::new(),
        flushes: Arc::clone(&flushes),
        followed: 0,
        net_view,
        viewed: Instant::now(),
        nodes: 0,
    };
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut bridge_open = true;
    let mut fault = None;
    driver.view();
    while !*stop.borrow() {
        driver.shared.beat();
        // Full of commits: nothing that may lead to another is taken until one is flushed.
        let room = driver.then.len() < COMMITS_IN_FLIGHT;
        tokio::select! {
            () = flushes.news.notified() => {
                driver.flushed();
                fault = flushes.fault();
                if fault.is_some() {
                    break;
                }
            }
            _ = ticks.tick() => {
                driver.shared.set_pool("net_events", events.len(), NET_EVENTS);
                driver.shared.set_pool("verified", verified.len(), VERIFIER_RESULTS);
                driver.shared.set_pool("audited", audited.len(), AUDIT_RESULTS);
                driver.shared.set_pool("hits", found.len(), MINER_HITS);
                driver.shared.set_pool("bridge_words", bridge.len(), BRIDGE_WORDS);
                driver.tick(room);
            }
            Some((audit, outcome)) = audited.recv(), if room => {
                driver.auditor.finished(audit);
                driver.input(Input::Audited { audit, outcome });
            }
            Some(found) = found.recv(), if room => driver.input(found),
            Some(verified) = verified.recv(), if room || driver.full => driver.verified(verified),
            // On a full disk gossip hears its verdict in time, however many commits wait.
            event = events.recv(), if room || driver.full => match event {
                Some(event) => driver.net(event),
                None => break,
            },
            word = bridge.recv(), if room && bridge_open => match word {
                Some(word) => driver.input(word.into()),
                None => bridge_open = false,
            },
            _ = stop.changed() => {}
        }
    }
    driver.shared.set_stopping();
    if let Some(e) = &fault {
        error!(error = %e, "the store failed: this node can promise nothing any more and stops");
    }
    driver.rest().await;
    if fault.is_none() {
        // What the aggregator has answered for is not sent again after the next start.
        while let Ok(word) = bridge.try_recv() {
            driver.input(word.into());
        }
        fault = driver.flush().await;
    }
    // Threads that wait to hand over a result are let go by closing the channels; joining them blocks, so it happens elsewhere.
    drop((verified, audited, found, events, bridge));
    let Driver { verifier, auditor, writer, desk, commands, miner, .. } = driver;
    drop(commands);
    let closed = tokio::task::spawn_blocking(move || {
        drop((miner, verifier, auditor, desk));
        writer.close()
    })
    .await;
    if net_task.await.is_err() {
        error!("the network task has panicked");
    }
    match (fault, closed) {
        // A node that was asked to end on a full disk has ended as it should: nothing that it acknowledged is missing.
        (None, Ok(Ok(()) | Err(StoreFault::Full { .. }))) => Ok(()),
        (Some(fault), _) | (None, Ok(Err(fault))) => Err(fault),
        (None, Err(_)) => Err(StoreFault::Stopped),
    }
}

impl Driver {
    // ---- inputs ---------------------------------------------------------------------------------------------------------------------

    fn tick(&mut self, room: bool) {
        self.look_at_the_disk();
        if room {
            self.input(Input::Tick);
        }
        if self.viewed.elapsed() >= VIEW_EVERY {
            self.view();
        }
    }

    /// A full disk is said, and so is its end.
    fn look_at_the_disk(&mut self) {
        let stuck = self.writer.stuck();
        if stuck.is_some() != self.full {
            self.full = stuck.is_some();
            match &stuck {
                Some(full) => {
                    warn!(error = %full, waiting = self.then.len(), "this node takes, mines and delivers nothing until there is room")
                }
                None => info!("there is room on the disk again: going on"),
            }
        }
        if stuck.is_some() || self.shared.store_stopped() {
            self.shared.set_store_problem(stuck.map(|full| full.to_string()));
        }
    }

    fn input(&mut self, input: Input) {
        let now = self.clock.now();
        let outputs = self.engine.handle(input, now);
        self.carry_out(outputs);
    }

    fn net(&mut self, event: NetEvent) {
        match event {
            NetEvent::Up { peer } => self.input(Input::PeerUp { peer }),
            NetEvent::Down { peer } => self.input(Input::PeerDown { peer }),
            NetEvent::Gossip { message, .. } if self.full => self.turn_away(message),
            NetEvent::Gossip { peer, message, topic, bytes } => {
                if self.verifier.submit(Task::Gossip { peer, message, topic, bytes }).is_err() {
                    count(&self.shared.counters().gossip_overflow);
                    self.command(NetCommand::Verdict { message, verdict: Verdict::Ignore });
                }
            }
            // The rows that an answer names would have to be flushed first.
            NetEvent::Asked { answer, .. } if self.full && !self.then.is_empty() => {
                count(&self.shared.counters().sync_refused);
                self.command(NetCommand::Answer { answer, with: None });
            }
            NetEvent::Replied { peer, ask, answered: Answered::With(_) } if self.full => {
                count(&self.shared.counters().store_turned_away);
                self.input(Input::Reply { peer, ask, reply: Reply::Failed });
            }
            NetEvent::Asked { peer, answer, query } => self.input(Input::Ask { peer, answer, query }),
            NetEvent::Replied { peer, ask, answered } => match answered {
                Answered::With(raw) => {
                    if self.verifier.submit(Task::Reply { peer, ask, raw }).is_err() {
                        count(&self.shared.counters().sync_failed);
                        self.input(Input::Reply { peer, ask, reply: Reply::Failed });
                    }
                }
                Answered::Failed => {
                    count(&self.shared.counters().sync_failed);
                    self.input(Input::Reply { peer, ask, reply: Reply::Failed });
                }
                Answered::Invalid => {
                    count(&self.shared.counters().sync_invalid);
                    let detail = "an answer that breaks the protocol".to_owned();
                    self.rejected("sync", "bad_reply", detail, Some(peer));
                    self.input(Input::Reply { peer, ask, reply: Reply::Invalid });
                }
            },
        }
    }

    /// Gossip that cannot be kept now; others have it, and sync brings it later.
    fn turn_away(&self, message: Message) {
        count(&self.shared.counters().store_turned_away);
        self.command(NetCommand::Verdict { message, verdict: Verdict::Ignore });
    }

    fn verified(&mut self, verified: Verified) {
        match verified {
            Verified::Input(Input::Gossip { message, .. }) if self.full => self.turn_away(message),
            Verified::Input(Input::Reply { peer, ask, .. }) if self.full => {
                count(&self.shared.counters().store_turned_away);
                self.input(Input::Reply { peer, ask, reply: Reply::Failed });
            }
            Verified::Input(input) => self.input(input),
            Verified::Reject { peer, message, fault } => {
                self.rejected(fault.stage(), fault.label(), fault.to_string(), Some(peer));
                self.command(NetCommand::Verdict { message, verdict: Verdict::Reject });
            }
            Verified::BadReply { peer, ask, fault } => {
                count(&self.shared.counters().sync_invalid);
                self.rejected(fault.stage(), fault.label(), fault.to_string(), Some(peer));
                self.input(Input::Reply { peer, ask, reply: Reply::Invalid });
            }
        }
    }

    fn rejected(&self, stage: &'static str, reason: &'static str, detail: String, peer: Option<Peer>) {
        let name = peer.and_then(|peer| {
            let view = self.net_view.borrow();
            view.peers.iter().find(|known| known.number == peer.0).map(|known| known.peer_id.clone())
        });
        debug!(stage, reason, detail, peer = name, "rejected");
        self.shared.reject(Rejection { at: self.clock.now(), stage, reason, detail, peer: name, miner: None });
    }

    /// The oldest commits may be durable: what waited for them follows.
    fn flushed(&mut self) {
        self.send_commits();
        while self.followed < self.flushes.count.load(Ordering::Acquire) {
            self.followed += 1;
            count(&self.shared.counters().commits);
            if let Some(then) = self.then.pop_front() {
                self.carry_out_after(then, true);
            }
        }
    }

    // ---- outputs --------------------------------------------------------------------------------------------------------------------

    /// What an input gave rise to.
    fn carry_out(&mut self, outputs: Vec<Output>) {
        self.carry_out_after(outputs, false);
    }

    /// In their order. What an output gives rise to at once (a refused audit) is carried out after the rest. `flushed`: the commits that were
    /// under way when these came are on the disk.
    fn carry_out_after(&mut self, outputs: Vec<Output>, flushed: bool) {
        let mut again = Vec::new();
        for output in outputs {
            match output {
                Output::Verdict { message, verdict } => self.command(NetCommand::Verdict { message, verdict }),
                Output::Publish { topic, receipt } => self.command(NetCommand::Publish { topic, bytes: receipt.wire().to_vec() }),
                Output::Audit { audit, priority, attempt, claimed } => {
                    if !self.auditor.audit(audit, priority, attempt, claimed) {
                        again.push(Input::Audited { audit, outcome: AuditOutcome::Unable });
                    }
                }
                Output::CancelAudit { audit } => self.auditor.cancel(audit),
                Output::Commit { batch, then } => self.commit(batch, then),
                Output::Sign { draft } => {
                    if !self.verifier.sign(draft) {
                        warn!("a hit is lost: the signing queue is full");
                    }
                }
                Output::Job(job) => {
                    if let Some(miner) = &self.miner {
                        miner.mine(job);
                    }
                }
                Output::Ask { peer, ask, .. } if self.full => again.push(Input::Reply { peer, ask, reply: Reply::Failed }),
                Output::Ask { peer, ask, query } => {
                    count(&self.shared.counters().sync_asked);
                    if self.commands.try_send(NetCommand::Ask { peer, ask, query }).is_err() {
                        again.push(Input::Reply { peer, ask, reply: Reply::Failed });
                    }
                }
                Output::Answer { answer, with } => match self.then.back_mut().filter(|_| !flushed) {
                    // It names rows that may not be flushed yet.
                    Some(waiting) => waiting.push(Output::Answer { answer, with }),
                    None => self.answer(answer, with),
                },
                Output::Penalise { peer, fault } => self.command(NetCommand::Penalise { peer, fault }),
                Output::Note(note) => self.note(&note),
            }
        }
        for input in again {
            self.input(input);
        }
    }

    fn commit(&mut self, batch: Vec<Op>, then: Vec<Output>) {
        let flushes = Arc::clone(&self.flushes);
        self.then.push_back(then);
        self.unsent.push_back((batch, Box::new(move |outcome| flushes.tell(outcome))));
        self.send_commits();
    }

    /// The writer's queue is about as long as the number of commits in flight that the loop allows. What does not fit follows, and nobody waits.
    fn send_commits(&mut self) {
        while let Some((batch, on_durable)) = self.unsent.pop_front() {
            if let Err(QueueFull { batch, on_durable }) = self.writer.try_submit(batch, on_durable) {
                return self.unsent.push_front((batch, on_durable));
            }
        }
    }

    fn answer(&mut self, answer: AnswerId, with: Answer) {
        match with {
            Answer::Status(status) => self.command(NetCommand::Answer { answer, with: Some(RawReply::Status(status)) }),
            Answer::Refused => self.command(NetCommand::Answer { answer, with: None }),
            with => {
                if !self.desk.submit(answer, with) {
                    self.command(NetCommand::Answer { answer, with: None });
                }
            }
        }
    }

    /// The network's channel is long; if it is full the network stands still, and nothing is lost that a peer or sync would not bring again.
    fn command(&self, command: NetCommand) {
        if self.commands.try_send(command).is_err() {
            count(&self.shared.counters().publish_dropped);
        }
    }

    fn note(&mut self, note: &Note) {
        match note {
            Note::Tip { root, height, undone: 0 } => info!(height = height.0, %root, "new head"),
            Note::Tip { root, height, undone } => info!(height = height.0, %root, undone, "new head on another branch"),
            Note::Accepted { unit, head, audited, age_ms, .. } => debug!(%unit, head, audited, age_ms, "accepted"),
            Note::Acknowledged { unit, head: true } => info!(%unit, "own head is durable and public"),
            Note::Acknowledged { unit, head: false } => debug!(%unit, "own share is durable and public"),
            Note::FalseRoot { miner, banned } => warn!(%miner, banned, "a receipt has a false root"),
            Note::Refused { fault } => debug!(%fault, "refused"),
            Note::FalseAlert => debug!("an alert is false"),
            Note::Unaudited => debug!("no device could audit"),
            Note::Confirmed { unit } => debug!(%unit, "confirmed"),
            Note::LateHit => debug!("a hit came too late for its head"),
        }
        self.shared.note(note, self.clock.now());
        if matches!(note, Note::Tip { .. }) {
            self.view();
        }
    }

    fn view(&mut self) {
        self.viewed = Instant::now();
        let net = self.net_view.borrow_and_update().clone();
        let nodes = net.peers.len();
        if nodes != self.nodes {
            self.nodes = nodes;
            self.shared.tell(Event::Peers { connected: nodes });
        }
        self.shared.set_pool("commits", self.then.len(), COMMITS_IN_FLIGHT);
        self.shared.set_pool("net_commands", NET_COMMANDS.saturating_sub(self.commands.capacity()), NET_COMMANDS);
        self.shared.publish(NodeView {
            at: self.clock.now(),
            engine: self.engine.view(),
            peers: net.peers.clone(),
            listening: net.listening.clone(),
        });
    }

    // ---- the end --------------------------------------------------------------------------------------------------------------------

    /// No more mining.
    async fn rest(&mut self) {
        if let Some(mut miner) = self.miner.take() {
            // It waits for the running search to return.
            if tokio::task::spawn_blocking(move || miner.stop()).await.is_err() {
                error!("the miner's thread could not be ended");
            }
        }
    }

    /// Waits for the commits under way and carries out what waited for them: what is durable may still be published.
    async fn flush(&mut self) -> Option<StoreFault> {
        let began = tokio::time::Instant::now();
        let flushes = Arc::clone(&self.flushes);
        loop {
            self.flushed();
            if self.then.is_empty() || flushes.fault().is_some() {
                return flushes.fault();
            }
            let full = self.writer.stuck();
            if began.elapsed() >= if full.is_some() { FULL_WITHIN } else { FLUSH_WITHIN } {
                let commits = self.then.len();
                match full {
                    Some(full) => warn!(error = %full, commits, "what was not acknowledged yet is not kept"),
                    None => warn!(commits, "the store did not flush in time"),
                }
                return None;
            }
            // In turns, since a disk that is found full meanwhile is waited for no longer.
            let _ = tokio::time::timeout(TICK, flushes.news.notified()).await;
        }
    }
}

/// Reads the rows that answers name, on a thread of its own.
struct Desk {
    queue: Option<SyncSender<(AnswerId, Answer)>>,
    thread: Option<JoinHandle<()>>,
}

impl Desk {
    fn start(store: Arc<dyn Store>, commands: mpsc::Sender<NetCommand>, shared: Shared) -> Result<Self, StoreFault> {
        let (queue, asked) = sync_channel(ANSWER_QUEUE);
        let thread = thread::Builder::new()
            .name("answers".into())
            .spawn(move || answers(&*store, &asked, &commands, &shared))
            .map_err(|e| StoreFault::Io { path: "answers".into(), action: "started", why: e.to_string() })?;
        Ok(Self { queue: Some(queue), thread: Some(thread) })
    }

    fn submit(&self, answer: AnswerId, with: Answer) -> bool {
        self.queue.as_ref().is_some_and(|queue| queue.try_send((answer, with)).is_ok())
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn answers(store: &dyn Store, asked: &Receiver<(AnswerId, Answer)>, commands: &mpsc::Sender<NetCommand>, shared: &Shared) {
    while let Ok((answer, with)) = asked.recv() {
        let reply = match with {
            Answer::Heads(roots) => store.head_wires(&roots).map(RawReply::Heads),
            Answer::Shares { units, more } => store.share_wires(&units).map(|wires| RawReply::Shares { wires, more }),
            Answer::Bans { miners, more } => store.ban_wires(&miners).map(|wires| RawReply::Bans { wires, more }),
            Answer::Status(status) => Ok(RawReply::Status(status)),
            Answer::Refused => continue,
        };
        let with = match reply {
            Ok(reply) => Some(reply),
            Err(fault) => {
                count(&shared.counters().sync_refused);
                warn!(%fault, "a question could not be answered from the store");
                None
            }
        };
        if commands.blocking_send(NetCommand::Answer { answer, with }).is_err() {
            return;
        }
    }
}

/// Says so when the loop stands still. Runs until the node stops.
pub async fn watch_loop(shared: Shared) {
    let mut reported = false;
    while !shared.stopping() {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let stalled = shared.since_beat() > STALL_ERROR;
        if stalled && !reported {
            error!(secs = shared.since_beat().as_secs(), "the node's loop does not turn");
        }
        reported = stalled;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_never_runs_backwards() {
        let clock = Clock::new();
        let before = clock.now();
        clock.0.store(before.0 + 5_000, Ordering::Relaxed);
        assert!(clock.now() >= before.plus(5_000), "the wall clock was set back");
        assert!(clock.clone().now() >= before.plus(5_000));
    }
}
