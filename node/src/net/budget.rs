//! A leaky bucket: so much at once, and so much a second for ever. What others do here is counted against one of these.

use std::time::{Duration, Instant};

/// A budget that refills by itself. Spending may overdraw it once; then nothing is left until the debt is paid.
#[derive(Debug, Clone)]
pub struct Budget {
    /// What it holds when full.
    burst: f64,
    per_sec: f64,
    left: f64,
    at: Instant,
}

impl Budget {
    /// A full one.
    pub fn new(burst: u32, per_sec: u32, now: Instant) -> Self {
        Self { burst: burst.into(), per_sec: per_sec.into(), left: burst.into(), at: now }
    }

    /// With only so much in it at first.
    pub fn starting_with(self, left: u32) -> Self {
        Self { left: f64::from(left).min(self.burst), ..self }
    }

    fn refill(&mut self, now: Instant) {
        let gone = now.saturating_duration_since(self.at).as_secs_f64();
        self.left = (self.left + gone * self.per_sec).min(self.burst);
        self.at = self.at.max(now);
    }

    /// Takes `amount` if anything is left.
    pub fn take(&mut self, amount: f64, now: Instant) -> bool {
        self.refill(now);
        let room = self.left > 0.0;
        if room {
            self.left -= amount;
        }
        room
    }

    /// Gives back what was spent on something useful.
    pub fn give_back(&mut self, amount: f64) {
        self.left = (self.left + amount).min(self.burst);
    }

    /// What is left, as a part of the whole; at most 0 when there is nothing.
    pub fn part_left(&mut self, now: Instant) -> f64 {
        self.refill(now);
        self.left / self.burst
    }

    /// How long until something is left.
    pub fn wait(&mut self, now: Instant) -> Duration {
        self.refill(now);
        if self.left > 0.0 { Duration::ZERO } else { Duration::from_secs_f64(((1.0 - self.left) / self.per_sec).min(3_600.0)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_much_at_once_and_so_much_a_second() {
        let now = Instant::now();
        let mut budget = Budget::new(10, 2, now);
        assert_eq!((0..20).filter(|_| budget.take(1.0, now)).count(), 10);
        assert!(budget.wait(now) > Duration::ZERO);
        let later = now + Duration::from_secs(3);
        assert_eq!((0..20).filter(|_| budget.take(1.0, later)).count(), 6);
        budget.give_back(100.0);
        assert!((budget.part_left(later) - 1.0).abs() < 1e-9, "never more than full");
    }

    #[test]
    fn one_overdraft_is_paid_before_anything_else() {
        let now = Instant::now();
        let mut budget = Budget::new(10, 10, now);
        assert!(budget.take(30.0, now) && !budget.take(1.0, now));
        assert!(!budget.take(1.0, now + Duration::from_secs(1)));
        let wait = budget.wait(now);
        assert!(budget.take(1.0, now + wait + Duration::from_secs(1)));
    }
}
