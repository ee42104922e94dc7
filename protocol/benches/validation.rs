//! What each stage of validation costs, cheapest first (spec §5). Targets: structural rejection ≤ 2 µs, the signature stage ≤ 100 µs.
//!
//! Run with `cargo bench -p tops-protocol --bench validation`; figures belong in `docs/performance.md` with machine and command.

#![allow(missing_docs, clippy::unwrap_used)]

use std::hint::black_box;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use tops_protocol::keys::SecretKey;
use tops_protocol::receipt::{Draft, KERNEL_V2, Text};
use tops_protocol::target;
use tops_protocol::verify::{ParentFacts, Structural};
use tops_protocol::work::{self, Weights};
use tops_protocol::{Height, Millis, NetworkSpec, Nonce, Receipt, Root, Shape, Signature, U256};

fn receipt(spec: &NetworkSpec) -> Receipt {
    let key = SecretKey::from_bytes(&[7; 32]).unwrap();
    let draft = Draft::new(Receipt {
        device_did: Text::new("did:key:zQ3shokFTS3brHcDQrn82RUDfCZESWL1ZdCEJwekUDPQiYBme").unwrap(),
        epoch_id: 1,
        prev_hash: spec.genesis(),
        nonce: Nonce::new(123_456_789).unwrap(),
        work_root: Root([0; 32]),
        shape: spec.shape(),
        batch: 4_096,
        time_ms: 300,
        kernel_ver: Text::new(KERNEL_V2).unwrap(),
        driver_hint: Text::new("CPU avx512-vnni").unwrap(),
        network: spec.tag(),
        miner: key.public(),
        timestamp: Millis(spec.genesis_time().0 + 60_000),
        sig: Signature([0; 64]),
    });
    let sig = key.sign(&draft.prehash());
    draft.with_signature(sig)
}

fn stages(c: &mut Criterion) {
    let spec = NetworkSpec::main();
    let receipt = receipt(&spec);
    let wire = receipt.to_wire();
    let structural = Structural::from_wire(&wire, &spec).unwrap();
    let semantic = structural.clone().semantic().unwrap();
    let head_target = spec.genesis_bits().target();
    let parent = ParentFacts {
        root: spec.genesis(),
        height: Height(0),
        head_target,
        share_target: target::share_target(head_target, spec.share_log2()),
        median: spec.genesis_time(),
    };

    let mut group = c.benchmark_group("structural");
    group.bench_function("accepts", |b| b.iter(|| Structural::from_wire(black_box(&wire), &spec).is_ok()));
    let foreign = NetworkSpec::dev();
    group.bench_function("rejects another network", |b| b.iter(|| Structural::from_wire(black_box(&wire), &foreign).is_err()));
    let trailing = [&wire[..], &[0]].concat();
    group.bench_function("rejects trailing bytes", |b| b.iter(|| Structural::from_wire(black_box(&trailing), &spec).is_err()));
    let cut = &wire[..wire.len() - 1];
    group.bench_function("rejects a cut", |b| b.iter(|| Structural::from_wire(black_box(cut), &spec).is_err()));
    let nested = [0x9f; 1_024];
    group.bench_function("rejects nesting", |b| b.iter(|| Structural::from_wire(black_box(&nested), &spec).is_err()));
    let oversized = [0; 1_025];
    group.bench_function("rejects oversize", |b| b.iter(|| Structural::from_wire(black_box(&oversized), &spec).is_err()));
    group.finish();

    let mut group = c.benchmark_group("semantic");
    group.bench_function("accepts", |b| b.iter_batched(|| structural.clone(), |s| s.semantic().is_ok(), BatchSize::SmallInput));
    let mut forged = receipt.clone();
    forged.time_ms += 1;
    let forged = Structural::from_wire(&forged.to_wire(), &spec).unwrap();
    group.bench_function("rejects", |b| b.iter_batched(|| forged.clone(), |s| s.semantic().is_err(), BatchSize::SmallInput));
    group.finish();

    let mut group = c.benchmark_group("contextual");
    group.bench_function("accepts", |b| b.iter_batched(|| semantic.clone(), |s| s.contextual(&parent).is_ok(), BatchSize::SmallInput));
    let hard = ParentFacts { share_target: U256::ZERO, height: Height(5), ..parent };
    group.bench_function("rejects", |b| b.iter_batched(|| semantic.clone(), |s| s.contextual(&hard).is_err(), BatchSize::SmallInput));
    group.finish();
}

fn audit(c: &mut Criterion) {
    let mut group = c.benchmark_group("audit by the reference");
    group.sample_size(10);
    for (name, shape) in [("dev", Shape::DEVNET), ("standard", Shape::STANDARD)] {
        let weights = Weights::new(shape);
        let attempt = tops_protocol::Attempt { shape, ..receipt(&NetworkSpec::main()).attempt() };
        group.bench_function(name, |b| b.iter(|| work::root(black_box(&attempt), &weights)));
    }
    group.finish();
}

criterion_group!(benches, stages, audit);
criterion_main!(benches);
