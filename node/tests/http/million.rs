//! How long pages take on a store of a million receipts of ten thousand miners, over HTTP on loopback, with a reader at a time:
//!
//! ```text
//! cargo test -p tops-node --test http -- --ignored --nocapture pages_of_a_million_receipts
//! ```
//!
//! The store is sled in `CARGO_TARGET_TMPDIR`, filled through `Store::commit` with what accepted shares write, and removed afterwards.

use std::sync::Arc;
use std::time::{Duration, Instant};

use reqwest::StatusCode;
use serde_json::Value;
use tops_node::http;
use tops_protocol::engine::{HeadRow, Op, OutboxState, ShareRow, ShareState};
use tops_protocol::ledger::LedgerRow;
use tops_protocol::{Height, Millis, NetworkSpec, Nonce, PublicKey, Receipt, Root, U256};
use tops_store::Store;

use crate::{Server, serve, v2};

const RECEIPTS: u64 = 1_000_000;
const MINERS: u64 = 10_000;
/// What an epoch of the main network brings.
const SHARES_A_HEAD: u64 = 64;
/// Of the receipts so many newest ones are on their way to an aggregator.
const OUTBOX: u64 = 50_000;
/// Requests of a kind.
const REQUESTS: u64 = 1_000;
const P99_MAX: Duration = Duration::from_millis(10);

fn miner(n: u64) -> PublicKey {
    let mut key = [2; 33];
    key[1..].copy_from_slice(blake3::hash(&n.to_le_bytes()).as_bytes());
    PublicKey(key)
}

fn root(n: u64) -> Root {
    Root(*blake3::hash(&n.to_be_bytes()).as_bytes())
}

/// The receipts of one head, and what comes with them.
fn epoch(like: &Receipt, epoch: u64) -> Vec<Op> {
    let mut ops = Vec::new();
    for i in 0..SHARES_A_HEAD {
        let n = (epoch - 1) * SHARES_A_HEAD + i;
        // A few large miners and a long tail.
        let by = if n.is_multiple_of(2) { n / 2 % 16 } else { n % MINERS };
        let receipt = Receipt {
            epoch_id: epoch,
            prev_hash: root(epoch - 1),
            nonce: Nonce::new(n).unwrap(),
            work_root: if i == 0 { root(epoch) } else { root(n << 20) },
            miner: miner(by),
            timestamp: Millis(1_795_132_800_000 + n),
            ..like.clone()
        };
        let (unit, wire) = (receipt.unit(), receipt.to_wire());
        if i == 0 {
            ops.push(Op::PutHead(HeadRow {
                root: root(epoch),
                height: Height(epoch),
                audited: true,
                place: vec![3; 80],
                wire: wire.clone(),
            }));
            ops.push(Op::PutMain { height: Height(epoch), root: root(epoch) });
        }
        ops.push(Op::PutShare(ShareRow { unit, epoch, miner: receipt.miner, state: ShareState::Audited, wire }));
        let row = LedgerRow { credit: U256::from(n) << 40, shares: 1 + n / MINERS, heads: 0, void_shares: 0 };
        ops.push(Op::PutLedger { miner: receipt.miner, row });
        if n + OUTBOX >= RECEIPTS {
            let state = [OutboxState::Due, OutboxState::Waiting, OutboxState::Dead][(n % 3) as usize];
            ops.push(Op::PutOutbox { unit, epoch, state });
        }
    }
    ops
}

fn fill(store: &dyn Store) {
    let like = v2()[0].clone();
    let epochs = RECEIPTS / SHARES_A_HEAD;
    for first in (1..=epochs).step_by(32) {
        let batches: Vec<_> = (first..first + 32).take_while(|&e| e <= epochs).map(|e| epoch(&like, e)).collect();
        store.commit(&batches).unwrap();
    }
}

/// Times of requests, and the last answer.
async fn timed(server: &Server, path: impl Fn(u64) -> String) -> (Vec<Duration>, Value) {
    let (mut times, mut last) = (Vec::new(), Value::Null);
    for i in 0..REQUESTS {
        // Spread over the whole range, in an order without a pattern.
        let n = i.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 20;
        let begun = Instant::now();
        let answer = server.client.get(format!("{}{}", server.base, path(n))).send().await.unwrap();
        let (status, body) = (answer.status(), answer.bytes().await.unwrap());
        times.push(begun.elapsed());
        assert_eq!(status, StatusCode::OK, "{}", path(n));
        last = serde_json::from_slice(&body).unwrap();
    }
    times.sort_unstable();
    (times, last)
}

/// Follows `next` for some pages, as a reader of the whole list does.
async fn followed(server: &Server, path: &str, pages: u64) -> Vec<Duration> {
    let (mut times, mut cursor) = (Vec::new(), String::new());
    for _ in 0..pages {
        let begun = Instant::now();
        let answer = server.client.get(format!("{}{path}{cursor}", server.base)).send().await.unwrap();
        let body = answer.bytes().await.unwrap();
        times.push(begun.elapsed());
        let page: Value = serde_json::from_slice(&body).unwrap();
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => cursor.clear(),
        }
    }
    times.sort_unstable();
    times
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement: it fills a store of about a gigabyte, which takes minutes"]
async fn slow_pages_of_a_million_receipts() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let begun = Instant::now();
    let store: Arc<dyn Store> = tops_store::sled::open(dir.path(), NetworkSpec::dev().id()).unwrap().store;
    fill(&*store);
    println!("filled in {} s", begun.elapsed().as_secs());
    let server = serve(store, false).await;
    let epochs = RECEIPTS / SHARES_A_HEAD;
    let page = http::PAGE_DEFAULT;
    let mut slow = Vec::new();
    let mut told = |name: &str, times: &[Duration]| {
        let at = |percent: usize| times[(times.len() * percent / 100).min(times.len() - 1)];
        println!("{name:<38} p50 {:>6.2} ms   p99 {:>6.2} ms   worst {:>6.2} ms", ms(at(50)), ms(at(99)), ms(times[times.len() - 1]));
        if at(99) > P99_MAX {
            slow.push(name.to_owned());
        }
    };
    let (times, last) = timed(&server, |_| "/v1/receipts".into()).await;
    assert_eq!(last["receipts"].as_array().unwrap().len(), page);
    told("receipts, the newest", &times);
    let (times, last) = timed(&server, |n| format!("/v1/receipts?epoch={}", 1 + n % epochs)).await;
    assert_eq!(last["receipts"].as_array().unwrap().len() as u64, SHARES_A_HEAD);
    told("receipts of an epoch", &times);
    told("receipts of a large miner", &timed(&server, |n| format!("/v1/receipts?miner={}", miner(n % 16))).await.0);
    told("receipts of any miner", &timed(&server, |n| format!("/v1/receipts?miner={}", miner(1 + 2 * (n % (MINERS / 2))))).await.0);
    told("receipts, followed", &followed(&server, "/v1/receipts?limit=100", REQUESTS).await);
    told("heads, anywhere", &timed(&server, |n| format!("/v1/heads?from={}", 1 + n % epochs)).await.0);
    let (times, last) = timed(&server, |_| "/v1/ledger".into()).await;
    let credits: Vec<U256> =
        last["ledger"].as_array().unwrap().iter().map(|row| row["credit_ops"].as_str().unwrap().parse().unwrap()).collect();
    assert!(credits.len() == page && credits.is_sorted_by(|a, b| a >= b), "most first");
    told("ledger, the first", &times);
    told("ledger, followed", &followed(&server, "/v1/ledger?limit=100", REQUESTS).await);
    told("ledger of a miner", &timed(&server, |n| format!("/v1/ledger?miner={}", miner(n % MINERS))).await.0);
    for state in ["due", "waiting", "dead"] {
        told(&format!("outbox, {state}"), &timed(&server, |_| format!("/v1/outbox?state={state}")).await.0);
    }
    told("outbox, due, followed", &followed(&server, "/v1/outbox?limit=100", REQUESTS).await);
    told("status", &timed(&server, |_| "/v1/status".into()).await.0);
    assert!(slow.is_empty(), "p99 over {} ms: {slow:?}", P99_MAX.as_millis());
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
