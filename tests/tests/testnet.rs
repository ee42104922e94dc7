//! The testnet as people run it: real processes, real wires, the conductor's own checks.

#![allow(clippy::expect_used)] // a test may panic; its helpers are outside of #[test]

use std::path::Path;
use std::process::Command;

use tops_tests::testnet::{Binaries, Options, Scenario, conduct};

/// One network at a time: they judge how soon processes agree.
static MACHINE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

async fn passes(seconds: u64, nodes: usize, bridges: usize, scenario: Scenario) {
    let _alone = MACHINE.lock().await;
    let binaries = Binaries::built().expect("the programs build");
    let options = Options {
        nodes,
        seconds: Some(seconds),
        summary: None,
        backend: "cpu".into(),
        keep: false,
        binaries,
        scenario,
        bridges,
        lan: false,
        outage: 0,
    };
    let summary = conduct(options).await.expect("the testnet runs");
    assert!(summary.ok, "{:#?}", summary.failures);
}

/// By the script, whose word is its exit code and its summary.
#[tokio::test(flavor = "multi_thread")]
async fn slow_four_nodes_end_with_one_head_and_one_ledger() {
    let _alone = MACHINE.lock().await;
    let binaries = Binaries::built().expect("the programs build");
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("s.json");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testnet/run.sh");
    let mut command = Command::new(script);
    command.args(["--nodes", "4", "--seconds", "30", "--summary"]).arg(&file).arg("--bin-dir").arg(binaries.dir());
    let output = command.output().expect("the script starts");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    let summary: serde_json::Value = serde_json::from_slice(&std::fs::read(file).expect("a summary")).expect("it is JSON");
    assert_eq!((&summary["ok"], &summary["delivered_again"]), (&true.into(), &0.into()), "{summary:#}");
    let nodes = summary["nodes"].as_object().expect("by node");
    assert_eq!(nodes.len(), 3, "two miners and a light node");
    assert!(nodes.values().all(|node| node["head"] == nodes["light"]["head"] && node["shares"].as_u64() > Some(0)), "{summary:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_two_bridges_bring_each_share_once_each() {
    passes(20, 4, 2, Scenario::Plain).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_killed_nodes_catch_up_and_lose_nothing() {
    passes(40, 4, 2, Scenario::Kill).await;
}

/// The aggregator away, a bridging node killed, a disk full: by the script, which makes itself a namespace for the disk.
#[tokio::test(flavor = "multi_thread")]
async fn slow_an_outage_ends_with_every_receipt_at_the_aggregator() {
    let _alone = MACHINE.lock().await;
    let binaries = Binaries::built().expect("the programs build");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testnet/run.sh");
    let mut command = Command::new(script);
    command.args(["--nodes", "5", "--seconds", "75", "--scenario", "outage", "--outage", "30", "--bin-dir"]).arg(binaries.dir());
    let output = command.output().expect("the script starts");
    let said = String::from_utf8_lossy(&output.stdout);
    eprintln!("{said}");
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
}
