/* Adam with decoupled weight decay, Loshchilov & Hutter 2019, algorithm 2. On an N:M matrix it
 * sees the stored entries only, so moments exist for active weights only. */
#include "engine/optim/optim.h"
#include <assert.h>
#include <math.h>

static void adamw_step(struct model *model, const struct optim_args *args)
{
    struct device *dev = model->dev;
    assert(model->grads && args->step >= 1);
    struct adamw_args op = {
        .lr = (real)args->lr,
        .beta1 = (real)args->beta1,
        .beta2 = (real)args->beta2,
        .eps = (real)args->eps,
        .correction1 = (real)(1 - pow(args->beta1, (double)args->step)),
        .correction2 = (real)(1 - pow(args->beta2, (double)args->step)),
        .grad_scale = (real)args->grad_scale,
    };
    for (size_t i = 0; i < model->param_count; i++) {
        const struct param *param = &model->params[i];
        op.weight_decay = param->decay ? (real)args->weight_decay : REAL(0.0);
        dev->ops->adamw(dev, model->weights + param->offset, model->moment1 + param->offset,
                        model->moment2 + param->offset, model->grads + param->offset,
                        param->count, &op);
    }
}

const struct optimizer optimizer_adamw = {.name = "adamw", .step = adamw_step};
