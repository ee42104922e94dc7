//! Searches and roots on one OpenCL device: which kernels run when, on what memory, and how much at once.
//!
//! ```text
//! search: [launch 1 | slot 0] [launch 2 | slot 1] [launch 3 | slot 0] …        two in flight; hits of one are read while the next computes
//! launch: seeds, rows, expansion, product in slices, product in slices, hashes, tickets
//! ```
//!
//! A product is cut into slices of a few milliseconds by what slices took before, so that a slow device, or one that also draws a screen,
//! is never held by one kernel, and a stop is seen between slices. A launch that is stopped on the way counts for nothing, so a launch is
//! no longer than about [`LAUNCH_TIME`] where the device can do a tile of rows in that time.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tops_kernels::opencl::{self as kernels, HIT_WORDS, RECORD_BYTES, ROW_STEP, TILE_COLUMNS};
use tops_protocol::work::v1::AttemptV1;
use tops_protocol::{Attempt, Root, Shape};

use super::launch::{self, Layer, Records, Sizes, TicketBuffers};
use super::original::Originals;
use super::{Buffer, Card, Mark};
use crate::backend::{Backend, Device, DeviceFault, ROOTS_LIMIT, SearchJob, SearchReport, Stop};
use crate::conformance::{self, Level};
use crate::padded;

/// Launches of a search that are queued at once, each with a slot of its own for what comes back.
const SLOTS: usize = 2;
/// Hits that a launch tells one by one; past it the host looks through all its roots, so none is lost.
const HIT_CAPACITY: usize = 64;
/// Shapes whose weights are kept; the one unused for longest goes first.
const KEPT_SHAPES: usize = 4;
/// Rows of a launch for each compute unit: a few tiles for each, so that units wait little for the last one.
const ROWS_A_UNIT: usize = 128;
/// Rows of a launch, whatever the device: from tiles enough for a small GPU to as many as fill the largest.
const ROWS: std::ops::RangeInclusive<usize> = 512..=32_768;
/// Columns for which those rows are meant; narrower shapes take more rows, at most so many times as many, so that a launch outlasts
/// what it costs to queue it.
const WIDE: usize = 4096;
const MORE_ROWS: usize = 8;
/// How long a launch of a search is to last at most: what a stop throws away. A tile of rows is the least, on any device.
const LAUNCH_TIME: Duration = Duration::from_millis(100);
/// How long a slice of a product is to last, and how much of it may be queued ahead.
const SLICE: Duration = Duration::from_millis(4);
const AHEAD: Duration = Duration::from_millis(8);
/// Kernels that are queued and not yet waited for, at most; more wait, as with `AHEAD`.
const QUEUED: usize = 64;
/// Operations a second that a device is taken to do before it is known, low so that the first slices are short.
const FIRST_PACE: f64 = 1e11;
const FIRST_PACE_CPU: f64 = 1e9;
/// The seed of the self-check's cases.
const SELF_CHECK_SEED: u64 = 0x7095;

/// One OpenCL device.
pub struct OpenClBackend {
    device: Device,
    /// Rows of a launch.
    rows: usize,
    engine: Mutex<Engine>,
}

impl OpenClBackend {
    pub(super) fn new(card: Card) -> Self {
        let rows = if card.cpu { ROW_STEP } else { ROWS_A_UNIT } * card.device.units as usize;
        let rows = rows.clamp(if card.cpu { ROW_STEP } else { *ROWS.start() }, *ROWS.end());
        let pace = if card.cpu { FIRST_PACE_CPU } else { FIRST_PACE };
        let device = card.device.clone();
        let originals = Originals::default();
        let pacer = Pacer { queued: VecDeque::new(), pace, busy: Duration::ZERO };
        Self { device, rows, engine: Mutex::new(Engine { originals, weights: VecDeque::new(), room: None, pacer, rows, card }) }
    }

    /// What a device must pass before it gets work.
    pub(super) fn self_check(&self) -> Result<(), DeviceFault> {
        Ok(conformance::run(self, Level::Start, SELF_CHECK_SEED)?)
    }

    fn engine(&self) -> Result<MutexGuard<'_, Engine>, DeviceFault> {
        // A panic while it was held left at most queued kernels behind, which the next call waits for.
        let engine = self.engine.lock().unwrap_or_else(PoisonError::into_inner);
        engine.card.enter()?;
        Ok(engine)
    }
}

impl Backend for OpenClBackend {
    fn device(&self) -> &Device {
        &self.device
    }

    fn batch_step(&self, shape: Shape) -> u32 {
        u32::try_from((rows_for(self.rows, shape) / shape.m() as usize).max(1)).unwrap_or(1)
    }

    fn search(&self, job: &SearchJob, stop: &Stop) -> Result<SearchReport, DeviceFault> {
        job.check()?;
        self.engine()?.with_less_room(|engine| engine.search(job, stop))
    }

    fn roots(&self, attempts: &[Attempt]) -> Result<Vec<Root>, DeviceFault> {
        check_len(attempts.len())?;
        let mut engine = self.engine()?;
        let mut order: Vec<usize> = (0..attempts.len()).collect();
        order.sort_by_key(|&i| attempts[i].shape);
        let mut roots = vec![Root([0; 32]); attempts.len()];
        for same in order.chunk_by(|&a, &b| attempts[a].shape == attempts[b].shape) {
            let group: Vec<Attempt> = same.iter().map(|&i| attempts[i]).collect();
            for (&i, root) in same.iter().zip(engine.with_less_room(|engine| engine.roots(&group, group[0].shape))?) {
                roots[i] = root;
            }
        }
        Ok(roots)
    }

    fn v1_roots(&self, attempts: &[AttemptV1]) -> Result<Vec<Root>, DeviceFault> {
        check_len(attempts.len())?;
        let mut engine = self.engine()?;
        // Weights of another function, and room for the largest shape, can be much: v2's scratch memory makes way.
        engine.room = None;
        let Engine { card, originals, pacer, .. } = &mut *engine;
        padded::roots(attempts, |shape, prepared| originals.root(card, pacer, shape, prepared))
    }
}

/// Rows of a launch of this shape.
fn rows_for(rows: usize, shape: Shape) -> usize {
    rows * (WIDE / shape.n().max(shape.k()) as usize).clamp(1, MORE_ROWS)
}

/// How many of at most `most` attempts make the next launch of a search on a device that does `pace` operations a second.
fn paced_attempts(pace: f64, shape: Shape, most: usize) -> usize {
    let tile = (ROW_STEP / shape.m() as usize).max(1);
    let attempts = (pace * LAUNCH_TIME.as_secs_f64() / shape.ops() as f64) as usize;
    (attempts / tile).max(1).saturating_mul(tile).min(most)
}

fn check_len(len: usize) -> Result<(), DeviceFault> {
    if len > ROOTS_LIMIT {
        return Err(DeviceFault::Unsupported { what: format!("{len} roots in one call (at most {ROOTS_LIMIT})") });
    }
    Ok(())
}

/// What the backend's lock guards.
struct Engine {
    originals: Originals,
    weights: VecDeque<Weights>,
    room: Option<Room>,
    pacer: Pacer,
    /// Rows of a launch: less than the backend's when memory was short.
    rows: usize,
    card: Card,
}

/// Both layers of a shape, in the order that the product reads.
struct Weights {
    n: u32,
    k: u32,
    first: Buffer,
    second: Buffer,
}

/// Scratch memory of a launch. Launches run one after the other, so all but the slots is shared.
struct Room {
    seeds: Buffer,
    states: Buffer,
    /// Activations, then outputs.
    x: Buffer,
    y1: Buffer,
    cvs: Buffer,
    slots: [Slot; SLOTS],
}

/// What a launch is told and what comes back.
struct Slot {
    records: Buffer,
    roots: Buffer,
    hits: Buffer,
}

/// Bytes of each part of a room.
#[derive(Clone, Copy)]
struct Need {
    attempts: usize,
    states: usize,
    x: usize,
    y1: usize,
    cvs: usize,
}

impl Need {
    fn new(shape: Shape, attempts: usize) -> Self {
        let (m, n, k) = (shape.m() as usize, shape.n() as usize, shape.k() as usize);
        let rows = attempts * m;
        let padded = rows.next_multiple_of(ROW_STEP);
        Self { attempts, states: rows * 64, x: padded * n.max(k), y1: padded * n, cvs: rows / 16 * (n / 64) * 32 }
    }

    fn bytes(self) -> usize {
        self.attempts * (32 + SLOTS * (RECORD_BYTES + 32)) + self.states + self.x + self.y1 + self.cvs
    }
}

impl Room {
    fn new(card: &Card, need: Need) -> Result<Self, DeviceFault> {
        let slot = || -> Result<Slot, DeviceFault> {
            Ok(Slot {
                records: card.allocate(need.attempts * RECORD_BYTES)?,
                roots: card.allocate(need.attempts * 32)?,
                hits: card.allocate(launch::hits_bytes(HIT_CAPACITY))?,
            })
        };
        Ok(Self {
            seeds: card.allocate(need.attempts * 32)?,
            states: card.allocate(need.states)?,
            x: card.allocate(need.x)?,
            y1: card.allocate(need.y1)?,
            cvs: card.allocate(need.cvs)?,
            slots: [slot()?, slot()?],
        })
    }

    fn holds(&self, need: Need) -> bool {
        self.seeds.bytes >= need.attempts * 32
            && self.states.bytes >= need.states
            && self.x.bytes >= need.x
            && self.y1.bytes >= need.y1
            && self.cvs.bytes >= need.cvs
            && self.slots.iter().all(|slot| slot.records.bytes >= need.attempts * RECORD_BYTES && slot.roots.bytes >= need.attempts * 32)
    }
}

/// Keeps little enough queued, and measures.
pub(super) struct Pacer {
    /// With how long each is expected to take, and its operations where it is a product.
    queued: VecDeque<(Mark, Duration, f64)>,
    /// Operations a second, as slices were measured.
    pace: f64,
    /// Kernel time of what was waited for.
    busy: Duration,
}

impl Pacer {
    /// Waits until little enough is queued.
    fn settle(&mut self, card: &Card) -> Result<(), DeviceFault> {
        while self.queued.len() > QUEUED || self.queued.iter().map(|(_, expected, _)| *expected).sum::<Duration>() > AHEAD {
            self.retire(card)?;
        }
        Ok(())
    }

    /// Waits for everything that is queued.
    pub(super) fn finish(&mut self, card: &Card) -> Result<(), DeviceFault> {
        while !self.queued.is_empty() {
            self.retire(card)?;
        }
        Ok(())
    }

    /// Waits for the first that is queued and measures it.
    fn retire(&mut self, card: &Card) -> Result<(), DeviceFault> {
        let Some((mark, _, ops)) = self.queued.pop_front() else { return Ok(()) };
        card.flush()?;
        let took = card.wait(&mark)?;
        self.busy += took;
        if ops > 0.0 && !took.is_zero() {
            self.pace = 0.5 * (self.pace + ops / took.as_secs_f64());
        }
        Ok(())
    }

    /// Queues a kernel that is short beside the products.
    pub(super) fn short(&mut self, card: &Card, call: &launch::Call<'_>) -> Result<(), DeviceFault> {
        self.queued.push_back((card.launch(call)?, Duration::ZERO, 0.0));
        self.settle(card)
    }

    /// Queues a product in slices; `false` when it was stopped on the way.
    pub(super) fn product(&mut self, card: &Card, [a, w, y]: [&Buffer; 3], layer: Layer, stop: Option<&Stop>) -> Result<bool, DeviceFault> {
        let tiles = launch::tiles(layer);
        let ops = 2.0 * ROW_STEP as f64 * TILE_COLUMNS as f64 * f64::from(layer.k);
        let mut first = 0;
        while first < tiles {
            if stop.is_some_and(Stop::is_set) {
                return Ok(false);
            }
            let count = ((self.pace * SLICE.as_secs_f64() / ops) as usize).clamp(1, tiles - first);
            let mark = card.launch(&launch::product(card, a, w, y, layer, first, count))?;
            let ops = ops * count as f64;
            self.queued.push_back((mark, Duration::from_secs_f64((ops / self.pace).min(1e3)), ops));
            self.settle(card)?;
            first += count;
        }
        Ok(true)
    }
}

/// A launch that is queued.
struct Flight {
    first: u32,
    attempts: usize,
    slot: usize,
    last: Mark,
}

impl Engine {
    /// Runs `body` again with half the rows while memory is short.
    fn with_less_room<T>(&mut self, mut body: impl FnMut(&mut Self) -> Result<T, DeviceFault>) -> Result<T, DeviceFault> {
        loop {
            let result = body(self);
            if result.is_err() && self.card.enter().is_ok() {
                // Whatever failed, nothing that it queued outlives the call.
                self.pacer.finish(&self.card)?;
            }
            match result {
                Err(DeviceFault::OutOfMemory { detail }) if self.rows > ROW_STEP => {
                    self.rows /= 2;
                    self.room = None;
                    tracing::warn!(device = self.card.device.label(), rows = self.rows, %detail, "memory is short: smaller launches");
                }
                result => return result,
            }
        }
    }

    /// The most attempts of a launch.
    fn launch_attempts(&self, shape: Shape) -> usize {
        let mut attempts = (rows_for(self.rows, shape) / shape.m() as usize).max(1);
        while attempts > 1 && Need::new(shape, attempts).bytes() > self.card.scratch_limit {
            attempts /= 2;
        }
        attempts
    }

    /// Makes the shape's weights the front ones.
    fn prepare_weights(&mut self, shape: Shape) -> Result<(), DeviceFault> {
        let (n, k) = (shape.n(), shape.k());
        if let Some(at) = self.weights.iter().position(|kept| (kept.n, kept.k) == (n, k)) {
            self.weights.swap(0, at);
            return Ok(());
        }
        self.weights.truncate(KEPT_SHAPES - 1);
        let Self { card, pacer, .. } = self;
        let (first, second) = (card.allocate(n as usize * k as usize)?, card.allocate(n as usize * n as usize)?);
        let states = card.allocate(n as usize * 64)?;
        for (layer, cols, out) in [(1, k, &first), (2, n, &second)] {
            pacer.short(card, &launch::weight_rows(layer, n, cols, &states))?;
            pacer.short(card, &launch::expand_rows(&states, n as usize, cols, card.product.permuted(), out))?;
        }
        pacer.finish(card)?;
        self.weights.push_front(Weights { n, k, first, second });
        Ok(())
    }

    fn prepare_room(&mut self, need: Need) -> Result<(), DeviceFault> {
        if !self.room.as_ref().is_some_and(|room| room.holds(need)) {
            self.room = None;
            self.room = Some(Room::new(&self.card, need)?);
        }
        Ok(())
    }

    /// Queues the attempts whose records are in the slot. `None` when it was stopped on the way.
    fn queue(
        &mut self,
        shape: Shape,
        attempts: usize,
        records: Records,
        target: [u32; 8],
        slot: usize,
        stop: Option<&Stop>,
    ) -> Result<Option<Mark>, DeviceFault> {
        let Self { card, pacer, weights, room, .. } = self;
        let (Some(weights), Some(room)) = (weights.front(), room.as_ref()) else { unreachable!("prepared by the callers") };
        let Room { seeds, states, x, y1, cvs, slots } = room;
        let Slot { records: told, roots, hits } = &slots[slot];
        let (m, n, k) = (shape.m(), shape.n(), shape.k());
        let rows = attempts * m as usize;
        let padded = rows.next_multiple_of(ROW_STEP);
        let [s1, s2] = shape.shifts();
        pacer.short(card, &launch::attempt_seeds(told, records, attempts, Sizes { m, n, k }, seeds))?;
        pacer.short(card, &launch::attempt_rows(seeds, attempts, m, states))?;
        pacer.short(card, &launch::expand_rows(states, rows, k, false, x))?;
        if !pacer.product(card, [x, &weights.first, y1], Layer { rows: padded, n, k, shift: s1 }, stop)?
            || !pacer.product(card, [y1, &weights.second, x], Layer { rows: padded, n, k: n, shift: s2 }, stop)?
        {
            return Ok(None);
        }
        pacer.short(card, &launch::chunk_hashes(x, rows, m, n, cvs))?;
        card.clear(hits, 1)?;
        let last = card.launch(&launch::tickets(TicketBuffers { seeds, cvs, roots, hits }, attempts, m, n, target, HIT_CAPACITY))?;
        pacer.queued.push_back((last.clone(), Duration::ZERO, 0.0));
        card.flush()?;
        Ok(Some(last))
    }

    fn search(&mut self, job: &SearchJob, stop: &Stop) -> Result<SearchReport, DeviceFault> {
        self.prepare_weights(job.shape)?;
        let most = self.launch_attempts(job.shape).min(job.count as usize);
        self.prepare_room(Need::new(job.shape, most))?;
        let target = kernels::target_words(&job.target.to_be_bytes::<32>());
        let mut report = SearchReport { hits: Vec::new(), attempts_done: 0, busy: Duration::ZERO };
        let mut flights: VecDeque<Flight> = VecDeque::new();
        let (mut next, mut slot) = (0_u32, 0);
        self.pacer.busy = Duration::ZERO;
        loop {
            while flights.len() < SLOTS && next < job.count && !stop.is_set() {
                let attempts = paced_attempts(self.pacer.pace, job.shape, most).min((job.count - next) as usize);
                let Some(room) = &self.room else { unreachable!("prepared above") };
                let nonce = job.first_nonce.get() + u64::from(next);
                let record = kernels::attempt_record(&job.prev_hash.0, &job.miner.0, nonce, job.timestamp.0);
                self.card.upload(&record, &room.slots[slot].records)?;
                let Some(last) = self.queue(job.shape, attempts, Records::Run, target, slot, Some(stop))? else { break };
                flights.push_back(Flight { first: next, attempts, slot, last });
                next += u32::try_from(attempts).unwrap_or(u32::MAX);
                slot = (slot + 1) % SLOTS;
            }
            let Some(flight) = flights.pop_front() else { break };
            self.land(job, &flight, &mut report)?;
        }
        self.pacer.finish(&self.card)?;
        report.busy = self.pacer.busy;
        report.hits.sort_unstable();
        Ok(report)
    }

    /// Waits for a launch and adds what it found to the report.
    fn land(&mut self, job: &SearchJob, flight: &Flight, report: &mut SearchReport) -> Result<(), DeviceFault> {
        self.card.wait(&flight.last)?;
        let Some(room) = &self.room else { unreachable!("a flight keeps its room") };
        let slot = &room.slots[flight.slot];
        let nonce = |index: usize| {
            let index = u32::try_from(index).ok().filter(|_| index < flight.attempts).and_then(|index| flight.first.checked_add(index));
            index.and_then(|index| job.attempt(index)).map(|attempt| attempt.nonce)
        };
        let mut told = vec![0; launch::hits_bytes(HIT_CAPACITY)];
        self.card.download(&slot.hits, &mut told)?;
        let word = |at: usize| u32::from_le_bytes([told[4 * at], told[4 * at + 1], told[4 * at + 2], told[4 * at + 3]]);
        let count = word(0) as usize;
        if count <= HIT_CAPACITY {
            for hit in 0..count {
                let at = 1 + hit * HIT_WORDS;
                let Some(nonce) = nonce(word(at) as usize) else {
                    return Err(DeviceFault::WrongAnswer { detail: format!("a hit at attempt {} of {}", word(at), flight.attempts) });
                };
                report.hits.push((nonce, root_at(&told[4 * (at + 1)..][..32])));
            }
        } else {
            let before = report.hits.len();
            for (index, root) in self.read_roots(flight.slot, flight.attempts)?.into_iter().enumerate() {
                if let (true, Some(nonce)) = (root.ticket() <= job.target, nonce(index)) {
                    report.hits.push((nonce, root));
                }
            }
            if report.hits.len() - before != count {
                let detail = format!("{count} hits counted, {} among the roots", report.hits.len() - before);
                return Err(DeviceFault::WrongAnswer { detail });
            }
        }
        report.attempts_done += u32::try_from(flight.attempts).unwrap_or(u32::MAX);
        Ok(())
    }

    fn read_roots(&self, slot: usize, attempts: usize) -> Result<Vec<Root>, DeviceFault> {
        let Some(room) = &self.room else { unreachable!("a launch has its room") };
        let mut bytes = vec![0; attempts * 32];
        self.card.download(&room.slots[slot].roots, &mut bytes)?;
        Ok(bytes.chunks_exact(32).map(root_at).collect())
    }

    /// The roots of attempts of one shape.
    fn roots(&mut self, attempts: &[Attempt], shape: Shape) -> Result<Vec<Root>, DeviceFault> {
        self.prepare_weights(shape)?;
        let batch = self.launch_attempts(shape).min(attempts.len());
        self.prepare_room(Need::new(shape, batch))?;
        let mut roots = Vec::with_capacity(attempts.len());
        for some in attempts.chunks(batch) {
            let records: Vec<u8> =
                some.iter().flat_map(|a| kernels::attempt_record(&a.prev_hash.0, &a.miner.0, a.nonce.get(), a.timestamp.0)).collect();
            let Some(room) = &self.room else { unreachable!("prepared above") };
            self.card.upload(&records, &room.slots[0].records)?;
            self.queue(shape, some.len(), Records::List, [u32::MAX; 8], 0, None)?;
            self.pacer.finish(&self.card)?;
            roots.extend(self.read_roots(0, some.len())?);
        }
        Ok(roots)
    }
}

fn root_at(bytes: &[u8]) -> Root {
    let mut root = [0; 32];
    root.copy_from_slice(bytes);
    Root(root)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_launch_lasts_no_longer_than_a_stop_may_throw_away() {
        let standard = Shape::STANDARD;
        let tile = ROW_STEP / standard.m() as usize;
        // A device of a few GOPS still does a whole tile of rows, one of many fills its launch, and between them it is the pace that
        // counts.
        assert_eq!(paced_attempts(3e9, standard, 16), tile);
        assert_eq!(paced_attempts(0.0, standard, 16), tile);
        assert_eq!(paced_attempts(1e15, standard, 2048), 2048);
        let attempts = paced_attempts(1e12, standard, 2048);
        assert!(attempts.is_multiple_of(tile) && attempts as f64 * standard.ops() as f64 <= 1e12 * LAUNCH_TIME.as_secs_f64(), "{attempts}");
        // Fewer than a tile where memory is that short, and one attempt where it has more rows than a tile.
        assert_eq!(paced_attempts(3e9, standard, 4), 4);
        assert_eq!(paced_attempts(1.0, Shape::new(256, 256, 256).unwrap(), 100), 1);
    }
}
