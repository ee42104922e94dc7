//! Hits at a given rate: true ones, for a miner drawn by the seed, on the tip that this miner has.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::mpsc;
use tops_compute::backend::{Backend, SearchJob, Stop};
use tops_node::state::Shared;
use tops_protocol::engine::Input;
use tops_protocol::types::INTEGER_LIMIT;
use tops_protocol::{Attempt, NetworkSpec, Nonce};

use super::device::Remembering;
use super::member::now;

/// Attempts of one call.
const BATCH: u32 = 64;

/// Where hits come from.
pub struct Pace {
    pub(super) spec: NetworkSpec,
    pub(super) device: Arc<Remembering>,
    /// Shares a second of the whole network.
    pub(super) rate: f64,
    /// One after the other at equal distances, and not as independent miners find them.
    pub(super) even: bool,
    pub(super) seed: u64,
}

impl Pace {
    /// Brings hits for so long; gives how many.
    ///
    /// # Errors
    /// When a miner has no job, or its loop has ended.
    pub(super) async fn run(self, miners: Vec<(Shared, mpsc::Sender<Input>)>, how_long: Duration) -> anyhow::Result<u64> {
        let mut chance = StdRng::seed_from_u64(self.seed);
        let began = tokio::time::Instant::now();
        let (mut due, mut brought) = (Duration::ZERO, 0);
        loop {
            let gaps = if self.even { 1.0 } else { -(1.0 - chance.random::<f64>()).ln() };
            due += Duration::from_secs_f64(gaps / self.rate);
            if due >= how_long {
                tokio::time::sleep_until(began + how_long).await;
                return Ok(brought);
            }
            let (shared, hits) = &miners[chance.random_range(0..miners.len())];
            let nonce = chance.random_range(0..INTEGER_LIMIT / 2);
            let hit = self.find(shared, nonce).await?;
            tokio::time::sleep_until(began + due).await;
            hits.send(hit).await.ok().context("a miner has ended")?;
            brought += 1;
        }
    }

    async fn find(&self, shared: &Shared, first: u64) -> anyhow::Result<Input> {
        let Some(view) = shared.view() else { bail!("a miner shows nothing") };
        let (device, shape, miner) = (Arc::clone(&self.device), self.spec.shape(), shared.identity().miner);
        tokio::task::spawn_blocking(move || {
            let timestamp = now();
            let mut nonce = first;
            loop {
                let first_nonce = Nonce::new(nonce).context("nonces have ended")?;
                let engine = &view.engine;
                let job =
                    SearchJob { prev_hash: engine.tip, miner, timestamp, shape, first_nonce, count: BATCH, target: engine.share_target };
                let report = device.search(&job, &Stop::new())?;
                if let Some((nonce, root)) = report.hits.first().copied() {
                    let attempt = Attempt { prev_hash: engine.tip, miner, nonce, timestamp, shape };
                    return Ok(Input::Found { attempt, root, batch: BATCH.into(), time_ms: 1 });
                }
                nonce += u64::from(BATCH);
            }
        })
        .await?
    }
}
