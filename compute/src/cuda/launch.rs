//! Calls of the kernels: one function an entry point, which knows its parameters, its grid, and how much each buffer must hold.
//!
//! The card refuses a call whose buffers are too small, so a wrong size here ends in a panic with words and never in foreign memory.
//! Nothing here touches the device. Layouts: `tops_kernels::cuda`.

use tops_kernels::cuda::{self as kernels, Architecture, CLUSTER, Entry, RECORD_BYTES, TILE_COLUMNS};

use super::{Buffer, Card};

/// One argument, in the order of the entry point's parameters.
pub(super) enum Arg<'a> {
    Word(u32),
    Buffer(&'a Buffer),
    Target([u32; 8]),
    /// A row-major byte matrix for TMA.
    Map {
        buffer: &'a Buffer,
        columns: usize,
        rows: usize,
    },
}

/// A kernel to launch.
pub(super) struct Call<'a> {
    pub(super) entry: Entry,
    pub(super) grid: u32,
    pub(super) args: Vec<Arg<'a>>,
    /// How many bytes each buffer must have.
    pub(super) needs: Vec<(&'a Buffer, usize)>,
}

/// Sizes of an attempt: rows, neurons, contraction of the first product.
#[derive(Clone, Copy)]
pub(super) struct Sizes {
    pub(super) m: u32,
    pub(super) n: u32,
    pub(super) k: u32,
}

/// A product's sizes: padded rows, outputs a row, contraction; and its shift.
#[derive(Clone, Copy)]
pub(super) struct Product {
    pub(super) rows: usize,
    pub(super) n: u32,
    pub(super) k: u32,
    pub(super) shift: u32,
}

fn grid(items: usize, each: usize) -> u32 {
    u32::try_from(items.div_ceil(each).max(1))
        .unwrap_or_else(|_| unreachable!("launches are bounded by scratch memory, far below 2^32 blocks"))
}

fn word(value: usize) -> Arg<'static> {
    Arg::Word(u32::try_from(value).unwrap_or_else(|_| unreachable!("launches are bounded by scratch memory, far below 2^32 rows")))
}

/// Where attempts come from: one record and consecutive nonces, or a record each.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Records {
    Run,
    List,
}

pub(super) fn attempt_rows<'a>(
    records: &'a Buffer,
    kind: Records,
    attempts: usize,
    sizes: Sizes,
    seeds: &'a Buffer,
    states: &'a Buffer,
) -> Call<'a> {
    let rows = attempts * sizes.m as usize;
    let (record_step, nonce_step, listed) = match kind {
        Records::Run => (0, 1, 1),
        Records::List => (1, 0, attempts),
    };
    Call {
        entry: Entry::AttemptRows,
        grid: grid(rows, 128),
        args: vec![
            Arg::Buffer(records),
            Arg::Word(record_step),
            Arg::Word(nonce_step),
            word(attempts),
            Arg::Word(sizes.m),
            Arg::Word(sizes.n),
            Arg::Word(sizes.k),
            Arg::Buffer(seeds),
            Arg::Buffer(states),
        ],
        needs: vec![(records, listed * RECORD_BYTES), (seeds, attempts * 32), (states, rows * 64)],
    }
}

pub(super) fn weight_rows(layer: u32, n: u32, cols: u32, states: &Buffer) -> Call<'_> {
    let rows = n as usize;
    Call {
        entry: Entry::WeightRows,
        grid: grid(rows, 128),
        args: vec![Arg::Word(layer), Arg::Word(n), Arg::Word(cols), word(rows), Arg::Buffer(states)],
        needs: vec![(states, rows * 64)],
    }
}

pub(super) fn expand_rows<'a>(states: &'a Buffer, rows: usize, cols: u32, permuted: bool, out: &'a Buffer) -> Call<'a> {
    Call {
        entry: Entry::ExpandRows,
        grid: grid(rows, 64),
        args: vec![Arg::Buffer(states), word(rows), Arg::Word(cols), Arg::Word(permuted.into()), Arg::Buffer(out)],
        needs: vec![(states, rows * 64), (out, rows * cols as usize)],
    }
}

pub(super) fn chunk_hashes<'a>(y: &'a Buffer, rows: usize, m: u32, n: u32, cvs: &'a Buffer) -> Call<'a> {
    let chunks = rows / 16 * (n / 64) as usize;
    Call {
        entry: Entry::ChunkHashes,
        grid: grid(chunks, 128),
        args: vec![Arg::Buffer(y), word(rows), Arg::Word(m), Arg::Word(n), Arg::Buffer(cvs)],
        needs: vec![(y, rows * n as usize), (cvs, chunks * 32)],
    }
}

/// What `tickets` reads and writes.
pub(super) struct TicketBuffers<'a> {
    pub(super) seeds: &'a Buffer,
    pub(super) cvs: &'a Buffer,
    pub(super) roots: &'a Buffer,
    pub(super) hits: &'a Buffer,
}

pub(super) fn tickets<'a>(buffers: TicketBuffers<'a>, attempts: usize, m: u32, n: u32, target: [u32; 8], capacity: usize) -> Call<'a> {
    let TicketBuffers { seeds, cvs, roots, hits } = buffers;
    let chunks = kernels::chunks(m, n);
    let each = kernels::ticket_attempts(chunks);
    Call {
        entry: Entry::Tickets,
        grid: grid(attempts, each as usize),
        args: vec![
            Arg::Buffer(seeds),
            Arg::Buffer(cvs),
            word(attempts),
            Arg::Word(chunks),
            Arg::Word(each),
            Arg::Target(target),
            Arg::Buffer(roots),
            Arg::Buffer(hits),
            word(capacity),
        ],
        needs: vec![(seeds, attempts * 32), (cvs, attempts * chunks as usize * 32), (roots, attempts * 32), (hits, hits_bytes(capacity))],
    }
}

/// The size of a buffer for this many hits.
pub(super) fn hits_bytes(capacity: usize) -> usize {
    4 + 36 * capacity
}

pub(super) fn clamp_columns<'a>(w: &'a Buffer, marked: &'a Buffer, rows: usize, cols: u32, out: &'a Buffer) -> Call<'a> {
    let bytes = rows * cols as usize;
    Call {
        entry: Entry::ClampColumns,
        grid: grid(bytes, 1024),
        args: vec![Arg::Buffer(w), Arg::Buffer(marked), word(rows), Arg::Word(cols), Arg::Buffer(out)],
        needs: vec![(w, bytes), (marked, cols as usize), (out, bytes)],
    }
}

/// Sm90a: the persistent grid, no larger than there are tiles for.
fn persistent(card: &Card, p: Product) -> u32 {
    let clusters = p.rows / Architecture::Sm90a.row_step() * (p.n / TILE_COLUMNS) as usize;
    card.wave.min(grid(clusters, 1).saturating_mul(CLUSTER))
}

/// Sm90a: the first product, its activations made on chip.
pub(super) fn product_born<'a>(card: &Card, states: &'a Buffer, w: &'a Buffer, y: &'a Buffer, p: Product) -> Call<'a> {
    let (n, k) = (p.n as usize, p.k as usize);
    Call {
        entry: Entry::ProductBorn,
        grid: persistent(card, p),
        args: vec![
            Arg::Map { buffer: w, columns: k, rows: n },
            Arg::Buffer(states),
            Arg::Buffer(y),
            word(p.rows),
            Arg::Word(p.n),
            Arg::Word(p.k),
            Arg::Word(p.shift),
        ],
        needs: vec![(w, n * k), (states, p.rows * 64), (y, p.rows * n)],
    }
}

/// Sm90a: the second product, its outputs hashed on chip.
pub(super) fn product_hash<'a>(card: &Card, a: &'a Buffer, w: &'a Buffer, cvs: &'a Buffer, m: u32, p: Product) -> Call<'a> {
    let (n, k) = (p.n as usize, p.k as usize);
    Call {
        entry: Entry::ProductHash,
        grid: persistent(card, p),
        args: vec![
            Arg::Map { buffer: a, columns: k, rows: p.rows },
            Arg::Map { buffer: w, columns: k, rows: n },
            Arg::Buffer(cvs),
            word(p.rows),
            Arg::Word(p.n),
            Arg::Word(p.k),
            Arg::Word(m),
            Arg::Word(p.shift),
        ],
        needs: vec![(a, p.rows * k), (w, n * k), (cvs, kernels::cvs_bytes(Architecture::Sm90a, p.rows, m, p.n))],
    }
}

/// A product of matrices in memory, as the card's architecture does it.
pub(super) fn product<'a>(card: &Card, a: &'a Buffer, w: &'a Buffer, y: &'a Buffer, p: Product) -> Call<'a> {
    let (n, k) = (p.n as usize, p.k as usize);
    let scalars = [word(p.rows), Arg::Word(p.n), Arg::Word(p.k), Arg::Word(p.shift)];
    let needs = vec![(a, p.rows * k), (w, n * k), (y, p.rows * n)];
    let tiles = |columns: usize| grid(p.rows / 128 * (n / columns), 1);
    let (entry, grid, operands) = match card.architecture {
        Architecture::Sm90a => {
            let maps = [Arg::Map { buffer: a, columns: k, rows: p.rows }, Arg::Map { buffer: w, columns: k, rows: n }];
            (Entry::ProductStore, persistent(card, p), maps)
        }
        Architecture::Mma if card.wide => (Entry::ProductMmaWide, tiles(256), [Arg::Buffer(a), Arg::Buffer(w)]),
        Architecture::Mma => (Entry::ProductMma, tiles(256), [Arg::Buffer(a), Arg::Buffer(w)]),
        Architecture::Dp4a => (Entry::ProductDp4a, tiles(128), [Arg::Buffer(a), Arg::Buffer(w)]),
    };
    let args = operands.into_iter().chain([Arg::Buffer(y)]).chain(scalars).collect();
    Call { entry, grid, args, needs }
}
