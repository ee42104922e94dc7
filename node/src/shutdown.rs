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

/// Waits for SIGINT or SIGTERM.
///
/// # Errors
/// When the system does not let signals be handled.
async fn signal() -> std::io::Result<&'static str> {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        tokio::select! {
            _ = interrupt.recv() => Ok("SIGINT"),
            _ = terminate.recv() => Ok("SIGTERM"),
        }
    }
    #[cfg(not(unix))]
    {
        tokio::signal::ctrl_c().await.map(|()| "Ctrl-C")
    }
}

/// Turns `stop` true at the first signal; ends the process at the second one, or when the stop takes too long.
pub fn on_signals(stop: watch::Sender<bool>) {
    tokio::spawn(async move {
        match signal().await {
            Ok(name) => info!(signal = name, "stopping; a second signal ends at once"),
            Err(e) => {
                warn!(error = %e, "signals cannot be handled: the node ends without a clean stop");
                return;
            }
        }
        stop.send_replace(true);
        tokio::select! {
            second = signal() => {
                if second.is_ok() {
                    std::process::exit(EXIT_SIGNAL);
                }
            }
            () = tokio::time::sleep(STOP_WITHIN) => {
                error!("the stop takes too long: ending at once");
                std::process::exit(EXIT_FAULT);
            }
        }
    });
}
