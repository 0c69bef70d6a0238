#include "engine/optim/newton_schulz.h"
#include <assert.h>
#include <math.h>

const double newton_schulz_tans[NEWTON_SCHULZ_STEPS][3] = {
    {4.0848, -6.8946, 2.9270}, {3.9505, -6.3029, 2.6377}, {3.7418, -5.5913, 2.3037},
    {2.8769, -3.1427, 1.2046}, {2.8366, -3.0525, 1.2012},
};

const double newton_schulz_muon[NEWTON_SCHULZ_STEPS][3] = {
    {3.4445, -4.7750, 2.0315}, {3.4445, -4.7750, 2.0315}, {3.4445, -4.7750, 2.0315},
    {3.4445, -4.7750, 2.0315}, {3.4445, -4.7750, 2.0315},
};

real *newton_schulz(struct device *dev, const struct matrix_scratch *scratch,
                    const double coefficients[][3], size_t rows, size_t cols, real **spare)
{
    const struct ops *ops = dev->ops;
    real *x = scratch->x, *y = scratch->y;
    assert(rows <= cols);
    for (size_t k = 0; k < NEWTON_SCHULZ_STEPS; k++) {
        const real a = (real)coefficients[k][0], b = (real)coefficients[k][1],
                   c = (real)coefficients[k][2];
        ops->matrix_square(dev, scratch->a, x, NULL, 1, 0, rows, cols);
        ops->matrix_square(dev, scratch->b, scratch->a, scratch->a, c, b, rows, rows);
        ops->matrix_product(dev, y, scratch->b, x, x, 1, a, rows, cols, rows);
        real *next = y;
        y = x;
        x = next;
    }
    if (spare)
        *spare = y;
    return x;
}

real *orthogonal_entries(struct device *dev, const struct matrix_scratch *scratch,
                         const double coefficients[][3], const struct param *param,
                         const real *values, double norm, double eps, double *dense_rms)
{
    const struct ops *ops = dev->ops;
    const size_t dout = param->rows, din = param->cols;
    const bool tall = dout > din;
    real *entries = NULL;
    ops->matrix_spread(dev, scratch->x, values, param->nm, dout, din, (real)(1 / (norm + eps)),
                       tall);
    real *dense = newton_schulz(dev, scratch, coefficients, tall ? din : dout,
                                tall ? dout : din, &entries);
    if (dense_rms)
        *dense_rms = sqrt(ops->sum_squares(dev, dense, dout * din) / (double)(dout * din));
    ops->matrix_collect(dev, entries, dense, param->nm, dout, din, tall);
    return entries;
}
