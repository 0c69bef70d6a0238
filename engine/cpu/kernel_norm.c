/* RMSNorm and rotary positions of one panel. */
#include "engine/cpu/kernel_isa.h"
#include <math.h>

void KERNEL(rmsnorm_forward)(float *restrict out, float *restrict rstd, const float *restrict x,
                             const float *restrict w, float eps, size_t dim, size_t lanes)
{
    float sum[CPU_PANEL] = {0};
    for (size_t i = 0; i < dim; i++)
        for (size_t j = 0; j < CPU_PANEL; j++)
            sum[j] += x[i * CPU_PANEL + j] * x[i * CPU_PANEL + j];
    for (size_t j = 0; j < CPU_PANEL; j++)
        rstd[j] = j < lanes ? 1.0f / sqrtf(sum[j] / (float)dim + eps) : 0.0f;
    for (size_t i = 0; i < dim; i++)
        for (size_t j = 0; j < CPU_PANEL; j++)
            out[i * CPU_PANEL + j] = x[i * CPU_PANEL + j] * rstd[j] * w[i];
}

void KERNEL(rmsnorm_backward_x)(float *restrict dx, const float *restrict dout,
                                const float *restrict x, const float *restrict w,
                                const float *restrict rstd, size_t dim)
{
    float pull[CPU_PANEL] = {0}; /* sum_j dout_j w_j x_j, then times rstd^2 / dim */
    for (size_t i = 0; i < dim; i++)
        for (size_t j = 0; j < CPU_PANEL; j++)
            pull[j] += dout[i * CPU_PANEL + j] * w[i] * x[i * CPU_PANEL + j];
    for (size_t j = 0; j < CPU_PANEL; j++)
        pull[j] *= rstd[j] * rstd[j] / (float)dim;
    for (size_t i = 0; i < dim; i++)
        for (size_t j = 0; j < CPU_PANEL; j++)
            dx[i * CPU_PANEL + j] +=
                rstd[j] * (w[i] * dout[i * CPU_PANEL + j] - x[i * CPU_PANEL + j] * pull[j]);
}

void KERNEL(rmsnorm_backward_w)(float *restrict sums, const float *restrict dout,
                                const float *restrict x, const float *restrict rstd,
                                size_t count)
{
    for (size_t i = 0; i < count; i++)
        for (size_t j = 0; j < CPU_PANEL; j++)
            sums[i * CPU_PANEL + j] += dout[i * CPU_PANEL + j] * x[i * CPU_PANEL + j] * rstd[j];
}

static void rope_pair(float *restrict low, float *restrict high, const float *restrict c,
                      const float *restrict s, float direction)
{
    for (size_t j = 0; j < CPU_PANEL; j++) {
        float a = low[j], b = high[j], turn = direction * s[j];
        low[j] = a * c[j] - b * turn;
        high[j] = b * c[j] + a * turn;
    }
}

void KERNEL(rope)(float *x, const float *cosine, const float *sine, size_t heads, size_t half,
                  size_t pairs, float direction)
{
    for (size_t h = 0; h < heads; h++)
        for (size_t i = 0; i < pairs; i++)
            rope_pair(x + (h * 2 * half + i) * CPU_PANEL,
                      x + (h * 2 * half + half + i) * CPU_PANEL, cosine + i * CPU_PANEL,
                      sine + i * CPU_PANEL, direction);
}
