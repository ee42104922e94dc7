//! All honest nodes end with one head, one ledger, one set of bans; and that head is the best of all that any of them knows.

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
        assert_eq!(view.ban_digest, first.ban_digest, "{}", about("set of bans"));
        assert_eq!(view.ledger_digest, first.ledger_digest, "{}", about("ledger"));
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
