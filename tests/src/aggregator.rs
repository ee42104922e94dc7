//! A small real receiver for bridges: takes receipts in text form as the original aggregator did, checks each fully, keeps them by unit, and
//! counts how often each bridging node brought each unit.
//!
//! `POST /verify?from=NAME` takes a receipt; `GET /received` tells what it has; `GET /healthz`. A unit that it has already is answered 409, as the bridge's
//! contract allows. Bodies are bounded, and so is the number of units: past it, 503 says to come again later. With a journal it survives being killed: what it
//! said yes to is written before.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::extract::{DefaultBodyLimit, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tops_compute::backend::Backend;
use tops_compute::cpu::CpuBackend;
use tops_protocol::codec::{AnyReceipt, RECEIPT_TEXT_MAX, receipt_from_text};
use tops_protocol::verify::Structural;
use tops_protocol::{NetworkTag, Receipt};

/// Most units that are kept; a testnet's hour has fewer.
const UNITS_MAX: usize = 1_000_000;

/// What came of one unit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unit {
    /// The epoch of its receipt.
    pub epoch: u64,
    /// How often each bridging node brought it.
    pub times: BTreeMap<String, u64>,
}

/// Everything that was received.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Received {
    /// By unit, hex.
    pub units: BTreeMap<String, Unit>,
    /// Why what was turned away was turned away, with how often.
    pub refused: BTreeMap<String, u64>,
}

impl Received {
    /// Whether it is new.
    fn count(&mut self, unit: String, epoch: u64, from: String) -> bool {
        let unit = self.units.entry(unit).or_default();
        let first = unit.times.is_empty();
        unit.epoch = epoch;
        *unit.times.entry(from).or_default() += 1;
        first
    }
}

struct Inner {
    network: Option<NetworkTag>,
    backend: CpuBackend,
    received: Mutex<Received>,
    journal: Option<File>,
}

#[derive(Deserialize)]
struct Sender {
    #[serde(default)]
    from: String,
}

/// The routes. `network`: receipts of others are refused. What a former process took is read from the journal, a line a delivery, and counts on.
///
/// # Errors
/// When the machine gives no thread, or the journal cannot be read.
pub fn router(network: Option<NetworkTag>, journal: Option<&Path>) -> anyhow::Result<Router> {
    let mut received = Received::default();
    let journal = match journal {
        None => None,
        Some(path) => {
            let former = match std::fs::read_to_string(path) {
                Err(fault) if fault.kind() == ErrorKind::NotFound => String::new(),
                former => former?,
            };
            // A line that a kill cut was not answered for.
            for line in former.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')) {
                let (unit, epoch, from): (String, u64, String) = serde_json::from_str(line)?;
                received.count(unit, epoch, from);
            }
            let file = File::options().create(true).append(true).open(path)?;
            file.set_len(former.rfind('\n').map_or(0, |end| end + 1) as u64)?;
            Some(file)
        }
    };
    let inner = Inner { network, backend: CpuBackend::new(Some(1))?, received: Mutex::new(received), journal };
    Ok(Router::new()
        .route("/verify", post(take))
        .route("/received", get(|State(inner): State<Arc<Inner>>| async move { Json(lock(&inner.received).clone()) }))
        .route("/healthz", get(|| async { Json(json!({ "ok": true })) }))
        .layer(DefaultBodyLimit::max(RECEIPT_TEXT_MAX))
        .with_state(Arc::new(inner)))
}

fn lock(received: &Mutex<Received>) -> MutexGuard<'_, Received> {
    received.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn take(
    State(inner): State<Arc<Inner>>,
    Query(sender): Query<Sender>,
    headers: HeaderMap,
    body: String,
) -> (StatusCode, Json<Value>) {
    let key = headers.get("idempotency-key").and_then(|key| key.to_str().ok()).unwrap_or("").to_owned();
    let checked = {
        let inner = Arc::clone(&inner);
        tokio::task::spawn_blocking(move || check(&inner, &body, &key)).await
    };
    let receipt = match checked {
        Ok(Ok(receipt)) => receipt,
        Ok(Err(why)) => {
            *lock(&inner.received).refused.entry(why.clone()).or_default() += 1;
            return (StatusCode::BAD_REQUEST, Json(json!({ "ok": false, "error": why })));
        }
        Err(_) => return (StatusCode::INTERNAL_SERVER_ERROR, Json(json!({ "ok": false, "error": "checking failed" }))),
    };
    let mut received = lock(&inner.received);
    let name = receipt.unit().to_hex();
    if !received.units.contains_key(&name) && received.units.len() >= UNITS_MAX {
        return (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "ok": false, "error": "full" })));
    }
    if let Some(mut journal) = inner.journal.as_ref() {
        let line = json!([name, receipt.epoch_id, sender.from]).to_string() + "\n";
        if let Err(fault) = journal.write_all(line.as_bytes()) {
            return (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "ok": false, "error": fault.to_string() })));
        }
    }
    let first = received.count(name, receipt.epoch_id, sender.from);
    let status = if first { StatusCode::OK } else { StatusCode::CONFLICT };
    (status, Json(json!({ "ok": true, "sig_ok": true, "root_ok": true })))
}

/// Every stage that needs no chain.
fn check(inner: &Inner, body: &str, key: &str) -> Result<Receipt, String> {
    let AnyReceipt::V2(receipt) = receipt_from_text(body.as_bytes()).map_err(|fault| fault.to_string())? else {
        return Err("a v1 receipt".into());
    };
    if inner.network.is_some_and(|network| network != receipt.network) {
        return Err("of another network".into());
    }
    if receipt.to_text() != body {
        return Err("not the canonical text".into());
    }
    if receipt.unit().to_hex() != key {
        return Err("the idempotency key is not the unit".into());
    }
    let structural = Structural::of_any_network(receipt.clone()).map_err(|fault| fault.to_string())?;
    structural.semantic().map_err(|fault| fault.to_string())?;
    match inner.backend.roots(&[receipt.attempt()]) {
        Ok(roots) if roots[0] == receipt.work_root => Ok(receipt),
        Ok(_) => Err("the root is false".into()),
        Err(fault) => Err(fault.to_string()),
    }
}
