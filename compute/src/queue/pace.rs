//! What a lane has learned of its device: how fast it is, and how soon its search makes way. Jobs are routed by these estimates, and a
//! lane that gets no jobs learns little: so no single call may spoil them.

use std::time::{Duration, Instant};

use tops_protocol::{Attempt, Millis, Nonce, PublicKey, Root, Shape};

use super::jobs::Place;
use crate::backend::{Backend, DeviceKind, caught};

/// What a GPU call costs beside its operations.
const GPU_CALL: f64 = 0.5e-3;
/// A call that takes so many times what calls cost says something of the device.
const LONG_CALL: f64 = 10.0;
/// For how long a mining device is expected to keep urgent work waiting, before it was seen to.
const FIRST_YIELD: f64 = 10e-3;
/// The longest that one search counts for when it makes way: a busy machine has moments that say nothing of the device.
const YIELD_MOST: f64 = 250e-3;
/// Operations a second of the reference on one core, wherever it runs: how much of it makes a portion.
const REFERENCE_RATE: f64 = 5e9;
/// More cores than a thin attempt has rows do not help it.
const REFERENCE_CORES: usize = 16;
/// Operations a second that a device is expected to do, when nobody has measured and before it was seen to.
const FIRST_RATE: [(DeviceKind, f64); 3] = [(DeviceKind::Cpu, 2e10), (DeviceKind::Cuda, 1e14), (DeviceKind::OpenCl, 1e12)];
/// How much of an estimate the latest call makes.
const SHARE: f64 = 0.3;
/// One call counts as at most so many times slower or faster than expected: a first one also makes weights.
const SLOWER: f64 = 4.0;
const FASTER: f64 = 8.0;
/// The shape by which a processor is timed: 67 MOP, a millisecond where it has vector units, some ten on a core without.
const TIMED: (u32, u32, u32) = (16, 1024, 1024);

/// Estimates of one device.
pub(super) struct Pace {
    kind: DeviceKind,
    /// Operations a second, moving average.
    rate: f64,
    /// Seconds from asking a search to stop to its return, moving average.
    yields_in: f64,
    /// Operations a second of the reference on this machine.
    reference: f64,
}

impl Pace {
    /// Begins with a measured rate where there is one.
    pub(super) fn new(kind: DeviceKind, rate: Option<f64>) -> Self {
        let expected = FIRST_RATE.iter().find(|(first, _)| *first == kind).map_or(1e10, |(_, rate)| *rate);
        Self {
            kind,
            rate: rate.filter(|rate| rate.is_finite() && *rate > 0.0).unwrap_or(expected),
            yields_in: FIRST_YIELD,
            reference: REFERENCE_RATE * rayon::current_num_threads().min(REFERENCE_CORES) as f64,
        }
    }

    /// Operations a second.
    pub(super) fn rate(&self, place: Place) -> f64 {
        if place == Place::Reference { self.reference } else { self.rate }
    }

    /// Seconds that a call costs whatever is in it.
    pub(super) fn call(&self) -> f64 {
        if self.kind == DeviceKind::Cpu { 0.0 } else { GPU_CALL }
    }

    /// Seconds until a search that is asked to stop has returned.
    pub(super) fn yields_in(&self) -> f64 {
        self.yields_in
    }

    /// Learns from a call. One that is short beside what calls cost says more of the call than of the device: it only raises the estimate.
    pub(super) fn learn(&mut self, ops: f64, elapsed: Duration) {
        let secs = elapsed.as_secs_f64().max(1e-6);
        let rate = ops / secs;
        if rate > self.rate || secs >= LONG_CALL * self.call() {
            self.rate += SHARE * (rate.clamp(self.rate / SLOWER, self.rate * FASTER) - self.rate);
        }
    }

    /// Learns how long a search took to make way.
    pub(super) fn learn_yield(&mut self, took: Duration) {
        self.yields_in += SHARE * (took.as_secs_f64().min(YIELD_MOST) - self.yields_in);
    }
}

/// Operations a second of a processor, by two roots of a small shape: the first one makes the weights, the second is timed. `None` for
/// other devices, which are measured by the tuner, and for one that fails: its first job will say so.
pub(super) fn timed(backend: &dyn Backend) -> Option<f64> {
    let (m, n, k) = TIMED;
    let shape = Shape::new(m, n, k).filter(|_| backend.device().kind == DeviceKind::Cpu)?;
    let nonce = Nonce::new(0)?;
    let attempt = Attempt { prev_hash: Root([0; 32]), miner: PublicKey([2; 33]), nonce, timestamp: Millis(0), shape };
    let root = || caught(|| backend.roots(&[attempt])).ok()?.ok();
    root()?;
    let began = Instant::now();
    root()?;
    Some(shape.ops() as f64 / began.elapsed().as_secs_f64().max(1e-6))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::CpuBackend;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_gpus_rate_is_learned_in_both_directions_from_long_calls() {
        let mut pace = Pace::new(DeviceKind::Cuda, None);
        (0..40).for_each(|_| pace.learn(1e12, SECOND));
        assert!((0.9e12..1.1e12).contains(&pace.rate(Place::Any)), "{}", pace.rate(Place::Any));
        (0..40).for_each(|_| pace.learn(1e13, SECOND));
        assert!((0.9e13..1.1e13).contains(&pace.rate(Place::Any)), "{}", pace.rate(Place::Any));
        // An audit of one attempt takes a GPU about as long as a call costs, and says nothing of how fast it is.
        (0..40).for_each(|_| pace.learn(4e6, Duration::from_micros(600)));
        assert!(pace.rate(Place::Any) > 0.9e13);
        assert_eq!(Pace::new(DeviceKind::Cuda, Some(3e13)).rate(Place::Any), 3e13);
        assert!(Pace::new(DeviceKind::Cuda, Some(f64::NAN)).rate(Place::Any) > 0.0);
    }

    #[test]
    fn one_bad_call_spoils_no_estimate() {
        let mut pace = Pace::new(DeviceKind::Cpu, Some(1e11));
        pace.learn(1e6, 100 * SECOND);
        assert!(pace.rate(Place::Any) > 0.7e11);
        pace.learn(1e18, Duration::ZERO);
        assert!(pace.rate(Place::Any) < 4e11);
        pace.learn_yield(100 * SECOND);
        assert!(pace.yields_in() < 0.1);
        (0..10).for_each(|_| pace.learn_yield(Duration::from_millis(5)));
        assert!(pace.yields_in() < 0.01);
    }

    #[test]
    fn a_processor_is_timed_before_its_first_job() {
        let rate = timed(&CpuBackend::new(Some(1)).unwrap()).unwrap();
        assert!(rate.is_finite() && rate > 0.0);
    }
}
