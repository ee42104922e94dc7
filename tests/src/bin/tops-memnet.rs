//! Many nodes in one process, as a program: prints a table of what arrived and when.

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use tops_tests::memnet::{Eclipse, Plan, Weather, eclipse, run};

/// Two hundred nodes contend for one heap, as no node of its own does: this one has a heap for each thread.
#[global_allocator]
static HEAP: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Whole nodes in this process, over wires that a seed makes worse.
#[derive(Parser)]
struct Arguments {
    /// Nodes, silent ones too
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(2..=1_000))]
    nodes: u32,
    /// Shares a second of the whole network
    #[arg(long, default_value_t = 20.0)]
    rate: f64,
    /// Shares come at equal distances, and not as independent miners find them
    #[arg(long)]
    even: bool,
    /// Seconds in which shares come
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// Seconds that they have to arrive after that, at most
    #[arg(long, default_value_t = 30)]
    settle: u64,
    /// The part of nodes that take and never forward
    #[arg(long, default_value_t = 0.0)]
    silent: f64,
    /// Where all chance comes from
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The longest one-way delay of a wire, milliseconds
    #[arg(long, default_value_t = 0)]
    delay_ms: u64,
    /// The part of packets that are lost and sent again
    #[arg(long, default_value_t = 0.0)]
    loss: f64,
    /// Cut the network into two for so many seconds in the middle
    #[arg(long)]
    cut: Option<u64>,
    /// Instead: surround one node with so many silent ones, then let an honest one come
    #[arg(long)]
    eclipse: Option<usize>,
    /// With --eclipse: the honest node is one of the victim's bootstrap addresses, and does not call by itself
    #[arg(long)]
    called: bool,
}

async fn go(a: Arguments) -> anyhow::Result<()> {
    let delay = Duration::from_millis(a.delay_ms);
    let weather = Weather { delay: (delay / 4, delay), jitter: delay / 10, loss: a.loss, ..Weather::fair(a.seed) };
    let seconds = Duration::from_secs(a.seconds);
    if let Some(adversaries) = a.eclipse {
        let plan = Eclipse { honest: a.nodes as usize, adversaries, calls: a.called, surrounded: seconds, weather };
        let returned = eclipse(plan, Duration::from_secs(120)).await?;
        println!("seed {}: {returned:?}", a.seed);
        return Ok(());
    }
    let plan = Plan {
        nodes: a.nodes as usize,
        silent: a.silent,
        rate: a.rate,
        even: a.even,
        mining: seconds,
        settling: Duration::from_secs(a.settle),
        weather,
        cut: a.cut.map(|cut| (seconds / 3, Duration::from_secs(cut))),
        tell: |how_far| eprintln!("{how_far}"),
    };
    println!("{}", run(plan).await?);
    Ok(())
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    match runtime.map_err(anyhow::Error::from).and_then(|runtime| runtime.block_on(go(arguments))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("tops-memnet: {e:#}");
            ExitCode::from(1)
        }
    }
}
