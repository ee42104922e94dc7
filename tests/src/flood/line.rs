//! A line to a node without a swarm: answers identify and pings as a node would, reads gossip and lets it fall, and opens any stream.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;

use anyhow::Context;
use futures::{AsyncReadExt, AsyncWriteExt};
use libp2p::core::Endpoint;
use libp2p::core::muxing::{StreamMuxerBox, StreamMuxerExt, SubstreamBox};
use libp2p::core::transport::{DialOpts, PortUse, Transport};
use libp2p::identity::Keypair;
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};
use multistream_select::{Negotiated, Version, dialer_select_proto, listener_select_proto};
use tokio::sync::{mpsc, oneshot, watch};
use tops_node::net::behaviour::Names;
use tops_node::net::ways::internet;
use tops_protocol::NetworkSpec;

use super::words::identify;

/// A stream that both ends agreed on.
pub type Stream = Negotiated<SubstreamBox>;

/// Streams that are left open at the attacker's end; the oldest is dropped.
const KEPT: usize = 512;

/// The line.
pub struct Line {
    wanted: mpsc::Sender<oneshot::Sender<io::Result<SubstreamBox>>>,
    closed: watch::Receiver<bool>,
    kept: Mutex<VecDeque<Stream>>,
}

impl Line {
    /// Calls the node and shakes hands.
    ///
    /// # Errors
    /// When it does not want to.
    pub async fn open(key: &Keypair, to: &Multiaddr, network: &NetworkSpec) -> anyhow::Result<Self> {
        let mut ways = internet(key)?;
        let place: Multiaddr = to.iter().filter(|part| !matches!(part, Protocol::P2p(_))).collect();
        let opts = DialOpts { role: Endpoint::Dialer, port_use: PortUse::New };
        let (_, muxer): (PeerId, StreamMuxerBox) = ways.dial(place, opts).context("dialling")?.await.context("the handshake")?;
        let (wanted, asked) = mpsc::channel(64);
        let (ended, closed) = watch::channel(false);
        let said: Arc<[u8]> = identify(key, &Names::new(network.tag())).into();
        tokio::spawn(async move {
            // Whatever ends it, the line is over then.
            let _ = drive(muxer, asked, said).await;
            ended.send_replace(true);
        });
        Ok(Self { wanted, closed, kept: Mutex::default() })
    }

    /// Opens a stream of this protocol without waiting for the node's consent.
    ///
    /// # Errors
    /// When the line is over.
    pub async fn stream(&self, protocol: &str) -> anyhow::Result<Stream> {
        let (tell, told) = oneshot::channel();
        self.wanted.send(tell).await.ok().context("the line is over")?;
        let stream = told.await.context("the line is over")??;
        let (_, stream) = dialer_select_proto(stream, [protocol.to_owned()], Version::V1Lazy).await?;
        Ok(stream)
    }

    /// Keeps a stream open, or lets it go.
    pub fn keep(&self, stream: Stream, let_go: bool) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if !let_go {
            kept.push_back(stream);
            if kept.len() > KEPT {
                kept.pop_front();
            }
        }
    }

    /// Resolves when the node has closed the line.
    pub async fn closed(&self) {
        let mut closed = self.closed.clone();
        // A sender that is gone means the same.
        let _ = closed.wait_for(|closed| *closed).await;
    }
}

async fn drive(
    mut muxer: StreamMuxerBox,
    mut asked: mpsc::Receiver<oneshot::Sender<io::Result<SubstreamBox>>>,
    said: Arc<[u8]>,
) -> io::Result<()> {
    let mut waiting: VecDeque<oneshot::Sender<io::Result<SubstreamBox>>> = VecDeque::new();
    poll_fn(|cx| {
        loop {
            let mut moved = false;
            if let Poll::Ready(_event) = muxer.poll_unpin(cx)? {
                moved = true;
            }
            if let Poll::Ready(stream) = muxer.poll_inbound_unpin(cx) {
                tokio::spawn(answer(stream?, Arc::clone(&said)));
                moved = true;
            }
            while waiting.len() < 64 {
                match asked.poll_recv(cx) {
                    Poll::Ready(Some(tell)) => waiting.push_back(tell),
                    Poll::Ready(None) => return Poll::Ready(Ok(())),
                    Poll::Pending => break,
                }
            }
            if !waiting.is_empty()
                && let Poll::Ready(stream) = muxer.poll_outbound_unpin(cx)
                && let Some(tell) = waiting.pop_front()
            {
                // Whoever asked may have gone.
                let _ = tell.send(Ok(stream?));
                moved = true;
            }
            if !moved {
                return Poll::Pending;
            }
        }
    })
    .await
}

/// As little as keeps a node content.
async fn answer(stream: SubstreamBox, said: Arc<[u8]>) {
    let known = ["/ipfs/id/1.0.0", "/ipfs/ping/1.0.0", "/meshsub/1.1.0"];
    let Ok((protocol, mut stream)) = listener_select_proto(stream, known).await else { return };
    let mut bytes = [0; 4096];
    match protocol {
        "/ipfs/id/1.0.0" => {
            if stream.write_all(&said).await.is_ok() {
                let _ = stream.close().await;
            }
        }
        "/ipfs/ping/1.0.0" => {
            while stream.read_exact(&mut bytes[..32]).await.is_ok() {
                if stream.write_all(&bytes[..32]).await.is_err() || stream.flush().await.is_err() {
                    return;
                }
            }
        }
        _ => while matches!(stream.read(&mut bytes).await, Ok(read) if read > 0) {},
    }
}
