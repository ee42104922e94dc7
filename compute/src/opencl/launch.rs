//! Calls of the kernels: one function a kernel, which knows its parameters, its work-groups, and how much each buffer must hold.
//!
//! The card refuses a call whose buffers are too small, so a wrong size here ends in a panic with words and never in foreign memory.
//! Nothing here touches the device. Layouts: `tops_kernels::opencl`.

use tops_kernels::opencl::{self as kernels, HIT_WORDS, RECORD_BYTES, ROW_STEP, TICKET_ITEMS, TILE_COLUMNS};

use super::{Buffer, Card};

/// A kernel of the source.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kernel {
    AttemptSeeds,
    AttemptRows,
    WeightRows,
    ExpandRows,
    Product,
    ChunkHashes,
    Tickets,
    ClampColumns,
    PickValues,
}

impl Kernel {
    pub(super) const ALL: [Self; 9] = [
        Self::AttemptSeeds,
        Self::AttemptRows,
        Self::WeightRows,
        Self::ExpandRows,
        Self::Product,
        Self::ChunkHashes,
        Self::Tickets,
        Self::ClampColumns,
        Self::PickValues,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::AttemptSeeds => "attempt_seeds",
            Self::AttemptRows => "attempt_rows",
            Self::WeightRows => "weight_rows",
            Self::ExpandRows => "expand_rows",
            Self::Product => "product",
            Self::ChunkHashes => "chunk_hashes",
            Self::Tickets => "tickets",
            Self::ClampColumns => "clamp_columns",
            Self::PickValues => "pick_values",
        }
    }
}

/// One argument, in the order of the kernel's parameters.
pub(super) enum Arg<'a> {
    Word(u32),
    Words([u32; 4]),
    Buffer(&'a Buffer),
}

/// A kernel to launch: `groups` work-groups of `group` items.
pub(super) struct Call<'a> {
    pub(super) kernel: Kernel,
    pub(super) groups: usize,
    pub(super) group: usize,
    pub(super) args: Vec<Arg<'a>>,
    /// How many bytes each buffer must have.
    pub(super) needs: Vec<(&'a Buffer, usize)>,
}

/// Work-items of the kernels that have one item a row, chunk or word.
const GROUP: usize = 64;

/// Sizes of an attempt: rows, neurons, contraction of the first product.
#[derive(Clone, Copy)]
pub(super) struct Sizes {
    pub(super) m: u32,
    pub(super) n: u32,
    pub(super) k: u32,
}

/// A product's sizes: padded rows, outputs a row, contraction; and its shift.
#[derive(Clone, Copy)]
pub(super) struct Layer {
    pub(super) rows: usize,
    pub(super) n: u32,
    pub(super) k: u32,
    pub(super) shift: u32,
}

/// Where attempts come from: one record and consecutive nonces, or a record each.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Records {
    Run,
    List,
}

fn word(value: usize) -> Arg<'static> {
    Arg::Word(u32::try_from(value).unwrap_or_else(|_| unreachable!("launches are bounded by scratch memory, far below 2^32 rows")))
}

fn groups(items: usize) -> usize {
    items.div_ceil(GROUP).max(1)
}

pub(super) fn attempt_seeds<'a>(records: &'a Buffer, kind: Records, attempts: usize, sizes: Sizes, seeds: &'a Buffer) -> Call<'a> {
    let (record_step, nonce_step, listed) = match kind {
        Records::Run => (0, 1, 1),
        Records::List => (1, 0, attempts),
    };
    Call {
        kernel: Kernel::AttemptSeeds,
        groups: groups(attempts),
        group: GROUP,
        args: vec![
            Arg::Buffer(records),
            Arg::Word(record_step),
            Arg::Word(nonce_step),
            word(attempts),
            Arg::Word(sizes.m),
            Arg::Word(sizes.n),
            Arg::Word(sizes.k),
            Arg::Buffer(seeds),
        ],
        needs: vec![(records, listed * RECORD_BYTES), (seeds, attempts * 32)],
    }
}

pub(super) fn attempt_rows<'a>(seeds: &'a Buffer, attempts: usize, m: u32, states: &'a Buffer) -> Call<'a> {
    let rows = attempts * m as usize;
    Call {
        kernel: Kernel::AttemptRows,
        groups: groups(rows),
        group: GROUP,
        args: vec![Arg::Buffer(seeds), word(rows), Arg::Word(m), Arg::Buffer(states)],
        needs: vec![(seeds, attempts * 32), (states, rows * 64)],
    }
}

pub(super) fn weight_rows(layer: u32, n: u32, cols: u32, states: &Buffer) -> Call<'_> {
    let rows = n as usize;
    Call {
        kernel: Kernel::WeightRows,
        groups: groups(rows),
        group: GROUP,
        args: vec![Arg::Word(layer), Arg::Word(n), Arg::Word(cols), word(rows), Arg::Buffer(states)],
        needs: vec![(states, rows * 64)],
    }
}

pub(super) fn expand_rows<'a>(states: &'a Buffer, rows: usize, cols: u32, permuted: bool, out: &'a Buffer) -> Call<'a> {
    Call {
        kernel: Kernel::ExpandRows,
        groups: groups(rows),
        group: GROUP,
        args: vec![Arg::Buffer(states), word(rows), Arg::Word(cols), Arg::Word(permuted.into()), Arg::Buffer(out)],
        needs: vec![(states, rows * 64), (out, rows * cols as usize)],
    }
}

/// Tiles of a product.
pub(super) fn tiles(layer: Layer) -> usize {
    layer.rows / ROW_STEP * (layer.n as usize / TILE_COLUMNS)
}

/// Tiles `first..first + count` of a product.
pub(super) fn product<'a>(card: &Card, a: &'a Buffer, w: &'a Buffer, y: &'a Buffer, layer: Layer, first: usize, count: usize) -> Call<'a> {
    assert!(first + count <= tiles(layer), "tiles {first} to {} of {}", first + count, tiles(layer));
    let (n, k) = (layer.n as usize, layer.k as usize);
    Call {
        kernel: Kernel::Product,
        groups: count,
        group: card.product.items(),
        args: vec![
            Arg::Buffer(a),
            Arg::Buffer(w),
            Arg::Buffer(y),
            word(layer.rows),
            Arg::Word(layer.n),
            Arg::Word(layer.k),
            Arg::Word(layer.shift),
            word(first),
        ],
        needs: vec![(a, layer.rows * k), (w, n * k), (y, layer.rows * n)],
    }
}

pub(super) fn chunk_hashes<'a>(y: &'a Buffer, rows: usize, m: u32, n: u32, cvs: &'a Buffer) -> Call<'a> {
    let chunks = rows / 16 * (n / 64) as usize;
    Call {
        kernel: Kernel::ChunkHashes,
        groups: groups(chunks),
        group: GROUP,
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
    let [a, b, c, d, e, f, g, h] = target;
    Call {
        kernel: Kernel::Tickets,
        groups: attempts,
        group: TICKET_ITEMS,
        args: vec![
            Arg::Buffer(seeds),
            Arg::Buffer(cvs),
            Arg::Word(chunks),
            Arg::Words([a, b, c, d]),
            Arg::Words([e, f, g, h]),
            Arg::Buffer(roots),
            Arg::Buffer(hits),
            word(capacity),
        ],
        needs: vec![(seeds, attempts * 32), (cvs, attempts * chunks as usize * 32), (roots, attempts * 32), (hits, hits_bytes(capacity))],
    }
}

/// The size of a buffer for this many hits.
pub(super) fn hits_bytes(capacity: usize) -> usize {
    4 * (1 + HIT_WORDS * capacity)
}

pub(super) fn clamp_columns<'a>(w: &'a Buffer, marked: &'a Buffer, rows: u32, cols: u32, out: &'a Buffer) -> Call<'a> {
    let bytes = rows as usize * cols as usize;
    Call {
        kernel: Kernel::ClampColumns,
        groups: groups(bytes / 4),
        group: GROUP,
        args: vec![Arg::Buffer(w), Arg::Buffer(marked), Arg::Word(rows), Arg::Word(cols), Arg::Buffer(out)],
        needs: vec![(w, bytes), (marked, cols as usize), (out, bytes)],
    }
}

pub(super) fn pick_values<'a>(y: &'a Buffer, y_bytes: usize, positions: &'a Buffer, count: usize, out: &'a Buffer) -> Call<'a> {
    Call {
        kernel: Kernel::PickValues,
        groups: groups(count),
        group: GROUP,
        args: vec![Arg::Buffer(y), word(y_bytes), Arg::Buffer(positions), word(count), Arg::Buffer(out)],
        needs: vec![(y, y_bytes), (positions, count * 4), (out, count)],
    }
}
