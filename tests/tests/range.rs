//! The range in small: twenty engines on a model of the world, ten seeds, without adversaries and with each kind of them (docs/reliability.md).
//!
//! The large runs are by hand: `cargo run -p tops-tests --bin tops-range -- --help`. `TOPS_SIM_SEED=n` runs one seed.

use tops_tests::range::{Kind, Plan, Report, Summary, World};
use tops_tests::sim::seeds;

const ENGINES: usize = 20;
const HEADS: u64 = 20;

fn runs(plan: impl Fn(u64) -> Plan) -> (Vec<Report>, Summary) {
    let runs: Vec<Report> = seeds(0..10).into_iter().map(|seed| World::new(plan(seed)).run()).collect();
    let summary = Summary::of(&runs);
    println!("{summary:?}");
    (runs, summary)
}

/// What holds whoever does what: honest work arrives and is not punished, what is false earns nothing, and all agree in the end.
fn holds(kind: Kind) -> Summary {
    let (runs, summary) = runs(|seed| Plan::against(seed, ENGINES, HEADS, kind));
    for run in &runs {
        let about = |what: &str| format!("{kind:?}, seed {}: {what}: {run:?}", run.seed);
        assert_eq!(run.honest_banned, 0, "{}", about("an honest key was banned"));
        assert_eq!(run.honest_dropped, 0, "{}", about("an honest node lost its connections"));
        assert!(run.delivered * 1_000 >= run.due * 999, "{}", about("shares got lost"));
        assert_eq!(run.liars_credited, 0, "{}", about("a liar has credit"));
        assert!(run.one_head && run.one_ledger, "{}", about("they do not agree"));
        assert!(run.heads > 0 && run.shares > 100, "{}", about("nothing happened"));
    }
    // A run is too short for a figure; that it pays is what would show.
    assert!(summary.gain <= 0.005, "{kind:?} gains: {summary:?}");
    summary
}

#[test]
fn without_adversaries_everything_arrives_soon() {
    let (runs, summary) = runs(|seed| Plan::calm(seed, ENGINES, HEADS));
    for run in &runs {
        assert_eq!((run.delivered, run.honest_banned, run.honest_penalised), (run.due, 0, 0), "seed {}", run.seed);
        assert!(run.p99_ms < 1_000, "seed {}: {} ms of virtual time", run.seed, run.p99_ms);
        assert!(run.one_head && run.one_ledger, "seed {}", run.seed);
    }
    assert!(summary.forks < 0.05, "{summary:?}");
}

#[test]
fn a_partition_of_ten_minutes_heals_within_two_heads() {
    for seed in seeds(0..4) {
        let run = World::new(Plan { partition: Some((60, 660)), ..Plan::calm(seed, ENGINES, 60) }).run();
        assert!(run.agreed_after_heads.is_some_and(|heads| heads <= 2), "seed {seed}: {run:?}");
        assert!(run.deepest > 3, "seed {seed}: the split was not felt: {run:?}");
        assert!(run.one_head && run.one_ledger && run.honest_banned == 0, "seed {seed}: {run:?}");
    }
}

#[test]
fn a_long_sleep_and_false_stamps_do_not_stop_the_chain() {
    for seed in seeds(0..2) {
        let run = World::new(Plan { sleep: Some((60, 7_200)), ..Plan::against(seed, ENGINES, 8, Kind::Timestamps) }).run();
        assert!(run.one_head && run.one_ledger && run.heads > 8, "seed {seed}: {run:?}");
        assert!(run.gain <= 0.005, "seed {seed}: {run:?}");
    }
}

/// Kinds that lie are banned wherever they have shares.
fn liars_lose(kind: Kind) {
    let summary = holds(kind);
    assert!(summary.liars > 0, "{kind:?} did not lie: {summary:?}");
    assert!(summary.gain < -0.3, "{kind:?} lost too little: {summary:?}");
}

#[test]
fn inventors_lose_everything() {
    liars_lose(Kind::Inventor);
}
#[test]
fn a_new_key_after_each_lie_does_not_pay() {
    liars_lose(Kind::Rotation);
}
#[test]
fn standing_from_old_heads_does_not_pay() {
    liars_lose(Kind::CheapOld);
}
#[test]
fn copies_do_not_pay() {
    liars_lose(Kind::Copier);
}
#[test]
fn one_unit_with_two_roots_splits_nothing() {
    liars_lose(Kind::TwoRoots);
}
#[test]
fn a_flash_of_lies_does_not_pay() {
    liars_lose(Kind::Flash);
}

#[test]
fn withheld_heads_split_nothing() {
    holds(Kind::Withhold);
}
#[test]
fn undercutting_does_not_pay() {
    holds(Kind::Undercut);
}
#[test]
fn false_stamps_do_not_pay() {
    holds(Kind::Timestamps);
}
#[test]
fn what_is_sent_again_changes_nothing() {
    holds(Kind::Replay);
}
#[test]
fn side_chains_do_not_pay() {
    holds(Kind::SideChains);
}
#[test]
fn slow_a_flood_of_everything_silences_nobody() {
    holds(Kind::Flood);
}
#[test]
fn silent_members_of_the_mesh_lose_nothing() {
    holds(Kind::Silent);
}
#[test]
fn faulty_devices_are_nobodys_fault() {
    holds(Kind::FaultyDevice);
}

/// Who was kept apart has the others' tip soon after the first honest peer, or after its start among adversaries.
fn returns(kind: Kind) {
    let summary = holds(kind);
    assert!(summary.returned_secs.is_some_and(|secs| secs < 60.0), "{kind:?}: {summary:?}");
}

#[test]
fn an_eclipsed_node_returns_with_its_first_honest_peer() {
    returns(Kind::Eclipse);
}
#[test]
fn a_newcomer_among_boasters_finds_the_chain() {
    returns(Kind::ColdBoot);
}
#[test]
fn a_newcomer_among_slow_peers_finds_the_chain() {
    returns(Kind::SlowLoris);
}
