//! Durable commits a second: groups of 1, 8 and 64 accepted shares, each a transaction of its own, with one flush and fsync a group.

#![allow(missing_docs, clippy::unwrap_used)]

#[path = "../tests/common/mod.rs"]
mod common;

use common::{NET, accepted};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

fn commits(c: &mut Criterion) {
    let mut group = c.benchmark_group("commit");
    for size in [1u64, 8, 64] {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let store = tops_store::sled::open(dir.path(), NET).unwrap().store;
        let mut next = 0;
        group.throughput(Throughput::Elements(size));
        group.bench_function(format!("sled, {size} a group"), |b| {
            b.iter(|| {
                let batches: Vec<_> = (next..next + size).map(|n| accepted((n % 16) as u8, 1 + n / 64, n)).collect();
                next += size;
                store.commit(&batches).unwrap();
            });
        });
    }
    let disk = tops_store::memory::MemoryDisk::new();
    let store = disk.open(NET).unwrap().store;
    let mut next = 0;
    group.throughput(Throughput::Elements(8));
    group.bench_function("memory, 8 a group", |b| {
        b.iter(|| {
            let batches: Vec<_> = (next..next + 8).map(|n| accepted((n % 16) as u8, 1 + n / 64, n)).collect();
            next += 8;
            store.commit(&batches).unwrap();
        });
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).measurement_time(std::time::Duration::from_secs(4));
    targets = commits
}
criterion_main!(benches);
