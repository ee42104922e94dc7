//! A flood of every kind, 10,000 messages a second from one peer, against a real `tops-node` process that follows a mining one: what it costs,
//! when it is cut off, and that honest receipts go on.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a test may panic; its helpers are outside of #[test]

use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use libp2p::Multiaddr;
use serde_json::Value;
use tokio::process::Command;
use tops_protocol::NetworkSpec;
use tops_protocol::network::Fields;
use tops_tests::flood::{Kind, Told, flood};
use tops_tests::testnet::Binaries;
use tops_tests::testnet::process::{Process, free_port};

const PATIENCE: Duration = Duration::from_secs(60);
/// Messages a second.
const RATE: u32 = 10_000;
/// Seconds of each flood.
const SECONDS: u64 = 10;

/// Heads within two seconds of a slow miner, shares eight times as often.
fn network() -> NetworkSpec {
    let now = u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap();
    NetworkSpec::new(Fields {
        m: 16,
        n: 256,
        k: 256,
        spacing_secs: 2,
        half_life_secs: 20,
        genesis_bits: 0x1f07_ffff,
        easiest_bits: 0x1f7f_ffff,
        share_log2: 3,
        stale_window: 3,
        genesis_time_ms: now,
    })
    .unwrap()
}

struct Node {
    url: String,
    address: Multiaddr,
    process: Process,
}

struct Range {
    http: reqwest::Client,
    spec: NetworkSpec,
    miner: Node,
    victim: Node,
}

async fn get(http: &reqwest::Client, url: &str) -> Option<Value> {
    let response = http.get(format!("{url}/v1/status")).send().await.ok()?;
    if response.status().is_success() { response.json().await.ok() } else { None }
}

/// Asks until it says so.
async fn until(http: &reqwest::Client, what: &str, url: &str, says: impl Fn(&Value) -> bool) -> Value {
    let began = Instant::now();
    loop {
        if let Some(status) = get(http, url).await.filter(&says) {
            return status;
        }
        assert!(began.elapsed() < PATIENCE, "never: {what}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

impl Range {
    async fn open(dir: &Path) -> Self {
        let spec = network();
        let mut file = String::from("name = \"flood\"\n");
        for (key, value) in serde_json::to_value(spec.fields()).unwrap().as_object().unwrap() {
            file.push_str(&format!("{key} = {value}\n"));
        }
        let path = dir.join("network.toml");
        std::fs::write(&path, file).unwrap();
        let program = Binaries::built().unwrap().path("tops-node");
        let http = reqwest::Client::builder().timeout(Duration::from_secs(5)).build().unwrap();
        let mut nodes: Vec<Node> = Vec::new();
        for name in ["miner", "victim"] {
            let (api, p2p) = (free_port().unwrap(), free_port().unwrap());
            let mut command = Command::new("nice");
            command.args(["-n", if name == "miner" { "15" } else { "0" }]).arg(&program).arg("--network").arg(&path);
            command.args(["--listen", &format!("/ip4/127.0.0.1/tcp/{p2p}"), "--http", &format!("127.0.0.1:{api}")]);
            command.arg("--data-dir").arg(dir.join(name)).args(["--backend", "cpu", "--target-ms", "50"]);
            match nodes.first() {
                None => command.arg("--alone"),
                Some(miner) => command.args(["--verify-only", "--bootstrap", &miner.address.to_string()]),
            };
            let process = Process::start(name, &dir.join(format!("{name}.log")), command).unwrap();
            let url = format!("http://127.0.0.1:{api}");
            let status = until(&http, "it answers", &url, |_| true).await;
            let address = format!("/ip4/127.0.0.1/tcp/{p2p}/p2p/{}", status["node"]["peer_id"].as_str().unwrap()).parse().unwrap();
            nodes.push(Node { url, address, process });
        }
        let victim = nodes.pop().unwrap();
        let miner = nodes.pop().unwrap();
        until(&http, "receipts reach the victim", &victim.url, |s| accepted(s) > 20).await;
        Self { http, spec, miner, victim }
    }

    /// What the victim did in so long: processor time as a part of it, receipts accepted, and what a flood meanwhile came to.
    async fn watch<T>(&self, meanwhile: impl Future<Output = T>) -> (f64, u64, T) {
        let (cpu, began) = (cpu(&self.victim), Instant::now());
        let before = accepted(&until(&self.http, "the victim answers", &self.victim.url, |_| true).await);
        let told = meanwhile.await;
        let wall = began.elapsed().as_secs_f64();
        let spent = (self::cpu(&self.victim) - cpu).as_secs_f64();
        let status = until(&self.http, "the victim answers", &self.victim.url, |_| true).await;
        for pool in status["pools"].as_array().unwrap() {
            assert!(pool["used"].as_u64() <= pool["limit"].as_u64(), "{pool}");
        }
        (spent / wall, accepted(&status) - before, told)
    }
}

fn accepted(status: &Value) -> u64 {
    status["counters"]["gossip_accepted"].as_u64().unwrap()
}

/// Processor time of a process so far.
fn cpu(node: &Node) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", node.process.id().unwrap())).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    Duration::from_millis(10 * (fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()))
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "judges processor time, so it wants a machine of its own"]
async fn slow_a_flood_of_any_kind_costs_little_and_honest_receipts_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let range = Range::open(dir.path()).await;
    let only = std::env::var("TOPS_FLOOD").ok();
    let kinds = Kind::ALL.into_iter().filter(|kind| only.as_ref().is_none_or(|only| format!("{kind:?}") == *only));
    println!(
        "| flood | sent | lines | cut off | first after s | core before | core in the flood | honest receipts/s before | in the flood |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    let mut too_much = Vec::new();
    for kind in kinds {
        let (quiet, honest_before, ()) = range.watch(tokio::time::sleep(Duration::from_secs(4))).await;
        let how_long = Duration::from_secs(SECONDS);
        let (busy, honest, told) = range.watch(flood(kind, &range.victim.address, &range.spec, RATE, how_long)).await;
        let Told { sent, cut_off, first_cut, lines } = told;
        println!(
            "| {kind:?} | {sent} | {lines} | {cut_off} | {} | {:.1} % | {:.1} % | {:.1} | {:.1} |",
            first_cut.map_or_else(|| "-".into(), |cut| format!("{:.2}", cut.as_secs_f64())),
            100.0 * quiet,
            100.0 * busy,
            honest_before as f64 / 4.0,
            honest as f64 / SECONDS as f64,
        );
        if busy - quiet > 0.2 {
            too_much.push(format!("{kind:?} costs {:.0} % of a core", 100.0 * (busy - quiet)));
        }
        // Half of what came before is a noisy machine; nothing is a flood that won.
        if honest == 0 {
            too_much.push(format!("{kind:?} stops honest receipts"));
        }
        // Too large a packet ends its stream and nothing more is read; walks and handshakes come no faster than they are let.
        if !matches!(kind, Kind::Huge | Kind::Walks | Kind::Handshakes) && cut_off == 0 {
            too_much.push(format!("{kind:?} is never cut off"));
        }
    }
    let nodes = until(&range.http, "the victim answers", &range.victim.url, |_| true).await["nodes"].as_u64();
    assert!(nodes >= Some(1), "the miner was sent away");
    assert!(too_much.is_empty(), "{too_much:?}");
    range.victim.process.stop(Duration::from_secs(10)).await.unwrap();
    range.miner.process.stop(Duration::from_secs(10)).await.unwrap();
}
