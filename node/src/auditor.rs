//! The engine's audits on their way to the devices and back. Judges nothing, waits for nothing.
//!
//! A mismatch is an answer only after the reference repeated it: the queue of the devices does that. Whatever keeps a device from answering
//! (a full queue, a lost GPU) is "unable", which says nothing about the receipt.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::mpsc;
use tops_compute::queue::{Audit, JobFault, JobHandle, Priority as Rank, Queue, SubmitFault};
use tops_protocol::engine::{AuditId, AuditOutcome, Priority};
use tops_protocol::{Attempt, Root};
use tracing::warn;

use crate::net::limits::AUDIT_RESULTS;
use crate::state::{Shared, count};

/// The audits that are with the devices.
pub struct Auditor {
    queue: Arc<Queue>,
    results: mpsc::Sender<(AuditId, AuditOutcome)>,
    open: HashMap<AuditId, JobHandle>,
    shared: Shared,
    /// Whether the last audit failed for want of a device.
    troubled: Arc<AtomicBool>,
}

/// Forwarding waits for it, so it goes with the alerts; a share that was forwarded already can wait.
fn ranks(priority: Priority) -> &'static [Rank] {
    match priority {
        Priority::Head => &[Rank::Head],
        Priority::Alert => &[Rank::Alert],
        Priority::Forward => &[Rank::Alert, Rank::Audit],
        Priority::Share => &[Rank::Audit],
    }
}

impl Auditor {
    /// In front of these devices; results come out of the receiver.
    pub fn new(queue: Arc<Queue>, shared: Shared) -> (Self, mpsc::Receiver<(AuditId, AuditOutcome)>) {
        let (results, finished) = mpsc::channel(AUDIT_RESULTS);
        (Self { queue, results, open: HashMap::new(), shared, troubled: Arc::default() }, finished)
    }

    /// Hands an audit to the devices. `false`: none takes it.
    pub fn audit(&mut self, audit: AuditId, priority: Priority, attempt: Attempt, claimed: Root) -> bool {
        count(&self.shared.counters().audits_requested);
        for &rank in ranks(priority) {
            let (results, shared, troubled) = (self.results.clone(), self.shared.clone(), Arc::clone(&self.troubled));
            let done = move |outcome: Result<Audit, JobFault>| {
                if outcome.is_ok() && troubled.swap(false, Ordering::Relaxed) {
                    shared.set_device_problem(None);
                }
                let outcome = match outcome {
                    Ok(Audit::Holds) => AuditOutcome::Computed(claimed),
                    Ok(Audit::False(truth)) => AuditOutcome::Computed(truth),
                    Err(JobFault::Cancelled | JobFault::Closed) => return,
                    Err(fault) => {
                        troubled.store(true, Ordering::Relaxed);
                        shared.set_device_problem(Some(fault.to_string()));
                        AuditOutcome::Unable
                    }
                };
                // There is room for every audit that the queue can hold; at the end of the process nobody listens.
                if let Err(mpsc::error::TrySendError::Full(_)) = results.try_send((audit, outcome)) {
                    warn!("an audit's result was lost: the loop does not take results");
                }
            };
            match self.queue.audit(attempt, claimed, rank, done) {
                Ok(handle) => {
                    self.open.insert(audit, handle);
                    return true;
                }
                Err(SubmitFault::Full { .. }) => {}
                Err(SubmitFault::Length { .. } | SubmitFault::Closed) => return false,
            }
        }
        false
    }

    /// The engine does not want it any more.
    pub fn cancel(&mut self, audit: AuditId) {
        if let Some(handle) = self.open.remove(&audit) {
            count(&self.shared.counters().audits_cancelled);
            handle.cancel();
        }
    }

    /// Its result has come.
    pub fn finished(&mut self, audit: AuditId) {
        self.open.remove(&audit);
    }

    /// How many are with the devices.
    pub fn open(&self) -> usize {
        self.open.len()
    }
}
