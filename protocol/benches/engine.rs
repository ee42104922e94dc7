//! What one step of the engine costs: a gossiped share from its arrival to its place in the ledger, one that is known, and an idle tick.
//!
//! Run with `cargo bench -p tops-protocol --bench engine`; figures belong in `docs/performance.md` with machine and command.

#![allow(missing_docs, clippy::unwrap_used)]

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use tops_protocol::engine::{AuditOutcome, AuditRate, Config, Engine, Input, Message, Output, Peer, RETAIN_EPOCHS_DEFAULT, Shard, Topic};
use tops_protocol::keys::SecretKey;
use tops_protocol::network::Fields;
use tops_protocol::receipt::{Draft, KERNEL_V2, Text};
use tops_protocol::verify::{Semantic, Structural};
use tops_protocol::{Millis, NetworkSpec, Nonce, Receipt, Root, Signature};

const SHARES: u64 = 1_000;
const NOW: Millis = Millis(1_800_000_100_000);

/// Every root is a share, and half of them are heads: the engine's work does not depend on how rare they are.
fn network() -> NetworkSpec {
    let fields = Fields {
        genesis_bits: 0x207f_ffff,
        easiest_bits: 0x207f_ffff,
        share_log2: 16,
        genesis_time_ms: 1_800_000_000_000,
        ..*NetworkSpec::dev().fields()
    };
    NetworkSpec::new(fields).unwrap()
}

fn shares(spec: &NetworkSpec) -> Vec<Semantic> {
    let keys: Vec<SecretKey> = (1..=20).map(|i| SecretKey::from_bytes(&[i; 32]).unwrap()).collect();
    let share = |i: u64| {
        let key = &keys[usize::try_from(i).unwrap() % keys.len()];
        let mut root = *blake3::hash(&i.to_le_bytes()).as_bytes();
        root[0] |= 0x80; // above the head target
        let draft = Draft::new(Receipt {
            device_did: Text::new("did:bench").unwrap(),
            epoch_id: 1,
            prev_hash: spec.genesis(),
            nonce: Nonce::new(i).unwrap(),
            work_root: Root(root),
            shape: spec.shape(),
            batch: 1,
            time_ms: 1,
            kernel_ver: Text::new(KERNEL_V2).unwrap(),
            driver_hint: Text::new("CPU").unwrap(),
            network: spec.tag(),
            miner: key.public(),
            timestamp: Millis(1_800_000_050_000),
            sig: Signature([0; 64]),
        });
        let sig = key.sign(&draft.prehash());
        Structural::from_wire(&draft.with_signature(sig).to_wire(), spec).unwrap().semantic().unwrap()
    };
    (0..SHARES).map(share).collect()
}

fn engine(spec: &NetworkSpec) -> Engine {
    let mut engine = Engine::new(Config {
        network: spec.clone(),
        mining: None,
        alone: false,
        light: true,
        audit_rate: AuditRate::DEFAULT,
        audit_shard: Shard::ALL,
        bridge: None,
        retain_epochs: RETAIN_EPOCHS_DEFAULT,
        checkpoints: Vec::new(),
        secret: [7; 32],
    });
    // Each share comes from one of a hundred peers, so that no budget is what is measured.
    for peer in 0..100 {
        engine.handle(Input::PeerUp { peer: Peer(peer) }, NOW);
    }
    engine
}

/// Feeds all shares; what the engine wants audited is answered at once with the claim.
fn feed(engine: &mut Engine, shares: &[Semantic], first_message: u64) -> usize {
    let mut outputs = 0;
    for (i, receipt) in (0u64..).zip(shares) {
        let gossip =
            Input::Gossip { peer: Peer(i % 100), message: Message(first_message + i), topic: Topic::Receipts, receipt: receipt.clone() };
        let now = NOW.plus(10 * i);
        let mut open = engine.handle(gossip, now);
        while let Some(output) = open.pop() {
            outputs += 1;
            if let Output::Audit { audit, claimed, .. } = output {
                open.extend(engine.handle(Input::Audited { audit, outcome: AuditOutcome::Computed(claimed) }, now));
            }
        }
    }
    outputs
}

fn steps(c: &mut Criterion) {
    let spec = network();
    let shares = shares(&spec);
    let mut group = c.benchmark_group("engine");
    group.sample_size(10).throughput(Throughput::Elements(SHARES));
    group.bench_function("1,000 shares: arrival, audit, ledger", |b| {
        b.iter_batched_ref(|| engine(&spec), |engine| black_box(feed(engine, &shares, 0)), BatchSize::LargeInput);
    });
    let mut full = engine(&spec);
    feed(&mut full, &shares, 0);
    assert_eq!(full.view().shares, shares.len());
    let mut round = 1;
    group.bench_function("1,000 known shares", |b| {
        b.iter(|| {
            round += 1;
            black_box(feed(&mut full, &shares, round * SHARES))
        });
    });
    group.throughput(Throughput::Elements(1));
    let mut now = NOW.plus(60_000);
    group.bench_function("tick over 1,000 shares", |b| {
        b.iter(|| {
            now = now.plus(1);
            black_box(full.handle(Input::Tick, now).len())
        });
    });
    group.finish();
}

criterion_group!(benches, steps);
criterion_main!(benches);
