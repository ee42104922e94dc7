//! Whole runs: a network under load, and one node that only adversaries surround.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::bail;
use rand::rngs::StdRng;
use rand::seq::index::sample;
use rand::{Rng, SeedableRng};
use tops_compute::queue::{LaneSpec, Queue, QueueOptions};
use tops_node::verifier::Verdicts;

use super::adversary::Silent;
use super::device::Remembering;
use super::member::{Ground, Member, network};
use super::pace::Pace;
use super::report::{Report, usage};
use super::wires::{Weather, Wires};

/// Nodes that mine, at most: the others only take part.
const MINERS_MAX: usize = 20;
/// How long nodes have to find each other.
const GATHER_WITHIN: Duration = Duration::from_secs(120);
/// Meshes form and change for a while after the last node came.
const WARM: Duration = Duration::from_secs(8);
/// How long nodes have until they have the lines that they want: walks of the table open many, which are given up again.
const CALM_WITHIN: Duration = Duration::from_secs(180);
/// Lines that are opened or closed in a second by each node, at most, when it is calm.
const CALM: f64 = 0.1;

/// A network under load.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Nodes, silent ones too.
    pub nodes: usize,
    /// The part of them that is silent.
    pub silent: f64,
    /// Shares a second of the whole network.
    pub rate: f64,
    /// Whether they come at equal distances; otherwise as independent miners find them, several at once now and then.
    pub even: bool,
    /// How long shares come.
    pub mining: Duration,
    /// How long they have to arrive after that, at most.
    pub settling: Duration,
    /// The wires, with the seed of everything.
    pub weather: Weather,
    /// From when on, and for how long, half of the nodes are cut off from the others.
    pub cut: Option<(Duration, Duration)>,
    /// Hears how far the run is.
    pub tell: fn(&str),
}

fn ground(weather: Weather) -> anyhow::Result<Ground> {
    static NETWORKS: AtomicU64 = AtomicU64::new(0);
    let base = NETWORKS.fetch_add(1, Ordering::Relaxed) << 32;
    let device = Arc::new(Remembering::new()?);
    let lane = LaneSpec { backend: device.clone(), mines: false, batch: None, rate: Some(1e10) };
    let queue = Arc::new(Queue::start(vec![lane], QueueOptions::default(), drop)?);
    Ok(Ground { spec: network()?, wires: Wires::new(weather), device, queue, verdicts: Verdicts::default(), base })
}

/// Some earlier nodes.
fn earlier(node: u32, chance: &mut StdRng) -> Vec<u32> {
    let all = node as usize;
    sample(chance, all, all.min(3)).into_iter().map(|other| other as u32).collect()
}

/// Waits until each is connected to so many nodes.
async fn gathered(members: &[Member], wanted: usize) -> anyhow::Result<()> {
    let began = Instant::now();
    loop {
        let fewest = members.iter().map(Member::nodes).min().unwrap_or(0);
        if fewest >= wanted {
            return Ok(());
        }
        if began.elapsed() > GATHER_WITHIN {
            bail!("the nodes did not find each other: one has only {fewest} lines and not {wanted}");
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Waits until few lines come and go, but not for ever. `false`: they still do.
async fn calm(members: &[Member]) -> bool {
    let began = Instant::now();
    let changes = || members.iter().map(|m| m.counter("connections_opened") + m.counter("connections_closed")).sum::<u64>();
    let mut before = changes();
    while began.elapsed() < CALM_WITHIN {
        tokio::time::sleep(WARM / 2).await;
        let now = changes();
        if ((now - before) as f64) < CALM * (WARM / 2).as_secs_f64() * members.len() as f64 {
            return true;
        }
        before = now;
    }
    false
}

/// Waits until all have the same tip and the same shares, and do a second later.
async fn settled(members: &[Member], patience: Duration) {
    let (began, mut alike) = (Instant::now(), 0);
    while began.elapsed() < patience && alike < 3 {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let views: Vec<_> = members.iter().filter_map(|m| m.shared.view()).map(|v| (v.engine.tip, v.engine.ledger_digest)).collect();
        let same = views.len() == members.len() && views.windows(2).all(|pair| pair[0] == pair[1]);
        alike = if same { alike + 1 } else { 0 };
    }
}

/// libp2p's timers have one thread in a process, which every message of every node wakes twice. At the lowest priority it takes many at once
/// instead of interrupting two hundred nodes for each.
fn demote_timers() {
    let named = |task: &Path| std::fs::read_to_string(task.join("comm")).is_ok_and(|name| name.trim() == "futures-timer");
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten().map(|task| task.path());
    for id in tasks.filter(|task| named(task)).filter_map(|task| task.file_name().map(OsStr::to_owned)) {
        // Without it the run is only slower.
        let _ = Command::new("renice").args(["-n", "19", "-p"]).arg(id).stdout(Stdio::null()).status();
    }
}

/// Runs the plan.
///
/// # Errors
/// When the nodes do not find each other, or one of them ends.
pub async fn run(plan: Plan) -> anyhow::Result<Report> {
    let seed = plan.weather.seed;
    let mut chance = StdRng::seed_from_u64(seed);
    let ground = ground(plan.weather.clone())?;
    let silent_ones = (plan.nodes as f64 * plan.silent).round() as usize;
    let honest = plan.nodes.saturating_sub(silent_ones);
    if honest < 2 {
        bail!("at least two nodes must be honest");
    }
    // Which of the numbers are silent: drawn, but for the first, whom everybody may call.
    let mut is_silent = vec![false; plan.nodes];
    for at in sample(&mut chance, plan.nodes - 1, silent_ones) {
        is_silent[at + 1] = true;
    }
    let (mut members, mut silent) = (Vec::new(), Vec::new());
    for (node, is_silent) in (0u32..).zip(&is_silent) {
        let bootstrap = earlier(node, &mut chance);
        if *is_silent {
            silent.push(Silent::start(&ground, node, &bootstrap)?);
        } else {
            members.push(Member::start(&ground, node, &bootstrap, members.len() < MINERS_MAX)?);
        }
        // A few at a time: a real network does not come up in one instant either.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    demote_timers();
    let began = Instant::now();
    gathered(&members, (plan.nodes - 1).min(8)).await?;
    (plan.tell)(&format!("{honest} nodes have found each other; their lines have {CALM_WITHIN:?} to come to rest"));
    let miners: Vec<_> = members.iter().filter_map(|m| Some((m.shared.clone(), m.hits.clone()?))).collect();
    let pace = |rate, seed| Pace { spec: ground.spec.clone(), device: Arc::clone(&ground.device), rate, even: plan.even, seed };
    // Nodes that hear nothing look for others, so there is something to hear.
    let warming = tokio::spawn(pace(plan.rate / 4.0, seed ^ 1).run(miners.clone(), 2 * CALM_WITHIN));
    tokio::time::sleep(WARM).await;
    let rest = if calm(&members).await { "are at rest" } else { "still come and go, and are counted as they are," };
    warming.abort();
    (plan.tell)(&format!("lines {rest} after {:.0} s; shares come for {:?}", began.elapsed().as_secs_f64(), plan.mining));

    let (cpu_before, _) = usage()?;
    let began = Instant::now();
    let cutter = plan.cut.map(|(from, for_how_long)| {
        let wires = Arc::clone(&ground.wires);
        let side: Vec<bool> = (0..plan.nodes).map(|_| chance.random()).collect();
        tokio::spawn(async move {
            tokio::time::sleep(from).await;
            wires.cut(Some(side));
            tokio::time::sleep(for_how_long).await;
            wires.cut(None);
        })
    });
    pace(plan.rate, seed).run(miners, plan.mining).await?;
    let until = Instant::now();
    let (cpu_after, _) = usage()?;
    if let Some(cutter) = cutter {
        cutter.await?;
    }
    settled(&members, plan.settling).await;

    let (_, memory) = usage()?;
    let tips: Vec<_> = members.iter().filter_map(|m| m.shared.view().map(|view| view.engine.tip)).collect();
    let sum = |name: &str| members.iter().map(|m| m.counter(name)).sum();
    let mut report = Report {
        seed,
        nodes: (honest, silent.len()),
        late: sum("gossip_late_verdicts"),
        overflow: sum("gossip_overflow"),
        audits: ground.device.audits(),
        cores: (cpu_after - cpu_before).as_secs_f64() / (until - began).as_secs_f64(),
        memory,
        connections_min: members.iter().map(Member::nodes).min().unwrap_or(0),
        agreed: tips.len() == members.len() && tips.windows(2).all(|pair| pair[0] == pair[1]),
        ..Report::default()
    };
    silent.into_iter().for_each(Silent::stop);
    let mut seen = Vec::new();
    for ended in futures::future::join_all(members.into_iter().map(Member::stop)).await {
        let (list, missed) = ended?;
        report.missed += missed;
        seen.push(list);
    }
    report.count(&seen, began..until);
    Ok(report)
}

/// One node that only adversaries surround, until an honest one comes.
#[derive(Debug, Clone)]
pub struct Eclipse {
    /// Honest nodes of the network that the victim does not know.
    pub honest: usize,
    /// Silent nodes that surround the victim.
    pub adversaries: usize,
    /// Whether the victim calls the honest node (one of its bootstrap addresses comes to life) or is called by it.
    pub calls: bool,
    /// How long the victim stays surrounded.
    pub surrounded: Duration,
    /// The wires.
    pub weather: Weather,
}

/// How the victim came back.
#[derive(Debug, Clone)]
pub struct Returned {
    /// Lines of the victim when it was surrounded, all of them to adversaries.
    pub lines: usize,
    /// Shares that it had heard of then.
    pub heard_before: u64,
    /// How long after the honest node came it had the network's tip.
    pub tip_after: Option<Duration>,
    /// And how long until it took a share that was found later.
    pub share_after: Option<Duration>,
}

/// Runs it.
///
/// # Errors
/// When the nodes do not find each other, or one of them ends.
pub async fn eclipse(plan: Eclipse, patience: Duration) -> anyhow::Result<Returned> {
    let ground = ground(plan.weather.clone())?;
    let mut chance = StdRng::seed_from_u64(plan.weather.seed);
    let honest = u32::try_from(plan.honest)?;
    let (victim, saviour) = (honest, honest + 1);
    let first_adversary = honest + 2;
    let adversaries: Vec<u32> = (first_adversary..first_adversary + u32::try_from(plan.adversaries)?).collect();
    let mut members = Vec::new();
    for node in 0..honest {
        members.push(Member::start(&ground, node, &earlier(node, &mut chance), (node as usize) < MINERS_MAX)?);
    }
    gathered(&members, plan.honest.saturating_sub(1).min(6)).await?;
    // The adversaries know one another and the victim, and nobody else.
    let mut silent = Vec::new();
    for (at, node) in adversaries.iter().enumerate() {
        let mut bootstrap: Vec<u32> = adversaries[..at].iter().rev().take(3).copied().collect();
        bootstrap.push(victim);
        silent.push(Silent::start(&ground, *node, &bootstrap)?);
    }
    let mut knows: Vec<u32> = adversaries.iter().take(8).copied().collect();
    if plan.calls {
        knows.push(saviour);
    }
    let eclipsed = Member::start(&ground, victim, &knows, false)?;
    let miners = members.iter().filter_map(|m| Some((m.shared.clone(), m.hits.clone()?))).collect();
    let pace = Pace { spec: ground.spec.clone(), device: Arc::clone(&ground.device), rate: 10.0, even: false, seed: plan.weather.seed };
    let pacing = tokio::spawn(pace.run(miners, plan.surrounded + patience + Duration::from_secs(30)));
    gathered(std::slice::from_ref(&eclipsed), plan.adversaries.min(16)).await?;
    tokio::time::sleep(plan.surrounded).await;
    let (lines, heard_before) = (eclipsed.nodes(), eclipsed.counter("shares_accepted"));

    let came = Instant::now();
    let mut bootstrap: Vec<u32> = (0..honest).take(3).collect();
    if !plan.calls {
        bootstrap.push(victim);
    }
    members.push(Member::start(&ground, saviour, &bootstrap, false)?);
    let (mut tip_after, mut share_after, mut at_tip) = (None, None, 0);
    while came.elapsed() < patience && share_after.is_none() {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let tip = |member: &Member| member.shared.view().map(|view| view.engine.tip);
        let shares = eclipsed.counter("gossip_accepted");
        if tip_after.is_none()
            && tip(&eclipsed).is_some()
            && tip(&eclipsed) == tip(&members[0])
            && eclipsed.counter("shares_accepted") > heard_before
        {
            (tip_after, at_tip) = (Some(came.elapsed()), shares);
        }
        if tip_after.is_some() && shares > at_tip {
            share_after = Some(came.elapsed());
        }
    }
    pacing.abort();
    silent.into_iter().for_each(Silent::stop);
    members.push(eclipsed);
    for ended in futures::future::join_all(members.into_iter().map(Member::stop)).await {
        ended?;
    }
    Ok(Returned { lines, heard_before, tip_after, share_after })
}
