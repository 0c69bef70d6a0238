/* The gate of CoMoLoRA on one panel; formulas at engine/ops.h: como_forward. */
#include "engine/cpu/kernel_isa.h"
#include <string.h>

/* out = 1 / (1 + exp(-x)) */
static void sigmoid_lanes(float *restrict out, const float *restrict x)
{
    float minus[CPU_PANEL], e[CPU_PANEL];
    for (size_t lane = 0; lane < CPU_PANEL; lane++)
        minus[lane] = -x[lane];
    KERNEL(exponential)(e, minus, CPU_PANEL);
    for (size_t lane = 0; lane < CPU_PANEL; lane++)
        out[lane] = 1.0f / (1.0f + e[lane]);
}

/* tanh(u) of feature k: 1 - 2 / (1 + exp(2 u)), which is 0 for u = 0 and errs by some 1e-7 in
 * all; it goes into 1 + gamma tanh(u). */
static void tanh_lanes(float *restrict t, const float *restrict s, const struct como_args *args,
                       size_t k)
{
    float u[CPU_PANEL], e[CPU_PANEL];
    for (size_t lane = 0; lane < CPU_PANEL; lane++)
        u[lane] = args->b2[k];
    for (size_t j = 0; j < args->hidden; j++) {
        float w = args->w2[k * args->hidden + j];
        for (size_t lane = 0; lane < CPU_PANEL; lane++)
            u[lane] += w * s[j * CPU_PANEL + lane];
    }
    for (size_t lane = 0; lane < CPU_PANEL; lane++)
        u[lane] *= 2.0f;
    KERNEL(exponential)(e, u, CPU_PANEL);
    for (size_t lane = 0; lane < CPU_PANEL; lane++)
        t[lane] = 1.0f - 2.0f / (1.0f + e[lane]);
}

void KERNEL(como_forward)(float *restrict g, float *restrict s, const float *restrict z,
                          const float *restrict a, const struct como_args *args, size_t lanes)
{
    for (size_t j = 0; j < args->hidden; j++) {
        float x[CPU_PANEL], p[CPU_PANEL], *sj = s + j * CPU_PANEL;
        for (size_t lane = 0; lane < CPU_PANEL; lane++)
            x[lane] = a[j * CPU_PANEL + lane] + args->b1[j];
        sigmoid_lanes(p, x);
        for (size_t lane = 0; lane < CPU_PANEL; lane++)
            sj[lane] = lane < lanes ? x[lane] * p[lane] : 0.0f;
    }
    float t[CPU_PANEL] = {0};
    for (size_t k = 0; k < args->rank; k++) {
        if (args->hidden > 0)
            tanh_lanes(t, s, args, k);
        for (size_t lane = 0; lane < CPU_PANEL; lane++)
            g[k * CPU_PANEL + lane] =
                args->scale * (1.0f + args->gamma * t[lane]) * z[k * CPU_PANEL + lane];
    }
}

/* da = silu'(a + b1) * da for hidden unit j; silu'(x) = p (1 + x (1 - p)), p = sigmoid(x). */
static void silu_backward_lanes(float *restrict da, const float *restrict a, float b1)
{
    float x[CPU_PANEL], p[CPU_PANEL];
    for (size_t lane = 0; lane < CPU_PANEL; lane++)
        x[lane] = a[lane] + b1;
    sigmoid_lanes(p, x);
    for (size_t lane = 0; lane < CPU_PANEL; lane++)
        da[lane] *= p[lane] * (1.0f + x[lane] * (1.0f - p[lane]));
}

/* dz may alias dg, which is why a row of it is copied first. */
void KERNEL(como_backward)(float *dz, float *restrict du, float *restrict da, const float *dg,
                           const float *restrict s, const float *restrict z,
                           const float *restrict a, const struct como_args *args)
{
    size_t hidden = args->hidden;
    float t[CPU_PANEL] = {0}, d[CPU_PANEL];
    if (hidden > 0)
        memset(da, 0, hidden * CPU_PANEL * sizeof *da);
    for (size_t k = 0; k < args->rank; k++) {
        memcpy(d, dg + k * CPU_PANEL, sizeof d);
        if (hidden > 0)
            tanh_lanes(t, s, args, k);
        for (size_t lane = 0; lane < CPU_PANEL; lane++)
            dz[k * CPU_PANEL + lane] = args->scale * (1.0f + args->gamma * t[lane]) * d[lane];
        if (hidden == 0)
            continue;
        float *restrict duk = du + k * CPU_PANEL, slope = args->scale * args->gamma;
        for (size_t lane = 0; lane < CPU_PANEL; lane++)
            duk[lane] = slope * (1.0f - t[lane] * t[lane]) * z[k * CPU_PANEL + lane] * d[lane];
        for (size_t j = 0; j < hidden; j++) {
            float w = args->w2[k * hidden + j];
            for (size_t lane = 0; lane < CPU_PANEL; lane++)
                da[j * CPU_PANEL + lane] += w * duk[lane];
        }
    }
    for (size_t j = 0; j < hidden; j++)
        silu_backward_lanes(da + j * CPU_PANEL, a + j * CPU_PANEL, args->b1[j]);
}
