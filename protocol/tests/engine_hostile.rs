//! What a peer without honest intentions can do to an engine: nothing that lasts (spec §5, §6).

#![allow(missing_docs, clippy::unwrap_used)]

mod rig;

use rig::{Rig, World, key};
use tops_protocol::engine::*;
use tops_protocol::{Height, Millis, Root, U256, UnitId};

fn boast(world: &World, height: u64) -> Status {
    let tip = Root(*blake3::hash(&height.to_le_bytes()).as_bytes());
    let _ = world;
    Status { tip, height: Height(height), work: U256::MAX, first_epoch: 1, epochs: Vec::new(), bans: Digest::default() }
}

fn heads_query(query: &Query) -> bool {
    matches!(query, Query::Heads { .. })
}

fn shares_query(query: &Query) -> bool {
    matches!(query, Query::Shares { .. })
}

/// Epochs that cannot be are neither compared, nor remembered, nor asked for.
#[test]
fn a_status_of_epochs_beyond_the_tip_leaves_no_trace() {
    let world = World::new();
    let mut rig = Rig::new(&world);
    rig.up(&world, 1);
    for first_epoch in [u64::MAX, u64::MAX - 1, 1 << 40, 3] {
        let digest = Digest { count: 5, hash: [7; 8] };
        let tip = world.genesis();
        let status = Status { tip, height: Height(0), work: U256::ZERO, first_epoch, epochs: vec![digest; 4_096], bans: Digest::default() };
        rig.tell_status(&world, 1, status);
        assert!(rig.asked(1, shares_query).is_none(), "asked for an epoch that cannot be");
    }
}

/// A peer that boasts and then says nothing is not believed again at once: others get their turn.
#[test]
fn a_silent_boaster_does_not_keep_the_download_to_itself() {
    let mut world = World::new();
    let mut honest = Rig::new(&world);
    for head in world.chain(world.genesis(), &key(1), 5) {
        honest.gossip(&world, 1, &head);
    }
    let tip = honest.engine.view().tip;
    let mut rig = Rig::new(&world);
    for peer in 1..=6 {
        rig.up(&world, peer);
    }
    let boasting = boast(&world, 1_000);
    rig.tell_status(&world, 1, boasting.clone());
    assert!(rig.asked(1, heads_query).is_some());
    // None of five ever answers for its chain; only the sixth has one.
    let mut waited = 0;
    while rig.engine.view().tip != tip && waited < 900_000 {
        rig.tick(&world, 250);
        waited += 250;
        for peer in 1..=5 {
            for (ask, query) in rig.asked_of(peer) {
                if matches!(query, Query::Status { .. }) {
                    rig.reply(&world, peer, ask, Reply::Status(boasting.clone()));
                }
            }
        }
        rig.serve_from(&world, 6, &mut honest, 64);
    }
    assert_eq!(rig.engine.view().tip, tip, "after {waited} ms");
    assert!(waited < 300_000, "{waited} ms");
}

/// Nor does one that answers slowly with what is known, a head at a time.
#[test]
fn a_slow_boaster_does_not_keep_the_download_to_itself() {
    let mut world = World::new();
    let mut rig = Rig::new(&world);
    let known = world.chain(world.genesis(), &key(1), 60);
    for head in &known {
        rig.gossip(&world, 1, head);
    }
    let mut honest = Rig::new(&world);
    for head in known.iter().chain(&world.chain(known[59].root(), &key(1), 3)) {
        honest.gossip(&world, 1, head);
    }
    let tip = honest.engine.view().tip;
    rig.up(&world, 1);
    rig.tell_status(&world, 1, boast(&world, 1_000));
    rig.up(&world, 2);
    let (mut waited, mut given) = (0u64, 0);
    while rig.engine.view().tip != tip && waited < 600_000 {
        rig.tick(&world, 14_000);
        waited += 14_000;
        for (ask, query) in rig.asked_of(1) {
            match query {
                Query::Status { .. } => rig.reply(&world, 1, ask, Reply::Status(boast(&world, 1_000))),
                Query::Heads { .. } => {
                    given += 1;
                    rig.reply(&world, 1, ask, Reply::Heads(vec![known[given % 60].clone()]));
                }
                _ => {}
            }
        }
        rig.serve_from(&world, 2, &mut honest, 64);
    }
    assert!(waited < 120_000, "{waited} ms");
}

/// Pages of garbage without end, each as slow as the time-out allows, do not keep the pull of shares to themselves.
#[test]
fn endless_pages_do_not_keep_the_pull_to_themselves() {
    let mut world = World::new();
    let (mut rig, mut honest) = (Rig::new(&world), Rig::new(&world));
    let missing = world.share(world.genesis(), &key(1));
    honest.gossip(&world, 1, &missing);
    let hidden = world.head(world.genesis(), &key(2));
    rig.up(&world, 1);
    let mut lying = rig.status_of(&world, 1);
    lying.epochs = vec![Digest { count: 1_000_000, hash: [1; 8] }];
    rig.tell_status(&world, 1, lying.clone());
    rig.up(&world, 2);
    let (mut waited, mut hash) = (0u64, 1u8);
    let mut after = UnitId([0; 32]);
    while rig.state(&missing).is_none() && waited < 900_000 {
        rig.tick(&world, 14_000);
        waited += 14_000;
        for (ask, query) in rig.asked_of(1) {
            match query {
                Query::Status { .. } => {
                    hash = hash.wrapping_add(1);
                    lying.epochs[0].hash = [hash; 8];
                    rig.reply(&world, 1, ask, Reply::Status(lying.clone()));
                }
                Query::Shares { epoch, .. } => {
                    // Keyed on nothing that anybody knows, in the right order.
                    let garbage = loop {
                        let attempt = world.attempt(hidden.root(), key(3).public(), hidden.receipt().timestamp);
                        let unit = tops_protocol::work::unit_id(&attempt);
                        if unit > after && unit.0[0] <= after.0[0].saturating_add(1) {
                            break world.receipt(attempt, missing.root(), epoch, &key(3), "CPU");
                        }
                    };
                    after = garbage.unit();
                    rig.reply(&world, 1, ask, Reply::Shares { receipts: vec![garbage], more: true });
                }
                _ => {}
            }
        }
        rig.serve_from(&world, 2, &mut honest, 64);
    }
    assert!(waited < 120_000, "{waited} ms");
}

/// Nor do true shares that come one by one, each as late as an answer may come.
#[test]
fn shares_that_drip_do_not_keep_the_pull_to_themselves() {
    let mut world = World::new();
    let (mut rig, mut honest) = (Rig::new(&world), Rig::new(&world));
    let mut shares: Vec<_> = (0..60).map(|_| world.share(world.genesis(), &key(1))).collect();
    for share in &shares {
        honest.gossip(&world, 1, share);
    }
    shares.sort_by_key(|share| share.unit());
    let status = honest.status_of(&world, 1);
    rig.up(&world, 1);
    rig.tell_status(&world, 1, status.clone());
    rig.up(&world, 2);
    let mut waited = 0u64;
    while rig.engine.view().shares < 60 && waited < 900_000 {
        rig.tick(&world, 9_000);
        waited += 9_000;
        for (ask, query) in rig.asked_of(1) {
            match query {
                Query::Status { .. } => rig.reply(&world, 1, ask, Reply::Status(status.clone())),
                Query::Shares { after, .. } => {
                    let next = shares.iter().find(|share| after.is_none_or(|after| share.unit() > after)).cloned();
                    rig.reply(&world, 1, ask, Reply::Shares { more: next.is_some(), receipts: next.into_iter().collect() });
                }
                _ => {}
            }
        }
        rig.serve_from(&world, 2, &mut honest, 64);
    }
    assert!(waited < 120_000, "{waited} ms");
}

/// A boast of a better chain that never comes does not keep shares from being pulled meanwhile.
#[test]
fn a_boast_does_not_keep_shares_from_coming() {
    let mut world = World::new();
    let (mut rig, mut honest) = (Rig::new(&world), Rig::new(&world));
    let share = world.share(world.genesis(), &key(1));
    honest.gossip(&world, 1, &share);
    rig.up(&world, 1);
    rig.tell_status(&world, 1, boast(&world, 1_000));
    assert!(rig.asked(1, heads_query).is_some(), "the download begins");
    rig.up(&world, 2);
    for _ in 0..8 {
        rig.tick(&world, 250);
        rig.serve_from(&world, 2, &mut honest, 64);
    }
    assert_eq!(rig.state(&share), Some(ShareState::Audited));
}

/// A page of bans is never the last: another peer's bans are pulled all the same.
#[test]
fn endless_bans_do_not_keep_other_bans_out() {
    let mut world = World::new();
    let (mut rig, mut honest) = (Rig::new(&world), Rig::new(&world));
    let liar = key(5);
    let share = world.share(world.genesis(), &liar);
    let lie = world.false_share(world.genesis(), &liar);
    honest.gossip(&world, 1, &share);
    honest.gossip(&world, 1, &lie);
    rig.gossip(&world, 3, &share);
    assert_eq!((honest.engine.view().bans, rig.engine.view().bans), (1, 0));
    rig.up(&world, 1);
    let mut lying = rig.status_of(&world, 1);
    lying.bans = Digest { count: 1_000, hash: [3; 8] };
    rig.tell_status(&world, 1, lying.clone());
    rig.up(&world, 2);
    let mut miners: Vec<_> = (10..250).map(key).collect();
    miners.sort_by_key(|miner| miner.public());
    let (mut waited, mut given) = (0u64, 0);
    while rig.engine.view().bans == 0 && waited < 900_000 {
        rig.tick(&world, 14_000);
        waited += 14_000;
        for (ask, query) in rig.asked_of(1) {
            match query {
                Query::Status { .. } => {
                    lying.bans.hash[0] = lying.bans.hash[0].wrapping_add(1);
                    rig.reply(&world, 1, ask, Reply::Status(lying.clone()));
                }
                Query::Bans { .. } => {
                    let receipt = world.false_share(world.genesis(), &miners[given % miners.len()]);
                    given += 1;
                    rig.reply(&world, 1, ask, Reply::Bans { receipts: vec![receipt], more: true });
                }
                _ => {}
            }
        }
        rig.serve_from(&world, 2, &mut honest, 64);
    }
    assert!(waited < 200_000, "{waited} ms");
}

/// A download that was given up leaves nothing behind that a later download answers for.
#[test]
fn an_honest_peer_does_not_pay_for_the_download_of_another() {
    let mut world = World::new();
    let mut rig = Rig::new(&world);
    let genesis = world.genesis();
    rig.auto = false;
    rig.up(&world, 1);
    rig.tell_status(&world, 1, boast(&world, 1_000));
    let (ask, _) = rig.asked(1, heads_query).unwrap();
    let lie = world.false_head(genesis, &key(6));
    rig.reply(&world, 1, ask, Reply::Heads(vec![lie.clone()]));
    let message = rig.send(&world, 3, Topic::Heads, &lie);
    rig.give(&world, Input::PeerDown { peer: Peer(1) });
    rig.up(&world, 2);
    let head = world.head(genesis, &key(1));
    let mut status = boast(&world, 1);
    (status.tip, status.work) = (head.root(), world.work(head.root()));
    rig.tell_status(&world, 2, status);
    let (ask, _) = rig.asked(2, heads_query).expect("the next one has its turn");
    rig.reply(&world, 2, ask, Reply::Heads(vec![head.clone()]));
    rig.audit_all(&world);
    assert_eq!(rig.verdict(message), Some(Verdict::Reject));
    assert_eq!((rig.penalised.clone(), rig.engine.view().tip), (Vec::new(), head.root()));
}

/// A late audit of a true alert does not cost whoever brought it.
#[test]
fn who_brings_a_true_alert_never_pays() {
    let mut world = World::new();
    let mut rig = Rig::new(&world);
    let liar = key(4);
    let share = world.share(world.genesis(), &liar);
    rig.gossip(&world, 1, &share);
    rig.auto = false;
    let lie = world.false_head(world.genesis(), &liar);
    let message = rig.send(&world, 2, Topic::Alerts, &lie);
    rig.tick(&world, 9_250);
    assert_eq!(rig.verdict(message), Some(Verdict::Ignore), "the device is slow");
    rig.audit_all(&world);
    assert_eq!((rig.engine.view().bans, rig.penalised.clone()), (1, Vec::new()));
}

/// While devices are slow, one peer fills its own part of the pool and no more.
#[test]
fn a_peer_cannot_fill_the_pool_by_waiting_for_its_verdicts_to_run_out() {
    let mut world = World::new();
    let mut rig = Rig::new(&world);
    rig.auto = false;
    for _ in 0..20 {
        for _ in 0..40 {
            let lie = world.false_share(world.genesis(), &key(9));
            rig.gossip(&world, 1, &lie);
        }
        rig.tick(&world, 10_000);
    }
    assert!(rig.engine.view().undecided <= 64, "{} undecided", rig.engine.view().undecided);
    let share = world.share(world.genesis(), &key(1));
    assert_eq!(rig.gossip(&world, 2, &share), None, "others still find room");
    assert_eq!(rig.engine.view().undecided, 65);
}

/// Nor by leaving and coming again: what it has open, its luck, and that it is shunned come back with its number.
#[test]
fn reconnecting_gives_a_peer_nothing_new() {
    let mut world = World::new();
    let mut rig = Rig::new(&world);
    let genesis = world.genesis();
    rig.auto = false;
    // As a guest, before it speaks sync, and then in round after round.
    for round in 0..20 {
        for _ in 0..40 {
            let lie = world.false_share(genesis, &key(9));
            rig.gossip(&world, 1, &lie);
        }
        if round > 0 {
            rig.give(&world, Input::PeerDown { peer: Peer(1) });
            // Gone, and its last messages are still on their way.
            let lie = world.false_share(genesis, &key(9));
            rig.gossip(&world, 1, &lie);
        }
        rig.tick(&world, 10_000);
        rig.up(&world, 1);
    }
    assert_eq!(rig.engine.view().undecided, 64);
    // Each of those is a fresh key's false share: four a minute are bad luck, wherever the peer is when it turns out.
    for _ in 0..8 {
        rig.give(&world, Input::PeerDown { peer: Peer(1) });
        rig.audit_one(&world);
        rig.up(&world, 1);
    }
    assert_eq!(rig.penalised, vec![(Peer(1), PeerFault::FalseShare); 4]);
    rig.audit_all(&world);
    assert_eq!(rig.engine.view().undecided, 0);

    // A boaster that says nothing is not asked again because it came anew.
    let comes_and_boasts = |rig: &mut Rig| {
        rig.give(&world, Input::PeerDown { peer: Peer(1) });
        rig.asks.clear();
        rig.up(&world, 1);
        rig.tell_status(&world, 1, boast(&world, 1_000));
        rig.asked(1, heads_query).is_some()
    };
    let before = rig.now;
    let asked = (0..60).filter(|_| comes_and_boasts(&mut rig)).count();
    let waited = rig.now.since(before);
    assert!((30_000..120_000).contains(&waited) && (2..8).contains(&asked), "asked {asked} times in {waited} ms");
    rig.now = rig.now.plus(1_000_000);
    assert!(comes_and_boasts(&mut rig), "and that goes by");
}

/// However many gossip, what waits to be forwarded leaves room for what this node asks for.
#[test]
fn a_crowd_of_peers_fills_half_of_the_pool_and_no_more() {
    let mut world = World::new();
    let mut rig = Rig::new(&world);
    rig.auto = false;
    for peer in 0..40 {
        for _ in 0..64 {
            let lie = world.false_share(world.genesis(), &key(9));
            rig.gossip(&world, peer, &lie);
        }
    }
    assert_eq!(rig.engine.view().undecided, 2_048);
    let head = world.head(world.genesis(), &key(1));
    assert_eq!(rig.gossip(&world, 50, &head), None, "heads have room of their own");
    for peer in 60..80 {
        for _ in 0..64 {
            let lie = world.false_head(world.genesis(), &key(9));
            rig.gossip(&world, peer, &lie);
        }
    }
    assert_eq!(rig.engine.view().undecided, 2_048 + 512, "and no more than that");
    rig.audit_all(&world);
    assert_eq!((rig.engine.view().undecided, rig.engine.view().tip), (0, head.root()));
}

/// A thousand peers with sixteen held receipts each: four thousand are held in all.
#[test]
fn what_is_held_for_all_peers_together_is_bounded() {
    let mut world = World::new();
    let mut rig = Rig::new(&world);
    let hidden = world.head(world.genesis(), &key(1));
    let shares: Vec<_> = (0..16).map(|_| world.share(hidden.root(), &key(1))).collect();
    let mut open = 0;
    for peer in 0..1_000 {
        rig.up(&world, peer);
        open += shares.iter().filter(|share| rig.gossip(&world, peer, share).is_none()).count();
    }
    assert_eq!((open, rig.engine.view().held), (4_096, 4_096));
    rig.tick(&world, 3_250);
    assert_eq!(rig.engine.view().held, 0);
    assert!(rig.verdicts.values().all(|verdicts| verdicts.len() == 1 && verdicts[0].0 == Verdict::Ignore));
    // Room comes back, also to those who were turned away because there was none.
    let held = shares.iter().filter(|share| rig.gossip(&world, 999, share).is_none()).count();
    assert_eq!(held, 16);
}

/// What height a peer claims does not decide what is audited.
#[test]
fn a_light_node_audits_recent_heads_whatever_height_a_peer_claims() {
    let mut world = World::new();
    let mut config = rig::config(&world);
    config.light = true;
    let mut rig = Rig::with(config);
    for head in world.chain(world.genesis(), &key(1), 20) {
        rig.gossip(&world, 1, &head);
    }
    let tip = rig.engine.view().tip;
    rig.now = world.stamp(tip);
    rig.up(&world, 2);
    for attempt in 0..8u64 {
        let lie = world.false_head(tip, &key(9));
        rig.tick(&world, 900_000);
        rig.up(&world, 3 + attempt);
        rig.tell_status(&world, 3 + attempt, boast(&world, 1_000_000));
        if let Some((ask, _)) = rig.asked(3 + attempt, heads_query) {
            rig.reply(&world, 3 + attempt, ask, Reply::Heads(vec![lie]));
        }
        while let Some((ask, _)) = rig.asked(3 + attempt, heads_query) {
            rig.reply(&world, 3 + attempt, ask, Reply::Heads(Vec::new()));
        }
        rig.give(&world, Input::PeerDown { peer: Peer(3 + attempt) });
        assert_eq!(rig.engine.view().tip, tip, "an unaudited head became the tip");
    }
}

/// Shares that fell below retention are gone for good, also when a heavier chain is shorter: they would count twice.
#[test]
fn what_retention_dropped_never_comes_back() {
    let mut world = World::new();
    let mut rig = Rig::new(&world);
    let miner = key(1);
    let mut heads = Vec::new();
    let mut tip = world.genesis();
    // From 41 on slow heads: easy, so a branch of fast ones outweighs them with fewer.
    for height in 1..=96u64 {
        let stamp = rig::GENESIS_MS + 4_000 * height + 40_000 * height.saturating_sub(41);
        let head = world.head_at(tip, &miner, Millis(stamp));
        tip = head.root();
        rig.now = rig.now.max(head.receipt().timestamp);
        rig.gossip(&world, 1, &head);
        heads.push(head);
    }
    let fork = heads[40].root();
    // 96 is a multiple of 16: epochs below 97 − 64 = 33 are gone.
    let dropped = &heads[31];
    assert_eq!((rig.state(dropped), rig.credit(&miner).shares), (None, 96));
    let mut branch = fork;
    let mut stamp = heads[40].receipt().timestamp.0 + 1;
    let mut made = Vec::new();
    while world.work(branch) <= world.work(tip) {
        let head = world.head_at(branch, &key(2), Millis(stamp));
        stamp += 1;
        branch = head.root();
        made.push(head);
    }
    assert!(41 + made.len() < 96, "{} heads", made.len());
    for head in &made {
        assert_eq!(rig.gossip(&world, 1, head), Some(Verdict::Accept));
    }
    assert_eq!(rig.engine.view().tip, branch);
    let credit = rig.credit(&miner);
    // The aggregator takes what it was owed, and the mark of that goes with the next pruning; here at once, to make it hard.
    rig.table.outbox.clear();
    // A peer that has not pruned yet offers the old epoch: in this life, after a restart, and after one with a longer retention.
    for (peer, retain) in [(5, None), (6, Some(64)), (7, Some(RETAIN_EPOCHS_MAX))] {
        if let Some(retain) = retain {
            rig.config.retain_epochs = retain;
            rig.restart();
        }
        rig.up(&world, peer);
        let mut status = rig.status_of(&world, 1);
        assert!(status.first_epoch >= 33, "first epoch {}", status.first_epoch);
        (status.first_epoch, status.epochs) = (32, vec![Digest { count: 1, hash: [2; 8] }]);
        rig.tell_status(&world, peer, status);
        if let Some((ask, _)) = rig.asked(peer, shares_query) {
            rig.reply(&world, peer, ask, Reply::Shares { receipts: vec![dropped.clone()], more: false });
        }
        assert_eq!((rig.credit(&miner), rig.outbox(dropped)), (credit, None), "retention {retain:?}");
    }
}

/// A node far behind pulls no faster than its peers allow.
#[test]
fn a_late_joiner_is_never_greedy() {
    let mut world = World::new();
    let mut config = rig::config(&world);
    config.retain_epochs = 1_440;
    let (mut honest, mut joiner) = (Rig::with(config.clone()), Rig::with(config));
    for head in world.chain(world.genesis(), &key(1), 600) {
        honest.now = honest.now.max(head.receipt().timestamp);
        honest.tick(&world, 250);
        honest.gossip(&world, 1, &head);
        let share = world.share(head.root(), &key(2));
        honest.gossip(&world, 2, &share);
    }
    assert_eq!(honest.credit(&key(2)).shares, 600);
    joiner.now = honest.now;
    honest.up(&world, 1);
    joiner.up(&world, 1);
    for _ in 0..400 {
        joiner.tick(&world, 250);
        honest.tick(&world, 250);
        while let Some((ask, query)) = joiner.asked(1, |_| true) {
            let answer = AnswerId(honest.number());
            honest.give(&world, Input::Ask { peer: Peer(1), answer, query: query.clone() });
            assert_ne!(honest.answers.remove(&answer), Some(Answer::Refused));
            let reply = honest.answer(&world, query);
            joiner.reply(&world, 1, ask, reply);
        }
    }
    assert!(honest.penalised.is_empty());
    assert_eq!(joiner.engine.view().tip, honest.engine.view().tip);
    assert_eq!(joiner.credit(&key(2)).shares, 600);
}

/// Nor does it ask for bans faster than that, however short their pages are.
#[test]
fn pages_of_bans_are_paced() {
    let mut world = World::new();
    let (mut rig, mut honest) = (Rig::new(&world), Rig::new(&world));
    let secret = |i: u16| {
        let mut bytes = [3; 32];
        bytes[..2].copy_from_slice(&i.to_be_bytes());
        tops_protocol::keys::SecretKey::from_bytes(&bytes).unwrap()
    };
    let mut liars: Vec<_> = (0..700).map(secret).collect();
    liars.sort_by_key(|liar| liar.public());
    let mut lies = liars.iter().map(|liar| world.false_share(world.genesis(), liar)).collect::<Vec<_>>().into_iter();
    honest.up(&world, 1);
    rig.up(&world, 1);
    let mut status = rig.status_of(&world, 1);
    status.bans = Digest { count: 700, hash: [3; 8] };
    rig.tell_status(&world, 1, status);
    let (mut pages, mut ticks) = (0, 0);
    while lies.len() > 0 {
        while let Some((ask, query)) = rig.asked(1, |query| matches!(query, Query::Bans { .. })) {
            pages += 1;
            // An honest peer's budget is what tells whether that was too much.
            let answer = AnswerId(honest.number());
            honest.give(&world, Input::Ask { peer: Peer(1), answer, query });
            let receipts: Vec<_> = lies.next().into_iter().collect();
            rig.reply(&world, 1, ask, Reply::Bans { receipts, more: true });
        }
        rig.tick(&world, 250);
        honest.now = rig.now;
        ticks += 1;
        assert!(pages <= 256 + 10 * ticks, "{pages} pages within {ticks} quarters of a second");
    }
    assert!(honest.penalised.is_empty() && rig.penalised.is_empty());
    assert!(ticks < 60, "{ticks}");
}
