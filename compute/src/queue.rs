//! The one bounded priority queue in front of all devices.
//!
//! ```text
//! submit / audit / confirm ──route──▶ lane (one owner thread a device): own win > heads > alerts > audits ─┐
//! mine(job) ── nonce ranges that never overlap ────────────────────────────────▶ when nothing is urgent ───┴─▶ Backend
//! ```
//!
//! A job goes to the device that would finish it first, so that small audits end up on the CPU when that is sooner. Urgent work interrupts
//! mining and is done in portions of about [`PORTION`], so that more urgent work waits little; when urgent work would keep a miner from
//! mining for longer than [`MINING_PATIENCE`], one slice of [`MINING_SLICE`] is mined in between. A device that fails is benched, what it
//! held goes to the others, and the rest goes on. Results are given to callbacks on the device's thread: hand them on, do not work there.
//!
//! It never judges a receipt and knows no chain: priorities are the caller's word.

mod jobs;
mod lanes;
mod settle;

use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tops_protocol::work::v1::AttemptV1;
use tops_protocol::{Attempt, Millis, Nonce, PublicKey, Root, Shape, U256};

use self::jobs::Job;
pub use self::jobs::{JobFault, JobHandle, Place, Priority, SubmitFault, Work};
use self::lanes::State;
pub use self::lanes::{LaneReport, MiningReport};
use crate::backend::{Backend, DeviceFault};
use crate::bundle;

/// How long urgent work keeps a device before it looks for more urgent work.
pub const PORTION: Duration = Duration::from_millis(40);
/// For how long audits and alerts may keep a mining device from mining.
pub const MINING_PATIENCE: Duration = Duration::from_millis(400);
/// How long the slice is that is then mined.
pub const MINING_SLICE: Duration = Duration::from_millis(40);
/// A GPU call that takes longer than this is taken for hung.
pub const HUNG_AFTER: Duration = Duration::from_secs(30);
/// How often the watchdog looks.
const WATCH: Duration = Duration::from_millis(500);

/// How the queue works.
#[derive(Debug, Clone)]
pub struct QueueOptions {
    /// How long one search should take (`--target-ms`): longer ones keep a GPU busier, shorter ones cost less when interrupted badly.
    pub target: Duration,
    /// Where bundles that reproduce a mismatch are written; `None`: nowhere.
    pub bundle_dir: Option<PathBuf>,
}

impl Default for QueueOptions {
    fn default() -> Self {
        Self { target: Duration::from_millis(300), bundle_dir: None }
    }
}

/// A device given to the queue.
pub struct LaneSpec {
    /// The device.
    pub backend: Arc<dyn Backend>,
    /// Whether it mines, or only does urgent work.
    pub mines: bool,
    /// Attempts a search to begin with (from the tuner); `None`: found out while mining.
    pub batch: Option<u32>,
}

/// What to mine. Replaced as a whole when the head or the target changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MiningJob {
    /// The head to build on.
    pub prev_hash: Root,
    /// Whose attempts they are.
    pub miner: PublicKey,
    /// The miner's clock when this job was made.
    pub timestamp: Millis,
    /// The network's shape.
    pub shape: Shape,
    /// Roots whose ticket is at most this are hits: the share target.
    pub target: U256,
    /// The first nonce; devices share out what follows.
    pub first_nonce: Nonce,
}

impl MiningJob {
    /// The attempt of one nonce.
    pub fn attempt(&self, nonce: Nonce) -> Attempt {
        Attempt { prev_hash: self.prev_hash, miner: self.miner, nonce, timestamp: self.timestamp, shape: self.shape }
    }
}

/// A root that a device found, not yet recomputed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// What was attempted.
    pub attempt: Attempt,
    /// What the device says came out.
    pub root: Root,
    /// Which lane said so.
    pub lane: usize,
}

/// What an audit came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audit {
    /// The claimed root is the attempt's.
    Holds,
    /// It is not; the reference repeated it. This is the root it should have been.
    False(Root),
}

/// The queue and its threads. Dropping it stops and joins them.
pub struct Queue {
    shared: Arc<Shared>,
    threads: Vec<(usize, JoinHandle<()>)>,
    watchdog: Option<JoinHandle<()>>,
}

struct Shared {
    backends: Vec<Arc<dyn Backend>>,
    options: QueueOptions,
    sink: Box<dyn Fn(MiningReport) + Send + Sync>,
    state: Mutex<State>,
    wake: Vec<Condvar>,
    watch: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    /// Starts a thread a device. `sink` is called on those threads after each search, also with no hits in it; it must not block.
    pub fn start(
        lanes: Vec<LaneSpec>,
        options: QueueOptions,
        sink: impl Fn(MiningReport) + Send + Sync + 'static,
    ) -> std::io::Result<Self> {
        let state = State::new(&lanes);
        let wake = lanes.iter().map(|_| Condvar::new()).collect();
        let backends = lanes.into_iter().map(|lane| lane.backend).collect();
        let shared = Arc::new(Shared { backends, options, sink: Box::new(sink), state: Mutex::new(state), wake, watch: Condvar::new() });
        let mut queue = Self { shared: Arc::clone(&shared), threads: Vec::new(), watchdog: None };
        for (lane, backend) in shared.backends.iter().enumerate() {
            let shared = Arc::clone(&shared);
            let thread =
                std::thread::Builder::new().name(format!("lane-{}", backend.device().label())).spawn(move || settle::own(&shared, lane))?;
            queue.threads.push((lane, thread));
        }
        queue.watchdog = Some(std::thread::Builder::new().name("lane-watchdog".into()).spawn(move || watch(&shared))?);
        Ok(queue)
    }

    /// Queues roots to be computed; `done` is called once, with the roots in the order of the attempts, unless this returns an error.
    pub fn submit(
        &self,
        work: Work,
        priority: Priority,
        place: Place,
        done: impl FnOnce(Result<Vec<Root>, JobFault>) + Send + 'static,
    ) -> Result<JobHandle, SubmitFault> {
        submit(&self.shared, work, priority, place, Box::new(done))
    }

    /// The same, waited for.
    pub fn roots(&self, work: Work, priority: Priority, place: Place) -> Result<Vec<Root>, JobFault> {
        let (send, receive) = std::sync::mpsc::sync_channel(1);
        let sent = self.submit(work, priority, place, move |roots| {
            // The waiting side cannot be gone: it holds this call.
            let _ = send.send(roots);
        });
        match sent {
            Ok(_) => receive.recv().unwrap_or(Err(JobFault::Closed)),
            Err(fault) => Err(JobFault::Refused(fault)),
        }
    }

    /// Recomputes a claimed root. A mismatch is an answer only when the reference repeats it; when the reference sides with the claim,
    /// the device that said otherwise is benched and a bundle written.
    pub fn audit(
        &self,
        attempt: Attempt,
        claimed: Root,
        priority: Priority,
        done: impl FnOnce(Result<Audit, JobFault>) + Send + 'static,
    ) -> Result<JobHandle, SubmitFault> {
        let shared = Arc::clone(&self.shared);
        let first = move |roots: Result<(Vec<Root>, usize), JobFault>| match roots.map(|(roots, lane)| (roots.first().copied(), lane)) {
            Err(fault) => done(Err(fault)),
            Ok((Some(root), _)) if root == claimed => done(Ok(Audit::Holds)),
            Ok((None, _)) => done(Err(JobFault::NoDevice { detail: "a device answered without a root".into() })),
            Ok((Some(root), lane)) => {
                let again = Arc::clone(&shared);
                let second = move |roots: Result<(Vec<Root>, usize), JobFault>| match roots.map(|(roots, _)| roots.first().copied()) {
                    Err(fault) => done(Err(fault)),
                    Ok(None) => done(Err(JobFault::NoDevice { detail: "the reference answered without a root".into() })),
                    Ok(Some(truth)) => {
                        if truth != root {
                            settle::mismatch(&again, &Found { attempt, root, lane }, truth);
                        }
                        done(Ok(if truth == claimed { Audit::Holds } else { Audit::False(truth) }));
                    }
                };
                // The first look has just left its place in the queue, so this one is taken even when the queue is full.
                jobs::enqueue(&shared, Job::new(Work::V2(vec![attempt]), priority, Place::Reference, Box::new(second)));
            }
        };
        jobs::enqueue_bounded(&self.shared, Job::new(Work::V2(vec![attempt]), priority, Place::Any, Box::new(first)))
    }

    /// Recomputes what a device found, by another path on the CPU, before anybody signs it. A mismatch benches that device and writes a bundle.
    pub fn confirm(&self, found: Found, done: impl FnOnce(Result<(), JobFault>) + Send + 'static) -> Result<JobHandle, SubmitFault> {
        let cpu = self.shared.backends.get(found.lane).is_some_and(|b| b.device().kind == crate::backend::DeviceKind::Cpu);
        let place = if cpu { Place::Reference } else { Place::Cpu };
        let shared = Arc::clone(&self.shared);
        self.submit(Work::V2(vec![found.attempt]), Priority::OwnWin, place, move |roots| {
            done(roots.and_then(|roots| match roots.first() {
                Some(root) if *root == found.root => Ok(()),
                Some(root) => {
                    let bundle = settle::mismatch(&shared, &found, *root);
                    Err(JobFault::Mismatch { bundle })
                }
                None => Err(JobFault::NoDevice { detail: "the CPU answered without a root".into() }),
            }));
        })
    }

    /// Mines this from now on, on every device that mines; what runs for another job is interrupted. Ranges begin anew at its first nonce.
    pub fn mine(&self, job: MiningJob) {
        self.shared.lock().replace_mining(Some(job));
        self.wake_all();
    }

    /// Stops mining.
    pub fn rest(&self) {
        self.shared.lock().replace_mining(None);
        self.wake_all();
    }

    /// Every device with what it did since the start.
    pub fn reports(&self) -> Vec<LaneReport> {
        let state = self.shared.lock();
        self.shared
            .backends
            .iter()
            .zip(state.reports())
            .map(|(backend, report)| LaneReport { device: backend.device().clone(), ..report })
            .collect()
    }

    /// Takes a device out of work for a reason that the queue cannot see.
    pub fn bench(&self, lane: usize, fault: DeviceFault) {
        settle::bench(&self.shared, lane, &fault);
    }

    fn wake_all(&self) {
        for wake in &self.shared.wake {
            wake.notify_all();
        }
    }
}

fn submit(
    shared: &Arc<Shared>,
    work: Work,
    priority: Priority,
    place: Place,
    done: Box<dyn FnOnce(Result<Vec<Root>, JobFault>) + Send>,
) -> Result<JobHandle, SubmitFault> {
    jobs::enqueue_bounded(shared, Job::new(work, priority, place, Box::new(|roots| done(roots.map(|(roots, _)| roots)))))
}

impl Drop for Queue {
    fn drop(&mut self) {
        let dropped = self.shared.lock().close();
        self.wake_all();
        self.shared.watch.notify_all();
        for job in dropped {
            job.finish(Err(JobFault::Closed));
        }
        let hung: Vec<bool> = self.shared.lock().reports().map(|report| report.hung).collect();
        for (lane, thread) in self.threads.drain(..) {
            // A hung driver call never returns: its thread is left behind. A panicked one has already been reported.
            if !hung.get(lane).is_some_and(|&hung| hung) {
                let _ = thread.join();
            }
        }
        if let Some(watchdog) = self.watchdog.take() {
            let _ = watchdog.join();
        }
    }
}

/// Benches GPUs whose call does not come back, and gives their work to others.
fn watch(shared: &Arc<Shared>) {
    let mut state = shared.lock();
    while !state.closed() {
        let hung = state.hung(Instant::now(), |lane| shared.backends[lane].device().kind != crate::backend::DeviceKind::Cpu);
        drop(state);
        for lane in hung {
            settle::bench(shared, lane, &DeviceFault::Hung { waited_secs: HUNG_AFTER.as_secs() });
        }
        state = shared.watch.wait_timeout(shared.lock(), WATCH).unwrap_or_else(PoisonError::into_inner).0;
    }
}

/// Work of the original's function as the queue takes it.
impl From<Vec<AttemptV1>> for Work {
    fn from(attempts: Vec<AttemptV1>) -> Self {
        Self::V1(attempts)
    }
}

impl From<Vec<Attempt>> for Work {
    fn from(attempts: Vec<Attempt>) -> Self {
        Self::V2(attempts)
    }
}

/// What a mismatch is written down as.
fn bundle_of(shared: &Shared, found: &Found, truth: Root) -> Option<PathBuf> {
    let dir = shared.options.bundle_dir.as_ref()?;
    let device = shared.backends.get(found.lane)?.device();
    match bundle::write(dir, device, &found.attempt, found.root, truth) {
        Ok(path) => Some(path),
        Err(fault) => {
            tracing::warn!(device = %device.label(), %fault, "the bundle of a mismatch could not be written");
            None
        }
    }
}
