#![no_main]

use std::cell::LazyCell;

use tops_fuzz::{engine, palette::Palette};

thread_local! {
    static PALETTE: LazyCell<Palette> = LazyCell::new(Palette::new);
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| PALETTE.with(|palette| engine::run(palette, bytes)));
