//! Every tree, key and value of the store, on one page.
//!
//! ```text
//! tree             key                              payload
//! meta             "format"                         (own frame) b"tops-store" ‖ format u32 ‖ checksum: readable by every version
//!                  "network"                        network id[32]
//!                  "outbox_seq"                     u64: batches that touched the outbox, compared with the journal's at open
//! heads            root[32]                         audited u8 ‖ height u64 ‖ length u32 ‖ place ‖ wire
//! heads_by_height  height u64 BE ‖ root[32]         –
//! main             height u64 BE                    root[32]
//! shares           unit[32]                         state u8 ‖ epoch u64 ‖ miner[33] ‖ wire
//! shares_by_epoch  epoch u64 BE ‖ unit[32]          –
//! shares_by_miner  miner[33] ‖ epoch u64 BE ‖ unit  –
//! receipts         receipt id[32]                   unit[32]
//! standing         miner[33]                        accepted u64 ‖ audited weight[32]
//! bans             miner[33]                        epoch u64 ‖ wire
//! ledger           miner[33]                        credit[32] ‖ shares u64 ‖ heads u64 ‖ void u64
//! ledger_by_credit (2^256−1 − credit)[32] ‖ miner   –
//! outbox           unit[32]                         state u8 ‖ epoch u64 ‖ text form (empty once the aggregator has it)
//! outbox_by_state  state u8 ‖ epoch u64 BE ‖ unit   –
//! attempts         unit[32]                         version 2: count u32 ‖ Unix ms of the last u64 ‖ note; version 1 has no time
//! ```
//!
//! Integers in payloads are little-endian; integers in keys and 256-bit ones are big-endian, so that trees are in their order. A value
//! is `version u8 ‖ payload ‖ checksum[8]`; the checksum is BLAKE3 of tree, key, version and payload, so a value in a wrong place fails too.
//!
//! **Formats.** 1: this page. There is no older one; the next format upgrades 1 in place, in one transaction, before anything else is read.
//! An unknown or newer one is refused with what to do, and nothing is touched. A database with rows and no format row is damaged.

use std::fmt;

use tops_protocol::engine::{BanRow, HeadRow, OutboxState, ShareRow, ShareState, StandingRow};
use tops_protocol::ledger::LedgerRow;
use tops_protocol::types::NetworkId;
use tops_protocol::{Height, Millis, PublicKey, Root, U256, UnitId};

use crate::StoreFault;

/// The format of this page.
pub const FORMAT: u32 = 1;
/// The version byte of every value.
const VALUE_VERSION: u8 = 1;
/// Bytes of BLAKE3 behind every value.
const CHECKSUM: usize = 8;
const FORMAT_MAGIC: &[u8; 10] = b"tops-store";
/// The row that names the format.
pub(crate) const FORMAT_KEY: &[u8] = b"format";
/// The row that names the network.
pub(crate) const NETWORK_KEY: &[u8] = b"network";
/// The row that counts batches with outbox rows.
pub(crate) const OUTBOX_SEQ_KEY: &[u8] = b"outbox_seq";

/// The row that says below which epoch nothing is kept.
pub(crate) const HORIZON_KEY: &[u8] = b"horizon";

/// The trees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub(crate) enum Table {
    Meta,
    Heads,
    HeadsByHeight,
    Main,
    Shares,
    SharesByEpoch,
    SharesByMiner,
    Receipts,
    Standing,
    Bans,
    Ledger,
    LedgerByCredit,
    Outbox,
    OutboxByState,
    Attempts,
}

impl Table {
    /// In the order of the discriminants.
    pub(crate) const ALL: [Self; 15] = [
        Self::Meta,
        Self::Heads,
        Self::HeadsByHeight,
        Self::Main,
        Self::Shares,
        Self::SharesByEpoch,
        Self::SharesByMiner,
        Self::Receipts,
        Self::Standing,
        Self::Bans,
        Self::Ledger,
        Self::LedgerByCredit,
        Self::Outbox,
        Self::OutboxByState,
        Self::Attempts,
    ];

    /// The tree's name on disk.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Meta => "meta",
            Self::Heads => "heads",
            Self::HeadsByHeight => "heads_by_height",
            Self::Main => "main",
            Self::Shares => "shares",
            Self::SharesByEpoch => "shares_by_epoch",
            Self::SharesByMiner => "shares_by_miner",
            Self::Receipts => "receipts",
            Self::Standing => "standing",
            Self::Bans => "bans",
            Self::Ledger => "ledger",
            Self::LedgerByCredit => "ledger_by_credit",
            Self::Outbox => "outbox",
            Self::OutboxByState => "outbox_by_state",
            Self::Attempts => "attempts",
        }
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

fn damaged(table: Table, why: &str) -> StoreFault {
    StoreFault::Damaged { what: format!("a value of {table} {why}") }
}

fn checksum(table: Table, key: &[u8], versioned: &[u8]) -> [u8; CHECKSUM] {
    let mut hasher = blake3::Hasher::new();
    // The key's length keeps key and payload apart; keys are shorter than 256 bytes.
    hasher.update(&[table as u8, key.len() as u8]);
    hasher.update(key);
    hasher.update(versioned);
    let mut out = [0; CHECKSUM];
    out.copy_from_slice(&hasher.finalize().as_bytes()[..CHECKSUM]);
    out
}

/// A payload as it is stored.
pub(crate) fn seal(table: Table, key: &[u8], payload: &[u8]) -> Vec<u8> {
    seal_as(VALUE_VERSION, table, key, payload)
}

fn seal_as(version: u8, table: Table, key: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut value = Vec::with_capacity(1 + payload.len() + CHECKSUM);
    value.push(version);
    value.extend_from_slice(payload);
    let sum = checksum(table, key, &value);
    value.extend_from_slice(&sum);
    value
}

/// The payload of a stored value, if it is whole and belongs here.
pub(crate) fn unseal<'a>(table: Table, key: &[u8], value: &'a [u8]) -> Result<&'a [u8], StoreFault> {
    match unseal_any(table, key, value)? {
        (VALUE_VERSION, payload) => Ok(payload),
        _ => Err(damaged(table, "has an unknown version")),
    }
}

/// The version of a stored value and its payload.
fn unseal_any<'a>(table: Table, key: &[u8], value: &'a [u8]) -> Result<(u8, &'a [u8]), StoreFault> {
    let split = value.len().checked_sub(CHECKSUM).filter(|n| *n >= 1).ok_or_else(|| damaged(table, "is too short"))?;
    let (versioned, sum) = value.split_at(split);
    if checksum(table, key, versioned) != sum {
        return Err(damaged(table, "fails its checksum"));
    }
    Ok((versioned[0], &versioned[1..]))
}

/// The format row, whose frame never changes.
pub(crate) fn format_row(format: u32) -> Vec<u8> {
    let mut row = FORMAT_MAGIC.to_vec();
    row.extend_from_slice(&format.to_le_bytes());
    let sum = checksum(Table::Meta, FORMAT_KEY, &row);
    row.extend_from_slice(&sum);
    row
}

/// Reads the format row.
pub(crate) fn read_format(row: &[u8]) -> Result<u32, StoreFault> {
    let fault = || damaged(Table::Meta, "does not name the format");
    let body = row.strip_prefix(FORMAT_MAGIC.as_slice()).ok_or_else(fault)?;
    let (number, sum) = body.split_first_chunk::<4>().ok_or_else(fault)?;
    if checksum(Table::Meta, FORMAT_KEY, &row[..FORMAT_MAGIC.len() + 4]) != sum {
        return Err(fault());
    }
    Ok(u32::from_le_bytes(*number))
}

// ---- keys ----

/// A height, or an epoch, as a key.
pub(crate) fn number_key(number: u64) -> [u8; 8] {
    number.to_be_bytes()
}

/// `heads_by_height`.
pub(crate) fn height_key(height: Height, root: &Root) -> Vec<u8> {
    [&number_key(height.0)[..], &root.0].concat()
}

/// `shares_by_epoch`.
pub(crate) fn epoch_key(epoch: u64, unit: &UnitId) -> Vec<u8> {
    [&number_key(epoch)[..], &unit.0].concat()
}

/// `shares_by_miner`.
pub(crate) fn miner_key(miner: &PublicKey, epoch: u64, unit: &UnitId) -> Vec<u8> {
    [&miner.0[..], &number_key(epoch), &unit.0].concat()
}

/// `ledger_by_credit`: the richest first.
pub(crate) fn credit_key(credit: U256, miner: &PublicKey) -> Vec<u8> {
    [&(!credit).to_be_bytes::<32>()[..], &miner.0].concat()
}

/// `outbox_by_state`: the oldest first.
pub(crate) fn state_key(state: OutboxState, epoch: u64, unit: &UnitId) -> Vec<u8> {
    [&[outbox_code(state)][..], &number_key(epoch), &unit.0].concat()
}

/// The bytes `N` before the end of a key, for indexes that end in what they point at.
pub(crate) fn key_tail<const N: usize>(table: Table, key: &[u8]) -> Result<[u8; N], StoreFault> {
    key.last_chunk::<N>().copied().ok_or_else(|| damaged(table, "has a key that is too short"))
}

/// A key that is nothing but a fixed number of bytes.
pub(crate) fn whole_key<const N: usize>(table: Table, key: &[u8]) -> Result<[u8; N], StoreFault> {
    key.try_into().map_err(|_| damaged(table, "has a key of a wrong length"))
}

// ---- payloads ----

/// Takes fixed parts off the front of a payload.
struct Parts<'a>(&'a [u8]);

impl<'a> Parts<'a> {
    fn take<const N: usize>(&mut self) -> Option<&'a [u8; N]> {
        let (part, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(part)
    }
    fn u8(&mut self) -> Option<u8> {
        self.take::<1>().map(|b| b[0])
    }
    fn u64(&mut self) -> Option<u64> {
        self.take::<8>().map(|b| u64::from_le_bytes(*b))
    }
    fn u256(&mut self) -> Option<U256> {
        self.take::<32>().map(|b| U256::from_be_bytes(*b))
    }
    fn rest(self) -> &'a [u8] {
        self.0
    }
    fn end(self) -> Option<()> {
        self.0.is_empty().then_some(())
    }
}

/// A state of a share as a byte.
fn share_code(state: ShareState) -> u8 {
    match state {
        ShareState::Unaudited => 1,
        ShareState::Audited => 2,
        ShareState::Void => 3,
    }
}

fn share_state(code: u8) -> Option<ShareState> {
    [ShareState::Unaudited, ShareState::Audited, ShareState::Void].into_iter().find(|s| share_code(*s) == code)
}

/// Every state of an outbox row, in the order of their codes.
pub(crate) const OUTBOX_STATES: [OutboxState; 5] =
    [OutboxState::Waiting, OutboxState::Due, OutboxState::Delivered, OutboxState::Dead, OutboxState::Void];

/// A state of an outbox row as a byte.
pub(crate) fn outbox_code(state: OutboxState) -> u8 {
    match state {
        OutboxState::Waiting => 1,
        OutboxState::Due => 2,
        OutboxState::Delivered => 3,
        OutboxState::Dead => 4,
        OutboxState::Void => 5,
    }
}

/// The reverse of [`outbox_code`].
pub(crate) fn outbox_state(code: u8) -> Option<OutboxState> {
    OUTBOX_STATES.into_iter().find(|s| outbox_code(*s) == code)
}

fn parsed<T>(table: Table, row: Option<T>) -> Result<T, StoreFault> {
    row.ok_or_else(|| damaged(table, "does not have the form of its row"))
}

/// A row of `heads`.
pub(crate) fn head_value(row: &HeadRow) -> Vec<u8> {
    // A place is a few dozen bytes.
    let place_len = (row.place.len() as u32).to_le_bytes();
    let payload = [&[u8::from(row.audited)][..], &row.height.0.to_le_bytes(), &place_len, &row.place, &row.wire].concat();
    seal(Table::Heads, &row.root.0, &payload)
}

/// Reads a row of `heads`.
pub(crate) fn read_head(key: &[u8], value: &[u8]) -> Result<HeadRow, StoreFault> {
    let root = Root(whole_key(Table::Heads, key)?);
    let mut parts = Parts(unseal(Table::Heads, key, value)?);
    let mut row = || {
        let audited = match parts.u8()? {
            0 => false,
            1 => true,
            _ => return None,
        };
        let height = Height(parts.u64()?);
        let length = usize::try_from(u32::from_le_bytes(*parts.take()?)).ok()?;
        let (place, wire) = parts.0.split_at_checked(length)?;
        parts.0 = wire;
        Some((audited, height, place.to_vec()))
    };
    let (audited, height, place) = parsed(Table::Heads, row())?;
    Ok(HeadRow { root, height, audited, place, wire: parts.rest().to_vec() })
}

/// A row of `shares`.
pub(crate) fn share_value(row: &ShareRow) -> Vec<u8> {
    let payload = [&[share_code(row.state)][..], &row.epoch.to_le_bytes(), &row.miner.0, &row.wire].concat();
    seal(Table::Shares, &row.unit.0, &payload)
}

/// Reads a row of `shares`.
pub(crate) fn read_share(key: &[u8], value: &[u8]) -> Result<ShareRow, StoreFault> {
    let unit = UnitId(whole_key(Table::Shares, key)?);
    let mut parts = Parts(unseal(Table::Shares, key, value)?);
    let mut row = || Some((share_state(parts.u8()?)?, parts.u64()?, PublicKey(*parts.take()?)));
    let (state, epoch, miner) = parsed(Table::Shares, row())?;
    Ok(ShareRow { unit, epoch, miner, state, wire: parts.rest().to_vec() })
}

/// Reads 32 bytes: rows of `main`, `receipts` and the network's.
pub(crate) fn read_hash(table: Table, key: &[u8], value: &[u8]) -> Result<[u8; 32], StoreFault> {
    parsed(table, unseal(table, key, value)?.try_into().ok())
}

/// A row of `standing`.
pub(crate) fn standing_value(miner: &PublicKey, row: &StandingRow) -> Vec<u8> {
    let payload = [&row.accepted.to_le_bytes()[..], &row.audited_weight.to_be_bytes::<32>()].concat();
    seal(Table::Standing, &miner.0, &payload)
}

/// Reads a row of `standing`.
pub(crate) fn read_standing(key: &[u8], value: &[u8]) -> Result<(PublicKey, StandingRow), StoreFault> {
    let miner = PublicKey(whole_key(Table::Standing, key)?);
    let mut parts = Parts(unseal(Table::Standing, key, value)?);
    let mut row = || Some(StandingRow { accepted: parts.u64()?, audited_weight: parts.u256()? });
    let row = row().and_then(|row| parts.end().map(|()| row));
    Ok((miner, parsed(Table::Standing, row)?))
}

/// A row of `bans`.
pub(crate) fn ban_value(row: &BanRow) -> Vec<u8> {
    seal(Table::Bans, &row.miner.0, &[&row.epoch.to_le_bytes()[..], &row.wire].concat())
}

/// Reads a row of `bans`.
pub(crate) fn read_ban(key: &[u8], value: &[u8]) -> Result<BanRow, StoreFault> {
    let miner = PublicKey(whole_key(Table::Bans, key)?);
    let mut parts = Parts(unseal(Table::Bans, key, value)?);
    let epoch = parsed(Table::Bans, parts.u64())?;
    Ok(BanRow { miner, epoch, wire: parts.rest().to_vec() })
}

/// A row of `ledger`.
pub(crate) fn ledger_value(miner: &PublicKey, row: &LedgerRow) -> Vec<u8> {
    let payload =
        [&row.credit.to_be_bytes::<32>()[..], &row.shares.to_le_bytes(), &row.heads.to_le_bytes(), &row.void_shares.to_le_bytes()].concat();
    seal(Table::Ledger, &miner.0, &payload)
}

/// Reads a row of `ledger`.
pub(crate) fn read_ledger(key: &[u8], value: &[u8]) -> Result<(PublicKey, LedgerRow), StoreFault> {
    let miner = PublicKey(whole_key(Table::Ledger, key)?);
    let mut parts = Parts(unseal(Table::Ledger, key, value)?);
    let mut row = || Some(LedgerRow { credit: parts.u256()?, shares: parts.u64()?, heads: parts.u64()?, void_shares: parts.u64()? });
    let row = row().and_then(|row| parts.end().map(|()| row));
    Ok((miner, parsed(Table::Ledger, row)?))
}

/// What `outbox` and the journal keep of a receipt on its way to the aggregator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OutboxValue {
    pub(crate) state: OutboxState,
    pub(crate) epoch: u64,
    /// Empty once the aggregator has it.
    pub(crate) text: String,
}

/// A row of `outbox`.
pub(crate) fn outbox_value(unit: &UnitId, row: &OutboxValue) -> Vec<u8> {
    let payload = [&[outbox_code(row.state)][..], &row.epoch.to_le_bytes(), row.text.as_bytes()].concat();
    seal(Table::Outbox, &unit.0, &payload)
}

/// Reads a row of `outbox`.
pub(crate) fn read_outbox(key: &[u8], value: &[u8]) -> Result<(UnitId, OutboxValue), StoreFault> {
    let unit = UnitId(whole_key(Table::Outbox, key)?);
    let mut parts = Parts(unseal(Table::Outbox, key, value)?);
    let mut row = || Some((outbox_state(parts.u8()?)?, parts.u64()?));
    let (state, epoch) = parsed(Table::Outbox, row())?;
    let text = parsed(Table::Outbox, std::str::from_utf8(parts.rest()).ok())?.to_owned();
    Ok((unit, OutboxValue { state, epoch, text }))
}

/// Deliveries that were tried.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Attempts {
    pub(crate) count: u32,
    /// When the last one was; rows of version 1 do not say.
    pub(crate) at: Option<Millis>,
    pub(crate) note: String,
}

/// The version of `attempts` that says when.
const ATTEMPTS_VERSION: u8 = 2;

/// A row of `attempts`.
pub(crate) fn attempts_value(unit: &UnitId, count: u32, at: Millis, note: &str) -> Vec<u8> {
    let payload = [&count.to_le_bytes()[..], &at.0.to_le_bytes(), note.as_bytes()].concat();
    seal_as(ATTEMPTS_VERSION, Table::Attempts, &unit.0, &payload)
}

/// Reads a row of `attempts`.
pub(crate) fn read_attempts(key: &[u8], value: &[u8]) -> Result<Attempts, StoreFault> {
    let (version, payload) = unseal_any(Table::Attempts, key, value)?;
    let mut parts = Parts(payload);
    let count = parsed(Table::Attempts, parts.take::<4>().map(|b| u32::from_le_bytes(*b)))?;
    let at = match version {
        VALUE_VERSION => None,
        ATTEMPTS_VERSION => Some(Millis(parsed(Table::Attempts, parts.u64())?)),
        _ => return Err(damaged(Table::Attempts, "has an unknown version")),
    };
    let note = parsed(Table::Attempts, std::str::from_utf8(parts.rest()).ok())?.to_owned();
    Ok(Attempts { count, at, note })
}

/// The network's row.
pub(crate) fn network_value(network: &NetworkId) -> Vec<u8> {
    seal(Table::Meta, NETWORK_KEY, &network.0)
}

/// The row that counts batches with outbox rows.
pub(crate) fn outbox_seq_value(seq: u64) -> Vec<u8> {
    seal(Table::Meta, OUTBOX_SEQ_KEY, &seq.to_le_bytes())
}

/// Reads the row that counts batches with outbox rows.
pub(crate) fn read_outbox_seq(value: &[u8]) -> Result<u64, StoreFault> {
    let mut parts = Parts(unseal(Table::Meta, OUTBOX_SEQ_KEY, value)?);
    let seq = parts.u64().and_then(|seq| parts.end().map(|()| seq));
    parsed(Table::Meta, seq)
}

/// The row that says below which epoch nothing is kept.
pub(crate) fn horizon_value(epoch: u64) -> Vec<u8> {
    seal(Table::Meta, HORIZON_KEY, &epoch.to_le_bytes())
}

/// Reads the row that says below which epoch nothing is kept.
pub(crate) fn read_horizon(value: &[u8]) -> Result<u64, StoreFault> {
    let mut parts = Parts(unseal(Table::Meta, HORIZON_KEY, value)?);
    let epoch = parts.u64().and_then(|epoch| parts.end().map(|()| epoch));
    parsed(Table::Meta, epoch)
}

/// Reads any value for nothing but its faults.
pub(crate) fn check(table: Table, key: &[u8], value: &[u8]) -> Result<(), StoreFault> {
    match table {
        Table::Meta if key == FORMAT_KEY => read_format(value).map(drop),
        Table::Meta => unseal(table, key, value).map(drop),
        Table::Heads => read_head(key, value).map(drop),
        Table::Main => {
            whole_key::<8>(table, key)?;
            read_hash(table, key, value).map(drop)
        }
        Table::Shares => read_share(key, value).map(drop),
        Table::Receipts => {
            whole_key::<32>(table, key)?;
            read_hash(table, key, value).map(drop)
        }
        Table::Standing => read_standing(key, value).map(drop),
        Table::Bans => read_ban(key, value).map(drop),
        Table::Ledger => read_ledger(key, value).map(drop),
        Table::Outbox => read_outbox(key, value).map(drop),
        Table::Attempts => read_attempts(key, value).map(drop),
        Table::HeadsByHeight | Table::SharesByEpoch => {
            whole_key::<40>(table, key)?;
            unseal(table, key, value).map(drop)
        }
        Table::SharesByMiner => {
            whole_key::<73>(table, key)?;
            unseal(table, key, value).map(drop)
        }
        Table::LedgerByCredit => {
            whole_key::<65>(table, key)?;
            unseal(table, key, value).map(drop)
        }
        Table::OutboxByState => {
            whole_key::<41>(table, key)?;
            unseal(table, key, value).map(drop)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn tables_are_listed_in_the_order_of_their_numbers() {
        for (i, table) in Table::ALL.into_iter().enumerate() {
            assert_eq!(table as usize, i);
        }
    }

    #[test]
    fn a_value_in_a_wrong_place_fails() {
        let value = seal(Table::Main, &number_key(1), &[7; 32]);
        assert!(unseal(Table::Main, &number_key(1), &value).is_ok());
        assert!(unseal(Table::Main, &number_key(2), &value).is_err());
        assert!(unseal(Table::Receipts, &number_key(1), &value).is_err());
    }

    proptest! {
        #[test]
        fn garbage_never_panics_and_never_reads(key in proptest::collection::vec(any::<u8>(), 0..80), value in proptest::collection::vec(any::<u8>(), 0..200)) {
            for table in Table::ALL {
                prop_assert!(check(table, &key, &value).is_err());
            }
            prop_assert!(read_format(&value).is_err());
            prop_assert!(read_outbox_seq(&value).is_err());
        }

        /// The decoders behind the checksum, too, refuse or read, and never panic.
        #[test]
        fn sealed_garbage_never_panics(key in proptest::collection::vec(any::<u8>(), 0..80), payload in proptest::collection::vec(any::<u8>(), 0..200)) {
            for table in Table::ALL {
                let _ = check(table, &key, &seal(table, &key, &payload));
            }
            for len in [8, 32, 33, 40, 41, 65, 73] {
                let key = vec![3; len];
                for table in Table::ALL {
                    let _ = check(table, &key, &seal(table, &key, &payload));
                }
            }
        }

        #[test]
        fn one_flipped_bit_fails(bit in 0usize..8, at in 0usize..200, wire in proptest::collection::vec(any::<u8>(), 60..200)) {
            let row = ShareRow { unit: UnitId([1; 32]), epoch: 9, miner: PublicKey([2; 33]), state: ShareState::Audited, wire };
            let mut value = share_value(&row);
            prop_assert_eq!(read_share(&row.unit.0, &value).unwrap(), row.clone());
            let at = at % value.len();
            value[at] ^= 1 << bit;
            prop_assert!(read_share(&row.unit.0, &value).is_err());
        }

        #[test]
        fn rows_come_back(a in any::<[u8; 32]>(), b in any::<u64>(), c in any::<u64>(), text in "[ -~]{0,90}", wire in proptest::collection::vec(any::<u8>(), 0..90)) {
            let miner = PublicKey([a[0]; 33]);
            let head = HeadRow { root: Root(a), height: Height(b), audited: c % 2 == 0, place: text.as_bytes().to_vec(), wire: wire.clone() };
            prop_assert_eq!(read_head(&a, &head_value(&head)).unwrap(), head);
            let standing = StandingRow { accepted: b, audited_weight: U256::from_be_bytes(a) };
            prop_assert_eq!(read_standing(&miner.0, &standing_value(&miner, &standing)).unwrap(), (miner, standing));
            let ban = BanRow { miner, epoch: c, wire };
            prop_assert_eq!(read_ban(&miner.0, &ban_value(&ban)).unwrap(), ban);
            let ledger = LedgerRow { credit: U256::from_be_bytes(a), shares: b, heads: c, void_shares: b ^ c };
            prop_assert_eq!(read_ledger(&miner.0, &ledger_value(&miner, &ledger)).unwrap(), (miner, ledger));
            for state in OUTBOX_STATES {
                let row = OutboxValue { state, epoch: b, text: text.clone() };
                prop_assert_eq!(read_outbox(&a, &outbox_value(&UnitId(a), &row)).unwrap(), (UnitId(a), row));
            }
            let attempts = Attempts { count: 7, at: Some(Millis(c)), note: text.clone() };
            prop_assert_eq!(read_attempts(&a, &attempts_value(&UnitId(a), 7, Millis(c), &text)).unwrap(), attempts.clone());
            // As the version before wrote it.
            let older = seal(Table::Attempts, &a, &[&7_u32.to_le_bytes()[..], text.as_bytes()].concat());
            prop_assert_eq!(read_attempts(&a, &older).unwrap(), Attempts { at: None, ..attempts });
            prop_assert_eq!(read_outbox_seq(&outbox_seq_value(b)).unwrap(), b);
            prop_assert_eq!(read_format(&format_row(b as u32)).unwrap(), b as u32);
        }
    }
}
