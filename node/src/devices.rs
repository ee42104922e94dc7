//! From the operator's choice to backends that are ready.
//!
//! What a device is, and which are taken, stays in the compute crate; here the words of the configuration are only translated.

use std::sync::Arc;

use anyhow::Context;
use tops_compute::backend::{Backend, DeviceKind, Probe};
use tops_compute::select::{self, Choice, Selection, Wanted};

use crate::config::BackendChoice;

/// The kinds of devices that this build can drive, the fastest first.
pub fn kinds() -> Vec<DeviceKind> {
    select::kinds()
}

/// Everything that the choice allows, and why the rest was passed over.
pub fn probe(choice: BackendChoice, wanted: Option<&[u32]>) -> Probe {
    let mut all = Probe::default();
    for kind in kinds().into_iter().filter(|&kind| matches!(choice, BackendChoice::Auto) || choice == BackendChoice::Only(kind)) {
        let Probe { found, passed_over } = select::probe(kind, wanted, None);
        all.found.extend(found);
        all.passed_over.extend(passed_over);
    }
    all
}

/// Everything to work with, the CPU always among it, and why the rest was passed over.
pub fn select(choice: BackendChoice, wanted: Option<&[u32]>) -> anyhow::Result<Selection> {
    let choice = match choice {
        BackendChoice::Auto => Choice::Auto,
        BackendChoice::Only(kind) => Choice::Only(kind),
    };
    Ok(select::select(&Wanted { choice, devices: wanted, threads: None })?)
}

/// The devices to work with, the fastest first; on a machine with GPUs the CPU is not among them unless it is asked for.
pub fn open(choice: BackendChoice, wanted: Option<&[u32]>) -> anyhow::Result<Vec<Arc<dyn Backend>>> {
    let selection = self::select(choice, wanted)?;
    Ok(selection.devices.into_iter().filter(|d| d.mines).map(|d| d.backend).collect())
}

/// One device.
pub fn open_one(choice: BackendChoice, wanted: Option<&[u32]>) -> anyhow::Result<Arc<dyn Backend>> {
    open(choice, wanted)?.into_iter().next().context("no device was named")
}
