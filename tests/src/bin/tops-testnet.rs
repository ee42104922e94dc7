//! The testnet's conductor as a program; `testnet/run.sh` builds everything and runs this.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use tops_tests::testnet::{Binaries, Options, Scenario, conduct};

/// A network of real processes on this machine: a bootstrap node, miners, a verify-only node, and a receiving aggregator.
#[derive(Parser)]
struct Arguments {
    /// Processes of the network: one bootstrap node, one verify-only node, and miners
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(3..=64))]
    nodes: u64,
    /// Seconds of mining; without it, until Ctrl-C
    #[arg(long, value_parser = clap::value_parser!(u64).range(10..=86_400))]
    seconds: Option<u64>,
    /// Write the summary here, as JSON
    #[arg(long, value_name = "FILE")]
    summary: Option<PathBuf>,
    /// What miners compute with: auto, cpu, cuda, opencl
    #[arg(long, default_value = "cpu")]
    backend: String,
    /// Keep data and logs
    #[arg(long)]
    keep: bool,
    /// Where the programs are [default: beside this one]
    #[arg(long, value_name = "DIR")]
    bin_dir: Option<PathBuf>,
    /// What happens in the middle
    #[arg(long, value_enum, default_value = "plain")]
    scenario: Scenario,
    /// How many miners deliver to the aggregator
    #[arg(long, default_value_t = 1)]
    bridges: usize,
    /// Let other machines join: listen on every address of this one, and print the command
    #[arg(long)]
    lan: bool,
}

async fn run(arguments: Arguments) -> anyhow::Result<bool> {
    let beside = || -> anyhow::Result<PathBuf> {
        let own = std::env::current_exe().context("finding this program")?;
        own.parent().map(PathBuf::from).context("this program has no directory")
    };
    let dir = match arguments.bin_dir {
        Some(dir) => dir,
        None => beside()?,
    };
    let options = Options {
        nodes: usize::try_from(arguments.nodes)?,
        seconds: arguments.seconds,
        summary: arguments.summary,
        backend: arguments.backend,
        keep: arguments.keep,
        binaries: Binaries::new(dir)?,
        scenario: arguments.scenario,
        bridges: arguments.bridges,
        lan: arguments.lan,
    };
    let summary = conduct(options).await?;
    println!(
        "{} heads in {:.0} s, agreed after {} ms, acknowledged {:?}, delivered {}",
        summary.heads,
        summary.seconds,
        summary.agreed_after_ms.map_or_else(|| "∞".to_owned(), |ms| ms.to_string()),
        summary.acknowledged,
        summary.delivered
    );
    for failure in summary.failures.iter().take(20) {
        println!("FAILED: {failure}");
    }
    if summary.failures.len() > 20 {
        println!("FAILED: and {} more", summary.failures.len() - 20);
    }
    Ok(summary.ok)
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(fault) => {
            eprintln!("tops-testnet: {fault:#}");
            ExitCode::from(3)
        }
    }
}
