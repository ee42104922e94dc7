//! Runs the range over many seeds and prints what came of each, and of all together.

use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use tops_tests::range::{Kind, Plan, Report, Summary, World};

/// Many real engines on a model of the world, in virtual time, with or without adversaries.
#[derive(Debug, Parser)]
struct Arguments {
    /// Engines, adversaries among them.
    #[arg(long, default_value_t = 100)]
    engines: usize,
    /// Seeds: `A..B`, or a single one.
    #[arg(long, default_value = "0..1", value_parser = seeds)]
    seeds: std::ops::Range<u64>,
    /// How long miners work, in heads at the spacing of 15 s.
    #[arg(long, default_value_t = 20)]
    heads: u64,
    /// What the adversaries do.
    #[arg(long, value_enum, default_value_t = Kind::None)]
    adversary: Kind,
    /// The adversaries' part of the nodes.
    #[arg(long, default_value_t = 0.3)]
    share_of_nodes: f64,
    /// The adversaries' part of the hash rate.
    #[arg(long, default_value_t = 0.3)]
    share_of_rate: f64,
    /// Split the network in halves: seconds after the start from and to, as in `60:660`.
    #[arg(long, value_parser = pair)]
    partition: Option<(u64, u64)>,
    /// Stop all mining: seconds after the start, and for how many.
    #[arg(long, value_parser = pair)]
    sleep: Option<(u64, u64)>,
    /// The part of shares that every node audits at least, per million.
    #[arg(long, default_value_t = 100_000)]
    audit_ppm: u32,
    /// Nodes audit what they must and no more, as if their devices were busy.
    #[arg(long)]
    only_drawn: bool,
    /// Print a line of JSON for each seed and one for all.
    #[arg(long)]
    json: bool,
}

fn seeds(text: &str) -> Result<std::ops::Range<u64>, String> {
    let number = |text: &str| text.parse::<u64>().map_err(|_| format!("`{text}` is no number"));
    match text.split_once("..") {
        Some((from, to)) => Ok(number(from)?..number(to)?),
        None => number(text).map(|seed| seed..seed + 1),
    }
}

fn pair(text: &str) -> Result<(u64, u64), String> {
    let parts = text.split_once(':').and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
    parts.ok_or_else(|| format!("`{text}` is not of the form A:B"))
}

fn main() -> ExitCode {
    let a = Arguments::parse();
    let mut runs: Vec<Report> = Vec::new();
    for seed in a.seeds.clone() {
        let plan = Plan {
            share_of_nodes: a.share_of_nodes,
            share_of_rate: a.share_of_rate,
            partition: a.partition,
            sleep: a.sleep,
            audit_ppm: a.audit_ppm,
            only_drawn: a.only_drawn,
            ..Plan::against(seed, a.engines, a.heads, a.adversary)
        };
        let begun = Instant::now();
        let run = World::new(plan).run();
        if a.json {
            match serde_json::to_string(&run) {
                Ok(line) => println!("{line}"),
                Err(fault) => eprintln!("tops-range: {fault}"),
            }
        } else {
            println!(
                "seed {seed}: {} heads, {} off, {} shares, delivered {:.4} %, spread p50 {} p99 {} max {} ms, honest bans {}, liars {} (credit at {}), \
                 gain {:+.2} %, one head {}, one ledger {}, agreed after {:?} heads, returned {:?} s, deepest {}, dropped {}/{}, {} inputs, {:.1} s",
                run.heads,
                run.off_main,
                run.shares,
                100.0 * run.delivered as f64 / run.due.max(1) as f64,
                run.p50_ms,
                run.p99_ms,
                run.max_ms,
                run.honest_banned,
                run.liars,
                run.liars_credited,
                100.0 * run.gain,
                run.one_head,
                run.one_ledger,
                run.agreed_after_heads,
                run.returned_secs,
                run.deepest,
                run.honest_dropped,
                run.adversaries_dropped,
                run.inputs,
                begun.elapsed().as_secs_f64()
            );
        }
        runs.push(run);
    }
    let summary = Summary::of(&runs);
    if a.json {
        match serde_json::to_string(&summary) {
            Ok(line) => println!("{line}"),
            Err(fault) => eprintln!("tops-range: {fault}"),
        }
    } else {
        println!("{:?} × {} engines: {summary:#?}", a.adversary, a.engines);
    }
    ExitCode::SUCCESS
}
