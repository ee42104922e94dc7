//! What a run looks like.

use tops_protocol::NetworkSpec;
use tops_protocol::network::Fields;

/// Virtual time at which every run begins, milliseconds.
pub const START_MS: u64 = 1_800_000_000_000;
/// Seconds between heads, as on `main`.
pub const SPACING_SECS: u32 = 15;
/// Attempts that a head takes at genesis; a share takes a sixty-fourth of it.
pub const ATTEMPTS_PER_HEAD: f64 = 1_024.0;

/// What the adversaries do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// There are none.
    None,
    /// With every true share one with an invented root.
    Inventor,
    /// Good standing, then a burst of invented roots, then a new key.
    Rotation,
    /// Standing from shares on the oldest head that is taken, then invented roots on the tip.
    CheapOld,
    /// Others' shares under their own key.
    Copier,
    /// One unit with two roots, each for half of the network, heads above all.
    TwoRoots,
    /// Heads are withheld and shown when they hurt most.
    Withhold,
    /// Mines beside the others' tip instead of on it.
    Undercut,
    /// Stamps at the lower and the upper edge of what is allowed, head 1 in the past.
    Timestamps,
    /// Old messages again, and old shares in new clothes.
    Replay,
    /// Heads and shares on heads far below the tip.
    SideChains,
    /// All kinds of bad messages and of questions, and true alerts about fresh keys.
    Flood,
    /// Members of the mesh that forward nothing.
    Silent,
    /// One honest node knows nobody else, until it meets one honest node.
    Eclipse,
    /// A node starts among many that boast of a better chain.
    ColdBoot,
    /// A node starts among many that answer as slowly and as little as they can.
    SlowLoris,
    /// Honest nodes whose devices often fail and are slow.
    FaultyDevice,
    /// Well behaved at first; then all at once false and silent; then well behaved again.
    Flash,
}

/// One run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Where all chance comes from.
    pub seed: u64,
    /// Engines, adversaries among them.
    pub engines: usize,
    /// How long mining goes on, in heads at the spacing.
    pub heads: u64,
    /// What adversaries do.
    pub kind: Kind,
    /// Their part of the nodes.
    pub share_of_nodes: f64,
    /// Their part of the hash rate.
    pub share_of_rate: f64,
    /// Seconds after the start when the network falls apart in two halves, and when it heals.
    pub partition: Option<(u64, u64)>,
    /// A pause of all mining: seconds after the start, and how long.
    pub sleep: Option<(u64, u64)>,
    /// The part of shares that is audited under load, per million.
    pub audit_ppm: u32,
    /// Whether nodes audit only what they must, as if their devices were busy.
    pub only_drawn: bool,
    /// The rules.
    pub network: NetworkSpec,
}

/// The rules of `main` at the devnet shape, with targets so easy that a head takes about a thousand attempts, and the easiest sixteen times less.
pub fn network() -> NetworkSpec {
    let fields = Fields {
        m: 16,
        n: 256,
        k: 256,
        spacing_secs: SPACING_SECS,
        half_life_secs: 1_800,
        genesis_bits: 0x1f3f_ffff,
        easiest_bits: 0x2003_ffff,
        share_log2: 6,
        stale_window: 3,
        genesis_time_ms: START_MS,
    };
    match NetworkSpec::new(fields) {
        Ok(spec) => spec,
        Err(fault) => panic!("{fault}"),
    }
}

impl Plan {
    /// A run without adversaries.
    pub fn calm(seed: u64, engines: usize, heads: u64) -> Self {
        Self {
            seed,
            engines,
            heads,
            kind: Kind::None,
            share_of_nodes: 0.3,
            share_of_rate: 0.3,
            partition: None,
            sleep: None,
            audit_ppm: 100_000,
            only_drawn: false,
            network: network(),
        }
    }
    /// The same with adversaries, three in ten of nodes and of hash rate.
    pub fn against(seed: u64, engines: usize, heads: u64, kind: Kind) -> Self {
        Self { kind, ..Self::calm(seed, engines, heads) }
    }
    /// When mining ends, microseconds after the start.
    pub fn mining_us(&self) -> u64 {
        self.heads * u64::from(SPACING_SECS) * 1_000_000 + self.sleep.map_or(0, |(_, long)| long * 1_000_000)
    }
    /// Adversaries' nodes.
    pub fn adversaries(&self) -> usize {
        if self.kind == Kind::None { 0 } else { (self.engines as f64 * self.share_of_nodes).round() as usize }
    }
    /// Adversaries' part of the hash rate. Honest nodes with faulty devices mine as they did.
    pub fn rate(&self) -> f64 {
        if matches!(self.kind, Kind::None | Kind::FaultyDevice) { 0.0 } else { self.share_of_rate }
    }
}
