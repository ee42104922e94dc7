//! The one thread that writes: it takes what has gathered, commits it as one group with one flush, and says so to each.
//!
//! ```text
//! submit ─▶ queue (WRITER_QUEUE) ─▶ [batch, batch, …] ─▶ Store::commit ─▶ on_durable(Ok), in order
//! ```
//!
//! While the disk is full the group at hand is tried again and again, and nothing behind it is written: [`Writer::stuck`] says so, also when nothing
//! waits to be written. After any other fault nothing more is written: later batches build on those that failed. They get
//! [`StoreFault::Stopped`], and the process should end.

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tops_protocol::engine::Op;

use crate::{Store, StoreFault};

/// Batches that wait for the writer. When full, [`Writer::submit`] blocks (back-pressure: the disk is the slowest) and [`Writer::try_submit`]
/// hands the batch back.
pub const WRITER_QUEUE: usize = 1_024;
/// Most batches in a group; the rest wait for the next flush.
pub const GROUP_BATCHES_MAX: usize = 256;
/// A group takes no further batch once it has this many ops; one batch may have more.
pub const GROUP_OPS_MAX: usize = 8_192;

/// The pause before a group that found no room is tried again; it doubles.
pub const RETRY_FIRST: Duration = Duration::from_millis(100);
/// The longest pause.
pub const RETRY_LAST: Duration = Duration::from_secs(2);
/// How often a writer without work looks whether there is room.
pub const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Told once when its batch is on the disk, or will never be. Runs on the writer's thread: send a message, do not work.
pub type OnDurable = Box<dyn FnOnce(Result<(), StoreFault>) + Send>;

struct Job {
    batch: Vec<Op>,
    done: OnDurable,
}

/// The queue was full; here it all is again.
pub struct QueueFull {
    /// What was to be written.
    pub batch: Vec<Op>,
    /// Who was to be told.
    pub on_durable: OnDurable,
}

/// What the thread and its handle tell each other.
#[derive(Default)]
struct State {
    fault: Option<StoreFault>,
    stuck: Option<StoreFault>,
    /// A full disk is waited for no longer.
    ending: bool,
}

#[derive(Default)]
struct Board {
    state: Mutex<State>,
    ends: Condvar,
}

impl Board {
    /// A holder that panicked left whole values.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits so long; `false`: the end has come.
    fn pause(&self, pause: Duration) -> bool {
        let until = Instant::now() + pause;
        let mut state = self.state();
        while !state.ending {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            state = self.ends.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        false
    }
}

/// Where batches are committed.
enum Place {
    /// On a thread of its own, which this queue leads to.
    Thread(SyncSender<Job>),
    /// On the thread that brings them.
    Here(Arc<dyn Store>),
}

/// The writing thread's handle. Dropping it writes what waits, then joins; what finds a full disk then is not written.
pub struct Writer {
    place: Option<Place>,
    thread: Option<JoinHandle<()>>,
    board: Arc<Board>,
}

impl Writer {
    /// Starts the thread.
    ///
    /// # Errors
    /// [`StoreFault::Io`] when the system gives no thread.
    pub fn start(store: Arc<dyn Store>) -> Result<Self, StoreFault> {
        let (queue, jobs) = sync_channel(WRITER_QUEUE);
        let board = Arc::new(Board::default());
        let shared = Arc::clone(&board);
        let thread = thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || write(&*store, &jobs, &shared))
            .map_err(|e| StoreFault::Io { path: "store-writer".into(), action: "started", why: e.to_string() })?;
        Ok(Self { place: Some(Place::Thread(queue)), thread: Some(thread), board })
    }

    /// Commits each batch before [`Writer::submit`] returns: for stores in memory, which never wait, where many nodes share few processors. No room is
    /// a fault like any other here.
    pub fn here(store: Arc<dyn Store>) -> Self {
        Self { place: Some(Place::Here(store)), thread: None, board: Arc::default() }
    }

    /// Queues a batch; waits when the queue is full. Batches are written in the order in which they were queued.
    pub fn submit(&self, batch: Vec<Op>, on_durable: OnDurable) {
        match &self.place {
            Some(Place::Thread(queue)) => {
                if let Err(refused) = queue.send(Job { batch, done: on_durable }) {
                    (refused.0.done)(Err(StoreFault::Stopped));
                }
            }
            Some(Place::Here(store)) => on_durable(self.commit_here(&**store, batch)),
            None => on_durable(Err(StoreFault::Stopped)),
        }
    }

    fn commit_here(&self, store: &dyn Store, batch: Vec<Op>) -> Result<(), StoreFault> {
        if self.fault().is_some() {
            return Err(StoreFault::Stopped);
        }
        store.commit(&[batch]).inspect_err(|fault| self.board.state().fault = Some(fault.clone()))
    }

    /// Queues a batch, or hands it back at once when the queue is full.
    ///
    /// # Errors
    /// [`QueueFull`] with what was given.
    pub fn try_submit(&self, batch: Vec<Op>, on_durable: OnDurable) -> Result<(), QueueFull> {
        let Some(Place::Thread(queue)) = &self.place else {
            self.submit(batch, on_durable);
            return Ok(());
        };
        match queue.try_send(Job { batch, done: on_durable }) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(job)) => Err(QueueFull { batch: job.batch, on_durable: job.done }),
            Err(TrySendError::Disconnected(job)) => {
                (job.done)(Err(StoreFault::Stopped));
                Ok(())
            }
        }
    }

    /// The fault that stopped the writer, if one did.
    pub fn fault(&self) -> Option<StoreFault> {
        self.board.state().fault.clone()
    }

    /// [`StoreFault::Full`] while the disk is full and what waits is tried again and again.
    pub fn stuck(&self) -> Option<StoreFault> {
        self.board.state().stuck.clone()
    }

    /// Writes what waits and ends the thread; the fault, if there was one. A full disk is given one more try.
    ///
    /// # Errors
    /// What [`Writer::fault`] says.
    pub fn close(mut self) -> Result<(), StoreFault> {
        self.join();
        self.fault().map_or(Ok(()), Err)
    }

    fn join(&mut self) {
        self.place = None;
        self.board.state().ending = true;
        self.board.ends.notify_all();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            self.board.state().fault.get_or_insert(StoreFault::Stopped);
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.join();
    }
}

fn write(store: &dyn Store, jobs: &Receiver<Job>, board: &Board) {
    let mut stopped = false;
    loop {
        let first = match jobs.recv_timeout(LOOK_EVERY) {
            Ok(first) => first,
            Err(RecvTimeoutError::Timeout) => {
                if !stopped {
                    board.state().stuck = store.room().err();
                }
                continue;
            }
            Err(RecvTimeoutError::Disconnected) => return,
        };
        if stopped {
            (first.done)(Err(StoreFault::Stopped));
            continue;
        }
        let (mut batches, mut waiting) = (Vec::new(), Vec::new());
        let mut ops = 0;
        let mut next = Some(first);
        while let Some(job) = next.take() {
            ops += job.batch.len();
            batches.push(job.batch);
            waiting.push(job.done);
            if batches.len() < GROUP_BATCHES_MAX && ops < GROUP_OPS_MAX {
                next = jobs.try_recv().ok();
            }
        }
        let result = commit(store, &batches, board);
        if let Err(what) = &result {
            stopped = true;
            board.state().fault = Some(what.clone());
        }
        for done in waiting {
            done(result.clone());
        }
    }
}

/// Until it is written, or found another fault than a full disk, or the end has come.
fn commit(store: &dyn Store, batches: &[Vec<Op>], board: &Board) -> Result<(), StoreFault> {
    let mut pause = RETRY_FIRST;
    loop {
        let result = store.commit(batches);
        let full = result.as_ref().err().filter(|fault| matches!(fault, StoreFault::Full { .. })).cloned();
        let again = full.is_some();
        board.state().stuck = full;
        if !again || !board.pause(pause) {
            return result;
        }
        pause = (pause * 2).min(RETRY_LAST);
    }
}
