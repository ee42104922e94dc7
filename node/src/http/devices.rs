//! What the devices do and how they are: the queue's reports joined with the sensors' readings.

use std::collections::BTreeMap;
use std::sync::{Mutex, TryLockError};
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::{RawQuery, State};
use serde::Serialize;
use tops_compute::backend::Device;
use tops_compute::health::{self, Reading};
use tops_compute::queue::LaneReport;
use utoipa::ToSchema;

use super::forms::Nothing;
use super::{Api, Devices, Problem, Query, Reply, Usual};

/// Readings are renewed at most this often, however many clients ask: a sensor is slow.
const RENEW_EVERY: Duration = Duration::from_secs(2);

/// The queue's reports with a reading each.
pub(super) struct Sensors {
    devices: Devices,
    last: Mutex<Last>,
}

#[derive(Default)]
struct Last {
    health: health::Health,
    at: Option<Instant>,
    readings: BTreeMap<String, Reading>,
}

impl Sensors {
    pub(super) fn new(devices: Devices) -> Self {
        Self { devices, last: Mutex::default() }
    }

    /// The queue's reports alone.
    pub(super) fn lanes(&self) -> Vec<LaneReport> {
        (self.devices)()
    }

    /// Every device. May block on a driver for some milliseconds.
    pub(super) fn look(&self) -> Vec<(LaneReport, Reading)> {
        let lanes = (self.devices)();
        // Whoever finds the sensors taken does without: a driver that hangs must not collect threads.
        let mut last = match self.last.try_lock() {
            Ok(last) => last,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return lanes.into_iter().map(|lane| (lane, Reading::default())).collect(),
        };
        if last.at.is_none_or(|at| at.elapsed() >= RENEW_EVERY) {
            let Last { health, at, readings } = &mut *last;
            *readings = lanes.iter().map(|lane| (lane.device.label(), health.read(&lane.device))).collect();
            *at = Some(Instant::now());
        }
        lanes
            .into_iter()
            .map(|lane| {
                let reading = last.readings.get(&lane.device.label()).copied().unwrap_or_default();
                (lane, reading)
            })
            .collect()
    }
}

/// What a device is.
#[derive(Debug, Serialize, ToSchema)]
struct About {
    /// `cpu`, `cuda`, `opencl`.
    kind: String,
    index: u32,
    /// The maker's name of it.
    name: String,
    driver: String,
    /// Which code runs on it.
    path: String,
    code_digest: String,
    memory_bytes: Option<u64>,
    /// Multiprocessors, compute units or threads used.
    units: u32,
    compute_capability: Option<String>,
    pci_address: Option<String>,
    /// Published dense int8 operations a second, in units of 10^12.
    peak_int8_tops: Option<f64>,
}

impl From<Device> for About {
    fn from(d: Device) -> Self {
        Self {
            kind: d.kind.to_string(),
            index: d.index,
            name: d.name,
            driver: d.driver,
            path: d.path,
            code_digest: d.code_digest,
            memory_bytes: d.memory_bytes,
            units: d.units,
            compute_capability: d.compute_capability,
            pci_address: d.pci_address,
            peak_int8_tops: d.peak_int8_tops,
        }
    }
}

/// What its sensors say; null: it does not tell.
#[derive(Debug, Serialize, ToSchema)]
struct Health {
    power_watts: Option<f64>,
    power_limit_watts: Option<f64>,
    temperature_celsius: Option<f64>,
    /// By everybody.
    memory_used_bytes: Option<u64>,
    memory_total_bytes: Option<u64>,
    clock_mhz: Option<f64>,
}

impl From<Reading> for Health {
    fn from(r: Reading) -> Self {
        Self {
            power_watts: r.power_watts,
            power_limit_watts: r.power_limit_watts,
            temperature_celsius: r.temperature_celsius,
            memory_used_bytes: r.memory_used_bytes,
            memory_total_bytes: r.memory_total_bytes,
            clock_mhz: r.clock_mhz,
        }
    }
}

/// A device, what it did since the start, and how it is.
#[derive(Debug, Serialize, ToSchema)]
struct Lane {
    /// `cuda:0`, as logs and metrics name it.
    label: String,
    device: About,
    mines: bool,
    /// Why it gets no more work.
    benched: Option<String>,
    /// Whether its thread is stuck in the driver.
    hung: bool,
    /// Attempts mined.
    attempts: u64,
    /// 10^12 operations a second, on average since the start.
    tops: f64,
    hits: u64,
    /// Roots recomputed for audits.
    checked: u64,
    /// Jobs waiting.
    queued: usize,
    /// Attempts a launch.
    batch: u32,
    /// Time that the device computed, as a share of the time since the start.
    busy_share: f64,
    jobs_replaced: u64,
    job_replaced_worst_ms: f64,
    health: Health,
}

/// Every device of this node.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Lanes {
    devices: Vec<Lane>,
}

/// What the devices do and how they are.
#[utoipa::path(get, path = "/v1/devices", tag = "mining", params(Nothing), responses((status = 200, description = "All of them", body = Lanes), Usual))]
pub(super) async fn devices(State(api): State<Api>, RawQuery(raw): RawQuery) -> Reply<Lanes> {
    Query::<Nothing>::parse(raw.as_deref())?;
    let sensors = api.0.sensors.clone();
    let seen = tokio::task::spawn_blocking(move || sensors.look()).await.map_err(|_| Problem::own("reading the sensors failed".into()))?;
    Ok(Json(Lanes { devices: seen.into_iter().map(|(report, reading)| lane(report, reading)).collect() }))
}

fn lane(report: LaneReport, reading: Reading) -> Lane {
    let wall = report.wall.as_secs_f64();
    let over = |x: f64| if wall > 0.0 { x / wall } else { 0.0 };
    Lane {
        label: report.device.label(),
        mines: report.mines,
        benched: report.benched,
        hung: report.hung,
        attempts: report.mined,
        tops: over(report.mined_ops as f64 / 1e12),
        hits: report.hits,
        checked: report.checked,
        queued: report.queued,
        batch: report.batch,
        busy_share: over(report.busy.as_secs_f64()),
        jobs_replaced: report.replaced,
        job_replaced_worst_ms: report.replaced_worst.as_secs_f64() * 1e3,
        health: reading.into(),
        device: report.device.into(),
    }
}
