#include "engine/sparse/score_kernel.h"
#include <string.h>

/* GCC's and Clang's portable vectors: the plain version is the same text compiled for the base
 * processor. */
typedef double lanes4 __attribute__((vector_size(32), aligned(8), may_alias));
enum { VECTORS = SCORE_LANES / 4 };

static inline __attribute__((always_inline)) uint32_t
common_body(const uint64_t *a, const uint64_t *b, size_t words)
{
    uint64_t count = 0;
    for (size_t i = 0; i < words; i++)
        count += (uint64_t)__builtin_popcountll(a[i] & b[i]);
    return (uint32_t)count;
}

static inline __attribute__((always_inline)) void
gather_body(double *sum, const double *panel, size_t stride, const uint64_t *set, size_t words)
{
    lanes4 s0 = {0}, s1 = s0, s2 = s0, s3 = s0, s4 = s0, s5 = s0, s6 = s0, s7 = s0;
    for (size_t i = 0; i < words; i++)
        for (uint64_t bits = set[i]; bits; bits &= bits - 1) {
            const size_t z = i * 64 + (size_t)__builtin_ctzll(bits);
            const lanes4 *row = (const lanes4 *)(const void *)(panel + z * stride);
            s0 += row[0];
            s1 += row[1];
            s2 += row[2];
            s3 += row[3];
            s4 += row[4];
            s5 += row[5];
            s6 += row[6];
            s7 += row[7];
        }
    const lanes4 all[VECTORS] = {s0, s1, s2, s3, s4, s5, s6, s7};
    memcpy(sum, all, sizeof all);
}

static uint32_t common_plain(const uint64_t *a, const uint64_t *b, size_t words)
{
    return common_body(a, b, words);
}

static void gather_plain(double *sum, const double *panel, size_t stride, const uint64_t *set,
                         size_t words)
{
    gather_body(sum, panel, stride, set, words);
}

const struct score_kernels score_kernels_plain = {.common = common_plain,
                                                  .gather = gather_plain};

#ifdef __x86_64__
__attribute__((target("avx2,popcnt,bmi"))) static uint32_t
common_avx2(const uint64_t *a, const uint64_t *b, size_t words)
{
    return common_body(a, b, words);
}

__attribute__((target("avx2,popcnt,bmi"))) static void
gather_avx2(double *sum, const double *panel, size_t stride, const uint64_t *set, size_t words)
{
    gather_body(sum, panel, stride, set, words);
}

static const struct score_kernels kernels_avx2 = {.common = common_avx2, .gather = gather_avx2};

const struct score_kernels *score_kernels_best(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("popcnt") &&
                   __builtin_cpu_supports("bmi")
               ? &kernels_avx2
               : &score_kernels_plain;
}
#else
const struct score_kernels *score_kernels_best(void) { return &score_kernels_plain; }
#endif
