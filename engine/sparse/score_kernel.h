/* The two inner loops of the CH scores, each plain and, where the processor has AVX2, fast. Both give
 * the same bits: the first counts, the second adds numbers whose sums are exact. */
#ifndef HEBB_ENGINE_SPARSE_SCORE_KERNEL_H
#define HEBB_ENGINE_SPARSE_SCORE_KERNEL_H

#include <stddef.h>
#include <stdint.h>

enum { SCORE_LANES = 32 };

struct score_kernels {
    /* Number of bits set in both a and b, each (words). */
    uint32_t (*common)(const uint64_t *a, const uint64_t *b, size_t words);
    /* sum[l] = sum of panel[z * stride + l] over the bits z set in set (words); l < SCORE_LANES. */
    void (*gather)(double *sum, const double *panel, size_t stride, const uint64_t *set, size_t words);
};

extern const struct score_kernels score_kernels_plain;
const struct score_kernels *score_kernels_best(void); /* of this processor */

#endif
