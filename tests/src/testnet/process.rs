//! Processes: started in groups of their own, so that Ctrl-C reaches only the conductor, with their output in a log each; ended by SIGTERM.

use std::ffi::OsStr;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tokio::process::{Child, Command};

/// Where the programs are.
#[derive(Debug, Clone)]
pub struct Binaries(PathBuf);

impl Binaries {
    /// In this directory; all of them must be there.
    ///
    /// # Errors
    /// When one is missing.
    pub fn new(dir: PathBuf) -> anyhow::Result<Self> {
        for name in ["tops-node", "tops-bootstrap", "tops-aggregator"] {
            if !dir.join(name).is_file() {
                bail!("{} is missing in {}: build it first", name, dir.display());
            }
        }
        Ok(Self(dir))
    }
    /// Those of `TOPS_BIN_DIR`, or else built now, in the profile of the tests, into the target directory of this program.
    ///
    /// # Errors
    /// When they do not build.
    pub fn built() -> anyhow::Result<Self> {
        if let Some(dir) = std::env::var_os("TOPS_BIN_DIR") {
            return Self::new(dir.into());
        }
        let own = std::env::current_exe().context("finding this program")?;
        let Some(debug) = own.ancestors().nth(2) else { bail!("{} is not in a target directory", own.display()) };
        let Some(target) = debug.parent() else { bail!("{} is not in a target directory", own.display()) };
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let status = std::process::Command::new(cargo)
            .args(["build", "--quiet", "-p", "tops-node", "-p", "tops-bootstrap", "-p", "tops-tests", "--bins", "--target-dir"])
            .arg(target)
            .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
            .status()
            .context("starting cargo")?;
        if !status.success() {
            bail!("the programs do not build");
        }
        Self::new(debug.to_owned())
    }
    /// Where they are.
    pub fn dir(&self) -> &Path {
        &self.0
    }
    /// One of them.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

/// A running program.
pub struct Process {
    /// What the log calls it.
    pub name: String,
    /// Its log.
    pub log: PathBuf,
    child: Child,
}

impl Process {
    /// Starts `command`; stdout and stderr are appended to `log`.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start(name: &str, log: &Path, mut command: Command) -> anyhow::Result<Self> {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(log).with_context(|| format!("opening {}", log.display()))?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).process_group(0).kill_on_drop(true);
        let child = command.spawn().with_context(|| format!("starting {name}"))?;
        Ok(Self { name: name.to_owned(), log: log.to_owned(), child })
    }

    /// Its number, while it runs.
    pub fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Its exit status, if it has ended.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Ends it without a word, as a power cut would.
    ///
    /// # Errors
    /// When it cannot be killed.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill().await.with_context(|| format!("killing {}", self.name))
    }

    /// Asks it to end, and says how long that took; past `patience` it is killed, which is an error.
    ///
    /// # Errors
    /// When it ends with another status than 0, or not in time.
    pub async fn stop(mut self, patience: Duration) -> anyhow::Result<Duration> {
        let began = Instant::now();
        if let Some(pid) = self.child.id() {
            let sent = Command::new("kill").arg("-TERM").arg(pid.to_string()).status().await?;
            if !sent.success() {
                bail!("{} could not be signalled", self.name);
            }
        }
        match tokio::time::timeout(patience, self.child.wait()).await {
            Ok(status) => {
                let status = status?;
                if !status.success() {
                    bail!("{} ended with {status}", self.name);
                }
                Ok(began.elapsed())
            }
            Err(_) => {
                self.kill().await?;
                bail!("{} did not stop within {} s of SIGTERM", self.name, patience.as_secs())
            }
        }
    }
}

/// A command that runs on one core and yields to others, so that miners leave room for everything else. Without `taskset` it runs anywhere.
pub fn on_core(core: usize, program: &Path) -> Command {
    let has_taskset = std::env::var_os("PATH").is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join("taskset").is_file()));
    let mut command = Command::new("nice");
    command.args(["-n", "10"]);
    if has_taskset {
        command.args([OsStr::new("taskset"), OsStr::new("-c"), OsStr::new(&core.to_string())]);
    }
    command.arg(program);
    command
}

/// A TCP port of loopback that is free now.
///
/// # Errors
/// When there is none.
pub fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// The first line of a file that another process will write.
///
/// # Errors
/// When it does not come in time.
pub async fn first_line(path: &Path, patience: Duration) -> anyhow::Result<String> {
    let began = Instant::now();
    loop {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        if let Some(line) = text.lines().find(|line| !line.trim().is_empty()) {
            return Ok(line.trim().to_owned());
        }
        if began.elapsed() > patience {
            bail!("{} was not written within {} s", path.display(), patience.as_secs());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
