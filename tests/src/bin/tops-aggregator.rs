//! The receiving aggregator as a process: `tops-aggregator --listen 127.0.0.1:0 --addr-file FILE`.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context;
use clap::Parser;
use tops_protocol::NetworkTag;

/// Receives receipts from bridges, checks them, and counts.
#[derive(Parser)]
struct Arguments {
    /// Where to listen
    #[arg(long, default_value = "127.0.0.1:8081")]
    listen: SocketAddr,
    /// Write the address here once it is known
    #[arg(long)]
    addr_file: Option<PathBuf>,
    /// Refuse receipts of other networks than this one: 16 hex digits
    #[arg(long)]
    network: Option<String>,
    /// Keep what was received here, for the next start
    #[arg(long)]
    journal: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let network = arguments.network.as_deref().map(NetworkTag::from_hex).transpose().context("--network")?;
    let listener = tokio::net::TcpListener::bind(arguments.listen).await.with_context(|| format!("listening on {}", arguments.listen))?;
    let address = listener.local_addr()?;
    println!("aggregator on http://{address}/verify");
    if let Some(path) = arguments.addr_file {
        std::fs::write(&path, address.to_string()).with_context(|| format!("writing {}", path.display()))?;
    }
    axum::serve(listener, tops_tests::aggregator::router(network, arguments.journal.as_deref())?)
        .with_graceful_shutdown(async {
            let mut term = match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
                Ok(term) => term,
                Err(_) => return std::future::pending().await,
            };
            tokio::select! {
                _ = term.recv() => {}
                _ = tokio::signal::ctrl_c() => {}
            }
        })
        .await?;
    Ok(())
}
