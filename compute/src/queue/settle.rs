//! A lane's owner thread: takes a task, calls the device without the lock, settles what came of it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use tops_protocol::work::v1;
use tops_protocol::work::{self, Weights};
use tops_protocol::{Root, Shape};

use super::jobs::{self, Job, JobFault, Place, Work};
use super::lanes::{Learned, Running, Task, found};
use super::{Found, MiningJob, MiningReport, Shared};
use crate::backend::{Backend, DeviceFault, ROOTS_LIMIT, SearchJob, SearchReport, Stop};

/// Owns one device until the queue is dropped or the device is benched.
pub(super) fn own(shared: &Arc<Shared>, lane: usize) {
    let backend = Arc::clone(&shared.backends[lane]);
    let mut reference = Reference::default();
    loop {
        let mut state = shared.lock();
        let task = loop {
            if state.closed() || state.lanes[lane].benched.is_some() {
                return;
            }
            let mut dropped = Vec::new();
            let task = state.next_task(lane, |job| backend.batch_step(job.shape), shared.options.target, &mut dropped);
            let looked_away = !dropped.is_empty();
            if looked_away {
                drop(state);
                dropped.into_iter().for_each(|job| job.finish(Err(JobFault::Cancelled)));
                state = shared.lock();
            }
            match task {
                Some(task) => break task,
                // What came while the lock was away has notified nobody.
                None if looked_away => {}
                None => state = shared.wake[lane].wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        };
        drop(state);
        match task {
            Task::Urgent { place, work } => urgent(shared, lane, &*backend, place, &work, &mut reference),
            Task::Mine { job, stop } => mine(shared, lane, &*backend, &job, &stop),
        }
    }
}

/// Calls a device; a panic inside is a fault of the device.
fn guarded<T>(call: impl FnOnce() -> Result<T, DeviceFault>) -> Result<T, DeviceFault> {
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|panic| {
        let detail =
            panic.downcast_ref::<String>().cloned().or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_default();
        Err(DeviceFault::Driver { call: "the backend".into(), detail })
    })
}

fn urgent(shared: &Arc<Shared>, lane: usize, backend: &dyn Backend, place: Place, work: &Work, reference: &mut Reference) {
    let began = Instant::now();
    let answer = guarded(|| match (place, work) {
        (Place::Reference, work) => Ok(reference.roots(work)),
        (_, Work::V2(attempts)) => backend.roots(attempts),
        (_, Work::V1(attempts)) => backend.v1_roots(attempts),
    });
    let answer = answer.and_then(|roots| {
        if roots.len() == work.len() {
            return Ok(roots);
        }
        Err(DeviceFault::WrongAnswer { detail: format!("{} roots for {} attempts", roots.len(), work.len()) })
    });
    let elapsed = began.elapsed();

    let mut state = shared.lock();
    // When the watchdog took the jobs away meanwhile, nobody waits for this answer any more.
    let Some((Running::Urgent(taken), _)) = state.lanes[lane].running.take() else { return };
    let mut finished: Vec<(Job, Result<(), JobFault>)> = Vec::new();
    let mut again: Vec<Job> = Vec::new();
    let mut take_out = None;
    match answer {
        Ok(roots) => {
            let ops = (place != Place::Reference).then(|| work.ops_from(0));
            state.lanes[lane].learn_urgent(ops, work.len(), elapsed);
            let mut roots = roots.into_iter();
            for (mut job, count) in taken {
                job.roots.extend(roots.by_ref().take(count));
                job.last_lane = lane;
                if job.cancelled() {
                    finished.push((job, Err(JobFault::Cancelled)));
                } else if job.left() == 0 {
                    finished.push((job, Ok(())));
                } else {
                    again.push(job);
                }
            }
        }
        Err(fault) => {
            let device = backend.device().label();
            tracing::warn!(%device, %fault, attempts = work.len(), "a device gave no roots");
            let (one, len) = (taken.len() == 1, work.len());
            if matches!(fault, DeviceFault::OutOfMemory { .. }) && len > 1 {
                state.lanes[lane].call_limit = (len / 2).clamp(1, ROOTS_LIMIT);
            }
            let smaller_may_fit = matches!(fault, DeviceFault::OutOfMemory { .. }) && len > 1;
            for (mut job, _) in taken {
                job.last_fault = Some(format!("{device}: {fault}"));
                if !fault.takes_out() && !smaller_may_fit && one {
                    job.tried |= 1 << (lane % 64);
                }
                job.alone |= !one;
                again.push(job);
            }
            take_out = fault.takes_out().then_some(fault);
        }
    }
    drop(state);
    if let Some(fault) = &take_out {
        bench(shared, lane, fault);
    }
    for (job, result) in finished {
        job.finish(result);
    }
    for job in again {
        jobs::enqueue(shared, job);
    }
}

fn mine(shared: &Arc<Shared>, lane: usize, backend: &dyn Backend, job: &SearchJob, stop: &Stop) {
    let began = Instant::now();
    let answer = guarded(|| backend.search(job, stop)).and_then(|report| plausible(job, report));
    let elapsed = began.elapsed();
    let step = backend.batch_step(job.shape).max(1);

    let mut state = shared.lock();
    let Some((Running::Mining { generation, first, count, asked_at, yields_to, .. }, _)) = state.lanes[lane].running.take() else { return };
    let SearchJob { prev_hash, miner, timestamp, shape, target, first_nonce, .. } = *job;
    let mining_job = MiningJob { prev_hash, miner, timestamp, shape, target, first_nonce };
    match answer {
        Ok(report) => {
            let done = report.attempts_done;
            state.give_back(generation, first + u64::from(done), count - done);
            let learned = Learned {
                done,
                ops_each: shape.ops(),
                hits: report.hits.len(),
                busy: report.busy,
                elapsed,
                asked_at,
                full: yields_to.is_none(),
            };
            state.lanes[lane].learn_mining(&learned, shared.options.target, step);
            drop(state);
            let hits = found(&mining_job, lane, &report.hits);
            (shared.sink)(MiningReport { job: mining_job, lane, hits, attempts: done, batch: count, elapsed });
        }
        Err(fault) => {
            state.give_back(generation, first, count);
            let smaller = matches!(fault, DeviceFault::OutOfMemory { .. }) && state.lanes[lane].batch > step;
            if smaller {
                state.lanes[lane].batch = (state.lanes[lane].batch / 2).max(step);
            }
            drop(state);
            tracing::warn!(device = %backend.device().label(), %fault, batch = count, "a search failed");
            // A device that cannot mine at all would fail again at once: it is benched like a broken one.
            if !smaller {
                bench(shared, lane, &fault);
            }
        }
    }
}

/// Refuses a report that no search can give, before anybody builds on it.
fn plausible(job: &SearchJob, report: SearchReport) -> Result<SearchReport, DeviceFault> {
    let end = job.first_nonce.get() + u64::from(report.attempts_done);
    let inside = |hit: &(tops_protocol::Nonce, Root)| hit.0 >= job.first_nonce && hit.0.get() < end && hit.1.ticket() <= job.target;
    if report.attempts_done <= job.count && report.hits.iter().all(inside) && report.hits.is_sorted_by(|a, b| a.0 < b.0) {
        return Ok(report);
    }
    Err(DeviceFault::WrongAnswer {
        detail: format!("a report of {} attempts and {} hits that its job does not allow", report.attempts_done, report.hits.len()),
    })
}

/// Takes a device out and gives what it held to the others.
pub(super) fn bench(shared: &Arc<Shared>, lane: usize, fault: &DeviceFault) {
    let mut state = shared.lock();
    let Some(entry) = state.lanes.get_mut(lane) else { return };
    if entry.benched.is_some() {
        return;
    }
    entry.benched = Some(fault.to_string());
    let jobs = state.clear_lane(lane);
    drop(state);
    tracing::error!(device = %shared.backends[lane].device(), %fault, "a device is taken out");
    for wake in &shared.wake {
        wake.notify_all();
    }
    for mut job in jobs {
        job.last_fault = Some(format!("{}: {fault}", shared.backends[lane].device().label()));
        jobs::enqueue(shared, job);
    }
}

/// A device computed another root than the CPU: writes the bundle and benches it. The CPU's own fast path is benched like any other.
pub(super) fn mismatch(shared: &Arc<Shared>, said: &Found, truth: Root) -> Option<PathBuf> {
    let bundle = super::bundle_of(shared, said, truth);
    let detail = format!("nonce {}: it said {}, the CPU says {truth}", said.attempt.nonce.get(), said.root);
    bench(shared, said.lane, &DeviceFault::WrongAnswer { detail });
    bundle
}

/// The reference itself, with the weights of the shape it was last asked for.
#[derive(Default)]
struct Reference {
    weights: Option<(Shape, Weights)>,
}

impl Reference {
    fn roots(&mut self, work: &Work) -> Vec<Root> {
        match work {
            Work::V2(attempts) => attempts.iter().map(|attempt| work::root(attempt, self.weights(attempt.shape))).collect(),
            Work::V1(attempts) => attempts.iter().map(|a| v1::root(&a.prev_hash, a.nonce, a.shape, a.variant)).collect(),
        }
    }

    fn weights(&mut self, shape: Shape) -> &Weights {
        let kept = self.weights.take().filter(|(_, weights)| weights.fit(shape));
        &self.weights.insert(kept.unwrap_or_else(|| (shape, Weights::new(shape)))).1
    }
}
