//! How two engines come to the same chain and the same shares (spec §4, §6), and what a light one does without looking at all of it.

#![allow(missing_docs, clippy::unwrap_used)]

mod rig;

use rig::{Rig, World, essence, key};
use tops_protocol::Millis;
use tops_protocol::engine::*;
use tops_protocol::verify::Semantic;

/// Lets `to` ask and `from` answer for this long.
fn talk(world: &World, to: &mut Rig, from: &mut Rig, ms: u64) {
    for _ in 0..ms.div_ceil(250) {
        to.now = to.now.max(from.now);
        to.tick(world, 250);
        to.serve_from(world, 1, from, 1_000);
    }
}

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

const LENGTH: u64 = 2_300;
const FALSE_AT: usize = 100;

/// A long chain in which the head at [`FALSE_AT`] is invented, and a rig that serves it.
fn long_chain(world: &mut World) -> (Vec<Semantic>, Millis) {
    let mut heads: Vec<Semantic> = Vec::new();
    let mut tip = world.genesis();
    for height in 1..=LENGTH as usize {
        let head = if height == FALSE_AT { world.false_head(tip, &key(8)) } else { world.head(tip, &key(6)) };
        tip = head.root();
        heads.push(head);
    }
    let end = heads[heads.len() - 1].receipt().timestamp;
    (heads, end)
}

fn light(world: &World, retain: u64, mut fits: impl FnMut(&[u8; 32]) -> bool) -> Rig {
    let mut config = rig::config(world);
    (config.light, config.retain_epochs) = (true, retain);
    while !fits(&config.secret) {
        config.secret = *blake3::hash(&config.secret).as_bytes();
    }
    Rig::with(config)
}

fn drawn(secret: &[u8; 32], head: &Semantic) -> bool {
    let hash = blake3::keyed_hash(secret, &head.id().0);
    u64::from_le_bytes(hash.as_bytes()[..8].try_into().unwrap()) % 1_000_000 < 15_625
}

/// Offers the chain to the rig, page by page.
fn offer(world: &World, rig: &mut Rig, heads: &[Semantic]) {
    let tip = heads[heads.len() - 1].root();
    rig.up(world, 1);
    let status = Status {
        tip,
        height: tops_protocol::Height(heads.len() as u64),
        work: world.work(tip),
        first_epoch: 1,
        epochs: Vec::new(),
        bans: Digest::default(),
    };
    rig.tell_status(world, 1, status);
    while let Some((ask, Query::Heads { locator })) = rig.asked(1, |query| matches!(query, Query::Heads { .. })) {
        let at = locator
            .iter()
            .filter(|(h, r)| h.0 > 0 && heads.get(h.0 as usize - 1).is_some_and(|head| head.root() == *r))
            .map(|(h, _)| h.0)
            .max();
        let from = at.unwrap_or(0) as usize;
        rig.reply(world, 1, ask, Reply::Heads(heads[from..heads.len().min(from + HEADS_PER_REPLY)].to_vec()));
    }
}

#[test]
fn a_light_node_drops_a_chain_with_a_false_drawn_head_and_cuts_one_that_it_finds_later() {
    let mut world = World::new();
    let (heads, end) = long_chain(&mut world);
    let lie = &heads[FALSE_AT - 1];
    // Drawn: the whole offer is dropped, its peer pays.
    let mut rig = light(&world, 64, |secret| drawn(secret, lie));
    rig.now = end;
    offer(&world, &mut rig, &heads);
    assert_eq!((rig.engine.view().height.0, rig.penalised.as_slice()), (0, [(Peer(1), PeerFault::FalseHead)].as_slice()));
    assert!(rig.table.heads.len() < FALSE_AT && rig.table.main.is_empty());

    // Not drawn: it weighs as claimed; the last 2,048 are audited one by one.
    let mut rig = light(&world, 4_095, |secret| !drawn(secret, lie));
    rig.now = end;
    offer(&world, &mut rig, &heads);
    assert_eq!(rig.engine.view().height.0, LENGTH);
    let claimed = rig.table.heads.values().filter(|row| !row.audited).count();
    assert!((200..LENGTH as usize - 2_047).contains(&claimed), "{claimed} claimed");
    // Idle, it looks at what it let pass: true heads are confirmed once, and the false one goes with all that stands on it.
    rig.tick(&world, 10_000);
    let view = rig.engine.view();
    assert_eq!((view.height.0, view.unaudited, view.bans), (FALSE_AT as u64 - 1, 0, 1));
    assert!(rig.table.heads.values().all(|row| row.audited));
    assert_eq!((rig.table.main.len(), rig.table.heads.len()), (FALSE_AT - 1, FALSE_AT - 1));
    assert_eq!(essence(&rig.engine), essence(&rig.restored()));
    assert_eq!((rig.credit(&key(6)).shares, rig.credit(&key(6)).heads, rig.credit(&key(8)).shares), (99, 99, 0));
}
