//! The queue with real devices: order, bounds, interruption, a device that fails on purpose.
#![allow(clippy::unwrap_used)]
#![allow(clippy::disallowed_methods)] // a test counts what it sends

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread::sleep;
use std::time::{Duration, Instant};

use tops_compute::backend::{Backend, Device, DeviceFault, DeviceKind, ROOTS_LIMIT, SearchJob, SearchReport, Stop};
use tops_compute::cpu::CpuBackend;
use tops_compute::queue::{Audit, Found, JobFault, LaneSpec, MiningJob, MiningReport, Place, Priority, Queue, QueueOptions, SubmitFault};
use tops_protocol::work::v1::{self, AttemptV1, ShapeV1, Variant};
use tops_protocol::work::{self, Weights};
use tops_protocol::{Attempt, Millis, Nonce, PublicKey, Root, Shape, U256};

/// How long tests wait for what must come: far longer than it takes on a machine that does other things too.
const PATIENCE: Duration = Duration::from_secs(30);
/// An attempt at which a device that is told so panics.
const POISON: u64 = 1 << 40;

/// A CPU that can be told to fail: what a test needs of a broken device, around real answers.
struct Failing {
    inner: CpuBackend,
    device: Device,
    lost: AtomicBool,
    lies: AtomicBool,
    panics: AtomicBool,
    /// Whether it loses a root in every call but the first.
    loses: AtomicBool,
    calls: AtomicU32,
    memory: AtomicU32,
    /// How long a launch takes, which is one step; one that is stopped on the way counts for nothing.
    launch: Option<Duration>,
}

impl Failing {
    fn new() -> Arc<Self> {
        Self::of(DeviceKind::OpenCl, None)
    }

    fn of(kind: DeviceKind, launch: Option<Duration>) -> Arc<Self> {
        let inner = CpuBackend::new(Some(1)).unwrap();
        let device = Device { kind, ..inner.device().clone() };
        let [lost, lies, panics, loses] = [false; 4].map(AtomicBool::new);
        let [calls, memory] = [0, u32::MAX].map(AtomicU32::new);
        Arc::new(Self { inner, device, lost, lies, panics, loses, calls, memory, launch })
    }

    fn launches(&self, job: &SearchJob, stop: &Stop, launch: Duration) -> Result<SearchReport, DeviceFault> {
        let mut all = SearchReport { hits: Vec::new(), attempts_done: 0, busy: Duration::ZERO };
        while all.attempts_done < job.count {
            let began = Instant::now();
            while began.elapsed() < launch {
                if stop.is_set() {
                    return Ok(all);
                }
                sleep(Duration::from_millis(1));
            }
            let first_nonce = Nonce::new(job.first_nonce.get() + u64::from(all.attempts_done)).unwrap();
            let count = self.batch_step(job.shape).min(job.count - all.attempts_done);
            let report = self.inner.search(&SearchJob { first_nonce, count, ..*job }, &Stop::new())?;
            all.hits.extend(report.hits);
            all.attempts_done += report.attempts_done;
            all.busy += began.elapsed();
        }
        Ok(all)
    }

    fn check(&self, len: u32) -> Result<(), DeviceFault> {
        if self.lost.load(Ordering::Relaxed) {
            return Err(DeviceFault::Lost { detail: "pulled out".into() });
        }
        if len > self.memory.load(Ordering::Relaxed) {
            return Err(DeviceFault::OutOfMemory { detail: format!("{len} attempts") });
        }
        Ok(())
    }
}

impl Backend for Failing {
    fn device(&self) -> &Device {
        &self.device
    }
    fn batch_step(&self, shape: Shape) -> u32 {
        self.inner.batch_step(shape)
    }
    fn search(&self, job: &SearchJob, stop: &Stop) -> Result<SearchReport, DeviceFault> {
        self.check(job.count)?;
        let mut report = match self.launch {
            Some(launch) => self.launches(job, stop, launch)?,
            None => self.inner.search(job, stop)?,
        };
        if self.lies.load(Ordering::Relaxed) {
            report.hits.iter_mut().for_each(|(_, root)| root.0[31] ^= 1);
        }
        Ok(report)
    }
    fn roots(&self, attempts: &[Attempt]) -> Result<Vec<Root>, DeviceFault> {
        self.check(attempts.len() as u32)?;
        let poisoned = attempts.iter().any(|attempt| attempt.nonce.get() == POISON);
        assert!(!(poisoned && self.panics.load(Ordering::Relaxed)), "poisoned on purpose");
        let mut roots = self.inner.roots(attempts)?;
        if self.lies.load(Ordering::Relaxed) {
            roots.iter_mut().for_each(|root| root.0[31] ^= 1);
        }
        if self.calls.fetch_add(1, Ordering::Relaxed) > 0 && self.loses.load(Ordering::Relaxed) {
            roots.pop();
        }
        Ok(roots)
    }
    fn v1_roots(&self, _: &[AttemptV1]) -> Result<Vec<Root>, DeviceFault> {
        Err(DeviceFault::Unsupported { what: "v1".into() })
    }
}

fn lane(backend: Arc<dyn Backend>, mines: bool) -> LaneSpec {
    LaneSpec { backend, mines, batch: None, rate: None }
}

fn cpu(mines: bool) -> LaneSpec {
    lane(Arc::new(CpuBackend::new(Some(1)).unwrap()), mines)
}

fn job(first_nonce: u64) -> MiningJob {
    MiningJob {
        prev_hash: Root([3; 32]),
        miner: PublicKey([2; 33]),
        timestamp: Millis(77),
        shape: Shape::DEVNET,
        target: U256::MAX >> 4,
        first_nonce: Nonce::new(first_nonce).unwrap(),
    }
}

fn attempts(from: u64, len: u64) -> Vec<Attempt> {
    (from..from + len).map(|nonce| job(0).attempt(Nonce::new(nonce).unwrap())).collect()
}

fn start(lanes: Vec<LaneSpec>) -> (Queue, Receiver<MiningReport>) {
    start_with(lanes, QueueOptions { target: Duration::from_millis(30), bundle_dir: None })
}

fn start_with(lanes: Vec<LaneSpec>, options: QueueOptions) -> (Queue, Receiver<MiningReport>) {
    let (send, receive) = channel();
    let send = Mutex::new(send);
    let queue = Queue::start(lanes, options, move |report| {
        let _ = send.lock().unwrap().send(report);
    });
    (queue.unwrap(), receive)
}

fn reference(attempts: &[Attempt]) -> Vec<Root> {
    let weights = Weights::new(Shape::DEVNET);
    attempts.iter().map(|attempt| work::root(attempt, &weights)).collect()
}

#[test]
fn roots_come_back_in_order_from_every_place() {
    let (queue, _) = start(vec![cpu(false)]);
    let attempts = attempts(9, 21);
    let expected = reference(&attempts);
    for place in [Place::Any, Place::Cpu, Place::Reference] {
        assert_eq!(queue.roots(attempts.clone().into(), Priority::Audit, place).unwrap(), expected);
    }
    let shape = ShapeV1::new(64, 64, 64).unwrap();
    let old = AttemptV1 { prev_hash: Root([1; 32]), nonce: 5, shape, variant: Variant::Mixed };
    let expected = v1::root(&old.prev_hash, 5, shape, Variant::Mixed);
    assert_eq!(queue.roots(vec![old].into(), Priority::Audit, Place::Any).unwrap(), [expected]);
}

#[test]
fn mining_on_two_devices_covers_every_nonce_once() {
    let (queue, reports) = start(vec![cpu(true), cpu(true)]);
    queue.mine(job(1000));
    let mut ranges = Vec::new();
    for _ in 0..12 {
        let report = reports.recv().unwrap();
        ranges.push((report.job.first_nonce.get(), u64::from(report.attempts)));
        // Interruptions must lose no nonce either.
        queue.roots(attempts(0, 1).into(), Priority::Head, Place::Any).unwrap();
    }
    queue.rest();
    drop(queue);
    ranges.extend(reports.iter().map(|report| (report.job.first_nonce.get(), u64::from(report.attempts))));
    ranges.retain(|(_, len)| *len > 0);
    ranges.sort_unstable();
    assert_eq!(ranges[0].0, 1000);
    // Only what was running at the end may be missing: one range a device.
    let gaps = ranges.windows(2).filter(|pair| pair[0].0 + pair[0].1 != pair[1].0).count();
    assert!(ranges.windows(2).all(|pair| pair[0].0 + pair[0].1 <= pair[1].0), "{ranges:?}");
    assert!(gaps <= 2, "{ranges:?}");
}

#[test]
fn hits_are_hits_and_are_confirmed() {
    let (queue, reports) = start(vec![cpu(true)]);
    queue.mine(job(0));
    let found = loop {
        if let Some(found) = reports.recv().unwrap().hits.first() {
            break *found;
        }
    };
    assert!(found.root.ticket() <= job(0).target);
    assert_eq!(reference(&[found.attempt]), [found.root]);
    let (send, receive) = channel();
    queue.confirm(found, move |answer| send.send(answer).unwrap()).unwrap();
    assert_eq!(receive.recv().unwrap(), Ok(()));
}

#[test]
fn the_best_hits_of_a_report_are_kept() {
    let (queue, reports) = start(vec![cpu(true)]);
    queue.mine(MiningJob { target: U256::MAX, ..job(0) });
    let mut report = loop {
        let report = reports.recv().unwrap();
        if report.hits.len() > 6 {
            break report;
        }
    };
    let mut roots: Vec<Root> = report.hits.iter().map(|found| found.root).collect();
    roots.sort_unstable_by_key(|root| root.ticket());
    let gone = report.keep_best(5);
    assert_eq!(gone, roots.len() - 5);
    assert_eq!(report.hits.iter().map(|found| found.root).collect::<Vec<_>>(), roots[..5]);
    assert_eq!((report.keep_best(5), report.keep_best(0), report.hits.len()), (0, 5, 0));
}

#[test]
fn a_new_job_replaces_the_old_one_and_late_reports_name_the_old() {
    let (queue, reports) = start(vec![cpu(true)]);
    queue.mine(job(0));
    reports.recv().unwrap();
    let new = MiningJob { prev_hash: Root([9; 32]), ..job(0) };
    queue.mine(new);
    let first_new = loop {
        let report = reports.recv().unwrap();
        assert!(report.hits.iter().all(|found| found.attempt.prev_hash == report.job.prev_hash));
        if report.job.prev_hash == new.prev_hash {
            break report;
        }
    };
    assert_eq!(first_new.job.first_nonce.get(), 0);
    // A job that comes between two searches replaces nothing, so one of several must meet a search that runs.
    let counted = (0..50).any(|i| {
        queue.mine(job(i * 1_000_000));
        reports.recv().unwrap();
        queue.reports().iter().any(|lane| lane.replaced > 0 && !lane.replaced_worst.is_zero())
    });
    assert!(counted, "replacing a running job is counted and timed");
}

#[test]
fn urgent_work_goes_first_and_mining_goes_on() {
    let (queue, reports) = start(vec![cpu(true)]);
    queue.mine(job(0));
    reports.recv().unwrap();
    let (send, order) = channel();
    let note = |name: &'static str| {
        let send = send.clone();
        move |_: Result<Vec<Root>, JobFault>| send.send(name).unwrap()
    };
    // Enough for some seconds of the reference on any number of cores.
    let many = (2000 * std::thread::available_parallelism().unwrap().get() as u64).min(ROOTS_LIMIT as u64);
    queue.submit(attempts(0, many).into(), Priority::Audit, Place::Reference, note("big audit")).unwrap();
    queue.submit(attempts(0, 8).into(), Priority::Audit, Place::Any, note("audit")).unwrap();
    queue.submit(attempts(0, 8).into(), Priority::OwnWin, Place::Any, note("win")).unwrap();
    assert_eq!(order.recv().unwrap(), "win");
    // A big job is done in portions, so that a small one of the same priority does not wait for all of it.
    assert_eq!(order.recv().unwrap(), "audit");
    let before = queue.reports()[0].mined;
    assert_eq!(order.recv().unwrap(), "big audit");
    // The big audit takes longer than a miner's patience, so something was mined in the middle of it.
    assert!(queue.reports()[0].mined > before);
}

#[test]
fn a_lost_device_is_benched_and_its_work_goes_to_the_others() {
    let failing = Failing::new();
    let (queue, reports) = start(vec![lane(failing.clone(), true), cpu(true)]);
    queue.mine(job(0));
    reports.recv().unwrap();
    failing.lost.store(true, Ordering::Relaxed);
    let work = attempts(0, 50);
    let expected = reference(&work);
    for _ in 0..20 {
        assert_eq!(queue.roots(work.clone().into(), Priority::Audit, Place::Any).unwrap(), expected);
    }
    let began = Instant::now();
    while queue.reports()[0].benched.is_none() {
        assert!(began.elapsed() < Duration::from_secs(20), "the lost device was never benched");
        sleep(Duration::from_millis(5));
    }
    assert!(queue.reports()[0].benched.as_ref().unwrap().contains("pulled out"));
    assert!(queue.reports()[1].benched.is_none());
    let mined = queue.reports()[1].mined;
    while queue.reports()[1].mined == mined {
        reports.recv().unwrap();
    }
}

#[test]
fn out_of_memory_makes_batches_smaller_and_benches_nobody() {
    let failing = Failing::new();
    failing.memory.store(16, Ordering::Relaxed);
    let (queue, reports) = start(vec![LaneSpec { batch: Some(1024), ..lane(failing, true) }]);
    let work = attempts(0, 50);
    assert_eq!(queue.roots(work.clone().into(), Priority::Audit, Place::Any).unwrap(), reference(&work));
    queue.mine(job(0));
    assert!(reports.recv().unwrap().batch <= 16);
    assert_eq!(queue.reports()[0].benched, None);
}

#[test]
fn unsupported_work_goes_elsewhere_or_says_so() {
    let shape = ShapeV1::new(16, 16, 16).unwrap();
    let old = vec![AttemptV1 { prev_hash: Root([1; 32]), nonce: 5, shape, variant: Variant::Plain }; 3];
    let (queue, _) = start(vec![lane(Failing::new(), false), cpu(false)]);
    let expected = v1::root(&Root([1; 32]), 5, shape, Variant::Plain);
    assert_eq!(queue.roots(old.clone().into(), Priority::Audit, Place::Any).unwrap(), [expected; 3]);
    let (queue, _) = start(vec![lane(Failing::new(), false)]);
    assert!(matches!(queue.roots(old.into(), Priority::Audit, Place::Any), Err(JobFault::NoDevice { .. })));
    assert!(matches!(queue.roots(attempts(0, 1).into(), Priority::Audit, Place::Cpu), Err(JobFault::NoDevice { .. })));
}

#[test]
fn a_lying_device_is_benched_and_a_bundle_tells_how_to_repeat_it() {
    let dir = tempfile::tempdir().unwrap();
    let failing = Failing::new();
    failing.lies.store(true, Ordering::Relaxed);
    let options = QueueOptions { target: Duration::from_millis(30), bundle_dir: Some(dir.path().to_path_buf()) };
    let lanes = vec![lane(failing, true), cpu(false)];
    let (queue, reports) = start_with(lanes, options);
    queue.mine(job(0));
    let found: Found = loop {
        if let Some(found) = reports.recv().unwrap().hits.first() {
            break *found;
        }
    };
    let (send, receive) = channel();
    queue.confirm(found, move |answer| send.send(answer).unwrap()).unwrap();
    let Err(JobFault::Mismatch { bundle: Some(bundle) }) = receive.recv().unwrap() else { panic!("the lie was confirmed") };
    let text = std::fs::read_to_string(bundle).unwrap();
    assert!(text.contains(&found.root.to_hex()) && text.contains("tops-node attempt --work v2"), "{text}");
    assert!(text.contains("--backend opencl --devices 0"), "{text}");
    assert!(queue.reports()[0].benched.as_ref().unwrap().contains("wrong answer"));
    assert!(queue.reports()[1].benched.is_none());
}

fn audited(queue: &Queue, attempt: Attempt, claimed: Root) -> Audit {
    let (send, receive) = channel();
    queue.audit(attempt, claimed, Priority::Audit, move |answer| send.send(answer).unwrap()).unwrap();
    receive.recv().unwrap().unwrap()
}

#[test]
fn an_audit_is_judged_by_the_reference_when_roots_differ() {
    let attempt = attempts(4, 1)[0];
    let truth = reference(&[attempt])[0];
    let ask = |queue: &Queue, claimed| audited(queue, attempt, claimed);
    let (queue, _) = start(vec![cpu(false)]);
    assert_eq!(ask(&queue, truth), Audit::Holds);
    assert_eq!(ask(&queue, Root([1; 32])), Audit::False(truth));
    assert!(queue.reports()[0].benched.is_none());
    // A device that lies in an audit harms nobody but itself.
    let failing = Failing::new();
    failing.lies.store(true, Ordering::Relaxed);
    let (queue, _) = start(vec![lane(failing, false), cpu(false)]);
    assert_eq!(ask(&queue, truth), Audit::Holds);
}

#[test]
fn a_right_hit_is_confirmed_against_a_lying_cpu_and_the_reference_takes_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let options = QueueOptions { target: Duration::from_millis(30), bundle_dir: Some(dir.path().to_path_buf()) };
    let liar = Failing::of(DeviceKind::Cpu, None);
    liar.lies.store(true, Ordering::Relaxed);
    let (queue, reports) = start_with(vec![lane(Failing::new(), true), lane(liar, true)], options);
    queue.mine(job(0));
    let found = loop {
        // The liar's hits are none.
        if let Some(found) = reports.recv().unwrap().hits.iter().find(|found| found.lane == 0) {
            break *found;
        }
    };
    let confirmed = || {
        let (send, receive) = channel();
        queue.confirm(found, move |answer| send.send(answer).unwrap()).unwrap();
        receive.recv().unwrap()
    };
    assert_eq!(confirmed(), Ok(()));
    let [gpu, cpu] = queue.reports().try_into().unwrap();
    assert!(gpu.mines && gpu.benched.is_none());
    assert!(!cpu.mines && cpu.benched.as_ref().unwrap().contains("only the reference"), "{:?}", cpu.benched);
    let bundles: Vec<_> = std::fs::read_dir(dir.path()).unwrap().collect();
    assert_eq!(bundles.len(), 1);
    let text = std::fs::read_to_string(bundles[0].as_ref().unwrap().path()).unwrap();
    assert!(text.contains("--backend cpu --devices 0") && text.contains(&found.root.to_hex()), "{text}");
    // Whatever the CPU is asked for is still answered, and right.
    assert_eq!(confirmed(), Ok(()));
    let work = attempts(0, 9);
    assert_eq!(queue.roots(work.clone().into(), Priority::Audit, Place::Cpu).unwrap(), reference(&work));
    assert_eq!(audited(&queue, work[0], Root([1; 32])), Audit::False(reference(&work)[0]));
    assert!(queue.reports()[0].benched.is_none());
}

#[test]
fn what_a_liar_did_of_a_job_is_done_again() {
    let liar = Failing::new();
    liar.lies.store(true, Ordering::Relaxed);
    liar.loses.store(true, Ordering::Relaxed);
    // Taken for slow, so that the job is done in portions, and the CPU for slower, so that it is not asked first.
    let lanes = vec![LaneSpec { rate: Some(1e9), ..lane(liar, false) }, LaneSpec { rate: Some(1e6), ..cpu(false) }];
    let (queue, _) = start(lanes);
    let work = attempts(0, 200);
    assert_eq!(queue.roots(work.clone().into(), Priority::Audit, Place::Any).unwrap(), reference(&work));
    let [gpu, cpu] = queue.reports().try_into().unwrap();
    assert!(gpu.checked > 0 && gpu.benched.unwrap().contains("wrong answer"));
    assert_eq!(cpu.checked, 200);
}

#[test]
fn a_cancelled_audit_is_cancelled_in_its_second_look_too() {
    let (queue, _) = start(vec![lane(Failing::new(), false), cpu(false)]);
    // Heads that take long are before it on the CPU, so that its first look is the GPU's and its second one waits.
    let heads = queue.submit(attempts(0, 20_000).into(), Priority::Head, Place::Reference, |_| {}).unwrap();
    let (send, receive) = channel();
    let claimed = Root([1; 32]);
    let audit = queue.audit(attempts(4, 1)[0], claimed, Priority::Audit, move |answer| send.send(answer).unwrap()).unwrap();
    let began = Instant::now();
    while queue.reports()[0].checked == 0 || queue.reports()[1].queued == 0 {
        assert!(began.elapsed() < PATIENCE, "the second look never came");
        sleep(Duration::from_millis(1));
    }
    audit.cancel();
    assert_eq!(receive.recv().unwrap(), Err(JobFault::Cancelled));
    heads.cancel();
}

#[test]
fn a_small_audit_goes_to_the_cpu_when_that_is_sooner() {
    let gpu = LaneSpec { rate: Some(1e12), ..lane(Failing::new(), false) };
    let (queue, _) = start(vec![gpu, LaneSpec { rate: Some(1e11), ..cpu(false) }]);
    queue.roots(attempts(0, 1).into(), Priority::Audit, Place::Any).unwrap();
    assert_eq!(queue.reports()[1].checked, 1);
    queue.roots(attempts(0, 1000).into(), Priority::Audit, Place::Any).unwrap();
    assert_eq!(queue.reports()[0].checked, 1000);
}

#[test]
fn newer_stamps_let_a_slow_device_mine() {
    // Stamps come far more often than a launch ends.
    let slow = Failing::of(DeviceKind::OpenCl, Some(Duration::from_millis(60)));
    let (queue, reports) = start(vec![lane(slow, true)]);
    let (began, mut stamp, mut done) = (Instant::now(), 0, Vec::new());
    while done.len() < 4 {
        assert!(began.elapsed() < PATIENCE, "a slow device never mines");
        stamp += 1;
        queue.mine(MiningJob { timestamp: Millis(stamp), target: U256::MAX, ..job(stamp * 1_000_000) });
        sleep(Duration::from_millis(5));
        done.extend(reports.try_iter().filter(|report| report.attempts > 0));
    }
    assert_eq!(queue.reports()[0].replaced, 0);
    let mut seen = std::collections::BTreeSet::new();
    for report in &done {
        // Every hit has the stamp, and a nonce of the range, that its search was begun with.
        assert_eq!(report.hits.len(), report.attempts as usize);
        for found in &report.hits {
            assert_eq!((found.attempt.timestamp, found.attempt.nonce.get() / 1_000_000), (report.job.timestamp, report.job.timestamp.0));
            assert!(seen.insert((found.attempt.timestamp, found.attempt.nonce)), "an attempt was done twice");
        }
        assert_eq!(reference(&[report.hits[0].attempt]), [report.hits[0].root]);
    }
    assert!(done.iter().any(|report| report.job.timestamp != done[0].job.timestamp));
    // Another head still interrupts at once: what is reported for it was not waited for by what ran.
    queue.mine(MiningJob { prev_hash: Root([9; 32]), ..job(0) });
    while reports.recv_timeout(PATIENCE).unwrap().job.prev_hash != Root([9; 32]) {}
}

#[test]
fn audits_do_not_keep_a_slow_device_from_mining() {
    let slow = Failing::of(DeviceKind::OpenCl, Some(Duration::from_millis(60)));
    let (queue, _reports) = start(vec![lane(slow, true)]);
    queue.mine(job(0));
    let began = Instant::now();
    while queue.reports()[0].mined == 0 {
        assert!(began.elapsed() < PATIENCE, "audits starve mining");
        // Each interrupts the search that has begun meanwhile, long before its first launch ends.
        queue.roots(attempts(0, 1).into(), Priority::Audit, Place::Any).unwrap();
        sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_job_that_makes_devices_panic_costs_two_of_them_at_most() {
    let gpus: Vec<_> = (0..3).map(|_| Failing::new()).collect();
    gpus.iter().for_each(|gpu| gpu.panics.store(true, Ordering::Relaxed));
    let (queue, _) = start(gpus.iter().map(|gpu| lane(gpu.clone(), false)).chain([cpu(false)]).collect());
    // A batch is faster on a GPU by far, so the CPU is not asked for it.
    let poisoned = attempts(POISON - 2000, 4000);
    let answer = queue.roots(poisoned.into(), Priority::Audit, Place::Any);
    assert!(matches!(&answer, Err(JobFault::NoDevice { detail }) if detail.contains("poisoned on purpose")), "{answer:?}");
    assert_eq!(queue.reports().iter().filter(|lane| lane.benched.is_some()).count(), 2);
    let work = attempts(0, 5);
    assert_eq!(queue.roots(work.clone().into(), Priority::Audit, Place::Any).unwrap(), reference(&work));
}

#[test]
fn where_the_cpu_panics_the_reference_goes_on() {
    let panicking = Failing::of(DeviceKind::Cpu, None);
    panicking.panics.store(true, Ordering::Relaxed);
    let (queue, _) = start(vec![lane(panicking, false)]);
    let work = attempts(POISON, 1);
    assert_eq!(queue.roots(work.clone().into(), Priority::OwnWin, Place::Cpu).unwrap(), reference(&work));
    assert!(queue.reports()[0].benched.as_ref().unwrap().contains("poisoned on purpose"));
}

#[test]
fn the_queue_is_bounded_and_cancelled_jobs_are_told() {
    let (queue, _) = start(vec![cpu(false)]);
    let (send, receive) = channel();
    let mut handles = Vec::new();
    let refused = loop {
        let send = send.clone();
        match queue.submit(attempts(0, 400).into(), Priority::Alert, Place::Reference, move |answer| send.send(answer).unwrap()) {
            Ok(handle) => handles.push(handle),
            Err(fault) => break fault,
        }
        assert!(handles.len() <= Priority::Alert.limit());
    };
    assert_eq!(refused, SubmitFault::Full { priority: Priority::Alert, limit: Priority::Alert.limit() });
    handles.iter().for_each(|handle| handle.cancel());
    for _ in &handles {
        assert_eq!(receive.recv().unwrap(), Err(JobFault::Cancelled));
    }
    assert!(matches!(
        queue.roots(Vec::<Attempt>::new().into(), Priority::Audit, Place::Any),
        Err(JobFault::Refused(SubmitFault::Length { len: 0 }))
    ));
}

#[test]
fn dropping_the_queue_tells_everybody() {
    let (queue, _) = start(vec![cpu(true)]);
    queue.mine(job(0));
    let (send, receive) = channel();
    for _ in 0..5 {
        let send = send.clone();
        queue.submit(attempts(0, 2000).into(), Priority::Audit, Place::Reference, move |answer| send.send(answer).unwrap()).unwrap();
    }
    drop(queue);
    drop(send);
    let answers: Vec<_> = receive.iter().collect();
    assert_eq!(answers.len(), 5);
    assert!(answers.iter().all(|answer| matches!(answer, Ok(_) | Err(JobFault::Closed))));
}
