//! One processor for all nodes. Each root is computed once, by the real backend, and then remembered: two hundred nodes that audit the same
//! receipt on two cores would measure the cores.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tops_compute::backend::{Backend, Device, DeviceFault, SearchJob, SearchReport, Stop};
use tops_compute::cpu::CpuBackend;
use tops_protocol::work::v1::AttemptV1;
use tops_protocol::{Attempt, Root, Shape};

/// A backend that computes a root once.
pub struct Remembering {
    cpu: CpuBackend,
    roots: Mutex<HashMap<Attempt, Root>>,
    computed: AtomicU64,
    nanos: AtomicU64,
}

impl Remembering {
    /// On one thread.
    ///
    /// # Errors
    /// When the processor cannot be used.
    pub fn new() -> Result<Self, DeviceFault> {
        Ok(Self { cpu: CpuBackend::new(Some(1))?, roots: Mutex::default(), computed: AtomicU64::new(0), nanos: AtomicU64::new(0) })
    }

    /// How many roots were computed for audits, and how long one took.
    pub fn audits(&self) -> (u64, Duration) {
        let computed = self.computed.load(Ordering::Relaxed);
        (computed, Duration::from_nanos(self.nanos.load(Ordering::Relaxed) / computed.max(1)))
    }
}

impl Backend for Remembering {
    fn device(&self) -> &Device {
        self.cpu.device()
    }
    fn batch_step(&self, shape: Shape) -> u32 {
        self.cpu.batch_step(shape)
    }
    fn search(&self, job: &SearchJob, stop: &Stop) -> Result<SearchReport, DeviceFault> {
        self.cpu.search(job, stop)
    }
    fn roots(&self, attempts: &[Attempt]) -> Result<Vec<Root>, DeviceFault> {
        let mut out = Vec::with_capacity(attempts.len());
        for attempt in attempts {
            // Held while computing: the others wait for this answer instead of computing it too.
            let mut roots = self.roots.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(root) = roots.get(attempt) {
                out.push(*root);
                continue;
            }
            let began = Instant::now();
            for root in self.cpu.roots(std::slice::from_ref(attempt))? {
                roots.insert(*attempt, root);
                out.push(root);
            }
            self.computed.fetch_add(1, Ordering::Relaxed);
            self.nanos.fetch_add(u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
        }
        Ok(out)
    }
    fn v1_roots(&self, attempts: &[AttemptV1]) -> Result<Vec<Root>, DeviceFault> {
        self.cpu.v1_roots(attempts)
    }
}
