//! `tops-node work`: the original solo worker. No network and no chain: v1 attempts, one after the other, each posted as a signed receipt.
//!
//! ```text
//!   autotune over presets ─▶ attempt ─▶ sign ─▶ POST ─▶ `ok nonce=… ms=… work_root=…` ─▶ next nonce
//! ```
//!
//! The next attempt runs while the last receipt is posted; a receipt that is not taken after some tries is said to be lost. Nothing is stored.

use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use serde_json::json;
use tops_compute::backend::{Backend, DeviceFault};
use tops_protocol::keys::SecretKey;
use tops_protocol::receipt::{KERNEL_V1, ReceiptV1, prehash};
use tops_protocol::types::INTEGER_LIMIT;
use tops_protocol::work::v1::{AttemptV1, ShapeV1, Variant};
use tops_protocol::{Root, Text};
use url::Url;

use crate::bridge::{self, Outcome};
use crate::cli::{Answer, Failure};
use crate::settings::Layers;
use crate::{config, devices, keys};

use super::three_numbers;

/// Tries to post a receipt before it is given up.
const TRIES: u32 = 8;
/// The most presets that are tried.
const PRESETS_MAX: usize = 32;
/// Sides of the cubes that are tried unless others are named.
const CUBES: [u32; 5] = [512, 768, 1024, 1280, 1536];

/// Arguments of `work`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Work as the deployed build did: columns permuted and negated first.
    #[arg(long)]
    mixed: bool,
    /// The head to build on, 64 hex digits.
    #[arg(long, value_name = "HEX", value_parser = |text: &str| Root::from_hex(text).map_err(|e| e.to_string()))]
    prev_hash: Option<Root>,
    /// The aggregator's epoch.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(..INTEGER_LIMIT))]
    epoch: u64,
    /// The first nonce.
    #[arg(long, default_value_t = 1)]
    nonce: u32,
    /// End after so many attempts; without it at Ctrl-C, or when nonces are used up.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    count: Option<u32>,
}

/// What does not change while it works.
struct Worker {
    backend: Arc<dyn Backend>,
    key: SecretKey,
    did: Text,
    driver: Text,
    prev_hash: Root,
    epoch: u64,
    variant: Variant,
    shape: ShapeV1,
    client: reqwest::Client,
    url: Url,
    json: bool,
    print_receipt: bool,
}

/// A posted receipt's fate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Taken,
    Refused,
    Lost,
}

/// Works until it is told to stop.
pub fn run(arguments: &Arguments, layers: &Layers, json: bool) -> Result<Answer, Failure> {
    let choice = config::solo_choice(layers)?;
    let (kind, wanted) = config::compute_choice(layers)?;
    let key = keys::miner_key(&config::key_choice(layers)?.key)?;
    let variant = if arguments.mixed { Variant::Mixed } else { Variant::Plain };
    let on = |name: &str| layers.variable(name).is_some_and(|v| v != "0");
    let presets = presets(layers.variable("AUTOTUNE_PRESETS")).map_err(Failure::Usage)?;
    let backend = devices::open_one(kind, wanted.as_deref())?;
    let prev_hash = arguments.prev_hash.unwrap_or(Root([0xaa; 32]));
    let mut worker = Worker {
        did: choice.device_did.unwrap_or_else(|| keys::did_key(&key.public())),
        driver: Text::cleaned(&format!("{} {}", backend.device().label(), backend.device().name)),
        client: bridge::client(&choice.aggregator, &crate::run::agent())?,
        url: choice.aggregator,
        epoch: arguments.epoch,
        shape: ShapeV1::DEFAULT,
        print_receipt: on("WORKER_DEBUG_RECEIPT"),
        backend,
        key,
        prev_hash,
        variant,
        json,
    };
    println!("pubkey(compressed)={}", worker.key.public());
    if !on("AUTOTUNE_DISABLE") {
        worker.shape = worker.tune(&presets, choice.target.as_secs_f64() * 1e3).map_err(anyhow::Error::from)?;
    }
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().context("the system gives no threads")?;
    let fates = runtime.block_on(worker.work(arguments.nonce, arguments.count))?;
    // A post that hangs does not keep the process.
    runtime.shutdown_background();
    let number = |fate| fates.iter().filter(|f| **f == fate).count();
    let (taken, refused, lost) = (number(Fate::Taken), number(Fate::Refused), number(Fate::Lost));
    Ok(Answer {
        text: format!("done taken={taken} refused={refused} lost={lost}"),
        json: json!({ "taken": taken, "refused": refused, "lost": lost }),
        yes: refused + lost == 0,
    })
}

/// `m,n,k;m,n,k`, or the cubes.
fn presets(text: Option<&str>) -> Result<Vec<ShapeV1>, String> {
    let Some(text) = text else { return Ok(CUBES.iter().filter_map(|&side| ShapeV1::new(side, side, side)).collect()) };
    let fault =
        || format!("AUTOTUNE_PRESETS must be at most {PRESETS_MAX} shapes m,n,k of sides in 1..=8192, such as 512,512,512;1024,1024,1024");
    let parts: Vec<&str> = text.split(';').map(str::trim).filter(|part| !part.is_empty()).collect();
    let one = |part: &&str| three_numbers(part).ok().and_then(|[m, n, k]| ShapeV1::new(m, n, k)).ok_or_else(fault);
    let shapes: Vec<ShapeV1> = parts.iter().map(one).collect::<Result<_, _>>()?;
    if shapes.is_empty() || shapes.len() > PRESETS_MAX { Err(fault()) } else { Ok(shapes) }
}

impl Worker {
    fn attempt(&self, nonce: u32) -> Result<(Root, f64), DeviceFault> {
        let attempt = AttemptV1 { prev_hash: self.prev_hash, nonce, shape: self.shape, variant: self.variant };
        let start = Instant::now();
        let roots = self.backend.v1_roots(std::slice::from_ref(&attempt))?;
        let root = roots.first().copied().ok_or_else(|| DeviceFault::WrongAnswer { detail: "no root for an attempt".into() })?;
        Ok((root, start.elapsed().as_secs_f64() * 1e3))
    }

    /// The preset whose attempt takes the time nearest to the target. The first attempt of each makes its weights and is not measured.
    fn tune(&mut self, presets: &[ShapeV1], target_ms: f64) -> Result<ShapeV1, DeviceFault> {
        let mut best = (f64::INFINITY, self.shape);
        for &shape in presets {
            self.shape = shape;
            self.attempt(0)?;
            let (_, ms) = self.attempt(0)?;
            let off = (ms - target_ms).abs();
            eprintln!("autotune {}x{}x{} ms={ms:.1}", shape.m(), shape.n(), shape.k());
            if off < best.0 {
                best = (off, shape);
            }
        }
        Ok(best.1)
    }

    fn receipt(&self, nonce: u32, root: Root, ms: f64) -> ReceiptV1 {
        let mut receipt = ReceiptV1 {
            device_did: self.did.clone(),
            epoch_id: self.epoch,
            prev_hash: self.prev_hash,
            nonce,
            work_root: root,
            m: self.shape.m(),
            n: self.shape.n(),
            k: self.shape.k(),
            batch: 1,
            time_ms: ms as u64,
            kernel_ver: Text::cleaned(KERNEL_V1),
            driver_hint: self.driver.clone(),
            sig: Vec::new(),
        };
        receipt.sig = self.key.sign(&prehash(&receipt.id())).0.to_vec();
        receipt
    }

    async fn work(self, first: u32, count: Option<u32>) -> Result<Vec<Fate>, Failure> {
        let worker = Arc::new(self);
        let (mut fates, mut posting) = (Vec::new(), None::<tokio::task::JoinHandle<Fate>>);
        let last = count.map_or(u32::MAX, |count| first.saturating_add(count - 1));
        let stop = tokio::signal::ctrl_c();
        tokio::pin!(stop);
        for nonce in first..=last {
            let this = Arc::clone(&worker);
            let done = tokio::task::spawn_blocking(move || this.attempt(nonce).map(|(root, ms)| (this.receipt(nonce, root, ms), ms)));
            let (receipt, ms) = tokio::select! {
                // Where signals cannot be handled the system ends the process.
                Ok(()) = &mut stop => break,
                done = done => done.context("the attempt has panicked")?.map_err(anyhow::Error::from)?,
            };
            if let Some(posted) = posting.take() {
                tokio::select! {
                    Ok(()) = &mut stop => break,
                    fate = posted => fates.push(fate.context("posting has panicked")?),
                }
            }
            posting = Some(tokio::spawn(Arc::clone(&worker).post(receipt, ms)));
        }
        if let Some(posted) = posting {
            tokio::select! {
                Ok(()) = &mut stop => {}
                fate = posted => fates.push(fate.context("posting has panicked")?),
            }
        }
        Ok(fates)
    }

    async fn post(self: Arc<Self>, receipt: ReceiptV1, ms: f64) -> Fate {
        let (text, id) = (receipt.to_text(), receipt.id().to_hex());
        if self.print_receipt {
            println!("{text}");
        }
        let mut attempts = 0;
        let (fate, word, note) = loop {
            match bridge::post(&self.client, self.url.clone(), &id, text.clone()).await {
                Outcome::Taken { note, .. } => break (Fate::Taken, "ok", note),
                Outcome::Refused { note } => break (Fate::Refused, "refused", note),
                Outcome::Again { note, .. } if attempts + 1 == TRIES => break (Fate::Lost, "lost", note),
                Outcome::Again { after, .. } => tokio::time::sleep(bridge::jitter(attempts).max(after.unwrap_or_default())).await,
            }
            attempts += 1;
        };
        let (nonce, root) = (receipt.nonce, receipt.work_root);
        if self.json {
            println!("{}", json!({ "result": word, "nonce": nonce, "ms": ms, "work_root": root.to_hex(), "note": note }));
        } else if fate == Fate::Taken {
            println!("ok nonce={nonce} ms={ms:.1} work_root={root}");
        } else {
            println!("{word} nonce={nonce} ms={ms:.1} work_root={root} why={note}");
        }
        fate
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presets_are_cubes_unless_named() {
        assert_eq!(presets(None).unwrap().len(), CUBES.len());
        assert_eq!(presets(Some("64,96,128; 1,1,1;")).unwrap(), [ShapeV1::new(64, 96, 128).unwrap(), ShapeV1::new(1, 1, 1).unwrap()]);
        let many = "1,1,1;".repeat(PRESETS_MAX + 1);
        for wrong in ["", ";", "64", "0,1,1", "9000,1,1", "a,b,c", &many] {
            assert!(presets(Some(wrong)).is_err(), "{wrong}");
        }
    }
}
