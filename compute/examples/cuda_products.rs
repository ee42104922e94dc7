//! End to end against the bare products of the same build, on the first NVIDIA GPU, by each architecture named:
//!
//! ```text
//! cargo run --release -p tops-compute --example cuda_products -- [seconds] [sm_90a|generic-mma|generic-dp4a ...]
//! ```
//!
//! The bare products read activations from memory and write outputs to memory; end to end is a search of the standard shape. Watts and
//! clock are read by `nvidia-smi` in the middle of each run, where it is there.

use std::process::Command;
use std::time::{Duration, Instant};

use tops_compute::backend::{Backend, SearchJob, Stop};
use tops_compute::cuda::open_with;
use tops_kernels::cuda::images_for;
use tops_protocol::{Millis, Nonce, PublicKey, Root, Shape, U256};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let seconds: f64 = args.next().map_or(Ok(20.0), |text| text.parse())?;
    let chosen: Vec<String> = args.collect();
    for image in images_for(9, 0) {
        if !chosen.is_empty() && !chosen.iter().any(|name| name == image.architecture.name()) {
            continue;
        }
        let backend = match open_with(0, image.architecture) {
            Ok(backend) => backend,
            Err(fault) => {
                println!("{}: {fault}", image.architecture.name());
                continue;
            }
        };
        println!("{}", backend.device());
        let shape = Shape::STANDARD;
        let mut job = SearchJob {
            prev_hash: Root([1; 32]),
            miner: PublicKey([2; 33]),
            timestamp: Millis(1_795_132_800_000),
            shape,
            first_nonce: Nonce::new(0).ok_or("a nonce")?,
            count: backend.batch_step(shape),
            target: U256::ZERO,
        };
        // About 300 ms a search, as the miner does.
        let step = job.count;
        for _ in 0..3 {
            let report = backend.search(&job, &Stop::new())?;
            let rate = f64::from(report.attempts_done) / report.busy.as_secs_f64();
            job.count = ((rate * 0.3 / f64::from(step)) as u32).clamp(1, (1 << 20) / step) * step;
        }
        let sampler = sample_later(seconds * 0.7);
        let (began, mut done, mut busy) = (Instant::now(), 0_u64, Duration::ZERO);
        while began.elapsed().as_secs_f64() < seconds {
            let report = backend.search(&job, &Stop::new())?;
            done += u64::from(report.attempts_done);
            busy += report.busy;
        }
        let took = began.elapsed();
        let end_to_end = done as f64 * shape.ops() as f64 / took.as_secs_f64() / 1e12;
        println!("  end to end    {end_to_end:7.1} TOPS  busy {:.2} %  {}", 100.0 * busy.as_secs_f64() / took.as_secs_f64(), told(sampler));
        let sampler = sample_later(seconds * 0.7);
        let report = backend.products_only(shape, seconds)?;
        let bare = report.ops / report.busy.as_secs_f64() / 1e12;
        println!("  bare products {bare:7.1} TOPS  {}", told(sampler));
        println!("  end to end / bare = {:.3}", end_to_end / bare);
    }
    Ok(())
}

/// Asks `nvidia-smi` after a while.
fn sample_later(seconds: f64) -> std::thread::JoinHandle<Option<String>> {
    std::thread::spawn(move || {
        std::thread::sleep(Duration::from_secs_f64(seconds));
        let query = ["--query-gpu=power.draw,clocks.sm,temperature.gpu", "--format=csv,noheader", "--id=0"];
        let output = Command::new("nvidia-smi").args(query).output().ok()?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_string())
    })
}

fn told(sampler: std::thread::JoinHandle<Option<String>>) -> String {
    sampler.join().ok().flatten().unwrap_or_default()
}
