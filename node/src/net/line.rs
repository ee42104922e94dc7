//! Many streams on one line, by yamux; a line that ends when it is told to, and that carries what the other end sends unasked only so fast.
//!
//! ```text
//!   streams that this end opened ─────────────────▶ answers that it asked for: as fast as they come
//!   streams that the other end opened ──budget────▶ gossip, questions, claims: 512 KiB a second, then the other end has to wait
//! ```
//!
//! So a flood of whatever kind costs this node no more than its budget, by backpressure and without a look at its content; who keeps the
//! budget empty is cut off with [`Flood`], and whose line ends while it is empty (the multiplexer ends one with too many streams; a peer may
//! hang up to begin anew with a fresh budget) is told apart by the same fault.
//!
//! Closing a line flushes what waits on it first. When the machine at the other end has vanished nothing can be flushed: the system's
//! buffer is full and stays so until TCP gives up, a quarter of an hour later, and for so long the peer would count as connected. Here
//! closing has a limit, after which the line is dropped as it is.

use std::error::Error;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use futures::future::{MapOk, TryFutureExt};
use futures::{AsyncRead, AsyncWrite};
use libp2p::core::muxing::{StreamMuxer, StreamMuxerEvent};
use libp2p::core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade, UpgradeInfo};
use libp2p::yamux;
use tokio::time::Sleep;

use super::budget::Budget;
use super::limits;

/// yamux with bounded streams, on lines whose closing ends within [`limits::CLOSE_WITHIN`].
#[derive(Debug, Clone)]
pub struct Multiplexer(yamux::Config);

impl Default for Multiplexer {
    fn default() -> Self {
        let mut config = yamux::Config::default();
        config.set_max_num_streams(limits::STREAMS_PER_CONNECTION);
        Self(config)
    }
}

impl UpgradeInfo for Multiplexer {
    type Info = <yamux::Config as UpgradeInfo>::Info;
    type InfoIter = <yamux::Config as UpgradeInfo>::InfoIter;

    fn protocol_info(&self) -> Self::InfoIter {
        self.0.protocol_info()
    }
}

/// What yamux makes of a connection, wrapped when it is there.
type Wrapped<F, C> = MapOk<F, fn(yamux::Muxer<C>) -> Line<yamux::Muxer<C>>>;

impl<C> InboundConnectionUpgrade<C> for Multiplexer
where
    C: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    type Output = Line<yamux::Muxer<C>>;
    type Error = io::Error;
    type Future = Wrapped<<yamux::Config as InboundConnectionUpgrade<C>>::Future, C>;

    fn upgrade_inbound(self, io: C, info: Self::Info) -> Self::Future {
        let wrap: fn(yamux::Muxer<C>) -> Line<yamux::Muxer<C>> = Line::new;
        InboundConnectionUpgrade::upgrade_inbound(self.0, io, info).map_ok(wrap)
    }
}

impl<C> OutboundConnectionUpgrade<C> for Multiplexer
where
    C: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    type Output = Line<yamux::Muxer<C>>;
    type Error = io::Error;
    type Future = Wrapped<<yamux::Config as OutboundConnectionUpgrade<C>>::Future, C>;

    fn upgrade_outbound(self, io: C, info: Self::Info) -> Self::Future {
        let wrap: fn(yamux::Muxer<C>) -> Line<yamux::Muxer<C>> = Line::new;
        OutboundConnectionUpgrade::upgrade_outbound(self.0, io, info).map_ok(wrap)
    }
}

/// The other end kept sending more than its budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the peer floods this node")]
pub struct Flood;

/// Whether a line was closed for a flood.
pub fn is_flood(error: &io::Error) -> bool {
    let mut error: &(dyn Error + 'static) = error;
    loop {
        if error.is::<Flood>() {
            return true;
        }
        let wrapped = error.downcast_ref::<io::Error>().and_then(|io| io.get_ref()).map(|inner| inner as &(dyn Error + 'static));
        match wrapped.or_else(|| error.source()) {
            Some(next) => error = next,
            None => return false,
        }
    }
}

/// What the other end sends unasked.
#[derive(Debug)]
struct Meter {
    budget: Budget,
    /// Since when the budget is empty again and again.
    dry_since: Option<Instant>,
    flood: bool,
    /// Who closes the line.
    closer: Option<Waker>,
}

impl Meter {
    fn new(now: Instant) -> Self {
        Self {
            budget: Budget::new(limits::UNASKED_BYTES_BURST, limits::UNASKED_BYTES_PER_SEC, now).starting_with(limits::UNASKED_BYTES_FIRST),
            dry_since: None,
            flood: false,
            closer: None,
        }
    }

    /// Whether the budget was empty and has not recovered.
    fn overdrawn(&mut self, now: Instant) -> bool {
        self.dry(now);
        self.dry_since.is_some()
    }

    /// How long to wait before anything more is read; `None`: not at all.
    fn dry(&mut self, now: Instant) -> Option<Duration> {
        let wait = self.budget.wait(now);
        if wait.is_zero() {
            if self.budget.part_left(now) > 0.5 {
                self.dry_since = None;
            }
            return None;
        }
        if now.duration_since(*self.dry_since.get_or_insert(now)) >= limits::FLOOD_AFTER && !self.flood {
            self.flood = true;
            if let Some(closer) = self.closer.take() {
                closer.wake();
            }
        }
        Some(wait)
    }
}

/// A line's meter, as its streams share it.
#[derive(Debug)]
struct Metered {
    meter: Mutex<Meter>,
    /// There is budget, and there has been for a while: whoever only asks for that needs neither the lock nor the time. Every poll of a line asks
    /// for each of its streams.
    plenty: AtomicBool,
}

impl Metered {
    fn new(now: Instant) -> Arc<Self> {
        Arc::new(Self { meter: Mutex::new(Meter::new(now)), plenty: AtomicBool::new(false) })
    }

    /// A holder that panicked left whole values.
    fn lock(&self) -> MutexGuard<'_, Meter> {
        self.meter.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// See [`Meter::dry`].
    fn dry(&self, now: Instant) -> Option<Duration> {
        let mut meter = self.lock();
        let wait = meter.dry(now);
        // Under the lock, so that who spends meanwhile has the last word.
        self.plenty.store(wait.is_none() && meter.dry_since.is_none(), Ordering::Relaxed);
        wait
    }

    fn spend(&self, amount: f64, now: Instant) {
        let mut meter = self.lock();
        meter.budget.take(amount, now);
        if !meter.budget.wait(now).is_zero() {
            self.plenty.store(false, Ordering::Relaxed);
        }
    }
}

/// Waits until there is budget.
#[derive(Debug)]
struct Gauge {
    meter: Arc<Metered>,
    pause: Option<Pin<Box<Sleep>>>,
}

impl Gauge {
    fn new(meter: Arc<Metered>) -> Self {
        Self { meter, pause: None }
    }

    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if let Some(pause) = &mut self.pause {
                std::task::ready!(Future::poll(pause.as_mut(), cx));
                self.pause = None;
            }
            if self.meter.plenty.load(Ordering::Relaxed) {
                return Poll::Ready(());
            }
            match self.meter.dry(Instant::now()) {
                None => return Poll::Ready(()),
                // Not for a few bytes at a time.
                Some(wait) => self.pause = Some(Box::pin(tokio::time::sleep(wait.max(limits::UNASKED_PAUSE)))),
            }
        }
    }

    fn spend(&self, amount: f64) {
        self.meter.spend(amount, Instant::now());
    }
}

/// A stream; one that the other end opened is read no faster than the line's budget allows.
#[derive(Debug)]
pub struct Stream<S> {
    inner: S,
    unasked: Option<Gauge>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Stream<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let stream = self.get_mut();
        let Some(gauge) = &mut stream.unasked else { return Pin::new(&mut stream.inner).poll_read(cx, buffer) };
        std::task::ready!(gauge.poll_room(cx));
        let read = std::task::ready!(Pin::new(&mut stream.inner).poll_read(cx, buffer));
        if let Ok(bytes) = read {
            // A packet of one byte costs more than a byte.
            gauge.spend(bytes.max(limits::UNASKED_READ_MIN) as f64);
        }
        Poll::Ready(read)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Stream<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write(cx, bytes)
    }
    fn poll_write_vectored(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write_vectored(cx, bytes)
    }
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }
    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_close(cx)
    }
}

/// A line whose closing ends in time, with a budget for what comes unasked.
#[derive(Debug)]
pub struct Line<M> {
    inner: M,
    /// Runs from the first time that closing had to wait.
    limit: Option<Pin<Box<Sleep>>>,
    /// Waits before the next stream of the other end is taken.
    opening: Gauge,
}

impl<M> Line<M> {
    /// Around a line of many streams.
    pub fn new(inner: M) -> Self {
        Self { inner, limit: None, opening: Gauge::new(Metered::new(Instant::now())) }
    }

    /// What ended the line.
    fn ended(&self, error: impl Error + Send + Sync + 'static) -> io::Error {
        if self.opening.meter.lock().overdrawn(Instant::now()) { io::Error::other(Flood) } else { io::Error::other(error) }
    }
}

impl<M> StreamMuxer for Line<M>
where
    M: StreamMuxer + Unpin,
    M::Substream: Unpin,
    M::Error: Send + Sync + 'static,
{
    type Substream = Stream<M::Substream>;
    type Error = io::Error;

    fn poll_inbound(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Self::Substream, Self::Error>> {
        let line = self.get_mut();
        std::task::ready!(line.opening.poll_room(cx));
        let inner = std::task::ready!(StreamMuxer::poll_inbound(Pin::new(&mut line.inner), cx)).map_err(|e| line.ended(e))?;
        line.opening.spend(limits::UNASKED_STREAM.into());
        Poll::Ready(Ok(Stream { inner, unasked: Some(Gauge::new(Arc::clone(&line.opening.meter))) }))
    }

    fn poll_outbound(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Self::Substream, Self::Error>> {
        let line = self.get_mut();
        let inner = std::task::ready!(StreamMuxer::poll_outbound(Pin::new(&mut line.inner), cx)).map_err(|e| line.ended(e))?;
        Poll::Ready(Ok(Stream { inner, unasked: None }))
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        let line = self.get_mut();
        if let Poll::Ready(closed) = StreamMuxer::poll_close(Pin::new(&mut line.inner), cx) {
            return Poll::Ready(closed.map_err(io::Error::other));
        }
        let limit = line.limit.get_or_insert_with(|| Box::pin(tokio::time::sleep(limits::CLOSE_WITHIN)));
        Future::poll(limit.as_mut(), cx).map(Ok)
    }

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<StreamMuxerEvent, Self::Error>> {
        let line = self.get_mut();
        {
            let mut meter = line.opening.meter.lock();
            if meter.flood {
                return Poll::Ready(Err(io::Error::other(Flood)));
            }
            match &mut meter.closer {
                Some(closer) => closer.clone_from(cx.waker()),
                none => *none = Some(cx.waker().clone()),
            }
        }
        StreamMuxer::poll(Pin::new(&mut line.inner), cx).map_err(|e| line.ended(e))
    }
}

#[cfg(test)]
mod tests {
    use futures::future::poll_fn;
    use futures::{AsyncReadExt, AsyncWriteExt};
    use libp2p::core::muxing::StreamMuxerExt;
    use libp2p::core::transport::{DialOpts, ListenerId, MemoryTransport, PortUse, TransportEvent};
    use libp2p::core::{Endpoint, Transport};
    use libp2p::identity::Keypair;

    use super::super::ways::secured;
    use super::*;

    /// The socket to a machine that vanished: it takes no byte and gives none.
    struct Stuck;

    impl AsyncRead for Stuck {
        fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut [u8]) -> Poll<io::Result<usize>> {
            Poll::Pending
        }
    }

    impl AsyncWrite for Stuck {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Pending
        }
        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }
        fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    #[tokio::test(start_paused = true)]
    async fn closing_ends_though_nothing_can_be_flushed() {
        let line = OutboundConnectionUpgrade::upgrade_outbound(Multiplexer::default(), Stuck, "/yamux/1.0.0").await.unwrap();
        let start = tokio::time::Instant::now();
        line.close().await.unwrap();
        assert!((limits::CLOSE_WITHIN..2 * limits::CLOSE_WITHIN).contains(&start.elapsed()));
    }

    /// What is read slowly is read whole and in order.
    #[tokio::test]
    async fn an_empty_budget_delays_and_loses_nothing() {
        let mut ends = [(); 2].map(|()| secured(MemoryTransport::default(), &Keypair::generate_ed25519()).unwrap());
        let [calls, hears] = &mut ends;
        hears.listen_on(ListenerId::next(), "/memory/0".parse().unwrap()).unwrap();
        let at = loop {
            if let TransportEvent::NewAddress { listen_addr, .. } = poll_fn(|cx| Pin::new(&mut *hears).poll(cx)).await {
                break listen_addr;
            }
        };
        let opts = DialOpts { role: Endpoint::Dialer, port_use: PortUse::New };
        let dial = calls.dial(at, opts).unwrap();
        let heard = async {
            loop {
                if let TransportEvent::Incoming { upgrade, .. } = poll_fn(|cx| Pin::new(&mut *hears).poll(cx)).await {
                    break upgrade.await.unwrap().1;
                }
            }
        };
        let all = 3 * limits::UNASKED_BYTES_FIRST as usize / 2;
        let sent: Vec<u8> = (0..all).map(|at| (at / 251 + at % 251) as u8).collect();
        let expected = sent.clone();
        tokio::spawn(async move {
            let mut called = dial.await.unwrap().1;
            let mut stream = poll_fn(|cx| called.poll_outbound_unpin(cx)).await.unwrap();
            tokio::spawn(async move { poll_fn(|cx| called.poll_unpin(cx)).await });
            for piece in sent.chunks(45_000) {
                stream.write_all(piece).await.unwrap();
                stream.flush().await.unwrap();
            }
            std::future::pending::<()>().await;
        });
        let mut heard = heard.await;
        let began = Instant::now();
        let mut stream = poll_fn(|cx| {
            let _ = heard.poll_unpin(cx);
            heard.poll_inbound_unpin(cx)
        })
        .await
        .unwrap();
        tokio::spawn(async move { poll_fn(|cx| heard.poll_unpin(cx)).await });
        let mut got = vec![0; all];
        tokio::time::timeout(2 * limits::FLOOD_AFTER, stream.read_exact(&mut got)).await.expect("it goes on").unwrap();
        assert!(got == expected, "differs from {:?} on", got.iter().zip(&expected).position(|(a, b)| a != b));
        assert!(began.elapsed() > std::time::Duration::from_millis(500), "it had to wait");
    }

    #[test]
    fn a_budget_that_stays_empty_is_a_flood_and_a_burst_is_not() {
        let start = Instant::now();
        let mut meter = Meter::new(start);
        meter.budget.take(1.5 * f64::from(limits::UNASKED_BYTES_FIRST), start);
        assert!(meter.dry(start).is_some());
        let later = start + limits::FLOOD_AFTER;
        assert!(meter.dry(later).is_none() && !meter.flood, "it was paid for meanwhile");
        let mut now = later;
        while !meter.flood {
            meter.budget.take(f64::from(limits::UNASKED_BYTES_PER_SEC), now);
            meter.dry(now);
            now += std::time::Duration::from_millis(500);
            assert!(now < start + 4 * limits::FLOOD_AFTER, "never noticed");
        }
        assert!(meter.overdrawn(now) && !meter.overdrawn(now + 2 * limits::FLOOD_AFTER), "moderation is believed after a while");
        assert!(is_flood(&io::Error::other(io::Error::other(Flood))) && !is_flood(&io::Error::other("a flood")));
    }
}
