//! What an engine makes of its neighbours over time: whose clock is off, and how long good standing lasts (spec §4, §5).

#![allow(missing_docs, clippy::unwrap_used)]

mod rig;

use rig::{Rig, World, key};
use tops_protocol::Millis;
use tops_protocol::engine::*;
use tops_protocol::verify::Semantic;

/// A share with this stamp, as true as any.
fn stamped(world: &mut World, stamp: Millis, tag: u8) -> Semantic {
    let genesis = world.genesis();
    let attempt = world.attempt(genesis, key(tag).public(), stamp);
    let root = world.root(&attempt);
    world.receipt(attempt, root, 1, &key(tag), "CPU")
}

#[test]
fn a_clock_that_is_the_odd_one_out_is_told_of_and_one_liar_is_not_believed() {
    let mut world = World::new();
    for off in [0i64, 60_000, -60_000] {
        let mut rig = Rig::new(&world);
        let right = rig.now;
        rig.now = Millis(right.0.saturating_add_signed(off));
        for peer in 1..=5 {
            rig.up(&world, peer);
        }
        for n in 0..30u64 {
            // The fifth peer brings stamps an hour old and three in ten of all others' are nonsense too.
            let peer = 1 + n % 5;
            let stamp = if peer == 5 || n % 10 > 6 { right.0 - 3_600_000 } else { right.0 - 300 };
            let receipt = stamped(&mut world, Millis(stamp + n), 1 + u8::try_from(peer).unwrap());
            rig.gossip(&world, peer, &receipt);
            if n < 2 {
                assert_eq!(rig.engine.view().clock_off_ms, None, "two peers are too few");
            }
        }
        let seen = rig.engine.view().clock_off_ms.unwrap();
        assert!((seen - off).abs() < 1_000, "off by {off} ms, it says {seen}");
        rig.give(&world, Input::PeerDown { peer: Peer(1) });
        rig.give(&world, Input::PeerDown { peer: Peer(2) });
        rig.give(&world, Input::PeerDown { peer: Peer(3) });
        assert_eq!(rig.engine.view().clock_off_ms, None);
    }
}

#[test]
fn a_clock_that_was_set_right_is_not_blamed_for_long() {
    let mut world = World::new();
    let mut rig = Rig::new(&world);
    for peer in 1..=4 {
        rig.up(&world, peer);
        let receipt = stamped(&mut world, Millis(rig.now.0 - 60_000), 1);
        rig.gossip(&world, peer, &receipt);
    }
    assert!(rig.engine.view().clock_off_ms.unwrap() >= 60_000);
    rig.tick(&world, 600_000);
    assert_eq!(rig.engine.view().clock_off_ms, None);
}

#[test]
fn good_standing_lasts_as_long_as_what_earned_it_is_kept() {
    let mut world = World::new();
    let mut rig = Rig::new(&world);
    rig.auto = false;
    let (miner, other) = (key(1), key(2));
    for _ in 0..10 {
        let share = world.share(world.genesis(), &miner);
        rig.gossip(&world, 1, &share);
        rig.audit_all(&world);
    }
    let mut tip = world.genesis();
    let trusted = |rig: &mut Rig, world: &mut World, tip| {
        let share = world.share(tip, &miner);
        let at_once = rig.gossip(world, 1, &share) == Some(Verdict::Accept);
        rig.audit_all(world);
        at_once
    };
    let grow = |rig: &mut Rig, world: &mut World, tip: &mut _, heads: usize| {
        for head in world.chain(*tip, &other, heads) {
            *tip = head.root();
            rig.now = rig.now.max(head.receipt().timestamp);
            rig.gossip(world, 1, &head);
            rig.audit_all(world);
        }
    };
    grow(&mut rig, &mut world, &mut tip, 40);
    assert!(trusted(&mut rig, &mut world, tip), "within retention");
    // A share now and then keeps the key known, but what it was trusted for falls below retention.
    grow(&mut rig, &mut world, &mut tip, 40);
    assert!(!trusted(&mut rig, &mut world, tip), "trust has to be earned anew");
    let row = rig.table.standing[&miner.public()];
    assert_eq!(row.accepted, 2);
}
