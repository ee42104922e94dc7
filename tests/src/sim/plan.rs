//! What a run looks like: how many nodes, how bad the wires are, who comes late, who crashes, when the network splits.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tops_protocol::NetworkSpec;
use tops_protocol::network::Fields;

/// Virtual time at which every run begins, milliseconds.
pub const START_MS: u64 = 1_800_000_000_000;

/// A split of the network.
#[derive(Debug, Clone)]
pub struct Split {
    /// When, milliseconds after the start.
    pub from_ms: u64,
    /// Until when.
    pub to_ms: u64,
    /// On which side each node is.
    pub side: Vec<bool>,
    /// Whether connections close, or only go silent.
    pub closes: bool,
}

/// One run. Times are milliseconds after the start.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Where all chance comes from.
    pub seed: u64,
    /// The rules.
    pub network: NetworkSpec,
    /// Engines.
    pub nodes: usize,
    /// How many of them mine: the first ones.
    pub miners: usize,
    /// Attempts a second of all miners together.
    pub attempts_per_sec: f64,
    /// Connections that each node opens to earlier ones, drawn at random.
    pub degree: usize,
    /// Connections between these, instead of random ones.
    pub links: Option<Vec<(usize, usize)>>,
    /// When mining stops.
    pub mining_ms: u64,
    /// How long everybody has to agree after that.
    pub settling_ms: u64,
    /// The part of gossip messages that is lost.
    pub loss: f64,
    /// The part that comes twice.
    pub twice: f64,
    /// The part of questions or answers that fail.
    pub failing: f64,
    /// The part of audits that no device can do.
    pub unable: f64,
    /// Delay of a message: from, to.
    pub delay_ms: (u64, u64),
    /// The largest clock error.
    pub skew_ms: u64,
    /// The split, if any.
    pub split: Option<Split>,
    /// Nodes that come late, and when.
    pub late: Vec<(usize, u64)>,
    /// Nodes that die, when, and for how long.
    pub crashes: Vec<(usize, u64, u64)>,
    /// Nodes with a bridge.
    pub bridges: Vec<usize>,
    /// Parts per million of shares that are audited at least.
    pub audit_ppm: u32,
}

/// Easy enough that sixteen attempts make a head and two make a share; genesis is the run's start.
pub fn network() -> NetworkSpec {
    let fields = Fields {
        m: 16,
        n: 256,
        k: 256,
        spacing_secs: 4,
        half_life_secs: 120,
        genesis_bits: 0x200f_ffff,
        easiest_bits: 0x203f_ffff,
        share_log2: 3,
        stale_window: 3,
        genesis_time_ms: START_MS,
    };
    match NetworkSpec::new(fields) {
        Ok(spec) => spec,
        Err(fault) => panic!("{fault}"),
    }
}

impl Plan {
    /// Twenty good nodes on good wires.
    pub fn calm(seed: u64) -> Self {
        Self {
            seed,
            network: network(),
            nodes: 20,
            miners: 8,
            attempts_per_sec: 4.0,
            degree: 3,
            links: None,
            mining_ms: 120_000,
            settling_ms: 60_000,
            loss: 0.0,
            twice: 0.0,
            failing: 0.0,
            unable: 0.0,
            delay_ms: (5, 80),
            skew_ms: 0,
            split: None,
            late: Vec::new(),
            crashes: Vec::new(),
            bridges: vec![0],
            audit_ppm: 1_000_000,
        }
    }

    /// Twenty nodes and more with loss, delay, duplicates, a late joiner, a partition longer than the stale window with miners on both
    /// sides, and in two seeds of three crashes.
    pub fn stormy(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed ^ 0x706c_616e);
        let nodes = rng.random_range(20..=24);
        let miners = rng.random_range(4..=10);
        let from_ms: u64 = rng.random_range(15_000..40_000);
        let closes = rng.random_bool(0.5);
        let part = rng.random_range(0.15..0.6);
        // The stale window is 3 heads of 4 s.
        let to_ms: u64 = from_ms + rng.random_range(30_000..50_000);
        let mut side: Vec<bool> = (0..nodes).map(|_| rng.random_bool(part)).collect();
        // A side that mines nothing has nothing to undo.
        if side[..miners].iter().all(|&of_miner| of_miner == side[0]) {
            side[miners - 1] = !side[0];
        }
        let split = Split { from_ms, to_ms, side, closes };
        let crashes = if seed.is_multiple_of(3) {
            Vec::new()
        } else {
            (0..rng.random_range(1..=4))
                .map(|_| (rng.random_range(0..nodes - 1), rng.random_range(5_000..110_000), rng.random_range(500..25_000)))
                .collect()
        };
        Self {
            nodes,
            miners,
            degree: rng.random_range(2..=4),
            settling_ms: 150_000,
            loss: rng.random_range(0.0..0.2),
            twice: rng.random_range(0.0..0.3),
            failing: rng.random_range(0.0..0.1),
            unable: if rng.random_bool(0.3) { 0.01 } else { 0.0 },
            delay_ms: (5, rng.random_range(50..900)),
            skew_ms: rng.random_range(0..2_000),
            split: Some(split),
            late: vec![(nodes - 1, rng.random_range(30_000..115_000))],
            crashes,
            bridges: (0..rng.random_range(1..=3)).map(|_| rng.random_range(0..nodes)).collect(),
            ..Self::calm(seed)
        }
    }
}
