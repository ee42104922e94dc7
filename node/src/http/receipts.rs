//! What the store holds, by pages: receipts with their state, the ledger, the outbox.

use axum::Json;
use axum::extract::rejection::{JsonRejection, PathRejection};
use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use tops_protocol::codec;
use tops_protocol::engine::{OutboxState, ShareRow, ShareState};
use tops_protocol::{PublicKey, ReceiptId, UnitId};
use tops_store::{Cursor, PAGE_MAX, ReceiptFilter};

use super::{Api, Problem, Query, Replay, Reply, decimal};

fn state_word(state: ShareState) -> &'static str {
    match state {
        ShareState::Unaudited => "unaudited",
        ShareState::Audited => "audited",
        ShareState::Void => "void",
    }
}

fn outbox_word(state: OutboxState) -> &'static str {
    match state {
        OutboxState::Waiting => "waiting",
        OutboxState::Due => "due",
        OutboxState::Delivered => "delivered",
        OutboxState::Dead => "dead",
        OutboxState::Void => "void",
    }
}

fn outbox_state(word: &str) -> Option<OutboxState> {
    [OutboxState::Waiting, OutboxState::Due, OutboxState::Delivered, OutboxState::Dead, OutboxState::Void]
        .into_iter()
        .find(|&s| outbox_word(s) == word)
}

fn share_json(row: &ShareRow, own: &PublicKey) -> Value {
    let mut share = json!({
        "unit": row.unit.to_hex(), "epoch": row.epoch, "miner": row.miner.to_hex(), "state": state_word(row.state), "own": row.miner == *own,
    });
    if let Ok(receipt) = codec::receipt_from_wire(&row.wire) {
        share["id"] = json!(receipt.id().to_hex());
        share["work_root"] = json!(receipt.work_root.to_hex());
        share["prev_hash"] = json!(receipt.prev_hash.to_hex());
        share["nonce"] = json!(receipt.nonce.get());
        share["timestamp_ms"] = json!(receipt.timestamp.0);
    }
    share
}

/// `GET /v1/receipts?epoch=&miner=&cursor=&limit=`: every stored share, newest epoch first. Own ones are stored only when they are flushed.
pub(super) async fn list(State(api): State<Api>, RawQuery(raw): RawQuery) -> Reply {
    let query = Query::parse(raw.as_deref(), &["epoch", "miner", "cursor", "limit"])?;
    let filter = ReceiptFilter {
        epoch: query.get("epoch", "a number", |t| t.parse().ok())?,
        miner: query.get("miner", "a compressed key as 66 lower-case hex digits", |t| PublicKey::from_hex(t).ok())?,
    };
    let cursor: Option<Cursor> = query.get("cursor", "the `next` of an earlier page", |t| t.parse().ok())?;
    let limit = query.limit()?;
    let own = api.shared.identity().miner;
    let page = api.read(move |store| store.receipts(&filter, cursor.as_ref(), limit)).await?;
    let rows: Vec<Value> = page.rows.iter().map(|row| share_json(row, &own)).collect();
    Ok(Json(json!({ "receipts": rows, "next": page.next.map(|c| c.to_string()) })))
}

/// `GET /v1/receipts/{id}`: one share by its unit or its receipt's id, with its text.
pub(super) async fn one(State(api): State<Api>, id: Result<Path<String>, PathRejection>, RawQuery(raw): RawQuery) -> Reply {
    Query::parse(raw.as_deref(), &[])?;
    let unit = id.ok().and_then(|Path(id)| UnitId::from_hex(&id).ok());
    let unit = unit.ok_or_else(|| Problem::bad("a receipt is named by its unit or id, 64 lower-case hex digits"))?;
    let found = api
        .read(move |store| {
            let share = match store.share(&unit)? {
                Some(share) => Some(share),
                None => store.receipt(&ReceiptId(unit.0))?,
            };
            let Some(share) = share else { return Ok(None) };
            let outbox = store.outbox_row(&share.unit)?;
            let ban = store.ban(&share.miner)?;
            Ok(Some((share, outbox, ban)))
        })
        .await?;
    let (share, outbox, ban) = found.ok_or_else(|| Problem::missing("this node has no such receipt"))?;
    let mut json = share_json(&share, &api.shared.identity().miner);
    json["banned"] = json!(ban.is_some());
    json["outbox"] = outbox.map_or(
        Value::Null,
        |row| json!({ "state": outbox_word(row.state), "attempts": row.attempts, "at_ms": row.at.map(|at| at.0), "note": row.note }),
    );
    if let Ok(receipt) = codec::receipt_from_wire(&share.wire) {
        json["text"] = json!(receipt.to_text());
    }
    json["wire"] = json!(hex::encode(&share.wire));
    Ok(Json(json))
}

/// `GET /v1/ledger?miner=&cursor=&limit=`: who earned what, most first. Credit is in expected operations.
pub(super) async fn ledger(State(api): State<Api>, RawQuery(raw): RawQuery) -> Reply {
    let query = Query::parse(raw.as_deref(), &["miner", "cursor", "limit"])?;
    let miner = query.get("miner", "a compressed key as 66 lower-case hex digits", |t| PublicKey::from_hex(t).ok())?;
    let cursor: Option<Cursor> = query.get("cursor", "the `next` of an earlier page", |t| t.parse().ok())?;
    let limit = query.limit()?;
    let (rows, next) = api
        .read(move |store| {
            let (rows, next) = match miner {
                Some(miner) => (store.ledger_row(&miner)?.map(|row| (miner, row)).into_iter().collect(), None),
                None => {
                    let page = store.ledger(cursor.as_ref(), limit)?;
                    (page.rows, page.next)
                }
            };
            let with_bans =
                rows.into_iter().map(|(miner, row)| Ok((miner, row, store.ban(&miner)?.is_some()))).collect::<Result<Vec<_>, _>>()?;
            Ok((with_bans, next))
        })
        .await?;
    let rows: Vec<Value> = rows
        .into_iter()
        .map(|(miner, row, banned)| {
            json!({
                "miner": miner.to_hex(), "credit_ops": decimal(row.credit), "shares": row.shares, "heads": row.heads,
                "void_shares": row.void_shares, "banned": banned,
            })
        })
        .collect();
    Ok(Json(json!({ "ledger": rows, "next": next.map(|c| c.to_string()) })))
}

/// `GET /v1/outbox?state=&cursor=&limit=`: the way to the aggregator; `state=dead` is the list of refused receipts.
pub(super) async fn outbox(State(api): State<Api>, RawQuery(raw): RawQuery) -> Reply {
    let query = Query::parse(raw.as_deref(), &["state", "cursor", "limit"])?;
    let state = query.get("state", "waiting, due, delivered, dead or void", outbox_state)?.unwrap_or(OutboxState::Due);
    let cursor: Option<Cursor> = query.get("cursor", "the `next` of an earlier page", |t| t.parse().ok())?;
    let limit = query.limit()?;
    let page = api.read(move |store| store.outbox(state, cursor.as_ref(), limit)).await?;
    let rows: Vec<Value> = page
        .rows
        .iter()
        .map(|row| {
            json!({
                "unit": row.unit.to_hex(), "epoch": row.epoch, "state": outbox_word(row.state), "attempts": row.attempts,
                "at_ms": row.at.map(|at| at.0), "note": row.note,
            })
        })
        .collect();
    Ok(Json(json!({ "outbox": rows, "next": page.next.map(|c| c.to_string()) })))
}

/// Which dead letters are meant.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub(super) enum Which {
    /// One.
    Unit(String),
    /// Every one, if true.
    All(bool),
}

/// `POST /v1/outbox/replay` with `{"unit":"<hex>"}` or `{"all":true}`: dead letters become due again, or wait until they earn.
pub(super) async fn replay(State(api): State<Api>, body: Result<Json<Which>, JsonRejection>) -> Reply {
    Ok(Json(json!({ "replayed": each_dead(&api, body, &api.replay).await? })))
}

/// `POST /v1/outbox/drop` with the same bodies: dead letters are forgotten, and counted as `evicted`.
pub(super) async fn discard(State(api): State<Api>, body: Result<Json<Which>, JsonRejection>) -> Reply {
    Ok(Json(json!({ "dropped": each_dead(&api, body, &api.discard).await? })))
}

/// Says something of each dead letter that is meant; how many there were.
async fn each_dead(api: &Api, body: Result<Json<Which>, JsonRejection>, say: &Replay) -> Result<u64, Problem> {
    let stopping = || Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the node is stopping");
    let mut said = 0_u64;
    match body {
        Ok(Json(Which::Unit(hex))) => {
            let unit = UnitId::from_hex(&hex).map_err(|_| Problem::bad("a unit is 64 lower-case hex digits"))?;
            let row = api.read(move |store| store.outbox_row(&unit)).await?;
            if row.is_none_or(|row| row.state != OutboxState::Dead) {
                return Err(Problem::missing("there is no dead letter of this unit"));
            }
            if !say(unit).await {
                return Err(stopping());
            }
            said += 1;
        }
        Ok(Json(Which::All(true))) => {
            let mut after = None;
            loop {
                // Rows leave the list while it is read; the cursor keeps its place.
                let page = api.read(move |store| store.outbox(OutboxState::Dead, after.as_ref(), PAGE_MAX)).await?;
                for row in page.rows {
                    if !say(row.unit).await {
                        return Err(stopping());
                    }
                    said += 1;
                }
                after = page.next;
                if after.is_none() {
                    break;
                }
            }
        }
        Ok(Json(Which::All(false))) | Err(_) => {
            return Err(Problem::bad("send {\"unit\":\"<64 hex digits>\"} or {\"all\":true} as application/json"));
        }
    }
    Ok(said)
}
