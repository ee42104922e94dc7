//! From an operator's choice to the devices that work, with a reason for each one passed over.
//!
//! The CPU is always among them, also when it does not mine: hits are recomputed there before they are signed, and small audits end up
//! there when that is sooner. A device that two drivers show is taken once, by the faster of them. A device that is there and broken is
//! told of, and ends nothing while another one works.

use std::sync::Arc;

use crate::backend::{Backend, DeviceFault, DeviceKind, PassedOver, Probe, Refusal};
use crate::cpu::CpuBackend;
use crate::cuda;

/// What `--backend` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Choice {
    /// GPUs where there are any, otherwise the CPU.
    #[default]
    Auto,
    /// Devices of one kind.
    Only(DeviceKind),
}

/// What the operator wants.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wanted<'a> {
    /// Which kind.
    pub choice: Choice,
    /// Which numbers of that kind (`--devices`); all when absent. The CPU has one number, 0.
    pub devices: Option<&'a [u32]>,
    /// CPU threads; one a core when absent.
    pub threads: Option<usize>,
}

/// A device that works.
pub struct Selected {
    /// The device.
    pub backend: Arc<dyn Backend>,
    /// Whether it is to mine, or only to check.
    pub mines: bool,
}

/// What there is to work with.
pub struct Selection {
    /// At least one that mines, and the CPU.
    pub devices: Vec<Selected>,
    /// Everything else that was seen.
    pub passed_over: Vec<PassedOver>,
}

/// Why there is nothing to work with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectFault {
    /// Nothing of the wanted kind can be used.
    #[error("no {kind} device can be used ({reasons}); `tops-node devices` tells more")]
    Nothing {
        /// What was wanted.
        kind: String,
        /// Why each was passed over.
        reasons: String,
    },
    /// A number that no device of that kind has.
    #[error("there is no {kind} device {index}; `tops-node devices` lists them")]
    NoSuchDevice {
        /// The kind.
        kind: DeviceKind,
        /// The number.
        index: u32,
    },
    /// Not even the CPU's threads could be started.
    #[error("the CPU cannot be used: {0}")]
    Cpu(#[from] DeviceFault),
}

/// The kinds that this build drives, the fastest first.
pub fn kinds() -> Vec<DeviceKind> {
    let mut kinds = vec![DeviceKind::Cuda];
    if cfg!(feature = "opencl") {
        kinds.push(DeviceKind::OpenCl);
    }
    kinds.push(DeviceKind::Cpu);
    kinds
}

/// Looks for devices of one kind, GPUs with their start-up self-check.
pub fn probe(kind: DeviceKind, devices: Option<&[u32]>, threads: Option<usize>) -> Probe {
    look(kind, devices, threads, true)
}

/// With `processors` = false, OpenCL's view of the CPU is passed over unopened: its compiler costs seconds for a slower path.
#[cfg_attr(not(feature = "opencl"), allow(unused_variables))]
fn look(kind: DeviceKind, devices: Option<&[u32]>, threads: Option<usize>, processors: bool) -> Probe {
    let pass = |refusal: Refusal| {
        let mut probe = Probe::default();
        probe.pass(kind, None, refusal);
        probe
    };
    match kind {
        DeviceKind::Cuda => cuda::probe(devices),
        #[cfg(feature = "opencl")]
        DeviceKind::OpenCl => crate::opencl::probe(devices, processors),
        #[cfg(not(feature = "opencl"))]
        DeviceKind::OpenCl => pass(Refusal::unfit(None, "this build has no OpenCL: build it with `--features opencl`")),
        DeviceKind::Cpu => match CpuBackend::checked(threads) {
            Ok((cpu, passed_over)) => Probe { found: vec![Arc::new(cpu)], passed_over },
            Err(fault) => pass(Refusal::broken(None, fault.to_string())),
        },
    }
}

/// Chooses. With `Auto` it only fails when the CPU itself cannot be used, or a number is asked for that nothing has.
pub fn select(wanted: &Wanted<'_>) -> Result<Selection, SelectFault> {
    let (cpu, passed_over) = CpuBackend::checked(wanted.threads)?;
    choose(wanted, Arc::new(cpu), passed_over, |kind| look(kind, wanted.devices, wanted.threads, wanted.choice != Choice::Auto))
}

fn choose(
    wanted: &Wanted<'_>,
    cpu: Arc<dyn Backend>,
    mut passed_over: Vec<PassedOver>,
    look: impl Fn(DeviceKind) -> Probe,
) -> Result<Selection, SelectFault> {
    let mut gpus: Vec<Arc<dyn Backend>> = Vec::new();
    for kind in kinds().into_iter().filter(|&kind| kind != DeviceKind::Cpu) {
        if wanted.choice == Choice::Auto || wanted.choice == Choice::Only(kind) {
            let probe = look(kind);
            passed_over.extend(probe.passed_over);
            for found in probe.found {
                match doubled(&gpus, &*found, wanted.choice) {
                    None => gpus.push(found),
                    Some(reason) => passed_over.push(PassedOver {
                        kind,
                        index: Some(found.device().index),
                        name: Some(found.device().name.clone()),
                        reason,
                        broken: false,
                    }),
                }
            }
        }
    }
    // With `Auto`, numbers are those of the best kind that was found.
    if wanted.choice == Choice::Auto
        && wanted.devices.is_some()
        && let Some(best) = gpus.first().map(|gpu| gpu.device().kind)
    {
        gpus.retain(|gpu| gpu.device().kind == best);
    }
    let kind = match wanted.choice {
        Choice::Auto => gpus.first().map_or(DeviceKind::Cpu, |gpu| gpu.device().kind),
        Choice::Only(kind) => kind,
    };
    let cpu_mines = kind == DeviceKind::Cpu;
    if !cpu_mines && gpus.is_empty() {
        let reasons: Vec<String> = passed_over.iter().filter(|p| p.kind == kind).map(|p| p.reason.clone()).collect();
        let reasons = if reasons.is_empty() { "this build does not drive any".into() } else { reasons.join("; ") };
        return Err(SelectFault::Nothing { kind: kind.to_string(), reasons });
    }
    for &index in wanted.devices.unwrap_or_default() {
        let there = if cpu_mines { index == 0 } else { gpus.iter().any(|gpu| gpu.device().index == index) };
        // The caller tells of it; the others work.
        let broken = passed_over.iter().any(|p| p.broken && p.index == Some(index) && (wanted.choice == Choice::Auto || p.kind == kind));
        if !there && !broken {
            return Err(SelectFault::NoSuchDevice { kind, index });
        }
    }
    let mut devices: Vec<Selected> = gpus.into_iter().map(|backend| Selected { backend, mines: true }).collect();
    devices.push(Selected { backend: cpu, mines: cpu_mines });
    Ok(Selection { devices, passed_over })
}

/// Why a device need not be taken: another driver shows the same one. OpenCL devices that are a CPU are taken only when asked for.
fn doubled(taken: &[Arc<dyn Backend>], found: &dyn Backend, choice: Choice) -> Option<String> {
    let device = found.device();
    if device.kind != DeviceKind::OpenCl || choice != Choice::Auto {
        return None;
    }
    if device.path.contains("cpu") {
        return Some("it is a CPU, which the cpu backend drives better".into());
    }
    let same = |other: &&Arc<dyn Backend>| match (&other.device().pci_address, &device.pci_address) {
        (Some(a), Some(b)) => a == b,
        _ => other.device().name == device.name,
    };
    taken.iter().find(same).map(|other| format!("{} is the same device", other.device().label()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::{Device, SearchJob, SearchReport, Stop};
    use tops_protocol::work::v1::AttemptV1;
    use tops_protocol::{Attempt, Root, Shape};

    /// The CPU under another name: what a test needs of a card.
    struct Card(CpuBackend, Device);

    impl Card {
        fn opened(kind: DeviceKind, index: u32) -> Arc<dyn Backend> {
            let cpu = CpuBackend::new(Some(1)).unwrap();
            let device = Device { kind, index, name: format!("card {index}"), ..cpu.device().clone() };
            Arc::new(Self(cpu, device))
        }
    }

    impl Backend for Card {
        fn device(&self) -> &Device {
            &self.1
        }
        fn batch_step(&self, shape: Shape) -> u32 {
            self.0.batch_step(shape)
        }
        fn search(&self, job: &SearchJob, stop: &Stop) -> Result<SearchReport, DeviceFault> {
            self.0.search(job, stop)
        }
        fn roots(&self, attempts: &[Attempt]) -> Result<Vec<Root>, DeviceFault> {
            self.0.roots(attempts)
        }
        fn v1_roots(&self, attempts: &[AttemptV1]) -> Result<Vec<Root>, DeviceFault> {
            self.0.v1_roots(attempts)
        }
    }

    /// CUDA card 0 works, 1 is broken, 2 is too old; the machine has no other.
    fn machine(kind: DeviceKind, wanted: Option<&[u32]>) -> Probe {
        let mut probe = Probe::default();
        let opened = |index| match index {
            0 => Ok(Card::opened(kind, 0)),
            1 => Err(Refusal::broken(None, "its self-check failed")),
            _ => Err(Refusal::unfit(None, "too old")),
        };
        for index in (0..3).filter(|index| kind == DeviceKind::Cuda && wanted.is_none_or(|wanted| wanted.contains(index))) {
            probe.open(kind, index, None, || opened(index));
        }
        probe
    }

    fn chosen(choice: Choice, devices: Option<&[u32]>) -> Result<Vec<String>, SelectFault> {
        let cpu = Arc::new(CpuBackend::new(Some(1)).unwrap());
        let selection = choose(&Wanted { choice, devices, threads: None }, cpu, Vec::new(), |kind| machine(kind, devices))?;
        Ok(selection.devices.iter().filter(|d| d.mines).map(|d| d.backend.device().label()).collect())
    }

    #[test]
    fn a_broken_card_ends_nothing_while_another_device_works() {
        let cuda = Choice::Only(DeviceKind::Cuda);
        assert_eq!(chosen(cuda, None).unwrap(), ["cuda:0"]);
        assert_eq!(chosen(cuda, Some(&[0, 1])).unwrap(), ["cuda:0"]);
        assert_eq!(chosen(Choice::Auto, Some(&[0, 1])).unwrap(), ["cuda:0"]);
        assert_eq!(chosen(Choice::Auto, Some(&[1])).unwrap(), ["cpu:0"]);
        // Nothing of what was asked for works, or it never was there.
        assert!(matches!(chosen(cuda, Some(&[1])), Err(SelectFault::Nothing { reasons, .. }) if reasons == "its self-check failed"));
        assert_eq!(chosen(cuda, Some(&[0, 2])), Err(SelectFault::NoSuchDevice { kind: DeviceKind::Cuda, index: 2 }));
        assert_eq!(chosen(cuda, Some(&[0, 7])), Err(SelectFault::NoSuchDevice { kind: DeviceKind::Cuda, index: 7 }));
    }

    #[test]
    fn the_cpu_mines_where_it_is_chosen_and_is_always_there() {
        let chosen = select(&Wanted { choice: Choice::Only(DeviceKind::Cpu), devices: Some(&[0]), threads: Some(2) }).unwrap();
        assert_eq!(chosen.devices.len(), 1);
        assert!(chosen.devices[0].mines);
        assert_eq!(chosen.devices[0].backend.device().units, 2);
        let auto = select(&Wanted::default()).unwrap();
        assert_eq!(auto.devices.iter().filter(|d| d.backend.device().kind == DeviceKind::Cpu).count(), 1);
        assert!(auto.devices.iter().any(|d| d.mines));
        assert!(auto.passed_over.iter().all(|p| !p.reason.is_empty()));
    }

    #[test]
    fn a_number_that_is_not_there_is_a_sentence() {
        let fault = select(&Wanted { choice: Choice::Only(DeviceKind::Cpu), devices: Some(&[0, 7]), threads: Some(1) }).err().unwrap();
        assert_eq!(fault, SelectFault::NoSuchDevice { kind: DeviceKind::Cpu, index: 7 });
    }
}
