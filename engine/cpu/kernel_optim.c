/* The optimizer's loops. */
#include "engine/cpu/kernel_isa.h"
#include <math.h>

void KERNEL(adamw)(float *restrict w, float *restrict m, float *restrict v,
                   const float *restrict g, size_t count, const struct adamw_args *args)
{
    const struct adamw_args a = *args;
    const float beta1 = (float)a.beta1, beta2 = (float)a.beta2;
    const float rest1 = (float)(1 - a.beta1), rest2 = (float)(1 - a.beta2);
    const float keep = 1.0f - a.lr * a.weight_decay;
    for (size_t i = 0; i < count; i++) {
        float gi = a.grad_scale * g[i];
        float mi = beta1 * m[i] + rest1 * gi;
        float vi = beta2 * v[i] + rest2 * gi * gi;
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

static void tans_plain(float *restrict u, float *restrict p, float *restrict v,
                       const float *restrict g, size_t count, const struct tans_args *args)
{
    const struct tans_args a = *args;
    const float beta1 = (float)a.beta1, beta2 = (float)a.beta2;
    const float rest1 = (float)(1 - a.beta1), rest2 = (float)(1 - a.beta2);
    for (size_t i = 0; i < count; i++) {
        float gi = a.grad_scale * g[i];
        float vi = beta2 * v[i] + rest2 * gi * gi;
        float q = gi / (sqrtf(vi) + a.eps);
        float pi = beta1 * p[i] + rest1 * q;
        v[i] = vi;
        p[i] = pi;
        u[i] = rest1 * q + beta1 * pi;
    }
}

static void tans_aged(float *restrict u, float *restrict p, float *restrict v,
                      uint16_t *restrict ages, const float *restrict g, size_t count,
                      const struct tans_args *args)
{
    const struct tans_args a = *args;
    const float beta1 = (float)a.beta1, beta2 = (float)a.beta2;
    const float rest1 = (float)(1 - a.beta1), rest2 = (float)(1 - a.beta2);
    for (size_t i = 0; i < count; i++) {
        unsigned age = ages[i] < AGE_MAX ? ages[i] + 1U : AGE_MAX;
        float gi = a.grad_scale * g[i];
        float vi = beta2 * v[i] + rest2 * gi * gi;
        float q = gi / (sqrtf(vi * a.correct_moment[age]) + a.eps);
        float pi = beta1 * p[i] + rest1 * q;
        ages[i] = (uint16_t)age;
        v[i] = vi;
        p[i] = pi;
        u[i] = (rest1 * q + beta1 * pi) * a.correct_update[age];
    }
}

void KERNEL(tans_moments)(float *u, float *p, float *v, uint16_t *ages, const float *g,
                          size_t count, const struct tans_args *args)
{
    if (ages)
        tans_aged(u, p, v, ages, g, count, args);
    else
        tans_plain(u, p, v, g, count, args);
}

void KERNEL(muon_momentum)(float *restrict u, float *restrict p, const float *restrict g,
                           size_t count, double mu, float grad_scale)
{
    const float keep = (float)mu, rest = (float)(1 - mu);
    for (size_t i = 0; i < count; i++) {
        float gi = grad_scale * g[i];
        float pi = keep * p[i] + rest * gi;
        p[i] = pi;
        u[i] = rest * gi + keep * pi;
    }
}

void KERNEL(matrix_step)(float *restrict w, const float *restrict u, const float *restrict o,
                         size_t count, const struct matrix_step_args *args)
{
    const struct matrix_step_args a = *args;
    if (o && a.gamma > 0.0f)
        for (size_t i = 0; i < count; i++)
            w[i] = a.keep * w[i] - a.step * (u[i] + a.gamma * (a.ratio * o[i] - u[i]));
    else
        for (size_t i = 0; i < count; i++)
            w[i] = a.keep * w[i] - a.step * u[i];
}

void KERNEL(blend)(float *out, const float *a, const float *b, float alpha, float beta,
                   size_t count)
{
    if (b)
        for (size_t i = 0; i < count; i++)
            out[i] = alpha * a[i] + beta * b[i];
    else
        for (size_t i = 0; i < count; i++)
            out[i] = alpha * a[i];
}
