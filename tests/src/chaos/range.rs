//! One run: processes on their hosts, the plan's events, the restarts that follow them, and the quiet end that is judged.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde::Serialize;
use serde_json::{Value, json};

use super::ground::Ground;
use super::judge;
use super::memory::Peaks;
use super::plan::{self, Cast, Event};
use crate::testnet::Binaries;
use crate::testnet::checks::shares;
use crate::testnet::process::{Process, first_line};
use crate::testnet::run::{get, measure, network};

/// The part of the measured rate for which the difficulty is set: the machine also runs everything else, and may be busy besides.
const RATE_PART: f64 = 0.4;
/// What a node lists is flushed within this time.
const FLUSHED_WITHIN: Duration = Duration::from_millis(500);
/// A process answers within this time after its start, however busy the machine is.
const START_WITHIN: Duration = Duration::from_secs(90);
/// A process ends within this time after SIGTERM; the promise is 10 s on a machine of its own.
const STOP_WITHIN: Duration = Duration::from_secs(30);
/// Everybody tells one head and one ledger within this time after the last miner paused, all wires mended and everybody up.
const AGREE_WITHIN: Duration = Duration::from_secs(90);
/// And what is deep enough is at the aggregator after this.
const DRAIN_WITHIN: Duration = Duration::from_secs(60);
/// The token that the nodes' interface asks for outside of loopback.
const TOKEN: &str = "chaos-0123456789abcdef";

/// How to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// How long.
    pub secs: u64,
    /// What decides everything that happens.
    pub seed: u64,
    /// Rendezvous.
    pub gates: usize,
    /// Nodes that mine.
    pub miners: usize,
    /// Nodes that only verify.
    pub lights: usize,
    /// Where the summary goes, beside the output.
    pub summary: Option<PathBuf>,
    /// Whether data and logs stay.
    pub keep: bool,
    /// The programs.
    pub binaries: Binaries,
}

/// What came of it.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Summary {
    /// Nothing failed.
    pub ok: bool,
    /// What failed, a sentence each.
    pub failures: Vec<String>,
    /// What decided everything that happened.
    pub seed: u64,
    /// Seconds from the first process to the last pause of mining.
    pub secs: f64,
    /// Processes, without the conductor.
    pub processes: usize,
    /// Splits of the network.
    pub splits: u64,
    /// Cut wires.
    pub cuts: u64,
    /// kill -9.
    pub kills: u64,
    /// Of these, with the disk lost.
    pub cold_starts: u64,
    /// Heads of the main chain at the end.
    pub heads: u64,
    /// Shares that earn.
    pub shares: u64,
    /// Units that were in a node's store before it was killed, over all kills, and must be there at the end.
    pub flushed_before_kills: u64,
    /// Milliseconds from the pause of mining until all told one head and one ledger.
    pub agreed_after_ms: Option<u64>,
    /// Units at the aggregator.
    pub delivered: u64,
    /// Most resident memory by process over all its lives, in bytes.
    pub peak_rss_bytes: BTreeMap<String, u64>,
    /// Heads that left the main chain, the most of any last life.
    pub heads_undone: u64,
    /// Milliseconds that each process took to stop.
    pub stopped_after_ms: BTreeMap<String, u64>,
}

/// What a host runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Gate,
    Miner { bridges: bool },
    Light,
    Aggregator,
}

/// A host's process, or that it has none.
pub(super) struct Place {
    pub(super) name: String,
    pub(super) role: Role,
    pub(super) url: String,
    /// Units that were flushed before some kill.
    pub(super) flushed: BTreeSet<String>,
    pub(super) process: Option<Process>,
    pub(super) died: bool,
    program: PathBuf,
    arguments: Vec<String>,
    data: PathBuf,
    log: PathBuf,
    back_at: Option<Instant>,
}

pub(super) struct Range {
    pub(super) places: Vec<Place>,
    pub(super) http: reqwest::Client,
    pub(super) peaks: Peaks,
    ground: Ground,
}

/// Runs and judges. An error is the conductor's own; a failed check is in the summary.
///
/// # Errors
/// When something cannot be started or reached.
pub async fn conduct(options: &Options) -> anyhow::Result<Summary> {
    if options.gates == 0 || options.miners < 2 || options.lights == 0 {
        bail!("the range has at least one gate, two miners and one light node");
    }
    let dir = tempfile::Builder::new().prefix("tops-chaos-").tempdir().context("making a directory for data and logs")?;
    let outcome = in_directory(options, dir.path()).await;
    if options.keep || !outcome.as_ref().is_ok_and(|summary| summary.ok) {
        eprintln!("data and logs stay in {}", dir.keep().display());
    } else {
        dir.close().context("removing data and logs")?;
    }
    let summary = outcome?;
    if let Some(path) = &options.summary {
        std::fs::write(path, serde_json::to_string_pretty(&summary)?).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(summary)
}

async fn in_directory(options: &Options, dir: &Path) -> anyhow::Result<Summary> {
    let rate = measure(&options.binaries, "cpu").await?;
    let (network, file) = network(rate * RATE_PART, dir)?;
    eprintln!("{rate:.0} attempts/s measured; network {}; seed {}", network.tag(), options.seed);
    let (mut range, cast) = Range::start(options, dir, &file, &network.tag().to_hex()).await?;
    let mut summary = Summary { seed: options.seed, processes: range.places.len(), ..Summary::default() };
    let began = Instant::now();

    let mut events = plan::draw(options.seed, options.secs, &cast).into_iter().peekable();
    let mut healed_at: Option<Instant> = None;
    let mut mended: Vec<(Instant, usize)> = Vec::new();
    let mut shown = Instant::now();
    while began.elapsed() < Duration::from_secs(options.secs) {
        let now = Instant::now();
        if healed_at.is_some_and(|at| at <= now) {
            healed_at = None;
            range.ground.heal().await?;
            eprintln!("{:>4} s  healed", began.elapsed().as_secs());
        }
        for (_, host) in mended.extract_if(.., |(at, _)| *at <= now) {
            range.ground.wire(host, true).await?;
        }
        range.return_those_due(false)?;
        while let Some((_, event)) = events.next_if(|(at, _)| u128::from(*at) <= began.elapsed().as_millis()) {
            match event {
                Event::Split { east, secs } => {
                    summary.splits += 1;
                    eprintln!("{:>4} s  split for {secs} s: {}", began.elapsed().as_secs(), range.names(&east));
                    range.ground.split(|host| east.contains(&host)).await?;
                    healed_at = Some(Instant::now() + Duration::from_secs(secs));
                }
                Event::Cut { host, secs } => {
                    summary.cuts += 1;
                    eprintln!("{:>4} s  cut for {secs} s: {}", began.elapsed().as_secs(), range.names(&[host]));
                    range.ground.wire(host, false).await?;
                    mended.push((Instant::now() + Duration::from_secs(secs), host));
                }
                Event::Kill { host, down_ms } => {
                    summary.kills += u64::from(range.kill(host, down_ms, false).await?);
                }
                Event::Cold { host, down_ms } => {
                    let killed = range.kill(host, down_ms, true).await?;
                    summary.kills += u64::from(killed);
                    summary.cold_starts += u64::from(killed);
                }
            }
        }
        range.look()?;
        if shown.elapsed() >= Duration::from_secs(10) {
            shown = Instant::now();
            eprintln!("{:>4} s  heights {}", began.elapsed().as_secs(), range.heights().await);
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }

    // The quiet end: all wires, everybody up.
    range.ground.heal().await?;
    for host in 0..range.places.len() {
        range.ground.wire(host, true).await?;
    }
    range.return_those_due(true)?;
    range.answer(START_WITHIN).await?;
    summary.secs = began.elapsed().as_secs_f64();
    range.pause().await?;
    summary.agreed_after_ms = range.agree().await;
    range.drain().await;
    range.look()?;
    let mut failures = Vec::new();
    if let Err(fault) = judge::judge(&range, &mut summary, &mut failures).await {
        failures.push(format!("{fault:#}"));
    }
    range.stop(&mut summary, &mut failures).await;
    judge::afterwards(&range, dir, &mut summary, &mut failures);
    summary.ok = failures.is_empty();
    summary.failures = failures;
    Ok(summary)
}

impl Range {
    async fn start(options: &Options, dir: &Path, file: &Path, tag: &str) -> anyhow::Result<(Self, Cast)> {
        let authorization = reqwest::header::HeaderValue::from_str(&format!("Bearer {TOKEN}"))?;
        let headers = reqwest::header::HeaderMap::from_iter([(reqwest::header::AUTHORIZATION, authorization)]);
        let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(20)).default_headers(headers).build()?;
        let mut range = Self { places: Vec::new(), http, peaks: Peaks::default(), ground: Ground::new().await? };
        let mut cast = Cast { gates: Vec::new(), miners: Vec::new(), lights: Vec::new(), aggregator: 0 };
        let text = |path: &Path| path.display().to_string();

        cast.aggregator = range.ground.host().await?;
        let receiver = format!("{}:8081", Ground::world(cast.aggregator));
        let arguments = ["--listen", "0.0.0.0:8081", "--network", tag].map(str::to_owned).to_vec();
        range.place("aggregator", Role::Aggregator, options.binaries.path("tops-aggregator"), arguments, dir, 8081);

        let mut bootstrap = Vec::new();
        for i in 1..=options.gates {
            let host = range.ground.host().await?;
            let (name, world) = (format!("gate{i}"), Ground::world(host));
            let addr = dir.join(format!("{name}.addr"));
            let mut arguments = vec!["--network".into(), text(file), "--key-file".into(), text(&dir.join(format!("{name}.key")))];
            arguments.extend(["--listen".into(), format!("/ip4/{world}/tcp/4068,/ip4/{world}/udp/4068/quic-v1")]);
            arguments.extend(["--addr-file".into(), text(&addr)]);
            range.place(&name, Role::Gate, options.binaries.path("tops-bootstrap"), arguments, dir, 0);
            range.return_those_due(true)?;
            bootstrap.push(first_line(&addr, START_WITHIN).await?);
            cast.gates.push(host);
        }
        for i in 1..=options.miners + options.lights {
            let host = range.ground.host().await?;
            let miner = i <= options.miners;
            let name = if miner { format!("miner{i}") } else { format!("light{}", i - options.miners) };
            let world = Ground::world(host);
            let mut arguments = vec![
                "--network".to_owned(),
                text(file),
                "--listen".into(),
                format!("/ip4/{world}/tcp/4069"),
                "--listen".into(),
                format!("/ip4/{world}/udp/4069/quic-v1"),
                "--data-dir".into(),
                text(&dir.join(&name)),
                "--http".into(),
                format!("{}:4067", Ground::desk(host)),
                "--api-token".into(),
                TOKEN.into(),
                "--device-did".into(),
                format!("did:chaos:{name}"),
            ];
            for gate in &bootstrap {
                arguments.extend(["--bootstrap".into(), gate.clone()]);
            }
            let bridges = i <= 2;
            if !miner {
                arguments.push("--verify-only".into());
                cast.lights.push(host);
            } else {
                arguments.extend(["--backend".into(), "cpu".into(), "--target-ms".into(), "100".into()]);
                cast.miners.push(host);
                if bridges {
                    arguments.extend(["--aggregator-url".into(), format!("http://{receiver}/verify?from={name}")]);
                }
            }
            let role = if miner { Role::Miner { bridges } } else { Role::Light };
            range.place(&name, role, options.binaries.path("tops-node"), arguments, dir, 4067);
        }
        range.return_those_due(true)?;
        range.answer(START_WITHIN).await?;
        Ok((range, cast))
    }

    fn place(&mut self, name: &str, role: Role, program: PathBuf, arguments: Vec<String>, dir: &Path, port: u16) {
        let host = self.places.len();
        self.places.push(Place {
            name: name.to_owned(),
            role,
            url: format!("http://{}:{port}", Ground::desk(host)),
            flushed: BTreeSet::new(),
            process: None,
            died: false,
            program,
            arguments,
            data: dir.join(name),
            log: dir.join(format!("{name}.log")),
            back_at: Some(Instant::now()),
        });
    }

    fn names(&self, hosts: &[usize]) -> String {
        hosts.iter().map(|host| self.places[*host].name.as_str()).collect::<Vec<_>>().join(" ")
    }

    /// Nodes, without gates and the aggregator.
    pub(super) fn nodes(&self) -> impl Iterator<Item = &Place> {
        self.places.iter().filter(|place| matches!(place.role, Role::Miner { .. } | Role::Light))
    }

    /// Starts who is due to come back, or everybody.
    fn return_those_due(&mut self, all: bool) -> anyhow::Result<()> {
        let now = Instant::now();
        for (host, place) in self.places.iter_mut().enumerate() {
            if place.process.is_none() && place.back_at.is_some_and(|at| all || at <= now) {
                let mut command = self.ground.on(host, &place.program, matches!(place.role, Role::Miner { .. }));
                command.args(&place.arguments);
                place.process = Some(Process::start(&place.name, &place.log, command)?);
                place.back_at = None;
            }
        }
        Ok(())
    }

    /// kill -9, if the host is up; what it had flushed is written down before. `cold`: its disk is lost too, but for its key.
    async fn kill(&mut self, host: usize, down_ms: u64, cold: bool) -> anyhow::Result<bool> {
        let place = &mut self.places[host];
        let Some(process) = &mut place.process else { return Ok(false) };
        if matches!(place.role, Role::Miner { .. } | Role::Light) {
            // One that is just starting tells nothing yet; what it had before is written down already.
            if let Ok(listed) = shares(&self.http, &place.url).await {
                place.flushed.extend(listed.into_keys());
                tokio::time::sleep(FLUSHED_WITHIN).await;
            }
        }
        self.peaks.look(&place.name, process.id());
        if let Some(status) = process.ended()? {
            bail!("{} ended by itself with {status}: see {}", place.name, place.log.display());
        }
        process.kill().await?;
        place.process = None;
        place.died = true;
        place.back_at = Some(Instant::now() + Duration::from_millis(down_ms));
        if cold {
            place.flushed.clear();
            for entry in std::fs::read_dir(&place.data)?.flatten() {
                if entry.file_name() != "keys" {
                    let path = entry.path();
                    if path.is_dir() { std::fs::remove_dir_all(path)? } else { std::fs::remove_file(path)? }
                }
            }
        }
        Ok(true)
    }

    /// Memory of everybody; and that nobody ended by itself.
    fn look(&mut self) -> anyhow::Result<()> {
        for place in &mut self.places {
            let Some(process) = &mut place.process else { continue };
            self.peaks.look(&place.name, process.id());
            if let Some(status) = process.ended()? {
                bail!("{} ended by itself with {status}: see {}", place.name, place.log.display());
            }
        }
        Ok(())
    }

    /// Waits until every node answers.
    async fn answer(&mut self, patience: Duration) -> anyhow::Result<()> {
        let began = Instant::now();
        let urls: Vec<String> = self.nodes().map(|node| format!("{}/v1/status", node.url)).collect();
        for url in urls {
            while get(&self.http, &url).await.is_err() {
                self.look()?;
                if began.elapsed() > patience {
                    bail!("{url} does not answer: see the logs");
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
        Ok(())
    }

    async fn heights(&self) -> String {
        let mut all = Vec::new();
        for node in self.nodes() {
            let status = if node.process.is_some() { get(&self.http, &format!("{}/v1/status", node.url)).await.ok() } else { None };
            all.push(status.map_or_else(|| "-".to_owned(), |s| s["tip"]["height"].to_string()));
        }
        all.join(" ")
    }

    async fn pause(&self) -> anyhow::Result<()> {
        for node in self.nodes().filter(|node| matches!(node.role, Role::Miner { .. })) {
            let url = format!("{}/v1/mining", node.url);
            let answer = self.http.post(&url).json(&json!({ "paused": true })).send().await.with_context(|| format!("asking {url}"))?;
            if !answer.status().is_success() {
                bail!("{url}: {}", answer.status());
            }
        }
        Ok(())
    }

    async fn told(&self) -> Vec<Value> {
        let mut all = Vec::new();
        for node in self.nodes() {
            let status = get(&self.http, &format!("{}/v1/status", node.url)).await.ok();
            all.push(status.map_or(Value::Null, |s| json!([s["tip"]["root"], s["ledger_digest"], s["undecided"]])));
        }
        all
    }

    /// Waits until all tell one head and one ledger for two seconds; gives how long it took to begin.
    async fn agree(&self) -> Option<u64> {
        let began = Instant::now();
        let mut since: Option<(Duration, Value)> = None;
        while began.elapsed() < AGREE_WITHIN {
            let (at, told) = (began.elapsed(), self.told().await);
            let one = told.first().filter(|first| !first.is_null() && told.iter().all(|other| other == *first)).cloned();
            since = match (since, one) {
                (Some((at, what)), Some(one)) if what == one => Some((at, what)),
                (_, one) => one.map(|one| (at, one)),
            };
            if let Some((first, _)) = since.as_ref().filter(|(first, _)| began.elapsed() > *first + Duration::from_secs(2)) {
                return u64::try_from(first.as_millis()).ok();
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
        None
    }

    /// Waits until nobody owes the aggregator anything that is deep enough.
    async fn drain(&self) {
        let began = Instant::now();
        while began.elapsed() < DRAIN_WITHIN {
            let mut due = 0;
            for node in self.nodes() {
                let status = get(&self.http, &format!("{}/v1/status", node.url)).await.unwrap_or_default();
                due += status["outbox"]["due"].as_u64().unwrap_or(1);
            }
            if due == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    }

    async fn stop(&mut self, summary: &mut Summary, failures: &mut Vec<String>) {
        for place in &mut self.places {
            let Some(process) = place.process.take() else { continue };
            match process.stop(STOP_WITHIN).await {
                Ok(took) => drop(summary.stopped_after_ms.insert(place.name.clone(), u64::try_from(took.as_millis()).unwrap_or(u64::MAX))),
                Err(fault) => failures.push(format!("{fault:#}")),
            }
        }
    }
}
