//! Behind home routers and on one local network, each machine a network namespace: two nodes that nobody can call meet through the gate's relay
//! and punch a direct way; two nodes with nothing but `--mdns` find each other. Needs root, `ip` and `nft`; without them it says so and passes.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a test may panic; its helpers are outside of #[test]

use std::path::Path;
use std::process::Command as Run;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use tokio::process::Command;
use tops_protocol::NetworkSpec;
use tops_protocol::network::Fields;
use tops_tests::testnet::Binaries;
use tops_tests::testnet::process::{Process, first_line};

const PATIENCE: Duration = Duration::from_secs(150);

/// Namespaces of this test; they go when it ends, however it ends.
struct Yard {
    name: String,
    machines: Vec<String>,
}

impl Yard {
    /// `None`, with a word, where the machine does not let it.
    fn open(name: &str, nat: bool) -> Option<Self> {
        let works = |command: &[&str]| Run::new(command[0]).args(&command[1..]).output().is_ok_and(|out| out.status.success());
        let name = format!("tops{name}{}", std::process::id());
        let mut yard = Self { name, machines: Vec::new() };
        let probe = format!("{}probe", yard.name);
        let mut possible = works(&["ip", "netns", "add", &probe]);
        if possible {
            yard.machines.push(probe.clone());
            possible = works(&["ip", "-n", &probe, "link", "add", "name", "a", "type", "veth", "peer", "name", "b"])
                && (!nat || works(&["ip", "netns", "exec", &probe, "nft", "add", "table", "ip", "nat"]))
                && works(&["curl", "--version"]);
        }
        if !possible {
            println!("left out: it takes root, ip, curl{}", if nat { " and nft (Debian: apt-get install nftables)" } else { "" });
            return None;
        }
        Some(yard)
    }

    fn place(&self, machine: &str) -> String {
        format!("{}{machine}", self.name)
    }

    fn add(&mut self, machine: &str) {
        let place = self.place(machine);
        run(&["ip", "netns", "add", &place]);
        self.machines.push(place.clone());
        run(&["ip", "-n", &place, "link", "set", "dev", "lo", "up"]);
    }

    /// Runs a command in a machine.
    fn on(&self, machine: &str, command: &str) {
        let place = self.place(machine);
        let mut all = vec!["ip", "netns", "exec", &place];
        all.extend(command.split_whitespace());
        run(&all);
    }

    /// A wire from a machine's interface to a bridge in another machine, or to that machine's interface.
    fn wire(&self, a: (&str, &str, &str), b: (&str, &str), bridge: Option<&str>) {
        let (pa, pb) = (self.place(a.0), self.place(b.0));
        run(&["ip", "-n", &pa, "link", "add", "name", a.1, "type", "veth", "peer", "name", b.1, "netns", &pb]);
        run(&["ip", "-n", &pa, "addr", "add", a.2, "dev", a.1]);
        run(&["ip", "-n", &pa, "link", "set", "dev", a.1, "up"]);
        if let Some(bridge) = bridge {
            run(&["ip", "-n", &pb, "link", "set", "dev", b.1, "master", bridge]);
        }
        run(&["ip", "-n", &pb, "link", "set", "dev", b.1, "up"]);
    }

    fn bridge(&mut self, machine: &str) {
        self.add(machine);
        let place = self.place(machine);
        run(&["ip", "-n", &place, "link", "add", "name", "br", "type", "bridge"]);
        run(&["ip", "-n", &place, "link", "set", "dev", "br", "up"]);
    }

    fn command(&self, machine: &str, program: &Path) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.place(machine)]).arg(program);
        command
    }

    async fn status(&self, machine: &str, path: &str) -> Option<Value> {
        let url = format!("http://127.0.0.1:4067{path}");
        let out = Command::new("ip")
            .args(["netns", "exec", &self.place(machine), "curl", "--silent", "--fail", "--max-time", "5", &url])
            .output()
            .await
            .ok()?;
        serde_json::from_slice(&out.stdout).ok()
    }

    async fn until(&self, what: &str, machine: &str, path: &str, says: impl Fn(&Value) -> bool) -> Value {
        let began = Instant::now();
        let mut last = None;
        while began.elapsed() < PATIENCE {
            last = self.status(machine, path).await;
            if let Some(status) = last.as_ref().filter(|status| says(status)) {
                return status.clone();
            }
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        panic!("{machine} never: {what}; it says {last:?}");
    }
}

impl Drop for Yard {
    fn drop(&mut self) {
        for machine in &self.machines {
            // What is left of it goes with the test's processes.
            let _ = Run::new("ip").args(["netns", "del", machine]).status();
        }
    }
}

fn run(command: &[&str]) {
    let out = Run::new(command[0]).args(&command[1..]).output().unwrap();
    assert!(out.status.success(), "{command:?}: {}", String::from_utf8_lossy(&out.stderr));
}

/// A network of its own: heads within two seconds of one core.
fn network(dir: &Path) -> std::path::PathBuf {
    let now = u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap();
    let fields = Fields {
        m: 16,
        n: 256,
        k: 256,
        spacing_secs: 2,
        half_life_secs: 20,
        genesis_bits: 0x1f07_ffff,
        easiest_bits: 0x1f7f_ffff,
        share_log2: 3,
        stale_window: 3,
        genesis_time_ms: now,
    };
    let spec = NetworkSpec::new(fields).unwrap();
    let mut file = String::from("name = \"nat\"\n");
    for (key, value) in serde_json::to_value(spec.fields()).unwrap().as_object().unwrap() {
        file.push_str(&format!("{key} = {value}\n"));
    }
    let path = dir.join("network.toml");
    std::fs::write(&path, file).unwrap();
    path
}

fn nodes(status: &Value) -> u64 {
    status["nodes"].as_u64().unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_two_nodes_behind_home_routers_meet_through_the_relay() {
    let Some(mut yard) = Yard::open("n", true) else { return };
    let dir = tempfile::tempdir().unwrap();
    let network = network(dir.path());
    yard.bridge("W");
    yard.add("G");
    yard.wire(("G", "e", "203.0.113.1/24"), ("W", "g"), Some("br"));
    for (n, (router, home)) in [("R1", "H1"), ("R2", "H2")].into_iter().enumerate() {
        let n = n + 1;
        yard.add(router);
        yard.add(home);
        yard.wire((router, "wan", &format!("203.0.113.{}/24", n + 1)), ("W", router), Some("br"));
        yard.wire((home, "e", &format!("10.0.{n}.2/24")), (router, "lan"), None);
        yard.on(router, &format!("ip addr add 10.0.{n}.1/24 dev lan"));
        yard.on(home, &format!("ip route add default via 10.0.{n}.1"));
        yard.on(router, "sysctl -qw net.ipv4.ip_forward=1");
        // As a home router has it: out under its own address, in only what answers.
        for rule in [
            "add table ip nat",
            "add chain ip nat out { type nat hook postrouting priority 100 ; }",
            "add rule ip nat out oifname wan masquerade",
            "add table ip fence",
            "add chain ip fence in { type filter hook input priority 0 ; }",
            "add chain ip fence through { type filter hook forward priority 0 ; }",
            "add rule ip fence in iifname wan ct state new drop",
            "add rule ip fence through iifname wan ct state new drop",
        ] {
            yard.on(router, &format!("nft {rule}"));
        }
    }
    let programs = Binaries::built().unwrap();
    let told = dir.path().join("gate.addr");
    let mut command = yard.command("G", &programs.path("tops-bootstrap"));
    command.arg("--network").arg(&network).arg("--key-file").arg(dir.path().join("gate.key")).arg("--addr-file").arg(&told);
    command.args(["--listen", "/ip4/203.0.113.1/tcp/4068"]);
    let gate = Process::start("gate", &dir.path().join("gate.log"), command).unwrap();
    let bootstrap = first_line(&told, PATIENCE).await.unwrap();
    let mut homes = Vec::new();
    for home in ["H1", "H2"] {
        let mut command = yard.command(home, &programs.path("tops-node"));
        command.arg("--network").arg(&network).arg("--data-dir").arg(dir.path().join(home)).args(["--bootstrap", &bootstrap, "--relay"]);
        command.args(["--listen", "/ip4/0.0.0.0/tcp/4069", "--http", "127.0.0.1:4067", "--backend", "cpu", "--log-level", "debug"]);
        command.arg(if home == "H1" { "--alone" } else { "--verify-only" });
        homes.push(Process::start(home, &dir.path().join(format!("{home}.log")), command).unwrap());
    }
    // The tip moves on by gossip, after what was before came by sync.
    let seen =
        yard.until("the other node and its receipts", "H2", "/v1/status", |s| nodes(s) == 1 && s["tip"]["height"].as_u64() > Some(2)).await;
    let (height, gossiped) = (seen["tip"]["height"].as_u64(), seen["counters"]["gossip_accepted"].as_u64());
    yard.until("more receipts by gossip", "H2", "/v1/status", |s| {
        s["tip"]["height"].as_u64() > height && s["counters"]["gossip_accepted"].as_u64() > gossiped
    })
    .await;
    let began = Instant::now();
    let mut direct = false;
    while !direct && began.elapsed() < Duration::from_secs(30) {
        let peers = yard.status("H2", "/v1/peers").await.unwrap_or_default().to_string();
        direct = peers.contains("/ip4/203.0.113.2/tcp/") && !peers.contains("p2p-circuit");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    println!("a direct line {} the relayed one", if direct { "took the place of" } else { "did not take the place of" });
    if !direct {
        for log in ["H1", "H2"] {
            let text = std::fs::read_to_string(dir.path().join(format!("{log}.log"))).unwrap();
            text.lines().filter(|line| line.contains("direct line")).take(5).for_each(|line| println!("{log}: {line}"));
        }
    }
    for process in homes.into_iter().chain([gate]) {
        process.stop(Duration::from_secs(10)).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_neighbours_find_each_other_by_mdns() {
    let Some(mut yard) = Yard::open("m", false) else { return };
    let dir = tempfile::tempdir().unwrap();
    let network = network(dir.path());
    yard.bridge("L");
    let programs = Binaries::built().unwrap();
    let mut homes = Vec::new();
    for (n, home) in ["A", "B"].into_iter().enumerate() {
        yard.add(home);
        yard.wire((home, "e", &format!("192.168.7.{}/24", n + 1)), ("L", home), Some("br"));
        let mut command = yard.command(home, &programs.path("tops-node"));
        command.arg("--network").arg(&network).arg("--data-dir").arg(dir.path().join(home)).arg("--mdns");
        command.args(["--listen", "/ip4/0.0.0.0/tcp/4069", "--http", "127.0.0.1:4067", "--backend", "cpu"]);
        command.arg(if home == "A" { "--alone" } else { "--verify-only" });
        homes.push(Process::start(home, &dir.path().join(format!("{home}.log")), command).unwrap());
    }
    yard.until("the other node and its receipts", "B", "/v1/status", |s| nodes(s) == 1 && s["tip"]["height"].as_u64() > Some(1)).await;
    for process in homes {
        process.stop(Duration::from_secs(10)).await.unwrap();
    }
}
