/* Optimizers: a registry of rows, one file each. An optimizer turns the model's gradient slab
 * into an update of its weights; its state lives in the model's two moment slabs and the number
 * of the step. */
#ifndef HEBB_ENGINE_OPTIM_H
#define HEBB_ENGINE_OPTIM_H

#include "engine/model.h"

struct optim_args {
    double lr, beta1, beta2, eps;
    double weight_decay; /* of matrices (param->decay); norms have none */
    double grad_scale;   /* multiplies every gradient: clipping */
    size_t step;         /* 1-based, this update's number */
};

struct optimizer {
    const char *name;
    /* Updates all weights and moments; the gradients stay as they are. */
    void (*step)(struct model *model, const struct optim_args *args);
};

extern const struct optimizer optimizer_adamw;

/* NULL if unknown. */
const struct optimizer *optimizer_find(const char *name);
const struct optimizer *const *optimizer_table(size_t *count);

#endif
