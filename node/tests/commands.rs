//! The commands that ask a running node, against a real one whose aggregator refuses everything at first; and the doctor beside it.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use serde_json::Value;

const TOKEN: &str = "0123456789abcdef";
const PATIENCE: Duration = Duration::from_secs(120);

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tops-node"));
    command.args(args).env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("HOME", "/nowhere");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn tops(args: &[&str]) -> Output {
    command(args).output().unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn sentence(output: &Output) -> String {
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    assert!(output.stdout.is_empty() && text.trim_end().lines().count() == 1, "{output:?}");
    text
}

/// A node as a process, ended when it is dropped.
struct Node {
    child: Child,
    http: String,
    peer: String,
}

impl Drop for Node {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Node {
    fn start(dir: &Path, aggregator: &str) -> Self {
        let dir = dir.to_str().unwrap();
        let mut child = command(&[
            "--network", "dev", "--data-dir", dir, "--http", "127.0.0.1:0", "--listen", "/ip4/127.0.0.1/tcp/0", "--backend", "cpu", "--api-token", TOKEN,
            "--aggregator-url", aggregator, "--bridge-depth", "0", "--log", "json",
        ])
        .spawn()
        .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
        let (mut http, mut peer) = (None, None);
        while http.is_none() || peer.is_none() {
            let line = log.next().expect("the node ended").unwrap();
            let line: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("a log line is no JSON: {line}"));
            http = http.or(line["address"].as_str().map(str::to_owned));
            peer = peer.or(line["peer"].as_str().map(str::to_owned));
        }
        std::thread::spawn(move || log.for_each(drop));
        Self { child, http: http.unwrap(), peer: peer.unwrap() }
    }

    fn ask(&self, args: &[&str]) -> Output {
        tops(&[args, &["--http", &self.http, "--api-token", TOKEN]].concat())
    }

    fn json(&self, args: &[&str]) -> Value {
        let output = self.ask(&[args, &["--json"]].concat());
        assert_eq!(output.status.code(), Some(0), "{args:?} {output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn until(&self, args: &[&str], what: &str, reached: impl Fn(&Value) -> bool) -> Value {
        let began = Instant::now();
        loop {
            let answer = self.json(args);
            if reached(&answer) {
                return answer;
            }
            assert!(began.elapsed() < PATIENCE, "{what}: {answer}");
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

/// Answers every receipt with a status that the test chooses.
fn aggregator() -> (String, Arc<AtomicU16>, tokio::runtime::Runtime) {
    let status = Arc::new(AtomicU16::new(422));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let url = format!("http://{}/verify", listener.local_addr().unwrap());
    let answer = |State(status): State<Arc<AtomicU16>>| async move {
        let status = StatusCode::from_u16(status.load(Ordering::Relaxed)).unwrap();
        (status, axum::Json(serde_json::json!({ "ok": status.is_success(), "error": "the epoch is not open" })))
    };
    let app = Router::new().route("/verify", post(answer)).with_state(Arc::clone(&status));
    runtime.spawn(async move { axum::serve(listener, app).await });
    (url, status, runtime)
}

fn units(list: &Value) -> Vec<String> {
    list["outbox"].as_array().unwrap().iter().map(|row| row["unit"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn slow_a_running_node_is_asked_and_its_dead_letters_are_listed_dropped_and_replayed() {
    let dir = tempfile::tempdir().unwrap();
    let (url, status, _runtime) = aggregator();
    let node = Node::start(dir.path(), &url);
    let dead = node.until(&["outbox", "list", "--state", "dead", "--all"], "dead letters", |a| a["counts"]["dead"].as_u64() >= Some(3));
    for row in dead["outbox"].as_array().unwrap() {
        assert_eq!((&row["state"], row["note"].as_str().unwrap()), (&"dead".into(), "422: the epoch is not open"));
        assert!(row["attempts"].as_u64().unwrap() >= 1 && row["at_ms"].as_u64().unwrap() > 1_700_000_000_000, "{row}");
    }
    let table = text(&node.ask(&["outbox", "list", "--state", "dead"]));
    assert!(table.starts_with("EPOCH  STATE  TRIES") && table.contains("s ago") && table.contains("422: the epoch is not open"), "{table}");
    assert!(table.contains("in all: ") && table.contains('…'), "{table}");

    // The lists have what the API has, and tables shorten it.
    let ledger = node.json(&["ledger"]);
    let miner = ledger["ledger"][0]["miner"].as_str().unwrap().to_owned();
    let table = text(&node.ask(&["ledger"]));
    assert!(table.contains(&miner[..12]) && !table.contains(&miner) && table.contains("op"), "{table}");
    assert!(text(&node.ask(&["ledger", "--miner", &miner, "--full"])).contains(&miner));
    assert!(text(&node.ask(&["heads", "--limit", "2"])).contains("there is more: say --all"));
    let all = node.json(&["heads", "--all"]);
    let lowest = all["heads"].as_array().unwrap().last().unwrap();
    assert_eq!((&lowest["height"], &all["more"]), (&1.into(), &false.into()), "--all follows the list to its end");
    assert!(text(&node.ask(&["receipts"])).starts_with("EPOCH"));
    let none = text(&node.ask(&["receipts", "--epoch", "999999"]));
    assert_eq!(none.lines().count(), 1, "{none}");
    assert!(text(&node.ask(&["peers"])).contains("no peer is connected"));

    // Dropping wants a yes and takes dead letters only; the first digits are enough.
    let unit = units(&dead)[0].clone();
    assert!(sentence(&node.ask(&["outbox", "drop", &unit])).contains("--yes"));
    let other = "0".repeat(64);
    assert!(sentence(&node.ask(&["outbox", "drop", &other, "--yes"])).contains("no dead letter"));
    assert!(sentence(&node.ask(&["outbox", "replay", &other[..8]])).contains("begins with"));
    assert_eq!(node.json(&["outbox", "drop", &unit[..16], "--yes"])["dropped"], 1);
    node.until(&["outbox", "list", "--state", "dead", "--all"], "it goes", |a| !units(a).contains(&unit));

    // The wrong token, none, and no node.
    let http = node.http.clone();
    assert!(sentence(&tops(&["peers", "--http", &http])).contains("--api-token"));
    assert!(sentence(&tops(&["peers", "--http", &http, "--token", "another-token-0000"])).contains("another API token"));

    // The doctor, beside the running node.
    let data = dir.path().to_str().unwrap().to_owned();
    let doctor = |http: &str| {
        let output = tops(&[
            "doctor", "--network", "dev", "--data-dir", &data, "--http", http, "--api-token", TOKEN, "--listen", "/ip4/127.0.0.1/tcp/0", "--backend",
            "cpu", "--aggregator-url", &url, "--json",
        ]);
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
        assert_eq!(output.status.code(), Some(i32::from(answer["ok"] == false)), "{answer}");
        answer["checks"].as_array().unwrap().clone()
    };
    let found = |checks: &[Value], about: &str, state: &str, word: &str| {
        let hit = |c: &&Value| c["about"] == about && c["state"] == state && c["found"].as_str().unwrap().contains(word);
        assert!(checks.iter().any(|c| hit(&c)), "no {about} {state} {word} in {checks:#?}");
    };
    let checks = doctor(&http);
    found(&checks, "node", "ok", "running for");
    found(&checks, "store", "ok", "in use by the running node");
    found(&checks, "ports", "ok", "held by the running node");
    found(&checks, "devices", "ok", "computes as the reference does");
    found(&checks, "key", "ok", "miner: 0");
    found(&checks, "clock", "ok", "in line");
    found(&checks, "aggregator", "ok", "answers");
    found(&checks, "aggregator", "warn", "refused");
    found(&checks, "peers", "ok", "alone");

    // What was dropped stays dropped over a restart, and the rest is taken once the reason is mended.
    let peer = node.peer.clone();
    drop(node);
    assert!(sentence(&tops(&["outbox", "--http", &http])).contains("no node answers"));
    let checks = doctor(&http);
    found(&checks, "node", "ok", "none is running");
    found(&checks, "store", "ok", "opens, at height");
    let node = Node::start(dir.path(), &url);
    assert_eq!(node.peer, peer);
    let dead = node.json(&["outbox", "list", "--state", "dead", "--all"]);
    assert!(!units(&dead).contains(&unit) && units(&dead).len() >= 2, "{dead}");
    status.store(200, Ordering::Relaxed);
    let replayed = text(&node.ask(&["outbox", "replay", "--all"]));
    assert!(replayed.contains("will be sent again"), "{replayed}");
    node.until(&["outbox", "list", "--state", "delivered", "--all"], "delivery", |a| {
        let delivered = units(a);
        units(&dead).iter().all(|unit| delivered.contains(unit))
    });
}

/// The checks of a doctor that finds no node, its exit code, and its text.
fn examined(args: &[&str], env: &[(&str, &str)]) -> (Vec<Value>, Option<i32>) {
    let free = ["doctor", "--network", "dev", "--backend", "cpu", "--listen", "/ip4/127.0.0.1/tcp/0", "--http", "127.0.0.1:0", "--json"];
    let output = command(&[&free[..], args].concat()).envs(env.iter().copied()).output().unwrap();
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    (answer["checks"].as_array().unwrap().clone(), output.status.code())
}

#[test]
fn the_doctor_finds_what_is_wrong_and_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    let (fine, code) = examined(&["--data-dir", &at("fine")], &[]);
    assert!(code == Some(0) && fine.iter().all(|c| c["state"] != "fail"), "{fine:#?}");
    assert!(!Path::new(&at("fine")).exists(), "it makes nothing");

    // Each in its own way; the check that fails names what it is about and has an advice.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken_at = format!("/ip4/127.0.0.1/tcp/{}", taken.local_addr().unwrap().port());
    std::fs::create_dir_all(at("open/keys")).unwrap();
    std::fs::write(at("open/keys/miner.key"), "00").unwrap();
    std::fs::write(at("file"), "").unwrap();
    let nobody = { TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port() };
    let gone = format!("/ip4/127.0.0.1/tcp/{nobody}");
    let gone_http = format!("http://127.0.0.1:{nobody}/verify");
    for (about, word, args) in [
        ("ports", "taken by another program", vec!["--listen", &taken_at]),
        ("key", "others can read", vec!["--data-dir", &at("open")]),
        ("data", "is no directory", vec!["--data-dir", &at("file")]),
        ("peers", "refused", vec!["--bootstrap", &gone]),
        ("peers", "", vec!["--bootstrap", "/dns/nobody.invalid/tcp/4069"]),
        ("aggregator", "cannot be reached", vec!["--aggregator-url", &gone_http]),
        ("configuration", "audit-rate", vec!["--audit-rate", "7"]),
        ("devices", "nothing to compute with", vec!["--devices", "63", "--backend", "cpu"]),
    ] {
        let data = at("fine");
        let args: Vec<&str> = if args.contains(&"--data-dir") { args } else { [&args[..], &["--data-dir", &data]].concat() };
        // A flag that stands twice would be a usage fault: the first list gives way.
        let output = command(&doctor_line(&args)).output().unwrap();
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{args:?} {output:?}"));
        let hit = answer["checks"].as_array().unwrap().iter().find(|c| c["about"] == about && c["state"] == "fail").cloned();
        let hit = hit.unwrap_or_else(|| panic!("{about}: {answer:#}"));
        assert!(hit["found"].as_str().unwrap().contains(word) && hit["advice"].is_string(), "{hit}");
        assert_eq!(output.status.code(), Some(1));
    }
    drop(taken);
    let (checks, code) = examined(&["--data-dir", &at("fine")], &[("WORKER_SK_HEX", "zz")]);
    assert!(code == Some(1) && checks.iter().any(|c| c["about"] == "key" && c["state"] == "fail"), "{checks:#?}");
    let table = command(&["doctor", "--network", "dev", "--data-dir", &at("file"), "--backend", "cpu", "--http", "off"]).output().unwrap();
    assert!(text(&table).contains("FAIL  data") && text(&table).contains("broken: 1"), "{table:?}");
}

/// The usual line with these flags in place of its own.
fn doctor_line<'a>(args: &[&'a str]) -> Vec<&'a str> {
    let mut line = vec!["doctor", "--network", "dev", "--json"];
    for pair in [["--backend", "cpu"], ["--listen", "/ip4/127.0.0.1/tcp/0"], ["--http", "127.0.0.1:0"]] {
        if !args.contains(&pair[0]) {
            line.extend(pair);
        }
    }
    line.extend(args);
    line
}

#[test]
fn the_doctor_reaches_a_real_peer() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (url, _status, _runtime) = aggregator();
    let node = Node::start(dir.path(), &url);
    let status = node.json(&["peers"]);
    assert!(status["peers"].as_array().unwrap().is_empty());
    let listening = {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let client = reqwest::Client::builder().no_proxy().build().unwrap();
            let answer = client.get(format!("http://{}/v1/status", node.http)).bearer_auth(TOKEN).send().await.unwrap();
            answer.json::<Value>().await.unwrap()["node"]["listening"][0].as_str().unwrap().to_owned()
        })
    };
    let address = format!("{}/p2p/{}", listening.split("/p2p/").next().unwrap(), node.peer);
    let data = other.path().to_str().unwrap();
    let (checks, code) = examined(&["--data-dir", data, "--bootstrap", &address], &[]);
    assert!(code == Some(0) && checks.iter().any(|c| c["about"] == "peers" && c["found"].as_str().unwrap().contains("answers")), "{checks:#?}");
    // Another peer than the one that is named answers there.
    let wrong = address.replace(&node.peer, "16Uiu2HAmGKcBQTvzdoUfrcuGtKPnpJsKwYyqJ4Qdqq9qkFUDVKoP");
    if wrong.parse::<libp2p::Multiaddr>().is_ok() {
        let (checks, code) = examined(&["--data-dir", data, "--bootstrap", &wrong], &[]);
        let told = checks.iter().find(|c| c["about"] == "peers" && c["state"] == "fail").cloned().unwrap_or_default();
        assert!(code == Some(1) && told["advice"].as_str().unwrap().contains(&node.peer), "{checks:#?}");
    }
}
