//! A door for fuzzing: the decoders of rows and of the journal, which are nobody else's business.
//!
//! A checksum stands before every row and frame, and no fuzzer guesses one. So beside the bytes as they are, these functions put the right
//! checksum on the bytes that they get and read what is behind it. They panic when the store would not read what it writes.

use tops_protocol::types::NetworkId;

use crate::journal::{self, Entry};
use crate::tables::{self, Table};

/// A value as it may lie on the disk.
pub fn value(table: u8, key: &[u8], value: &[u8]) -> bool {
    let table = Table::ALL[usize::from(table) % Table::ALL.len()];
    tables::check(table, key, value).is_ok()
}

/// A payload with its frame and its checksum: whatever can be read is written again as the same bytes.
pub fn payload(table: u8, key: &[u8], payload: &[u8]) -> bool {
    let table = Table::ALL[usize::from(table) % Table::ALL.len()];
    let key = &key[..key.len().min(255)];
    let value = tables::seal(table, key, payload);
    let again = match table {
        Table::Heads => tables::read_head(key, &value).ok().map(|row| tables::head_value(&row)),
        Table::Shares => tables::read_share(key, &value).ok().map(|row| tables::share_value(&row)),
        Table::Standing => tables::read_standing(key, &value).ok().map(|(miner, row)| tables::standing_value(&miner, &row)),
        Table::Bans => tables::read_ban(key, &value).ok().map(|row| tables::ban_value(&row)),
        Table::Ledger => tables::read_ledger(key, &value).ok().map(|(miner, row)| tables::ledger_value(&miner, &row)),
        Table::Outbox => tables::read_outbox(key, &value).ok().map(|(unit, row)| tables::outbox_value(&unit, &row)),
        Table::Meta => tables::read_horizon(&value)
            .ok()
            .map(tables::horizon_value)
            .or_else(|| tables::read_outbox_seq(&value).ok().map(tables::outbox_seq_value)),
        _ => None,
    };
    if let Some(again) = &again {
        assert_eq!(*again, value, "a row of {table} is written as it is read");
    }
    let _ = tables::check(table, key, &value);
    again.is_some()
}

/// A journal as it may lie on the disk: how much of it is whole.
pub fn journal(network: &NetworkId, bytes: &[u8]) -> usize {
    journal::read(bytes, network).map_or(0, |journal| journal.good)
}

/// Frames with their header and checksums: what is read is, rewritten, the same outbox.
pub fn journal_of(network: &NetworkId, frames: &[(u64, &[u8])]) -> usize {
    let mut bytes = journal::rewritten(network, 0, std::iter::empty());
    for (seq, body) in frames {
        bytes.extend(journal::framed(*seq, body));
    }
    let Ok(read) = journal::read(&bytes, network) else { unreachable!("the header is this code's own") };
    assert!(read.good <= bytes.len());
    for row in read.rows.values() {
        assert_eq!(journal::keeps_text(row.state), !row.text.is_empty());
    }
    let rewritten = journal::rewritten(network, read.seq, read.rows.iter().map(|(unit, row)| (*unit, row.clone())));
    let again = journal::read(&rewritten, network);
    assert_eq!(again.as_ref().map(|again| (&again.rows, again.seq)), Ok((&read.rows, read.seq)));
    let entries: Vec<Entry> = read.rows.keys().map(|unit| Entry::Drop { unit: *unit }).collect();
    let emptied = [rewritten, journal::frame(read.seq.saturating_add(1), &entries)].concat();
    assert!(journal::read(&emptied, network).is_ok_and(|journal| journal.rows.is_empty()));
    read.rows.len()
}
