//! Floods of every kind from one peer, written by hand over the node's own lines, so that no library's manners hold them back.
//!
//! ```text
//!   attacker ──noise, yamux──▶ node    what was sent, when it was cut off, how often it came back
//! ```

mod line;
mod words;

use std::time::{Duration, Instant};

use futures::AsyncWriteExt;
use libp2p::Multiaddr;
use libp2p::identity::Keypair;
use tops_protocol::NetworkSpec;

pub use line::Line;

/// What a flood is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Gossip: random bytes.
    Garbage,
    /// Gossip: receipts of another network.
    Foreign,
    /// Gossip: receipts whose signature does not stand.
    Forged,
    /// Gossip: well signed receipts on heads that nobody knows.
    Orphans,
    /// Gossip: one message again and again.
    Duplicates,
    /// Gossip: packets of more bytes than are taken.
    Huge,
    /// Gossip: offers of messages that do not exist.
    Offers,
    /// Gossip: requests for messages that do not exist.
    Requests,
    /// Gossip: into the mesh and out of it.
    Grafts,
    /// Questions of the sync protocol.
    Questions,
    /// Claims of who the peer is.
    Claims,
    /// Questions for the table of peers.
    Walks,
    /// Streams that are opened and left.
    Streams,
    /// Handshakes of ever new identities.
    Handshakes,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::Garbage,
        Self::Foreign,
        Self::Forged,
        Self::Orphans,
        Self::Duplicates,
        Self::Huge,
        Self::Offers,
        Self::Requests,
        Self::Grafts,
        Self::Questions,
        Self::Claims,
        Self::Walks,
        Self::Streams,
        Self::Handshakes,
    ];
}

/// What became of a flood.
#[derive(Debug, Clone, Default)]
pub struct Told {
    /// Messages that the node's end took from the attacker's, or at least their bytes.
    pub sent: u64,
    /// How often the line was closed on the attacker.
    pub cut_off: u64,
    /// When it was first.
    pub first_cut: Option<Duration>,
    /// Handshakes that came to a line.
    pub lines: u64,
}

/// Sends as fast as `rate` messages a second for so long, and comes back with the same identity whenever it is cut off.
pub async fn flood(kind: Kind, to: &Multiaddr, network: &NetworkSpec, rate: u32, how_long: Duration) -> Told {
    let began = Instant::now();
    let mut told = Told::default();
    let key = Keypair::generate_secp256k1();
    let mut words = words::Words::new(kind, network);
    while began.elapsed() < how_long {
        let key = if kind == Kind::Handshakes { Keypair::generate_secp256k1() } else { key.clone() };
        let patience = how_long.saturating_sub(began.elapsed());
        let Ok(Ok(line)) = tokio::time::timeout(patience.min(Duration::from_secs(5)), Line::open(&key, to, network)).await else {
            // Not even a handshake: the next knock.
            if kind == Kind::Handshakes {
                told.sent += 1;
            }
            tokio::time::sleep(Duration::from_millis(if kind == Kind::Handshakes { 1 } else { 50 })).await;
            continue;
        };
        told.lines += 1;
        if kind == Kind::Handshakes {
            told.sent += 1;
            drop(line);
            continue;
        }
        let left = how_long.saturating_sub(began.elapsed());
        // Until the time is over or nothing goes through any more.
        let _ = tokio::time::timeout(left, pour(&line, &mut words, rate, &mut told.sent)).await;
        if began.elapsed() < how_long {
            told.cut_off += 1;
            told.first_cut.get_or_insert(began.elapsed());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    told
}

/// Pours words into a line until it breaks.
async fn pour(line: &Line, words: &mut words::Words, rate: u32, sent: &mut u64) -> anyhow::Result<()> {
    let mut ticks = tokio::time::interval(Duration::from_millis(10));
    let each = (rate / 100).max(1);
    let mut stream = None;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = line.closed() => anyhow::bail!("cut off"),
        }
        if words.a_stream_each() {
            for _ in 0..each {
                let said = words.one();
                let mut stream = line.stream(words.protocol()).await?;
                stream.write_all(&said).await?;
                if words.closes() {
                    stream.close().await?;
                }
                line.keep(stream, words.closes());
                *sent += 1;
            }
            continue;
        }
        let stream = match &mut stream {
            Some(stream) => stream,
            None => stream.insert(line.stream(words.protocol()).await?),
        };
        let (said, count) = words.packet(each);
        let written = async {
            stream.write_all(&said).await?;
            stream.flush().await
        };
        tokio::select! {
            written = written => written?,
            () = line.closed() => anyhow::bail!("cut off"),
        }
        *sent += u64::from(count);
    }
}
