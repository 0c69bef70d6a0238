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

/* X = Q X with Q = a I + b A + c A^2, A = X X^T: 3 n m^2 + m^3 operations a step for an
 * (m, n) matrix. */
static real *iterate(struct device *dev, const struct matrix_scratch *scratch,
                     const double coefficients[][3], size_t rows, size_t cols, real **spare)
{
    const struct ops *ops = dev->ops;
    real *x = scratch->x, *y = scratch->y;
    for (size_t k = 0; k < NEWTON_SCHULZ_STEPS; k++) {
        const double *by = coefficients[k];
        ops->matrix_square(dev, scratch->a, x, NULL, 1, 0, 0, rows, cols);
        ops->matrix_square(dev, scratch->b, scratch->a, scratch->a, (real)by[2], (real)by[1],
                           (real)by[0], rows, rows);
        ops->matrix_product(dev, y, scratch->b, x, rows, cols, rows);
        real *next = y;
        y = x;
        x = next;
    }
    *spare = y;
    return x;
}

/* The same polynomial on A alone: with Q as above A becomes Q A Q, P = Q_5 .. Q_1 and the
 * result is P X. All are polynomials of the first A, hence symmetric and commuting. 3 n m^2 +
 * 17 m^3 operations for the five steps, against 15 n m^2 + 5 m^3; errors of A's small
 * eigenvalues are larger, by the square of the condition. Needs cols >= 2 rows: y holds two
 * squares. */
static real *iterate_gram(struct device *dev, const struct matrix_scratch *scratch,
                          const double coefficients[][3], size_t rows, size_t cols,
                          real **spare)
{
    const struct ops *ops = dev->ops;
    real *a = scratch->a, *q = scratch->b, *t = scratch->y, *p = scratch->y + rows * rows;
    ops->matrix_square(dev, a, scratch->x, NULL, 1, 0, 0, rows, cols);
    for (size_t k = 0; k < NEWTON_SCHULZ_STEPS; k++) {
        const double *by = coefficients[k];
        const bool last = k + 1 == NEWTON_SCHULZ_STEPS;
        real *factor = k == 0 ? p : q;
        ops->matrix_square(dev, factor, a, a, (real)by[2], (real)by[1], (real)by[0], rows,
                           rows);
        if (!last) {
            ops->matrix_commute(dev, t, a, factor, rows);
            ops->matrix_commute(dev, a, t, factor, rows);
        }
        if (k > 0) {
            real *next = last ? a : t; /* not in y, where the result goes */
            ops->matrix_commute(dev, next, p, q, rows);
            t = p;
            p = next;
        }
    }
    ops->matrix_product(dev, scratch->y, p, scratch->x, rows, cols, rows);
    *spare = scratch->x;
    return scratch->y;
}

real *newton_schulz(struct device *dev, const struct matrix_scratch *scratch,
                    const double coefficients[][3], size_t rows, size_t cols, real **spare)
{
    assert(rows <= cols);
    return (cols >= 2 * rows ? iterate_gram : iterate)(dev, scratch, coefficients, rows, cols,
                                                       spare);
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
