//! Many engines under bad networks, from a seed: they end with one head and one ledger of audited shares (spec §4), and every invariant holds.
//!
//! `TOPS_SIM_SEED=n cargo test -p tops-tests --test simulation` runs one seed.

use std::cell::RefCell;
use std::ops::Range;

use tops_tests::sim::{Plan, World, for_seeds, invariants};

/// Runs a plan; gives the deepest reorganisation of any node.
fn converges(plan: Plan) -> u64 {
    let seed = plan.seed;
    let mut world = World::new(plan);
    let took = world.run_until_agreed();
    let views: Vec<_> = world.nodes.iter().filter_map(|node| node.engine.as_ref()).map(|e| e.view()).collect();
    assert!(views[0].height.0 >= 8, "seed {seed}: only {} heads", views[0].height.0);
    invariants::at_the_end(&mut world);
    assert!(took.is_some(), "seed {seed}: something stays open");
    if std::env::var_os("TOPS_SIM_VERBOSE").is_some() {
        println!("seed {seed}: height {}, agreed after {took:?} ms, {:?}", views[0].height.0, world.counts);
    }
    world.counts.deepest
}

/// A hundred storms; in most the split is felt, and in many it undoes more than the stale window.
fn storms(range: Range<u64>) {
    let depths = RefCell::new(Vec::new());
    for_seeds(range.clone(), |seed| {
        let plan = Plan::stormy(seed);
        let window = plan.network.stale_window();
        let deepest = converges(plan);
        depths.borrow_mut().push((deepest, window));
    });
    let depths = depths.into_inner();
    let felt = depths.iter().filter(|(deepest, _)| *deepest > 1).count();
    let beyond = depths.iter().filter(|(deepest, window)| deepest > window).count();
    println!("of {} storms {felt} undid more than one head, and {beyond} more than the stale window", depths.len());
    // One seed alone says nothing of the others.
    if depths.len() as u64 == range.end - range.start {
        assert!(2 * felt > depths.len(), "only {felt} of {} splits were felt", depths.len());
        assert!(7 * beyond > depths.len(), "only {beyond} of {} splits undid more than the stale window", depths.len());
    }
}

#[test]
fn calm_networks_converge() {
    for_seeds(0..4, |seed| {
        converges(Plan::calm(seed));
    });
}

#[test]
fn stormy_networks_converge() {
    for_seeds(1_000..1_010, |seed| {
        converges(Plan::stormy(seed));
    });
}

// Two hundred seeds, in two halves so that two cores share them.

#[test]
fn slow_a_hundred_storms() {
    storms(0..100);
}

#[test]
fn slow_another_hundred_storms() {
    storms(100..200);
}
