//! `GET` and `POST /v1/mining`: whether this node mines, and a pause that lasts until it is lifted or the process ends.
//!
//! Audits, gossip, sync and the bridge go on while mining rests. The body must be JSON by its content type, so that no web page of another
//! origin can send it unasked.

use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use serde::Deserialize;
use serde_json::{Value, json};
use tracing::info;

use super::{Api, Problem, Reply};

/// The body of the request.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wish {
    paused: bool,
}

fn state(api: &Api) -> Json<Value> {
    let job = api.shared.view().is_some_and(|view| view.engine.mining);
    let paused = api.shared.mining_paused();
    Json(json!({ "mines": !api.shared.identity().verify_only, "paused": paused, "mining": job && api.shared.may_mine() }))
}

/// `GET /v1/mining`.
pub(super) async fn show(State(api): State<Api>) -> Reply {
    Ok(state(&api))
}

/// `POST /v1/mining` with `{"paused":true}` or `{"paused":false}`.
pub(super) async fn set(State(api): State<Api>, body: Result<Json<Wish>, JsonRejection>) -> Reply {
    let Ok(Json(wish)) = body else {
        return Err(Problem::bad("send {\"paused\":true} or {\"paused\":false} as application/json"));
    };
    if api.shared.identity().verify_only {
        return Err(Problem::bad("this node only verifies: there is no mining to pause"));
    }
    if api.shared.mining_paused() != wish.paused {
        info!(paused = wish.paused, "mining was paused or resumed over HTTP");
    }
    api.shared.set_mining_paused(wish.paused);
    Ok(state(&api))
}
