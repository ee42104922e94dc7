//! `GET` and `POST /v1/mining`: whether this node mines, and a pause that lasts until it is lifted or the process ends.
//!
//! Audits, gossip, sync and the bridge go on while mining rests. The body must be JSON by its content type, so that no web page of another
//! origin can send it unasked.

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{RawQuery, State};
use serde::{Deserialize, Serialize};
use tracing::info;
use utoipa::ToSchema;

use super::forms::{Nothing, Refusal};
use super::{Api, Problem, Query, Reply, Usual, body_of};

/// What the operator wants.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Wish {
    paused: bool,
}

/// Whether it mines.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Mining {
    /// Whether it mines unless told otherwise.
    mines: bool,
    /// Whether the operator paused it.
    paused: bool,
    /// Whether devices search now.
    mining: bool,
}

fn state(api: &Api) -> Json<Mining> {
    let job = api.shared.view().is_some_and(|view| view.engine.mining);
    Json(Mining { mines: !api.shared.identity().verify_only, paused: api.shared.mining_paused(), mining: job && api.shared.may_mine() })
}

/// Whether this node mines.
#[utoipa::path(get, path = "/v1/mining", tag = "mining", params(Nothing), responses((status = 200, description = "Whether", body = Mining), Usual))]
pub(super) async fn show(State(api): State<Api>, RawQuery(raw): RawQuery) -> Reply<Mining> {
    Query::<Nothing>::parse(raw.as_deref())?;
    Ok(state(&api))
}

/// Rests mining until told otherwise or restarted. Audits, gossip, sync and the bridge go on.
#[utoipa::path(
    post, path = "/v1/mining", tag = "mining", request_body = Wish, params(Nothing),
    responses(
        (status = 200, description = "Done", body = Mining),
        (status = 409, description = "This node only verifies", body = Refusal),
        (status = 413, description = "The body is too long", body = Refusal),
        Usual,
    )
)]
pub(super) async fn set(State(api): State<Api>, RawQuery(raw): RawQuery, body: Result<Json<Wish>, JsonRejection>) -> Reply<Mining> {
    Query::<Nothing>::parse(raw.as_deref())?;
    let wish = body_of(body, "{\"paused\":true} or {\"paused\":false}")?;
    if api.shared.identity().verify_only {
        return Err(Problem::new(axum::http::StatusCode::CONFLICT, "this node only verifies: there is no mining to pause"));
    }
    if api.shared.mining_paused() != wish.paused {
        info!(paused = wish.paused, "mining was paused or resumed over HTTP");
    }
    api.shared.set_mining_paused(wish.paused);
    Ok(state(&api))
}
