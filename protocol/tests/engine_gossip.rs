//! What a peer sees of an engine that it gossips to (spec §5): who is audited before forwarding, what is rejected, held, ignored.

#![allow(missing_docs, clippy::unwrap_used)]

mod rig;

use rig::{Rig, World, key};
use tops_protocol::engine::*;
use tops_protocol::error::ContextFault;
use tops_protocol::{Millis, Root};

#[test]
fn the_first_shares_of_a_key_are_audited_before_they_are_forwarded_then_it_is_trusted() {
    let mut world = World::new();
    let mut rig = Rig::new(&world);
    rig.auto = false;
    let (miner, genesis) = (key(1), world.genesis());
    // At a rate of one in ten, trust takes ten audited shares of the same weight.
    for _ in 0..10 {
        let share = world.share(genesis, &miner);
        assert_eq!(rig.gossip(&world, 1, &share), None, "not forwarded before its audit");
        assert!(matches!(rig.audits.front(), Some((_, Priority::Forward, _))));
        assert!(rig.state(&share).is_none(), "and earns nothing");
        rig.audit_all(&world);
        assert_eq!(rig.state(&share), Some(ShareState::Audited));
    }
    assert!(rig.verdicts.values().all(|verdicts| verdicts.len() == 1 && verdicts[0].0 == Verdict::Accept));
    let share = world.share(genesis, &miner);
    assert_eq!(rig.gossip(&world, 1, &share), Some(Verdict::Accept), "forwarded at once");
    assert!(matches!(rig.audits.front(), Some((_, Priority::Share, _))), "and looked at afterwards");
    let stranger = world.share(genesis, &key(2));
    assert_eq!(rig.gossip(&world, 1, &stranger), None, "trust is a key's own");
}

#[test]
fn seen_stale_and_banned_are_ignored_and_the_wrong_topic_is_rejected() {
    let mut world = World::new();
    let mut rig = Rig::new(&world);
    let (miner, liar, genesis) = (key(1), key(2), world.genesis());
    let old = world.share(genesis, &miner);
    let share = world.share(genesis, &miner);
    assert_eq!(rig.gossip(&world, 1, &share), Some(Verdict::Accept));
    assert_eq!(rig.gossip(&world, 2, &share), Some(Verdict::Ignore), "seen");
    let variant = world.receipt(share.attempt(), share.root(), 1, &miner, "another word for the same unit");
    assert_eq!(rig.gossip(&world, 2, &variant), Some(Verdict::Ignore), "a unit earns once");
    assert_eq!(rig.credit(&miner).shares, 1);

    let message = rig.send(&world, 1, Topic::Heads, &old);
    assert_eq!(rig.verdict(message), Some(Verdict::Reject), "a share on the heads topic");
    let head = world.head(genesis, &miner);
    let message = rig.send(&world, 1, Topic::Receipts, &head);
    assert_eq!(rig.verdict(message), Some(Verdict::Reject), "a head on the receipts topic");
    assert!(rig.refused(ContextFault::WrongTopic));

    assert_eq!(rig.gossip(&world, 1, &head), Some(Verdict::Accept));
    let edge = world.share(genesis, &miner);
    for next in world.chain(head.root(), &miner, 2) {
        assert_eq!(rig.gossip(&world, 1, &next), Some(Verdict::Accept));
    }
    assert_eq!(rig.gossip(&world, 1, &edge), Some(Verdict::Accept), "three below the tip is within the stale window");
    let tip = rig.engine.view().tip;
    let next = world.head(tip, &miner);
    assert_eq!(rig.gossip(&world, 1, &next), Some(Verdict::Accept));
    assert_eq!(rig.gossip(&world, 1, &old), Some(Verdict::Ignore), "four below is stale");
    assert!(rig.refused(ContextFault::Stale));

    let honest = world.share(next.root(), &liar);
    assert_eq!(rig.gossip(&world, 1, &honest), Some(Verdict::Accept));
    let lie = world.false_share(next.root(), &liar);
    assert_eq!(rig.gossip(&world, 1, &lie), Some(Verdict::Ignore), "a false share costs its miner, not the forwarder");
    assert_eq!(rig.engine.view().bans, 1);
    assert_eq!(rig.state(&honest), Some(ShareState::Void));
    assert_eq!((rig.credit(&liar).shares, rig.credit(&liar).credit.is_zero()), (0, true));
    assert!(matches!(rig.published.last(), Some((Topic::Alerts, proof)) if proof.unit() == lie.unit()));
    let muted = world.share(next.root(), &liar);
    assert_eq!(rig.gossip(&world, 1, &muted), Some(Verdict::Ignore));
    assert!(rig.refused(ContextFault::Banned));
    let valid = world.head(next.root(), &liar);
    assert_eq!(rig.gossip(&world, 1, &valid), Some(Verdict::Accept), "a valid head is valid whoever mined it");
    assert_eq!((rig.engine.view().tip, rig.credit(&liar).shares), (valid.root(), 0));
    assert!(rig.penalised.is_empty());
}

#[test]
fn a_false_head_is_rejected_and_its_miner_pays_only_if_it_has_something_to_lose() {
    let mut world = World::new();
    let mut rig = Rig::new(&world);
    let genesis = world.genesis();
    let lie = world.false_head(genesis, &key(3));
    assert_eq!(rig.gossip(&world, 1, &lie), Some(Verdict::Reject));
    assert_eq!((rig.engine.view().height.0, rig.engine.view().bans), (0, 0));
    let share = world.share(genesis, &key(3));
    rig.gossip(&world, 1, &share);
    let lie = world.false_head(genesis, &key(3));
    assert_eq!(rig.gossip(&world, 1, &lie), Some(Verdict::Reject));
    assert_eq!(rig.engine.view().bans, 1);
}

#[test]
fn what_every_node_sees_wrong_is_rejected() {
    let mut world = World::new();
    let mut rig = Rig::new(&world);
    let (miner, genesis) = (key(1), world.genesis());
    let share = world.share(genesis, &miner);
    let wrong_epoch = world.receipt(share.attempt(), share.root(), 2, &miner, "CPU");
    assert_eq!(rig.gossip(&world, 1, &wrong_epoch), Some(Verdict::Reject));
    let zero_epoch = world.receipt(share.attempt(), share.root(), 0, &miner, "CPU");
    assert_eq!(rig.gossip(&world, 1, &zero_epoch), Some(Verdict::Reject));
    let early = world.attempt(genesis, miner.public(), world.facts(genesis).median);
    let early = world.receipt(early, share.root(), 1, &miner, "CPU");
    assert_eq!(rig.gossip(&world, 1, &early), Some(Verdict::Reject), "not past the median");
    // Wrong for ever, and ahead of the clock as well: waiting would not make it right.
    let far = world.attempt(genesis, miner.public(), Millis((1 << 53) - 1));
    let far = world.receipt(far, share.root(), 7, &miner, "CPU");
    assert_eq!(rig.gossip(&world, 1, &far), Some(Verdict::Reject));
}

#[test]
fn an_unknown_parent_is_asked_for_and_the_receipt_taken_when_it_comes() {
    let mut world = World::new();
    let mut rig = Rig::new(&world);
    let (miner, genesis) = (key(1), world.genesis());
    rig.up(&world, 1);
    let head = world.head(genesis, &miner);
    let share = world.share(head.root(), &miner);
    assert_eq!(rig.gossip(&world, 1, &share), None);
    let (ask, query) = rig.asked(1, |query| matches!(query, Query::HeadsByRoot { .. })).expect("its head is asked for");
    assert_eq!(query, Query::HeadsByRoot { roots: vec![head.root()] });
    rig.tick(&world, 1_000);
    rig.reply(&world, 1, ask, Reply::Heads(vec![head.clone()]));
    assert_eq!(rig.engine.view().tip, head.root());
    assert_eq!(rig.state(&share), Some(ShareState::Audited));

    let lost = world.head(head.root(), &miner);
    let orphan = world.share(lost.root(), &miner);
    let message = rig.send(&world, 1, Topic::Receipts, &orphan);
    rig.tick(&world, 2_750);
    assert_eq!(rig.verdict(message), None);
    rig.tick(&world, 500);
    assert_eq!(rig.verdict(message), Some(Verdict::Ignore), "held for three seconds at most");
}

#[test]
fn one_peer_can_hold_sixteen_and_no_more() {
    let mut world = World::new();
    let mut rig = Rig::new(&world);
    let hidden = world.head(world.genesis(), &key(1));
    let shares: Vec<_> = (0..20).map(|_| world.share(hidden.root(), &key(1))).collect();
    let held = shares.iter().filter(|share| rig.gossip(&world, 1, share).is_none()).count();
    assert_eq!(held, 16);
    let share = world.share(hidden.root(), &key(1));
    assert_eq!(rig.gossip(&world, 2, &share), None, "another peer has room of its own");
}

#[test]
fn what_is_ahead_of_the_clock_waits_for_it() {
    let mut world = World::new();
    let mut rig = Rig::new(&world);
    let (miner, genesis) = (key(1), world.genesis());
    rig.now = Millis(rig::GENESIS_MS + 100_000);
    let soon = world.head_at(genesis, &miner, rig.now.plus(16_000));
    assert_eq!(rig.gossip(&world, 1, &soon), None);
    rig.tick(&world, 750);
    assert_eq!(rig.engine.view().height.0, 0);
    rig.tick(&world, 500);
    assert_eq!(rig.engine.view().tip, soon.root());
    let later = world.head_at(genesis, &miner, rig.now.plus(30_000));
    let message = rig.send(&world, 1, Topic::Heads, &later);
    rig.tick(&world, 3_250);
    assert_eq!(rig.verdict(message), Some(Verdict::Ignore));
}

#[test]
fn one_unit_with_two_roots_costs_its_miner_everything() {
    let mut world = World::new();
    let mut rig = Rig::new(&world);
    let (miner, honest, genesis) = (key(1), key(2), world.genesis());
    let kept = world.share(genesis, &honest);
    rig.gossip(&world, 1, &kept);
    let share = world.share(genesis, &miner);
    assert_eq!(rig.gossip(&world, 1, &share), Some(Verdict::Accept));
    let mut other = share.root();
    other.0[5] ^= 1;
    let lie = world.receipt(share.attempt(), other, 1, &miner, "CPU");
    assert_eq!(rig.gossip(&world, 2, &lie), Some(Verdict::Ignore));
    assert_eq!((rig.engine.view().bans, rig.credit(&miner).shares, rig.credit(&honest).shares), (1, 0, 1));
}

/// A key that is trusted here, and what made it so.
fn trusted(world: &mut World, rig: &mut Rig, tag: u8) -> tops_protocol::keys::SecretKey {
    let (key, tip) = (key(tag), rig.engine.view().tip);
    for _ in 0..12 {
        let share = world.share(tip, &key);
        assert_eq!(rig.gossip(world, 1, &share), Some(Verdict::Accept));
    }
    key
}

#[test]
fn two_units_with_one_root_cost_the_thief_also_when_it_comes_first() {
    let mut world = World::new();
    let mut rig = Rig::new(&world);
    let thief = trusted(&mut world, &mut rig, 7);
    let (victim, genesis) = (key(1), world.genesis());
    rig.auto = false;
    let share = world.share(genesis, &victim);
    let stolen = world.attempt(genesis, thief.public(), share.receipt().timestamp);
    let stolen = world.receipt(stolen, share.root(), 1, &thief, "CPU");
    assert_eq!(rig.gossip(&world, 1, &stolen), Some(Verdict::Accept), "the thief is trusted");
    assert_eq!(rig.gossip(&world, 2, &share), None, "the victim's has a rival: audited first");
    rig.audit_all(&world);
    assert_eq!(rig.state(&share), Some(ShareState::Audited));
    assert_eq!((rig.engine.view().bans, rig.credit(&thief).shares, rig.credit(&victim).shares), (1, 0, 1));
    assert!(rig.penalised.is_empty());
}

#[test]
fn a_stolen_head_costs_the_thief() {
    let mut world = World::new();
    let mut rig = Rig::new(&world);
    let (victim, thief, genesis) = (key(1), key(7), world.genesis());
    let own = world.share(genesis, &thief);
    rig.gossip(&world, 1, &own);
    let head = world.head(genesis, &victim);
    assert_eq!(rig.gossip(&world, 1, &head), Some(Verdict::Accept));
    let stolen = world.attempt(genesis, thief.public(), head.receipt().timestamp);
    let stolen = world.receipt(stolen, head.root(), 1, &thief, "CPU");
    assert_eq!(rig.gossip(&world, 2, &stolen), Some(Verdict::Reject), "a head candidate whose audit fails");
    assert_eq!((rig.engine.view().bans, rig.engine.view().tip), (1, head.root()));
    assert_eq!(rig.gossip(&world, 2, &head), Some(Verdict::Ignore), "seen");
}

/// Also when the root is that of a banned key's head, whose share is in no table, and the claim is no head where it is made.
#[test]
fn a_share_with_the_root_of_a_banned_keys_head_is_audited_first() {
    let mut world = World::new();
    let mut rig = Rig::new(&world);
    let (banned, genesis) = (key(1), world.genesis());
    let share = world.share(genesis, &banned);
    let lie = world.false_share(genesis, &banned);
    rig.gossip(&world, 1, &share);
    rig.gossip(&world, 1, &lie);
    // A head that is one only under an easy target …
    let head = loop {
        let head = world.head(genesis, &banned);
        if head.root().0[0] >= 0x60 {
            break head;
        }
    };
    assert_eq!(rig.gossip(&world, 1, &head), Some(Verdict::Accept));
    assert!(rig.state(&head).is_none());
    // … and a harder one on top, of heads that come fast.
    let mut tip = head.root();
    while world.facts(tip).head_target >= head.root().ticket() {
        let stamp = world.facts(tip).median.plus(1);
        let next = world.head_at(tip, &key(2), stamp);
        tip = next.root();
        rig.gossip(&world, 1, &next);
    }
    let thief = trusted(&mut world, &mut rig, 7);
    rig.auto = false;
    let stamp = world.facts(tip).median.plus(1);
    let stolen = world.attempt(tip, thief.public(), stamp);
    let stolen = world.receipt(stolen, head.root(), world.height(tip) + 1, &thief, "CPU");
    let message = rig.send(&world, 1, Topic::Receipts, &stolen);
    assert_eq!(rig.verdict(message), None, "two units with one root");
    rig.audit_all(&world);
    assert_eq!((rig.verdict(message), rig.engine.view().bans, rig.credit(&thief).shares), (Some(Verdict::Ignore), 2, 0));
    assert_eq!(rig.engine.view().tip, tip);
}

/// A full pool drops what is drawn for audit, and silences nobody who is trusted.
#[test]
fn a_flood_does_not_silence_trusted_keys() {
    const PPM: u32 = 900_000;
    let mut world = World::new();
    let mut config = rig::config(&world);
    config.audit_rate = AuditRate::from_ppm(PPM).unwrap();
    let mut rig = Rig::with(config);
    let mut heads = vec![world.genesis()];
    for head in world.chain(world.genesis(), &key(1), 3) {
        rig.gossip(&world, 1, &head);
        heads.push(head.root());
    }
    let keys: Vec<_> = (10..26).map(|tag| trusted(&mut world, &mut rig, tag)).collect();
    rig.auto = false;
    // Strangers fill their half …
    for i in 0..2_100 {
        let lie = world.false_share(heads[3], &key(9));
        rig.gossip(&world, 100 + i / 64, &lie);
    }
    assert_eq!(rig.engine.view().undecided, 2_048);
    // … and keys that were trusted all the rest.
    'full: for key in &keys[1..] {
        for head in &heads {
            for _ in 0..50 {
                let lie = world.false_share(*head, key);
                assert_eq!(rig.gossip(&world, 2, &lie), Some(Verdict::Accept));
                if rig.engine.view().undecided == 4_096 {
                    break 'full;
                }
            }
        }
    }
    assert_eq!(rig.engine.view().undecided, 4_096);
    let (mut passed, mut dropped) = (0, 0);
    for _ in 0..40 {
        let share = world.share(heads[3], &keys[0]);
        let hash = blake3::keyed_hash(&rig.config.secret, &share.id().0);
        let drawn = u64::from_le_bytes(hash.as_bytes()[..8].try_into().unwrap()) % 1_000_000 < u64::from(PPM);
        let before = rig.credit(&keys[0]).shares;
        let verdict = rig.gossip(&world, 3, &share);
        let earned = rig.credit(&keys[0]).shares - before;
        if drawn {
            assert_eq!((verdict, rig.state(&share), earned), (Some(Verdict::Ignore), None, 0));
            dropped += 1;
        } else {
            assert_eq!((verdict, rig.state(&share), earned), (Some(Verdict::Accept), Some(ShareState::Unaudited), 1));
            passed += 1;
        }
    }
    assert!(passed > 0 && dropped > 0 && rig.refused(ContextFault::PoolFull));
    assert_eq!(rig.engine.view().undecided, 4_096);
}

#[test]
fn alerts_are_judged_by_their_audit_and_only_against_keys_with_shares() {
    let mut world = World::new();
    let mut rig = Rig::new(&world);
    let (liar, honest, genesis) = (key(1), key(2), world.genesis());
    let lie = world.false_share(genesis, &liar);
    let message = rig.send(&world, 1, Topic::Alerts, &lie);
    assert_eq!(rig.verdict(message), Some(Verdict::Ignore), "nobody here credited that key");
    assert_eq!((rig.engine.view().bans, rig.engine.view().undecided), (0, 0));

    for miner in [&liar, &honest] {
        let share = world.share(genesis, miner);
        rig.gossip(&world, 1, &share);
    }
    let true_share = world.share(genesis, &honest);
    for peer in [1, 2] {
        let message = rig.send(&world, peer, Topic::Alerts, &true_share);
        assert_eq!(rig.verdict(message), Some(Verdict::Reject), "a false alert, first time and again");
    }
    let before = rig.published.len();
    let message = rig.send(&world, 1, Topic::Alerts, &lie);
    assert_eq!(rig.verdict(message), Some(Verdict::Accept));
    assert_eq!((rig.engine.view().bans, rig.published.len()), (1, before), "forwarded by its verdict, not published twice");
    let message = rig.send(&world, 3, Topic::Alerts, &lie);
    assert_eq!(rig.verdict(message), Some(Verdict::Ignore), "banned already");
}

#[test]
fn a_false_share_of_a_fresh_key_costs_its_deliverer_after_some_bad_luck() {
    let mut world = World::new();
    let mut rig = Rig::new(&world);
    for tag in 10..20 {
        let lie = world.false_share(world.genesis(), &key(tag));
        assert_eq!(rig.gossip(&world, 1, &lie), Some(Verdict::Ignore));
    }
    assert_eq!(rig.engine.view().bans, 0);
    assert_eq!(rig.penalised, vec![(Peer(1), PeerFault::FalseShare); 6], "four are bad luck");
}

#[test]
fn no_device_is_no_verdict_about_the_receipt() {
    let mut world = World::new();
    let mut rig = Rig::new(&world);
    rig.auto = false;
    let share = world.share(world.genesis(), &key(1));
    let message = rig.send(&world, 1, Topic::Receipts, &share);
    while let Some((audit, ..)) = rig.audits.pop_front() {
        rig.give(&world, Input::Audited { audit, outcome: AuditOutcome::Unable });
    }
    assert_eq!(rig.verdict(message), Some(Verdict::Ignore));
    assert!(rig.notes.contains(&Note::Unaudited) && rig.penalised.is_empty() && rig.state(&share).is_none());
    rig.auto = true;
    assert_eq!(rig.gossip(&world, 2, &share), Some(Verdict::Accept), "it is as new");
}

#[test]
fn the_crowd_of_one_key_on_one_head_is_audited_first() {
    let mut world = World::new();
    let mut rig = Rig::new(&world);
    let miner = trusted(&mut world, &mut rig, 1);
    for _ in 12..64 {
        let share = world.share(world.genesis(), &miner);
        assert_eq!(rig.gossip(&world, 1, &share), Some(Verdict::Accept));
    }
    rig.auto = false;
    let share = world.share(world.genesis(), &miner);
    assert_eq!(rig.gossip(&world, 1, &share), None, "beyond 4 · 2^share_log2");
}

#[test]
fn the_aggregator_gets_what_was_audited_and_is_deep_enough_and_reorganisations_take_it_back() {
    let mut world = World::new();
    let mut rig = Rig::new(&world);
    let (miner, genesis) = (key(1), world.genesis());
    let a = world.head(genesis, &miner);
    rig.gossip(&world, 1, &a);
    let on_a = world.share(a.root(), &miner);
    let on_genesis = world.share(genesis, &miner);
    rig.gossip(&world, 1, &on_a);
    rig.gossip(&world, 1, &on_genesis);
    assert_eq!((rig.outbox(&on_genesis), rig.outbox(&on_a)), (Some(OutboxState::Waiting), Some(OutboxState::Waiting)));
    let a2 = world.chain(a.root(), &miner, 2);
    rig.gossip(&world, 1, &a2[0]);
    assert_eq!((rig.outbox(&on_genesis), rig.outbox(&on_a)), (Some(OutboxState::Due), Some(OutboxState::Waiting)));
    rig.gossip(&world, 1, &a2[1]);
    assert_eq!(rig.outbox(&on_a), Some(OutboxState::Due));
    rig.give(&world, Input::Delivered { unit: on_a.unit(), taken: true });
    rig.give(&world, Input::Delivered { unit: on_genesis.unit(), taken: false });
    assert_eq!((rig.outbox(&on_genesis), rig.outbox(&on_a)), (Some(OutboxState::Dead), Some(OutboxState::Delivered)));
    rig.give(&world, Input::Delivered { unit: on_genesis.unit(), taken: true });
    assert_eq!(rig.outbox(&on_genesis), Some(OutboxState::Delivered), "a dead letter was replayed and taken");

    // A longer branch from genesis: what is keyed on `a` still earns, since its parent is main; what is keyed on its child does not.
    let on_a2 = world.share(a2[0].root(), &miner);
    rig.gossip(&world, 1, &on_a2);
    assert!(rig.state(&on_a2).is_some());
    let credit = rig.credit(&miner);
    for head in world.chain(genesis, &key(2), 4) {
        assert_eq!(rig.gossip(&world, 1, &head), Some(Verdict::Accept));
    }
    assert_eq!(rig.outbox(&on_a), Some(OutboxState::Delivered));
    // Of `a`, its two children and three shares, those keyed on the children of `a` lost: its second child and the last share.
    assert_eq!((rig.credit(&miner).shares, rig.credit(&miner).heads), (credit.shares - 2, 0));
    let back = world.chain(a2[1].root(), &miner, 2);
    for head in &back {
        rig.gossip(&world, 1, head);
    }
    assert_eq!(rig.engine.view().tip, back[1].root());
    assert_eq!((rig.credit(&miner).shares, rig.credit(&miner).heads), (credit.shares + 2, 5));
}

#[test]
fn retention_forgets_shares_and_keeps_their_sums() {
    let mut world = World::new();
    let mut rig = Rig::new(&world);
    let miner = key(1);
    let first = world.share(world.genesis(), &miner);
    rig.gossip(&world, 1, &first);
    for head in world.chain(world.genesis(), &miner, 320) {
        rig.now = rig.now.max(head.receipt().timestamp);
        rig.gossip(&world, 1, &head);
        rig.tick(&world, 250);
    }
    assert_eq!(rig.credit(&miner).shares, 321);
    assert!(rig.state(&first).is_none());
    // No aggregator has taken any: what is owed outlives the shares, and goes once it is taken.
    assert_eq!(rig.outbox(&first), Some(OutboxState::Due));
    rig.give(&world, Input::Delivered { unit: first.unit(), taken: true });
    assert_eq!(rig.outbox(&first), Some(OutboxState::Delivered));
    let view = rig.engine.view();
    assert!(view.shares <= 64 + 17, "{} shares", view.shares);
    assert!(view.heads <= 64 + 80 + 18, "{} heads", view.heads);
    assert_eq!((rig.table.shares.len(), rig.table.main.len()), (view.shares, 320));
}

/// A hit: signed, kept, then public, then acknowledged; late ones are dropped.
#[test]
fn own_work_is_durable_before_it_is_public() {
    let mut world = World::new();
    let own = key(200);
    let mut config = rig::config(&world);
    (config.mining, config.alone) = (rig::mining(&own), true);
    let mut rig = Rig::with(config).mines_with(&own);
    rig.give(&world, Input::Tick);
    let job = rig.job.expect("alone, it mines at once");
    let share = world.share(job.prev_hash, &own);
    rig.give(&world, Input::Found { attempt: share.attempt(), root: share.root(), batch: 1, time_ms: 1 });
    assert!(rig.notes.iter().any(|note| matches!(note, Note::Acknowledged { head: false, .. })));
    assert!(rig.table.shares.contains_key(&share.unit()));
    assert!(matches!(rig.published.as_slice(), [(Topic::Receipts, _)]));
    let head = world.head(job.prev_hash, &own);
    rig.give(&world, Input::Found { attempt: head.attempt(), root: head.root(), batch: 1, time_ms: 1 });
    assert_eq!(rig.job.map(|job| job.prev_hash), Some(head.root()));
    for next in world.chain(head.root(), &key(2), 4) {
        rig.gossip(&world, 1, &next);
    }
    let late = world.share(job.prev_hash, &own);
    rig.give(&world, Input::Found { attempt: late.attempt(), root: late.root(), batch: 1, time_ms: 1 });
    assert!(rig.notes.contains(&Note::LateHit));
    let nowhere = world.share(job.prev_hash, &own);
    let lost = tops_protocol::Attempt { prev_hash: Root([1; 32]), ..nowhere.attempt() };
    rig.give(&world, Input::Found { attempt: lost, root: nowhere.root(), batch: 1, time_ms: 1 });
    assert_eq!(rig.published.len(), 2);
}

/// This node's own head stands under the network file's checkpoints like any other.
#[test]
fn own_heads_do_not_join_against_a_checkpoint() {
    let mut world = World::new();
    let own = key(200);
    let mut config = rig::config(&world);
    (config.mining, config.alone) = (rig::mining(&own), true);
    config.checkpoints = vec![(tops_protocol::Height(1), Root([1; 32]))];
    let mut rig = Rig::with(config).mines_with(&own);
    rig.give(&world, Input::Tick);
    let head = world.head(world.genesis(), &own);
    rig.give(&world, Input::Found { attempt: head.attempt(), root: head.root(), batch: 1, time_ms: 1 });
    assert_eq!((rig.engine.view().height.0, rig.engine.view().shares), (0, 0));
    assert!(rig.table.heads.is_empty() && rig.published.is_empty());
    assert!(!rig.notes.iter().any(|note| matches!(note, Note::Acknowledged { .. })));
}

/// Who names heads that nobody has and answers nothing is not asked the more for it.
#[test]
fn a_peer_that_answers_nothing_has_few_questions_open() {
    let mut world = World::new();
    let mut rig = Rig::new(&world);
    rig.up(&world, 1);
    for _ in 0..60 {
        let hidden = world.head(world.genesis(), &key(2));
        let share = world.share(hidden.root(), &key(3));
        rig.gossip(&world, 1, &share);
        rig.tick(&world, 200);
    }
    let open = rig.asks.iter().filter(|(_, _, query)| matches!(query, Query::HeadsByRoot { .. })).count();
    assert!((1..=16).contains(&open), "{open} questions are open");
}
