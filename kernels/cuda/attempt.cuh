// What surrounds the products, the same on every CUDA device: seeds and row states before them, expansion of a row's streams
// into bytes, hashing of panels, and the merge of chunks into work roots after them.
//
//   attempt_rows -> (expand_rows) -> product -> product -> (chunk_hashes) -> tickets
//
// The steps in brackets are done inside the products where the architecture has room for it.
#pragma once
#include "blake3.cuh"
#include "xoshiro.cuh"

#define ROWS_THREADS 128
#define TICKET_THREADS 128
#define TICKET_ATTEMPTS 8

// seeds[attempt][8 words], states[row][4 streams][4 words]. Attempt i is record i*record_step with i*nonce_step added to its nonce:
// (0, 1) for a run of nonces, (1, 0) for a list. One thread a row.
extern "C" __global__ void __launch_bounds__(ROWS_THREADS) attempt_rows(const AttemptRecord *__restrict__ records, u32 record_step,
                                                                        u32 nonce_step, u32 attempts, u32 m, u32 n, u32 k,
                                                                        u32 *__restrict__ seeds, uint4 *__restrict__ states) {
    __shared__ u32 local[ROWS_THREADS / 16 + 1][8];
    u64 rows = (u64)attempts * m;
    u64 first_row = (u64)blockIdx.x * ROWS_THREADS;
    u64 last_row = min(first_row + ROWS_THREADS, rows) - 1;
    u32 first = (u32)(first_row / m), last = (u32)(last_row / m);
    u32 a = first + threadIdx.x;
    if (a <= last) {
        AttemptRecord r = records[(u64)a * record_step];
        u32 seed[8];
        attempt_seed(seed, r, r.nonce + (u64)a * nonce_step, m, n, k);
#pragma unroll
        for (int i = 0; i < 8; i++) local[threadIdx.x][i] = seed[i];
        if ((u64)a * m >= first_row) {
#pragma unroll
            for (int i = 0; i < 8; i++) seeds[(u64)a * 8 + i] = seed[i];
        }
    }
    __syncthreads();
    u64 row = first_row + threadIdx.x;
    if (row >= rows) return;
    u32 mine = (u32)(row / m);
    u32 seed[8], out[16];
#pragma unroll
    for (int i = 0; i < 8; i++) seed[i] = local[mine - first][i];
    activation_row_states(out, seed, (u32)(row - (u64)mine * m));
#pragma unroll
    for (int i = 0; i < 4; i++) states[row * 4 + i] = make_uint4(out[4 * i], out[4 * i + 1], out[4 * i + 2], out[4 * i + 3]);
}

// The row states of a weight matrix of `rows` neurons.
extern "C" __global__ void __launch_bounds__(ROWS_THREADS) weight_rows(u32 layer, u32 n, u32 cols, u32 rows,
                                                                       uint4 *__restrict__ states) {
    u32 row = blockIdx.x * ROWS_THREADS + threadIdx.x;
    if (row >= rows) return;
    u32 out[16];
    weight_row_states(out, layer, n, cols, row);
#pragma unroll
    for (int i = 0; i < 4; i++) states[(u64)row * 4 + i] = make_uint4(out[4 * i], out[4 * i + 1], out[4 * i + 2], out[4 * i + 3]);
}

// out[row][cols] from the row's states; with `permuted`, neuron r goes to physical_row(r). Four neighbouring lanes make a row: four
// steps of four streams are a 4x4 block of words, transposed so that a lane stores sixteen neighbouring bytes.
extern "C" __global__ void __launch_bounds__(256) expand_rows(const uint4 *__restrict__ states, u32 rows, u32 cols, u32 permuted,
                                                              i8 *__restrict__ out) {
    u64 id = (u64)blockIdx.x * 256 + threadIdx.x;
    u32 q = threadIdx.x & 3;
    u32 row = (u32)(id >> 2);
    bool live = row < rows;
    uint4 s = live ? states[(u64)row * 4 + q] : make_uint4(1, 2, 3, 4);
    Stream stream = {s.x, s.y, s.z, s.w};
    i8 *to = out + (u64)(permuted ? physical_row(row) : row) * cols + 16 * q;
    for (u32 at = 0; at < cols; at += 64) {
        u32 w0 = stream.next(), w1 = stream.next(), w2 = stream.next(), w3 = stream.next();
        u32 x0 = __shfl_xor_sync(~0u, (q & 1) ? w0 : w1, 1);
        u32 x1 = __shfl_xor_sync(~0u, (q & 1) ? w2 : w3, 1);
        u32 a0 = (q & 1) ? x0 : w0, a1 = (q & 1) ? w1 : x0;
        u32 b0 = (q & 1) ? x1 : w2, b1 = (q & 1) ? w3 : x1;
        u32 y0 = __shfl_xor_sync(~0u, (q & 2) ? a0 : b0, 2);
        u32 y1 = __shfl_xor_sync(~0u, (q & 2) ? a1 : b1, 2);
        uint4 v = (q & 2) ? make_uint4(y0, y1, b0, b1) : make_uint4(a0, a1, y0, y1);
        if (live) *(uint4 *)(to + at) = v;
    }
}

// The chaining value of chunk `chunk` of an attempt: sixteen rows of one 64-column panel (spec §1.5), read through `load`, which
// gives sixteen bytes: load(row 0..16, quarter of the row 0..4).
template <class Load>
DEV void panel_chunk(u32 (&cv)[8], u32 chunk, const Load &load) {
    const u32 iv[8] = {IV_WORDS};
#pragma unroll
    for (int i = 0; i < 8; i++) cv[i] = iv[i];
#pragma unroll 1
    for (u32 block = 0; block < 16; block++) {
        u32 m[16];
#pragma unroll
        for (int i = 0; i < 4; i++) {
            uint4 v = load(block, i);
            m[4 * i] = v.x;
            m[4 * i + 1] = v.y;
            m[4 * i + 2] = v.z;
            m[4 * i + 3] = v.w;
        }
        u32 flags = (block == 0 ? CHUNK_START : 0) | (block == 15 ? CHUNK_END : 0);
        blake3_compress(cv, cv, m, chunk, 64, flags);
    }
}

// Where the chaining value of (row group, panel) lies: cvs[attempt][chunk][8 words], chunk = panel * (m/16) + row group in the attempt.
DEV void chunk_address(u32 group, u32 panel, u32 m, u32 n, u32 &chunk, u64 &at) {
    u32 groups = m / 16;
    u32 attempt = group / groups;
    chunk = panel * groups + (group - attempt * groups);
    at = (u64)attempt * (groups * (n / 64)) + chunk;
}

DEV void store_words(u32 *to, const u32 (&v)[8]) {
    ((uint4 *)to)[0] = make_uint4(v[0], v[1], v[2], v[3]);
    ((uint4 *)to)[1] = make_uint4(v[4], v[5], v[6], v[7]);
}

DEV void load_words(u32 (&v)[8], const u32 *from) {
    uint4 a = ((const uint4 *)from)[0], b = ((const uint4 *)from)[1];
    v[0] = a.x, v[1] = a.y, v[2] = a.z, v[3] = a.w;
    v[4] = b.x, v[5] = b.y, v[6] = b.z, v[7] = b.w;
}

// cvs from outputs in memory: y[rows][n]. One thread a chunk, panels innermost.
extern "C" __global__ void __launch_bounds__(128) chunk_hashes(const i8 *__restrict__ y, u32 rows, u32 m, u32 n, u32 *__restrict__ cvs) {
    u32 panels = n / 64;
    u64 id = (u64)blockIdx.x * 128 + threadIdx.x;
    u32 group = (u32)(id / panels), panel = (u32)(id % panels);
    if (group >= rows / 16) return;
    const i8 *from = y + (u64)group * 16 * n + panel * 64;
    u32 chunk, cv[8];
    u64 at;
    chunk_address(group, panel, m, n, chunk, at);
    panel_chunk(cv, chunk, [&](u32 row, u32 quarter_row) { return *(const uint4 *)(from + (u64)row * n + 16 * quarter_row); });
    store_words(cvs + at * 8, cv);
}

// Merges each attempt's `chunks` (>= 4) chaining values, in place, into its digest, makes its work root and compares it. BLAKE3's
// tree has the largest power of two on the left: pairing neighbours level by level, an odd last one carried up, gives that tree.
// A block takes `each` <= TICKET_ATTEMPTS attempts. hits[0] counts all that meet the target; from hits[1] on, nine words each (the attempt,
// its root) for `capacity` of them, in no order. Who finds a larger count looks through roots.
extern "C" __global__ void __launch_bounds__(TICKET_THREADS) tickets(const u32 *__restrict__ seeds, u32 *cvs, u32 attempts, u32 chunks,
                                                                     u32 each, Target target, u32 *__restrict__ roots,
                                                                     u32 *__restrict__ hits, u32 capacity) {
    const u32 iv[8] = {IV_WORDS};
    u32 first = blockIdx.x * each;
    u32 here = min(each, attempts - first);
    u32 *base = cvs + (u64)first * chunks * 8;
    for (u32 count = chunks; count > 1;) {
        u32 parents = (count + 1) / 2;
        u32 total = here * parents;
        // Passes go upward, and a pass writes only where it or an earlier one has read.
        for (u32 start = 0; start < total; start += TICKET_THREADS) {
            u32 id = start + threadIdx.x;
            bool live = id < total;
            u32 a = id / parents, i = id % parents;
            u32 *mine = base + (u64)a * chunks * 8;
            u32 out[8];
            if (live) {
                u32 left[8];
                load_words(left, mine + (u64)i * 16);
                if (2 * i + 1 < count) {
                    u32 right[8], m[16];
                    load_words(right, mine + (u64)i * 16 + 8);
#pragma unroll
                    for (int w = 0; w < 8; w++) {
                        m[w] = left[w];
                        m[w + 8] = right[w];
                    }
                    blake3_compress(out, iv, m, 0, 64, PARENT | (count == 2 ? ROOT : 0));
                } else {
#pragma unroll
                    for (int w = 0; w < 8; w++) out[w] = left[w];
                }
            }
            __syncthreads();
            if (live) store_words(mine + (u64)i * 8, out);
        }
        __syncthreads();
        count = parents;
    }
    if (threadIdx.x >= 32) return;
    bool live = threadIdx.x < here;
    u32 attempt = first + threadIdx.x;
    bool hit = false;
    u32 root[8];
    if (live) {
        u32 seed[8], digest[8];
        load_words(seed, seeds + (u64)attempt * 8);
        load_words(digest, base + (u64)threadIdx.x * chunks * 8);
        work_root(root, seed, digest);
        store_words(roots + (u64)attempt * 8, root);
        hit = meets(root, target);
    }
    u32 mask = __ballot_sync(~0u, hit);
    u32 at = 0;
    if (threadIdx.x == 0 && mask) at = atomicAdd(hits, __popc(mask));
    at = __shfl_sync(~0u, at, 0);
    if (hit) {
        u32 slot = at + __popc(mask & ((1u << threadIdx.x) - 1));
        if (slot < capacity) {
            hits[1 + slot * 9] = attempt;
#pragma unroll
            for (int i = 0; i < 8; i++) hits[2 + slot * 9 + i] = root[i];
        }
    }
}

// out[rows][cols] = w, with -127 for -128 in the columns marked (work function v1, mixed). One thread four bytes.
extern "C" __global__ void __launch_bounds__(256) clamp_columns(const i8 *__restrict__ w, const u8 *__restrict__ marked, u32 rows, u32 cols,
                                                                i8 *__restrict__ out) {
    u64 at = ((u64)blockIdx.x * 256 + threadIdx.x) * 4;
    if (at >= (u64)rows * cols) return;
    u32 column = (u32)(at % cols);
#pragma unroll
    for (u32 i = 0; i < 4; i++) out[at + i] = marked[column + i] && w[at + i] == -128 ? -127 : w[at + i];
}
