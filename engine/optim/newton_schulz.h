/* Newton-Schulz iterations: a matrix to its nearest semi-orthogonal one, by products alone. */
#ifndef HEBB_ENGINE_OPTIM_NEWTON_SCHULZ_H
#define HEBB_ENGINE_OPTIM_NEWTON_SCHULZ_H

#include "engine/optim/optim.h"

enum { NEWTON_SCHULZ_STEPS = 5 };

/* (a, b, c) of each step, X = a X + (b A + c A^2) X with A = X X^T: a singular value s becomes
 * a s + b s^3 + c s^5. Where the largest is at most 1, those of TANS take every s >= 0.0056 to
 * [0.977, 1.1] and smaller ones to at most 1.146, below 0.9 for s < 0.0022; those of Muon take
 * every s >= 0.0034 to [0.68, 1.203], not nearer to 1. */
extern const double newton_schulz_tans[NEWTON_SCHULZ_STEPS]
                                      [3]; /* preprint 202605.0851, App. C */
extern const double newton_schulz_muon[NEWTON_SCHULZ_STEPS][3]; /* Jordan et al. 2024 */

/* X (rows, cols), rows <= cols, Frobenius norm at most 1, is in scratch->x; returns the result,
 * which is in scratch->x or scratch->y, and makes the other one *spare. */
real *newton_schulz(struct device *dev, const struct matrix_scratch *scratch,
                    const double coefficients[][3], size_t rows, size_t cols, real **spare);

/* The same for the stored entries `values` of param, divided by (norm + eps), transposed where
 * dout > din, back at their places: the dense result is orthogonal, what is returned is its
 * entries at the stored places, (param->count). Valid until the scratch's next use. *dense_rms:
 * root of the mean square of all dout * din entries; may be NULL. */
real *orthogonal_entries(struct device *dev, const struct matrix_scratch *scratch,
                         const double coefficients[][3], const struct param *param,
                         const real *values, double norm, double eps, double *dense_rms);

#endif
