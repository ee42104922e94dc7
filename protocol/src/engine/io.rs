//! The boundary of the engine: everything that comes in and everything that goes out.
//!
//! ```text
//!   net ── Gossip, Reply, Ask, PeerUp ──┐                     ┌── Verdict, Publish, Ask, Answer, Penalise ──▶ net
//!   devices ── Audited ─────────────────┤  Engine::handle     ├── Audit, Job ──────────────────────────────▶ devices
//!   miner ── Found ── keys ── Signed ───┤   (input, now)      ├── Sign ────────────────────────────────────▶ keys
//!   bridge ── Delivered ── clock ─ Tick ┘                     └── Commit { batch, then } ──────────────────▶ store
//! ```
//!
//! Outputs are carried out in their order. Those inside [`Output::Commit`]'s `then` wait until that batch is flushed.

use alloc::vec::Vec;

use crate::error::ContextFault;
use crate::ledger::LedgerRow;
use crate::receipt::Draft;
use crate::types::{Attempt, Height, Millis, PublicKey, Root, U256, UnitId};
use crate::verify::Semantic;

/// The driver's number for a peer, by its identity and not by its connection: who comes back within an hour has the number that it had, and
/// with it what it used up of its budgets. Never another peer's while the process runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Peer(pub u64);

/// The driver's number for a gossip message whose verdict is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Message(pub u64);

/// The engine's number for an audit that it asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AuditId(pub u64);

/// The engine's number for a question that it asked a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AskId(pub u64);

/// The driver's number for a question that a peer asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AnswerId(pub u64);

/// Where a receipt is gossiped (spec §6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Topic {
    /// Receipts that are heads, only there.
    Heads,
    /// Shares that are no heads.
    Receipts,
    /// Receipts whose root is false.
    Alerts,
}

/// What gossip is told about a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// Forward it.
    Accept,
    /// Do not forward; the forwarder pays.
    Reject,
    /// Do not forward; nobody pays.
    Ignore,
}

/// In which order devices take audits; smaller is sooner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// A candidate for the chain.
    Head,
    /// A claim of fraud.
    Alert,
    /// A share that waits to be forwarded.
    Forward,
    /// A share that was forwarded already.
    Share,
}

/// What came of an audit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuditOutcome {
    /// The recomputed root. When it differs from the claim, the CPU reference has repeated it.
    Computed(Root),
    /// No device could do it; says nothing about the receipt.
    Unable,
}

/// A question to a peer (spec §6).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Query {
    /// Tip, and the digests of the retained epochs from `from_epoch` on.
    Status {
        /// The first epoch of interest.
        from_epoch: u64,
    },
    /// Heads of the main chain above the highest pair of the locator that is on it, ascending, at most [`HEADS_PER_REPLY`].
    Heads {
        /// Pairs of height and root, highest first, at most [`LOCATOR_MAX`].
        locator: Vec<(Height, Root)>,
    },
    /// Single heads, on any branch, at most [`ROOTS_PER_ASK`].
    HeadsByRoot {
        /// Their roots.
        roots: Vec<Root>,
    },
    /// Shares of an epoch, in the order of unit ids, at most [`SHARES_PER_REPLY`].
    Shares {
        /// Which epoch.
        epoch: u64,
        /// Units above this one.
        after: Option<UnitId>,
    },
    /// Banned keys with their receipts, in the order of keys, at most [`BANS_PER_REPLY`].
    Bans {
        /// Keys above this one.
        after: Option<PublicKey>,
    },
}

/// Most heads in a reply.
pub const HEADS_PER_REPLY: usize = 256;
/// Most pairs in a locator; more are refused.
pub const LOCATOR_MAX: usize = 64;
/// Most roots in one question.
pub const ROOTS_PER_ASK: usize = 16;
/// Most shares in a reply.
pub const SHARES_PER_REPLY: usize = 256;
/// Most bans in a reply.
pub const BANS_PER_REPLY: usize = 64;
/// Most epochs in a status.
pub const EPOCHS_PER_STATUS: usize = 4_096;

/// Count and digest of an epoch's units, or of the bans.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Digest {
    /// How many.
    pub count: u32,
    /// First eight bytes of `DK("set digest", ids in ascending order)`; zero for none.
    pub hash: [u8; 8],
}

/// What a peer says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// Its tip.
    pub tip: Root,
    /// The tip's height.
    pub height: Height,
    /// Its cumulative work, claimed.
    pub work: U256,
    /// The epoch of the first digest.
    pub first_epoch: u64,
    /// Digests of consecutive epochs, at most [`EPOCHS_PER_STATUS`].
    pub epochs: Vec<Digest>,
    /// Its bans.
    pub bans: Digest,
}

/// What the engine lets the driver answer. Lists name rows of the store, at most as many as the query's bound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// To [`Query::Status`].
    Status(Status),
    /// To [`Query::Heads`] and [`Query::HeadsByRoot`]: send these heads' wire forms, in this order.
    Heads(Vec<Root>),
    /// To [`Query::Shares`].
    Shares {
        /// Send these receipts' wire forms, in this order.
        units: Vec<UnitId>,
        /// Whether the epoch has more behind them.
        more: bool,
    },
    /// To [`Query::Bans`].
    Bans {
        /// Send these bans' receipts, in this order.
        miners: Vec<PublicKey>,
        /// Whether there are more behind them.
        more: bool,
    },
    /// The peer asks too much; say nothing.
    Refused,
}

/// A peer's answer, its receipts past stage 2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// To [`Query::Status`].
    Status(Status),
    /// To [`Query::Heads`] and [`Query::HeadsByRoot`].
    Heads(Vec<Semantic>),
    /// To [`Query::Shares`].
    Shares {
        /// In the order of unit ids.
        receipts: Vec<Semantic>,
        /// Whether the epoch has more.
        more: bool,
    },
    /// To [`Query::Bans`].
    Bans {
        /// In the order of keys.
        receipts: Vec<Semantic>,
        /// Whether there are more.
        more: bool,
    },
    /// No answer: a timeout, a closed stream, a peer that does not speak the protocol.
    Failed,
    /// An answer that breaks the protocol: not decodable, too long, or with a receipt that fails stage 1 or 2.
    Invalid,
}

/// What comes in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// A peer of this network that speaks the sync protocol is connected.
    PeerUp {
        /// Its number.
        peer: Peer,
    },
    /// It is gone; its open questions count as failed. It may still be told of in [`Output::Penalise`], for what it brought before.
    PeerDown {
        /// Its number.
        peer: Peer,
    },
    /// A gossiped receipt that passed stage 2. Its verdict comes as [`Output::Verdict`].
    Gossip {
        /// Who delivered it.
        peer: Peer,
        /// Which message.
        message: Message,
        /// On which topic.
        topic: Topic,
        /// The receipt.
        receipt: Semantic,
    },
    /// An audit ended.
    Audited {
        /// Which.
        audit: AuditId,
        /// How.
        outcome: AuditOutcome,
    },
    /// This node's miner found a root at or below the share target, and the CPU path has recomputed it.
    Found {
        /// The attempt.
        attempt: Attempt,
        /// Its root, as recomputed.
        root: Root,
        /// Attempts a launch.
        batch: u64,
        /// Milliseconds a launch.
        time_ms: u64,
    },
    /// A draft of [`Output::Sign`] with its signature.
    Signed {
        /// Now a receipt that passed stage 2.
        receipt: Semantic,
    },
    /// A peer asks.
    Ask {
        /// Who.
        peer: Peer,
        /// The driver's number, for [`Output::Answer`].
        answer: AnswerId,
        /// What.
        query: Query,
    },
    /// A peer answered, or did not.
    Reply {
        /// Who.
        peer: Peer,
        /// Which question.
        ask: AskId,
        /// What it said.
        reply: Reply,
    },
    /// The aggregator took a receipt, or refused it for good.
    Delivered {
        /// Which unit.
        unit: UnitId,
        /// `false`: refused, in the dead-letter list.
        taken: bool,
    },
    /// The operator wants a dead letter sent again; any other unit is left as it is.
    Replay {
        /// Which unit.
        unit: UnitId,
    },
    /// The operator wants a dead letter forgotten; any other unit is left as it is.
    Discard {
        /// Which unit.
        unit: UnitId,
    },
    /// Time passed; at least every 250 ms.
    Tick,
}

/// What to mine on (spec §4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Job {
    /// The head.
    pub prev_hash: Root,
    /// Its height.
    pub height: Height,
    /// A root at or below this is a share.
    pub share_target: U256,
    /// A root at or below this is a head.
    pub head_target: U256,
    /// Stamp attempts with the clock, but never below this.
    pub min_timestamp: Millis,
}

/// Why a peer loses application score or its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PeerFault {
    /// An answer broke the protocol or its own claims.
    BadReply,
    /// A delivered receipt of a key that has no standing here failed its audit.
    FalseShare,
    /// A head that it offered by sync is false.
    FalseHead,
    /// It asks more than its budget.
    Greedy,
}

/// What goes out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Tell gossip.
    Verdict {
        /// Which message.
        message: Message,
        /// What.
        verdict: Verdict,
    },
    /// Gossip a receipt of this node, or one that came by other ways.
    Publish {
        /// Where.
        topic: Topic,
        /// What.
        receipt: Semantic,
    },
    /// Recompute an attempt.
    Audit {
        /// For [`Input::Audited`].
        audit: AuditId,
        /// How soon.
        priority: Priority,
        /// What to recompute.
        attempt: Attempt,
        /// The claim, so that a mismatch can be repeated on a second path first.
        claimed: Root,
    },
    /// The result is no longer wanted; it may still come.
    CancelAudit {
        /// Which.
        audit: AuditId,
    },
    /// Write in one transaction; then, when it is flushed, do the rest.
    Commit {
        /// What to write.
        batch: Vec<Op>,
        /// What must not happen before it is durable.
        then: Vec<Output>,
    },
    /// Sign and give back as [`Input::Signed`].
    Sign {
        /// What.
        draft: Draft,
    },
    /// Mine on this from now on; `None`: stop mining.
    Job(Option<Job>),
    /// Ask a peer; its answer comes as [`Input::Reply`].
    Ask {
        /// Whom.
        peer: Peer,
        /// The engine's number.
        ask: AskId,
        /// What.
        query: Query,
    },
    /// Answer a peer.
    Answer {
        /// The driver's number.
        answer: AnswerId,
        /// What.
        with: Answer,
    },
    /// Take application score from a peer, though it may have left.
    Penalise {
        /// Whom.
        peer: Peer,
        /// For what.
        fault: PeerFault,
    },
    /// Nothing to do, but worth counting, logging and showing.
    Note(Note),
}

/// What people and counters are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// The best head is another one.
    Tip {
        /// Its root.
        root: Root,
        /// Its height.
        height: Height,
        /// Heads of the former main chain that left it.
        undone: u64,
    },
    /// A share was accepted.
    Accepted {
        /// Its unit.
        unit: UnitId,
        /// Its miner.
        miner: PublicKey,
        /// Its epoch.
        epoch: u64,
        /// Whether it is a head.
        head: bool,
        /// Whether this node recomputed it.
        audited: bool,
        /// Milliseconds since its timestamp.
        age_ms: u64,
    },
    /// A receipt was turned away at stage 3.
    Refused {
        /// Why.
        fault: ContextFault,
    },
    /// An accepted share was recomputed later, and stands.
    Confirmed {
        /// Its unit.
        unit: UnitId,
    },
    /// A receipt's root is false.
    FalseRoot {
        /// Its miner.
        miner: PublicKey,
        /// Whether the miner had standing here and is banned for it.
        banned: bool,
    },
    /// An alert was false.
    FalseAlert,
    /// No device could audit.
    Unaudited,
    /// This node's own receipt is durable and public.
    Acknowledged {
        /// Its unit.
        unit: UnitId,
        /// Whether it is a head.
        head: bool,
    },
    /// A hit came too late for its head.
    LateHit,
}

/// A row of the tree of heads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeadRow {
    /// Its name.
    pub root: Root,
    /// Its height, 1 and up.
    pub height: Height,
    /// Whether this node has recomputed it; a light node takes some as claimed.
    pub audited: bool,
    /// The engine's own notes on its place in the chain (work, schedule, anchor); opaque to a store.
    pub place: Vec<u8>,
    /// Its receipt, wire form.
    pub wire: Vec<u8>,
}

/// Where a share stands (spec §5). What is still undecided is not stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ShareState {
    /// Accepted without a look: it was not drawn.
    Unaudited,
    /// Recomputed here.
    Audited,
    /// Its miner was banned.
    Void,
}

/// A row of the shares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShareRow {
    /// Its unit.
    pub unit: UnitId,
    /// Its epoch.
    pub epoch: u64,
    /// Its miner.
    pub miner: PublicKey,
    /// Where it stands.
    pub state: ShareState,
    /// Its receipt, wire form.
    pub wire: Vec<u8>,
}

/// What is known of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StandingRow {
    /// Accepted shares within retention.
    pub accepted: u64,
    /// Weight of those of them that this node recomputed.
    pub audited_weight: U256,
}

/// A ban and its proof.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BanRow {
    /// Who.
    pub miner: PublicKey,
    /// The receipt's epoch: the ban ends when retention has passed it.
    pub epoch: u64,
    /// The receipt with the false root, wire form.
    pub wire: Vec<u8>,
}

/// Where a receipt is on its way to the aggregator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OutboxState {
    /// Not deep enough yet, or not earning now.
    Waiting,
    /// To be sent.
    Due,
    /// The aggregator has it.
    Delivered,
    /// The aggregator refused it for good.
    Dead,
    /// Delivered, and void or without earnings since.
    Void,
}

/// One change of the store. Rows are whole, never increments, so that a batch can be repeated without harm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Insert or replace a head.
    PutHead(HeadRow),
    /// Remove a head of a branch that proved false or fell below retention.
    DropHead(Root),
    /// The main chain at this height is this head.
    PutMain {
        /// Where.
        height: Height,
        /// Which.
        root: Root,
    },
    /// The main chain ends below this height.
    CutMain {
        /// The lowest height to remove.
        from: Height,
    },
    /// Insert or replace a share.
    PutShare(ShareRow),
    /// Change a share's state.
    SetShare {
        /// Which.
        unit: UnitId,
        /// To what.
        state: ShareState,
    },
    /// Remove a share that fell below retention.
    DropShare {
        /// Which.
        unit: UnitId,
    },
    /// Insert or replace what is known of a key.
    PutStanding {
        /// Whose.
        miner: PublicKey,
        /// What.
        row: StandingRow,
    },
    /// Forget a key that has nothing left within retention.
    DropStanding {
        /// Whose.
        miner: PublicKey,
    },
    /// Insert a ban.
    PutBan(BanRow),
    /// Remove a ban that fell below retention.
    DropBan {
        /// Whose.
        miner: PublicKey,
    },
    /// Insert or replace a miner's sums.
    PutLedger {
        /// Whose.
        miner: PublicKey,
        /// What.
        row: LedgerRow,
    },
    /// Insert a row of the outbox or change its state. The receipt is the share's; the outbox keeps its own copy of the text.
    PutOutbox {
        /// Which.
        unit: UnitId,
        /// Its epoch.
        epoch: u64,
        /// Where it is.
        state: OutboxState,
    },
    /// Remove a row of the outbox: it fell below retention, was owed for too long, or is a dead letter that the operator dropped.
    DropOutbox {
        /// Which.
        unit: UnitId,
    },
    /// Nothing below this epoch is kept from now on. It never falls, whatever the tip or the configuration: what was forgotten must not come
    /// back, or it would earn and be delivered twice.
    PutHorizon {
        /// The lowest epoch of which anything is kept.
        epoch: u64,
    },
}

/// What a store gives at start, for [`super::Engine::restore`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Snapshot {
    /// Roots of the main chain from height 1 up, without gaps.
    pub main: Vec<Root>,
    /// Rows of heads: all that are retained, on any branch, in ascending height.
    pub heads: Vec<HeadRow>,
    /// Shares within retention.
    pub shares: Vec<ShareRow>,
    /// Standing of keys.
    pub standing: Vec<(PublicKey, StandingRow)>,
    /// Bans.
    pub bans: Vec<BanRow>,
    /// The ledger.
    pub ledger: Vec<(PublicKey, LedgerRow)>,
    /// The outbox.
    pub outbox: Vec<OutboxEntry>,
    /// The lowest epoch of which anything is kept; 0 before the first pruning.
    pub horizon: u64,
}

/// A row of the outbox, as a store gives it back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutboxEntry {
    /// Which.
    pub unit: UnitId,
    /// Its epoch.
    pub epoch: u64,
    /// Where it is.
    pub state: OutboxState,
    /// Whose receipt it is; known as long as its text is kept.
    pub miner: Option<PublicKey>,
}
