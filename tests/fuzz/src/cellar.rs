//! What lies on a disk: rows of the store, and the outbox's journal.

use arbitrary::{Arbitrary, Unstructured};
use tops_protocol::NetworkSpec;
use tops_store::probe;

/// A row: a table, a key, and bytes behind a checksum that is right or is theirs.
pub fn store_row(bytes: &[u8]) {
    let Some(([table, length], rest)) = bytes.split_first_chunk::<2>() else { return };
    let (key, value) = rest.split_at(usize::from(*length).min(rest.len()));
    probe::value(*table, key, value);
    probe::payload(*table, key, value);
}

#[derive(Debug, Arbitrary)]
struct Frames<'a>(Vec<(u8, &'a [u8])>);

/// A journal: bytes as they are, and as entries of frames that are whole.
pub fn journal(bytes: &[u8]) {
    let network = NetworkSpec::dev().id();
    assert!(probe::journal(&network, bytes) <= bytes.len());
    if let Ok(Frames(frames)) = Frames::arbitrary(&mut Unstructured::new(bytes)) {
        let frames: Vec<(u64, &[u8])> = frames.into_iter().map(|(seq, body)| (u64::from(seq), body)).collect();
        probe::journal_of(&network, &frames);
    }
    probe::journal_of(&network, &[(1, bytes)]);
}
