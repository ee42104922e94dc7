//! The HTTP interface over a real socket, a real store in memory and a real engine's view.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod closed;
mod events;
mod million;
mod ready;

use std::sync::{Arc, Mutex};

use proptest::prelude::*;
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};
use tops_compute::backend::{Backend, DeviceFault};
use tops_compute::cpu::CpuBackend;
use tops_compute::queue::LaneReport;
use tops_node::check::Recompute;
use tops_node::config::Secret;
use tops_node::http::{self, Checker, Parts};
use tops_node::state::{HashRate, Identity, NodeView, Shared};
use tops_protocol::codec::{self, AnyReceipt};
use tops_protocol::engine::{AuditRate, Config, Engine, HeadRow, Note, Op, OutboxState, Shard, ShareRow, ShareState};
use tops_protocol::ledger::LedgerRow;
use tops_protocol::work::v1::{self, AttemptV1};
use tops_protocol::work::{self, Weights};
use tops_protocol::{Attempt, Height, Millis, NetworkSpec, Nonce, PublicKey, Receipt, Root, U256, UnitId};
use tops_store::Store;
use tops_store::memory::MemoryDisk;

struct Reference;

impl Recompute for Reference {
    fn v2(&self, attempt: &Attempt) -> Result<Root, DeviceFault> {
        Ok(work::root(attempt, &Weights::new(attempt.shape)))
    }
    fn v1(&self, a: &AttemptV1) -> Result<Root, DeviceFault> {
        Ok(v1::root(&a.prev_hash, a.nonce, a.shape, a.variant))
    }
}

const TOKEN: &str = "0123456789abcdef";

fn vectors() -> Vec<Value> {
    serde_json::from_str(include_str!("../../../tests/vectors/receipts.json")).unwrap()
}

/// A vector's text in signing order.
fn text(vector: &Value) -> String {
    vector["signing_text"].as_str().unwrap().replace("\"sig_hex\":\"\"", &format!("\"sig_hex\":{}", vector["receipt"]["sig_hex"]))
}

fn v2() -> Vec<Receipt> {
    let read = |v: &Value| match codec::receipt_from_text(text(v).as_bytes()) {
        Ok(AnyReceipt::V2(receipt)) => Some(receipt),
        _ => None,
    };
    vectors().iter().filter_map(read).collect()
}

struct Server {
    base: String,
    client: Client,
    shared: Shared,
    own: PublicKey,
    lanes: Arc<Mutex<Vec<LaneReport>>>,
    replayed: Arc<Mutex<Vec<UnitId>>>,
    dropped: Arc<Mutex<Vec<UnitId>>>,
}

async fn server(token: bool) -> Server {
    serve(small_store(), token).await
}

/// A few hundred receipts.
fn small_store() -> Arc<dyn Store> {
    let own = v2()[0].miner;
    let store = MemoryDisk::new().open(NetworkSpec::dev().id()).unwrap().store;
    let mut ops = Vec::new();
    for (i, receipt) in
        v2().into_iter().flat_map(|r| (0..100).map(move |i| Receipt { nonce: Nonce::new(i).unwrap(), ..r.clone() })).enumerate()
    {
        let state = [ShareState::Audited, ShareState::Unaudited, ShareState::Void][i % 3];
        ops.push(Op::PutShare(ShareRow {
            unit: receipt.unit(),
            epoch: receipt.epoch_id,
            miner: receipt.miner,
            state,
            wire: receipt.to_wire(),
        }));
    }
    let head = v2()[0].clone();
    ops.push(Op::PutHead(HeadRow { root: head.work_root, height: Height(1), audited: true, place: vec![0; 8], wire: head.to_wire() }));
    ops.push(Op::PutMain { height: Height(1), root: head.work_root });
    ops.push(Op::PutLedger { miner: own, row: LedgerRow { credit: U256::MAX, shares: 3, heads: 1, void_shares: 0 } });
    ops.push(Op::PutOutbox {
        unit: Receipt { nonce: Nonce::new(0).unwrap(), ..head }.unit(),
        epoch: v2()[0].epoch_id,
        state: OutboxState::Dead,
    });
    store.commit(&[ops]).unwrap();
    store
}

/// A view of a node that has just begun.
fn view() -> NodeView {
    let engine = Engine::new(Config {
        network: NetworkSpec::dev(),
        mining: None,
        alone: true,
        light: false,
        audit_rate: AuditRate::DEFAULT,
        audit_shard: Shard::ALL,
        bridge: None,
        retain_epochs: 64,
        checkpoints: Vec::new(),
        secret: [0; 32],
    });
    NodeView { at: Millis(5), engine: engine.view(), peers: [].into(), listening: ["/ip4/127.0.0.1/tcp/1".into()].into() }
}

async fn serve(store: Arc<dyn Store>, token: bool) -> Server {
    let network = NetworkSpec::dev();
    let own = v2()[0].miner;
    let shared = Shared::new(Identity {
        peer_id: "16Uiu2HA".into(),
        miner: own,
        device_did: "did:key:z1".into(),
        agent: "tops-node/test".into(),
        network_name: "dev".into(),
        verify_only: false,
        alone: false,
        started_at: Millis(1),
    });
    shared.publish(view());
    shared.beat();
    shared.set_hash_rate(HashRate { secs_10: 10.0, secs_60: 5.0, mins_15: 1.0, total: 77 });
    shared.note(&Note::FalseAlert, Millis(9));
    let (lanes, replayed) = (Arc::<Mutex<Vec<LaneReport>>>::default(), Arc::<Mutex<Vec<UnitId>>>::default());
    let (shown, asked) = (Arc::clone(&lanes), Arc::clone(&replayed));
    let dropped = Arc::<Mutex<Vec<UnitId>>>::default();
    let forgotten = Arc::clone(&dropped);
    let parts = Parts {
        network,
        shared: shared.clone(),
        store,
        devices: Arc::new(move || shown.lock().unwrap().clone()),
        replay: Arc::new(move |unit| {
            asked.lock().unwrap().push(unit);
            Box::pin(async { true })
        }),
        discard: Arc::new(move |unit| {
            forgotten.lock().unwrap().push(unit);
            Box::pin(async { true })
        }),
        checker: Checker::new(Arc::new(Reference)),
        token: token.then(|| Secret::new(TOKEN.into())),
        verify_key: Some(hex::decode(vectors()[3]["public_key"].as_str().unwrap()).unwrap()),
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(http::serve(listener, http::router(parts), std::future::pending()));
    Server { base, client: Client::builder().no_proxy().build().unwrap(), shared, own, lanes, replayed, dropped }
}

impl Server {
    async fn get(&self, path: &str) -> (StatusCode, Value) {
        let response = self.client.get(format!("{}{path}", self.base)).send().await.unwrap();
        (response.status(), response.json().await.unwrap())
    }
    async fn verify(&self, body: impl Into<reqwest::Body>) -> (StatusCode, Value) {
        let response =
            self.client.post(format!("{}/verify", self.base)).header("content-type", "application/json").body(body).send().await.unwrap();
        (response.status(), response.json().await.unwrap())
    }
    /// What comes of a request; that nothing comes is a fault of its own.
    async fn answer(&self, request: reqwest::RequestBuilder) -> (StatusCode, Vec<u8>) {
        let response = request.timeout(2 * http::REQUEST_TIMEOUT).send().await.expect("no answer came");
        (response.status(), response.bytes().await.expect("the answer did not end").to_vec())
    }
}

#[tokio::test]
async fn every_path_answers() {
    let server = server(false).await;
    for path in [
        "/healthz",
        "/v1/status",
        "/v1/head",
        "/v1/heads",
        "/v1/peers",
        "/v1/devices",
        "/v1/rejections",
        "/v1/ledger",
        "/v1/outbox",
        "/v1/receipts",
    ] {
        let (status, json) = server.get(path).await;
        assert_eq!(status, StatusCode::OK, "{path}: {json}");
    }
    assert_eq!(server.get("/healthz").await.1, json!({ "ok": true }));
    let (status, json) = server.get("/readyz").await;
    assert_eq!((status, &json["ready"]), (StatusCode::SERVICE_UNAVAILABLE, &json!(false)));
    assert!(json["checks"]["peers"].as_str().unwrap().contains("--bootstrap"), "{json}");
    assert_eq!(server.get("/nowhere").await.0, StatusCode::NOT_FOUND);
    assert_eq!(server.get("/verify").await.0, StatusCode::METHOD_NOT_ALLOWED);
    let ledger = server.get(&format!("/v1/ledger?miner={}", server.own)).await.1;
    assert_eq!(ledger["ledger"][0]["credit_ops"], json!(U256::MAX.to_string()), "256-bit numbers are decimal strings");
    assert_eq!(server.get("/v1/outbox?state=dead").await.1["outbox"].as_array().unwrap().len(), 1);
    let status = server.get("/v1/status").await.1;
    assert_eq!(status["tip"]["height"], 0);
    assert_eq!(status["outbox"]["dead"], 1);
    assert_eq!(status["rejected"]["false_alert"], 1);
    assert_eq!(status["counters"]["shares_accepted"], 0);
}

#[tokio::test]
async fn receipts_are_listed_whole_by_pages() {
    let server = server(false).await;
    let by = |keep: &dyn Fn(&Receipt) -> bool| 100 * v2().iter().filter(|r| keep(r)).count();
    let epoch = v2()[1].epoch_id;
    for (filter, expected) in [
        (String::new(), 300),
        (format!("&miner={}", server.own), by(&|r| r.miner == server.own)),
        (format!("&epoch={epoch}"), by(&|r| r.epoch_id == epoch)),
    ] {
        let (mut units, mut cursor) = (std::collections::BTreeSet::new(), String::new());
        loop {
            let (status, page) = server.get(&format!("/v1/receipts?limit=64{filter}{cursor}")).await;
            assert_eq!(status, StatusCode::OK, "{page}");
            for row in page["receipts"].as_array().unwrap() {
                assert!(units.insert(row["unit"].as_str().unwrap().to_owned()));
                assert_eq!(row["own"], json!(row["miner"] == json!(server.own.to_hex())));
                assert!(["audited", "unaudited", "void"].contains(&row["state"].as_str().unwrap()));
            }
            match page["next"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        assert_eq!(units.len(), expected, "{filter}");
    }
    let receipt = Receipt { nonce: Nonce::new(7).unwrap(), ..v2()[0].clone() };
    for name in [receipt.unit().to_hex(), receipt.id().to_hex()] {
        let (status, json) = server.get(&format!("/v1/receipts/{name}")).await;
        assert_eq!((status, json["text"].as_str().unwrap()), (StatusCode::OK, &*receipt.to_text()));
    }
    assert_eq!(server.get(&format!("/v1/receipts/{}", "0".repeat(64))).await.0, StatusCode::NOT_FOUND);
    assert_eq!(server.get("/v1/receipts/xyz").await.0, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn wrong_parameters_are_one_sentence() {
    let server = server(false).await;
    for path in [
        "/v1/receipts?limit=0",
        "/v1/receipts?limit=9999",
        "/v1/receipts?epoch=x",
        "/v1/receipts?miner=02",
        "/v1/receipts?cursor=zz",
        "/v1/receipts?colour=1",
        "/v1/receipts?limit=1&limit=2",
        "/v1/heads?from=-1",
        "/v1/status?x=1",
        "/v1/outbox?state=lost",
    ] {
        let (status, json) = server.get(path).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{path}");
        assert!(!json["error"].as_str().unwrap().contains('\n'));
    }
}

#[tokio::test]
async fn a_token_guards_everything_but_the_pulse() {
    let server = server(true).await;
    assert_eq!(server.get("/healthz").await.0, StatusCode::OK);
    for path in ["/v1/status", "/metrics", "/readyz", "/nowhere"] {
        assert_eq!(server.client.get(format!("{}{path}", server.base)).send().await.unwrap().status(), StatusCode::UNAUTHORIZED, "{path}");
        let wrong = server.client.get(format!("{}{path}", server.base)).bearer_auth("0123456789abcdeF").send().await.unwrap();
        assert_eq!(wrong.status(), StatusCode::UNAUTHORIZED);
    }
    assert_eq!(server.client.get(format!("{}/v1/status", server.base)).bearer_auth(TOKEN).send().await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn metrics_are_openmetrics_without_peers() {
    let server = server(false).await;
    let response = server.client.get(format!("{}/metrics", server.base)).send().await.unwrap();
    assert!(response.headers()["content-type"].to_str().unwrap().starts_with("application/openmetrics-text"));
    let text = response.text().await.unwrap();
    assert!(text.ends_with("# EOF\n"));
    for line in [
        "tops_shares_accepted_total 0",
        "tops_rejections_total{reason=\"false_alert\"} 1",
        "tops_attempts_per_second{window=\"60s\"} 5.0",
        "tops_attempts_total 77",
        "tops_height 0.0",
        "tops_peers{kind=\"node\"} 0",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
    assert!(!text.contains("16Uiu2HA") && !text.contains(&server.own.to_hex()));
    for line in text.lines().filter_map(|line| line.strip_prefix("# UNIT ")) {
        let (name, unit) = line.split_once(' ').unwrap();
        assert!(name.ends_with(&format!("_{unit}")), "{line}");
    }
    for line in [
        "# UNIT tops_loop_age_seconds seconds",
        "# TYPE tops_receipt_age_seconds histogram",
        "tops_build_info{version=",
        "tops_ready{check=\"peers\"} 0.0",
        "tops_outbox{state=\"dead\"} 1",
        "tops_pool_used{pool=\"held\"} 0.0",
        "tops_pool_limit{pool=\"held\"} 4096.0",
        "process_resident_memory_bytes ",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
}

/// What Prometheus read before OpenMetrics, for who asks for it.
#[tokio::test]
async fn metrics_are_told_in_the_older_format_too() {
    let server = server(false).await;
    let response = server.client.get(format!("{}/metrics", server.base)).header("accept", "text/plain").send().await.unwrap();
    assert!(response.headers()["content-type"].to_str().unwrap().starts_with("text/plain; version=0.0.4"));
    let text = response.text().await.unwrap();
    assert!(text.contains("# TYPE tops_attempts_total counter\ntops_attempts_total 77\n"), "{text}");
    assert!(!text.contains("# UNIT") && !text.contains("# EOF"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_connection_does_not_keep_it_from_ending() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let served = tokio::spawn(http::serve(listener, axum::Router::new(), async move { drop(stopped.await) }));
    let mut half = tokio::net::TcpStream::connect(address).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut half, b"GET / HTTP/1.1\r\n").await.unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    stop.send(()).unwrap();
    tokio::time::timeout(http::LAST_ANSWERS * 3, served).await.unwrap().unwrap();
}

/// Half requests that trickle in, and all places taken: the pulse answers all the same.
#[tokio::test(flavor = "multi_thread")]
async fn slow_clients_do_not_hide_the_pulse() {
    let server = server(false).await;
    let address = server.base.strip_prefix("http://").unwrap().to_owned();
    let mut slow = Vec::new();
    for _ in 0..http::REQUESTS_MAX {
        let mut socket = tokio::net::TcpStream::connect(&address).await.unwrap();
        let head = b"POST /verify HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 900\r\n\r\n{";
        tokio::io::AsyncWriteExt::write_all(&mut socket, head).await.unwrap();
        slow.push(socket);
    }
    while server.get("/v1/status").await.0 != StatusCode::SERVICE_UNAVAILABLE {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    assert_eq!(server.get("/healthz").await, (StatusCode::OK, json!({ "ok": true })));
}

#[tokio::test]
async fn a_device_without_work_is_not_ready_and_says_why() {
    let server = server(false).await;
    assert_eq!(server.get("/readyz").await.1["checks"]["device"], "ok");
    let cpu = CpuBackend::new(Some(1)).unwrap();
    let zero = std::time::Duration::ZERO;
    server.lanes.lock().unwrap().push(LaneReport {
        device: cpu.device().clone(),
        mines: true,
        benched: Some("the device is lost: it fell off the bus".into()),
        hung: false,
        mined: 0,
        mined_ops: 0,
        hits: 0,
        checked: 0,
        queued: 0,
        batch: 1,
        replaced: 0,
        replaced_worst: zero,
        busy: zero,
        wall: zero,
    });
    let (status, json) = server.get("/readyz").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(json["checks"]["device"], "cpu:0: the device is lost: it fell off the bus");
    assert_eq!(server.get("/v1/status").await.1["device_problem"], json["checks"]["device"]);
    assert!(
        server.client.get(format!("{}/metrics", server.base)).send().await.unwrap().text().await.unwrap().contains("tops_device_problem 1")
    );
}

#[tokio::test]
async fn a_node_without_peers_is_ready_only_where_it_may_work_alone() {
    let server = server(false).await;
    let (status, json) = server.get("/readyz").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(json["checks"]["peers"].as_str().unwrap().contains("--bootstrap"), "{json}");
}

#[tokio::test]
async fn dead_letters_are_sent_again_or_dropped_on_request() {
    let server = server(false).await;
    let unit = Receipt { nonce: Nonce::new(0).unwrap(), ..v2()[0].clone() }.unit();
    for (verb, word) in [("replay", "replayed"), ("drop", "dropped")] {
        let post = |body: Value| server.client.post(format!("{}/v1/outbox/{verb}", server.base)).json(&body).send();
        for (body, status) in [
            (json!({ "unit": "xyz" }), StatusCode::BAD_REQUEST),
            (json!({ "all": false }), StatusCode::BAD_REQUEST),
            (json!({}), StatusCode::BAD_REQUEST),
            (json!({ "unit": UnitId([1; 32]).to_hex() }), StatusCode::NOT_FOUND),
        ] {
            assert_eq!(post(body.clone()).await.unwrap().status(), status, "{verb} {body}");
        }
        for body in [json!({ "unit": unit.to_hex() }), json!({ "all": true })] {
            let answer: Value = post(body).await.unwrap().json().await.unwrap();
            assert_eq!(answer, json!({ word: 1 }));
        }
    }
    assert_eq!(*server.replayed.lock().unwrap(), [unit, unit]);
    assert_eq!(*server.dropped.lock().unwrap(), [unit, unit]);
}

#[tokio::test]
async fn a_stuck_loop_shows() {
    let server = server(false).await;
    assert!(server.shared.turning());
    server.shared.set_stopping();
    let (_, json) = server.get("/readyz").await;
    assert_eq!(json["checks"]["loop"], "the node is stopping");
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_keeps_the_contract_and_tells_the_truth() {
    let server = server(false).await;
    for vector in vectors() {
        let (status, json) = server.verify(text(&vector)).await;
        assert_eq!(status, StatusCode::OK, "{json}");
        assert_eq!((&json["ok"], &json["sig_ok"], &json["root_ok"]), (&json!(true), &json!(true), &json!(true)), "{json}");
        assert_eq!((&json["digest_hex"], &json["pubkey_hex"]), (&vector["prehash"], &vector["public_key"]));
        let broken = text(&vector).replace("\"time_ms\":", "\"time_ms\":1");
        let (status, json) = server.verify(broken).await;
        assert_eq!((status, &json["ok"], &json["sig_ok"]), (StatusCode::OK, &json!(false), &json!(false)));
    }
    let v1 = text(&vectors()[3]);
    for (from, to) in [
        ("\"m\":", "\"x\":"),
        ("\"nonce\":", "\"nonces\":"),
        ("\"work_root_hex\":\"", "\"work_root_hex\":\"A"),
        ("\"epoch_id\":", "\"epoch_id\":-"),
    ] {
        let (status, json) = server.verify(v1.replacen(from, to, 1)).await;
        assert_eq!((status, &json["ok"]), (StatusCode::BAD_REQUEST, &json!(false)), "{json}");
        assert!(json["error"].is_string());
    }
    let (status, json) = server.verify(vec![b' '; http::BODY_MAX + 1]).await;
    assert_eq!((status, &json["ok"]), (StatusCode::PAYLOAD_TOO_LARGE, &json!(false)));
}

#[tokio::test(flavor = "multi_thread")]
async fn extra_fields_are_covered_by_the_digest_and_large_work_is_not_called_true() {
    let server = server(false).await;
    let secret = tops_node::keys::parse(vectors()[3]["secret_key"].as_str().unwrap()).unwrap();
    let sign = |unsigned: &str| {
        let id = tops_protocol::ReceiptId(*blake3::hash(unsigned.as_bytes()).as_bytes());
        let sig = secret.sign(&tops_protocol::receipt::prehash(&id));
        unsigned.replace("\"sig_hex\":\"\"", &format!("\"sig_hex\":\"{sig}\""))
    };
    let plain = vectors()[3]["signing_text"].as_str().unwrap().to_owned();
    let extra = format!("{},\"site\":{{\"rack\":[1,true,null,\"a\"]}}}}", &plain[..plain.len() - 1]);
    let (_, json) = server.verify(sign(&extra)).await;
    assert_eq!(json["ok"], true, "{json}");
    let (_, json) = server.verify(sign(&extra).replace("[1,true", "[2,true")).await;
    assert_eq!((&json["ok"], &json["sig_ok"]), (&json!(false), &json!(false)));
    let mut big: Value = serde_json::from_str(&plain).unwrap();
    big["sizes"]["m"] = json!(8192);
    big["sizes"]["n"] = json!(8192);
    let (status, json) = server.verify(sign(&big.to_string())).await;
    assert_eq!((status, &json["ok"], &json["root_ok"]), (StatusCode::OK, &json!(false), &json!(null)), "{json}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_commands_that_ask_a_node_print_its_answers() {
    let server = server(true).await;
    let address = server.base.trim_start_matches("http://").to_owned();
    let ask = |args: Vec<String>| {
        let address = address.clone();
        tokio::task::spawn_blocking(move || {
            let base = ["tops-node".to_owned()].into_iter().chain(args).chain(["--http".into(), address]);
            let env = [("TOPS_API_TOKEN".to_owned(), TOKEN.to_owned())].into_iter().collect();
            let (mut out, mut err) = (Vec::new(), Vec::new());
            let code = tops_node::cli::run(base.map(Into::into), env, &mut out, &mut err);
            (code, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
        })
    };
    let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let (code, out, _) = ask(words("receipts --all --json")).await.unwrap();
    let all: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, all["receipts"].as_array().unwrap().len(), &all["more"]), (0, 300, &json!(false)));
    let (code, out, _) = ask(words("receipts --limit 5")).await.unwrap();
    assert_eq!((code, out.lines().count()), (0, 7), "{out}");
    for list in ["ledger", "heads", "peers", "outbox list --state dead", "outbox"] {
        assert_eq!(ask(words(list)).await.unwrap().0, 0, "{list}");
    }
    assert_eq!(ask(words("outbox list --state lost")).await.unwrap().0, 2);
}

#[test]
fn garbage_never_breaks_it() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let server = runtime.block_on(server(false));
    let (good, v1) = (text(&vectors()[0]), text(&vectors()[3]));
    proptest!(ProptestConfig::with_cases(256), |(bytes in prop::collection::vec(any::<u8>(), 0..600), at in any::<prop::sample::Index>(), query in "[a-z=&%0-9+;]{0,60}", depth in 0usize..3000)| {
        let bodies = [bytes.clone(), {
            let mut changed = good.clone().into_bytes();
            let at = at.index(changed.len());
            changed.splice(at..(at + 3).min(good.len()), bytes.iter().take(8).copied());
            changed
        }, {
            let mut changed = v1.clone().into_bytes();
            let at = at.index(changed.len());
            changed.splice(at..(at + 3).min(v1.len()), bytes.iter().take(8).copied());
            changed
        }, "[".repeat(depth).into_bytes(), "{\"a\":".repeat(depth).into_bytes()];
        runtime.block_on(async {
            for body in bodies {
                let unchanged = body == good.as_bytes() || body == v1.as_bytes();
                let (status, json) = server.verify(body).await;
                assert!(unchanged || json["ok"] == json!(false), "{status} {json}");
                assert!(status == StatusCode::OK || status == StatusCode::BAD_REQUEST, "{status} {json}");
            }
            for path in ["/v1/receipts", "/v1/heads", "/v1/ledger", "/v1/outbox", "/v1/receipts/"] {
                let response = server.client.get(format!("{}{path}?{query}", server.base)).send().await.unwrap();
                assert!(response.status().is_success() || response.status().is_client_error(), "{path}?{query}: {}", response.status());
            }
        });
    });
}

/// Lists with the parameters that they take.
const LISTS: [(&str, &[&str]); 4] = [
    ("/v1/receipts", &["epoch", "miner", "cursor", "limit"]),
    ("/v1/heads", &["from", "limit"]),
    ("/v1/ledger", &["miner", "cursor", "limit"]),
    ("/v1/outbox", &["state", "cursor", "limit"]),
];

/// Some of these parameters, each with a value that fits its form or with any other.
fn parameters(names: &'static [&'static str]) -> impl Strategy<Value = Vec<(&'static str, String)>> {
    let fitting = |name: &str| -> &'static str {
        match name {
            "epoch" | "from" => "[0-9]{1,20}",
            "limit" => "[0-9]{1,3}",
            "cursor" => "([0-9a-f]{2}){1,73}",
            "miner" => "[0-9a-f]{66}",
            _ => "waiting|due|delivered|dead|void",
        }
    };
    let each: Vec<_> = names
        .iter()
        .map(|&name| {
            let value = prop_oneof![
                4 => fitting(name),
                1 => "\\PC{0,60}",
                1 => "(?s).{0,20}",
                1 => "[0-9a-f]{0,200}",
                1 => "[-+]?[0-9]{1,30}(e9)?",
            ];
            prop::option::of((Just(name), value))
        })
        .collect();
    each.prop_map(|pairs| pairs.into_iter().flatten().collect())
}

#[test]
fn every_value_of_every_parameter_is_answered() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let server = runtime.block_on(server(false));
    for (path, names) in LISTS {
        proptest!(ProptestConfig::with_cases(128), |(given in parameters(names))| {
            let query = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(&given).finish();
            let request = server.client.get(format!("{}{path}?{query}", server.base));
            let (status, body) = runtime.block_on(server.answer(request));
            let json: Value = serde_json::from_slice(&body).unwrap();
            assert!(status == StatusCode::OK || status == StatusCode::BAD_REQUEST, "{path} {given:?}: {status} {json}");
            if status == StatusCode::BAD_REQUEST {
                let sentence = json["error"].as_str().unwrap();
                assert!(!sentence.is_empty() && !sentence.contains('\n'), "{path} {given:?}: {sentence}");
            }
        });
    }
}

#[test]
fn any_name_of_a_receipt_is_answered() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let server = runtime.block_on(server(false));
    let names = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..300),
        "\\PC{0,80}".prop_map(String::into_bytes),
        "[0-9a-fA-F]{63,65}".prop_map(String::into_bytes),
        "[./%]{0,4}".prop_map(String::into_bytes),
    ];
    proptest!(ProptestConfig::with_cases(256), |(name in names)| {
        let escaped: String = name.iter().map(|byte| format!("%{byte:02x}")).collect();
        let request = server.client.get(format!("{}/v1/receipts/{escaped}", server.base));
        let (status, _) = runtime.block_on(server.answer(request));
        assert!(status.is_client_error(), "{escaped}: {status}");
    });
    assert_eq!(runtime.block_on(server.get("/healthz")).0, StatusCode::OK);
}

#[test]
fn mining_takes_its_two_bodies_and_answers_all_others() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let server = runtime.block_on(server(false));
    let bodies = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..200),
        "[ {]{0,2}\"(paused|pause|Paused)\"[ :]{1,2}(true|false|null|1|\"true\"|\\[\\])[ ,}]{0,3}".prop_map(String::into_bytes),
        any::<bool>().prop_map(|paused| json!({ "paused": paused }).to_string().into_bytes()),
        (1usize..3_000).prop_map(|depth| "{\"paused\":".repeat(depth).into_bytes()),
    ];
    let kinds = prop::sample::select(vec!["application/json", "application/json; charset=utf-8", "text/plain", ""]);
    proptest!(ProptestConfig::with_cases(256), |(body in bodies, kind in kinds)| {
        let before = server.shared.mining_paused();
        let request = server.client.post(format!("{}/v1/mining", server.base)).header("content-type", kind).body(body.clone());
        let (status, answer) = runtime.block_on(server.answer(request));
        let json: Value = serde_json::from_slice(&answer).unwrap();
        let after = server.shared.mining_paused();
        if let Some(paused) = [true, false].into_iter().find(|paused| body == json!({ "paused": paused }).to_string().as_bytes())
            && kind == "application/json"
        {
            assert_eq!((status, after), (StatusCode::OK, paused), "{json}");
        }
        if status == StatusCode::OK {
            assert_eq!(json["paused"], json!(after));
        } else {
            assert_eq!((status, after), (StatusCode::BAD_REQUEST, before), "{json}");
            assert!(json["error"].is_string(), "{json}");
        }
    });
}
