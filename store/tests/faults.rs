//! The twin's injected faults, and the writer: a group is promised whole or not at all, batches are never half there.

#![allow(clippy::unwrap_used, clippy::expect_used)]
#![allow(clippy::disallowed_methods)] // a test counts what it sends

mod common;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use common::{NET, accepted, miner, share};
use tops_protocol::engine::{Op, OutboxState};
use tops_protocol::types::NetworkId;
use tops_protocol::{Height, Millis, UnitId};
use tops_store::memory::{Fault, MemoryDisk};
use tops_store::{Store, StoreFault, WRITER_QUEUE, Writer};

fn shares(store: &dyn Store) -> usize {
    store.snapshot(Height(0)).unwrap().shares.len()
}

#[test]
fn a_group_that_fails_in_its_middle_is_not_promised_and_leaves_whole_batches() {
    let disk = MemoryDisk::new();
    let store = disk.open(NET).unwrap().store;
    disk.inject(Fault::Apply { after: 2 });
    let group: Vec<_> = (1..=4).map(|n| accepted(1, n, n)).collect();
    assert!(matches!(store.commit(&group), Err(StoreFault::Io { .. })));
    assert_eq!(shares(&*store), 2);
    disk.crash();
    let store = disk.open(NET).unwrap().store;
    assert_eq!(shares(&*store), 0);
    // The same group again, as a node does after its restart.
    store.commit(&group).unwrap();
    let snapshot = store.snapshot(Height(0)).unwrap();
    assert_eq!((snapshot.shares.len(), snapshot.outbox.len()), (4, 4));
}

#[test]
fn what_was_not_flushed_is_lost_by_a_crash_and_what_was_is_not() {
    let disk = MemoryDisk::new();
    let store = disk.open(NET).unwrap().store;
    store.commit(&[accepted(1, 1, 1)]).unwrap();
    disk.inject(Fault::Sync);
    store.commit(&[accepted(1, 2, 2)]).unwrap_err();
    disk.crash();
    let opened = disk.open(NET).unwrap();
    assert!(!opened.fresh && opened.set_aside.is_none());
    assert_eq!(opened.store.share(&share(1, 1, 1).unit).unwrap(), Some(share(1, 1, 1)));
    assert_eq!(opened.store.share(&share(1, 2, 2).unit).unwrap(), None);
    assert_eq!(opened.store.outbox_counts().waiting, 1);
}

#[test]
fn a_journal_that_missed_a_frame_is_made_whole_by_the_next_commit() {
    let disk = MemoryDisk::new();
    let store = disk.open(NET).unwrap().store;
    disk.inject(Fault::Journal);
    store.commit(&[accepted(1, 1, 1)]).unwrap_err();
    // The trees have it, and they count higher: a restart keeps it.
    assert_eq!(disk.open(NET).unwrap().store.outbox_counts().waiting, 1);
    let store = disk.open(NET).unwrap().store;
    disk.inject(Fault::Journal);
    store.commit(&[accepted(1, 2, 2)]).unwrap_err();
    store.commit(&[accepted(1, 3, 3)]).unwrap();
    disk.lose_trees();
    assert_eq!(disk.open(NET).unwrap().store.outbox_counts().waiting, 3);
}

#[test]
fn a_flipped_bit_anywhere_is_noticed_at_open_and_the_outbox_stays() {
    for nth in 0..60 {
        let disk = MemoryDisk::new();
        let store = disk.open(NET).unwrap().store;
        store.commit(&(1..=4).map(|n| accepted(1, n, n)).collect::<Vec<_>>()).unwrap();
        store.mark_attempt(&share(1, 1, 1).unit, Millis(5), "timeout").unwrap();
        disk.flip_bit(nth, nth * 31);
        drop(store);
        let opened = disk.open(NET).unwrap();
        assert!(opened.fresh && opened.set_aside.is_some(), "value {nth}");
        assert_eq!(opened.store.outbox_counts().waiting, 4);
        assert_eq!(shares(&*opened.store), 0);
    }
}

#[test]
fn a_value_that_proves_wrong_while_running_is_a_fault_and_noted() {
    let disk = MemoryDisk::new();
    let store = disk.open(NET).unwrap().store;
    store.commit(&[accepted(1, 1, 1)]).unwrap();
    for nth in 0..20 {
        disk.flip_bit(nth, nth);
    }
    assert!(matches!(store.share(&share(1, 1, 1).unit), Err(StoreFault::Damaged { .. })));
    drop(store);
    assert!(disk.open(NET).unwrap().set_aside.is_some());
}

#[test]
fn another_network_is_refused() {
    let disk = MemoryDisk::new();
    drop(disk.open(NET).unwrap());
    assert!(matches!(disk.open(NetworkId([8; 32])), Err(StoreFault::OtherNetwork { .. })));
    assert!(!disk.open(NET).unwrap().fresh);
}

#[test]
fn the_journal_stays_small_while_rows_come_and_go() {
    let disk = MemoryDisk::new();
    let store = disk.open(NET).unwrap().store;
    let mut longest = 0;
    for n in 1..=30_000u64 {
        let unit = share(1, n, n).unit;
        let mut batch = accepted(1, n, n);
        batch.extend([Op::PutOutbox { unit, epoch: n, state: OutboxState::Delivered }, Op::DropOutbox { unit }, Op::DropShare { unit }]);
        store.commit(&[batch]).unwrap();
        longest = longest.max(disk.journal_len());
    }
    assert!(longest > 8_000_000, "the bound was never reached: {longest}");
    assert!(longest < 9 << 20, "{longest}");
    assert_eq!(store.outbox_counts(), tops_store::OutboxCounts::default());
}

/// On a thread of its own, and on the caller's.
const WRITERS: [fn(Arc<dyn Store>) -> Writer; 2] = [|store| Writer::start(store).unwrap(), Writer::here];

#[test]
fn the_writer_tells_each_in_order_and_only_when_durable() {
    for writer in WRITERS {
        let disk = MemoryDisk::new();
        let store = disk.open(NET).unwrap().store;
        let writer = writer(Arc::clone(&store));
        let (tell, told) = mpsc::channel();
        for n in 1..=500u64 {
            let (tell, store) = (tell.clone(), Arc::clone(&store));
            let done = Box::new(move |result: Result<(), StoreFault>| {
                assert!(store.share(&share(1, n, n).unit).unwrap().is_some());
                tell.send((n, result)).unwrap();
            });
            writer.submit(accepted(1, n, n), done);
        }
        assert_eq!(told.iter().take(500).collect::<Vec<_>>(), (1..=500).map(|n| (n, Ok(()))).collect::<Vec<_>>());
        writer.close().unwrap();
        disk.crash();
        assert_eq!(shares(&*disk.open(NET).unwrap().store), 500);
    }
}

#[test]
fn closing_writes_what_waits() {
    let disk = MemoryDisk::new();
    let writer = Writer::start(disk.open(NET).unwrap().store).unwrap();
    let told = Arc::new(AtomicUsize::new(0));
    for n in 1..=300u64 {
        let told = Arc::clone(&told);
        writer.submit(
            accepted(1, n, n),
            Box::new(move |result| {
                result.unwrap();
                told.fetch_add(1, Ordering::SeqCst);
            }),
        );
    }
    drop(writer);
    assert_eq!(told.load(Ordering::SeqCst), 300);
    assert_eq!(shares(&*disk.open(NET).unwrap().store), 300);
}

#[test]
fn after_a_fault_the_writer_writes_nothing_more() {
    for writer in WRITERS {
        let disk = MemoryDisk::new();
        let store = disk.open(NET).unwrap().store;
        let writer = writer(Arc::clone(&store));
        disk.inject(Fault::Apply { after: 0 });
        let (tell, told) = mpsc::channel();
        for n in 1..=3u64 {
            let tell = tell.clone();
            writer.submit(accepted(1, n, n), Box::new(move |result| tell.send(result).unwrap()));
            // One at a time: each is a group of its own.
            let result = told.recv().unwrap();
            match n {
                1 => assert!(matches!(result, Err(StoreFault::Io { .. }))),
                _ => assert_eq!(result, Err(StoreFault::Stopped)),
            }
        }
        assert!(matches!(writer.fault(), Some(StoreFault::Io { .. })));
        assert!(writer.close().is_err());
        assert_eq!(shares(&*store), 0);
    }
}

#[test]
fn a_full_disk_holds_the_group_and_what_is_behind_it() {
    let disk = MemoryDisk::new();
    let store = disk.open(NET).unwrap().store;
    let writer = Writer::start(Arc::clone(&store)).unwrap();
    let (tell, told) = mpsc::channel();
    let submit = |n: u64| {
        let tell = tell.clone();
        writer.submit(accepted(1, n, n), Box::new(move |result| tell.send((n, result)).unwrap()));
    };
    let until = |what: &dyn Fn() -> bool| {
        let began = Instant::now();
        while !what() {
            assert!(began.elapsed() < Duration::from_secs(30));
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    // It is said before anybody needs it, and taken back.
    disk.set_full(true);
    until(&|| writer.stuck().is_some());
    disk.set_full(false);
    until(&|| writer.stuck().is_none());
    // In the middle of a group: some of it is in the trees already.
    disk.set_full(true);
    (1..=20).for_each(submit);
    until(&|| writer.stuck().is_some());
    (21..=40).for_each(submit);
    assert_eq!((told.try_recv().is_err(), shares(&*store), writer.fault()), (true, 0, None));
    disk.set_full(false);
    assert_eq!(told.iter().take(40).collect::<Vec<_>>(), (1..=40).map(|n| (n, Ok(()))).collect::<Vec<_>>());
    assert_eq!(store.outbox_counts().waiting, 40);
    // The end does not wait for room, and says what was not written.
    disk.set_full(true);
    (41..=43).for_each(submit);
    until(&|| writer.stuck().is_some());
    assert!(matches!(writer.close(), Err(StoreFault::Full { .. })));
    let last: Vec<_> = told.iter().take(3).map(|(n, result)| (n, result.is_err())).collect();
    assert_eq!(last, [(41, true), (42, true), (43, true)]);
    disk.set_full(false);
    disk.crash();
    assert_eq!(shares(&*disk.open(NET).unwrap().store), 40);
}

#[test]
fn a_full_queue_hands_the_batch_back() {
    let disk = MemoryDisk::new();
    let writer = Writer::start(disk.open(NET).unwrap().store).unwrap();
    // The writer's thread waits in the first batch's callback until it may go on.
    let (go, gate) = mpsc::channel::<()>();
    let (tell, told) = mpsc::channel();
    writer.submit(
        Vec::new(),
        Box::new(move |_| {
            tell.send(()).unwrap();
            let _ = gate.recv();
        }),
    );
    told.recv().unwrap();
    let batch = vec![Op::DropShare { unit: UnitId([1; 32]) }, Op::DropStanding { miner: miner(1) }];
    for _ in 0..WRITER_QUEUE {
        assert!(writer.try_submit(batch.clone(), Box::new(|_| ())).is_ok());
    }
    let back = writer.try_submit(batch.clone(), Box::new(|_| ())).err().unwrap();
    assert_eq!(back.batch, batch);
    go.send(()).unwrap();
    writer.submit(back.batch, back.on_durable);
    writer.close().unwrap();
}
