//! The chain, the peers and what was turned away: `GET /v1/head`, `/v1/heads`, `/v1/peers`, `/v1/rejections`.
//!
//! Peers are bounded by the limits on connections and rejections by what is remembered of them, so neither has pages.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{RawQuery, State};
use serde::Serialize;
use tops_protocol::codec;
use tops_protocol::engine::{HeadRow, Place};
use tops_protocol::{Height, target};
use utoipa::ToSchema;

use super::forms::{Decimal, FROM, Hash, Key, Nothing, OfHeads, Stamp, number};
use super::status::view;
use super::{Api, Problem, Query, Reply, Usual};
use crate::state::Rejection;

/// A head. Of the genesis there are only root, height and time.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Head {
    root: Hash,
    height: u64,
    /// Whether this node recomputed it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    audited: Option<bool>,
    /// The head that it was mined on.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    prev_hash: Option<Hash>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    miner: Option<Key>,
    /// Its share.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    unit: Option<Hash>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    timestamp_ms: Option<Stamp>,
    /// Compact form of the target that it met.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    bits: Option<u32>,
    /// Attempts that it took in expectation.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    attempts: Option<Decimal>,
}

impl From<&HeadRow> for Head {
    fn from(row: &HeadRow) -> Self {
        let receipt = codec::receipt_from_wire(&row.wire).ok();
        let bits = Place::from_bytes(&row.place).map(|place| place.bits());
        Self {
            root: row.root.into(),
            height: row.height.0,
            audited: Some(row.audited),
            prev_hash: receipt.as_ref().map(|r| r.prev_hash.into()),
            miner: receipt.as_ref().map(|r| r.miner.into()),
            unit: receipt.as_ref().map(|r| r.unit().into()),
            timestamp_ms: receipt.as_ref().map(|r| r.timestamp.into()),
            bits: bits.map(|bits| bits.get()),
            attempts: bits.map(|bits| target::work(bits.target()).into()),
        }
    }
}

/// The tip.
#[utoipa::path(get, path = "/v1/head", tag = "chain", params(Nothing), responses((status = 200, description = "The best head", body = Head), Usual))]
pub(super) async fn head(State(api): State<Api>, RawQuery(raw): RawQuery) -> Reply<Head> {
    Query::<Nothing>::parse(raw.as_deref())?;
    let (tip, genesis) = (view(&api)?.engine.tip, api.network.genesis());
    if tip == genesis {
        let time = api.network.genesis_time();
        return Ok(Json(Head {
            root: genesis.into(),
            height: 0,
            audited: None,
            prev_hash: None,
            miner: None,
            unit: None,
            timestamp_ms: Some(time.into()),
            bits: None,
            attempts: None,
        }));
    }
    match api.read(move |store| store.head(&tip)).await? {
        Some(row) => Ok(Json(Head::from(&row))),
        None => Err(Problem::busy("the newest head is being written: try again")),
    }
}

/// A part of the main chain.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Heads {
    /// Downwards.
    heads: Vec<Head>,
    /// `from` of the next page; null: the genesis follows.
    next_from: Option<u64>,
}

/// The main chain downwards.
#[utoipa::path(get, path = "/v1/heads", tag = "chain", params(OfHeads), responses((status = 200, description = "A page of heads", body = Heads), Usual))]
pub(super) async fn heads(State(api): State<Api>, RawQuery(raw): RawQuery) -> Reply<Heads> {
    let query = Query::<OfHeads>::parse(raw.as_deref())?;
    let from = query.get(&FROM, |t| number(t).map(Height))?;
    let limit = query.limit()?;
    let rows = api.read(move |store| store.main_heads(from, limit)).await?;
    let next_from = rows.last().and_then(|row| row.height.0.checked_sub(1)).filter(|&h| h > 0 && rows.len() == limit);
    Ok(Json(Heads { heads: rows.iter().map(Head::from).collect(), next_from }))
}

/// A connected peer.
#[derive(Debug, Serialize, ToSchema)]
struct Peer {
    peer_id: String,
    /// Where it is.
    address: String,
    /// Whether this node dialled it.
    outbound: bool,
    /// What it says that it runs.
    agent: String,
    /// Whether it is a node: not a rendezvous.
    node: bool,
    /// Gossip's score of it.
    score: f64,
    ping_ms: Option<u64>,
    connected_secs: u64,
    /// Whether its tip and shares were last seen equal to ours.
    in_step: Option<bool>,
    height: Option<u64>,
    tip: Option<Hash>,
}

/// The connected peers.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Peers {
    peers: Vec<Peer>,
}

/// The connected peers.
#[utoipa::path(get, path = "/v1/peers", tag = "node", params(Nothing), responses((status = 200, description = "All of them", body = Peers), Usual))]
pub(super) async fn peers(State(api): State<Api>, RawQuery(raw): RawQuery) -> Reply<Peers> {
    Query::<Nothing>::parse(raw.as_deref())?;
    let view = view(&api)?;
    let peer = |p: &crate::state::PeerInfo| {
        let seen = view.engine.peers.iter().find(|e| e.peer.0 == p.number && p.node);
        let tip = seen.and_then(|e| e.tip);
        Peer {
            peer_id: p.peer_id.clone(),
            address: p.address.clone(),
            outbound: p.outbound,
            agent: p.agent.clone(),
            node: p.node,
            score: p.score,
            ping_ms: p.ping_ms,
            connected_secs: p.connected_secs,
            in_step: seen.map(|e| e.in_step),
            height: tip.map(|(height, _)| height.0),
            tip: tip.map(|(_, root)| root.into()),
        }
    };
    Ok(Json(Peers { peers: view.peers.iter().map(peer).collect() }))
}

/// Why a receipt or an answer was turned away.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Rejected {
    at_ms: Stamp,
    /// `structural`, `semantic`, `contextual`, `audit`, `sync`.
    stage: &'static str,
    /// A short, stable word.
    reason: &'static str,
    /// A sentence.
    detail: String,
    /// Who delivered it, where that is known.
    peer_id: Option<String>,
    /// Whose receipt it is, where that is known.
    miner: Option<Key>,
}

impl From<Rejection> for Rejected {
    fn from(r: Rejection) -> Self {
        Self { at_ms: r.at.into(), stage: r.stage, reason: r.reason, detail: r.detail, peer_id: r.peer, miner: r.miner.map(Key::from) }
    }
}

/// What was turned away.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Rejections {
    /// Since the start, by reason.
    by_reason: BTreeMap<&'static str, u64>,
    /// The last ones, newest first.
    last: Vec<Rejected>,
}

/// What was turned away: by reason, and the last ones.
#[utoipa::path(
    get, path = "/v1/rejections", tag = "node", params(Nothing), responses((status = 200, description = "The last ones", body = Rejections), Usual)
)]
pub(super) async fn rejections(State(api): State<Api>, RawQuery(raw): RawQuery) -> Reply<Rejections> {
    Query::<Nothing>::parse(raw.as_deref())?;
    let last = api.shared.rejections().into_iter().map(Rejected::from).collect();
    Ok(Json(Rejections { by_reason: api.shared.reasons(), last }))
}
