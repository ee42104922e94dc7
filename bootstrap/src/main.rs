//! `tops-bootstrap`: a small, long-lived rendezvous of one network. It keeps the table of peers, says who it is, answers pings, tells others
//! whether they can be reached, and relays a bounded number of connections for those that cannot.
//!
//! ```text
//!   node A ──identify──▶ gate: table of peers ◀──"who is near?"── node B ──dials──▶ node A
//! ```
//!
//! It takes no part in gossip, on purpose: it has no chain, so it could check no more than form and signature, and a signature costs a forger
//! nothing. A gate that forwards what it cannot judge multiplies floods and loses its score for faults that it cannot see.

mod door;
mod gate;
mod options;

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::EnvFilter;

use crate::options::Options;

/// A plain level is the gate's own; libraries may warn, but for the table of peers, which warns whenever nobody is connected.
fn filter(text: &str) -> EnvFilter {
    let directives = match text.trim().to_ascii_lowercase().as_str() {
        level @ ("error" | "warn" | "info" | "debug" | "trace") => format!("warn,libp2p_kad=error,tops_bootstrap={level}"),
        _ => text.to_owned(),
    };
    EnvFilter::try_new(directives).unwrap_or_else(|_| EnvFilter::new("info"))
}

fn main() -> ExitCode {
    let options = Options::parse();
    tracing_subscriber::fmt()
        .with_env_filter(filter(&options.log_level))
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        // Its own complaint about a log that cannot be written would go to the same place, and panic.
        .log_internal_errors(false)
        .init();
    let outcome = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(gate::run(options)));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("tops-bootstrap: {e:#}");
            ExitCode::from(3)
        }
    }
}
