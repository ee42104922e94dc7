// BLAKE3's compression function, unrolled so that the message schedule is register renaming, and the derive_key uses of
// spec §1. Nothing here knows a tree: chunks and parents are the callers'.
#pragma once
#include "base.cuh"

enum : u32 {
    CHUNK_START = 1,
    CHUNK_END = 2,
    PARENT = 4,
    ROOT = 8,
    DERIVE_KEY_MATERIAL = 64,
};

// BLAKE3 context keys of "tops-node 2026-11 v2 " + name: they stand where a plain hash has the IV.
#define IV_WORDS 0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19
#define ATTEMPT_SEED_KEY 0xe258e3ff, 0x525b36eb, 0x1121ee74, 0xdba89472, 0x192f213c, 0x8196c3ae, 0x271f1baf, 0xa0b50fd5
#define ACTIVATION_ROWS_KEY 0xbb3f933f, 0xa9477a15, 0x1bd967c8, 0x6e7e7421, 0x27867879, 0x450f748a, 0x2c663c4a, 0xe610d8b4
#define WEIGHT_ROWS_KEY 0x395a892d, 0x2e2d5bfd, 0x8d477839, 0xde3b0371, 0xd236d2c7, 0xac1b7a08, 0xc4ad282d, 0x4bdebffc
#define WORK_ROOT_KEY 0x16ebde7d, 0x6fa01788, 0x0e61deae, 0x08cb45b7, 0xaa9a43f0, 0xcb3ce3a4, 0x49dadb64, 0x6bc07e6f

DEV u32 rotate_right(u32 x, u32 n) {
#ifdef __CUDA_ARCH__
    if (n == 16) return __byte_perm(x, 0, 0x1032);
    if (n == 8) return __byte_perm(x, 0, 0x0321);
    return __funnelshift_r(x, x, n);
#else
    return (x >> n) | (x << (32 - n));
#endif
}

DEV void quarter(u32 &a, u32 &b, u32 &c, u32 &d, u32 x, u32 y) {
    a = a + b + x;
    d = rotate_right(d ^ a, 16);
    c = c + d;
    b = rotate_right(b ^ c, 12);
    a = a + b + y;
    d = rotate_right(d ^ a, 8);
    c = c + d;
    b = rotate_right(b ^ c, 7);
}

#define BLAKE3_ROUND(i0, i1, i2, i3, i4, i5, i6, i7, i8, i9, ia, ib, ic, id, ie, if_) \
    quarter(v[0], v[4], v[8], v[12], m[i0], m[i1]);                                   \
    quarter(v[1], v[5], v[9], v[13], m[i2], m[i3]);                                   \
    quarter(v[2], v[6], v[10], v[14], m[i4], m[i5]);                                  \
    quarter(v[3], v[7], v[11], v[15], m[i6], m[i7]);                                  \
    quarter(v[0], v[5], v[10], v[15], m[i8], m[i9]);                                  \
    quarter(v[1], v[6], v[11], v[12], m[ia], m[ib]);                                  \
    quarter(v[2], v[7], v[8], v[13], m[ic], m[id]);                                   \
    quarter(v[3], v[4], v[9], v[14], m[ie], m[if_]);

// The sixteen working words after seven rounds; the callers fold them.
DEV void blake3_rounds(u32 (&v)[16], const u32 (&cv)[8], const u32 (&m)[16], u32 counter, u32 length, u32 flags) {
    const u32 iv[8] = {IV_WORDS};
#pragma unroll
    for (int i = 0; i < 8; i++) v[i] = cv[i];
#pragma unroll
    for (int i = 0; i < 4; i++) v[8 + i] = iv[i];
    v[12] = counter;  // chunk and block numbers stay far below 2^32 here
    v[13] = 0;
    v[14] = length;
    v[15] = flags;
    BLAKE3_ROUND(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)
    BLAKE3_ROUND(2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8)
    BLAKE3_ROUND(3, 4, 10, 12, 13, 2, 7, 14, 6, 5, 9, 0, 11, 15, 8, 1)
    BLAKE3_ROUND(10, 7, 12, 9, 14, 3, 13, 15, 4, 0, 11, 2, 5, 8, 1, 6)
    BLAKE3_ROUND(12, 13, 9, 11, 15, 10, 14, 8, 7, 2, 5, 3, 0, 1, 6, 4)
    BLAKE3_ROUND(9, 14, 11, 5, 8, 12, 15, 1, 13, 3, 0, 10, 2, 6, 4, 7)
    BLAKE3_ROUND(11, 15, 5, 0, 1, 9, 8, 6, 14, 10, 2, 12, 3, 4, 7, 13)
}

// The chaining value.
DEV void blake3_compress(u32 (&out)[8], const u32 (&cv)[8], const u32 (&m)[16], u32 counter, u32 length, u32 flags) {
    u32 v[16];
    blake3_rounds(v, cv, m, counter, length, flags);
#pragma unroll
    for (int i = 0; i < 8; i++) out[i] = v[i] ^ v[i + 8];
}

// A whole 64-byte block of root output: block number `block` of the XOF.
DEV void blake3_output_block(u32 (&out)[16], const u32 (&cv)[8], const u32 (&m)[16], u32 block, u32 length, u32 flags) {
    u32 v[16];
    blake3_rounds(v, cv, m, block, length, flags);
#pragma unroll
    for (int i = 0; i < 8; i++) {
        out[i] = v[i] ^ v[i + 8];
        out[i + 8] = v[i + 8] ^ cv[i];
    }
}

// spec §1.1: DK("attempt seed", 93 bytes), two blocks of one chunk.
DEV void attempt_seed(u32 (&seed)[8], const AttemptRecord &r, u64 nonce, u32 rows, u32 n, u32 k) {
    const u32 key[8] = {ATTEMPT_SEED_KEY};
    u32 m[16], cv[8];
#pragma unroll
    for (int i = 0; i < 8; i++) {
        m[i] = r.prev_hash[i];
        m[i + 8] = r.miner[i];
    }
    blake3_compress(cv, key, m, 0, 64, CHUNK_START | DERIVE_KEY_MATERIAL);
    // One byte of the key, then words: each crosses a word boundary by 8 bits.
    const u32 w[7] = {(u32)nonce, (u32)(nonce >> 32), (u32)r.timestamp_ms, (u32)(r.timestamp_ms >> 32), rows, n, k};
    m[0] = (r.miner_last & 0xff) | (w[0] << 8);
#pragma unroll
    for (int i = 1; i < 7; i++) m[i] = (w[i - 1] >> 24) | (w[i] << 8);
    m[7] = w[6] >> 24;
#pragma unroll
    for (int i = 8; i < 16; i++) m[i] = 0;
    blake3_compress(seed, cv, m, 0, 29, CHUNK_END | ROOT | DERIVE_KEY_MATERIAL);
}

// spec §1.2: bytes [64i, 64i+64) of DK("activation rows", seed) are output block i.
DEV void activation_row_states(u32 (&out)[16], const u32 (&seed)[8], u32 row) {
    const u32 key[8] = {ACTIVATION_ROWS_KEY};
    u32 m[16];
#pragma unroll
    for (int i = 0; i < 8; i++) {
        m[i] = seed[i];
        m[i + 8] = 0;
    }
    blake3_output_block(out, key, m, row, 32, CHUNK_START | CHUNK_END | ROOT | DERIVE_KEY_MATERIAL);
}

// spec §1.3: the same of DK("weight rows", layer u8 ‖ n u32 ‖ cols u32).
DEV void weight_row_states(u32 (&out)[16], u32 layer, u32 n, u32 cols, u32 row) {
    const u32 key[8] = {WEIGHT_ROWS_KEY};
    u32 m[16];
#pragma unroll
    for (int i = 0; i < 16; i++) m[i] = 0;
    m[0] = (layer & 0xff) | (n << 8);
    m[1] = (n >> 24) | (cols << 8);
    m[2] = cols >> 24;
    blake3_output_block(out, key, m, row, 9, CHUNK_START | CHUNK_END | ROOT | DERIVE_KEY_MATERIAL);
}

// spec §1.6: DK("work root", seed ‖ digest).
DEV void work_root(u32 (&root)[8], const u32 (&seed)[8], const u32 (&digest)[8]) {
    const u32 key[8] = {WORK_ROOT_KEY};
    u32 m[16];
#pragma unroll
    for (int i = 0; i < 8; i++) {
        m[i] = seed[i];
        m[i + 8] = digest[i];
    }
    blake3_compress(root, key, m, 0, 64, CHUNK_START | CHUNK_END | ROOT | DERIVE_KEY_MATERIAL);
}

// A big-endian 256-bit comparison: root <= target.
DEV bool meets(const u32 (&root)[8], const Target &target) {
    for (int i = 0; i < 8; i++) {
        u32 x = root[i];
        x = (x >> 24) | ((x >> 8) & 0xff00) | ((x << 8) & 0xff0000) | (x << 24);
        if (x != target.word[i]) return x < target.word[i];
    }
    return true;
}
