// Xoshiro128++: one of the four interleaved streams of a row (spec §1.2). Output number i of stream q is the row's word 4i+q.
#pragma once
#include "base.cuh"

struct Stream {
    u32 s0, s1, s2, s3;

    DEV_MEMBER u32 next() {
        u32 sum = s0 + s3;
        u32 word = ((sum << 7) | (sum >> 25)) + s0;
        u32 t = s1 << 9;
        s2 ^= s0;
        s3 ^= s1;
        s1 ^= s2;
        s0 ^= s3;
        s2 ^= t;
        s3 = (s3 << 11) | (s3 >> 21);
        return word;
    }
};
