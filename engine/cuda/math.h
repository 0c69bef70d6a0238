/* Element-wise math that kernels and the tests on the CPU share. Formulas: the rows of engine/ops.h. */
#ifndef HEBB_ENGINE_CUDA_MATH_H
#define HEBB_ENGINE_CUDA_MATH_H

#include <math.h>
#include <stdint.h>

#if defined(__CUDACC__)
#define CUDA_BOTH static __host__ __device__ __forceinline__
#else
#define CUDA_BOTH static inline
#endif

/* 1 / (1 + exp(-x)); exp overflows to infinity for x below -88, which gives 0. */
CUDA_BOTH float cuda_sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

CUDA_BOTH float cuda_silu(float x) { return x * cuda_sigmoid(x); }

/* silu'(x) = p (1 + x (1 - p)), p = sigmoid(x). */
CUDA_BOTH float cuda_silu_slope(float x)
{
    const float p = cuda_sigmoid(x);
    return p * (1.0f + x * (1.0f - p));
}

struct cuda_adamw {
    float beta1, beta2, rest1, rest2, lr, eps, decay; /* decay: 1 - lr weight_decay */
    float correction1, correction2, grad_scale;
};

CUDA_BOTH void cuda_adamw_entry(float *w, float *m, float *v, float g, struct cuda_adamw a)
{
    g *= a.grad_scale;
    *m = a.beta1 * *m + a.rest1 * g;
    *v = a.beta2 * *v + a.rest2 * g * g;
    const float step = *m / a.correction1 / (sqrtf(*v / a.correction2) + a.eps);
    *w = a.decay * *w - a.lr * step;
}

struct cuda_tans {
    float beta1, beta2, rest1, rest2, eps, grad_scale;
};

/* update, moment: the corrections of the entry's age, or 1. */
CUDA_BOTH void cuda_tans_entry(float *u, float *p, float *v, float g, float update, float moment,
                               struct cuda_tans a)
{
    g *= a.grad_scale;
    *v = a.beta2 * *v + a.rest2 * g * g;
    const float q = g / (sqrtf(*v * moment) + a.eps);
    *p = a.beta1 * *p + a.rest1 * q;
    *u = (a.rest1 * q + a.beta1 * *p) * update;
}

/* Columns of a code of 1:4 and 2:4, the first in the low two bits: codes are ordered by ascending mask. */
CUDA_BOTH unsigned cuda_columns4(unsigned n, unsigned code)
{
    /* 2:4: 01 02 12 03 13 23, four bits each: first | second << 2 */
    return n == 1 ? code : (unsigned)(0xedc984u >> 4 * code) & 15u;
}

#endif
