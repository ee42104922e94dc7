//! The queue's state: a lane a device, the mining job they share, and the choices between them. Nothing here calls a device.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use tops_protocol::{Attempt, Nonce, Root};

use super::jobs::{Job, JobFault, Place, Priority, Work};
use super::pace::Pace;
use super::{Found, HUNG_AFTER, LaneSpec, MINING_PATIENCE, MINING_SLICE, MiningJob, PORTION, WATCH};
use crate::backend::{Device, DeviceKind, ROOTS_LIMIT, SEARCH_LIMIT, SearchJob, Stop};
use crate::waited::Waited;

/// How old the stamp of a running search may be when a newer one comes: then the search goes on. One with an older stamp is interrupted, so
/// that heads tell the time at which they were found.
const STAMP_LIFE: Duration = Duration::from_secs(4);
/// A device that was interrupted for its stamp before it had done anything gets twice the time, up to this, or it would never do anything.
const STAMP_LIFE_MOST: Duration = Duration::from_secs(64);

/// A search that ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MiningReport {
    /// Which job it was for, with its own stamp and the first nonce of this search. When it has been replaced meanwhile, this is the old
    /// one.
    pub job: MiningJob,
    /// Which lane mined.
    pub lane: usize,
    /// Every hit, in the order of nonces.
    pub hits: Vec<Found>,
    /// Attempts done.
    pub attempts: u32,
    /// Attempts that the search was given: a receipt's `batch`.
    pub batch: u32,
    /// Wall time of the search.
    pub elapsed: Duration,
}

impl MiningReport {
    /// Leaves the hits with the smallest roots, at most `limit`, the smallest first, in no more memory than they take. Returns how many
    /// it lets go.
    pub fn keep_best(&mut self, limit: usize) -> usize {
        let gone = self.hits.len().saturating_sub(limit);
        if gone > 0 {
            self.hits.select_nth_unstable_by_key(limit, |hit| hit.root);
            self.hits.truncate(limit);
            self.hits.shrink_to_fit();
        }
        self.hits.sort_unstable_by_key(|hit| hit.root);
        gone
    }
}

/// A device and what it did since the queue was started.
#[derive(Debug, Clone, PartialEq)]
pub struct LaneReport {
    /// The device.
    pub device: Device,
    /// Whether it mines.
    pub mines: bool,
    /// Why it gets no more work; for the CPU, which is never without work, why only the reference runs on it.
    pub benched: Option<String>,
    /// Whether its thread is stuck in the driver.
    pub hung: bool,
    /// Attempts mined.
    pub mined: u64,
    /// Operations mined.
    pub mined_ops: u128,
    /// Hits.
    pub hits: u64,
    /// Roots computed for urgent jobs.
    pub checked: u64,
    /// Jobs waiting.
    pub queued: usize,
    /// Attempts a search.
    pub batch: u32,
    /// Jobs that replaced another one here while it was being mined; one with only a newer stamp does not.
    pub replaced: u64,
    /// The longest time from the word of such a job to the start of its first search here.
    pub replaced_worst: Duration,
    /// Time that the device itself computed.
    pub busy: Duration,
    /// Time since the start.
    pub wall: Duration,
}

/// What a lane is to do next.
pub(super) enum Task {
    Urgent { place: Place, work: Work },
    Mine { job: SearchJob, stop: Stop },
}

/// What a lane is doing.
pub(super) enum Running {
    /// Each job with how many of its attempts are in the call.
    Urgent(Vec<(Job, usize)>),
    Mining {
        generation: u64,
        first: u64,
        count: u32,
        stop: Stop,
        /// When its stamp came, and whether it was interrupted because that is long ago.
        stamped: Instant,
        stale: bool,
        /// Work of this priority or a lesser one does not interrupt it.
        yields_to: Option<Priority>,
        asked_at: Option<Instant>,
    },
}

pub(super) struct Lane {
    kind: DeviceKind,
    mines: bool,
    jobs: [VecDeque<Job>; 4],
    pub(super) running: Option<(Running, Waited)>,
    pub(super) benched: Option<String>,
    /// Why only the reference runs here. Then it mines nothing.
    demoted: Option<String>,
    pub(super) hung: bool,
    pace: Pace,
    /// How old a stamp may be here.
    stamp_life: Duration,
    /// Attempts a search.
    pub(super) batch: u32,
    /// Attempts a call that its memory is known to hold.
    pub(super) call_limit: usize,
    /// Urgent work since it last mined.
    urgent_since_mining: Duration,
    mined: u64,
    mined_ops: u128,
    hits: u64,
    checked: u64,
    /// When the word of another mining job came, while this lane mined the one before.
    replaced_at: Option<Instant>,
    replaced: u64,
    replaced_worst: Duration,
    busy: Duration,
}

struct Mining {
    job: MiningJob,
    stamped: Instant,
    next: u64,
    /// Ranges given back by interrupted or failed searches: at most a few a lane, since a lane takes one before it can leave one.
    left: Vec<(u64, u32)>,
}

pub(super) struct State {
    pub(super) lanes: Vec<Lane>,
    mining: Option<Mining>,
    generation: u64,
    closed: bool,
    started: Instant,
}

impl State {
    pub(super) fn new(specs: &[LaneSpec]) -> Self {
        let lanes = specs
            .iter()
            .map(|spec| Lane {
                kind: spec.backend.device().kind,
                mines: spec.mines,
                jobs: Default::default(),
                running: None,
                benched: None,
                demoted: None,
                hung: false,
                pace: Pace::new(spec.backend.device().kind, spec.rate),
                stamp_life: STAMP_LIFE,
                batch: spec.batch.unwrap_or(0),
                call_limit: ROOTS_LIMIT,
                urgent_since_mining: Duration::ZERO,
                mined: 0,
                mined_ops: 0,
                hits: 0,
                checked: 0,
                replaced_at: None,
                replaced: 0,
                replaced_worst: Duration::ZERO,
                busy: Duration::ZERO,
            })
            .collect();
        Self { lanes, mining: None, generation: 0, closed: false, started: Instant::now() }
    }

    pub(super) fn closed(&self) -> bool {
        self.closed
    }

    /// Jobs of a priority that are queued or running.
    pub(super) fn waiting(&self, priority: Priority) -> usize {
        let running = |lane: &Lane| match &lane.running {
            Some((Running::Urgent(jobs), _)) => jobs.iter().filter(|(job, _)| job.priority == priority).count(),
            _ => 0,
        };
        self.lanes.iter().map(|lane| lane.jobs[priority as usize].len() + running(lane)).sum()
    }

    /// Puts a job into the lane that would finish it first, and interrupts that lane's mining. The job comes back when no lane takes it.
    pub(super) fn route(&mut self, mut job: Job) -> Result<usize, Box<(Job, JobFault)>> {
        if self.closed {
            return Err(Box::new((job, JobFault::Closed)));
        }
        let fits = |(i, lane): &(usize, &Lane)| {
            lane.benched.is_none() && job.tried & (1 << (i % 64)) == 0 && (job.place == Place::Any || lane.kind == DeviceKind::Cpu)
        };
        let best =
            self.lanes.iter().enumerate().filter(fits).map(|(i, lane)| (i, lane.finishes_in(&job))).min_by(|a, b| a.1.total_cmp(&b.1));
        let Some((at, _)) = best else {
            let fault = job.no_device();
            return Err(Box::new((job, fault)));
        };
        job.last_lane = at;
        let lane = &mut self.lanes[at];
        if let Some((Running::Mining { stop, yields_to, asked_at, .. }, _)) = &mut lane.running
            && yields_to.is_none_or(|least| job.priority <= least)
        {
            stop.stop();
            asked_at.get_or_insert_with(Instant::now);
        }
        lane.jobs[job.priority as usize].push_back(job);
        Ok(at)
    }

    /// Replaces the mining job. What runs for another head, miner, shape or target is interrupted. A job that has only a newer stamp
    /// begins a range of its own and lets what runs go on: a search carries its own stamp, which stays valid, and a slow device that is
    /// interrupted at every stamp would never finish anything. Nonces that were given to such a search and not done are not given out
    /// again.
    pub(super) fn replace_mining(&mut self, job: Option<MiningJob>, now: Instant) {
        let renewed = job.is_some_and(|new| self.mining.as_ref().is_some_and(|old| new.renews(&old.job)));
        self.generation += 1;
        self.mining = job.map(|job| Mining { job, stamped: now, next: job.first_nonce.get(), left: Vec::new() });
        for lane in &mut self.lanes {
            let Some((Running::Mining { stop, stamped, stale, asked_at, .. }, _)) = &mut lane.running else { continue };
            if !renewed {
                lane.replaced_at = job.map(|_| now);
            } else if now.saturating_duration_since(*stamped) < lane.stamp_life {
                continue;
            } else {
                *stale = asked_at.is_none();
            }
            stop.stop();
            asked_at.get_or_insert(now);
        }
    }

    /// Takes what a lane should do next; jobs that were cancelled are returned to be told so.
    pub(super) fn next_task(
        &mut self,
        at: usize,
        step: impl Fn(&MiningJob) -> u32,
        target: Duration,
        dropped: &mut Vec<Job>,
    ) -> Option<Task> {
        let lane = &mut self.lanes[at];
        for jobs in &mut lane.jobs {
            let (gone, kept): (Vec<_>, VecDeque<_>) = jobs.drain(..).partition_in(Job::cancelled);
            *jobs = kept;
            dropped.extend(gone);
        }
        let top = Priority::ALL.into_iter().find(|&p| !lane.jobs[p as usize].is_empty());
        let may_mine = lane.mines && lane.demoted.is_none() && self.mining.is_some();
        let starved = may_mine && lane.urgent_since_mining >= MINING_PATIENCE;
        match top {
            Some(top) if !(starved && top >= Priority::Alert) => Some(self.take_urgent(at, top)),
            _ if may_mine => {
                let slice = if top.is_some() { MINING_SLICE } else { target };
                self.take_mining(at, step, slice, top.is_some().then_some(Priority::Head))
            }
            Some(top) => Some(self.take_urgent(at, top)),
            None => None,
        }
    }

    fn take_urgent(&mut self, at: usize, top: Priority) -> Task {
        let lane = &mut self.lanes[at];
        let first_place = lane.jobs[top as usize].front().map_or(Place::Any, |job| lane.place(job));
        let (budget, limit) = (lane.pace.rate(first_place) * PORTION.as_secs_f64(), lane.call_limit);
        let jobs = &mut lane.jobs[top as usize];
        let mut taken: Vec<(Job, usize)> = Vec::new();
        let (mut ops, mut len) = (0.0, 0);
        let mut work: Option<Work> = None;
        while let Some(job) = jobs.front() {
            let joins = match (&work, &job.work) {
                (None, _) => true,
                (Some(_), _) if job.alone || taken.iter().any(|(taken, _)| taken.alone || taken.place != job.place) => false,
                (Some(Work::V2(_)), Work::V2(_)) | (Some(Work::V1(_)), Work::V1(_)) => true,
                _ => false,
            };
            if !joins || (len > 0 && ops >= budget) || len >= limit {
                break;
            }
            let Some(job) = jobs.pop_front() else { break };
            let from = job.roots.len();
            let mut count = 0;
            while count < job.left() && len < limit && (len == 0 || ops < budget) {
                ops += match &job.work {
                    Work::V2(attempts) => attempts[from + count].shape.ops(),
                    Work::V1(attempts) => attempts[from + count].shape.ops(),
                } as f64;
                count += 1;
                len += 1;
            }
            match (&mut work, &job.work) {
                (Some(Work::V2(all)), Work::V2(attempts)) => all.extend_from_slice(&attempts[from..from + count]),
                (Some(Work::V1(all)), Work::V1(attempts)) => all.extend_from_slice(&attempts[from..from + count]),
                (_, Work::V2(attempts)) => work = Some(Work::V2(attempts[from..from + count].to_vec())),
                (_, Work::V1(attempts)) => work = Some(Work::V1(attempts[from..from + count].to_vec())),
            }
            taken.push((job, count));
        }
        lane.running = Some((Running::Urgent(taken), watched()));
        Task::Urgent { place: first_place, work: work.unwrap_or(Work::V2(Vec::new())) }
    }

    fn take_mining(&mut self, at: usize, step: impl Fn(&MiningJob) -> u32, slice: Duration, yields_to: Option<Priority>) -> Option<Task> {
        let (mining, lane) = (self.mining.as_mut()?, &mut self.lanes[at]);
        let step = step(&mining.job).clamp(1, SEARCH_LIMIT);
        lane.batch = lane.batch.max(step);
        let wanted = if yields_to.is_some() {
            let attempts = lane.pace.rate(Place::Any) * slice.as_secs_f64() / mining.job.shape.ops() as f64;
            (attempts as u32).clamp(step, lane.batch)
        } else {
            lane.batch
        };
        let (first, count) = mining.take(wanted)?;
        let (first_nonce, stop) = (Nonce::new(first)?, Stop::new());
        let MiningJob { prev_hash, miner, timestamp, shape, target, .. } = mining.job;
        let (generation, stamped) = (self.generation, mining.stamped);
        if let Some(told) = lane.replaced_at.take() {
            lane.replaced += 1;
            lane.replaced_worst = lane.replaced_worst.max(told.elapsed());
        }
        let running = Running::Mining { generation, first, count, stop: stop.clone(), stamped, stale: false, yields_to, asked_at: None };
        lane.running = Some((running, watched()));
        Some(Task::Mine { job: SearchJob { prev_hash, miner, timestamp, shape, first_nonce, count, target }, stop })
    }

    /// Gives nonces back that a search did not do, if their job still stands.
    pub(super) fn give_back(&mut self, generation: u64, first: u64, count: u32) {
        if let Some(mining) = self.mining.as_mut()
            && generation == self.generation
            && count > 0
        {
            mining.left.push((first, count));
        }
    }

    /// All jobs of a lane, queued and running, and its mining range goes back.
    pub(super) fn clear_lane(&mut self, at: usize) -> Vec<Job> {
        let mut jobs: Vec<Job> = self.lanes[at].jobs.iter_mut().flat_map(|jobs| jobs.drain(..)).collect();
        match self.lanes[at].running.take() {
            Some((Running::Urgent(running), _)) => jobs.extend(running.into_iter().map(|(job, _)| job)),
            Some((Running::Mining { generation, first, count, stop, .. }, _)) => {
                stop.stop();
                self.give_back(generation, first, count);
            }
            None => {}
        }
        jobs
    }

    /// No more work; every queued job comes back. What runs is finished by its lane.
    pub(super) fn close(&mut self) -> Vec<Job> {
        self.closed = true;
        self.replace_mining(None, Instant::now());
        self.lanes.iter_mut().flat_map(|lane| lane.jobs.iter_mut().flat_map(|jobs| jobs.drain(..)).collect::<Vec<_>>()).collect()
    }

    /// Lanes whose call has not come back for too long; to be asked every [`WATCH`]. Time for which nobody asked, because the process
    /// itself stood still, is no fault of a device.
    pub(super) fn hung(&mut self, now: Instant, can_hang: impl Fn(usize) -> bool) -> Vec<usize> {
        let mut hung = Vec::new();
        for (at, lane) in self.lanes.iter_mut().enumerate() {
            let late = lane.running.as_mut().is_some_and(|(_, waited)| waited.look(now) > HUNG_AFTER);
            if late && can_hang(at) && lane.benched.is_none() {
                lane.hung = true;
                hung.push(at);
            }
        }
        hung
    }

    /// The reports; the device is the caller's to fill in.
    pub(super) fn reports(&self) -> impl Iterator<Item = LaneReport> {
        let wall = self.started.elapsed();
        self.lanes.iter().map(move |lane| LaneReport {
            device: Device {
                kind: lane.kind,
                index: 0,
                name: String::new(),
                driver: String::new(),
                path: String::new(),
                code_digest: String::new(),
                memory_bytes: None,
                units: 0,
                compute_capability: None,
                pci_address: None,
                peak_int8_tops: None,
            },
            mines: lane.mines && lane.demoted.is_none(),
            benched: lane.benched.as_ref().or(lane.demoted.as_ref()).cloned(),
            hung: lane.hung,
            mined: lane.mined,
            mined_ops: lane.mined_ops,
            hits: lane.hits,
            checked: lane.checked,
            queued: lane.jobs.iter().map(VecDeque::len).sum(),
            batch: lane.batch,
            replaced: lane.replaced,
            replaced_worst: lane.replaced_worst,
            busy: lane.busy,
            wall,
        })
    }
}

impl Mining {
    /// At most `wanted` nonces that nobody else has; `None` when all 2^53 are used up.
    fn take(&mut self, wanted: u32) -> Option<(u64, u32)> {
        if let Some((first, count)) = self.left.pop() {
            let taken = count.min(wanted);
            if taken < count {
                self.left.push((first + u64::from(taken), count - taken));
            }
            return Some((first, taken));
        }
        let room = tops_protocol::types::INTEGER_LIMIT.saturating_sub(self.next);
        let count = wanted.min(u32::try_from(room).unwrap_or(u32::MAX));
        let first = self.next;
        self.next += u64::from(count);
        (count > 0).then_some((first, count))
    }
}

/// For the watchdog, from now on.
fn watched() -> Waited {
    Waited::new(Instant::now(), 2 * WATCH)
}

impl Lane {
    /// Where a job runs here.
    fn place(&self, job: &Job) -> Place {
        if self.demoted.is_some() { Place::Reference } else { job.place }
    }

    /// Seconds until this lane would have done a job that came now.
    fn finishes_in(&self, job: &Job) -> f64 {
        let secs = |job: &Job| job.ops_left() / self.pace.rate(self.place(job));
        let ahead: f64 = Priority::ALL.iter().filter(|&&p| p <= job.priority).flat_map(|&p| &self.jobs[p as usize]).map(secs).sum();
        let running = match &self.running {
            None => 0.0,
            Some((Running::Mining { .. }, _)) => self.pace.yields_in(),
            // A running job's later portions wait for what is more urgent than it.
            Some((Running::Urgent(jobs), _)) => jobs.iter().map(|(job, _)| secs(job)).sum::<f64>(),
        };
        running + self.pace.call() + ahead + secs(job)
    }

    /// Gives the device no more work; the CPU's lane goes on by the reference alone, since claims and hits must still be judged. Whether
    /// that changed anything.
    pub(super) fn take_out(&mut self, why: String) -> bool {
        let out = if self.kind == DeviceKind::Cpu { &mut self.demoted } else { &mut self.benched };
        let changed = out.is_none();
        out.get_or_insert(why);
        changed
    }

    /// Learns from a call of urgent work; one of the reference (no `ops`) says nothing of the device.
    pub(super) fn learn_urgent(&mut self, ops: Option<f64>, len: usize, elapsed: Duration) {
        self.urgent_since_mining += elapsed;
        self.busy += elapsed;
        self.checked += len as u64;
        if let Some(ops) = ops {
            self.pace.learn(ops, elapsed);
        }
    }

    /// Learns from a search: its rate, its batch, how soon it stops. One that did nothing has only kept the device from mining, as urgent
    /// work does: otherwise audits that interrupt each search at once would keep a slow device from mining for ever.
    pub(super) fn learn_mining(&mut self, report: &Learned, target: Duration, step: u32) {
        self.mined += u64::from(report.done);
        self.mined_ops += u128::from(report.done) * u128::from(report.ops_each);
        self.hits += report.hits as u64;
        self.busy += report.busy;
        if let Some(asked) = report.asked_at {
            self.pace.learn_yield(asked.elapsed());
        }
        if report.done == 0 {
            self.urgent_since_mining += report.elapsed;
            if report.stale {
                self.stamp_life = (2 * self.stamp_life).min(STAMP_LIFE_MOST);
            }
            return;
        }
        self.urgent_since_mining = Duration::ZERO;
        self.pace.learn(f64::from(report.done) * report.ops_each as f64, report.elapsed);
        if report.full && report.done == self.batch {
            // A batch grows at most fourfold a search, so that a first one that was lucky or cold does no harm.
            let per_sec = f64::from(report.done) / report.elapsed.as_secs_f64().max(1e-6);
            let ideal = per_sec * target.as_secs_f64();
            let off = ideal / f64::from(self.batch);
            if !(0.8..=1.25).contains(&off) {
                let next = (f64::from(self.batch) * off.clamp(0.25, 4.0) / f64::from(step)).round().max(1.0) * f64::from(step);
                self.batch = (next as u32).clamp(step, SEARCH_LIMIT);
            }
        }
    }
}

/// What a search taught.
pub(super) struct Learned {
    pub(super) done: u32,
    pub(super) ops_each: u64,
    pub(super) hits: usize,
    pub(super) busy: Duration,
    pub(super) elapsed: Duration,
    pub(super) asked_at: Option<Instant>,
    pub(super) stale: bool,
    pub(super) full: bool,
}

/// `Iterator::partition` into the two kinds of collection that the queue uses.
trait PartitionIn: Iterator<Item = Job> + Sized {
    fn partition_in(self, out: impl Fn(&Job) -> bool) -> (Vec<Job>, VecDeque<Job>) {
        let (mut gone, mut kept) = (Vec::new(), VecDeque::new());
        for job in self {
            if out(&job) { gone.push(job) } else { kept.push_back(job) }
        }
        (gone, kept)
    }
}

impl<I: Iterator<Item = Job>> PartitionIn for I {}

/// The hits of a search as attempts.
pub(super) fn found(job: &MiningJob, lane: usize, hits: &[(Nonce, Root)]) -> Vec<Found> {
    hits.iter().map(|&(nonce, root)| Found { attempt: Attempt { nonce, ..job.attempt(nonce) }, root, lane }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::CpuBackend;
    use std::sync::Arc;
    use tops_protocol::{Millis, PublicKey, Shape, U256};

    const STEP: u32 = 8;
    const SECOND: Duration = Duration::from_secs(1);

    fn state() -> State {
        let backend = Arc::new(CpuBackend::new(Some(1)).unwrap());
        State::new(&[LaneSpec { backend, mines: true, batch: Some(100), rate: None }])
    }

    fn job(stamp: u64) -> MiningJob {
        MiningJob {
            prev_hash: Root([3; 32]),
            miner: PublicKey([2; 33]),
            timestamp: Millis(stamp),
            shape: Shape::DEVNET,
            target: U256::MAX,
            first_nonce: Nonce::new(1000 * stamp).unwrap(),
        }
    }

    /// Begins a search.
    fn search(state: &mut State) -> (SearchJob, Stop) {
        match state.next_task(0, |_| STEP, SECOND, &mut Vec::new()) {
            Some(Task::Mine { job, stop }) => (job, stop),
            _ => panic!("there is nothing to mine"),
        }
    }

    /// Ends it, as the lane's thread does.
    fn end(state: &mut State, done: u32) {
        let Some((Running::Mining { generation, first, count, stale, .. }, _)) = state.lanes[0].running.take() else { panic!("no search") };
        state.give_back(generation, first + u64::from(done), count - done);
        let (busy, elapsed) = (SECOND, SECOND);
        let learned = Learned { done, ops_each: 1, hits: 0, busy, elapsed, asked_at: None, stale, full: false };
        state.lanes[0].learn_mining(&learned, SECOND, STEP);
    }

    #[test]
    fn a_newer_stamp_interrupts_only_what_has_an_old_one() {
        let (mut state, t) = (state(), Instant::now());
        state.replace_mining(Some(job(1)), t);
        let (first, stop) = search(&mut state);
        state.replace_mining(Some(job(2)), t + SECOND);
        state.replace_mining(Some(job(3)), t + 3 * SECOND);
        assert!(!stop.is_set());
        // What the search left undone belongs to its own stamp: the next one begins the new stamp's range.
        end(&mut state, 60);
        let (second, stop) = search(&mut state);
        assert_eq!((first.timestamp, first.first_nonce.get()), (Millis(1), 1000));
        assert_eq!((second.timestamp, second.first_nonce.get()), (Millis(3), 3000));
        // Its stamp is of second 3.
        state.replace_mining(Some(job(4)), t + 6 * SECOND);
        assert!(!stop.is_set());
        state.replace_mining(Some(job(5)), t + 3 * SECOND + STAMP_LIFE);
        assert!(stop.is_set());
        // Whatever else differs interrupts at once, and so do an older stamp and a rest.
        for other in [
            Some(MiningJob { prev_hash: Root([4; 32]), timestamp: Millis(9), ..job(1) }),
            Some(MiningJob { target: U256::ZERO, timestamp: Millis(9), ..job(1) }),
            Some(job(1)),
            None,
        ] {
            end(&mut state, 10);
            state.replace_mining(Some(job(8)), t + 8 * SECOND);
            let (_, stop) = search(&mut state);
            state.replace_mining(other, t + 8 * SECOND);
            assert!(stop.is_set(), "{other:?}");
        }
    }

    #[test]
    fn a_stopped_range_is_done_by_the_next_search_of_the_same_stamp() {
        let mut state = state();
        state.replace_mining(Some(job(1)), Instant::now());
        let (first, _) = search(&mut state);
        end(&mut state, 30);
        let (second, _) = search(&mut state);
        assert_eq!((second.first_nonce.get(), second.count), (first.first_nonce.get() + 30, first.count - 30));
    }

    #[test]
    fn a_device_that_does_nothing_before_its_stamp_is_old_gets_more_time() {
        let (mut state, mut t) = (state(), Instant::now());
        for life in [STAMP_LIFE, 2 * STAMP_LIFE, 4 * STAMP_LIFE, 8 * STAMP_LIFE, STAMP_LIFE_MOST, STAMP_LIFE_MOST] {
            state.replace_mining(Some(job(1)), t);
            let (_, stop) = search(&mut state);
            state.replace_mining(Some(job(2)), t + life - SECOND);
            assert!(!stop.is_set(), "{life:?}");
            state.replace_mining(Some(job(3)), t + life);
            assert!(stop.is_set(), "{life:?}");
            t += life;
            end(&mut state, 0);
        }
    }

    #[test]
    fn a_search_that_did_nothing_does_not_count_as_mining() {
        let mut state = state();
        state.replace_mining(Some(job(1)), Instant::now());
        state.lanes[0].learn_urgent(None, 1, SECOND);
        search(&mut state);
        end(&mut state, 0);
        assert_eq!(state.lanes[0].urgent_since_mining, 2 * SECOND);
        search(&mut state);
        end(&mut state, 1);
        assert_eq!(state.lanes[0].urgent_since_mining, Duration::ZERO);
    }

    #[test]
    fn a_pause_of_the_process_hangs_no_device_and_a_stuck_call_does() {
        let (mut state, t) = (state(), Instant::now());
        state.replace_mining(Some(job(1)), t);
        search(&mut state);
        assert!(state.hung(t + 3600 * SECOND, |_| true).is_empty());
        // The pause counted for two looks; from then on the call itself is what is waited for.
        let first = (1..200).find(|i| !state.hung(t + 3600 * SECOND + *i * WATCH, |_| true).is_empty());
        assert_eq!(first.map(|looks| (looks + 2) * WATCH), Some(HUNG_AFTER + WATCH));
        assert!(state.lanes[0].hung);
    }
}
