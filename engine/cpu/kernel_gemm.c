/* Dense panels: a small matrix times a panel, transposes, dot products. */
#include "engine/cpu/kernel_isa.h"

enum {
    GEMM_ROWS = 6,                 /* rows of c held in registers */
    GEMM_PART = VEC == 16 ? 4 : 2, /* vectors of each row held: 24 or 12 sums */
    GEMM_LANES = GEMM_PART * VEC,
    GEMM_DEPTH = 64, /* rows of b that stay in the first-level cache */
};

/* Asks for what `rows` rows of a need at the next depth. Along rows that is a few lines of
 * each; down columns it is a line of each of the next rows of memory, one at each step k. */
INLINE void gemm_prefetch_rows(const float *a, size_t rows, size_t row_step)
{
    for (size_t i = 0; i < rows; i++)
        for (size_t k = 0; k < GEMM_DEPTH; k += 16)
            __builtin_prefetch(
                (const void *)((uintptr_t)a + (i * row_step + GEMM_DEPTH + k) * sizeof *a));
}

INLINE void gemm_prefetch_column(const float *a, size_t k, size_t column_step)
{
    __builtin_prefetch(
        (const void *)((uintptr_t)a + (k + GEMM_DEPTH) * column_step * sizeof *a));
}

/* rows <= GEMM_ROWS is a constant wherever this is inlined. */
INLINE void gemm_rows(size_t rows, float *c, size_t ldc, const float *a, size_t row_step,
                      size_t column_step, const float *b, size_t ldb, size_t K, bool accumulate)
{
    vec sum[GEMM_ROWS][GEMM_PART];
    UNROLL for (size_t i = 0; i < rows; i++) UNROLL for (size_t j = 0; j < GEMM_PART; j++)
        sum[i][j] = accumulate ? vec_load(c + i * ldc + j * VEC) : (vec){0};
    if (column_step == 1)
        gemm_prefetch_rows(a, rows, row_step);
    for (size_t k = 0; k < K; k++) {
        vec bk[GEMM_PART];
        if (column_step != 1)
            gemm_prefetch_column(a, k, column_step);
        UNROLL for (size_t j = 0; j < GEMM_PART; j++) bk[j] = vec_load(b + k * ldb + j * VEC);
        UNROLL for (size_t i = 0; i < rows; i++)
        {
            float aik = a[i * row_step + k * column_step];
            UNROLL for (size_t j = 0; j < GEMM_PART; j++) sum[i][j] += aik * bk[j];
        }
    }
    UNROLL for (size_t i = 0; i < rows; i++) UNROLL for (size_t j = 0; j < GEMM_PART; j++)
        vec_store(c + i * ldc + j * VEC, sum[i][j]);
}

/* A depth of at most GEMM_DEPTH, all rows, GEMM_LANES lanes. */
static void gemm_strip(float *c, size_t ldc, const float *a, size_t row_step,
                       size_t column_step, const float *b, size_t ldb, size_t M, size_t K,
                       bool accumulate)
{
    size_t i = 0;
    for (; i + GEMM_ROWS <= M; i += GEMM_ROWS)
        gemm_rows(GEMM_ROWS, c + i * ldc, ldc, a + i * row_step, row_step, column_step, b, ldb,
                  K, accumulate);
    for (; i + 2 <= M; i += 2)
        gemm_rows(2, c + i * ldc, ldc, a + i * row_step, row_step, column_step, b, ldb, K,
                  accumulate);
    if (i < M)
        gemm_rows(1, c + i * ldc, ldc, a + i * row_step, row_step, column_step, b, ldb, K,
                  accumulate);
}

void KERNEL(gemm)(float *c, size_t ldc, const float *a, size_t row_step, size_t column_step,
                  const float *b, size_t ldb, size_t M, size_t K, bool accumulate)
{
    for (size_t k = 0; k < K; k += GEMM_DEPTH) {
        size_t depth = K - k < GEMM_DEPTH ? K - k : GEMM_DEPTH;
        for (size_t lane = 0; lane < CPU_PANEL; lane += GEMM_LANES)
            gemm_strip(c + lane, ldc, a + k * column_step, row_step, column_step,
                       b + k * ldb + lane, ldb, M, depth, accumulate || k > 0);
    }
}

INLINE void transpose_4x4(float *out, size_t ldo, const float *in, size_t ldi)
{
    vec4 r0 = *(const vec4 *)in, r1 = *(const vec4 *)(in + ldi);
    vec4 r2 = *(const vec4 *)(in + 2 * ldi), r3 = *(const vec4 *)(in + 3 * ldi);
    vec4 a = __builtin_shufflevector(r0, r1, 0, 4, 1, 5);
    vec4 b = __builtin_shufflevector(r0, r1, 2, 6, 3, 7);
    vec4 c = __builtin_shufflevector(r2, r3, 0, 4, 1, 5);
    vec4 d = __builtin_shufflevector(r2, r3, 2, 6, 3, 7);
    *(vec4 *)out = __builtin_shufflevector(a, c, 0, 1, 4, 5);
    *(vec4 *)(out + ldo) = __builtin_shufflevector(a, c, 2, 3, 6, 7);
    *(vec4 *)(out + 2 * ldo) = __builtin_shufflevector(b, d, 0, 1, 4, 5);
    *(vec4 *)(out + 3 * ldo) = __builtin_shufflevector(b, d, 2, 3, 6, 7);
}

void KERNEL(transpose)(float *out, size_t ldo, const float *in, size_t ldi, size_t rows,
                       size_t columns)
{
    size_t whole_rows = rows / 4 * 4, whole_columns = columns / 4 * 4;
    for (size_t j = 0; j < whole_columns; j += 4)
        for (size_t i = 0; i < whole_rows; i += 4)
            transpose_4x4(out + j * ldo + i, ldo, in + i * ldi + j, ldi);
    for (size_t i = 0; i < rows; i++)
        for (size_t j = i < whole_rows ? whole_columns : 0; j < columns; j++)
            out[j * ldo + i] = in[i * ldi + j];
}

float KERNEL(lane_sum)(const float *lanes)
{
    float sum[16];
    for (size_t j = 0; j < 16; j++)
        sum[j] = lanes[j] + lanes[j + 16] + (lanes[j + 32] + lanes[j + 48]);
    for (size_t width = 8; width > 0; width /= 2)
        for (size_t j = 0; j < width; j++)
            sum[j] += sum[j + width];
    return sum[0];
}

float KERNEL(dot)(const float *a, const float *b, size_t count)
{
    float sum[CPU_PANEL] = {0};
    size_t i = 0;
    for (; i + CPU_PANEL <= count; i += CPU_PANEL)
        for (size_t j = 0; j < CPU_PANEL; j++)
            sum[j] += a[i + j] * b[i + j];
    for (size_t j = 0; i + j < count; j++)
        sum[j] += a[i + j] * b[i + j];
    return KERNEL(lane_sum)(sum);
}
