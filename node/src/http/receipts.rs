//! What the store holds, by pages: receipts with their state, the ledger, the outbox.

use axum::Json;
use axum::extract::rejection::{JsonRejection, PathRejection};
use axum::extract::{Path, RawQuery, State};
use serde::{Deserialize, Serialize};
use tops_protocol::codec;
use tops_protocol::engine::{OutboxState, ShareRow, ShareState};
use tops_protocol::{PublicKey, ReceiptId, UnitId};
use tops_store::{OutboxRow, PAGE_MAX, ReceiptFilter};
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{AdditionalProperties, ObjectBuilder, OneOfBuilder, Schema, Type};
use utoipa::{PartialSchema, ToSchema};

use super::forms::{
    CURSOR, Decimal, EPOCH, Hash, Hex, Key, MINER, Next, Nothing, OfLedger, OfOutbox, OfReceipts, Refusal, STATE, Stamp, number,
};
use super::{Api, Problem, Query, Replay, Reply, Usual, body_of};

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

/// A stored share.
#[derive(Debug, Serialize, ToSchema)]
struct Share {
    /// What names it everywhere.
    unit: Hash,
    epoch: u64,
    miner: Key,
    /// `unaudited`: taken without a look; `audited`: recomputed here; `void`: its miner is banned or it proved false.
    #[schema(pattern = "^(unaudited|audited|void)$")]
    state: &'static str,
    /// Whether this node's key mined it.
    own: bool,
    /// The receipt's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    id: Option<Hash>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    work_root: Option<Hash>,
    /// The head that it is keyed on.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    prev_hash: Option<Hash>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    nonce: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    timestamp_ms: Option<Stamp>,
}

impl Share {
    fn new(row: &ShareRow, own: &PublicKey) -> Self {
        let receipt = codec::receipt_from_wire(&row.wire).ok();
        let receipt = receipt.as_ref();
        Self {
            unit: row.unit.into(),
            epoch: row.epoch,
            miner: row.miner.into(),
            state: state_word(row.state),
            own: row.miner == *own,
            id: receipt.map(|r| r.id().into()),
            work_root: receipt.map(|r| r.work_root.into()),
            prev_hash: receipt.map(|r| r.prev_hash.into()),
            nonce: receipt.map(|r| r.nonce.get()),
            timestamp_ms: receipt.map(|r| r.timestamp.into()),
        }
    }
}

/// Some stored shares.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Shares {
    receipts: Vec<Share>,
    /// `cursor` of the next page; null: this was the last.
    next: Option<Next>,
}

/// Every stored share, newest epoch first. Own ones are stored only when they are flushed.
#[utoipa::path(get, path = "/v1/receipts", tag = "chain", params(OfReceipts), responses((status = 200, description = "A page of shares", body = Shares), Usual))]
pub(super) async fn list(State(api): State<Api>, RawQuery(raw): RawQuery) -> Reply<Shares> {
    let query = Query::<OfReceipts>::parse(raw.as_deref())?;
    let filter = ReceiptFilter { epoch: query.get(&EPOCH, number)?, miner: query.get(&MINER, |t| PublicKey::from_hex(t).ok())? };
    let (cursor, limit) = (query.get(&CURSOR, |t| t.parse().ok())?, query.limit()?);
    let own = api.shared.identity().miner;
    let page = api.read(move |store| store.receipts(&filter, cursor.as_ref(), limit)).await?;
    Ok(Json(Shares { receipts: page.rows.iter().map(|row| Share::new(row, &own)).collect(), next: page.next.map(Next::from) }))
}

/// A stored share whole.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Whole {
    #[serde(flatten)]
    share: Share,
    /// Whether its miner is banned.
    banned: bool,
    /// Its way to the aggregator; null: it is not on it.
    outbox: Option<Way>,
    /// The receipt's text form.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    text: Option<String>,
    /// Its wire form.
    wire: Hex,
}

/// How far a receipt is on its way to the aggregator.
#[derive(Debug, Serialize, ToSchema)]
struct Way {
    #[schema(pattern = "^(waiting|due|delivered|dead|void)$")]
    state: &'static str,
    /// Deliveries tried since it is in this state, or before it died.
    attempts: u32,
    /// When the last one was tried, where that is known.
    at_ms: Option<Stamp>,
    /// What came of the last one.
    note: String,
}

impl From<OutboxRow> for Way {
    fn from(row: OutboxRow) -> Self {
        Self { state: outbox_word(row.state), attempts: row.attempts, at_ms: row.at.map(Stamp::from), note: row.note }
    }
}

/// One share by its unit or its receipt's id, with its text.
#[utoipa::path(
    get, path = "/v1/receipts/{id}", tag = "chain",
    params(("id" = Hash, Path, description = "The unit or the receipt's id: 64 lower-case hex digits"), Nothing),
    responses(
        (status = 200, description = "The share", body = Whole),
        (status = 404, description = "This node has no such receipt", body = Refusal),
        Usual,
    )
)]
pub(super) async fn one(State(api): State<Api>, id: Result<Path<String>, PathRejection>, RawQuery(raw): RawQuery) -> Reply<Whole> {
    Query::<Nothing>::parse(raw.as_deref())?;
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
    let (row, outbox, ban) = found.ok_or_else(|| Problem::missing("this node has no such receipt"))?;
    Ok(Json(Whole {
        share: Share::new(&row, &api.shared.identity().miner),
        banned: ban.is_some(),
        outbox: outbox.map(Way::from),
        text: codec::receipt_from_wire(&row.wire).ok().map(|receipt| receipt.to_text()),
        wire: row.wire.as_slice().into(),
    }))
}

/// A miner's sums.
#[derive(Debug, Serialize, ToSchema)]
struct Earned {
    miner: Key,
    /// In expected operations.
    credit_ops: Decimal,
    /// Shares that count.
    shares: u64,
    /// Of these, heads.
    heads: u64,
    /// Shares that count no more.
    void_shares: u64,
    banned: bool,
}

/// A part of the ledger.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Ledger {
    ledger: Vec<Earned>,
    /// `cursor` of the next page; null: this was the last.
    next: Option<Next>,
}

/// Who earned what, most first.
#[utoipa::path(get, path = "/v1/ledger", tag = "chain", params(OfLedger), responses((status = 200, description = "A page of miners", body = Ledger), Usual))]
pub(super) async fn ledger(State(api): State<Api>, RawQuery(raw): RawQuery) -> Reply<Ledger> {
    let query = Query::<OfLedger>::parse(raw.as_deref())?;
    let miner = query.get(&MINER, |t| PublicKey::from_hex(t).ok())?;
    let (cursor, limit) = (query.get(&CURSOR, |t| t.parse().ok())?, query.limit()?);
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
    let earned = rows.into_iter().map(|(miner, row, banned)| Earned {
        miner: miner.into(),
        credit_ops: row.credit.into(),
        shares: row.shares,
        heads: row.heads,
        void_shares: row.void_shares,
        banned,
    });
    Ok(Json(Ledger { ledger: earned.collect(), next: next.map(Next::from) }))
}

/// A receipt on its way to the aggregator.
#[derive(Debug, Serialize, ToSchema)]
struct Letter {
    unit: Hash,
    epoch: u64,
    #[serde(flatten)]
    way: Way,
}

/// A part of the outbox.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Letters {
    outbox: Vec<Letter>,
    /// `cursor` of the next page; null: this was the last.
    next: Option<Next>,
}

/// The way to the aggregator; `state=dead` is the list of refused receipts.
#[utoipa::path(get, path = "/v1/outbox", tag = "bridge", params(OfOutbox), responses((status = 200, description = "A page of receipts", body = Letters), Usual))]
pub(super) async fn outbox(State(api): State<Api>, RawQuery(raw): RawQuery) -> Reply<Letters> {
    let query = Query::<OfOutbox>::parse(raw.as_deref())?;
    let state = query.get(&STATE, outbox_state)?.unwrap_or(OutboxState::Due);
    let (cursor, limit) = (query.get(&CURSOR, |t| t.parse().ok())?, query.limit()?);
    let page = api.read(move |store| store.outbox(state, cursor.as_ref(), limit)).await?;
    let letter = |row: OutboxRow| Letter { unit: row.unit.into(), epoch: row.epoch, way: row.into() };
    Ok(Json(Letters { outbox: page.rows.into_iter().map(letter).collect(), next: page.next.map(Next::from) }))
}

/// Which dead letters are meant.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub(super) enum Which {
    /// One.
    Unit(String),
    /// Every one.
    All(Yes),
}

/// `true`, and nothing else.
#[derive(Debug, Deserialize)]
#[serde(try_from = "bool")]
pub(super) struct Yes;

impl TryFrom<bool> for Yes {
    type Error = &'static str;
    fn try_from(yes: bool) -> Result<Self, Self::Error> {
        if yes { Ok(Self) } else { Err("only true can be said") }
    }
}

impl PartialSchema for Which {
    fn schema() -> RefOr<Schema> {
        let one = |name: &str, value: ObjectBuilder| {
            let nothing_else = Some(AdditionalProperties::<Schema>::FreeForm(false));
            ObjectBuilder::new().property(name, value).required(name).additional_properties(nothing_else)
        };
        let unit = ObjectBuilder::new().schema_type(Type::String).pattern(Some("^[0-9a-f]{64}$"));
        let all = ObjectBuilder::new().schema_type(Type::Boolean).enum_values(Some([true]));
        OneOfBuilder::new().item(one("unit", unit)).item(one("all", all)).description(Some("One dead letter, or every one.")).into()
    }
}

impl ToSchema for Which {}

/// How many dead letters are on their way again.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Replayed {
    replayed: u64,
}

/// Dead letters become due again, or wait until they earn.
#[utoipa::path(
    post, path = "/v1/outbox/replay", tag = "bridge", request_body = Which, params(Nothing),
    responses(
        (status = 200, description = "Done", body = Replayed),
        (status = 404, description = "There is no dead letter of this unit", body = Refusal),
        (status = 413, description = "The body is too long", body = Refusal),
        Usual,
    )
)]
pub(super) async fn replay(State(api): State<Api>, RawQuery(raw): RawQuery, body: Result<Json<Which>, JsonRejection>) -> Reply<Replayed> {
    Query::<Nothing>::parse(raw.as_deref())?;
    Ok(Json(Replayed { replayed: each_dead(&api, body, &api.replay).await? }))
}

/// How many dead letters were forgotten.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Dropped {
    dropped: u64,
}

/// Dead letters are forgotten, and counted as `evicted`.
#[utoipa::path(
    post, path = "/v1/outbox/drop", tag = "bridge", request_body = Which, params(Nothing),
    responses(
        (status = 200, description = "Done", body = Dropped),
        (status = 404, description = "There is no dead letter of this unit", body = Refusal),
        (status = 413, description = "The body is too long", body = Refusal),
        Usual,
    )
)]
pub(super) async fn discard(State(api): State<Api>, RawQuery(raw): RawQuery, body: Result<Json<Which>, JsonRejection>) -> Reply<Dropped> {
    Query::<Nothing>::parse(raw.as_deref())?;
    Ok(Json(Dropped { dropped: each_dead(&api, body, &api.discard).await? }))
}

/// Says something of each dead letter that is meant; how many there were.
async fn each_dead(api: &Api, body: Result<Json<Which>, JsonRejection>, say: &Replay) -> Result<u64, Problem> {
    let stopping = || Problem::busy("the node is stopping");
    let mut said = 0_u64;
    match body_of(body, "{\"unit\":\"<64 hex digits>\"} or {\"all\":true}")? {
        Which::Unit(hex) => {
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
        Which::All(Yes) => {
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
    }
    Ok(said)
}
