//! What is on this machine: clock, files, limits, devices.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tops_compute::backend::Backend;
use tops_protocol::work::{self, Weights};
use tops_protocol::{Attempt, Millis, Nonce, PublicKey, Root};
use tops_store::StoreFault;

use super::super::table::{now_ms, span};
use super::{Check, Other, fail, ok, warn};
use crate::config::{Config, KeySource};
use crate::settings::one_line;
use crate::{devices, keys, run};

/// How far ahead of the local clock others' stamps may be (spec §4).
const AHEAD_MS: u64 = 15_000;
/// Free space below which a node will soon stop taking receipts, and below which it cannot work.
const SPACE_LOW: u64 = 2 << 30;
const SPACE_NONE: u64 = 128 << 20;
/// Open files that a node with all its connections needs, and what it cannot do without.
const FILES_WANTED: u64 = 1_024;
const FILES_NEEDED: u64 = 256;
/// Attempts that a device is compared with the reference in.
const ATTEMPTS: u64 = 2;
/// How long the system may take to say whether its clock is kept by NTP.
const NTP_PATIENCE: Duration = Duration::from_secs(2);

/// Whether the clock can be right.
pub(super) fn clock(config: &Config, status: Option<&Value>) -> Vec<Check> {
    let (about, now) = ("clock", now_ms());
    let advice = "set it, and keep it by NTP: `timedatectl set-ntp true`";
    let genesis = config.network.genesis_time().0;
    if now < genesis {
        return vec![fail(about, format!("it is {} behind the network's genesis", span((genesis - now) / 1_000)), advice)];
    }
    let mut checks = Vec::new();
    if let Some(tip) = status.and_then(|s| s["tip"]["time_ms"].as_u64()).filter(|tip| *tip > now + AHEAD_MS) {
        checks.push(fail(about, format!("the newest head is {} ahead of it", span((tip - now) / 1_000)), advice));
    }
    if ntp() == Some(false) {
        checks.push(warn(about, "the system says that it is not kept by NTP", "turn it on: `timedatectl set-ntp true`, or install chrony"));
    }
    if checks.is_empty() {
        checks.push(ok(about, if status.is_some() { "in line with the chain" } else { "plausible; a running node compares it with its peers" }));
    }
    checks
}

/// What the system says of NTP; `None` where it does not say.
fn ntp() -> Option<bool> {
    let mut asked = Command::new("timedatectl")
        .args(["show", "--property=NTPSynchronized", "--value"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let until = Instant::now() + NTP_PATIENCE;
    while asked.try_wait().ok()?.is_none() {
        if Instant::now() > until {
            // It may hang without a bus; nothing is lost by not knowing.
            let _ = asked.kill();
            let _ = asked.wait();
            return None;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let said = asked.wait_with_output().ok()?;
    match String::from_utf8_lossy(&said.stdout).trim() {
        "yes" => Some(true),
        "no" => Some(false),
        _ => None,
    }
}

/// Whether a node works in this data directory.
pub(super) fn locked(dir: &Path) -> bool {
    File::open(dir.join(run::LOCK)).is_ok_and(|file| matches!(file.try_lock(), Err(TryLockError::WouldBlock)))
}

/// The data directory, the key, the store.
pub(super) fn data(config: &Config, other: &Other) -> Vec<Check> {
    let (about, dir) = ("data", &config.data_dir);
    let mut checks = Vec::new();
    match fs::metadata(dir) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => checks.push(not_yet(dir)),
        Err(e) => checks.push(fail(about, format!("{} cannot be looked at ({e})", dir.display()), "mend its permissions, or choose another --data-dir")),
        Ok(found) if !found.is_dir() => checks.push(fail(about, format!("{} is no directory", dir.display()), "choose another --data-dir")),
        Ok(_) => {
            // The file is gone when it is dropped.
            if let Err(e) = tempfile(dir) {
                checks.push(fail(about, format!("nothing can be written in {} ({e})", dir.display()), "mend its permissions, or choose another --data-dir"));
            }
            checks.extend(space(dir));
            checks.extend(store(config, other));
        }
    }
    checks.extend(key(config));
    checks
}

fn tempfile(dir: &Path) -> std::io::Result<()> {
    let path = dir.join(format!(".doctor.{}", std::process::id()));
    let written = File::options().create_new(true).write(true).open(&path).and_then(|file| file.sync_all());
    // Where nothing was made there is nothing to remove.
    let _ = fs::remove_file(&path);
    written
}

/// A data directory that the first start will make.
fn not_yet(dir: &Path) -> Check {
    let parent = dir.ancestors().skip(1).find(|parent| !parent.as_os_str().is_empty() && parent.exists());
    let writable = parent.is_none_or(|parent| rustix::fs::access(parent, rustix::fs::Access::WRITE_OK).is_ok());
    if writable {
        ok("data", format!("{} is not there yet: the first start makes it", dir.display()))
    } else {
        let parent = parent.unwrap_or(dir);
        fail("data", format!("{} is not there and cannot be made in {}", dir.display(), parent.display()), "choose another --data-dir, or make it by hand")
    }
}

fn space(dir: &Path) -> Option<Check> {
    let (about, free) = ("space", rustix::fs::statvfs(dir).ok().map(|fs| fs.f_bavail.saturating_mul(fs.f_frsize))?);
    let found = format!("{:.1} GiB are free for {}", free as f64 / f64::from(1 << 30), dir.display());
    let advice = "make room, lower --retain-epochs, or choose another --data-dir";
    Some(match free {
        0..SPACE_NONE => fail(about, found, advice),
        SPACE_NONE..SPACE_LOW => warn(about, found, advice),
        _ => ok(about, found),
    })
}

fn store(config: &Config, other: &Other) -> Vec<Check> {
    let (about, dir) = ("store", config.data_dir.join("store"));
    let mut checks = Vec::new();
    if other.works() {
        checks.push(ok(about, "in use by the running node"));
    } else if dir.exists() {
        checks.push(opens(config, &dir));
    } else {
        checks.push(ok(about, "none yet: the first start makes it and fills it from the peers"));
    }
    let aside: Vec<String> = fs::read_dir(&dir)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().contains(".damaged")))
        .map(|path| path.display().to_string())
        .collect();
    if !aside.is_empty() {
        checks.push(warn(about, format!("a damaged one was set aside: {}", aside.join(", ")), "check the disk; what is set aside may be deleted"));
    }
    checks
}

/// Opens the store as a node's start does, with the directory locked so that no node starts meanwhile.
fn opens(config: &Config, dir: &Path) -> Check {
    let about = "store";
    let lock = File::options().create(true).truncate(false).write(true).open(config.data_dir.join(run::LOCK));
    if !lock.as_ref().is_ok_and(|file| file.try_lock().is_ok()) {
        return warn(about, "not looked at: a node has just started, or the directory cannot be locked", "run the doctor again");
    }
    match tops_store::sled::open(dir, config.network.id()) {
        Ok(opened) => match (opened.set_aside, opened.store.main_heads(None, 1)) {
            (Some(path), _) => warn(about, format!("it was damaged and is set aside as {}", path.display()), "check the disk; its contents come back from the peers"),
            (None, Ok(heads)) => ok(about, format!("opens, at height {}", heads.first().map_or(0, |row| row.height.0))),
            (None, Err(fault)) => fail(about, fault.to_string(), "check the disk, or choose another --data-dir"),
        },
        Err(fault @ (StoreFault::Format { .. } | StoreFault::OtherNetwork { .. } | StoreFault::InUse { .. })) => fail(about, fault.to_string(), ""),
        Err(fault) => fail(about, fault.to_string(), "check the disk and the permissions"),
    }
}

fn key(config: &Config) -> Vec<Check> {
    let about = "key";
    let one = |path: &PathBuf, whose: &str| {
        if path.symlink_metadata().is_err() {
            return ok(about, format!("{whose}: {} is not there yet: the first start makes it", path.display()));
        }
        match keys::load(path) {
            Ok(key) => ok(about, format!("{whose}: {}", key.public())),
            Err(fault) => fail(about, one_line(&format!("{fault:#}")), "mend it, or put back a copy with `tops-node key import`"),
        }
    };
    let miner = match &config.key {
        KeySource::File(path) => one(path, "miner"),
        KeySource::Given(_) => match keys::miner_key(&config.key) {
            Ok(key) => ok(about, format!("miner: {} (WORKER_SK_HEX)", key.public())),
            Err(fault) => fail(about, one_line(&format!("{fault:#}")), "give 64 hex digits"),
        },
    };
    [Some(miner), config.identity_file.as_ref().map(|path| one(path, "identity"))].into_iter().flatten().collect()
}

/// Files and sockets that this process may open.
pub(super) fn open_files() -> Check {
    let (about, limit) = ("open files", rustix::process::getrlimit(rustix::process::Resource::Nofile));
    let advice = format!("raise it to {FILES_WANTED} or more: `ulimit -n 4096`, or LimitNOFILE= in the unit");
    match limit.current {
        None => ok(about, "no limit"),
        Some(current) if current < FILES_NEEDED => fail(about, format!("{current} allowed"), advice),
        Some(current) if current < FILES_WANTED => warn(about, format!("{current} allowed"), advice),
        Some(current) => ok(about, format!("{current} allowed")),
    }
}

/// What computes, and whether it computes right.
pub(super) fn devices(config: &Config) -> Vec<Check> {
    let about = "devices";
    let mut checks = Vec::new();
    let probe = devices::probe(config.backend, config.devices.as_deref());
    let shape = config.network.shape();
    let weights = Weights::new(shape);
    let attempt = |nonce| {
        Some(Attempt { prev_hash: Root([0xaa; 32]), miner: PublicKey([2; 33]), nonce: Nonce::new(nonce)?, timestamp: Millis(1), shape })
    };
    let attempts: Vec<Attempt> = (0..ATTEMPTS).filter_map(attempt).collect();
    let expected: Vec<Root> = attempts.iter().map(|attempt| work::root(attempt, &weights)).collect();
    for backend in &probe.found {
        checks.push(right(&**backend, &attempts, &expected));
    }
    for passed in &probe.passed_over {
        let index = passed.index.map(|i| format!(":{i}")).unwrap_or_default();
        let found = format!("{}{index} is not used: {}", passed.kind, passed.reason);
        checks.push(if passed.broken { warn(about, found, "mend or leave it out with --devices") } else { ok(about, found) });
    }
    if probe.found.is_empty() {
        checks.push(fail(about, "there is nothing to compute with", "choose another --backend or other --devices: `tops-node devices` shows what there is"));
    }
    checks
}

fn right(backend: &dyn Backend, attempts: &[Attempt], expected: &[Root]) -> Check {
    let (about, device) = ("devices", backend.device());
    match backend.roots(attempts) {
        Ok(roots) if roots == expected => ok(about, format!("{device} computes as the reference does")),
        Ok(_) => fail(about, format!("{device} computes wrong roots"), "do not mine with it: check its memory, clocks and driver, or leave it out with --devices"),
        Err(fault) => fail(about, format!("{device} does not compute ({})", one_line(&fault.to_string())), "check its driver, or leave it out with --devices"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;
    use tops_compute::cpu::CpuBackend;
    use tops_protocol::Shape;

    #[test]
    fn a_device_that_computes_wrong_roots_fails() {
        let cpu = CpuBackend::new(Some(1)).unwrap();
        let attempt = Attempt {
            prev_hash: Root([1; 32]),
            miner: PublicKey([2; 33]),
            nonce: Nonce::new(3).unwrap(),
            timestamp: Millis(4),
            shape: Shape::DEVNET,
        };
        let root = work::root(&attempt, &Weights::new(Shape::DEVNET));
        assert_eq!(right(&cpu, &[attempt], &[root]).state, State::Ok);
        assert_eq!(right(&cpu, &[attempt], &[Root([0; 32])]).state, State::Fail);
    }

    #[test]
    fn a_directory_that_a_node_holds_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!locked(dir.path()));
        let file = File::create(dir.path().join(run::LOCK)).unwrap();
        assert!(!locked(dir.path()));
        file.try_lock().unwrap();
        assert!(locked(dir.path()));
    }
}
