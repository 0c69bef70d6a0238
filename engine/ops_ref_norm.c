/* Reference: RMSNorm, forward and backward. */
#include "engine/ops_ref.h"
#include <math.h>

void ref_rmsnorm_forward(struct device *dev, real *out, real *rstd, const real *x,
                         const real *w, real eps, size_t rows, size_t dim)
{
    (void)dev;
    for (size_t r = 0; r < rows; r++) {
        const real *xr = x + r * dim;
        real sum = 0;
        for (size_t i = 0; i < dim; i++)
            sum += xr[i] * xr[i];
        rstd[r] = 1 / real_sqrt(sum / (real)dim + eps);
        for (size_t i = 0; i < dim; i++)
            out[r * dim + i] = xr[i] * rstd[r] * w[i];
    }
}

void ref_rmsnorm_backward(struct device *dev, real *dx, real *dw, const real *dout,
                          const real *x, const real *w, const real *rstd, size_t rows,
                          size_t dim)
{
    (void)dev;
    for (size_t r = 0; r < rows; r++) {
        const real *xr = x + r * dim, *dr = dout + r * dim;
        real dot = 0; /* sum_j dout_j w_j x_j */
        for (size_t i = 0; i < dim; i++)
            dot += dr[i] * w[i] * xr[i];
        real pull = rstd[r] * rstd[r] * dot / (real)dim;
        for (size_t i = 0; i < dim; i++) {
            dx[r * dim + i] += rstd[r] * (w[i] * dr[i] - xr[i] * pull);
            dw[i] += dr[i] * xr[i] * rstd[r];
        }
    }
}
