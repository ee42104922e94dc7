//! Every way in which this machine can compute, asked the whole suite at once: each instruction set, each path of each NVIDIA card, each product
//! of each OpenCL device. The reference computes every case once for all of them; that takes most of the time. No script runs it:
//!
//! ```text
//! cargo test -p tops-compute --all-features --test every_backend -- --ignored --nocapture
//! ```

use std::time::Instant;

use tops_compute::backend::{Backend, Device, DeviceKind};
use tops_compute::conformance::{self, Level};
use tops_compute::cpu::CpuBackend;
use tops_compute::cpu::isa::Isa;
use tops_kernels::cuda::Architecture;

/// More cards or drivers than that are not looked for.
const NUMBERS: u32 = 8;

fn everything() -> Vec<Box<dyn Backend>> {
    let mut all: Vec<Box<dyn Backend>> = Vec::new();
    for isa in Isa::detected() {
        all.extend(CpuBackend::with_isa(isa, None).ok().map(|backend| Box::new(backend) as _));
    }
    for index in 0..NUMBERS {
        for architecture in [Architecture::Sm90a, Architecture::Mma, Architecture::Dp4a] {
            all.extend(tops_compute::cuda::open_with(index, architecture).ok().map(|backend| Box::new(backend) as _));
        }
        #[cfg(feature = "opencl")]
        for product in tops_kernels::opencl::Product::ALL {
            all.extend(tops_compute::opencl::open_with(index, product).ok().map(|backend| Box::new(backend) as _));
        }
    }
    all
}

fn conform(level: Level, wanted: impl Fn(&Device) -> bool) {
    let all = everything();
    let each: Vec<&dyn Backend> = all.iter().map(|backend| &**backend).filter(|backend| wanted(backend.device())).collect();
    for backend in &each {
        println!("asked: {}", backend.device());
    }
    let began = Instant::now();
    conformance::run_on(&each, level, 20_261_120).unwrap_or_else(|difference| panic!("{difference}"));
    println!("{} backends passed {level:?} in {:.0} s", each.len(), began.elapsed().as_secs_f64());
}

#[test]
#[ignore = "minutes of reference"]
fn every_instruction_set_conforms_up_to_the_largest_shapes() {
    conform(Level::Wide, |device| device.kind == DeviceKind::Cpu);
}

#[test]
#[ignore = "minutes of reference"]
fn every_cuda_path_conforms_up_to_the_largest_shapes() {
    conform(Level::Wide, |device| device.kind == DeviceKind::Cuda);
}

#[test]
#[ignore = "minutes of reference"]
fn every_opencl_product_conforms_up_to_the_largest_shapes() {
    conform(Level::Wide, |device| device.kind == DeviceKind::OpenCl);
}

/// Only what is far faster than the reference: others would take hours.
#[test]
#[ignore = "ten minutes of reference and weights on sixteen cores"]
fn fast_backends_conform_in_full_batches() {
    conform(Level::Full, |device| !["portable", "cpu-plain"].contains(&device.path.as_str()));
}
