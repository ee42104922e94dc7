//! What a run came to.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::time::{Duration, Instant};

use tops_protocol::UnitId;

use super::member::Seen;

/// Ends of the delays that shares took.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// Honest nodes, and silent ones.
    pub nodes: (usize, usize),
    /// Shares that were public.
    pub shares: usize,
    /// How many arrivals there should have been: every share at every honest node but its own.
    pub expected: usize,
    /// How many there were, by gossip or by sync, until the end.
    pub delivered: usize,
    /// How many there were within a second.
    pub within_second: usize,
    /// Delays of those that came, sorted.
    pub delays: Vec<Duration>,
    /// Verdicts that came too late, of all nodes.
    pub late: u64,
    /// Messages that no node had room to look at.
    pub overflow: u64,
    /// Words of nodes that the range missed: with any, the figures are too low.
    pub missed: u64,
    /// Roots computed for audits, and how long one took.
    pub audits: (u64, Duration),
    /// Processor seconds for each second of mining.
    pub cores: f64,
    /// Resident memory of the process at the end, in bytes.
    pub memory: u64,
    /// Connections of an honest node, at least.
    pub connections_min: usize,
    /// Whether all honest nodes had one tip at the end.
    pub agreed: bool,
}

impl Report {
    /// From what each honest node saw of the shares that became public in this time: later ones were under way when the run ended.
    pub(super) fn count(&mut self, seen: &[Vec<Seen>], within: Range<Instant>) {
        let mut public: HashMap<UnitId, (usize, Instant)> = HashMap::new();
        for (node, list) in seen.iter().enumerate() {
            for own in list.iter().filter(|seen| seen.own && within.contains(&seen.at)) {
                public.insert(own.unit, (node, own.at));
            }
        }
        for (node, list) in seen.iter().enumerate() {
            let mut first: HashMap<UnitId, Instant> = HashMap::new();
            for other in list.iter().filter(|seen| !seen.own) {
                first.entry(other.unit).or_insert(other.at);
            }
            for (unit, at) in first {
                if let Some((miner, since)) = public.get(&unit)
                    && *miner != node
                {
                    self.delays.push(at.saturating_duration_since(*since));
                }
            }
        }
        self.delays.sort_unstable();
        self.shares = public.len();
        self.expected = public.len() * seen.len().saturating_sub(1);
        self.delivered = self.delays.len();
        self.within_second = self.delays.partition_point(|delay| *delay <= Duration::from_secs(1));
    }

    /// The part of arrivals that happened.
    pub fn delivery(&self) -> f64 {
        self.delivered as f64 / self.expected.max(1) as f64
    }

    /// The delay that so many of a hundred did not exceed.
    pub fn percentile(&self, percent: f64) -> Duration {
        let last = self.delays.len().saturating_sub(1);
        self.delays.get(((last as f64) * percent / 100.0).round() as usize).copied().unwrap_or_default()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |d: Duration| d.as_secs_f64() * 1e3;
        writeln!(
            f,
            "seed {}: {} honest nodes, {} silent, each with {} lines or more",
            self.seed, self.nodes.0, self.nodes.1, self.connections_min
        )?;
        writeln!(
            f,
            "| shares | arrivals | delivered | within 1 s | p50 ms | p90 ms | p99 ms | max ms | audit ms | late | overflow | cores | MB | one tip |"
        )?;
        writeln!(f, "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|")?;
        write!(
            f,
            "| {} | {} of {} | {:.3} % | {:.3} % | {:.1} | {:.1} | {:.1} | {:.1} | {:.2} | {} | {} | {:.2} | {} | {} |",
            self.shares,
            self.delivered,
            self.expected,
            100.0 * self.delivery(),
            100.0 * self.within_second as f64 / self.expected.max(1) as f64,
            ms(self.percentile(50.0)),
            ms(self.percentile(90.0)),
            ms(self.percentile(99.0)),
            ms(self.percentile(100.0)),
            ms(self.audits.1),
            self.late,
            self.overflow,
            self.cores,
            self.memory >> 20,
            if self.agreed { "yes" } else { "no" },
        )?;
        if self.missed > 0 {
            write!(f, "\n{} words of nodes were missed: the figures are too low", self.missed)?;
        }
        Ok(())
    }
}

/// Processor time of this process so far, and its resident memory in bytes.
pub(super) fn usage() -> anyhow::Result<(Duration, u64)> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let fields: Vec<u64> = after_name.split_whitespace().map(|field| field.parse().unwrap_or(0)).collect();
    // utime and stime are the 14th and 15th field of the line, in hundredths of a second; rss the 24th, in pages of 4 KiB.
    let at = |field: usize| fields.get(field - 3).copied().unwrap_or(0);
    Ok((Duration::from_millis(10 * (at(14) + at(15))), at(24) * 4096))
}
