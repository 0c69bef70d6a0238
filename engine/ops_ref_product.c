/* Reference: the three products of a linear layer, with an N:M matrix and with a dense one. */
#include "engine/ops_ref.h"
#include <string.h>

/* Column of value k of row o, k < nm_row_values(w). */
static size_t nm_column(const struct nm *w, size_t o, size_t k)
{
    size_t group = k / w->n, code = w->codes[o * nm_groups(w) + group];
    return group * w->m + w->patterns->column[code * w->n + k % w->n];
}

void ref_nm_forward(struct device *dev, real *y, const real *x, const struct nm *w, size_t rows)
{
    (void)dev;
    size_t kept = nm_row_values(w);
    for (size_t r = 0; r < rows; r++) {
        for (size_t o = 0; o < w->dout; o++) {
            real sum = 0;
            for (size_t k = 0; k < kept; k++)
                sum += w->values[o * kept + k] * x[r * w->din + nm_column(w, o, k)];
            y[r * w->dout + o] = sum;
        }
    }
}

void ref_nm_backward_x(struct device *dev, real *dx, const real *dy, const struct nm *w,
                       size_t rows, int accumulate)
{
    (void)dev;
    size_t kept = nm_row_values(w);
    if (!accumulate)
        memset(dx, 0, rows * w->din * sizeof *dx);
    for (size_t r = 0; r < rows; r++)
        for (size_t o = 0; o < w->dout; o++)
            for (size_t k = 0; k < kept; k++)
                dx[r * w->din + nm_column(w, o, k)] +=
                    w->values[o * kept + k] * dy[r * w->dout + o];
}

void ref_nm_backward_w(struct device *dev, real *dvalues, const real *dy, const real *x,
                       const struct nm *w, size_t rows)
{
    (void)dev;
    size_t kept = nm_row_values(w);
    for (size_t o = 0; o < w->dout; o++) {
        for (size_t k = 0; k < kept; k++) {
            size_t column = nm_column(w, o, k);
            real sum = 0;
            for (size_t r = 0; r < rows; r++)
                sum += dy[r * w->dout + o] * x[r * w->din + column];
            dvalues[o * kept + k] += sum;
        }
    }
}

size_t ref_nm_pack_size(const struct nm *w)
{
    (void)w; /* the reference reads the codes themselves */
    return 0;
}

void ref_nm_repack(struct device *dev, struct nm *w)
{
    (void)dev;
    (void)w;
}

void ref_dense_forward(struct device *dev, real *y, const real *x, const real *w, size_t rows,
                       size_t din, size_t dout)
{
    (void)dev;
    for (size_t r = 0; r < rows; r++) {
        for (size_t o = 0; o < dout; o++) {
            real sum = 0;
            for (size_t i = 0; i < din; i++)
                sum += w[o * din + i] * x[r * din + i];
            y[r * dout + o] = sum;
        }
    }
}

void ref_dense_backward_x(struct device *dev, real *dx, const real *dy, const real *w,
                          size_t rows, size_t din, size_t dout, int accumulate)
{
    (void)dev;
    if (!accumulate)
        memset(dx, 0, rows * din * sizeof *dx);
    for (size_t r = 0; r < rows; r++)
        for (size_t o = 0; o < dout; o++)
            for (size_t i = 0; i < din; i++)
                dx[r * din + i] += w[o * din + i] * dy[r * dout + o];
}

void ref_dense_backward_w(struct device *dev, real *dw, const real *dy, const real *x,
                          size_t rows, size_t din, size_t dout)
{
    (void)dev;
    for (size_t r = 0; r < rows; r++)
        for (size_t o = 0; o < dout; o++)
            for (size_t i = 0; i < din; i++)
                dw[o * din + i] += dy[r * dout + o] * x[r * din + i];
}
