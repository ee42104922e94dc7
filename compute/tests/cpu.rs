//! The CPU backend passes the suite with every instruction set that this machine has, on one thread and on several.

use tops_compute::conformance::{self, Level};
use tops_compute::cpu::CpuBackend;
use tops_compute::cpu::isa::Isa;

#[test]
fn every_instruction_set_conforms() {
    // Most of the time goes into the reference, so only the set that is used runs on both.
    let cases = Isa::detected().into_iter().map(|isa| (isa, 3)).chain([(Isa::best(), 1)]);
    for (isa, threads) in cases {
        let backend = CpuBackend::with_isa(isa, Some(threads)).unwrap();
        conformance::run(&backend, Level::Quick, 0x7095).unwrap_or_else(|fault| panic!("{} on {threads} threads: {fault}", isa.name()));
    }
}

#[test]
#[ignore = "minutes of reference; the long test run takes it"]
fn every_instruction_set_conforms_in_full() {
    for isa in Isa::detected() {
        let backend = CpuBackend::with_isa(isa, None).unwrap();
        conformance::run(&backend, Level::Full, 0x7095).unwrap_or_else(|fault| panic!("{}: {fault}", isa.name()));
    }
}
