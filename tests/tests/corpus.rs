//! The kept inputs of every fuzz target go through the same functions again, on a stable toolchain and without a fuzzer. What once was a finding
//! stays among them.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::{Path, PathBuf};

#[path = "../fuzz/src/cellar.rs"]
mod cellar;
#[path = "../fuzz/src/engine.rs"]
mod engine;
#[path = "../fuzz/src/hall.rs"]
mod hall;
#[path = "../fuzz/src/law.rs"]
mod law;
#[path = "../fuzz/src/palette.rs"]
mod palette;

/// Bytes of all corpora together; a larger one is minimised first (`tests/fuzz/run cmin`).
const CORPUS_MAX: u64 = 1 << 20;
/// Files of all corpora together.
const FILES_MAX: usize = 500;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus")
}

fn replay(target: &str, body: impl Fn(&[u8])) {
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(folder().join(target)).expect("every target has a corpus").map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty(), "{target} has an empty corpus");
    for file in files {
        let bytes = std::fs::read(&file).unwrap();
        // The name of the input is what a failure has to say first.
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| body(&bytes))).is_err() {
            panic!("{} fails", file.display());
        }
    }
    body(&[]);
}

#[test]
fn the_engine() {
    let palette = palette::Palette::new();
    replay("engine", |bytes| engine::run(&palette, bytes));
}

#[test]
fn decoders_of_the_law() {
    replay("receipt_wire", law::receipt_wire);
    replay("receipt_text", law::receipt_text);
    replay("network_fields", law::network_fields);
    replay("place", law::place);
}

#[test]
fn what_lies_on_the_disk() {
    replay("store_row", cellar::store_row);
    replay("journal", cellar::journal);
}

#[test]
fn what_peers_and_people_say() {
    replay("sync_query", hall::sync_query);
    replay("sync_reply", hall::sync_reply);
    replay("gossip", hall::gossip);
    replay("network_toml", hall::network_toml);
    replay("config_toml", hall::config_toml);
    replay("peers_file", hall::peers_file);
    replay("tuned_file", hall::tuned_file);
    let http = hall::Http::new();
    replay("http", |bytes| http.run(bytes));
}

#[test]
fn every_target_has_a_corpus_and_it_stays_small() {
    let manifest = std::fs::read_to_string(folder().parent().unwrap().join("Cargo.toml")).unwrap();
    let (mut bytes, mut files) = (0, 0);
    for line in manifest.lines().filter_map(|line| line.strip_prefix("path = \"fuzz_targets/")) {
        let target = line.trim_end_matches(".rs\"");
        for entry in std::fs::read_dir(folder().join(target)).unwrap_or_else(|_| panic!("{target} has no corpus")) {
            bytes += entry.unwrap().metadata().unwrap().len();
            files += 1;
        }
    }
    assert!(bytes <= CORPUS_MAX && files <= FILES_MAX, "{files} files of {bytes} bytes: minimise them with tests/fuzz/run cmin");
}
