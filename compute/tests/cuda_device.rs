//! The CUDA backend on a real GPU, by every code path that the card can run. Run them where there is one:
//!
//! ```text
//! cargo test -p tops-compute --test cuda_device -- --ignored --test-threads 1 --nocapture
//! ```
#![allow(clippy::expect_used)]

use std::time::{Duration, Instant};

use tops_compute::backend::{Backend, SearchJob, Stop};
use tops_compute::conformance::{self, Level};
use tops_compute::cpu::CpuBackend;
use tops_compute::cuda::{CudaBackend, open_with};
use tops_kernels::cuda::{Architecture, images_for};
use tops_protocol::{Attempt, Millis, Nonce, PublicKey, Root, Shape, U256};

/// The first card by each architecture that it runs.
fn paths() -> Vec<CudaBackend> {
    let opened: Vec<CudaBackend> =
        images_for(9, 0).iter().filter_map(|image: &tops_kernels::cuda::Image| open_with(0, image.architecture).ok()).collect();
    assert!(!opened.is_empty(), "no NVIDIA GPU that runs any image");
    for backend in &opened {
        println!("{}", backend.device());
    }
    opened
}

fn fastest() -> CudaBackend {
    [Architecture::Sm90a, Architecture::Mma, Architecture::Dp4a]
        .into_iter()
        .find_map(|architecture| open_with(0, architecture).ok())
        .expect("an NVIDIA GPU")
}

fn miner(tag: u8) -> PublicKey {
    let mut key = [tag; 33];
    key[0] = 2;
    PublicKey(key)
}

fn job(first: u64, count: u32, target: U256) -> SearchJob {
    SearchJob {
        prev_hash: Root([7; 32]),
        miner: miner(9),
        timestamp: Millis(1_795_132_800_123),
        shape: Shape::STANDARD,
        first_nonce: Nonce::new(first).expect("a nonce"),
        count,
        target,
    }
}

#[test]
#[ignore = "needs an NVIDIA GPU"]
fn every_path_conforms() {
    let backends = paths();
    let each: Vec<&dyn Backend> = backends.iter().map(|backend| backend as _).collect();
    conformance::run_on(&each, Level::Quick, 20_261_120, |_| {}).unwrap_or_else(|difference| panic!("{difference}"));
}

/// What the suite's largest level asks in minutes of reference, asked of all paths against each other in seconds.
#[test]
#[ignore = "needs an NVIDIA GPU"]
fn all_paths_agree_up_to_the_largest_shapes() {
    let backends = paths();
    let mut word = 0x1234_5678_9abc_def1_u64;
    let mut draw = move |below: u64| {
        word ^= word << 13;
        word ^= word >> 7;
        word ^= word << 17;
        (word >> 20) % below
    };
    let corners = [(16, 8192, 8192), (16, 8192, 256), (16, 256, 8192), (256, 8192, 8192), (240, 4096, 512), (8192, 512, 256)];
    let drawn: Vec<(u32, u32, u32)> = (0..60).map(|_| (16 * (1 + draw(16) as u32), 256 << draw(6) as u32, 256 << draw(6) as u32)).collect();
    for (m, n, k) in corners.into_iter().chain(drawn) {
        let shape = Shape::new(m, n, k).expect("a shape");
        let attempts: Vec<Attempt> = (0..1 + draw(if m > 256 { 3 } else { 90 }))
            .map(|_| Attempt {
                prev_hash: Root([draw(256) as u8; 32]),
                miner: miner(draw(256) as u8),
                nonce: Nonce::new(draw(1 << 40)).expect("a nonce"),
                timestamp: Millis(draw(1 << 40)),
                shape,
            })
            .collect();
        let roots: Vec<Vec<Root>> = backends.iter().map(|backend| backend.roots(&attempts).expect("roots")).collect();
        assert!(roots.iter().all(|some| *some == roots[0]), "{} roots of {shape} differ", attempts.len());
        let job = SearchJob { shape, ..job((1 << 32) - 20, 1 + draw(60) as u32, U256::MAX >> 1) };
        let hits: Vec<_> = backends.iter().map(|backend| backend.search(&job, &Stop::new()).expect("a search").hits).collect();
        assert!(hits.iter().all(|some| *some == hits[0]), "hits of {shape} differ");
    }
}

#[test]
#[ignore = "needs an NVIDIA GPU"]
fn ten_thousand_unrelated_roots_are_the_cpus() {
    let backend = fastest();
    let cpu = CpuBackend::new(None).expect("the CPU");
    let attempts: Vec<Attempt> = (0..10_000_u64)
        .map(|i| {
            let word = i.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5851_f42d_4c95_7f2d;
            let mut prev_hash = [0; 32];
            for (at, bytes) in prev_hash.chunks_exact_mut(8).enumerate() {
                bytes.copy_from_slice(&word.rotate_left(at as u32 * 17).to_le_bytes());
            }
            Attempt {
                prev_hash: Root(prev_hash),
                miner: miner((word >> 32) as u8),
                nonce: Nonce::new(word >> 11).expect("53 bits"),
                timestamp: Millis(word >> 23),
                shape: Shape::STANDARD,
            }
        })
        .collect();
    let began = Instant::now();
    let got = backend.roots(&attempts).expect("roots");
    println!("10,000 roots on the device in {:.1} ms", began.elapsed().as_secs_f64() * 1e3);
    assert!(got == cpu.roots(&attempts).expect("roots"));
    for size in [1, 8, 1000] {
        let mut times: Vec<Duration> = (0..20)
            .map(|_| {
                let began = Instant::now();
                assert!(backend.roots(&attempts[..size]).expect("roots") == got[..size]);
                began.elapsed()
            })
            .collect();
        times.sort_unstable();
        println!(
            "{size} unrelated receipts: median {:.3} ms, worst of 20 {:.3} ms",
            times[10].as_secs_f64() * 1e3,
            times[19].as_secs_f64() * 1e3
        );
    }
}

#[test]
#[ignore = "needs an NVIDIA GPU"]
fn two_long_runs_find_the_same_hits() {
    let target = U256::MAX >> 10;
    for backend in paths().iter().filter(|backend| backend.device().path != "generic-dp4a") {
        let first = (1 << 32) - 300_000;
        let [one, two] = [0, 1].map(|_| backend.search(&job(first, 1 << 20, target), &Stop::new()).expect("a search"));
        assert_eq!(one.attempts_done, 1 << 20);
        assert_eq!(one.hits, two.hits);
        assert!((800..1300).contains(&one.hits.len()), "{} hits of 1,024 expected", one.hits.len());
        assert!(one.hits.is_sorted());
        println!("{}: {} hits, twice", backend.device().path, one.hits.len());
    }
}

#[test]
#[ignore = "needs an NVIDIA GPU"]
fn a_target_that_all_meet_loses_no_hit() {
    let backend = fastest();
    let count = 20_001;
    let report = backend.search(&job(5, count, U256::MAX), &Stop::new()).expect("a search");
    assert_eq!(report.hits.len(), count as usize);
    assert!(report.hits.iter().zip(5..).all(|((nonce, _), expected)| nonce.get() == expected));
    let sparse = backend.search(&job(5, count, U256::MAX >> 6), &Stop::new()).expect("a search");
    let expected: Vec<_> = report.hits.iter().filter(|(_, root)| root.ticket() <= U256::MAX >> 6).copied().collect();
    assert_eq!(sparse.hits, expected);
}

#[test]
#[ignore = "needs an NVIDIA GPU"]
fn a_stop_is_obeyed_soon() {
    let backend = fastest();
    backend.search(&job(0, 50_000, U256::ZERO), &Stop::new()).expect("a search to warm up");
    let mut worst = Duration::ZERO;
    for round in 0..20 {
        let stop = Stop::new();
        let stopped = std::thread::scope(|scope| {
            let stopper = scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(40 + round));
                stop.stop();
                Instant::now()
            });
            let report = backend.search(&job(0, 1 << 20, U256::ZERO), &stop).expect("a search");
            assert!(report.attempts_done > 0 && report.attempts_done < 1 << 20);
            let returned = Instant::now();
            returned - stopper.join().expect("the stopper")
        });
        worst = worst.max(stopped);
    }
    println!("a search returned at most {:.1} ms after its stop", worst.as_secs_f64() * 1e3);
    assert!(worst < Duration::from_secs(1), "a stop is not looked at");
}
