//! Durable before public: what a node says it has acknowledged is in its store.

use tops_protocol::UnitId;

use crate::sim::World;

/// Called when a node acknowledges its own receipt.
///
/// # Panics
/// When its store does not hold it.
pub fn own_receipt_is_stored(world: &World, node: usize, unit: &UnitId) {
    match world.nodes[node].store().share(unit) {
        Ok(Some(_)) => {}
        Ok(None) => panic!("node {node} acknowledges {unit}, which its store does not hold"),
        Err(fault) => panic!("node {node}: {fault}"),
    }
}
