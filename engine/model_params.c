#include "engine/model_private.h"
#include "engine/sparse/latent.h"
#include "proto/base/mem.h"
#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* Limits of a shape: far above any model of this kind, low enough that products of three of
 * them fit 64 bits. */
enum {
    HIDDEN_MAX = 1 << 17,
    INTERMEDIATE_MAX = 1 << 18,
    LAYERS_MAX = 1 << 10,
    HEADS_MAX = 1 << 10,
    VOCAB_MAX = 1 << 24,
    CONTEXT_MAX = 1 << 20,
};

enum role { ROLE_TABLE, ROLE_TARGET, ROLE_NORM, ROLE_ADAPTER };

enum dimension { DIM_ONE, DIM_HIDDEN, DIM_KV, DIM_INTERMEDIATE };

static const struct {
    const char *suffix;
    enum dimension rows, cols;
    enum role role;
} LAYER[LAYER_PARAMS] = {
    [LAYER_Q] = {"self_attn.q_proj", DIM_HIDDEN, DIM_HIDDEN, ROLE_TARGET},
    [LAYER_K] = {"self_attn.k_proj", DIM_KV, DIM_HIDDEN, ROLE_TARGET},
    [LAYER_V] = {"self_attn.v_proj", DIM_KV, DIM_HIDDEN, ROLE_TARGET},
    [LAYER_O] = {"self_attn.o_proj", DIM_HIDDEN, DIM_HIDDEN, ROLE_TARGET},
    [LAYER_GATE] = {"mlp.gate_proj", DIM_INTERMEDIATE, DIM_HIDDEN, ROLE_TARGET},
    [LAYER_UP] = {"mlp.up_proj", DIM_INTERMEDIATE, DIM_HIDDEN, ROLE_TARGET},
    [LAYER_DOWN] = {"mlp.down_proj", DIM_HIDDEN, DIM_INTERMEDIATE, ROLE_TARGET},
    [LAYER_INPUT_NORM] = {"input_layernorm", DIM_ONE, DIM_HIDDEN, ROLE_NORM},
    [LAYER_POST_NORM] = {"post_attention_layernorm", DIM_ONE, DIM_HIDDEN, ROLE_NORM},
};

static int check_range(const char *field, size_t value, size_t max, struct err *err)
{
    if (value >= 1 && value <= max)
        return 0;
    return err_set(err, ERR_INVALID, "model.%s is %zu: must be between 1 and %zu", field, value,
                   max);
}

static int check_ranges(const struct model_shape *shape, struct err *err)
{
    int rc = check_range("hidden", shape->hidden, HIDDEN_MAX, err);
    if (rc == 0)
        rc = check_range("intermediate", shape->intermediate, INTERMEDIATE_MAX, err);
    if (rc == 0)
        rc = check_range("layers", shape->layers, LAYERS_MAX, err);
    if (rc == 0)
        rc = check_range("heads", shape->heads, HEADS_MAX, err);
    if (rc == 0)
        rc = check_range("kv_heads", shape->kv_heads, HEADS_MAX, err);
    if (rc == 0)
        rc = check_range("vocab", shape->vocab, VOCAB_MAX, err);
    if (rc == 0)
        rc = check_range("context", shape->context, CONTEXT_MAX, err);
    if (rc == 0 && !(isfinite(shape->rope_theta) && shape->rope_theta > 0))
        rc = err_set(err, ERR_INVALID, "model.rope_theta is %g: must be positive",
                     shape->rope_theta);
    if (rc == 0 && !(isfinite(shape->norm_eps) && shape->norm_eps > 0))
        rc = err_set(err, ERR_INVALID, "model.norm_eps is %g: must be positive",
                     shape->norm_eps);
    return rc;
}

/* The rows of every target are whole blocks too; hidden and intermediate are checked. */
static int check_block(const struct model_shape *shape, struct err *err)
{
    if (shape->m != NM_BLOCK)
        return err_set(err, ERR_INVALID,
                       "sparsity.m is %u: the layout block has blocks of %d x %d, so m must be "
                       "%d",
                       shape->m, NM_BLOCK, NM_BLOCK, NM_BLOCK);
    if (model_kv_dim(shape) % NM_BLOCK != 0)
        return err_set(err, ERR_INVALID,
                       "model.kv_heads is %zu: kv_heads * hidden / heads = %zu must be a "
                       "multiple of %d in the layout block",
                       shape->kv_heads, model_kv_dim(shape), NM_BLOCK);
    return 0;
}

static int check_sparsity(const struct model_shape *shape, struct err *err)
{
    if (shape->n < 1 || shape->n > shape->m)
        return err_set(err, ERR_INVALID, "sparsity.n is %u: must be between 1 and m = %u",
                       shape->n, shape->m);
    if (shape->n == shape->m && shape->latent != MODEL_LATENT_NONE)
        return err_set(err, ERR_INVALID, "sparsity.n is %u: latent weights need n below m = %u",
                       shape->n, shape->m);
    if (shape->n == shape->m)
        return 0;
    if (shape->m > NM_M_MAX)
        return err_set(err, ERR_INVALID, "sparsity.m is %u: must be at most %d", shape->m,
                       NM_M_MAX);
    if (shape->hidden % shape->m != 0)
        return err_set(err, ERR_INVALID,
                       "model.hidden is %zu: must be a multiple of sparsity.m = %u",
                       shape->hidden, shape->m);
    if (shape->intermediate % shape->m != 0)
        return err_set(err, ERR_INVALID,
                       "model.intermediate is %zu: must be a multiple of sparsity.m = %u",
                       shape->intermediate, shape->m);
    return shape->layout == NM_LAYOUT_BLOCK ? check_block(shape, err) : 0;
}

int model_shape_check(const struct model_shape *shape, struct err *err)
{
    int rc = check_ranges(shape, err);
    if (rc != 0)
        return rc;
    if (shape->hidden % shape->heads != 0)
        return err_set(err, ERR_INVALID,
                       "model.hidden is %zu: must be a multiple of heads = %zu", shape->hidden,
                       shape->heads);
    if (model_head_dim(shape) % 2 != 0)
        return err_set(
            err, ERR_INVALID,
            "model.heads is %zu: hidden / heads = %zu must be even for rotary positions",
            shape->heads, model_head_dim(shape));
    if (shape->heads % shape->kv_heads != 0)
        return err_set(err, ERR_INVALID, "model.kv_heads is %zu: must divide heads = %zu",
                       shape->kv_heads, shape->heads);
    rc = check_sparsity(shape, err);
    return rc == 0 ? adapter_check(&shape->adapter, err) : rc;
}

size_t model_base_count(const struct model_shape *shape)
{
    return 1 + shape->layers * LAYER_PARAMS + 1 + (shape->tie_embeddings ? 0 : 1);
}

const char *const model_latent_names[] = {[MODEL_LATENT_NONE] = "none",
                                          [MODEL_LATENT_MASKED] = "masked",
                                          [MODEL_LATENT_SCALED] = "scaled",
                                          NULL};

size_t model_adapter_end(const struct model_shape *shape)
{
    return model_base_count(shape) +
           shape->layers * MODEL_TARGETS_PER_LAYER * adapter_parts(&shape->adapter);
}

static size_t scale_count(const struct model_shape *shape)
{
    return shape->latent == MODEL_LATENT_SCALED ? shape->layers * MODEL_TARGETS_PER_LAYER : 0;
}

size_t model_param_count(const struct model_shape *shape)
{
    return model_adapter_end(shape) + scale_count(shape);
}

struct fill {
    struct param *params; /* NULL: count only */
    const struct model_shape *shape;
    size_t index, count, codes;
    bool fits;
};

static size_t dimension(const struct model_shape *shape, enum dimension which)
{
    switch (which) {
    case DIM_HIDDEN:
        return shape->hidden;
    case DIM_KV:
        return model_kv_dim(shape);
    case DIM_INTERMEDIATE:
        return shape->intermediate;
    case DIM_ONE:
        break;
    }
    return 1;
}

/* Adds the next parameter; its entries and codes go to the ends of their slabs. */
static struct param *fill_next(struct fill *fill, size_t rows, size_t cols, enum role role)
{
    const struct model_shape *shape = fill->shape;
    bool sparse = role == ROLE_TARGET && model_sparse(shape);
    size_t stored = sparse ? cols / shape->m * shape->n : cols;
    size_t offset = size_round_up(fill->count, MODEL_PARAM_ALIGN);
    size_t count = 0;
    fill->fits =
        fill->fits && size_mul(&count, rows, stored) && size_add(&fill->count, offset, count);
    if (role == ROLE_TARGET && shape->n < shape->m)
        fill->codes += rows * (cols / shape->m);
    struct param *param = fill->params ? &fill->params[fill->index] : NULL;
    fill->index++;
    if (param)
        *param = (struct param){.rows = rows,
                                .cols = cols,
                                .offset = offset,
                                .count = count,
                                .target = role == ROLE_TARGET,
                                .adapter = role == ROLE_ADAPTER,
                                .decay = role != ROLE_NORM};
    return param;
}

/* The branches beside the targets of a layer. */
static void fill_adapters(struct fill *fill, size_t layer)
{
    const struct model_shape *shape = fill->shape;
    for (size_t kind = 0; kind < MODEL_TARGETS_PER_LAYER; kind++) {
        size_t dout = dimension(shape, LAYER[kind].rows),
               din = dimension(shape, LAYER[kind].cols), rows, cols;
        for (size_t part = 0; part < adapter_parts(&shape->adapter); part++) {
            adapter_extent(&shape->adapter, (enum adapter_part)part, dout, din, &rows, &cols);
            struct param *param = fill_next(fill, rows, cols, ROLE_ADAPTER);
            if (!param)
                continue;
            param->decay = adapter_decays((enum adapter_part)part);
            snprintf(param->name, MODEL_NAME_MAX, "model.layers.%zu.%s.%s", layer,
                     LAYER[kind].suffix, adapter_suffix((enum adapter_part)part));
        }
    }
}

/* The learned scales of all targets, last in the file. */
static void fill_scales(struct fill *fill)
{
    const struct model_shape *shape = fill->shape;
    for (size_t i = 0; i < scale_count(shape); i++) {
        size_t layer = i / MODEL_TARGETS_PER_LAYER, kind = i % MODEL_TARGETS_PER_LAYER;
        struct param *param =
            fill_next(fill, dimension(shape, LAYER[kind].rows),
                      latent_scales(dimension(shape, LAYER[kind].cols), shape->m), ROLE_NORM);
        if (!param)
            continue;
        param->folded = true;
        snprintf(param->name, MODEL_NAME_MAX, "model.layers.%zu.%s.scale", layer,
                 LAYER[kind].suffix);
        fill->params[1 + layer * LAYER_PARAMS + kind].scale = param;
    }
}

bool model_params_fill(struct param *params, const struct model_shape *shape, size_t *count,
                       size_t *codes)
{
    struct fill fill = {.params = params, .shape = shape, .fits = true};
    struct param *param = fill_next(&fill, shape->vocab, shape->hidden, ROLE_TABLE);
    if (param)
        snprintf(param->name, MODEL_NAME_MAX, "model.embed_tokens.weight");
    for (size_t layer = 0; layer < shape->layers; layer++) {
        for (size_t kind = 0; kind < LAYER_PARAMS; kind++) {
            param = fill_next(&fill, dimension(shape, LAYER[kind].rows),
                              dimension(shape, LAYER[kind].cols), LAYER[kind].role);
            if (!param)
                continue;
            snprintf(param->name, MODEL_NAME_MAX, "model.layers.%zu.%s.weight", layer,
                     LAYER[kind].suffix);
        }
    }
    param = fill_next(&fill, 1, shape->hidden, ROLE_NORM);
    if (param)
        snprintf(param->name, MODEL_NAME_MAX, "model.norm.weight");
    if (!shape->tie_embeddings) {
        param = fill_next(&fill, shape->vocab, shape->hidden, ROLE_TABLE);
        if (param)
            snprintf(param->name, MODEL_NAME_MAX, "lm_head.weight");
    }
    for (size_t layer = 0; layer < shape->layers; layer++)
        fill_adapters(&fill, layer);
    fill_scales(&fill);
    assert(fill.index == model_param_count(shape));
    if (fill.fits) {
        *count = size_round_up(fill.count, MODEL_PARAM_ALIGN);
        *codes = fill.codes;
    }
    return fill.fits;
}

struct param *model_param(const struct model *model, const char *name)
{
    for (size_t i = 0; i < model->param_count; i++) {
        if (strcmp(model->params[i].name, name) == 0)
            return &model->params[i];
    }
    return NULL;
}
