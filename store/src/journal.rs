//! The outbox outside the database: an append-only file of checksummed frames, so that what was to be delivered, and what was
//! delivered already, outlives damaged trees.
//!
//! ```text
//! file   = header frame*
//! header = b"tops-outbox" ‖ format u32 ‖ network id[32] ‖ checksum[8]
//! frame  = length u32 ‖ seq u64 ‖ entry* ‖ checksum[8]                       one frame a batch: whole or nothing
//! entry  = 0 ‖ unit[32]                                                      dropped
//!        | state u8 ‖ unit[32] ‖ epoch u64 ‖ length u32 ‖ text               put; no text: the text is as before
//! ```
//!
//! `seq` counts batches that touched the outbox; the trees keep the same number. At open the one with the higher number is the whole truth. A rewritten
//! file carries its rows with seq 0 and ends in an empty frame with the number, so that half a file never looks newer than the trees.
//! Reading stops at the first frame that is not whole. This module makes and reads bytes; it opens no file.

use std::collections::BTreeMap;

use tops_protocol::UnitId;
use tops_protocol::engine::OutboxState;
use tops_protocol::types::NetworkId;

use crate::tables::{OutboxValue, outbox_code, outbox_state};

/// The format of the journal.
pub(crate) const FORMAT: u32 = 1;
/// A journal is rewritten when it is longer than this and than twice its length after the last rewriting.
pub(crate) const LARGE: u64 = 8 << 20;
/// Rows a frame of a rewritten journal.
const ROWS_PER_FRAME: usize = 512;
const MAGIC: &[u8; 11] = b"tops-outbox";
const CHECKSUM: usize = 8;
const HEADER: usize = MAGIC.len() + 4 + 32 + CHECKSUM;

/// One change of the outbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Entry {
    Put { unit: UnitId, state: OutboxState, epoch: u64, text: Option<String> },
    Drop { unit: UnitId },
}

/// What a journal says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Journal {
    /// Of the last whole frame that has one.
    pub(crate) seq: u64,
    pub(crate) rows: BTreeMap<UnitId, OutboxValue>,
    /// Bytes that are whole.
    pub(crate) good: usize,
}

/// Why a journal cannot be read at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HeadFault {
    /// Too short, or its checksum fails.
    Damaged,
    /// Another format.
    Format { found: u32 },
    /// Another network.
    OtherNetwork { found: NetworkId },
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM] {
    let mut out = [0; CHECKSUM];
    out.copy_from_slice(&blake3::hash(bytes).as_bytes()[..CHECKSUM]);
    out
}

fn header(network: &NetworkId) -> Vec<u8> {
    let mut out = [&MAGIC[..], &FORMAT.to_le_bytes(), &network.0].concat();
    let sum = checksum(&out);
    out.extend_from_slice(&sum);
    out
}

/// A frame of one batch.
pub(crate) fn frame(seq: u64, entries: &[Entry]) -> Vec<u8> {
    let mut body = Vec::new();
    for entry in entries {
        match entry {
            Entry::Drop { unit } => {
                body.push(0);
                body.extend_from_slice(&unit.0);
            }
            Entry::Put { unit, state, epoch, text } => {
                let text = text.as_deref().unwrap_or_default();
                body.push(outbox_code(*state));
                body.extend_from_slice(&unit.0);
                body.extend_from_slice(&epoch.to_le_bytes());
                // A text form has at most a few kilobytes.
                body.extend_from_slice(&(text.len() as u32).to_le_bytes());
                body.extend_from_slice(text.as_bytes());
            }
        }
    }
    framed(seq, &body)
}

/// A frame around entries that are bytes already. A batch's entries stay far below 4 GiB: the outbox itself does.
pub(crate) fn framed(seq: u64, entries: &[u8]) -> Vec<u8> {
    let mut out = (8 + entries.len() as u32).to_le_bytes().to_vec();
    out.extend_from_slice(&seq.to_le_bytes());
    out.extend_from_slice(entries);
    let sum = checksum(&out);
    out.extend_from_slice(&sum);
    out
}

/// A whole journal of these rows.
pub(crate) fn rewritten(network: &NetworkId, seq: u64, rows: impl Iterator<Item = (UnitId, OutboxValue)>) -> Vec<u8> {
    let mut out = header(network);
    let mut entries = Vec::with_capacity(ROWS_PER_FRAME);
    for (unit, row) in rows {
        let text = (!row.text.is_empty()).then_some(row.text);
        entries.push(Entry::Put { unit, state: row.state, epoch: row.epoch, text });
        if entries.len() == ROWS_PER_FRAME {
            out.extend(frame(0, &entries));
            entries.clear();
        }
    }
    if !entries.is_empty() {
        out.extend(frame(0, &entries));
    }
    out.extend(frame(seq, &[]));
    out
}

/// Whether a row in this state still has its text.
pub(crate) fn keeps_text(state: OutboxState) -> bool {
    match state {
        OutboxState::Waiting | OutboxState::Due | OutboxState::Dead => true,
        OutboxState::Delivered | OutboxState::Void => false,
    }
}

/// Reads as much as is whole.
pub(crate) fn read(bytes: &[u8], network: &NetworkId) -> Result<Journal, HeadFault> {
    let head = bytes.get(..HEADER).ok_or(HeadFault::Damaged)?;
    let (body, sum) = head.split_at(HEADER - CHECKSUM);
    let rest = body.strip_prefix(MAGIC.as_slice()).ok_or(HeadFault::Damaged)?;
    let (format, id) = rest.split_first_chunk::<4>().ok_or(HeadFault::Damaged)?;
    if checksum(body) != sum {
        return Err(HeadFault::Damaged);
    }
    let found = u32::from_le_bytes(*format);
    if found != FORMAT {
        return Err(HeadFault::Format { found });
    }
    let found = NetworkId(id.try_into().map_err(|_| HeadFault::Damaged)?);
    if found != *network {
        return Err(HeadFault::OtherNetwork { found });
    }
    let mut journal = Journal { good: HEADER, ..Journal::default() };
    while let Some((seq, entries, len)) = bytes.get(journal.good..).and_then(read_frame) {
        journal.good += len;
        if seq > 0 {
            journal.seq = seq;
        }
        for entry in entries {
            journal.take(entry);
        }
    }
    Ok(journal)
}

impl Journal {
    fn take(&mut self, entry: Entry) {
        match entry {
            Entry::Drop { unit } => {
                self.rows.remove(&unit);
            }
            Entry::Put { unit, state, epoch, text } => {
                let before = self.rows.remove(&unit).map(|row| row.text);
                let text = if keeps_text(state) { text.or(before).unwrap_or_default() } else { String::new() };
                // A row to be sent without a text can only come from a frame that this code did not write.
                if !keeps_text(state) || !text.is_empty() {
                    self.rows.insert(unit, OutboxValue { state, epoch, text });
                }
            }
        }
    }
}

/// The frame at the front: its number, its entries, its length; `None` when it is not whole.
fn read_frame(bytes: &[u8]) -> Option<(u64, Vec<Entry>, usize)> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    let body = rest.get(..length)?;
    let sum = rest.get(length..length.checked_add(CHECKSUM)?)?;
    if checksum(&bytes[..4 + length]) != sum {
        return None;
    }
    let (seq, mut body) = body.split_first_chunk::<8>()?;
    let mut entries = Vec::new();
    while let Some((code, rest)) = body.split_first() {
        let (unit, rest) = rest.split_first_chunk::<32>()?;
        let unit = UnitId(*unit);
        if *code == 0 {
            entries.push(Entry::Drop { unit });
            body = rest;
            continue;
        }
        let state = outbox_state(*code)?;
        let (epoch, rest) = rest.split_first_chunk::<8>()?;
        let (length, rest) = rest.split_first_chunk::<4>()?;
        let (text, rest) = rest.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)?;
        let text = std::str::from_utf8(text).ok()?;
        entries.push(Entry::Put { unit, state, epoch: u64::from_le_bytes(*epoch), text: (!text.is_empty()).then(|| text.to_owned()) });
        body = rest;
    }
    Some((u64::from_le_bytes(*seq), entries, 4 + length + CHECKSUM))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NET: NetworkId = NetworkId([5; 32]);

    fn unit(n: u8) -> UnitId {
        UnitId([n; 32])
    }

    fn put(n: u8, state: OutboxState, text: Option<&str>) -> Entry {
        Entry::Put { unit: unit(n), state, epoch: u64::from(n), text: text.map(str::to_owned) }
    }

    fn sample() -> Vec<u8> {
        let mut bytes = rewritten(&NET, 0, std::iter::empty());
        bytes.extend(frame(1, &[put(1, OutboxState::Waiting, Some("one")), put(2, OutboxState::Waiting, Some("two"))]));
        bytes.extend(frame(2, &[put(1, OutboxState::Due, None)]));
        bytes.extend(frame(
            3,
            &[put(2, OutboxState::Delivered, None), Entry::Drop { unit: unit(1) }, put(3, OutboxState::Dead, Some("three"))],
        ));
        bytes
    }

    #[test]
    fn frames_add_up() {
        let journal = read(&sample(), &NET).unwrap();
        assert_eq!(journal.seq, 3);
        assert_eq!(journal.good, sample().len());
        let rows: Vec<_> = journal.rows.iter().map(|(u, r)| (u.0[0], r.state, r.text.as_str())).collect();
        assert_eq!(rows, [(2, OutboxState::Delivered, ""), (3, OutboxState::Dead, "three")]);
        let again = read(&rewritten(&NET, journal.seq, journal.rows.clone().into_iter()), &NET).unwrap();
        assert_eq!((again.seq, again.rows), (3, journal.rows));
    }

    #[test]
    fn every_cut_keeps_whole_frames_before_it() {
        let bytes = sample();
        let ends: Vec<usize> = (0..=bytes.len()).filter_map(|n| read(&bytes[..n], &NET).ok().map(|j| j.good)).collect();
        assert!(ends.is_sorted());
        assert!(read(&bytes[..HEADER - 1], &NET).is_err());
        for n in HEADER..bytes.len() {
            let journal = read(&bytes[..n], &NET).unwrap();
            assert!(journal.good <= n && journal.seq < 3);
        }
    }

    #[test]
    fn a_half_rewritten_file_never_looks_new() {
        let rows = (0..=255).map(|n| (unit(n), OutboxValue { state: OutboxState::Due, epoch: 1, text: "x".repeat(100) }));
        let bytes = rewritten(&NET, 77, rows.clone().chain(rows.map(|(u, r)| (UnitId([u.0[0]; 32].map(|b| b ^ 0x55)), r))));
        assert_eq!(read(&bytes, &NET).unwrap().seq, 77);
        assert_eq!(read(&bytes[..bytes.len() - 1], &NET).unwrap().seq, 0);
    }

    #[test]
    fn foreign_and_newer_heads_are_named() {
        assert_eq!(read(&sample(), &NetworkId([6; 32])), Err(HeadFault::OtherNetwork { found: NET }));
        let mut newer = [&MAGIC[..], &9u32.to_le_bytes(), &NET.0].concat();
        let sum = checksum(&newer);
        newer.extend_from_slice(&sum);
        assert_eq!(read(&newer, &NET), Err(HeadFault::Format { found: 9 }));
    }

    proptest! {
        #[test]
        fn garbage_never_panics(tail in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(read(&tail, &NET).is_err());
            let mut bytes = header(&NET);
            bytes.extend(&tail);
            let journal = read(&bytes, &NET).unwrap();
            prop_assert_eq!(journal.good, HEADER);
            // Behind a good checksum too.
            let mut framed = header(&NET);
            let mut body = (tail.len() as u32).to_le_bytes().to_vec();
            body.extend(&tail);
            let sum = checksum(&body);
            framed.extend(body);
            framed.extend(sum);
            prop_assert!(read(&framed, &NET).is_ok());
        }

        #[test]
        fn a_flipped_bit_costs_no_more_than_what_follows(at in 0usize..10_000, bit in 0u8..8) {
            let mut bytes = sample();
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            if let Ok(journal) = read(&bytes, &NET) {
                prop_assert!(at >= HEADER && journal.good <= at && journal.seq < 3);
            } else {
                prop_assert!(at < HEADER);
            }
        }
    }
}
