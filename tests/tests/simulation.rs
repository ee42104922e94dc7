//! Many engines under bad networks, from a seed: they end with one head and one ledger of audited shares (spec §4), and every invariant holds.
//!
//! `TOPS_SIM_SEED=n cargo test -p tops-tests --test simulation` runs one seed.

use tops_tests::sim::{Plan, World, for_seeds, invariants};

fn converges(plan: Plan) {
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
}

#[test]
fn calm_networks_converge() {
    for_seeds(0..4, |seed| converges(Plan::calm(seed)));
}

#[test]
fn stormy_networks_converge() {
    for_seeds(1_000..1_010, |seed| converges(Plan::stormy(seed)));
}

// Two hundred seeds, in two halves so that two cores share them.

#[test]
fn slow_a_hundred_storms() {
    for_seeds(0..100, |seed| converges(Plan::stormy(seed)));
}

#[test]
fn slow_another_hundred_storms() {
    for_seeds(100..200, |seed| converges(Plan::stormy(seed)));
}
