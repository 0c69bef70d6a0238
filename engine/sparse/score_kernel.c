#include "engine/sparse/score_kernel.h"
#include <assert.h>
#include <stdbool.h>
#include <string.h>
#ifdef __x86_64__
#include <immintrin.h>
#endif

static uint32_t common_plain(const uint64_t *a, const uint64_t *b, size_t words)
{
    uint64_t count = 0;
    for (size_t i = 0; i < words; i++)
        count += (uint64_t)__builtin_popcountll(a[i] & b[i]);
    return (uint32_t)count;
}

static void gather_plain(double *sum, const double *panel, size_t stride, const uint64_t *set,
                         size_t words)
{
    memset(sum, 0, SCORE_LANES * sizeof *sum);
    for (size_t i = 0; i < words; i++)
        for (uint64_t bits = set[i]; bits; bits &= bits - 1) {
            const double *row = panel + (i * 64 + (size_t)__builtin_ctzll(bits)) * stride;
            for (size_t l = 0; l < SCORE_LANES; l++)
                sum[l] += row[l];
        }
}

const struct score_kernels score_kernels_plain = {.common = common_plain,
                                                  .gather = gather_plain};

#ifdef __x86_64__
__attribute__((target("avx2,popcnt,bmi"))) static uint32_t
common_avx2(const uint64_t *a, const uint64_t *b, size_t words)
{
    uint64_t count = 0;
    for (size_t i = 0; i < words; i++)
        count += (uint64_t)_mm_popcnt_u64(a[i] & b[i]);
    return (uint32_t)count;
}

/* Eight accumulators of four numbers, all in registers. */
__attribute__((target("avx2,popcnt,bmi"))) static void
gather_avx2(double *sum, const double *panel, size_t stride, const uint64_t *set, size_t words)
{
    __m256d s0 = _mm256_setzero_pd(), s1 = s0, s2 = s0, s3 = s0;
    __m256d s4 = s0, s5 = s0, s6 = s0, s7 = s0;
    for (size_t i = 0; i < words; i++)
        for (uint64_t bits = set[i]; bits; bits &= bits - 1) {
            const double *row = panel + (i * 64 + (size_t)__builtin_ctzll(bits)) * stride;
            s0 = _mm256_add_pd(s0, _mm256_loadu_pd(row));
            s1 = _mm256_add_pd(s1, _mm256_loadu_pd(row + 4));
            s2 = _mm256_add_pd(s2, _mm256_loadu_pd(row + 8));
            s3 = _mm256_add_pd(s3, _mm256_loadu_pd(row + 12));
            s4 = _mm256_add_pd(s4, _mm256_loadu_pd(row + 16));
            s5 = _mm256_add_pd(s5, _mm256_loadu_pd(row + 20));
            s6 = _mm256_add_pd(s6, _mm256_loadu_pd(row + 24));
            s7 = _mm256_add_pd(s7, _mm256_loadu_pd(row + 28));
        }
    _mm256_storeu_pd(sum, s0);
    _mm256_storeu_pd(sum + 4, s1);
    _mm256_storeu_pd(sum + 8, s2);
    _mm256_storeu_pd(sum + 12, s3);
    _mm256_storeu_pd(sum + 16, s4);
    _mm256_storeu_pd(sum + 20, s5);
    _mm256_storeu_pd(sum + 24, s6);
    _mm256_storeu_pd(sum + 28, s7);
}

static const struct score_kernels kernels_avx2 = {.common = common_avx2, .gather = gather_avx2};
static_assert(SCORE_LANES == 32, "gather_avx2 is written out for 32 lanes");

const struct score_kernels *score_kernels_best(void)
{
    const bool fast = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("popcnt") &&
                      __builtin_cpu_supports("bmi");
    return fast ? &kernels_avx2 : &score_kernels_plain;
}
#else
const struct score_kernels *score_kernels_best(void) { return &score_kernels_plain; }
#endif
