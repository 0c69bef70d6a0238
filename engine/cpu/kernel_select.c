/* An N:M matrix times one vector. The vector is spread out so that every value has all M
 * numbers that it may meet beside it, the same for all rows; the bits of its column then choose
 * one of them in a register, with masks that are the stored words themselves. Per CPU_SELECT
 * values this reads 64 bytes of values and 2 * bits bytes of words, whatever N and M. */
#include "engine/cpu/kernel_isa.h"
#include <string.h>

#ifdef __x86_64__
#include <immintrin.h>
#endif

enum {
    SELECT_PARTS = CPU_SELECT / VEC,
    SELECT_ROWS = 4, /* rows at a time: they share the choices in registers */
    SELECT_BITS_MAX = 4,
};

/* Lane j of lanes_of(word, part) is set if bit part * VEC + j of word is; where it is,
 * choose takes b. */
#if defined(__AVX512F__)
typedef __mmask16 lanes;

INLINE lanes lanes_of(uint16_t word, size_t part)
{
    (void)part;
    return word;
}

INLINE vec choose(lanes set, vec a, vec b)
{
    return (vec)_mm512_mask_blend_ps(set, (__m512)a, (__m512)b);
}

INLINE vec load_front(const float *p, size_t count)
{
    return (vec)_mm512_maskz_loadu_ps((__mmask16)((1U << count) - 1), p);
}
#elif defined(__AVX2__)
typedef __m256 lanes;

INLINE lanes lanes_of(uint16_t word, size_t part)
{
    const __m256i up = _mm256_setr_epi32(31, 30, 29, 28, 27, 26, 25, 24);
    __m256i all = _mm256_set1_epi32(word >> (part * VEC)); /* bit j to the sign of lane j */
    return _mm256_castsi256_ps(_mm256_sllv_epi32(all, up));
}

INLINE vec choose(lanes set, vec a, vec b)
{
    return (vec)_mm256_blendv_ps((__m256)a, (__m256)b, set);
}

INLINE vec load_front(const float *p, size_t count)
{
    const __m256i place = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return (vec)_mm256_maskload_ps(p, _mm256_cmpgt_epi32(_mm256_set1_epi32((int)count), place));
}
#else
typedef int32_t lanes __attribute__((vector_size(VEC * 4)));

INLINE lanes lanes_of(uint16_t word, size_t part)
{
    const lanes bit = {1, 2, 4, 8};
    return (((lanes){0} + (word >> (part * VEC))) & bit) == bit;
}

INLINE vec choose(lanes set, vec a, vec b)
{
    lanes x, y;
    memcpy(&x, &a, sizeof x);
    memcpy(&y, &b, sizeof y);
    x = (y & set) | (x & ~set);
    memcpy(&a, &x, sizeof a);
    return a;
}

INLINE vec load_front(const float *p, size_t count)
{
    float front[VEC] = {0};
    for (size_t j = 0; j < VEC; j++)
        if (j < count)
            front[j] = p[j];
    return vec_load(front);
}
#endif

/* The sums of four vectors' lanes. */
#if defined(__AVX512F__)
INLINE vec4 quarter(vec v)
{
    typedef float vec8 __attribute__((vector_size(32), aligned(4)));
    vec8 half = __builtin_shufflevector(v, v, 0, 1, 2, 3, 4, 5, 6, 7) +
                __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15);
    return __builtin_shufflevector(half, half, 0, 1, 2, 3) +
           __builtin_shufflevector(half, half, 4, 5, 6, 7);
}
#elif defined(__AVX2__)
INLINE vec4 quarter(vec v)
{
    return __builtin_shufflevector(v, v, 0, 1, 2, 3) +
           __builtin_shufflevector(v, v, 4, 5, 6, 7);
}
#else
INLINE vec4 quarter(vec v) { return v; }
#endif

INLINE vec4 fold(const vec *s)
{
    vec4 a = quarter(s[0]), b = quarter(s[1]), c = quarter(s[2]), d = quarter(s[3]);
    vec4 ab =
        __builtin_shufflevector(a, b, 0, 4, 1, 5) + __builtin_shufflevector(a, b, 2, 6, 3, 7);
    vec4 cd =
        __builtin_shufflevector(c, d, 0, 4, 1, 5) + __builtin_shufflevector(c, d, 2, 6, 3, 7);
    return __builtin_shufflevector(ab, cd, 0, 1, 4, 5) +
           __builtin_shufflevector(ab, cd, 2, 3, 6, 7);
}

/* The numbers that the values of one part of a block meet. choices: (2^bits, CPU_SELECT) of the
 * block. */
INLINE vec chosen(const float *choices, const uint16_t *words, size_t part, const unsigned bits)
{
    enum { MANY = 1 << SELECT_BITS_MAX };
    const unsigned many = 1U << bits; /* bounds are fixed, so that every build can unroll */
    vec t[MANY];
    UNROLL for (unsigned c = 0; c < MANY; c++) if (c < many) t[c] =
        vec_load(choices + c * CPU_SELECT + part * VEC);
    UNROLL for (unsigned b = 0; b < SELECT_BITS_MAX; b++)
    {
        if (b >= bits)
            break;
        lanes set = lanes_of(words[b], part);
        UNROLL for (unsigned c = 0; c < MANY / 2; c++) if (c < many >> (b + 1)) t[c] =
            choose(set, t[2 * c], t[2 * c + 1]);
    }
    return t[0];
}

/* `rows` rows from `row`; their sums in a fixed order of their own, whichever rows go together.
 */
INLINE vec4 sum_rows(const struct cpu_select *w, const float *choices, size_t row,
                     const size_t rows, const unsigned bits)
{
    const size_t size = (size_t)CPU_SELECT << bits, stride = w->blocks * bits;
    const float *values = w->values + row * w->kept;
    const uint16_t *words = w->words + row * stride;
    size_t whole = w->kept / CPU_SELECT, rest = w->kept % CPU_SELECT;
    vec sum[SELECT_ROWS] = {{0}};
    for (size_t b = 0; b < whole; b++) {
        UNROLL for (size_t r = 0; r < rows; r++)
            cpu_ask_ahead(values + r * w->kept + b * CPU_SELECT);
        UNROLL for (size_t part = 0; part < SELECT_PARTS; part++)
            UNROLL for (size_t r = 0; r < rows; r++) sum[r] +=
            vec_load(values + r * w->kept + b * CPU_SELECT + part * VEC) *
            chosen(choices + b * size, words + r * stride + b * bits, part, bits);
    }
    for (size_t part = 0; part * VEC < rest; part++) {
        size_t count = rest - part * VEC < VEC ? rest - part * VEC : VEC;
        UNROLL for (size_t r = 0; r < rows; r++) sum[r] +=
            load_front(values + r * w->kept + whole * CPU_SELECT + part * VEC, count) *
            chosen(choices + whole * size, words + r * stride + whole * bits, part, bits);
    }
    return fold(sum);
}

INLINE void select_rows(const struct cpu_select *w, float *y, const float *choices,
                        size_t first, size_t last, bool add, const unsigned bits)
{
    size_t row = first;
    for (; row + SELECT_ROWS <= last; row += SELECT_ROWS) {
        vec4 sum = sum_rows(w, choices, row, SELECT_ROWS, bits);
        if (add)
            sum += *(const vec4 *)(y + row);
        *(vec4 *)(y + row) = sum;
    }
    for (; row < last; row++) {
        float sum = sum_rows(w, choices, row, 1, bits)[0];
        y[row] = add ? y[row] + sum : sum;
    }
}

void KERNEL(select_rows)(const struct cpu_select *w, float *y, const float *choices,
                         size_t first, size_t last, bool add)
{
    switch (w->bits) {
    case 1:
        select_rows(w, y, choices, first, last, add, 1);
        break;
    case 2:
        select_rows(w, y, choices, first, last, add, 2);
        break;
    case 3:
        select_rows(w, y, choices, first, last, add, 3);
        break;
    default:
        select_rows(w, y, choices, first, last, add, 4);
        break;
    }
}

INLINE void spread(const struct cpu_select *w, float *choices, const float *x, const size_t n,
                   const size_t m, const size_t count)
{
    memset(choices, 0, w->blocks * count * CPU_SELECT * sizeof *choices);
    for (size_t k = 0; k < w->kept; k++) {
        float *to = choices + k / CPU_SELECT * count * CPU_SELECT + k % CPU_SELECT;
        for (size_t c = 0; c < m; c++)
            to[c * CPU_SELECT] = x[k / n * m + c];
    }
}

/* Blocks of whole groups of four columns that have n values each: transposed, every column n
 * times. */
INLINE void spread_four(const struct cpu_select *w, float *choices, const float *x,
                        const size_t n)
{
    const size_t groups = CPU_SELECT / n, whole = w->kept / CPU_SELECT;
    for (size_t b = 0; b < whole; b++) {
        const float *from = x + b * groups * 4;
        float *to = choices + b * 4 * CPU_SELECT;
        for (size_t c = 0; c < 4; c++)
            UNROLL for (size_t k = 0; k < CPU_SELECT; k++) to[c * CPU_SELECT + k] =
                from[k / n * 4 + c];
    }
    if (whole == w->blocks)
        return;
    struct cpu_select rest = *w;
    rest.kept = w->kept - whole * CPU_SELECT;
    rest.blocks = 1;
    spread(&rest, choices + whole * 4 * CPU_SELECT, x + whole * groups * 4, n, 4, 4);
}

void KERNEL(select_spread)(const struct cpu_select *w, float *choices, const float *x)
{
    if (w->n == 1 && w->m == 4)
        spread_four(w, choices, x, 1);
    else if (w->n == 2 && w->m == 4)
        spread_four(w, choices, x, 2);
    else
        spread(w, choices, x, w->n, w->m, (size_t)1 << w->bits);
}
