//! The decoders of the law: receipts on the wire and as text, the numbers of a network, the notes on a head's place.

use tops_protocol::NetworkSpec;
use tops_protocol::codec::{AnyReceipt, receipt_from_text, receipt_from_wire};
use tops_protocol::engine::Place;
use tops_protocol::verify::Structural;

/// What the wire decoder takes is exactly what the encoder writes, and stages 1 and 2 never panic on it.
pub fn receipt_wire(bytes: &[u8]) {
    for network in [NetworkSpec::main(), NetworkSpec::dev()] {
        if let Ok(structural) = Structural::from_wire(bytes, &network) {
            assert_eq!(structural.receipt().to_wire(), bytes);
            let receipt = structural.receipt().clone();
            if let Ok(semantic) = structural.semantic() {
                assert_eq!(semantic.wire(), bytes);
                assert_eq!(semantic.unit(), receipt.unit());
            }
        }
    }
    if let Ok(receipt) = receipt_from_wire(bytes) {
        assert_eq!(receipt.to_wire(), bytes);
        let text = receipt.to_text();
        assert_eq!(receipt_from_text(text.as_bytes()), Ok(AnyReceipt::V2(receipt.clone())));
        if let Ok(structural) = Structural::of_any_network(receipt) {
            let _ = structural.semantic();
        }
    }
}

/// A text that is read, written and read again is the same receipt, in either form.
pub fn receipt_text(bytes: &[u8]) {
    let text = match receipt_from_text(bytes) {
        Ok(AnyReceipt::V2(receipt)) => {
            assert_eq!(receipt_from_wire(&receipt.to_wire()), Ok(receipt.clone()));
            receipt.to_text()
        }
        Ok(AnyReceipt::V1(receipt)) => {
            let _ = receipt.id();
            receipt.to_text()
        }
        Err(_) => return,
    };
    assert_eq!(receipt_from_text(text.as_bytes()), receipt_from_text(bytes));
}

/// Any numbers are a network within the law's ranges, or a fault.
pub fn network_fields(bytes: &[u8]) {
    if let Ok(fields) = serde_json::from_slice(bytes)
        && let Ok(spec) = NetworkSpec::new(fields)
    {
        assert!(spec.genesis_bits().target() <= spec.easiest_bits().target());
        assert_eq!(*spec.fields(), fields);
        assert_ne!(spec.genesis().0, spec.id().0);
    }
}

/// The engine's own notes on a head come back from the store: whole, or not at all.
pub fn place(bytes: &[u8]) {
    if let Some(place) = Place::from_bytes(bytes) {
        assert_eq!(place.to_bytes(), bytes);
    }
}
