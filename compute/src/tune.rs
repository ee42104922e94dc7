//! How many attempts a search should have on a device, for a target time; measured once and kept in a file.
//!
//! The file is a cache: whatever is wrong with it, it is measured anew. A figure is taken only for the same device, driver, code, shape
//! and target. The queue goes on adjusting what it begins with.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tops_protocol::{Millis, Nonce, PublicKey, Root, Shape, U256};

use crate::backend::{Backend, Device, DeviceFault, SEARCH_LIMIT, SearchJob, Stop};

/// The target time when nobody says another.
pub const DEFAULT_TARGET: Duration = Duration::from_millis(300);
/// How many figures the file keeps; the ones measured first go first.
const KEPT: usize = 256;
/// The largest file that is read, a kilobyte a figure; a longer one counts as damaged.
const FILE_MAX: u64 = 256 * 1024;
/// Searches of one measurement at most: each is at least twice as long as the one before.
const ROUNDS: u32 = 20;

/// A measured figure.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Tuned {
    /// Attempts a search.
    pub batch: u32,
    /// What was measured, attempts a second.
    pub attempts_per_sec: f64,
    /// The order in which figures were measured.
    serial: u64,
}

/// The file of measured figures.
pub struct Tuner {
    path: Option<PathBuf>,
    kept: BTreeMap<String, Tuned>,
}

impl Tuner {
    /// Reads the file if there is one; with no path, nothing is kept. A damaged file counts as none.
    pub fn open(path: Option<&Path>) -> Self {
        let kept = path.and_then(|path| read(path).ok()).and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        Self { path: path.map(Path::to_path_buf), kept }
    }

    /// The figure for a device, kept or measured now. Measuring takes about twice the target time.
    pub fn tune(&mut self, backend: &dyn Backend, shape: Shape, target: Duration, stop: &Stop) -> Result<Tuned, DeviceFault> {
        let key = key(backend.device(), shape, target);
        if let Some(tuned) = self.kept.get(&key).filter(|tuned| (1..=SEARCH_LIMIT).contains(&tuned.batch)) {
            return Ok(tuned.clone());
        }
        let (batch, attempts_per_sec) = measure(backend, shape, target, stop)?;
        let serial = self.kept.values().map(|tuned| tuned.serial).max().map_or(0, |last| last.saturating_add(1));
        let tuned = Tuned { batch, attempts_per_sec, serial };
        if stop.is_set() {
            return Ok(tuned);
        }
        while self.kept.len() >= KEPT {
            let Some(oldest) = self.kept.iter().min_by_key(|(_, tuned)| tuned.serial).map(|(key, _)| key.clone()) else { break };
            self.kept.remove(&oldest);
        }
        self.kept.insert(key, tuned.clone());
        if let Err(fault) = self.save() {
            tracing::warn!(%fault, "the tuned batch could not be kept");
        }
        Ok(tuned)
    }

    /// Writes beside the file and renames, so that a reader never sees half of it.
    fn save(&self) -> io::Result<()> {
        let Some(path) = &self.path else { return Ok(()) };
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir)?;
        }
        let beside = path.with_extension(format!("{}.tmp", std::process::id()));
        fs::write(&beside, serde_json::to_vec_pretty(&self.kept).map_err(io::Error::other)?)?;
        fs::rename(&beside, path)
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(FILE_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_MAX { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(bytes) }
}

fn key(device: &Device, shape: Shape, target: Duration) -> String {
    let Device { kind, name, driver, path, code_digest, units, .. } = device;
    format!("{kind} | {name} | {units} | {driver} | {path} {code_digest} | {shape} | {} ms", target.as_millis())
}

/// Doubles a search until it takes a quarter of the target, then scales.
fn measure(backend: &dyn Backend, shape: Shape, target: Duration, stop: &Stop) -> Result<(u32, f64), DeviceFault> {
    let step = backend.batch_step(shape).clamp(1, SEARCH_LIMIT);
    let Some(first_nonce) = Nonce::new(0) else { unreachable!("0 is below 2^53") };
    let mut count = step;
    let mut per_sec = 0.0;
    for round in 0..ROUNDS {
        // No root is 0, so this search never hits.
        let job = SearchJob {
            prev_hash: Root([0; 32]),
            miner: PublicKey([2; 33]),
            timestamp: Millis(0),
            shape,
            first_nonce,
            count,
            target: U256::ZERO,
        };
        let began = Instant::now();
        let done = match backend.search(&job, stop) {
            Err(DeviceFault::OutOfMemory { .. }) if count > step => {
                count = (count / 2 / step).max(1) * step;
                break;
            }
            report => report?.attempts_done,
        };
        let secs = began.elapsed().as_secs_f64().max(1e-9);
        per_sec = f64::from(done) / secs;
        // The first search also makes the weights and warms the device: its time says nothing.
        let enough = round > 0 && secs >= target.as_secs_f64() / 4.0;
        if enough || stop.is_set() || count >= SEARCH_LIMIT {
            let ideal = per_sec * target.as_secs_f64() / f64::from(step);
            count = (ideal.round().max(1.0) * f64::from(step)).min(f64::from(SEARCH_LIMIT)) as u32;
            break;
        }
        let grown = if round == 0 { count } else { (f64::from(count) * (target.as_secs_f64() / 2.0 / secs).clamp(2.0, 16.0)) as u32 };
        count = (grown / step).max(1).saturating_mul(step).min(SEARCH_LIMIT);
    }
    Ok((count, per_sec))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::CpuBackend;
    use proptest::prelude::*;

    /// A file of figures as it is written, with these in it.
    fn written(figures: &[(u32, f64, u64)]) -> String {
        let kept: BTreeMap<String, Tuned> = figures
            .iter()
            .enumerate()
            .map(|(i, &(batch, attempts_per_sec, serial))| (format!("device {i}"), Tuned { batch, attempts_per_sec, serial }))
            .collect();
        serde_json::to_string_pretty(&kept).unwrap()
    }

    #[test]
    fn a_batch_takes_about_the_target_and_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep").join("tuned.json");
        let cpu = CpuBackend::new(Some(1)).unwrap();
        let target = Duration::from_millis(40);
        let tuned = Tuner::open(Some(&path)).tune(&cpu, Shape::DEVNET, target, &Stop::new()).unwrap();
        assert!(tuned.batch >= cpu.batch_step(Shape::DEVNET) && tuned.attempts_per_sec > 0.0);
        let kept = Tuner::open(Some(&path)).tune(&cpu, Shape::DEVNET, target, &Stop::new()).unwrap();
        // A rate that was written as decimals may come back in its last bit.
        assert_eq!((kept.batch, kept.serial), (tuned.batch, tuned.serial));
        assert!((kept.attempts_per_sec / tuned.attempts_per_sec - 1.0).abs() < 1e-12);
        assert_ne!(key(cpu.device(), Shape::DEVNET, target), key(cpu.device(), Shape::STANDARD, target));
    }

    #[test]
    fn a_damaged_file_is_measured_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tuned.json");
        fs::write(&path, b"{\"half\": ").unwrap();
        let cpu = CpuBackend::new(Some(1)).unwrap();
        let target = Duration::from_millis(10);
        let tuned = Tuner::open(Some(&path)).tune(&cpu, Shape::DEVNET, target, &Stop::new()).unwrap();
        assert_eq!(Tuner::open(Some(&path)).kept.len(), 1);
        assert!(tuned.batch > 0);
    }

    #[test]
    fn a_longer_file_than_is_read_counts_as_damaged() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tuned.json");
        let mut text = written(&[(64, 12.5, 0)]);
        text.push_str(&" ".repeat(FILE_MAX as usize - text.len()));
        fs::write(&path, &text).unwrap();
        assert_eq!(Tuner::open(Some(&path)).kept.len(), 1);
        text.push(' ');
        fs::write(&path, &text).unwrap();
        assert!(Tuner::open(Some(&path)).kept.is_empty());
        assert!(Tuner::open(Some(dir.path())).kept.is_empty(), "a directory is no file of figures");
    }

    proptest! {
        #[test]
        fn any_file_is_read_whole_or_counts_as_none(
            garbage in proptest::collection::vec(any::<u8>(), 0..1_000),
            figures in proptest::collection::vec((any::<u32>(), 0.0f64..1e12, any::<u64>()), 1..5),
            at in any::<prop::sample::Index>(), end in any::<prop::sample::Index>(),
        ) {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("tuned.json");
            let whole = written(&figures).into_bytes();
            let mut changed = whole.clone();
            changed.splice(at.index(whole.len())..whole.len().min(at.index(whole.len()) + 3), garbage.iter().take(6).copied());
            let cut = whole[..end.index(whole.len())].to_vec();
            for (bytes, least, most) in [(whole, figures.len(), figures.len()), (changed, 0, figures.len()), (cut, 0, 0), (garbage, 0, 0)] {
                fs::write(&path, bytes).unwrap();
                let kept = Tuner::open(Some(&path)).kept.len();
                prop_assert!((least..=most).contains(&kept), "{kept} figures");
            }
        }
    }
}
