//! How two engines come to the same chain and the same shares (spec §4, §6).

#![allow(missing_docs, clippy::unwrap_used)]

mod rig;

use rig::{Rig, World, essence, key, talk};
use tops_protocol::engine::*;

#[test]
fn epochs_that_differ_are_pulled_and_the_ledgers_agree() {
    let mut world = World::new();
    let (mut first, mut second) = (Rig::new(&world), Rig::new(&world));
    let mut tip = world.genesis();
    for round in 0..30u8 {
        for who in 0..3 {
            let share = world.share(tip, &key(1 + who));
            // Each knows what the other does not.
            let rig = if (round + who) % 2 == 0 { &mut first } else { &mut second };
            rig.gossip(&world, 9, &share);
        }
        let head = world.head(tip, &key(1));
        tip = head.root();
        for rig in [&mut first, &mut second] {
            rig.gossip(&world, 9, &head);
            rig.tick(&world, 1_000);
        }
    }
    assert_ne!(first.status_of(&world, 1).epochs, second.status_of(&world, 1).epochs);
    first.up(&world, 1);
    talk(&world, &mut first, &mut second, 5_000);
    first.give(&world, Input::PeerDown { peer: Peer(1) });
    second.up(&world, 1);
    talk(&world, &mut second, &mut first, 5_000);
    assert_eq!(first.engine.view().shares, 120);
    assert_eq!(essence(&first.engine), essence(&second.engine));
    assert!(first.penalised.is_empty() && second.penalised.is_empty());
}

#[test]
fn after_a_partition_the_heavier_branch_wins_and_both_ledgers_agree() {
    let mut world = World::new();
    let (mut first, mut second) = (Rig::new(&world), Rig::new(&world));
    let common = world.chain(world.genesis(), &key(1), 10);
    let fork = common[9].root();
    let (long, short) = (world.chain(fork, &key(2), 25), world.chain(fork, &key(3), 20));
    for (rig, branch, miner) in [(&mut first, &long, key(2)), (&mut second, &short, key(3))] {
        for head in common.iter().chain(branch) {
            rig.gossip(&world, 9, head);
            let share = world.share(head.root(), &miner);
            rig.gossip(&world, 9, &share);
        }
    }
    second.up(&world, 1);
    talk(&world, &mut second, &mut first, 10_000);
    assert_eq!(second.engine.view().tip, long[24].root());
    second.give(&world, Input::PeerDown { peer: Peer(1) });
    // What is keyed on the first head of the lost branch still earns, its parent being main: the winner pulls that too.
    first.up(&world, 1);
    talk(&world, &mut first, &mut second, 10_000);
    talk(&world, &mut first, &mut second, 10_000);
    assert_eq!(first.engine.view().ledger_digest, second.engine.view().ledger_digest);
    assert!(first.penalised.is_empty() && second.penalised.is_empty());
}

/// A key cannot hide its fraud on a head that it showed to few: whoever credits it and hears of the ban asks for that head.
#[test]
fn a_ban_is_pulled_also_when_its_proof_is_keyed_on_an_unknown_head() {
    let mut world = World::new();
    let (mut first, mut second) = (Rig::new(&world), Rig::new(&world));
    let liar = key(7);
    let share = world.share(world.genesis(), &liar);
    let main = world.chain(world.genesis(), &key(1), 3);
    let hidden = world.head(main[0].root(), &liar);
    for rig in [&mut first, &mut second] {
        rig.gossip(&world, 9, &share);
        for head in &main {
            rig.gossip(&world, 9, head);
        }
    }
    let lie = world.false_share(hidden.root(), &liar);
    first.gossip(&world, 9, &hidden);
    first.gossip(&world, 9, &lie);
    assert_eq!((first.engine.view().bans, second.engine.view().bans), (1, 0));
    second.up(&world, 1);
    talk(&world, &mut second, &mut first, 20_000);
    assert_eq!((second.engine.view().bans, second.credit(&liar).shares), (1, 0));
    assert_eq!(first.engine.view().ledger_digest, second.engine.view().ledger_digest);
}

/// Answers every open audit with that no device could do it.
fn fail_audits(world: &World, rig: &mut Rig) {
    while let Some((audit, ..)) = rig.audits.pop_front() {
        rig.give(world, Input::Audited { audit, outcome: AuditOutcome::Unable });
    }
}

/// A rig with a chain and shares on it, and one that was told of it by gossip up to `known` heads.
fn ahead(world: &mut World, known: usize) -> (Rig, Rig) {
    let (mut honest, mut rig) = (Rig::new(world), Rig::new(world));
    for (i, head) in world.chain(world.genesis(), &key(1), 40).iter().enumerate() {
        honest.gossip(world, 9, head);
        let share = world.share(head.root(), &key(2));
        honest.gossip(world, 9, &share);
        if i < known {
            rig.gossip(world, 9, head);
        }
    }
    (honest, rig)
}

/// No device can audit for five minutes: that says nothing about peers, and when one can again the node is in step within seconds.
#[test]
fn a_failed_device_is_nobodys_fault() {
    // At first sync, and with the chain in place and shares missing.
    for known in [0, 40] {
        let mut world = World::new();
        let (mut honest, mut rig) = ahead(&mut world, known);
        rig.auto = false;
        rig.up(&world, 1);
        for _ in 0..5 * 60 * 4 {
            rig.tick(&world, 250);
            rig.serve_from(&world, 1, &mut honest, 100);
            fail_audits(&world, &mut rig);
        }
        assert_eq!((rig.engine.view().shares, rig.engine.view().undecided), (known, 0));
        assert!(rig.notes.contains(&Note::Unaudited) && rig.penalised.is_empty());
        rig.auto = true;
        talk(&world, &mut rig, &mut honest, 10_000);
        assert_eq!(essence(&rig.engine), essence(&honest.engine), "{known} known");
        assert!(rig.penalised.is_empty() && honest.penalised.is_empty());
    }
}

/// A device that takes audits and never answers does not keep the download open for ever.
#[test]
fn an_open_page_without_answers_is_given_up_in_time() {
    let mut world = World::new();
    let (mut honest, mut rig) = ahead(&mut world, 0);
    rig.auto = false;
    rig.up(&world, 1);
    for _ in 0..8 {
        rig.tick(&world, 250);
        rig.serve_from(&world, 1, &mut honest, 100);
    }
    assert_eq!(rig.audits.len(), 40);
    // Slow is not silent: each answer gives it more time.
    for _ in 0..4 {
        rig.tick(&world, 25_000);
        assert!(rig.audit_one(&world));
    }
    assert_eq!(rig.audits.len(), 36);
    rig.tick(&world, 31_000);
    assert_eq!((rig.audits.len(), rig.engine.view().undecided, rig.engine.view().audits_in_flight), (0, 0, 0), "called back");
    rig.auto = true;
    talk(&world, &mut rig, &mut honest, 10_000);
    assert_eq!(rig.engine.view().tip, honest.engine.view().tip);
    assert!(rig.penalised.is_empty());
}

/// However many ask, an epoch is hashed once a second: what is told may be that old, what is compared is not.
#[test]
fn digests_are_told_at_most_a_second_late() {
    let mut world = World::new();
    let mut rig = Rig::new(&world);
    let mut shares = (0..3).map(|_| world.share(world.genesis(), &key(1))).collect::<Vec<_>>().into_iter();
    let mut told = |rig: &mut Rig, after: u64| {
        rig.gossip(&world, 1, &shares.next().unwrap());
        rig.now = rig.now.plus(after);
        rig.status_of(&world, 1).epochs[0].count
    };
    assert_eq!(told(&mut rig, 0), 1, "never asked for before");
    assert_eq!(told(&mut rig, 999), 1, "told a moment ago");
    assert_eq!(told(&mut rig, 1), 3);
}

/// While gossip fills an epoch, sets differ by what is on its way, and a pull would bring what is here already: only a peer that has more is
/// asked. What gossip lost comes once the epoch rests.
#[test]
fn an_epoch_that_gossip_fills_is_pulled_from_who_has_more_or_when_it_rests() {
    for (lost, meanwhile) in [(1, 0), (4, 4)] {
        let mut world = World::new();
        let (mut honest, mut rig) = (Rig::new(&world), Rig::new(&world));
        for _ in 0..lost {
            let share = world.share(world.genesis(), &key(2));
            honest.gossip(&world, 9, &share);
        }
        rig.up(&world, 1);
        for _ in 0..20 {
            let share = world.share(world.genesis(), &key(1));
            rig.gossip(&world, 9, &share);
            talk(&world, &mut rig, &mut honest, 500);
            honest.gossip(&world, 9, &share);
        }
        assert_eq!(rig.engine.view().shares, 20 + meanwhile, "{lost} lost");
        talk(&world, &mut rig, &mut honest, 5_000);
        assert_eq!(essence(&rig.engine), essence(&honest.engine), "{lost} lost");
        assert!(rig.penalised.is_empty() && honest.penalised.is_empty());
    }
}
