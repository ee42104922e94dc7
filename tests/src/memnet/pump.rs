//! A multiplexer that a task of its own drives. A line of a node is polled as a whole, multiplexer and all protocols, for every packet that comes and
//! goes; here a packet wakes only the multiplexer, and the protocols are polled when one of their streams has something for them. A node with a
//! machine of its own does not notice; two hundred nodes of one process would spend most of it on asking protocols that have nothing to do.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use futures::future::poll_fn;
use futures::task::AtomicWaker;
use libp2p::core::muxing::{StreamMuxer, StreamMuxerBox, StreamMuxerEvent, SubstreamBox};

/// Streams of the other end that wait for the protocols; more stay in the multiplexer.
const WAITING_MAX: usize = 16;

struct State {
    /// `None`: the line is gone.
    line: Option<StreamMuxerBox>,
    waiting: VecDeque<SubstreamBox>,
    fault: Option<io::Error>,
    /// The protocols' side closes it, and drives it itself.
    closing: bool,
}

struct Shared {
    state: Mutex<State>,
    /// There are streams that wait, or a fault.
    news: AtomicBool,
    /// Who takes streams, who hears of a fault, and who drives.
    inbound: AtomicWaker,
    rest: AtomicWaker,
    pump: AtomicWaker,
}

impl Shared {
    /// A holder that panicked left whole values.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self) {
        self.news.store(true, Ordering::SeqCst);
        self.inbound.wake();
        self.rest.wake();
    }

    /// Ready when there is nothing left to drive.
    fn drive(&self, cx: &mut Context<'_>) -> Poll<()> {
        // Before looking: whoever changes something after that wakes this task.
        self.pump.register(cx.waker());
        let mut state = self.state();
        loop {
            let State { line, waiting, closing: false, fault: None } = &mut *state else { return Poll::Ready(()) };
            let Some(line) = line else { return Poll::Ready(()) };
            let fault = match Pin::new(&mut *line).poll(cx) {
                Poll::Ready(Ok(StreamMuxerEvent::AddressChange(_))) => continue,
                Poll::Ready(Err(fault)) => fault,
                Poll::Pending if waiting.len() >= WAITING_MAX => return Poll::Pending,
                Poll::Pending => match Pin::new(line).poll_inbound(cx) {
                    Poll::Ready(Ok(stream)) => {
                        waiting.push_back(stream);
                        self.tell();
                        continue;
                    }
                    Poll::Ready(Err(fault)) => fault,
                    Poll::Pending => return Poll::Pending,
                },
            };
            state.fault = Some(fault);
            self.tell();
        }
    }
}

/// The line as its protocols see it.
pub(super) struct Pumped(Arc<Shared>);

impl Pumped {
    /// Begins to drive the line on the runtime that this is called on.
    pub(super) fn new(line: StreamMuxerBox) -> Self {
        let state = State { line: Some(line), waiting: VecDeque::new(), fault: None, closing: false };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            news: AtomicBool::new(false),
            inbound: AtomicWaker::new(),
            rest: AtomicWaker::new(),
            pump: AtomicWaker::new(),
        });
        let driven = Arc::clone(&shared);
        tokio::spawn(poll_fn(move |cx| driven.drive(cx)));
        Self(shared)
    }
}

impl Drop for Pumped {
    fn drop(&mut self) {
        let line = self.0.state().line.take();
        drop(line);
        self.0.pump.wake();
    }
}

/// The fault, once; later it is only known that there was one.
fn ended(state: &mut State) -> Option<io::Error> {
    let fault = state.fault.as_mut()?;
    let kind = fault.kind();
    Some(std::mem::replace(fault, kind.into()))
}

fn gone() -> io::Error {
    io::ErrorKind::NotConnected.into()
}

impl StreamMuxer for Pumped {
    type Substream = SubstreamBox;
    type Error = io::Error;

    fn poll_inbound(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Self::Substream, Self::Error>> {
        self.0.inbound.register(cx.waker());
        if !self.0.news.load(Ordering::SeqCst) {
            return Poll::Pending;
        }
        let mut state = self.0.state();
        if let Some(stream) = state.waiting.pop_front() {
            self.0.pump.wake();
            return Poll::Ready(Ok(stream));
        }
        if let Some(fault) = ended(&mut state) {
            return Poll::Ready(Err(fault));
        }
        // Under the lock, so that news that come now are not put out.
        self.0.news.store(false, Ordering::SeqCst);
        Poll::Pending
    }

    fn poll_outbound(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Self::Substream, Self::Error>> {
        let mut state = self.0.state();
        if let Some(fault) = ended(&mut state) {
            return Poll::Ready(Err(fault));
        }
        let Some(line) = &mut state.line else { return Poll::Ready(Err(gone())) };
        let opened = Pin::new(line).poll_outbound(cx);
        if opened.is_ready() {
            self.0.pump.wake();
        }
        opened
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        let mut state = self.0.state();
        if !std::mem::replace(&mut state.closing, true) {
            self.0.pump.wake();
        }
        let Some(line) = &mut state.line else { return Poll::Ready(Ok(())) };
        Pin::new(line).poll_close(cx)
    }

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<StreamMuxerEvent, Self::Error>> {
        self.0.rest.register(cx.waker());
        if self.0.news.load(Ordering::SeqCst)
            && let Some(fault) = ended(&mut self.0.state())
        {
            return Poll::Ready(Err(fault));
        }
        Poll::Pending
    }
}
