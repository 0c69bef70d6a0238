/* engine/cuda/mma.cuh on the CPU, from the manual's tables: every lane gathers what the others hold. */
#ifndef EMULATED_MMA_H
#define EMULATED_MMA_H

#include "cuda_bf16.h"
#include <cstdlib>

struct emulated_registers {
    uint32_t of[32][4];
};

static inline void emulated_gather(emulated_registers *out, const uint32_t *mine, size_t count)
{
    const unsigned char *slots = emulated_warp_exchange(mine, count * sizeof *mine);
    for (unsigned lane = 0; lane < 32; lane++)
        std::memcpy(out->of[lane], slots + 16 * lane, count * sizeof *mine);
    emulated_warp_done();
}

static inline float emulated_element(uint32_t pair, unsigned odd)
{
    return __bfloat162float({(uint16_t)(pair >> 16 * odd)});
}

static inline void mma_bf16(float c[4], const uint32_t a[4], const uint32_t b[2])
{
    emulated_registers as, bs;
    const unsigned g = emulated_lane() / 4, t = emulated_lane() % 4;
    emulated_gather(&as, a, 4);
    emulated_gather(&bs, b, 2);
    for (unsigned i = 0; i < 4; i++) {
        const unsigned row = g + 8 * (i / 2), col = 2 * t + i % 2;
        for (unsigned k = 0; k < 16; k++) {
            const uint32_t pa = as.of[row % 8 * 4 + k % 8 / 2][row / 8 + 2 * (k / 8)];
            const uint32_t pb = bs.of[col * 4 + k % 8 / 2][k / 8];
            c[i] += emulated_element(pa, k % 2) * emulated_element(pb, k % 2);
        }
    }
}

static inline void mma_sparse_bf16(float c[4], const uint32_t a[4], const uint32_t b[4], uint32_t meta)
{
    emulated_registers as, bs, metas;
    const unsigned g = emulated_lane() / 4, t = emulated_lane() % 4;
    emulated_gather(&as, a, 4);
    emulated_gather(&bs, b, 4);
    emulated_gather(&metas, &meta, 1);
    for (unsigned i = 0; i < 4; i++) {
        const unsigned row = g + 8 * (i / 2), col = 2 * t + i % 2;
        for (unsigned stored = 0; stored < 16; stored++) {
            /* Stored entries 2q and 2q + 1 are of columns 4q .. 4q + 3. */
            const unsigned group = stored / 2;
            const uint32_t word = metas.of[row % 8 * 4 + group / 4][0] >> (row >= 8 ? 16 : 0);
            const unsigned column = 4 * group + (word >> (2 * (stored % 8)) & 3u);
            const uint32_t pa = as.of[row % 8 * 4 + stored % 8 / 2][row / 8 + 2 * (stored / 8)];
            const uint32_t pb = bs.of[col * 4 + column % 8 / 2][column / 8];
            c[i] += emulated_element(pa, stored % 2) * emulated_element(pb, column % 2);
        }
    }
}

static inline void emulated_matrices(uint32_t out[4], const __nv_bfloat16 *row, bool transposed)
{
    const unsigned char *slots = emulated_warp_exchange(&row, sizeof row);
    const unsigned g = emulated_lane() / 4, t = emulated_lane() % 4;
    if ((uintptr_t)row % 16 != 0)
        std::abort();
    for (unsigned j = 0; j < 4; j++) {
        uint16_t pair[2];
        for (unsigned e = 0; e < 2; e++) {
            const __nv_bfloat16 *from;
            const unsigned r = transposed ? 2 * t + e : g, column = transposed ? g : 2 * t + e;
            std::memcpy(&from, slots + 16 * (8 * j + r), sizeof from);
            pair[e] = from[column].bits;
        }
        out[j] = pair[0] | (uint32_t)pair[1] << 16;
    }
    emulated_warp_done();
}

static inline void load_matrices(uint32_t out[4], const __nv_bfloat16 *row)
{
    emulated_matrices(out, row, false);
}

static inline void load_matrices_transposed(uint32_t out[4], const __nv_bfloat16 *row)
{
    emulated_matrices(out, row, true);
}

#endif
