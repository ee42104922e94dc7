//! Wires between the nodes of one process: libp2p's memory transport, made slow, lossy and cuttable. A wire is reliable as TCP is: what is
//! lost comes late, after a retransmission, and holds up what is behind it; a cut wire says nothing until it is mended or somebody gives up.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use libp2p::core::Transport;
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::MemoryTransport;
use libp2p::identity::Keypair;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::time::Sleep;
use tops_node::net::ways::{Ways, secured};

use super::pump::Pumped;

/// What a wire holds that its reader has not taken; then the writer has to wait.
const HELD_MAX: usize = 256 * 1024;
/// How often a cut wire is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// How bad the wires are.
#[derive(Debug, Clone)]
pub struct Weather {
    /// Where all chance comes from.
    pub seed: u64,
    /// One-way delay of a wire, drawn once for each: from, to.
    pub delay: (Duration, Duration),
    /// More delay, drawn for each packet: at most so much.
    pub jitter: Duration,
    /// The part of packets that are lost and come after [`Weather::again`].
    pub loss: f64,
    /// How long a lost packet takes to come again.
    pub again: Duration,
}

impl Weather {
    /// Wires as the memory transport makes them.
    pub fn fair(seed: u64) -> Self {
        Self { seed, delay: (Duration::ZERO, Duration::ZERO), jitter: Duration::ZERO, loss: 0.0, again: Duration::from_millis(200) }
    }

    fn is_fair(&self) -> bool {
        self.delay.1.is_zero() && self.jitter.is_zero() && self.loss == 0.0
    }

    /// The delay of the wire between two nodes, the same both ways.
    fn between(&self, a: u32, b: u32) -> Duration {
        let mut rng = StdRng::seed_from_u64(self.seed ^ (u64::from(a.min(b)) << 32 | u64::from(a.max(b))));
        self.delay.0 + self.delay.1.saturating_sub(self.delay.0).mul_f64(rng.random())
    }
}

/// All wires of a network.
#[derive(Debug)]
pub struct Wires {
    weather: Weather,
    /// The side of a cut on which each node is; without it, all are on one.
    cut: Mutex<Option<Vec<bool>>>,
    /// Whether there is a cut: what every poll of every wire asks.
    any_cut: AtomicBool,
}

impl Wires {
    /// Whole.
    pub fn new(weather: Weather) -> Arc<Self> {
        Arc::new(Self { weather, cut: Mutex::default(), any_cut: AtomicBool::new(false) })
    }

    /// Cuts the wires between nodes of two sides (`side[node]`), or mends them.
    pub fn cut(&self, side: Option<Vec<bool>>) {
        let mut cut = self.cut.lock().unwrap_or_else(PoisonError::into_inner);
        self.any_cut.store(side.is_some(), Ordering::Relaxed);
        *cut = side;
    }

    fn is_cut(&self, a: u32, b: u32) -> bool {
        if !self.any_cut.load(Ordering::Relaxed) {
            return false;
        }
        let cut = self.cut.lock().unwrap_or_else(PoisonError::into_inner);
        let side = |node: u32| cut.as_ref().and_then(|side| side.get(node as usize)).copied();
        side(a) != side(b)
    }

    /// Wires that do nothing of their own, now.
    fn is_bare(&self) -> bool {
        self.weather.is_fair() && !self.any_cut.load(Ordering::Relaxed)
    }

    /// The ways of one node to the others: it listens on `/memory/<node + 1>`, say.
    ///
    /// # Errors
    /// When the key cannot be used.
    pub fn ways(self: &Arc<Self>, node: u32, key: &Keypair) -> io::Result<Ways> {
        let wires = Arc::clone(self);
        let raw = MemoryTransport::default().and_then(move |mut ends, point| async move {
            // Who is at the other end decides how the wire is: both say it first.
            ends.write_all(&node.to_be_bytes()).await?;
            ends.flush().await?;
            let mut other = [0; 4];
            ends.read_exact(&mut other).await?;
            let other = u32::from_be_bytes(other);
            if wires.is_cut(node, other) {
                return Err(io::Error::new(io::ErrorKind::HostUnreachable, "the wires are cut"));
            }
            let salt = u64::from(point.is_dialer()) << 40 | u64::from(node) << 20 | u64::from(other);
            Ok(Wire {
                delay: wires.weather.between(node, other),
                chance: StdRng::seed_from_u64(wires.weather.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ salt),
                held: VecDeque::new(),
                bytes: 0,
                last: Instant::now(),
                ended: false,
                pause: None,
                ends,
                wires,
                between: (node, other),
            })
        });
        Ok(secured(raw, key)?.map(|(peer, line), _| (peer, StreamMuxerBox::new(Pumped::new(line)))).boxed())
    }
}

/// One end of a wire: what comes in is held until its time.
struct Wire<S> {
    ends: S,
    wires: Arc<Wires>,
    between: (u32, u32),
    delay: Duration,
    chance: StdRng,
    held: VecDeque<(Instant, Vec<u8>)>,
    bytes: usize,
    /// When the last of what is held is due.
    last: Instant,
    ended: bool,
    pause: Option<Pin<Box<Sleep>>>,
}

impl<S: AsyncRead + Unpin> Wire<S> {
    /// Takes what has come.
    fn fill(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let mut packet = [0; 16 * 1024];
        while !self.ended && self.bytes < HELD_MAX {
            match Pin::new(&mut self.ends).poll_read(cx, &mut packet) {
                Poll::Pending => break,
                Poll::Ready(Ok(0)) => self.ended = true,
                Poll::Ready(Ok(read)) => {
                    let weather = &self.wires.weather;
                    let mut due = Instant::now() + self.delay + weather.jitter.mul_f64(self.chance.random());
                    if weather.loss > 0.0 && self.chance.random_bool(weather.loss) {
                        due += weather.again;
                    }
                    self.last = self.last.max(due);
                    self.bytes += read;
                    self.held.push_back((self.last, packet[..read].to_vec()));
                }
                Poll::Ready(Err(error)) => return Err(error),
            }
        }
        Ok(())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Wire<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let wire = self.get_mut();
        loop {
            if wire.held.is_empty() && wire.wires.is_bare() {
                return Pin::new(&mut wire.ends).poll_read(cx, buffer);
            }
            wire.fill(cx)?;
            let cut = wire.wires.is_cut(wire.between.0, wire.between.1);
            let now = Instant::now();
            let wait = match wire.held.front() {
                _ if cut => LOOK,
                None if wire.ended => return Poll::Ready(Ok(0)),
                None => return Poll::Pending,
                Some((due, _)) => due.saturating_duration_since(now),
            };
            if wait.is_zero() || (!cut && wire.wires.weather.is_fair()) {
                let Some((_, packet)) = wire.held.front_mut() else { continue };
                let given = packet.len().min(buffer.len());
                buffer[..given].copy_from_slice(&packet[..given]);
                packet.drain(..given);
                if packet.is_empty() {
                    wire.held.pop_front();
                }
                wire.bytes -= given;
                return Poll::Ready(Ok(given));
            }
            let pause = wire.pause.insert(Box::pin(tokio::time::sleep(wait)));
            ready!(Future::poll(pause.as_mut(), cx));
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Wire<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().ends).poll_write(cx, bytes)
    }
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().ends).poll_flush(cx)
    }
    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().ends).poll_close(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_every_wire_its_delay() {
        let weather = |seed| Weather { delay: (Duration::from_millis(5), Duration::from_millis(80)), ..Weather::fair(seed) };
        let all = |seed| (0..20).map(|n| weather(seed).between(n, n + 1)).collect::<Vec<_>>();
        assert_eq!(all(1), all(1));
        assert_ne!(all(1), all(2));
        assert_eq!(weather(1).between(3, 9), weather(1).between(9, 3));
        assert!(all(1).iter().all(|d| (5..=80).contains(&d.as_millis())));
    }

    #[test]
    fn a_cut_has_two_sides() {
        let wires = Wires::new(Weather::fair(1));
        wires.cut(Some(vec![true, true, false]));
        assert!(!wires.is_cut(0, 1) && wires.is_cut(1, 2));
        wires.cut(None);
        assert!(!wires.is_cut(1, 2));
    }
}
