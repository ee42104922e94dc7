//! The true root of every attempt, computed once per run and shared by all engines: the function is deterministic, the time is not free.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use tops_compute::backend::Backend;
use tops_compute::cpu::CpuBackend;
use tops_protocol::{Attempt, Root};

/// Roots by attempt.
pub struct Truth {
    backend: Arc<CpuBackend>,
    roots: HashMap<Attempt, Root>,
}

impl Truth {
    /// Nothing computed yet.
    ///
    /// # Panics
    /// When the machine cannot start a thread.
    pub fn new() -> Self {
        static BACKEND: OnceLock<Arc<CpuBackend>> = OnceLock::new();
        let backend = BACKEND.get_or_init(|| match CpuBackend::new(Some(1)) {
            Ok(backend) => Arc::new(backend),
            Err(fault) => panic!("no CPU backend: {fault}"),
        });
        Self { backend: Arc::clone(backend), roots: HashMap::new() }
    }

    /// The root of an attempt.
    ///
    /// # Panics
    /// When the CPU backend fails, which it does not.
    pub fn root(&mut self, attempt: &Attempt) -> Root {
        let backend = &self.backend;
        *self.roots.entry(*attempt).or_insert_with(|| match backend.roots(std::slice::from_ref(attempt)) {
            Ok(roots) => roots[0],
            Err(fault) => panic!("the CPU backend failed: {fault}"),
        })
    }

    /// The root of an attempt that is not remembered unless it was asked for before: most attempts win nothing.
    ///
    /// # Panics
    /// When the CPU backend fails, which it does not.
    pub fn root_once(&mut self, attempt: &Attempt) -> Root {
        match self.backend.roots(std::slice::from_ref(attempt)) {
            Ok(roots) => roots[0],
            Err(fault) => panic!("the CPU backend failed: {fault}"),
        }
    }

    /// Remembers a root that was computed.
    pub fn remember(&mut self, attempt: &Attempt, root: Root) {
        self.roots.insert(*attempt, root);
    }
}

impl Default for Truth {
    fn default() -> Self {
        Self::new()
    }
}
