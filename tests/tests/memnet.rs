//! Whole nodes in one process over libp2p's memory transport: a small network here, two hundred by `tops-memnet` (docs/reliability-net.md).

#![allow(clippy::unwrap_used, clippy::expect_used)] // a test may panic

use std::time::Duration;

use tops_tests::memnet::{Eclipse, Plan, Weather, eclipse, run};

fn plan(nodes: usize, weather: Weather) -> Plan {
    Plan {
        nodes,
        silent: 0.0,
        rate: 10.0,
        even: false,
        mining: Duration::from_secs(8),
        settling: Duration::from_secs(60),
        weather,
        cut: None,
        tell: |_| (),
    }
}

fn seed() -> u64 {
    let seed = std::env::var("TOPS_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(7);
    println!("TOPS_SEED={seed}");
    seed
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_every_share_reaches_every_node_over_bad_wires() {
    let ms = Duration::from_millis;
    let weather = Weather { delay: (ms(5), ms(60)), jitter: ms(10), loss: 0.01, ..Weather::fair(seed()) };
    let report = run(plan(16, weather)).await.unwrap();
    println!("{report}");
    assert!(report.shares > 20, "{}", report.shares);
    assert_eq!(report.delivered, report.expected);
    assert!(report.agreed);
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_shares_go_round_silent_members() {
    let report = run(Plan { silent: 0.5, ..plan(24, Weather::fair(seed())) }).await.unwrap();
    println!("{report}");
    assert!(report.shares > 20 && report.delivery() >= 0.999, "{report}");
    assert!(report.agreed);
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_a_network_that_was_cut_in_two_is_one_again() {
    let cut = Some((Duration::from_secs(2), Duration::from_secs(5)));
    let report = run(Plan { cut, ..plan(16, Weather::fair(seed())) }).await.unwrap();
    println!("{report}");
    assert_eq!(report.delivered, report.expected, "what was missed comes by sync");
    assert!(report.agreed);
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_a_surrounded_node_returns_with_the_first_honest_peer() {
    for calls in [false, true] {
        let plan = Eclipse { honest: 8, adversaries: 20, calls, surrounded: Duration::from_secs(10), weather: Weather::fair(seed()) };
        let returned = eclipse(plan, Duration::from_secs(60)).await.unwrap();
        println!("{returned:?}");
        assert_eq!(returned.heard_before, 0, "it was surrounded");
        assert!(returned.tip_after.is_some() && returned.share_after.is_some(), "{returned:?}");
    }
}
