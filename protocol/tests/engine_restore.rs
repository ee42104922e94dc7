//! A restart changes nothing that matters, wherever it falls (spec §5): the table that the commits made is the engine.

#![allow(missing_docs, clippy::unwrap_used)]

mod rig;

use proptest::prelude::*;
use rig::{Rig, World, essence, key};
use tops_protocol::engine::*;

/// Heads on several branches, shares on all of them, frauds, deliveries: after every commit the engine that the table gives is the
/// engine that made it, and the batch twice is the batch once.
fn life(steps: &[(u8, u8, u8)]) -> Rig {
    let mut world = World::new();
    let mut rig = Rig::new(&world);
    rig.paranoid = true;
    let mut heads = vec![world.genesis()];
    let mut shares = Vec::new();
    for (what, who, place) in steps {
        let key = key(1 + who % 4);
        let parent = heads[heads.len() - 1 - usize::from(*place) % heads.len().min(5)];
        match what % 8 {
            0..=2 => {
                let head = world.head(parent, &key);
                heads.push(head.root());
                rig.gossip(&world, 1, &head);
            }
            3..=5 => {
                let share = world.share(parent, &key);
                rig.gossip(&world, 2, &share);
                shares.push(share);
            }
            6 if who % 16 == 3 => {
                let lie = world.false_share(parent, &key);
                rig.gossip(&world, 3, &lie);
            }
            _ => {
                if let Some(share) = shares.get(usize::from(*place) % shares.len().max(1)) {
                    rig.give(&world, Input::Delivered { unit: share.unit(), taken: place % 5 != 0 });
                }
            }
        }
        rig.tick(&world, 250);
    }
    rig
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn a_restart_at_any_commit_gives_the_same_engine(steps in proptest::collection::vec(any::<(u8, u8, u8)>(), 1..90)) {
        let rig = life(&steps);
        prop_assert_eq!(essence(&rig.engine), essence(&rig.restored()));
    }
}

#[test]
fn a_restart_after_pruning_gives_the_same_engine_and_goes_on_the_same() {
    let mut world = World::new();
    let mut rig = Rig::new(&world);
    for head in world.chain(world.genesis(), &key(1), 200) {
        rig.now = rig.now.max(head.receipt().timestamp);
        rig.gossip(&world, 1, &head);
        if world.height(head.root()).is_multiple_of(5) {
            let side = world.head(head.receipt().prev_hash, &key(2));
            rig.gossip(&world, 1, &side);
            let share = world.share(side.root(), &key(2));
            rig.gossip(&world, 1, &share);
        }
        rig.tick(&world, 250);
    }
    let mut twin = Rig::new(&world);
    (twin.table, twin.now) = (rig.table.clone(), rig.now);
    twin.restart();
    assert_eq!(essence(&rig.engine), essence(&twin.engine));
    assert_eq!(rig.status_of(&world, 1), twin.status_of(&world, 1));
    let tip = rig.engine.view().tip;
    for head in world.chain(tip, &key(2), 40) {
        for rig in [&mut rig, &mut twin] {
            rig.now = rig.now.max(head.receipt().timestamp);
            assert_eq!(rig.gossip(&world, 1, &head), Some(Verdict::Accept));
            rig.tick(&world, 250);
        }
    }
    assert_eq!(essence(&rig.engine), essence(&twin.engine));
    assert_eq!(rig.table.shares.keys().collect::<Vec<_>>(), twin.table.shares.keys().collect::<Vec<_>>());
}

/// The table of a damaged store without its tip: everything comes again from peers, but what was delivered is not queued again.
#[test]
fn what_was_delivered_is_never_queued_again_after_damage() {
    let mut world = World::new();
    let mut rig = Rig::new(&world);
    let share = world.share(world.genesis(), &key(1));
    rig.gossip(&world, 1, &share);
    let heads = world.chain(world.genesis(), &key(1), 4);
    for head in &heads {
        rig.gossip(&world, 1, head);
    }
    rig.give(&world, Input::Delivered { unit: share.unit(), taken: true });
    rig.table.heads.remove(&heads[3].root());
    rig.restart();
    assert_eq!(rig.engine.view().height.0, 0);
    assert_eq!(rig.gossip(&world, 1, &share), Some(Verdict::Accept));
    for head in &heads {
        rig.gossip(&world, 1, head);
    }
    assert_eq!(rig.outbox(&share), Some(OutboxState::Delivered));
}

/// Ban, then restart: still banned, still void, still alerted to peers that ask.
#[test]
fn a_ban_survives() {
    let mut world = World::new();
    let mut rig = Rig::new(&world);
    let share = world.share(world.genesis(), &key(1));
    let lie = world.false_share(world.genesis(), &key(1));
    rig.gossip(&world, 1, &share);
    rig.gossip(&world, 1, &lie);
    rig.restart();
    let again = world.share(world.genesis(), &key(1));
    assert_eq!(rig.gossip(&world, 1, &again), Some(Verdict::Ignore));
    assert_eq!(rig.state(&share), Some(ShareState::Void));
    let Reply::Bans { receipts, more: false } = rig.answer(&world, Query::Bans { after: None }) else { panic!("no bans") };
    assert_eq!(receipts.iter().map(|proof| proof.unit()).collect::<Vec<_>>(), [lie.unit()]);
}
