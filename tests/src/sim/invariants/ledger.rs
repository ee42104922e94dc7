//! The ledger is the sum of the shares: rows equal what is computed from the shares, the heads, and the law's text alone (spec §4).

use std::collections::BTreeMap;

use tops_protocol::codec::receipt_from_wire;
use tops_protocol::engine::ShareState;
use tops_protocol::target::work;
use tops_protocol::{PublicKey, U256};

use super::model::{Model, honest, snapshot};
use crate::sim::World;

/// Looks at every honest store. Runs are shorter than retention, so nothing was pruned.
///
/// # Panics
/// When a row differs.
pub fn rows_are_what_shares_say(world: &World) {
    for i in honest(world) {
        let snapshot = snapshot(world, i);
        let model = Model::new(&world.plan.network, &snapshot);
        let mut sums: BTreeMap<PublicKey, (U256, u64, u64)> = BTreeMap::new();
        for share in snapshot.shares.iter().filter(|share| share.state != ShareState::Void) {
            let receipt = match receipt_from_wire(&share.wire) {
                Ok(receipt) => receipt,
                Err(fault) => panic!("node {i}, share {}: {fault}", share.unit),
            };
            assert_eq!((receipt.unit(), receipt.miner, receipt.epoch_id), (share.unit, share.miner, share.epoch));
            let Some(head) = model.heads.get(&receipt.prev_hash) else { panic!("node {i}: share {} is keyed on nothing", share.unit) };
            assert!(receipt.work_root.ticket() <= head.share_target, "node {i}: {} is no share", share.unit);
            if model.earns(&receipt.prev_hash) {
                let sum = sums.entry(share.miner).or_default();
                sum.0 += work(head.share_target) * U256::from(receipt.shape.ops());
                sum.1 += 1;
                sum.2 += u64::from(model.is_main(&receipt.work_root));
            }
        }
        for (miner, row) in &snapshot.ledger {
            let sum = sums.remove(miner).unwrap_or_default();
            assert_eq!((row.credit, row.shares, row.heads), sum, "node {i}, the row of {miner}");
        }
        assert!(sums.is_empty(), "node {i} has no row for {:?}", sums.keys());
    }
}
