//! A unit earns once: one row a unit, and no two standing shares with one root.

use std::collections::BTreeSet;

use tops_protocol::codec::receipt_from_wire;
use tops_protocol::engine::ShareState;

use super::model::{honest, snapshot};
use crate::sim::World;

/// Looks at every honest store.
///
/// # Panics
/// When a unit or a root is there twice.
pub fn a_unit_earns_once(world: &World) {
    for i in honest(world) {
        let (mut units, mut roots) = (BTreeSet::new(), BTreeSet::new());
        for share in snapshot(world, i).shares {
            assert!(units.insert(share.unit), "node {i} has unit {} twice", share.unit);
            if let (true, Ok(receipt)) = (share.state != ShareState::Void, receipt_from_wire(&share.wire)) {
                assert!(roots.insert(receipt.work_root), "node {i} credits root {} twice", receipt.work_root);
            }
        }
    }
}
