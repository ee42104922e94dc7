//! Rows for the store's tests and bench. Signatures are not checked by a store, so these are not signed.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use tops_protocol::engine::{BanRow, HeadRow, Op, OutboxState, ShareRow, ShareState};
use tops_protocol::receipt::KERNEL_V2;
use tops_protocol::types::{NetworkId, NetworkTag};
use tops_protocol::{Height, Millis, Nonce, PublicKey, Receipt, Root, Shape, Signature, Text};

pub const NET: NetworkId = NetworkId([7; 32]);

/// One of 256 keys.
pub fn miner(n: u8) -> PublicKey {
    let mut key = [n; 33];
    key[0] = 2;
    PublicKey(key)
}

/// A root by its number.
pub fn root(n: u64) -> Root {
    Root(*blake3::hash(&n.to_le_bytes()).as_bytes())
}

/// The receipt of a miner's attempt on a head.
pub fn receipt(by: u8, epoch: u64, nonce: u64) -> Receipt {
    Receipt {
        device_did: Text::new("did:key:zQ3shTestDevice").unwrap(),
        epoch_id: epoch,
        prev_hash: root(epoch - 1),
        nonce: Nonce::new(nonce).unwrap(),
        work_root: root(nonce ^ (epoch << 20)),
        shape: Shape::DEVNET,
        batch: 64,
        time_ms: 12,
        kernel_ver: Text::new(KERNEL_V2).unwrap(),
        driver_hint: Text::new("cpu").unwrap(),
        network: NetworkTag([7; 8]),
        miner: miner(by),
        timestamp: Millis(1_795_132_800_000 + nonce),
        sig: Signature([by; 64]),
    }
}

/// Its row.
pub fn share(by: u8, epoch: u64, nonce: u64) -> ShareRow {
    let receipt = receipt(by, epoch, nonce);
    ShareRow { unit: receipt.unit(), epoch, miner: receipt.miner, state: ShareState::Audited, wire: receipt.to_wire() }
}

/// A head's row; the branch tells heads of one height apart.
pub fn head(height: u64, branch: u64) -> HeadRow {
    let receipt = receipt(branch as u8, height, height * 1_000 + branch);
    HeadRow { root: root(height * 1_000 + branch), height: Height(height), audited: true, place: vec![3; 40], wire: receipt.to_wire() }
}

/// A ban's row.
pub fn ban(by: u8, epoch: u64) -> BanRow {
    BanRow { miner: miner(by), epoch, wire: receipt(by, epoch, 1).to_wire() }
}

/// What an accepted share writes.
pub fn accepted(by: u8, epoch: u64, nonce: u64) -> Vec<Op> {
    let row = share(by, epoch, nonce);
    let (unit, miner) = (row.unit, row.miner);
    let ledger = tops_protocol::ledger::LedgerRow { credit: tops_protocol::U256::from(nonce), shares: nonce, heads: 0, void_shares: 0 };
    vec![
        Op::PutShare(row),
        Op::PutStanding {
            miner,
            row: tops_protocol::engine::StandingRow { accepted: nonce, audited_weight: tops_protocol::U256::from(nonce) },
        },
        Op::PutLedger { miner, row: ledger },
        Op::PutOutbox { unit, epoch, state: OutboxState::Waiting },
    ]
}
