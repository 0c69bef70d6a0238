#include "engine/model_private.h"
#include <assert.h>

/* y = x W^T for the N:M or dense weight of a target, plus its adapter's branch. */
static void linear_forward(const struct model *model, const struct layer_saved *s, real *y,
                           const real *x, size_t layer, enum layer_param kind, size_t rows)
{
    struct device *dev = model->dev;
    const struct param *weight = model_layer_param(model, layer, kind);
    if (weight->nm)
        dev->ops->nm_forward(dev, y, x, weight->nm, rows);
    else
        dev->ops->dense_forward(dev, y, x, model_factor(model, weight), rows, weight->cols,
                                weight->rows);
    model_adapter_forward(model, s, y, x, layer, kind, rows);
}

static void norm_forward(const struct model *model, real *out, real *rstd, const real *x,
                         const struct param *weight, size_t rows)
{
    struct device *dev = model->dev;
    dev->ops->rmsnorm_forward(dev, out, rstd, x, model_weight(model, weight),
                              (real)model->shape.norm_eps, rows, model->shape.hidden);
}

/* mid = x + Wo attention(rope(Wq norm(x)), rope(Wk norm(x)), Wv norm(x)) */
static void attention_half(const struct model *model, const struct layer_saved *s, size_t layer,
                           const struct attention_shape *shape)
{
    struct device *dev = model->dev;
    const struct work *work = &model->private_data->work;
    size_t rows = shape->batch * shape->context;
    norm_forward(model, work->norm, s->rstd_in, s->x,
                 model_layer_param(model, layer, LAYER_INPUT_NORM), rows);
    linear_forward(model, s, s->q, work->norm, layer, LAYER_Q, rows);
    linear_forward(model, s, s->k, work->norm, layer, LAYER_K, rows);
    linear_forward(model, s, s->v, work->norm, layer, LAYER_V, rows);
    dev->ops->rope_forward(dev, s->q, work->cosine, work->sine, shape, shape->heads);
    dev->ops->rope_forward(dev, s->k, work->cosine, work->sine, shape, shape->kv_heads);
    if (model->private_data->capture)
        model->private_data->capture->layer(model->private_data->capture->context, layer, s->k,
                                            s->v, rows);
    dev->ops->attention_forward(dev, s->att, s->lse, s->q, s->k, s->v, shape);
    linear_forward(model, s, work->branch, s->att, layer, LAYER_O, rows);
    dev->ops->act_add(dev, s->mid, s->x, work->branch, rows, model->shape.hidden);
}

/* out = mid + Wdown (silu(Wgate norm(mid)) * Wup norm(mid)) */
static void mlp_half(const struct model *model, const struct layer_saved *s, real *out,
                     size_t layer, size_t rows)
{
    struct device *dev = model->dev;
    const struct work *work = &model->private_data->work;
    norm_forward(model, work->norm, s->rstd_post, s->mid,
                 model_layer_param(model, layer, LAYER_POST_NORM), rows);
    linear_forward(model, s, s->gate, work->norm, layer, LAYER_GATE, rows);
    linear_forward(model, s, s->up, work->norm, layer, LAYER_UP, rows);
    dev->ops->swiglu_forward(dev, work->wide, s->gate, s->up, rows, model->shape.intermediate);
    linear_forward(model, s, work->branch, work->wide, layer, LAYER_DOWN, rows);
    dev->ops->act_add(dev, out, s->mid, work->branch, rows, model->shape.hidden);
}

real *model_forward(struct model *model, const int32_t *tokens, size_t batch, size_t context,
                    bool keep)
{
    struct model_private *p = model->private_data;
    struct device *dev = model->dev;
    assert(batch >= 1 && context >= 1 && context <= p->context);
    assert(batch * context <= p->batch * p->context);
    const struct model_shape *shape = &model->shape;
    struct attention_shape attention = model_attention(shape, batch, context);
    size_t rows = batch * context;
    const struct param *embedding = &model->params[0];

    real *x = keep ? p->saved[0].x : p->scratch.x;
    dev->ops->embed_forward(dev, x, model_weight(model, embedding), tokens, rows,
                            shape->hidden);
    for (size_t layer = 0; layer < shape->layers; layer++) {
        const struct layer_saved *s = keep ? &p->saved[layer] : &p->scratch;
        attention_half(model, s, layer, &attention);
        if (keep)
            x = layer + 1 < shape->layers ? p->saved[layer + 1].x : p->work.out;
        mlp_half(model, s, x, layer, rows);
    }
    norm_forward(model, p->work.norm, p->work.rstd_out, x,
                 &model->params[1 + shape->layers * LAYER_PARAMS], rows);
    return p->work.norm;
}

const struct param *model_head(const struct model *model)
{
    size_t last = model_base_count(&model->shape) - 1;
    return &model->params[model->shape.tie_embeddings ? 0 : last];
}

void model_loss(struct model *model, const int32_t *tokens, const int32_t *targets, real *loss,
                size_t batch, size_t context)
{
    struct device *dev = model->dev;
    const real *x = model_forward(model, tokens, batch, context, false);
    dev->ops->head_loss(dev, loss, NULL, NULL, x, model_weight(model, model_head(model)),
                        targets, REAL(0.0), batch * context, model->shape.hidden,
                        model->shape.vocab);
}

void model_logits(struct model *model, const int32_t *tokens, real *logits, size_t batch,
                  size_t context, size_t first, size_t count)
{
    struct device *dev = model->dev;
    assert(first + count <= batch * context);
    const real *x = model_forward(model, tokens, batch, context, false);
    dev->ops->head_logits(dev, logits, x, model_weight(model, model_head(model)),
                          batch * context, first, count, model->shape.hidden,
                          model->shape.vocab);
}

void model_logits_capture(struct model *model, const int32_t *tokens, real *logits,
                          size_t batch, size_t context, size_t first, size_t count,
                          const struct model_capture *capture)
{
    model->private_data->capture = capture;
    model_logits(model, tokens, logits, batch, context, first, count);
    model->private_data->capture = NULL;
}
