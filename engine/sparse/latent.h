/* Dense latent weights: methods that keep a dense weight W behind every N:M target and multiply by an effective one.
 *
 *   masked (ste, srste)  effective = M W, M the legal mask of largest magnitude of the current W
 *   scaled (cast)        effective = s W, dense, one learned s per two neighbouring groups of a row; M steers the decay
 *
 * The gradient slab holds the gradient of the effective weights until latent_gradient. The formulas are those of docs/methods.md.
 */
#ifndef HEBB_ENGINE_SPARSE_LATENT_H
#define HEBB_ENGINE_SPARSE_LATENT_H

#include "engine/model.h"

enum { LATENT_SCALE_GROUPS = 2 /* groups of a row that share a scale */ };

struct latent_args {
    double penalty;                /* srste: lambda_w; cast: the L1 decay */
    double lr, beta2, eps;         /* of the step's adamw: cast's decay is scaled as its update is */
    size_t step, steps, interval;  /* 1-based number of the step that was done; of the run; steps between two masks of cast */
};

/* Scales of a row. */
static inline size_t latent_scales(size_t din, unsigned m)
{
    return (din / m + LATENT_SCALE_GROUPS - 1) / LATENT_SCALE_GROUPS;
}

/* Codes of the legal mask of largest magnitude: per group (block) the legal pattern with the largest sum of |dense|, of equal ones
 * the lowest. dense (dout, din); only w's codes are written. Rows first .. end - 1, whole blocks in the block layout. */
void magnitude_mask(struct nm *w, const real *dense, size_t first, size_t end);

/* Sets the masks of all targets from their latent weights. */
void latent_select(struct model *model);
/* Sets the effective weights of all targets: masked: from new masks; scaled: from weights and scales. After every change of the
 * weights. */
void latent_apply(struct model *model);
/* Turns the gradient of the effective weights into that of weights and scales.
 *   masked: straight through, dW = dE + penalty (1 - M) W
 *   scaled: ds = sum of W dE over its groups; dW = s dE */
void latent_gradient(struct model *model, const struct latent_args *args);
/* After the optimizer's step. scaled: |W| falls by lr penalty / (sqrt(V / (1 - beta2^step)) + eps), down to 0, where the mask is 0;
 * every `interval` steps the masks are selected anew; after the last step weights outside them become 0. Both: latent_apply. */
void latent_update(struct model *model, const struct latent_args *args);

#endif
