/* Transposes and dot products. */
#include "engine/cpu/kernel_isa.h"

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
