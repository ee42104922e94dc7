//! What is queued: roots to compute, with a priority, a place, and somebody to tell.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tops_protocol::work::v1::AttemptV1;
use tops_protocol::{Attempt, Root};

use super::Shared;
use crate::backend::{ROOTS_LIMIT, caught};

/// Who goes first. Mining comes after all of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// A hit of this node on its way to be signed.
    OwnWin,
    /// A candidate for a head.
    Head,
    /// A proof of fraud.
    Alert,
    /// A drawn share, a user's question.
    Audit,
}

impl Priority {
    /// All, the most urgent first.
    pub const ALL: [Self; 4] = [Self::OwnWin, Self::Head, Self::Alert, Self::Audit];

    /// How many jobs of this priority may be queued or running; further ones are refused with [`SubmitFault::Full`], and the caller
    /// drops them, holds them back or asks again: the queue never grows.
    pub const fn limit(self) -> usize {
        match self {
            Self::OwnWin => 256,
            Self::Head => 1024,
            Self::Alert => 256,
            Self::Audit => 4096,
        }
    }
}

/// Where a job may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Place {
    /// On the device that finishes it first.
    Any,
    /// On the CPU's fast path.
    Cpu,
    /// On the CPU, by `tops_protocol::work` itself, over all cores: the second path of a mismatch. About ninety times slower than AVX-512
    /// VNNI.
    Reference,
}

/// The attempts of a job: 1..=[`ROOTS_LIMIT`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Work {
    /// The network's function.
    V2(Vec<Attempt>),
    /// The original's.
    V1(Vec<AttemptV1>),
}

impl Work {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::V2(attempts) => attempts.len(),
            Self::V1(attempts) => attempts.len(),
        }
    }

    /// Operations from the `from`-th attempt on.
    pub(super) fn ops_from(&self, from: usize) -> f64 {
        let ops: u64 = match self {
            Self::V2(attempts) => attempts[from..].iter().map(|a| a.shape.ops()).sum(),
            Self::V1(attempts) => attempts[from..].iter().map(|a| a.shape.ops()).sum(),
        };
        ops as f64
    }
}

/// Why a job was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubmitFault {
    /// As many jobs of this priority as may be.
    #[error("{limit} jobs of priority {priority:?} are waiting already")]
    Full {
        /// Which.
        priority: Priority,
        /// Its bound.
        limit: usize,
    },
    /// No attempt in it, or more than one job may have.
    #[error("a job has 1 to {ROOTS_LIMIT} attempts, not {len}")]
    Length {
        /// How many it has.
        len: usize,
    },
    /// The queue is being dropped.
    #[error("the queue is closed")]
    Closed,
}

/// Why a job has no roots.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JobFault {
    /// It was cancelled.
    #[error("cancelled")]
    Cancelled,
    /// The queue was dropped.
    #[error("the queue is closed")]
    Closed,
    /// No working device takes it.
    #[error("no device can do this: {detail}")]
    NoDevice {
        /// The last device's words.
        detail: String,
    },
    /// The reference computed another root than the device that found it.
    #[error("the CPU does not confirm this root")]
    Mismatch {
        /// What reproduces it.
        bundle: Option<PathBuf>,
    },
    /// It was never queued.
    #[error(transparent)]
    Refused(SubmitFault),
}

/// Cancels a job: when it is stale, nobody needs its roots. What already runs is finished and thrown away. All looks that an audit or a
/// confirmation takes share one.
#[derive(Debug, Clone)]
pub struct JobHandle(Arc<AtomicBool>);

impl JobHandle {
    pub(super) fn new() -> Self {
        Self(Arc::default())
    }

    /// The job's callback gets [`JobFault::Cancelled`] as soon as its device looks at it next.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Called with the roots and the lane that computed the last of them.
pub(super) type Done = Box<dyn FnOnce(Result<(Vec<Root>, usize), JobFault>) + Send>;

/// A job in the queue, with how far it is.
pub(super) struct Job {
    pub(super) work: Work,
    pub(super) priority: Priority,
    pub(super) place: Place,
    pub(super) roots: Vec<Root>,
    /// Lanes that cannot do it, by bit.
    pub(super) tried: u64,
    /// Whether it shares no call with other jobs: it, or one beside it, was refused.
    pub(super) alone: bool,
    /// How many calls with it in them have panicked.
    pub(super) panics: u32,
    pub(super) last_lane: usize,
    pub(super) last_fault: Option<String>,
    handle: JobHandle,
    done: Done,
}

impl Job {
    pub(super) fn new(work: Work, priority: Priority, place: Place, handle: JobHandle, done: Done) -> Self {
        Self { work, priority, place, roots: Vec::new(), tried: 0, alone: false, panics: 0, last_lane: 0, last_fault: None, handle, done }
    }

    pub(super) fn handle(&self) -> JobHandle {
        self.handle.clone()
    }

    pub(super) fn cancelled(&self) -> bool {
        self.handle.0.load(Ordering::Relaxed)
    }

    pub(super) fn ops_left(&self) -> f64 {
        self.work.ops_from(self.roots.len())
    }

    pub(super) fn left(&self) -> usize {
        self.work.len() - self.roots.len()
    }

    /// Tells whoever waits. Never called with the queue's lock held. A callback that panics harms its owner, not the device's thread.
    pub(super) fn finish(self, fault: Result<(), JobFault>) {
        let (lane, roots, done) = (self.last_lane, self.roots, self.done);
        if let Err(words) = caught(|| done(fault.map(|()| (roots, lane)))) {
            tracing::error!(words, "whoever waited for a job panicked at its answer");
        }
    }

    /// What to tell when no lane is left for it.
    pub(super) fn no_device(&self) -> JobFault {
        JobFault::NoDevice { detail: self.last_fault.clone().unwrap_or_else(|| "none is working".into()) }
    }
}

/// Queues a job if its priority has room.
pub(super) fn enqueue_bounded(shared: &Arc<Shared>, job: Job) -> Result<JobHandle, SubmitFault> {
    let (priority, limit, len) = (job.priority, job.priority.limit(), job.work.len());
    if !(1..=ROOTS_LIMIT).contains(&len) {
        return Err(SubmitFault::Length { len });
    }
    let mut state = shared.lock();
    if state.closed() {
        return Err(SubmitFault::Closed);
    }
    if state.waiting(priority) >= limit {
        return Err(SubmitFault::Full { priority, limit });
    }
    let handle = job.handle();
    let routed = state.route(job);
    drop(state);
    tell(shared, routed);
    Ok(handle)
}

/// Queues a job whatever its priority's bound says: one that had its place already.
pub(super) fn enqueue(shared: &Arc<Shared>, job: Job) {
    let routed = shared.lock().route(job);
    tell(shared, routed);
}

/// Wakes the lane that got a job, or tells the job's owner that none is left for it. Called without the lock.
fn tell(shared: &Arc<Shared>, routed: Result<usize, Box<(Job, JobFault)>>) {
    match routed {
        Ok(lane) => shared.wake[lane].notify_all(),
        Err(refused) => {
            let (job, fault) = *refused;
            job.finish(Err(fault));
        }
    }
}
