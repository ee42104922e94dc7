// Fixed-width types and the records that the host fills. No toolkit header is included anywhere, so that NVRTC alone builds
// everything. The same files compile as plain C++ (HOST_TEST) to test the arithmetic on a CPU.
#pragma once

typedef unsigned char u8;
typedef signed char i8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#ifdef __CUDACC__
#define DEV __device__ __forceinline__
#define DEV_MEMBER __device__ __forceinline__
#else
#define DEV static inline __attribute__((unused))
#define DEV_MEMBER inline
#endif

// What a seed binds (spec §1.1), in the layout that tops-kernels documents: 88 bytes, 8-byte aligned.
struct AttemptRecord {
    u32 prev_hash[8];
    u32 miner[8];    // bytes 0..32 of the compressed key
    u32 miner_last;  // byte 32
    u32 pad;
    u64 nonce;
    u64 timestamp_ms;
};

// A 256-bit target, most significant word first.
struct Target {
    u32 word[8];
};

// W rows are stored so that the sixteen accumulators that a thread of an m..n8 product holds in a group of 64 columns are
// sixteen neighbouring outputs: physical row 8j+2q+e of a group is neuron 16q+2j+e.
DEV u32 physical_row(u32 neuron) {
    u32 c = neuron & 63;
    return (neuron & ~63u) | (((c >> 1) & 7) << 3) | ((c >> 4) << 1) | (c & 1);
}
