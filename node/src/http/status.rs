//! What the node says of itself from memory: status, heads, peers, rejections.

use axum::Json;
use axum::extract::{RawQuery, State};
use serde_json::{Map, Value, json};
use tops_protocol::codec;
use tops_protocol::engine::{HeadRow, Place, SyncState};
use tops_protocol::{Height, target};

use super::{Api, Problem, Query, Reply, decimal, health};
use crate::credit::{Rate, Rates};
use crate::state::{NodeView, Rejection};

/// The view, or that there is none yet.
fn view(api: &Api) -> Result<std::sync::Arc<NodeView>, Problem> {
    api.shared.view().ok_or_else(|| Problem::new(axum::http::StatusCode::SERVICE_UNAVAILABLE, "the node is starting: try again"))
}

/// `GET /v1/status`: the whole node on one page.
pub(super) async fn status(State(api): State<Api>, RawQuery(raw): RawQuery) -> Reply {
    Query::parse(raw.as_deref(), &[])?;
    body(&api).await.map(Json)
}

/// The body of `/v1/status`; the event stream tells the same.
pub(super) async fn body(api: &Api) -> Result<Value, Problem> {
    let view = view(api)?;
    let (shared, e) = (&api.shared, &view.engine);
    let outbox = api.read(|store| Ok(store.outbox_counts())).await?;
    let counters: Map<String, Value> = shared.counters().values().into_iter().map(|(name, n)| (name.to_owned(), json!(n))).collect();
    let (ages, rate, identity) = (shared.ages(), shared.hash_rate(), shared.identity());
    let ops = api.network.shape().ops() as f64;
    let sync = match e.sync {
        SyncState::Lonely => json!({ "state": "lonely" }),
        SyncState::Heads(height) => json!({ "state": "heads", "target": height.0 }),
        SyncState::InStep => json!({ "state": "in_step" }),
    };
    let credited = shared.credited();
    let pools: Vec<Value> =
        shared.pools().into_iter().map(|(name, (used, limit))| json!({ "name": name, "used": used, "limit": limit })).collect();
    Ok(json!({
        "at_ms": view.at.0,
        "node": {
            "agent": identity.agent,
            "peer_id": identity.peer_id,
            "miner": identity.miner.to_hex(),
            "device_did": identity.device_did,
            "verify_only": identity.verify_only,
            "started_at_ms": identity.started_at.0,
            "uptime_seconds": shared.uptime().as_secs_f64(),
            "listening": view.listening,
        },
        "network": {
            "name": identity.network_name,
            "id": e.network.to_hex(),
            "tag": api.network.tag().to_hex(),
            "genesis": api.network.genesis().to_hex(),
            "shape": [api.network.shape().m(), api.network.shape().n(), api.network.shape().k()],
            "ops_an_attempt": api.network.shape().ops(),
            "spacing_secs": api.network.spacing_secs(),
        },
        "tip": {
            "root": e.tip.to_hex(),
            "height": e.height.0,
            "time_ms": e.tip_time.0,
            "work": decimal(e.work),
            "next_bits": e.head_bits,
            "next_target": decimal(e.head_target),
            "next_share_target": decimal(e.share_target),
            "attempts_a_head": decimal(target::work(e.head_target)),
        },
        "ledger_digest": hex::encode(e.ledger_digest),
        "ban_digest": hex::encode(e.ban_digest.hash),
        "heads": e.heads,
        "shares": e.shares,
        "audited": e.shares.saturating_sub(e.unaudited),
        "unaudited": e.unaudited,
        "undecided": e.undecided,
        "audits_in_flight": e.audits_in_flight,
        "held": e.held,
        "bans": e.bans,
        "miners": e.miners,
        "mining": e.mining && shared.may_mine(),
        "mining_paused": shared.mining_paused(),
        "sync": sync,
        "peers": view.peers.len(),
        "nodes": view.peers.iter().filter(|p| p.node).count(),
        "outbox": {
            "waiting": outbox.waiting, "due": outbox.due, "delivered": outbox.delivered,
            "dead": outbox.dead, "void": outbox.void, "evicted": outbox.evicted,
        },
        "receipt_age": { "count": ages.count, "p50_ms": ages.p50_ms, "p99_ms": ages.p99_ms },
        "hash_rate": {
            "attempts_per_second_10s": rate.secs_10, "attempts_per_second_60s": rate.secs_60, "attempts_per_second_15min": rate.mins_15,
            "tops_10s": rate.secs_10 * ops / 1e12, "tops_60s": rate.secs_60 * ops / 1e12, "tops_15min": rate.mins_15 * ops / 1e12,
            "attempts": rate.total,
        },
        "credited": { "own": rates_json(&credited.own, ops), "network": rates_json(&credited.network, ops) },
        "counters": counters,
        "rejected": shared.reasons(),
        "device_problem": health::device_problem(shared, &(api.devices)()),
        "store_set_aside": shared.store_set_aside(),
        "store_problem": shared.store_problem(),
        "pools": pools,
    }))
}

/// What was credited a second, by window.
fn rates_json(rates: &Rates, ops: f64) -> Value {
    let rate = |rate: &Rate| {
        json!({
            "shares_per_second": rate.shares, "audited_shares_per_second": rate.audited_shares,
            "attempts_per_second": rate.attempts, "audited_attempts_per_second": rate.audited_attempts,
            "tops": rate.attempts * ops / 1e12, "audited_tops": rate.audited_attempts * ops / 1e12,
        })
    };
    json!({ "10s": rate(&rates.secs_10), "60s": rate(&rates.secs_60), "15min": rate(&rates.mins_15) })
}

/// A head's row as JSON.
fn head_json(row: &HeadRow) -> Value {
    let mut head = json!({ "root": row.root.to_hex(), "height": row.height.0, "audited": row.audited });
    if let Ok(receipt) = codec::receipt_from_wire(&row.wire) {
        head["prev_hash"] = json!(receipt.prev_hash.to_hex());
        head["miner"] = json!(receipt.miner.to_hex());
        head["unit"] = json!(receipt.unit().to_hex());
        head["timestamp_ms"] = json!(receipt.timestamp.0);
    }
    if let Some(place) = Place::from_bytes(&row.place) {
        head["bits"] = json!(place.bits().get());
        head["attempts"] = decimal(target::work(place.bits().target()));
    }
    head
}

/// `GET /v1/head`: the tip.
pub(super) async fn head(State(api): State<Api>, RawQuery(raw): RawQuery) -> Reply {
    Query::parse(raw.as_deref(), &[])?;
    let (tip, genesis) = (view(&api)?.engine.tip, api.network.genesis());
    if tip == genesis {
        return Ok(Json(json!({ "root": genesis.to_hex(), "height": 0, "timestamp_ms": api.network.genesis_time().0 })));
    }
    match api.read(move |store| store.head(&tip)).await? {
        Some(row) => Ok(Json(head_json(&row))),
        None => Err(Problem::new(axum::http::StatusCode::SERVICE_UNAVAILABLE, "the newest head is being written: try again")),
    }
}

/// `GET /v1/heads?from=&limit=`: the main chain downwards.
pub(super) async fn heads(State(api): State<Api>, RawQuery(raw): RawQuery) -> Reply {
    let query = Query::parse(raw.as_deref(), &["from", "limit"])?;
    let from = query.get("from", "a height", |t| t.parse().ok().map(Height))?;
    let limit = query.limit()?;
    let rows = api.read(move |store| store.main_heads(from, limit)).await?;
    let next = rows.last().and_then(|row| row.height.0.checked_sub(1)).filter(|&h| h > 0 && rows.len() == limit);
    Ok(Json(json!({ "heads": rows.iter().map(head_json).collect::<Vec<_>>(), "next_from": next })))
}

/// `GET /v1/peers`.
pub(super) async fn peers(State(api): State<Api>, RawQuery(raw): RawQuery) -> Reply {
    Query::parse(raw.as_deref(), &[])?;
    let view = view(&api)?;
    let peers: Vec<Value> = view
        .peers
        .iter()
        .map(|p| {
            let seen = view.engine.peers.iter().find(|e| e.peer.0 == p.number && p.node);
            json!({
                "peer_id": p.peer_id, "address": p.address, "outbound": p.outbound, "agent": p.agent, "node": p.node, "score": p.score,
                "ping_ms": p.ping_ms, "connected_secs": p.connected_secs, "in_step": seen.map(|e| e.in_step),
                "height": seen.and_then(|e| e.tip).map(|(h, _)| h.0), "tip": seen.and_then(|e| e.tip).map(|(_, root)| root.to_hex()),
            })
        })
        .collect();
    Ok(Json(json!({ "peers": peers })))
}

/// `GET /v1/rejections`: by reason, and the last ones.
pub(super) async fn rejections(State(api): State<Api>, RawQuery(raw): RawQuery) -> Reply {
    Query::parse(raw.as_deref(), &[])?;
    let last: Vec<Value> = api.shared.rejections().into_iter().map(|r| rejection_json(&r)).collect();
    Ok(Json(json!({ "by_reason": api.shared.reasons(), "last": last })))
}

/// A rejection as JSON.
pub(super) fn rejection_json(r: &Rejection) -> Value {
    json!({
        "at_ms": r.at.0, "stage": r.stage, "reason": r.reason, "detail": r.detail, "peer_id": r.peer, "miner": r.miner.map(|m| m.to_hex()),
    })
}
