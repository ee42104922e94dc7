//! The ground: a network of namespaces that this program made for itself, with wires that can be cut.
//!
//! ```text
//!            world 10.208.0.0/24, two bridges: hosts of one side hang on one            wires 10.209.0.0/24, never cut
//!   host i ── veth ──▶ west ═╗ (healed: everybody hangs on west)            host i ── veth ──▶ desk ── conductor
//!   host j ── veth ──▶ east ═╝
//! ```
//!
//! The conductor itself lives in a network and process namespace of its own, so that nothing is left when it ends, however it ends.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::process::{Child, Command};

/// The variable that says that this process is inside of its namespaces.
const INSIDE: &str = "TOPS_CHAOS_INSIDE";

/// Whether this process may make namespaces; else the reason.
pub fn possible() -> Result<(), String> {
    let tried = std::process::Command::new("unshare")
        .args(["--net", "--pid", "--fork", "--kill-child", "--mount-proc", "--", "ip", "link", "add", "probe", "type", "bridge"])
        .stdin(Stdio::null())
        .output();
    match tried {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(format!("no network namespace of one's own (are you root?): {}", String::from_utf8_lossy(&output.stderr).trim())),
        Err(fault) => Err(format!("unshare (util-linux) does not start: {fault}")),
    }
}

/// Runs this program again, inside; `None` when it is inside already.
///
/// # Errors
/// When it cannot be started.
pub fn go_inside() -> anyhow::Result<Option<i32>> {
    if std::env::var_os(INSIDE).is_some() {
        return Ok(None);
    }
    possible().map_err(anyhow::Error::msg)?;
    let own = std::env::current_exe().context("finding this program")?;
    let status = std::process::Command::new("unshare")
        .args(["--net", "--pid", "--fork", "--kill-child", "--mount-proc", "--"])
        .arg(own)
        .args(std::env::args_os().skip(1))
        .env(INSIDE, "1")
        .status()
        .context("starting unshare")?;
    Ok(Some(status.code().unwrap_or(3)))
}

async fn ip(arguments: &[&str]) -> anyhow::Result<()> {
    let output = Command::new("ip").args(arguments).output().await.context("starting ip (iproute2)")?;
    if !output.status.success() {
        bail!("ip {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// One host: a namespace with a wire to the world and one to the conductor.
pub struct Host {
    number: usize,
    holder: Child,
}

/// The bridges and the hosts.
#[derive(Default)]
pub struct Ground {
    hosts: Vec<Host>,
}

impl Ground {
    /// The bridges, and nobody on them.
    ///
    /// # Errors
    /// When the system does not allow it.
    pub async fn new() -> anyhow::Result<Self> {
        ip(&["link", "set", "lo", "up"]).await?;
        for bridge in ["west", "east", "desk"] {
            ip(&["link", "add", bridge, "type", "bridge"]).await?;
            ip(&["link", "set", bridge, "up"]).await?;
        }
        ip(&["addr", "add", "10.209.0.1/24", "dev", "desk"]).await?;
        Ok(Self::default())
    }

    /// One more host; gives its number.
    ///
    /// # Errors
    /// When the system does not allow it.
    pub async fn host(&mut self) -> anyhow::Result<usize> {
        let number = self.hosts.len();
        let holder = Command::new("unshare").args(["--net", "sleep", "infinity"]).stdin(Stdio::null()).kill_on_drop(true).spawn()?;
        let pid = holder.id().context("the holder of a namespace ended")?.to_string();
        // The namespace is there once it is another one than this.
        let own = std::fs::read_link("/proc/self/ns/net")?;
        while std::fs::read_link(format!("/proc/{pid}/ns/net"))? == own {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.hosts.push(Host { number, holder });
        let inside = |arguments: Vec<String>| {
            let mut command = Command::new("nsenter");
            command.arg(format!("--net=/proc/{pid}/ns/net")).arg("ip").args(arguments);
            command
        };
        let words = |text: String| text.split(' ').map(str::to_owned).collect::<Vec<String>>();
        for (bridge, near, far, net) in [("west", format!("w{number}"), "world", 208), ("desk", format!("d{number}"), "desk", 209)] {
            ip(&["link", "add", &near, "type", "veth", "peer", "name", &format!("f{near}")]).await?;
            ip(&["link", "set", &format!("f{near}"), "netns", &pid]).await?;
            ip(&["link", "set", &near, "master", bridge, "up"]).await?;
            for line in [
                format!("link set f{near} name {far}"),
                format!("addr add 10.{net}.0.{}/24 dev {far}", number + 10),
                format!("link set {far} up"),
                "link set lo up".to_owned(),
            ] {
                let output = inside(words(line.clone())).output().await.context("starting nsenter (util-linux)")?;
                if !output.status.success() {
                    bail!("ip {line}: {}", String::from_utf8_lossy(&output.stderr).trim());
                }
            }
        }
        Ok(number)
    }

    /// A command that runs on a host. `niced` ones leave room for the rest.
    pub fn on(&self, host: usize, program: &Path, niced: bool) -> Command {
        let pid = self.hosts[host].holder.id().unwrap_or_default();
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/proc/{pid}/ns/net"));
        if niced {
            command.args(["nice", "-n", "10"]);
        }
        command.arg(program);
        command
    }

    /// Its address in the world.
    pub fn world(host: usize) -> String {
        format!("10.208.0.{}", host + 10)
    }
    /// Its address for the conductor.
    pub fn desk(host: usize) -> String {
        format!("10.209.0.{}", host + 10)
    }

    /// Splits the world: hosts for which `east` holds hear only one another.
    ///
    /// # Errors
    /// When the system does not allow it.
    pub async fn split(&self, east: impl Fn(usize) -> bool) -> anyhow::Result<()> {
        for host in &self.hosts {
            let side = if east(host.number) { "east" } else { "west" };
            ip(&["link", "set", &format!("w{}", host.number), "master", side]).await?;
        }
        Ok(())
    }

    /// One world again.
    ///
    /// # Errors
    /// When the system does not allow it.
    pub async fn heal(&self) -> anyhow::Result<()> {
        self.split(|_| false).await
    }

    /// Cuts one host's wire, or mends it.
    ///
    /// # Errors
    /// When the system does not allow it.
    pub async fn wire(&self, host: usize, up: bool) -> anyhow::Result<()> {
        ip(&["link", "set", &format!("w{host}"), if up { "up" } else { "down" }]).await
    }
}
