//! The queue with real devices: order, bounds, interruption, a device that fails on purpose.
#![allow(clippy::unwrap_used)]

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tops_compute::backend::{Backend, Device, DeviceFault, SearchJob, SearchReport, Stop};
use tops_compute::cpu::CpuBackend;
use tops_compute::queue::{Audit, Found, JobFault, LaneSpec, MiningJob, MiningReport, Place, Priority, Queue, QueueOptions, SubmitFault};
use tops_protocol::work::v1::{self, AttemptV1, ShapeV1, Variant};
use tops_protocol::work::{self, Weights};
use tops_protocol::{Attempt, Millis, Nonce, PublicKey, Root, Shape, U256};

/// A CPU that can be told to fail: what a test needs of a broken card, around real answers.
struct Failing {
    inner: CpuBackend,
    device: Device,
    lost: AtomicBool,
    lies: AtomicBool,
    memory: AtomicU32,
}

impl Failing {
    fn new() -> Arc<Self> {
        let inner = CpuBackend::new(Some(1)).unwrap();
        let device = Device { kind: tops_compute::backend::DeviceKind::OpenCl, ..inner.device().clone() };
        Arc::new(Self { inner, device, lost: AtomicBool::new(false), lies: AtomicBool::new(false), memory: AtomicU32::new(u32::MAX) })
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
        let mut report = self.inner.search(job, stop)?;
        if self.lies.load(Ordering::Relaxed) {
            report.hits.iter_mut().for_each(|(_, root)| root.0[31] ^= 1);
        }
        Ok(report)
    }
    fn roots(&self, attempts: &[Attempt]) -> Result<Vec<Root>, DeviceFault> {
        self.check(attempts.len() as u32)?;
        let mut roots = self.inner.roots(attempts)?;
        if self.lies.load(Ordering::Relaxed) {
            roots.iter_mut().for_each(|root| root.0[31] ^= 1);
        }
        Ok(roots)
    }
    fn v1_roots(&self, _: &[AttemptV1]) -> Result<Vec<Root>, DeviceFault> {
        Err(DeviceFault::Unsupported { what: "v1".into() })
    }
}

fn cpu(mines: bool) -> LaneSpec {
    LaneSpec { backend: Arc::new(CpuBackend::new(Some(1)).unwrap()), mines, batch: None }
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
    queue.submit(attempts(0, 4000).into(), Priority::Audit, Place::Reference, note("big audit")).unwrap();
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
    let (queue, reports) = start(vec![LaneSpec { backend: failing.clone(), mines: true, batch: None }, cpu(true)]);
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
        std::thread::sleep(Duration::from_millis(5));
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
    let (queue, reports) = start(vec![LaneSpec { backend: failing, mines: true, batch: Some(1024) }]);
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
    let (queue, _) = start(vec![LaneSpec { backend: Failing::new(), mines: false, batch: None }, cpu(false)]);
    let expected = v1::root(&Root([1; 32]), 5, shape, Variant::Plain);
    assert_eq!(queue.roots(old.clone().into(), Priority::Audit, Place::Any).unwrap(), [expected; 3]);
    let (queue, _) = start(vec![LaneSpec { backend: Failing::new(), mines: false, batch: None }]);
    assert!(matches!(queue.roots(old.into(), Priority::Audit, Place::Any), Err(JobFault::NoDevice { .. })));
    assert!(matches!(queue.roots(attempts(0, 1).into(), Priority::Audit, Place::Cpu), Err(JobFault::NoDevice { .. })));
}

#[test]
fn a_lying_device_is_benched_and_a_bundle_tells_how_to_repeat_it() {
    let dir = tempfile::tempdir().unwrap();
    let failing = Failing::new();
    failing.lies.store(true, Ordering::Relaxed);
    let options = QueueOptions { target: Duration::from_millis(30), bundle_dir: Some(dir.path().to_path_buf()) };
    let lanes = vec![LaneSpec { backend: failing, mines: true, batch: None }, cpu(false)];
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
    assert!(queue.reports()[0].benched.as_ref().unwrap().contains("wrong answer"));
    assert!(queue.reports()[1].benched.is_none());
}

#[test]
fn an_audit_is_judged_by_the_reference_when_roots_differ() {
    let attempt = attempts(4, 1)[0];
    let truth = reference(&[attempt])[0];
    let ask = |queue: &Queue, claimed| {
        let (send, receive) = channel();
        queue.audit(attempt, claimed, Priority::Audit, move |answer| send.send(answer).unwrap()).unwrap();
        receive.recv().unwrap().unwrap()
    };
    let (queue, _) = start(vec![cpu(false)]);
    assert_eq!(ask(&queue, truth), Audit::Holds);
    assert_eq!(ask(&queue, Root([1; 32])), Audit::False(truth));
    assert!(queue.reports()[0].benched.is_none());
    // A device that lies in an audit harms nobody but itself.
    let failing = Failing::new();
    failing.lies.store(true, Ordering::Relaxed);
    let (queue, _) = start(vec![LaneSpec { backend: failing, mines: false, batch: None }, cpu(false)]);
    assert_eq!(ask(&queue, truth), Audit::Holds);
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
