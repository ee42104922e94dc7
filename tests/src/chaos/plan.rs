//! What happens when: everything drawn from one seed before anything starts, so that a run can be told by its seed.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// Seconds at the end in which nothing happens any more, out of this many parts of the run.
const QUIET_PART: u64 = 6;

/// Something that happens to hosts, by number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The hosts that are named hear only one another, for so many seconds.
    Split {
        /// Them.
        east: Vec<usize>,
        /// How long.
        secs: u64,
    },
    /// A host's wire is cut for so many seconds.
    Cut {
        /// Whose.
        host: usize,
        /// How long.
        secs: u64,
    },
    /// kill -9, and a new start so much later.
    Kill {
        /// Whom.
        host: usize,
        /// How long it is away, milliseconds.
        down_ms: u64,
    },
    /// kill -9 and everything on its disk is lost, but its key.
    Cold {
        /// Whom.
        host: usize,
        /// How long it is away, milliseconds.
        down_ms: u64,
    },
}

/// Which hosts are there, by number.
#[derive(Debug, Clone)]
pub struct Cast {
    /// Rendezvous.
    pub gates: Vec<usize>,
    /// Miners.
    pub miners: Vec<usize>,
    /// Light nodes.
    pub lights: Vec<usize>,
    /// The aggregator.
    pub aggregator: usize,
}

impl Cast {
    /// Everybody who speaks on the peers' network.
    pub fn all(&self) -> Vec<usize> {
        [&self.gates[..], &self.miners, &self.lights].concat()
    }
}

/// What happens in a run of `secs` seconds, in order: milliseconds after the start, and what.
pub fn draw(seed: u64, secs: u64, cast: &Cast) -> Vec<(u64, Event)> {
    let mut rng = StdRng::seed_from_u64(seed);
    let until = secs - (secs / QUIET_PART).clamp(10, 60);
    let all = cast.all();
    let mut events = Vec::new();

    // Splits and cuts, one after the other.
    let mut at = 10;
    while at + 12 < until {
        let secs = rng.random_range(8..=(until / 6).clamp(10, 45)).min(until - at);
        if rng.random_bool(0.7) {
            let mut east: Vec<usize> = all.iter().copied().filter(|_| rng.random_bool(0.5)).collect();
            if east.is_empty() || east.len() == all.len() {
                east = vec![all[0]];
            }
            if rng.random_bool(0.5) {
                east.push(cast.aggregator);
            }
            events.push((at * 1_000, Event::Split { east, secs }));
        } else {
            let host = all[rng.random_range(0..all.len())];
            events.push((at * 1_000, Event::Cut { host, secs }));
        }
        at += secs + rng.random_range(6..=20);
    }

    // One host is away for a third of the time.
    let late = cast.miners[cast.miners.len() - 1];
    events.push((until * 1_000 / 4, Event::Kill { host: late, down_ms: until * 1_000 / 3 }));

    // Kills in a loop, all the time.
    let mut at = 8_000;
    while at < until * 1_000 {
        let victims: Vec<usize> = all.iter().copied().filter(|host| *host != late).collect();
        let host = victims[rng.random_range(0..victims.len())];
        let down_ms = rng.random_range(300..=5_000);
        let cold = cast.lights.contains(&host) && rng.random_bool(0.4);
        events.push((at, if cold { Event::Cold { host, down_ms } } else { Event::Kill { host, down_ms } }));
        at += rng.random_range(3_000..=9_000);
    }
    events.sort_by_key(|(at, _)| *at);
    events
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_a_run_and_every_run_has_everything() {
        let cast = Cast { gates: vec![0, 1], miners: vec![2, 3, 4, 5, 6, 7, 8], lights: vec![9, 10], aggregator: 11 };
        for seed in 0..20 {
            let events = draw(seed, 600, &cast);
            assert_eq!(events, draw(seed, 600, &cast));
            let has = |what: fn(&Event) -> bool| events.iter().any(|(_, event)| what(event));
            assert!(has(|e| matches!(e, Event::Split { .. })) && has(|e| matches!(e, Event::Kill { .. })));
            assert!(events.iter().all(|(at, _)| *at < 540_000), "the end is quiet");
            assert!(events.iter().filter(|(_, e)| matches!(e, Event::Kill { .. } | Event::Cold { .. })).count() > 50);
        }
    }
}
