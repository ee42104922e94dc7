//! The node's adapters over real sockets on loopback: handshakes, numbers, verdicts, questions, and signatures off the loop.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use libp2p::identity::Keypair;
use tokio::sync::watch;
use tokio::time::timeout;
use tops_node::net::codec::RawReply;
use tops_node::net::limits::{BEGUN_ANEW, PENDING_INCOMING_MAX, SECOND_CONNECTION, SETUP_WITHIN};
use tops_node::net::task::{Answered, Net, NetCommand, NetEvent, NetView, Settings, start};
use tops_node::state::{Identity, Shared};
use tops_node::verifier::{Task, Verified, Verifier};
use tops_protocol::engine::{AskId, Digest, Input, Message, Peer, Query, Reply, Status, Topic, Verdict};
use tops_protocol::keys::SecretKey;
use tops_protocol::{Draft, Height, Millis, NetworkSpec, Nonce, PublicKey, Receipt, Root, Signature, Text, U256};

const PATIENCE: Duration = Duration::from_secs(20);

fn shared() -> Shared {
    Shared::new(Identity {
        peer_id: String::new(),
        miner: PublicKey([2; 33]),
        device_did: String::new(),
        agent: String::new(),
        network_name: "dev".into(),
        verify_only: false,
        alone: false,
        started_at: Millis(0),
    })
}

fn counter(shared: &Shared, name: &str) -> u64 {
    shared.counters().values().into_iter().find(|(n, _)| *n == name).unwrap().1
}

struct Node {
    net: Net,
    shared: Shared,
}

impl Node {
    fn on(network: &NetworkSpec, listen: &str, bootstrap: &[String]) -> Self {
        Self::of(Keypair::generate_secp256k1(), network, listen, bootstrap)
    }

    fn of(key: Keypair, network: &NetworkSpec, listen: &str, bootstrap: &[String]) -> Self {
        let shared = shared();
        let settings = Settings {
            key,
            tag: network.tag(),
            agent: "test/1".into(),
            listen: vec![listen.parse().unwrap()],
            external: vec![],
            bootstrap: bootstrap.iter().map(|a| a.parse().unwrap()).collect(),
            mdns: false,
            relay: false,
            remembered: None,
        };
        Self { net: start(settings, shared.clone()).unwrap(), shared }
    }

    fn dev(bootstrap: &[String]) -> Self {
        Self::on(&NetworkSpec::dev(), "/ip4/127.0.0.1/tcp/0", bootstrap)
    }

    /// Its address without its id.
    async fn address(&mut self) -> String {
        let view = timeout(PATIENCE, self.net.view.wait_for(|view| !view.listening.is_empty())).await.unwrap().unwrap().clone();
        view.listening[0].split("/p2p/").next().unwrap().to_owned()
    }

    async fn event(&mut self) -> NetEvent {
        timeout(PATIENCE, self.net.events.recv()).await.expect("nothing came").expect("the task ended")
    }

    /// The next event that is not a coming or going.
    async fn news(&mut self) -> NetEvent {
        loop {
            match self.event().await {
                NetEvent::Up { .. } | NetEvent::Down { .. } => {}
                other => return other,
            }
        }
    }

    async fn up(&mut self) -> Peer {
        match self.event().await {
            NetEvent::Up { peer } => peer,
            other => panic!("{other:?}"),
        }
    }

    async fn tell(&self, command: NetCommand) {
        self.net.commands.send(command).await.unwrap();
    }

    async fn count(&self, name: &str, at_least: u64) {
        let reached = async {
            while counter(&self.shared, name) < at_least {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(PATIENCE, reached).await.unwrap_or_else(|_| panic!("{name} stayed at {}", counter(&self.shared, name)));
    }
}

impl Node {
    /// Publishes until the other one hears it: who has just come tells its topics a moment later, and what is published before that reaches it
    /// by sync alone.
    async fn gossips_to(&self, other: &mut Self) {
        let news = async {
            for round in 0.. {
                self.tell(NetCommand::Publish { topic: Topic::Receipts, bytes: vec![round; 200] }).await;
                if let Ok(news) = timeout(Duration::from_millis(500), other.news()).await {
                    return news;
                }
            }
            unreachable!("rounds end with the time limit");
        };
        let news = timeout(PATIENCE, news).await.expect("nothing came");
        assert!(matches!(news, NetEvent::Gossip { topic: Topic::Receipts, .. }), "{news:?}");
    }

    /// Waits until it has so many connections.
    async fn lines(&self, wanted: u64) {
        let open = || counter(&self.shared, "connections_opened") - counter(&self.shared, "connections_closed");
        let settled = async {
            while open() != wanted {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(PATIENCE, settled).await.unwrap_or_else(|_| panic!("{} connections and not {wanted}", open()));
    }
}

async fn pair() -> (Node, Peer, Node, Peer) {
    let mut a = Node::dev(&[]);
    let mut b = Node::dev(&[a.address().await]);
    let (b_at_a, a_at_b) = (a.up().await, b.up().await);
    (a, b_at_a, b, a_at_b)
}

#[tokio::test(flavor = "multi_thread")]
async fn questions_are_answered_refused_or_failed() {
    let (mut a, b_at_a, mut b, _) = pair().await;
    let query = Query::Heads { locator: vec![(Height(3), Root([7; 32]))] };
    a.tell(NetCommand::Ask { peer: b_at_a, ask: AskId(1), query: query.clone() }).await;
    let NetEvent::Asked { answer, query: heard, .. } = b.news().await else { panic!() };
    assert_eq!(heard, query);
    let reply = RawReply::Heads(vec![vec![1, 2, 3]]);
    b.tell(NetCommand::Answer { answer, with: Some(reply.clone()) }).await;
    assert_eq!(a.news().await, NetEvent::Replied { peer: b_at_a, ask: AskId(1), answered: Answered::With(reply) });

    a.tell(NetCommand::Ask { peer: b_at_a, ask: AskId(2), query: query.clone() }).await;
    let NetEvent::Asked { answer, .. } = b.news().await else { panic!() };
    b.tell(NetCommand::Answer { answer, with: None }).await;
    assert_eq!(a.news().await, NetEvent::Replied { peer: b_at_a, ask: AskId(2), answered: Answered::Failed });

    // An answer to another question breaks the protocol.
    a.tell(NetCommand::Ask { peer: b_at_a, ask: AskId(3), query: query.clone() }).await;
    let NetEvent::Asked { answer, .. } = b.news().await else { panic!() };
    let status =
        Status { tip: Root([0; 32]), height: Height(0), work: U256::ZERO, first_epoch: 0, epochs: vec![], bans: Digest::default() };
    b.tell(NetCommand::Answer { answer, with: Some(RawReply::Status(status)) }).await;
    assert_eq!(a.news().await, NetEvent::Replied { peer: b_at_a, ask: AskId(3), answered: Answered::Invalid });

    // Nobody has this number.
    a.tell(NetCommand::Ask { peer: Peer(u64::MAX), ask: AskId(4), query }).await;
    assert_eq!(a.news().await, NetEvent::Replied { peer: Peer(u64::MAX), ask: AskId(4), answered: Answered::Failed });
}

#[tokio::test(flavor = "multi_thread")]
async fn gossip_waits_for_its_verdict_and_late_ones_are_counted() {
    let (a, _, mut b, a_at_b) = pair().await;
    // Nobody may be subscribed yet: then it waits in the outbox.
    let bytes = vec![9; 300];
    a.tell(NetCommand::Publish { topic: Topic::Receipts, bytes: bytes.clone() }).await;
    let NetEvent::Gossip { peer, message, topic, bytes: heard } = b.news().await else { panic!() };
    assert_eq!((peer, topic, heard), (a_at_b, Topic::Receipts, bytes.clone()));
    b.tell(NetCommand::Verdict { message, verdict: Verdict::Accept }).await;
    b.count("gossip_accepted", 1).await;
    assert_eq!(counter(&b.shared, "gossip_late_verdicts"), 0);
    // A second verdict on the same message comes too late, and so does one on a message that never was.
    b.tell(NetCommand::Verdict { message, verdict: Verdict::Accept }).await;
    b.tell(NetCommand::Verdict { message: Message(u64::MAX), verdict: Verdict::Reject }).await;
    b.count("gossip_late_verdicts", 2).await;
    // The same bytes again are no news; on another topic they are.
    a.tell(NetCommand::Publish { topic: Topic::Receipts, bytes: bytes.clone() }).await;
    a.tell(NetCommand::Publish { topic: Topic::Heads, bytes }).await;
    assert!(matches!(b.news().await, NetEvent::Gossip { topic: Topic::Heads, .. }));
    a.count("published", 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publication_waits_for_the_first_peer() {
    let mut a = Node::dev(&[]);
    a.tell(NetCommand::Publish { topic: Topic::Alerts, bytes: vec![5; 100] }).await;
    a.count("publish_deferred", 1).await;
    let mut b = Node::dev(&[a.address().await]);
    assert!(matches!(b.news().await, NetEvent::Gossip { topic: Topic::Alerts, .. }));
    assert_eq!(counter(&a.shared, "publish_dropped"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_bootstrap_finds_the_peers_of_its_last_run() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("peers.txt");
    let mut a = Node::dev(&[]);
    let settings = |bootstrap: Vec<String>| Settings {
        key: Keypair::generate_secp256k1(),
        tag: NetworkSpec::dev().tag(),
        agent: "test/1".into(),
        listen: vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()],
        external: vec![],
        bootstrap: bootstrap.iter().map(|a| a.parse().unwrap()).collect(),
        mdns: false,
        relay: false,
        remembered: Some(file.clone()),
    };
    let mut first = Node { net: start(settings(vec![a.address().await]), shared()).unwrap(), shared: shared() };
    first.up().await;
    a.up().await;
    let Net { commands, task, .. } = first.net;
    drop(commands);
    timeout(PATIENCE, task).await.unwrap().unwrap();
    let mut second = Node { net: start(settings(vec![]), shared()).unwrap(), shared: shared() };
    second.up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_of_another_network_are_dropped_at_the_handshake() {
    let mut a = Node::dev(&[]);
    let mut foreign = Node::on(&NetworkSpec::main(), "/ip4/127.0.0.1/tcp/0", &[a.address().await]);
    // Whoever hears the other's name first closes; the other one may never hear it.
    let noticed = async {
        while counter(&a.shared, "foreign_peers") + counter(&foreign.shared, "foreign_peers") == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, noticed).await.expect("nobody noticed");
    a.lines(0).await;
    assert!(a.net.events.try_recv().is_err() && foreign.net.events.try_recv().is_err(), "nobody came up");
    // And one of this network still gets in.
    let mut b = Node::dev(&[a.address().await]);
    b.up().await;
    a.up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_that_know_only_a_third_find_each_other() {
    let mut gate = Node::dev(&[]);
    let address = gate.address().await;
    let mut nodes: Vec<Node> = (0..4).map(|_| Node::dev(std::slice::from_ref(&address))).collect();
    for node in &mut nodes {
        let all = async { node.net.view.wait_for(|view| view.peers.iter().filter(|p| p.node).count() == 4).await.map(|_| ()) };
        timeout(PATIENCE, all).await.expect("they did not find each other").unwrap();
    }
    // One connection of each, however they dialled.
    for node in &nodes {
        node.lines(4).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_listen_everywhere_find_each_other_without_a_rendezvous() {
    let everywhere = "/ip4/0.0.0.0/tcp/0";
    let near = |view: &NetView| view.listening.iter().find(|a| a.starts_with("/ip4/127.0.0.1/")).cloned();
    let mut first = Node::on(&NetworkSpec::dev(), everywhere, &[]);
    let view = timeout(PATIENCE, first.net.view.wait_for(|view| near(view).is_some())).await.unwrap().unwrap().clone();
    let address = near(&view).unwrap();
    let mut others: Vec<Node> = (0..2).map(|_| Node::on(&NetworkSpec::dev(), everywhere, std::slice::from_ref(&address))).collect();
    for node in &mut others {
        let all = async { node.net.view.wait_for(|view| view.peers.iter().filter(|p| p.node).count() == 2).await.map(|_| ()) };
        timeout(PATIENCE, all).await.expect("they did not find each other").unwrap();
    }
}

/// What this thread logs.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    /// How many lines hold all of these words.
    fn lines(&self, words: &[&str]) -> usize {
        let text = String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned();
        text.lines().filter(|line| words.iter().all(|word| line.contains(word))).count()
    }

    async fn says(&self, words: &[&str]) {
        let said = async {
            while self.lines(words) == 0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(PATIENCE, said).await.unwrap_or_else(|_| panic!("no line with {words:?}"));
    }
}

// On one thread, so that the log is this test's own.
#[tokio::test]
async fn bootstrap_addresses_that_fail_are_told_with_what_to_do() {
    let log = Log::default();
    let writer = log.clone();
    let lines = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    let _logging = tracing::subscriber::set_default(lines);
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let nobody = format!("/ip4/127.0.0.1/tcp/{port}");
    let mut a = Node::dev(&[]);
    let misnamed = format!("{}/p2p/{}", a.address().await, Keypair::generate_secp256k1().public().to_peer_id());
    let mut b = Node::dev(&[nobody.clone(), misnamed.clone()]);
    log.says(&["WARN", &nobody, "cannot be reached", "check the address"]).await;
    log.says(&["WARN", &misnamed, &format!("end the address with /p2p/{}", a.net.peer_id)]).await;
    // Somebody comes to the address.
    let mut late = Node::on(&NetworkSpec::dev(), &nobody, &[]);
    late.up().await;
    b.up().await;
    log.says(&["INFO", &nobody, "reached after failures"]).await;
    assert_eq!(log.lines(&["WARN", &nobody]), 1, "failures are told seldom");
}

/// A way to a port of this machine on which lines fall silent at a word: nothing passes and nothing is closed, as when a machine loses its
/// power. Later lines work. Gives the way's address.
async fn way(to: u16) -> (String, watch::Sender<()>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("/ip4/127.0.0.1/tcp/{}", listener.local_addr().unwrap().port());
    let (cut, cuts) = watch::channel(());
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let mut cuts = cuts.clone();
            cuts.borrow_and_update();
            tokio::spawn(async move {
                let mut far = tokio::net::TcpStream::connect(("127.0.0.1", to)).await.unwrap();
                tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                    _ = cuts.changed() => std::future::pending::<()>().await,
                }
            });
        }
    });
    (address, cut)
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_a_line_that_fell_silent_is_left_and_the_peer_found_again() {
    // Two pings and the end of the second one's stream; some seconds for a busy machine.
    let noticed_within = Duration::from_secs(48);
    let mut a = Node::dev(&[]);
    let port = a.address().await.rsplit('/').next().unwrap().parse().unwrap();
    let (way, cut) = way(port).await;
    let mut b = Node::dev(&[way]);
    a.up().await;
    b.up().await;
    cut.send(()).unwrap();
    let noticed = async {
        while [&a, &b].iter().any(|node| counter(&node.shared, "connections_closed") == 0) {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(noticed_within, noticed).await.expect("a dead line stays");
    for node in [&a, &b] {
        node.lines(1).await;
    }
    a.gossips_to(&mut b).await;
}

/// A machine loses its power and is there again before the other end has noticed, which still counts the line and believes that it told its
/// topics.
#[tokio::test(flavor = "multi_thread")]
async fn slow_a_peer_that_lost_its_line_unnoticed_hears_gossip_again() {
    let (mut a, key) = (Node::dev(&[]), Keypair::generate_secp256k1());
    let address = a.address().await;
    let (way, cut) = way(address.rsplit('/').next().unwrap().parse().unwrap()).await;
    let b = || Node::of(key.clone(), &NetworkSpec::dev(), "/ip4/127.0.0.1/tcp/0", std::slice::from_ref(&way));
    let mut before = b();
    a.up().await;
    before.up().await;
    tokio::time::sleep(BEGUN_ANEW).await;
    cut.send(()).unwrap();
    drop(before);
    assert_eq!(counter(&a.shared, "connections_closed"), 0, "nobody noticed");
    let mut after = b();
    after.gossips_to(&mut a).await;
    a.gossips_to(&mut after).await;
}

/// Who connects and says nothing holds a place for its time, an address holds few, and others come in.
#[tokio::test(flavor = "multi_thread")]
async fn slow_callers_that_keep_silent_do_not_shut_the_door() {
    let mut a = Node::dev(&[]);
    let address = a.address().await;
    let port: u16 = address.rsplit('/').next().unwrap().parse().unwrap();
    let mut held = Vec::new();
    for host in 1..=PENDING_INCOMING_MAX as u8 {
        // Every one from an address of its own, so that all places are taken.
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind((std::net::Ipv4Addr::new(127, 0, 1, host), 0).into()).unwrap();
        held.push(socket.connect((std::net::Ipv4Addr::LOCALHOST, port).into()).await.unwrap());
    }
    // A new caller each time, who has no failures behind it to wait for.
    let comes_in = async { while timeout(Duration::from_secs(1), Node::dev(std::slice::from_ref(&address)).up()).await.is_err() {} };
    timeout(2 * SETUP_WITHIN, comes_in).await.expect("the door stays shut");
    drop(held);
}

#[tokio::test(flavor = "multi_thread")]
async fn simultaneous_dials_end_in_one_connection() {
    // Each knows the other: the ports are agreed on first.
    let ports: Vec<u16> = (0..2).map(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()).collect();
    let address = |i: usize| format!("/ip4/127.0.0.1/tcp/{}", ports[i]);
    let mut a = Node::on(&NetworkSpec::dev(), &address(0), &[address(1)]);
    let mut b = Node::on(&NetworkSpec::dev(), &address(1), &[address(0)]);
    let (b_at_a, _) = (a.up().await, b.up().await);
    tokio::time::sleep(SECOND_CONNECTION).await;
    for node in [&a, &b] {
        node.lines(1).await;
    }
    assert!(a.net.events.try_recv().is_err() && b.net.events.try_recv().is_err(), "nobody noticed");
    a.tell(NetCommand::Ask { peer: b_at_a, ask: AskId(1), query: Query::Bans { after: None } }).await;
    assert!(matches!(b.news().await, NetEvent::Asked { .. }), "the line that was kept works");
}

#[tokio::test(flavor = "multi_thread")]
async fn quic_carries_it_all_and_a_lost_peer_is_found_again() {
    let mut a = Node::on(&NetworkSpec::dev(), "/ip4/127.0.0.1/udp/0/quic-v1", &[]);
    let address = a.address().await;
    let mut b = Node::on(&NetworkSpec::dev(), "/ip4/127.0.0.1/udp/0/quic-v1", std::slice::from_ref(&address));
    a.up().await;
    let number = b.up().await;
    a.tell(NetCommand::Publish { topic: Topic::Heads, bytes: vec![1; 64] }).await;
    assert!(matches!(b.news().await, NetEvent::Gossip { .. }));
    // It goes, another one comes back under the same address.
    let Node { net: Net { task, commands, .. }, .. } = a;
    drop(commands);
    task.await.unwrap();
    assert_eq!(b.event().await, NetEvent::Down { peer: number });
    let port = address.split('/').nth(4).unwrap();
    let free = async {
        while std::net::UdpSocket::bind(format!("127.0.0.1:{port}")).is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, free).await.expect("the socket was not closed");
    let mut again = Node::on(&NetworkSpec::dev(), &address, &[]);
    assert_ne!(b.up().await, number, "numbers are not used twice");
    again.up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_is_listened_on_by_one_process_only() {
    let mut a = Node::dev(&[]);
    let settings = Settings {
        key: Keypair::generate_secp256k1(),
        tag: NetworkSpec::dev().tag(),
        agent: "test/1".into(),
        listen: vec![a.address().await.parse().unwrap()],
        external: vec![],
        bootstrap: vec![],
        mdns: false,
        relay: false,
        remembered: None,
    };
    let fault = start(settings, shared()).err().unwrap().to_string();
    assert!(fault.contains("is another node running?"), "{fault}");
}

// ---- signatures -----------------------------------------------------------------------------------------------------------------

fn key() -> SecretKey {
    SecretKey::from_bytes(&[7; 32]).unwrap()
}

fn draft(nonce: u64) -> Draft {
    let network = NetworkSpec::dev();
    Draft::new(Receipt {
        device_did: Text::cleaned("did:test"),
        epoch_id: 1,
        prev_hash: network.genesis(),
        nonce: Nonce::new(nonce).unwrap(),
        work_root: Root([1; 32]),
        shape: network.shape(),
        batch: 1,
        time_ms: 1,
        kernel_ver: Text::cleaned("gemm_int8_relu_q_v2"),
        driver_hint: Text::cleaned("test"),
        network: network.tag(),
        miner: key().public(),
        timestamp: Millis(5),
        sig: Signature([0; 64]),
    })
}

fn signed(nonce: u64) -> Receipt {
    let draft = draft(nonce);
    let sig = key().sign(&draft.prehash());
    draft.with_signature(sig)
}

#[tokio::test]
async fn verifiers_sign_check_and_remember() {
    let shared = shared();
    let (verifier, mut verified) = Verifier::start(NetworkSpec::dev(), Some(key()), shared.clone()).unwrap();
    assert!(verifier.sign(draft(1)));
    let Some(Verified::Input(Input::Signed { receipt })) = verified.recv().await else { panic!() };
    assert_eq!(receipt.receipt(), &signed(1));

    // The same receipt by gossip costs no second signature check.
    let (peer, topic) = (Peer(1), Topic::Receipts);
    let gossip = |message, bytes| Task::Gossip { peer, message: Message(message), topic, bytes };
    verifier.submit(gossip(1, receipt.wire().to_vec())).unwrap();
    let Some(Verified::Input(Input::Gossip { message: Message(1), receipt: again, .. })) = verified.recv().await else { panic!() };
    assert_eq!(again, receipt);
    assert_eq!((counter(&shared, "signatures_checked"), counter(&shared, "signatures_memoised")), (1, 1));

    // A false signature is remembered too.
    let false_one = Receipt { nonce: Nonce::new(2).unwrap(), ..signed(1) };
    for message in 2..4 {
        verifier.submit(gossip(message, false_one.to_wire())).unwrap();
        let Some(Verified::Reject { fault, .. }) = verified.recv().await else { panic!() };
        assert_eq!((fault.stage(), fault.label()), ("semantic", "signature"));
    }
    assert_eq!((counter(&shared, "signatures_checked"), counter(&shared, "signatures_memoised")), (2, 2));

    // Every changed byte is found at stage 1 or 2.
    let wire = receipt.wire().to_vec();
    for at in 0..wire.len() {
        let mut changed = wire.clone();
        changed[at] ^= 1;
        verifier.submit(gossip(9, changed)).unwrap();
        assert!(matches!(verified.recv().await, Some(Verified::Reject { .. })), "byte {at}");
    }
}

#[tokio::test]
async fn one_bad_receipt_makes_an_answer_invalid() {
    let (verifier, mut verified) = Verifier::start(NetworkSpec::dev(), None, shared()).unwrap();
    let (peer, ask) = (Peer(1), AskId(1));
    let good: Vec<Vec<u8>> = (1..20).map(|nonce| signed(nonce).to_wire()).collect();
    verifier.submit(Task::Reply { peer, ask, raw: RawReply::Shares { wires: good.clone(), more: true } }).unwrap();
    let Some(Verified::Input(Input::Reply { reply: Reply::Shares { receipts, more: true }, .. })) = verified.recv().await else { panic!() };
    assert!(receipts.iter().map(|r| r.wire()).eq(good.iter().map(Vec::as_slice)), "in their order");
    for bad in [vec![], vec![0xff; 2_000], signed(1).to_wire()[1..].to_vec()] {
        let mut wires = good.clone();
        wires[7] = bad;
        verifier.submit(Task::Reply { peer, ask, raw: RawReply::Heads(wires) }).unwrap();
        assert!(matches!(verified.recv().await, Some(Verified::BadReply { .. })));
    }
}

#[tokio::test]
async fn dropping_the_verifier_ends_its_threads_though_nobody_reads() {
    let (verifier, verified) = Verifier::start(NetworkSpec::dev(), None, shared()).unwrap();
    for message in 0..4_096 {
        // Its queue may fill up: that is the point.
        let _ = verifier.submit(Task::Gossip { peer: Peer(1), message: Message(message), topic: Topic::Heads, bytes: vec![0; 10] });
    }
    drop(verified);
    timeout(PATIENCE, tokio::task::spawn_blocking(move || drop(verifier))).await.unwrap().unwrap();
}
