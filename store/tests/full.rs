//! A full disk, for real: a small tmpfs in a mount namespace of the test's own, so that nothing is left of it and nobody else sees it.
//!
//! Each test starts itself once more inside of the namespace. Where the system gives none, it says that it was left out.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use common::{NET, accepted, share};
use tops_protocol::Height;
use tops_store::sled::open;
use tops_store::{RESERVE_PART, Store, StoreFault, Writer};

const DISK: &str = "TOPS_STORE_FULL_DISK";
const DISK_BYTES: u64 = 24 << 20;
const SEED: u64 = 20_261_129;

/// Runs `test` with a disk of its own, in a process of its own.
fn on_a_small_disk(name: &str, test: fn(&Disk)) {
    if let Some(dir) = std::env::var_os(DISK) {
        return test(&Disk(dir.into()));
    }
    let dir = tempfile::tempdir().unwrap();
    let mount = format!("mount -t tmpfs -o size={DISK_BYTES} tmpfs \"$0\"");
    for namespace in [&["-m"][..], &["-Urm"]] {
        let has = |script: &str| {
            let mut command = Command::new("unshare");
            command.args(namespace).args(["sh", "-c", script]).arg(dir.path());
            command
        };
        if has(&mount).output().is_ok_and(|done| done.status.success()) {
            let mut command = has(&format!("{mount} && exec \"$1\" --exact \"$2\" --nocapture"));
            let done = command.arg(std::env::current_exe().unwrap()).arg(name).env(DISK, dir.path()).output().unwrap();
            assert!(done.status.success(), "{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
            return;
        }
    }
    eprintln!("left out: {name} needs a mount namespace (unshare -m as root, or unprivileged user namespaces)");
}

struct Disk(PathBuf);

impl Disk {
    fn store(&self) -> PathBuf {
        self.0.join("store")
    }
    fn filler(&self) -> PathBuf {
        self.0.join("filler")
    }
    /// Somebody fills the disk until only so many bytes are left.
    fn leave(&self, bytes: u64) {
        self.free();
        let mut filler = File::create(self.filler()).unwrap();
        let page = vec![1; 4_096];
        // A tmpfs counts pages.
        while filler.write_all(&page).is_ok() {}
        let filled = filler.metadata().unwrap().len();
        filler.set_len(filled.saturating_sub(bytes)).unwrap();
    }
    fn free(&self) {
        let _ = fs::remove_file(self.filler());
    }
}

fn is_full(result: &Result<(), StoreFault>) -> bool {
    matches!(result, Err(StoreFault::Full { .. }))
}

/// All of `1..=last` is there, as it was written.
fn has_all(store: &dyn Store, last: u64) {
    for n in 1..=last {
        assert_eq!(store.share(&share(1, n, n).unit).unwrap(), Some(share(1, n, n)), "seed {SEED}: {n} of {last}");
    }
}

#[test]
fn writing_stops_before_the_disk_is_full_and_goes_on_by_itself() {
    on_a_small_disk("writing_stops_before_the_disk_is_full_and_goes_on_by_itself", |disk| {
        let store = open(&disk.store(), NET).unwrap().store;
        store.commit(&[accepted(1, 1, 1)]).unwrap();
        store.room().unwrap();
        disk.leave(DISK_BYTES / RESERVE_PART - 64 * 1024);
        let refused = store.commit(&[accepted(1, 2, 2)]).unwrap_err();
        let words = refused.to_string();
        assert!(words.contains("MiB are wanted") && words.contains("free some space"), "{words}");
        assert!(store.room().is_err());
        // Reading goes on.
        has_all(&*store, 1);
        assert_eq!(store.share(&share(1, 2, 2).unit).unwrap(), None);
        disk.free();
        store.room().unwrap();
        store.commit(&[accepted(1, 2, 2)]).unwrap();
        has_all(&*store, 2);
        assert_eq!(store.outbox_counts().waiting, 2);
    });
}

/// A small generator, so that a failing run can be repeated.
struct Seeded(u64);

impl Seeded {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

/// The reserve is there when a group begins, and gone before it ends: the system refuses some write in its middle.
#[test]
fn slow_a_disk_that_fills_within_a_commit_loses_nothing_acknowledged() {
    on_a_small_disk("slow_a_disk_that_fills_within_a_commit_loses_nothing_acknowledged", |disk| {
        let mut seeded = Seeded(SEED);
        let mut store = open(&disk.store(), NET).unwrap().store;
        let (mut last, mut by_system, mut restarts) = (0, 0, 0);
        for round in 0..40 {
            // sled's files only grow: before they fill the disk by themselves, another store begins.
            if round % 2 == 0 {
                drop_store(&mut store);
                fs::remove_dir_all(disk.store()).unwrap();
                store = open(&disk.store(), NET).unwrap().store;
                last = 0;
            }
            let before = last;
            disk.leave(DISK_BYTES / RESERVE_PART + 4_096 * seeded.below(64));
            let (group, result) = loop {
                let count = 300 + seeded.below(1_500);
                let group: Vec<_> = (last + 1..=last + count).map(|n| accepted(1, n, n)).collect();
                match store.commit(&group) {
                    Ok(()) => last += count,
                    failed => break (group, failed),
                }
            };
            assert!(is_full(&result), "seed {SEED}, round {round}: {result:?}");
            by_system += u32::from(!format!("{result:?}").contains("are wanted"));
            // Still full: neither a restart nor another try changes anything but the sentence.
            assert!(is_full(&store.commit(&group)), "round {round}");
            if seeded.below(3) == 0 {
                drop_store(&mut store);
                match open(&disk.store(), NET) {
                    Err(StoreFault::Full { .. }) => {
                        disk.free();
                        store = open(&disk.store(), NET).unwrap().store;
                    }
                    opened => {
                        let opened = opened.unwrap();
                        assert!(opened.set_aside.is_none() && !opened.fresh, "seed {SEED}, round {round}");
                        store = opened.store;
                    }
                }
                restarts += 1;
            }
            disk.free();
            store.commit(&group).unwrap();
            last += group.len() as u64;
            for n in before.max(1)..=last {
                assert_eq!(store.share(&share(1, n, n).unit).unwrap(), Some(share(1, n, n)), "seed {SEED}, round {round}");
            }
            assert_eq!(store.outbox_counts().waiting, store.snapshot(Height(0)).unwrap().outbox.len() as u64);
        }
        eprintln!("{by_system} times of 40 it was the system that refused, {restarts} restarts");
        assert!(by_system > 20 && restarts > 5);
    });
}

fn drop_store(store: &mut Arc<dyn Store>) {
    *store = tops_store::memory::MemoryDisk::new().open(NET).unwrap().store;
}

#[test]
fn the_writer_waits_on_a_full_disk_and_keeps_the_order() {
    on_a_small_disk("the_writer_waits_on_a_full_disk_and_keeps_the_order", |disk| {
        let store = open(&disk.store(), NET).unwrap().store;
        let writer = Writer::start(Arc::clone(&store)).unwrap();
        // As many words as there are batches.
        let (tell, told) = mpsc::sync_channel(400);
        let submit = |n: u64| {
            let tell = tell.clone();
            writer.submit(accepted(1, n, n), Box::new(move |result| tell.send((n, result)).unwrap()));
        };
        (1..=50).for_each(submit);
        assert_eq!(told.iter().take(50).last(), Some((50, Ok(()))));
        disk.leave(0);
        (51..=400).for_each(submit);
        let began = Instant::now();
        while writer.stuck().is_none() {
            assert!(began.elapsed() < Duration::from_secs(30), "it never said so");
            std::thread::sleep(Duration::from_millis(10));
        }
        std::thread::sleep(Duration::from_millis(500));
        assert!(told.try_recv().is_err(), "something was acknowledged on a full disk");
        disk.free();
        assert_eq!(told.iter().take(350).collect::<Vec<_>>(), (51..=400).map(|n| (n, Ok(()))).collect::<Vec<_>>());
        assert_eq!(writer.stuck(), None);
        writer.close().unwrap();
        has_all(&*store, 400);
    });
}

#[test]
fn a_store_that_cannot_be_opened_on_a_full_disk_opens_when_there_is_room() {
    on_a_small_disk("a_store_that_cannot_be_opened_on_a_full_disk_opens_when_there_is_room", |disk| {
        let store = open(&disk.store(), NET).unwrap().store;
        store.commit(&(1..=200).map(|n| accepted(1, n, n)).collect::<Vec<_>>()).unwrap();
        drop(store);
        disk.leave(0);
        for _ in 0..5 {
            assert!(matches!(open(&disk.store(), NET), Err(StoreFault::Full { .. })));
        }
        disk.free();
        let opened = open(&disk.store(), NET).unwrap();
        assert!(opened.set_aside.is_none() && !opened.fresh);
        has_all(&*opened.store, 200);
        assert_eq!(opened.store.outbox_counts().waiting, 200);
        // A new one likewise.
        disk.leave(0);
        let fresh = Path::new(&disk.0).join("fresh");
        assert!(matches!(open(&fresh, NET), Err(StoreFault::Full { .. })));
        disk.free();
        assert!(open(&fresh, NET).unwrap().fresh);
    });
}
