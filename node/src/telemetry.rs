//! Log lines on standard error: text for people or one JSON object a line.
//!
//! What is printed when, with which fields, is in `docs/operations/logs.md`, and a test holds both together. Who only reads logs gets one line a
//! minute that says how the node is.
//!
//! A plain level applies to this project's own rooms; libraries are kept at `warn`, unless the operator writes a filter. No secret has
//! a `Debug` or `Display` that shows it, so none can get here.

use std::io::IsTerminal;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tops_protocol::engine::SyncState;
use tops_store::{OutboxCounts, Store};
use tracing::{info, warn};
use tracing_subscriber::EnvFilter;

use crate::config::{LogForm, Logging};
use crate::state::{Counters, Shared};

/// How often the node says how it is.
pub const EVERY: Duration = Duration::from_secs(60);
/// A head that is older than so many spacings is said to be old: on `main`, chance alone does that once in two centuries.
const OLD_HEAD_SPACINGS: u64 = 20;

/// Rooms that a plain level speaks of.
const OWN: [&str; 4] = ["tops_node", "tops_protocol", "tops_compute", "tops_store"];

/// What libraries may say. The table of peers warns whenever nobody is connected, gossip for each message that a full queue has no room for: the
/// node says the one better, and counts and repeats the other. The database's complaints about a disk are the store's, which says what follows.
const LIBRARIES: &str = "warn,libp2p_kad=error,libp2p_gossipsub=error,sled=off";

/// The filter of a level or of filter directives; the error is half a sentence for an operator.
pub fn filter(text: &str) -> Result<EnvFilter, String> {
    let fault = || "it must be error, warn, info, debug, trace, off, or a filter such as info,libp2p=debug".to_owned();
    let level = text.trim().to_ascii_lowercase();
    let directives = match level.as_str() {
        "off" => level,
        "error" => "error".to_owned(),
        "warn" | "info" | "debug" | "trace" => OWN.iter().fold(LIBRARIES.to_owned(), |all, room| format!("{all},{room}={level}")),
        _ if text.contains(['=', ',']) && text.len() <= 1_024 => text.to_owned(),
        _ => return Err(fault()),
    };
    EnvFilter::builder().parse(directives).map_err(|_| fault())
}

/// Starts logging for the whole process; a second call does nothing.
pub fn start(logging: &Logging) {
    let filter = filter(&logging.level).unwrap_or_else(|_| EnvFilter::new("info"));
    // The library's own complaint about a log that cannot be written would go to the same place, and panic.
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(crate::progress::writer).log_internal_errors(false);
    // The only failure is that a subscriber is there already, which then goes on.
    let _ = match logging.form {
        LogForm::Text => lines.with_ansi(std::io::stderr().is_terminal()).with_target(false).try_init(),
        LogForm::Json => lines.json().flatten_event(true).with_current_span(false).with_span_list(false).try_init(),
    };
}

/// What happened in the minute: counters of which the line tells the growth.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Totals {
    accepted: u64,
    own: u64,
    audited: u64,
    rejected: u64,
    delivered: u64,
}

impl Totals {
    fn of(c: &Counters) -> Self {
        let read = |counter: &std::sync::atomic::AtomicU64| counter.load(std::sync::atomic::Ordering::Relaxed);
        Self {
            accepted: read(&c.shares_accepted),
            own: read(&c.acknowledged),
            audited: read(&c.shares_audited),
            rejected: read(&c.receipts_rejected),
            delivered: read(&c.bridge_delivered),
        }
    }
    fn since(self, before: Self) -> Self {
        Self {
            accepted: self.accepted - before.accepted,
            own: self.own - before.own,
            audited: self.audited - before.audited,
            rejected: self.rejected - before.rejected,
            delivered: self.delivered - before.delivered,
        }
    }
}

/// What an operator should look at, half a sentence each.
fn warnings(shared: &Shared, outbox: &OutboxCounts, head_age_secs: u64, spacing_secs: u32) -> Vec<String> {
    let mut all = Vec::new();
    let identity = shared.identity();
    if !shared.turning() {
        all.push(format!("the loop has not turned for {} s", shared.since_beat().as_secs()));
    }
    if let Some(view) = shared.view() {
        let nodes = view.peers.iter().filter(|peer| peer.node).count();
        if nodes == 0 && !identity.alone {
            all.push("no other node is connected".to_owned());
        }
        if let SyncState::Heads(height) = view.engine.sync {
            all.push(format!("at height {} of {}", view.engine.height.0, height.0));
        }
        if view.engine.height.0 > 0 && head_age_secs > OLD_HEAD_SPACINGS * u64::from(spacing_secs) {
            all.push(format!("the best head is {head_age_secs} s old"));
        }
    }
    all.extend(shared.store_problem());
    all.extend(shared.device_problem());
    all.extend(shared.view().and_then(|view| shared.bridge().dead(view.at)));
    if outbox.dead > 0 {
        all.push(format!("{} receipts were refused by the aggregator", outbox.dead));
    }
    if shared.store_set_aside().is_some() {
        all.push("a damaged store was set aside".to_owned());
    }
    if shared.mining_paused() {
        all.push("mining is paused".to_owned());
    }
    all
}

/// Says once a minute how the node is, until it stops: at `warn` when there is something to look at, else at `info`.
pub async fn every_minute(shared: Shared, store: Arc<dyn Store>, spacing_secs: u32) {
    let mut ticks = interval_at(Instant::now() + EVERY, EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut before = Totals::of(shared.counters());
    while !shared.stopping() {
        ticks.tick().await;
        let Some(view) = shared.view() else { continue };
        let totals = Totals::of(shared.counters());
        let minute = totals.since(before);
        before = totals;
        let outbox = store.outbox_counts();
        let engine = &view.engine;
        let head_age_secs = view.at.0.saturating_sub(engine.tip_time.0) / 1_000;
        let nodes = view.peers.iter().filter(|peer| peer.node).count();
        let warnings = warnings(&shared, &outbox, head_age_secs, spacing_secs).join("; ");
        // The macro wants its level when it is compiled.
        macro_rules! say {
            ($level:ident) => {
                $level!(
                    height = engine.height.0,
                    head_age_secs,
                    nodes,
                    peers = view.peers.len(),
                    attempts_per_sec = shared.hash_rate().secs_60.round() as u64,
                    accepted = minute.accepted,
                    own = minute.own,
                    audited = minute.audited,
                    rejected = minute.rejected,
                    delivered = minute.delivered,
                    outbox_due = outbox.due,
                    outbox_dead = outbox.dead,
                    warnings,
                    "the last minute"
                )
            };
        }
        if warnings.is_empty() {
            say!(info);
        } else {
            say!(warn);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::Identity;
    use tops_protocol::{Millis, PublicKey};

    #[test]
    fn warnings_say_what_to_look_at_and_nothing_else() {
        let identity = Identity {
            peer_id: "p".into(),
            miner: PublicKey([2; 33]),
            device_did: "d".into(),
            agent: "a".into(),
            network_name: "dev".into(),
            verify_only: false,
            alone: true,
            started_at: Millis(1),
        };
        let shared = Shared::new(identity);
        shared.beat();
        assert_eq!(warnings(&shared, &OutboxCounts::default(), 0, 4), Vec::<String>::new());
        shared.set_mining_paused(true);
        shared.set_device_problem(Some("cuda:0: it fell off the bus".into()));
        let outbox = OutboxCounts { dead: 2, ..OutboxCounts::default() };
        let expected = ["cuda:0: it fell off the bus", "2 receipts were refused by the aggregator", "mining is paused"];
        assert_eq!(warnings(&shared, &outbox, 0, 4), expected);
    }

    #[test]
    fn levels_and_filters_parse_and_nonsense_does_not() {
        for good in ["info", "TRACE", "off", "info,libp2p=debug", "tops_node=trace"] {
            assert!(filter(good).is_ok(), "{good}");
        }
        for bad in ["", "loud", "tops_node=loud", "info libp2p"] {
            assert!(filter(bad).is_err(), "{bad}");
        }
    }
}
