//! What peers and people say to a node: the sync protocol, gossip, files that an operator writes, files that earlier runs left, HTTP.

use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::{Method, Request, StatusCode};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tops_compute::backend::DeviceFault;
use tops_compute::tune::Tuner;
use tops_node::check::Recompute;
use tops_node::config::Config;
use tops_node::http::{self, Checker, Parts};
use tops_node::net::behaviour::{Names, message_id};
use tops_node::net::codec::{RawReply, decode_query, decode_reply, encode_query, encode_reply};
use tops_node::net::remembered::Remembered;
use tops_node::networks::Network;
use tops_node::settings::{Environment, Layers};
use tops_node::state::{Identity, NodeView, Shared};
use tops_protocol::codec::{AnyReceipt, receipt_from_text};
use tops_protocol::engine::{
    AuditRate, BANS_PER_REPLY, EPOCHS_PER_STATUS, Engine, HEADS_PER_REPLY, HeadRow, LOCATOR_MAX, Op, OutboxState, Query, ROOTS_PER_ASK,
    SHARES_PER_REPLY, Shard, ShareRow, ShareState, Topic,
};
use tops_protocol::verify::Structural;
use tops_protocol::work::v1::AttemptV1;
use tops_protocol::{Attempt, Height, Millis, NetworkSpec, Receipt, Root};
use tops_store::memory::MemoryDisk;
use tower::ServiceExt;

/// A question that is taken is within its bounds and is written as it was read.
pub fn sync_query(bytes: &[u8]) {
    if let Ok(query) = decode_query(bytes) {
        match &query {
            Query::Heads { locator } => assert!(locator.len() <= LOCATOR_MAX),
            Query::HeadsByRoot { roots } => assert!(roots.len() <= ROOTS_PER_ASK),
            Query::Status { .. } | Query::Shares { .. } | Query::Bans { .. } => {}
        }
        assert_eq!(encode_query(&query), bytes);
    }
}

/// An answer that is taken is within its bounds and is written as it was read; its receipts go through stages 1 and 2.
pub fn sync_reply(bytes: &[u8]) {
    if let Ok(reply) = decode_reply(bytes) {
        assert_eq!(encode_reply(&reply), bytes);
        let (wires, most): (&[Vec<u8>], usize) = match &reply {
            RawReply::Status(status) => {
                assert!(status.epochs.len() <= EPOCHS_PER_STATUS);
                (&[], 0)
            }
            RawReply::Heads(wires) => (wires, HEADS_PER_REPLY),
            RawReply::Shares { wires, .. } => (wires, SHARES_PER_REPLY),
            RawReply::Bans { wires, .. } => (wires, BANS_PER_REPLY),
        };
        assert!(wires.len() <= most);
        for wire in wires {
            let _ = Structural::from_wire(wire, &NetworkSpec::dev()).map(Structural::semantic);
        }
    }
}

/// A message on a topic: a name of its own, and stages 1 and 2.
pub fn gossip(bytes: &[u8]) {
    let Some((tag, data)) = bytes.split_first() else { return };
    let network = NetworkSpec::dev();
    let (names, tag) = (Names::new(network.tag()), tag % 3);
    let topic = |tag: u8| names.topic([Topic::Heads, Topic::Receipts, Topic::Alerts][usize::from(tag % 3)]).hash();
    let id = message_id(&topic(tag), data);
    assert_eq!(id, message_id(&topic(tag), data));
    assert_ne!(id, message_id(&topic(tag + 1), data));
    let _ = Structural::from_wire(data, &network).map(Structural::semantic);
}

/// A network file is a network, or one sentence.
pub fn network_toml(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match Network::parse(text) {
        Ok(network) => {
            assert!(!network.preset && !network.name.is_empty() && network.name.len() <= 32);
            assert!(network.checkpoints.is_sorted_by(|a, b| a.0 < b.0));
        }
        Err(fault) => assert!(!fault.0.contains('\n'), "{fault:?}"),
    }
}

/// Bytes as a file of their own, in memory where the system has such a place.
fn as_file<T>(bytes: &[u8], read: impl FnOnce(PathBuf) -> T) -> T {
    thread_local! {
        static DIR: TempDir = tempfile::Builder::new().prefix("tops-fuzz").tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    }
    DIR.with(|dir| {
        let path = dir.path().join("file");
        std::fs::write(&path, bytes).unwrap();
        read(path)
    })
}

/// A configuration file gives a configuration, or one sentence; secrets are in neither.
pub fn config_toml(bytes: &[u8]) {
    as_file(bytes, |path| {
        let home = path.parent().unwrap().display().to_string();
        let environment = [("TOPS_CONFIG".to_owned(), path.display().to_string()), ("HOME".to_owned(), home)];
        let fault = match Layers::new(&[], Environment::from_iter(environment)).and_then(|layers| Config::new(&layers)) {
            Ok(config) => {
                assert!(!config.shown.is_empty());
                return;
            }
            Err(fault) => fault,
        };
        assert!(!fault.0.is_empty() && !fault.0.contains('\n'), "{fault:?}");
    });
}

/// Peers of earlier runs: whatever the file holds, few are kept, and each has a name.
pub fn peers_file(bytes: &[u8]) {
    as_file(bytes, |path| {
        let remembered = Remembered::open(Some(path));
        assert!(remembered.peers().count() <= tops_node::net::limits::REMEMBERED_MAX);
    });
}

/// Measured batches of earlier runs.
pub fn tuned_file(bytes: &[u8]) {
    as_file(bytes, |path| drop(Tuner::open(Some(&path))));
}

/// Recomputation is another room's; here it is always busy, or claims one root.
struct Busy;

impl Recompute for Busy {
    fn v2(&self, attempt: &Attempt) -> Result<Root, DeviceFault> {
        if attempt.nonce.get().is_multiple_of(2) { Ok(Root([1; 32])) } else { Err(DeviceFault::Hung { waited_secs: 1 }) }
    }
    fn v1(&self, attempt: &AttemptV1) -> Result<Root, DeviceFault> {
        if attempt.nonce.is_multiple_of(2) { Ok(Root([1; 32])) } else { Err(DeviceFault::Hung { waited_secs: 1 }) }
    }
}

/// The HTTP interface over a store with a few rows.
pub struct Http {
    runtime: Runtime,
    router: Router,
}

impl Http {
    /// The rows are those of the vectors.
    pub fn new() -> Self {
        let vectors: Vec<serde_json::Value> = serde_json::from_str(include_str!("../../vectors/receipts.json")).unwrap();
        let text = |v: &serde_json::Value| {
            v["signing_text"].as_str().unwrap().replace("\"sig_hex\":\"\"", &format!("\"sig_hex\":{}", v["receipt"]["sig_hex"]))
        };
        let read = |v: &serde_json::Value| match receipt_from_text(text(v).as_bytes()) {
            Ok(AnyReceipt::V2(receipt)) => Some(receipt),
            _ => None,
        };
        let receipts: Vec<Receipt> = vectors.iter().filter_map(read).collect();
        let network = NetworkSpec::dev();
        let store = MemoryDisk::new().open(network.id()).unwrap().store;
        let (head, own) = (receipts[0].clone(), receipts[0].miner);
        let mut ops = vec![
            Op::PutHead(HeadRow { root: head.work_root, height: Height(1), audited: true, place: vec![0; 8], wire: head.to_wire() }),
            Op::PutMain { height: Height(1), root: head.work_root },
        ];
        for receipt in receipts {
            let (unit, epoch, miner, wire) = (receipt.unit(), receipt.epoch_id, receipt.miner, receipt.to_wire());
            ops.push(Op::PutShare(ShareRow { unit, epoch, miner, state: ShareState::Audited, wire }));
            ops.push(Op::PutOutbox { unit, epoch, state: OutboxState::Dead });
        }
        store.commit(&[ops]).unwrap();
        let shared = Shared::new(Identity {
            peer_id: "16Uiu2HA".into(),
            miner: own,
            device_did: "did:key:z1".into(),
            agent: "tops-node/fuzz".into(),
            network_name: "dev".into(),
            verify_only: false,
            alone: true,
            started_at: Millis(1),
        });
        let engine = Engine::new(tops_protocol::engine::Config {
            network: network.clone(),
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
        shared.publish(NodeView { at: Millis(5), engine: engine.view(), peers: [].into(), listening: [].into() });
        shared.beat();
        let parts = Parts {
            network,
            shared,
            store,
            devices: Arc::new(Vec::new),
            replay: Arc::new(|_| Box::pin(async { true })),
            discard: Arc::new(|_| Box::pin(async { true })),
            checker: Checker::new(Arc::new(Busy)),
            token: None,
            verify_key: None,
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(1).build().unwrap();
        let router = runtime.block_on(async { http::router(parts) });
        Self { runtime, router }
    }

    /// A method, a line of path and query, and a body: the answer is never the node's own fault, and is JSON where it says so.
    pub fn run(&self, bytes: &[u8]) {
        let Some((method, rest)) = bytes.split_first() else { return };
        let method =
            [Method::GET, Method::POST, Method::PUT, Method::DELETE, Method::HEAD, Method::OPTIONS][usize::from(method % 6)].clone();
        let (line, body) = rest.split_at(rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len()));
        let body = body.get(1..).unwrap_or_default().to_vec();
        let Ok(line) = std::str::from_utf8(line) else { return };
        // Events never end; they are read elsewhere.
        if line.contains("/v1/events") {
            return;
        }
        let request = Request::builder().method(method).uri(line).header("content-type", "application/json").body(Body::from(body));
        let Ok(request) = request else { return };
        self.runtime.block_on(async {
            let response = self.router.clone().oneshot(request).await.unwrap();
            let status = response.status();
            // Busy devices and an unready node are no faults of the node.
            assert!(!status.is_server_error() || status == StatusCode::SERVICE_UNAVAILABLE, "{line}: {status}");
            let json = response.headers().get("content-type").is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
            let body = axum::body::to_bytes(response.into_body(), 4 << 20).await.unwrap();
            assert!(!json || body.is_empty() || serde_json::from_slice::<serde_json::Value>(&body).is_ok(), "{line}: not JSON");
        });
    }
}

impl Default for Http {
    fn default() -> Self {
        Self::new()
    }
}
