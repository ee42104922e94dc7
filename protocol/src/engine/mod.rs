//! The engine: every decision of a node, as a function of what came in and of the time (spec §4–§6).
//!
//! ```text
//!            ┌───────────────────────── Engine ─────────────────────────┐
//!  Input ──▶ │ receive ─▶ holds · audits ─▶ judge ─▶ chain ─▶ shares    │ ──▶ Outputs
//!            │ exchange ─▶ sync · peers          standing · outbox · job │
//!            └──────────────────────────────────────────────────────────┘
//! ```
//!
//! This file routes. The small machines beside it each hold one bounded piece of state and never call one another; the files
//! `receive`, `judge`, `exchange` and `own` are the engine's sentences, in the order: what came, what it means, what follows.
//! Everything that one input changes in the store goes out as one [`Output::Commit`].
//!
//! It never does IO, reads a clock, or blocks; memory is bounded by retention, by the constants of the machines, and by the
//! number of connections.

mod audits;
mod chain;
mod config;
mod exchange;
mod held;
mod io;
mod judge;
mod outbox;
mod own;
mod peers;
mod receive;
mod restore;
mod shares;
mod standing;
mod sync;
mod view;

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

pub use chain::Place;
pub use config::*;
pub use io::*;
pub use outbox::{OUTBOX_AGE_EPOCHS, OUTBOX_UNSENT_MAX};
pub use view::*;

use crate::types::{Height, Millis, Root, UnitId};
use audits::{Audits, Closed};
use chain::{Chain, Reorg};
use held::Holds;
use outbox::Outbox;
use own::{Awaited, JobState};
use peers::Peers;
use shares::{Shares, Turn};
use standing::Standing;
use sync::Sync;

/// Heads between two prunings of what fell below retention.
const PRUNE_EVERY: u64 = 16;
/// A head is forwarded while its parent is at most this far below the tip (spec §4).
const FORWARD_DEPTH: u64 = 64;
/// Heads that stay in memory below retention, for branches that begin there.
const HEADS_BELOW_RETENTION: u64 = 80;
/// Hits of this node that may wait for their signature; a further one is dropped.
const AWAITING_SIGNATURE_MAX: usize = 1_024;
/// Unaudited shares that are looked at in one tick of an idle node.
const RECHECKS_PER_TICK: usize = 16;

/// A node's mind.
#[derive(Debug)]
pub struct Engine {
    config: Config,
    now: Millis,
    chain: Chain,
    shares: Shares,
    standing: Standing,
    audits: Audits,
    holds: Holds,
    peers: Peers,
    sync: Sync,
    outbox: Outbox,
    job: JobState,
    awaiting: BTreeMap<UnitId, Awaited>,
    /// The horizon of the last pruning, in this life or an earlier one.
    pruned: u64,
    /// What this input changes in the store, and what waits for that.
    ops: Vec<Op>,
    then: Vec<Output>,
}

impl Engine {
    /// An engine that knows genesis and nothing else.
    pub fn new(config: Config) -> Self {
        Self {
            now: Millis(0),
            chain: Chain::new(config.network.clone()),
            shares: Shares::default(),
            standing: Standing::default(),
            audits: Audits::default(),
            holds: Holds::default(),
            peers: Peers::default(),
            sync: Sync::default(),
            outbox: Outbox::default(),
            job: JobState::default(),
            awaiting: BTreeMap::new(),
            pruned: 0,
            ops: Vec::new(),
            then: Vec::new(),
            config,
        }
    }

    /// Takes one input at a time that never runs backwards; gives what to do, in order.
    pub fn handle(&mut self, input: Input, now: Millis) -> Vec<Output> {
        self.now = self.now.max(now);
        let mut out = Vec::new();
        match input {
            Input::PeerUp { peer } => self.peer_up(peer, &mut out),
            Input::PeerDown { peer } => self.peer_down(peer, &mut out),
            Input::Gossip { peer, message, topic, receipt } => self.gossip(peer, message, topic, receipt, &mut out),
            Input::Audited { audit, outcome } => match self.audits.close(audit, outcome) {
                Closed::Computed(case, root) => self.judge(case, root, &mut out),
                Closed::Unaudited(case) => self.unaudited(case, &mut out),
                Closed::Nothing => {}
            },
            Input::Found { attempt, root, batch, time_ms } => self.found(attempt, root, batch, time_ms, &mut out),
            Input::Signed { receipt } => self.signed(receipt, &mut out),
            Input::Ask { peer, answer, query } => self.asked(peer, answer, query, &mut out),
            Input::Reply { peer, ask, reply } => self.replied(peer, ask, reply, &mut out),
            Input::Delivered { unit, taken } => {
                let earns = self.shares.get(&unit).map(|_| self.shares.earns(&unit));
                self.outbox.delivered(&unit, taken, earns, &mut self.ops);
            }
            Input::Replay { unit } => {
                let earns = self.shares.get(&unit).map(|_| self.shares.earns(&unit));
                self.outbox.replay(&unit, earns, &mut self.ops);
            }
            Input::Discard { unit } => self.outbox.discard(&unit, &mut self.ops),
            Input::Tick => self.tick(&mut out),
        }
        self.audits.dispatch(&mut out);
        self.update_job(&mut out);
        let (batch, then) = (core::mem::take(&mut self.ops), core::mem::take(&mut self.then));
        if batch.is_empty() {
            out.extend(then);
        } else {
            out.push(Output::Commit { batch, then });
        }
        out
    }

    fn tick(&mut self, out: &mut Vec<Output>) {
        let (again, expired) = self.holds.tick(self.now);
        for held in expired {
            self.peers.hold_done(held.peer);
            out.push(Output::Verdict { message: held.message, verdict: Verdict::Ignore });
        }
        self.take_again(again, out);
        for message in self.audits.overdue(self.now) {
            out.push(Output::Verdict { message, verdict: Verdict::Ignore });
        }
        if self.audits.len() == 0 && !self.shares.unaudited().is_empty() {
            self.recheck_idle();
        }
        self.exchange(out);
    }

    /// The lowest epoch whose shares are kept.
    fn horizon(&self) -> u64 {
        (self.chain.height().0 + 1).saturating_sub(self.config.retain_epochs).max(self.pruned)
    }

    /// The main chain changed: the ledger follows, then the outbox, then what retention drops.
    fn reorganise(&mut self, reorg: Reorg, out: &mut Vec<Output>) {
        if reorg.is_empty() {
            return;
        }
        let mut heads: alloc::collections::BTreeSet<Root> = reorg.undone.iter().chain(&reorg.applied).copied().collect();
        for head in reorg.undone.iter().chain(&reorg.applied) {
            heads.extend(self.chain.children(head));
        }
        let height = self.chain.height();
        if !reorg.undone.is_empty() {
            let kept = height.0.saturating_sub(reorg.applied.len() as u64);
            self.ops.push(Op::CutMain { from: Height(kept + 1) });
        }
        for (back, root) in reorg.applied.iter().rev().enumerate() {
            self.ops.push(Op::PutMain { height: Height(height.0 - back as u64), root: *root });
        }
        // What is keyed on them or on their children may earn or not; what won them counts as a head or not.
        let mut touched = self.shares.keyed_on(&heads);
        touched.extend(heads.iter().filter_map(|head| self.chain.unit(head)));
        self.settle(touched);
        self.ripen();
        // A download that may have to be cut out again keeps what is below it.
        let may_cut = self.sync.offer.as_ref().is_some_and(|offer| offer.first_claimed.is_some());
        if height.0.is_multiple_of(PRUNE_EVERY) && !may_cut {
            self.prune();
        }
        out.push(Output::Note(Note::Tip { root: self.chain.tip(), height, undone: reorg.undone.len() as u64 }));
    }

    fn settle(&mut self, units: impl IntoIterator<Item = UnitId>) {
        let chain = &self.chain;
        let turns = self.shares.settle(units, |head| chain.earns(head), |root| chain.is_main(root), &mut self.ops);
        self.turned(turns);
    }

    fn turned(&mut self, turns: Vec<Turn>) {
        for turn in turns {
            self.outbox.turned(&turn.unit, turn.earns, &mut self.ops);
        }
    }

    fn ripen(&mut self) {
        if let Some(bridge) = self.config.bridge {
            let ripe = (self.chain.height().0 + 1).saturating_sub(bridge.depth);
            let shares = &self.shares;
            self.outbox.ripen(ripe, |unit| shares.earns(unit), &mut self.ops);
        }
    }

    fn prune(&mut self) {
        let horizon = self.horizon();
        if horizon == 0 {
            return;
        }
        // A heavier chain can be a shorter one: what was forgotten stays forgotten, or it would count and be delivered twice.
        if horizon > self.pruned {
            self.pruned = horizon;
            self.ops.push(Op::PutHorizon { epoch: horizon });
        }
        for (miner, trusted) in self.shares.prune(horizon, &mut self.ops) {
            self.standing.retired(&miner, trusted, &mut self.ops);
        }
        self.standing.prune(horizon, &mut self.ops);
        self.outbox.prune(horizon, self.chain.height().0 + 1, &mut self.ops);
        self.sync.prune(horizon);
        // By the chain's own height: it can be shorter than it once was, and needs the heads that it stands on.
        let lowest = (self.chain.height().0 + 1).saturating_sub(self.config.retain_epochs + HEADS_BELOW_RETENTION);
        for root in self.chain.prune(Height(lowest)) {
            self.ops.push(Op::DropHead(root));
        }
    }

    /// Whether a draw of `one_in_million` falls on this id: foretellable by nobody without the node's secret (spec §5).
    fn draw(&self, id: &[u8], per_million: u32) -> bool {
        let hash = blake3::keyed_hash(&self.config.secret, id);
        let mut first = [0; 8];
        first.copy_from_slice(&hash.as_bytes()[..8]);
        u64::from_le_bytes(first) % 1_000_000 < u64::from(per_million)
    }

    /// A copy of what people may see.
    pub fn view(&self) -> View {
        let tip = self.chain.tip_place();
        let facts = tip.facts(self.chain.spec(), self.chain.tip());
        let peers = self.peers.iter();
        View {
            network: self.chain.spec().id(),
            tip: self.chain.tip(),
            height: tip.height,
            work: tip.work,
            tip_time: tip.time(),
            head_target: facts.head_target,
            head_bits: tip.next_bits(self.chain.spec()).get(),
            share_target: facts.share_target,
            heads: self.chain.len(),
            shares: self.shares.len(),
            unaudited: self.shares.unaudited().len(),
            undecided: self.audits.len(),
            audits_in_flight: self.audits.in_flight(),
            held: self.holds.len(),
            bans: self.standing.bans(),
            miners: self.shares.ledger().len(),
            ledger_digest: self.shares.ledger_digest(),
            ban_digest: self.standing.digest(),
            outbox: self.outbox.counts(),
            mining: self.job.is_mining(),
            sync: self.sync_state(),
            clock_off_ms: self.peers.clock_off_ms(self.now),
            peers: peers
                .map(|(peer, state)| PeerView {
                    peer,
                    tip: state.status.as_ref().map(|status| (status.height, status.tip)),
                    in_step: state.in_step,
                    status_at: state.status_at,
                })
                .collect(),
        }
    }
}
