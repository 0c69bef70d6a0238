/* What all kernels share: element types, reductions, launches. Kernels are plain enough for the emulator of
 * tests/cuda/emulated, which runs them thread by thread on the CPU. */
#ifndef HEBB_ENGINE_CUDA_KERNEL_CUH
#define HEBB_ENGINE_CUDA_KERNEL_CUH

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include "engine/cuda/cuda.h"
#include "engine/cuda/math.h"

using bf16 = __nv_bfloat16;

#ifndef CUDA_LAUNCH
#define CUDA_LAUNCH(kernel, grid, block, shared, stream, ...)                                    \
    kernel<<<(grid), (block), (shared), (stream)>>>(__VA_ARGS__)
#define CUDA_SHARED_RAW(name) extern __shared__ __align__(16) unsigned char name[]
#endif

#ifndef CUDA_THREADS /* the emulator takes fewer: every barrier costs it all threads */
#define CUDA_THREADS 256
#endif
enum { THREADS = CUDA_THREADS, WARP = 32 };

__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(bf16 x) { return __bfloat162float(x); }
template <class T> __device__ __forceinline__ T from_float(float x);
template <> __device__ __forceinline__ float from_float<float>(float x) { return x; }
template <> __device__ __forceinline__ bf16 from_float<bf16>(float x) { return __float2bfloat16(x); }

__device__ __forceinline__ float warp_sum(float x)
{
    for (int step = WARP / 2; step > 0; step /= 2)
        x += __shfl_xor_sync(0xffffffffu, x, step);
    return x;
}

__device__ __forceinline__ float warp_max(float x)
{
    for (int step = WARP / 2; step > 0; step /= 2)
        x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, step));
    return x;
}

/* Sum (or maximum) over a block of THREADS; every thread gets it. shared: THREADS / WARP floats, free to be used again
 * after the next barrier. */
__device__ __forceinline__ float block_sum(float x, float *shared)
{
    x = warp_sum(x);
    __syncthreads(); /* readers of the last use */
    if (threadIdx.x % WARP == 0)
        shared[threadIdx.x / WARP] = x;
    __syncthreads();
    float sum = 0;
    for (unsigned i = 0; i < THREADS / WARP; i++)
        sum += shared[i];
    return sum;
}

__device__ __forceinline__ float block_max(float x, float *shared)
{
    x = warp_max(x);
    __syncthreads();
    if (threadIdx.x % WARP == 0)
        shared[threadIdx.x / WARP] = x;
    __syncthreads();
    float top = shared[0];
    for (unsigned i = 1; i < THREADS / WARP; i++)
        top = fmaxf(top, shared[i]);
    return top;
}

__device__ __forceinline__ size_t thread_index()
{
    return (size_t)blockIdx.x * blockDim.x + threadIdx.x;
}

__device__ __forceinline__ size_t thread_count() { return (size_t)gridDim.x * blockDim.x; }

/* Eight neighbouring elements, moved by 16-byte accesses; activations start at multiples of 64 bytes. */
template <class T> struct __align__(16) eight {
    T at[8];
};

/* Calls eights(i) for eights i and then element(i) for the count % 8 elements that are left. */
template <class Eights, class Element>
__device__ __forceinline__ void each_eight(size_t count, Eights eights, Element element)
{
    for (size_t i = thread_index(); i < count / 8; i += thread_count())
        eights(i);
    const size_t rest = count / 8 * 8 + thread_index();
    if (rest < count)
        element(rest);
}

/* Blocks for count elements, one a thread, at most `most`: kernels stride over the rest. */
static inline unsigned blocks_for(size_t count, size_t most = 1 << 16)
{
    size_t blocks = (count + THREADS - 1) / THREADS;
    blocks = blocks < 1 ? 1 : blocks;
    return (unsigned)(blocks < most ? blocks : most);
}

/* Runs what follows dev with T as the type of an activation's elements. */
#define WITH_ACT_TYPE(dev, ...)                                                                 \
    do {                                                                                         \
        if (cuda_of(dev)->bf16) {                                                                \
            using T = bf16;                                                                      \
            __VA_ARGS__                                                                              \
        } else {                                                                                 \
            using T = float;                                                                     \
            __VA_ARGS__                                                                              \
        }                                                                                        \
    } while (0)

template <class T> static inline T *act_at(struct device *dev, real *act)
{
    return (T *)cuda_at(dev, act);
}

template <class T> static inline const T *act_at(struct device *dev, const real *act)
{
    return (const T *)cuda_at(dev, act);
}

static inline float *fp32_at(struct device *dev, real *memory)
{
    return (float *)cuda_at(dev, memory);
}

static inline const float *fp32_at(struct device *dev, const real *memory)
{
    return (const float *)cuda_at(dev, memory);
}

#endif
