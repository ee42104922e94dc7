//! A control group of one process: at most so much processor, and what it used. Version 2 where the system has it with these controllers, else
//! version 1.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

/// The length of a period of the processor's bandwidth, microseconds.
const PERIOD_USEC: u64 = 100_000;

/// A group, removed when it is dropped (its processes must have ended by then).
pub struct Cgroup {
    paths: Vec<PathBuf>,
    version: u8,
}

/// What a group used so far.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Used {
    /// Seconds of processor time.
    pub cpu_secs: f64,
    /// Periods in which it wanted more than it may have.
    pub throttled: u64,
    /// Periods in which it ran.
    pub periods: u64,
    /// Most memory, in bytes, page cache included; `None`: the system does not tell.
    pub peak_memory_bytes: Option<u64>,
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}

fn number(path: &Path) -> Option<u64> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// The number behind a word, of lines of words and numbers.
fn named(path: &Path, word: &str) -> Option<u64> {
    let text = std::fs::read_to_string(path).ok()?;
    text.lines().find_map(|line| line.strip_prefix(word)?.trim().parse().ok())
}

impl Cgroup {
    /// A group that may use this part of one processor, in percent.
    ///
    /// # Errors
    /// When the system has no control groups for the processor, or does not let this user make one.
    pub fn new(name: &str, percent: u64) -> anyhow::Result<Self> {
        let quota = PERIOD_USEC * percent / 100;
        let root = Path::new("/sys/fs/cgroup");
        if std::fs::read_to_string(root.join("cgroup.controllers")).is_ok_and(|all| all.split_whitespace().any(|one| one == "cpu")) {
            // Refused where this process's own group stands in the way; the file of the group itself decides.
            let _ = std::fs::write(root.join("cgroup.subtree_control"), "+cpu +memory");
            let group = Self { paths: vec![root.join(name)], version: 2 };
            group.make()?;
            write(&group.paths[0].join("cpu.max"), &format!("{quota} {PERIOD_USEC}"))?;
            return Ok(group);
        }
        if !root.join("cpu/cpu.cfs_quota_us").exists() && !root.join("cpu/cgroup.procs").exists() {
            bail!("there is no control group for the processor under {}", root.display());
        }
        let group = Self { paths: ["cpu", "cpuacct", "memory"].map(|controller| root.join(controller).join(name)).to_vec(), version: 1 };
        group.make()?;
        write(&group.paths[0].join("cpu.cfs_period_us"), &PERIOD_USEC.to_string())?;
        write(&group.paths[0].join("cpu.cfs_quota_us"), &quota.to_string())?;
        Ok(group)
    }

    fn make(&self) -> anyhow::Result<()> {
        for path in &self.paths {
            if !path.exists() {
                std::fs::create_dir(path).with_context(|| format!("making the control group {} (are you root?)", path.display()))?;
            }
        }
        Ok(())
    }

    /// 1 or 2.
    pub fn version(&self) -> u8 {
        self.version
    }

    /// A shell line that enters the group and becomes the program: `sh -c LINE sh PROGRAM ARGUMENTS…`.
    pub fn entering(&self) -> String {
        let enter: Vec<String> = self.paths.iter().map(|path| format!("echo $$ > {}/cgroup.procs", path.display())).collect();
        format!("{} && exec \"$@\"", enter.join(" && "))
    }

    /// What it used so far.
    pub fn used(&self) -> Used {
        let file = |at: usize, name: &str| self.paths[at.min(self.paths.len() - 1)].join(name);
        let stat = file(0, "cpu.stat");
        let cpu_secs = match self.version {
            2 => named(&stat, "usage_usec").unwrap_or(0) as f64 / 1e6,
            _ => number(&file(1, "cpuacct.usage")).unwrap_or(0) as f64 / 1e9,
        };
        let memory = if self.version == 2 { "memory.peak" } else { "memory.max_usage_in_bytes" };
        Used {
            cpu_secs,
            throttled: named(&stat, "nr_throttled").unwrap_or(0),
            periods: named(&stat, "nr_periods").unwrap_or(0),
            peak_memory_bytes: number(&file(2, memory)),
        }
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        for path in &self.paths {
            let _ = std::fs::remove_dir(path);
        }
    }
}
