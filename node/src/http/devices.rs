//! What the devices do and how they are: the queue's reports joined with the sensors' readings.

use std::collections::BTreeMap;
use std::sync::{Mutex, TryLockError};
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::{RawQuery, State};
use serde_json::{Value, json};
use tops_compute::health::{Health, Reading};
use tops_compute::queue::LaneReport;

use super::{Api, Devices, Problem, Query, Reply};

/// Readings are renewed at most this often, however many clients ask: a sensor is slow.
const RENEW_EVERY: Duration = Duration::from_secs(2);

/// The queue's reports with a reading each.
pub(super) struct Sensors {
    devices: Devices,
    last: Mutex<Last>,
}

#[derive(Default)]
struct Last {
    health: Health,
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

/// `GET /v1/devices`.
pub(super) async fn devices(State(api): State<Api>, RawQuery(raw): RawQuery) -> Reply {
    Query::parse(raw.as_deref(), &[])?;
    let sensors = api.0.sensors.clone();
    let seen = tokio::task::spawn_blocking(move || sensors.look()).await.map_err(|_| Problem::own("reading the sensors failed".into()))?;
    let devices: Vec<Value> = seen.into_iter().map(|(lane, reading)| device_json(&lane, &reading)).collect();
    Ok(Json(json!({ "devices": devices })))
}

fn device_json(lane: &LaneReport, reading: &Reading) -> Value {
    let wall = lane.wall.as_secs_f64();
    let over = |x: f64| if wall > 0.0 { x / wall } else { 0.0 };
    json!({
        "label": lane.device.label(), "device": lane.device, "mines": lane.mines, "benched": lane.benched, "hung": lane.hung,
        "attempts": lane.mined, "tops": over(lane.mined_ops as f64 / 1e12), "hits": lane.hits,
        "checked": lane.checked, "queued": lane.queued, "batch": lane.batch, "busy_share": over(lane.busy.as_secs_f64()), "jobs_replaced": lane.replaced,
        "job_replaced_worst_ms": lane.replaced_worst.as_secs_f64() * 1e3, "health": reading,
    })
}
