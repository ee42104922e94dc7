//! `tops-node devices`: what was found, and why anything was passed over.

use serde_json::json;

use tops_compute::health::Health;

use crate::cli::{Answer, Failure};
use crate::settings::Layers;
use crate::{config, devices};

/// Probes every kind that the choice allows. No device is a no.
pub fn run(layers: &Layers) -> Result<Answer, Failure> {
    let (choice, wanted) = config::compute_choice(layers)?;
    let probe = devices::probe(choice, wanted.as_deref());
    let (mut text, mut found) = (String::new(), Vec::new());
    let mut health = Health::new();
    for backend in &probe.found {
        let d = backend.device();
        let now = health.read(d);
        text.push_str(&format!("{:<9} {}\n", d.label(), d.name));
        text.push_str(&format!("          driver {}, path {}, {} units", d.driver, d.path, d.units));
        if let Some(bytes) = d.memory_bytes {
            text.push_str(&format!(", {:.1} GiB memory", bytes as f64 / f64::from(1 << 30)));
        }
        if let Some(capability) = &d.compute_capability {
            text.push_str(&format!(", compute capability {capability}"));
        }
        if let Some(peak) = d.peak_int8_tops {
            text.push_str(&format!(", {peak} int8 TOPS published"));
        }
        text.push('\n');
        if let Some(watts) = now.power_watts {
            text.push_str(&format!("          {watts:.0} W"));
            if let Some(limit) = now.power_limit_watts {
                text.push_str(&format!(" of {limit:.0} W"));
            }
            if let Some(celsius) = now.temperature_celsius {
                text.push_str(&format!(", {celsius:.0} °C"));
            }
            if let Some(mhz) = now.clock_mhz {
                text.push_str(&format!(", {mhz:.0} MHz"));
            }
            text.push('\n');
        }
        found.push(json!({ "label": d.label(), "device": d, "health": now }));
    }
    for p in &probe.passed_over {
        let index = p.index.map(|i| format!(":{i}")).unwrap_or_default();
        let name = p.name.as_deref().map(|n| format!(" {n}")).unwrap_or_default();
        text.push_str(&format!("not used  {}{index}{name}: {}\n", p.kind, p.reason));
    }
    Ok(Answer { text, json: json!({ "devices": found, "passed_over": probe.passed_over }), yes: !probe.found.is_empty() })
}
