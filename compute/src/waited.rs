//! How long something was waited for, not counting the time for which this process itself stood still (SIGSTOP, a paused container, a
//! suspended machine): a device is not hung because nobody looked at it.

use std::time::{Duration, Instant};

/// A wait that is looked at regularly.
pub(crate) struct Waited {
    last: Instant,
    longest: Duration,
    total: Duration,
}

impl Waited {
    /// Begins now. Between two looks at most `longest` is counted: somewhat more than passes between them while the process runs.
    pub(crate) fn new(now: Instant, longest: Duration) -> Self {
        Self { last: now, longest, total: Duration::ZERO }
    }

    /// How long was waited until now.
    pub(crate) fn look(&mut self, now: Instant) -> Duration {
        self.total += now.saturating_duration_since(self.last).min(self.longest);
        self.last = now;
        self.total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_is_no_wait() {
        let (began, longest) = (Instant::now(), Duration::from_secs(1));
        let mut waited = Waited::new(began, longest);
        assert_eq!(waited.look(began + Duration::from_millis(400)), Duration::from_millis(400));
        assert_eq!(waited.look(began + Duration::from_secs(3600)), Duration::from_millis(1400));
        assert_eq!(waited.look(began + Duration::from_secs(3601)), Duration::from_millis(2400));
    }
}
