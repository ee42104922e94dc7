//! Chaos on one machine: real processes in network namespaces whose links are cut and whose hosts are killed, judged at the end.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use tops_tests::chaos::{Options, conduct, ground, light};
use tops_tests::testnet::Binaries;

/// Partitions, cut wires, kill -9 in a loop, cold starts: one head and one ledger at the end, nothing acknowledged lost. Needs root, iproute2,
/// util-linux.
#[derive(Parser)]
struct Arguments {
    /// How long things happen; some seconds more until all is judged
    #[arg(long, default_value_t = 10.0)]
    minutes: f64,
    /// Decides everything that happens
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Rendezvous
    #[arg(long, default_value_t = 2)]
    gates: usize,
    /// Nodes that mine; the first two deliver to the aggregator
    #[arg(long, default_value_t = 7)]
    miners: usize,
    /// Nodes that only verify
    #[arg(long, default_value_t = 2)]
    lights: usize,
    /// Write the summary here too
    #[arg(long, value_name = "FILE")]
    summary: Option<PathBuf>,
    /// Keep data and logs
    #[arg(long)]
    keep: bool,
    /// Where the programs are [default: beside this one]
    #[arg(long, value_name = "DIR")]
    bin_dir: Option<PathBuf>,
    /// Instead: what following main's rate costs a light node that may use a quarter of a core. Needs root and control groups
    #[arg(long, conflicts_with_all = ["seed", "gates", "miners", "lights", "keep"])]
    light: bool,
}

async fn run(arguments: Arguments) -> anyhow::Result<bool> {
    let beside = || -> anyhow::Result<PathBuf> {
        let own = std::env::current_exe().context("finding this program")?;
        own.parent().map(PathBuf::from).context("this program has no directory")
    };
    let binaries = Binaries::new(arguments.bin_dir.map_or_else(beside, Ok)?)?;
    let Arguments { minutes, seed, gates, miners, lights, summary, keep, .. } = arguments;
    anyhow::ensure!((0.5..=1_440.0).contains(&minutes), "--minutes must be in 0.5..=1440");
    let secs = (minutes * 60.0) as u64;
    if arguments.light {
        let summary = light::conduct(&light::Options { secs, summary, binaries }).await?;
        println!("{}", serde_json::to_string_pretty(&summary)?);
        return Ok(summary.ok);
    }
    let options = Options { secs, seed, gates, miners, lights, summary, keep, binaries };
    let summary = conduct(&options).await?;
    println!("{}", serde_json::to_string_pretty(&summary)?);
    Ok(summary.ok)
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // Control groups count by the numbers of the whole machine, so the light node is not moved into namespaces.
    let inside = if arguments.light { Ok(None) } else { ground::go_inside() };
    let outcome = inside.and_then(|inside| match inside {
        Some(code) => Ok(code),
        None => {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
            Ok(if runtime.block_on(run(arguments))? { 0 } else { 1 })
        }
    });
    match outcome {
        Ok(code) => ExitCode::from(u8::try_from(code).unwrap_or(3)),
        Err(fault) => {
            eprintln!("tops-chaos: {fault:#}");
            ExitCode::from(3)
        }
    }
}
