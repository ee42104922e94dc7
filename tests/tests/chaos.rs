//! The range of real processes, short: links cut, hosts killed, one head and one ledger at the end. The long run is `tops-chaos --minutes 10`.

#![allow(clippy::expect_used)] // a test may panic; its helpers are outside of #[test]

use std::process::Command;

use serde_json::Value;
use tops_tests::chaos::{cgroup::Cgroup, ground};
use tops_tests::testnet::Binaries;

/// One at a time: they judge how soon processes agree.
static MACHINE: std::sync::Mutex<()> = std::sync::Mutex::new(());

fn run(arguments: &[&str]) -> (bool, Value, String) {
    let binaries = Binaries::built().expect("the programs build");
    let mut command = Command::new(env!("CARGO_BIN_EXE_tops-chaos"));
    let output = command.args(arguments).arg("--bin-dir").arg(binaries.dir()).output().expect("the program starts");
    let summary = serde_json::from_slice(&output.stdout).unwrap_or_default();
    (output.status.success(), summary, String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn slow_six_processes_survive_cut_links_and_kills() {
    let _alone = MACHINE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Err(why) = ground::possible() {
        println!("left out: {why}");
        return;
    }
    let (ok, summary, said) = run(&["--minutes", "1.2", "--seed", "7", "--gates", "1", "--miners", "3", "--lights", "1"]);
    assert!(ok, "{summary:#}\n{said}");
    assert!(summary["kills"].as_u64() > Some(2) && summary["splits"].as_u64() > Some(0), "{summary:#}");
    assert!(summary["flushed_before_kills"].as_u64() > Some(0) && summary["delivered"].as_u64() > Some(0), "{summary:#}");
}

#[test]
fn slow_a_light_node_follows_main_within_a_quarter_of_a_core() {
    let _alone = MACHINE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Err(why) = Cgroup::new(&format!("tops-probe-{}", std::process::id()), 25) {
        println!("left out: {why:#}");
        return;
    }
    let (ok, summary, said) = run(&["--light", "--minutes", "1"]);
    if summary["fed"] == false && summary["failures"].as_array().is_some_and(|all| all.len() == 1) {
        println!("left out: this machine is too busy for a miner at main's rate: {} shares a minute", summary["shares_a_minute"]);
        return;
    }
    assert!(ok, "{summary:#}\n{said}");
}
