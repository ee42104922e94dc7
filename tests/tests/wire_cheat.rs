//! Cheaters over real libp2p against real `tops-node` processes: invented, stolen, retouched and forged receipts, variants of one unit,
//! and a head of a banned key (spec §5). The cheater speaks through the node's own network task, and says what no engine would.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a test may panic; its helpers are outside of #[test]

use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use tokio::process::Command;
use tops_compute::backend::{Backend, SearchJob, Stop};
use tops_compute::cpu::CpuBackend;
use tops_node::keys;
use tops_node::net::task::{Net, NetCommand, NetEvent, Settings, start};
use tops_node::state::{Identity, Shared};
use tops_protocol::codec::{AnyReceipt, receipt_from_text};
use tops_protocol::engine::{Topic, Verdict};
use tops_protocol::keys::SecretKey;
use tops_protocol::network::Fields;
use tops_protocol::receipt::{Draft, KERNEL_V2};
use tops_protocol::{Attempt, Millis, NetworkSpec, Nonce, Receipt, Root, Signature, Text, U256};
use tops_tests::testnet::Binaries;
use tops_tests::testnet::process::{Process, free_port};

const PATIENCE: Duration = Duration::from_secs(40);

/// Heads within a second of one core, shares eight times as often.
fn network() -> NetworkSpec {
    let now = u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap();
    NetworkSpec::new(Fields {
        m: 16,
        n: 256,
        k: 256,
        spacing_secs: 1,
        half_life_secs: 20,
        genesis_bits: 0x1f0f_ffff,
        easiest_bits: 0x1f7f_ffff,
        share_log2: 3,
        stale_window: 3,
        genesis_time_ms: now,
    })
    .unwrap()
}

struct Node {
    url: String,
    p2p: u16,
    process: Process,
}

struct Range {
    http: reqwest::Client,
    nodes: Vec<Node>,
    spec: NetworkSpec,
    cpu: CpuBackend,
}

impl Range {
    /// A miner and two light nodes that know it.
    async fn open(dir: &Path) -> Self {
        let spec = network();
        let mut file = String::from("name = \"wire-cheat\"\n");
        for (key, value) in serde_json::to_value(spec.fields()).unwrap().as_object().unwrap() {
            file.push_str(&format!("{key} = {value}\n"));
        }
        let path = dir.join("network.toml");
        std::fs::write(&path, file).unwrap();
        let program = Binaries::built().unwrap().path("tops-node");
        let http = reqwest::Client::builder().timeout(Duration::from_secs(5)).build().unwrap();
        let mut range = Self { http, nodes: Vec::new(), spec, cpu: CpuBackend::new(Some(1)).unwrap() };
        let mut bootstrap = None::<String>;
        for name in ["miner", "light1", "light2"] {
            let (api, p2p) = (free_port().unwrap(), free_port().unwrap());
            let mut command = Command::new(&program);
            command.arg("--network").arg(&path).args(["--listen", &format!("/ip4/127.0.0.1/tcp/{p2p}")]);
            command.arg("--data-dir").arg(dir.join(name)).args(["--http", &format!("127.0.0.1:{api}")]);
            command.args(["--backend", "cpu", "--target-ms", "50"]);
            match &bootstrap {
                None => command.arg("--alone"),
                Some(address) => command.args(["--verify-only", "--bootstrap", address]),
            };
            let process = Process::start(name, &dir.join(format!("{name}.log")), command).unwrap();
            let url = format!("http://127.0.0.1:{api}");
            range.nodes.push(Node { url: url.clone(), p2p, process });
            let status = range.until(&format!("{name} answers"), async |range: &Self| range.get(&url, "/v1/status").await).await;
            if bootstrap.is_none() {
                bootstrap = Some(format!("/ip4/127.0.0.1/tcp/{p2p}/p2p/{}", status["node"]["peer_id"].as_str().unwrap()));
            }
        }
        range
    }

    async fn get(&self, url: &str, path: &str) -> Option<Value> {
        let response = self.http.get(format!("{url}{path}")).send().await.ok()?;
        if response.status().is_success() { response.json().await.ok() } else { None }
    }

    /// Asks until there is an answer.
    async fn until<T>(&self, what: &str, ask: impl AsyncFn(&Self) -> Option<T>) -> T {
        let began = Instant::now();
        loop {
            if let Some(answer) = ask(self).await {
                return answer;
            }
            assert!(began.elapsed() < PATIENCE, "never: {what}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Asks every node until it says so.
    async fn everywhere(&self, what: &str, path: &str, says: impl Fn(&Value) -> bool) {
        for (i, node) in self.nodes.iter().enumerate() {
            let told = async |range: &Self| range.get(&node.url, path).await.filter(&says);
            self.until(&format!("node {i}: {what}"), told).await;
        }
    }

    /// Finds the first attempt of a key on the tip whose root lies in a range.
    fn find(&self, tip: &Tip, key: &SecretKey, above: U256, at_most: U256, from: u64) -> (Attempt, Root) {
        let timestamp = Millis(u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap());
        let mut first = from;
        loop {
            let job = SearchJob {
                prev_hash: tip.root,
                miner: key.public(),
                timestamp,
                shape: self.spec.shape(),
                first_nonce: Nonce::new(first).unwrap(),
                count: 4_096,
                target: at_most,
            };
            let report = self.cpu.search(&job, &Stop::new()).unwrap();
            if let Some((nonce, root)) = report.hits.into_iter().find(|(_, root)| root.ticket() > above) {
                return (Attempt { prev_hash: tip.root, miner: key.public(), nonce, timestamp, shape: self.spec.shape() }, root);
            }
            first += 4_096;
        }
    }

    fn receipt(&self, tip: &Tip, key: &SecretKey, attempt: Attempt, root: Root, did: &str) -> Receipt {
        let receipt = Receipt {
            device_did: Text::cleaned(did),
            epoch_id: tip.height + 1,
            prev_hash: attempt.prev_hash,
            nonce: attempt.nonce,
            work_root: root,
            shape: attempt.shape,
            batch: 1,
            time_ms: 1,
            kernel_ver: Text::cleaned(KERNEL_V2),
            driver_hint: Text::cleaned("CPU"),
            network: self.spec.tag(),
            miner: attempt.miner,
            timestamp: attempt.timestamp,
            sig: Signature([0; 64]),
        };
        signed(receipt, key)
    }

    async fn tip(&self) -> Tip {
        let status = self.get(&self.nodes[0].url, "/v1/status").await.unwrap();
        let number = |key: &str| status["tip"][key].as_str().unwrap().parse().unwrap();
        Tip {
            root: Root::from_hex(status["tip"]["root"].as_str().unwrap()).unwrap(),
            height: status["tip"]["height"].as_u64().unwrap(),
            head_target: number("next_target"),
            share_target: number("next_share_target"),
        }
    }
}

struct Tip {
    root: Root,
    height: u64,
    head_target: U256,
    share_target: U256,
}

fn signed(receipt: Receipt, key: &SecretKey) -> Receipt {
    let draft = Draft::new(receipt);
    let sig = key.sign(&draft.prehash());
    draft.with_signature(sig)
}

/// The cheater's mouth: a libp2p node of the network that accepts everything and answers nothing.
struct Mouth(tokio::sync::mpsc::Sender<NetCommand>);

impl Mouth {
    fn open(range: &Range, status: &Value) -> Self {
        let key = SecretKey::from_bytes(&[77; 32]).unwrap();
        let shared = Shared::new(Identity {
            peer_id: "cheater".into(),
            miner: key.public(),
            device_did: "did:cheater".into(),
            agent: "cheater/1".into(),
            network_name: "wire-cheat".into(),
            verify_only: true,
            alone: false,
            started_at: Millis(0),
        });
        let peer = status["node"]["peer_id"].as_str().unwrap();
        let settings = Settings {
            key: keys::identity(&key).unwrap(),
            tag: range.spec.tag(),
            agent: "cheater/1".into(),
            listen: vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()],
            external: Vec::new(),
            bootstrap: vec![format!("/ip4/127.0.0.1/tcp/{}/p2p/{peer}", range.nodes[0].p2p).parse().unwrap()],
            mdns: false,
            relay: false,
            remembered: None,
        };
        let Net { commands, mut events, .. } = start(settings, shared).unwrap();
        let answers = commands.clone();
        tokio::spawn(async move {
            while let Some(event) = events.recv().await {
                let command = match event {
                    NetEvent::Gossip { message, .. } => NetCommand::Verdict { message, verdict: Verdict::Accept },
                    NetEvent::Asked { answer, .. } => NetCommand::Answer { answer, with: None },
                    NetEvent::Up { .. } | NetEvent::Down { .. } | NetEvent::Replied { .. } => continue,
                };
                if answers.send(command).await.is_err() {
                    break;
                }
            }
        });
        Self(commands)
    }

    async fn say(&self, topic: Topic, receipt: &Receipt) {
        self.0.send(NetCommand::Publish { topic, bytes: receipt.to_wire() }).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_fraud_over_real_wires_costs_the_cheater_alone() {
    let dir = tempfile::tempdir().unwrap();
    let mut range = Range::open(dir.path()).await;
    let miner_url = range.nodes[0].url.clone();

    // An honest chain, which then rests, so that every step below is judged at one tip.
    range
        .until("the miner has heads and shares", async |r: &Range| {
            r.get(&miner_url, "/v1/status").await.filter(|s| s["tip"]["height"].as_u64() > Some(2))
        })
        .await;
    let paused = range.http.post(format!("{miner_url}/v1/mining")).json(&json!({ "paused": true })).send().await.unwrap();
    assert!(paused.status().is_success());
    tokio::time::sleep(Duration::from_millis(500)).await;
    let status = range.get(&miner_url, "/v1/status").await.unwrap();
    let tip = range.tip().await;
    let at_tip = tip.root.to_hex();
    range.everywhere("the miner's tip", "/v1/status", |s| s["tip"]["root"] == at_tip.as_str()).await;
    let honest = status["node"]["miner"].as_str().unwrap().to_owned();
    let before = range.get(&miner_url, &format!("/v1/ledger?miner={honest}")).await.unwrap()["ledger"][0].clone();
    assert!(before["shares"].as_u64() > Some(0));

    let mouth = Mouth::open(&range, &status);
    let (liar, thief, varier) = (secret(1), secret(2), secret(3));
    let ledger = |key: &SecretKey| format!("/v1/ledger?miner={}", key.public().to_hex());
    let shares = |n: u64| move |v: &Value| v["ledger"][0]["shares"].as_u64() == Some(n);
    let outlawed = |v: &Value| v["ledger"][0]["banned"] == true && v["ledger"][0]["credit_ops"] == "0" && v["ledger"][0]["shares"] == 0;

    // Each has one true share, so each has standing. The first waits until the cheater is in the mesh.
    for key in [&liar, &thief, &varier] {
        let (attempt, root) = range.find(&tip, key, tip.head_target, tip.share_target, 0);
        mouth.say(Topic::Receipts, &range.receipt(&tip, key, attempt, root, "honest so far")).await;
        range.everywhere("a true share counts", &ledger(key), shares(1)).await;
    }

    // One unit in three metadata variants earns once.
    let (attempt, root) = range.find(&tip, &varier, tip.head_target, tip.share_target, 1 << 40);
    for did in ["one", "two", "three"] {
        mouth.say(Topic::Receipts, &range.receipt(&tip, &varier, attempt, root, did)).await;
    }
    range.everywhere("a unit earns", &ledger(&varier), shares(2)).await;

    // An invented root.
    let invented = Root((tip.head_target + U256::from(12_345)).to_be_bytes());
    let elsewhere = Attempt { miner: liar.public(), nonce: Nonce::new(99).unwrap(), ..attempt };
    mouth.say(Topic::Receipts, &range.receipt(&tip, &liar, elsewhere, invented, "invented")).await;
    range.everywhere("the liar is banned", &ledger(&liar), outlawed).await;

    // A share of the honest miner under the thief's key.
    let list = range.get(&miner_url, &format!("/v1/receipts?miner={honest}&epoch={}&limit=256", tip.height + 1)).await.unwrap();
    let mut stolen = None;
    for row in list["receipts"].as_array().unwrap() {
        let one = range.get(&miner_url, &format!("/v1/receipts/{}", row["unit"].as_str().unwrap())).await.unwrap();
        if let Ok(AnyReceipt::V2(receipt)) = receipt_from_text(one["text"].as_str().unwrap().as_bytes())
            && receipt.work_root.ticket() > tip.head_target
        {
            stolen = Some(receipt);
        }
    }
    // The tip may have no share yet: then the thief robs the varier.
    let stolen = stolen.unwrap_or_else(|| range.receipt(&tip, &varier, attempt, root, "one"));
    mouth.say(Topic::Receipts, &signed(Receipt { miner: thief.public(), ..stolen.clone() }, &thief)).await;
    range.everywhere("the thief is banned", &ledger(&thief), outlawed).await;

    // A head of the banned liar: the chain takes it.
    let (attempt, root) = range.find(&tip, &liar, U256::ZERO, tip.head_target, 0);
    mouth.say(Topic::Heads, &range.receipt(&tip, &liar, attempt, root, "banned")).await;
    let won = root.to_hex();
    range.everywhere("the banned key's head is the tip", "/v1/status", |s| s["tip"]["root"] == won.as_str()).await;
    range.everywhere("and it earns nothing", &ledger(&liar), outlawed).await;

    // Copies under a signature that does not stand stop at stage 2, at the first node that sees them: one retouched, and one that another
    // key than its miner's signed anew.
    let retouched = Receipt { time_ms: stolen.time_ms + 1, ..stolen.clone() };
    let forger = secret(4);
    let forged = signed(stolen, &forger);
    for (refused, copy) in [(1, retouched), (2, forged)] {
        mouth.say(Topic::Receipts, &copy).await;
        let caught = async |r: &Range| {
            let told = r.get(&miner_url, "/v1/rejections").await?;
            let semantic = told["last"].as_array().unwrap().iter().filter(|x| x["stage"] == "semantic").count();
            (semantic == refused).then_some(())
        };
        range.until(&format!("stage 2 refuses copy {refused}"), caught).await;
    }

    // The honest lost nothing, and nobody else was banned. What a node missed of the first seconds comes by sync.
    let whole = |v: &Value| {
        let row = &v["ledger"][0];
        (&row["shares"], &row["credit_ops"], &row["banned"]) == (&before["shares"], &before["credit_ops"], &json!(false))
    };
    range.everywhere("the honest miner's whole credit", &format!("/v1/ledger?miner={honest}"), whole).await;
    for node in &range.nodes {
        assert_eq!(range.get(&node.url, &ledger(&forger)).await.unwrap()["ledger"], json!([]));
        let varied = range.get(&node.url, &ledger(&varier)).await.unwrap();
        assert!(shares(2)(&varied), "{varied}");
        assert_eq!(range.get(&node.url, "/v1/status").await.unwrap()["bans"], 2);
    }
    for node in std::mem::take(&mut range.nodes) {
        node.process.stop(Duration::from_secs(10)).await.unwrap();
    }
}

fn secret(byte: u8) -> SecretKey {
    SecretKey::from_bytes(&[byte; 32]).unwrap()
}
