//! A banned key has no credit, and none of its shares stands (spec §5).

use tops_protocol::U256;
use tops_protocol::engine::ShareState;

use super::model::{honest, snapshot};
use crate::sim::World;

/// Looks at every honest store.
///
/// # Panics
/// When a banned key has credit.
pub fn banned_keys_have_none(world: &World) {
    for i in honest(world) {
        let snapshot = snapshot(world, i);
        for ban in &snapshot.bans {
            for (_, row) in snapshot.ledger.iter().filter(|(miner, _)| *miner == ban.miner) {
                assert_eq!((row.credit, row.shares), (U256::ZERO, 0), "node {i} credits the banned {}", ban.miner);
            }
            for share in snapshot.shares.iter().filter(|share| share.miner == ban.miner) {
                assert_eq!(share.state, ShareState::Void, "node {i} lets share {} of a banned key stand", share.unit);
            }
        }
    }
}
