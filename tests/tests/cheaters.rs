//! Cheaters among honest nodes, in the simulation: what they send costs them, never anybody else (spec §5).
//!
//! Each run ends with every invariant of the honest ones: one chain, one ledger that equals the sum of true shares, no credit of a banned key.

#![allow(clippy::expect_used)] // a test may panic; its helpers are outside of #[test]

use tops_protocol::codec::receipt_from_wire;
use tops_protocol::engine::{ShareState, Verdict};
use tops_protocol::{PublicKey, U256};
use tops_tests::sim::cheat::{Cheat, Fraud};
use tops_tests::sim::invariants::{self, model};
use tops_tests::sim::{Plan, World, for_seeds};

/// Twelve nodes, one of them a cheating miner, wires without faults.
fn among_honest(seed: u64, fraud: Fraud) -> World {
    let plan = Plan { nodes: 12, miners: 5, attempts_per_sec: 5.0, mining_ms: 90_000, settling_ms: 60_000, ..Plan::calm(seed) };
    with_cheat(plan, 2, fraud)
}

fn with_cheat(plan: Plan, who: usize, fraud: Fraud) -> World {
    let seed = plan.seed;
    let mut world = World::new(plan);
    world.nodes[who].cheat = Some(Cheat::new(fraud, 2, seed));
    world.run_until_agreed();
    assert!(world.nodes[who].cheat.as_ref().is_some_and(|cheat| cheat.sent > 0), "seed {seed}: the cheater did nothing");
    invariants::at_the_end(&mut world);
    world
}

/// Credit and standing shares of a key at a node.
fn credit(world: &World, node: usize, miner: &PublicKey) -> (U256, u64) {
    let row = world.nodes[node].store().ledger_row(miner).expect("the store reads").unwrap_or_default();
    (row.credit, row.shares)
}

/// Every honest node has banned the cheater, its credit is zero everywhere, and nobody else lost anything.
fn is_outlawed(world: &World, cheater: usize) {
    let key = world.nodes[cheater].miner();
    for node in model::honest(world) {
        let store = world.nodes[node].store();
        assert!(store.ban(&key).expect("the store reads").is_some(), "node {node} did not ban the cheater");
        assert_eq!(credit(world, node, &key), (U256::ZERO, 0));
        let snapshot = model::snapshot(world, node);
        assert_eq!(snapshot.bans.len(), 1, "node {node} banned somebody else");
        let unharmed = snapshot.shares.iter().filter(|share| share.miner != key).all(|share| share.state == ShareState::Audited);
        assert!(unharmed, "node {node} holds something against an honest share");
    }
    assert_eq!(world.counts.verdicts.get(&Verdict::Reject), None, "an honest message was rejected");
    for honest in model::honest(world).into_iter().filter(|&i| world.nodes[i].mines) {
        let (earned, shares) = credit(world, 0, &world.nodes[honest].miner());
        assert!(shares > 0 && earned > U256::ZERO, "miner {honest} earned nothing");
    }
}

#[test]
fn invented_roots_cost_the_key_all_its_credit() {
    for_seeds(0..6, |seed| is_outlawed(&among_honest(seed, Fraud::Inventor), 2));
}

#[test]
fn a_banned_key_still_wins_heads() {
    let mut won = 0;
    for seed in 20..26 {
        let world = among_honest(seed, Fraud::Inventor);
        let heads = world.nodes[2].cheat.as_ref().map(|cheat| cheat.heads.clone()).unwrap_or_default();
        for node in model::honest(&world) {
            let snapshot = model::snapshot(&world, node);
            let on_main = snapshot.main.iter().filter(|root| heads.contains(root)).count();
            won += on_main;
            for head in snapshot.heads.iter().filter(|head| heads.contains(&head.root)) {
                let receipt = receipt_from_wire(&head.wire).expect("a stored head reads");
                assert_eq!(receipt.miner, world.nodes[2].miner());
            }
        }
        is_outlawed(&world, 2);
    }
    assert!(won > 0, "in no run did a head of the banned key make it into the chain");
}

#[test]
fn stolen_shares_ban_the_thief() {
    for_seeds(0..6, |seed| is_outlawed(&among_honest(seed, Fraud::Thief), 2));
}

#[test]
fn a_thief_that_arrives_first_is_caught_all_the_same() {
    // The thief stands between two honest halves: what crosses comes from it first, under its own key.
    for_seeds(0..6, |seed| {
        let links = vec![(0, 1), (0, 3), (1, 3), (1, 2), (3, 2), (2, 4), (2, 5), (4, 5), (4, 6), (5, 6)];
        let plan = Plan { nodes: 7, miners: 5, attempts_per_sec: 5.0, mining_ms: 90_000, links: Some(links), ..Plan::calm(seed) };
        let world = with_cheat(plan, 2, Fraud::Thief);
        is_outlawed(&world, 2);
    });
}

#[test]
fn retouched_receipts_stop_at_stage_two() {
    for_seeds(0..4, |seed| {
        let world = among_honest(seed, Fraud::Retoucher);
        assert!(world.counts.garbage > 0);
        for node in model::honest(&world) {
            assert_eq!(model::snapshot(&world, node).bans, Vec::new(), "a retouched receipt is nobody's proof");
        }
        assert_eq!(world.counts.verdicts.get(&Verdict::Reject), None);
    });
}

#[test]
fn variants_of_one_unit_earn_and_are_delivered_once() {
    for_seeds(0..6, |seed| {
        let world = among_honest(seed, Fraud::Varier);
        let cheat = world.nodes[2].cheat.as_ref().expect("it cheats");
        let key = world.nodes[2].miner();
        for node in model::honest(&world) {
            let snapshot = model::snapshot(&world, node);
            assert_eq!(snapshot.bans, Vec::new(), "variants of a true share are no fraud");
            let model = model::Model::new(&world.plan.network, &snapshot);
            let earning = snapshot
                .shares
                .iter()
                .filter(|share| share.miner == key && receipt_from_wire(&share.wire).is_ok_and(|receipt| model.earns(&receipt.prev_hash)));
            assert_eq!(credit(&world, node, &key).1, earning.count() as u64);
        }
        let delivered: Vec<_> = cheat.units.iter().filter_map(|unit| world.delivered.get(unit)).collect();
        assert!(!delivered.is_empty());
        assert!(delivered.iter().all(|by| by.values().all(|&times| times == 1)), "a unit was delivered twice");
    });
}

#[test]
fn one_unit_with_two_roots_bans_the_liar() {
    for_seeds(0..6, |seed| is_outlawed(&among_honest(seed, Fraud::TwoFaced), 2));
}

#[test]
fn slow_fraud_in_a_storm_ends_in_one_ledger() {
    for_seeds(0..30, |seed| {
        let frauds = [Fraud::Inventor, Fraud::Thief, Fraud::TwoFaced, Fraud::Varier, Fraud::Retoucher];
        let fraud = frauds[usize::try_from(seed).unwrap_or(0) % frauds.len()];
        let mut plan = Plan::stormy(seed + 5_000);
        // The cheater stays up: what it tells is what is tested.
        plan.crashes.retain(|(node, _, _)| *node != 1);
        let mut world = World::new(plan);
        world.nodes[1].cheat = Some(Cheat::new(fraud, 2, seed));
        let took = world.run_until_agreed();
        invariants::at_the_end(&mut world);
        assert!(took.is_some(), "seed {seed}: something stays open");
    });
}
