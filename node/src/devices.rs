//! From the operator's choice to backends that are ready.
//!
//! What a device is stays in the compute crate; here a choice is only applied and its failure made into a sentence.

use std::sync::Arc;

use anyhow::{Context, bail};
use tops_compute::backend::{Backend, DeviceKind, Probe};
use tops_compute::cpu::CpuBackend;

use crate::config::BackendChoice;

/// The kinds of devices that this build can drive, the best first.
pub const KINDS: &[DeviceKind] = &[DeviceKind::Cpu];

/// Everything that the choice allows, and why the rest was passed over.
pub fn probe(choice: BackendChoice) -> Probe {
    let mut all = Probe::default();
    for kind in KINDS.iter().copied().filter(|&kind| matches!(choice, BackendChoice::Auto) || choice == BackendChoice::Only(kind)) {
        match kind {
            DeviceKind::Cpu => match CpuBackend::new(None) {
                Ok(cpu) => all.found.push(Arc::new(cpu)),
                Err(fault) => {
                    all.passed_over.push(tops_compute::backend::PassedOver { kind, index: Some(0), name: None, reason: fault.to_string() })
                }
            },
            DeviceKind::Cuda | DeviceKind::OpenCl => {}
        }
    }
    all
}

/// The devices to work with: the best kind that is there, and of it those that were named.
pub fn open(choice: BackendChoice, wanted: Option<&[u32]>) -> anyhow::Result<Vec<Arc<dyn Backend>>> {
    let Probe { mut found, passed_over } = probe(choice);
    let Some(best) = found.first().map(|b| b.device().kind) else {
        let why: Vec<_> = passed_over.iter().map(|p| format!("{}: {}", p.kind, p.reason)).collect();
        bail!("no device can be used; `tops-node devices` tells more ({})", why.join("; "));
    };
    found.retain(|b| b.device().kind == best && wanted.is_none_or(|w| w.contains(&b.device().index)));
    if let Some(wanted) = wanted {
        let missing: Vec<_> = wanted.iter().filter(|&&i| !found.iter().any(|b| b.device().index == i)).map(ToString::to_string).collect();
        if !missing.is_empty() {
            bail!("there is no {best} device {}: `tops-node devices` lists them", missing.join(", "));
        }
    }
    Ok(found)
}

/// One device.
pub fn open_one(choice: BackendChoice, wanted: Option<&[u32]>) -> anyhow::Result<Arc<dyn Backend>> {
    open(choice, wanted)?.into_iter().next().context("no device was named")
}
