//! Many streams on one line, by yamux, and a line that ends when it is told to.
//!
//! Closing a line flushes what waits on it first. When the machine at the other end has vanished nothing can be flushed: the system's
//! buffer is full and stays so until TCP gives up, a quarter of an hour later, and for so long the peer would count as connected. Here
//! closing has a limit, after which the line is dropped as it is.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::future::{MapOk, TryFutureExt};
use futures::{AsyncRead, AsyncWrite};
use libp2p::core::muxing::{StreamMuxer, StreamMuxerEvent};
use libp2p::core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade, UpgradeInfo};
use libp2p::yamux;
use tokio::time::Sleep;

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

/// A line whose closing ends in time.
#[derive(Debug)]
pub struct Line<M> {
    inner: M,
    /// Runs from the first time that closing had to wait.
    limit: Option<Pin<Box<Sleep>>>,
}

impl<M> Line<M> {
    fn new(inner: M) -> Self {
        Self { inner, limit: None }
    }
}

impl<M> StreamMuxer for Line<M>
where
    M: StreamMuxer + Unpin,
{
    type Substream = M::Substream;
    type Error = M::Error;

    fn poll_inbound(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Self::Substream, Self::Error>> {
        StreamMuxer::poll_inbound(Pin::new(&mut self.get_mut().inner), cx)
    }

    fn poll_outbound(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Self::Substream, Self::Error>> {
        StreamMuxer::poll_outbound(Pin::new(&mut self.get_mut().inner), cx)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        let line = self.get_mut();
        if let Poll::Ready(closed) = StreamMuxer::poll_close(Pin::new(&mut line.inner), cx) {
            return Poll::Ready(closed);
        }
        let limit = line.limit.get_or_insert_with(|| Box::pin(tokio::time::sleep(limits::CLOSE_WITHIN)));
        Future::poll(limit.as_mut(), cx).map(Ok)
    }

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<StreamMuxerEvent, Self::Error>> {
        StreamMuxer::poll(Pin::new(&mut self.get_mut().inner), cx)
    }
}

#[cfg(test)]
mod tests {
    use libp2p::core::muxing::StreamMuxerExt;
    use tokio::time::Instant;

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
        let start = Instant::now();
        line.close().await.unwrap();
        assert!((limits::CLOSE_WITHIN..2 * limits::CLOSE_WITHIN).contains(&start.elapsed()));
    }
}
