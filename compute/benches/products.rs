//! One core's int8 products and audits as JSON, for `against_mlas.py` and for the table in docs/performance.md. Best of several runs.

use std::time::{Duration, Instant};

use tops_compute::backend::Backend;
use tops_compute::cpu::isa::Isa;
use tops_compute::cpu::{Bare, CpuBackend};
use tops_protocol::{Attempt, Millis, Nonce, PublicKey, Root, Shape};

/// Seconds of the fastest run within the time given.
fn best(budget: Duration, mut run: impl FnMut()) -> f64 {
    run();
    let began = Instant::now();
    let mut best = f64::MAX;
    while began.elapsed() < budget {
        let one = Instant::now();
        run();
        best = best.min(one.elapsed().as_secs_f64());
    }
    best
}

fn attempt(nonce: u64) -> Attempt {
    let Some(nonce) = Nonce::new(nonce) else { unreachable!("small") };
    Attempt { prev_hash: Root([7; 32]), miner: PublicKey([2; 33]), nonce, timestamp: Millis(1), shape: Shape::STANDARD }
}

fn main() {
    let budget = Duration::from_millis(std::env::args().skip(1).find_map(|arg| arg.parse().ok()).unwrap_or(1500));
    for isa in Isa::detected().into_iter().filter(|isa| *isa != Isa::PORTABLE) {
        for (rows, neurons, cols) in [(64, 1024, 1024), (64, 2048, 2048), (64, 4096, 4096), (128, 4096, 4096), (16, 4096, 4096)] {
            let mut product = Bare::new(isa, rows, neurons, cols);
            let secs = best(budget, || product.run());
            let gops = 2.0 * (rows * neurons * cols) as f64 / secs / 1e9;
            println!(r#"{{"isa":"{}","rows":{rows},"neurons":{neurons},"cols":{cols},"gops":{gops:.1}}}"#, isa.name());
        }
        let Ok(cpu) = CpuBackend::with_isa(isa, Some(1)) else { continue };
        for len in [1, 8, 64] {
            let attempts: Vec<Attempt> = (0..len).map(attempt).collect();
            let secs = best(budget, || assert!(cpu.roots(&attempts).is_ok_and(|roots| roots.len() == attempts.len())));
            println!(r#"{{"isa":"{}","audit":"standard","batch":{len},"ms_each":{:.3}}}"#, isa.name(), secs * 1e3 / len as f64);
        }
    }
}
