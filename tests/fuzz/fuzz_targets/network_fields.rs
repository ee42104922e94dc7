//! Any numbers are a network within the law's ranges, or a fault.
#![no_main]

use tops_protocol::NetworkSpec;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(fields) = serde_json::from_slice(bytes)
        && let Ok(spec) = NetworkSpec::new(fields)
    {
        assert!(spec.genesis_bits().target() <= spec.easiest_bits().target());
        assert_eq!(*spec.fields(), fields);
    }
});
