//! `/metrics`: what Prometheus reads, collected from the shared state at each scrape.
//!
//! OpenMetrics, or the older text format for who asks for `text/plain` and nothing newer. No label names a peer or a miner, so the number of
//! series is fixed: it grows with devices, reasons and pools of this process alone. Names end in their unit, and counters in `_total`.

use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use tops_compute::health::Reading;
use tops_compute::queue::LaneReport;
use tops_protocol::engine::SyncState;
use tops_protocol::{Millis, NetworkSpec, U256, target};
use tops_store::Store;

use super::devices::Sensors;
use super::{Api, Problem, health, process};
use crate::state::{Counters, Shared};

/// Of whom it was built: the release script says so.
const COMMIT: &str = match option_env!("TOPS_COMMIT") {
    Some(commit) => commit,
    None => "unknown",
};
/// What OpenMetrics calls itself.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// What the older format calls itself.
const PLAIN: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A metric of every device: name, unit, help, and where it is in a report.
type Column = (&'static str, Option<Unit>, &'static str, fn(&LaneReport) -> f64);

/// Likewise of a sensor; not every device has each.
type Sensor = (&'static str, Unit, &'static str, fn(&Reading) -> Option<f64>);

/// Everything that one scrape reads.
struct NodeCollector {
    network: NetworkSpec,
    shared: Shared,
    store: Arc<dyn Store>,
    sensors: Arc<Sensors>,
    /// The checks of `/readyz`, and whether each is passed.
    checks: [(&'static str, bool); 8],
}

impl fmt::Debug for NodeCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NodeCollector")
    }
}

/// Everything as OpenMetrics, or as the older text format for who asks for that alone.
#[utoipa::path(
    get, path = "/metrics", tag = "health",
    responses((status = 200, description = "OpenMetrics 1.0", body = String, content_type = "application/openmetrics-text"), super::Usual)
)]
pub(super) async fn metrics(State(api): State<Api>, headers: HeaderMap) -> Response {
    let checks = health::checks(&api).await;
    let collector = NodeCollector {
        network: api.network.clone(),
        shared: api.shared.clone(),
        store: api.store.clone(),
        sensors: api.0.sensors.clone(),
        checks: checks.each(),
    };
    let process = process::Process { started_secs: api.shared.identity().started_at.0 as f64 / 1e3 };
    // Sensors may block.
    let encoded = tokio::task::spawn_blocking(move || {
        let mut registry = Registry::default();
        registry.sub_registry_with_prefix("tops").register_collector(Box::new(collector));
        registry.sub_registry_with_prefix("process").register_collector(Box::new(process));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).map(|()| text)
    });
    let Ok(Ok(text)) = encoded.await else {
        return Problem::own("the metrics could not be written".into()).into_response();
    };
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or("");
    if accept.contains("text/plain") && !accept.contains("openmetrics") {
        ([(header::CONTENT_TYPE, PLAIN)], plain(&text)).into_response()
    } else {
        ([(header::CONTENT_TYPE, OPENMETRICS)], text).into_response()
    }
}

/// OpenMetrics as the older text format has it: there the family of a counter is called like its sample, an info is a gauge, and units are
/// in names alone.
fn plain(openmetrics: &str) -> String {
    let mut out = String::with_capacity(openmetrics.len() + 4_096);
    let mut help = "";
    for line in openmetrics.lines() {
        if let Some(words) = line.strip_prefix("# HELP ") {
            // Its family's kind follows in the next line.
            help = words;
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|words| words.split_once(' ')) {
            let (suffix, kind) = match kind {
                "counter" => ("_total", "counter"),
                "info" => ("_info", "gauge"),
                other => ("", other),
            };
            let words = help.strip_prefix(name).unwrap_or("").trim_start();
            out.push_str(&format!("# HELP {name}{suffix} {words}\n# TYPE {name}{suffix} {kind}\n"));
        } else if !line.starts_with('#') {
            out.push_str(line);
            out.push('\n');
        }
    }
    out
}

fn gauge(e: &mut DescriptorEncoder<'_>, name: &str, unit: Option<Unit>, help: &str, value: f64) -> fmt::Result {
    ConstGauge::new(value).encode(e.encode_descriptor(name, help, unit.as_ref(), MetricType::Gauge)?)
}

fn counter(e: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> fmt::Result {
    ConstCounter::new(value).encode(e.encode_descriptor(name, help, None, MetricType::Counter)?)
}

/// One family with a series for each value of one label.
fn gauges<'a>(
    e: &mut DescriptorEncoder<'_>,
    (name, unit, help): (&str, Option<Unit>, &str),
    label: &'static str,
    values: impl IntoIterator<Item = (&'a str, f64)>,
) -> fmt::Result {
    let mut family = e.encode_descriptor(name, help, unit.as_ref(), MetricType::Gauge)?;
    for (value, number) in values {
        ConstGauge::new(number).encode(family.encode_family(&[(label, value)])?)?;
    }
    Ok(())
}

fn info<S: EncodeLabelSet + Clone + std::hash::Hash + Eq>(e: &mut DescriptorEncoder<'_>, name: &str, help: &str, labels: S) -> fmt::Result {
    Info::new(labels).encode(e.encode_descriptor(name, help, None, MetricType::Info)?)
}

fn flag(is: bool) -> f64 {
    f64::from(u8::from(is))
}

/// Seconds of Unix time.
fn unix_secs() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |now| now.as_secs_f64())
}

/// How many attempts meet a target once, in expectation.
fn attempts(target: U256) -> f64 {
    target::work(target).as_limbs().iter().rev().fold(0.0, |sum, &limb| sum * 2f64.powi(64) + limb as f64)
}

impl Collector for NodeCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let e = &mut encoder;
        self.identity(e)?;
        self.process(e)?;
        self.counters(e)?;
        self.view(e)?;
        self.outbox(e)?;
        self.lanes(e)
    }
}

impl NodeCollector {
    fn identity(&self, e: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let (identity, spec) = (self.shared.identity(), &self.network);
        info(e, "build", "What runs", vec![("version", env!("CARGO_PKG_VERSION")), ("commit", COMMIT)])?;
        let role = if identity.verify_only { "light" } else { "miner" };
        let labels = vec![("network", identity.network_name.clone()), ("network_hex", spec.tag().to_hex()), ("role", role.to_owned())];
        info(e, "node", "Which network, and whether it mines or only verifies", labels)?;
        gauge(e, "spacing", Some(Unit::Seconds), "Time between heads that difficulty aims at", f64::from(spec.spacing_secs()))?;
        gauge(e, "attempt_operations", None, "Operations that one attempt stands for", spec.shape().ops() as f64)
    }

    fn process(&self, e: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let shared = &self.shared;
        gauge(e, "uptime", Some(Unit::Seconds), "How long the process runs", shared.uptime().as_secs_f64())?;
        gauge(e, "loop_age", Some(Unit::Seconds), "How long ago the loop turned", shared.since_beat().as_secs_f64())?;
        gauge(e, "clock", Some(Unit::Seconds), "This machine's clock in Unix time, to be held against the scraper's", unix_secs())?;
        let checks = self.checks.iter().map(|(name, passed)| (*name, flag(*passed)));
        gauges(e, ("ready", None, "1 while a check of /readyz is passed"), "check", checks)?;
        let problem = health::device_problem(shared, &self.sensors.lanes()).is_some();
        gauge(e, "device_problem", None, "1 while something is wrong with a device", flag(problem))?;
        gauge(e, "store_problem", None, "1 while the store takes nothing", flag(shared.store_stopped()))?;
        gauge(e, "store_set_aside", None, "1 when a damaged store was set aside at start", flag(shared.store_set_aside().is_some()))
    }

    fn counters(&self, e: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let shared = &self.shared;
        for ((name, value), (_, help)) in self.shared.counters().values().into_iter().zip(Counters::help()) {
            counter(e, name, help.trim().trim_end_matches('.'), value)?;
        }
        let mut reasons = e.encode_descriptor("rejections", "Receipts and answers turned away, by reason", None, MetricType::Counter)?;
        for (reason, count) in self.shared.reasons() {
            ConstCounter::new(count).encode(reasons.encode_family(&[("reason", reason)])?)?;
        }
        let rate = self.shared.hash_rate();
        counter(e, "attempts", "Attempts of this node's devices", rate.total)?;
        let windows = [("10s", rate.secs_10), ("60s", rate.secs_60), ("15min", rate.mins_15)];
        gauges(e, ("attempts_per_second", None, "Attempts of this node's devices a second"), "window", windows)?;
        let (credited, help) =
            (shared.credited(), "Attempts a second that the accepted shares of the last minute stand for, this node's and everybody's");
        let whose = [("own", credited.own.secs_60.attempts), ("network", credited.network.secs_60.attempts)];
        gauges(e, ("credited_attempts_per_second", None, help), "whose", whose)?;
        let help = "From a receipt's timestamp to its acceptance here; a timestamp is that of the search's beginning";
        let ages = self.shared.age_histogram();
        ages.encode(e.encode_descriptor("receipt_age", help, Some(&Unit::Seconds), MetricType::Histogram)?)
    }

    fn view(&self, e: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let Some(view) = self.shared.view() else { return Ok(()) };
        let v = &view.engine;
        let mining = v.mining && self.shared.may_mine();
        gauge(e, "head_timestamp", Some(Unit::Seconds), "Timestamp of the best head in Unix time", v.tip_time.0 as f64 / 1e3)?;
        for (name, help, value) in [
            ("height", "Height of the best head", v.height.0 as f64),
            ("head_attempts", "Attempts that the next head takes in expectation", attempts(v.head_target)),
            ("share_attempts", "Attempts that a share on the best head takes in expectation", attempts(v.share_target)),
            ("heads", "Heads in memory, on all branches", v.heads as f64),
            ("shares", "Shares in memory", v.shares as f64),
            ("shares_unaudited", "Shares in memory that were accepted without a look", v.unaudited as f64),
            ("banned_miners", "Banned keys", v.bans as f64),
            ("miners", "Miners in the ledger", v.miners as f64),
            ("mining", "1 while this node mines", flag(mining)),
            ("mining_paused", "1 while the operator lets it rest", flag(self.shared.mining_paused())),
            ("in_step", "1 while no peer has a better chain", flag(v.sync == SyncState::InStep)),
        ] {
            gauge(e, name, None, help, value)?;
        }
        if let Some(ms) = v.clock_off_ms {
            let help = "How far this clock is ahead of the peers' stamps; that of a right clock is the age of fresh receipts";
            gauge(e, "clock_ahead", Some(Unit::Seconds), help, ms as f64 / 1e3)?;
        }
        let nodes = view.peers.iter().filter(|p| p.node).count();
        let outbound = view.peers.iter().filter(|p| p.outbound).count();
        let kinds = [("node", nodes as f64), ("other", (view.peers.len() - nodes) as f64)];
        gauges(e, ("peers", None, "Connected peers: nodes, and others such as a rendezvous"), "kind", kinds)?;
        gauge(e, "peers_outbound", None, "Connected peers that this node dialled", outbound as f64)?;
        let mut pools = self.shared.pools();
        pools.extend(view.engine.pools().map(|(name, used, limit)| (name, (used, limit))));
        let used = pools.iter().map(|(name, (used, _))| (*name, *used as f64));
        gauges(e, ("pool_used", None, "Places taken in a bounded pool, queue or list"), "pool", used)?;
        let limits = pools.iter().map(|(name, (_, limit))| (*name, *limit as f64));
        gauges(e, ("pool_limit", None, "Places that a bounded pool, queue or list has"), "pool", limits)
    }

    fn outbox(&self, e: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let counts = self.store.outbox_counts();
        let states = [
            ("waiting", counts.waiting as f64),
            ("due", counts.due as f64),
            ("delivered", counts.delivered as f64),
            ("dead", counts.dead as f64),
            ("void", counts.void as f64),
        ];
        gauges(e, ("outbox", None, "Receipts by their way to the aggregator"), "state", states)?;
        counter(e, "outbox_evicted", "Receipts that were dropped unsent because the outbox was full or they were too old", counts.evicted)?;
        let bridge = self.shared.bridge();
        if !bridge.configured {
            // Nothing of what an aggregator that is not there would show.
            return Ok(());
        }
        let now = unix_secs();
        let since = |at: Option<Millis>| at.map_or(0.0, |at| (now - at.0 as f64 / 1e3).max(0.0));
        for (name, help, value) in [
            ("bridge_failing", "How long no try to deliver has come to anything", since(bridge.failing_since)),
            ("bridge_oldest_due", "Age of the oldest receipt that is due", since(bridge.oldest_due)),
            (
                "bridge_settled_timestamp",
                "When the aggregator last took or refused a receipt, in Unix time; 0: never",
                bridge.last_settled.map_or(0.0, |at| at.0 as f64 / 1e3),
            ),
        ] {
            gauge(e, name, Some(Unit::Seconds), help, value)?;
        }
        let answers = [("0.5", bridge.p50_ms as f64 / 1e3), ("0.99", bridge.p99_ms as f64 / 1e3)];
        gauges(
            e,
            ("bridge_answer", Some(Unit::Seconds), "From a request to the end of its answer, the part of answers that took no longer"),
            "part",
            answers,
        )
    }

    fn lanes(&self, e: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let seen = self.sensors.look();
        let mut names = e.encode_descriptor("device", "What computes here", None, MetricType::Info)?;
        for (lane, _) in &seen {
            let device = &lane.device;
            let labels = vec![
                ("device", device.label()),
                ("kind", device.kind.to_string()),
                ("name", device.name.clone()),
                ("driver", device.driver.clone()),
                ("mines", lane.mines.to_string()),
            ];
            names.encode_info(&labels)?;
        }
        let columns: [Column; 6] = [
            ("device_jobs_replaced", None, "Mining jobs that replaced another one while it ran", |l| l.replaced as f64),
            ("device_busy", Some(Unit::Seconds), "Time that the device itself computed", |l| l.busy.as_secs_f64()),
            ("device_operations", None, "Operations mined", |l| l.mined_ops as f64),
            ("device_attempts", None, "Attempts mined", |l| l.mined as f64),
            ("device_hits", None, "Shares found", |l| l.hits as f64),
            ("device_checked", None, "Roots computed for others' receipts", |l| l.checked as f64),
        ];
        for (name, unit, help, column) in columns {
            let mut family = e.encode_descriptor(name, help, unit.as_ref(), MetricType::Counter)?;
            for (lane, _) in &seen {
                ConstCounter::new(column(lane)).encode(family.encode_family(&[("device", lane.device.label())])?)?;
            }
        }
        let columns: [Column; 5] = [
            ("device_job_replaced_worst", Some(Unit::Seconds), "Longest time from the word of a new job to its first search", |l| {
                l.replaced_worst.as_secs_f64()
            }),
            ("device_queued", None, "Urgent jobs waiting", |l| l.queued as f64),
            ("device_batch", None, "Attempts a search", |l| f64::from(l.batch)),
            ("device_benched", None, "1 when the device gets no more work", |l| flag(l.benched.is_some())),
            ("device_hung", None, "1 when its driver does not come back", |l| flag(l.hung)),
        ];
        for (name, unit, help, column) in columns {
            let labels: Vec<_> = seen.iter().map(|(lane, _)| (lane.device.label(), column(lane))).collect();
            gauges(e, (name, unit, help), "device", labels.iter().map(|(label, value)| (label.as_str(), *value)))?;
        }
        let watts = || Unit::Other("watts".into());
        let sensors: [Sensor; 6] = [
            ("device_power", watts(), "Drawn power", |r| r.power_watts),
            ("device_power_limit", watts(), "The limit that is enforced on it", |r| r.power_limit_watts),
            ("device_temperature", Unit::Celsius, "Core temperature", |r| r.temperature_celsius),
            ("device_memory_used", Unit::Bytes, "Memory in use, by everybody", |r| r.memory_used_bytes.map(|b| b as f64)),
            ("device_memory", Unit::Bytes, "All memory", |r| r.memory_total_bytes.map(|b| b as f64)),
            ("device_clock", Unit::Other("hertz".into()), "Clock of the multiprocessors or cores", |r| r.clock_mhz.map(|mhz| mhz * 1e6)),
        ];
        for (name, unit, help, sensor) in sensors {
            let known: Vec<_> = seen.iter().filter_map(|(lane, reading)| Some((lane.device.label(), sensor(reading)?))).collect();
            gauges(e, (name, Some(unit), help), "device", known.iter().map(|(label, value)| (label.as_str(), *value)))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_older_format_names_families_like_their_samples() {
        let text = "# HELP a_b Things.\n# TYPE a_b counter\na_b_total 1\n# HELP c What runs.\n# TYPE c info\nc_info{v=\"1\"} 1\n\
            # HELP d_seconds Time.\n# TYPE d_seconds gauge\n# UNIT d_seconds seconds\nd_seconds 2.0\n# EOF\n";
        let expected = "# HELP a_b_total Things.\n# TYPE a_b_total counter\na_b_total 1\n# HELP c_info What runs.\n# TYPE c_info gauge\n\
            c_info{v=\"1\"} 1\n# HELP d_seconds Time.\n# TYPE d_seconds gauge\nd_seconds 2.0\n";
        assert_eq!(plain(text), expected);
    }

    #[test]
    fn work_is_told_as_a_float() {
        assert!((attempts(U256::MAX >> 20) / 2f64.powi(20) - 1.0).abs() < 1e-9);
        assert_eq!(attempts(U256::MAX), 1.0);
        assert!(attempts(U256::from(1)) > 1e76);
    }
}
