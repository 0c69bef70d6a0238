/* Training: one step at a time. The trainer owns model, optimizer state, refresher and
 * position; the caller owns device, data set and collective interface, and gets told what
 * happened through a struct of callbacks. */
#ifndef HEBB_ENGINE_TRAINER_H
#define HEBB_ENGINE_TRAINER_H

#include "engine/agree.h"
#include "engine/comm.h"
#include "engine/data.h"
#include "engine/guard.h"
#include "engine/method.h"
#include "engine/model.h"
#include "engine/optim/optim.h"

struct trainer_config {
    struct model_shape shape;
    struct method_config method;
    size_t steps, warmup;
    size_t batch;       /* sequences per step over all ranks; batch % comm->size == 0 */
    size_t micro_batch; /* sequences per pass; divides batch / ranks */
    size_t context;
    uint64_t seed;
    const char *optimizer; /* a registry row; NULL: "adamw" */
    double lr, min_lr_ratio, beta1, beta2, eps, weight_decay, grad_clip; /* grad_clip 0: off */
    struct optim_options optim; /* those of single optimizers */
    struct guard_config guard;
    size_t compare_every; /* steps between comparisons of the ranks' states; 0: none */
};

struct step_result {
    size_t step;                /* 1-based: steps done, or tried if the batch was rejected */
    uint64_t batch;             /* its number, from 0 */
    enum guard_verdict verdict; /* not GUARD_ACCEPTED: no update was made */
    double limit;               /* the loss above which the batch is a spike; infinity: none */
    double loss;                /* mean over all tokens of all ranks, before the update */
    double grad_norm;           /* before clipping */
    double lr;
    size_t tokens;  /* of this step over all ranks */
    bool refreshed; /* a refresh followed this step */
    size_t refresh; /* its number */
    double zeta;
    double refresh_ms;      /* wall time of the refresh, the comparison of masks included */
    struct agreement masks; /* compared after a refresh */
    struct agreement state; /* the whole of it, if it was compared after this batch */
};

struct trainer {
    struct trainer_config config;
    struct device *dev;
    struct comm *comm;
    const struct dataset *data;
    struct model *model;
    struct optim *optim;
    struct refresher *refresher; /* NULL unless the method refreshes */
    size_t step;                 /* optimizer steps done */
    size_t refresh;              /* refreshes done */
    uint64_t tokens;             /* tokens trained on */
    struct guard guard;          /* the next batch is number step + guard.skipped */
    double validation_loss;      /* of the state after validation_step; NaN: none yet */
    size_t validation_step;
    int32_t *inputs, *targets; /* (micro_batch, context) */
    real *losses;              /* (micro_batch * context) */
};

/* data may be NULL for a trainer that only loads; trainer_step and trainer_evaluate then answer
 * ERR_INVALID. Weights and masks are initialised from the seed. ERR_INVALID names field, value
 * and reason. config is copied; what its strings point to must outlive the trainer. */
int trainer_create(struct trainer **out, const struct trainer_config *config,
                   struct device *dev, struct comm *comm, const struct dataset *data,
                   struct err *err);
void trainer_destroy(struct trainer *trainer);

/* One optimizer step: gradients over batch / ranks sequences in passes of micro_batch,
 * all-reduce of the active gradients, the guard's verdict, clip, update, then the refresh if
 * one is due. Batch b (0-based) has samples b * batch to (b + 1) * batch - 1 of the data's
 * order, each rank a contiguous share: the step does not depend on ranks and micro_batch but
 * for rounding. A batch that the guard rejects changes nothing but the guard, on every rank
 * alike; guard_next says what then. After an error of the refresh the trainer is not to be used
 * further. What fails on one rank fails on all. Allocates nothing. */
int trainer_step(struct trainer *trainer, const struct refresh_observer *observer,
                 struct step_result *result, struct err *err);

/* Compares what all ranks should have alike: weights, masks, moments, ages, explored maps.
 * Where a hash differs the majority's is broadcast (of two ranks, rank 0's). */
int trainer_compare(struct trainer *trainer, struct agreement *out, struct err *err);

/* Back to the start: weights and masks from the seed, no moments, step 0; the guard stays. */
void trainer_restart(struct trainer *trainer);

/* Mean validation loss over `sequences` windows (0: all; else spread evenly over the split, at
 * most all), shared over the ranks; *tokens is their number of targets. ERR_NOT_FOUND without a
 * validation split. */
int trainer_evaluate(struct trainer *trainer, size_t sequences, double *loss, size_t *tokens,
                     struct err *err);

/* Learning rate of 1-based step: lr * step / warmup up to step = warmup, then
 * lr * (r + (1 - r) (1 + cos(pi (step - warmup) / (steps - warmup))) / 2) with r =
 * min_lr_ratio, which ends at r * lr on the last step. Loshchilov & Hutter 2017, eq. 5. */
double trainer_lr(const struct trainer_config *config, size_t step);

/* Which update of an adapter's parameters 1-based step makes, counted from 1; 0: none. Every
 * step makes one, but with a late branch only those after floor(steps (1 - branch_share)). */
size_t trainer_branch_step(const struct trainer_config *config, size_t step);

#endif
