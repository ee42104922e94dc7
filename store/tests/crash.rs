//! Killed at any moment, by SIGKILL, in a process of its own: what was acknowledged is there, and every open succeeds.
//!
//! One known way to fail is too rare to be met by chance every time: a kill while sled writes its snapshot leaves `snap.*.generating`, and
//! sled 0.34.7 then refuses to open for ever. `damage.rs` plants that file.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use common::{NET, accepted, share};
use tops_protocol::Height;
use tops_protocol::engine::{OUTBOX_AGE_EPOCHS, Op, OutboxState};
use tops_store::sled::open;
use tops_store::{StoreFault, Writer};

const DIR: &str = "TOPS_STORE_CRASH_DIR";
/// How many rows a child writes before it only waits to be killed. All lives together stay below the outbox's bound of age.
const ROWS: &str = "TOPS_STORE_CRASH_ROWS";
const SEED: u64 = 20_261_120;

/// Not a test by itself: the process that is killed. It says `opening`, `open`, then the number of each row that is durable.
#[test]
fn child() {
    let Ok(dir) = std::env::var(DIR) else { return };
    let say = |line: String| {
        // Past the test harness's capture, whole lines.
        let mut out = std::io::stdout().lock();
        let _ = out.write_all(line.as_bytes());
        let _ = out.flush();
    };
    say("opening\n".into());
    let opened = match open(Path::new(&dir), NET) {
        Ok(opened) => opened,
        Err(fault) => return say(format!("failed {fault}\n")),
    };
    if let Some(aside) = &opened.set_aside {
        return say(format!("failed set aside as {}\n", aside.display()));
    }
    let have = opened.store.snapshot(Height(0)).unwrap();
    let next = have.shares.iter().map(|row| row.epoch).max().unwrap_or(0) + 1;
    say("open\n".into());
    let writer = Writer::start(Arc::clone(&opened.store)).unwrap();
    let rows: u64 = std::env::var(ROWS).unwrap().parse().unwrap();
    for n in next..next + rows {
        let mut batch = accepted(1, n, n);
        if n > 3 {
            batch.push(Op::PutOutbox { unit: share(1, n - 3, n - 3).unit, epoch: n - 3, state: OutboxState::Due });
        }
        let done = move |result: Result<(), StoreFault>| {
            let line = if result.is_ok() { format!("{n}\n") } else { format!("failed {n}\n") };
            let mut out = std::io::stdout().lock();
            let _ = out.write_all(line.as_bytes());
            let _ = out.flush();
        };
        writer.submit(batch, Box::new(done));
    }
    std::thread::sleep(Duration::from_secs(60));
}

fn start(dir: &Path, rows: u32) -> (Child, BufReader<ChildStdout>) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture", "--test-threads=1"])
        .env(DIR, dir)
        .env(ROWS, rows.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    // The harness's own words stand before it.
    while !line.ends_with("opening\n") {
        assert_ne!(out.read_line(&mut line).unwrap(), 0, "the child ended before it began: {line}");
    }
    (child, out)
}

/// A small generator, so that a failing run can be repeated.
struct Seeded(u64);

impl Seeded {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

/// Kills the child; gives whether it had opened, and the last row that anybody acknowledged; `before` is that of the earlier children.
/// A child that finds rows lost numbers its own from below, and shows by that.
fn kill(mut child: Child, out: BufReader<ChildStdout>, before: u64, round: u32) -> (bool, u64) {
    child.kill().unwrap();
    child.wait().unwrap();
    let (mut opened, mut last) = (false, before);
    for line in out.lines().map_while(Result::ok) {
        assert!(!line.contains("failed"), "seed {SEED}, round {round}: {line}");
        if line == "open" {
            opened = true;
        } else if let Ok(n) = line.parse::<u64>() {
            assert!(n == last + 1 || (last == before && n > last), "seed {SEED}, round {round}: {n} after {last}");
            last = n;
        }
    }
    (opened, last)
}

/// Kills at moments spread over a window that follows the machine's speed, so that most children, not all, come to open and commit;
/// goes on until so many have opened.
fn run(wanted: u32, rows_a_life: u32) {
    // Only who has opened writes rows.
    assert!(u64::from(wanted * rows_a_life) < OUTBOX_AGE_EPOCHS);
    let dir = tempfile::tempdir().unwrap();
    let mut seeded = Seeded(SEED);
    let (mut acknowledged, mut opens, mut round) = (0, 0u32, 0u32);
    let mut window_micros = 50_000;
    while opens < wanted {
        assert!(round < 4 * wanted, "only {opens} of {round} children came to open: the kills come too soon to prove anything");
        round += 1;
        let (child, out) = start(dir.path(), rows_a_life);
        std::thread::sleep(Duration::from_micros(seeded.below(window_micros)));
        let (opened, last) = kill(child, out, acknowledged, round);
        opens += u32::from(opened);
        let enough = opened && (last > acknowledged || rows_a_life < 10);
        window_micros = if enough { window_micros * 19 / 20 } else { window_micros * 11 / 10 }.clamp(2_000, 1_000_000);
        acknowledged = last;
        // Looking at every round would open it cleanly every time; the killed opens should follow one another.
        if round.is_multiple_of(25) || opens == wanted {
            let opened = open(dir.path(), NET).unwrap();
            assert!(opened.set_aside.is_none(), "seed {SEED}, round {round}");
            let have = opened.store.snapshot(Height(0)).unwrap();
            let top = have.shares.len() as u64;
            assert!(top >= acknowledged, "seed {SEED}, round {round}: {acknowledged} acknowledged, {top} there");
            // Batches are whole: rows, outbox and ledger stand at the same number, and all of it is what was written.
            assert_eq!(have.outbox.len() as u64, top);
            let due = have.outbox.iter().filter(|row| row.state == OutboxState::Due).count() as u64;
            assert_eq!(due, top.saturating_sub(3));
            assert_eq!(have.ledger.first().map_or(0, |(_, row)| row.shares), top);
            assert!(have.shares.iter().all(|row| *row == share(1, row.epoch, row.epoch)));
        }
    }
    eprintln!("{opens} of {round} children came to open, {acknowledged} rows were acknowledged");
    assert!(acknowledged > 0);
}

#[test]
fn slow_five_hundred_killed_opens_and_none_fails() {
    run(500, 4);
}

#[test]
fn kills_while_committing_lose_nothing_acknowledged() {
    run(25, 600);
}
