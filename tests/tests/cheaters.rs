//! Cheaters among honest nodes, in the simulation: what they send costs them, never anybody else (spec §5).
//!
//! Each run ends with every invariant of the honest ones: one chain, one ledger that equals the sum of true shares, no credit of a banned key.

#![allow(clippy::expect_used)] // a test may panic; its helpers are outside of #[test]

use std::cell::RefCell;
use std::collections::BTreeSet;

use tops_protocol::codec::receipt_from_wire;
use tops_protocol::engine::{ShareRow, ShareState, Verdict};
use tops_protocol::error::SemanticFault;
use tops_protocol::verify::Structural;
use tops_protocol::{PublicKey, U256};
use tops_tests::sim::cheat::{Cheat, Fraud};
use tops_tests::sim::invariants::{self, model};
use tops_tests::sim::{Plan, World, for_seeds, seeds};

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

/// What the cheater copied stops at stage 2 and changes nothing: not for it, not for those whose shares they are, not for who forwards.
fn is_unheard(world: &World, cheater: usize) {
    let cheat = world.nodes[cheater].cheat.as_ref().expect("it cheats");
    let copies: BTreeSet<&Vec<u8>> = cheat.copies.iter().collect();
    assert!(!copies.is_empty() && world.counts.garbage > 0);
    let mut robbed = BTreeSet::new();
    for copy in &copies {
        let structural = Structural::from_wire(copy, &world.plan.network).expect("stage 1 lets it pass");
        robbed.insert(structural.receipt().miner);
        assert_eq!(structural.semantic(), Err(SemanticFault::Mismatch));
    }
    let key = world.nodes[cheater].miner();
    assert!(!robbed.contains(&key));
    for node in model::honest(world) {
        let snapshot = model::snapshot(world, node);
        assert_eq!(snapshot.bans, Vec::new(), "a copy is nobody's proof");
        for share in &snapshot.shares {
            assert!(!copies.contains(&share.wire), "node {node} keeps a copy");
            assert_eq!(share.state, ShareState::Audited, "node {node} holds something against a share");
        }
        let model = model::Model::new(&world.plan.network, &snapshot);
        let earning = |miner: &PublicKey| {
            let earns = |share: &&ShareRow| receipt_from_wire(&share.wire).is_ok_and(|receipt| model.earns(&receipt.prev_hash));
            snapshot.shares.iter().filter(|share| share.miner == *miner).filter(earns).count() as u64
        };
        assert_eq!(credit(world, node, &key).1, earning(&key), "node {node} credits the cheater with more than its own shares");
        for miner in &robbed {
            let (earned, shares) = credit(world, node, miner);
            assert!(shares > 0 && earned > U256::ZERO, "node {node} credits a robbed miner with nothing");
            assert_eq!(shares, earning(miner), "node {node} takes shares from a robbed miner, or gives it some");
        }
    }
    assert_eq!(world.counts.verdicts.get(&Verdict::Reject), None, "an honest message was rejected");
    assert!(world.counts.penalised.iter().all(|&(_, whom, _)| whom == cheater), "somebody else paid: {:?}", world.counts.penalised);
}

#[test]
fn retouched_receipts_stop_at_stage_two() {
    for_seeds(0..4, |seed| is_unheard(&among_honest(seed, Fraud::Retoucher), 2));
}

#[test]
fn receipts_signed_by_another_than_their_miner_stop_at_stage_two() {
    for_seeds(0..4, |seed| is_unheard(&among_honest(seed, Fraud::Forger), 2));
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
    const FRAUDS: [Fraud; 6] = [Fraud::Inventor, Fraud::Thief, Fraud::TwoFaced, Fraud::Varier, Fraud::Retoucher, Fraud::Forger];
    // By fraud: in how many runs it was at work, and in how many somebody banned it.
    let tally = RefCell::new([(0u32, 0u32); FRAUDS.len()]);
    for_seeds(0..30, |seed| {
        let kind = usize::try_from(seed).unwrap_or(0) % FRAUDS.len();
        let fraud = FRAUDS[kind];
        let mut plan = Plan::stormy(seed + 5_000);
        // The cheater stays up: what it tells is what is tested.
        plan.crashes.retain(|(node, _, _)| *node != 1);
        let mut world = World::new(plan);
        world.nodes[1].cheat = Some(Cheat::new(fraud, 2, seed));
        let took = world.run_until_agreed();
        invariants::at_the_end(&mut world);
        assert!(took.is_some(), "seed {seed}: something stays open");
        assert!(world.counts.bans.iter().all(|&(_, whose)| whose == 1), "seed {seed}: an honest key was banned");
        let (acted, banned) = (world.nodes[1].cheat.as_ref().is_some_and(|cheat| cheat.sent > 0), !world.counts.bans.is_empty());
        assert!(!banned || lies(fraud), "seed {seed}: {fraud:?} proves nothing against its key");
        let mut tally = tally.borrow_mut();
        tally[kind].0 += u32::from(acted);
        tally[kind].1 += u32::from(banned);
    });
    let tally = tally.into_inner();
    println!("at work and banned, of 5 runs each: {:?}", FRAUDS.iter().zip(&tally).collect::<Vec<_>>());
    // One seed alone shows its own run only.
    if seeds(0..30).len() == 30 {
        for (fraud, (acted, banned)) in FRAUDS.into_iter().zip(tally) {
            assert!(acted >= 3, "{fraud:?} was at work in {acted} of 5 runs");
            assert!(banned >= 3 || !lies(fraud), "{fraud:?} was banned in {banned} of 5 runs");
        }
    }
}

/// Whether the fraud signs a false root with the cheater's own key, which is what bans are for.
fn lies(fraud: Fraud) -> bool {
    match fraud {
        Fraud::Inventor | Fraud::Thief | Fraud::TwoFaced => true,
        Fraud::Varier | Fraud::Retoucher | Fraud::Forger => false,
    }
}
