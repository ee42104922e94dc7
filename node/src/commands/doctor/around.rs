//! What lies around this machine's node: ports, peers, the aggregator.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::time::Duration;

use futures::StreamExt;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::{DialError, SwarmEvent, dial_opts::DialOpts, dummy};
use libp2p::{Multiaddr, Swarm, SwarmBuilder, noise, tcp};
use serde_json::Value;

use super::{Check, Other, fail, ok, warn};
use crate::config::Config;
use crate::net::book::peer_of;
use crate::net::dial::complaint;
use crate::net::line::Multiplexer;
use crate::net::remembered::{FILE, Remembered};
use crate::settings::one_line;
use crate::{bridge, keys};

/// How long a peer may take to be resolved, reached and to prove who it is. All are called at once.
const DIAL_WITHIN: Duration = Duration::from_secs(10);
/// Peers of earlier runs that are called when there is no bootstrap address.
const REMEMBERED_CALLED: usize = 4;
/// How long the aggregator may take to answer.
const AGGREGATOR_WITHIN: Duration = Duration::from_secs(10);

/// A socket that a listen address stands for.
fn socket(address: &Multiaddr) -> Option<(SocketAddr, &'static str)> {
    let mut ip = None;
    for part in address {
        match part {
            Protocol::Ip4(v4) => ip = Some(IpAddr::V4(v4)),
            Protocol::Ip6(v6) => ip = Some(IpAddr::V6(v6)),
            Protocol::Tcp(port) => return Some((SocketAddr::new(ip?, port), "TCP")),
            Protocol::Udp(port) => return Some((SocketAddr::new(ip?, port), "UDP")),
            _ => {}
        }
    }
    None
}

/// Whether the node can listen where it is told to.
pub(super) fn ports(config: &Config, other: &Other) -> Vec<Check> {
    let p2p = config.listen.iter().filter_map(socket).map(|(at, kind)| (at, kind, "--listen"));
    let http = config.http.map(|at| (at, "TCP", "--http"));
    let busy = |flag: &str| match other {
        Other::Running { status, .. } if flag == "--listen" => status["node"]["listening"].as_array().is_some_and(|all| !all.is_empty()),
        Other::Running { .. } | Other::Silent => true,
        Other::Nobody => false,
    };
    p2p.chain(http).map(|(at, kind, flag)| port(at, kind, flag, busy(flag))).collect()
}

/// `ours`: a node of ours runs and may hold it.
fn port(at: SocketAddr, kind: &str, flag: &str, ours: bool) -> Check {
    let about = "ports";
    let bound = if kind == "UDP" { UdpSocket::bind(at).map(drop) } else { TcpListener::bind(at).map(drop) };
    match bound {
        Ok(()) => ok(about, format!("{kind} {at} is free")),
        Err(e) if e.kind() == ErrorKind::AddrInUse && ours => ok(about, format!("{kind} {at} is held by the running node")),
        Err(e) if e.kind() == ErrorKind::AddrInUse => {
            fail(about, format!("{kind} {at} is taken by another program"), format!("stop that (`ss -lnp` names it), or choose another {flag}"))
        }
        Err(e) if e.kind() == ErrorKind::PermissionDenied => {
            fail(about, format!("{kind} {at} may not be opened by this user"), format!("choose a port above 1023 with {flag}"))
        }
        Err(e) if at.is_ipv6() && flag == "--listen" => {
            warn(about, format!("{kind} {at} cannot be opened ({e})"), "this machine has no IPv6: the node goes on without")
        }
        Err(e) => fail(about, format!("{kind} {at} cannot be opened ({e})"), format!("give an address of this machine with {flag}")),
    }
}

/// Whether somebody can be joined by.
pub(super) async fn peers(config: &Config, status: Option<&Value>) -> Vec<Check> {
    let about = "peers";
    let mut checks = Vec::new();
    if let Some(nodes) = status.and_then(|s| s["nodes"].as_u64()) {
        checks.push(match nodes {
            0 if config.alone => ok(about, "the running node is alone, as it may be"),
            0 => fail(about, "the running node has none", "check --bootstrap and the firewall; `tops-node peers` shows who is connected"),
            1 => warn(about, "the running node has one", "give more --bootstrap addresses: one peer can fail, or lie by silence"),
            _ => ok(about, format!("the running node has {nodes}")),
        });
    }
    let remembered = Remembered::open(Some(config.data_dir.join(FILE)));
    let known: Vec<Multiaddr> = remembered.peers().map(|(_, address)| address).collect();
    let called: Vec<Multiaddr> =
        if config.bootstrap.is_empty() { known.iter().take(REMEMBERED_CALLED).cloned().collect() } else { config.bootstrap.clone() };
    if called.is_empty() {
        checks.push(match (config.alone, config.mdns, status.is_some()) {
            (_, _, true) => ok(about, "no --bootstrap: the running node is called by others"),
            (true, ..) => ok(about, "no --bootstrap: the node works alone until somebody calls"),
            (false, true, _) => ok(about, "no --bootstrap: peers are looked for on the local network"),
            (false, false, _) => warn(about, "no --bootstrap, and none known of earlier runs", "give the address of a node or gate with --bootstrap"),
        });
        return checks;
    }
    let calls = futures::future::join_all(called.iter().map(call)).await;
    let reached = calls.iter().filter(|call| call.is_ok()).count();
    for (address, outcome) in called.iter().zip(calls) {
        checks.push(match outcome {
            Ok(()) => ok(about, format!("{address} answers")),
            // Others are enough to join by.
            Err((cause, advice)) if reached > 0 => warn(about, format!("{address}: {cause}"), advice),
            Err((cause, advice)) => fail(about, format!("{address}: {cause}"), advice),
        });
    }
    checks
}

/// Calls an address as a node does, up to the proof of who answers; the cause and what to do if that fails.
async fn call(address: &Multiaddr) -> Result<(), (String, String)> {
    let network = || "check the address, that a node or gate listens there, and the firewalls on the way".to_owned();
    let mut swarm = caller().map_err(|e| (one_line(&format!("{e:#}")), "check the resolver's settings, /etc/resolv.conf".to_owned()))?;
    swarm.dial(DialOpts::unknown_peer_id().address(address.clone()).build()).map_err(|e| (one_line(&e.to_string()), network()))?;
    let outcome = tokio::time::timeout(DIAL_WITHIN, async {
        loop {
            match swarm.select_next_some().await {
                SwarmEvent::ConnectionEstablished { .. } => return Ok(()),
                SwarmEvent::OutgoingConnectionError { error, .. } => return Err(error),
                _ => {}
            }
        }
    });
    match outcome.await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(told(&error, peer_of(address).is_some()).unwrap_or_else(|| (one_line(&error.to_string()), network()))),
        Err(_) => Err((format!("no answer within {} s", DIAL_WITHIN.as_secs()), network())),
    }
}

fn told(error: &DialError, named: bool) -> Option<(String, String)> {
    complaint(error, named).map(|said| (said.cause, said.advice))
}

/// A peer that speaks the transports and nothing else, under a key of its own.
fn caller() -> anyhow::Result<Swarm<dummy::Behaviour>> {
    let swarm = SwarmBuilder::with_existing_identity(keys::identity(&keys::generate()?)?)
        .with_tokio()
        .with_tcp(tcp::Config::default().nodelay(true), noise::Config::new, Multiplexer::default)?
        .with_quic()
        .with_dns()?
        .with_behaviour(|_| dummy::Behaviour);
    match swarm {
        Ok(swarm) => Ok(swarm.with_swarm_config(|c| c.with_idle_connection_timeout(DIAL_WITHIN)).build()),
        Err(never) => match never {},
    }
}

/// Whether the aggregator can be reached. It is sent nothing to count.
pub(super) async fn aggregator(config: &Config, status: Option<&Value>) -> Vec<Check> {
    let about = "aggregator";
    let Some(url) = &config.aggregator else { return Vec::new() };
    let mut checks = Vec::new();
    let host = format!("{}:{}", url.host_str().unwrap_or_default(), url.port_or_known_default().unwrap_or_default());
    let advice = "receipts wait in the outbox meanwhile: check the address and that it runs";
    let asked = match bridge::client(url, &crate::run::agent()) {
        Ok(client) => client.get(url.clone()).timeout(AGGREGATOR_WITHIN).send().await.map_err(|e| e.without_url()),
        Err(fault) => {
            checks.push(fail(about, one_line(&format!("{fault:#}")), advice));
            return checks;
        }
    };
    checks.push(match asked {
        Ok(answer) if answer.status().is_server_error() => {
            warn(about, format!("{host} answers, with {}", answer.status().as_u16()), "look at its log: it may be in trouble")
        }
        // It takes POST; whatever it says to GET, it is there.
        Ok(_) => ok(about, format!("{host} answers")),
        Err(e) if e.is_timeout() => fail(about, format!("{host} does not answer within {} s", AGGREGATOR_WITHIN.as_secs()), advice),
        Err(e) => {
            let mut cause: &dyn std::error::Error = &e;
            while let Some(inner) = cause.source() {
                cause = inner;
            }
            fail(about, format!("{host} cannot be reached ({})", one_line(&cause.to_string())), advice)
        }
    });
    if let Some(dead) = status.and_then(|s| s["outbox"]["dead"].as_u64()).filter(|dead| *dead > 0) {
        let advice = "`tops-node outbox list --state dead` says why; then replay or drop them";
        checks.push(warn(about, format!("it refused {dead} receipts"), advice));
    }
    checks
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;

    #[test]
    fn a_taken_port_is_a_failure_unless_our_node_holds_it() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = taken.local_addr().unwrap();
        assert_eq!(port(at, "TCP", "--http", false).state, State::Fail);
        assert_eq!(port(at, "TCP", "--http", true).state, State::Ok);
        drop(taken);
        assert_eq!(port(at, "TCP", "--http", false).state, State::Ok);
        assert_eq!(port("192.0.2.1:0".parse().unwrap(), "UDP", "--listen", false).state, State::Fail);
    }

    #[test]
    fn a_listen_address_is_a_socket() {
        let of = |text: &str| socket(&text.parse().unwrap());
        assert_eq!(of("/ip4/0.0.0.0/tcp/4069"), Some(("0.0.0.0:4069".parse().unwrap(), "TCP")));
        assert_eq!(of("/ip6/::/udp/4069/quic-v1"), Some(("[::]:4069".parse().unwrap(), "UDP")));
        assert_eq!(of("/dns/example.org/tcp/4069"), None);
    }
}
