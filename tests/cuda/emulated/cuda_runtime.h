/* CUDA C++ for a C++ compiler: a block's threads are fibers that take turns at barriers and warp operations, blocks run
 * one after the other. Shared memory is static, and keeps what the last block left in it. */
#ifndef EMULATED_CUDA_RUNTIME_H
#define EMULATED_CUDA_RUNTIME_H

#include "cuda_runtime_api.h"
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>

#define CUDA_EMULATED
#define CUDA_THREADS 64
#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __shared__ static
#define __restrict__
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))

struct dim3 {
    unsigned x, y, z;
    dim3(unsigned a = 1, unsigned b = 1, unsigned c = 1) : x(a), y(b), z(c) {}
};
struct uint2 {
    unsigned x, y;
};
struct uint4 {
    unsigned x, y, z, w;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
static inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

struct emulated_thread {
    dim3 thread, block, block_size, grid_size;
};
extern emulated_thread emulated_now; /* of the fiber that runs */
#define threadIdx emulated_now.thread
#define blockIdx emulated_now.block
#define blockDim emulated_now.block_size
#define gridDim emulated_now.grid_size

void emulated_launch(dim3 grid, dim3 block, size_t shared, const std::function<void()> &kernel);
extern unsigned char *emulated_shared; /* dynamic shared memory of the block */
void emulated_block_barrier();
/* Puts `bytes` of this lane where all lanes of the warp read them, in slots of 16 bytes a lane, until they all call
 * emulated_warp_done. */
const unsigned char *emulated_warp_exchange(const void *mine, size_t bytes);
void emulated_warp_done();

#define CUDA_LAUNCH(kernel, grid, block, shared, stream, ...)                                    \
    ((void)(stream), emulated_launch((grid), (block), (shared), [=] { kernel(__VA_ARGS__); }))
#define CUDA_SHARED_RAW(name) unsigned char *name = emulated_shared

static inline void __syncthreads() { emulated_block_barrier(); }
int __syncthreads_or(int value);
static inline void __syncwarp(unsigned = 0xffffffffu)
{
    emulated_warp_exchange(nullptr, 0);
}

template <class V> static inline V __shfl_sync(unsigned, V value, int lane)
{
    V out;
    std::memcpy(&out, emulated_warp_exchange(&value, sizeof value) + 16 * (lane & 31), sizeof out);
    emulated_warp_done();
    return out;
}

static inline unsigned emulated_lane() { return threadIdx.x % 32; }

template <class V> static inline V __shfl_xor_sync(unsigned mask, V value, int bits)
{
    return __shfl_sync(mask, value, (int)(emulated_lane() ^ (unsigned)bits));
}

static inline unsigned __ballot_sync(unsigned, int predicate)
{
    unsigned out = 0;
    unsigned char mine = predicate != 0;
    const unsigned char *slots = emulated_warp_exchange(&mine, sizeof mine);
    for (unsigned lane = 0; lane < 32; lane++)
        out |= (unsigned)slots[16 * lane] << lane;
    emulated_warp_done();
    return out;
}

static inline int __popc(unsigned x) { return __builtin_popcount(x); }

#include "emulated_mma.h"

#endif
