// The whole attempt (spec §1) for any OpenCL device: one source, built where it runs.
//
//   attempt_seeds -> attempt_rows -> expand_rows -> product -> product -> chunk_hashes -> tickets
//
// OpenCL C 1.2 and nothing more, but for the one define that says how four bytes, or whole tiles, are multiplied:
//   PRODUCT_MMA   NVIDIA from compute capability 8.0: mma.sync, ldmatrix and cp.async by inline PTX; warps of 32
//   PRODUCT_DP4A  NVIDIA from 6.1: dp4a by inline PTX
//   PRODUCT_DOT   cl_khr_integer_dot_product, packed four by eight bits
//   (none)        plain arithmetic
// Matrices are row-major and K-major: a[rows][k], w[neurons][k], y[rows][n]. Rows and n are padded to 128, k to 64: what padding
// holds is multiplied and never read. Devices are little-endian; the host refuses others.

#define INLINE static inline __attribute__((always_inline))

// ---- BLAKE3 ----

#define CHUNK_START 1u
#define CHUNK_END 2u
#define PARENT 4u
#define ROOT 8u
#define DERIVE_KEY_MATERIAL 64u

// BLAKE3 context keys of "tops-node 2026-11 v2 " + name: they stand where a plain hash has the IV. A test compares them with the CUDA sources', whose build derives them.
__constant uint IV[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
__constant uint ATTEMPT_SEED_KEY[8] = {0xe258e3ff, 0x525b36eb, 0x1121ee74, 0xdba89472, 0x192f213c, 0x8196c3ae, 0x271f1baf, 0xa0b50fd5};
__constant uint ACTIVATION_ROWS_KEY[8] = {0xbb3f933f, 0xa9477a15, 0x1bd967c8, 0x6e7e7421, 0x27867879, 0x450f748a, 0x2c663c4a, 0xe610d8b4};
__constant uint WEIGHT_ROWS_KEY[8] = {0x395a892d, 0x2e2d5bfd, 0x8d477839, 0xde3b0371, 0xd236d2c7, 0xac1b7a08, 0xc4ad282d, 0x4bdebffc};
__constant uint WORK_ROOT_KEY[8] = {0x16ebde7d, 0x6fa01788, 0x0e61deae, 0x08cb45b7, 0xaa9a43f0, 0xcb3ce3a4, 0x49dadb64, 0x6bc07e6f};

#define QUARTER(a, b, c, d, x, y) \
    a += b + (x);                 \
    d = rotate(d ^ a, 16u);       \
    c += d;                       \
    b = rotate(b ^ c, 20u);       \
    a += b + (y);                 \
    d = rotate(d ^ a, 24u);       \
    c += d;                       \
    b = rotate(b ^ c, 25u);

#define ROUND(i0, i1, i2, i3, i4, i5, i6, i7, i8, i9, ia, ib, ic, id, ie, if_) \
    QUARTER(v[0], v[4], v[8], v[12], m[i0], m[i1])                             \
    QUARTER(v[1], v[5], v[9], v[13], m[i2], m[i3])                             \
    QUARTER(v[2], v[6], v[10], v[14], m[i4], m[i5])                            \
    QUARTER(v[3], v[7], v[11], v[15], m[i6], m[i7])                            \
    QUARTER(v[0], v[5], v[10], v[15], m[i8], m[i9])                            \
    QUARTER(v[1], v[6], v[11], v[12], m[ia], m[ib])                            \
    QUARTER(v[2], v[7], v[8], v[13], m[ic], m[id])                             \
    QUARTER(v[3], v[4], v[9], v[14], m[ie], m[if_])

// The sixteen working words after seven rounds; the callers fold them. Chunk and block numbers stay far below 2^32 here.
INLINE void rounds(uint *v, const uint *cv, const uint *m, uint counter, uint length, uint flags) {
    v[0] = cv[0], v[1] = cv[1], v[2] = cv[2], v[3] = cv[3], v[4] = cv[4], v[5] = cv[5], v[6] = cv[6], v[7] = cv[7];
    v[8] = IV[0], v[9] = IV[1], v[10] = IV[2], v[11] = IV[3];
    v[12] = counter, v[13] = 0, v[14] = length, v[15] = flags;
    ROUND(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)
    ROUND(2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8)
    ROUND(3, 4, 10, 12, 13, 2, 7, 14, 6, 5, 9, 0, 11, 15, 8, 1)
    ROUND(10, 7, 12, 9, 14, 3, 13, 15, 4, 0, 11, 2, 5, 8, 1, 6)
    ROUND(12, 13, 9, 11, 15, 10, 14, 8, 7, 2, 5, 3, 0, 1, 6, 4)
    ROUND(9, 14, 11, 5, 8, 12, 15, 1, 13, 3, 0, 10, 2, 6, 4, 7)
    ROUND(11, 15, 5, 0, 1, 9, 8, 6, 14, 10, 2, 12, 3, 4, 7, 13)
}

// The next chaining value, in place.
INLINE void compress(uint *cv, const uint *m, uint counter, uint length, uint flags) {
    uint v[16];
    rounds(v, cv, m, counter, length, flags);
#pragma unroll
    for (uint i = 0; i < 8; i++) cv[i] = v[i] ^ v[i + 8];
}

// Output block number `block` of a hash that is one block long: 64 bytes of the XOF.
INLINE void output_block(uint *out, const uint *key, const uint *m, uint block, uint length) {
    uint v[16];
    rounds(v, key, m, block, length, CHUNK_START | CHUNK_END | ROOT | DERIVE_KEY_MATERIAL);
#pragma unroll
    for (uint i = 0; i < 8; i++) {
        out[i] = v[i] ^ v[i + 8];
        out[i + 8] = v[i + 8] ^ key[i];
    }
}

INLINE void key_words(uint *cv, __constant uint *key) {
#pragma unroll
    for (uint i = 0; i < 8; i++) cv[i] = key[i];
}

// Eight words, 16-byte aligned.
INLINE void load_words(uint *v, __global const uint *from) {
    uint4 x = ((__global const uint4 *)from)[0], y = ((__global const uint4 *)from)[1];
    v[0] = x.s0, v[1] = x.s1, v[2] = x.s2, v[3] = x.s3, v[4] = y.s0, v[5] = y.s1, v[6] = y.s2, v[7] = y.s3;
}

INLINE void store_words(__global uint *to, const uint *v) {
    ((__global uint4 *)to)[0] = (uint4)(v[0], v[1], v[2], v[3]);
    ((__global uint4 *)to)[1] = (uint4)(v[4], v[5], v[6], v[7]);
}

INLINE void store_state(__global uint *to, const uint *v) {
    store_words(to, v);
    store_words(to + 8, v + 8);
}

// ---- before the products ----

// seeds[attempt][8 words] (spec §1.1). A record is 22 words: prev_hash 8, the key's bytes 0..32 as 8, byte 32, a zero, nonce 2, timestamp 2.
// Attempt i is record i·record_step with i·nonce_step added to its nonce: (0, 1) for a run of nonces, (1, 0) for a list.
__kernel void attempt_seeds(__global const uint *records, uint record_step, uint nonce_step, uint attempts, uint m, uint n, uint k,
                            __global uint *seeds) {
    uint attempt = (uint)get_global_id(0);
    if (attempt >= attempts) return;
    __global const uint *record = records + (ulong)attempt * record_step * 22;
    ulong nonce = (record[18] | (ulong)record[19] << 32) + (ulong)attempt * nonce_step;
    uint cv[8], block[16];
    key_words(cv, ATTEMPT_SEED_KEY);
#pragma unroll
    for (uint i = 0; i < 16; i++) block[i] = record[i];
    compress(cv, block, 0, 64, CHUNK_START | DERIVE_KEY_MATERIAL);
    // One byte of the key, then words: each crosses a word boundary by 8 bits.
    const uint w[7] = {(uint)nonce, (uint)(nonce >> 32), record[20], record[21], m, n, k};
    block[0] = (record[16] & 0xff) | (w[0] << 8);
#pragma unroll
    for (uint i = 1; i < 7; i++) block[i] = (w[i - 1] >> 24) | (w[i] << 8);
    block[7] = w[6] >> 24;
#pragma unroll
    for (uint i = 8; i < 16; i++) block[i] = 0;
    compress(cv, block, 0, 29, CHUNK_END | ROOT | DERIVE_KEY_MATERIAL);
    store_words(seeds + (ulong)attempt * 8, cv);
}

// states[row][4 streams][4 words] of every row of activations (spec §1.2).
__kernel void attempt_rows(__global const uint *seeds, uint rows, uint m, __global uint *states) {
    uint row = (uint)get_global_id(0);
    if (row >= rows) return;
    uint attempt = row / m;
    uint key[8], block[16], out[16];
    key_words(key, ACTIVATION_ROWS_KEY);
    load_words(block, seeds + (ulong)attempt * 8);
#pragma unroll
    for (uint i = 8; i < 16; i++) block[i] = 0;
    output_block(out, key, block, row - attempt * m, 32);
    store_state(states + (ulong)row * 16, out);
}

// The same of a weight matrix (spec §1.3).
__kernel void weight_rows(uint layer, uint n, uint cols, uint rows, __global uint *states) {
    uint row = (uint)get_global_id(0);
    if (row >= rows) return;
    uint key[8], out[16];
    uint block[16] = {(layer & 0xff) | (n << 8), (n >> 24) | (cols << 8), cols >> 24, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0};
    key_words(key, WEIGHT_ROWS_KEY);
    output_block(out, key, block, row, 9);
    store_state(states + (ulong)row * 16, out);
}

// Where the mma product wants neuron `neuron`: physical row 8j+2q+e of a group of 64 is neuron 16q+2j+e, so that the sixteen
// accumulators that a lane holds in 64 columns are sixteen neighbouring outputs.
INLINE uint physical_row(uint neuron) {
    uint c = neuron & 63;
    return (neuron & ~63u) | (((c >> 1) & 7) << 3) | ((c >> 4) << 1) | (c & 1);
}

// out[row][cols] from the row's states: four interleaved Xoshiro128++ streams, lane q of a vector is stream q (spec §1.2).
__kernel void expand_rows(__global const uint4 *states, uint rows, uint cols, uint permuted, __global uint4 *out) {
    uint row = (uint)get_global_id(0);
    if (row >= rows) return;
    uint4 a = states[(ulong)row * 4], b = states[(ulong)row * 4 + 1], c = states[(ulong)row * 4 + 2], d = states[(ulong)row * 4 + 3];
    uint4 s0 = (uint4)(a.x, b.x, c.x, d.x), s1 = (uint4)(a.y, b.y, c.y, d.y);
    uint4 s2 = (uint4)(a.z, b.z, c.z, d.z), s3 = (uint4)(a.w, b.w, c.w, d.w);
    __global uint4 *to = out + (ulong)(permuted ? physical_row(row) : row) * (cols / 16);
    for (uint at = 0; at < cols / 16; at++) {
        to[at] = rotate(s0 + s3, (uint4)(7)) + s0;
        uint4 t = s1 << 9;
        s2 ^= s0;
        s3 ^= s1;
        s1 ^= s2;
        s0 ^= s3;
        s2 ^= t;
        s3 = rotate(s3, (uint4)(11));
    }
}

// ---- the products: y = min(127, max(0, a·wᵀ) >> shift) ----
//
// A work-group makes tile number first_tile + group: a launch is any run of tiles, so that the host bounds how long one lasts.
// Tiles are grouped so that those which run together share rows and columns in a small cache.

#define TILE_ROWS 128u
#define TILE_COLUMNS 128u
#define GROUP_TILES 8u

INLINE uint2 tile_place(uint id, uint row_tiles, uint column_tiles) {
    uint first = id / (GROUP_TILES * column_tiles) * GROUP_TILES;
    uint height = min(GROUP_TILES, row_tiles - first);
    uint inside = id - first * column_tiles;
    return (uint2)(first + inside % height, inside / height);
}

#ifdef PRODUCT_MMA

// Four warps make a tile, each 64 × 64 in accumulators. Operands come by cp.async in a ring of three stages of 64 bytes of k, as many as
// OpenCL's 48 KiB hold; fragments are loaded one step ahead of their use. w rows are in physical_row order.
#define ITEMS 128u
#define STAGES 3u
#define TILE_K 64u
#define A_BYTES (TILE_ROWS * TILE_K)
#define STAGE_BYTES ((TILE_ROWS + TILE_COLUMNS) * TILE_K)
#define PIECES (TILE_K / 16)
#define ROWS_AT_ONCE (ITEMS / PIECES)

// A row of a stage is four pieces of 16 bytes, XORed with the row so that eight rows of one piece fill all banks.
INLINE uint piece(uint row, uint c) { return row * TILE_K + ((c ^ ((row >> 1) & 3)) << 4); }

INLINE void copy16(uint to, __global const char *from) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"((ulong)from) : "memory");
}

INLINE void load_matrices(uint *r, uint address) {
    uint r0, r1, r2, r3;
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r0), "=r"(r1), "=r"(r2), "=r"(r3)
                 : "r"(address)
                 : "memory");
    r[0] = r0, r[1] = r1, r[2] = r2, r[3] = r3;
}

INLINE void mma(int *d, const uint *a, uint w0, uint w1) {
    int d0 = d[0], d1 = d[1], d2 = d[2], d3 = d[3];
    asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+r"(d0), "+r"(d1), "+r"(d2), "+r"(d3)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(w0), "r"(w1));
    d[0] = d0, d[1] = d1, d[2] = d2, d[3] = d3;
}

// Four accumulators to four bytes.
INLINE uint finish4(int x0, int x1, int x2, int x3, uint shift) {
    uint a = (uint)min(127, max(0, x0) >> shift), b = (uint)min(127, max(0, x1) >> shift);
    uint c = (uint)min(127, max(0, x2) >> shift), d = (uint)min(127, max(0, x3) >> shift);
    return a | b << 8 | c << 16 | d << 24;
}

// One stage of k, number kb, into its slot; always one group of copies, so that the count of pending groups stays true at the end.
INLINE void fetch(uint base, uint kb, uint k_blocks, __global const char *a_from, __global const char *w_from, uint k, uint row,
                  uint at) {
    if (kb < k_blocks) {
        uint to = base + kb % STAGES * STAGE_BYTES;
#pragma unroll
        for (uint i = 0; i < TILE_ROWS / ROWS_AT_ONCE; i++)
            copy16(to + piece(row + i * ROWS_AT_ONCE, at), a_from + (ulong)(i * ROWS_AT_ONCE) * k + kb * TILE_K);
#pragma unroll
        for (uint i = 0; i < TILE_COLUMNS / ROWS_AT_ONCE; i++)
            copy16(to + A_BYTES + piece(row + i * ROWS_AT_ONCE, at), w_from + (ulong)(i * ROWS_AT_ONCE) * k + kb * TILE_K);
    }
    asm volatile("cp.async.commit_group;" ::: "memory");
}

// The oldest stage that is on its way has landed, for everyone: of STAGES - 1 groups of copies, all but one are done.
#define LANDED                                           \
    asm volatile("cp.async.wait_group 1;" ::: "memory"); \
    barrier(CLK_LOCAL_MEM_FENCE);

INLINE void fragments(uint (*fa)[4], uint (*fw)[4], uint stage, uint a_row, uint a_half, uint w_row, uint w_half, uint step) {
#pragma unroll
    for (uint i = 0; i < 4; i++) load_matrices(fa[i], stage + piece(a_row + i * 16, step * 2 + a_half));
#pragma unroll
    for (uint i = 0; i < 4; i++) load_matrices(fw[i], stage + A_BYTES + piece(w_row + i * 16, step * 2 + w_half));
}

INLINE void multiply(int (*d)[8][4], uint (*fa)[4], uint (*fw)[4]) {
#pragma unroll
    for (uint i = 0; i < 4; i++)
#pragma unroll
        for (uint j = 0; j < 8; j++) mma(d[i][j], fa[i], fw[j / 2][j % 2 * 2], fw[j / 2][j % 2 * 2 + 1]);
}

__kernel __attribute__((reqd_work_group_size(ITEMS, 1, 1))) void product(__global const char *a, __global const char *w,
                                                                                __global char *y, uint rows, uint n, uint k, uint shift,
                                                                                uint first_tile) {
    __local uint4 ring[STAGES * STAGE_BYTES / 16];
    uint base = (uint)(ulong)(__local char *)ring;
    uint2 place = tile_place(first_tile + (uint)get_group_id(0), rows / TILE_ROWS, n / TILE_COLUMNS);
    uint item = (uint)get_local_id(0), lane = item & 31, warp = item / 32;
    uint warp_row = warp / (TILE_COLUMNS / 64) * 64, warp_column = warp % (TILE_COLUMNS / 64) * 64;

    // This item's share of a stage: PIECES items a row.
    uint row = item / PIECES, at = item % PIECES;
    __global const char *a_from = a + (ulong)(place.x * TILE_ROWS + row) * k + at * 16;
    __global const char *w_from = w + (ulong)(place.y * TILE_COLUMNS + row) * k + at * 16;
    uint k_blocks = k / TILE_K;

    uint a_row = warp_row + (lane & 15), a_half = lane >> 4;
    uint w_row = warp_column + (lane >> 4) * 8 + (lane & 7), w_half = (lane >> 3) & 1;
    uint fa0[4][4], fw0[4][4], fa1[4][4], fw1[4][4];
    int d[4][8][4];
#pragma unroll
    for (uint i = 0; i < 4; i++)
#pragma unroll
        for (uint j = 0; j < 8; j++)
#pragma unroll
            for (uint e = 0; e < 4; e++) d[i][j][e] = 0;

#pragma unroll
    for (uint s = 0; s < STAGES - 1; s++) fetch(base, s, k_blocks, a_from, w_from, k, row, at);
    LANDED
    fragments(fa0, fw0, base, a_row, a_half, w_row, w_half, 0);
    uint stage = 0;
#pragma unroll 1
    for (uint kb = 0; kb < k_blocks; kb++) {
        fragments(fa1, fw1, base + stage * STAGE_BYTES, a_row, a_half, w_row, w_half, 1);
        fetch(base, kb + STAGES - 1, k_blocks, a_from, w_from, k, row, at);
        multiply(d, fa0, fw0);
        // Stage kb+1 has landed for everyone, and everyone has read all of stage kb: the next round's fetch may take its slot.
        LANDED
        stage = stage + 1 == STAGES ? 0 : stage + 1;
        fragments(fa0, fw0, base + stage * STAGE_BYTES, a_row, a_half, w_row, w_half, 0);
        multiply(d, fa1, fw1);
    }

    __global char *to = y + (ulong)(place.x * TILE_ROWS + warp_row + lane / 4) * n + place.y * TILE_COLUMNS + warp_column + 16 * (lane % 4);
#pragma unroll
    for (uint i = 0; i < 4; i++)
#pragma unroll
        for (uint h = 0; h < 2; h++) {
            uint v[4];
#pragma unroll
            for (uint j = 0; j < 4; j++)
                v[j] = finish4(d[i][2 * j][2 * h], d[i][2 * j][2 * h + 1], d[i][2 * j + 1][2 * h], d[i][2 * j + 1][2 * h + 1], shift);
            *(__global uint4 *)(to + (ulong)(i * 16 + h * 8) * n) = (uint4)(v[0], v[1], v[2], v[3]);
        }
}

#else

#define TILE_WORDS 16u  // 64 bytes of k
#define PITCH (128 + 4)

#if defined(PRODUCT_DP4A)
#define DOT4(acc, x, z) asm("dp4a.s32.s32 %0, %1, %2, %0;" : "+r"(acc) : "r"(x), "r"(z))
#elif defined(PRODUCT_DOT)
// Saturation is never reached: sums stay below 2^27.
#define DOT4(acc, x, z) acc = dot_acc_sat_4x8packed_ss_int(as_uint(x), as_uint(z), acc)
#else
INLINE int dot4(int acc, char4 x, char4 z) { return acc + x.s0 * z.s0 + x.s1 * z.s1 + x.s2 * z.s2 + x.s3 * z.s3; }
#define DOT4(acc, x, z) acc = dot4(acc, as_char4(x), as_char4(z))
#endif

// Item (tx, ty) makes rows {4ty.., 64+4ty..} × columns {4tx.., 64+4tx..}: operands come from local memory as 16-byte vectors, word by
// word of k, and the next block of k is on its way from memory meanwhile.
#define FETCH(at)                                                                           \
    next_a0 = ((__global const int4 *)(a_from + (at)))[0];                                  \
    next_a1 = ((__global const int4 *)(a_from + (at)))[1];                                  \
    next_w0 = ((__global const int4 *)(w_from + (at)))[0];                                  \
    next_w1 = ((__global const int4 *)(w_from + (at)))[1];
#define SPREAD(tile, word, v) \
    tile[word][load_row] = v.s0, tile[word + 1][load_row] = v.s1, tile[word + 2][load_row] = v.s2, tile[word + 3][load_row] = v.s3

__kernel __attribute__((reqd_work_group_size(256, 1, 1))) void product(__global const char *a, __global const char *w, __global char *y,
                                                                       uint rows, uint n, uint k, uint shift, uint first_tile) {
    __local int as[TILE_WORDS][PITCH] __attribute__((aligned(16))), ws[TILE_WORDS][PITCH] __attribute__((aligned(16)));
    uint2 place = tile_place(first_tile + (uint)get_group_id(0), rows / TILE_ROWS, n / TILE_COLUMNS);
    uint item = (uint)get_local_id(0), tx = item % 16, ty = item / 16;
    uint load_row = item % 128, load_word = item / 128 * 8;  // two of the four 16-byte pieces of a row
    __global const char *a_from = a + (ulong)(place.x * TILE_ROWS + load_row) * k + load_word * 4;
    __global const char *w_from = w + (ulong)(place.y * TILE_COLUMNS + load_row) * k + load_word * 4;
    int d[8][8];
#pragma unroll
    for (uint i = 0; i < 8; i++)
#pragma unroll
        for (uint j = 0; j < 8; j++) d[i][j] = 0;
    int4 next_a0, next_a1, next_w0, next_w1;
    FETCH(0)
    for (uint at = 0; at < k; at += TILE_WORDS * 4) {
        barrier(CLK_LOCAL_MEM_FENCE);
        SPREAD(as, load_word, next_a0);
        SPREAD(as, load_word + 4, next_a1);
        SPREAD(ws, load_word, next_w0);
        SPREAD(ws, load_word + 4, next_w1);
        barrier(CLK_LOCAL_MEM_FENCE);
        if (at + TILE_WORDS * 4 < k) {
            FETCH(at + TILE_WORDS * 4)
        }
#pragma unroll 4
        for (uint word = 0; word < TILE_WORDS; word++) {
            int4 x0 = *(__local int4 *)&as[word][4 * ty], x1 = *(__local int4 *)&as[word][64 + 4 * ty];
            int4 z0 = *(__local int4 *)&ws[word][4 * tx], z1 = *(__local int4 *)&ws[word][64 + 4 * tx];
            const int x[8] = {x0.s0, x0.s1, x0.s2, x0.s3, x1.s0, x1.s1, x1.s2, x1.s3};
            const int z[8] = {z0.s0, z0.s1, z0.s2, z0.s3, z1.s0, z1.s1, z1.s2, z1.s3};
#pragma unroll
            for (uint i = 0; i < 8; i++)
#pragma unroll
                for (uint j = 0; j < 8; j++) DOT4(d[i][j], x[i], z[j]);
        }
    }
#pragma unroll
    for (uint i = 0; i < 8; i++) {
        __global char *to = y + (ulong)(place.x * TILE_ROWS + i / 4 * 64 + 4 * ty + i % 4) * n + place.y * TILE_COLUMNS + 4 * tx;
#pragma unroll
        for (uint side = 0; side < 2; side++) {
            uint bytes = 0;
#pragma unroll
            for (uint e = 0; e < 4; e++) bytes |= (uint)min(127, max(0, d[i][side * 4 + e]) >> shift) << (8 * e);
            *(__global uint *)(to + 64 * side) = bytes;
        }
    }
}

#endif

// ---- after the products ----

// cvs[attempt][chunk][8 words]: a chunk is sixteen rows of a 64-column panel (spec §1.5). One item a chunk, panels innermost.
__kernel void chunk_hashes(__global const uint *y, uint rows, uint m, uint n, __global uint *cvs) {
    uint panels = n / 64, groups = m / 16;
    uint group = (uint)(get_global_id(0) / panels), panel = (uint)(get_global_id(0) % panels);
    if (group >= rows / 16) return;
    uint attempt = group / groups, chunk = panel * groups + group % groups;
    __global const uint *from = y + (ulong)group * 16 * (n / 4) + panel * 16;
    uint cv[8], m16[16];
    key_words(cv, IV);
    for (uint block = 0; block < 16; block++) {
        load_words(m16, from + (ulong)block * (n / 4));
        load_words(m16 + 8, from + (ulong)block * (n / 4) + 8);
        compress(cv, m16, chunk, 64, (block == 0 ? CHUNK_START : 0) | (block == 15 ? CHUNK_END : 0));
    }
    store_words(cvs + ((ulong)attempt * groups * panels + chunk) * 8, cv);
}

INLINE uint big_endian(uint x) { return (rotate(x, 8u) & 0x00ff00ffu) | (rotate(x, 24u) & 0xff00ff00u); }

// Merges an attempt's `chunks` (>= 4) chaining values, in place, into its digest, makes its work root and compares it: one work-group an
// attempt. BLAKE3's tree has the largest power of two on the left: pairing neighbours level by level, an odd last one carried up, gives
// that tree. hits[0] counts all that meet the target; from hits[1] on, nine words each (the attempt, its root) for `capacity` of them, in
// no order. Who finds a larger count looks through roots.
#define TICKET_ITEMS 64u
__kernel __attribute__((reqd_work_group_size(TICKET_ITEMS, 1, 1))) void tickets(__global const uint *seeds, __global uint *cvs, uint chunks,
                                                                                uint4 target_high, uint4 target_low,
                                                                                __global uint *roots, __global uint *hits, uint capacity) {
    uint attempt = (uint)get_group_id(0), item = (uint)get_local_id(0);
    __global uint *mine = cvs + (ulong)attempt * chunks * 8;
    for (uint count = chunks; count > 1; count = (count + 1) / 2) {
        uint parents = (count + 1) / 2;
        // Passes go upward, and a pass writes only where it or an earlier one has read.
        for (uint start = 0; start < parents; start += TICKET_ITEMS) {
            uint i = start + item;
            uint cv[8];
            if (i < parents) {
                __global uint *left = mine + (ulong)i * 16;
                if (2 * i + 1 < count) {
                    uint block[16];
                    load_words(block, left);
                    load_words(block + 8, left + 8);
                    key_words(cv, IV);
                    compress(cv, block, 0, 64, PARENT | (count == 2 ? ROOT : 0));
                } else {
                    load_words(cv, left);
                }
            }
            barrier(CLK_GLOBAL_MEM_FENCE);
            if (i < parents) store_words(mine + (ulong)i * 8, cv);
        }
        barrier(CLK_GLOBAL_MEM_FENCE);
    }
    if (item != 0) return;
    uint root[8], block[16];
    load_words(block, seeds + (ulong)attempt * 8);
    load_words(block + 8, mine);
    key_words(root, WORK_ROOT_KEY);
    compress(root, block, 0, 64, CHUNK_START | CHUNK_END | ROOT | DERIVE_KEY_MATERIAL);
    store_words(roots + (ulong)attempt * 8, root);
    const uint words[8] = {target_high.s0, target_high.s1, target_high.s2, target_high.s3,
                           target_low.s0,  target_low.s1,  target_low.s2,  target_low.s3};
    bool hit = true, open = true;
    for (uint i = 0; i < 8; i++) {
        uint x = big_endian(root[i]);
        if (open && x != words[i]) {
            hit = x < words[i];
            open = false;
        }
    }
    if (!hit) return;
    uint slot = atomic_inc(hits);
    if (slot >= capacity) return;
    hits[1 + slot * 9] = attempt;
    for (uint i = 0; i < 8; i++) hits[2 + slot * 9 + i] = root[i];
}

// ---- the original's function (spec §2) ----

// out = w, with −127 for −128 in the columns marked: its mixed variant's weights. One item four bytes.
__kernel void clamp_columns(__global const char4 *w, __global const char4 *marked, uint rows, uint cols, __global char4 *out) {
    ulong at = get_global_id(0);
    if (at >= (ulong)rows * cols / 4) return;
    char4 v = w[at];
    // A vector's comparison gives -1 where it holds: −128 + 1 there.
    out[at] = max(v, (char4)(-128) - (marked[at % (cols / 4)] != (char4)(0)));
}

// out[i] = y[positions[i]], and 0 for a position that y does not have.
__kernel void pick_values(__global const char *y, uint y_bytes, __global const uint *positions, uint count, __global char *out) {
    uint i = (uint)get_global_id(0);
    if (i < count) out[i] = positions[i] < y_bytes ? y[positions[i]] : 0;
}
