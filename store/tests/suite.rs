//! One suite for both stores: every op against a naive model, pages, atomicity, reopening, and the outbox outliving its trees.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::collections::{BTreeMap, BTreeSet};

use common::{NET, accepted, ban, head, miner, receipt, root, share};
use proptest::prelude::*;
use tempfile::TempDir;
use tops_protocol::engine::{BanRow, HeadRow, Op, OutboxEntry, OutboxState, ShareRow, ShareState, Snapshot, StandingRow};
use tops_protocol::ledger::LedgerRow;
use tops_protocol::{Height, Millis, PublicKey, Root, U256, UnitId};
use tops_store::memory::MemoryDisk;
use tops_store::sled::Opened;
use tops_store::{OutboxRow, ReceiptFilter, Store, StoreFault};

/// A place to open stores on, one after another.
trait Ground {
    fn new() -> Self;
    fn open(&self) -> Opened;
    /// The database is gone, the journal stays.
    fn lose_trees(&self);
    fn cut_journal(&self, len: usize);
}

impl Ground for MemoryDisk {
    fn new() -> Self {
        Self::new()
    }
    fn open(&self) -> Opened {
        self.open(NET).unwrap()
    }
    fn lose_trees(&self) {
        self.lose_trees();
    }
    fn cut_journal(&self, len: usize) {
        self.cut_journal(len);
    }
}

impl Ground for TempDir {
    fn new() -> Self {
        tempfile::tempdir().unwrap()
    }
    fn open(&self) -> Opened {
        tops_store::sled::open(self.path(), NET).unwrap()
    }
    fn lose_trees(&self) {
        std::fs::remove_dir_all(self.path().join("db")).unwrap();
    }
    fn cut_journal(&self, len: usize) {
        std::fs::OpenOptions::new().write(true).open(self.path().join("outbox.journal")).unwrap().set_len(len as u64).unwrap();
    }
}

/// What a store should hold, the plainest way.
#[derive(Default, Clone)]
struct Model {
    heads: BTreeMap<Root, HeadRow>,
    main: BTreeMap<u64, Root>,
    shares: BTreeMap<UnitId, ShareRow>,
    standing: BTreeMap<PublicKey, StandingRow>,
    bans: BTreeMap<PublicKey, BanRow>,
    ledger: BTreeMap<PublicKey, LedgerRow>,
    outbox: BTreeMap<UnitId, (u64, OutboxState, Option<PublicKey>)>,
    horizon: u64,
}

impl Model {
    fn op(&mut self, op: &Op) {
        match op.clone() {
            Op::PutHead(row) => drop(self.heads.insert(row.root, row)),
            Op::DropHead(root) => drop(self.heads.remove(&root)),
            Op::PutMain { height, root } => drop(self.main.insert(height.0, root)),
            Op::CutMain { from } => self.main.retain(|h, _| *h < from.0),
            Op::PutShare(row) => drop(self.shares.insert(row.unit, row)),
            Op::SetShare { unit, state } => {
                if let Some(row) = self.shares.get_mut(&unit) {
                    row.state = state;
                }
            }
            Op::DropShare { unit } => drop(self.shares.remove(&unit)),
            Op::PutStanding { miner, row } => drop(self.standing.insert(miner, row)),
            Op::DropStanding { miner } => drop(self.standing.remove(&miner)),
            Op::PutBan(row) => drop(self.bans.insert(row.miner, row)),
            Op::DropBan { miner } => drop(self.bans.remove(&miner)),
            Op::PutLedger { miner, row } => drop(self.ledger.insert(miner, row)),
            Op::PutOutbox { unit, epoch, state } => {
                let needs_text = !matches!(state, OutboxState::Delivered | OutboxState::Void);
                // A text names its miner.
                let text = self.outbox.get(&unit).and_then(|row| row.2).or_else(|| self.shares.get(&unit).map(|share| share.miner));
                if text.is_some() || !needs_text {
                    self.outbox.insert(unit, (epoch, state, text.filter(|_| needs_text)));
                }
            }
            Op::DropOutbox { unit } => drop(self.outbox.remove(&unit)),
            Op::PutHorizon { epoch } => self.horizon = epoch,
        }
    }

    fn snapshot(&self, from: u64) -> Snapshot {
        let mut heads: Vec<_> = self.heads.values().filter(|row| row.height.0 >= from).cloned().collect();
        heads.sort_by_key(|row| (row.height, row.root));
        Snapshot {
            main: self.main.values().copied().collect(),
            heads,
            shares: self.shares.values().cloned().collect(),
            standing: self.standing.clone().into_iter().collect(),
            bans: self.bans.values().cloned().collect(),
            ledger: self.ledger.clone().into_iter().collect(),
            outbox: self.outbox.iter().map(|(&unit, &(epoch, state, miner))| OutboxEntry { unit, epoch, state, miner }).collect(),
            horizon: self.horizon,
        }
    }
}

fn any_outbox_state() -> impl Strategy<Value = OutboxState> {
    prop_oneof![
        Just(OutboxState::Waiting),
        Just(OutboxState::Due),
        Just(OutboxState::Delivered),
        Just(OutboxState::Dead),
        Just(OutboxState::Void)
    ]
}

fn any_share_state() -> impl Strategy<Value = ShareState> {
    prop_oneof![Just(ShareState::Unaudited), Just(ShareState::Audited), Just(ShareState::Void)]
}

/// Ops on few names, so that they meet.
fn any_op() -> impl Strategy<Value = Op> {
    let unit = (1u8..4, 1u64..4, 0u64..3).prop_map(|(by, epoch, nonce)| share(by, epoch, nonce).unit);
    let key = (1u8..5).prop_map(miner);
    prop_oneof![
        1 => (1u64..6, 0u64..3, any::<bool>()).prop_map(|(h, b, audited)| Op::PutHead(HeadRow { audited, ..head(h, b) })),
        1 => (1u64..6, 0u64..3).prop_map(|(h, b)| Op::DropHead(head(h, b).root)),
        4 => (1u8..4, 1u64..4, 0u64..3, any_share_state()).prop_map(|(by, e, n, state)| Op::PutShare(ShareRow { state, ..share(by, e, n) })),
        1 => (unit.clone(), any_share_state()).prop_map(|(unit, state)| Op::SetShare { unit, state }),
        1 => unit.clone().prop_map(|unit| Op::DropShare { unit }),
        1 => (key.clone(), any::<u64>()).prop_map(|(miner, x)| Op::PutStanding { miner, row: StandingRow { accepted: x, audited_weight: U256::from(x) } }),
        1 => key.clone().prop_map(|miner| Op::DropStanding { miner }),
        1 => (1u8..5, 1u64..5).prop_map(|(by, epoch)| Op::PutBan(ban(by, epoch))),
        1 => key.clone().prop_map(|miner| Op::DropBan { miner }),
        1 => (key, 0u64..4, any::<u64>())
            .prop_map(|(miner, c, x)| Op::PutLedger { miner, row: LedgerRow { credit: U256::from(c), shares: x, heads: c, void_shares: x } }),
        4 => (unit.clone(), 1u64..9, any_outbox_state()).prop_map(|(unit, epoch, state)| Op::PutOutbox { unit, epoch, state }),
        1 => unit.prop_map(|unit| Op::DropOutbox { unit }),
        1 => any::<u64>().prop_map(|epoch| Op::PutHorizon { epoch }),
    ]
}

/// A batch that leaves the main chain without gaps: it is cut somewhere and grown from there.
fn any_batch() -> impl Strategy<Value = (Vec<Op>, u64, u64)> {
    (proptest::collection::vec(any_op(), 0..12), 1u64..6, 0u64..4)
}

fn with_main(model: &Model, (mut ops, cut, grow): (Vec<Op>, u64, u64)) -> Vec<Op> {
    let cut = cut.min(model.main.len() as u64 + 1);
    let at = ops.len() / 2;
    let mut main = vec![Op::CutMain { from: Height(cut) }];
    main.extend((cut..cut + grow).map(|h| Op::PutMain { height: Height(h), root: head(h, grow % 3).root }));
    ops.splice(at..at, main);
    ops
}

fn drain<T>(mut page: impl FnMut(Option<&tops_store::Cursor>) -> tops_store::Page<T>) -> Vec<T> {
    let (mut rows, mut after) = (Vec::new(), None);
    loop {
        let page = page(after.as_ref());
        rows.extend(page.rows);
        // Through its text, as a web client sends it back.
        match page.next {
            Some(next) => after = Some(next.to_string().parse().unwrap()),
            None => return rows,
        }
    }
}

/// Every read that has an index gives what the model gives.
fn check(store: &dyn Store, model: &Model) {
    for from in [0, 3] {
        assert_eq!(store.snapshot(Height(from)).unwrap(), model.snapshot(from));
    }
    let mut shares: Vec<_> = model.shares.values().cloned().collect();
    shares.sort_by_key(|row| std::cmp::Reverse((row.epoch, row.unit)));
    for limit in [1, 2, 1_000] {
        assert_eq!(drain(|after| store.receipts(&ReceiptFilter::default(), after, limit).unwrap()), shares);
    }
    for by in 1..4 {
        for epoch in [None, Some(2)] {
            let filter = ReceiptFilter { epoch, miner: Some(miner(by)) };
            let want: Vec<_> = shares.iter().filter(|r| r.miner == miner(by) && epoch.is_none_or(|e| r.epoch == e)).cloned().collect();
            assert_eq!(drain(|after| store.receipts(&filter, after, 2).unwrap()), want);
        }
    }
    let want: Vec<_> = shares.iter().filter(|r| r.epoch == 2).cloned().collect();
    assert_eq!(drain(|after| store.receipts(&ReceiptFilter { epoch: Some(2), miner: None }, after, 2).unwrap()), want);
    for by in 1..4 {
        for (epoch, nonce) in [(1, 0), (2, 1), (3, 2)] {
            let receipt = receipt(by, epoch, nonce);
            assert_eq!(store.receipt(&receipt.id()).unwrap(), model.shares.get(&receipt.unit()).cloned());
        }
    }
    let mut ledger: Vec<_> = model.ledger.clone().into_iter().collect();
    ledger.sort_by_key(|(miner, row)| (std::cmp::Reverse(row.credit), *miner));
    assert_eq!(drain(|after| store.ledger(after, 2).unwrap()), ledger);
    assert_eq!(drain(|after| store.bans(after, 2).unwrap()), model.bans.values().cloned().collect::<Vec<_>>());
    let main: Vec<_> = model.main.values().rev().filter_map(|root| model.heads.get(root).cloned()).collect();
    assert_eq!(store.main_heads(None, 100).unwrap(), main);
    let wires: Vec<_> = model.main.values().filter_map(|root| model.heads.get(root).map(|row| row.wire.clone())).collect();
    assert_eq!(store.head_wires(&model.main.values().copied().collect::<Vec<_>>()).unwrap(), wires);

    let counts = store.outbox_counts();
    let states = [
        (OutboxState::Waiting, counts.waiting),
        (OutboxState::Due, counts.due),
        (OutboxState::Delivered, counts.delivered),
        (OutboxState::Dead, counts.dead),
        (OutboxState::Void, counts.void),
    ];
    for (state, count) in states {
        let mut want: Vec<_> = model.outbox.iter().filter(|(_, row)| row.1 == state).map(|(unit, row)| (row.0, *unit)).collect();
        want.sort_unstable();
        let rows = drain(|after| store.outbox(state, after, 2).unwrap());
        assert_eq!(rows.iter().map(|row| (row.epoch, row.unit)).collect::<Vec<_>>(), want);
        assert_eq!(count, want.len() as u64);
        for row in rows {
            assert_eq!(row.text.is_empty(), matches!(state, OutboxState::Delivered | OutboxState::Void));
        }
    }
}

fn random_ops<G: Ground>(batches: Vec<(Vec<Op>, u64, u64)>) {
    let ground = G::new();
    let mut model = Model::default();
    let mut opened = ground.open();
    assert!(opened.fresh && opened.set_aside.is_none());
    for (i, batch) in batches.into_iter().enumerate() {
        let ops = with_main(&model, batch);
        ops.iter().for_each(|op| model.op(op));
        // Rows are absolute, so every third batch is written twice.
        opened.store.commit(&vec![ops; 1 + usize::from(i % 3 == 2)]).unwrap();
        check(&*opened.store, &model);
        if i % 4 == 3 {
            drop(opened);
            opened = ground.open();
            assert!(!opened.fresh && opened.set_aside.is_none());
            check(&*opened.store, &model);
        }
    }
    // Without its trees, the outbox is what it was, and nothing else is.
    drop(opened);
    ground.lose_trees();
    let opened = ground.open();
    assert!(opened.fresh);
    check(&*opened.store, &Model { outbox: model.outbox, ..Model::default() });
}

/// A batch written twice ends as written once only if ops that need a share find it: the model repeats it too.
fn repeatable(batches: &[(Vec<Op>, u64, u64)]) -> bool {
    let mut model = Model::default();
    batches.iter().all(|batch| {
        let ops = with_main(&model, batch.clone());
        ops.iter().for_each(|op| model.op(op));
        let once = model.snapshot(0);
        let mut twice = model.clone();
        ops.iter().for_each(|op| twice.op(op));
        once == twice.snapshot(0) && model.outbox == twice.outbox
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn memory_random_ops_match_the_model(batches in proptest::collection::vec(any_batch(), 1..8).prop_filter("repeatable", |b| repeatable(b))) {
        random_ops::<MemoryDisk>(batches);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn sled_random_ops_match_the_model(batches in proptest::collection::vec(any_batch(), 1..8).prop_filter("repeatable", |b| repeatable(b))) {
        random_ops::<TempDir>(batches);
    }
}

fn bad_batch_leaves_nothing<G: Ground>() {
    let ground = G::new();
    let store = ground.open().store;
    store.commit(&[accepted(1, 1, 1)]).unwrap();
    let before = store.snapshot(Height(0)).unwrap();
    let mut bad = accepted(2, 2, 2);
    let junk = ShareRow { wire: vec![0x83, 1, 2], ..share(3, 3, 3) };
    bad.push(Op::PutShare(junk.clone()));
    assert_eq!(store.commit(&[bad]), Err(StoreFault::NotAReceipt { unit: junk.unit }));
    assert_eq!(store.snapshot(Height(0)).unwrap(), before);
    // And the store goes on.
    store.commit(&[accepted(2, 2, 2)]).unwrap();
    drop(store);
    assert_eq!(ground.open().store.snapshot(Height(0)).unwrap().shares.len(), 2);
}

fn many_rows_page_and_reopen<G: Ground>() {
    let ground = G::new();
    let store = ground.open().store;
    let batches: Vec<_> = (0..600u64).map(|n| accepted((n % 5) as u8, 1 + n / 100, n)).collect();
    for group in batches.chunks(64) {
        store.commit(group).unwrap();
    }
    assert_eq!(store.receipts(&ReceiptFilter::default(), None, 0).unwrap().rows.len(), 1);
    assert_eq!(store.receipts(&ReceiptFilter::default(), None, usize::MAX).unwrap().rows.len(), tops_store::PAGE_MAX);
    assert_eq!(drain(|after| store.receipts(&ReceiptFilter::default(), after, 100).unwrap()).len(), 600);
    assert_eq!(drain(|after| store.receipts(&ReceiptFilter { epoch: Some(6), miner: None }, after, 7).unwrap()).len(), 100);
    // A cursor of another list gives rows of this list, or none, never a panic.
    let foreign = store.ledger(None, 1).unwrap().next.unwrap();
    for filter in
        [ReceiptFilter::default(), ReceiptFilter { epoch: Some(1), miner: None }, ReceiptFilter { epoch: Some(9), miner: Some(miner(1)) }]
    {
        store.receipts(&filter, Some(&foreign), 10).unwrap();
    }
    let units: Vec<_> = (0..600).map(|n| share((n % 5) as u8, 1 + n / 100, n).unit).collect();
    assert_eq!(store.share_wires(&units).unwrap().len(), 600);
    assert_eq!(store.share_wires(&[UnitId([1; 32]), units[0]]).unwrap(), [share(0, 1, 0).wire]);
    assert_eq!(store.ban_wires(&[miner(1)]).unwrap(), Vec::<Vec<u8>>::new());

    let before = store.snapshot(Height(0)).unwrap();
    drop(store);
    assert_eq!(ground.open().store.snapshot(Height(0)).unwrap(), before);
}

fn delivery<G: Ground>() {
    let ground = G::new();
    let store = ground.open().store;
    let receipt = receipt(1, 1, 1);
    let unit = receipt.unit();
    let put = |state| vec![Op::PutOutbox { unit, epoch: 1, state }];
    store.commit(&[accepted(1, 1, 1), put(OutboxState::Due)]).unwrap();
    // The text outlives the share.
    store.commit(&[vec![Op::DropShare { unit }]]).unwrap();
    store.mark_attempt(&unit, Millis(6), "503 busy").unwrap();
    store.mark_attempt(&unit, Millis(7), &"é".repeat(300)).unwrap();
    store.mark_attempt(&UnitId([9; 32]), Millis(8), "nobody").unwrap();
    let row = store.outbox(OutboxState::Due, None, 10).unwrap().rows.remove(0);
    assert_eq!(
        row,
        OutboxRow {
            unit,
            epoch: 1,
            state: OutboxState::Due,
            text: receipt.to_text(),
            attempts: 2,
            at: Some(Millis(7)),
            note: "é".repeat(128)
        }
    );
    // Dead letters say why, and can be sent again.
    store.commit(&[put(OutboxState::Dead)]).unwrap();
    assert_eq!(store.outbox(OutboxState::Dead, None, 10).unwrap().rows[0].attempts, 2);
    store.commit(&[put(OutboxState::Due)]).unwrap();
    let row = store.outbox_row(&unit).unwrap().unwrap();
    assert_eq!((row.attempts, row.text), (0, receipt.to_text()));
    // With the aggregator: only the mark is left, and a later void is listed.
    store.commit(&[put(OutboxState::Delivered)]).unwrap();
    assert_eq!(store.outbox_row(&unit).unwrap().unwrap().text, "");
    store.commit(&[put(OutboxState::Void)]).unwrap();
    assert_eq!(store.outbox(OutboxState::Void, None, 10).unwrap().rows.len(), 1);
    // Neither text nor share: nothing to send, nothing invented.
    store.commit(&[put(OutboxState::Due)]).unwrap();
    assert_eq!(store.outbox_row(&unit).unwrap().unwrap().state, OutboxState::Void);
    assert_eq!(store.outbox_counts().void, 1);
    store.commit(&[vec![Op::DropOutbox { unit }]]).unwrap();
    assert_eq!(store.outbox_row(&unit).unwrap(), None);
    assert_eq!(store.outbox_counts(), tops_store::OutboxCounts::default());
}

fn outbox_outlives_trees_and_journal<G: Ground>() {
    let ground = G::new();
    let store = ground.open().store;
    for n in 1..=20 {
        store.commit(&[accepted(1, n, n)]).unwrap();
    }
    let states = [OutboxState::Due, OutboxState::Delivered, OutboxState::Dead, OutboxState::Void];
    let moves: Vec<_> = (1..=8).map(|n| Op::PutOutbox { unit: share(1, n, n).unit, epoch: n, state: states[n as usize % 4] }).collect();
    store.commit(&[moves, vec![Op::DropOutbox { unit: share(1, 9, 9).unit }]]).unwrap();
    let all = |store: &dyn Store| -> Vec<OutboxRow> {
        let states = [OutboxState::Waiting, OutboxState::Due, OutboxState::Delivered, OutboxState::Dead, OutboxState::Void];
        states.into_iter().flat_map(|state| drain(|after| store.outbox(state, after, 3).unwrap())).collect()
    };
    let before = all(&*store);
    assert_eq!(before.len(), 19);
    drop(store);
    ground.lose_trees();
    let opened = ground.open();
    assert!(opened.fresh);
    assert_eq!(all(&*opened.store), before);
    assert_eq!(opened.store.snapshot(Height(0)).unwrap().shares, []);
    drop(opened);
    // The other way round: a journal cut anywhere never takes rows from whole trees.
    for len in [0, 10, 100, 700, 5_000] {
        ground.cut_journal(len);
        let opened = ground.open();
        assert!(!opened.fresh);
        assert_eq!(all(&*opened.store), before, "cut to {len}");
    }
    // Both at once: what the journal still has is kept.
    drop(ground.open());
    ground.lose_trees();
    ground.cut_journal(100_000);
    assert_eq!(all(&*ground.open().store), before);
}

fn retention_ops_leave_no_index<G: Ground>() {
    let ground = G::new();
    let store = ground.open().store;
    let mut drops = Vec::new();
    for n in 1..=50 {
        let mut batch = accepted((n % 3) as u8, n, n);
        batch.push(Op::PutHead(head(n, 0)));
        batch.push(Op::PutBan(ban(n as u8, n)));
        store.commit(&[batch]).unwrap();
        let unit = share((n % 3) as u8, n, n).unit;
        drops.extend([
            Op::DropShare { unit },
            Op::DropOutbox { unit },
            Op::DropHead(head(n, 0).root),
            Op::DropBan { miner: miner(n as u8) },
        ]);
    }
    drops.extend((0..3).map(|by| Op::DropStanding { miner: miner(by) }));
    store.commit(&[drops.clone(), drops]).unwrap();
    drop(store);
    // Opening counts every index against its rows.
    let opened = ground.open();
    assert!(opened.set_aside.is_none());
    let left = opened.store.snapshot(Height(0)).unwrap();
    assert_eq!((left.shares.len(), left.heads.len(), left.bans.len(), left.outbox.len(), left.standing.len()), (0, 0, 0, 0, 0));
    assert_eq!(left.ledger.len(), 3);
    assert_eq!(opened.store.receipts(&ReceiptFilter::default(), None, 10).unwrap().rows, []);
}

fn gaps_are_damage<G: Ground>() {
    let ground = G::new();
    let store = ground.open().store;
    store.commit(&[vec![Op::PutMain { height: Height(2), root: root(2) }]]).unwrap();
    assert!(matches!(store.snapshot(Height(0)), Err(StoreFault::Damaged { .. })));
    drop(store);
    // It was noted, so the next open begins anew.
    let opened = ground.open();
    assert!(opened.fresh && opened.set_aside.is_some());
    assert_eq!(opened.store.snapshot(Height(0)).unwrap(), Snapshot::default());
}

fn pages_never_repeat<G: Ground>() {
    let ground = G::new();
    let store = ground.open().store;
    store.commit(&[(0..40u64).flat_map(|n| accepted(n as u8, 1, n % 4)).collect()]).unwrap();
    let miners: Vec<_> = drain(|after| store.ledger(after, 3).unwrap()).into_iter().map(|(miner, _)| miner).collect();
    assert_eq!(miners.len(), 40);
    assert_eq!(miners.iter().collect::<BTreeSet<_>>().len(), 40);
}

macro_rules! both {
    ($($test:ident),* $(,)?) => {
        mod memory { use super::*; $(#[test] fn $test() { super::$test::<MemoryDisk>(); })* }
        mod sled { use super::*; $(#[test] fn $test() { super::$test::<TempDir>(); })* }
    };
}

both!(
    bad_batch_leaves_nothing,
    many_rows_page_and_reopen,
    delivery,
    outbox_outlives_trees_and_journal,
    retention_ops_leave_no_index,
    gaps_are_damage,
    pages_never_repeat,
);
