//! All honest nodes end with one head and one ledger; that head is the best of all that any of them knows; and who is banned at one node is
//! banned at every other that ever took a share of that key (spec §5: a key without accepted shares is neither banned nor alerted about).

use std::collections::BTreeSet;

use super::model::{Model, honest, snapshot};
use crate::sim::World;

/// Compares views, and the tip with the model's fork choice over all heads of all stores.
///
/// # Panics
/// When they differ.
pub fn one_chain_and_one_ledger(world: &World) {
    let nodes = honest(world);
    let views: Vec<_> = nodes.iter().filter_map(|&i| world.nodes[i].engine.as_ref().map(|e| (i, e.view()))).collect();
    let Some((_, first)) = views.first() else { return };
    for (i, view) in &views {
        let about = |what: &str| format!("node {i} has another {what} than node {}", nodes[0]);
        assert_eq!((view.height, view.tip), (first.height, first.tip), "{}", about("tip"));
        assert_eq!(view.ledger_digest, first.ledger_digest, "{}", about("ledger"));
    }
    if let Err(fault) = bans_agree(world) {
        panic!("{fault}");
    }
    let mut all = snapshot(world, nodes[0]);
    for &i in &nodes[1..] {
        for head in snapshot(world, i).heads {
            if !all.heads.iter().any(|known| known.root == head.root) {
                all.heads.push(head);
            }
        }
    }
    let model = Model::new(&world.plan.network, &all);
    assert_eq!(model.best(), first.tip, "there is a better head than the one that all agree on");
}

/// Whether every node that has a share of a key that some node banned has banned it too.
///
/// # Errors
/// Who has not banned whom.
pub fn bans_agree(world: &World) -> Result<(), String> {
    let stores: Vec<_> = honest(world).into_iter().map(|i| (i, snapshot(world, i))).collect();
    let banned: BTreeSet<_> = stores.iter().flat_map(|(_, s)| s.bans.iter().map(|ban| ban.miner)).collect();
    for (i, store) in &stores {
        for miner in &banned {
            let knows = store.shares.iter().any(|share| share.miner == *miner);
            if knows && !store.bans.iter().any(|ban| ban.miner == *miner) {
                return Err(format!("node {i} has shares of {miner} and has not banned it"));
            }
        }
    }
    Ok(())
}
