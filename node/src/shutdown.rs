//! When a node ends: the first signal asks for a clean stop, the second one ends the process at once, and so does a stop that takes too long.

use std::time::Duration;

use tokio::sync::watch;
use tracing::{error, info, warn};

/// How long a clean stop may take.
pub const STOP_WITHIN: Duration = Duration::from_secs(10);
/// Exit code of a process that a signal ended at once.
const EXIT_SIGNAL: i32 = 130;
/// Exit code of this node's own fault.
const EXIT_FAULT: i32 = 3;

/// SIGINT and SIGTERM, heard from when this is made.
struct Signals {
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
}

impl Signals {
    /// # Errors
    /// When the system does not let signals be handled.
    fn listen() -> std::io::Result<Self> {
        #[cfg(unix)]
        {
            use tokio::signal::unix::{SignalKind, signal};
            Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
        }
        #[cfg(not(unix))]
        Ok(Self {})
    }

    async fn next(&mut self) -> &'static str {
        #[cfg(unix)]
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
        }
        #[cfg(not(unix))]
        match tokio::signal::ctrl_c().await {
            Ok(()) => "Ctrl-C",
            Err(_) => std::future::pending().await,
        }
    }
}

/// Turns `stop` true at the first signal; ends the process at the second one, or when the stop takes too long. Signals are heard when this returns.
pub fn on_signals(stop: watch::Sender<bool>) {
    let mut signals = match Signals::listen() {
        Ok(signals) => signals,
        Err(e) => return warn!(error = %e, "signals cannot be handled: the node ends without a clean stop"),
    };
    tokio::spawn(async move {
        let signal = signals.next().await;
        info!(signal, "stopping; a second signal ends at once");
        stop.send_replace(true);
        tokio::select! {
            _ = signals.next() => std::process::exit(EXIT_SIGNAL),
            () = tokio::time::sleep(STOP_WITHIN) => {
                error!("the stop takes too long: ending at once");
                std::process::exit(EXIT_FAULT);
            }
        }
    });
}
