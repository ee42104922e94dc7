//! The testnet's conductor as a program; `testnet/run.sh` builds everything and runs this.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use tops_tests::testnet::{Binaries, NAMESPACE, Options, Scenario, conduct};

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
    /// Of the scenario outage: seconds without the aggregator; a bridging node is down for a tenth of it, a disk is full for a fifth
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(20..=3_600))]
    outage: u64,
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
        outage: arguments.outage,
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

/// The outage fills a disk: a tmpfs, in a mount namespace that ends with this program. `None`: here it is, or there is none to be had.
fn in_a_namespace(arguments: &Arguments) -> Option<ExitCode> {
    if arguments.scenario != Scenario::Outage || std::env::var_os(NAMESPACE).is_some() {
        return None;
    }
    let own = std::env::current_exe().ok()?;
    for namespace in ["-m", "-Urm"] {
        let mut unshare = std::process::Command::new("unshare");
        if unshare.args([namespace, "true"]).status().is_ok_and(|status| status.success()) {
            let fault =
                std::process::Command::new("unshare").arg(namespace).arg(own).args(std::env::args_os().skip(1)).env(NAMESPACE, "1").exec();
            eprintln!("tops-testnet: {fault}");
            return Some(ExitCode::from(3));
        }
    }
    None
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(code) = in_a_namespace(&arguments) {
        return code;
    }
    match run(arguments).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(fault) => {
            eprintln!("tops-testnet: {fault:#}");
            ExitCode::from(3)
        }
    }
}
