//! The bridge against a real receiver over HTTP: every class of answer, with the store that it reads.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use tops_node::bridge::{Bridge, IN_FLIGHT_MAX, REMEMBERED_MAX};
use tops_node::state::{Identity, Shared};
use tops_protocol::codec::{self, AnyReceipt};
use tops_protocol::engine::{Op, OutboxState, ShareRow, ShareState};
use tops_protocol::types::NetworkId;
use tops_protocol::{Millis, Nonce, PublicKey, Receipt, UnitId};
use tops_store::Store;
use tops_store::memory::MemoryDisk;

/// What the receiver saw of a unit: bodies in order.
#[derive(Clone, Default)]
struct Receiver(Arc<Mutex<Seen>>);

#[derive(Default)]
struct Seen {
    bodies: BTreeMap<String, Vec<String>>,
    answers: BTreeMap<String, Vec<(u16, &'static str)>>,
    retry_after: Option<u64>,
    /// When each request came.
    times: Vec<Instant>,
}

async fn receive(State(receiver): State<Receiver>, headers: HeaderMap, body: String) -> Response {
    let mut seen = receiver.0.lock().unwrap();
    seen.times.push(Instant::now());
    let unit = headers["idempotency-key"].to_str().unwrap().to_owned();
    assert_eq!(headers["content-type"], "application/json");
    let tries = seen.bodies.entry(unit.clone()).or_default();
    tries.push(body);
    let at = tries.len() - 1;
    let (status, body) =
        seen.answers.get(&unit).and_then(|all| all.get(at).or(all.last())).copied().unwrap_or((200, "{\"ok\":true,\"sig_ok\":true}"));
    let mut response = (StatusCode::from_u16(status).unwrap(), body).into_response();
    if let Some(seconds) = seen.retry_after.filter(|_| status == 429) {
        response.headers_mut().insert("retry-after", seconds.into());
    }
    response
}

fn receipts(count: u64) -> Vec<Receipt> {
    let vectors: Vec<serde_json::Value> = serde_json::from_str(include_str!("../../tests/vectors/receipts.json")).unwrap();
    let Ok(AnyReceipt::V2(receipt)) = codec::receipt_from_text(vectors[0]["receipt"].to_string().as_bytes()) else {
        panic!("the first vector is v2")
    };
    (0..count).map(|i| Receipt { nonce: Nonce::new(i).unwrap(), ..receipt.clone() }).collect()
}

struct Yard {
    store: Arc<dyn Store>,
    shared: Shared,
    receiver: Receiver,
    units: Vec<UnitId>,
    url: url::Url,
}

/// Receipts in the outbox, due, and a receiver on a port of its own.
async fn yard(count: u64) -> Yard {
    let store = MemoryDisk::new().open(NetworkId([7; 32])).unwrap().store;
    let all = receipts(count);
    let batches: Vec<Vec<Op>> = all
        .iter()
        .map(|r| {
            let row = ShareRow { unit: r.unit(), epoch: r.epoch_id, miner: r.miner, state: ShareState::Audited, wire: r.to_wire() };
            vec![Op::PutShare(row), Op::PutOutbox { unit: r.unit(), epoch: r.epoch_id, state: OutboxState::Due }]
        })
        .collect();
    store.commit(&batches).unwrap();
    let receiver = Receiver::default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/verify", listener.local_addr().unwrap()).parse().unwrap();
    let app = Router::new().route("/verify", post(receive)).with_state(receiver.clone());
    tokio::spawn(async move { axum::serve(listener, app).await });
    let identity = Identity {
        peer_id: "p".into(),
        miner: PublicKey([2; 33]),
        device_did: "d".into(),
        agent: "tops-node/test".into(),
        network_name: "dev".into(),
        verify_only: true,
        alone: false,
        started_at: Millis(0),
    };
    Yard { store, shared: Shared::new(identity), receiver, units: all.iter().map(Receipt::unit).collect(), url }
}

impl Yard {
    /// Runs a bridge whose engine commits what it is told, until `done` or 120 s.
    async fn run(&self, done: impl Fn() -> bool) {
        let store = Arc::clone(&self.store);
        let tell: tops_node::bridge::Tell = Arc::new(move |unit, taken| {
            let state = if taken { OutboxState::Delivered } else { OutboxState::Dead };
            let row = store.outbox_row(&unit).unwrap().unwrap();
            store.commit(&[vec![Op::PutOutbox { unit, epoch: row.epoch, state }]]).unwrap();
            Box::pin(async { true })
        });
        let bridge = Bridge::new(self.url.clone(), Arc::clone(&self.store), self.shared.clone(), tell).unwrap();
        let start = Instant::now();
        bridge
            .run(async {
                while !done() && start.elapsed() < Duration::from_secs(120) {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            })
            .await;
    }
    fn state(&self, i: usize) -> OutboxState {
        self.store.outbox_row(&self.units[i]).unwrap().unwrap().state
    }
    fn tries(&self, i: usize) -> usize {
        self.receiver.0.lock().unwrap().bodies.get(&self.units[i].to_hex()).map_or(0, Vec::len)
    }
    fn answer(&self, i: usize, answers: &[(u16, &'static str)]) {
        self.receiver.0.lock().unwrap().answers.insert(self.units[i].to_hex(), answers.to_vec());
    }
    fn settled(&self) -> bool {
        let counts = self.store.outbox_counts();
        counts.due == 0 && counts.waiting == 0
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_unit_is_delivered_once_in_its_text_form() {
    let yard = yard(300).await;
    yard.run(|| yard.settled()).await;
    assert_eq!(yard.store.outbox_counts().delivered, 300);
    let seen = yard.receiver.0.lock().unwrap();
    assert_eq!(seen.bodies.len(), 300);
    for (receipt, unit) in receipts(300).iter().zip(&yard.units) {
        assert_eq!(seen.bodies[&unit.to_hex()], [receipt.to_text()]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_answer_has_its_consequence() {
    let yard = yard(8).await;
    yard.answer(0, &[(409, "")]);
    yard.answer(1, &[(200, "{\"ok\":false,\"error\":\"no\"}")]);
    yard.answer(2, &[(200, "{\"ok\":true,\"sig_ok\":false}")]);
    yard.answer(3, &[(400, "{\"ok\":false,\"error\":\"invalid schema\"}")]);
    yard.answer(4, &[(503, ""), (408, ""), (200, "")]);
    yard.answer(5, &[(500, "{\"ok\":false}"), (201, "{\"ok\":true}")]);
    yard.answer(6, &[(302, ""), (204, "")]);
    yard.run(|| yard.settled()).await;
    let states: Vec<_> = (0..8).map(|i| yard.state(i)).collect();
    use OutboxState::{Dead, Delivered};
    assert_eq!(states, [Delivered, Dead, Dead, Dead, Delivered, Delivered, Delivered, Delivered]);
    assert_eq!((0..8).map(|i| yard.tries(i)).collect::<Vec<_>>(), [1, 1, 1, 1, 3, 2, 2, 1]);
    let dead = yard.store.outbox_row(&yard.units[3]).unwrap().unwrap();
    assert_eq!((dead.note.as_str(), dead.attempts), ("400: invalid schema", 1));
    let counters: BTreeMap<_, _> = yard.shared.counters().values().into_iter().collect();
    assert_eq!((counters["bridge_delivered"], counters["bridge_refused"], counters["bridge_retries"]), (5, 3, 4));
}

#[tokio::test(flavor = "multi_thread")]
async fn retry_after_is_honoured() {
    let yard = yard(1).await;
    yard.answer(0, &[(429, ""), (200, "")]);
    yard.receiver.0.lock().unwrap().retry_after = Some(2);
    let start = Instant::now();
    yard.run(|| yard.settled()).await;
    assert_eq!((yard.state(0), yard.tries(0)), (OutboxState::Delivered, 2));
    assert!(start.elapsed() >= Duration::from_secs(2), "not before the aggregator said");
}

#[tokio::test(flavor = "multi_thread")]
async fn retry_after_holds_back_everything() {
    let yard = yard(40).await;
    for i in 0..40 {
        yard.answer(i, &[(429, ""), (200, "")]);
    }
    yard.receiver.0.lock().unwrap().retry_after = Some(2);
    yard.run(|| yard.settled()).await;
    assert_eq!(yard.store.outbox_counts().delivered, 40);
    let times = yard.receiver.0.lock().unwrap().times.clone();
    let early = times.iter().filter(|at| **at < times[0] + Duration::from_secs(2)).count();
    assert!(early <= IN_FLIGHT_MAX, "{early} requests before the aggregator wanted any");
}

/// More rows than are remembered, so that places must be given up as deliveries show in the store.
#[tokio::test(flavor = "multi_thread")]
async fn slow_a_backlog_of_any_length_is_delivered() {
    let count = 2 * REMEMBERED_MAX + 500;
    let yard = yard(count as u64).await;
    yard.run(|| yard.settled()).await;
    assert_eq!(yard.store.outbox_counts().delivered, count as u64);
    assert!((0..count).all(|i| yard.tries(i) == 1));
}

/// The part of an answer that did not come may have said that the receipt was refused.
#[tokio::test(flavor = "multi_thread")]
async fn half_an_answer_is_none() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let yard = yard(1).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url: url::Url = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
    let tries = Arc::new(Mutex::new(0));
    let counted = Arc::clone(&tries);
    tokio::spawn(async move {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            *counted.lock().unwrap() += 1;
            let whole = r#"{"ok":true,"sig_ok":false}"#;
            let sent = if *counted.lock().unwrap() == 1 { &whole[..10] } else { whole };
            let _ = socket.read(&mut [0; 4096]).await.unwrap();
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{sent}", whole.len());
            socket.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    let yard = Yard { url, ..yard };
    yard.run(|| yard.settled()).await;
    assert_eq!((yard.state(0), *tries.lock().unwrap()), (OutboxState::Dead, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_absent_aggregator_is_tried_until_it_comes() {
    let mut yard = yard(3).await;
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    yard.url = format!("http://{address}/verify").parse().unwrap();
    let receiver = yard.receiver.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        let listener = tokio::net::TcpListener::bind(address).await.unwrap();
        axum::serve(listener, Router::new().route("/verify", post(receive)).with_state(receiver)).await
    });
    yard.run(|| yard.settled()).await;
    assert_eq!(yard.store.outbox_counts().delivered, 3);
    assert_eq!((0..3).map(|i| yard.tries(i)).collect::<Vec<_>>(), [1, 1, 1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endless_answer_is_cut() {
    let yard = yard(1).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url: url::Url = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
    let app = Router::new().route("/", post(|| async { "x".repeat(4 * 1024 * 1024) }));
    tokio::spawn(async move { axum::serve(listener, app).await });
    let yard = Yard { url, ..yard };
    yard.run(|| yard.settled()).await;
    assert_eq!(yard.state(0), OutboxState::Delivered);
}
