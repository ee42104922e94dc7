//! Attempts on the CPU, end to end: one audit alone and in batches, mining, the original's function; and the reference beside them.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tops_compute::backend::{Backend, SearchJob, Stop};
use tops_compute::cpu::CpuBackend;
use tops_compute::cpu::isa::Isa;
use tops_protocol::work::v1::{AttemptV1, ShapeV1, Variant};
use tops_protocol::work::{self, Weights};
use tops_protocol::{Attempt, Millis, Nonce, PublicKey, Root, Shape, U256};

fn job(shape: Shape, count: u32) -> SearchJob {
    let Some(first_nonce) = Nonce::new(0) else { unreachable!("0 is below 2^53") };
    SearchJob { prev_hash: Root([7; 32]), miner: PublicKey([2; 33]), timestamp: Millis(1), shape, first_nonce, count, target: U256::ZERO }
}

fn attempts(c: &mut Criterion) {
    for (name, shape) in [("dev", Shape::DEVNET), ("standard", Shape::STANDARD)] {
        let mut group = c.benchmark_group(name);
        let weights = Weights::new(shape);
        let some: Vec<Attempt> = (0..64).filter_map(|i| job(shape, 64).attempt(i)).collect();
        group.throughput(Throughput::Elements(1));
        group.sample_size(10).bench_function("reference", |b| b.iter(|| work::root(black_box(&some[0]), &weights)));
        for isa in Isa::detected() {
            let Ok(cpu) = CpuBackend::with_isa(isa, Some(1)) else { continue };
            let lens: &[usize] = if isa == Isa::best() { &[1, 8, 64] } else { &[8] };
            for &len in lens {
                group.throughput(Throughput::Elements(len as u64));
                group.bench_function(format!("{} one thread, {len} audits", isa.name()), |b| b.iter(|| cpu.roots(black_box(&some[..len]))));
            }
        }
        if let Ok(cpu) = CpuBackend::new(None) {
            let count = cpu.batch_step(shape) * 4;
            group.throughput(Throughput::Elements(count.into()));
            group.bench_function("mining, all threads", |b| b.iter(|| cpu.search(&job(shape, count), &Stop::new())));
        }
        group.finish();
    }
}

fn first_version(c: &mut Criterion) {
    let (Ok(cpu), shape) = (CpuBackend::new(None), ShapeV1::DEFAULT) else { return };
    let mut group = c.benchmark_group("v1 1024x1024x1024");
    for variant in [Variant::Plain, Variant::Mixed] {
        let attempt = AttemptV1 { prev_hash: Root([0xaa; 32]), nonce: 1, shape, variant };
        group.sample_size(10).bench_function(format!("{variant:?}, all threads"), |b| b.iter(|| cpu.v1_roots(black_box(&[attempt]))));
    }
    group.finish();
}

criterion_group!(benches, attempts, first_version);
criterion_main!(benches);
