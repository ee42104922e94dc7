//! `POST /verify`: the original verifier's contract, and beyond it the truth: the root is recomputed.
//!
//! ```text
//! body ──ordered JSON──▶ v1: schema as the original's, digest over the text as it came ─┐
//!                        v2: the strict text form ──────────────────────────────────────┴──▶ check ──▶ ok, sig_ok, root_ok, …
//! ```
//!
//! 400: not a receipt. 200: an answer, whose `ok` is true only for a receipt that was checked whole. 503: too many are waiting.
//! Recomputation runs one at a time on a CPU backend of its own; a receipt over the cap of operations is not called true.

use std::fmt;
use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::{SerializeMap, SerializeSeq, Serializer};
use serde_json::Number;
use tokio::sync::Semaphore;
use tops_compute::backend::DeviceFault;
use tops_protocol::codec::{self, AnyReceipt};
use tops_protocol::receipt::{ReceiptV1, prehash};
use tops_protocol::types::INTEGER_LIMIT;
use tops_protocol::work::v1::{AttemptV1, ShapeV1};
use tops_protocol::{Attempt, ReceiptId, Root, Text};
use utoipa::ToSchema;

use super::forms::Hash;
use super::{Api, Forbidden, schema};
use crate::check::{self, Finding, Recompute, Report};
use crate::commands::verify::variant_word;

/// Requests to `/verify` that may wait for the one that is worked on; a further one gets 503.
const WAITING_MAX: usize = 16;
/// The most operations of an attempt that is recomputed: a v1 cube of 1536 has 14.5 · 10^9.
const OPS_MAX: u64 = 16_000_000_000;

/// Recomputes receipts for clients, one at a time.
#[derive(Clone)]
pub struct Checker {
    compute: Arc<dyn Recompute + Send + Sync>,
    waiting: Arc<Semaphore>,
    working: Arc<Semaphore>,
}

impl Checker {
    /// Over this way of recomputing, which may block.
    pub fn new(compute: Arc<dyn Recompute + Send + Sync>) -> Self {
        Self { compute, waiting: Arc::new(Semaphore::new(WAITING_MAX)), working: Arc::new(Semaphore::new(1)) }
    }
}

/// Refuses attempts over the cap before anything is computed.
struct Capped<'a>(&'a dyn Recompute);

fn within(ops: u64) -> Result<(), DeviceFault> {
    if ops > OPS_MAX {
        Err(DeviceFault::Unsupported { what: format!("an attempt of {ops} operations; at most {OPS_MAX} are recomputed here") })
    } else {
        Ok(())
    }
}

impl Recompute for Capped<'_> {
    fn v2(&self, attempt: &Attempt) -> Result<Root, DeviceFault> {
        within(attempt.shape.ops())?;
        self.0.v2(attempt)
    }
    fn v1(&self, attempt: &AttemptV1) -> Result<Root, DeviceFault> {
        within(attempt.shape.ops())?;
        self.0.v1(attempt)
    }
}

/// What is answered to a receipt.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Verdict {
    /// True only for a receipt that was checked whole.
    ok: bool,
    /// Null: not checked.
    sig_ok: Option<bool>,
    /// Whether recomputation gives the claimed root. Null: not checked, or not reached.
    root_ok: Option<bool>,
    /// The key that the signature was checked by.
    pubkey_hex: Option<String>,
    /// What was signed: SHA-256 of the receipt's id.
    #[schema(pattern = "^[0-9a-f]{64}$")]
    digest_hex: String,
    /// `v2`, `v1`, `v1-mixed`; null: none was found that gives the root.
    work: Option<&'static str>,
    /// Of a v2 receipt.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    unit: Option<Hash>,
    /// The stage that failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    stage: Option<String>,
    /// Why it is not ok.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    error: Option<String>,
}

/// Not a receipt, or nobody could look.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct NoVerdict {
    /// Always false.
    ok: bool,
    /// One sentence.
    error: String,
}

/// Whether a receipt is true: its schema, its signature, and its root by recomputation. A v1 receipt is checked by the node's `--verify-key`.
#[utoipa::path(
    post, path = "/verify", tag = "verify", request_body = schema::SignedReceipt,
    responses(
        (status = 200, description = "What was found", body = Verdict),
        (status = 400, description = "Not a receipt", body = NoVerdict),
        (status = 413, description = "The body is too long", body = NoVerdict),
        (status = 500, description = "The check failed", body = NoVerdict),
        (status = 503, description = "Too many receipts are waiting, or the node is busy", body = NoVerdict),
        Forbidden,
    )
)]
pub(super) async fn verify(State(api): State<Api>, body: Result<Bytes, BytesRejection>) -> Response {
    let body = match body {
        Ok(body) => body,
        Err(fault) => return refuse(fault.status(), "the body is longer than 1 MB or was cut off"),
    };
    // What is no receipt is said at once, and takes nobody's place.
    let asked = match read(&body) {
        Ok(asked) => asked,
        Err(why) => return refuse(StatusCode::BAD_REQUEST, &why),
    };
    let Ok(_place) = api.checker.waiting.clone().try_acquire_owned() else {
        return refuse(StatusCode::SERVICE_UNAVAILABLE, "too many receipts are waiting: try again");
    };
    let Ok(_turn) = api.checker.working.clone().acquire_owned().await else {
        unreachable!("the semaphore is never closed");
    };
    let (compute, key) = (api.checker.compute.clone(), api.verify_key.clone());
    // The turn is kept until the blocking work ends, also when the client has gone.
    match tokio::task::spawn_blocking(move || (answer(asked, key.as_deref(), &*compute), _turn)).await {
        Ok((response, _)) => response,
        Err(_) => refuse(StatusCode::INTERNAL_SERVER_ERROR, "the check failed"),
    }
}

/// An answer without a verdict.
pub(super) fn refuse(status: StatusCode, why: &str) -> Response {
    let mut response = (status, Json(NoVerdict { ok: false, error: why.to_owned() })).into_response();
    if status == StatusCode::SERVICE_UNAVAILABLE {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("2"));
    }
    response
}

/// What is answered to a receipt.
fn answer(asked: Asked, key: Option<&[u8]>, compute: &dyn Recompute) -> Response {
    let compute = Capped(compute);
    let (id, used, checked) = match asked {
        Asked::V2(receipt) => {
            let (id, miner) = (receipt.id(), receipt.miner.to_hex());
            (id, Some(miner), check::check_v2(*receipt, None, &compute))
        }
        Asked::V1(receipt, id) => (id, key.map(hex::encode), check::check_v1(*receipt, id, key, &compute)),
    };
    let digest = hex::encode(prehash(&id));
    match checked {
        Ok(report) if report.receipt.is_none() => {
            refuse(StatusCode::BAD_REQUEST, report.failed.as_ref().map_or("invalid schema", |(_, why)| why))
        }
        Ok(report) => Json(verdict(&report, used, digest)).into_response(),
        // Not checked is not true, and not false either.
        Err(DeviceFault::Unsupported { what }) => Json(Verdict {
            ok: false,
            sig_ok: None,
            root_ok: None,
            pubkey_hex: used,
            digest_hex: digest,
            work: None,
            unit: None,
            stage: None,
            error: Some(format!("not checked: {what}")),
        })
        .into_response(),
        Err(fault) => refuse(StatusCode::SERVICE_UNAVAILABLE, &format!("the root could not be checked: {fault}")),
    }
}

fn verdict(report: &Report, used: Option<String>, digest: String) -> Verdict {
    let root_ok = match report.root {
        Finding::Good => Some(true),
        Finding::Bad => Some(false),
        Finding::Unchecked | Finding::NotReached => None,
    };
    let (work, unit) = match &report.receipt {
        Some(AnyReceipt::V2(receipt)) => (Some("v2"), Some(receipt.unit().into())),
        Some(AnyReceipt::V1(_)) => (report.variant.map(variant_word), None),
        None => (None, None),
    };
    Verdict {
        ok: report.ok(),
        sig_ok: Some(report.signature == Finding::Good),
        root_ok,
        pubkey_hex: used,
        digest_hex: digest,
        work,
        unit,
        stage: report.failed.as_ref().map(|(stage, _)| stage.to_string()),
        error: report.failed.as_ref().map(|(_, why)| why.clone()),
    }
}

/// A body that is a receipt by its form.
enum Asked {
    V2(Box<tops_protocol::Receipt>),
    V1(Box<ReceiptV1>, ReceiptId),
}

fn read(body: &[u8]) -> Result<Asked, String> {
    let json: Ordered = serde_json::from_slice(body).map_err(|_| "the body is not one JSON value without repeated keys".to_owned())?;
    let Ordered::Object(fields) = &json else { return Err("invalid schema: a receipt is a JSON object".into()) };
    let has = |name: &str| fields.iter().any(|(key, _)| key == name);
    if ["network_hex", "miner_hex", "timestamp_ms"].into_iter().any(has) {
        return match codec::receipt_from_text(body) {
            Ok(AnyReceipt::V2(receipt)) => Ok(Asked::V2(Box::new(receipt))),
            Ok(AnyReceipt::V1(_)) => Err("invalid schema".into()),
            Err(fault) => Err(format!("invalid schema: {fault}")),
        };
    }
    let receipt = read_v1(fields)?;
    let mut text = fields.clone();
    for (key, value) in &mut text {
        if key == "sig_hex" {
            *value = Ordered::String(String::new());
        }
    }
    let text = serde_json::to_string(&Ordered::Object(text)).map_err(|_| "the body cannot be written anew".to_owned())?;
    Ok(Asked::V1(Box::new(receipt), ReceiptId(*blake3::hash(text.as_bytes()).as_bytes())))
}

/// The original's schema; fields that it does not know are let through, and their digest covers them.
fn read_v1(fields: &[(String, Ordered)]) -> Result<ReceiptV1, String> {
    fn find<'a>(fields: &'a [(String, Ordered)], name: &str) -> Result<&'a Ordered, String> {
        fields.iter().find(|(key, _)| key == name).map(|(_, value)| value).ok_or_else(|| format!("invalid schema: {name} is missing"))
    }
    let string = |name: &str| match find(fields, name)? {
        Ordered::String(text) => Ok(text.as_str()),
        _ => Err(format!("invalid schema: {name} must be a string")),
    };
    let whole = |fields: &[(String, Ordered)], name: &str, limit: u64| match find(fields, name)? {
        Ordered::Number(number) => {
            number.as_u64().filter(|n| *n < limit).ok_or_else(|| format!("invalid schema: {name} must be a whole number below {limit}"))
        }
        _ => Err(format!("invalid schema: {name} must be a number")),
    };
    let root = |name: &str| Root::from_hex(string(name)?).map_err(|_| format!("invalid {name}: 64 lower-case hex digits"));
    let Ordered::Object(sizes) = find(fields, "sizes")? else { return Err("invalid schema: sizes must be an object".into()) };
    let side = |name: &str| -> Result<u32, String> {
        let side =
            whole(sizes, name, INTEGER_LIMIT).map_err(|_| "unreasonable sizes: m, n and k must be whole numbers in 1..=8192".to_owned())?;
        u32::try_from(side)
            .ok()
            .filter(|s| (1..=8192).contains(s))
            .ok_or_else(|| "unreasonable sizes: m, n and k must be in 1..=8192".to_owned())
    };
    let (m, n, k) = (side("m")?, side("n")?, side("k")?);
    debug_assert!(ShapeV1::new(m, n, k).is_some());
    let sig = string("sig_hex")?;
    let sig = sig.strip_prefix("0x").unwrap_or(sig);
    let sig = if sig.len() <= 144 { hex::decode(sig).ok() } else { None }
        .ok_or_else(|| "invalid schema: sig_hex must be the hex of a DER or 64-byte signature".to_owned())?;
    Ok(ReceiptV1 {
        device_did: Text::cleaned(string("device_did")?),
        epoch_id: whole(fields, "epoch_id", INTEGER_LIMIT)?,
        prev_hash: root("prev_hash_hex")?,
        nonce: whole(fields, "nonce", 1 << 32)? as u32,
        work_root: root("work_root_hex")?,
        m,
        n,
        k,
        batch: 0,
        time_ms: whole(fields, "time_ms", INTEGER_LIMIT)?,
        kernel_ver: Text::cleaned(string("kernel_ver")?),
        driver_hint: Text::cleaned(string("driver_hint")?),
        sig,
    })
}

/// JSON that keeps the order of its keys and has each once; the original's digest is over the text as it came.
#[derive(Debug, Clone, PartialEq)]
enum Ordered {
    Null,
    Bool(bool),
    Number(Number),
    String(String),
    Array(Vec<Ordered>),
    Object(Vec<(String, Ordered)>),
}

/// Keys of one object; a longer one is refused, so that looking for repeated keys stays cheap.
const KEYS_MAX: usize = 64;

impl<'de> Deserialize<'de> for Ordered {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Ordered;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("JSON")
            }
            fn visit_unit<E>(self) -> Result<Ordered, E> {
                Ok(Ordered::Null)
            }
            fn visit_bool<E>(self, value: bool) -> Result<Ordered, E> {
                Ok(Ordered::Bool(value))
            }
            fn visit_u64<E>(self, value: u64) -> Result<Ordered, E> {
                Ok(Ordered::Number(value.into()))
            }
            fn visit_i64<E>(self, value: i64) -> Result<Ordered, E> {
                Ok(Ordered::Number(value.into()))
            }
            fn visit_f64<E: de::Error>(self, value: f64) -> Result<Ordered, E> {
                Number::from_f64(value).map(Ordered::Number).ok_or_else(|| E::custom("not a number"))
            }
            fn visit_str<E>(self, value: &str) -> Result<Ordered, E> {
                Ok(Ordered::String(value.to_owned()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Ordered, A::Error> {
                let mut all = Vec::new();
                while let Some(item) = items.next_element()? {
                    all.push(item);
                }
                Ok(Ordered::Array(all))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Ordered, A::Error> {
                let mut all: Vec<(String, Ordered)> = Vec::new();
                while let Some((key, value)) = entries.next_entry::<String, Ordered>()? {
                    if all.len() == KEYS_MAX || all.iter().any(|(known, _)| *known == key) {
                        return Err(de::Error::custom("a key is there twice, or there are too many"));
                    }
                    all.push((key, value));
                }
                Ok(Ordered::Object(all))
            }
        }
        deserializer.deserialize_any(Any)
    }
}

impl Serialize for Ordered {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Number(value) => value.serialize(serializer),
            Self::String(value) => serializer.serialize_str(value),
            Self::Array(items) => {
                let mut seq = serializer.serialize_seq(Some(items.len()))?;
                items.iter().try_for_each(|item| seq.serialize_element(item))?;
                seq.end()
            }
            Self::Object(entries) => {
                let mut map = serializer.serialize_map(Some(entries.len()))?;
                entries.iter().try_for_each(|(key, value)| map.serialize_entry(key, value))?;
                map.end()
            }
        }
    }
}
