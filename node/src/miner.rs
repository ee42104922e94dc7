//! One thread between the engine's job and the devices' searches: stamps, draws nonces, has hits recomputed, counts attempts.
//!
//! ```text
//!   Output::Job ──▶ miner ──mine──▶ devices ──report──▶ miner ──confirm (CPU)──▶ Input::Found
//! ```
//!
//! It never signs and never decides whether a hit is late. A hit that the CPU does not confirm goes nowhere: the queue benches the device and
//! writes down what reproduces it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rand::Rng;
use tokio::sync::mpsc;
use tops_compute::queue::{JobFault, MiningJob, MiningReport, Queue};
use tops_protocol::engine::{Input, Job};
use tops_protocol::types::INTEGER_LIMIT;
use tops_protocol::{Nonce, PublicKey, Shape};
use tracing::{debug, error, warn};

use crate::driver::Clock;
use crate::net::limits::MINER_HITS;
use crate::state::{HashRate, Shared, count};

/// Words to the miner that wait; reports of searches that find it full are dropped with their hits, and that is said.
const WORDS: usize = 4_096;
/// Nonces above a job's first that it can never use up before it is stamped anew.
const NONCE_ROOM: u64 = 1 << 42;
/// A stamp is renewed at least this often, so that the schedule sees the time that a head took.
const STAMP_MAX: Duration = Duration::from_secs(4);
/// And at most this often: a new stamp interrupts what runs.
const STAMP_MIN: Duration = Duration::from_millis(500);

/// What the thread is told.
pub enum Word {
    /// Mine on this; `None`: rest.
    Job(Option<Job>),
    /// A search ended.
    Report(MiningReport),
    /// The end.
    Stop,
}

/// Where the devices' reports go, from before the thread exists.
pub struct Ears {
    words: SyncSender<Word>,
    queue: Receiver<Word>,
}

/// The channel to the miner; [`Ears::sink`] is given to the queue of the devices when it is started.
pub fn ears() -> Ears {
    let (words, queue) = sync_channel(WORDS);
    Ears { words, queue }
}

impl Ears {
    /// What the devices call after each search; it does not block.
    pub fn sink(&self) -> impl Fn(MiningReport) + Send + Sync + 'static {
        let words = self.words.clone();
        move |report| {
            let hits = report.hits.len();
            if matches!(words.try_send(Word::Report(report)), Err(TrySendError::Full(_))) && hits > 0 {
                warn!(hits, "hits were lost: the miner's thread does not take reports");
            }
        }
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
    words: SyncSender<Word>,
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
        let Ears { words, queue: reports } = ears;
        let mut shift = Shift { queue, terms, clock, shared, found, job: None, stamped: Instant::now(), meter: Meter::default() };
        let thread = thread::Builder::new().name("miner".into()).spawn(move || shift.run(&reports))?;
        Ok((Self { words, thread: Some(thread) }, hits))
    }

    /// Replaces the job; `false` when the thread does not take it now: say it again.
    pub fn mine(&self, job: Option<Job>) -> bool {
        self.words.try_send(Word::Job(job)).is_ok()
    }

    /// Ends the thread, which stops the search first.
    pub fn stop(&mut self) {
        // A thread that is gone needs no telling.
        let _ = self.words.send(Word::Stop);
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
    fn run(&mut self, words: &Receiver<Word>) {
        let renew = (self.terms.target * 2).clamp(STAMP_MIN, STAMP_MAX);
        let mut shown = Instant::now();
        let mut paused = false;
        loop {
            match words.recv_timeout(Duration::from_millis(100)) {
                Ok(Word::Job(job)) => {
                    self.job = job;
                    self.begin();
                }
                Ok(Word::Report(report)) => self.report(report),
                Err(RecvTimeoutError::Timeout) => {}
                Ok(Word::Stop) | Err(RecvTimeoutError::Disconnected) => break,
            }
            let turned = std::mem::replace(&mut paused, self.shared.mining_paused()) != paused;
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
        let Some(job) = self.job.filter(|_| !self.shared.mining_paused()) else { return self.queue.rest() };
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
