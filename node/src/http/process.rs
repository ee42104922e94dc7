//! What the system knows of this process, under the names that every exporter uses (`process_…`). From `/proc`: elsewhere it tells nothing.

use std::fmt;
use std::fs;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;

/// Ticks a second in `/proc`: the kernel's interface has it fixed, whatever the kernel's own rate is.
const TICKS_PER_SECOND: f64 = 100.0;
/// What `/proc/self/status` counts in.
const KIB: f64 = 1024.0;

/// Reads at scrape time.
#[derive(Debug)]
pub(super) struct Process {
    /// When the process started, Unix time.
    pub(super) started_secs: f64,
}

/// A number after `name` at the beginning of a line.
fn field(text: &str, name: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
}

/// User and system time. The program's name may hold anything, so fields are counted from behind it.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|text| text.parse::<f64>().ok());
    Some((ticks(11)? + ticks(12)?) / TICKS_PER_SECOND)
}

impl Collector for Process {
    fn encode(&self, mut e: DescriptorEncoder<'_>) -> fmt::Result {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let (status, limits) = (read("/proc/self/status"), read("/proc/self/limits"));
        if let Some(seconds) = cpu_seconds(&read("/proc/self/stat")) {
            let descriptor = e.encode_descriptor("cpu", "User and system time", Some(&Unit::Seconds), MetricType::Counter)?;
            ConstCounter::new(seconds).encode(descriptor)?;
        }
        let open = fs::read_dir("/proc/self/fd").ok().map(|files| files.count() as f64);
        for (name, unit, help, value) in [
            ("start_time", Some(Unit::Seconds), "When the process started, in Unix time", Some(self.started_secs)),
            ("resident_memory", Some(Unit::Bytes), "Memory in RAM", field(&status, "VmRSS:").map(|kib| kib * KIB)),
            ("virtual_memory", Some(Unit::Bytes), "Address space", field(&status, "VmSize:").map(|kib| kib * KIB)),
            ("threads", None, "Threads", field(&status, "Threads:")),
            ("open_fds", None, "Open files and sockets", open),
            ("max_fds", None, "Files and sockets that it may open", field(&limits, "Max open files")),
        ] {
            let Some(value) = value else { continue };
            ConstGauge::new(value).encode(e.encode_descriptor(name, help, unit.as_ref(), MetricType::Gauge)?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_an_ugly_name_is_read() {
        let stat = "7 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20 0 9 0 100 1 2";
        assert_eq!(cpu_seconds(stat), Some(3.0));
        assert_eq!(cpu_seconds("nonsense"), None);
        assert_eq!(field("Name:\tx\nVmRSS:\t  12 kB\n", "VmRSS:"), Some(12.0));
    }
}
