//! Attempts of the network's work function on a GPU: weights and scratch memory, launches, what comes back.
//!
//! ```text
//! search: launch i+1 is queued while launch i runs; of a launch only its hits come back, by page-locked memory
//! roots:  unrelated attempts of a shape in one launch; all roots come back
//! ```
//!
//! A launch is a whole number of waves that take about [`LAUNCH_TIME`], so that a stop is obeyed soon and no processor idles at its end.
//! The hit buffer is bounded, its count is not: when more hits than fit, the launch's roots, which are always written, are read instead, and
//! none is lost. This never decides what is worth searching for and never signs.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tops_kernels::cuda::{self as kernels, Architecture, CLUSTER, HASHED_FROM, TILE_COLUMNS};
use tops_protocol::work::v1::AttemptV1;
use tops_protocol::{Attempt, Millis, Nonce, PublicKey, Root, Shape};

use super::launch::{self, Product, Records, Sizes, TicketBuffers};
use super::original::Originals;
use super::{Buffer, Card, HostBuffer, Mark};
use crate::backend::{Backend, Device, DeviceFault, ROOTS_LIMIT, SearchJob, SearchReport, Stop};
use crate::conformance;

/// How long a launch of a search should take.
const LAUNCH_TIME: Duration = Duration::from_millis(5);
/// Launches queued at once: one runs, one waits, so that a stop costs at most two.
const IN_FLIGHT: usize = 2;
/// Hits of a launch that come back in one copy; a share target gives far fewer. When there are more, the launch's roots are read.
const HIT_CAPACITY: usize = 255;
/// Weights kept on the device; the shape unused for longest goes first when they take more.
const WEIGHTS_LIMIT: usize = 320 << 20;
/// Shapes whose pace is remembered; forgotten together when there are more.
const PACES: usize = 64;
/// The most attempts a launch takes, whatever their size.
const LAUNCH_LIMIT: usize = 1 << 16;

/// A vector of the independent model on the standard shape: the self-check's answer key, which needs no reference on this machine.
const KNOWN_PREV_HASH: &str = "47196a9ec2725be1d06b80c414e376bf38dca85402132d7e2d8f5ca4e756916b";
const KNOWN_MINER: &str = "028475efdde946f32d937b5491ea1cb7c0a0210a36ab7d8a215b8eb938ec1c558e";
const KNOWN_NONCE: u64 = 4_294_967_296;
const KNOWN_TIMESTAMP: u64 = 1_790_058_701_266;
const KNOWN_ROOT: &str = "82f8b0d5f0378b554c7c261ca3fdd7da6cf189dc781afa6c147acf31d0013dec";

/// A GPU that runs attempts.
pub struct CudaBackend {
    device: Device,
    inner: Mutex<Inner>,
}

/// Everything that one call uses at a time. Buffers come before the card: they are given back first.
struct Inner {
    weights: VecDeque<Weights>,
    room: Option<Room>,
    originals: Originals,
    paces: HashMap<Shape, f64>,
    card: Card,
}

/// Both layers of a shape, as the products read them. They do not depend on m.
struct Weights {
    n: u32,
    k: u32,
    first: Buffer,
    second: Buffer,
}

/// Scratch memory of launches.
struct Room {
    seeds: Buffer,
    states: Buffer,
    /// Activations, then outputs of the second product; empty where both stay on chip.
    x: Buffer,
    y1: Buffer,
    cvs: Buffer,
    slots: Vec<Slot>,
}

/// What is a launch's own until it has been read.
struct Slot {
    records: Buffer,
    roots: Buffer,
    hits: Buffer,
    told: HostBuffer,
}

/// The bytes of each buffer.
#[derive(Clone, Copy)]
struct Need {
    attempts: usize,
    states: usize,
    x: usize,
    y1: usize,
    cvs: usize,
}

/// A launch that is queued.
struct Flight {
    first: u32,
    attempts: usize,
    slot: usize,
    began: Mark,
    ended: Mark,
    /// After the copy of the hits.
    arrived: Mark,
}

/// What [`CudaBackend::products_only`] measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ProductsReport {
    /// Operations done.
    pub ops: f64,
    /// The device's time for them.
    pub busy: Duration,
}

impl CudaBackend {
    pub(super) fn new(card: Card) -> Self {
        let inner = Inner { weights: VecDeque::new(), room: None, originals: Originals::default(), paces: HashMap::new(), card };
        Self { device: inner.card.device.clone(), inner: Mutex::new(inner) }
    }

    /// The suite's first level, and then the standard shape on more tiles than run at once, against a known root.
    pub(super) fn self_check(&self) -> Result<(), DeviceFault> {
        conformance::run(self, conformance::Level::Start, 1).map_err(DeviceFault::from)?;
        let (Ok(prev_hash), Ok(miner), Some(nonce), Ok(root)) =
            (Root::from_hex(KNOWN_PREV_HASH), PublicKey::from_hex(KNOWN_MINER), Nonce::new(KNOWN_NONCE), Root::from_hex(KNOWN_ROOT))
        else {
            unreachable!("the constants are within their ranges; every start reads them");
        };
        let attempt = Attempt { prev_hash, miner, nonce, timestamp: Millis(KNOWN_TIMESTAMP), shape: Shape::STANDARD };
        let copies = self.lock().step(Shape::STANDARD).clamp(17, 600) + 3;
        let roots = self.roots(&vec![attempt; copies])?;
        match roots.iter().position(|got| *got != root) {
            Some(at) => Err(DeviceFault::WrongAnswer { detail: format!("copy {at} of a known attempt gave {}", roots[at].to_hex()) }),
            None => Ok(()),
        }
    }

    /// Runs both products of a shape on activations in memory, with outputs to memory, and nothing else, for about `seconds`: what seeds,
    /// activations, hashing and comparing cost is the difference to a search.
    pub fn products_only(&self, shape: Shape, seconds: f64) -> Result<ProductsReport, DeviceFault> {
        let mut inner = self.lock();
        inner.card.enter()?;
        inner.products_only(shape, seconds)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Backend for CudaBackend {
    fn device(&self) -> &Device {
        &self.device
    }

    fn batch_step(&self, shape: Shape) -> u32 {
        u32::try_from(self.lock().step(shape)).unwrap_or(1)
    }

    fn search(&self, job: &SearchJob, stop: &Stop) -> Result<SearchReport, DeviceFault> {
        job.check()?;
        let mut inner = self.lock();
        inner.card.enter()?;
        inner.search(job, stop)
    }

    fn roots(&self, attempts: &[Attempt]) -> Result<Vec<Root>, DeviceFault> {
        check_len(attempts.len())?;
        let mut inner = self.lock();
        inner.card.enter()?;
        let mut order: Vec<usize> = (0..attempts.len()).collect();
        order.sort_by_key(|&i| attempts[i].shape);
        let mut roots = vec![Root([0; 32]); attempts.len()];
        for same in order.chunk_by(|&a, &b| attempts[a].shape == attempts[b].shape) {
            let shape = attempts[same[0]].shape;
            for some in same.chunks(inner.most(shape)) {
                let group: Vec<Attempt> = some.iter().map(|&i| attempts[i]).collect();
                for (&i, root) in some.iter().zip(inner.roots(&group, shape)?) {
                    roots[i] = root;
                }
            }
        }
        Ok(roots)
    }

    fn v1_roots(&self, attempts: &[AttemptV1]) -> Result<Vec<Root>, DeviceFault> {
        check_len(attempts.len())?;
        let mut inner = self.lock();
        inner.card.enter()?;
        let Inner { card, originals, .. } = &mut *inner;
        originals.roots(card, attempts)
    }
}

fn check_len(len: usize) -> Result<(), DeviceFault> {
    if len > ROOTS_LIMIT {
        return Err(DeviceFault::Unsupported { what: format!("{len} roots in one call (at most {ROOTS_LIMIT})") });
    }
    Ok(())
}

fn sizes(shape: Shape) -> Sizes {
    Sizes { m: shape.m(), n: shape.n(), k: shape.k() }
}

impl Inner {
    /// Attempts whose tiles are whole waves of the card.
    fn step(&self, shape: Shape) -> usize {
        let (wave, columns) = match self.card.architecture {
            Architecture::Sm90a => (self.card.wave / CLUSTER, shape.n() / TILE_COLUMNS),
            Architecture::Mma => (self.card.wave, shape.n() / 256),
            Architecture::Dp4a => (self.card.wave, shape.n() / 128),
        };
        let row_tiles = (wave / gcd(wave, columns)) as usize;
        (row_tiles * self.card.architecture.row_step() / shape.m() as usize).max(1)
    }

    /// The bytes that a launch of this many attempts takes.
    fn need(&self, shape: Shape, attempts: usize) -> Need {
        let architecture = self.card.architecture;
        let padded = kernels::padded_rows(architecture, attempts * shape.m() as usize);
        let (n, k) = (shape.n() as usize, shape.k() as usize);
        let x = match architecture {
            Architecture::Sm90a if shape.n() >= HASHED_FROM => 0,
            Architecture::Sm90a => padded * n,
            Architecture::Mma | Architecture::Dp4a => padded * n.max(k),
        };
        Need {
            attempts,
            states: padded * 64,
            x,
            y1: padded * n,
            cvs: kernels::cvs_bytes(architecture, attempts * shape.m() as usize, shape.m(), shape.n()),
        }
    }

    /// The most attempts that one launch takes: what scratch memory holds.
    fn most(&self, shape: Shape) -> usize {
        let bytes = |attempts| {
            let need = self.need(shape, attempts);
            need.states + need.x + need.y1 + need.cvs
        };
        // Padding makes a small launch dearer an attempt than a large one, so the large one's price is the right one.
        let some = 4096 / shape.m() as usize + 1;
        (self.card.scratch_limit * some / bytes(some)).clamp(1, LAUNCH_LIMIT)
    }

    /// How many attempts the next launch of a search takes.
    fn launch_attempts(&self, shape: Shape) -> usize {
        let (step, most) = (self.step(shape), self.most(shape));
        let wanted = self.paces.get(&shape).map_or(step, |pace| {
            let steps = (pace * LAUNCH_TIME.as_secs_f64() / step as f64).round();
            step.saturating_mul((steps as usize).max(1))
        });
        if wanted <= most { wanted } else { (most / step * step).max(most.min(step)) }
    }

    fn note_pace(&mut self, shape: Shape, attempts: usize, took: Duration) {
        // A launch that does not fill the card says nothing of one that does.
        if attempts < self.step(shape) || took.is_zero() {
            return;
        }
        if self.paces.len() >= PACES && !self.paces.contains_key(&shape) {
            self.paces.clear();
        }
        let now = attempts as f64 / took.as_secs_f64();
        self.paces.entry(shape).and_modify(|pace| *pace = (*pace + now) / 2.0).or_insert(now);
    }

    /// Puts the shape's weights at the front, making them if need be.
    fn prepare_weights(&mut self, shape: Shape) -> Result<(), DeviceFault> {
        let (n, k) = (shape.n(), shape.k());
        if let Some(at) = self.weights.iter().position(|kept| (kept.n, kept.k) == (n, k)) {
            self.weights.swap(0, at);
            return Ok(());
        }
        let bytes = |n: u32, k: u32| n as usize * (n as usize + k as usize);
        while !self.weights.is_empty() && self.weights.iter().map(|kept| bytes(kept.n, kept.k)).sum::<usize>() + bytes(n, k) > WEIGHTS_LIMIT
        {
            self.weights.pop_back();
        }
        let card = &self.card;
        let states = card.allocate(n as usize * 64)?;
        let make = |layer, cols: u32| {
            let out = card.allocate(n as usize * cols as usize)?;
            card.launch(&launch::weight_rows(layer, n, cols, &states))?;
            card.launch(&launch::expand_rows(&states, n as usize, cols, card.architecture.permuted(), &out))?;
            Ok::<_, DeviceFault>(out)
        };
        let made = Weights { n, k, first: make(1, k)?, second: make(2, n)? };
        card.wait(&card.mark()?)?;
        self.weights.push_front(made);
        Ok(())
    }

    /// Makes scratch memory for launches of up to this many attempts.
    fn prepare_room(&mut self, need: Need) -> Result<(), DeviceFault> {
        if self.room.as_ref().is_some_and(|room| room.holds(need)) {
            return Ok(());
        }
        self.room = None;
        let card = &self.card;
        let slots = (0..IN_FLIGHT)
            .map(|_| {
                Ok(Slot {
                    records: card.allocate(need.attempts * kernels::RECORD_BYTES)?,
                    roots: card.allocate(need.attempts * 32)?,
                    hits: card.allocate(launch::hits_bytes(HIT_CAPACITY))?,
                    told: card.allocate_host(launch::hits_bytes(HIT_CAPACITY))?,
                })
            })
            .collect::<Result<Vec<_>, DeviceFault>>()?;
        self.room = Some(Room {
            seeds: card.allocate(need.attempts * 32)?,
            states: card.allocate(need.states)?,
            x: card.allocate(need.x)?,
            y1: card.allocate(need.y1)?,
            cvs: card.allocate(need.cvs)?,
            slots,
        });
        Ok(())
    }

    /// Queues the kernels of one launch; records are in the slot already.
    fn queue(&self, shape: Shape, attempts: usize, kind: Records, target: [u32; 8], slot: usize) -> Result<(), DeviceFault> {
        let (Some(room), Some(weights)) = (&self.room, self.weights.front()) else {
            unreachable!("both are prepared before a launch is queued");
        };
        let (card, slot) = (&self.card, &room.slots[slot]);
        let (m, n, k) = (shape.m(), shape.n(), shape.k());
        let [s1, s2] = shape.shifts();
        let rows = attempts * m as usize;
        let padded = kernels::padded_rows(card.architecture, rows);
        let first = Product { rows: padded, n, k, shift: s1 };
        let second = Product { rows: padded, n, k: n, shift: s2 };

        card.launch(&launch::attempt_rows(&slot.records, kind, attempts, sizes(shape), &room.seeds, &room.states))?;
        if card.architecture == Architecture::Sm90a {
            card.launch(&launch::product_born(card, &room.states, &weights.first, &room.y1, first))?;
        } else {
            card.launch(&launch::expand_rows(&room.states, rows, k, false, &room.x))?;
            card.launch(&launch::product(card, &room.x, &weights.first, &room.y1, first))?;
        }
        if card.architecture == Architecture::Sm90a && n >= HASHED_FROM {
            card.launch(&launch::product_hash(card, &room.y1, &weights.second, &room.cvs, m, second))?;
        } else {
            card.launch(&launch::product(card, &room.y1, &weights.second, &room.x, second))?;
            card.launch(&launch::chunk_hashes(&room.x, rows, m, n, &room.cvs))?;
        }
        card.clear(&slot.hits, 1)?;
        let buffers = TicketBuffers { seeds: &room.seeds, cvs: &room.cvs, roots: &slot.roots, hits: &slot.hits };
        card.launch(&launch::tickets(buffers, attempts, m, n, target, HIT_CAPACITY))
    }

    fn search(&mut self, job: &SearchJob, stop: &Stop) -> Result<SearchReport, DeviceFault> {
        self.prepare_weights(job.shape)?;
        let target = kernels::target_words(&job.target.to_be_bytes());
        let mut report = SearchReport { hits: Vec::new(), attempts_done: 0, busy: Duration::ZERO };
        let mut flights: VecDeque<Flight> = VecDeque::with_capacity(IN_FLIGHT);
        let (mut next, mut slot) = (0, 0);
        let result = loop {
            let mut queued = Ok(());
            while queued.is_ok() && flights.len() < IN_FLIGHT && next < job.count && !stop.is_set() {
                let attempts = self.launch_attempts(job.shape).min((job.count - next) as usize);
                // Scratch memory grows only between flights: those that are queued use it.
                let need = self.need(job.shape, attempts);
                if !flights.is_empty() && !self.room.as_ref().is_some_and(|room| room.holds(need)) {
                    break;
                }
                queued = self.take_off(job, target, next, attempts, slot).map(|flight| {
                    flights.push_back(flight);
                    next += u32::try_from(attempts).unwrap_or(u32::MAX);
                    slot = (slot + 1) % IN_FLIGHT;
                });
            }
            if let Err(fault) = queued {
                break Err(fault);
            }
            let Some(flight) = flights.pop_front() else { break Ok(()) };
            if let Err(fault) = self.land(job, &flight, &mut report) {
                break Err(fault);
            }
        };
        if result.is_err() {
            // What is still queued uses this room; a card that does not finish it is dead and keeps it.
            for flight in &flights {
                if self.card.wait(&flight.arrived).is_err() {
                    break;
                }
            }
        }
        report.hits.sort_unstable();
        result.map(|()| report)
    }

    /// Queues one launch of a search.
    fn take_off(&mut self, job: &SearchJob, target: [u32; 8], first: u32, attempts: usize, slot: usize) -> Result<Flight, DeviceFault> {
        self.prepare_room(self.need(job.shape, attempts))?;
        let nonce = job.first_nonce.get() + u64::from(first);
        let record = kernels::attempt_record(&job.prev_hash.0, &job.miner.0, nonce, job.timestamp.0);
        let Some(room) = &self.room else { unreachable!("prepared above") };
        self.card.upload(&record, &room.slots[slot].records)?;
        let began = self.card.mark()?;
        self.queue(job.shape, attempts, Records::Run, target, slot)?;
        let ended = self.card.mark()?;
        let Some(room) = &mut self.room else { unreachable!("prepared above") };
        let Slot { hits, told, .. } = &mut room.slots[slot];
        let arrived = self.card.queue_download(&ended, hits, told)?;
        Ok(Flight { first, attempts, slot, began, ended, arrived })
    }

    /// Waits for a launch and adds what it found to the report.
    fn land(&mut self, job: &SearchJob, flight: &Flight, report: &mut SearchReport) -> Result<(), DeviceFault> {
        self.card.wait(&flight.arrived)?;
        let took = self.card.between(&flight.began, &flight.ended)?;
        self.note_pace(job.shape, flight.attempts, took);
        let Some(room) = &self.room else { unreachable!("a flight keeps its room") };
        let slot = &room.slots[flight.slot];
        let nonce = |index: usize| {
            let index = u32::try_from(index).ok().filter(|_| index < flight.attempts).and_then(|index| flight.first.checked_add(index));
            index.and_then(|index| job.attempt(index)).map(|attempt| attempt.nonce)
        };
        let told: Vec<u32> = slot.told.words().collect();
        let count = told[0] as usize;
        if count <= HIT_CAPACITY {
            for hit in told[1..].chunks_exact(9).take(count) {
                let Some(nonce) = nonce(hit[0] as usize) else {
                    return Err(DeviceFault::WrongAnswer { detail: format!("a hit at attempt {} of {}", hit[0], flight.attempts) });
                };
                report.hits.push((nonce, root_of(&hit[1..])));
            }
        } else {
            let mut bytes = vec![0; flight.attempts * 32];
            self.card.download(&slot.roots, &mut bytes)?;
            let before = report.hits.len();
            for (index, root) in bytes.chunks_exact(32).enumerate() {
                let root = root_at(root);
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
        report.busy += took;
        Ok(())
    }

    /// The roots of attempts of one shape, in one launch.
    fn roots(&mut self, attempts: &[Attempt], shape: Shape) -> Result<Vec<Root>, DeviceFault> {
        self.prepare_weights(shape)?;
        self.prepare_room(self.need(shape, attempts.len()))?;
        let Some(room) = &self.room else { unreachable!("prepared above") };
        let records: Vec<u8> =
            attempts.iter().flat_map(|a| kernels::attempt_record(&a.prev_hash.0, &a.miner.0, a.nonce.get(), a.timestamp.0)).collect();
        self.card.upload(&records, &room.slots[0].records)?;
        let queued = self.queue(shape, attempts.len(), Records::List, [u32::MAX; 8], 0);
        self.card.wait(&self.card.mark()?)?;
        queued?;
        let mut bytes = vec![0; attempts.len() * 32];
        self.card.download(&room.slots[0].roots, &mut bytes)?;
        Ok(bytes.chunks_exact(32).map(root_at).collect())
    }

    fn products_only(&mut self, shape: Shape, seconds: f64) -> Result<ProductsReport, DeviceFault> {
        self.prepare_weights(shape)?;
        self.room = None;
        let attempts = self.launch_attempts(shape);
        let (m, n, k) = (shape.m(), shape.n(), shape.k());
        let rows = kernels::padded_rows(self.card.architecture, attempts * m as usize);
        let (card, Some(weights)) = (&self.card, self.weights.front()) else { unreachable!("prepared above") };
        let (a, y1, y2) = (card.allocate(rows * k as usize)?, card.allocate(rows * n as usize)?, card.allocate(rows * n as usize)?);
        let states = card.allocate(rows * 64)?;
        // Any random rows will do: those of a long third layer.
        card.launch(&launch::weight_rows(3, u32::try_from(rows).unwrap_or(n), k, &states))?;
        card.launch(&launch::expand_rows(&states, rows, k, false, &a))?;
        let [s1, s2] = shape.shifts();
        let mut flights: VecDeque<(Mark, Mark)> = VecDeque::new();
        let (mut busy, mut launches) = (Duration::ZERO, 0_u32);
        let began = std::time::Instant::now();
        loop {
            let more = began.elapsed().as_secs_f64() < seconds;
            if more {
                let from = card.mark()?;
                card.launch(&launch::product(card, &a, &weights.first, &y1, Product { rows, n, k, shift: s1 }))?;
                card.launch(&launch::product(card, &y1, &weights.second, &y2, Product { rows, n, k: n, shift: s2 }))?;
                flights.push_back((from, card.mark()?));
            }
            if flights.len() > IN_FLIGHT || !more {
                let Some((from, to)) = flights.pop_front() else { break };
                card.wait(&to)?;
                busy += card.between(&from, &to)?;
                launches += 1;
            }
        }
        Ok(ProductsReport { ops: f64::from(launches) * shape.ops() as f64 * attempts as f64, busy })
    }
}

impl Room {
    fn holds(&self, need: Need) -> bool {
        let attempts = need.attempts * 32;
        self.seeds.bytes >= attempts
            && self.states.bytes >= need.states
            && self.x.bytes >= need.x
            && self.y1.bytes >= need.y1
            && self.cvs.bytes >= need.cvs
            && self.slots.iter().all(|slot| slot.roots.bytes >= attempts)
    }
}

fn root_of(words: &[u32]) -> Root {
    let mut root = [0; 32];
    for (bytes, word) in root.chunks_exact_mut(4).zip(words) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    Root(root)
}

fn root_at(bytes: &[u8]) -> Root {
    let mut root = [0; 32];
    root.copy_from_slice(bytes);
    Root(root)
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}
