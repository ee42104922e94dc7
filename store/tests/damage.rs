//! Damaged, foreign and contested files: every case opens anew or is refused with words, and the outbox stays.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use common::{NET, accepted, miner, share};
use tempfile::TempDir;
use tops_protocol::engine::{Op, OutboxState};
use tops_protocol::types::NetworkId;
use tops_protocol::{Height, PublicKey};
use tops_store::StoreFault;
use tops_store::sled::{Opened, SET_ASIDE_MAX, open};

const ROWS: u64 = 300;

/// A store with rows of every kind, closed.
fn filled() -> TempDir {
    filled_with(ROWS)
}

fn filled_with(rows: u64) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), NET).unwrap().store;
    for n in 1..=rows / 10 {
        let batches: Vec<_> = (0..10).map(|i| accepted((n % 7) as u8, n, 10 * n + i)).collect();
        store.commit(&batches).unwrap();
    }
    let unit = share(1, 1, 10).unit;
    store.commit(&[vec![Op::PutOutbox { unit, epoch: 1, state: OutboxState::Delivered }]]).unwrap();
    drop(store);
    dir
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn outbox_is_whole(opened: &Opened, rows: u64) {
    let counts = opened.store.outbox_counts();
    assert_eq!((counts.waiting, counts.delivered), (rows - 1, 1));
    let unit = share(2, 2, 20).unit;
    assert!(opened.store.outbox_row(&unit).unwrap().unwrap().text.contains("\"nonce\":20,"));
}

/// Either the store noticed and began anew, or what it gives is a state that it once had: the first so many batches, each whole, and
/// nothing of any later one. [`filled_with`] commits them in the order of their nonces, from 10 up.
fn never_silently_wrong(opened: &Opened, rows: u64) {
    outbox_is_whole(opened, rows);
    let snapshot = opened.store.snapshot(Height(0)).unwrap();
    let end = 10 + snapshot.shares.len() as u64;
    assert!(end <= 10 + rows && (!opened.fresh || end == 10), "{} shares of {rows}", snapshot.shares.len());
    let nonces: BTreeSet<u64> = snapshot.shares.iter().map(nonce).collect();
    assert!(nonces.iter().copied().eq(10..end), "a later share is there without an earlier one: {nonces:?}");
    let by = |nonce: u64| (nonce / 10 % 7) as u8;
    assert!(snapshot.shares.iter().all(|row| *row == share(by(nonce(row)), nonce(row) / 10, nonce(row))));
    // Each batch sets its miner's sums to its nonce.
    let sums: BTreeMap<PublicKey, u64> = (10..end).map(|nonce| (miner(by(nonce)), nonce)).collect();
    let ledger: BTreeMap<_, _> = snapshot.ledger.iter().map(|(key, row)| (*key, row.shares)).collect();
    let standing: BTreeMap<_, _> = snapshot.standing.iter().map(|(key, row)| (*key, row.accepted)).collect();
    assert_eq!((&ledger, &standing), (&sums, &sums), "a batch is there in part");
    // And it goes on.
    opened.store.commit(&[accepted(1, 500, 1)]).unwrap();
}

fn nonce(row: &tops_protocol::engine::ShareRow) -> u64 {
    tops_protocol::codec::receipt_from_wire(&row.wire).unwrap().nonce.get()
}

#[test]
fn truncated_files_cost_a_resync_and_no_delivery() {
    // Enough for several segments of sled's, so that a cut takes older pages and not only the newest.
    const MANY: u64 = 3_000;
    let made = filled_with(MANY);
    let length = fs::metadata(made.path().join("db/db")).unwrap().len();
    let (mut aside, mut fresh) = (0, 0);
    for part in 0..16 {
        let dir = tempfile::tempdir().unwrap();
        copy(made.path(), dir.path());
        fs::OpenOptions::new().write(true).open(dir.path().join("db/db")).unwrap().set_len(length * part / 16).unwrap();
        let opened = open(dir.path(), NET).unwrap();
        never_silently_wrong(&opened, MANY);
        aside += usize::from(opened.set_aside.as_ref().is_some_and(|path| path.is_dir()));
        fresh += usize::from(opened.fresh);
        // What it did lasts.
        drop(opened);
        let again = open(dir.path(), NET).unwrap();
        assert!(!again.fresh && again.set_aside.is_none());
        outbox_rows(&again, MANY + 1);
    }
    eprintln!("of 16 cuts {aside} were set aside and {fresh} began empty");
    assert!(fresh > 0);
}

fn outbox_rows(opened: &Opened, rows: u64) {
    let counts = opened.store.outbox_counts();
    assert_eq!(counts.waiting + counts.delivered, rows);
}

#[test]
fn flipped_bits_are_never_silent() {
    let made = filled();
    let length = fs::metadata(made.path().join("db/db")).unwrap().len() as usize;
    let mut noticed = 0;
    for i in 0..40usize {
        let dir = tempfile::tempdir().unwrap();
        copy(made.path(), dir.path());
        let file = dir.path().join("db/db");
        let mut bytes = fs::read(&file).unwrap();
        let at = (i * 2_654_435_761) % length;
        bytes[at] ^= 1 << (i % 8);
        fs::write(&file, bytes).unwrap();
        let opened = open(dir.path(), NET).unwrap();
        never_silently_wrong(&opened, ROWS);
        noticed += usize::from(opened.set_aside.is_some());
    }
    assert!(noticed > 0);
}

#[test]
fn garbage_in_place_of_any_file_is_survived() {
    let made = filled();
    for name in ["db/db", "db/conf", "outbox.journal"] {
        for garbage in [Vec::new(), vec![0u8; 10_000], (0..10_000u32).map(|n| (n * 7 + n / 13) as u8).collect()] {
            let dir = tempfile::tempdir().unwrap();
            copy(made.path(), dir.path());
            fs::write(dir.path().join(name), &garbage).unwrap();
            let opened = open(dir.path(), NET).unwrap();
            never_silently_wrong(&opened, ROWS);
            if name == "outbox.journal" {
                assert!(!opened.fresh);
                assert!(dir.path().join("outbox.journal.damaged-1").exists());
            }
        }
    }
    for entry in fs::read_dir(made.path().join("db")).unwrap() {
        let name = entry.unwrap().file_name();
        if name.to_str().unwrap().starts_with("snap.") {
            let dir = tempfile::tempdir().unwrap();
            copy(made.path(), dir.path());
            fs::write(dir.path().join("db").join(&name), b"nothing").unwrap();
            never_silently_wrong(&open(dir.path(), NET).unwrap(), ROWS);
        }
    }
}

#[test]
fn a_deleted_database_keeps_its_outbox() {
    let dir = filled();
    fs::remove_dir_all(dir.path().join("db")).unwrap();
    let opened = open(dir.path(), NET).unwrap();
    assert!(opened.fresh && opened.set_aside.is_none());
    outbox_is_whole(&opened, ROWS);
}

#[test]
fn a_journal_with_a_garbled_tail_keeps_what_is_before() {
    let dir = filled();
    let file = dir.path().join("outbox.journal");
    let mut bytes = fs::read(&file).unwrap();
    bytes.extend_from_slice(&[9; 333]);
    fs::write(&file, &bytes).unwrap();
    fs::remove_dir_all(dir.path().join("db")).unwrap();
    outbox_is_whole(&open(dir.path(), NET).unwrap(), ROWS);
}

#[test]
fn a_leftover_of_a_killed_snapshot_does_not_lock_the_store_for_ever() {
    let dir = filled();
    fs::write(dir.path().join("db/snap.00000000000000FF.generating"), b"half").unwrap();
    let opened = open(dir.path(), NET).unwrap();
    assert!(!opened.fresh && opened.set_aside.is_none());
    assert_eq!(opened.store.snapshot(Height(0)).unwrap().shares.len(), ROWS as usize);
}

#[test]
fn few_damaged_databases_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    for _ in 0..SET_ASIDE_MAX + 3 {
        drop(open(dir.path(), NET).unwrap());
        fs::write(dir.path().join("db.suspect"), b"noted while running").unwrap();
    }
    let aside = open(dir.path(), NET).unwrap().set_aside.unwrap();
    assert_eq!(aside.file_name().unwrap().to_str().unwrap(), format!("db.damaged-{}", SET_ASIDE_MAX + 3));
    let kept = fs::read_dir(dir.path()).unwrap().filter(|e| e.as_ref().unwrap().file_name().to_str().unwrap().starts_with("db.damaged-"));
    assert_eq!(kept.count() as u64, SET_ASIDE_MAX);
}

#[test]
fn a_second_open_is_refused_with_words() {
    let dir = tempfile::tempdir().unwrap();
    let opened = open(dir.path(), NET).unwrap();
    let fault = open(dir.path(), NET).err().unwrap();
    assert_eq!(fault, StoreFault::InUse { path: dir.path().to_path_buf() });
    assert!(fault.to_string().contains("--data-dir"));
    drop(opened);
    assert!(!open(dir.path(), NET).unwrap().fresh);
}

#[test]
fn another_network_is_refused_and_nothing_changed() {
    let dir = filled();
    assert!(matches!(open(dir.path(), NetworkId([1; 32])), Err(StoreFault::OtherNetwork { .. })));
    fs::remove_file(dir.path().join("outbox.journal")).unwrap();
    assert!(matches!(open(dir.path(), NetworkId([1; 32])), Err(StoreFault::OtherNetwork { .. })));
    outbox_is_whole(&open(dir.path(), NET).unwrap(), ROWS);
}

#[test]
fn a_newer_or_unknown_format_is_refused_and_nothing_changed() {
    for format in [0u32, 2, 99] {
        let dir = filled();
        rewrite_format(dir.path(), Some(format));
        match open(dir.path(), NET) {
            Err(StoreFault::Format { found, known, .. }) => assert_eq!((found, known), (format, tops_store::tables::FORMAT)),
            other => panic!("format {format}: {:?}", other.err()),
        }
        rewrite_format(dir.path(), Some(tops_store::tables::FORMAT));
        let opened = open(dir.path(), NET).unwrap();
        assert!(!opened.fresh && opened.set_aside.is_none());
    }
    // No format row at all, but rows: not a store that this code wrote.
    let dir = filled();
    rewrite_format(dir.path(), None);
    let opened = open(dir.path(), NET).unwrap();
    assert!(opened.fresh && opened.set_aside.is_some());
    outbox_is_whole(&opened, ROWS);
}

/// The frame as the layout page gives it, written by other hands.
fn rewrite_format(dir: &Path, format: Option<u32>) {
    let db = (0..200)
        .find_map(|_| sled::open(dir.join("db")).inspect_err(|_| std::thread::sleep(std::time::Duration::from_millis(10))).ok())
        .unwrap();
    let meta = db.open_tree("meta").unwrap();
    match format {
        Some(format) => {
            let row = [&b"tops-store"[..], &format.to_le_bytes()].concat();
            let mut hasher = blake3::Hasher::new();
            hasher.update(&[0, 6]).update(b"format").update(&row);
            let row = [&row[..], &hasher.finalize().as_bytes()[..8]].concat();
            meta.insert("format", row).unwrap();
        }
        None => drop(meta.remove("format").unwrap()),
    }
    db.flush().unwrap();
}

#[test]
fn a_directory_that_cannot_be_written_is_a_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, b"").unwrap();
    let fault = open(&file.join("store"), NET).err().unwrap();
    assert!(matches!(fault, StoreFault::Io { .. }));
    assert!(fault.to_string().contains("check free space and permissions"));
}
