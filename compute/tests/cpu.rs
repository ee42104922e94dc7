//! The CPU backend passes the suite with every instruction set that this machine has, on one thread and on several.

use tops_compute::backend::Backend;
use tops_compute::conformance::{self, Level};
use tops_compute::cpu::CpuBackend;
use tops_compute::cpu::isa::Isa;
use tops_protocol::work::{self, Weights};
use tops_protocol::{Attempt, Millis, Nonce, PublicKey, Root, Shape};

#[test]
fn every_instruction_set_conforms() {
    // Most of the time goes into the reference, so only the set that is used runs on both.
    let cases = Isa::detected().into_iter().map(|isa| (isa, 3)).chain([(Isa::best(), 1)]);
    for (isa, threads) in cases {
        let backend = CpuBackend::with_isa(isa, Some(threads)).unwrap();
        conformance::run(&backend, Level::Quick, 0x7095).unwrap_or_else(|fault| panic!("{} on {threads} threads: {fault}", isa.name()));
    }
}

/// One attempt of each corner of the allowed shapes; the reference computes it once for all sets.
#[test]
fn corner_shapes_are_equal_on_every_instruction_set() {
    let backends: Vec<_> = Isa::detected().into_iter().map(|isa| CpuBackend::with_isa(isa, Some(2)).unwrap()).collect();
    for (m, n, k) in [(16, 8192, 8192), (16, 256, 8192), (16, 8192, 256), (256, 256, 256), (240, 512, 1024), (8192, 256, 256)] {
        let shape = Shape::new(m, n, k).unwrap();
        let (prev_hash, miner) = (Root([m as u8; 32]), PublicKey([3; 33]));
        let attempt = Attempt { prev_hash, miner, nonce: Nonce::new(1 << 40).unwrap(), timestamp: Millis(5), shape };
        let expected = work::root(&attempt, &Weights::new(shape));
        for backend in &backends {
            assert_eq!(backend.roots(&[attempt]).unwrap(), [expected], "{shape} on {}", backend.device().path);
        }
    }
}
