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
        self.run_with(tell, done).await;
    }
    /// The same with another engine.
    async fn run_with(&self, tell: tops_node::bridge::Tell, done: impl Fn() -> bool) {
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

/// However soon after the refusal: the bridge may not have seen the row dead at all.
#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_that_is_replayed_at_once_is_sent_at_once() {
    let yard = yard(3).await;
    yard.answer(1, &[(422, ""), (200, "")]);
    let store = Arc::clone(&yard.store);
    let replay: tops_node::bridge::Tell = Arc::new(move |unit, taken| {
        let states = if taken { vec![OutboxState::Delivered] } else { vec![OutboxState::Dead, OutboxState::Due] };
        let epoch = store.outbox_row(&unit).unwrap().unwrap().epoch;
        store.commit(&states.into_iter().map(|state| vec![Op::PutOutbox { unit, epoch, state }]).collect::<Vec<_>>()).unwrap();
        Box::pin(async { true })
    });
    yard.run_with(replay, || yard.settled()).await;
    assert_eq!((yard.state(1), yard.tries(1), yard.tries(0)), (OutboxState::Delivered, 2, 1));
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

/// What a hostile or broken server does with a connection. Whatever it is, the receipt stays due and its second try finds a good server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trick {
    /// Takes the request and says nothing.
    Silence,
    /// Sends a byte of the body from time to time, and never the last.
    Trickle,
    /// Closes at once.
    Close,
    /// Closes with a reset, the request unread.
    Reset,
    /// Promises a body, sends half of it, and resets.
    CutBody,
    /// No HTTP at all.
    Garbage,
    /// Half a head.
    HalfHead,
    /// A head without end.
    LongHead,
    /// Says that the receipts are wanted elsewhere.
    Redirect,
    /// 429 with a `Retry-After` that is nonsense.
    Nonsense,
    /// 500 with a body that says yes.
    Yes500,
    /// 503 with a date in the past.
    Past503,
}

async fn play(trick: Trick, mut socket: tokio::net::TcpStream) -> std::io::Result<()> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let hold = Duration::from_secs(60);
    if trick == Trick::Reset {
        // What was not read makes the close a reset.
        socket.readable().await?;
        return Ok(());
    }
    if trick != Trick::Close {
        // Whatever came of the request: the answer does not depend on it.
        let _ = socket.read(&mut [0; 8_192]).await?;
    }
    let answer = match trick {
        Trick::Silence | Trick::Close | Trick::Reset => "",
        Trick::Trickle | Trick::CutBody => "HTTP/1.1 200 OK\r\ncontent-length: 64\r\n\r\n{\"ok\":true",
        Trick::Garbage => "\u{1}\u{2}\u{3} this is no HTTP\r\n\r\n",
        Trick::HalfHead => "HTTP/1.1 200 OK\r\ncontent-le",
        Trick::LongHead => "HTTP/1.1 200 OK\r\n",
        Trick::Redirect => "HTTP/1.1 307 Temporary Redirect\r\nlocation: http://127.0.0.1:9/elsewhere\r\ncontent-length: 0\r\n\r\n",
        Trick::Nonsense => "HTTP/1.1 429 Too Many Requests\r\nretry-after: when it suits\r\ncontent-length: 0\r\n\r\n",
        Trick::Yes500 => "HTTP/1.1 500 Internal Server Error\r\ncontent-length: 26\r\n\r\n{\"ok\":true,\"sig_ok\":true} ",
        Trick::Past503 => "HTTP/1.1 503 Service Unavailable\r\nretry-after: Wed, 21 Oct 2015 07:28:00 GMT\r\ncontent-length: 0\r\n\r\n",
    };
    socket.write_all(answer.as_bytes()).await?;
    match trick {
        Trick::Silence => tokio::time::sleep(hold).await,
        Trick::Trickle => {
            for _ in 0..30 {
                tokio::time::sleep(Duration::from_secs(2)).await;
                socket.write_all(b" ").await?;
            }
        }
        Trick::LongHead => {
            let line = format!("x-more: {}\r\n", "y".repeat(8_000));
            for _ in 0..1_000 {
                socket.write_all(line.as_bytes()).await?;
            }
        }
        _ => {}
    }
    Ok(())
}

/// Every way to fail, one after another, at a real socket: nothing is lost, nothing dies, nothing is taken for an answer.
#[tokio::test(flavor = "multi_thread")]
async fn slow_a_server_that_fails_in_every_way_costs_only_time() {
    use Trick::*;
    let tricks = [Close, Reset, CutBody, Garbage, HalfHead, LongHead, Redirect, Nonsense, Yes500, Past503, Silence, Trickle];
    for trick in tricks {
        let yard = yard(1).await;
        let bad = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let good = yard.url.clone();
        let address = bad.local_addr().unwrap();
        let url: url::Url = format!("http://{address}/verify").parse().unwrap();
        // The first connection is the trick, the others go to the good server byte by byte.
        tokio::spawn(async move {
            let (first, _) = bad.accept().await.unwrap();
            tokio::spawn(play(trick, first));
            loop {
                let (mut from, _) = bad.accept().await.unwrap();
                let target = (good.host_str().unwrap().to_owned(), good.port().unwrap());
                tokio::spawn(async move {
                    let mut to = tokio::net::TcpStream::connect(target).await.unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut from, &mut to).await;
                });
            }
        });
        let yard = Yard { url, ..yard };
        yard.run(|| yard.settled()).await;
        let counters: BTreeMap<_, _> = yard.shared.counters().values().into_iter().collect();
        assert_eq!((yard.state(0), yard.tries(0)), (OutboxState::Delivered, 1), "{trick:?}");
        // A library may itself repeat a request that was surely not read.
        assert!(counters["bridge_retries"] <= 1 && counters["bridge_sent"] <= 2, "{trick:?}: {counters:?}");
        let answered = matches!(trick, Redirect | Nonsense | Yes500 | Past503);
        if answered || matches!(trick, Silence | Trickle | CutBody | Garbage) {
            assert_eq!(counters["bridge_unanswered"], u64::from(!answered), "{trick:?}: {counters:?}");
        }
        let view = yard.shared.bridge();
        assert!(view.configured && view.failing_since.is_none() && view.last_settled.is_some(), "{trick:?}: {view:?}");
    }
}

/// Runs the bridge against an address where nobody takes anything, until it has failed; gives the words for people.
async fn problem_at(url: &str) -> String {
    let yard = yard(1).await;
    let yard = Yard { url: url.parse().unwrap(), ..yard };
    yard.run(|| yard.shared.bridge().failing_since.is_some()).await;
    assert_eq!(yard.state(0), OutboxState::Due, "{url}");
    let view = yard.shared.bridge();
    let stamp = receipts(1)[0].timestamp;
    assert_eq!((view.oldest_due, view.last_settled), (Some(stamp), None));
    let since = view.failing_since.unwrap();
    assert_eq!(view.dead(since.plus(59_000)), None);
    assert!(view.dead(since.plus(61_000)).unwrap().contains("--aggregator-url"));
    view.problem.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_an_address_is_said_and_the_receipt_waits() {
    let open = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = open.local_addr().unwrap();
    let app = Router::new().route("/", post(|| async { "{}" }));
    tokio::spawn(async move { axum::serve(open, app).await });
    // TLS where there is none.
    assert!(problem_at(&format!("https://{address}/")).await.starts_with("no answer: "));
    // A name that no resolver can even ask for: a label is at most 63 bytes.
    assert!(problem_at(&format!("http://{}.invalid/", "a".repeat(64))).await.starts_with("no answer: "));
    // A redirect is named and not followed.
    let elsewhere = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let redirecting = elsewhere.local_addr().unwrap();
    let to = format!("http://{address}/");
    let app = Router::new().route("/", post(move || async move { (StatusCode::PERMANENT_REDIRECT, [("location", to)]) }));
    tokio::spawn(async move { axum::serve(elsewhere, app).await });
    let words = problem_at(&format!("http://{redirecting}/")).await;
    assert!(words.contains(&format!("308: it points to http://{address}/")) && words.contains("--aggregator-url"), "{words}");
}

/// One that answers every other request only: all of it arrives, and the receiver sees no unit twice that it took.
#[tokio::test(flavor = "multi_thread")]
async fn slow_an_aggregator_that_comes_and_goes_gets_everything_once() {
    let yard = yard(12).await;
    for i in 0..12 {
        yard.answer(i, if i % 2 == 0 { &[(200, "")] } else { &[(503, ""), (409, "")] });
    }
    yard.run(|| yard.settled()).await;
    assert_eq!(yard.store.outbox_counts().delivered, 12);
    assert!((0..12).all(|i| yard.tries(i) == 1 + i % 2));
    let counters: BTreeMap<_, _> = yard.shared.counters().values().into_iter().collect();
    assert_eq!((counters["bridge_known"], counters["bridge_delivered"], counters["bridge_sent"]), (6, 12, 18));
    let view = yard.shared.bridge();
    assert_eq!((view.requests, view.failing_since, view.p50_ms <= view.p99_ms), (18, None, true));
}

/// Nothing is sent while the store could not keep what came of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_lets_the_bridge_rest() {
    let yard = yard(3).await;
    yard.shared.set_store_problem(Some("full".into()));
    let began = Instant::now();
    yard.run(|| began.elapsed() > Duration::from_secs(2)).await;
    assert!((0..3).all(|i| yard.tries(i) == 0));
    yard.shared.set_store_problem(None);
    yard.run(|| yard.settled()).await;
    assert_eq!(yard.store.outbox_counts().delivered, 3);
}
