//! `GET /v1/status`: the whole node on one page, from memory.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{RawQuery, State};
use serde::Serialize;
use tops_protocol::engine::SyncState;
use tops_protocol::target;
use utoipa::ToSchema;

use super::forms::{Decimal, Hash, Key, Nothing, Stamp, Tag};
use super::{Api, Problem, Query, Reply, Usual, health};
use crate::credit::{self, Rates};
use crate::state::NodeView;

/// The whole node on one page.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Status {
    /// When the figures of the loop were taken.
    at_ms: Stamp,
    node: Node,
    network: Network,
    tip: Tip,
    /// Digest of the shares of the last retained epochs; equal on nodes in step.
    ledger_digest: Hash,
    /// Digest of the bans.
    ban_digest: Tag,
    /// Heads in memory, on all branches.
    heads: usize,
    /// Shares in memory.
    shares: usize,
    /// Of these, recomputed here.
    audited: usize,
    /// Of these, accepted without a look.
    unaudited: usize,
    /// Receipts whose fate is open.
    undecided: usize,
    /// Audits that devices are busy with.
    audits_in_flight: usize,
    /// Receipts held for their parent or the clock.
    held: usize,
    /// Banned keys.
    bans: usize,
    /// Miners in the ledger.
    miners: usize,
    /// Whether devices search now.
    mining: bool,
    /// Whether the operator paused it.
    mining_paused: bool,
    sync: Sync,
    /// Connected peers.
    peers: usize,
    /// Of these, nodes.
    nodes: usize,
    /// How far the local clock is ahead of the peers' stamps; null while too few peers tell. A right clock seems ahead by the age of receipts.
    clock_off_ms: Option<i64>,
    outbox: Outbox,
    /// The way to the aggregator; null without one.
    aggregator: Option<Aggregator>,
    receipt_age: ReceiptAge,
    hash_rate: HashRate,
    credited: Credited,
    /// Counters since the start, by name; each is a metric too.
    counters: BTreeMap<&'static str, u64>,
    /// Rejections since the start, by reason.
    rejected: BTreeMap<&'static str, u64>,
    /// What is wrong with the devices.
    device_problem: Option<String>,
    /// Where a damaged store was put aside at start.
    store_set_aside: Option<String>,
    /// Why the store takes nothing now.
    store_problem: Option<String>,
    /// How full the bounded pools of the network and the loop are, a second old at most.
    pools: Vec<Pool>,
}

/// Something that others can fill, and its bound.
#[derive(Debug, Serialize, ToSchema)]
struct Pool {
    /// What it is; of a fixed set of words.
    name: &'static str,
    /// Places taken.
    used: usize,
    /// Places that there are.
    limit: usize,
}

/// This process.
#[derive(Debug, Serialize, ToSchema)]
struct Node {
    /// Name and version.
    agent: String,
    /// The libp2p identity, base58.
    peer_id: String,
    miner: Key,
    /// `device_did` of its receipts.
    device_did: String,
    /// Whether it never mines.
    verify_only: bool,
    started_at_ms: Stamp,
    uptime_seconds: f64,
    /// Where other nodes can dial it.
    listening: Vec<String>,
}

/// The network's numbers.
#[derive(Debug, Serialize, ToSchema)]
struct Network {
    /// As the operator gave it.
    name: String,
    id: Hash,
    tag: Tag,
    genesis: Hash,
    /// m, n, k of an attempt.
    #[schema(min_items = 3, max_items = 3)]
    shape: [u32; 3],
    /// Operations of one attempt.
    ops_an_attempt: u64,
    /// What the schedule aims at, seconds a head.
    spacing_secs: u64,
}

/// The best head, and what the next one must meet.
#[derive(Debug, Serialize, ToSchema)]
struct Tip {
    root: Hash,
    height: u64,
    time_ms: Stamp,
    /// Cumulative, in attempts.
    work: Decimal,
    /// Compact form of `next_target`.
    next_bits: u32,
    next_target: Decimal,
    next_share_target: Decimal,
    /// Attempts that the next head takes in expectation: the difficulty.
    attempts_a_head: Decimal,
}

/// How far this node is with its peers' chain.
#[derive(Debug, Serialize, ToSchema)]
#[serde(tag = "state", rename_all = "snake_case")]
enum Sync {
    /// No peer has told its chain yet.
    Lonely,
    /// Fetching heads.
    Heads {
        /// Up to this height.
        target: u64,
    },
    /// As far as the peers.
    InStep,
}

/// Receipts on their way to the aggregator, by state.
#[derive(Debug, Serialize, ToSchema)]
struct Outbox {
    /// Not deep enough, or not earning now.
    waiting: u64,
    /// To be sent.
    due: u64,
    /// The aggregator has them.
    delivered: u64,
    /// Refused for good.
    dead: u64,
    /// Delivered, and void or without earnings since.
    void: u64,
    /// Dropped unsent since the process began.
    evicted: u64,
}

/// How the aggregator answers.
#[derive(Debug, Serialize, ToSchema)]
struct Aggregator {
    /// When it last took or refused a receipt.
    last_settled_ms: Option<Stamp>,
    /// Since when no try has come to anything.
    failing_since_ms: Option<Stamp>,
    /// What came of the last try, while it fails.
    problem: Option<String>,
    /// The stamp of the oldest receipt that is due.
    oldest_due_ms: Option<Stamp>,
    /// From a request to the end of its answer, median.
    p50_ms: u64,
    p99_ms: u64,
}

/// From a receipt's stamp to its acceptance here.
#[derive(Debug, Serialize, ToSchema)]
struct ReceiptAge {
    /// Receipts behind the figures.
    count: usize,
    p50_ms: u64,
    p99_ms: u64,
}

/// What this node's devices did, by their own count.
#[derive(Debug, Serialize, ToSchema)]
struct HashRate {
    attempts_per_second_10s: f64,
    attempts_per_second_60s: f64,
    attempts_per_second_15min: f64,
    /// 10^12 operations a second.
    tops_10s: f64,
    tops_60s: f64,
    tops_15min: f64,
    /// Attempts since the start.
    attempts: u64,
}

/// What fresh shares were accepted, by the attempts that they stand for: an estimate that stands beside the claimed `hash_rate`.
#[derive(Debug, Serialize, ToSchema)]
struct Credited {
    /// This node's own.
    own: Windows,
    /// Everybody's.
    network: Windows,
}

/// The windows of the hash rate.
#[derive(Debug, Serialize, ToSchema)]
struct Windows {
    #[serde(rename = "10s")]
    secs_10: Rate,
    #[serde(rename = "60s")]
    secs_60: Rate,
    #[serde(rename = "15min")]
    mins_15: Rate,
}

/// Accepted a second, and of that the part that was recomputed here.
#[derive(Debug, Serialize, ToSchema)]
struct Rate {
    shares_per_second: f64,
    audited_shares_per_second: f64,
    attempts_per_second: f64,
    audited_attempts_per_second: f64,
    /// 10^12 operations a second.
    tops: f64,
    audited_tops: f64,
}

impl Windows {
    fn new(rates: &Rates, ops: f64) -> Self {
        let rate = |rate: &credit::Rate| Rate {
            shares_per_second: rate.shares,
            audited_shares_per_second: rate.audited_shares,
            attempts_per_second: rate.attempts,
            audited_attempts_per_second: rate.audited_attempts,
            tops: rate.attempts * ops / 1e12,
            audited_tops: rate.audited_attempts * ops / 1e12,
        };
        Self { secs_10: rate(&rates.secs_10), secs_60: rate(&rates.secs_60), mins_15: rate(&rates.mins_15) }
    }
}

/// The view, or that there is none yet.
pub(super) fn view(api: &Api) -> Result<std::sync::Arc<NodeView>, Problem> {
    api.shared.view().ok_or_else(|| Problem::busy("the node is starting: try again"))
}

/// The whole node on one page.
#[utoipa::path(get, path = "/v1/status", tag = "node", params(Nothing), responses((status = 200, description = "The node", body = Status), Usual))]
pub(super) async fn status(State(api): State<Api>, RawQuery(raw): RawQuery) -> Reply<Status> {
    Query::<Nothing>::parse(raw.as_deref())?;
    body(&api).await.map(Json)
}

/// The body of `/v1/status`; the event stream tells the same.
pub(super) async fn body(api: &Api) -> Result<Status, Problem> {
    let view = view(api)?;
    let (shared, e) = (&api.shared, &view.engine);
    let outbox = api.read(|store| Ok(store.outbox_counts())).await?;
    let (ages, rate, identity, bridge) = (shared.ages(), shared.hash_rate(), shared.identity(), shared.bridge());
    let (shape, credited) = (api.network.shape(), shared.credited());
    let ops = shape.ops() as f64;
    Ok(Status {
        at_ms: view.at.into(),
        node: Node {
            agent: identity.agent.clone(),
            peer_id: identity.peer_id.clone(),
            miner: identity.miner.into(),
            device_did: identity.device_did.clone(),
            verify_only: identity.verify_only,
            started_at_ms: identity.started_at.into(),
            uptime_seconds: shared.uptime().as_secs_f64(),
            listening: view.listening.to_vec(),
        },
        network: Network {
            name: identity.network_name.clone(),
            id: e.network.into(),
            tag: api.network.tag().into(),
            genesis: api.network.genesis().into(),
            shape: [shape.m(), shape.n(), shape.k()],
            ops_an_attempt: shape.ops(),
            spacing_secs: api.network.spacing_secs().into(),
        },
        tip: Tip {
            root: e.tip.into(),
            height: e.height.0,
            time_ms: e.tip_time.into(),
            work: e.work.into(),
            next_bits: e.head_bits,
            next_target: e.head_target.into(),
            next_share_target: e.share_target.into(),
            attempts_a_head: target::work(e.head_target).into(),
        },
        ledger_digest: e.ledger_digest.into(),
        ban_digest: e.ban_digest.hash.into(),
        heads: e.heads,
        shares: e.shares,
        audited: e.shares.saturating_sub(e.unaudited),
        unaudited: e.unaudited,
        undecided: e.undecided,
        audits_in_flight: e.audits_in_flight,
        held: e.held,
        bans: e.bans,
        miners: e.miners,
        mining: e.mining && shared.may_mine(),
        mining_paused: shared.mining_paused(),
        sync: match e.sync {
            SyncState::Lonely => Sync::Lonely,
            SyncState::Heads(height) => Sync::Heads { target: height.0 },
            SyncState::InStep => Sync::InStep,
        },
        peers: view.peers.len(),
        nodes: view.peers.iter().filter(|p| p.node).count(),
        clock_off_ms: e.clock_off_ms,
        outbox: Outbox {
            waiting: outbox.waiting,
            due: outbox.due,
            delivered: outbox.delivered,
            dead: outbox.dead,
            void: outbox.void,
            evicted: outbox.evicted,
        },
        aggregator: bridge.configured.then(|| Aggregator {
            last_settled_ms: bridge.last_settled.map(Stamp::from),
            failing_since_ms: bridge.failing_since.map(Stamp::from),
            problem: bridge.problem.clone(),
            oldest_due_ms: bridge.oldest_due.map(Stamp::from),
            p50_ms: bridge.p50_ms,
            p99_ms: bridge.p99_ms,
        }),
        receipt_age: ReceiptAge { count: ages.count, p50_ms: ages.p50_ms, p99_ms: ages.p99_ms },
        hash_rate: HashRate {
            attempts_per_second_10s: rate.secs_10,
            attempts_per_second_60s: rate.secs_60,
            attempts_per_second_15min: rate.mins_15,
            tops_10s: rate.secs_10 * ops / 1e12,
            tops_60s: rate.secs_60 * ops / 1e12,
            tops_15min: rate.mins_15 * ops / 1e12,
            attempts: rate.total,
        },
        credited: Credited { own: Windows::new(&credited.own, ops), network: Windows::new(&credited.network, ops) },
        counters: shared.counters().values().into_iter().collect(),
        rejected: shared.reasons(),
        device_problem: health::device_problem(shared, &(api.devices)()),
        store_set_aside: shared.store_set_aside(),
        store_problem: shared.store_problem(),
        pools: shared.pools().into_iter().map(|(name, (used, limit))| Pool { name, used, limit }).collect(),
    })
}
