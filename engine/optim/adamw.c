/* Adam with decoupled weight decay, Loshchilov & Hutter 2019, algorithm 2. On an N:M matrix it
 * sees the stored entries only, so moments exist for active weights only. */
#include "engine/optim/optim.h"
#include <assert.h>
#include <math.h>

void adamw_param(struct model *model, const struct param *param, const struct optim_args *args,
                 double lr, double eps)
{
    struct device *dev = model->dev;
    const size_t step = param->adapter ? args->branch_step : args->step;
    assert(model->grads && args->step >= 1);
    if (step == 0)
        return;
    const struct adamw_args op = {
        .lr = (real)lr,
        .beta1 = args->beta1,
        .beta2 = args->beta2,
        .eps = (real)eps,
        .weight_decay = param->decay ? (real)args->weight_decay : REAL(0.0),
        .correction1 = (real)(1 - pow(args->beta1, (double)step)),
        .correction2 = (real)(1 - pow(args->beta2, (double)step)),
        .grad_scale = (real)args->grad_scale,
    };
    dev->ops->adamw(dev, model->weights + param->offset, model->moment1 + param->offset,
                    model->moment2 + param->offset, model->grads + param->offset, param->count,
                    &op);
}

static int adamw_step(struct optim *optim, struct model *model, const struct optim_args *args,
                      struct err *err)
{
    (void)optim, (void)err;
    for (size_t i = 0; i < model->param_count; i++)
        adamw_param(model, &model->params[i], args, args->lr, args->eps);
    return 0;
}

const struct optimizer optimizer_adamw = {.name = "adamw", .step = adamw_step};
