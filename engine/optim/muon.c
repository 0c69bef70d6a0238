/* Muon, Jordan et al. 2024, on the stored entries of every target matrix:
 *
 *   P = mu P + (1 - mu) G ;  U = (1 - mu) G + mu P          Nesterov momentum
 *   X = U / (|U|_F + 1e-7), as a dense matrix with zeros; five Newton-Schulz steps
 *   W = (1 - lr wd) W - lr scale X on active entries
 *
 * scale: rms, 0.2 sqrt(max(dout, din)) (Liu et al. 2025, "Muon is scalable for LLM training":
 * an update of AdamW's size, so that one lr serves both parts), or spectral, sqrt(max(1, dout /
 * din)) (Jordan). For a sparse matrix the scale is that of the dense one and X is projected on
 * its mask (ours: Muon is published for dense matrices). The second moment of target matrices
 * is not used. Embedding, head and norms: AdamW. */
#include "engine/optim/newton_schulz.h"
#include "engine/optim/share.h"
#include <math.h>

/* Jordan's: keeps a zero gradient from a division by zero. */
static const double MUON_EPS = 1e-7;
/* Root mean square of AdamW's updates as Liu et al. measured it. */
static const double ADAM_RMS = 0.2;

static double muon_scale(const struct optim_options *options, const struct param *param)
{
    const double dout = (double)param->rows, din = (double)param->cols;
    return options->scale == SCALE_RMS ? ADAM_RMS * sqrt(fmax(dout, din))
                                       : sqrt(fmax(1, dout / din));
}

static void muon_param(struct optim *optim, struct model *model, const struct param *param,
                       size_t target, const struct optim_args *args)
{
    struct device *dev = model->dev;
    const struct ops *ops = dev->ops;
    real *u = optim->scratch.u;
    ops->muon_momentum(dev, u, model->moment1 + param->offset, model->grads + param->offset,
                       param->count, optim->options.momentum, (real)args->grad_scale);
    if (!share_mine(args, target))
        return;
    const double norm = sqrt(ops->sum_squares(dev, u, param->count));
    const real *o = orthogonal_entries(dev, &optim->scratch, newton_schulz_muon, param, u, norm,
                                       MUON_EPS, NULL);
    share_apply(optim, model, param, args, muon_scale, o, NULL, 0, 0);
}

static int muon_step(struct optim *optim, struct model *model, const struct optim_args *args,
                     struct err *err)
{
    size_t target = 0;
    for (size_t i = 0; i < model->param_count; i++) {
        const struct param *param = &model->params[i];
        if (param->target)
            muon_param(optim, model, param, target++, args);
        else
            adamw_param(model, param, args, args->lr * optim->options.adam_lr_ratio, args->eps);
    }
    return share_updates(optim, model, args, muon_scale, err);
}

const struct optimizer optimizer_muon = {.name = "muon", .matrices = true, .step = muon_step};
