//! `/readyz` names each way of being alive but stuck. Dead aggregators, stale heads and full disks are tried with real parts too: `tests/api/check`,
//! and the tests of store and bridge.

use reqwest::StatusCode;
use serde_json::json;
use tops_node::state::{BRIDGE_PATIENCE, NodeView, PeerInfo};
use tops_protocol::Millis;
use tops_protocol::engine::SyncState;

use crate::{Server, server, view};

fn peer() -> PeerInfo {
    PeerInfo {
        number: 1,
        peer_id: "16Uiu2HB".into(),
        address: "/ip4/127.0.0.1/tcp/2".into(),
        outbound: true,
        agent: "tops-node/test".into(),
        node: true,
        score: 0.0,
        ping_ms: None,
        connected_secs: 1,
    }
}

/// A node among others, as far as they.
fn well() -> NodeView {
    let mut view = view();
    view.peers = [peer()].into();
    view.engine.sync = SyncState::InStep;
    view
}

impl Server {
    /// That exactly this check fails, and for what it says.
    async fn says(&self, check: &str, words: &[&str]) {
        let (status, json) = self.get("/readyz").await;
        assert_eq!((status, &json["ready"]), (StatusCode::SERVICE_UNAVAILABLE, &json!(false)));
        for (name, said) in json["checks"].as_object().unwrap() {
            let said = said.as_str().unwrap();
            assert_eq!(said != "ok", name == check, "{name}: {said}");
            assert!(name != check || words.iter().all(|word| said.contains(word)), "{name}: {said}");
        }
    }
    async fn is_ready(&self) {
        let (status, json) = self.get("/readyz").await;
        assert_eq!((status, &json["ready"]), (StatusCode::OK, &json!(true)), "{json}");
    }
}

#[tokio::test]
async fn each_reason_is_said_alone_and_goes_when_it_is_over() {
    let server = server(false).await;
    server.shared.publish(well());
    server.is_ready().await;

    server.shared.publish(NodeView { peers: [].into(), ..well() });
    server.says("peers", &["--bootstrap"]).await;

    let mut behind = well();
    behind.engine.sync = SyncState::Heads(tops_protocol::Height(9));
    server.shared.publish(behind);
    server.says("sync", &["0 of 9"]).await;

    for (off, side) in [(60_000, "60 s ahead"), (-60_000, "60 s behind")] {
        let mut view = well();
        view.engine.clock_off_ms = Some(off);
        server.shared.publish(view);
        server.says("clock", &[side, "NTP"]).await;
    }

    server.shared.publish(well());
    server.shared.set_store_problem(Some("the disk is full: make room".into()));
    server.says("store", &["disk is full"]).await;
    server.shared.set_store_problem(None);

    server.shared.set_device_problem(Some("cuda:0 gave a wrong answer".into()));
    server.says("device", &["cuda:0"]).await;
    server.shared.set_device_problem(None);
    server.is_ready().await;
}

#[tokio::test]
async fn an_aggregator_that_is_away_for_long_makes_the_node_not_ready() {
    let server = server(false).await;
    let patience = BRIDGE_PATIENCE.as_millis() as u64;
    let failing = Millis(1_000_000);
    server.shared.set_bridge(|bridge| {
        bridge.configured = true;
        bridge.failing_since = Some(failing);
        bridge.problem = Some("connection refused".into());
    });
    server.shared.publish(NodeView { at: failing.plus(patience - 1), ..well() });
    server.is_ready().await;
    server.shared.publish(NodeView { at: failing.plus(patience), ..well() });
    server.says("aggregator", &["connection refused", "--aggregator-url"]).await;
    assert_eq!(server.get("/v1/status").await.1["aggregator"]["problem"], "connection refused");
    server.shared.set_bridge(|bridge| bridge.failing_since = None);
    server.is_ready().await;
}
