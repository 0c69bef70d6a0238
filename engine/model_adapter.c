/* The branch beside a target matrix: g = (alpha / r) m * (A x) goes through B and is added to
 * the target's output. B is stored transposed, (rank, dout), so the product with B is
 * dense_backward_x of it, and the product with B^T is dense_forward. */
#include "engine/model_private.h"

bool model_adapter_branch(struct model_branch *out, const struct model *model, size_t layer,
                          enum layer_param kind)
{
    const struct adapter_shape *shape = &model->shape.adapter;
    if (shape->kind == ADAPTER_NONE || model->branch_rests)
        return false;
    *out = (struct model_branch){
        .a = model_adapter_param(model, layer, kind, ADAPTER_A),
        .bt = model_adapter_param(model, layer, kind, ADAPTER_BT),
        .args = {.rank = shape->rank,
                 .hidden = shape->hidden,
                 .gamma = (real)shape->gamma,
                 .scale = (real)(shape->alpha / (double)shape->rank)},
    };
    if (shape->hidden > 0) {
        out->w1 = model_adapter_param(model, layer, kind, ADAPTER_W1);
        out->b1 = model_adapter_param(model, layer, kind, ADAPTER_B1);
        out->w2 = model_adapter_param(model, layer, kind, ADAPTER_W2);
        out->b2 = model_adapter_param(model, layer, kind, ADAPTER_B2);
        out->args.b1 = model_weight(model, out->b1);
        out->args.w2 = model_weight(model, out->w2);
        out->args.b2 = model_weight(model, out->b2);
    }
    return true;
}

/* y = x W^T */
static void narrow_forward(const struct model *model, real *y, const real *x,
                           const struct param *weight, size_t rows)
{
    struct device *dev = model->dev;
    dev->ops->dense_forward(dev, y, x, model_weight(model, weight), rows, weight->cols,
                            weight->rows);
}

/* out += in W */
static void narrow_add(const struct model *model, real *out, const real *in,
                       const struct param *weight, size_t rows)
{
    struct device *dev = model->dev;
    dev->ops->dense_backward_x(dev, out, in, model_weight(model, weight), rows, weight->cols,
                               weight->rows, true);
}

/* dW += narrow^T wide */
static void narrow_gradient(const struct model *model, const struct param *weight,
                            const real *narrow, const real *wide, size_t rows)
{
    struct device *dev = model->dev;
    dev->ops->dense_backward_w(dev, model_grad(model, weight), narrow, wide, rows, weight->cols,
                               weight->rows);
}

void model_adapter_forward(const struct model *model, const struct layer_saved *s, real *y,
                           const real *x, size_t layer, enum layer_param kind, size_t rows)
{
    struct model_branch branch;
    if (!model_adapter_branch(&branch, model, layer, kind))
        return;
    struct device *dev = model->dev;
    const struct adapter_work *work = &model->private_data->work.adapter;
    const struct adapter_saved *saved = &s->adapter[kind];
    narrow_forward(model, saved->z, x, branch.a, rows);
    if (branch.w1)
        narrow_forward(model, saved->a, x, branch.w1, rows);
    dev->ops->como_forward(dev, work->g, work->s, saved->z, saved->a, &branch.args, rows);
    narrow_add(model, y, work->g, branch.bt, rows);
}

void model_adapter_backward_w(const struct model *model, const struct layer_saved *s,
                              const real *dy, const real *x, size_t layer,
                              enum layer_param kind, size_t rows)
{
    struct model_branch branch;
    if (!model_adapter_branch(&branch, model, layer, kind))
        return;
    struct device *dev = model->dev;
    const struct ops *ops = dev->ops;
    const struct adapter_work *work = &model->private_data->work.adapter;
    const struct adapter_saved *saved = &s->adapter[kind];

    ops->como_forward(dev, work->g, work->s, saved->z, saved->a, &branch.args, rows);
    narrow_gradient(model, branch.bt, work->g, dy, rows);
    narrow_forward(model, work->dz, dy, branch.bt, rows); /* d g */
    ops->como_backward(dev, work->dz, work->du, work->da, work->dz, work->s, saved->z, saved->a,
                       &branch.args, rows);
    narrow_gradient(model, branch.a, work->dz, x, rows);
    if (!branch.w1)
        return;
    narrow_gradient(model, branch.w1, work->da, x, rows);
    narrow_gradient(model, branch.w2, work->du, work->s, rows);
    ops->bias_backward(dev, model_grad(model, branch.b1), work->da, rows, branch.args.hidden);
    ops->bias_backward(dev, model_grad(model, branch.b2), work->du, rows, branch.args.rank);
}

void model_adapter_backward_x(const struct model *model, real *dx, size_t layer,
                              enum layer_param kind, size_t rows)
{
    struct model_branch branch;
    if (!model_adapter_branch(&branch, model, layer, kind))
        return;
    const struct adapter_work *work = &model->private_data->work.adapter;
    narrow_add(model, dx, work->dz, branch.a, rows);
    if (branch.w1)
        narrow_add(model, dx, work->da, branch.w1, rows);
}
