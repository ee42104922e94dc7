//! Nothing grows: what is open is bounded at all times, and nothing stays open when nothing happens.

use super::model::honest;
use crate::sim::World;

/// More undecided receipts than this are never kept (the engine's own bound).
const UNDECIDED_MAX: usize = 4_096;
/// More held receipts than this are never kept: the engine holds a few for each peer.
const HELD_MAX: usize = 4_096;

/// Pools within their bounds, at any moment.
///
/// # Panics
/// When one is larger.
pub fn pools_are_bounded(world: &World) {
    for i in honest(world) {
        let Some(view) = world.nodes[i].engine.as_ref().map(tops_protocol::engine::Engine::view) else { continue };
        assert!(view.undecided <= UNDECIDED_MAX, "node {i}: {} undecided", view.undecided);
        assert!(view.held <= HELD_MAX, "node {i}: {} held", view.held);
        assert!(view.audits_in_flight <= view.undecided, "node {i}: {} audits for {} claims", view.audits_in_flight, view.undecided);
    }
}

/// Pools are empty once everything has settled.
///
/// # Panics
/// When one is not.
pub fn pools_are_empty(world: &World) {
    pools_are_bounded(world);
    for i in honest(world) {
        let Some(view) = world.nodes[i].engine.as_ref().map(tops_protocol::engine::Engine::view) else { continue };
        assert_eq!((view.undecided, view.held, view.audits_in_flight), (0, 0, 0), "node {i} still has open receipts");
    }
}
