/* The registry, and the memory that an optimizer takes beyond the moments. */
#include "engine/optim/optim.h"
#include "engine/model_private.h"
#include "proto/base/mem.h"
#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const struct optimizer *const OPTIMIZERS[] = {
    &optimizer_adamw,
    &optimizer_muon,
    &optimizer_tans,
};

const char *const rms_rule_names[] = {
    [RMS_POST_MASK] = "post-mask",
    [RMS_PRE_MASK] = "pre-mask",
    [RMS_NONE] = "none",
    NULL,
};

const char *const scale_rule_names[] = {
    [SCALE_RMS] = "rms",
    [SCALE_SPECTRAL] = "spectral",
    NULL,
};

const struct optimizer *const *optimizer_table(size_t *count)
{
    *count = sizeof OPTIMIZERS / sizeof OPTIMIZERS[0];
    return OPTIMIZERS;
}

const struct optimizer *optimizer_find(const char *name)
{
    size_t count = 0;
    const struct optimizer *const *table = optimizer_table(&count);
    for (size_t i = 0; i < count; i++) {
        if (strcmp(table[i]->name, name) == 0)
            return table[i];
    }
    return NULL;
}

/* Elements of real of each part of the block. */
struct plan {
    size_t dense, square, stored, table;
};

static size_t larger(size_t a, size_t b) { return a > b ? a : b; }

static void plan_matrix(struct plan *plan, const struct model_shape *shape, size_t dout,
                        size_t din)
{
    const size_t small = dout < din ? dout : din;
    plan->dense = larger(plan->dense, dout * din);
    plan->square = larger(plan->square, small * small);
    plan->stored = larger(plan->stored, dout * (din / shape->m * shape->n));
}

static struct plan plan_make(const struct optimizer *optimizer,
                             const struct optim_options *options,
                             const struct model_shape *shape)
{
    const size_t hidden = shape->hidden, wide = shape->intermediate;
    struct plan plan = {0};
    if (optimizer->matrices) {
        plan_matrix(&plan, shape, hidden, hidden);
        plan_matrix(&plan, shape, model_kv_dim(shape), hidden);
        plan_matrix(&plan, shape, wide, hidden);
        plan_matrix(&plan, shape, hidden, wide);
    }
    if (optimizer->refreshes && options->age_correction)
        plan.table = AGE_MAX + 1;
    return plan;
}

static size_t part(size_t elements)
{
    return size_round_up(elements * sizeof(real), MEM_ALIGN);
}

static size_t plan_bytes(const struct plan *plan)
{
    return 2 * part(plan->dense) + 2 * part(plan->square) + part(plan->stored) +
           2 * part(plan->table);
}

static real *take(unsigned char **at, size_t elements)
{
    real *out = elements > 0 ? (real *)(void *)*at : NULL;
    *at += part(elements);
    return out;
}

static void fill_corrections(struct optim *optim, double beta1, double beta2)
{
    if (!optim->correct_update)
        return;
    for (size_t age = 1; age < AGE_MAX; age++) {
        optim->correct_update[age] = (real)(1 / (1 - pow(beta1, (double)age + 1)));
        optim->correct_moment[age] = (real)(1 / (1 - pow(beta2, (double)age)));
    }
    optim->correct_update[AGE_MAX] = optim->correct_moment[AGE_MAX] = 1;
}

int optim_create(struct optim **out, const char *name, double beta1, double beta2,
                 const struct optim_options *options, struct model *model, struct err *err)
{
    const struct optimizer *optimizer = optimizer_find(name);
    *out = NULL;
    if (!optimizer)
        return err_set(err, ERR_INVALID, "optimizer.name is \"%s\": no such optimizer", name);
    struct optim *optim = mem_zeroed(1, sizeof *optim);
    if (!optim)
        return err_set(err, ERR_NO_MEMORY, "optimizer: no memory");
    *optim = (struct optim){
        .optimizer = optimizer, .dev = model->dev, .options = *options};
    const struct plan plan = plan_make(optimizer, options, &model->shape);
    const size_t bytes = plan_bytes(&plan);
    int rc = 0;
    if (bytes > 0 && !(optim->block = device_alloc(model->dev, bytes, 1)))
        rc = err_set(err, ERR_NO_MEMORY,
                     "optimizer.name is \"%s\": no memory for its %zu bytes", name, bytes);
    if (rc == 0 && optimizer->refreshes)
        rc = model_keep_ages(model, options->age_correction, err);
    if (rc != 0) {
        optim_destroy(optim);
        return rc;
    }
    unsigned char *at = optim->block;
    optim->scratch.x = take(&at, plan.dense);
    optim->scratch.y = take(&at, plan.dense);
    optim->scratch.a = take(&at, plan.square);
    optim->scratch.b = take(&at, plan.square);
    optim->scratch.u = take(&at, plan.stored);
    optim->correct_update = take(&at, plan.table);
    optim->correct_moment = take(&at, plan.table);
    fill_corrections(optim, beta1, beta2);
    device_push(model->dev, optim->block, bytes);
    *out = optim;
    return 0;
}

void optim_destroy(struct optim *optim)
{
    if (!optim)
        return;
    device_free(optim->dev, optim->block);
    free(optim);
}

size_t optim_bytes(const char *name, const struct optim_options *options,
                   const struct model_shape *shape)
{
    const struct optimizer *optimizer = optimizer_find(name);
    size_t count = 0, codes = 0;
    assert(optimizer && model_shape_check(shape, NULL) == 0);
    const struct plan plan = plan_make(optimizer, options, shape);
    bool fits = model_params_fill(NULL, shape, &count, &codes);
    assert(fits);
    size_t bytes = plan_bytes(&plan);
    if (optimizer->refreshes)
        bytes += size_round_up(model_param_count(shape) * sizeof(uint32_t), MEM_ALIGN);
    if (optimizer->refreshes && options->age_correction)
        bytes += size_round_up(count * sizeof(uint16_t), MEM_ALIGN);
    return bytes;
}
