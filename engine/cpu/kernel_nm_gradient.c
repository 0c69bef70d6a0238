/* dvalues += dy^T x, for the active weights of an N:M matrix, with one panel. */
#include "engine/cpu/kernel_nm.h"

/* Adds the lanes of four vectors until four lanes in a row hold a part of each: lane 4 i + k of
 * the result has a part of vector k. */
#if defined(__AVX512F__)
INLINE vec fold_quad(const vec *s)
{
    vec half[2];
    UNROLL for (size_t i = 0; i < 2; i++)
    {
        vec a = s[2 * i], b = s[2 * i + 1];
        half[i] = __builtin_shufflevector(a, b, 0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12,
                                          28, 13, 29) +
                  __builtin_shufflevector(a, b, 2, 18, 3, 19, 6, 22, 7, 23, 10, 26, 11, 27, 14,
                                          30, 15, 31);
    }
    vec a = half[0], b = half[1];
    return __builtin_shufflevector(a, b, 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28,
                                   29) +
           __builtin_shufflevector(a, b, 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30,
                                   31);
}

/* Four of those become the sums of their sixteen vectors. */
INLINE vec fold_halves(vec a, vec b)
{
    return __builtin_shufflevector(a, b, 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26,
                                   27) +
           __builtin_shufflevector(a, b, 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30,
                                   31);
}

INLINE vec fold(const vec *quads)
{
    return fold_halves(fold_halves(quads[0], quads[1]), fold_halves(quads[2], quads[3]));
}
#elif defined(__AVX2__)
INLINE vec fold_quad(const vec *s)
{
    vec half[2];
    UNROLL for (size_t i = 0; i < 2; i++)
    {
        vec a = s[2 * i], b = s[2 * i + 1];
        half[i] = __builtin_shufflevector(a, b, 0, 8, 1, 9, 4, 12, 5, 13) +
                  __builtin_shufflevector(a, b, 2, 10, 3, 11, 6, 14, 7, 15);
    }
    return __builtin_shufflevector(half[0], half[1], 0, 1, 8, 9, 4, 5, 12, 13) +
           __builtin_shufflevector(half[0], half[1], 2, 3, 10, 11, 6, 7, 14, 15);
}

INLINE vec fold(const vec *quads)
{
    return __builtin_shufflevector(quads[0], quads[1], 0, 1, 2, 3, 8, 9, 10, 11) +
           __builtin_shufflevector(quads[0], quads[1], 4, 5, 6, 7, 12, 13, 14, 15);
}
#else
INLINE vec fold_quad(const vec *s)
{
    vec half[2];
    UNROLL for (size_t i = 0; i < 2; i++)
    {
        vec a = s[2 * i], b = s[2 * i + 1];
        half[i] = __builtin_shufflevector(a, b, 0, 4, 1, 5) +
                  __builtin_shufflevector(a, b, 2, 6, 3, 7);
    }
    return __builtin_shufflevector(half[0], half[1], 0, 1, 4, 5) +
           __builtin_shufflevector(half[0], half[1], 2, 3, 6, 7);
}

INLINE vec fold(const vec *quads) { return quads[0]; }
#endif

enum { BATCH = VEC / QUAD }; /* quads that are folded together */

/* The products of a row of dy with the lanes of four links, folded. */
INLINE vec quad_products(const vec *dy, const float *x, uint32_t links)
{
    const float *lanes[QUAD];
    vec sum[QUAD];
    quad_lanes(lanes, x, links);
    UNROLL for (size_t i = 0; i < QUAD; i++) sum[i] = dy[0] * vec_load(lanes[i]);
    UNROLL for (size_t j = 1; j < PART; j++) UNROLL for (size_t i = 0; i < QUAD; i++) sum[i] +=
        dy[j] * vec_load(lanes[i] + j * VEC);
    return fold_quad(sum);
}

/* dvalues[k] += sum over PART_LANES lanes of dy x[link k], k < count, of one row. */
INLINE void nm_backward_w_row(float *dvalues, const vec *dy, const float *x,
                              const uint8_t *links, size_t count)
{
    vec quads[BATCH];
    size_t k = 0;
    for (; k + VEC <= count; k += VEC) {
        UNROLL for (size_t i = 0; i < BATCH; i++) quads[i] =
            quad_products(dy, x, quad_links(links + k + i * QUAD));
        vec_store(dvalues + k, vec_load(dvalues + k) + fold(quads));
    }
    if (k == count)
        return;
    UNROLL for (size_t i = 0; i < BATCH; i++)
    {
        uint8_t four[QUAD] = {0}; /* past the end: any lanes of the block, and unused sums */
        size_t at = k + i * QUAD;
        quads[i] = (vec){0};
        if (at >= count)
            continue;
        memcpy(four, links + at, min_size(QUAD, count - at));
        quads[i] = quad_products(dy, x, quad_links(four));
    }
    vec total = fold(quads);
    for (size_t i = 0; i < count - k; i++)
        dvalues[k + i] += total[i];
}

void KERNEL(nm_backward_w)(const struct cpu_nm *w, float *dvalues, const float *dy,
                           const float *x, const float *next, size_t block, size_t first,
                           size_t last)
{
    const struct cpu_nm_span span = cpu_nm_span(w, block, 1);
    const uint8_t *links = w->forward + span.start * w->dout;
    float *out = dvalues + span.start;
    for (size_t lane = 0; lane < CPU_PANEL; lane += PART_LANES) {
        const float *lanes = x + span.column * CPU_PANEL + lane;
        struct prefetch plan = prefetch_plan(next, last - first);
        for (size_t o = first; o < last; o++) {
            prefetch_step(&plan);
            prefetch_range(out, (o + AHEAD) * w->kept * sizeof *out, span.count * sizeof *out,
                           1);
            prefetch_range(dy, (o + 2 * AHEAD) * CPU_BLOCK_BYTES, CPU_BLOCK_BYTES, 0);
            vec row[PART];
            UNROLL for (size_t j = 0; j < PART; j++) row[j] =
                vec_load(dy + o * CPU_PANEL + lane + j * VEC);
            nm_backward_w_row(out + o * w->kept, row, lanes, links + o * span.count,
                              span.count);
        }
    }
}
