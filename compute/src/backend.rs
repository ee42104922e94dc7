//! The only thing that others know of a device: it finds roots below a target, and it computes roots that it is asked for.
//!
//! ```text
//! SearchJob ──search──▶ SearchReport (every hit, in the order of nonces)        Attempts ──roots──▶ Roots (same order)
//! ```
//!
//! A backend answers byte for byte like `tops_protocol::work`, whatever its batch, its threads and its instructions; the conformance
//! suite holds it to that. Calls block; one owner thread a device makes them. A backend never signs, never judges a receipt, never
//! reads configuration, and never panics on a device's failure: it returns a [`DeviceFault`].

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tops_protocol::work::v1::AttemptV1;
use tops_protocol::{Attempt, Millis, Nonce, PublicKey, Root, Shape, U256};

/// The most attempts one [`SearchJob`] may ask for, so that a report is bounded even when every attempt is a hit.
pub const SEARCH_LIMIT: u32 = 1 << 20;

/// The most attempts one call of [`Backend::roots`] or [`Backend::v1_roots`] may be given; callers split what is longer.
pub const ROOTS_LIMIT: usize = 1 << 16;

/// What kind of backend drives a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeviceKind {
    /// The processor's cores.
    Cpu,
    /// An NVIDIA GPU by its driver.
    Cuda,
    /// Any device with an OpenCL driver.
    OpenCl,
}

impl fmt::Display for DeviceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
            Self::OpenCl => "opencl",
        })
    }
}

/// What a device says of itself. None of it counts for consensus.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Device {
    /// What drives it.
    pub kind: DeviceKind,
    /// Its number among the devices of its kind: what `--devices` names.
    pub index: u32,
    /// The maker's name of it.
    pub name: String,
    /// The driver's version (the operating system for a CPU).
    pub driver: String,
    /// Which code runs on it: `avx512-vnni`, `sm_90a`, `generic`, …
    pub path: String,
    /// Identifies the code that runs on it, so that a tuned batch is not used for other code. Hex, at least 16 digits.
    pub code_digest: String,
    /// Its memory, where it tells.
    pub memory_bytes: Option<u64>,
    /// Multiprocessors, compute units or threads used.
    pub units: u32,
    /// `9.0` for an H200; CUDA only.
    pub compute_capability: Option<String>,
    /// `0000:18:00.0`, where it tells: joins a device with its health and tells one card from another.
    pub pci_address: Option<String>,
    /// Published dense int8 operations a second in units of 10^12, where known.
    pub peak_int8_tops: Option<f64>,
}

impl Device {
    /// `cuda:0`, as logs and metrics name it.
    pub fn label(&self) -> String {
        format!("{}:{}", self.kind, self.index)
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{} {} ({}, driver {})", self.kind, self.index, self.name, self.path, self.driver)
    }
}

/// A range of consecutive nonces to search.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SearchJob {
    /// The head to build on.
    pub prev_hash: Root,
    /// Whose attempts they are.
    pub miner: PublicKey,
    /// The miner's clock when the job was made.
    pub timestamp: Millis,
    /// The network's shape.
    pub shape: Shape,
    /// The first nonce; `first_nonce + count` is at most 2^53.
    pub first_nonce: Nonce,
    /// How many attempts, 1..=[`SEARCH_LIMIT`].
    pub count: u32,
    /// An attempt is a hit when its root, read as a ticket, is at most this.
    pub target: U256,
}

impl SearchJob {
    /// The `i`-th attempt; `None` at and past `count`, and past the last nonce.
    pub fn attempt(&self, i: u32) -> Option<Attempt> {
        if i >= self.count {
            return None;
        }
        let nonce = Nonce::new(self.first_nonce.get().checked_add(i.into())?)?;
        Some(Attempt { prev_hash: self.prev_hash, miner: self.miner, nonce, timestamp: self.timestamp, shape: self.shape })
    }

    /// Whether the job keeps its own bounds; every backend refuses one that does not.
    pub fn check(&self) -> Result<(), DeviceFault> {
        let last = u64::from(self.count).checked_sub(1).and_then(|d| self.first_nonce.get().checked_add(d)).and_then(Nonce::new);
        if self.count > SEARCH_LIMIT || last.is_none() {
            return Err(DeviceFault::Unsupported {
                what: format!("a search of {} attempts from nonce {}", self.count, self.first_nonce.get()),
            });
        }
        Ok(())
    }
}

/// What a search found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SearchReport {
    /// Every hit among the attempts that were done, in the order of nonces.
    pub hits: Vec<(Nonce, Root)>,
    /// How many attempts were done, from the first nonce on without a gap; less than the job's count when it was stopped.
    pub attempts_done: u32,
    /// How long the device itself computed: kernel time on a GPU, wall time on a CPU.
    pub busy: Duration,
}

/// Tells a running search to return early. Clones share one flag; looking at it costs a relaxed load.
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Not set.
    pub fn new() -> Self {
        Self::default()
    }
    /// Asks for an early return: a search finishes what it has launched and reports it.
    pub fn stop(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
    /// Whether an early return is asked for.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Why a device gave no answer. One sentence each, for an operator.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeviceFault {
    /// It does not do this: another device may. Nothing is wrong with it.
    #[error("not supported: {what}")]
    Unsupported {
        /// What was asked for.
        what: String,
    },
    /// Its memory does not hold a batch of this size; a smaller one may fit.
    #[error("out of memory: {detail}")]
    OutOfMemory {
        /// What was to be allocated, or the driver's words.
        detail: String,
    },
    /// It fell off the bus, its context is broken, or its driver went away.
    #[error("the device is lost: {detail}")]
    Lost {
        /// The driver's words.
        detail: String,
    },
    /// A kernel did not come back.
    #[error("the device has not answered for {waited_secs} s")]
    Hung {
        /// How long was waited.
        waited_secs: u64,
    },
    /// It computed something else than the reference does.
    #[error("wrong answer: {detail}")]
    WrongAnswer {
        /// What was compared.
        detail: String,
    },
    /// Any other failure of a driver call.
    #[error("{call} failed: {detail}")]
    Driver {
        /// The call.
        call: String,
        /// The driver's words.
        detail: String,
    },
}

impl DeviceFault {
    /// Whether the device should get no more work. After the others a smaller batch or another device will do.
    pub fn takes_out(&self) -> bool {
        match self {
            Self::Unsupported { .. } | Self::OutOfMemory { .. } => false,
            Self::Lost { .. } | Self::Hung { .. } | Self::WrongAnswer { .. } | Self::Driver { .. } => true,
        }
    }
}

/// A device that runs attempts.
pub trait Backend: Send + Sync {
    /// What it is.
    fn device(&self) -> &Device;

    /// The number of attempts that fills it once for this shape, at least 1: counts that are multiples of it waste nothing.
    fn batch_step(&self, shape: Shape) -> u32;

    /// Runs the job's attempts from its first nonce on, and reports every hit.
    ///
    /// It splits the job into launches of a few milliseconds as it likes, keeps the device fed between them, and looks at `stop`
    /// before each; once set, it returns what is done within about 10 ms. All scratch memory is bounded, also when every attempt hits.
    fn search(&self, job: &SearchJob, stop: &Stop) -> Result<SearchReport, DeviceFault>;

    /// The roots of attempts that may differ in everything, shapes too, in their order. At most [`ROOTS_LIMIT`].
    fn roots(&self, attempts: &[Attempt]) -> Result<Vec<Root>, DeviceFault>;

    /// The roots of attempts of the original's function (spec §2), in their order. At most [`ROOTS_LIMIT`].
    fn v1_roots(&self, attempts: &[AttemptV1]) -> Result<Vec<Root>, DeviceFault>;
}

/// What looking for devices of one kind gave.
#[derive(Default)]
pub struct Probe {
    /// Devices that are ready, each with its start-up self-check passed.
    pub found: Vec<Arc<dyn Backend>>,
    /// What was seen and not taken, or why nothing could be seen.
    pub passed_over: Vec<PassedOver>,
}

/// Something that could have been a device, and why it is not used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PassedOver {
    /// What would have driven it.
    pub kind: DeviceKind,
    /// Its number among the devices of its kind, where it got one.
    pub index: Option<u32>,
    /// Its name, where it has one.
    pub name: Option<String>,
    /// One sentence for an operator.
    pub reason: String,
    /// Whether it is there and ought to work, but could not be opened or failed its self-check: somebody should look at it.
    pub broken: bool,
}

/// Why a device that was looked at is not used.
pub(crate) struct Refusal {
    pub(crate) name: Option<String>,
    pub(crate) reason: String,
    pub(crate) broken: bool,
}

impl Refusal {
    /// A device that this build is not for.
    pub(crate) fn unfit(name: Option<String>, reason: impl Into<String>) -> Self {
        Self { name, reason: reason.into(), broken: false }
    }

    /// A device that ought to work.
    pub(crate) fn broken(name: Option<String>, reason: impl Into<String>) -> Self {
        Self { name, reason: reason.into(), broken: true }
    }
}

impl Probe {
    /// Notes what is not used.
    pub(crate) fn pass(&mut self, kind: DeviceKind, index: Option<u32>, refusal: Refusal) {
        let Refusal { name, reason, broken } = refusal;
        self.passed_over.push(PassedOver { kind, index, name, reason, broken });
    }

    /// Takes what `open` gives. A panic on the way is a fault of this one device: the others are opened all the same.
    pub(crate) fn open(
        &mut self,
        kind: DeviceKind,
        index: u32,
        name: Option<String>,
        open: impl FnOnce() -> Result<Arc<dyn Backend>, Refusal>,
    ) {
        match caught(open) {
            Ok(Ok(backend)) => self.found.push(backend),
            Ok(Err(refusal)) => self.pass(kind, Some(index), refusal),
            Err(words) => self.pass(kind, Some(index), Refusal::broken(name, format!("opening or checking it panicked: {words}"))),
        }
    }
}

/// Calls what may panic; the panic's words are the error. What `call` had borrowed must hold after a panic in the midst of it.
pub(crate) fn caught<T>(call: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(call)).map_err(|panic| {
        panic.downcast_ref::<String>().cloned().or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::CpuBackend;

    #[test]
    fn a_card_that_panics_is_broken_and_harms_no_other() {
        let mut probe = Probe::default();
        probe.open(DeviceKind::Cuda, 0, Some("a card".into()), || panic!("no such symbol: {}", "cuFoo"));
        probe.open(DeviceKind::Cuda, 1, None, || Err(Refusal::unfit(None, "too old")));
        probe.open(DeviceKind::Cuda, 2, None, || Ok(Arc::new(CpuBackend::new(Some(1)).unwrap())));
        let [first, second] = probe.passed_over.as_slice() else { panic!("{:?}", probe.passed_over) };
        assert!(first.broken && first.index == Some(0) && first.reason.contains("no such symbol: cuFoo"), "{first:?}");
        assert!(!second.broken && second.reason == "too old");
        assert_eq!(probe.found.len(), 1);
    }
}
