//! `tops-node bench`: what the devices do end to end, and how fast receipts are verified.
//!
//! Every attempt that is counted is a whole one: seed, activations, both products, every output byte hashed, root compared with a target.
//! The target lets some attempts hit; roots of hits are compared with the reference in the same run, and a wrong one fails the command.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tops_compute::backend::{Backend, Device, DeviceFault, SEARCH_LIMIT, SearchJob, Stop};
use tops_compute::health::Health;
use tops_compute::tune::Tuner;
use tops_protocol::work::{self, Weights};
use tops_protocol::{Attempt, Millis, Nonce, PublicKey, Root, Shape, U256};

use crate::cli::{Answer, Failure};
use crate::progress::{self, Progress};
use crate::settings::Layers;
use crate::{config, devices};

/// Hits that are compared with the reference, per device.
const SAMPLE: usize = 4;
/// Hits that a launch finds in expectation, so that the sample spreads over the run.
const HITS_A_LAUNCH: u64 = 2;
/// How long each way of verifying is measured.
const VERIFY_TIME: Duration = Duration::from_secs(1);
/// How often power and clock are read.
const SAMPLE_EVERY: Duration = Duration::from_millis(250);
/// Batches in which verification is measured.
const VERIFY_BATCHES: [usize; 3] = [1, 8, 64];

/// Arguments of `bench`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// How long to measure mining.
    #[arg(long, default_value_t = 10, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=86_400))]
    seconds: u32,
    /// Another shape than the network's.
    #[arg(long, value_name = "M,N,K")]
    shape: Option<String>,
}

/// What one device did.
struct Measured {
    device: Device,
    attempts: u64,
    launches: u64,
    batch: u32,
    wall: Duration,
    busy: Duration,
    hits: Vec<(Attempt, Root)>,
    watts: Option<f64>,
    clock_mhz: Option<f64>,
    verify: Vec<(usize, f64)>,
}

/// Measures all chosen devices at once.
pub fn run(arguments: &Arguments, layers: &Layers, json: bool) -> Result<Answer, Failure> {
    let (choice, wanted) = config::compute_choice(layers)?;
    let network = config::network_choice(layers)?;
    let shape = arguments.shape.as_deref().map(super::shape).transpose().map_err(Failure::Usage)?.unwrap_or_else(|| network.spec.shape());
    let target = config::target_choice(layers)?;
    let backends = devices::open(choice, wanted.as_deref())?;
    let seconds = Duration::from_secs(arguments.seconds.into());
    if !json {
        progress::show();
    }
    let results: Vec<anyhow::Result<Measured>> = std::thread::scope(|scope| {
        let running: Vec<_> =
            backends.iter().enumerate().map(|(i, b)| scope.spawn(move || measure(b, i as u64, shape, target, seconds))).collect();
        running.into_iter().map(|t| t.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a measuring thread panicked")))).collect()
    });
    let measured = results.into_iter().collect::<anyhow::Result<Vec<_>>>()?;
    let checked = compare(&measured, shape)?;
    Ok(report(&measured, shape, checked))
}

/// A made-up job: which one does not matter, every attempt costs the same.
fn job(device: u64, shape: Shape, first: u64, count: u32, target: U256) -> SearchJob {
    let mut miner = [2; 33];
    miner[32] = device as u8;
    // Nonces of a bench stay far below 2^53.
    let first_nonce = Nonce::new(first).unwrap_or_else(|| unreachable!("a bench counts from 0 in steps of at most 2^20"));
    SearchJob { prev_hash: Root([0xaa; 32]), miner: PublicKey(miner), timestamp: Millis(1), shape, first_nonce, count, target }
}

fn measure(backend: &Arc<dyn Backend>, number: u64, shape: Shape, target: Duration, seconds: Duration) -> anyhow::Result<Measured> {
    let fault = |e: DeviceFault| anyhow::Error::from(e).context(format!("{} failed", backend.device()));
    let stop = Stop::new();
    let name = backend.device().label();
    let bar = Progress::waiting(&format!("{name} tuning"));
    let batch = Tuner::open(None).tune(&**backend, shape, target, &stop).map_err(fault)?.batch.clamp(1, SEARCH_LIMIT);
    let ticket = U256::MAX / U256::from((u64::from(batch) / HITS_A_LAUNCH).max(1));
    let (mut attempts, mut launches, mut busy, mut hits) = (0u64, 0u64, Duration::ZERO, Vec::new());
    let done = Stop::new();
    let sampler = {
        let (device, done) = (backend.device().clone(), done.clone());
        std::thread::spawn(move || sample(&device, &done))
    };
    drop(bar);
    let bar = Progress::timed(&format!("{name} mining"), seconds);
    let start = Instant::now();
    while start.elapsed() < seconds {
        let job = job(number, shape, attempts, batch, ticket);
        let found = backend.search(&job, &stop).map_err(fault)?;
        attempts += u64::from(found.attempts_done);
        launches += 1;
        busy += found.busy;
        bar.at(start.elapsed().as_millis() as u64);
        bar.say(format!("{:.1} attempts/s", attempts as f64 / start.elapsed().as_secs_f64()));
        for (nonce, root) in found.hits.into_iter().take(1) {
            let attempt = Attempt { prev_hash: job.prev_hash, miner: job.miner, nonce, timestamp: job.timestamp, shape };
            if hits.len() < SAMPLE { hits.push((attempt, root)) } else { hits[launches as usize % SAMPLE] = (attempt, root) }
        }
    }
    let wall = start.elapsed();
    done.stop();
    drop(bar);
    let _bar = Progress::waiting(&format!("{name} verifying"));
    let (watts, clock_mhz) = sampler.join().unwrap_or((None, None));
    let verify =
        VERIFY_BATCHES.iter().map(|&n| Ok((n, verify_rate(backend, number, shape, n).map_err(fault)?))).collect::<anyhow::Result<_>>()?;
    Ok(Measured { device: backend.device().clone(), attempts, launches, batch, wall, busy, hits, watts, clock_mhz, verify })
}

/// Mean power and clock until `done`, where the device tells.
fn sample(device: &Device, done: &Stop) -> (Option<f64>, Option<f64>) {
    let (mut health, mut watts, mut clock) = (Health::new(), Mean::default(), Mean::default());
    health.read(device);
    while !done.is_set() {
        std::thread::sleep(SAMPLE_EVERY);
        let now = health.read(device);
        watts.add(now.power_watts);
        clock.add(now.clock_mhz);
    }
    (watts.get(), clock.get())
}

#[derive(Default)]
struct Mean(f64, u32);

impl Mean {
    fn add(&mut self, value: Option<f64>) {
        if let Some(value) = value {
            self.0 += value;
            self.1 += 1;
        }
    }
    fn get(&self) -> Option<f64> {
        (self.1 > 0).then(|| self.0 / f64::from(self.1))
    }
}

/// Attempts verified a second in batches of `batch`.
fn verify_rate(backend: &Arc<dyn Backend>, number: u64, shape: Shape, batch: usize) -> Result<f64, DeviceFault> {
    let source = job(number, shape, 0, SEARCH_LIMIT, U256::ZERO);
    let attempts: Vec<Attempt> = (0..batch as u32).filter_map(|i| source.attempt(i)).collect();
    let warming = Instant::now();
    let warmed = backend.roots(&attempts)?.len();
    if warming.elapsed() >= VERIFY_TIME {
        return Ok(warmed as f64 / warming.elapsed().as_secs_f64());
    }
    let (start, mut done) = (Instant::now(), 0u64);
    while start.elapsed() < VERIFY_TIME {
        done += backend.roots(&attempts)?.len() as u64;
    }
    Ok(done as f64 / start.elapsed().as_secs_f64())
}

/// Compares a sample of hits with the reference; how many were compared.
fn compare(measured: &[Measured], shape: Shape) -> anyhow::Result<usize> {
    let weights = Weights::new(shape);
    let mut compared = 0;
    for m in measured {
        for (attempt, root) in &m.hits {
            let reference = work::root(attempt, &weights);
            anyhow::ensure!(
                reference == *root,
                "{} is wrong: nonce {} gives {root}, the reference {reference}",
                m.device,
                attempt.nonce.get()
            );
            compared += 1;
        }
    }
    anyhow::ensure!(compared > 0, "no attempt hit, so nothing could be compared with the reference: run it longer");
    Ok(compared)
}

fn report(measured: &[Measured], shape: Shape, checked: usize) -> Answer {
    let mut text = format!("shape      {shape}, {:.3} GOP an attempt\n", shape.ops() as f64 / 1e9);
    let mut rows = Vec::new();
    let mut total = 0.0;
    for m in measured {
        let wall = m.wall.as_secs_f64();
        let rate = m.attempts as f64 / wall;
        let tops = rate * shape.ops() as f64 / 1e12;
        total += rate;
        let ms = wall * 1e3 / m.launches as f64;
        let share = m.device.peak_int8_tops.map(|peak| tops / peak);
        text.push_str(&format!("{}\n", m.device));
        text.push_str(&format!("  {tops:.3} int8 TOPS, {rate:.1} attempts/s over {wall:.1} s\n"));
        text.push_str(&format!("  batch {}, {ms:.1} ms a batch, busy {:.1} %\n", m.batch, 100.0 * m.busy.as_secs_f64() / wall));
        if let Some(share) = share {
            text.push_str(&format!("  {:.1} % of the published peak\n", 100.0 * share));
        }
        if let Some(watts) = m.watts {
            text.push_str(&format!("  {watts:.0} W, {:.3} int8 TOPS/W\n", tops / watts));
        }
        if let Some(mhz) = m.clock_mhz {
            text.push_str(&format!("  {mhz:.0} MHz\n"));
        }
        for (batch, rate) in &m.verify {
            text.push_str(&format!("  verifies {rate:.1} receipts/s in batches of {batch} ({:.2} ms each)\n", 1e3 / rate));
        }
        let verify: Vec<Value> =
            m.verify.iter().map(|(batch, rate)| json!({ "batch": batch, "receipts_per_second": rate, "ms_each": 1e3 / rate })).collect();
        rows.push(json!({
            "device": m.device, "tops": tops, "attempts_per_second": rate, "attempts": m.attempts, "seconds": wall, "batch": m.batch,
            "ms_a_batch": ms, "busy_share": m.busy.as_secs_f64() / wall, "peak_share": share, "watts": m.watts, "clock_mhz": m.clock_mhz, "verify": verify,
        }));
    }
    let tops = total * shape.ops() as f64 / 1e12;
    if measured.len() > 1 {
        text.push_str(&format!("together   {tops:.3} int8 TOPS, {total:.1} attempts/s\n"));
    }
    text.push_str(&format!("checked    {checked} roots of hits against the reference, all equal\n"));
    let shape_json = json!([shape.m(), shape.n(), shape.k()]);
    Answer::yes(
        text,
        json!({ "shape": shape_json, "ops_an_attempt": shape.ops(), "tops": tops, "attempts_per_second": total, "checked": checked, "devices": rows }),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use tops_compute::cpu::CpuBackend;

    #[test]
    fn a_short_bench_counts_whole_attempts_and_compares_roots() {
        let cpu: Arc<dyn Backend> = Arc::new(CpuBackend::new(Some(1)).unwrap());
        let measured = vec![measure(&cpu, 0, Shape::DEVNET, Duration::from_millis(20), Duration::from_millis(200)).unwrap()];
        assert!(measured[0].attempts >= u64::from(measured[0].batch));
        assert_eq!(measured[0].verify.len(), VERIFY_BATCHES.len());
        let checked = compare(&measured, Shape::DEVNET).unwrap();
        let answer = report(&measured, Shape::DEVNET, checked);
        assert!(answer.yes && answer.json["tops"].as_f64().unwrap() > 0.0);
    }

    #[test]
    fn a_wrong_root_fails_the_bench() {
        let cpu: Arc<dyn Backend> = Arc::new(CpuBackend::new(Some(1)).unwrap());
        let mut measured = vec![measure(&cpu, 0, Shape::DEVNET, Duration::from_millis(5), Duration::from_millis(20)).unwrap()];
        measured[0].hits[0].1.0[0] ^= 1;
        assert!(compare(&measured, Shape::DEVNET).is_err());
    }
}
