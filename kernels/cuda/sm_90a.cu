// The products of an attempt on compute capability 9.0: Y = min(127, max(0, A·Wᵀ) >> shift).
//
// A persistent grid of clusters of two blocks; a block makes a tile of 128 rows × 256 columns, its cluster mate the 128 rows below
// with the same columns of W. Column tiles are innermost, so W stays in L2 while rows stream past it.
//
//   warps 0-7   two consumer warpgroups, each m64n256k32 wgmma, 128 accumulators a thread
//   warp 8      the producer: W by TMA, half a tile a block, multicast to both; A by TMA where it is in memory
//   warps 9, 10 the hashers (HASH), one a consumer group: 16 BLAKE3 chunks of a tile, a pair of lanes each, while the next is multiplied
//
// A is BORN in the first product of an attempt: lane q of a quad owns stream q of its two rows, and the words that it makes, in
// the order of the stream, are its registers of the m64k32 fragment. Nothing of A touches memory.
// Outputs leave as sixteen neighbouring bytes a thread (physical_row), to memory (STORE) or, for the last product, to a tile in
// shared memory that the hashers turn into chaining values (HASH). m is a multiple of 16, so a tile holds 32 whole chunks.
//
// Shared-memory fences: a stage is released by mbarrier.arrive.shared::cluster without .release: a .cluster-scope release compiles to
// a GPU-wide MEMBAR in every k-block. What it orders is the end of wgmma reads, which wait_group has already seen.
#include "attempt.cuh"
#include "blake3_pair.cuh"

struct __align__(64) TensorMap {
    u64 opaque[16];
};

constexpr u32 CLUSTER = 2, CONSUMERS = 2;
constexpr u32 TILE_M = 128, TILE_N = 256, TILE_K = 128;  // TILE_K bytes: one 128-byte swizzle row
constexpr u32 A_BYTES = TILE_M * TILE_K, W_BYTES = TILE_N * TILE_K;
constexpr u32 CHUNK_STRIDE = 1040;  // 1,024 and 16: lanes' 16-byte reads fall in different banks
constexpr u32 CHUNKS = 32;

template <bool BORN, bool HASH>
struct Layout {
    static constexpr u32 stages = BORN ? 7 : 4;
    static constexpr u32 a_bytes = BORN ? 0 : A_BYTES;
    static constexpr u32 stage_bytes = a_bytes + W_BYTES;
    static constexpr u32 hash_at = stages * stage_bytes;
    static constexpr u32 bars_at = hash_at + (HASH ? CHUNKS * CHUNK_STRIDE : 0);
    static constexpr u32 total = bars_at + stages * 16 + CONSUMERS * 16;
};

DEV u32 shared_address(const void *p) { return (u32)__cvta_generic_to_shared(p); }
DEV void bar_init(u32 bar, u32 count) { asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(bar), "r"(count)); }
DEV void bar_wait(u32 bar, u32 parity) {
    asm volatile(
        "{\n.reg .pred p;\n"
        "TRY: mbarrier.try_wait.parity.shared::cta.b64 p, [%0], %1;\n"
        "@p bra DONE;\nbra TRY;\nDONE:\n}" ::"r"(bar), "r"(parity) : "memory");
}
DEV void bar_expect(u32 bar, u32 bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(bar), "r"(bytes) : "memory");
}
DEV void bar_arrive(u32 bar) { asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(bar) : "memory"); }
DEV void bar_arrive_at(u32 bar, u32 block) {
    u32 remote;
    asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(remote) : "r"(bar), "r"(block));
    asm volatile("mbarrier.arrive.shared::cluster.b64 _, [%0];" ::"r"(remote) : "memory");
}
DEV void cluster_sync() {
    asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::: "memory");
}
DEV void tma_load(u32 to, const TensorMap *map, u32 bar, u32 x, u32 y) {
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4}], [%2];" ::"r"(to),
        "l"(map), "r"(bar), "r"(x), "r"(y)
        : "memory");
}
DEV void tma_multicast(u32 to, const TensorMap *map, u32 bar, u32 x, u32 y, u16 mask) {
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [%0], [%1, {%3, %4}], [%2], "
        "%5;" ::"r"(to),
        "l"(map), "r"(bar), "r"(x), "r"(y), "h"(mask)
        : "memory");
}
// A K-major operand with 128-byte swizzle: eight rows are 1,024 bytes. A step of k = 32 adds 32 bytes (2 units).
DEV u64 descriptor(u32 address) {
    return (u64)((address & 0x3ffff) >> 4) | ((u64)1 << 16) | ((u64)64 << 32) | ((u64)1 << 62);
}

#define ACC8(i) "+r"(d[i]), "+r"(d[i + 1]), "+r"(d[i + 2]), "+r"(d[i + 3]), "+r"(d[i + 4]), "+r"(d[i + 5]), "+r"(d[i + 6]), "+r"(d[i + 7])
#define ACC32(i) ACC8(i), ACC8(i + 8), ACC8(i + 16), ACC8(i + 24)
#define ACC128 ACC32(0), ACC32(32), ACC32(64), ACC32(96)
#define ACC128_NAMES                                                                                                    \
    "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,"   \
    "%30,%31,%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,"  \
    "%58,%59,%60,%61,%62,%63,%64,%65,%66,%67,%68,%69,%70,%71,%72,%73,%74,%75,%76,%77,%78,%79,%80,%81,%82,%83,%84,%85,"  \
    "%86,%87,%88,%89,%90,%91,%92,%93,%94,%95,%96,%97,%98,%99,%100,%101,%102,%103,%104,%105,%106,%107,%108,%109,%110,"   \
    "%111,%112,%113,%114,%115,%116,%117,%118,%119,%120,%121,%122,%123,%124,%125,%126,%127}"

DEV void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
DEV void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int PENDING>
DEV void wgmma_wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(PENDING) : "memory");
}
// d = a·w (+ d with `add`).
DEV void wgmma_shared(int (&d)[128], u64 a, u64 w, bool add) {
    asm volatile(
        "{\n.reg .pred p;\nsetp.ne.b32 p, %130, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n256k32.s32.s8.s8 " ACC128_NAMES ", %128, %129, p;\n}"
        : ACC128
        : "l"(a), "l"(w), "r"((u32)add));
}
DEV void wgmma_registers(int (&d)[128], const u32 (&a)[4], u64 w, bool add) {
    asm volatile(
        "{\n.reg .pred p;\nsetp.ne.b32 p, %133, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n256k32.s32.s8.s8 " ACC128_NAMES ", {%128,%129,%130,%131}, %132, p;\n}"
        : ACC128
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(w), "r"((u32)add));
}

// Four accumulators to four bytes: shift, saturate to i8, and clear the bytes whose sign is set.
DEV u32 finish4(int x0, int x1, int x2, int x3, u32 shift) {
    u32 high, bytes, sign;
    asm("cvt.pack.sat.s8.s32.b32 %0, %1, %2, 0;" : "=r"(high) : "r"(x3 >> shift), "r"(x2 >> shift));
    asm("cvt.pack.sat.s8.s32.b32 %0, %1, %2, %3;" : "=r"(bytes) : "r"(x1 >> shift), "r"(x0 >> shift), "r"(high));
    asm("prmt.b32 %0, %1, %1, 0xba98;" : "=r"(sign) : "r"(bytes));
    return bytes & ~sign;
}

// The sixteen bytes of row half h (0, 1: eight rows apart) in column group g (64 columns).
DEV uint4 finish16(const int (&d)[128], int g, int h, u32 shift) {
    u32 v[4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
        int j = (g * 8 + i * 2) * 4 + h * 2;
        v[i] = finish4(d[j], d[j + 1], d[j + 4], d[j + 5], shift);
    }
    return make_uint4(v[0], v[1], v[2], v[3]);
}

// One k-block of born fragments: four k-steps of 32, two words of each of the thread's two streams in each.
DEV void born_block(u32 (&a)[4][4], Stream &upper, Stream &lower) {
#pragma unroll
    for (int step = 0; step < 4; step++) {
        a[step][0] = upper.next();
        a[step][1] = lower.next();
        a[step][2] = upper.next();
        a[step][3] = lower.next();
    }
}

struct Ring {
    u32 stage, phase;
    DEV_MEMBER void advance(u32 stages) {
        if (++stage == stages) {
            stage = 0;
            phase ^= 1;
        }
    }
};

// rows: a multiple of CLUSTER * TILE_M (buffers are padded to it). y[rows][n], or cvs (chunk_address) when HASH.
template <bool BORN, bool HASH, u32 CONSUMER_REGISTERS, u32 OTHER_REGISTERS>
DEV void product(const TensorMap &a_map, const TensorMap &w_map, const uint4 *__restrict__ states, i8 *__restrict__ y,
                 u32 *__restrict__ cvs, u32 rows, u32 n, u32 k, u32 m, u32 shift) {
    using L = Layout<BORN, HASH>;
    constexpr u32 STAGES = L::stages;
    extern __shared__ u8 raw[];
    u32 base = (shared_address(raw) + 1023) & ~1023u;
    u32 bars = base + L::bars_at;
    auto full = [&](u32 s) { return bars + s * 16; };
    auto empty = [&](u32 s) { return bars + s * 16 + 8; };
    auto hash_full = [&](u32 group) { return bars + (STAGES + group) * 16; };
    auto hash_empty = [&](u32 group) { return bars + (STAGES + group) * 16 + 8; };
    u32 rank;
    asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    if (threadIdx.x == 0) {
        for (u32 s = 0; s < STAGES; s++) {
            bar_init(full(s), 1);
            bar_init(empty(s), CLUSTER * CONSUMERS);
        }
        for (u32 group = 0; group < CONSUMERS; group++) {
            bar_init(hash_full(group), 4);
            bar_init(hash_empty(group), 1);
        }
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    cluster_sync();

    u32 column_tiles = n / TILE_N, k_blocks = k / TILE_K;
    u32 tiles = rows / (CLUSTER * TILE_M) * column_tiles;
    u32 clusters = gridDim.x / CLUSTER;
    u32 first = blockIdx.x / CLUSTER;
    auto tile_row = [&](u32 t) { return (t / column_tiles * CLUSTER + rank) * TILE_M; };
    auto tile_column = [&](u32 t) { return t % column_tiles * TILE_N; };
    u32 warp = threadIdx.x / 32, lane = threadIdx.x % 32;

    if (warp >= CONSUMERS * 4) {
        asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(OTHER_REGISTERS));
        if (warp == CONSUMERS * 4 && lane == 0) {
            Ring ring = {0, 1};
            for (u32 t = first; t < tiles; t += clusters) {
                u32 row = tile_row(t), column = tile_column(t) + rank * (TILE_N / CLUSTER);
                for (u32 kb = 0; kb < k_blocks; kb++) {
                    u32 s = ring.stage, at = base + s * L::stage_bytes;
                    bar_wait(empty(s), ring.phase);
                    bar_expect(full(s), L::stage_bytes);
                    if (!BORN) tma_load(at, &a_map, full(s), kb * TILE_K, row);
                    tma_multicast(at + L::a_bytes + rank * (W_BYTES / CLUSTER), &w_map, full(s), kb * TILE_K, column, (1 << CLUSTER) - 1);
                    ring.advance(STAGES);
                }
            }
        } else if (HASH && warp > CONSUMERS * 4 && warp <= CONSUMERS * 5) {
            u32 group = warp - CONSUMERS * 4 - 1;
            u32 local = group * (CHUNKS / CONSUMERS) + lane / 2;  // the chunk in the tile: row group local / 4, panel local % 4
            bool upper = lane & 1;
            u32 from = base + L::hash_at + local * CHUNK_STRIDE;
            u32 phase = 0;
            for (u32 t = first; t < tiles; t += clusters) {
                u32 chunk, cv[4];
                u64 at;
                chunk_address(tile_row(t) / 16 + local / 4, tile_column(t) / 64 + local % 4, m, n, chunk, at);
                bar_wait(hash_full(group), phase);
                phase ^= 1;
                panel_chunk_pair(cv, upper, chunk, [&](u32 row, u32 quarter_row) {
                    uint4 v;
                    asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
                                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                                 : "r"(from + row * 64 + quarter_row * 16)
                                 : "memory");
                    return v;
                });
                __syncwarp();
                if (lane == 0) bar_arrive(hash_empty(group));
                uint2 *to = (uint2 *)(cvs + at * 8) + upper;
                to[0] = make_uint2(cv[0], cv[1]);
                to[2] = make_uint2(cv[2], cv[3]);
            }
        }
    } else {
        asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(CONSUMER_REGISTERS));
        u32 group = warp / 4, in_group = threadIdx.x % 128;
        u32 own_row = warp * 16 + lane / 4;  // in the tile; and the row eight below
        u32 q = lane % 4;
        int d[128];
        Ring ring = {0, 0};
        u32 hash_phase = 1;
        auto release = [&](u32 s) {
            if (in_group < CLUSTER) bar_arrive_at(empty(s), in_group);
        };
        // BORN: fragments of a block are made while the one before is multiplied, also across tiles; the states of a tile's rows are
        // fetched one tile ahead.
        Stream upper, lower;
        uint4 su, sl;
        u32 a[2][4][4];
        auto fetch = [&](u32 t) {
            u64 row = tile_row(t < tiles ? t : first) + own_row;
            su = states[row * 4 + q];
            sl = states[(row + 8) * 4 + q];
        };
        auto begin_rows = [&]() {
            upper = {su.x, su.y, su.z, su.w};
            lower = {sl.x, sl.y, sl.z, sl.w};
        };
        if (BORN && first < tiles) {
            fetch(first);
            begin_rows();
            born_block(a[0], upper, lower);
        }
        for (u32 t = first; t < tiles; t += clusters) {
            u32 row = tile_row(t) + own_row, column = tile_column(t);
            u32 previous = ~0u;
            if (BORN) {
                fetch(t + clusters);
                for (u32 kb = 0; kb < k_blocks; kb += 2) {  // k is a multiple of 256
#pragma unroll
                    for (int half = 0; half < 2; half++) {
                        u32 s = ring.stage;
                        bar_wait(full(s), ring.phase);
                        u64 w = descriptor(base + s * L::stage_bytes);
                        wgmma_fence();
#pragma unroll
                        for (int step = 0; step < 4; step++) wgmma_registers(d, a[half][step], w + 2 * step, half || step || kb);
                        wgmma_commit();
                        wgmma_wait<1>();
                        if (previous != ~0u) release(previous);
                        previous = s;
                        ring.advance(STAGES);
                        if (half && kb + 2 == k_blocks) begin_rows();
                        born_block(a[half ^ 1], upper, lower);
                    }
                }
            } else {
                for (u32 kb = 0; kb < k_blocks; kb++) {
                    u32 s = ring.stage;
                    bar_wait(full(s), ring.phase);
                    u32 at = base + s * L::stage_bytes;
                    u64 a = descriptor(at + group * 64 * TILE_K), w = descriptor(at + L::a_bytes);
                    wgmma_fence();
#pragma unroll
                    for (int step = 0; step < 4; step++) wgmma_shared(d, a + 2 * step, w + 2 * step, step || kb);
                    wgmma_commit();
                    wgmma_wait<1>();
                    if (previous != ~0u) release(previous);
                    previous = s;
                    ring.advance(STAGES);
                }
            }
            wgmma_wait<0>();
#pragma unroll
            for (int i = 0; i < 128; i++) asm volatile("" : "+r"(d[i])::"memory");
            release(previous);
            if (HASH) {
                bar_wait(hash_empty(group), hash_phase);
                hash_phase ^= 1;
                u32 to = base + L::hash_at + warp * 4 * CHUNK_STRIDE + (lane / 4) * 64 + q * 16;
#pragma unroll
                for (int g = 0; g < 4; g++) {
#pragma unroll
                    for (int h = 0; h < 2; h++) {
                        uint4 v = finish16(d, g, h, shift);
                        asm volatile("st.shared.v4.u32 [%0], {%1, %2, %3, %4};" ::"r"(to + g * CHUNK_STRIDE + h * 512), "r"(v.x), "r"(v.y),
                                     "r"(v.z), "r"(v.w)
                                     : "memory");
                    }
                }
                __syncwarp();
                if (lane == 0) bar_arrive(hash_full(group));
            } else {
                i8 *to = y + (u64)row * n + column + 16 * q;
#pragma unroll
                for (int g = 0; g < 4; g++) {
#pragma unroll
                    for (int h = 0; h < 2; h++) *(uint4 *)(to + (u64)(8 * h) * n + 64 * g) = finish16(d, g, h, shift);
                }
            }
        }
    }
    cluster_sync();  // a block must not leave while its mate may still signal it
}

#define PRODUCT_KERNEL extern "C" __global__ void __launch_bounds__(384, 1) __cluster_dims__(2, 1, 1)

PRODUCT_KERNEL product_store(const __grid_constant__ TensorMap a_map, const __grid_constant__ TensorMap w_map, i8 *y, u32 rows, u32 n, u32 k,
                             u32 shift) {
    product<false, false, 232, 40>(a_map, w_map, nullptr, y, nullptr, rows, n, k, 16, shift);
}

PRODUCT_KERNEL product_hash(const __grid_constant__ TensorMap a_map, const __grid_constant__ TensorMap w_map, u32 *cvs, u32 rows, u32 n, u32 k,
                            u32 m, u32 shift) {
    product<false, true, 216, 72>(a_map, w_map, nullptr, nullptr, cvs, rows, n, k, m, shift);
}

PRODUCT_KERNEL product_born(const __grid_constant__ TensorMap w_map, const uint4 *states, i8 *y, u32 rows, u32 n, u32 k, u32 shift) {
    product<true, false, 232, 40>(w_map, w_map, states, y, nullptr, rows, n, k, 16, shift);
}
