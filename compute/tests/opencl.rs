//! Every OpenCL device of the machine passes the suite; a CPU driver such as PoCL will do.
#![cfg(feature = "opencl")]

use tops_compute::backend::DeviceKind;
use tops_compute::conformance::{self, Level};
use tops_compute::opencl;

#[test]
fn every_device_conforms() {
    let probe = opencl::probe(None, true);
    for passed in &probe.passed_over {
        // A machine without a driver is none of ours; a device that is there and cannot be used is.
        assert_eq!((passed.index, passed.reason.as_str()), (None, "no OpenCL driver is installed"), "{:?}", passed.name);
        println!("{}", passed.reason);
    }
    for backend in &probe.found {
        assert_eq!(backend.device().kind, DeviceKind::OpenCl);
        conformance::run(&**backend, Level::Quick, 0x7095).unwrap_or_else(|fault| panic!("{}: {fault}", backend.device()));
    }
}

#[test]
fn a_number_that_is_not_there_is_passed_over_with_a_reason() {
    let probe = opencl::probe(Some(&[4_000]), true);
    assert!(probe.found.is_empty());
    assert_eq!(probe.passed_over.len(), 1);
    assert!(!probe.passed_over[0].reason.is_empty());
}
