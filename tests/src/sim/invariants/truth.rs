//! What stands is true: recomputing any audited share, any head, and the proof of any ban says the same.

use tops_protocol::codec::receipt_from_wire;
use tops_protocol::engine::ShareState;
use tops_protocol::{Receipt, Root};

use super::model::{honest, snapshot};
use crate::sim::World;

/// Looks at every honest store; with everything audited, no share is left unaudited.
///
/// # Panics
/// When something false stands, or a ban has no proof.
pub fn what_stands_is_true(world: &mut World) {
    let all = world.plan.audit_ppm == 1_000_000;
    for i in honest(world) {
        let snapshot = snapshot(world, i);
        for share in snapshot.shares.iter().filter(|share| share.state != ShareState::Void) {
            assert!(!all || share.state == ShareState::Audited, "node {i} never looked at {}", share.unit);
            if share.state == ShareState::Audited {
                let (claimed, computed) = both(world, &share.wire);
                assert_eq!(claimed, computed, "node {i}, share {}", share.unit);
            }
        }
        for head in snapshot.heads.iter().filter(|head| head.audited) {
            let (claimed, computed) = both(world, &head.wire);
            assert_eq!(claimed, computed, "node {i}, head {}", head.root);
        }
        for ban in &snapshot.bans {
            let (claimed, computed) = both(world, &ban.wire);
            assert_ne!(claimed, computed, "node {i} banned {} for a true receipt", ban.miner);
        }
    }
}

fn both(world: &mut World, wire: &[u8]) -> (Root, Root) {
    let receipt: Receipt = match receipt_from_wire(wire) {
        Ok(receipt) => receipt,
        Err(fault) => panic!("{fault}"),
    };
    (receipt.work_root, world.truth.root(&receipt.attempt()))
}
