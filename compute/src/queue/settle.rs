//! A lane's owner thread: takes a task, calls the device without the lock, settles what came of it.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use tops_protocol::Root;

use super::jobs::{self, Job, JobFault, Place, Work};
use super::lanes::{Learned, Running, Task, found};
use super::reference::Reference;
use super::{Found, MiningJob, MiningReport, Shared};
use crate::backend::{Backend, DeviceFault, DeviceKind, ROOTS_LIMIT, SearchJob, SearchReport, Stop, caught};

/// How many calls may panic with a job in them before nobody is asked for it any more: it may be the job, and each call costs a device.
const PANICS_MAX: u32 = 2;

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

/// Why a call gave nothing.
struct Failure {
    fault: DeviceFault,
    panicked: bool,
}

impl From<DeviceFault> for Failure {
    fn from(fault: DeviceFault) -> Self {
        Self { fault, panicked: false }
    }
}

/// Calls a device; a panic inside is a fault of the device.
fn guarded<T>(call: impl FnOnce() -> Result<T, DeviceFault>) -> Result<T, Failure> {
    match caught(call) {
        Ok(answer) => Ok(answer?),
        Err(detail) => Err(Failure { fault: DeviceFault::Driver { call: "the backend".into(), detail }, panicked: true }),
    }
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
        Err(DeviceFault::WrongAnswer { detail: format!("{} roots for {} attempts", roots.len(), work.len()) }.into())
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
        Err(Failure { fault, panicked }) => {
            let device = backend.device().label();
            tracing::warn!(%device, %fault, attempts = work.len(), "a device gave no roots");
            let (one, len) = (taken.len() == 1, work.len());
            let smaller_may_fit = matches!(fault, DeviceFault::OutOfMemory { .. }) && len > 1;
            if smaller_may_fit {
                state.lanes[lane].call_limit = (len / 2).clamp(1, ROOTS_LIMIT);
            }
            // The reference is no device's code: when it fails, the job is at fault.
            let of_device = fault.takes_out() && place != Place::Reference;
            for (mut job, _) in taken {
                job.last_fault = Some(format!("{device}: {fault}"));
                job.panics += u32::from(panicked);
                job.tried |= u64::from(one && !of_device && !smaller_may_fit) << (lane % 64);
                job.alone |= !one;
                if job.panics >= PANICS_MAX {
                    let fault = job.no_device();
                    finished.push((job, Err(fault)));
                } else {
                    again.push(job);
                }
            }
            take_out = of_device.then_some(fault);
        }
    }
    drop(state);
    if let Some(fault) = &take_out {
        self::take_out(shared, lane, fault);
    }
    for (job, result) in finished {
        job.finish(result);
    }
    for mut job in again {
        forget_lies(&mut job, take_out.as_ref());
        jobs::enqueue(shared, job);
    }
}

fn mine(shared: &Arc<Shared>, lane: usize, backend: &dyn Backend, job: &SearchJob, stop: &Stop) {
    let began = Instant::now();
    let answer = guarded(|| plausible(job, backend.search(job, stop)?));
    let elapsed = began.elapsed();
    let step = backend.batch_step(job.shape).max(1);

    let mut state = shared.lock();
    let Some((running, _)) = state.lanes[lane].running.take() else { return };
    let Running::Mining { generation, first, count, stale, asked_at, yields_to, .. } = running else { return };
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
                stale,
                full: yields_to.is_none(),
            };
            state.lanes[lane].learn_mining(&learned, shared.options.target, step);
            drop(state);
            let hits = found(&mining_job, lane, &report.hits);
            (shared.sink)(MiningReport { job: mining_job, lane, hits, attempts: done, batch: count, elapsed });
        }
        Err(Failure { fault, .. }) => {
            state.give_back(generation, first, count);
            let smaller = matches!(fault, DeviceFault::OutOfMemory { .. }) && state.lanes[lane].batch > step;
            if smaller {
                state.lanes[lane].batch = (state.lanes[lane].batch / 2).max(step);
            }
            drop(state);
            tracing::warn!(device = %backend.device().label(), %fault, batch = count, "a search failed");
            // A device that cannot mine at all would fail again at once: it is benched like a broken one.
            if !smaller {
                take_out(shared, lane, &fault);
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

/// Takes a device out and gives what it held to the others. The CPU's lane stays, and computes by the reference from then on.
pub(super) fn take_out(shared: &Arc<Shared>, lane: usize, fault: &DeviceFault) {
    let Some(device) = shared.backends.get(lane).map(|backend| backend.device()) else { return };
    let mut state = shared.lock();
    let stays = device.kind == DeviceKind::Cpu;
    let why = if stays { format!("only the reference runs on it, and it mines nothing: {fault}") } else { fault.to_string() };
    if !state.lanes[lane].take_out(why) {
        return;
    }
    let jobs = state.clear_lane(lane);
    drop(state);
    if stays {
        tracing::error!(%device, %fault, "the CPU's fast path is not to be trusted: only the reference runs on it now");
    } else {
        tracing::error!(%device, %fault, "a device is taken out");
    }
    for wake in &shared.wake {
        wake.notify_all();
    }
    for mut job in jobs {
        job.last_fault = Some(format!("{}: {fault}", device.label()));
        forget_lies(&mut job, Some(fault));
        jobs::enqueue(shared, job);
    }
}

/// A device that lied may have computed a part of a job already.
fn forget_lies(job: &mut Job, fault: Option<&DeviceFault>) {
    if matches!(fault, Some(DeviceFault::WrongAnswer { .. })) {
        job.roots.clear();
    }
}

/// A device computed another root than the reference: writes the bundle and takes it out.
pub(super) fn mismatch(shared: &Arc<Shared>, said: &Found, truth: Root) -> Option<PathBuf> {
    let bundle = super::bundle_of(shared, said, truth);
    let detail = format!("nonce {}: it said {}, the reference says {truth}", said.attempt.nonce.get(), said.root);
    take_out(shared, said.lane, &DeviceFault::WrongAnswer { detail });
    bundle
}
