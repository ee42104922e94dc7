//! Assembles a running node from a validated configuration, and takes it apart again.
//!
//! ```text
//!   lock ─▶ keys ─▶ store ─▶ engine ─▶ devices ─▶ network ─▶ http, bridge ─▶ loop … stop ─▶ flush ─▶ close
//! ```
//!
//! Whatever cannot be had at the start ends it with one sentence; nothing is begun that could not be finished. A full disk is waited for. A signal
//! is heard from the very beginning: a start that it meets ends between two steps, and a step that takes long is left, which is as safe as a kill.

use std::fs::{File, TryLockError};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rand::Rng;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tops_compute::backend::{Backend, DeviceFault, DeviceKind, Stop};
use tops_compute::cpu::CpuBackend;
use tops_compute::queue::{LaneSpec, Queue, QueueOptions};
use tops_compute::select::{Selected, Selection};
use tops_compute::tune::Tuner;
use tops_protocol::engine::{self, Engine, Mining};
use tops_protocol::work::v1::AttemptV1;
use tops_protocol::{Attempt, Height, Root, Text, UnitId};
use tops_store::{Store, StoreFault, Writer};
use tracing::{debug, info, warn};

use crate::auditor::Auditor;
use crate::bridge::{Bridge, Tell};
use crate::check::{Recompute, Recomputed};
use crate::config::Config;
use crate::driver::{self, BridgeWord, Clock, Parts};
use crate::http::{self, Checker};
use crate::miner::{self, Miner, Terms};
use crate::net::remembered::FILE;
use crate::net::task as net;
use crate::progress::{self, Progress};
use crate::state::{Identity, Shared};
use crate::verifier::Verifier;
use crate::{devices, keys, shutdown, telemetry};

/// How long a step of the start may go on after a signal.
const LEAVE_START: Duration = Duration::from_secs(2);
/// How often a store that needs room to open is tried, while a full disk keeps a node from starting.
const FULL_RETRY: Duration = Duration::from_secs(2);
/// How often that is said.
const FULL_SAID: Duration = Duration::from_secs(60);
/// The file whose lock says that a process works in a data directory.
pub const LOCK: &str = "node.lock";
/// How long HTTP and the bridge may take to end.
const LINGER: Duration = Duration::from_secs(2);
/// How long threads that still wait for something outside of this process are waited for.
const STRAGGLERS: Duration = Duration::from_millis(500);

/// What a node calls itself.
pub fn agent() -> String {
    format!("tops-node/{}", env!("CARGO_PKG_VERSION"))
}

/// A node that runs.
pub struct Running {
    /// What it shows of itself.
    pub shared: Shared,
    /// Send `true` to end it.
    pub stop: watch::Sender<bool>,
    /// Where HTTP answers.
    pub http: Option<SocketAddr>,
    all: JoinHandle<anyhow::Result<()>>,
}

impl Running {
    /// Waits until it has ended.
    ///
    /// # Errors
    /// When the store failed: then the node stopped by itself.
    pub async fn ended(self) -> anyhow::Result<()> {
        self.all.await.context("the node's loop has panicked")?
    }
}

/// Runs a node until a signal ends it.
///
/// # Errors
/// One sentence that says what is missing, or the store's fault.
pub fn run(config: Config) -> anyhow::Result<()> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("node").build().context("the system gives no threads")?;
    let handle = runtime.handle().clone();
    let outcome = runtime.block_on(async {
        let stop = watch::Sender::new(false);
        shutdown::on_signals(stop.clone());
        // On a thread that may block, beside those that hear signals.
        let wanted = stop.subscribe();
        let mut starting = tokio::task::spawn_blocking(move || handle.block_on(start_until(config, stop)));
        let started = tokio::select! {
            started = &mut starting => started,
            () = until(wanted) => match tokio::time::timeout(LEAVE_START, &mut starting).await {
                Ok(started) => started,
                Err(_) => {
                    info!("stopped while it was starting");
                    return Ok(());
                }
            },
        };
        match started.context("the start has panicked")? {
            Ok(running) => running.ended().await?,
            Err(fault) if fault.is::<Stopped>() => {}
            Err(fault) => return Err(fault),
        }
        info!("stopped");
        Ok(())
    });
    // Dropping the runtime would wait for ever for a name server or a driver that some thread still asks.
    runtime.shutdown_timeout(STRAGGLERS);
    outcome
}

/// It was told to stop before it had started.
#[derive(Debug, thiserror::Error)]
#[error("stopped while it was starting")]
struct Stopped;

/// Starts a node and returns when it takes part.
///
/// # Errors
/// One sentence that says what is missing.
pub async fn start(config: Config) -> anyhow::Result<Running> {
    start_until(config, watch::Sender::new(false)).await
}

/// Goes on with the start unless the stop has come.
fn go_on(stop: &watch::Sender<bool>) -> Result<(), Stopped> {
    if *stop.borrow() { Err(Stopped) } else { Ok(()) }
}

async fn start_until(config: Config, stop: watch::Sender<bool>) -> anyhow::Result<Running> {
    let stopped = stop.subscribe();
    let lock = lock(&config.data_dir)?;
    let key = keys::miner_key(&config.key)?;
    let identity_key = match &config.identity_file {
        Some(path) => keys::load_or_create(path)?,
        None => key.clone(),
    };
    let keypair = keys::identity(&identity_key)?;
    let device_did = config.device_did.clone().unwrap_or_else(|| keys::did_key(&key.public()));
    let clock = Clock::new();
    let shared = Shared::new(Identity {
        peer_id: keypair.public().to_peer_id().to_string(),
        miner: key.public(),
        device_did: device_did.to_string(),
        agent: agent(),
        network_name: config.network_name.clone(),
        verify_only: config.verify_only,
        alone: config.alone,
        started_at: clock.now(),
    });
    info!(
        network = config.network_name,
        id = %config.network.id(),
        peer = shared.identity().peer_id,
        miner = %key.public(),
        light = config.verify_only,
        "starting"
    );

    let store = open_store(&config, &shared, &stop).await?;
    go_on(&stop)?;
    let devices = open_devices(&config)?;
    go_on(&stop)?;
    // What receipts call the driver: the first device that mines.
    let hint = devices.iter().find(|d| d.mines).or(devices.first()).map(|d| d.backend.device());
    let driver_hint = hint.map_or_else(|| Text::cleaned("cpu"), |d| Text::cleaned(&format!("{} {} {}", d.label(), d.name, d.driver)));
    let engine_config = engine::Config {
        network: config.network.clone(),
        mining: (!config.verify_only).then(|| Mining { miner: key.public(), device_did, driver_hint }),
        alone: config.alone,
        light: config.verify_only,
        audit_rate: config.audit_rate,
        audit_shard: config.audit_shard,
        bridge: config.bridge,
        retain_epochs: config.retain_epochs,
        checkpoints: config.checkpoints.clone(),
        secret: rand::rng().random(),
    };
    let engine = restore(engine_config, &*store)?;
    go_on(&stop)?;

    let net = {
        let settings = net::Settings {
            key: keypair,
            tag: config.network.tag(),
            agent: agent(),
            listen: config.listen.clone(),
            external: config.external_addresses.clone(),
            bootstrap: config.bootstrap.clone(),
            mdns: config.mdns,
            relay: config.relay,
            remembered: Some(config.data_dir.join(FILE)),
        };
        net::start(settings, shared.clone())?
    };

    let ears = miner::ears();
    let queue = start_queue(&config, devices, ears.sink(), &stop)?;
    go_on(&stop)?;
    let (auditor, audited) = Auditor::new(Arc::clone(&queue), shared.clone());
    let miner = if config.verify_only {
        None
    } else {
        let terms = Terms { miner: key.public(), shape: config.network.shape(), target: config.target };
        Some(Miner::start(ears, Arc::clone(&queue), terms, clock.clone(), shared.clone()).context("the system gives no thread")?)
    };
    let (verifier, verified) = Verifier::start(config.network.clone(), (!config.verify_only).then_some(key), shared.clone())
        .context("the system gives no threads")?;
    let writer = Writer::start(Arc::clone(&store))?;

    let (words, bridge_words) = driver::bridge_words();
    let bridge = start_bridge(&config, &store, &shared, words.clone(), stopped.clone())?;
    let (http, served) = start_http(&config, &store, &shared, &queue, words, stopped.clone()).await?;

    let parts = Parts {
        engine,
        clock,
        shared: shared.clone(),
        net,
        verifier,
        verified,
        auditor,
        audited,
        miner,
        store,
        writer,
        bridge: bridge_words,
        stop: stopped,
    };
    let watcher = tokio::spawn(driver::watch_loop(shared.clone()));
    let minutes = tokio::spawn(telemetry::every_minute(shared.clone(), Arc::clone(&parts.store), config.network.spacing_secs()));
    let follower = tokio::spawn(progress::follow_sync(shared.clone()));
    let ending = stop.clone();
    let all = tokio::spawn(async move {
        let outcome = driver::run(parts).await;
        // A store that failed ends the others too.
        ending.send_replace(true);
        for mut task in [bridge, served].into_iter().flatten() {
            // A reader of the event stream may hold its connection for ever.
            if tokio::time::timeout(LINGER, &mut task).await.is_err() {
                task.abort();
            }
        }
        watcher.abort();
        minutes.abort();
        follower.abort();
        // Joining the devices' threads blocks.
        if tokio::task::spawn_blocking(move || drop(queue)).await.is_err() {
            warn!("a device's thread could not be ended");
        }
        drop(lock);
        outcome.map_err(anyhow::Error::from)
    });
    Ok(Running { shared, stop, http, all })
}

fn lock(data_dir: &Path) -> anyhow::Result<File> {
    std::fs::create_dir_all(data_dir).with_context(|| format!("the data directory {} cannot be made", data_dir.display()))?;
    let path = data_dir.join(LOCK);
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .with_context(|| format!("{} cannot be opened", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => bail!("another node works in {}: stop it, or choose another --data-dir", data_dir.display()),
        Err(TryLockError::Error(e)) => Err(e).with_context(|| format!("{} cannot be locked", path.display())),
    }
}

/// A full disk is waited for: whoever started this node wants it back as soon as there is room, and not to start it again by hand.
async fn open_store(config: &Config, shared: &Shared, stop: &watch::Sender<bool>) -> anyhow::Result<Arc<dyn Store>> {
    let mut said: Option<Instant> = None;
    let opened = loop {
        match tops_store::sled::open(&config.data_dir.join("store"), config.network.id()) {
            Err(full @ StoreFault::Full { .. }) => {
                if said.is_none_or(|at| at.elapsed() >= FULL_SAID) {
                    said = Some(Instant::now());
                    warn!(error = %full, "the node waits for room and starts then");
                }
                let _ = tokio::time::timeout(FULL_RETRY, until(stop.subscribe())).await;
                go_on(stop)?;
            }
            other => break other?,
        }
    };
    if let Some(path) = &opened.set_aside {
        warn!(path = %path.display(), "the store was damaged and is set aside; its contents come back from the peers");
        shared.set_store_set_aside(path.display().to_string());
    }
    Ok(opened.store)
}

fn restore(config: engine::Config, store: &dyn Store) -> Result<Engine, StoreFault> {
    let tip = store.main_heads(None, 1)?.first().map_or(Height(0), |row| row.height);
    let snapshot = store.snapshot(Engine::heads_wanted_from(&config, tip.0))?;
    info!(height = tip.0, heads = snapshot.heads.len(), shares = snapshot.shares.len(), bans = snapshot.bans.len(), "store opened");
    Ok(Engine::restore(config, snapshot))
}

/// The devices that were chosen, each with whether it mines here. The CPU is always among them: hits of a GPU are recomputed by it, and audits
/// go on when every GPU is gone.
fn open_devices(config: &Config) -> anyhow::Result<Vec<Selected>> {
    let Selection { mut devices, passed_over } = devices::select(config.backend, config.devices.as_deref())?;
    for passed in passed_over {
        if passed.broken {
            warn!(kind = %passed.kind, index = passed.index, name = passed.name, reason = passed.reason, "a device does not work and is not used");
        } else {
            debug!(kind = %passed.kind, index = passed.index, reason = passed.reason, "a device was passed over");
        }
    }
    for selected in &mut devices {
        selected.mines &= !config.verify_only;
        info!(device = %selected.backend.device(), mines = selected.mines, "using");
    }
    Ok(devices)
}

/// How many attempts a GPU should be given at once, measured at the first start with it. The CPU's number is found while it mines, at no loss.
fn lanes(config: &Config, devices: Vec<Selected>, stop: &Stop) -> Vec<LaneSpec> {
    let mut tuner = Tuner::open(Some(&config.data_dir.join("tuned.json")));
    let tuned = |Selected { backend, mines }: Selected| {
        let gpu = backend.device().kind != DeviceKind::Cpu;
        let measured = (mines && gpu).then(|| {
            let _bar = Progress::waiting(&format!("tuning {}", backend.device().label()));
            tuner.tune(&*backend, config.network.shape(), config.target, stop)
        });
        let tuned = match measured {
            Some(Ok(tuned)) => {
                info!(device = backend.device().label(), batch = tuned.batch, attempts_per_sec = tuned.attempts_per_sec as u64, "tuned");
                Some(tuned)
            }
            Some(Err(fault)) => {
                warn!(device = backend.device().label(), %fault, "not tuned: the batch is found while mining");
                None
            }
            None => None,
        };
        let rate = tuned.as_ref().map(|tuned| tuned.attempts_per_sec * config.network.shape().ops() as f64);
        LaneSpec { backend, mines, batch: tuned.map(|tuned| tuned.batch), rate }
    };
    devices.into_iter().map(tuned).collect()
}

fn start_queue(
    config: &Config,
    devices: Vec<Selected>,
    sink: impl Fn(tops_compute::queue::MiningReport) + Send + Sync + 'static,
    stop: &watch::Sender<bool>,
) -> anyhow::Result<Arc<Queue>> {
    let (enough, wanted) = (Stop::new(), until(stop.subscribe()));
    let tuning = tokio::spawn({
        let enough = enough.clone();
        async move {
            wanted.await;
            enough.stop();
        }
    });
    let options = QueueOptions { target: config.target, bundle_dir: Some(config.data_dir.join("bundles")) };
    let lanes = lanes(config, devices, &enough);
    tuning.abort();
    let queue = Queue::start(lanes, options, sink).context("the system gives no threads")?;
    Ok(Arc::new(queue))
}

/// Resolves when the node is to end.
async fn until(mut stop: watch::Receiver<bool>) {
    // A sender that is gone means the same.
    let _ = stop.wait_for(|stop| *stop).await;
}

fn start_bridge(
    config: &Config,
    store: &Arc<dyn Store>,
    shared: &Shared,
    words: mpsc::Sender<BridgeWord>,
    stop: watch::Receiver<bool>,
) -> anyhow::Result<Option<JoinHandle<()>>> {
    let Some(url) = config.aggregator.clone() else { return Ok(None) };
    let tell: Tell = Arc::new(move |unit, taken| {
        let words = words.clone();
        Box::pin(async move { words.send(BridgeWord::Delivered { unit, taken }).await.is_ok() })
    });
    let bridge = Bridge::new(url, Arc::clone(store), shared.clone(), tell)?;
    Ok(Some(tokio::spawn(bridge.run(until(stop)))))
}

/// A device that recomputes for HTTP's clients, apart from the queue that the network depends on.
struct Desk(Arc<dyn Backend>);

impl Recompute for Desk {
    fn v2(&self, attempt: &Attempt) -> Result<Root, DeviceFault> {
        Recomputed(&*self.0).v2(attempt)
    }
    fn v1(&self, attempt: &AttemptV1) -> Result<Root, DeviceFault> {
        Recomputed(&*self.0).v1(attempt)
    }
}

/// Hands an operator's wish about a unit to the loop.
fn operator(words: mpsc::Sender<BridgeWord>, word: fn(UnitId) -> BridgeWord) -> http::Replay {
    Arc::new(move |unit| {
        let words = words.clone();
        Box::pin(async move { words.send(word(unit)).await.is_ok() })
    })
}

async fn start_http(
    config: &Config,
    store: &Arc<dyn Store>,
    shared: &Shared,
    queue: &Arc<Queue>,
    words: mpsc::Sender<BridgeWord>,
    stop: watch::Receiver<bool>,
) -> anyhow::Result<(Option<SocketAddr>, Option<JoinHandle<()>>)> {
    let Some(address) = config.http else { return Ok((None, None)) };
    let listener = TcpListener::bind(address).await.with_context(|| {
        format!("HTTP cannot listen on {address}: is another node running? choose another address with --http, or --http off")
    })?;
    let bound = listener.local_addr().context("the HTTP address is unknown")?;
    let cpu = CpuBackend::new(Some(1)).context("the CPU cannot be used")?;
    // Weak, so that a connection that lingers does not keep the devices.
    let queue = Arc::downgrade(queue);
    let parts = http::Parts {
        network: config.network.clone(),
        shared: shared.clone(),
        store: Arc::clone(store),
        devices: Arc::new(move || queue.upgrade().map_or_else(Vec::new, |queue| queue.reports())),
        replay: operator(words.clone(), |unit| BridgeWord::Replay { unit }),
        discard: operator(words, |unit| BridgeWord::Discard { unit }),
        checker: Checker::new(Arc::new(Desk(Arc::new(cpu)))),
        token: config.api_token.clone(),
        verify_key: config.verify_key.clone(),
    };
    info!(address = %bound, "HTTP");
    let served = tokio::spawn(http::serve(listener, http::router(parts), until(stop)));
    Ok((Some(bound), Some(served)))
}
