//! The gate as a process: it tells where it is, keeps its identity, brings visitors together, sends away strangers, and ends when told to.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]

use std::io::{BufRead, BufReader};
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use futures::StreamExt;
use libp2p::identity::Keypair;
use libp2p::kad::store::MemoryStore;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::{NetworkBehaviour, SwarmEvent};
use libp2p::{Multiaddr, PeerId, StreamProtocol, Swarm, SwarmBuilder, identify, kad, noise, tcp, yamux};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tops_protocol::NetworkSpec;

const PATIENCE: Duration = Duration::from_secs(30);

/// Ends with the test.
struct Gate(Child);

impl Drop for Gate {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn command(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tops-bootstrap"));
    command
        .args(["--network", "dev", "--listen", "/ip4/127.0.0.1/tcp/0", "--key-file"])
        .arg(dir.join("gate.key"))
        .arg("--addr-file")
        .arg(dir.join("addr"));
    command.stdout(Stdio::piped()).stderr(Stdio::null());
    command
}

/// A gate, and the address that it prints.
fn open(dir: &Path) -> (Gate, Multiaddr) {
    let mut gate = Gate(command(dir).spawn().unwrap());
    let mut line = String::new();
    BufReader::new(gate.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    (gate, line.trim().parse().unwrap())
}

#[derive(NetworkBehaviour)]
struct Visitor {
    identify: identify::Behaviour,
    kad: kad::Behaviour<MemoryStore>,
}

fn visitor(network: &NetworkSpec) -> Swarm<Visitor> {
    let tag = network.tag().to_hex();
    let key = Keypair::generate_secp256k1();
    let local = key.public().to_peer_id();
    let kad_name = StreamProtocol::try_from_owned(format!("/tops/{tag}/kad/2")).unwrap();
    let mut table = kad::Behaviour::with_config(local, MemoryStore::new(local), kad::Config::new(kad_name));
    table.set_mode(Some(kad::Mode::Server));
    let identify =
        identify::Behaviour::new(identify::Config::new(format!("/tops/{tag}/2"), key.public()).with_push_listen_addr_updates(true));
    let mut swarm = SwarmBuilder::with_existing_identity(key)
        .with_tokio()
        .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
        .unwrap()
        .with_behaviour(|_| Visitor { identify, kad: table })
        .unwrap()
        .with_swarm_config(|config| config.with_idle_connection_timeout(PATIENCE))
        .build();
    swarm.listen_on("/ip4/127.0.0.1/tcp/0".parse().unwrap()).unwrap();
    swarm
}

/// What the gate tells of a peer, once; nothing when it does not know it.
async fn told_of(swarm: &mut Swarm<Visitor>, peer: PeerId) -> Vec<Multiaddr> {
    let own = *swarm.local_peer_id();
    swarm.behaviour_mut().kad.get_closest_peers(own);
    let answered = async {
        loop {
            let event = swarm.select_next_some().await;
            if let SwarmEvent::Behaviour(VisitorEvent::Kad(kad::Event::OutboundQueryProgressed {
                result: kad::QueryResult::GetClosestPeers(Ok(ok)),
                ..
            })) = event
            {
                return ok.peers;
            }
        }
    };
    let peers = timeout(PATIENCE, answered).await.expect("nobody answers");
    peers.into_iter().find(|found| found.peer_id == peer).map(|found| found.addrs).unwrap_or_default()
}

/// Drives a swarm until the gate has said who it is.
async fn greeted(swarm: &mut Swarm<Visitor>) -> identify::Info {
    let wait = async {
        loop {
            if let SwarmEvent::Behaviour(VisitorEvent::Identify(identify::Event::Received { info, .. })) = swarm.select_next_some().await {
                return info;
            }
        }
    };
    timeout(PATIENCE, wait).await.expect("the gate does not say who it is")
}

#[tokio::test(flavor = "multi_thread")]
async fn visitors_find_each_other_and_strangers_are_sent_away() {
    let dir = tempfile::tempdir().unwrap();
    let (_gate, address) = open(dir.path());
    let dev = NetworkSpec::dev();
    let mut first = visitor(&dev);
    first.dial(address.clone()).unwrap();
    let info = greeted(&mut first).await;
    assert!(info.agent_version.starts_with("tops-bootstrap/"));
    let first_id = *first.local_peer_id();
    tokio::spawn(async move { while first.next().await.is_some() {} });

    let mut second = visitor(&dev);
    second.dial(address.clone()).unwrap();
    let gate_id: PeerId = greeted(&mut second).await.public_key.to_peer_id();
    second.behaviour_mut().kad.add_address(&gate_id, address.clone());
    let found = async { while told_of(&mut second, first_id).await.is_empty() {} };
    timeout(PATIENCE, found).await.expect("the gate does not tell of the first visitor");

    let mut stranger = visitor(&NetworkSpec::main());
    stranger.dial(address).unwrap();
    let sent_away = async {
        loop {
            if let SwarmEvent::ConnectionClosed { .. } = stranger.select_next_some().await {
                return;
            }
        }
    };
    timeout(PATIENCE, sent_away).await.expect("a stranger may stay");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_visitor_that_always_names_new_addresses_is_told_with_few() {
    let dir = tempfile::tempdir().unwrap();
    let (_gate, address) = open(dir.path());
    let dev = NetworkSpec::dev();
    let mut restless = visitor(&dev);
    restless.dial(address.clone()).unwrap();
    let gate_id: PeerId = greeted(&mut restless).await.public_key.to_peer_id();
    let restless_id = *restless.local_peer_id();
    tokio::spawn(async move {
        let named = |port: u16| -> Multiaddr { format!("/ip4/127.0.0.1/tcp/{port}").parse().unwrap() };
        let mut every = tokio::time::interval(Duration::from_millis(100));
        let mut port = 1_000;
        loop {
            tokio::select! {
                _ = restless.select_next_some() => {}
                _ = every.tick() => {
                    restless.add_external_address(named(port));
                    // With the one that it listens on never more than a gate takes at a time.
                    restless.remove_external_address(&named(port - 6));
                    restless.behaviour_mut().identify.push([gate_id]);
                    port += 1;
                }
            }
        }
    });

    let mut other = visitor(&dev);
    other.dial(address.clone()).unwrap();
    greeted(&mut other).await;
    other.behaviour_mut().kad.add_address(&gate_id, address);
    // Twenty addresses later; the one that it listens on is of the system's choice and higher.
    let late = |address: &Multiaddr| address.iter().any(|part| matches!(part, Protocol::Tcp(1_020..=9_999)));
    let heard = async {
        loop {
            let told = told_of(&mut other, restless_id).await;
            if told.iter().any(late) {
                return told;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let told = timeout(PATIENCE, heard).await.expect("the gate does not look at what was said too soon");
    // Beside those of the last telling, the gate may have dialled one or two.
    assert!(told.len() <= 10, "{told:?}");
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn it_stays_open_when_nobody_reads_what_it_prints() {
    let dir = tempfile::tempdir().unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let _gate = Gate(command(dir.path()).stdout(writer).spawn().unwrap());
    let file = dir.path().join("addr");
    let written = async {
        loop {
            match std::fs::read_to_string(&file) {
                Ok(text) => return text.trim().parse::<Multiaddr>().unwrap(),
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    };
    let address = timeout(PATIENCE, written).await.expect("it does not tell where it is");
    let mut guest = visitor(&NetworkSpec::dev());
    guest.dial(address).unwrap();
    greeted(&mut guest).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_keeps_silent_does_not_fill_all_places() {
    let dir = tempfile::tempdir().unwrap();
    let (_gate, address) = open(dir.path());
    let port = address.iter().find_map(|part| if let Protocol::Tcp(port) = part { Some(port) } else { None }).unwrap();
    // From a host of loopback.
    let call = async |host: u8| {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind((Ipv4Addr::new(127, 0, 1, host), 0).into()).unwrap();
        socket.connect((Ipv4Addr::LOCALHOST, port).into()).await.unwrap()
    };
    let hangs_up = async |mut stream: TcpStream, within| !matches!(timeout(within, stream.read(&mut [0; 64])).await, Err(_) | Ok(Ok(1..)));
    let mut held = Vec::new();
    for _ in 0..32 {
        held.push(call(1).await);
    }
    assert!(hangs_up(call(1).await, Duration::from_secs(5)).await, "one address holds {} places and more", held.len());
    assert!(!hangs_up(call(2).await, Duration::from_millis(500)).await, "others come in");
}

#[test]
fn it_keeps_its_identity_and_ends_when_told_to() {
    let dir = tempfile::tempdir().unwrap();
    let id = |address: &Multiaddr| address.iter().last().unwrap().to_string();
    let (mut gate, first) = open(dir.path());
    let written = std::fs::read_to_string(dir.path().join("addr")).unwrap();
    assert_eq!(written.trim(), first.to_string());
    #[cfg(unix)]
    {
        let pid = gate.0.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        assert!(gate.0.wait().unwrap().success());
    }
    drop(gate);
    let (_gate, second) = open(dir.path());
    assert_eq!(id(&first), id(&second));
}

#[test]
fn wrong_arguments_are_one_sentence() {
    let dir = tempfile::tempdir().unwrap();
    for arguments in [["--network", "/nowhere"], ["--key-file", "/proc/none/key"]] {
        let output = Command::new(env!("CARGO_BIN_EXE_tops-bootstrap"))
            .current_dir(dir.path())
            .args(["--listen", "/ip4/127.0.0.1/tcp/0"])
            .args(arguments)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(3), "{arguments:?}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.lines().last().unwrap().starts_with("tops-bootstrap: "), "{said}");
    }
}
