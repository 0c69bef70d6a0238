/* Reference: plain matrices and the loops of the matrix optimizers. */
#include "engine/ops_ref.h"
#include <math.h>
#include <string.h>

void ref_matrix_product(struct device *dev, real *c, const real *a, const real *b, size_t M,
                        size_t N, size_t K)
{
    (void)dev;
    for (size_t i = 0; i < M; i++) {
        for (size_t j = 0; j < N; j++) {
            real sum = 0;
            for (size_t k = 0; k < K; k++)
                sum += a[i * K + k] * b[k * N + j];
            c[i * N + j] = sum;
        }
    }
}

void ref_matrix_square(struct device *dev, real *c, const real *a, const real *d, real alpha,
                       real beta, real gamma, size_t M, size_t K)
{
    (void)dev;
    for (size_t i = 0; i < M; i++) {
        for (size_t j = 0; j <= i; j++) {
            real sum = 0;
            for (size_t k = 0; k < K; k++)
                sum += a[i * K + k] * a[j * K + k];
            sum = d ? alpha * sum + beta * d[i * M + j] : alpha * sum;
            c[i * M + j] = c[j * M + i] = i == j ? sum + gamma : sum;
        }
    }
}

void ref_matrix_commute(struct device *dev, real *c, const real *a, const real *b, size_t M)
{
    (void)dev;
    for (size_t i = 0; i < M; i++) {
        for (size_t j = 0; j <= i; j++) {
            real sum = 0;
            for (size_t k = 0; k < M; k++)
                sum += a[i * M + k] * b[k * M + j];
            c[i * M + j] = c[j * M + i] = sum;
        }
    }
}

/* Place of stored entry k of row o in the dense matrix. */
static size_t matrix_place(const struct nm *w, size_t dout, size_t din, size_t o, size_t k,
                           int transposed)
{
    size_t column = k;
    if (w) {
        size_t group = k / w->n, code = w->codes[o * nm_groups(w) + group];
        column = group * w->m + w->patterns->column[code * w->n + k % w->n];
    }
    return transposed ? column * dout + o : o * din + column;
}

void ref_matrix_spread(struct device *dev, real *out, const real *values, const struct nm *w,
                       size_t dout, size_t din, real scale, int transposed)
{
    (void)dev;
    size_t kept = w ? nm_row_values(w) : din;
    memset(out, 0, dout * din * sizeof *out);
    for (size_t o = 0; o < dout; o++)
        for (size_t k = 0; k < kept; k++)
            out[matrix_place(w, dout, din, o, k, transposed)] = scale * values[o * kept + k];
}

void ref_matrix_collect(struct device *dev, real *values, const real *in, const struct nm *w,
                        size_t dout, size_t din, int transposed)
{
    (void)dev;
    size_t kept = w ? nm_row_values(w) : din;
    for (size_t o = 0; o < dout; o++)
        for (size_t k = 0; k < kept; k++)
            values[o * kept + k] = in[matrix_place(w, dout, din, o, k, transposed)];
}

void ref_tans_moments(struct device *dev, real *u, real *p, real *v, uint16_t *ages,
                      const real *g, size_t count, const struct tans_args *args)
{
    (void)dev;
    const real b1 = (real)args->beta1, b2 = (real)args->beta2;
    const real rest1 = (real)(1 - args->beta1), rest2 = (real)(1 - args->beta2);
    for (size_t i = 0; i < count; i++) {
        real gi = args->grad_scale * g[i], second = 1, update = 1;
        if (ages) {
            ages[i] = (uint16_t)(ages[i] < AGE_MAX ? ages[i] + 1 : AGE_MAX);
            second = args->correct_moment[ages[i]];
            update = args->correct_update[ages[i]];
        }
        v[i] = b2 * v[i] + rest2 * gi * gi;
        real q = gi / (real_sqrt(v[i] * second) + args->eps);
        p[i] = b1 * p[i] + rest1 * q;
        u[i] = (rest1 * q + b1 * p[i]) * update;
    }
}

void ref_muon_momentum(struct device *dev, real *u, real *p, const real *g, size_t count,
                       double mu, real grad_scale)
{
    const real keep = (real)mu, rest = (real)(1 - mu);
    (void)dev;
    for (size_t i = 0; i < count; i++) {
        real gi = grad_scale * g[i];
        p[i] = keep * p[i] + rest * gi;
        u[i] = rest * gi + keep * p[i];
    }
}

void ref_matrix_step(struct device *dev, real *w, const real *u, const real *o, size_t count,
                     const struct matrix_step_args *args)
{
    (void)dev;
    for (size_t i = 0; i < count; i++) {
        real update = u[i];
        if (args->gamma > 0)
            update += args->gamma * (args->ratio * o[i] - u[i]);
        w[i] = args->keep * w[i] - args->step * update;
    }
}
