#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tops_fuzz::law::receipt_text(bytes));
