//! One thread between the engine's job and the devices' searches: stamps, draws nonces, has hits recomputed, counts attempts.
//!
//! ```text
//!   Output::Job ──▶ miner ──mine──▶ devices ──report──▶ miner ──confirm (CPU)──▶ Input::Found
//! ```
//!
//! What the loop says is heard before the reports that wait, so that a new head is mined on at once. It never signs and never decides whether
//! a hit is late. A hit that the CPU does not confirm goes nowhere: the queue benches the device and writes down what reproduces it.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rand::Rng;
use tokio::sync::mpsc;
use tops_compute::queue::{JobFault, MiningJob, MiningReport, Priority, Queue};
use tops_protocol::engine::{Input, Job};
use tops_protocol::types::INTEGER_LIMIT;
use tops_protocol::{Nonce, PublicKey, Shape};
use tracing::{debug, error, warn};

use crate::driver::Clock;
use crate::net::limits::MINER_HITS;
use crate::state::{HashRate, Shared, count};

/// Reports of searches that wait for the miner. Of one that finds no room the attempts are still counted, and its hits are late hits.
const WORDS: usize = 64;
/// Hits of a report that are kept: as many as may wait for their confirmation. They are the best of it, so that a head is among them; the
/// others are late hits.
const HITS: usize = Priority::OwnWin.limit();
/// How long the thread waits for a word before it looks at the clock.
const LOOK: Duration = Duration::from_millis(100);
/// Nonces above a job's first that it can never use up before it is stamped anew.
const NONCE_ROOM: u64 = 1 << 42;
/// A stamp is renewed at least this often, so that the schedule sees the time that a head took.
const STAMP_MAX: Duration = Duration::from_secs(4);
/// And at most this often: each stamp begins a range of nonces of its own, and interrupts what runs with a stamp that is some seconds old.
const STAMP_MIN: Duration = Duration::from_millis(500);

/// What the loop tells the thread.
enum Order {
    /// Mine on this; `None`: rest.
    Job(Option<Job>),
    /// The end.
    Stop,
}

/// What the thread hears.
enum Word {
    Order(Order),
    /// A search ended.
    Report(MiningReport),
}

/// What waits for the thread.
#[derive(Default)]
struct Inbox {
    waiting: Mutex<Waiting>,
    bell: Condvar,
}

#[derive(Default)]
struct Waiting {
    /// The loop's latest order: a job takes the place of the one before, and nothing takes that of the end.
    order: Option<Order>,
    reports: VecDeque<MiningReport>,
    uncounted: Uncounted,
}

/// What was let go since the thread looked last.
#[derive(Default)]
struct Uncounted {
    attempts: u64,
    late: u64,
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, order: Order) {
        let mut waiting = self.lock();
        if !matches!(waiting.order, Some(Order::Stop)) {
            waiting.order = Some(order);
        }
        drop(waiting);
        self.bell.notify_all();
    }

    fn put(&self, mut report: MiningReport) {
        let late = report.keep_best(HITS);
        let mut waiting = self.lock();
        waiting.uncounted.late += late as u64;
        if waiting.reports.len() < WORDS {
            waiting.reports.push_back(report);
        } else {
            waiting.uncounted.late += report.hits.len() as u64;
            waiting.uncounted.attempts += u64::from(report.attempts);
        }
        drop(waiting);
        self.bell.notify_all();
    }

    /// The loop's order before any report; no word when none comes in that time.
    fn take(&self, patience: Duration) -> (Option<Word>, Uncounted) {
        let nothing = |waiting: &mut Waiting| waiting.order.is_none() && waiting.reports.is_empty();
        let (mut waiting, _) = self.bell.wait_timeout_while(self.lock(), patience, nothing).unwrap_or_else(PoisonError::into_inner);
        let word = match waiting.order.take() {
            Some(order) => Some(Word::Order(order)),
            None => waiting.reports.pop_front().map(Word::Report),
        };
        (word, std::mem::take(&mut waiting.uncounted))
    }
}

/// Where the devices' reports go, from before the thread exists.
pub struct Ears {
    inbox: Arc<Inbox>,
}

/// What the miner hears by; [`Ears::sink`] is given to the queue of the devices when it is started.
pub fn ears() -> Ears {
    Ears { inbox: Arc::default() }
}

impl Ears {
    /// What the devices call after each search; it does not block.
    pub fn sink(&self) -> impl Fn(MiningReport) + Send + Sync + 'static {
        let inbox = Arc::clone(&self.inbox);
        move |report| inbox.put(report)
    }
}

/// What does not change while the node runs.
pub struct Terms {
    /// Whose attempts.
    pub miner: PublicKey,
    /// The network's shape.
    pub shape: Shape,
    /// How long one search should take.
    pub target: Duration,
}

/// The thread's handle.
pub struct Miner {
    inbox: Arc<Inbox>,
    thread: Option<JoinHandle<()>>,
}

impl Miner {
    /// Starts the thread; what it found and the CPU confirmed comes out of the receiver.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(
        ears: Ears,
        queue: Arc<Queue>,
        terms: Terms,
        clock: Clock,
        shared: Shared,
    ) -> std::io::Result<(Self, mpsc::Receiver<Input>)> {
        let (found, hits) = mpsc::channel(MINER_HITS);
        let (inbox, heard) = (Arc::clone(&ears.inbox), ears.inbox);
        let mut shift = Shift { queue, terms, clock, shared, found, job: None, stamped: Instant::now(), meter: Meter::default() };
        let thread = thread::Builder::new().name("miner".into()).spawn(move || shift.run(&heard))?;
        Ok((Self { inbox, thread: Some(thread) }, hits))
    }

    /// Replaces the job, whatever reports wait.
    pub fn mine(&self, job: Option<Job>) {
        self.inbox.tell(Order::Job(job));
    }

    /// Ends the thread, which stops the search first.
    pub fn stop(&mut self) {
        self.inbox.tell(Order::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Shift {
    queue: Arc<Queue>,
    terms: Terms,
    clock: Clock,
    shared: Shared,
    found: mpsc::Sender<Input>,
    job: Option<Job>,
    stamped: Instant,
    meter: Meter,
}

impl Shift {
    fn run(&mut self, inbox: &Inbox) {
        let renew = (self.terms.target * 2).clamp(STAMP_MIN, STAMP_MAX);
        let mut shown = Instant::now();
        let mut paused = false;
        loop {
            let (word, Uncounted { attempts, late }) = inbox.take(LOOK);
            match word {
                Some(Word::Order(Order::Stop)) => break,
                Some(Word::Order(Order::Job(job))) => {
                    self.job = job;
                    self.begin();
                }
                Some(Word::Report(report)) => self.report(report),
                None => {}
            }
            if attempts + late > 0 {
                self.meter.add(attempts, Instant::now());
                self.shared.counters().late_hits.fetch_add(late, Ordering::Relaxed);
            }
            let turned = std::mem::replace(&mut paused, !self.shared.may_mine()) != paused;
            if turned || (self.job.is_some() && self.stamped.elapsed() >= renew) {
                self.begin();
            }
            if shown.elapsed() >= Duration::from_secs(1) {
                shown = Instant::now();
                self.shared.set_hash_rate(self.meter.rate(shown));
            }
        }
        self.queue.rest();
    }

    fn begin(&mut self) {
        self.stamped = Instant::now();
        let Some(job) = self.job.filter(|_| self.shared.may_mine()) else { return self.queue.rest() };
        // A random start: a process that is started again repeats no attempt, even if its clock stood still.
        let Some(first_nonce) = Nonce::new(rand::rng().random_range(0..INTEGER_LIMIT - NONCE_ROOM)) else {
            unreachable!("drawn below the limit");
        };
        self.queue.mine(MiningJob {
            prev_hash: job.prev_hash,
            miner: self.terms.miner,
            timestamp: self.clock.now().max(job.min_timestamp),
            shape: self.terms.shape,
            target: job.share_target,
            first_nonce,
        });
    }

    fn report(&mut self, report: MiningReport) {
        self.meter.add(u64::from(report.attempts), Instant::now());
        let (batch, time_ms) = (u64::from(report.batch), u64::try_from(report.elapsed.as_millis()).unwrap_or(u64::MAX));
        for hit in report.hits {
            let (found, shared) = (self.found.clone(), self.shared.clone());
            let confirmed = move |verdict: Result<(), JobFault>| match verdict {
                Ok(()) => {
                    let input = Input::Found { attempt: hit.attempt, root: hit.root, batch, time_ms };
                    // More hits than the loop takes are late hits before long.
                    if found.try_send(input).is_err() {
                        count(&shared.counters().late_hits);
                    }
                }
                Err(JobFault::Mismatch { bundle }) => {
                    count(&shared.counters().device_mismatches);
                    let bundle = bundle.map(|path| path.display().to_string());
                    error!(bundle, "a device found a root that the CPU does not confirm: the device gets no more work");
                    shared.set_device_problem(Some("a device computed a wrong root and gets no more work".into()));
                }
                Err(JobFault::Cancelled | JobFault::Closed) => {}
                Err(fault) => warn!(%fault, "a hit could not be confirmed and is lost"),
            };
            if let Err(fault) = self.queue.confirm(hit, confirmed) {
                debug!(%fault, "a hit was not taken for confirmation");
                count(&self.shared.counters().late_hits);
            }
        }
    }
}

/// Attempts by second, for a quarter of an hour.
struct Meter {
    origin: Instant,
    seconds: VecDeque<(u64, u64)>,
    total: u64,
}

impl Default for Meter {
    fn default() -> Self {
        Self { origin: Instant::now(), seconds: VecDeque::new(), total: 0 }
    }
}

impl Meter {
    const WINDOW: u64 = 900;

    fn second(&self, at: Instant) -> u64 {
        at.saturating_duration_since(self.origin).as_secs()
    }

    fn add(&mut self, attempts: u64, at: Instant) {
        let second = self.second(at);
        self.total += attempts;
        match self.seconds.back_mut() {
            Some((last, sum)) if *last == second => *sum += attempts,
            _ => self.seconds.push_back((second, attempts)),
        }
        while self.seconds.front().is_some_and(|(first, _)| first + Self::WINDOW < second) {
            self.seconds.pop_front();
        }
    }

    fn rate(&self, at: Instant) -> HashRate {
        let now = self.second(at);
        // The running second is not over: only whole ones count.
        let over = |window: u64| {
            let window = window.min(now);
            let sum: u64 = self.seconds.iter().filter(|(second, _)| *second < now && second + window >= now).map(|(_, sum)| sum).sum();
            if window == 0 { 0.0 } else { sum as f64 / window as f64 }
        };
        HashRate { secs_10: over(10), secs_60: over(60), mins_15: over(Self::WINDOW), total: self.total }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tops_compute::queue::Found;
    use tops_protocol::{Millis, Root, U256};

    const ATTEMPTS: u32 = 10;

    fn report(hits: usize) -> MiningReport {
        let job = MiningJob {
            prev_hash: Root([3; 32]),
            miner: PublicKey([2; 33]),
            timestamp: Millis(7),
            shape: Shape::DEVNET,
            target: U256::MAX,
            first_nonce: Nonce::new(0).unwrap(),
        };
        let found = |i: usize| Found { attempt: job.attempt(Nonce::new(i as u64).unwrap()), root: Root([!(i as u8); 32]), lane: 0 };
        let (attempts, batch, elapsed) = (ATTEMPTS, ATTEMPTS, Duration::from_millis(300));
        MiningReport { job, lane: 0, hits: (0..hits).map(found).collect(), attempts, batch, elapsed }
    }

    #[test]
    fn an_order_is_heard_before_the_reports_that_wait() {
        let inbox = Inbox::default();
        inbox.put(report(1));
        inbox.tell(Order::Job(None));
        assert!(matches!(inbox.take(Duration::ZERO).0, Some(Word::Order(Order::Job(None)))));
        assert!(matches!(inbox.take(Duration::ZERO).0, Some(Word::Report(_))));
        assert!(inbox.take(Duration::ZERO).0.is_none());
        // Nothing that is said after the end is heard instead of it.
        inbox.tell(Order::Stop);
        inbox.tell(Order::Job(None));
        assert!(matches!(inbox.take(Duration::ZERO).0, Some(Word::Order(Order::Stop))));
    }

    #[test]
    fn reports_are_bounded_in_number_and_size_and_what_is_let_go_is_counted() {
        let inbox = Inbox::default();
        (0..WORDS + 3).for_each(|_| inbox.put(report(HITS + 5)));
        let (word, uncounted) = inbox.take(Duration::ZERO);
        assert_eq!(uncounted.attempts, 3 * u64::from(ATTEMPTS));
        assert_eq!(uncounted.late, (5 * WORDS + 3 * (HITS + 5)) as u64);
        let Some(Word::Report(kept)) = word else { panic!("no report") };
        assert_eq!(kept.hits.len(), HITS);
        assert!(kept.hits.is_sorted_by_key(|hit| hit.root));
        let mut waiting = 1;
        while inbox.take(Duration::ZERO).0.is_some() {
            waiting += 1;
        }
        assert_eq!(waiting, WORDS);
    }

    #[test]
    fn rates_are_over_their_windows() {
        let mut meter = Meter::default();
        let at = |s: u64| meter_origin() + Duration::from_secs(s);
        fn meter_origin() -> Instant {
            static ORIGIN: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
            *ORIGIN.get_or_init(Instant::now)
        }
        meter.origin = meter_origin();
        for second in 0..100 {
            meter.add(if second < 90 { 10 } else { 100 }, at(second));
        }
        let rate = meter.rate(at(100));
        assert_eq!(rate.secs_10, 100.0);
        assert_eq!(rate.secs_60, (50.0 * 10.0 + 10.0 * 100.0) / 60.0);
        assert_eq!(rate.mins_15, (90.0 * 10.0 + 10.0 * 100.0) / 100.0);
        assert_eq!(rate.total, 1_900);
        for second in 100..5_000 {
            meter.add(1, at(second));
        }
        assert!(meter.seconds.len() <= Meter::WINDOW as usize + 1);
    }
}
