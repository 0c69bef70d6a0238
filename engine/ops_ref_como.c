/* Reference: the gate of CoMoLoRA (Lyu et al. 2026, 3.3), forward and backward, and the
 * gradient of a bias. */
#include "engine/ops_ref.h"
#include <math.h>

static real sigmoid(real x) { return 1 / (1 + real_exp(-x)); }

/* tanh(u) of feature k of a token with hidden layer s. */
static real gate_tanh(const struct como_args *args, const real *s, size_t k)
{
    real u = args->b2[k];
    for (size_t j = 0; j < args->hidden; j++)
        u += args->w2[k * args->hidden + j] * s[j];
    return real_tanh(u);
}

void ref_como_forward(struct device *dev, real *g, real *s, const real *z, const real *a,
                      const struct como_args *args, size_t rows)
{
    (void)dev;
    size_t rank = args->rank, hidden = args->hidden;
    for (size_t r = 0; r < rows; r++) {
        for (size_t j = 0; j < hidden; j++) {
            real x = a[r * hidden + j] + args->b1[j];
            s[r * hidden + j] = x * sigmoid(x);
        }
        for (size_t k = 0; k < rank; k++) {
            real t = hidden > 0 ? gate_tanh(args, s + r * hidden, k) : 0;
            real m = args->scale * (1 + args->gamma * t);
            g[r * rank + k] = m * z[r * rank + k];
        }
    }
}

/* silu'(x) = p (1 + x (1 - p)) with p = sigmoid(x). */
static real silu_slope(real x)
{
    real p = sigmoid(x);
    return p * (1 + x * (1 - p));
}

void ref_como_backward(struct device *dev, real *dz, real *du, real *da, const real *dg,
                       const real *s, const real *z, const real *a,
                       const struct como_args *args, size_t rows)
{
    (void)dev;
    size_t rank = args->rank, hidden = args->hidden;
    for (size_t r = 0; r < rows; r++) {
        for (size_t j = 0; j < hidden; j++)
            da[r * hidden + j] = 0;
        for (size_t k = 0; k < rank; k++) {
            size_t i = r * rank + k;
            real d = dg[i], t = hidden > 0 ? gate_tanh(args, s + r * hidden, k) : 0;
            dz[i] = args->scale * (1 + args->gamma * t) * d;
            if (hidden == 0)
                continue;
            du[i] = args->scale * args->gamma * (1 - t * t) * z[i] * d;
            for (size_t j = 0; j < hidden; j++)
                da[r * hidden + j] += args->w2[k * hidden + j] * du[i];
        }
        for (size_t j = 0; j < hidden; j++)
            da[r * hidden + j] *= silu_slope(a[r * hidden + j] + args->b1[j]);
    }
}

void ref_bias_backward(struct device *dev, real *db, const real *dy, size_t rows, size_t dim)
{
    (void)dev;
    for (size_t r = 0; r < rows; r++)
        for (size_t i = 0; i < dim; i++)
            db[i] += dy[r * dim + i];
}
