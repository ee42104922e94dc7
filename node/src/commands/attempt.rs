//! `tops-node attempt`: one attempt of any work function on any device.

use std::time::Instant;

use anyhow::Context;
use serde_json::json;
use tops_protocol::work::v1::{AttemptV1, ShapeV1, Variant};
use tops_protocol::{Attempt, Millis, Nonce, PublicKey, Root, work};

use crate::cli::{Answer, Failure};
use crate::settings::Layers;
use crate::{config, devices};

use super::{shape, three_numbers};

/// Which work function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Work {
    /// The network's.
    V2,
    /// The original worker's, as published.
    V1,
    /// The original worker's, as deployed.
    V1Mixed,
}

/// Arguments of `attempt`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Which work function.
    #[arg(long, value_enum, default_value = "v2")]
    work: Work,
    /// The head to build on, 64 hex digits.
    #[arg(long, value_name = "HEX", value_parser = |text: &str| Root::from_hex(text).map_err(|e| e.to_string()))]
    prev_hash: Root,
    /// The miner's compressed key, 66 hex digits; v2 only.
    #[arg(long, value_name = "HEX", value_parser = |text: &str| PublicKey::from_hex(text).map_err(|e| e.to_string()))]
    miner: Option<PublicKey>,
    /// Which attempt: below 2^53, for v1 below 2^32.
    #[arg(long)]
    nonce: u64,
    /// The miner's clock, Unix milliseconds; v2 only.
    #[arg(long, value_name = "MS")]
    timestamp: Option<u64>,
    /// The shape m,n,k.
    #[arg(long, value_name = "M,N,K")]
    shape: String,
}

/// Computes it.
pub fn run(arguments: &Arguments, layers: &Layers) -> Result<Answer, Failure> {
    let usage = |why: &str| Failure::Usage(why.to_owned());
    let (choice, wanted) = config::compute_choice(layers)?;
    let backend = devices::open_one(choice, wanted.as_deref())?;
    let one = |roots: Vec<Root>| roots.into_iter().next().context("the device gave no root");
    let mut unit = None;
    // The first call also makes the weights, which are constants of the shape; the second is what an attempt costs.
    let (root, ms) = match arguments.work {
        Work::V2 => {
            let miner = arguments.miner.ok_or_else(|| usage("a v2 attempt needs --miner, the compressed key as 66 hex digits"))?;
            let timestamp = arguments.timestamp.ok_or_else(|| usage("a v2 attempt needs --timestamp in Unix milliseconds"))?;
            let nonce = Nonce::new(arguments.nonce).ok_or_else(|| usage("--nonce must be below 2^53"))?;
            let shape = shape(&arguments.shape).map_err(Failure::Usage)?;
            let attempt = Attempt { prev_hash: arguments.prev_hash, miner, nonce, timestamp: Millis(timestamp), shape };
            unit = Some(work::unit_id(&attempt));
            timed(|| one(backend.roots(&[attempt]).map_err(anyhow::Error::from)?))?
        }
        Work::V1 | Work::V1Mixed => {
            let nonce = u32::try_from(arguments.nonce).map_err(|_| usage("a v1 --nonce must be below 2^32"))?;
            let [m, n, k] = three_numbers(&arguments.shape).map_err(Failure::Usage)?;
            let shape = ShapeV1::new(m, n, k).ok_or_else(|| usage("a v1 shape has m, n and k in 1..=8192"))?;
            let variant = if arguments.work == Work::V1 { Variant::Plain } else { Variant::Mixed };
            let attempt = AttemptV1 { prev_hash: arguments.prev_hash, nonce, shape, variant };
            timed(|| one(backend.v1_roots(&[attempt]).map_err(anyhow::Error::from)?))?
        }
    };
    let device = backend.device();
    let mut answer = json!({ "work_root": root.to_hex(), "ms": ms, "device": device.label(), "path": device.path });
    if let Some(unit) = unit {
        answer["unit"] = json!(unit.to_hex());
    }
    Ok(Answer::yes(format!("work_root {root}\nms        {ms:.3}\ndevice    {device}"), answer))
}

fn timed(run: impl Fn() -> anyhow::Result<Root>) -> anyhow::Result<(Root, f64)> {
    let first = run()?;
    let start = Instant::now();
    let second = run()?;
    let ms = start.elapsed().as_secs_f64() * 1e3;
    anyhow::ensure!(first == second, "the device gave two roots for one attempt: {first} and {second}");
    Ok((second, ms))
}
