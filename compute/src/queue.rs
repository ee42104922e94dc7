//! The one bounded priority queue in front of all devices.
//!
//! ```text
//! submit / audit / confirm ──route──▶ lane (one owner thread a device): own win > heads > alerts > audits ─┐
//! mine(job) ── nonce ranges that never overlap ────────────────────────────────▶ when nothing is urgent ───┴─▶ Backend
//! ```
//!
//! A job goes to the device that would finish it first, so that small audits end up on the CPU when that is sooner. Urgent work
//! interrupts mining and is done in portions of about [`PORTION`], so that more urgent work waits little; when urgent work would keep a
//! miner from mining for longer than [`MINING_PATIENCE`], one slice of [`MINING_SLICE`] is mined in between. A device that fails is
//! benched, what it held goes to the others, and the rest goes on; where the CPU's fast path fails, the reference goes on in its place.
//! Results are given to callbacks on the device's thread: hand them on, do not work there.
//!
//! It never judges a receipt and knows no chain: priorities are the caller's word.

mod jobs;
mod lanes;
mod pace;
mod reference;
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
use crate::backend::{Backend, DeviceFault, DeviceKind};
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
/// For how long the threads of a queue that is dropped are waited for; one that is still in its device's driver is then left behind, with
/// what it holds.
const JOIN_LIMIT: Duration = Duration::from_secs(3);
/// How often they are looked at.
const JOIN_LOOK: Duration = Duration::from_millis(2);

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
    /// Operations a second to begin with (from the tuner); `None`: the CPU is timed at the start, others are taken for typical ones of
    /// their kind until they were seen to work.
    pub rate: Option<f64>,
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
    /// Whether it is the other job with a newer stamp.
    fn renews(&self, old: &Self) -> bool {
        let Self { timestamp, first_nonce, .. } = *old;
        self.timestamp > timestamp && Self { timestamp, first_nonce, ..*self } == *old
    }

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

/// The queue and its threads. Dropping it stops and joins them, but for those that do not come back in a few seconds.
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
    /// Timing the CPU takes some milliseconds here.
    pub fn start(
        mut lanes: Vec<LaneSpec>,
        options: QueueOptions,
        sink: impl Fn(MiningReport) + Send + Sync + 'static,
    ) -> std::io::Result<Self> {
        for lane in &mut lanes {
            lane.rate = lane.rate.or_else(|| pace::timed(&*lane.backend));
        }
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
    /// the device that said otherwise is taken out and a bundle written.
    pub fn audit(
        &self,
        attempt: Attempt,
        claimed: Root,
        priority: Priority,
        done: impl FnOnce(Result<Audit, JobFault>) + Send + 'static,
    ) -> Result<JobHandle, SubmitFault> {
        let (shared, handle) = (Arc::clone(&self.shared), JobHandle::new());
        let look = Look { attempt, priority, handle };
        let again = look.clone();
        let first = move |answer: Result<(Root, usize), JobFault>| match answer {
            Err(fault) => done(Err(fault)),
            Ok((root, _)) if root == claimed => done(Ok(Audit::Holds)),
            Ok((root, lane)) => {
                let judge = Arc::clone(&shared);
                again.by_reference(&shared, move |answer| {
                    done(answer.map(|truth| {
                        if truth != root {
                            settle::mismatch(&judge, &Found { attempt, root, lane }, truth);
                        }
                        if truth == claimed { Audit::Holds } else { Audit::False(truth) }
                    }));
                });
            }
        };
        jobs::enqueue_bounded(&self.shared, look.job(Place::Any, first))
    }

    /// Recomputes what a device found, by another path on the CPU, before anybody signs it. When the two differ the reference decides, and
    /// whoever said otherwise than it is taken out with a bundle: a hit of a right GPU is confirmed though the CPU's fast path does not.
    pub fn confirm(&self, found: Found, done: impl FnOnce(Result<(), JobFault>) + Send + 'static) -> Result<JobHandle, SubmitFault> {
        let by_cpu = self.shared.backends.get(found.lane).is_some_and(|b| b.device().kind == DeviceKind::Cpu);
        let (shared, handle, attempt) = (Arc::clone(&self.shared), JobHandle::new(), found.attempt);
        let look = Look { attempt, priority: Priority::OwnWin, handle };
        let again = look.clone();
        let first = move |answer: Result<(Root, usize), JobFault>| match answer {
            Err(fault) => done(Err(fault)),
            Ok((root, _)) if root == found.root => done(Ok(())),
            Ok((truth, _)) if by_cpu => done(Err(JobFault::Mismatch { bundle: settle::mismatch(&shared, &found, truth) })),
            Ok((root, lane)) => {
                let judge = Arc::clone(&shared);
                again.by_reference(&shared, move |answer| {
                    done(answer.and_then(|truth| {
                        if truth != root {
                            settle::mismatch(&judge, &Found { attempt, root, lane }, truth);
                        }
                        if truth == found.root {
                            return Ok(());
                        }
                        Err(JobFault::Mismatch { bundle: settle::mismatch(&judge, &found, truth) })
                    }));
                });
            }
        };
        jobs::enqueue_bounded(&self.shared, look.job(if by_cpu { Place::Reference } else { Place::Cpu }, first))
    }

    /// Mines this from now on, on every device that mines. Ranges begin anew at its first nonce. What runs for another job is
    /// interrupted; what runs for this one with a stamp of the last seconds goes on, and its report names that stamp.
    pub fn mine(&self, job: MiningJob) {
        self.shared.lock().replace_mining(Some(job), Instant::now());
        self.wake_all();
    }

    /// Stops mining.
    pub fn rest(&self) {
        self.shared.lock().replace_mining(None, Instant::now());
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

    /// Takes a device out of work for a reason that the queue cannot see; on the CPU the reference goes on.
    pub fn bench(&self, lane: usize, fault: DeviceFault) {
        settle::take_out(&self.shared, lane, &fault);
    }

    fn wake_all(&self) {
        for wake in &self.shared.wake {
            wake.notify_all();
        }
    }
}

/// One attempt that is computed by one path, and then perhaps by another. Cancelling it cancels all of that.
#[derive(Clone)]
struct Look {
    attempt: Attempt,
    priority: Priority,
    handle: JobHandle,
}

impl Look {
    /// `done` hears the root and the lane that computed it.
    fn job(self, place: Place, done: impl FnOnce(Result<(Root, usize), JobFault>) + Send + 'static) -> Job {
        let Self { attempt, priority, handle } = self;
        let done = |roots: Result<(Vec<Root>, usize), JobFault>| {
            done(roots.and_then(|(roots, lane)| match roots.first() {
                Some(root) => Ok((*root, lane)),
                None => Err(JobFault::NoDevice { detail: "a device answered without a root".into() }),
            }));
        };
        Job::new(Work::V2(vec![attempt]), priority, place, handle, Box::new(done))
    }

    /// Asks the reference. The first look has just left its place in the queue, so this one is taken even when the queue is full.
    fn by_reference(self, shared: &Arc<Shared>, done: impl FnOnce(Result<Root, JobFault>) + Send + 'static) {
        jobs::enqueue(shared, self.job(Place::Reference, |answer| done(answer.map(|(root, _)| root))));
    }
}

fn submit(
    shared: &Arc<Shared>,
    work: Work,
    priority: Priority,
    place: Place,
    done: Box<dyn FnOnce(Result<Vec<Root>, JobFault>) + Send>,
) -> Result<JobHandle, SubmitFault> {
    let done = Box::new(|roots: Result<(Vec<Root>, usize), JobFault>| done(roots.map(|(roots, _)| roots)));
    jobs::enqueue_bounded(shared, Job::new(work, priority, place, JobHandle::new(), done))
}

impl Drop for Queue {
    fn drop(&mut self) {
        let dropped = self.shared.lock().close();
        self.wake_all();
        self.shared.watch.notify_all();
        for job in dropped {
            job.finish(Err(JobFault::Closed));
        }
        // A call that was found to hang is not waited for.
        let hung: Vec<bool> = self.shared.lock().reports().map(|report| report.hung).collect();
        let threads = self.threads.drain(..).filter(|(lane, _)| !hung.get(*lane).is_some_and(|&hung| hung)).map(|(_, thread)| thread);
        for thread in join_within(threads.chain(self.watchdog.take()).collect(), JOIN_LIMIT) {
            tracing::warn!(thread = thread.thread().name(), "a device's call does not come back: its thread is left behind");
        }
    }
}

/// Joins the threads that end within `limit`, and returns the others. A panicked one has already been reported.
fn join_within(mut threads: Vec<JoinHandle<()>>, limit: Duration) -> Vec<JoinHandle<()>> {
    let began = Instant::now();
    loop {
        let (ended, running): (Vec<_>, Vec<_>) = threads.into_iter().partition(JoinHandle::is_finished);
        for thread in ended {
            let _ = thread.join();
        }
        if running.is_empty() || began.elapsed() >= limit {
            return running;
        }
        threads = running;
        std::thread::sleep(JOIN_LOOK);
    }
}

/// Benches GPUs whose call does not come back, and gives their work to others.
fn watch(shared: &Arc<Shared>) {
    let mut state = shared.lock();
    while !state.closed() {
        let hung = state.hung(Instant::now(), |lane| shared.backends[lane].device().kind != DeviceKind::Cpu);
        drop(state);
        for lane in hung {
            settle::take_out(shared, lane, &DeviceFault::Hung { waited_secs: HUNG_AFTER.as_secs() });
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stuck_thread_is_left_and_the_others_are_joined() {
        let long = Duration::from_secs(60);
        assert!(join_within(vec![std::thread::spawn(|| {}), std::thread::spawn(|| panic!("on purpose"))], long).is_empty());
        let (release, stuck) = std::sync::mpsc::sync_channel::<()>(1);
        let waits = std::thread::spawn(move || {
            let _ = stuck.recv();
        });
        let left = join_within(vec![waits], Duration::from_millis(10));
        assert_eq!(left.len(), 1);
        drop(release);
        assert!(join_within(left, long).is_empty());
    }
}
