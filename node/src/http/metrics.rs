//! `/metrics`: OpenMetrics, collected from the shared state at each scrape. No label names a peer or a miner, so their number is fixed.

use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use tops_compute::health::Reading;
use tops_compute::queue::LaneReport;
use tops_protocol::Millis;
use tops_protocol::engine::SyncState;

use super::devices::Sensors;
use super::{Api, Parts, Problem, health};
use crate::state::{Counters, Shared};

/// A metric of every device: name, help, and where it is in a report.
type Column = (&'static str, &'static str, fn(&LaneReport) -> f64);

/// Likewise of a sensor; not every device has each.
type Sensor = (&'static str, &'static str, fn(&Reading) -> Option<f64>);

/// Reads everything at scrape time.
struct NodeCollector {
    shared: Shared,
    sensors: Arc<Sensors>,
}

impl fmt::Debug for NodeCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NodeCollector")
    }
}

/// A registry with the node's collector.
pub(super) fn registry(parts: &Parts, sensors: Arc<Sensors>) -> Registry {
    let mut registry = Registry::with_prefix("tops");
    registry.register_collector(Box::new(NodeCollector { shared: parts.shared.clone(), sensors }));
    registry
}

/// Everything as OpenMetrics.
#[utoipa::path(
    get, path = "/metrics", tag = "health",
    responses((status = 200, description = "OpenMetrics 1.0", body = String, content_type = "application/openmetrics-text"), super::Usual)
)]
pub(super) async fn metrics(State(api): State<Api>) -> Response {
    // Sensors may block.
    let encoded = tokio::task::spawn_blocking(move || {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &api.0.metrics).map(|()| text)
    });
    match encoded.await {
        Ok(Ok(text)) => ([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text).into_response(),
        Ok(Err(_)) | Err(_) => Problem::own("the metrics could not be written".into()).into_response(),
    }
}

fn gauge(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: f64) -> fmt::Result {
    ConstGauge::new(value).encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)
}

/// Seconds of Unix time; 0: never.
fn since_epoch(at: Option<Millis>) -> f64 {
    at.map_or(0.0, |at| at.0 as f64 / 1e3)
}

impl Collector for NodeCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let e = &mut encoder;
        for ((name, value), (_, help)) in self.shared.counters().values().into_iter().zip(Counters::help()) {
            // The encoder ends a help text with a full stop of its own.
            let help = help.trim().trim_end_matches('.');
            ConstCounter::new(value).encode(e.encode_descriptor(name, help, None, MetricType::Counter)?)?;
        }
        let mut reasons = e.encode_descriptor("rejections", "Receipts and answers turned away, by reason", None, MetricType::Counter)?;
        for (reason, count) in self.shared.reasons() {
            ConstCounter::new(count).encode(reasons.encode_family(&[("reason", reason)])?)?;
        }
        let rate = self.shared.hash_rate();
        let mut rates = e.encode_descriptor("attempts_per_second", "Attempts of this node's devices a second", None, MetricType::Gauge)?;
        for (window, value) in [("10s", rate.secs_10), ("60s", rate.secs_60), ("15min", rate.mins_15)] {
            ConstGauge::new(value).encode(rates.encode_family(&[("window", window)])?)?;
        }
        ConstCounter::new(rate.total).encode(e.encode_descriptor(
            "attempts",
            "Attempts of this node's devices",
            None,
            MetricType::Counter,
        )?)?;
        let ages = self.shared.ages();
        let mut quantiles =
            e.encode_descriptor("receipt_age_seconds", "From a receipt's timestamp to its acceptance here", None, MetricType::Gauge)?;
        for (quantile, ms) in [("0.5", ages.p50_ms), ("0.99", ages.p99_ms)] {
            ConstGauge::new(ms as f64 / 1e3).encode(quantiles.encode_family(&[("quantile", quantile)])?)?;
        }
        gauge(e, "uptime_seconds", "How long the process runs", self.shared.uptime().as_secs_f64())?;
        gauge(e, "loop_age_seconds", "How long ago the loop turned", self.shared.since_beat().as_secs_f64())?;
        gauge(
            e,
            "device_problem",
            "1 while something is wrong with a device",
            f64::from(u8::from(health::device_problem(&self.shared, &self.sensors.lanes()).is_some())),
        )?;
        gauge(e, "store_problem", "1 while the store takes nothing", f64::from(u8::from(self.shared.store_stopped())))?;
        self.view(e)?;
        self.bridge(e)?;
        self.lanes(e)
    }
}

impl NodeCollector {
    fn view(&self, e: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let Some(view) = self.shared.view() else { return Ok(()) };
        let v = &view.engine;
        for (name, help, value) in [
            ("height", "Height of the best head", v.height.0 as f64),
            ("head_time_seconds", "Timestamp of the best head", v.tip_time.0 as f64 / 1e3),
            ("head_bits", "Compact target of the next head", f64::from(v.head_bits)),
            ("heads", "Heads in memory", v.heads as f64),
            ("shares", "Shares in memory", v.shares as f64),
            ("shares_unaudited", "Shares accepted without a look", v.unaudited as f64),
            ("undecided", "Receipts whose fate is open", v.undecided as f64),
            ("audits_in_flight", "Audits that devices are busy with", v.audits_in_flight as f64),
            ("held", "Receipts held for their parent or the clock", v.held as f64),
            ("banned_miners", "Banned keys", v.bans as f64),
            ("miners", "Miners in the ledger", v.miners as f64),
            ("mining", "1 while this node has a job", f64::from(u8::from(v.mining))),
            ("in_step", "1 while no peer has a better chain", f64::from(u8::from(v.sync == SyncState::InStep))),
        ] {
            gauge(e, name, help, value)?;
        }
        let mut outbox = e.encode_descriptor("outbox", "Receipts on their way to the aggregator", None, MetricType::Gauge)?;
        for (state, count) in [("waiting", v.outbox.0), ("due", v.outbox.1)] {
            ConstGauge::new(count as i64).encode(outbox.encode_family(&[("state", state)])?)?;
        }
        let nodes = view.peers.iter().filter(|p| p.node).count();
        let mut peers = e.encode_descriptor("peers", "Connected peers", None, MetricType::Gauge)?;
        for (kind, count) in [("node", nodes), ("other", view.peers.len() - nodes)] {
            ConstGauge::new(count as i64).encode(peers.encode_family(&[("kind", kind)])?)?;
        }
        Ok(())
    }

    /// Nothing of what an aggregator that is not there would show.
    fn bridge(&self, e: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let bridge = self.shared.bridge();
        if !bridge.configured {
            return Ok(());
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |now| now.as_secs_f64());
        let since = |at: Option<Millis>| at.map_or(0.0, |at| (now - at.0 as f64 / 1e3).max(0.0));
        for (name, help, value) in [
            ("bridge_failing_seconds", "How long no try to deliver has come to anything", since(bridge.failing_since)),
            ("bridge_oldest_due_seconds", "Age of the oldest receipt that is due", since(bridge.oldest_due)),
            ("bridge_settled_time_seconds", "When the aggregator last took or refused a receipt", since_epoch(bridge.last_settled)),
        ] {
            gauge(e, name, help, value)?;
        }
        let mut quantiles =
            e.encode_descriptor("bridge_answer_seconds", "From a request to the end of its answer", None, MetricType::Gauge)?;
        for (quantile, ms) in [("0.5", bridge.p50_ms), ("0.99", bridge.p99_ms)] {
            ConstGauge::new(ms as f64 / 1e3).encode(quantiles.encode_family(&[("quantile", quantile)])?)?;
        }
        Ok(())
    }

    fn lanes(&self, e: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let seen = self.sensors.look();
        let columns: [Column; 6] = [
            ("device_jobs_replaced", "Mining jobs that replaced another one while it ran", |l| l.replaced as f64),
            ("device_busy_seconds", "Time that the device itself computed", |l| l.busy.as_secs_f64()),
            ("device_operations", "Operations mined", |l| l.mined_ops as f64),
            ("device_attempts", "Attempts mined", |l| l.mined as f64),
            ("device_hits", "Shares found", |l| l.hits as f64),
            ("device_checked", "Roots computed for others' receipts", |l| l.checked as f64),
        ];
        for (name, help, column) in columns {
            let mut metric = e.encode_descriptor(name, help, None, MetricType::Counter)?;
            for (lane, _) in &seen {
                ConstCounter::new(column(lane)).encode(metric.encode_family(&[("device", lane.device.label())])?)?;
            }
        }
        let gauges: [Column; 4] = [
            ("device_job_replaced_worst_seconds", "Longest time from the word of a new job to its first search", |l| {
                l.replaced_worst.as_secs_f64()
            }),
            ("device_queued", "Urgent jobs waiting", |l| l.queued as f64),
            ("device_batch", "Attempts a search", |l| f64::from(l.batch)),
            ("device_benched", "1 when the device gets no more work", |l| f64::from(u8::from(l.benched.is_some()))),
        ];
        for (name, help, column) in gauges {
            let mut metric = e.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for (lane, _) in &seen {
                ConstGauge::new(column(lane)).encode(metric.encode_family(&[("device", lane.device.label())])?)?;
            }
        }
        let sensors: [Sensor; 4] = [
            ("device_power_watts", "Drawn power", |r| r.power_watts),
            ("device_temperature_celsius", "Core temperature", |r| r.temperature_celsius),
            ("device_memory_used_bytes", "Memory in use, by everybody", |r| r.memory_used_bytes.map(|b| b as f64)),
            ("device_clock_mhz", "Clock of the multiprocessors or cores", |r| r.clock_mhz),
        ];
        for (name, help, sensor) in sensors {
            let mut metric = e.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for (lane, reading) in &seen {
                if let Some(value) = sensor(reading) {
                    ConstGauge::new(value).encode(metric.encode_family(&[("device", lane.device.label())])?)?;
                }
            }
        }
        Ok(())
    }
}
