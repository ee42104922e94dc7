#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tops_fuzz::cellar::journal(bytes));
