//! The outage: the aggregator is killed, and while it is away a bridging node is killed and started again, and another one's disk is full for a while.
//!
//! ```text
//!   0 ── aggregator killed ── node killed ── node back ── disk full ── disk free ── aggregator back (the same port, its journal) ── … the checks
//! ```
//!
//! The disk is a tmpfs under the node's data directory, mounted in the namespace that the program made for itself; where there is none, that part is left
//! out, and said.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tokio::process::Command;

use super::checks;
use super::process::Process;
use super::run::{Yard, get};

/// The environment's word that this process has a mount namespace of its own.
pub const NAMESPACE: &str = "TOPS_YARD_NAMESPACE";
/// The bridging node that is killed.
pub(super) const KILLED: usize = 0;
/// The bridging node whose disk fills.
pub(super) const FULL: usize = 1;
/// What the aggregator keeps.
pub(super) const JOURNAL: &str = "aggregator.journal";
/// Bridges that wait as long as they ever do, and a backlog.
pub(super) const DRAIN_WITHIN: Duration = Duration::from_secs(90);
/// Seconds before anything happens.
const QUIET_SECS: u64 = 8;
/// A state of the disk shows within this time.
const SHOWN_WITHIN: Duration = Duration::from_secs(30);
/// Room for some minutes of a testnet.
const DISK: &str = "size=96m,mode=700";

/// A disk of its own for a data directory, if this process may.
pub(super) fn give_disk(data: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(data)?;
    let may = std::env::var_os(NAMESPACE).is_some();
    let mount = || std::process::Command::new("mount").args(["-t", "tmpfs", "-o", DISK, "tmpfs"]).arg(data).status();
    if may && mount().is_ok_and(|status| status.success()) {
        File::create(data.join(MARK)).context("marking the disk")?;
    } else {
        println!("left out: the full disk, since no mount namespace can be had here");
    }
    Ok(())
}

/// Takes the disks back, so that the directory can be removed.
pub(super) fn release(dir: &Path) {
    for data in fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()).filter(|path| path.join(MARK).exists()) {
        let _ = std::process::Command::new("umount").arg(data).status();
    }
}

/// Lies on a disk that was mounted here.
const MARK: &str = "this-disk-fills";
/// What fills it.
const FILLER: &str = "filler";

/// What has happened so far.
pub(super) struct Outage {
    dir: PathBuf,
    /// When each thing is to happen, in seconds of mining; those that are over are gone.
    plan: Vec<(u64, Step)>,
    failures: Vec<String>,
}

#[derive(Debug, Clone, Copy)]
enum Step {
    AggregatorDies,
    NodeDies,
    NodeComes,
    DiskFills,
    DiskFrees,
    AggregatorComes,
}

impl Outage {
    pub(super) fn new(dir: &Path, outage: u64) -> Self {
        let down = (outage / 10).max(4);
        let plan = vec![
            (QUIET_SECS, Step::AggregatorDies),
            (QUIET_SECS + 2, Step::NodeDies),
            (QUIET_SECS + 2 + down, Step::NodeComes),
            (QUIET_SECS + 4 + down, Step::DiskFills),
            (QUIET_SECS + 4 + down + (outage / 5).max(8), Step::DiskFrees),
            (QUIET_SECS + outage, Step::AggregatorComes),
        ];
        Self { dir: dir.to_path_buf(), plan, failures: Vec::new() }
    }

    /// Does what is due.
    pub(super) async fn step(&mut self, yard: &mut Yard, elapsed: u64, before: &mut checks::Flushed) -> anyhow::Result<()> {
        while let Some((_, step)) = self.plan.first().copied().filter(|(at, _)| *at <= elapsed) {
            self.plan.remove(0);
            self.happens(step, yard, before).await?;
        }
        Ok(())
    }

    /// Does the rest; gives what went wrong.
    pub(super) async fn end(mut self, yard: &mut Yard) -> anyhow::Result<Vec<String>> {
        let mut before = checks::Flushed::new();
        while !self.plan.is_empty() {
            let (_, step) = self.plan.remove(0);
            if matches!(step, Step::NodeComes | Step::DiskFrees | Step::AggregatorComes) {
                self.happens(step, yard, &mut before).await?;
            }
        }
        Ok(self.failures)
    }

    async fn happens(&mut self, step: Step, yard: &mut Yard, before: &mut checks::Flushed) -> anyhow::Result<()> {
        let disk = self.dir.join(&yard.nodes[FULL].name);
        let full = yard.nodes[FULL].name.clone();
        match step {
            Step::AggregatorDies => {
                println!("       kill -9 of the aggregator");
                if let Some(mut receiver) = yard.receiver.take() {
                    receiver.kill().await?;
                }
            }
            Step::NodeDies => {
                before.entry(KILLED).or_default().extend(checks::flushed(yard, KILLED).await?);
                tokio::time::sleep(Duration::from_millis(500)).await;
                println!("       kill -9 of {}", yard.nodes[KILLED].name);
                if let Some(mut process) = yard.nodes[KILLED].process.take() {
                    process.kill().await?;
                }
            }
            Step::NodeComes => yard.restart().await?,
            Step::DiskFills if disk.join(MARK).exists() => {
                before.entry(FULL).or_default().extend(checks::flushed(yard, FULL).await?);
                tokio::time::sleep(Duration::from_millis(500)).await;
                println!("       the disk of {full} is full");
                let mut filler = File::create(disk.join(FILLER))?;
                for size in [1 << 20, 4_096] {
                    let bytes = vec![1; size];
                    while filler.write_all(&bytes).is_ok() {}
                }
                if !self.shows(yard, true).await {
                    self.failures.push(format!("{full} did not say that its disk is full"));
                }
            }
            Step::DiskFrees if disk.join(FILLER).exists() => {
                fs::remove_file(disk.join(FILLER))?;
                println!("       the disk of {full} has room again");
                if !self.shows(yard, false).await {
                    self.failures.push(format!("{full} did not go on when its disk had room again"));
                }
            }
            Step::DiskFills | Step::DiskFrees => {}
            Step::AggregatorComes => {
                println!("       the aggregator is back");
                let Some(address) = yard.aggregator.strip_prefix("http://").map(str::to_owned) else { bail!("no address") };
                let mut command = Command::new(yard.binaries.path("tops-aggregator"));
                command.args(["--listen", &address, "--journal"]).arg(self.dir.join(JOURNAL));
                yard.receiver = Some(Process::start("aggregator", &self.dir.join("aggregator.log"), command)?);
            }
        }
        Ok(())
    }

    /// Whether the node comes to say that its disk is full, or that it is not.
    async fn shows(&self, yard: &Yard, full: bool) -> bool {
        let began = Instant::now();
        while began.elapsed() < SHOWN_WITHIN {
            let status = get(&yard.http, &format!("{}/v1/status", yard.nodes[FULL].url)).await;
            if status.is_ok_and(|status| status["store_problem"].is_string() == full) {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        false
    }
}
