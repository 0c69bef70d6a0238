#include "engine/model.h"
#include "engine/model_private.h"
#include "engine/sparse/latent.h"
#include "proto/base/mem.h"
#include <assert.h>
#include <math.h>
#include <stdlib.h>

struct attention_shape model_attention(const struct model_shape *shape, size_t batch,
                                       size_t context)
{
    return (struct attention_shape){.batch = batch,
                                    .context = context,
                                    .heads = shape->heads,
                                    .kv_heads = shape->kv_heads,
                                    .head_dim = model_head_dim(shape)};
}

void model_limits(struct device_limits *out, const struct model_shape *shape, size_t batch,
                  size_t context)
{
    size_t widest = shape->hidden > shape->intermediate ? shape->hidden : shape->intermediate;
    bool sparse = shape->n < shape->m && shape->latent == MODEL_LATENT_NONE;
    *out = (struct device_limits){
        .rows = batch * context,
        .dim_max = widest,
        .vocab = shape->vocab,
        .context = context,
        .heads = shape->heads,
        .head_dim = model_head_dim(shape),
        .nm_values = sparse ? widest * shape->hidden / shape->m * shape->n : 0};
}

size_t model_pack_size(const struct ops *ops, size_t dout, size_t din, unsigned n, unsigned m)
{
    struct nm shape = {.dout = dout, .din = din, .n = n, .m = m};
    return size_round_up(ops->nm_pack_size(&shape), MEM_ALIGN);
}

/* Slabs of parameters: weights always, gradients and moments for training. */
static int create_slabs(struct model *model, bool training, struct err *err)
{
    bool fits = true;
    model->weights = device_alloc(model->dev, model->count, sizeof(real));
    fits = model->weights != NULL;
    if (fits && training) {
        model->grads = device_alloc(model->dev, model->count, sizeof(real));
        model->moment1 = device_alloc(model->dev, model->count, sizeof(real));
        model->moment2 = device_alloc(model->dev, model->count, sizeof(real));
        fits = model->grads && model->moment1 && model->moment2;
    }
    if (!fits)
        return err_set(err, ERR_NO_MEMORY, "model: no memory for %zu parameters", model->count);
    return 0;
}

/* The directory of parameters with their places in the slabs. */
static int create_params(struct model *model, struct err *err)
{
    model->param_count = model_param_count(&model->shape);
    model->params = mem_zeroed(model->param_count, sizeof *model->params);
    if (!model->params)
        return err_set(err, ERR_NO_MEMORY, "model: no memory for %zu parameter entries",
                       model->param_count);
    if (!model_params_fill(model->params, &model->shape, &model->count, &model->code_count))
        return err_set(err, ERR_NO_MEMORY, "model: the number of parameters overflows");
    return 0;
}

/* Gives every target its struct nm over the value, code and pack slabs. */
static int create_masks(struct model *model, struct err *err)
{
    struct model_private *p = model->private_data;
    const struct model_shape *shape = &model->shape;
    if (shape->n == shape->m)
        return 0;
    int rc = pattern_table_create(&model->patterns, shape->n, shape->m, err);
    if (rc != 0)
        return rc;
    for (size_t i = 0; i < model->param_count; i++) {
        const struct param *param = &model->params[i];
        if (param->target && model_sparse(shape))
            p->pack_bytes +=
                model_pack_size(model->dev->ops, param->rows, param->cols, shape->n, shape->m);
    }
    model->codes = device_alloc(model->dev, model->code_count, sizeof *model->codes);
    p->packs = p->pack_bytes > 0 ? device_alloc(model->dev, p->pack_bytes, 1) : NULL;
    p->nms = mem_zeroed(shape->layers * MODEL_TARGETS_PER_LAYER, sizeof *p->nms);
    if (!model->codes || !p->nms || (p->pack_bytes > 0 && !p->packs))
        return err_set(err, ERR_NO_MEMORY, "model: no memory for %zu pattern codes",
                       model->code_count);

    size_t target = 0, code = 0, pack = 0;
    for (size_t i = 0; i < model->param_count; i++) {
        struct param *param = &model->params[i];
        if (!param->target)
            continue;
        struct nm *nm = &p->nms[target++];
        *nm = (struct nm){.dout = param->rows,
                          .din = param->cols,
                          .n = shape->n,
                          .m = shape->m,
                          .layout = shape->layout,
                          .patterns = model->patterns,
                          .codes = model->codes + code};
        code += nm->dout * nm_groups(nm);
        if (!model_sparse(shape)) {
            param->latent = nm;
            continue;
        }
        param->nm = nm;
        nm->values = model_weight(model, param);
        nm->pack = p->packs ? p->packs + pack : NULL;
        pack += model_pack_size(model->dev->ops, nm->dout, nm->din, nm->n, nm->m);
    }
    assert(code == model->code_count && pack == p->pack_bytes);
    return 0;
}

size_t model_effective_count(const struct param *params, size_t count)
{
    size_t sum = 0;
    for (size_t i = 0; i < count; i++)
        if (params[i].target)
            sum += size_round_up(params[i].count, MODEL_PARAM_ALIGN);
    return sum;
}

static int create_effective(struct model *model, struct err *err)
{
    if (model->shape.latent == MODEL_LATENT_NONE)
        return 0;
    const size_t count = model_effective_count(model->params, model->param_count);
    model->effective = device_alloc(model->dev, count, sizeof(real));
    if (!model->effective)
        return err_set(err, ERR_NO_MEMORY, "model: no memory for %zu effective weights", count);
    real *next = model->effective;
    for (size_t i = 0; i < model->param_count; i++) {
        struct param *param = &model->params[i];
        if (!param->latent)
            continue;
        param->effective = next;
        next += size_round_up(param->count, MODEL_PARAM_ALIGN);
    }
    return 0;
}

/* Angles of the rotary positions: t * theta^(-2i / D), computed in double. */
static void fill_angles(struct device *dev, struct work *work, const struct model_shape *shape,
                        size_t context)
{
    size_t half = model_head_dim(shape) / 2;
    for (size_t t = 0; t < context; t++) {
        for (size_t i = 0; i < half; i++) {
            double angle = (double)t * pow(shape->rope_theta, -(double)i / (double)half);
            work->cosine[t * half + i] = (real)cos(angle);
            work->sine[t * half + i] = (real)sin(angle);
        }
    }
    device_push(dev, work->cosine, context * half * sizeof(real));
    device_push(dev, work->sine, context * half * sizeof(real));
}

static int create_activations(struct model *model, bool training, struct err *err)
{
    struct model_private *p = model->private_data;
    const struct ops *ops = model->dev->ops;
    p->saved = mem_zeroed(training ? model->shape.layers : 1, sizeof *p->saved);
    if (!p->saved)
        return err_set(err, ERR_NO_MEMORY, "model: no memory for %zu layers",
                       model->shape.layers);
    bool fits = model_layout(p->saved, &p->scratch, &p->work, NULL, ops, &model->shape,
                             p->batch, p->context, training, &p->activation_count);
    if (fits)
        p->activations = device_alloc(model->dev, p->activation_count, sizeof(real));
    if (!fits || !p->activations)
        return err_set(
            err, ERR_NO_MEMORY,
            "model: no memory for the activations of %zu sequences of %zu tokens: use a "
            "smaller micro_batch",
            p->batch, p->context);
    model_layout(p->saved, &p->scratch, &p->work, p->activations, ops, &model->shape, p->batch,
                 p->context, training, &p->activation_count);
    fill_angles(model->dev, &p->work, &model->shape, p->context);

    struct device_limits limits;
    model_limits(&limits, &model->shape, p->batch, p->context);
    return device_reserve(model->dev, &limits, err);
}

int model_create(struct model **out, struct device *dev, const struct model_shape *shape,
                 size_t batch, size_t context, bool training, struct err *err)
{
    int rc = model_shape_check(shape, err);
    if (rc != 0)
        return rc;
    if (batch < 1 || context < 1 || context > shape->context)
        return err_set(
            err, ERR_INVALID,
            "model: a pass of %zu sequences of %zu tokens: needs at least one of each and "
            "at most model.context = %zu tokens",
            batch, context, shape->context);
    struct model *model = mem_zeroed(1, sizeof *model);
    struct model_private *p = mem_zeroed(1, sizeof *p);
    if (!model || !p) {
        free(model);
        free(p);
        return err_set(err, ERR_NO_MEMORY, "model: no memory");
    }
    *model = (struct model){.shape = *shape, .dev = dev, .private_data = p};
    *p = (struct model_private){.batch = batch, .context = context};

    rc = create_params(model, err);
    if (rc == 0)
        rc = create_slabs(model, training, err);
    if (rc == 0)
        rc = create_masks(model, err);
    if (rc == 0)
        rc = create_effective(model, err);
    if (rc == 0)
        rc = create_activations(model, training, err);
    if (rc != 0) {
        model_destroy(model);
        return rc;
    }
    /* Zero codes are legal masks in the row layout and can be packed in both: a model is valid,
     * if useless, before model_init or a load. */
    model_repack(model);
    *out = model;
    return 0;
}

void model_destroy(struct model *model)
{
    if (!model)
        return;
    struct model_private *p = model->private_data;
    device_free(model->dev, p->activations);
    device_free(model->dev, p->packs);
    free(p->saved);
    free(p->nms);
    free(p);
    device_free(model->dev, model->weights);
    device_free(model->dev, model->grads);
    device_free(model->dev, model->moment1);
    device_free(model->dev, model->moment2);
    mem_aligned_free(model->refresh_age);
    device_free(model->dev, model->ages);
    device_free(model->dev, model->codes);
    device_free(model->dev, model->effective);
    pattern_table_destroy(model->patterns);
    free(model->params);
    free(model);
}

int model_keep_ages(struct model *model, bool entries, struct err *err)
{
    assert(model->moment1 && !model->refresh_age && !model->ages);
    model->refresh_age = mem_aligned(model->param_count, sizeof *model->refresh_age);
    if (entries)
        model->ages = device_alloc(model->dev, model->count, sizeof *model->ages);
    if (!model->refresh_age || (entries && !model->ages))
        return err_set(err, ERR_NO_MEMORY, "model: no memory for the ages of %zu parameters",
                       model->count);
    return 0;
}

void model_push(struct model *model)
{
    const size_t bytes = model->count * sizeof(real);
    device_push(model->dev, model->weights, bytes);
    device_push(model->dev, model->moment1, model->moment1 ? bytes : 0);
    device_push(model->dev, model->moment2, model->moment2 ? bytes : 0);
    device_push(model->dev, model->ages, model->ages ? model->count * sizeof *model->ages : 0);
}

void model_pull(const struct model *model)
{
    const size_t bytes = model->count * sizeof(real);
    device_pull(model->dev, model->weights, bytes);
    device_pull(model->dev, model->moment1, model->moment1 ? bytes : 0);
    device_pull(model->dev, model->moment2, model->moment2 ? bytes : 0);
    device_pull(model->dev, model->ages, model->ages ? model->count * sizeof *model->ages : 0);
}

void model_repack(struct model *model)
{
    const struct ops *ops = model->dev->ops;
    for (size_t i = 0; i < model->param_count; i++) {
        struct nm *nm = model->params[i].nm;
        if (nm && nm->pack)
            ops->nm_repack(model->dev, nm);
    }
    if (model->effective)
        latent_apply(model);
}
