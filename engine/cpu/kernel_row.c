/* Plain rows of numbers, as decoding has them: norm, rotary positions, softmax. */
#include "engine/cpu/kernel_isa.h"
#include <math.h>

/* Partial sums or maxima of a row, folded in a fixed order. */
enum { ROW_LANES = 4 * VEC };

void KERNEL(row_norm)(float *restrict out, const float *restrict x, const float *restrict w,
                      float eps, size_t dim)
{
    float part[ROW_LANES] = {0}, sum = 0;
    size_t whole = dim / ROW_LANES * ROW_LANES;
    for (size_t i = 0; i < whole; i += ROW_LANES)
        for (size_t j = 0; j < ROW_LANES; j++)
            part[j] += x[i + j] * x[i + j];
    for (size_t j = 0; j < dim - whole; j++)
        part[j] += x[whole + j] * x[whole + j];
    for (size_t j = 0; j < ROW_LANES; j++)
        sum += part[j];
    float rstd = 1.0f / sqrtf(sum / (float)dim + eps);
    for (size_t i = 0; i < dim; i++)
        out[i] = x[i] * rstd * w[i];
}

static void rope_head(float *restrict low, float *restrict high, const float *restrict cosine,
                      const float *restrict sine, size_t half)
{
    for (size_t i = 0; i < half; i++) {
        float a = low[i], b = high[i];
        low[i] = a * cosine[i] - b * sine[i];
        high[i] = b * cosine[i] + a * sine[i];
    }
}

void KERNEL(row_rope)(float *x, const float *cosine, const float *sine, size_t heads,
                      size_t half)
{
    for (size_t h = 0; h < heads; h++)
        rope_head(x + h * 2 * half, x + h * 2 * half + half, cosine, sine, half);
}

void KERNEL(row_softmax)(float *s, float scale, size_t count)
{
    float part[ROW_LANES], top = -INFINITY, sum = 0;
    size_t whole = count / ROW_LANES * ROW_LANES;
    for (size_t j = 0; j < ROW_LANES; j++)
        part[j] = -INFINITY;
    for (size_t i = 0; i < whole; i += ROW_LANES)
        for (size_t j = 0; j < ROW_LANES; j++)
            part[j] = s[i + j] > part[j] ? s[i + j] : part[j];
    for (size_t j = 0; j < ROW_LANES; j++)
        top = part[j] > top ? part[j] : top;
    for (size_t i = whole; i < count; i++)
        top = s[i] > top ? s[i] : top;
    for (size_t i = 0; i < count; i += ROW_LANES) {
        float block[ROW_LANES];
        size_t length = count - i < ROW_LANES ? count - i : ROW_LANES;
        for (size_t j = 0; j < length; j++)
            block[j] = scale * (s[i + j] - top);
        KERNEL(exponential)(s + i, block, length);
    }
    for (size_t j = 0; j < ROW_LANES; j++)
        part[j] = 0;
    for (size_t i = 0; i < whole; i += ROW_LANES)
        for (size_t j = 0; j < ROW_LANES; j++)
            part[j] += s[i + j];
    for (size_t j = 0; j < count - whole; j++)
        part[j] += s[whole + j];
    for (size_t j = 0; j < ROW_LANES; j++)
        sum += part[j];
    float scale_down = 1.0f / sum;
    for (size_t i = 0; i < count; i++)
        s[i] *= scale_down;
}
