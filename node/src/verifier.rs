//! Workers that turn bytes into receipts past stage 2, and drafts into signed receipts, off the loop.
//!
//! ```text
//!   driver ──Task (bounded)───▶ verifier threads ──Verified (bounded)──▶ driver
//!          ──Draft (bounded)──▶ signer ──────────────────┘               this node's hits wait for nothing that a peer can send
//! ```
//!
//! A signature costs about 60 µs and the same receipt comes many times (gossip, sync, alerts), so verdicts are remembered by the bytes. They
//! know no chain: what passes here may still be nonsense, and what fails here is nonsense for everybody.

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use tokio::sync::mpsc;
use tops_protocol::engine::{AskId, Input, Message, Peer, Reply, Topic};
use tops_protocol::error::{SemanticFault, StructuralFault};
use tops_protocol::keys::SecretKey;
use tops_protocol::verify::{Semantic, Structural};
use tops_protocol::{Draft, NetworkSpec};

use crate::net::codec::RawReply;
use crate::net::limits::{SIGNER_QUEUE, VERIFIER_MEMO, VERIFIER_QUEUE, VERIFIER_RESULTS, VERIFIER_THREADS_MAX};
use crate::state::{Shared, count};

/// Why bytes are no receipt of this network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Stage 1.
    #[error(transparent)]
    Structural(#[from] StructuralFault),
    /// Stage 2.
    #[error(transparent)]
    Semantic(#[from] SemanticFault),
}

impl Fault {
    /// The stage's name.
    pub fn stage(&self) -> &'static str {
        match self {
            Self::Structural(_) => "structural",
            Self::Semantic(_) => "semantic",
        }
    }
    /// A short, stable word for counters.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Structural(fault) => match fault {
                StructuralFault::TooLarge { .. } => "too_large",
                StructuralFault::Malformed { .. } => "malformed",
                StructuralFault::NotCanonical => "not_canonical",
                StructuralFault::Network => "network",
                StructuralFault::Shape | StructuralFault::ForeignShape => "shape",
                StructuralFault::Kernel { .. } => "kernel",
                StructuralFault::Text { .. } | StructuralFault::Hex { .. } | StructuralFault::Integer { .. } => "field",
            },
            Self::Semantic(fault) => match fault {
                SemanticFault::Key => "key",
                SemanticFault::Malformed | SemanticFault::HighS => "signature_form",
                SemanticFault::Mismatch => "signature",
            },
        }
    }
}

/// What to do.
#[derive(Debug)]
pub enum Task {
    /// Check a gossiped message.
    Gossip {
        /// Who brought it.
        peer: Peer,
        /// Which.
        message: Message,
        /// On which topic.
        topic: Topic,
        /// Its bytes.
        bytes: Vec<u8>,
    },
    /// Check the receipts of an answer.
    Reply {
        /// Who answered.
        peer: Peer,
        /// Which question.
        ask: AskId,
        /// The answer.
        raw: RawReply,
    },
}

/// What came of it.
#[derive(Debug)]
pub enum Verified {
    /// For the engine.
    Input(Input),
    /// A gossiped message that everybody rejects.
    Reject {
        /// Who brought it.
        peer: Peer,
        /// Which.
        message: Message,
        /// Why.
        fault: Fault,
    },
    /// An answer with a receipt that everybody rejects. The engine gets [`Reply::Invalid`].
    BadReply {
        /// Who answered.
        peer: Peer,
        /// Which question.
        ask: AskId,
        /// Why.
        fault: Fault,
    },
}

/// Verdicts by the hash of the bytes, in two generations: when the younger one is full, the older one is forgotten.
#[derive(Default)]
struct Memo {
    young: HashMap<[u8; 32], Result<Semantic, Fault>>,
    old: HashMap<[u8; 32], Result<Semantic, Fault>>,
}

impl Memo {
    fn get(&self, hash: &[u8; 32]) -> Option<Result<Semantic, Fault>> {
        self.young.get(hash).or_else(|| self.old.get(hash)).cloned()
    }
    fn put(&mut self, hash: [u8; 32], verdict: Result<Semantic, Fault>) {
        if self.young.len() >= VERIFIER_MEMO / 2 {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(hash, verdict);
    }
}

/// What signatures came to. Clones are one memory: nodes of one process may share it, since a verdict depends on nothing but the bytes and the
/// network.
#[derive(Clone, Default)]
pub struct Verdicts(Arc<Mutex<Memo>>);

impl Verdicts {
    /// A holder that panicked left a whole value.
    fn lock(&self) -> MutexGuard<'_, Memo> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Bench {
    network: NetworkSpec,
    memo: Verdicts,
    shared: Shared,
}

impl Bench {
    fn check(&self, bytes: &[u8]) -> Result<Semantic, Fault> {
        let structural = Structural::from_wire(bytes, &self.network)?;
        let hash = *blake3::hash(bytes).as_bytes();
        if let Some(verdict) = self.memo.lock().get(&hash) {
            count(&self.shared.counters().signatures_memoised);
            return verdict;
        }
        count(&self.shared.counters().signatures_checked);
        let verdict = structural.semantic().map_err(Fault::from);
        self.memo.lock().put(hash, verdict.clone());
        verdict
    }

    fn all(&self, wires: &[Vec<u8>]) -> Result<Vec<Semantic>, Fault> {
        wires.iter().map(|wire| self.check(wire)).collect()
    }

    fn reply(&self, raw: RawReply) -> Result<Reply, Fault> {
        Ok(match raw {
            RawReply::Status(status) => Reply::Status(status),
            RawReply::Heads(heads) => Reply::Heads(self.all(&heads)?),
            RawReply::Shares { wires, more } => Reply::Shares { receipts: self.all(&wires)?, more },
            RawReply::Bans { wires, more } => Reply::Bans { receipts: self.all(&wires)?, more },
        })
    }

    fn sign(&self, key: &SecretKey, draft: Draft) -> Option<Input> {
        let receipt = draft.clone().with_signature(key.sign(&draft.prehash()));
        match self.check(&receipt.to_wire()) {
            Ok(receipt) => Some(Input::Signed { receipt }),
            Err(fault) => {
                tracing::error!(%fault, "a receipt of this node does not pass its own check: this is a bug, please report it");
                None
            }
        }
    }

    fn work(&self, task: Task) -> Verified {
        match task {
            Task::Gossip { peer, message, topic, bytes } => match self.check(&bytes) {
                Ok(receipt) => Verified::Input(Input::Gossip { peer, message, topic, receipt }),
                Err(fault) => Verified::Reject { peer, message, fault },
            },
            Task::Reply { peer, ask, raw } => match self.reply(raw) {
                Ok(reply) => Verified::Input(Input::Reply { peer, ask, reply }),
                Err(fault) => Verified::BadReply { peer, ask, fault },
            },
        }
    }
}

/// Where the work is done.
enum Place {
    /// On threads of its own, which these queues lead to.
    Threads { tasks: SyncSender<Task>, drafts: Option<SyncSender<Draft>> },
    /// On the thread that brings it.
    Here { bench: Box<Bench>, key: Option<SecretKey>, results: mpsc::Sender<Verified> },
}

/// The threads. Dropping it ends them once they have finished what they hold, if the results' reader is gone or reads on.
pub struct Verifier {
    place: Option<Place>,
    threads: Vec<JoinHandle<()>>,
}

impl Verifier {
    /// Starts the threads; `key` signs this node's drafts.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(network: NetworkSpec, key: Option<SecretKey>, shared: Shared) -> std::io::Result<(Self, mpsc::Receiver<Verified>)> {
        let (tasks, queue) = sync_channel(VERIFIER_QUEUE);
        let (results, verified) = mpsc::channel(VERIFIER_RESULTS);
        let (queue, bench) = (Arc::new(Mutex::new(queue)), Arc::new(Bench { network, memo: Verdicts::default(), shared }));
        let count = thread::available_parallelism().map_or(1, |n| n.get() / 2).clamp(1, VERIFIER_THREADS_MAX);
        let mut threads = (0..count)
            .map(|i| {
                let (queue, bench, results) = (Arc::clone(&queue), Arc::clone(&bench), results.clone());
                thread::Builder::new().name(format!("verifier-{i}")).spawn(move || run(&queue, &bench, &results))
            })
            .collect::<std::io::Result<Vec<_>>>()?;
        let drafts = match key {
            None => None,
            Some(key) => {
                let (drafts, queue) = sync_channel(SIGNER_QUEUE);
                threads.push(thread::Builder::new().name("signer".into()).spawn(move || sign(&queue, &key, &bench, &results))?);
                Some(drafts)
            }
        };
        Ok((Self { place: Some(Place::Threads { tasks, drafts }), threads }, verified))
    }

    /// Does everything before [`Verifier::submit`] returns, and looks first at what these nodes have seen: for many nodes on few processors, where
    /// each change of threads costs more than a look.
    pub fn here(network: NetworkSpec, key: Option<SecretKey>, shared: Shared, memo: Verdicts) -> (Self, mpsc::Receiver<Verified>) {
        let (results, verified) = mpsc::channel(VERIFIER_RESULTS);
        let bench = Box::new(Bench { network, memo, shared });
        (Self { place: Some(Place::Here { bench, key, results }), threads: Vec::new() }, verified)
    }

    /// Queues a draft of this node to be signed; `false` when there is no room, or no key.
    pub fn sign(&self, draft: Draft) -> bool {
        match &self.place {
            Some(Place::Threads { drafts: Some(drafts), .. }) => drafts.try_send(draft).is_ok(),
            Some(Place::Here { bench, key: Some(key), results }) => {
                let Ok(room) = results.try_reserve() else { return false };
                if let Some(signed) = bench.sign(key, draft) {
                    room.send(Verified::Input(signed));
                }
                true
            }
            _ => false,
        }
    }

    /// Queues a task, or gives it back when the queue is full.
    #[expect(clippy::result_large_err, reason = "the task itself comes back")]
    pub fn submit(&self, task: Task) -> Result<(), Task> {
        match &self.place {
            Some(Place::Threads { tasks, .. }) => tasks.try_send(task).map_err(|refused| match refused {
                TrySendError::Full(task) | TrySendError::Disconnected(task) => task,
            }),
            Some(Place::Here { bench, results, .. }) => {
                let Ok(room) = results.try_reserve() else { return Err(task) };
                room.send(bench.work(task));
                Ok(())
            }
            None => Err(task),
        }
    }
}

impl Drop for Verifier {
    fn drop(&mut self) {
        self.place = None;
        for thread in self.threads.drain(..) {
            // A panicked one has been reported by its panic.
            let _ = thread.join();
        }
    }
}

fn run(queue: &Mutex<Receiver<Task>>, bench: &Bench, results: &mpsc::Sender<Verified>) {
    loop {
        let task = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(task) = task else { return };
        if results.blocking_send(bench.work(task)).is_err() {
            return;
        }
    }
}

fn sign(drafts: &Receiver<Draft>, key: &SecretKey, bench: &Bench, results: &mpsc::Sender<Verified>) {
    while let Ok(draft) = drafts.recv() {
        if let Some(signed) = bench.sign(key, draft)
            && results.blocking_send(Verified::Input(signed)).is_err()
        {
            return;
        }
    }
}
