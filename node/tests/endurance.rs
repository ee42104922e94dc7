//! Whole nodes whose disk fills, on a small tmpfs in a mount namespace of the test's own: they say so, take nothing, lose nothing, and go on by
//! themselves. And nodes that are told to stop while they start.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

const DISK: &str = "TOPS_NODE_FULL_DISK";
const DISK_BYTES: u64 = 48 << 20;
/// Long enough for a machine that does a lot else.
const PATIENCE: Duration = Duration::from_secs(90);

/// Runs this test once more where `$TOPS_NODE_FULL_DISK` is a disk of its own; `None`: here it is.
fn on_a_small_disk(name: &str) -> Option<PathBuf> {
    if let Some(dir) = std::env::var_os(DISK) {
        return Some(dir.into());
    }
    let dir = tempfile::tempdir().unwrap();
    let mount = format!("mount -t tmpfs -o size={DISK_BYTES} tmpfs \"$0\"");
    for namespace in [&["-m"][..], &["-Urm"]] {
        let has = |script: &str| {
            let mut command = Command::new("unshare");
            command.args(namespace).args(["sh", "-c", script]).arg(dir.path());
            command
        };
        if has(&mount).output().is_ok_and(|done| done.status.success()) {
            let mut command = has(&format!("{mount} && exec \"$1\" --exact \"$2\" --nocapture"));
            let done = command.arg(std::env::current_exe().unwrap()).arg(name).env(DISK, dir.path()).output().unwrap();
            assert!(done.status.success(), "{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
            return None;
        }
    }
    eprintln!("left out: {name} needs a mount namespace (unshare -m as root, or unprivileged user namespaces)");
    None
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Somebody fills the disk to the last byte.
fn fill(disk: &Path) {
    let mut filler = File::create(disk.join("filler")).unwrap();
    for size in [64 * 1024, 4_096] {
        let page = vec![1; size];
        while filler.write_all(&page).is_ok() {}
    }
}

fn empty(disk: &Path) {
    fs::remove_file(disk.join("filler")).unwrap();
}

/// A process of the program, ended when it is dropped.
struct Node {
    child: Child,
    url: String,
    log: PathBuf,
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Node {
    fn start(data: &Path, log: &Path, more: &[&str]) -> Self {
        let port = free_port();
        let out = File::options().create(true).append(true).open(log).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_tops-node"))
            .args(["--network", "dev", "--listen", "/ip4/127.0.0.1/tcp/0", "--backend", "cpu", "--target-ms", "50", "--data-dir"])
            .arg(data)
            .args(["--http", &format!("127.0.0.1:{port}")])
            .args(more)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(out)
            .spawn()
            .unwrap();
        Self { child, url: format!("http://127.0.0.1:{port}"), log: log.to_owned() }
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    fn ended_within(&mut self, patience: Duration) -> ExitStatus {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(began.elapsed() < patience, "it does not end: {}", self.said());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn signal(&self, name: &str) {
        let done = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status().unwrap();
        assert!(done.success());
    }

    async fn text(&self, path: &str) -> Option<(u16, String)> {
        let answer = reqwest::Client::new().get(format!("{}{path}", self.url)).timeout(Duration::from_secs(10)).send().await.ok()?;
        Some((answer.status().as_u16(), answer.text().await.ok()?))
    }

    /// Null: it was not answered with 200, as while the node starts.
    async fn json(&self, path: &str) -> Value {
        let answer = self.text(path).await.filter(|(code, _)| *code == 200);
        answer.and_then(|(_, body)| serde_json::from_str(&body).ok()).unwrap_or(Value::Null)
    }

    async fn until(&self, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let began = Instant::now();
        loop {
            let status = self.json("/v1/status").await;
            if !status.is_null() && holds(&status) {
                return status;
            }
            assert!(began.elapsed() < PATIENCE, "never {what}: {status:#}\n{}", self.said());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn pause(&self) {
        let answer = reqwest::Client::new().post(format!("{}/v1/mining", self.url)).json(&json!({ "paused": true })).send().await.unwrap();
        assert!(answer.status().is_success());
    }

    /// Units of the store; `None`: it cannot be read for now, and says why.
    async fn readable_units(&self) -> Option<BTreeSet<String>> {
        let (mut all, mut after) = (BTreeSet::new(), String::new());
        loop {
            let (code, body) = self.text(&format!("/v1/receipts?limit=256{after}")).await.unwrap();
            if code == 503 && body.contains("no room on the disk") {
                return None;
            }
            let page: Value = serde_json::from_str(&body).unwrap();
            all.extend(page["receipts"].as_array().expect(&body).iter().map(|row| row["unit"].as_str().unwrap().to_owned()));
            match page["next"].as_str() {
                Some(next) => after = format!("&cursor={next}"),
                None => return Some(all),
            }
        }
    }

    async fn units(&self) -> BTreeSet<String> {
        self.readable_units().await.unwrap()
    }
}

fn counter(status: &Value, name: &str) -> u64 {
    status["counters"][name].as_u64().unwrap_or_else(|| panic!("no counter {name}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_a_full_disk_stops_the_taking_loses_nothing_and_passes() {
    let Some(disk) = on_a_small_disk("slow_a_full_disk_stops_the_taking_loses_nothing_and_passes") else { return };
    let elsewhere = tempfile::tempdir().unwrap();
    let log = elsewhere.path().join("victim.log");
    let data = disk.join("node");
    let mut victim = Node::start(&data, &log, &["--alone"]);
    let status = victim.until("mining", |s| counter(s, "acknowledged") > 2 && s["node"]["listening"][0].is_string()).await;
    let address = status["node"]["listening"][0].as_str().unwrap().to_owned();
    let other = Node::start(&elsewhere.path().join("other"), &elsewhere.path().join("other.log"), &["--bootstrap", &address]);
    other.until("in step and mining", |s| s["nodes"] == 1 && counter(s, "acknowledged") > 2).await;

    // What is listed is flushed a moment later.
    let kept = victim.units().await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    fill(&disk);
    let status = victim.until("said that the disk is full", |s| s["store_problem"].is_string()).await;
    let words = status["store_problem"].as_str().unwrap();
    assert!(words.contains("there is no room on the disk") && words.contains("free some space"), "{words}");
    let (code, ready) = victim.text("/readyz").await.unwrap();
    assert!(code == 503 && ready.contains("no room on the disk"), "{code} {ready}");
    assert_eq!(victim.text("/healthz").await.unwrap().0, 200, "the loop turns");
    let (_, metrics) = victim.text("/metrics").await.unwrap();
    assert!(metrics.contains("tops_store_problem 1"), "{metrics}");
    // What is on its way settles; then nothing more is acknowledged or taken, while the other goes on.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let before = victim.until("resting", |s| s["mining"] == false).await;
    // A disk that fills within a commit can leave a page that cannot be read until there is room.
    let shown = victim.readable_units().await;
    assert!(shown.as_ref().is_none_or(|shown| kept.is_subset(shown)), "what is read is whole");
    let theirs = counter(&other.json("/v1/status").await, "acknowledged");
    other.until("finding more", |s| counter(s, "acknowledged") > theirs + 5).await;
    let after = victim.until("turning gossip away", |s| counter(s, "store_turned_away") > 0).await;
    assert_eq!(counter(&before, "acknowledged"), counter(&after, "acknowledged"));
    if let (Some(before), Some(now)) = (&shown, victim.readable_units().await) {
        assert_eq!(*before, now, "nothing is taken");
    }
    assert_eq!((counter(&after, "gossip_rejected"), counter(&after, "bans")), (0, 0), "nobody pays for it");
    assert_eq!(after["nodes"], 1, "peers stay");

    empty(&disk);
    victim
        .until("well again", |s| {
            s["store_problem"].is_null() && s["mining"] == true && counter(s, "acknowledged") > counter(&after, "acknowledged")
        })
        .await;
    assert_eq!(victim.text("/readyz").await.unwrap().0, 200);
    assert!(kept.is_subset(&victim.units().await), "nothing was lost");

    // Once more, and killed while it is full: what it had acknowledged is there when it comes back, and it comes back by itself.
    let kept = victim.units().await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    fill(&disk);
    victim.until("full again", |s| s["store_problem"].is_string()).await;
    victim.signal("KILL");
    victim.ended_within(PATIENCE);
    let mut victim = Node::start(&data, &log, &["--bootstrap", other.json("/v1/status").await["node"]["listening"][0].as_str().unwrap()]);
    let began = Instant::now();
    while !victim.said().contains("waits for room") {
        assert!(began.elapsed() < PATIENCE && victim.child.try_wait().unwrap().is_none(), "{}", victim.said());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    victim.signal("TERM");
    assert_eq!(victim.ended_within(Duration::from_secs(10)).code(), Some(0), "{}", victim.said());
    let mut victim = Node::start(&data, &log, &["--bootstrap", other.json("/v1/status").await["node"]["listening"][0].as_str().unwrap()]);
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(victim.child.try_wait().unwrap().is_none(), "it waits: {}", victim.said());
    empty(&disk);
    victim.until("back", |s| s["nodes"] == 1 && s["mining"] == true && counter(s, "acknowledged") > 0).await;
    assert!(kept.is_subset(&victim.units().await), "something acknowledged is gone");

    // Both tell one story in the end, and the disk gets in nobody's way at the stop.
    victim.pause().await;
    other.pause().await;
    let began = Instant::now();
    let shown = |s: &Value| (s["tip"]["root"].clone(), s["ledger_digest"].clone());
    loop {
        let (a, b) = (victim.json("/v1/status").await, other.json("/v1/status").await);
        if shown(&a) == shown(&b) {
            assert_eq!(counter(&b, "gossip_rejected") + counter(&b, "sync_invalid") + counter(&b, "bans"), 0, "{b:#}");
            break;
        }
        assert!(began.elapsed() < PATIENCE, "{a:#}\n{b:#}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    fill(&disk);
    victim.until("full at last", |s| s["store_problem"].is_string()).await;
    victim.signal("TERM");
    assert_eq!(victim.ended_within(Duration::from_secs(10)).code(), Some(0), "{}", victim.said());
    assert!(!victim.said().contains(" ERROR ") && !victim.said().contains("panicked"), "{}", victim.said());
}

#[test]
fn slow_a_signal_ends_a_node_that_starts() {
    let dir = tempfile::tempdir().unwrap();
    let mut clean = 0;
    for round in 0..24u64 {
        let mut node = Node::start(&dir.path().join("node"), &dir.path().join(format!("{round}.log")), &["--alone"]);
        std::thread::sleep(Duration::from_millis(round * 12));
        node.signal("TERM");
        let status = node.ended_within(Duration::from_secs(10));
        let said = node.said();
        // A process that has not begun to run the program has nobody who hears.
        let unheard = said.is_empty() && std::os::unix::process::ExitStatusExt::signal(&status) == Some(15);
        assert!(status.code() == Some(0) || unheard, "round {round}: {status}: {said}");
        assert!(!said.contains(" ERROR ") && !said.contains("panicked"), "{said}");
        clean += u32::from(status.code() == Some(0));
    }
    assert!(clean > 6, "only {clean} heard the signal");
}
