//! Whatever comes in whatever order, every gossiped message gets one verdict, within nine seconds and a tick, and budgets come back.

#![allow(missing_docs, clippy::unwrap_used)]

mod rig;

use proptest::prelude::*;
use rig::{Rig, World, key};
use tops_protocol::engine::*;
use tops_protocol::{Height, Millis, Root, U256};

#[derive(Debug, Clone)]
enum Step {
    Gossip { what: u8, who: u8, parent: u8, topic: u8, peer: u8 },
    Again { which: u8, topic: u8, peer: u8 },
    Audit { which: u8, able: bool },
    Tick(u16),
    Up(u8),
    Down(u8),
    Status { peer: u8, work: u64, first: u64, epochs: u8 },
    Reply { which: u8, what: u8 },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => any::<(u8, u8, u8, u8, u8)>().prop_map(|(what, who, parent, topic, peer)| Step::Gossip { what, who, parent, topic, peer }),
        1 => any::<(u8, u8, u8)>().prop_map(|(which, topic, peer)| Step::Again { which, topic, peer }),
        4 => any::<(u8, bool)>().prop_map(|(which, able)| Step::Audit { which, able }),
        2 => (0u16..4_000).prop_map(Step::Tick),
        1 => any::<u8>().prop_map(Step::Up),
        1 => any::<u8>().prop_map(Step::Down),
        1 => (any::<u8>(), any::<u64>(), prop_oneof![0u64..5, Just(u64::MAX), any::<u64>()], any::<u8>())
            .prop_map(|(peer, work, first, epochs)| Step::Status { peer, work, first, epochs }),
        2 => any::<(u8, u8)>().prop_map(|(which, what)| Step::Reply { which, what }),
    ]
}

fn topic(tag: u8) -> Topic {
    [Topic::Heads, Topic::Receipts, Topic::Receipts, Topic::Alerts][usize::from(tag % 4)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn one_message_one_verdict_in_time(steps in proptest::collection::vec(step(), 1..120)) {
        let mut world = World::new();
        let mut rig = Rig::new(&world);
        rig.auto = false;
        let mut heads = vec![world.genesis()];
        let mut seen = Vec::new();
        let mut sent = Vec::new();
        for step in steps {
            match step {
                Step::Gossip { what, who, parent, topic: tag, peer } => {
                    let (key, parent) = (key(1 + who % 3), heads[usize::from(parent) % heads.len()]);
                    let receipt = match what % 6 {
                        0 => world.head(parent, &key),
                        1 | 2 => world.share(parent, &key),
                        3 => world.false_share(parent, &key),
                        4 => world.false_head(parent, &key),
                        _ => {
                            let attempt = world.attempt(parent, key.public(), Millis((1 << 53) - 1));
                            world.receipt(attempt, Root([0; 32]), u64::from(who) << 44, &key, "edge")
                        }
                    };
                    if matches!(what % 6, 0 | 4) {
                        heads.push(receipt.root());
                    }
                    seen.push(receipt.clone());
                    let tag = if tag > 40 { if matches!(what % 6, 0 | 4) { 0 } else { 1 } } else { tag };
                    sent.push((rig.send(&world, u64::from(peer % 5), topic(tag), &receipt), rig.now));
                }
                Step::Again { which, topic: tag, peer } => {
                    if let Some(receipt) = seen.get(usize::from(which) % seen.len().max(1)).cloned() {
                        sent.push((rig.send(&world, u64::from(peer % 5), topic(tag), &receipt), rig.now));
                    }
                }
                Step::Audit { which, able } => {
                    if !rig.audits.is_empty() {
                        let at = usize::from(which) % rig.audits.len();
                        let (audit, _, attempt) = rig.audits.remove(at).unwrap();
                        let outcome = if able || which > 40 { AuditOutcome::Computed(world.root(&attempt)) } else { AuditOutcome::Unable };
                        rig.give(&world, Input::Audited { audit, outcome });
                    }
                }
                Step::Tick(ms) => rig.tick(&world, ms.into()),
                Step::Up(peer) => rig.up(&world, u64::from(peer % 5)),
                Step::Down(peer) => rig.give(&world, Input::PeerDown { peer: Peer(u64::from(peer % 5)) }),
                Step::Status { peer, work, first, epochs } => {
                    let peer = u64::from(peer % 5);
                    if let Some((ask, _)) = rig.asked(peer, |query| matches!(query, Query::Status { .. })) {
                        let tip = if work % 2 == 0 { rig.engine.view().tip } else { Root([work as u8; 32]) };
                        let digest = Digest { count: work as u32, hash: [1; 8] };
                        let epochs = vec![digest; epochs.into()];
                        let status = Status { tip, height: Height(work), work: U256::from(work), first_epoch: first, epochs, bans: digest };
                        rig.reply(&world, peer, ask, Reply::Status(status));
                    }
                }
                Step::Reply { which, what } => {
                    if !rig.asks.is_empty() {
                        let (peer, ask, query) = rig.asks.remove(usize::from(which) % rig.asks.len());
                        let some: Vec<_> = seen.iter().skip(usize::from(what) % 7).take(usize::from(what) % 5).cloned().collect();
                        let reply = match (what % 4, query) {
                            (0, _) => Reply::Failed,
                            (1, _) => Reply::Invalid,
                            (_, Query::Heads { .. } | Query::HeadsByRoot { .. }) => Reply::Heads(some),
                            (more, Query::Shares { .. }) => Reply::Shares { receipts: some, more: more == 2 },
                            (more, Query::Bans { .. }) => Reply::Bans { receipts: some, more: more == 2 },
                            (_, Query::Status { .. }) => Reply::Heads(some),
                        };
                        rig.give(&world, Input::Reply { peer, ask, reply });
                    }
                }
            }
        }
        rig.tick(&world, 9_250);
        for (message, at) in sent.iter().copied() {
            let verdicts = rig.verdicts.get(&message).cloned().unwrap_or_default();
            prop_assert_eq!(verdicts.len(), 1, "one verdict for {:?}", message);
            prop_assert!(verdicts[0].1.since(at) <= 9_250);
        }
        // Whatever is left is audited; then all room is free again.
        rig.audit_all(&world);
        rig.tick(&world, 3_250);
        rig.audit_all(&world);
        let view = rig.engine.view();
        prop_assert_eq!((view.held, view.audits_in_flight), (0, 0));
        let peer = sent.len() as u8 % 5;
        rig.now = rig.now.plus(600_000);
        for _ in 0..64 {
            let lie = world.false_share(view.tip, &key(100 + peer));
            let message = rig.send(&world, peer.into(), Topic::Receipts, &lie);
            prop_assert_eq!(rig.verdict(message), None, "peer {} has its whole budget", peer);
        }
    }
}
