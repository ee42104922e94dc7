//! `/healthz`: the loop turns. `/readyz`: the node is of use, and if not, why ("alive but stuck" is the classic failure).
//!
//! | check | not `ok` when |
//! |---|---|
//! | `loop` | it stands still, or the node stops |
//! | `store` | it cannot be read, or takes nothing: the disk is full |
//! | `peers` | no node is connected, and this one may not work alone |
//! | `sync` | no peer has told its chain, or heads are still fetched |
//! | `head` | there was no new head for [`STALE_SPACINGS`] |
//! | `device` | one is benched, or a check failed |
//! | `clock` | it is off from the peers' by [`CLOCK_OFF_MAX`] |
//! | `aggregator` | it has answered nothing for [`crate::state::BRIDGE_PATIENCE`] |
//!
//! A node whose aggregator is away mines and forwards as ever, but its receipts earn nothing meanwhile: that is what its operator runs it for, so it is
//! not ready. Nothing is lost, and no check makes a restart necessary; a supervisor that restarts looks at `/healthz`.

use std::time::Duration;

use axum::Json;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use serde::Serialize;
use tops_compute::queue::LaneReport;
use tops_protocol::engine::SyncState;
use tops_protocol::target;
use utoipa::ToSchema;

use super::forms::Nothing;
use super::{Api, Forbidden, Query, Refused};
use crate::state::{NodeView, Shared};

/// A head that stood for so many times the network's spacing is stale. Heads come at random: at the right difficulty one in 10^17 takes so long, and
/// when nine tenths of the hash rate have gone one in fifty.
pub const STALE_SPACINGS: u32 = 40;
/// And never sooner than this: a fast network for tests may rest for a while.
pub const STALE_MIN: Duration = Duration::from_secs(60);
/// A node that mines without others finds a head by its own rate; it may take so many times the expected time. One head in 20,000 takes longer.
pub const STALE_ALONE: f64 = 10.0;
/// A clock that is off by so much cannot take part: receipts from further ahead than 15 s are held back, and fresh ones are some seconds old.
pub const CLOCK_OFF_MAX: Duration = Duration::from_secs(20);

/// Whether the loop turns.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Pulse {
    ok: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    error: Option<String>,
}

/// Whether the loop turns.
#[utoipa::path(
    get, path = "/healthz", tag = "health", params(Nothing),
    responses((status = 200, description = "It turns", body = Pulse), (status = 503, description = "It stands still", body = Pulse), Forbidden)
)]
pub(super) async fn healthz(State(api): State<Api>) -> (StatusCode, Json<Pulse>) {
    if api.shared.turning() {
        (StatusCode::OK, Json(Pulse { ok: true, error: None }))
    } else {
        let error = Some(format!("the loop has not turned for {} s", api.shared.since_beat().as_secs()));
        (StatusCode::SERVICE_UNAVAILABLE, Json(Pulse { ok: false, error }))
    }
}

/// Whether the node is of use.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Readiness {
    /// Whether every check is `ok`.
    ready: bool,
    checks: Checks,
}

/// Each is `ok` or says in a sentence what is wrong.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Checks {
    /// The node's loop turns.
    #[serde(rename = "loop")]
    turns: String,
    /// The store reads and takes rows.
    store: String,
    /// Other nodes are connected, or need not be.
    peers: String,
    /// This node is as far as its peers.
    sync: String,
    /// The chain grows.
    head: String,
    /// Every device works.
    device: String,
    /// The local clock agrees with the peers'.
    clock: String,
    /// The aggregator takes receipts.
    aggregator: String,
}

const OK: &str = "ok";

impl Checks {
    /// Every check by its name, and whether it is `ok`.
    pub(super) fn each(&self) -> [(&'static str, bool); 8] {
        let Self { turns, store, peers, sync, head, device, clock, aggregator } = self;
        [
            ("loop", turns),
            ("store", store),
            ("peers", peers),
            ("sync", sync),
            ("head", head),
            ("device", device),
            ("clock", clock),
            ("aggregator", aggregator),
        ]
        .map(|(name, said)| (name, said == OK))
    }
}

fn said(problem: Option<String>) -> String {
    problem.unwrap_or_else(|| OK.to_owned())
}

/// Whether the node is of use, and if not, why.
#[utoipa::path(
    get, path = "/readyz", tag = "health", params(Nothing),
    responses((status = 200, description = "Every check is ok", body = Readiness), (status = 503, description = "One is not", body = Readiness), Refused)
)]
pub(super) async fn readyz(State(api): State<Api>, RawQuery(raw): RawQuery) -> axum::response::Response {
    use axum::response::IntoResponse;
    if let Err(problem) = Query::<Nothing>::parse(raw.as_deref()) {
        return problem.into_response();
    }
    let checks = checks(&api).await;
    let ready = checks.each().iter().all(|(_, ok)| *ok);
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(Readiness { ready, checks })).into_response()
}

/// What is wrong with the devices: a check that failed, or a device that gets no more work.
pub(super) fn device_problem(shared: &Shared, lanes: &[LaneReport]) -> Option<String> {
    let benched = || lanes.iter().find_map(|lane| lane.benched.as_ref().map(|why| format!("{}: {why}", lane.device.label())));
    shared.device_problem().or_else(benched)
}

/// Looks at everything.
pub(super) async fn checks(api: &Api) -> Checks {
    let shared = &api.shared;
    let turns = match (shared.stopping(), shared.turning()) {
        (true, _) => Some("the node is stopping".into()),
        (false, true) => None,
        (false, false) => Some(format!("the loop has not turned for {} s", shared.since_beat().as_secs())),
    };
    let store = match shared.store_problem() {
        Some(problem) => Some(problem),
        None => api.read(|store| store.main_heads(None, 1)).await.err().map(|problem| problem.sentence),
    };
    let starting = || Some("the node is starting".to_owned());
    let view = shared.view();
    let view = view.as_deref();
    Checks {
        turns: said(turns),
        store: said(store),
        peers: said(view.map_or_else(starting, |view| peers(view, shared))),
        sync: said(view.map_or_else(starting, |view| sync(view, shared))),
        head: said(view.map_or_else(starting, |view| {
            stale(view, shared.tip_age(), Duration::from_secs(api.network.spacing_secs().into()), shared.hash_rate().secs_60)
        })),
        device: said(device_problem(shared, &(api.devices)())),
        clock: said(view.and_then(|view| clock(view.engine.clock_off_ms))),
        aggregator: said(view.and_then(|view| shared.bridge().dead(view.at))),
    }
}

fn nodes(view: &NodeView) -> usize {
    view.peers.iter().filter(|p| p.node).count()
}

fn peers(view: &NodeView, shared: &Shared) -> Option<String> {
    (nodes(view) == 0 && !shared.identity().alone).then(|| "no other node is connected: check --bootstrap and the firewall".into())
}

fn sync(view: &NodeView, shared: &Shared) -> Option<String> {
    match view.engine.sync {
        SyncState::InStep => None,
        SyncState::Lonely if shared.identity().alone && nodes(view) == 0 => None,
        SyncState::Lonely => Some("no peer has told its chain yet".into()),
        SyncState::Heads(height) => Some(format!("at height {} of {}", view.engine.height.0, height.0)),
    }
}

/// Whether the tip is too old: for its network, or for what this node's devices alone would take.
fn stale(view: &NodeView, age: Duration, spacing: Duration, own_rate: f64) -> Option<String> {
    let alone = nodes(view) == 0;
    let attempts = target::work(view.engine.head_target).saturating_to::<u64>() as f64;
    (age >= stale_after(spacing, alone.then_some(own_rate), attempts)).then(|| {
        let (secs, spacing) = (age.as_secs(), spacing.as_secs());
        format!("no new head for {secs} s, where one is due every {spacing} s: this node is cut off, or nobody mines; look at the peers and their heads")
    })
}

/// How old a head may become. `alone_at`: nobody else is connected, and these are this node's attempts a second.
fn stale_after(spacing: Duration, alone_at: Option<f64>, attempts_a_head: f64) -> Duration {
    let by_schedule = (spacing * STALE_SPACINGS).max(STALE_MIN);
    let own_rate = alone_at.filter(|rate| *rate > 0.0);
    let by_own_rate = own_rate.map(|rate| Duration::try_from_secs_f64(STALE_ALONE * attempts_a_head / rate).unwrap_or(Duration::MAX));
    by_own_rate.map_or(by_schedule, |own| own.max(by_schedule))
}

fn clock(off_ms: Option<i64>) -> Option<String> {
    let off_ms = off_ms.filter(|off| off.unsigned_abs() >= CLOCK_OFF_MAX.as_millis() as u64)?;
    let side = if off_ms > 0 { "ahead of" } else { "behind" };
    Some(format!("the clock is {} s {side} the peers' clocks: set it by NTP", off_ms.unsigned_abs() / 1000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_stale_by_the_schedule_or_by_the_only_miners_rate() {
        let secs = Duration::from_secs;
        assert_eq!(stale_after(secs(15), None, 1e9), secs(600));
        assert_eq!(stale_after(secs(1), None, 1e9), STALE_MIN);
        assert_eq!(stale_after(secs(15), Some(100.0), 1e6), secs(100_000), "one processor on a large network's difficulty");
        assert_eq!(stale_after(secs(15), Some(1e9), 1e6), secs(600));
        assert_eq!(stale_after(secs(15), Some(0.0), 1e6), secs(600));
    }

    #[test]
    fn a_clock_a_minute_off_is_said() {
        assert_eq!((clock(None), clock(Some(3_000)), clock(Some(-19_999))), (None, None, None));
        assert_eq!(clock(Some(60_000)).unwrap(), "the clock is 60 s ahead of the peers' clocks: set it by NTP");
        assert!(clock(Some(-60_000)).unwrap().contains("behind"));
    }
}
