//! The event stream, read as a client reads it.

use std::time::Duration;

use reqwest::{Response, StatusCode};
use serde_json::{Value, json};
use tops_node::http;
use tops_node::state::{EVENTS_KEPT, Event, Shared};
use tops_protocol::engine::Note;
use tops_protocol::{Height, Millis, PublicKey, Root, UnitId};

use crate::{Server, TOKEN, server};

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(30);

struct Stream {
    response: Response,
    text: String,
}

impl Stream {
    async fn open(server: &Server) -> Self {
        let response = server.client.get(format!("{}/v1/events", server.base)).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self { response, text: String::new() }
    }

    /// The next event; `None` at the end of the stream. Comments are passed over.
    async fn next(&mut self) -> Option<(String, Value)> {
        loop {
            if let Some(end) = self.text.find("\n\n") {
                let block: String = self.text.drain(..end + 2).collect();
                let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
                if let (Some(event), Some(data)) = (field("event: "), field("data: ")) {
                    return Some((event, serde_json::from_str(&data).unwrap()));
                }
                continue;
            }
            let chunk = tokio::time::timeout(PATIENCE, self.response.chunk()).await.expect("nothing was told").unwrap()?;
            self.text.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }

    /// The next event of this name.
    async fn find(&mut self, name: &str) -> Value {
        loop {
            let (event, data) = self.next().await.expect("the stream ended");
            if event == name {
                return data;
            }
        }
    }
}

fn tell_all(shared: &Shared) {
    let (unit, miner) = (UnitId([1; 32]), PublicKey([2; 33]));
    shared.note(&Note::Tip { root: Root([7; 32]), height: Height(3), undone: 1 }, Millis(1));
    shared.note(&Note::Accepted { unit, miner, epoch: 4, head: true, audited: false, age_ms: 12 }, Millis(1));
    shared.note(&Note::Acknowledged { unit, head: false }, Millis(1));
    shared.note(&Note::FalseRoot { miner, banned: true }, Millis(1));
    shared.tell(Event::Peers { connected: 2 });
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_that_happens_is_told() {
    let server = server(false).await;
    let mut stream = Stream::open(&server).await;
    let (event, first) = stream.next().await.unwrap();
    assert_eq!(event, "status", "it begins with the status");
    let asked = server.get("/v1/status").await.1;
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&first), keys(&asked));
    tell_all(&server.shared);
    let (unit, miner) = ("01".repeat(32), "02".repeat(33));
    for (name, data) in [
        ("head", json!({ "root": "07".repeat(32), "height": 3, "undone": 1 })),
        ("share", json!({ "unit": unit, "miner": miner, "epoch": 4, "head": true, "audited": false, "age_ms": 12 })),
        ("acknowledged", json!({ "unit": unit, "head": false })),
        ("false_root", json!({ "miner": miner, "banned": true })),
        ("peers", json!({ "connected": 2 })),
    ] {
        assert_eq!(stream.find(name).await, data, "{name}");
    }
    tell_all(&server.shared);
    let rejection = stream.find("rejection").await;
    assert_eq!((&rejection["reason"], &rejection["miner"]), (&json!("false_root"), &json!(miner)));
    let again = stream.find("status").await;
    assert_eq!(again["rejected"]["false_root"], 2, "{again}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_is_told_what_it_missed() {
    let server = server(false).await;
    let mut stream = Stream::open(&server).await;
    // Far faster than anybody reads, and more than the sockets between hold.
    for connected in 0..EVENTS_KEPT * 400 {
        server.shared.tell(Event::Peers { connected });
    }
    let missed = stream.find("lagged").await;
    assert!(missed["missed"].as_u64().unwrap() > 0, "{missed}");
    for _ in 0..100 {
        server.shared.note(&Note::FalseAlert, Millis(1));
    }
    let mut rejections = 0;
    loop {
        match stream.next().await.unwrap() {
            (name, _) if name == "rejection" => rejections += 1,
            (name, data) if name == "status" && data["rejected"]["false_alert"] == 101 && rejections > 0 => break,
            _ => {}
        }
    }
    assert!(rejections <= 100, "{rejections}");
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_have_places_of_their_own_and_give_them_back() {
    let server = server(false).await;
    let mut open = Vec::new();
    for _ in 0..http::EVENT_STREAMS_MAX {
        open.push(Stream::open(&server).await);
    }
    let refused = server.client.get(format!("{}/v1/events", server.base)).send().await.unwrap();
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(refused.json::<Value>().await.unwrap()["error"].as_str().unwrap().contains("event streams"));
    assert_eq!(server.get("/v1/status").await.0, StatusCode::OK, "requests have theirs");
    drop(open);
    let freed = async {
        while server.client.get(format!("{}/v1/events", server.base)).send().await.unwrap().status() != StatusCode::OK {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, freed).await.expect("no place became free");
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_end_when_the_node_stops() {
    let server = server(false).await;
    let mut stream = Stream::open(&server).await;
    stream.find("status").await;
    server.shared.set_stopping();
    while stream.next().await.is_some() {}
}

#[tokio::test]
async fn a_stream_needs_the_token_too() {
    let server = server(true).await;
    let events = || server.client.get(format!("{}/v1/events", server.base));
    assert_eq!(events().send().await.unwrap().status(), StatusCode::UNAUTHORIZED);
    assert_eq!(events().bearer_auth(TOKEN).send().await.unwrap().status(), StatusCode::OK);
}
