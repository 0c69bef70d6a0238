#include "engine/model_private.h"
#include <assert.h>

/* dW += dy^T x on active weights, of the effective weight where there is a latent one; dx = dy
 * W, or += if accumulate; and the same for the adapter's branch. x and dy as in the forward
 * pass; dx may be the memory of x. A probe takes the dense gradient of an N:M matrix instead.
 */
static void linear_backward(const struct model *model, const struct layer_saved *s, real *dx,
                            const real *dy, const real *x, size_t layer, enum layer_param kind,
                            size_t rows, bool accumulate)
{
    struct device *dev = model->dev;
    const struct ops *ops = dev->ops;
    const struct model_probe *probe = model->private_data->probe;
    struct param *weight = model_layer_param(model, layer, kind);
    real *dw = model_grad(model, weight);
    model_adapter_backward_w(model, s, dy, x, layer, kind, rows);
    if (weight->nm && probe) {
        device_zero(dev, probe->gradient, weight->rows * weight->cols * sizeof(real));
        ops->dense_backward_w(dev, probe->gradient, dy, x, rows, weight->cols, weight->rows);
        ops->nm_backward_x(dev, dx, dy, weight->nm, rows, accumulate);
        probe->target(probe->context, weight);
    } else if (weight->nm) {
        ops->nm_backward_w(dev, dw, dy, x, weight->nm, rows);
        ops->nm_backward_x(dev, dx, dy, weight->nm, rows, accumulate);
    } else {
        ops->dense_backward_w(dev, dw, dy, x, rows, weight->cols, weight->rows);
        ops->dense_backward_x(dev, dx, dy, model_factor(model, weight), rows, weight->cols,
                              weight->rows, accumulate);
    }
    model_adapter_backward_x(model, dx, layer, kind, rows);
}

/* dx += the norm's gradient. */
static void norm_backward(const struct model *model, real *dx, const real *dout, const real *x,
                          const real *rstd, const struct param *weight, size_t rows)
{
    struct device *dev = model->dev;
    dev->ops->rmsnorm_backward(dev, dx, model_grad(model, weight), dout, x,
                               model_weight(model, weight), rstd, rows, model->shape.hidden);
}

/* Makes a normed input again; rstd gets the bits that it has. */
static void norm_again(const struct model *model, real *rstd, const real *x,
                       const struct param *weight, size_t rows)
{
    struct device *dev = model->dev;
    dev->ops->rmsnorm_forward(dev, model->private_data->work.norm, rstd, x,
                              model_weight(model, weight), (real)model->shape.norm_eps, rows,
                              model->shape.hidden);
}

/* work.dx: gradient of the block's output in, of mid out. */
static void mlp_half(const struct model *model, const struct layer_saved *s, size_t layer,
                     size_t rows)
{
    struct device *dev = model->dev;
    const struct ops *ops = dev->ops;
    const struct work *work = &model->private_data->work;
    const struct param *norm = model_layer_param(model, layer, LAYER_POST_NORM);
    size_t wide = model->shape.intermediate;

    /* linear_backward is done with its input before it writes dx, so wide may be both. */
    ops->swiglu_forward(dev, work->wide, s->gate, s->up, rows, wide);
    linear_backward(model, s, work->wide, work->dx, work->wide, layer, LAYER_DOWN, rows, false);
    ops->swiglu_backward(dev, work->dgate, work->dup, work->wide, s->gate, s->up, rows, wide);
    norm_again(model, s->rstd_post, s->mid, norm, rows);
    linear_backward(model, s, work->branch, work->dgate, work->norm, layer, LAYER_GATE, rows,
                    false);
    linear_backward(model, s, work->branch, work->dup, work->norm, layer, LAYER_UP, rows, true);
    norm_backward(model, work->dx, work->branch, s->mid, s->rstd_post, norm, rows);
}

/* work.dx: gradient of mid in, of the block's input out. */
static void attention_half(const struct model *model, const struct layer_saved *s, size_t layer,
                           const struct attention_shape *shape)
{
    struct device *dev = model->dev;
    const struct ops *ops = dev->ops;
    const struct work *work = &model->private_data->work;
    const struct param *norm = model_layer_param(model, layer, LAYER_INPUT_NORM);
    size_t rows = shape->batch * shape->context;

    linear_backward(model, s, work->datt, work->dx, s->att, layer, LAYER_O, rows, false);
    ops->attention_backward(dev, work->dq, work->dk, work->dv, work->datt, s->att, s->lse, s->q,
                            s->k, s->v, shape);
    ops->rope_backward(dev, work->dq, work->cosine, work->sine, shape, shape->heads);
    ops->rope_backward(dev, work->dk, work->cosine, work->sine, shape, shape->kv_heads);
    norm_again(model, s->rstd_in, s->x, norm, rows);
    linear_backward(model, s, work->branch, work->dq, work->norm, layer, LAYER_Q, rows, false);
    linear_backward(model, s, work->branch, work->dk, work->norm, layer, LAYER_K, rows, true);
    linear_backward(model, s, work->branch, work->dv, work->norm, layer, LAYER_V, rows, true);
    norm_backward(model, work->dx, work->branch, s->x, s->rstd_in, norm, rows);
}

void model_forward_backward(struct model *model, const int32_t *tokens, const int32_t *targets,
                            real *loss, real scale, size_t batch, size_t context)
{
    struct device *dev = model->dev;
    const struct ops *ops = dev->ops;
    const struct model_shape *shape = &model->shape;
    struct model_private *p = model->private_data;
    const struct work *work = &p->work;
    const struct param *head = model_head(model);
    struct attention_shape attention = model_attention(shape, batch, context);
    size_t rows = batch * context;
    assert(model->grads);

    const real *normed = model_forward(model, tokens, batch, context, true);
    ops->head_loss(dev, loss, work->branch, model_grad(model, head), normed,
                   model_weight(model, head), targets, scale, rows, shape->hidden,
                   shape->vocab);
    device_zero(dev, work->dx, ops->act_size(rows, shape->hidden) * sizeof(real));
    norm_backward(model, work->dx, work->branch, work->out, work->rstd_out,
                  &model->params[1 + shape->layers * LAYER_PARAMS], rows);
    for (size_t layer = shape->layers; layer-- > 0;) {
        mlp_half(model, &p->saved[layer], layer, rows);
        attention_half(model, &p->saved[layer], layer, &attention);
    }
    ops->embed_backward(dev, model_grad(model, &model->params[0]), work->dx, tokens, rows,
                        shape->vocab, shape->hidden);
}

void model_probe(struct model *model, const int32_t *tokens, const int32_t *targets, real *loss,
                 real scale, size_t batch, size_t context, const struct model_probe *probe)
{
    model->private_data->probe = probe;
    model_forward_backward(model, tokens, targets, loss, scale, batch, context);
    model->private_data->probe = NULL;
}
