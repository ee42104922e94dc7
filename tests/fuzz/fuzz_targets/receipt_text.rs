//! A text that is read, written and read again is the same receipt.
#![no_main]

use tops_protocol::codec::{AnyReceipt, receipt_from_text};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let text = match receipt_from_text(bytes) {
        Ok(AnyReceipt::V2(receipt)) => receipt.to_text(),
        Ok(AnyReceipt::V1(receipt)) => receipt.to_text(),
        Err(_) => return,
    };
    assert_eq!(receipt_from_text(text.as_bytes()), receipt_from_text(bytes));
});
