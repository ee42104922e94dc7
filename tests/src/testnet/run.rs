//! One run: measure, write the network, start everything, watch, stop mining, judge, stop.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::process::Command;
use tops_protocol::network::Fields;
use tops_protocol::target::Bits;
use tops_protocol::{NetworkSpec, U256};

use super::checks;
use super::outage::{self, Outage};
use super::process::{Binaries, Process, first_line, free_port, on_core};

/// Seconds between heads: short, so that a minute shows many.
const SPACING_SECS: u32 = 2;
/// The part of the measured rate that miners get; the rest is for gossip, audits and the conductor.
const MINING_PART: f64 = 0.5;
/// Everybody reports one head within this time after mining stopped.
pub(super) const AGREE_WITHIN: Duration = Duration::from_secs(5);
/// And the bridge has delivered what is deep enough within this time after that.
const DRAIN_WITHIN: Duration = Duration::from_secs(10);
/// How long killed nodes stay down: longer than the stale window in expectation, so that they miss what no gossip brings again.
const DOWN_SECS: u64 = (2 * STALE_WINDOW * SPACING_SECS) as u64;
/// What a node lists is flushed within this time.
const FLUSHED_WITHIN: Duration = Duration::from_millis(500);
/// Heads below the tip down to which gossip takes shares.
const STALE_WINDOW: u32 = 3;
/// A process ends within this time after SIGTERM.
const STOP_WITHIN: Duration = Duration::from_secs(10);
/// A process is reachable within this time after its start.
const START_WITHIN: Duration = Duration::from_secs(30);

/// What happens in the middle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Scenario {
    /// Nothing.
    Plain,
    /// kill -9 of the last miner and of the light node, and a restart.
    Kill,
    /// The aggregator is killed, and while it is away: kill -9 of a bridging node, and a full disk at another one.
    Outage,
}

/// How to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Processes of the network: a bootstrap node, a verify-only node, and miners.
    pub nodes: usize,
    /// How long to mine; `None`: until Ctrl-C.
    pub seconds: Option<u64>,
    /// Where the summary goes.
    pub summary: Option<PathBuf>,
    /// What computes.
    pub backend: String,
    /// Whether data and logs stay.
    pub keep: bool,
    /// The programs.
    pub binaries: Binaries,
    /// What happens in the middle.
    pub scenario: Scenario,
    /// How many miners deliver to the aggregator; in an outage at least two.
    pub bridges: usize,
    /// Whether other machines may join: then rendezvous and nodes listen on every address of this one, else on loopback alone.
    pub lan: bool,
    /// Seconds of [`Scenario::Outage`] without the aggregator.
    pub outage: u64,
}

/// What came of it.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    /// Nothing failed.
    pub ok: bool,
    /// What failed, a sentence each.
    pub failures: Vec<String>,
    /// Seconds of mining.
    pub seconds: f64,
    /// Attempts a second of this machine, as measured before.
    pub measured_attempts_per_second: f64,
    /// The one-off network.
    pub network: Value,
    /// Heads of the main chain.
    pub heads: u64,
    /// Heads a minute.
    pub heads_per_minute: f64,
    /// Milliseconds from the end of mining until every node told the same head and ledger; `None`: never.
    pub agreed_after_ms: Option<u64>,
    /// By node: role, head, heads, shares, audited, rejected by reason, age of receipts when accepted.
    pub nodes: BTreeMap<String, Value>,
    /// Own shares that miners had flushed, by node.
    pub acknowledged: BTreeMap<String, u64>,
    /// Milliseconds between a receipt's stamp and its acceptance at other nodes: median and 99th percentile over the worst node. A
    /// stamp is that of the search's beginning, so that a search's length is inside.
    pub receipt_age_ms: Value,
    /// Units that the aggregator has.
    pub delivered: u64,
    /// Deliveries that it had already.
    pub delivered_again: u64,
    /// What it refused, by reason.
    pub delivery_refused: BTreeMap<String, u64>,
    /// Milliseconds that each process took to stop.
    pub stopped_after_ms: BTreeMap<String, u64>,
}

/// A node under watch.
pub(super) struct Watched {
    pub(super) name: String,
    pub(super) miner: bool,
    pub(super) bridges: bool,
    pub(super) url: String,
    pub(super) process: Option<Process>,
    pub(super) arguments: Vec<String>,
    core: usize,
    log: PathBuf,
}

/// Everything that runs.
pub(super) struct Yard {
    pub(super) nodes: Vec<Watched>,
    pub(super) http: reqwest::Client,
    pub(super) aggregator: String,
    /// The file of the rendezvous' addresses, one a line.
    bootstrap: PathBuf,
    gate: Option<Process>,
    pub(super) receiver: Option<Process>,
    pub(super) binaries: Binaries,
}

/// A JSON answer.
pub(crate) async fn get(http: &reqwest::Client, url: &str) -> anyhow::Result<Value> {
    let response = http.get(url).send().await.with_context(|| format!("asking {url}"))?;
    let status = response.status();
    let body: Value = response.json().await.with_context(|| format!("reading {url}"))?;
    if !status.is_success() {
        bail!("{url}: {status}: {body}");
    }
    Ok(body)
}

/// Runs a testnet and judges it. An error is the conductor's own; a failed check is in the summary.
///
/// # Errors
/// When something cannot be started or reached.
pub async fn conduct(options: Options) -> anyhow::Result<Summary> {
    if options.nodes < 3 {
        bail!("a testnet has at least 3 nodes: a bootstrap node, a miner, and a verify-only node");
    }
    let dir = tempfile::Builder::new().prefix("tops-testnet-").tempdir().context("making a directory for data and logs")?;
    let mut options = options;
    if options.scenario == Scenario::Outage {
        options.bridges = options.bridges.max(2);
        if options.nodes < 4 || options.seconds.is_some_and(|seconds| seconds < options.outage + 40) {
            bail!("an outage takes at least 4 nodes, and 40 seconds more than the aggregator is away");
        }
    }
    let outcome = in_directory(&options, dir.path()).await;
    outage::release(dir.path());
    if options.keep || !outcome.as_ref().is_ok_and(|summary| summary.ok) {
        println!("data and logs stay in {}", dir.keep().display());
    } else {
        dir.close().context("removing data and logs")?;
    }
    outcome
}

async fn in_directory(options: &Options, dir: &Path) -> anyhow::Result<Summary> {
    println!("measuring this machine …");
    let rate = measure(&options.binaries, &options.backend).await?;
    let (network, file) = network(rate, dir)?;
    let numbers = numbers(&network)?;
    println!("{rate:.0} attempts/s; network {} with a head every {SPACING_SECS} s in expectation", network.tag());

    let mut yard = start(options, dir, &file, &network).await?;
    let mut stop = Box::pin(tokio::signal::ctrl_c());
    for node in &yard.nodes {
        println!("{:<8} API {}  log {}", node.name, node.url, node.log.display());
    }
    println!("aggregator {}", yard.aggregator);
    // By now every address of this machine has its line; others are told those that they can reach.
    let addresses = std::fs::read_to_string(&yard.bootstrap).with_context(|| format!("reading {}", yard.bootstrap.display()))?;
    for address in addresses.lines().filter(|line| !line.is_empty() && (!options.lan || !line.contains("/ip4/127."))) {
        println!("to join     cargo run --release -p tops-node -- --network {numbers} --bootstrap {address}");
    }
    if !options.lan {
        println!("            from this machine; with --lan others may join too");
    }

    let began = Instant::now();
    let mut seconds = tokio::time::interval(Duration::from_secs(1));
    seconds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut interrupted = false;
    let mut killed = false;
    let mut before_kill = checks::Flushed::new();
    let mut outage = (options.scenario == Scenario::Outage).then(|| Outage::new(dir, options.outage));
    loop {
        tokio::select! {
            _ = seconds.tick() => {}
            _ = &mut stop => { interrupted = true; break; }
        }
        let elapsed = began.elapsed().as_secs();
        println!("{}", yard.line(elapsed).await);
        yard.all_alive()?;
        if options.seconds.is_some_and(|limit| elapsed >= limit) {
            break;
        }
        let third = options.seconds.unwrap_or(60) / 3;
        if options.scenario == Scenario::Kill && !killed && elapsed >= third {
            killed = true;
            before_kill = yard.kill_two().await?;
        }
        if let Some(outage) = &mut outage {
            outage.step(&mut yard, elapsed, &mut before_kill).await?;
        }
        if killed && elapsed >= third + DOWN_SECS && yard.nodes.iter().any(|node| node.process.is_none()) {
            yard.restart().await?;
        }
    }
    let mined = began.elapsed();
    let mut failures = Vec::new();
    if interrupted && options.seconds.is_none() {
        println!("stopping …");
    }
    if let Some(outage) = outage {
        failures.extend(outage.end(&mut yard).await?);
    }
    let agreed = yard.stop_mining().await?;
    yard.drain(if options.scenario == Scenario::Outage { outage::DRAIN_WITHIN } else { DRAIN_WITHIN }).await;
    let mut summary = Summary {
        ok: false,
        failures: Vec::new(),
        seconds: mined.as_secs_f64(),
        measured_attempts_per_second: rate,
        network: json!({ "id": network.id().to_hex(), "file": std::fs::read_to_string(&file).unwrap_or_default() }),
        heads: 0,
        heads_per_minute: 0.0,
        agreed_after_ms: agreed,
        nodes: BTreeMap::new(),
        acknowledged: BTreeMap::new(),
        receipt_age_ms: Value::Null,
        delivered: 0,
        delivered_again: 0,
        delivery_refused: BTreeMap::new(),
        stopped_after_ms: BTreeMap::new(),
    };
    if let Err(fault) = checks::judge(&yard, options, &before_kill, &mut summary, &mut failures).await {
        failures.push(format!("{fault:#}"));
    }
    summary.heads_per_minute = summary.heads as f64 * 60.0 / mined.as_secs_f64();
    yard.stop(&mut summary, &mut failures).await;
    checks::logs(dir, &mut failures);
    summary.ok = failures.is_empty();
    summary.failures = failures;
    if let Some(path) = &options.summary {
        std::fs::write(path, serde_json::to_string_pretty(&summary)?).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(summary)
}

/// Attempts a second of the chosen backend at the devnet shape.
pub(crate) async fn measure(binaries: &Binaries, backend: &str) -> anyhow::Result<f64> {
    let output = Command::new(binaries.path("tops-node"))
        .args(["bench", "--json", "--network", "dev", "--seconds", "2", "--backend", backend])
        .output()
        .await
        .context("starting tops-node bench")?;
    if !output.status.success() {
        bail!("tops-node bench failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    let report: Value = serde_json::from_slice(&output.stdout).context("reading the report of tops-node bench")?;
    report["attempts_per_second"].as_f64().filter(|rate| *rate >= 1.0).context("tops-node bench tells no rate")
}

/// A network of this run: its difficulty for this machine, its genesis now.
pub(crate) fn network(rate: f64, dir: &Path) -> anyhow::Result<(NetworkSpec, PathBuf)> {
    let attempts = (rate * MINING_PART * f64::from(SPACING_SECS)).max(64.0) as u64;
    let target = |attempts: u64| U256::MAX / U256::from(attempts.max(4));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is before 1970")?;
    let fields = Fields {
        m: 16,
        n: 256,
        k: 256,
        spacing_secs: SPACING_SECS,
        half_life_secs: 30,
        genesis_bits: Bits::from_target(target(attempts)).get(),
        easiest_bits: Bits::from_target(target(attempts / 64)).get(),
        share_log2: 3,
        stale_window: STALE_WINDOW,
        genesis_time_ms: u64::try_from(now.as_millis())?,
    };
    let spec = NetworkSpec::new(fields)?;
    let mut text = String::from("name = \"testnet\"\n");
    for (key, value) in serde_json::to_value(fields)?.as_object().into_iter().flatten() {
        text.push_str(&format!("{key} = {value}\n"));
    }
    let path = dir.join("network.toml");
    std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    Ok((spec, path))
}

/// The network's numbers as `--network` takes them.
fn numbers(network: &NetworkSpec) -> anyhow::Result<String> {
    let fields = serde_json::to_value(network.fields())?;
    let order =
        ["m", "n", "k", "spacing_secs", "half_life_secs", "genesis_bits", "easiest_bits", "share_log2", "stale_window", "genesis_time_ms"];
    Ok(order.map(|key| fields[key].to_string()).join(","))
}

async fn start(options: &Options, dir: &Path, file: &Path, network: &NetworkSpec) -> anyhow::Result<Yard> {
    let http = reqwest::Client::builder().timeout(Duration::from_secs(5)).build()?;
    let text = |path: &Path| path.display().to_string();

    let addr = dir.join("aggregator.addr");
    let mut command = Command::new(options.binaries.path("tops-aggregator"));
    command.args(["--listen", "127.0.0.1:0", "--network", &network.tag().to_hex(), "--addr-file", &text(&addr)]);
    command.args(["--journal", &text(&dir.join(outage::JOURNAL))]);
    let receiver = Process::start("aggregator", &dir.join("aggregator.log"), command)?;
    let aggregator = format!("http://{}", first_line(&addr, START_WITHIN).await?);

    let listen = if options.lan { "/ip4/0.0.0.0/tcp/0" } else { "/ip4/127.0.0.1/tcp/0" };
    let addr = dir.join("bootstrap.addr");
    let mut command = Command::new(options.binaries.path("tops-bootstrap"));
    command.args(["--network", &text(file), "--listen", listen, "--key-file", &text(&dir.join("bootstrap.key"))]);
    command.args(["--addr-file", &text(&addr)]);
    let gate = Process::start("bootstrap", &dir.join("bootstrap.log"), command)?;
    let bootstrap = first_line(&addr, START_WITHIN).await?;

    let mut yard = Yard {
        nodes: Vec::new(),
        http,
        aggregator,
        bootstrap: addr,
        gate: Some(gate),
        receiver: Some(receiver),
        binaries: options.binaries.clone(),
    };
    let miners = options.nodes - 2;
    for i in 1..=miners + 1 {
        let miner = i <= miners;
        let bridges = miner && i <= options.bridges;
        let name = if miner { format!("miner{i}") } else { "light".to_owned() };
        let port = free_port()?;
        let data = dir.join(&name);
        let mut arguments = vec![
            "--network".to_owned(),
            text(file),
            "--bootstrap".into(),
            bootstrap.clone(),
            "--listen".into(),
            listen.into(),
            "--data-dir".into(),
            text(&data),
            "--http".into(),
            format!("127.0.0.1:{port}"),
            "--device-did".into(),
            format!("did:testnet:{name}"),
        ];
        if miner {
            arguments.extend(["--backend".into(), options.backend.clone(), "--target-ms".into(), "100".into()]);
        } else {
            arguments.push("--verify-only".into());
        }
        if bridges {
            arguments.extend(["--aggregator-url".into(), format!("{}/verify?from={name}", yard.aggregator)]);
        }
        let (url, log) = (format!("http://127.0.0.1:{port}"), dir.join(format!("{name}.log")));
        yard.nodes.push(Watched { name, miner, bridges, url, process: None, arguments, core: i - 1, log });
    }
    if options.scenario == Scenario::Outage {
        outage::give_disk(&dir.join(&yard.nodes[outage::FULL].name))?;
    }
    yard.restart().await?;
    Ok(yard)
}

impl Yard {
    /// Starts every node that does not run, and waits until it answers.
    pub(super) async fn restart(&mut self) -> anyhow::Result<()> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        for node in self.nodes.iter_mut().filter(|node| node.process.is_none()) {
            let program = self.binaries.path("tops-node");
            let mut command = if node.miner { on_core(node.core % cores, &program) } else { Command::new(program) };
            command.args(&node.arguments);
            node.process = Some(Process::start(&node.name, &node.log, command)?);
        }
        let began = Instant::now();
        for node in &self.nodes {
            while get(&self.http, &format!("{}/v1/status", node.url)).await.is_err() {
                if began.elapsed() > START_WITHIN {
                    bail!("{} does not answer: see {}", node.name, node.log.display());
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        Ok(())
    }

    fn all_alive(&mut self) -> anyhow::Result<()> {
        let nodes = self.nodes.iter_mut().filter_map(|node| node.process.as_mut());
        for process in nodes.chain(&mut self.gate).chain(&mut self.receiver) {
            if let Some(status) = process.ended()? {
                bail!("{} ended with {status}: see {}", process.name, process.log.display());
            }
        }
        Ok(())
    }

    async fn status(&self) -> Vec<Option<Value>> {
        let urls: Vec<String> = self.nodes.iter().map(|node| format!("{}/v1/status", node.url)).collect();
        let mut all = Vec::new();
        for url in urls {
            all.push(get(&self.http, &url).await.ok());
        }
        all
    }

    /// One line for people.
    async fn line(&self, elapsed: u64) -> String {
        let all = self.status().await;
        let number =
            |path: &'static str| all.iter().map(move |s| s.as_ref().and_then(|s| s.pointer(path)).and_then(Value::as_f64).unwrap_or(0.0));
        let heights: Vec<String> = number("/tip/height").map(|h| format!("{h:.0}")).collect();
        let peers: Vec<String> = number("/nodes").map(|n| format!("{n:.0}")).collect();
        format!(
            "{elapsed:>4} s  heights {}  peers {}  {:.0} attempts/s  shares {:.0}  audited by the light node {:.0}  delivered {:.0}  rejected {:.0}",
            heights.join(" "),
            peers.join(" "),
            number("/hash_rate/attempts_per_second_10s").sum::<f64>(),
            number("/shares").fold(0.0, f64::max),
            number("/counters/shares_audited").next_back().unwrap_or(0.0),
            number("/outbox/delivered").sum::<f64>(),
            number("/counters/receipts_rejected").sum::<f64>(),
        )
    }

    /// The last miner and the light node.
    fn victims(&self) -> impl Iterator<Item = usize> {
        let miner = self.nodes.iter().rposition(|node| node.miner);
        let light = self.nodes.iter().position(|node| !node.miner);
        miner.into_iter().chain(light)
    }

    /// The names of those that a scenario kills.
    pub(super) fn killed(&self, scenario: Scenario) -> Vec<&str> {
        let victims: Vec<usize> = match scenario {
            Scenario::Plain => Vec::new(),
            Scenario::Kill => self.victims().collect(),
            Scenario::Outage => vec![outage::KILLED, outage::FULL],
        };
        victims.into_iter().map(|i| self.nodes[i].name.as_str()).collect()
    }

    /// kill -9 of the last miner and the light node. Gives what they had flushed by then.
    async fn kill_two(&mut self) -> anyhow::Result<checks::Flushed> {
        let victims: Vec<usize> = self.victims().collect();
        let mut before = checks::Flushed::new();
        for &i in &victims {
            before.insert(i, checks::flushed(self, i).await?);
        }
        tokio::time::sleep(FLUSHED_WITHIN).await;
        println!("       kill -9 of {}", self.killed(Scenario::Kill).join(" and "));
        for i in victims {
            if let Some(mut process) = self.nodes[i].process.take() {
                process.kill().await?;
            }
        }
        Ok(before)
    }

    /// Pauses every miner; gives how long it took until all nodes told one head and one ledger.
    async fn stop_mining(&self) -> anyhow::Result<Option<u64>> {
        for node in self.nodes.iter().filter(|node| node.miner) {
            let url = format!("{}/v1/mining", node.url);
            let answer = self.http.post(&url).json(&json!({ "paused": true })).send().await.with_context(|| format!("asking {url}"))?;
            if !answer.status().is_success() {
                bail!("{url}: {}", answer.status());
            }
        }
        let began = Instant::now();
        let mut since: Option<(u64, Value)> = None;
        // Agreement counts from its beginning, once it has held for a second: a last hit may be on its way.
        while began.elapsed() < AGREE_WITHIN + Duration::from_secs(3) {
            let now = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
            let all = self.status().await;
            let shown: Vec<Value> =
                all.iter().map(|s| s.as_ref().map_or(Value::Null, |s| json!([s["tip"]["root"], s["ledger_digest"]]))).collect();
            let one = shown.first().filter(|first| !first.is_null() && shown.iter().all(|other| other == *first)).cloned();
            since = match (since, one) {
                (Some((at, what)), Some(one)) if what == one => Some((at, what)),
                (_, Some(one)) => Some((now, one)),
                (_, None) => None,
            };
            if since.as_ref().is_some_and(|(at, _)| now > at + 1_000) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(since.map(|(at, _)| at).filter(|at| u128::from(*at) <= AGREE_WITHIN.as_millis()))
    }

    /// Waits until no node has anything due at the aggregator.
    async fn drain(&self, within: Duration) {
        let began = Instant::now();
        while began.elapsed() < within {
            let all = self.status().await;
            if all.iter().flatten().all(|s| s["outbox"]["due"] == 0 && s["undecided"] == 0) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    }

    /// SIGTERM for everybody.
    async fn stop(&mut self, summary: &mut Summary, failures: &mut Vec<String>) {
        let nodes = self.nodes.iter_mut().filter_map(|node| node.process.take());
        let all: Vec<Process> = nodes.chain(self.gate.take()).chain(self.receiver.take()).collect();
        for process in all {
            let name = process.name.clone();
            match process.stop(STOP_WITHIN).await {
                Ok(took) => {
                    summary.stopped_after_ms.insert(name, u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
                }
                Err(fault) => failures.push(format!("{fault:#}")),
            }
        }
    }
}
