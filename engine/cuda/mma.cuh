/* Tensor-core operations of a warp, with the layouts of the PTX manual ("Matrix fragments"). With g = lane / 4 and
 * t = lane % 4 a register pair of bf16 holds
 *   A (16, 16): a[0] row g, a[1] row g + 8, columns 2t and 2t + 1; a[2], a[3] the same, columns + 8
 *   B (16, 8):  b[0] rows 2t and 2t + 1, b[1] rows + 8, column g
 *   C (16, 8):  c[0], c[1] row g, c[2], c[3] row g + 8, columns 2t and 2t + 1
 * The emulator has its own versions, written from the same tables. */
#ifndef HEBB_ENGINE_CUDA_MMA_CUH
#define HEBB_ENGINE_CUDA_MMA_CUH

#include "engine/cuda/kernel.cuh"

/* Two floats as bf16, the first in the low half. */
__device__ __forceinline__ uint32_t pack_bf16(float low, float high)
{
    const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    uint32_t out;
    memcpy(&out, &pair, sizeof out);
    return out;
}

#ifndef CUDA_EMULATED

/* c += a b */
__device__ __forceinline__ void mma_bf16(float c[4], const uint32_t a[4], const uint32_t b[2])
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
                 "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

/* c += a b, a (16, 32) with two of every four columns: a as for mma_bf16, of the stored ones; b (32, 8): b[i] rows
 * 8i + 2t and on. meta: 2 bits a stored entry, of t == 0 columns 0 .. 15, of t == 1 columns 16 .. 31; row g in the low half,
 * row g + 8 in the high one. */
__device__ __forceinline__ void mma_sparse_bf16(float c[4], const uint32_t a[4], const uint32_t b[4],
                                                uint32_t meta)
{
    asm volatile("mma.sp::ordered_metadata.sync.aligned.m16n8k32.row.col.f32.bf16.bf16.f32 "
                 "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9, %10, %11}, {%0, %1, %2, %3}, %12, 0x0;"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "r"(b[2]),
                   "r"(b[3]), "r"(meta));
}

/* Four 8x8 matrices of bf16 from shared memory; lane i gives the address of row i % 8 of matrix i / 8. out[j]: row g,
 * columns 2t and 2t + 1 of matrix j; transposed: rows 2t and 2t + 1 of column g. */
__device__ __forceinline__ void load_matrices(uint32_t out[4], const bf16 *row)
{
    const unsigned at = (unsigned)__cvta_generic_to_shared(row);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(at)
                 : "memory");
}

__device__ __forceinline__ void load_matrices_transposed(uint32_t out[4], const bf16 *row)
{
    const unsigned at = (unsigned)__cvta_generic_to_shared(row);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(at)
                 : "memory");
}
#endif

#endif
