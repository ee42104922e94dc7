//! What a light node takes as claimed, for how long, and what it tells of it (spec §4, first sync).

#![allow(missing_docs, clippy::unwrap_used)]

mod rig;

use rig::{Rig, World, essence, key, talk};
use tops_protocol::engine::*;
use tops_protocol::verify::Semantic;
use tops_protocol::{Height, Millis, Root, U256};

/// All of so many last heads are audited.
const RECENT: u64 = 2_048;

fn light(world: &World, retain: u64) -> Rig {
    let mut config = rig::config(world);
    (config.light, config.retain_epochs) = (true, retain);
    Rig::with(config)
}

/// Whether a light node looks at an old head of the nth download of its life.
fn drawn(rig: &Rig, nth: u64, head: &Semantic) -> bool {
    let salted = [nth.to_le_bytes().as_slice(), &head.id().0].concat();
    let hash = blake3::keyed_hash(&rig.config.secret, &salted);
    u64::from_le_bytes(hash.as_bytes()[..8].try_into().unwrap()) % 1_000_000 < 15_625
}

/// Invented heads on a head that the rig does not look at in its nth download; its clock is where they all are old.
fn lies(world: &mut World, rig: &mut Rig, nth: u64, prev: Root, count: usize) -> Vec<Semantic> {
    let (mut heads, mut tip) = (Vec::new(), prev);
    while heads.len() < count {
        let head = world.false_head(tip, &key(8));
        if !drawn(rig, nth, &head) {
            tip = head.root();
            rig.now = rig.now.max(head.receipt().timestamp.plus(4_000 * RECENT));
            heads.push(head);
        }
    }
    heads
}

/// A tip that nobody has, so high that everything of now is old under it.
fn boast(nth: u64) -> Status {
    let tip = Root(*blake3::hash(&nth.to_le_bytes()).as_bytes());
    Status { tip, height: Height(1_000_000), work: U256::MAX, first_epoch: 1, epochs: Vec::new(), bans: Digest::default() }
}

fn heads_asked(rig: &mut Rig, peer: u64) -> Option<AskId> {
    rig.asked(peer, |query| matches!(query, Query::Heads { .. })).map(|(ask, _)| ask)
}

/// A rig that took a page of lies as claimed and asks for the next.
fn deceived(world: &mut World, pages: usize) -> (Rig, AskId) {
    let mut rig = light(world, 64);
    let genesis = world.genesis();
    let heads = lies(world, &mut rig, 1, genesis, pages * HEADS_PER_REPLY);
    rig.up(world, 1);
    rig.tell_status(world, 1, boast(1));
    for page in heads.chunks(HEADS_PER_REPLY) {
        let ask = heads_asked(&mut rig, 1).unwrap();
        rig.reply(world, 1, ask, Reply::Heads(page.to_vec()));
    }
    assert_eq!((rig.engine.view().height.0, rig.table.main.len()), (heads.len() as u64, heads.len()));
    assert!(rig.table.heads.values().all(|row| !row.audited));
    let next = heads_asked(&mut rig, 1).unwrap();
    (rig, next)
}

fn has_nothing(rig: &Rig) {
    let view = rig.engine.view();
    assert_eq!((view.height.0, view.heads, view.shares), (0, 1, 0));
    assert!(rig.table.main.is_empty() && rig.table.heads.is_empty() && rig.table.shares.is_empty());
    assert_eq!(rig.credit(&key(8)).shares, 0);
    assert_eq!(essence(&rig.engine), essence(&rig.restored()));
}

#[test]
fn what_was_taken_as_claimed_goes_when_the_next_page_never_comes() {
    let mut world = World::new();
    let (mut rig, mut ask) = deceived(&mut world, 1);
    let height = rig.engine.view().height;
    // Devices are busy elsewhere, or an idle node would look for itself.
    rig.auto = false;
    for _ in 0..2 {
        // A page may get lost: what has come so far is not given up at once.
        rig.reply(&world, 1, ask, Reply::Failed);
        assert_eq!(rig.engine.view().height, height);
        rig.tick(&world, 250);
        ask = heads_asked(&mut rig, 1).unwrap();
    }
    rig.reply(&world, 1, ask, Reply::Failed);
    has_nothing(&rig);
}

#[test]
fn what_was_taken_as_claimed_goes_with_its_peer() {
    let mut world = World::new();
    let (mut rig, _) = deceived(&mut world, 1);
    rig.give(&world, Input::PeerDown { peer: Peer(1) });
    has_nothing(&rig);
}

#[test]
fn what_was_taken_as_claimed_does_not_survive_a_restart() {
    let mut world = World::new();
    let (mut rig, _) = deceived(&mut world, 1);
    rig.restart();
    assert_eq!(rig.engine.view().height.0, 0);
    rig.tick(&world, 250);
    has_nothing(&rig);
}

/// So much that the place to cut is below what a snapshot holds.
#[test]
fn nor_does_more_of_it_than_a_snapshot_holds() {
    let mut world = World::new();
    let (mut rig, _) = deceived(&mut world, 10);
    rig.restart();
    assert_eq!((rig.engine.view().height.0, rig.engine.view().heads), (0, 1));
    rig.tick(&world, 250);
    assert!(rig.table.main.is_empty() && rig.table.shares.is_empty() && rig.credit(&key(8)).shares == 0);
    // What no snapshot named is left in the store, and has no weight in any later life.
    assert!(!rig.table.heads.is_empty());
    rig.restart();
    assert_eq!((rig.engine.view().height.0, rig.engine.view().heads), (0, 1));
    let head = world.head(world.genesis(), &key(1));
    rig.gossip(&world, 1, &head);
    assert_eq!(rig.engine.view().tip, head.root());
}

/// A restart cuts what is claimed and keeps the audited heads below it.
#[test]
fn a_restart_keeps_what_was_audited_before_the_download() {
    let mut world = World::new();
    let mut rig = light(&world, 64);
    let honest = world.chain(world.genesis(), &key(1), 5);
    for head in &honest {
        rig.gossip(&world, 1, head);
    }
    let tip = honest[4].root();
    let heads = lies(&mut world, &mut rig, 1, tip, HEADS_PER_REPLY);
    rig.up(&world, 1);
    rig.tell_status(&world, 1, boast(1));
    let ask = heads_asked(&mut rig, 1).unwrap();
    rig.reply(&world, 1, ask, Reply::Heads(heads));
    assert_eq!(rig.engine.view().height.0, 5 + HEADS_PER_REPLY as u64);
    rig.restart();
    assert_eq!((rig.engine.view().height.0, rig.engine.view().tip), (5, tip));
    rig.tick(&world, 250);
    assert_eq!((rig.table.main.len(), rig.table.heads.len()), (5, 5));
    assert_eq!((rig.credit(&key(1)).shares, rig.credit(&key(8)).shares), (5, 0));
    assert_eq!(essence(&rig.engine), essence(&rig.restored()));
}

/// The last heads must have come before what is below them may stay; what a receipt says of its own height is no proof of that.
#[test]
fn a_forged_height_does_not_end_a_download() {
    for same_unit in [true, false] {
        let mut world = World::new();
        let (mut rig, ask) = deceived(&mut world, 1);
        let claimed: Vec<Semantic> = rig.table.heads.values().map(|row| world.read(&row.wire)).collect();
        let forger = if same_unit { key(8) } else { key(9) };
        let forged = claimed.iter().map(|head| {
            let attempt = tops_protocol::Attempt { miner: forger.public(), ..head.attempt() };
            world.receipt(attempt, head.root(), 1_000_000, &forger, "CPU")
        });
        rig.reply(&world, 1, ask, Reply::Heads(forged.collect()));
        if let Some(ask) = heads_asked(&mut rig, 1) {
            rig.reply(&world, 1, ask, Reply::Heads(Vec::new()));
        }
        has_nothing(&rig);
        assert_eq!(rig.penalised.is_empty(), same_unit, "another unit under a known root is a head that does not fit");
    }
}

/// Who looks where is drawn anew in each download: a lie that passed once does not pass for ever.
#[test]
fn a_lie_that_is_offered_often_is_looked_at_in_the_end() {
    let mut world = World::new();
    let mut rig = light(&world, 64);
    let genesis = world.genesis();
    let lie = lies(&mut world, &mut rig, 1, genesis, 1).remove(0);
    let mut caught = Vec::new();
    for offer in 1..=300 {
        rig.up(&world, offer);
        rig.tell_status(&world, offer, boast(offer));
        let ask = heads_asked(&mut rig, offer).expect("every offer is taken up");
        rig.reply(&world, offer, ask, Reply::Heads(vec![lie.clone()]));
        let punished = rig.penalised.drain(..).any(|fault| fault == (Peer(offer), PeerFault::FalseHead));
        assert_eq!(punished, drawn(&rig, offer, &lie));
        caught.extend(punished.then_some(offer));
        assert_eq!(rig.engine.view().height.0, 0, "too few heads came for any to stay");
        rig.give(&world, Input::PeerDown { peer: Peer(offer) });
    }
    // One in 64 of 300.
    assert!((1..15).contains(&caught.len()), "caught in {caught:?}");
}

/// A root that the tree holds as claimed under one unit is audited when it comes under another; the true one takes its place.
#[test]
fn a_stolen_root_that_was_taken_as_claimed_gives_way_to_its_owner() {
    let mut world = World::new();
    let mut rig = light(&world, 64);
    let genesis = world.genesis();
    let head = world.head(genesis, &key(1));
    let stolen = loop {
        let attempt = world.attempt(genesis, key(8).public(), head.receipt().timestamp);
        let stolen = world.receipt(attempt, head.root(), 1, &key(8), "CPU");
        if !drawn(&rig, 1, &stolen) {
            break stolen;
        }
    };
    let on_it = lies(&mut world, &mut rig, 1, head.root(), HEADS_PER_REPLY - 1);
    rig.up(&world, 1);
    rig.tell_status(&world, 1, boast(1));
    let ask = heads_asked(&mut rig, 1).unwrap();
    rig.reply(&world, 1, ask, Reply::Heads(std::iter::once(stolen).chain(on_it).collect()));
    assert_eq!(rig.engine.view().height.0, HEADS_PER_REPLY as u64);
    rig.gossip(&world, 2, &head);
    assert_eq!((rig.engine.view().tip, rig.engine.view().heads), (head.root(), 2));
    assert_eq!((rig.credit(&key(1)).heads, rig.credit(&key(8)).shares), (1, 0));
    assert!(rig.table.heads.values().all(|row| row.audited));
}

const LENGTH: u64 = 2_300;
const FALSE_AT: usize = 100;

/// A long chain in which the head at `false_at` is invented; the rig that is told of it first looks at that one or does not.
fn long_chain(world: &mut World, false_at: usize, fits: impl Fn(&Semantic) -> bool) -> (Vec<Semantic>, Millis) {
    let mut heads: Vec<Semantic> = Vec::new();
    let mut tip = world.genesis();
    while heads.len() < LENGTH as usize {
        let head = if heads.len() + 1 == false_at { world.false_head(tip, &key(8)) } else { world.head(tip, &key(6)) };
        if heads.len() + 1 == false_at && !fits(&head) {
            continue;
        }
        tip = head.root();
        heads.push(head);
    }
    let end = heads[heads.len() - 1].receipt().timestamp;
    (heads, end)
}

/// Offers the chain to the rig, page by page.
fn offer(world: &World, rig: &mut Rig, heads: &[Semantic]) {
    let tip = heads[heads.len() - 1].root();
    rig.up(world, 1);
    let (height, work) = (Height(heads.len() as u64), world.work(tip));
    rig.tell_status(world, 1, Status { tip, height, work, ..boast(0) });
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
fn a_chain_with_a_false_head_is_dropped_when_it_is_drawn_and_cut_when_it_is_found_later() {
    let mut world = World::new();
    let mut rig = light(&world, 4_095);
    let (heads, end) = long_chain(&mut world, FALSE_AT, |lie| !drawn(&rig, 1, lie));
    let lie = &heads[FALSE_AT - 1];
    // Drawn: the whole offer is dropped, its peer pays.
    let mut other = light(&world, 64);
    while !drawn(&other, 1, lie) {
        other.config.secret = *blake3::hash(&other.config.secret).as_bytes();
    }
    other = Rig::with(other.config);
    other.now = end;
    offer(&world, &mut other, &heads);
    assert_eq!((other.engine.view().height.0, other.penalised.as_slice()), (0, [(Peer(1), PeerFault::FalseHead)].as_slice()));
    assert!(other.table.heads.is_empty() && other.table.main.is_empty());

    // Not drawn: it weighs as claimed; the last 2,048 are audited one by one.
    rig.now = end;
    offer(&world, &mut rig, &heads);
    assert_eq!(rig.engine.view().height.0, LENGTH);
    let claimed = rig.table.heads.values().filter(|row| !row.audited).count();
    assert!((200..(LENGTH - RECENT) as usize + 1).contains(&claimed), "{claimed} claimed");
    assert_eq!((rig.restored().view().height.0, rig.penalised.len()), (LENGTH, 0), "what ends well stays");

    // What it was allowed to take as claimed it tells nobody: who believes it in good faith does not pay for the lie.
    let mut full = Rig::new(&world);
    full.config.retain_epochs = 4_095;
    full = Rig::with(full.config);
    full.now = end;
    full.up(&world, 1);
    talk(&world, &mut full, &mut rig, 60_000);
    assert!(full.penalised.is_empty(), "{:?}", full.penalised);
    assert!(full.engine.view().height.0 < FALSE_AT as u64);
    // Also when the other has the chain, and asks for shares and for that head by its root.
    let Reply::Heads(shown) = rig.answer(&world, Query::HeadsByRoot { roots: vec![lie.root(), heads[LENGTH as usize - 1].root()] }) else {
        panic!("no answer")
    };
    assert_eq!(shown.iter().map(Semantic::root).collect::<Vec<_>>(), [heads[LENGTH as usize - 1].root()]);
    let Reply::Shares { receipts, more: false } = rig.answer(&world, Query::Shares { epoch: FALSE_AT as u64, after: None }) else {
        panic!("no answer")
    };
    assert!(receipts.is_empty());
    assert_eq!(rig.status_of(&world, FALSE_AT as u64).epochs[0], Digest::default(), "digest and page agree");
    // Above what is claimed it serves what it knows.
    let Reply::Heads(above) = rig.answer(&world, Query::Heads { locator: vec![(Height(260), heads[259].root())] }) else {
        panic!("no answer")
    };
    assert_eq!(above.len(), HEADS_PER_REPLY);

    // Idle, it looks at what it let pass: true heads are confirmed once, and the false one goes with all that stands on it.
    rig.asks.clear();
    rig.tick(&world, 10_000);
    let view = rig.engine.view();
    assert_eq!((view.height.0, view.unaudited, view.bans), (FALSE_AT as u64 - 1, 0, 1));
    assert!(rig.table.heads.values().all(|row| row.audited));
    assert_eq!((rig.table.main.len(), rig.table.heads.len()), (FALSE_AT - 1, FALSE_AT - 1));
    assert_eq!(essence(&rig.engine), essence(&rig.restored()));
    assert_eq!((rig.credit(&key(6)).shares, rig.credit(&key(6)).heads, rig.credit(&key(8)).shares), (99, 99, 0));
}

/// What a light node leaves out of its digests, others have in theirs: the pull brings it again, it is audited as it comes, and they agree.
#[test]
fn a_light_node_and_a_full_one_come_to_the_same_digests() {
    let mut world = World::new();
    let mut rig = light(&world, 4_095);
    // It never looks at shares that are not drawn, however idle it is.
    rig.config.audit_shard = Shard::new(u64::MAX, 1).unwrap();
    rig = Rig::with(rig.config);
    let (heads, end) = long_chain(&mut world, 0, |_| true);
    let mut full = Rig::new(&world);
    full.config.retain_epochs = 4_095;
    full = Rig::with(full.config);
    for rig in [&mut full, &mut rig] {
        rig.now = end;
    }
    offer(&world, &mut full, &heads);
    full.give(&world, Input::PeerDown { peer: Peer(1) });
    assert!(full.table.heads.values().all(|row| row.audited) && full.engine.view().height.0 == LENGTH);
    full.asks.clear();
    rig.up(&world, 1);
    talk(&world, &mut rig, &mut full, 60_000);
    assert_eq!(rig.engine.view().tip, full.engine.view().tip);
    assert_eq!(rig.status_of(&world, 1), full.status_of(&world, 1));
    assert!(rig.table.heads.values().all(|row| row.audited));
    assert_eq!((rig.engine.view().unaudited, rig.engine.view().ledger_digest), (0, full.engine.view().ledger_digest));
    assert!(rig.penalised.is_empty() && full.penalised.is_empty());

    // One that keeps less has let go of what it took as claimed, and serves it neither then nor after a restart.
    let mut short = light(&world, 64);
    short.now = end;
    offer(&world, &mut short, &heads);
    assert_eq!(short.engine.view().height.0, LENGTH);
    for _ in 0..2 {
        let mut serves = |from: usize| {
            let Reply::Heads(shown) = short.answer(&world, Query::Heads { locator: vec![(Height(from as u64), heads[from - 1].root())] })
            else {
                panic!("no answer")
            };
            shown.len()
        };
        assert_eq!((serves(1), serves(100), serves(240)), (0, 0, 0));
        assert_eq!((serves(260), serves(1_000), serves(2_200)), (HEADS_PER_REPLY, HEADS_PER_REPLY, 100));
        short.restart();
        assert_eq!(short.engine.view().height.0, LENGTH, "and it keeps what ended well");
    }
}
