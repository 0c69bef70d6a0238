/* The optimizer's loops. */
#include "engine/cpu/kernel_isa.h"
#include <math.h>

void KERNEL(adamw)(float *restrict w, float *restrict m, float *restrict v,
                   const float *restrict g, size_t count, const struct adamw_args *args)
{
    const struct adamw_args a = *args;
    const float keep = 1.0f - a.lr * a.weight_decay;
    for (size_t i = 0; i < count; i++) {
        float gi = a.grad_scale * g[i];
        float mi = a.beta1 * m[i] + (1.0f - a.beta1) * gi;
        float vi = a.beta2 * v[i] + (1.0f - a.beta2) * gi * gi;
        float step = mi / a.correction1 / (sqrtf(vi / a.correction2) + a.eps);
        m[i] = mi;
        v[i] = vi;
        w[i] = keep * w[i] - a.lr * step;
    }
}

double KERNEL(sum_squares)(const float *x, size_t count)
{
    double sum[32] = {0};
    size_t i = 0;
    for (; i + 32 <= count; i += 32)
        for (size_t j = 0; j < 32; j++)
            sum[j] += (double)x[i + j] * (double)x[i + j];
    for (size_t j = 0; i + j < count; j++)
        sum[j] += (double)x[i + j] * (double)x[i + j];
    for (size_t width = 16; width > 0; width /= 2)
        for (size_t j = 0; j < width; j++)
            sum[j] += sum[j + width];
    return sum[0];
}
