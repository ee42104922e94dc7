//! The aggregator gets what it should: every share that a bridging node audited, that earns and is deep enough; once, unless that node died meanwhile.

use tops_protocol::codec::receipt_from_wire;
use tops_protocol::engine::{OutboxEntry, OutboxState, ShareState};

use super::model::{Model, honest, snapshot};
use crate::sim::World;

/// Looks at every honest bridging node.
///
/// # Panics
/// When something is missing, or came twice.
pub fn what_is_deep_is_delivered(world: &World) {
    for i in honest(world) {
        let Some(bridge) = world.nodes[i].config.bridge else { continue };
        let snapshot = snapshot(world, i);
        let model = Model::new(&world.plan.network, &snapshot);
        let height = model.main.len() as u64 - 1;
        let died = world.nodes[i].life > 0;
        for share in snapshot.shares.iter().filter(|share| share.state == ShareState::Audited) {
            let earns = receipt_from_wire(&share.wire).is_ok_and(|receipt| model.earns(&receipt.prev_hash));
            let times = world.delivered.get(&share.unit).and_then(|by| by.get(&i)).copied().unwrap_or(0);
            if earns && height + 1 >= share.epoch + bridge.depth {
                let row = snapshot.outbox.iter().find(|row| row.unit == share.unit);
                assert!(times >= 1, "node {i} never delivered {} of epoch {} at height {height}: {row:?}", share.unit, share.epoch);
            }
            assert!(times <= 1 || died, "node {i} delivered {} {times} times", share.unit);
        }
        for OutboxEntry { unit, epoch, state, .. } in &snapshot.outbox {
            assert!(!matches!(state, OutboxState::Due | OutboxState::Dead), "node {i}: {unit} of epoch {epoch} is still {state:?}");
        }
    }
}
