//! Every gossip message gets one verdict, in time; an honest one is never rejected; a head or an alert goes on only when it is what it says.

use tops_protocol::engine::{Topic, Verdict};

use crate::sim::{Bytes, World};

/// Gossip forgets a message after 12 s; a verdict later than this is useless.
const LATEST_MS: u64 = 10_500;

/// Called on every verdict.
///
/// # Panics
/// When it is unfair.
pub fn is_fair(world: &mut World, node: usize, bytes: &Bytes, verdict: Verdict) {
    let Some(semantic) = &bytes.receipt else { panic!("node {node}: a verdict on what never reached the engine") };
    assert!(
        verdict != Verdict::Reject || !world.is_honest(bytes),
        "node {node} rejects an honest {:?} message: {:?}",
        bytes.topic,
        semantic.receipt()
    );
    if verdict == Verdict::Accept {
        let holds = world.truth.root(&semantic.attempt()) == semantic.root();
        match bytes.topic {
            Topic::Heads => assert!(holds, "node {node} forwards a false head"),
            Topic::Alerts => assert!(!holds, "node {node} forwards a false alert"),
            Topic::Receipts => {}
        }
    }
}

/// Called now and then.
///
/// # Panics
/// When a message waits too long.
pub fn none_is_late(world: &World, node: usize) {
    let waited = world.longest_wait(node);
    assert!(waited <= LATEST_MS, "node {node} owes a verdict for {waited} ms");
}
