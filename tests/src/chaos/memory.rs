//! What a process has used, as the kernel tells it.

use std::collections::BTreeMap;

/// A number of kB from `/proc/PID/status`, in bytes.
fn status_bytes(pid: u32, field: &str) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(field))?;
    line.trim_start_matches(':').split_whitespace().next()?.parse::<u64>().ok().map(|kb| kb * 1_024)
}

/// The most memory that it ever had resident, in bytes; `None` once it is gone.
pub fn peak_bytes(pid: u32) -> Option<u64> {
    status_bytes(pid, "VmHWM")
}

/// Seconds of processor time that it used, in user and kernel mode.
pub fn cpu_secs(pid: u32) -> Option<f64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name is in brackets and may hold anything; the fields behind it are numbers.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    // Every Linux that this runs on counts in hundredths of a second here.
    Some(ticks as f64 / 100.0)
}

/// Children of this process that ended and were not waited for.
pub fn zombies() -> Vec<String> {
    let own = std::process::id().to_string();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Ok(text) = std::fs::read_to_string(entry.path().join("stat")) else { continue };
        let Some((name, rest)) = text.rsplit_once(')') else { continue };
        let mut fields = rest.split_whitespace();
        if fields.next() == Some("Z") && fields.next() == Some(own.as_str()) {
            found.push(name.to_owned());
        }
    }
    found
}

/// The most of each name, over all its lives.
#[derive(Debug, Default, Clone)]
pub struct Peaks(BTreeMap<String, u64>);

impl Peaks {
    /// Looks at a process now.
    pub fn look(&mut self, name: &str, pid: Option<u32>) {
        if let Some(bytes) = pid.and_then(peak_bytes) {
            let peak = self.0.entry(name.to_owned()).or_default();
            *peak = bytes.max(*peak);
        }
    }
    /// By name, in bytes.
    pub fn all(&self) -> &BTreeMap<String, u64> {
        &self.0
    }
}
