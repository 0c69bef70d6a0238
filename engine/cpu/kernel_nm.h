/* What the three N:M products share: links in fours, and prefetches.
 *
 * Every multiply-add of these products takes one operand from the first-level cache, which is
 * what that cache can deliver and no more. So the weights must not come from it one by one:
 * four are loaded as one vector and spread by shuffles, and their four link bytes are one word.
 */
#ifndef HEBB_ENGINE_CPU_KERNEL_NM_H
#define HEBB_ENGINE_CPU_KERNEL_NM_H

#include "engine/cpu/kernel_isa.h"
#include <string.h>

enum {
    QUAD = 4,
    AHEAD = 8, /* rows or columns between a prefetch and its use */
    LINE = 64,
    BLOCK_LINES = CPU_BLOCK * CPU_BLOCK_BYTES / LINE,
};

_Static_assert(CPU_BLOCK_BYTES == 1 << 8, "a link's byte times 256 is its lanes' offset");
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the first link is the low byte");

INLINE size_t min_size(size_t a, size_t b) { return a < b ? a : b; }

/* The compiler forgets where p came from: else it keeps one base per vector of a row, runs out
 * of registers and reloads them for every link. */
INLINE const float *opaque(const float *p)
{
    __asm__("" : "+r"(p));
    return p;
}

/* Four numbers, repeated along the vector. In assembly, because GCC 12 builds the vector in
 * memory, or goes back to loading the numbers one by one. */
INLINE vec quad_load(const float *p)
{
    vec out;
    const vec4 *four = (const vec4 *)(const void *)p;
#if defined(__AVX512F__)
    __asm__("vbroadcastf32x4 %1, %0" : "=v"(out) : "m"(*four));
#elif defined(__AVX2__)
    __asm__("vbroadcastf128 %1, %0" : "=x"(out) : "m"(*four));
#else
    out = *four;
#if defined(__x86_64__)
    __asm__("" : "+x"(out));
#elif defined(__aarch64__)
    __asm__("" : "+w"(out));
#endif
#endif
    return out;
}

/* Number i (a constant) of a loaded four, in every lane. */
#if defined(__AVX512F__)
#define QUAD_LANE(v, i)                                                                        \
    __builtin_shufflevector(v, v, i, i, i, i, 4 + i, 4 + i, 4 + i, 4 + i, 8 + i, 8 + i, 8 + i, \
                            8 + i, 12 + i, 12 + i, 12 + i, 12 + i)
#elif defined(__AVX2__)
#define QUAD_LANE(v, i) __builtin_shufflevector(v, v, i, i, i, i, 4 + i, 4 + i, 4 + i, 4 + i)
#else
#define QUAD_LANE(v, i) __builtin_shufflevector(v, v, i, i, i, i)
#endif

/* The lanes of four links; links: their bytes, the first one lowest. */
INLINE void quad_lanes(const float **lanes, const float *block, uint32_t links)
{
    const char *base = (const char *)block;
    const uint32_t mask = CPU_LINK_MASK * CPU_BLOCK_BYTES;
    const uint32_t offsets[QUAD] = {links << 8 & mask, links & mask, links >> 8 & mask,
                                    links >> 16 & mask};
    UNROLL for (size_t i = 0; i < QUAD; i++) lanes[i] =
        opaque((const float *)(const void *)(base + offsets[i]));
}

INLINE uint32_t quad_links(const uint8_t *links)
{
    uint32_t four;
    memcpy(&four, links, sizeof four);
    return four;
}

/* sum += value times the lanes of a link. */
INLINE void link_add(vec *sum, const float *block, float value, uint8_t link)
{
    const float *lanes = opaque(block + (size_t)(link & CPU_LINK_MASK) * CPU_PANEL);
    UNROLL for (size_t j = 0; j < PART; j++) sum[j] += value * vec_load(lanes + j * VEC);
}

/* The same for four links. */
INLINE void quad_add(vec *sum, const float *block, const float *values, const uint8_t *links)
{
    const float *lanes[QUAD];
    const vec four = quad_load(values);
    quad_lanes(lanes, block, quad_links(links));
    const vec value[QUAD] = {QUAD_LANE(four, 0), QUAD_LANE(four, 1), QUAD_LANE(four, 2),
                             QUAD_LANE(four, 3)};
    UNROLL for (size_t i = 0; i < QUAD; i++) UNROLL for (size_t j = 0; j < PART; j++) sum[j] +=
        value[i] * vec_load(lanes[i] + j * VEC);
}

/* `bytes` bytes at p + offset; that may lie past the array's end: a prefetch reads nothing. */
INLINE void prefetch_range(const void *p, size_t offset, size_t bytes, const int write)
{
    for (size_t i = 0; i < bytes; i += LINE) {
        if (write)
            __builtin_prefetch((const void *)((uintptr_t)p + offset + i), 1);
        else
            __builtin_prefetch((const void *)((uintptr_t)p + offset + i), 0);
    }
}

/* A product visits the features of a block in an order that no hardware prefetcher guesses, so
 * the next block is asked for while this one is worked on, a few lines at each of its steps. */
struct prefetch {
    const float *block;
    size_t next, bytes; /* offset, and bytes of each step */
};

INLINE struct prefetch prefetch_plan(const float *block, size_t steps)
{
    return (struct prefetch){block, 0, (BLOCK_LINES / (steps + 1) + 1) * LINE};
}

INLINE void prefetch_step(struct prefetch *plan)
{
    prefetch_range(plan->block, plan->next, plan->bytes, 0);
    plan->next += plan->bytes;
}

#endif
