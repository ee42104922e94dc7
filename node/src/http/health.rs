//! `/healthz`: the loop turns. `/readyz`: the node is of use, and if not, why ("alive but stuck" is the classic failure).

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::{Map, Value, json};
use tops_compute::queue::LaneReport;
use tops_protocol::engine::SyncState;

use super::Api;
use crate::state::Shared;

/// 200 while the loop turns.
pub(super) async fn healthz(State(api): State<Api>) -> (StatusCode, Json<Value>) {
    if api.shared.turning() {
        (StatusCode::OK, Json(json!({ "ok": true })))
    } else {
        let error = format!("the loop has not turned for {} s", api.shared.since_beat().as_secs());
        (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "ok": false, "error": error })))
    }
}

/// 200 when every check is `ok`.
pub(super) async fn readyz(State(api): State<Api>) -> (StatusCode, Json<Value>) {
    let (ready, checks) = checks(&api).await;
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(json!({ "ready": ready, "checks": checks })))
}

/// What is wrong with the devices: a check that failed, or a device that gets no more work.
pub(super) fn device_problem(shared: &Shared, lanes: &[LaneReport]) -> Option<String> {
    let benched = || lanes.iter().find_map(|lane| lane.benched.as_ref().map(|why| format!("{}: {why}", lane.device.label())));
    shared.device_problem().or_else(benched)
}

/// Every check by its name with what it says, and whether all say `ok`.
pub(super) async fn checks(api: &Api) -> (bool, Map<String, Value>) {
    let shared = &api.shared;
    let ok = "ok".to_owned();
    let turns = match (shared.stopping(), shared.turning()) {
        (true, _) => "the node is stopping".into(),
        (false, true) => ok.clone(),
        (false, false) => format!("the loop has not turned for {} s", shared.since_beat().as_secs()),
    };
    let store = match shared.store_problem() {
        Some(problem) => problem,
        None => api.read(|store| store.main_heads(None, 1)).await.map_or_else(|problem| problem.sentence, |_| ok.clone()),
    };
    let (peers, sync) = match shared.view() {
        None => ("the node is starting".into(), "the node is starting".into()),
        Some(view) => {
            let nodes = view.peers.iter().filter(|p| p.node).count();
            let alone = shared.identity().alone && nodes == 0;
            let peers =
                if nodes > 0 || alone { ok.clone() } else { "no other node is connected: check --bootstrap and the firewall".into() };
            let sync = match view.engine.sync {
                SyncState::InStep => ok.clone(),
                SyncState::Lonely if alone => ok.clone(),
                SyncState::Lonely => "no peer has told its chain yet".into(),
                SyncState::Heads(height) => format!("at height {} of {}", view.engine.height.0, height.0),
            };
            (peers, sync)
        }
    };
    let device = device_problem(shared, &(api.devices)()).unwrap_or_else(|| ok.clone());
    let all = [("loop", turns), ("store", store), ("peers", peers), ("sync", sync), ("device", device)];
    let ready = all.iter().all(|(_, what)| *what == ok);
    (ready, all.into_iter().map(|(name, what)| (name.to_owned(), json!(what))).collect())
}
