/* The matrices' updates shared out over the ranks: each rank orthogonalises its own targets
 * only. Every rank keeps all moments, so that nothing but the update travels: it takes the
 * place of the target's gradient, is broadcast from its rank and applied by all. So all ranks
 * get the same bits, and they are those of one rank with the same gradients. */
#ifndef HEBB_ENGINE_OPTIM_SHARE_H
#define HEBB_ENGINE_OPTIM_SHARE_H

#include "engine/optim/optim.h"

/* Learning rate scale of a target. */
typedef double share_scale(const struct optim_options *options, const struct param *param);

/* Whether this rank makes the update of target number `target` (its place among the targets).
 */
bool share_mine(const struct optim_args *args, size_t target);

/* w = keep w - lr scale (u + gamma (ratio o - u)), at once where one rank has all matrices;
 * else the bracket goes into the gradient until share_updates. o may be NULL where gamma is 0.
 */
void share_apply(const struct optim *optim, struct model *model, const struct param *param,
                 const struct optim_args *args, share_scale *scale, const real *u,
                 const real *o, double gamma, double ratio);

/* After all share_apply of a step: sends and applies what is not applied yet. A failed
 * collective is an error on every rank, after which the step must not be used. */
int share_updates(const struct optim *optim, struct model *model, const struct optim_args *args,
                  share_scale *scale, struct err *err);

#endif
