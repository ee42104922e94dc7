//! Where nodes are and how long a message takes between them.
//!
//! Eight regions with the usual round trips between data centres of the big clouds; a last mile of its own for every node (most in data centres, one in
//! four at home); and queueing on top of every message.

use rand::Rng;
use rand::rngs::StdRng;

/// Regions: US east, US west, São Paulo, Europe west, Europe east, Singapore, Tokyo, Sydney.
pub const REGIONS: usize = 8;

/// Round trips in milliseconds.
const RTT_MS: [[u64; REGIONS]; REGIONS] = [
    [4, 64, 115, 78, 105, 220, 160, 200],
    [64, 4, 175, 140, 165, 170, 105, 140],
    [115, 175, 6, 185, 210, 330, 260, 310],
    [78, 140, 185, 6, 32, 165, 215, 260],
    [105, 165, 210, 32, 8, 190, 240, 285],
    [220, 170, 330, 165, 190, 5, 70, 95],
    [160, 105, 260, 215, 240, 70, 5, 105],
    [200, 140, 310, 260, 285, 95, 105, 6],
];

/// Part of nodes in each region, in percent.
const CROWD: [u32; REGIONS] = [24, 16, 4, 22, 12, 8, 10, 4];

/// A node's place.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    region: usize,
    last_mile_us: u64,
}

/// A place drawn at random.
pub fn settle(rng: &mut StdRng) -> Place {
    let mut at = rng.random_range(0..CROWD.iter().sum::<u32>());
    let mut region = 0;
    while at >= CROWD[region] {
        at -= CROWD[region];
        region += 1;
    }
    let last_mile_us = if rng.random_ratio(1, 4) { rng.random_range(4_000..20_000) } else { rng.random_range(200..2_000) };
    Place { region, last_mile_us }
}

/// A time with this mean, exponential.
pub fn exponential_us(rng: &mut StdRng, mean_us: f64) -> u64 {
    (-mean_us * (1.0 - rng.random::<f64>()).ln()) as u64
}

/// One way from one place to another.
pub fn delay_us(a: Place, b: Place, rng: &mut StdRng) -> u64 {
    let half = RTT_MS[a.region][b.region] * 500;
    // A millisecond of queues and one part in twenty of the way, and once in fifty a packet is sent again.
    let again = if rng.random_ratio(1, 50) { 2 * half + 10_000 } else { 0 };
    half + a.last_mile_us + b.last_mile_us + exponential_us(rng, 1_000.0 + half as f64 / 20.0) + again
}
