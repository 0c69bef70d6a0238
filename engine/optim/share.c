#include "engine/optim/share.h"

static bool shared(const struct optim_args *args) { return args->comm && args->comm->size > 1; }

/* In turns: the targets of a block differ in size, but two blocks even that out. */
static int owner(const struct optim_args *args, size_t target)
{
    return (int)(target % (size_t)args->comm->size);
}

bool share_mine(const struct optim_args *args, size_t target)
{
    return !shared(args) || owner(args, target) == args->comm->rank;
}

static struct matrix_step_args plain_step(const struct optim *optim, const struct param *param,
                                          const struct optim_args *args, share_scale *scale)
{
    return (struct matrix_step_args){
        .keep = (real)(1 - args->lr * args->weight_decay),
        .step = (real)(args->lr * scale(&optim->options, param)),
    };
}

void share_apply(const struct optim *optim, struct model *model, const struct param *param,
                 const struct optim_args *args, share_scale *scale, const real *u,
                 const real *o, double gamma, double ratio)
{
    struct device *dev = model->dev;
    const bool later = shared(args);
    struct matrix_step_args step = {.keep = 0, .step = -1}; /* = the bracket, exactly */
    if (!later)
        step = plain_step(optim, param, args, scale);
    step.gamma = (real)gamma;
    step.ratio = (real)ratio;
    dev->ops->matrix_step(dev, (later ? model->grads : model->weights) + param->offset, u, o,
                          param->count, &step);
}

int share_updates(const struct optim *optim, struct model *model, const struct optim_args *args,
                  share_scale *scale, struct err *err)
{
    struct device *dev = model->dev;
    struct comm *comm = args->comm;
    size_t target = 0;
    int rc = 0;
    for (size_t i = 0; shared(args) && rc == 0 && i < model->param_count; i++) {
        const struct param *param = &model->params[i];
        if (!param->target)
            continue;
        real *update = model->grads + param->offset;
        const struct matrix_step_args step = plain_step(optim, param, args, scale);
        device_pull(dev, update, param->count * sizeof *update);
        rc = comm->ops->broadcast(comm, update, param->count * sizeof *update,
                                  owner(args, target++), err);
        device_push(dev, update, param->count * sizeof *update);
        if (rc == 0)
            dev->ops->matrix_step(dev, model->weights + param->offset, update, NULL,
                                  param->count, &step);
    }
    return rc;
}
