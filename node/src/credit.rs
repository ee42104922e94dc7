//! What this node's ledger credits by the second: to this node's own key and to the whole network, over the same windows as the hash rate.
//!
//! A share counts as the attempts that it stands for, by the share target of the moment. It is an estimate for people and for comparing what a
//! device claims with what the network credited; the ledger itself is exact and elsewhere. Shares that sync brings late are not a rate
//! and are left out.

use std::collections::{BTreeMap, VecDeque};

use tops_protocol::UnitId;

/// The longest window, seconds.
const WINDOW_SECS: u64 = 900;
/// A share older than this at its acceptance came by sync.
pub const FRESH_MS: u64 = 60_000;
/// Fresh shares that are remembered until their audit; of one beyond it a later audit is not seen in these figures.
const OPEN_MAX: usize = 4_096;

/// Shares and the attempts that they stand for, a second.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Rate {
    /// Shares accepted.
    pub shares: f64,
    /// Of these, recomputed here.
    pub audited_shares: f64,
    /// Attempts that the accepted ones stand for.
    pub attempts: f64,
    /// Attempts that the recomputed ones stand for.
    pub audited_attempts: f64,
}

/// Over three windows.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Rates {
    /// Over ten seconds.
    pub secs_10: Rate,
    /// Over a minute.
    pub secs_60: Rate,
    /// Over a quarter of an hour.
    pub mins_15: Rate,
}

/// Both sides.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Credited {
    /// To this node's own key.
    pub own: Rates,
    /// To everybody.
    pub network: Rates,
}

#[derive(Debug, Clone, Copy, Default)]
struct Second {
    at: u64,
    own: Rate,
    network: Rate,
}

/// Sums by second, for a quarter of an hour.
#[derive(Debug, Default)]
pub struct Meter {
    seconds: VecDeque<Second>,
    open: BTreeMap<UnitId, (u64, bool, f64)>,
}

fn add(rate: &mut Rate, attempts: f64) {
    rate.shares += 1.0;
    rate.attempts += attempts;
}

fn audit(rate: &mut Rate, attempts: f64) {
    rate.audited_shares += 1.0;
    rate.audited_attempts += attempts;
}

impl Meter {
    /// A fresh share was accepted in the second `at` since the start.
    pub fn accepted(&mut self, at: u64, unit: UnitId, own: bool, audited: bool, attempts: f64) {
        if self.seconds.back().is_none_or(|last| last.at != at) {
            self.seconds.push_back(Second { at, ..Second::default() });
        }
        while self.seconds.front().is_some_and(|first| first.at + WINDOW_SECS < at) {
            self.seconds.pop_front();
        }
        if let Some(second) = self.seconds.back_mut() {
            add(&mut second.network, attempts);
            if own {
                add(&mut second.own, attempts);
            }
        }
        self.open.retain(|_, (since, ..)| *since + WINDOW_SECS >= at);
        if audited {
            self.recomputed(at, own, attempts);
        } else if self.open.len() < OPEN_MAX {
            self.open.insert(unit, (at, own, attempts));
        }
    }

    /// A share that was accepted without a look proved true.
    pub fn confirmed(&mut self, unit: &UnitId) {
        if let Some((at, own, attempts)) = self.open.remove(unit) {
            self.recomputed(at, own, attempts);
        }
    }

    /// It counts in the second of its acceptance, so that the audited part never exceeds the whole.
    fn recomputed(&mut self, at: u64, own: bool, attempts: f64) {
        if let Some(second) = self.seconds.iter_mut().rev().find(|second| second.at == at) {
            audit(&mut second.network, attempts);
            if own {
                audit(&mut second.own, attempts);
            }
        }
    }

    /// The rates in the second `now` since the start. The running second is not over: only whole ones count.
    pub fn rates(&self, now: u64) -> Credited {
        let over = |window: u64, side: fn(&Second) -> &Rate| {
            let window = window.min(now);
            let mut sum = Rate::default();
            for rate in self.seconds.iter().filter(|s| s.at < now && s.at + window >= now).map(side) {
                sum.shares += rate.shares;
                sum.audited_shares += rate.audited_shares;
                sum.attempts += rate.attempts;
                sum.audited_attempts += rate.audited_attempts;
            }
            let secs = window.max(1) as f64;
            Rate {
                shares: sum.shares / secs,
                audited_shares: sum.audited_shares / secs,
                attempts: sum.attempts / secs,
                audited_attempts: sum.audited_attempts / secs,
            }
        };
        let rates = |side| Rates { secs_10: over(10, side), secs_60: over(60, side), mins_15: over(WINDOW_SECS, side) };
        Credited { own: rates(|s| &s.own), network: rates(|s| &s.network) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn audited_credit_is_part_of_the_credit_of_its_own_second() {
        let mut meter = Meter::default();
        for at in 0..20_u8 {
            meter.accepted(u64::from(at), UnitId([at; 32]), at % 2 == 0, at % 2 == 0, 8.0);
        }
        let before = meter.rates(20);
        assert_eq!((before.network.secs_10.attempts, before.network.secs_10.audited_attempts), (8.0, 4.0));
        assert_eq!((before.own.secs_10.attempts, before.own.secs_10.audited_attempts), (4.0, 4.0));
        assert_eq!(before.network.mins_15.shares, 1.0, "the window is no longer than the run");
        meter.confirmed(&UnitId([11; 32]));
        meter.confirmed(&UnitId([11; 32]));
        meter.confirmed(&UnitId([1; 32]));
        let after = meter.rates(20);
        assert_eq!(after.network.secs_10.audited_shares, 0.6, "once, and only what lies in the window");
        assert_eq!(after.network.secs_10.shares, before.network.secs_10.shares);
        assert_eq!(after.own, before.own);
        assert_eq!(meter.rates(20 + WINDOW_SECS + 1), Credited::default());
    }

    #[test]
    fn its_memory_is_bounded() {
        let mut meter = Meter::default();
        for i in 0..20_000_u64 {
            let mut unit = [0; 32];
            unit[..8].copy_from_slice(&i.to_le_bytes());
            meter.accepted(i / 4, UnitId(unit), false, false, 1.0);
        }
        assert!(meter.open.len() <= OPEN_MAX && meter.seconds.len() <= WINDOW_SECS as usize + 1);
    }
}
