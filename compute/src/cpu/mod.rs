//! The CPU backend: all cores (or as many as it is told), the fastest instruction set that the machine has.
//!
//! ```text
//! search / roots ──groups of attempts of one shape──▶ a thread each ──rows, layer, layer, hash──▶ roots
//! fewer attempts than threads, or huge ones ──▶ one after the other, their rows and neurons split over the threads
//! ```
//!
//! A group shares each tile of weights that it brings into the cache. It never changes a thread's priority or pins one.

mod bare;
pub mod isa;
mod layout;
mod portable;
#[cfg(target_arch = "x86_64")]
mod simd_avx2;
#[cfg(target_arch = "x86_64")]
mod simd_avx512;
mod simd_memory;

pub use self::bare::Bare;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use rayon::prelude::*;
use tops_protocol::work::v1::{self, AttemptV1, ShapeV1, Variant, WeightsV1};
use tops_protocol::work::{self, Weights};
use tops_protocol::{Attempt, Nonce, Root, Shape};

use self::isa::{Isa, LayerJob, RowsJob};
use self::layout::{BLOCK, Inputs, Line, Packed, TILE, lines};
use crate::backend::{Backend, Device, DeviceFault, DeviceKind, PassedOver, ROOTS_LIMIT, SearchJob, SearchReport, Stop, caught};
use crate::conformance::{self, Level};

/// Rows that share a tile of weights in one group: enough that reading weights costs little beside multiplying.
const GROUP_ROWS: usize = 128;

/// An attempt with larger matrices than this is not given to a thread but split over all of them: so scratch memory stays at a few
/// megabytes a thread, and a stop, which is looked at between attempts, waits for none that one thread has for seconds.
const HUGE_BYTES: usize = 8 << 20;

/// The seed of the self-check's cases.
const SELF_CHECK_SEED: u64 = 0x7095;

/// How many shapes' weights are kept; the one unused for longest goes first. A network has one shape; `verify` and tests have more.
const CACHED_SHAPES: usize = 4;

/// The cores of this machine.
pub struct CpuBackend {
    device: Device,
    isa: Isa,
    pool: rayon::ThreadPool,
    threads: usize,
    v2: Cache<(u32, u32)>,
    v1: Cache<(u32, u32)>,
}

/// Both layers of a shape, packed.
struct Layers {
    first: Packed,
    second: Packed,
}

/// A few shapes' weights, the latest used last.
struct Cache<K>(Mutex<Vec<(K, Arc<Layers>)>>);

impl<K: PartialEq + Copy> Cache<K> {
    fn new() -> Self {
        Self(Mutex::new(Vec::new()))
    }

    fn get(&self, key: K, make: impl FnOnce() -> Layers) -> Arc<Layers> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = match kept.iter().position(|(k, _)| *k == key) {
            Some(at) => kept.remove(at),
            None => {
                if kept.len() == CACHED_SHAPES {
                    kept.remove(0);
                }
                (key, Arc::new(make()))
            }
        };
        let layers = Arc::clone(&entry.1);
        kept.push(entry);
        layers
    }
}

/// A group's matrices, reused from group to group.
#[derive(Default)]
struct Scratch {
    states: Vec<u8>,
    x: Vec<Line>,
    y1: Vec<Line>,
    y2: Vec<Line>,
    panels: Vec<u8>,
}

impl CpuBackend {
    /// A backend over `threads` threads, or one a core; with the best instruction set.
    pub fn new(threads: Option<usize>) -> Result<Self, DeviceFault> {
        Self::with_isa(Isa::best(), threads)
    }

    /// The same with the best instruction set that gives right answers here: it has passed the suite's first level. Those that did not
    /// are in the second place; when none does, the last one's fault is the answer.
    pub fn checked(threads: Option<usize>) -> Result<(Self, Vec<PassedOver>), DeviceFault> {
        let mut passed_over = Vec::new();
        let mut last = DeviceFault::Unsupported { what: "this processor".into() };
        for isa in Isa::detected() {
            let backend = Self::with_isa(isa, threads)?;
            let checked = caught(|| conformance::run(&backend, Level::Start, SELF_CHECK_SEED));
            let fault = match checked {
                Ok(Ok(())) => return Ok((backend, passed_over)),
                Ok(Err(difference)) => difference.into(),
                Err(words) => DeviceFault::Driver { call: "the self-check".into(), detail: words },
            };
            let Device { kind, index, name, .. } = backend.device;
            let reason = format!("its path {} failed its self-check: {fault}", isa.name());
            passed_over.push(PassedOver { kind, index: Some(index), name: Some(name), reason, broken: true });
            last = fault;
        }
        Err(last)
    }

    /// The same with an instruction set of choice: how each of them is tested.
    pub fn with_isa(isa: Isa, threads: Option<usize>) -> Result<Self, DeviceFault> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = threads.unwrap_or(cores).max(1);
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|i| format!("cpu-{i}"))
            .build()
            .map_err(|fault| DeviceFault::Driver { call: "starting threads".into(), detail: fault.to_string() })?;
        let device = Device {
            kind: DeviceKind::Cpu,
            index: 0,
            name: crate::health::cpu_name().unwrap_or_else(|| std::env::consts::ARCH.into()),
            driver: crate::health::kernel_release().unwrap_or_else(|| std::env::consts::OS.into()),
            path: isa.name().into(),
            code_digest: blake3::hash(format!("cpu {} {} {threads}", isa.name(), env!("CARGO_PKG_VERSION")).as_bytes()).to_hex()[..16]
                .into(),
            memory_bytes: crate::health::memory_bytes(),
            units: u32::try_from(threads).unwrap_or(u32::MAX),
            compute_capability: None,
            pci_address: None,
            peak_int8_tops: None,
        };
        Ok(Self { device, isa, pool, threads, v2: Cache::new(), v1: Cache::new() })
    }

    fn layers(&self, shape: Shape) -> Arc<Layers> {
        self.v2.get((shape.n(), shape.k()), || {
            let weights = Weights::new(shape);
            let (n, k) = (shape.n() as usize, shape.k() as usize);
            self.pool.install(|| Layers {
                first: Packed::new(n, k, Inputs::Biased, |j, c| weights.w1()[j * k + c]),
                second: Packed::new(n, n, Inputs::Plain, |j, c| weights.w2()[j * n + c]),
            })
        })
    }

    fn layers_v1(&self, shape: ShapeV1) -> Arc<Layers> {
        self.v1.get((shape.n(), shape.k()), || {
            let weights = WeightsV1::new(shape);
            let (n, k) = (shape.n() as usize, shape.k() as usize);
            self.pool.install(|| Layers {
                first: Packed::new(n, k, Inputs::Biased, |j, c| weights.w1()[c * n + j]),
                second: Packed::new(n, n, Inputs::Plain, |j, c| weights.w2()[c * n + j]),
            })
        })
    }

    /// The roots of a few attempts of one shape, on the calling thread; or over the pool's threads, when `split` is set.
    fn group(&self, attempts: &[Attempt], shape: Shape, layers: &Layers, scratch: &mut Scratch, split: bool) -> Vec<Root> {
        let (m, blocks) = (shape.m() as usize, shape.k() as usize / BLOCK);
        let [s1, s2] = shape.shifts();
        let (tiles, tiles_each) = (attempts.len() * m / TILE, m / TILE);
        let seeds: Vec<_> = attempts.iter().map(work::unit_id).collect();

        scratch.states.resize(attempts.len() * m * 64, 0);
        for (seed, states) in seeds.iter().zip(scratch.states.chunks_exact_mut(m * 64)) {
            work::activations::row_states(seed).fill(states);
        }
        scratch.x.resize(lines(tiles, blocks), Line::ZERO);
        let rows = |(states, out): (&[u8], &mut [Line])| self.isa.rows(&RowsJob { states, blocks }, out);
        if split {
            scratch.states.par_chunks(TILE * 64).zip(scratch.x.par_chunks_mut(lines(1, blocks))).for_each(rows);
        } else {
            rows((&scratch.states, &mut scratch.x));
        }
        self.layer(&scratch.x, &layers.first, s1, &mut scratch.y1, split);
        self.layer(&scratch.y1, &layers.second, s2, &mut scratch.y2, split);

        let blocks = layers.second.strips;
        let hash = |(seed, y): (&_, &[Line]), panels: &mut Vec<u8>| {
            layout::panels(y, m, blocks, panels);
            work::finish_root(seed, blake3::hash(panels).as_bytes())
        };
        let outputs = scratch.y2.chunks_exact(lines(tiles_each, blocks));
        seeds.iter().zip(outputs).map(|each| hash(each, &mut scratch.panels)).collect()
    }

    /// One layer, on the calling thread or with its strips split over the pool's threads.
    fn layer(&self, x: &[Line], weights: &Packed, shift: u32, out: &mut Vec<Line>, split: bool) {
        let tiles = x.len() / lines(1, weights.blocks);
        out.resize(lines(tiles, weights.strips), Line::ZERO);
        let part = if split { weights.strips.div_ceil(self.threads) } else { weights.strips };
        if part == weights.strips {
            return self.isa.layer(&LayerJob { x, weights, strips: 0..weights.strips, shift }, out);
        }
        let parts: Vec<_> = (0..weights.strips)
            .into_par_iter()
            .step_by(part)
            .map(|first| {
                let strips = first..(first + part).min(weights.strips);
                let mut part = vec![Line::ZERO; lines(tiles, strips.len())];
                self.isa.layer(&LayerJob { x, weights, strips: strips.clone(), shift }, &mut part);
                (strips, part)
            })
            .collect();
        for (strips, part) in parts {
            layout::merge(&part, strips.start, strips.len(), out, weights.strips);
        }
    }

    /// The roots of attempts of one shape, over all threads.
    fn same_shape(&self, attempts: &[Attempt], shape: Shape) -> Vec<Root> {
        let layers = self.layers(shape);
        self.pool.install(|| {
            if attempts.len() < self.threads || is_huge(shape) {
                let mut scratch = Scratch::default();
                return attempts.iter().flat_map(|one| self.group(&[*one], shape, &layers, &mut scratch, true)).collect();
            }
            let group = group_len(shape).min(attempts.len().div_ceil(self.threads));
            attempts
                .par_chunks(group)
                .map_init(Scratch::default, |scratch, group| self.group(group, shape, &layers, scratch, false))
                .flatten_iter()
                .collect()
        })
    }

    /// A search whose attempts are done one after the other, each over all threads.
    fn search_huge(&self, job: &SearchJob, layers: &Layers, stop: &Stop) -> (Vec<(Nonce, Root)>, usize) {
        let mut scratch = Scratch::default();
        let (mut hits, mut done) = (Vec::new(), 0);
        for attempt in (0..job.count).map_while(|i| job.attempt(i)) {
            if stop.is_set() {
                break;
            }
            let roots = self.pool.install(|| self.group(&[attempt], job.shape, layers, &mut scratch, true));
            hits.extend(roots.into_iter().filter(|root| root.ticket() <= job.target).map(|root| (attempt.nonce, root)));
            done += 1;
        }
        (hits, done)
    }

    fn v1_root(&self, attempt: &AttemptV1, layers: &Layers, split: bool) -> Root {
        let shape = attempt.shape;
        let seed = v1::seed16(&attempt.prev_hash, attempt.nonce);
        let mut a = v1::activations(&seed, shape);
        let mixed = match attempt.variant {
            Variant::Plain => None,
            Variant::Mixed => {
                let mix = v1::Mix::new(&seed, shape.k());
                for row in a.chunks_exact_mut(shape.k() as usize) {
                    for (column, value) in row.iter_mut().enumerate() {
                        *value = mix.clamped(column, *value);
                    }
                }
                Some(layers.first.clamped(&mix.negated))
            }
        };
        let x = layout::pack_biased(&a, shape.k() as usize);
        let (mut y1, mut y2) = (Vec::new(), Vec::new());
        self.layer(&x, mixed.as_ref().unwrap_or(&layers.first), v1::SHIFT, &mut y1, split);
        self.layer(&y1, &layers.second, v1::SHIFT, &mut y2, split);
        let n = shape.n() as usize;
        let sample: Vec<u8> = crate::sample::positions(&seed, shape)
            .into_iter()
            .map(|p| layout::value(&y2, p as usize / n, p as usize % n, layers.second.strips))
            .collect();
        v1::sample_root(&sample, shape)
    }
}

/// Whether a shape's attempts are split over the threads, however many there are.
fn is_huge(shape: Shape) -> bool {
    let (m, n, k) = (shape.m() as usize, shape.n() as usize, shape.k() as usize);
    m * (k + 3 * n) >= HUGE_BYTES
}

/// How many attempts of a shape make a group.
fn group_len(shape: Shape) -> usize {
    (GROUP_ROWS / shape.m() as usize).max(1)
}

impl Backend for CpuBackend {
    fn device(&self) -> &Device {
        &self.device
    }

    fn batch_step(&self, shape: Shape) -> u32 {
        if is_huge(shape) { 1 } else { u32::try_from(group_len(shape) * self.threads).unwrap_or(1) }
    }

    fn search(&self, job: &SearchJob, stop: &Stop) -> Result<SearchReport, DeviceFault> {
        job.check()?;
        let began = Instant::now();
        let layers = self.layers(job.shape);
        if is_huge(job.shape) {
            let (hits, done) = self.search_huge(job, &layers, stop);
            return Ok(SearchReport { hits, attempts_done: u32::try_from(done).unwrap_or(job.count), busy: began.elapsed() });
        }
        let (count, group) = (job.count as usize, group_len(job.shape));
        let next = AtomicUsize::new(0);
        // Groups are taken in order and always finished, so what is done has no gap.
        let found = self.pool.broadcast(|_| {
            let mut scratch = Scratch::default();
            let (mut hits, mut done) = (Vec::new(), 0_usize);
            while !stop.is_set() {
                let first = next.fetch_add(group, Ordering::Relaxed);
                if first >= count {
                    break;
                }
                let last = (first + group).min(count);
                let attempts: Vec<Attempt> = (first..last).filter_map(|i| job.attempt(u32::try_from(i).ok()?)).collect();
                let roots = self.group(&attempts, job.shape, &layers, &mut scratch, false);
                hits.extend(
                    attempts.iter().zip(roots).filter(|(_, root)| root.ticket() <= job.target).map(|(attempt, root)| (attempt.nonce, root)),
                );
                done += attempts.len();
            }
            (hits, done)
        });
        let done: usize = found.iter().map(|(_, done)| done).sum();
        let mut hits: Vec<(Nonce, Root)> = found.into_iter().flat_map(|(hits, _)| hits).collect();
        hits.sort_unstable();
        Ok(SearchReport { hits, attempts_done: u32::try_from(done).unwrap_or(job.count), busy: began.elapsed() })
    }

    fn roots(&self, attempts: &[Attempt]) -> Result<Vec<Root>, DeviceFault> {
        check_len(attempts.len())?;
        let mut order: Vec<usize> = (0..attempts.len()).collect();
        order.sort_by_key(|&i| attempts[i].shape);
        let mut roots = vec![Root([0; 32]); attempts.len()];
        for same in order.chunk_by(|&a, &b| attempts[a].shape == attempts[b].shape) {
            let group: Vec<Attempt> = same.iter().map(|&i| attempts[i]).collect();
            for (&i, root) in same.iter().zip(self.same_shape(&group, group[0].shape)) {
                roots[i] = root;
            }
        }
        Ok(roots)
    }

    fn v1_roots(&self, attempts: &[AttemptV1]) -> Result<Vec<Root>, DeviceFault> {
        check_len(attempts.len())?;
        let weights = |i: usize| (attempts[i].shape.n(), attempts[i].shape.k());
        let mut order: Vec<usize> = (0..attempts.len()).collect();
        order.sort_by_key(|&i| weights(i));
        let mut roots = vec![Root([0; 32]); attempts.len()];
        for same in order.chunk_by(|&a, &b| weights(a) == weights(b)) {
            // Made on this thread: a thread of the pool that held the cache's lock while it makes weights, which the pool shares, could be
            // given another attempt that wants the lock.
            let layers = self.layers_v1(attempts[same[0]].shape);
            let some: Vec<Root> = self.pool.install(|| {
                if same.len() < self.threads {
                    same.iter().map(|&i| self.v1_root(&attempts[i], &layers, true)).collect()
                } else {
                    same.par_iter().map(|&i| self.v1_root(&attempts[i], &layers, false)).collect()
                }
            });
            for (&i, root) in same.iter().zip(some) {
                roots[i] = root;
            }
        }
        Ok(roots)
    }
}

fn check_len(len: usize) -> Result<(), DeviceFault> {
    if len > ROOTS_LIMIT {
        return Err(DeviceFault::Unsupported { what: format!("{len} roots in one call (at most {ROOTS_LIMIT})") });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tops_protocol::{Millis, PublicKey, U256};

    fn job(shape: Shape, count: u32) -> SearchJob {
        SearchJob {
            prev_hash: Root([5; 32]),
            miner: PublicKey([2; 33]),
            timestamp: Millis(9),
            shape,
            first_nonce: Nonce::new(70).unwrap(),
            count,
            target: U256::MAX,
        }
    }

    #[test]
    fn huge_attempts_are_split_give_the_same_roots_and_stop_between_each_other() {
        let shape = Shape::new(8192, 256, 512).unwrap();
        assert!(is_huge(shape) && !is_huge(Shape::STANDARD));
        let backend = CpuBackend::new(Some(2)).unwrap();
        let job = job(shape, 3);
        let attempts: Vec<Attempt> = (0..job.count).filter_map(|i| job.attempt(i)).collect();
        let layers = backend.layers(shape);
        let expected = backend.group(&attempts, shape, &layers, &mut Scratch::default(), false);
        let report = backend.search(&job, &Stop::new()).unwrap();
        assert_eq!(report.attempts_done, job.count);
        assert_eq!(report.hits, attempts.iter().map(|attempt| attempt.nonce).zip(expected.iter().copied()).collect::<Vec<_>>());
        assert_eq!(backend.roots(&attempts).unwrap(), expected);

        let many = SearchJob { count: 1 << 20, ..job };
        let stop = Stop::new();
        let report = std::thread::scope(|scope| {
            let searching = scope.spawn(|| backend.search(&many, &stop).unwrap());
            std::thread::sleep(std::time::Duration::from_millis(20));
            stop.stop();
            searching.join().unwrap()
        });
        assert!(report.attempts_done < many.count);
        assert!(report.hits.iter().map(|(nonce, _)| nonce.get()).eq(70..70 + u64::from(report.attempts_done)));
    }

    /// The first call for a shape makes its weights, and every thread of the pool wants them at once.
    #[test]
    fn many_attempts_of_new_v1_shapes_wait_for_nobody() {
        let backend = CpuBackend::new(Some(4)).unwrap();
        let shapes: Vec<ShapeV1> = (0..6).map(|i| ShapeV1::new(3 + i, 200 + i, 100).unwrap()).collect();
        let attempts: Vec<AttemptV1> = (0..60)
            .map(|nonce| {
                let variant = if nonce % 2 == 0 { Variant::Plain } else { Variant::Mixed };
                AttemptV1 { prev_hash: Root([1; 32]), nonce, shape: shapes[nonce as usize % shapes.len()], variant }
            })
            .collect();
        let expected: Vec<Root> = attempts.iter().map(|a| v1::root(&a.prev_hash, a.nonce, a.shape, a.variant)).collect();
        assert_eq!(backend.v1_roots(&attempts).unwrap(), expected);
    }

    #[test]
    fn a_right_processor_is_checked_and_nothing_is_passed_over() {
        let (backend, passed_over) = CpuBackend::checked(Some(1)).unwrap();
        assert_eq!(backend.device().path, Isa::best().name());
        assert_eq!(passed_over, []);
    }
}
