//! Failure bundles: everything that reproduces a root on which a device and the reference differ, as one JSON file.

use std::io::{Error, Result};
use std::path::{Path, PathBuf};

use serde::Serialize;
use tops_protocol::{Attempt, Root};

use crate::backend::Device;

/// How many bundles a directory may hold; further ones are not written, so that a broken device cannot fill a disk.
pub const BUNDLE_LIMIT: usize = 64;

#[derive(Serialize)]
struct Bundle<'a> {
    what: &'static str,
    version: &'static str,
    device: &'a Device,
    work: &'static str,
    prev_hash: String,
    miner: String,
    nonce: u64,
    timestamp_ms: u64,
    shape: String,
    unit: String,
    device_root: String,
    reference_root: String,
    repeat: String,
}

/// Writes `mismatch-<unit>.json` and returns its path.
pub fn write(dir: &Path, device: &Device, attempt: &Attempt, said: Root, truth: Root) -> Result<PathBuf> {
    std::fs::create_dir_all(dir)?;
    if std::fs::read_dir(dir)?.count() >= BUNDLE_LIMIT {
        return Err(Error::other(format!("{} holds {BUNDLE_LIMIT} bundles already", dir.display())));
    }
    let Attempt { prev_hash, miner, nonce, timestamp, shape } = attempt;
    let unit = tops_protocol::work::unit_id(attempt);
    let sizes = format!("{},{},{}", shape.m(), shape.n(), shape.k());
    let bundle = Bundle {
        what: "a device computed another root than the reference",
        version: env!("CARGO_PKG_VERSION"),
        device,
        work: tops_protocol::work::KERNEL_VER,
        prev_hash: prev_hash.to_hex(),
        miner: miner.to_hex(),
        nonce: nonce.get(),
        timestamp_ms: timestamp.0,
        unit: unit.to_hex(),
        device_root: said.to_hex(),
        reference_root: truth.to_hex(),
        repeat: format!(
            "tops-node attempt --work v2 --prev-hash {prev_hash} --miner {miner} --nonce {} --timestamp {} --shape {sizes} --backend {} \
             --devices {}",
            nonce.get(),
            timestamp.0,
            device.kind,
            device.index
        ),
        shape: sizes,
    };
    let path = dir.join(format!("mismatch-{}.json", &unit.to_hex()[..16]));
    std::fs::write(&path, serde_json::to_vec_pretty(&bundle).map_err(Error::other)?)?;
    Ok(path)
}
