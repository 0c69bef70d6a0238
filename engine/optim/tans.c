/* TANS, preprint 202605.0851, 3.2, App. C, H.5: preconditioned Nesterov momentum whose
 * direction is blended with its orthogonalised form. Per target matrix, on its stored entries:
 *
 *   V = b2 V + (1 - b2) G^2 ;  g = G / (sqrt(V) + eps)          no bias correction
 *   P = b1 P + (1 - b1) g ;    U = (1 - b1) g + b1 P
 *   X = U / (|U|_F + eps), as a dense matrix with zeros; five Newton-Schulz steps
 *   O = X on active entries ;  O' = O rms(U) / (rms(O) + eps)
 *   gamma = gamma_ns min(1, tau / ramp), tau = updates since the last refresh or the start
 *   W = (1 - lr wd) W - lr sqrt(dout / din) (U + gamma (O' - U)) ;  tau = tau + 1
 *
 * rms (ours but for the first): post-mask takes rms(O) over the active entries, pre-mask over
 * all dout din entries of X, none leaves O as it is. age_correction (ours) replaces V by V / (1
 * - b2^a) and U by U / (1 - b1^(a+1)), a = the entry's number of updates since it became
 * active: the known weak point without it is that a new entry's |U| is several times the
 * others'. Embedding, head and norms: AdamW. */
#include "engine/optim/newton_schulz.h"
#include "engine/optim/share.h"
#include <assert.h>
#include <math.h>

double tans_gamma(const struct optim_options *options, size_t tau)
{
    if (tau >= options->ramp)
        return options->gamma_ns;
    return options->gamma_ns * (double)tau / (double)options->ramp;
}

/* O and its ratio to U. */
static const real *tans_direction(struct optim *optim, struct model *model,
                                  const struct param *param, double eps, double *ratio)
{
    struct device *dev = model->dev;
    const struct ops *ops = dev->ops;
    const double count = (double)param->count;
    const real *u = optim->scratch.u;
    const double norm = sqrt(ops->sum_squares(dev, u, param->count));
    double rms = 0;
    const real *o = orthogonal_entries(dev, &optim->scratch, newton_schulz_tans, param, u, norm,
                                       eps, optim->options.rms == RMS_PRE_MASK ? &rms : NULL);
    if (optim->options.rms == RMS_POST_MASK)
        rms = sqrt(ops->sum_squares(dev, o, param->count) / count);
    *ratio = optim->options.rms == RMS_NONE ? 1 : norm / sqrt(count) / (rms + eps);
    return o;
}

static double tans_scale(const struct optim_options *options, const struct param *param)
{
    (void)options;
    return sqrt((double)param->rows / (double)param->cols);
}

static void tans_param(struct optim *optim, struct model *model, size_t index, size_t target,
                       const struct optim_args *args)
{
    struct device *dev = model->dev;
    const struct param *param = &model->params[index];
    const size_t at = param->offset;
    const struct tans_args moments = {
        .beta1 = args->beta1,
        .beta2 = args->beta2,
        .eps = (real)args->eps,
        .grad_scale = (real)args->grad_scale,
        .correct_update = optim->correct_update,
        .correct_moment = optim->correct_moment,
    };
    dev->ops->tans_moments(dev, optim->scratch.u, model->moment1 + at, model->moment2 + at,
                           model->ages ? model->ages + at : NULL, model->grads + at,
                           param->count, &moments);
    const double gamma = tans_gamma(&optim->options, model->refresh_age[index]);
    if (model->refresh_age[index] < UINT32_MAX)
        model->refresh_age[index]++;
    if (!share_mine(args, target))
        return;
    const real *o = NULL;
    double ratio = 0;
    if (gamma > 0)
        o = tans_direction(optim, model, param, args->eps, &ratio);
    share_apply(optim, model, param, args, tans_scale, optim->scratch.u, o, gamma, ratio);
}

static int tans_step(struct optim *optim, struct model *model, const struct optim_args *args,
                     struct err *err)
{
    size_t target = 0;
    assert(model->refresh_age);
    for (size_t i = 0; i < model->param_count; i++) {
        if (model->params[i].target)
            tans_param(optim, model, i, target++, args);
        else
            adamw_param(model, &model->params[i], args, args->lr * optim->options.adam_lr_ratio,
                        optim->options.adam_eps);
    }
    return share_updates(optim, model, args, tans_scale, err);
}

const struct optimizer optimizer_tans = {
    .name = "tans", .matrices = true, .refreshes = true, .step = tans_step};
