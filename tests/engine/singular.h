/* Singular values by one-sided Jacobi rotations, for tests: slow, and accurate for small ones.
 */
#ifndef HEBB_TESTS_ENGINE_SINGULAR_H
#define HEBB_TESTS_ENGINE_SINGULAR_H

#include "engine/real.h"
#include <math.h>
#include <stdlib.h>

/* Turns rows i and j of x (.., cols) so that they are orthogonal; false if they were. */
static inline int singular_rotate(double *x, double *y, size_t cols)
{
    double a = 0, b = 0, c = 0;
    for (size_t k = 0; k < cols; k++) {
        a += x[k] * x[k];
        b += y[k] * y[k];
        c += x[k] * y[k];
    }
    if (fabs(c) <= 1e-14 * sqrt(a * b))
        return 0;
    const double zeta = (b - a) / (2 * c);
    const double t = copysign(1, zeta) / (fabs(zeta) + sqrt(1 + zeta * zeta));
    const double cosine = 1 / sqrt(1 + t * t), sine = cosine * t;
    for (size_t k = 0; k < cols; k++) {
        const double old = x[k];
        x[k] = cosine * old - sine * y[k];
        y[k] = sine * old + cosine * y[k];
    }
    return 1;
}

static inline int singular_order(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x < y) - (x > y);
}

/* out gets the min(rows, cols) singular values of matrix (rows, cols), the largest first. */
static inline void singular_values(double *out, const real *matrix, size_t rows, size_t cols)
{
    const int tall = rows > cols;
    const size_t count = tall ? cols : rows, length = tall ? rows : cols;
    double *x = malloc(count * length * sizeof *x);
    assert_non_null(x);
    for (size_t i = 0; i < count; i++)
        for (size_t k = 0; k < length; k++)
            x[i * length + k] = (double)(tall ? matrix[k * cols + i] : matrix[i * cols + k]);
    int turned = 1;
    for (int sweep = 0; turned && sweep < 60; sweep++) {
        turned = 0;
        for (size_t i = 0; i < count; i++)
            for (size_t j = i + 1; j < count; j++)
                turned |= singular_rotate(x + i * length, x + j * length, length);
    }
    for (size_t i = 0; i < count; i++) {
        double sum = 0;
        for (size_t k = 0; k < length; k++)
            sum += x[i * length + k] * x[i * length + k];
        out[i] = sqrt(sum);
    }
    qsort(out, count, sizeof *out, singular_order);
    free(x);
}

#endif
