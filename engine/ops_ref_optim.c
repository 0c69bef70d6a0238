/* Reference: AdamW and the gradient norm's sum. */
#include "engine/ops_ref.h"
#include <math.h>

void ref_adamw(struct device *dev, real *w, real *m, real *v, const real *g, size_t count,
               const struct adamw_args *args)
{
    (void)dev;
    const real b1 = (real)args->beta1, b2 = (real)args->beta2;
    const real rest1 = (real)(1 - args->beta1), rest2 = (real)(1 - args->beta2);
    for (size_t i = 0; i < count; i++) {
        real gi = args->grad_scale * g[i];
        m[i] = b1 * m[i] + rest1 * gi;
        v[i] = b2 * v[i] + rest2 * gi * gi;
        real step =
            m[i] / args->correction1 / (real_sqrt(v[i] / args->correction2) + args->eps);
        w[i] = (1 - args->lr * args->weight_decay) * w[i] - args->lr * step;
    }
}

double ref_sum_squares(struct device *dev, const real *x, size_t count)
{
    (void)dev;
    double sum = 0;
    for (size_t i = 0; i < count; i++)
        sum += (double)x[i] * (double)x[i];
    return sum;
}
