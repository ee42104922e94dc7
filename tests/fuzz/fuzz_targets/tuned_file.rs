#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tops_fuzz::hall::tuned_file(bytes));
