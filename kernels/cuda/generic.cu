// The products of an attempt on any CUDA device: Y = min(127, max(0, A·Wᵀ) >> shift), all operands in memory, K-major.
//
// From compute capability 8.0: mma.sync m16n8k32 s8. A block of eight warps makes 128 rows × 256 columns, a warp 64 × 64, with operands
// brought by cp.async in a ring of stages and fragments loaded one k-step ahead of their use. Two widths of stage: 64 bytes of k in
// 96 KiB for cards with 100 KiB a block, 128 bytes in 144 KiB for those with more. W rows are in physical_row order.
// Below: dp4a, 128 × 128 a block, 8 × 8 a thread. W rows are in neuron order.
//
// rows is a multiple of 128 (buffers are padded to it), n and k are multiples of 256. One block a tile, grouped so that the blocks that
// run together share rows and columns in a small L2.
#include "attempt.cuh"

constexpr u32 THREADS = 256;
constexpr u32 GROUP_ROWS = 8;  // row tiles that a group of neighbouring blocks spans

// Tile `id` of a grid of row_tiles × column_tiles, rows innermost inside a group.
DEV void grouped_tile(u32 id, u32 row_tiles, u32 column_tiles, u32 &row, u32 &column) {
    u32 group = id / (GROUP_ROWS * column_tiles);
    u32 first = group * GROUP_ROWS;
    u32 height = min(GROUP_ROWS, row_tiles - first);
    u32 inside = id - first * column_tiles;
    row = first + inside % height;
    column = inside / height;
}

#if __CUDA_ARCH__ >= 800

constexpr u32 TILE_M = 128, TILE_N = 256;

DEV u32 shared_address(const void *p) { return (u32)__cvta_generic_to_shared(p); }
DEV void copy16(u32 to, const void *from) {
    asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16;" ::"r"(to), "l"(from) : "memory");
}
DEV void copy_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int PENDING>
DEV void copy_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
}
DEV void load_matrices(u32 (&r)[4], u32 address) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(address)
                 : "memory");
}
DEV void mma(int (&d)[4], const u32 (&a)[4], u32 w0, u32 w1) {
    asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(w0), "r"(w1));
}

// Four accumulators to four bytes: shift, saturate to i8, and clear the bytes whose sign is set.
DEV u32 finish4(int x0, int x1, int x2, int x3, u32 shift) {
    u32 high, bytes, sign;
    asm("cvt.pack.sat.s8.s32.b32 %0, %1, %2, 0;" : "=r"(high) : "r"(x3 >> shift), "r"(x2 >> shift));
    asm("cvt.pack.sat.s8.s32.b32 %0, %1, %2, %3;" : "=r"(bytes) : "r"(x1 >> shift), "r"(x0 >> shift), "r"(high));
    asm("prmt.b32 %0, %1, %1, 0xba98;" : "=r"(sign) : "r"(bytes));
    return bytes & ~sign;
}

// A row of a stage is TILE_K bytes; its 16-byte pieces are XORed with the row so that eight rows of one piece fill all banks.
template <u32 TILE_K>
DEV u32 piece(u32 row, u32 c) {
    return row * TILE_K + ((TILE_K == 128 ? c ^ (row & 7) : c ^ ((row >> 1) & 3)) << 4);
}

template <u32 TILE_K, u32 STAGES>
DEV void product_tile(const i8 *__restrict__ a, const i8 *__restrict__ w, i8 *__restrict__ y, u32 rows, u32 n, u32 k, u32 shift) {
    constexpr u32 A_BYTES = TILE_M * TILE_K, STAGE_BYTES = (TILE_M + TILE_N) * TILE_K;
    constexpr u32 PIECES = TILE_K / 16, STEPS = TILE_K / 32;
    extern __shared__ u8 raw[];
    u32 base = shared_address(raw);
    u32 row_tile, column_tile;
    grouped_tile(blockIdx.x, rows / TILE_M, n / TILE_N, row_tile, column_tile);
    u32 warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    u32 warp_row = warp / 4 * 64, warp_column = warp % 4 * 64;

    // This thread's share of a stage: PIECES threads a row.
    u32 piece_row = threadIdx.x / PIECES, piece_at = threadIdx.x % PIECES;
    constexpr u32 ROWS_AT_ONCE = THREADS / PIECES;
    const i8 *a_from = a + (u64)(row_tile * TILE_M + piece_row) * k + piece_at * 16;
    const i8 *w_from = w + (u64)(column_tile * TILE_N + piece_row) * k + piece_at * 16;
    u32 k_blocks = k / TILE_K;
    auto fetch = [&](u32 kb) {
        if (kb < k_blocks) {
            u32 at = base + kb % STAGES * STAGE_BYTES;
#pragma unroll
            for (u32 i = 0; i < TILE_M / ROWS_AT_ONCE; i++)
                copy16(at + piece<TILE_K>(piece_row + i * ROWS_AT_ONCE, piece_at), a_from + (u64)(i * ROWS_AT_ONCE) * k + kb * TILE_K);
#pragma unroll
            for (u32 i = 0; i < TILE_N / ROWS_AT_ONCE; i++)
                copy16(at + A_BYTES + piece<TILE_K>(piece_row + i * ROWS_AT_ONCE, piece_at),
                       w_from + (u64)(i * ROWS_AT_ONCE) * k + kb * TILE_K);
        }
        copy_commit();
    };

    u32 fa[2][4][4], fw[2][4][4];
    u32 a_row = warp_row + (lane & 15), a_half = lane >> 4;
    u32 w_row = warp_column + (lane >> 4) * 8 + (lane & 7), w_half = (lane >> 3) & 1;
    auto fragments = [&](u32 to, u32 stage, u32 step) {
        u32 at = base + stage * STAGE_BYTES;
#pragma unroll
        for (u32 i = 0; i < 4; i++) load_matrices(fa[to][i], at + piece<TILE_K>(a_row + i * 16, step * 2 + a_half));
#pragma unroll
        for (u32 i = 0; i < 4; i++) load_matrices(fw[to][i], at + A_BYTES + piece<TILE_K>(w_row + i * 16, step * 2 + w_half));
    };

    int d[4][8][4];
#pragma unroll
    for (u32 i = 0; i < 4; i++)
#pragma unroll
        for (u32 j = 0; j < 8; j++)
#pragma unroll
            for (u32 e = 0; e < 4; e++) d[i][j][e] = 0;

#pragma unroll
    for (u32 s = 0; s < STAGES - 1; s++) fetch(s);
    copy_wait<STAGES - 2>();
    __syncthreads();
    fragments(0, 0, 0);
    u32 stage = 0;
    for (u32 kb = 0; kb < k_blocks; kb++) {
#pragma unroll
        for (u32 step = 0; step < STEPS; step++) {
            if (step == STEPS - 1) {
                // Stage kb+1 has landed for everyone, and everyone has read all of stage kb: its slot is free for the fetch below.
                copy_wait<STAGES - 2>();
                __syncthreads();
                stage = stage + 1 == STAGES ? 0 : stage + 1;
                fragments((step + 1) & 1, stage, 0);
            } else {
                fragments((step + 1) & 1, stage, step + 1);
            }
            if (step == 0) fetch(kb + STAGES - 1);
#pragma unroll
            for (u32 i = 0; i < 4; i++)
#pragma unroll
                for (u32 j = 0; j < 8; j++) mma(d[i][j], fa[step & 1][i], fw[step & 1][j / 2][j % 2 * 2], fw[step & 1][j / 2][j % 2 * 2 + 1]);
        }
    }

    i8 *to = y + (u64)(row_tile * TILE_M + warp_row + lane / 4) * n + column_tile * TILE_N + warp_column + 16 * (lane % 4);
#pragma unroll
    for (u32 i = 0; i < 4; i++)
#pragma unroll
        for (u32 h = 0; h < 2; h++) {
            u32 v[4];
#pragma unroll
            for (u32 j = 0; j < 4; j++)
                v[j] = finish4(d[i][2 * j][2 * h], d[i][2 * j][2 * h + 1], d[i][2 * j + 1][2 * h], d[i][2 * j + 1][2 * h + 1], shift);
            *(uint4 *)(to + (u64)(i * 16 + h * 8) * n) = make_uint4(v[0], v[1], v[2], v[3]);
        }
}

extern "C" __global__ void __launch_bounds__(THREADS, 1) product_mma(const i8 *a, const i8 *w, i8 *y, u32 rows, u32 n, u32 k, u32 shift) {
    product_tile<64, 4>(a, w, y, rows, n, k, shift);
}

extern "C" __global__ void __launch_bounds__(THREADS, 1) product_mma_wide(const i8 *a, const i8 *w, i8 *y, u32 rows, u32 n, u32 k, u32 shift) {
    product_tile<128, 3>(a, w, y, rows, n, k, shift);
}

#else

constexpr u32 TILE = 128, TILE_WORDS = 16;  // 64 bytes of k
constexpr u32 PITCH = TILE + 4;

// Thread (tx, ty) makes rows {4ty.., 64+4ty..} × columns {4tx.., 64+4tx..}: operands come from shared memory as 16-byte vectors.
extern "C" __global__ void __launch_bounds__(THREADS) product_dp4a(const i8 *__restrict__ a, const i8 *__restrict__ w, i8 *__restrict__ y,
                                                                   u32 rows, u32 n, u32 k, u32 shift) {
    __shared__ __align__(16) int as[TILE_WORDS][PITCH], ws[TILE_WORDS][PITCH];
    u32 row_tile, column_tile;
    grouped_tile(blockIdx.x, rows / TILE, n / TILE, row_tile, column_tile);
    u32 tx = threadIdx.x % 16, ty = threadIdx.x / 16;
    u32 load_row = threadIdx.x % TILE, load_at = threadIdx.x / TILE * 2;  // two of the four 16-byte pieces of a row
    const i8 *a_from = a + (u64)(row_tile * TILE + load_row) * k + load_at * 16;
    const i8 *w_from = w + (u64)(column_tile * TILE + load_row) * k + load_at * 16;
    int d[8][8];
#pragma unroll
    for (u32 i = 0; i < 8; i++)
#pragma unroll
        for (u32 j = 0; j < 8; j++) d[i][j] = 0;
    int4 next[4];
    auto fetch = [&](u32 at) {
#pragma unroll
        for (u32 p = 0; p < 2; p++) {
            next[p] = *(const int4 *)(a_from + at + 16 * p);
            next[2 + p] = *(const int4 *)(w_from + at + 16 * p);
        }
    };
    fetch(0);
    for (u32 at = 0; at < k; at += TILE_WORDS * 4) {
        __syncthreads();
#pragma unroll
        for (u32 p = 0; p < 2; p++) {
            u32 word = (load_at + p) * 4;
            as[word][load_row] = next[p].x, as[word + 1][load_row] = next[p].y;
            as[word + 2][load_row] = next[p].z, as[word + 3][load_row] = next[p].w;
            ws[word][load_row] = next[2 + p].x, ws[word + 1][load_row] = next[2 + p].y;
            ws[word + 2][load_row] = next[2 + p].z, ws[word + 3][load_row] = next[2 + p].w;
        }
        __syncthreads();
        if (at + TILE_WORDS * 4 < k) fetch(at + TILE_WORDS * 4);
#pragma unroll 4
        for (u32 word = 0; word < TILE_WORDS; word++) {
            int x[8], z[8];
            *(int4 *)&x[0] = *(const int4 *)&as[word][4 * ty];
            *(int4 *)&x[4] = *(const int4 *)&as[word][64 + 4 * ty];
            *(int4 *)&z[0] = *(const int4 *)&ws[word][4 * tx];
            *(int4 *)&z[4] = *(const int4 *)&ws[word][64 + 4 * tx];
#pragma unroll
            for (u32 i = 0; i < 8; i++)
#pragma unroll
                for (u32 j = 0; j < 8; j++) asm("dp4a.s32.s32 %0, %1, %2, %0;" : "+r"(d[i][j]) : "r"(x[i]), "r"(z[j]));
        }
    }
#pragma unroll
    for (u32 i = 0; i < 8; i++) {
        i8 *to = y + (u64)(row_tile * TILE + i / 4 * 64 + 4 * ty + i % 4) * n + column_tile * TILE + 4 * tx;
#pragma unroll
        for (u32 half = 0; half < 2; half++) {
            u32 bytes = 0;
#pragma unroll
            for (u32 e = 0; e < 4; e++) bytes |= (u32)min(127, max(0, d[i][half * 4 + e]) >> shift) << (8 * e);
            *(u32 *)(to + 64 * half) = bytes;
        }
    }
}

#endif
