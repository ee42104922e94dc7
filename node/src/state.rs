//! What a running node shows of itself: written by the loop and its workers, read by HTTP, logs and the dashboard.
//!
//! ```text
//!   driver, net, miner, auditor, bridge ──▶ Shared ──▶ http (status, metrics, events, health)
//! ```
//!
//! Nothing here decides anything, and nothing that decides reads it. Readers never block writers: the view is a whole copy behind a
//! watch, counters are atomics, lists are short and bounded.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use prometheus_client::metrics::histogram::Histogram;
use tokio::sync::{broadcast, watch};
use tops_protocol::engine::{Note, View};
use tops_protocol::{Height, Millis, PublicKey, Root, UnitId, target};

use crate::credit::{Credited, FRESH_MS, Meter};

/// Rejections that are remembered for people; the oldest is forgotten.
pub const REJECTIONS_KEPT: usize = 256;
/// Ages of accepted receipts from which percentiles are taken; the oldest is forgotten.
pub const AGES_KEPT: usize = 4_096;
/// Events that a slow reader of the event stream may lag behind; it then loses the oldest and is told so.
pub const EVENTS_KEPT: usize = 512;
/// An aggregator that takes nothing for so long is called dead: a restart of it is shorter.
pub const BRIDGE_PATIENCE: Duration = Duration::from_secs(60);
/// A loop that has not turned for so long is stuck: `/healthz` says so.
pub const STALL: Duration = Duration::from_secs(10);

/// Upper ends of the histogram of receipts' ages, in seconds.
const AGE_BUCKETS: [f64; 12] = [0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0, 5.0, 10.0, 30.0, 120.0];

/// Who this node is; fixed for the life of the process.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The libp2p identity, base58.
    pub peer_id: String,
    /// The key that mines; a light node has one too, for its identity.
    pub miner: PublicKey,
    /// `device_did` of its receipts.
    pub device_did: String,
    /// `name/version`.
    pub agent: String,
    /// The network's name as the operator gave it.
    pub network_name: String,
    /// Whether it never mines.
    pub verify_only: bool,
    /// Whether it may work without any peer.
    pub alone: bool,
    /// When the process started.
    pub started_at: Millis,
}

/// A connected peer, for people.
#[derive(Debug, Clone, PartialEq)]
pub struct PeerInfo {
    /// The engine's number of it, once it is up.
    pub number: u64,
    /// libp2p's id, base58.
    pub peer_id: String,
    /// Where it is.
    pub address: String,
    /// Whether this node dialled it.
    pub outbound: bool,
    /// What it runs.
    pub agent: String,
    /// Whether it speaks the sync protocol: a node, not a rendezvous.
    pub node: bool,
    /// Gossip's score of it.
    pub score: f64,
    /// Round trip of the last ping.
    pub ping_ms: Option<u64>,
    /// Seconds connected.
    pub connected_secs: u64,
}

/// Percentiles of the age of accepted receipts: their acceptance here minus their timestamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ages {
    /// How many receipts are behind the figures.
    pub count: usize,
    /// Median, milliseconds.
    pub p50_ms: u64,
    /// 99th percentile, milliseconds.
    pub p99_ms: u64,
}

/// Attempts a second over three windows.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct HashRate {
    /// Over ten seconds.
    pub secs_10: f64,
    /// Over a minute.
    pub secs_60: f64,
    /// Over a quarter of an hour.
    pub mins_15: f64,
    /// Attempts since the start.
    pub total: u64,
}

/// The whole node at one moment.
#[derive(Debug, Clone)]
pub struct NodeView {
    /// When it was taken.
    pub at: Millis,
    /// The engine.
    pub engine: View,
    /// The connected peers.
    pub peers: Arc<[PeerInfo]>,
    /// Where this node can be dialled, with its id.
    pub listening: Arc<[String]>,
}

/// How the way to the aggregator fares. A process that has not tried yet, or has no aggregator, shows the default.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BridgeView {
    /// Whether there is an aggregator at all.
    pub configured: bool,
    /// When the aggregator last took or refused a receipt: it lives.
    pub last_settled: Option<Millis>,
    /// Since when no try has come to anything; `None`: the last one did.
    pub failing_since: Option<Millis>,
    /// What came of the last try that failed, while it fails: one line for people.
    pub problem: Option<String>,
    /// The stamp of the oldest receipt that is due; `None`: nothing is due.
    pub oldest_due: Option<Millis>,
    /// Requests behind the two figures below; the newest [`AGES_KEPT`] count.
    pub requests: usize,
    /// From a request to the end of its answer, milliseconds, median.
    pub p50_ms: u64,
    /// The 99th percentile.
    pub p99_ms: u64,
}

impl BridgeView {
    /// Why the aggregator has to be called dead: for [`BRIDGE_PATIENCE`] every try failed. A sentence; `None`: it is not.
    pub fn dead(&self, now: Millis) -> Option<String> {
        let silent = Duration::from_millis(now.since(self.failing_since?));
        (silent >= BRIDGE_PATIENCE).then(|| {
            let why = self.problem.as_deref().unwrap_or("no answer");
            format!("the aggregator has taken nothing for {} s ({why}): check it and --aggregator-url", silent.as_secs())
        })
    }
}

/// Why a receipt or an answer was turned away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// When.
    pub at: Millis,
    /// `structural`, `semantic`, `contextual`, `audit`, `sync`.
    pub stage: &'static str,
    /// A short, stable word.
    pub reason: &'static str,
    /// A sentence.
    pub detail: String,
    /// Who delivered it, where that is known.
    pub peer: Option<String>,
    /// Whose receipt it is, where that is known.
    pub miner: Option<PublicKey>,
}

/// What the event stream tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The best head is another one.
    Head {
        /// Its root.
        root: Root,
        /// Its height.
        height: Height,
        /// Heads of the former main chain that left it.
        undone: u64,
    },
    /// A share was accepted.
    Share {
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
    /// This node's own share is durable and public.
    Acknowledged {
        /// Its unit.
        unit: UnitId,
        /// Whether it is a head.
        head: bool,
    },
    /// A miner was caught.
    FalseRoot {
        /// Whom.
        miner: PublicKey,
        /// Whether it had standing here and is banned for it.
        banned: bool,
    },
    /// A peer came or went.
    Peers {
        /// How many are connected now.
        connected: usize,
    },
}

macro_rules! counters {
    ($($(#[doc = $doc:expr])+ $name:ident),+ $(,)?) => {
        /// Monotone counters of the process. Each field is also a metric `tops_<field>_total`.
        #[derive(Debug, Default)]
        pub struct Counters { $($(#[doc = $doc])+ pub $name: AtomicU64,)+ }

        impl Counters {
            /// Every counter by its name, in a fixed order.
            pub fn values(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name.load(Ordering::Relaxed)),)+]
            }
            /// What each counter counts, in the order of [`Counters::values`].
            pub fn help() -> &'static [(&'static str, &'static str)] {
                &[$((stringify!($name), concat!($($doc),+)),)+]
            }
        }
    };
}

counters! {
    /// Receipts that arrived by gossip.
    gossip_received,
    /// Gossiped receipts that were forwarded.
    gossip_accepted,
    /// Gossiped receipts whose forwarder paid.
    gossip_rejected,
    /// Gossiped receipts that were dropped without blame.
    gossip_ignored,
    /// Verdicts that came after gossip had forgotten the message.
    gossip_late_verdicts,
    /// Gossiped receipts dropped because this node was too busy to look.
    gossip_overflow,
    /// Receipts that this node gossiped.
    published,
    /// Own publications that are waiting for a subscribed peer or that no queue took at once.
    publish_deferred,
    /// Own publications that were given up; peers still get them by sync.
    publish_dropped,
    /// Shares accepted.
    shares_accepted,
    /// Accepted shares that are heads.
    heads_accepted,
    /// Shares recomputed here and found true.
    shares_audited,
    /// Receipts turned away, all stages.
    receipts_rejected,
    /// Receipts with a false root.
    false_roots,
    /// Receipts with a false root that are signed with this node's own key.
    own_false_roots,
    /// Miners banned.
    bans,
    /// Alerts that were false.
    false_alerts,
    /// Audits that no device could do.
    audits_unable,
    /// Audits that the engine asked for.
    audits_requested,
    /// Audits whose result the engine no longer wanted.
    audits_cancelled,
    /// Own shares that are durable and public.
    acknowledged,
    /// Own heads that are durable and public.
    acknowledged_heads,
    /// Own hits that came too late for their head.
    late_hits,
    /// Hits that the CPU path did not confirm.
    device_mismatches,
    /// Changes of the best head.
    tips,
    /// Heads undone by reorganisations.
    heads_undone,
    /// Signature checks done.
    signatures_checked,
    /// Signature checks saved by the memo.
    signatures_memoised,
    /// Questions that this node asked.
    sync_asked,
    /// Questions that failed or timed out.
    sync_failed,
    /// Answers that broke the protocol.
    sync_invalid,
    /// Questions answered for others.
    sync_answered,
    /// Questions of others refused or dropped.
    sync_refused,
    /// Connections made.
    connections_opened,
    /// Connections closed.
    connections_closed,
    /// Peers dropped because they are of another network.
    foreign_peers,
    /// Peers refused for a while because their score sank too low.
    peers_sent_away,
    /// Peers cut off because they kept sending more than anybody needs to.
    floods_cut_off,
    /// Direct lines that took the place of relayed ones.
    punched,
    /// Commits that are flushed.
    commits,
    /// Gossiped receipts and sync's answers that were let go without blame because the store takes nothing.
    store_turned_away,
    /// Times that the store stopped taking anything for want of space.
    store_stops,
    /// Requests to the aggregator.
    bridge_sent,
    /// Requests without a whole answer: refused or cut connections, time-outs, names that are not found.
    bridge_unanswered,
    /// Receipts that the aggregator had already (409).
    bridge_known,
    /// Receipts that the aggregator took.
    bridge_delivered,
    /// Receipts that the aggregator refused for good.
    bridge_refused,
    /// Attempts to deliver that will be repeated.
    bridge_retries,
}

/// Adds one.
pub fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// The one place where a running node can be looked at. Cheap to clone.
#[derive(Clone)]
pub struct Shared(Arc<Inner>);

struct Inner {
    identity: Identity,
    counters: Counters,
    view: watch::Sender<Option<Arc<NodeView>>>,
    events: broadcast::Sender<Event>,
    reasons: Mutex<BTreeMap<&'static str, u64>>,
    rejections: Mutex<(u64, VecDeque<Rejection>)>,
    credit: Mutex<Meter>,
    tip: Mutex<(Root, Instant)>,
    ages: Mutex<VecDeque<u64>>,
    age_histogram: Histogram,
    pools: Mutex<BTreeMap<&'static str, (usize, usize)>>,
    hash_rate: Mutex<HashRate>,
    origin: Instant,
    turned_ms: AtomicU64,
    stopping: AtomicBool,
    mining_paused: AtomicBool,
    device_problem: Mutex<Option<String>>,
    store_set_aside: Mutex<Option<String>>,
    store_problem: Mutex<Option<String>>,
    /// Whether there is one, for those who look often.
    store_stopped: AtomicBool,
    bridge: Mutex<BridgeView>,
}

/// A panic of another thread while it held a list of figures does not make them unreadable.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// Nothing has happened yet.
    pub fn new(identity: Identity) -> Self {
        Self(Arc::new(Inner {
            identity,
            counters: Counters::default(),
            view: watch::Sender::new(None),
            events: broadcast::Sender::new(EVENTS_KEPT),
            reasons: Mutex::default(),
            rejections: Mutex::default(),
            credit: Mutex::default(),
            tip: Mutex::new((Root([0; 32]), Instant::now())),
            ages: Mutex::default(),
            age_histogram: Histogram::new(AGE_BUCKETS),
            pools: Mutex::default(),
            hash_rate: Mutex::default(),
            origin: Instant::now(),
            turned_ms: AtomicU64::new(0),
            stopping: AtomicBool::new(false),
            mining_paused: AtomicBool::new(false),
            device_problem: Mutex::default(),
            store_set_aside: Mutex::default(),
            store_problem: Mutex::default(),
            store_stopped: AtomicBool::new(false),
            bridge: Mutex::default(),
        }))
    }

    /// Who this node is.
    pub fn identity(&self) -> &Identity {
        &self.0.identity
    }
    /// The counters.
    pub fn counters(&self) -> &Counters {
        &self.0.counters
    }
    /// How long the process runs.
    pub fn uptime(&self) -> Duration {
        self.0.origin.elapsed()
    }

    /// The last view; `None` until the loop has turned once.
    pub fn view(&self) -> Option<Arc<NodeView>> {
        self.0.view.borrow().clone()
    }
    /// Follows the views.
    pub fn watch(&self) -> watch::Receiver<Option<Arc<NodeView>>> {
        self.0.view.subscribe()
    }
    /// Replaces the view.
    pub fn publish(&self, view: NodeView) {
        let mut tip = lock(&self.0.tip);
        if tip.0 != view.engine.tip {
            *tip = (view.engine.tip, Instant::now());
        }
        drop(tip);
        self.0.view.send_replace(Some(Arc::new(view)));
    }
    /// How long the best head has been the same, by this process's own count.
    pub fn tip_age(&self) -> Duration {
        lock(&self.0.tip).1.elapsed()
    }

    /// Follows the events; a reader that lags loses the oldest.
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.0.events.subscribe()
    }
    /// Tells an event to whoever listens.
    pub fn tell(&self, event: Event) {
        // Nobody listening is not a fault.
        let _ = self.0.events.send(event);
    }

    /// The loop turned.
    pub fn beat(&self) {
        let ms = u64::try_from(self.uptime().as_millis()).unwrap_or(u64::MAX);
        self.0.turned_ms.store(ms, Ordering::Relaxed);
    }
    /// How long ago the loop turned.
    pub fn since_beat(&self) -> Duration {
        self.uptime().saturating_sub(Duration::from_millis(self.0.turned_ms.load(Ordering::Relaxed)))
    }
    /// Whether the loop turns.
    pub fn turning(&self) -> bool {
        self.since_beat() < STALL
    }

    /// The node is on its way out.
    pub fn set_stopping(&self) {
        self.0.stopping.store(true, Ordering::Relaxed);
    }
    /// Whether the node is on its way out.
    pub fn stopping(&self) -> bool {
        self.0.stopping.load(Ordering::Relaxed)
    }

    /// Whether the operator lets this node mine; audits, gossip and the bridge go on either way.
    pub fn set_mining_paused(&self, paused: bool) {
        self.0.mining_paused.store(paused, Ordering::Relaxed);
    }
    /// See [`Shared::set_mining_paused`].
    pub fn mining_paused(&self) -> bool {
        self.0.mining_paused.load(Ordering::Relaxed)
    }

    /// What is wrong with this node's devices, in a sentence; `None`: nothing.
    pub fn set_device_problem(&self, problem: Option<String>) {
        *lock(&self.0.device_problem) = problem;
    }
    /// See [`Shared::set_device_problem`].
    pub fn device_problem(&self) -> Option<String> {
        lock(&self.0.device_problem).clone()
    }
    /// Where a damaged store was put aside at start.
    pub fn set_store_set_aside(&self, path: String) {
        *lock(&self.0.store_set_aside) = Some(path);
    }
    /// See [`Shared::set_store_set_aside`].
    pub fn store_set_aside(&self) -> Option<String> {
        lock(&self.0.store_set_aside).clone()
    }

    /// Why the store takes nothing now, in a sentence; `None`: it does. It is tried again by itself, and meanwhile nothing is taken or mined.
    pub fn set_store_problem(&self, problem: Option<String>) {
        let mut kept = lock(&self.0.store_problem);
        if problem.is_some() && kept.is_none() {
            count(&self.0.counters.store_stops);
        }
        self.0.store_stopped.store(problem.is_some(), Ordering::Relaxed);
        *kept = problem;
    }
    /// See [`Shared::set_store_problem`].
    pub fn store_problem(&self) -> Option<String> {
        if !self.store_stopped() {
            return None;
        }
        lock(&self.0.store_problem).clone()
    }
    /// Whether there is a [`Shared::store_problem`].
    pub fn store_stopped(&self) -> bool {
        self.0.store_stopped.load(Ordering::Relaxed)
    }
    /// Whether devices may search for this node: neither the operator nor the store says no.
    pub fn may_mine(&self) -> bool {
        !self.mining_paused() && !self.store_stopped()
    }

    /// Changes what is shown of the bridge.
    pub fn set_bridge(&self, change: impl FnOnce(&mut BridgeView)) {
        change(&mut lock(&self.0.bridge));
    }
    /// How the bridge fares.
    pub fn bridge(&self) -> BridgeView {
        lock(&self.0.bridge).clone()
    }

    /// Replaces the rate of this node's own attempts.
    pub fn set_hash_rate(&self, rate: HashRate) {
        *lock(&self.0.hash_rate) = rate;
    }
    /// The rate of this node's own attempts.
    pub fn hash_rate(&self) -> HashRate {
        *lock(&self.0.hash_rate)
    }

    /// Counts and remembers a rejection.
    pub fn reject(&self, rejection: Rejection) {
        count(&self.0.counters.receipts_rejected);
        *lock(&self.0.reasons).entry(rejection.reason).or_default() += 1;
        let mut guard = lock(&self.0.rejections);
        let (total, kept) = &mut *guard;
        *total += 1;
        if kept.len() == REJECTIONS_KEPT {
            kept.pop_front();
        }
        kept.push_back(rejection);
    }
    /// Rejections by reason; the reasons are a fixed set of words.
    pub fn reasons(&self) -> BTreeMap<&'static str, u64> {
        lock(&self.0.reasons).clone()
    }
    /// The last rejections, newest first.
    pub fn rejections(&self) -> Vec<Rejection> {
        lock(&self.0.rejections).1.iter().rev().cloned().collect()
    }
    /// How many rejections there were, and of those since the `seen` first the newest, oldest first, at most `limit`.
    pub fn rejections_since(&self, seen: u64, limit: usize) -> (u64, Vec<Rejection>) {
        let guard = lock(&self.0.rejections);
        let (total, kept) = &*guard;
        let fresh = usize::try_from(total.saturating_sub(seen)).unwrap_or(usize::MAX).min(limit).min(kept.len());
        (*total, kept.iter().skip(kept.len() - fresh).cloned().collect())
    }

    /// What the ledger credits by the second.
    pub fn credited(&self) -> Credited {
        lock(&self.0.credit).rates(self.uptime().as_secs())
    }

    /// Tells how full a bounded pool is. Names are a fixed set of words.
    pub fn set_pool(&self, name: &'static str, used: usize, limit: usize) {
        lock(&self.0.pools).insert(name, (used, limit));
    }
    /// Bounded pools by name: places taken, and places there are.
    pub fn pools(&self) -> BTreeMap<&'static str, (usize, usize)> {
        lock(&self.0.pools).clone()
    }

    /// Ages of all accepted receipts, in seconds.
    pub fn age_histogram(&self) -> &Histogram {
        &self.0.age_histogram
    }
    /// Percentiles over the last accepted receipts.
    pub fn ages(&self) -> Ages {
        let mut sorted: Vec<u64> = lock(&self.0.ages).iter().copied().collect();
        sorted.sort_unstable();
        let at = |percent: usize| sorted.get((sorted.len() * percent / 100).min(sorted.len().saturating_sub(1))).copied().unwrap_or(0);
        Ages { count: sorted.len(), p50_ms: at(50), p99_ms: at(99) }
    }

    /// Counts what the engine noted and tells it to the event stream.
    pub fn note(&self, note: &Note, now: Millis) {
        let c = &self.0.counters;
        match *note {
            Note::Tip { root, height, undone } => {
                count(&c.tips);
                c.heads_undone.fetch_add(undone, Ordering::Relaxed);
                self.tell(Event::Head { root, height, undone });
            }
            Note::Accepted { unit, miner, epoch, head, audited, age_ms } => {
                count(&c.shares_accepted);
                if head {
                    count(&c.heads_accepted);
                }
                if audited {
                    count(&c.shares_audited);
                }
                self.0.age_histogram.observe(age_ms as f64 / 1e3);
                let mut ages = lock(&self.0.ages);
                if ages.len() == AGES_KEPT {
                    ages.pop_front();
                }
                ages.push_back(age_ms);
                drop(ages);
                if age_ms <= FRESH_MS
                    && let Some(view) = self.view()
                {
                    let attempts = target::work(view.engine.share_target).saturating_to::<u64>() as f64;
                    let own = miner == self.0.identity.miner;
                    lock(&self.0.credit).accepted(self.uptime().as_secs(), unit, own, audited, attempts);
                }
                self.tell(Event::Share { unit, miner, epoch, head, audited, age_ms });
            }
            Note::Refused { fault } => {
                let reason = fault.label();
                self.reject(Rejection { at: now, stage: "contextual", reason, detail: fault.to_string(), peer: None, miner: None });
            }
            Note::Confirmed { unit } => {
                count(&c.shares_audited);
                lock(&self.0.credit).confirmed(&unit);
            }
            Note::FalseRoot { miner, banned } => {
                count(&c.false_roots);
                if miner == self.0.identity.miner {
                    count(&c.own_false_roots);
                }
                if banned {
                    count(&c.bans);
                }
                let detail = "the recomputed root is another one".to_owned();
                self.reject(Rejection { at: now, stage: "audit", reason: "false_root", detail, peer: None, miner: Some(miner) });
                self.tell(Event::FalseRoot { miner, banned });
            }
            Note::FalseAlert => {
                count(&c.false_alerts);
                let detail = "an alert about a receipt whose root is true".to_owned();
                self.reject(Rejection { at: now, stage: "audit", reason: "false_alert", detail, peer: None, miner: None });
            }
            Note::Unaudited => count(&c.audits_unable),
            Note::Acknowledged { unit, head } => {
                count(&c.acknowledged);
                if head {
                    count(&c.acknowledged_heads);
                }
                self.tell(Event::Acknowledged { unit, head });
            }
            Note::LateHit => count(&c.late_hits),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shared() -> Shared {
        Shared::new(Identity {
            peer_id: "p".into(),
            miner: PublicKey([2; 33]),
            device_did: "d".into(),
            agent: "a".into(),
            network_name: "dev".into(),
            verify_only: false,
            alone: false,
            started_at: Millis(1),
        })
    }

    #[test]
    fn percentiles_and_lists_are_bounded() {
        let shared = shared();
        for i in 0..(AGES_KEPT as u64 + 100) {
            let note =
                Note::Accepted { unit: UnitId([0; 32]), miner: PublicKey([2; 33]), epoch: 1, head: i % 2 == 0, audited: false, age_ms: i };
            shared.note(&note, Millis(i));
            shared.note(&Note::FalseAlert, Millis(i));
        }
        let ages = shared.ages();
        assert_eq!(ages.count, AGES_KEPT);
        assert_eq!(ages.p50_ms, 100 + AGES_KEPT as u64 / 2);
        assert_eq!(shared.rejections().len(), REJECTIONS_KEPT);
        assert_eq!(shared.reasons()["false_alert"], AGES_KEPT as u64 + 100);
        assert_eq!(shared.counters().values().iter().find(|(n, _)| *n == "shares_accepted").unwrap().1, AGES_KEPT as u64 + 100);
    }

    #[test]
    fn every_counter_has_its_help() {
        let names: Vec<_> = Counters::default().values().iter().map(|(n, _)| *n).collect();
        let helped: Vec<_> = Counters::help().iter().map(|(n, _)| *n).collect();
        assert_eq!(names, helped);
        assert!(Counters::help().iter().all(|(_, help)| !help.trim().is_empty()));
    }
}
