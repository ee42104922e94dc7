// BLAKE3's compression by two neighbouring lanes: half the registers and half the instructions of one chunk in each, so that hashing
// spreads over two of a multiprocessor's four schedulers beside the tensor cores.
//
// Lane p of a pair holds columns 2p and 2p+1 of the 4×4 state (rows a, b, c, d). For the diagonals b stays and a, c, d move: b is
// what a quarter finishes last. The diagonal with b's column j then has a from column j-1, c from j+1, d from j+2.
#pragma once
#include "blake3.cuh"

DEV u32 other_lane(u32 x) { return __shfl_xor_sync(~0u, x, 1); }

#define PAIR_ROUND(i0, i1, i2, i3, i4, i5, i6, i7, i8, i9, ia, ib, ic, id, ie, if_)                 \
    quarter(a[0], b[0], c[0], d[0], upper ? m[i4] : m[i0], upper ? m[i5] : m[i1]);                  \
    quarter(a[1], b[1], c[1], d[1], upper ? m[i6] : m[i2], upper ? m[i7] : m[i3]);                  \
    {                                                                                               \
        u32 ax = other_lane(a[1]), cx = other_lane(c[0]), d0 = other_lane(d[0]), d1 = other_lane(d[1]); \
        a[1] = a[0], a[0] = ax, c[0] = c[1], c[1] = cx, d[0] = d0, d[1] = d1;                       \
    }                                                                                               \
    quarter(a[0], b[0], c[0], d[0], upper ? m[ia] : m[ie], upper ? m[ib] : m[if_]);                 \
    quarter(a[1], b[1], c[1], d[1], upper ? m[ic] : m[i8], upper ? m[id] : m[i9]);                  \
    {                                                                                               \
        u32 ax = other_lane(a[0]), cx = other_lane(c[1]), d0 = other_lane(d[0]), d1 = other_lane(d[1]); \
        a[0] = a[1], a[1] = ax, c[1] = c[0], c[0] = cx, d[0] = d0, d[1] = d1;                       \
    }

// cv: this lane's words 2p, 2p+1, 4+2p, 5+2p of the chaining value. m: the whole block, in both lanes.
DEV void blake3_compress_pair(u32 (&cv)[4], const u32 (&m)[16], bool upper, u32 counter, u32 length, u32 flags) {
    const u32 iv[8] = {IV_WORDS};
    u32 a[2] = {cv[0], cv[1]}, b[2] = {cv[2], cv[3]};
    u32 c[2] = {upper ? iv[2] : iv[0], upper ? iv[3] : iv[1]};
    u32 d[2] = {upper ? length : counter, upper ? flags : 0};
    PAIR_ROUND(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)
    PAIR_ROUND(2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8)
    PAIR_ROUND(3, 4, 10, 12, 13, 2, 7, 14, 6, 5, 9, 0, 11, 15, 8, 1)
    PAIR_ROUND(10, 7, 12, 9, 14, 3, 13, 15, 4, 0, 11, 2, 5, 8, 1, 6)
    PAIR_ROUND(12, 13, 9, 11, 15, 10, 14, 8, 7, 2, 5, 3, 0, 1, 6, 4)
    PAIR_ROUND(9, 14, 11, 5, 8, 12, 15, 1, 13, 3, 0, 10, 2, 6, 4, 7)
    PAIR_ROUND(11, 15, 5, 0, 1, 9, 8, 6, 14, 10, 2, 12, 3, 4, 7, 13)
    cv[0] = a[0] ^ c[0], cv[1] = a[1] ^ c[1];
    cv[2] = b[0] ^ d[0], cv[3] = b[1] ^ d[1];
}

// panel_chunk for a pair: both lanes load the whole block, and each ends with its four words of the chaining value.
template <class Load>
DEV void panel_chunk_pair(u32 (&cv)[4], bool upper, u32 chunk, const Load &load) {
    const u32 iv[8] = {IV_WORDS};
    cv[0] = upper ? iv[2] : iv[0], cv[1] = upper ? iv[3] : iv[1];
    cv[2] = upper ? iv[6] : iv[4], cv[3] = upper ? iv[7] : iv[5];
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
        blake3_compress_pair(cv, m, upper, chunk, 64, flags);
    }
}
