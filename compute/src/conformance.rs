//! The one suite that every backend must pass, byte for byte against `tops_protocol::work`.
//!
//! It knows nothing of the device but its `Backend`; cases are drawn from a fixed seed, so that a failure can be repeated. The reference
//! is slow, so the quick level keeps to small shapes; the wide and full levels go to 8192 columns and 256 rows, and take minutes: of a shape, all
//! attempts of all cases go through the reference at once, over all cores, and then to each backend case by case.

use std::time::{Duration, Instant};

use rayon::prelude::*;
use tops_protocol::work::v1::{self, AttemptV1, ShapeV1, Variant};
use tops_protocol::work::{self, Weights};
use tops_protocol::{Attempt, Millis, Nonce, PublicKey, Root, Shape, U256};

use crate::backend::{Backend, DeviceFault, SearchJob, Stop};

/// How much of it to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// A few attempts of the smallest shapes: under a second anywhere. What a device must pass before it gets work.
    Start,
    /// Every rule on small shapes: seconds.
    Quick,
    /// The same on shapes up to the largest, and more of them, a few attempts each: for devices that are no faster than the reference.
    Wide,
    /// The shapes of [`Self::Wide`] in batches as large as the reference can do: minutes of it.
    Full,
}

/// Where a backend differs from the reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Nonconformity {
    /// It gave no answer.
    #[error("{case}: {fault}")]
    Fault {
        /// What was asked.
        case: String,
        /// What it said.
        fault: DeviceFault,
    },
    /// It gave another answer.
    #[error("{case}: expected {expected}, got {got}")]
    Differs {
        /// What was asked.
        case: String,
        /// The reference's answer.
        expected: String,
        /// The device's answer.
        got: String,
    },
}

impl From<Nonconformity> for DeviceFault {
    fn from(value: Nonconformity) -> Self {
        match value {
            Nonconformity::Fault { fault, .. } => fault,
            Nonconformity::Differs { .. } => Self::WrongAnswer { detail: value.to_string() },
        }
    }
}

/// A root that is known without the reference: from the independent model's vectors.
struct Known {
    shape: (u32, u32, u32),
    prev_hash: &'static str,
    miner: &'static str,
    nonce: u64,
    timestamp_ms: u64,
    root: &'static str,
}

/// One root of the independent model, so that not even the reference is taken at its word.
const KNOWN: Known = Known {
    shape: (16, 256, 256),
    prev_hash: "79cc846dcf19412179ed0b06d3b5dc0b72bd2ffe73a1fdc7b759f97f55eb3342",
    miner: "03967fc2d3f423ef8a417e1faca8ba1436a5bdb51e7c379882b254ae16069852bd",
    nonce: 0,
    timestamp_ms: 1_790_990_688_974,
    root: "400d2f3a3f0d7dcef27ba6e7eefa87499d43787a9adc4e3c032e906bdb51f7c0",
};

/// A part of the suite that was passed, for those who wait for the rest.
#[derive(Debug, Clone)]
pub struct Passed {
    /// Which: a shape, mostly.
    pub part: String,
    /// How long the reference took.
    pub reference: Duration,
    /// How long each backend took, in the order given.
    pub backends: Vec<Duration>,
}

/// Runs the suite; the first difference ends it.
pub fn run(backend: &dyn Backend, level: Level, seed: u64) -> Result<(), Nonconformity> {
    run_on(&[backend], level, seed, |_| {})
}

/// Runs the suite on several backends at once, so that the reference computes each case only once; the first difference ends it. `told` hears of
/// each part as it is passed.
pub fn run_on(backends: &[&dyn Backend], level: Level, seed: u64, mut told: impl FnMut(&Passed)) -> Result<(), Nonconformity> {
    let mut asked = Asked { backends, took: vec![Duration::ZERO; backends.len()], began: Instant::now() };
    known_root(&mut asked)?;
    told(&asked.passed("the known root"));
    let mut draw = Draw::new(seed);
    for shape in shapes(level, &mut draw) {
        one_shape(&mut asked, level, shape, &mut draw)?;
        told(&asked.passed(&shape.to_string()));
    }
    if level > Level::Start {
        mixed_shapes(&mut asked, &mut draw)?;
        stops(&mut asked, &mut draw)?;
        told(&asked.passed("mixed shapes and stops"));
        first_version(&mut asked, level, &mut draw)?;
        told(&asked.passed("v1"));
    }
    Ok(())
}

/// The backends, and how long each has computed since the last part was passed.
struct Asked<'a> {
    backends: &'a [&'a dyn Backend],
    took: Vec<Duration>,
    began: Instant,
}

impl Asked<'_> {
    fn passed(&mut self, part: &str) -> Passed {
        let backends = std::mem::replace(&mut self.took, vec![Duration::ZERO; self.backends.len()]);
        let reference = self.began.elapsed().saturating_sub(backends.iter().sum());
        self.began = Instant::now();
        Passed { part: part.into(), reference, backends }
    }

    /// One case, asked of every backend.
    fn each<T: PartialEq + core::fmt::Debug>(
        &mut self,
        case: &str,
        expected: &[T],
        call: impl Fn(&dyn Backend) -> Result<Vec<T>, DeviceFault>,
    ) -> Result<(), Nonconformity> {
        for (backend, took) in self.backends.iter().zip(&mut self.took) {
            let case = named(*backend, case);
            let began = Instant::now();
            let got = ask(&case, || call(*backend))?;
            *took += began.elapsed();
            same(&case, expected, &got)?;
        }
        Ok(())
    }
}

fn known_root(asked: &mut Asked<'_>) -> Result<(), Nonconformity> {
    let (m, n, k) = KNOWN.shape;
    let (Some(shape), Some(nonce), Ok(prev_hash), Ok(miner)) =
        (Shape::new(m, n, k), Nonce::new(KNOWN.nonce), Root::from_hex(KNOWN.prev_hash), PublicKey::from_hex(KNOWN.miner))
    else {
        unreachable!("the constants are within their ranges; every run of the suite reads them");
    };
    let attempt = Attempt { prev_hash, miner, nonce, timestamp: Millis(KNOWN.timestamp_ms), shape };
    asked.each("the known root", &[KNOWN.root.to_string()], |backend| Ok(backend.roots(&[attempt])?.iter().map(Root::to_hex).collect()))
}

/// The shapes of a level: the corners by name, the rest drawn.
fn shapes(level: Level, draw: &mut Draw) -> Vec<Shape> {
    let mut sizes: Vec<(u32, u32, u32)> = match level {
        Level::Start => vec![(16, 256, 256), (16, 512, 256)],
        Level::Quick => vec![(16, 256, 256), (16, 512, 256), (16, 256, 512), (48, 256, 256), (112, 256, 256), (16, 1024, 512)],
        Level::Wide | Level::Full => vec![
            (16, 256, 256),
            (16, 4096, 4096),
            (16, 8192, 256),
            (16, 256, 8192),
            (16, 8192, 8192),
            (256, 256, 256),
            (240, 512, 1024),
            (48, 2048, 4096),
        ],
    };
    let (drawn, m_steps, wide) = match level {
        Level::Start => (0, 1, 1),
        Level::Quick => (4, 4, 2),
        Level::Wide | Level::Full => (24, 16, 5),
    };
    for _ in 0..drawn {
        let m = 16 * (1 + draw.below(m_steps));
        let (n, k) = (256 << draw.below(wide + 1), 256 << draw.below(wide + 1));
        // The reference does 10 GOP a second: 32 GOP a shape is what a full run can wait for.
        sizes.push(if u64::from(m) * u64::from(n) * u64::from(n + k) > 1 << 34 { (16, n.min(2048), k) } else { (m, n, k) });
    }
    sizes.into_iter().filter_map(|(m, n, k)| Shape::new(m, n, k)).collect()
}

/// `roots` on batch sizes that divide no tile, nonces and stamps at their ends, miners and heads mixed. `search` with targets that hit all,
/// none, exactly one and half; across 2^32 nonces and at the last nonce.
fn one_shape(asked: &mut Asked<'_>, level: Level, shape: Shape, draw: &mut Draw) -> Result<(), Nonconformity> {
    let most = affordable(level, shape);
    let mut attempts = Vec::new();
    let mut lens = Vec::new();
    for len in [1, 2, 3, 5, 7, 11, 17, 33].into_iter().filter(|&len| len <= most) {
        attempts.extend((0..len).map(|_| draw.attempt(shape)));
        lens.push(len);
    }
    let count = u32::try_from(most.clamp(3, 21)).unwrap_or(3);
    let last = (1_u64 << 53) - u64::from(count);
    let mut jobs = Vec::new();
    for first in [0, (1 << 32) - u64::from(count / 2), draw.next() >> 12, last] {
        let Some(first_nonce) = Nonce::new(first) else { unreachable!("every first nonce above is below 2^53") };
        let Attempt { prev_hash, miner, timestamp, .. } = draw.attempt(shape);
        let job = SearchJob { prev_hash, miner, timestamp, shape, first_nonce, count, target: U256::MAX };
        attempts.extend((0..count).filter_map(|i| job.attempt(i)));
        jobs.push(job);
    }
    let weights = Weights::new(shape);
    let roots: Vec<Root> = attempts.par_iter().map(|attempt| work::root(attempt, &weights)).collect();
    drop(weights);
    let mut rest = attempts.iter().zip(&roots);
    for len in lens {
        let (attempts, expected): (Vec<Attempt>, Vec<Root>) = rest.by_ref().take(len).unzip();
        asked.each(&format!("{len} roots of {shape}"), &expected, |backend| backend.roots(&attempts))?;
    }
    asked.each("no roots", &[], |backend| backend.roots(&[]))?;
    for job in jobs {
        let all: Vec<(Nonce, Root)> = rest.by_ref().take(count as usize).map(|(attempt, root)| (attempt.nonce, *root)).collect();
        let mut tickets: Vec<U256> = all.iter().map(|(_, root)| root.ticket()).collect();
        tickets.sort_unstable();
        let targets = [("all", U256::MAX), ("one", tickets[0]), ("none", tickets[0] - U256::from(1)), ("half", tickets[tickets.len() / 2])];
        for (name, target) in targets {
            let expected: Vec<_> = all.iter().filter(|(_, root)| root.ticket() <= target).copied().collect();
            let case = format!("a search of {count} from nonce {} of {shape}, hitting {name}", job.first_nonce.get());
            asked.each(&case, &[(count, expected)], |backend| {
                let report = backend.search(&SearchJob { target, ..job }, &Stop::new())?;
                Ok(vec![(report.attempts_done, report.hits)])
            })?;
        }
    }
    Ok(())
}

/// One batch of attempts of several shapes keeps its order.
fn mixed_shapes(asked: &mut Asked<'_>, draw: &mut Draw) -> Result<(), Nonconformity> {
    let shapes: Vec<Shape> =
        [(16, 256, 256), (32, 256, 256), (16, 256, 512)].into_iter().filter_map(|(m, n, k)| Shape::new(m, n, k)).collect();
    let attempts: Vec<Attempt> = (0..19).map(|i| draw.attempt(shapes[i % shapes.len()])).collect();
    let expected: Vec<Root> = attempts.iter().map(|attempt| work::root(attempt, &Weights::new(attempt.shape))).collect();
    asked.each("a batch of several shapes", &expected, |backend| backend.roots(&attempts))
}

/// A search that is stopped before it begins reports what it did, without a gap, and no more; out-of-range jobs are refused.
fn stops(asked: &mut Asked<'_>, draw: &mut Draw) -> Result<(), Nonconformity> {
    let one = draw.attempt(Shape::DEVNET);
    let (Some(first_nonce), Some(last_nonce)) = (Nonce::new(5), Nonce::new((1 << 53) - 1)) else { unreachable!("both are below 2^53") };
    let job = SearchJob {
        prev_hash: one.prev_hash,
        miner: one.miner,
        timestamp: one.timestamp,
        shape: one.shape,
        first_nonce,
        count: 40,
        target: U256::MAX,
    };
    let stop = Stop::new();
    stop.stop();
    let weights = Weights::new(job.shape);
    for backend in asked.backends {
        let case = named(*backend, "a stopped search");
        let report = ask(&case, || backend.search(&job, &stop))?;
        let done = (0..report.attempts_done).filter_map(|i| job.attempt(i));
        let expected: Vec<_> = done.map(|attempt| (attempt.nonce, work::root(&attempt, &weights))).collect();
        same(&case, &expected, &report.hits)?;
        for (name, job) in [
            ("a search past the last nonce", SearchJob { first_nonce: last_nonce, count: 2, ..job }),
            ("a search of nothing", SearchJob { count: 0, ..job }),
        ] {
            let got = backend.search(&job, &Stop::new());
            if !matches!(got, Err(DeviceFault::Unsupported { .. })) {
                let case = named(*backend, name);
                return Err(Nonconformity::Differs { case, expected: "a refusal".into(), got: format!("{got:?}") });
            }
        }
    }
    Ok(())
}

/// The original's function, both variants, sizes that divide nothing included.
fn first_version(asked: &mut Asked<'_>, level: Level, draw: &mut Draw) -> Result<(), Nonconformity> {
    let sizes: &[(u32, u32, u32)] = match level {
        Level::Start | Level::Quick => &[(64, 64, 64), (128, 96, 160), (1, 1, 1), (7, 13, 29), (33, 257, 65)],
        Level::Wide | Level::Full => {
            &[(64, 64, 64), (128, 96, 160), (1, 1, 1), (7, 13, 29), (33, 257, 65), (512, 512, 512), (1536, 1536, 1536), (1, 3001, 8191)]
        }
    };
    let mut attempts = Vec::new();
    for &(m, n, k) in sizes {
        let Some(shape) = ShapeV1::new(m, n, k) else { unreachable!("the sizes above are within 1..=8192") };
        for variant in [Variant::Plain, Variant::Mixed] {
            let nonce = u32::try_from(draw.next() >> 32).unwrap_or(0);
            attempts.push(AttemptV1 { prev_hash: Root(draw.bytes()), nonce, shape, variant });
        }
    }
    let expected: Vec<Root> = attempts.par_iter().map(|a| v1::root(&a.prev_hash, a.nonce, a.shape, a.variant)).collect();
    for (attempt, expected) in attempts.iter().zip(&expected) {
        let case = format!("v1 {attempt:?}");
        asked.each(&case, &[*expected], |backend| backend.v1_roots(&[*attempt]))?;
    }
    asked.each("v1 in one batch", &expected, |backend| backend.v1_roots(&attempts))
}

/// How many attempts of a shape the reference can do in a moment.
fn affordable(level: Level, shape: Shape) -> usize {
    let budget: u64 = match level {
        Level::Start => 20_000_000,
        Level::Quick => 150_000_000,
        Level::Wide => 2_000_000_000,
        Level::Full => 20_000_000_000,
    };
    usize::try_from(budget / shape.ops()).map_or(usize::MAX, |len| len.max(1))
}

fn named(backend: &dyn Backend, case: &str) -> String {
    format!("{case} by {}", backend.device().path)
}

fn ask<T>(case: &str, call: impl FnOnce() -> Result<T, DeviceFault>) -> Result<T, Nonconformity> {
    call().map_err(|fault| Nonconformity::Fault { case: case.into(), fault })
}

fn same<T: PartialEq + core::fmt::Debug>(case: &str, expected: &[T], got: &[T]) -> Result<(), Nonconformity> {
    if expected == got {
        return Ok(());
    }
    let at = expected.iter().zip(got).position(|(e, g)| e != g).unwrap_or_else(|| expected.len().min(got.len()));
    let show = |side: &[T]| format!("{} entries, number {at} is {:?}", side.len(), side.get(at));
    Err(Nonconformity::Differs { case: case.into(), expected: show(expected), got: show(got) })
}

/// A fixed stream of case data (SplitMix64).
struct Draw(u64);

impl Draw {
    fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: u32) -> u32 {
        u32::try_from(self.next() % u64::from(limit)).unwrap_or(0)
    }

    fn bytes(&mut self) -> [u8; 32] {
        let mut out = [0; 32];
        for chunk in out.chunks_exact_mut(8) {
            chunk.copy_from_slice(&self.next().to_le_bytes());
        }
        out
    }

    /// An attempt with every field drawn; one nonce in four lies beside 2^32.
    fn attempt(&mut self, shape: Shape) -> Attempt {
        let mut miner = [0; 33];
        miner[0] = 2;
        miner[1..].copy_from_slice(&self.bytes());
        let nonce = if self.below(4) == 0 { (1 << 32) - 4 + u64::from(self.below(8)) } else { self.next() >> 11 };
        let Some(nonce) = Nonce::new(nonce) else { unreachable!("both are below 2^53") };
        Attempt { prev_hash: Root(self.bytes()), miner: PublicKey(miner), nonce, timestamp: Millis(self.next() >> 20), shape }
    }
}
