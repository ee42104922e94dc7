//! Nothing acknowledged is lost: a share that its miner flushed and that earns is in every node's store, in the same state.

use std::collections::BTreeMap;

use tops_protocol::codec::receipt_from_wire;
use tops_protocol::engine::ShareState;

use super::model::{Model, honest, snapshot};
use crate::sim::World;

/// Looks at every honest store.
///
/// # Panics
/// When one is missing or stands differently.
pub fn nothing_is_lost(world: &World) {
    let nodes = honest(world);
    let stores: Vec<_> = nodes.iter().map(|&i| (i, snapshot(world, i))).collect();
    let states: Vec<BTreeMap<_, _>> =
        stores.iter().map(|(_, s)| s.shares.iter().map(|share| (share.unit, share.state)).collect()).collect();
    for &miner in &nodes {
        let Some((_, own)) = stores.iter().find(|(i, _)| *i == miner) else { continue };
        let model = Model::new(&world.plan.network, own);
        for unit in &world.nodes[miner].acknowledged {
            let Some(row) = own.shares.iter().find(|row| row.unit == *unit) else { panic!("node {miner} lost its own {unit}") };
            let earns = receipt_from_wire(&row.wire).is_ok_and(|receipt| model.earns(&receipt.prev_hash));
            if !earns || row.state == ShareState::Void {
                continue;
            }
            for ((i, _), states) in stores.iter().zip(&states) {
                assert_eq!(states.get(unit), Some(&row.state), "node {i}, share {unit} of node {miner}");
            }
        }
    }
}
