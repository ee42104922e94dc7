//! The testnet as `testnet/run.sh` runs it: real processes, real wires, the conductor's own checks.

#![allow(clippy::expect_used)] // a test may panic; its helpers are outside of #[test]

use tops_tests::testnet::{Binaries, Options, Scenario, conduct};

/// One network at a time: both judge how soon processes agree.
static MACHINE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

async fn passes(seconds: u64, nodes: usize, bridges: usize, scenario: Scenario) {
    let _alone = MACHINE.lock().await;
    let binaries = Binaries::built().expect("the programs build");
    let options = Options { nodes, seconds: Some(seconds), summary: None, backend: "cpu".into(), keep: false, binaries, scenario, bridges };
    let summary = conduct(options).await.expect("the testnet runs");
    assert!(summary.ok, "{:#?}", summary.failures);
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_four_nodes_end_with_one_head_and_one_ledger() {
    passes(30, 4, 1, Scenario::Plain).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_killed_nodes_catch_up_and_lose_nothing() {
    passes(40, 4, 2, Scenario::Kill).await;
}
