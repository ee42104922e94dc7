//! What it costs to follow `main`: a light node in a control group that allows it a quarter of a core, beside a miner that feeds it heads and shares
//! of the standard shape at `main`'s rate.
//!
//! ```text
//!   miner (tops-node, paused when it is ahead) ── gossip: 64 shares and a head every 15 s ──▶ tops-node --verify-only (25 % of a core)
//! ```
//!
//! An attempt of the standard shape costs the same on every network, so the audits cost what they cost on `main`; only finding is made easy.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::process::Command;
use tops_protocol::network::Fields;
use tops_protocol::target::Bits;
use tops_protocol::{NetworkSpec, U256};

use super::cgroup::Cgroup;
use super::memory;
use crate::testnet::Binaries;
use crate::testnet::checks::{logs, shares};
use crate::testnet::process::{Process, free_port};
use crate::testnet::run::get;

/// Of one core, in percent: the promise.
const LIGHT_PERCENT: u64 = 25;
/// Attempts a head, 64 times the attempts a share: so easy that a processor with little time finds more than `main` has, and has to pause.
const ATTEMPTS_A_HEAD: u64 = 130;
/// Shares and heads a minute on `main`: 64 shares, of which one is the head, every 15 s.
const MAIN_A_MINUTE: f64 = 64.0 * 4.0;
/// The miner is paused while it is ahead of this, in parts of `main`'s rate.
const FED_PART: f64 = 1.05;
/// Seconds that the light node may be behind the miner at a stretch: gossip and an audit take less than one.
const BEHIND_MAX_SECS: f64 = 10.0;
/// Most resident memory of a light node.
const PEAK_LIGHT_MAX: u64 = 150 << 20;
/// A node answers within this time after its start.
const START_WITHIN: Duration = Duration::from_secs(90);
/// Both tell one head and one ledger within this time after the miner paused.
const AGREE_WITHIN: Duration = Duration::from_secs(30);

/// How to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// How long to watch.
    pub secs: u64,
    /// Where the summary goes, beside the output.
    pub summary: Option<PathBuf>,
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
    /// Whether the miner reached `main`'s rate; else the figures tell nothing.
    pub fed: bool,
    /// Seconds watched.
    pub secs: f64,
    /// Version of control groups that allowed and counted.
    pub cgroup_version: u8,
    /// Shares a minute that the light node accepted; `main` has 256.
    pub shares_a_minute: f64,
    /// Heads of the chain.
    pub heads: u64,
    /// Processor time over wall time, in percent of one core, while watched.
    pub cpu_percent: f64,
    /// Part of the periods in which it wanted more than a quarter of a core, in percent.
    pub throttled_percent: f64,
    /// Seconds of processor time until the first answer.
    pub start_cpu_secs: f64,
    /// Milliseconds of processor time for each share.
    pub cpu_ms_a_share: f64,
    /// Most resident memory, bytes.
    pub peak_rss_bytes: u64,
    /// Most memory of the group, page cache included, bytes.
    pub peak_group_bytes: Option<u64>,
    /// Seconds that it was behind at a stretch, at most.
    pub behind_secs: f64,
    /// Undecided receipts at a time, at most.
    pub undecided: u64,
    /// Age of receipts when accepted, median and 99th percentile, milliseconds; a search's length is inside.
    pub receipt_age_ms: Value,
    /// Shares that it recomputed.
    pub audited: u64,
}

fn network(dir: &Path) -> anyhow::Result<PathBuf> {
    let bits = |attempts: u64| Bits::from_target(U256::MAX / U256::from(attempts)).get();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is before 1970")?;
    let main = *NetworkSpec::main().fields();
    let fields = Fields {
        genesis_bits: bits(ATTEMPTS_A_HEAD),
        easiest_bits: bits(ATTEMPTS_A_HEAD),
        genesis_time_ms: u64::try_from(now.as_millis())?,
        ..main
    };
    NetworkSpec::new(fields).context("the network of this run")?;
    let mut text = String::from("name = \"as-main\"\n");
    for (key, value) in serde_json::to_value(fields)?.as_object().into_iter().flatten() {
        text.push_str(&format!("{key} = {value}\n"));
    }
    let path = dir.join("network.toml");
    std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    Ok(path)
}

/// Runs and judges. An error is the conductor's own; a failed check is in the summary.
///
/// # Errors
/// When something cannot be started or reached, or there are no control groups.
pub async fn conduct(options: &Options) -> anyhow::Result<Summary> {
    let dir = tempfile::Builder::new().prefix("tops-light-").tempdir().context("making a directory for data and logs")?;
    let outcome = in_directory(options, dir.path()).await;
    if !outcome.as_ref().is_ok_and(|summary| summary.ok) {
        eprintln!("data and logs stay in {}", dir.keep().display());
    }
    let summary = outcome?;
    if let Some(path) = &options.summary {
        std::fs::write(path, serde_json::to_string_pretty(&summary)?).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(summary)
}

async fn status(http: &reqwest::Client, url: &str) -> anyhow::Result<Value> {
    get(http, &format!("{url}/v1/status")).await
}

async fn pause(http: &reqwest::Client, url: &str, paused: bool) -> anyhow::Result<()> {
    http.post(format!("{url}/v1/mining"))
        .json(&json!({ "paused": paused }))
        .send()
        .await
        .context("pausing the miner")?
        .error_for_status()?;
    Ok(())
}

async fn answers(http: &reqwest::Client, url: &str, process: &mut Process) -> anyhow::Result<Value> {
    let began = Instant::now();
    loop {
        if let Some(ended) = process.ended()? {
            bail!("{} ended with {ended}: see {}", process.name, process.log.display());
        }
        match status(http, url).await {
            Ok(status) if status["node"]["listening"].as_array().is_some_and(|all| !all.is_empty()) => return Ok(status),
            _ if began.elapsed() > START_WITHIN => bail!("{} does not answer: see {}", process.name, process.log.display()),
            _ => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    }
}

async fn in_directory(options: &Options, dir: &Path) -> anyhow::Result<Summary> {
    let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(20)).build()?;
    let own = std::process::id();
    let group = &Cgroup::new(&format!("tops-light-{own}"), LIGHT_PERCENT)?;
    let file = network(dir)?;
    let start = |name: &str, enter: &str, port: u16, more: &[&str]| -> anyhow::Result<Process> {
        let mut command = Command::new("sh");
        command.args(["-c", enter, "sh"]).arg(options.binaries.path("tops-node"));
        command.args(["--network", &file.display().to_string(), "--listen", "/ip4/127.0.0.1/tcp/0"]);
        command.args(["--data-dir", &dir.join(name).display().to_string(), "--http", &format!("127.0.0.1:{port}")]).args(more);
        Process::start(name, &dir.join(format!("{name}.log")), command)
    };
    let ports = [free_port()?, free_port()?];
    let [miner_url, light_url] = ports.map(|port| format!("http://127.0.0.1:{port}"));
    let mut miner = start("miner", "exec \"$@\"", ports[0], &["--alone", "--backend", "cpu", "--target-ms", "50"])?;
    let told = answers(&http, &miner_url, &mut miner).await?;
    let address = told["node"]["listening"][0].as_str().context("the miner listens nowhere")?.to_owned();
    let mut light = start("light", &group.entering(), ports[1], &["--verify-only", "--bootstrap", &address])?;
    answers(&http, &light_url, &mut light).await?;
    let at_start = group.used();

    // Mining and following begin to count once the light node is in step.
    let began = Instant::now();
    while status(&http, &light_url).await?["sync"]["state"] != "in_step" {
        if began.elapsed() > START_WITHIN {
            bail!("the light node does not come in step: see {}", light.log.display());
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let (began, before, first) = (Instant::now(), group.used(), status(&http, &light_url).await?);
    let mut summary = Summary { cgroup_version: group.version(), start_cpu_secs: at_start.cpu_secs, ..Summary::default() };
    let mut in_step_at = Instant::now();
    let fed = |status: &Value| status["counters"]["acknowledged"].as_u64().unwrap_or(0);
    let fed_before = fed(&status(&http, &miner_url).await?);
    while began.elapsed() < Duration::from_secs(options.secs) {
        tokio::time::sleep(Duration::from_millis(500)).await;
        // The miner first: what it shows, the light node has to show a moment later.
        let (ahead, here) = (status(&http, &miner_url).await?, status(&http, &light_url).await?);
        // The miner keeps to the schedule of `main`.
        let schedule = began.elapsed().as_secs_f64() * FED_PART * MAIN_A_MINUTE / 60.0;
        pause(&http, &miner_url, (fed(&ahead) - fed_before) as f64 > schedule).await?;
        if here["tip"]["height"].as_u64() >= ahead["tip"]["height"].as_u64() {
            in_step_at = Instant::now();
        }
        summary.behind_secs = summary.behind_secs.max(in_step_at.elapsed().as_secs_f64());
        summary.undecided = summary.undecided.max(here["undecided"].as_u64().unwrap_or(0));
        for process in [&mut miner, &mut light] {
            if let Some(ended) = process.ended()? {
                bail!("{} ended by itself with {ended}: see {}", process.name, process.log.display());
            }
        }
    }
    let (after, last) = (group.used(), status(&http, &light_url).await?);
    let secs = began.elapsed().as_secs_f64();
    let counted = |name: &str| last["counters"][name].as_u64().unwrap_or(0).saturating_sub(first["counters"][name].as_u64().unwrap_or(0));
    let accepted = counted("shares_accepted");
    summary.secs = secs;
    summary.shares_a_minute = accepted as f64 * 60.0 / secs;
    summary.fed = summary.shares_a_minute >= 0.9 * MAIN_A_MINUTE;
    summary.heads = last["tip"]["height"].as_u64().unwrap_or(0);
    summary.cpu_percent = (after.cpu_secs - before.cpu_secs) * 100.0 / secs;
    summary.throttled_percent = (after.throttled - before.throttled) as f64 * 100.0 / (after.periods - before.periods).max(1) as f64;
    summary.cpu_ms_a_share = (after.cpu_secs - before.cpu_secs) * 1_000.0 / accepted.max(1) as f64;
    summary.receipt_age_ms = last["receipt_age"].clone();
    summary.peak_group_bytes = after.peak_memory_bytes;
    let mut failures = Vec::new();

    pause(&http, &miner_url, true).await?;
    let (paused, mut agreed) = (Instant::now(), false);
    while !agreed && paused.elapsed() < AGREE_WITHIN {
        tokio::time::sleep(Duration::from_millis(250)).await;
        let (there, here) = (status(&http, &miner_url).await?, status(&http, &light_url).await?);
        agreed = there["tip"]["root"] == here["tip"]["root"] && there["ledger_digest"] == here["ledger_digest"] && here["undecided"] == 0;
    }
    if !agreed {
        failures.push("the light node does not tell the miner's head and ledger".into());
    }
    let last = status(&http, &light_url).await?;
    let listed = shares(&http, &light_url).await?;
    let audited = listed.values().filter(|share| share.state == "audited").count();
    summary.audited = audited as u64;
    if audited < listed.len() {
        failures.push(format!("{} of {} shares were not audited: the device was not in time", listed.len() - audited, listed.len()));
    }
    for (name, what) in [
        ("gossip_late_verdicts", "verdicts came too late"),
        ("gossip_overflow", "messages were dropped unseen"),
        ("audits_unable", "audits could not be done"),
        ("gossip_rejected", "messages were rejected"),
        ("false_roots", "roots were taken for false"),
    ] {
        match last["counters"][name].as_u64().unwrap_or(0) {
            0 => {}
            times => failures.push(format!("{times} {what}")),
        }
    }
    if summary.behind_secs > BEHIND_MAX_SECS {
        failures.push(format!("the light node was {:.1} s behind at a stretch", summary.behind_secs));
    }
    summary.peak_rss_bytes = light.id().and_then(memory::peak_bytes).unwrap_or(0);
    if summary.peak_rss_bytes > PEAK_LIGHT_MAX {
        failures.push(format!("the light node had {} MB resident, more than {}", summary.peak_rss_bytes >> 20, PEAK_LIGHT_MAX >> 20));
    }
    for process in [light, miner] {
        if let Err(fault) = process.stop(Duration::from_secs(60)).await {
            failures.push(format!("{fault:#}"));
        }
    }
    logs(dir, &mut failures);
    summary.ok = failures.is_empty() && summary.fed;
    summary.failures = failures;
    if !summary.fed {
        summary.failures.push(format!("the miner found {:.0} shares a minute, too few to tell anything", summary.shares_a_minute));
    }
    Ok(summary)
}
