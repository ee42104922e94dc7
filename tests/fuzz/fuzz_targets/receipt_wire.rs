//! What the wire decoder takes is exactly what the encoder writes, and stage 2 never panics on it.
#![no_main]

use tops_protocol::codec::receipt_from_wire;
use tops_protocol::verify::Structural;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(receipt) = receipt_from_wire(bytes) {
        assert_eq!(receipt.to_wire(), bytes);
        if let Ok(structural) = Structural::of_any_network(receipt) {
            let _ = structural.semantic();
        }
    }
});
