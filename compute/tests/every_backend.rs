//! Every way in which this machine can compute, asked the whole suite at once: each instruction set, each path of each NVIDIA card, each product
//! of each OpenCL device. The reference computes every case once for all of them; that takes most of the time. No script runs it:
//!
//! ```text
//! cargo test -p tops-compute --all-features --test every_backend -- --ignored --nocapture
//! ```

use std::time::Instant;

use tops_compute::backend::{Backend, Device, DeviceKind};
use tops_compute::conformance::{self, Level, Passed};
use tops_compute::cpu::CpuBackend;
use tops_compute::cpu::isa::Isa;
use tops_kernels::cuda::Architecture;

/// More cards or drivers than that are not looked for.
const NUMBERS: u32 = 8;

/// Opens every way that is wanted; what is not wanted is not even built.
fn every(wanted: impl Fn(DeviceKind) -> bool) -> Vec<Box<dyn Backend>> {
    let mut all: Vec<Box<dyn Backend>> = Vec::new();
    if wanted(DeviceKind::Cpu) {
        for isa in Isa::detected() {
            all.push(Box::new(CpuBackend::with_isa(isa, None).unwrap_or_else(|fault| panic!("{}: {fault}", isa.name()))));
        }
    }
    for index in 0..NUMBERS {
        if wanted(DeviceKind::Cuda) {
            for architecture in [Architecture::Sm90a, Architecture::Mma, Architecture::Dp4a] {
                all.extend(tops_compute::cuda::open_with(index, architecture).ok().map(|backend| Box::new(backend) as _));
            }
        }
        #[cfg(feature = "opencl")]
        if wanted(DeviceKind::OpenCl) {
            for product in tops_kernels::opencl::Product::ALL {
                all.extend(tops_compute::opencl::open_with(index, product).ok().map(|backend| Box::new(backend) as _));
            }
        }
    }
    all
}

/// Whether the device is so slow that the reference is not what one waits for.
fn slow(device: &Device) -> bool {
    ["portable", "cpu-plain"].contains(&device.path.as_str())
}

fn conform(level: Level, kind: impl Fn(DeviceKind) -> bool, wanted: impl Fn(&Device) -> bool) {
    let all = every(kind);
    let each: Vec<&dyn Backend> = all.iter().map(|backend| &**backend).filter(|backend| wanted(backend.device())).collect();
    for backend in &each {
        println!("asked: {}", backend.device());
    }
    let began = Instant::now();
    let told = |passed: &Passed| {
        let Passed { part, reference, backends } = passed;
        println!("{:7.1} s  {part}: the reference {reference:.1?}, backends {backends:.1?}", began.elapsed().as_secs_f64());
    };
    conformance::run_on(&each, level, 20_261_120, told).unwrap_or_else(|difference| panic!("{difference}"));
    println!("{} backends passed {level:?} in {:.0} s", each.len(), began.elapsed().as_secs_f64());
}

#[test]
#[ignore = "minutes of reference"]
fn every_instruction_set_conforms_up_to_the_largest_shapes() {
    conform(Level::Wide, |kind| kind == DeviceKind::Cpu, |_| true);
}

#[test]
#[ignore = "a quarter of an hour on two cores where the only device is PoCL"]
fn every_opencl_product_conforms_up_to_the_largest_shapes() {
    conform(Level::Wide, |kind| kind == DeviceKind::OpenCl, |_| true);
}

/// Only what is far faster than the reference: others would take hours.
#[test]
#[ignore = "minutes of reference on sixteen cores"]
fn fast_gpus_conform_in_full_batches() {
    conform(Level::Full, |kind| kind != DeviceKind::Cpu, |device| !slow(device));
}

/// As [`fast_gpus_conform_in_full_batches`].
#[test]
#[ignore = "minutes of reference on sixteen cores"]
fn fast_instruction_sets_conform_in_full_batches() {
    conform(Level::Full, |kind| kind == DeviceKind::Cpu, |device| !slow(device));
}
