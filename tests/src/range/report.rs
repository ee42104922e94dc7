//! What is counted while a run goes on, and what is said of it at the end.

use std::collections::{BTreeMap, HashMap, HashSet};

use tops_protocol::ledger::LedgerRow;
use tops_protocol::verify::share_weight;
use tops_protocol::{NetworkSpec, PublicKey, Root, U256, UnitId};

use super::node::Node;
use super::plan::{Kind, Plan};
use super::world::World;

/// The longest spread that is told apart, milliseconds; it is three bins of a second and more.
const SPREAD_MAX_MS: usize = 120_000;

/// A share of an honest miner.
struct Share {
    published_us: u64,
    /// Honest nodes that accepted it.
    nodes: u32,
}

/// Counters of a run.
pub(super) struct Measure {
    /// The honest node whose ledger is taken for everybody's; at the end they are compared.
    pub reference: u32,
    pub ledger: HashMap<PublicKey, LedgerRow>,
    watched: HashSet<PublicKey>,
    /// Units whose root was invented, and their keys.
    lies: HashMap<UnitId, PublicKey>,
    /// Keys of which an honest node saw a false root, or accepted one.
    liars: HashSet<PublicKey>,
    shares: Vec<Share>,
    index: HashMap<UnitId, u32>,
    /// Accepted honest shares by milliseconds since they were public.
    spread: Vec<u32>,
    /// Weights of shares that honest miners and adversaries found.
    found: [f64; 2],
    bans: HashMap<PublicKey, HashSet<u32>>,
    /// Nodes that cannot have everything: a victim, a newcomer.
    pub excluded: HashSet<u32>,
    pub refused: BTreeMap<&'static str, u64>,
    pub deepest: u64,
    pub inputs: u64,
    pub healed_at: Option<(u64, u64)>,
    pub agreed_after: Option<u64>,
    /// When a victim was freed or a newcomer started, and when it had the others' tip.
    pub freed_at_us: Option<u64>,
    pub returned_at_us: Option<u64>,
    /// Penalties and lost connections: honest nodes', adversaries'.
    penalised: [u64; 2],
    dropped: [u64; 2],
}

impl Measure {
    pub fn new(_plan: &Plan, nodes: &[Node]) -> Self {
        let reference = nodes.iter().position(|node| !node.adversary && !node.light).unwrap_or(0) as u32;
        Self {
            reference,
            ledger: HashMap::new(),
            watched: nodes.iter().filter(|node| node.adversary).map(|node| node.miner).collect(),
            lies: HashMap::new(),
            liars: HashSet::new(),
            shares: Vec::new(),
            index: HashMap::new(),
            spread: vec![0; SPREAD_MAX_MS + 1],
            found: [0.0; 2],
            bans: HashMap::new(),
            excluded: HashSet::new(),
            refused: BTreeMap::new(),
            deepest: 0,
            inputs: 0,
            healed_at: None,
            agreed_after: None,
            freed_at_us: None,
            returned_at_us: None,
            penalised: [0; 2],
            dropped: [0; 2],
        }
    }
    pub fn watch(&mut self, key: PublicKey) {
        self.watched.insert(key);
    }
    pub fn is_watched(&self, key: &PublicKey) -> bool {
        self.watched.contains(key)
    }
    /// A key signed an invented root for a unit that has no other.
    pub fn lied(&mut self, unit: UnitId, key: PublicKey) {
        self.lies.insert(unit, key);
    }
    pub fn found(&mut self, network: &NetworkSpec, share_target: U256, adversary: Option<()>) {
        self.found[usize::from(adversary.is_some())] += number(share_weight(share_target, network.shape().ops()));
    }
    pub fn published(&mut self, node: u32, unit: UnitId, now_us: u64) {
        if self.excluded.contains(&node) {
            return;
        }
        self.index.insert(unit, self.shares.len() as u32);
        self.shares.push(Share { published_us: now_us, nodes: 1 });
    }
    pub fn accepted(&mut self, node: u32, unit: &UnitId, now_us: u64) {
        if let Some(liar) = self.lies.get(unit) {
            self.liars.insert(*liar);
        }
        let Some(share) = self.index.get(unit).and_then(|at| self.shares.get_mut(*at as usize)) else { return };
        if self.excluded.contains(&node) {
            return;
        }
        share.nodes += 1;
        let took_ms = (now_us.saturating_sub(share.published_us) / 1_000) as usize;
        self.spread[took_ms.min(SPREAD_MAX_MS)] += 1;
    }
    pub fn banned(&mut self, node: u32, miner: PublicKey) {
        self.bans.entry(miner).or_default().insert(node);
        if self.is_watched(&miner) {
            self.liars.insert(miner);
        }
    }
    pub fn penalised(&mut self, adversary: bool) {
        self.penalised[usize::from(adversary)] += 1;
    }
    pub fn dropped(&mut self, adversary: bool) {
        self.dropped[usize::from(adversary)] += 1;
    }
    /// The spread within which this part of the accepted came, milliseconds.
    fn quantile(&self, part: f64) -> u64 {
        let all: u64 = self.spread.iter().map(|n| u64::from(*n)).sum();
        let mut left = (all as f64 * part).ceil() as u64;
        for (ms, n) in self.spread.iter().enumerate() {
            if left <= u64::from(*n) {
                return ms as u64;
            }
            left -= u64::from(*n);
        }
        SPREAD_MAX_MS as u64
    }
}

/// Credit as a plain number, for ratios.
fn number(value: U256) -> f64 {
    value.as_limbs().iter().rev().fold(0.0, |sum, limb| sum * 2f64.powi(64) + *limb as f64)
}

/// What is said of one run.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Report {
    /// Its seed.
    pub seed: u64,
    /// What the adversaries did.
    pub kind: Kind,
    /// Engines.
    pub engines: usize,
    /// Heads of the main chain at the end.
    pub heads: u64,
    /// Heads that were found and are not on it.
    pub off_main: u64,
    /// Shares, heads among them, that honest miners published.
    pub shares: u64,
    /// Of these times honest nodes, how many were accepted.
    pub delivered: u64,
    /// … and how many should have been.
    pub due: u64,
    /// Milliseconds from publishing to acceptance: the middle.
    pub p50_ms: u64,
    /// Ninety-nine of a hundred.
    pub p99_ms: u64,
    /// The longest.
    pub max_ms: u64,
    /// Bans of honest keys, by node.
    pub honest_banned: u64,
    /// Keys of which an honest node saw a false root, or accepted one.
    pub liars: u64,
    /// Bans of keys that lied, by node.
    pub liars_banned: u64,
    /// Nodes times such keys where the key has credit at the end.
    pub liars_credited: u64,
    /// What adversaries earned for each share that they found, against honest miners; 0: the same.
    pub gain: f64,
    /// The adversaries' part of all credit.
    pub credit_part: f64,
    /// The adversaries' part of all found work.
    pub found_part: f64,
    /// Whether all honest nodes end with one head.
    pub one_head: bool,
    /// Whether they end with one ledger.
    pub one_ledger: bool,
    /// Heads after healing until all honest nodes had one tip.
    pub agreed_after_heads: Option<u64>,
    /// Seconds from the first honest peer until the victim or newcomer had the others' tip.
    pub returned_secs: Option<f64>,
    /// The deepest reorganisation at an honest node.
    pub deepest: u64,
    /// Penalties of honest nodes by honest nodes, and lost connections.
    pub honest_penalised: u64,
    /// Connections to honest nodes that honest nodes closed for their score.
    pub honest_dropped: u64,
    /// Likewise to adversaries.
    pub adversaries_dropped: u64,
    /// Refusals of stage 3 at honest nodes.
    pub refused: BTreeMap<&'static str, u64>,
    /// Inputs that engines took.
    pub inputs: u64,
}

pub(super) fn report(world: &World) -> Report {
    let m = &world.measure;
    let honest: Vec<(u32, &Node)> =
        world.nodes.iter().enumerate().map(|(i, node)| (i as u32, node)).filter(|(_, node)| node.alive && !node.adversary).collect();
    let counted = honest.iter().filter(|(i, _)| !m.excluded.contains(i)).count() as u64;
    let reference = &world.nodes[m.reference as usize];
    let mut at = reference.tip;
    let mut main = HashSet::new();
    while at != world.plan.network.genesis() {
        main.insert(at);
        match world.heads.get(&at) {
            Some(found) => at = found.parent,
            None => break,
        }
    }
    let views: Vec<(Root, [u8; 32])> =
        honest.iter().map(|(_, node)| node.engine.view()).map(|view| (view.tip, view.ledger_digest)).collect();
    let mut credit = [0.0; 2];
    for (miner, row) in &m.ledger {
        credit[usize::from(m.is_watched(miner))] += number(row.credit);
    }
    let efficiency = |side: usize| if m.found[side] > 0.0 { credit[side] / m.found[side] } else { 0.0 };
    let gain = if m.found[1] > 0.0 && efficiency(0) > 0.0 { efficiency(1) / efficiency(0) - 1.0 } else { 0.0 };
    let part = |of: [f64; 2]| if of[0] + of[1] > 0.0 { of[1] / (of[0] + of[1]) } else { 0.0 };
    let liars_credited = m
        .liars
        .iter()
        .map(|key| honest.iter().filter(|(_, node)| node.credit.get(key).is_some_and(|credit| !credit.is_zero())).count() as u64);
    Report {
        seed: world.plan.seed,
        kind: world.plan.kind,
        engines: world.plan.engines,
        heads: main.len() as u64,
        off_main: (world.heads.len() as u64 - 1).saturating_sub(main.len() as u64),
        shares: m.shares.len() as u64,
        delivered: m.shares.iter().map(|share| u64::from(share.nodes)).sum(),
        due: m.shares.len() as u64 * counted,
        p50_ms: m.quantile(0.5),
        p99_ms: m.quantile(0.99),
        max_ms: m.quantile(1.0),
        honest_banned: m.bans.iter().filter(|(key, _)| !m.is_watched(key)).map(|(_, by)| by.len() as u64).sum(),
        liars: m.liars.len() as u64,
        liars_banned: m.bans.iter().filter(|(key, _)| m.liars.contains(key)).map(|(_, by)| by.len() as u64).sum(),
        liars_credited: liars_credited.sum(),
        gain,
        credit_part: part(credit),
        found_part: part(m.found),
        one_head: views.iter().all(|view| view.0 == views[0].0),
        one_ledger: views.iter().all(|view| view.1 == views[0].1),
        agreed_after_heads: m.agreed_after,
        returned_secs: m.freed_at_us.zip(m.returned_at_us).map(|(from, to)| (to - from) as f64 / 1e6),
        deepest: m.deepest,
        honest_penalised: m.penalised[0],
        honest_dropped: m.dropped[0],
        adversaries_dropped: m.dropped[1],
        refused: m.refused.clone(),
        inputs: m.inputs,
    }
}

/// Many runs together.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct Summary {
    /// Runs.
    pub runs: u64,
    /// Shares that honest miners published.
    pub shares: u64,
    /// The part of acceptances that are due and came.
    pub delivery: f64,
    /// The worst run's.
    pub worst_delivery: f64,
    /// The median run's middle spread, milliseconds.
    pub p50_ms: u64,
    /// The median run's ninety-ninth of a hundred.
    pub p99_ms: u64,
    /// The worst run's.
    pub worst_p99_ms: u64,
    /// Heads off the main chain, of all found.
    pub forks: f64,
    /// Bans of honest keys, all nodes and runs.
    pub honest_banned: u64,
    /// Keys of which an honest node saw a false root, or accepted one.
    pub liars: u64,
    /// Nodes times keys that lied where there is credit at the end.
    pub liars_credited: u64,
    /// The mean of the runs' gains …
    pub gain: f64,
    /// … and its standard error.
    pub gain_error: f64,
    /// Runs that did not end with one head.
    pub split: u64,
    /// Runs that did not end with one ledger.
    pub ledgers_differ: u64,
    /// The most heads after healing until all agreed; `None` when some run never did, or nothing was healed.
    pub agreed_after_heads: Option<u64>,
    /// The longest return, seconds; `None` when some run's never did, or nobody was to return.
    pub returned_secs: Option<f64>,
    /// The deepest reorganisation.
    pub deepest: u64,
}

impl Summary {
    /// Sums up.
    pub fn of(runs: &[Report]) -> Self {
        if runs.is_empty() {
            return Self::default();
        }
        let n = runs.len() as f64;
        let sum = |of: fn(&Report) -> u64| runs.iter().map(of).sum::<u64>();
        let middle = |of: fn(&Report) -> u64| {
            let mut all: Vec<u64> = runs.iter().map(of).collect();
            all.sort_unstable();
            all[(all.len() - 1) / 2]
        };
        let delivery = |run: &Report| if run.due == 0 { 1.0 } else { run.delivered as f64 / run.due as f64 };
        let gain = runs.iter().map(|run| run.gain).sum::<f64>() / n;
        let variance = runs.iter().map(|run| (run.gain - gain).powi(2)).sum::<f64>() / (n - 1.0).max(1.0);
        let off = sum(|run| run.off_main);
        Self {
            runs: runs.len() as u64,
            shares: sum(|run| run.shares),
            delivery: sum(|run| run.delivered) as f64 / (sum(|run| run.due) as f64).max(1.0),
            worst_delivery: runs.iter().map(delivery).fold(1.0, f64::min),
            p50_ms: middle(|run| run.p50_ms),
            p99_ms: middle(|run| run.p99_ms),
            worst_p99_ms: runs.iter().map(|run| run.p99_ms).max().unwrap_or_default(),
            forks: off as f64 / ((off + sum(|run| run.heads)) as f64).max(1.0),
            honest_banned: sum(|run| run.honest_banned),
            liars: sum(|run| run.liars),
            liars_credited: sum(|run| run.liars_credited),
            gain,
            gain_error: (variance / n).sqrt(),
            split: sum(|run| u64::from(!run.one_head)),
            ledgers_differ: sum(|run| u64::from(!run.one_ledger)),
            agreed_after_heads: runs
                .iter()
                .map(|run| run.agreed_after_heads)
                .collect::<Option<Vec<_>>>()
                .and_then(|all| all.into_iter().max()),
            returned_secs: runs
                .iter()
                .map(|run| run.returned_secs)
                .collect::<Option<Vec<_>>>()
                .map(|all| all.into_iter().fold(0.0, f64::max)),
            deepest: runs.iter().map(|run| run.deepest).max().unwrap_or_default(),
        }
    }
}
