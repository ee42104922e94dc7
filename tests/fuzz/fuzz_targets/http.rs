#![no_main]

use std::cell::LazyCell;

use tops_fuzz::hall::Http;

thread_local! {
    static HTTP: LazyCell<Http> = LazyCell::new(Http::new);
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| HTTP.with(|http| http.run(bytes)));
