#include "engine/trainer.h"
#include "engine/model_private.h"
#include "engine/sparse/latent.h"
#include "proto/base/clock.h"
#include "proto/base/mem.h"
#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Bytes of gradient that one collective carries. */
enum { BUCKET_BYTES = 4 * 1024 * 1024 };

/* Steps between two masks of cast. */
enum { LATENT_INTERVAL = 10 };

/* Keeps the clip factor finite and the clipped norm just under the limit, as PyTorch's
 * clip_grad_norm_ does. */
static const double CLIP_EPS = 1e-6;

/* What the product of steps and a share may be off by: the share has no exact binary form. */
static const double SHARE_EPS = 1e-6;

static const double PI = 3.14159265358979323846;

static int check_batch(const struct trainer_config *config, const struct comm *comm,
                       struct err *err)
{
    size_t ranks = (size_t)comm->size;
    if (config->steps < 1)
        return err_set(err, ERR_INVALID, "train.steps is 0: must be at least 1");
    if (config->batch < 1 || config->batch % ranks != 0)
        return err_set(err, ERR_INVALID,
                       "train.batch is %zu: must be a positive multiple of the %zu ranks",
                       config->batch, ranks);
    if (config->micro_batch < 1 || config->batch / ranks % config->micro_batch != 0)
        return err_set(err, ERR_INVALID,
                       "train.micro_batch is %zu: must divide the %zu sequences of a rank",
                       config->micro_batch, config->batch / ranks);
    if (config->context < 1 || config->context > config->shape.context)
        return err_set(err, ERR_INVALID,
                       "train.context is %zu: must be between 1 and model.context = %zu",
                       config->context, config->shape.context);
    return 0;
}

static int check_method(const struct trainer_config *config, struct err *err)
{
    const char *name = config->method.name ? config->method.name : "";
    const struct method *method = method_find(name);
    const char *optimizer = config->optimizer ? config->optimizer : "adamw";
    bool sparse = config->shape.n < config->shape.m;
    if (!method)
        return err_set(err, ERR_INVALID, "sparsity.method is \"%s\": no such method", name);
    if (method->sparse != sparse)
        return err_set(err, ERR_INVALID, "sparsity.method is \"%s\": does not go with %u:%u",
                       name, config->shape.n, config->shape.m);
    if (method->latent != config->shape.latent)
        return err_set(err, ERR_INVALID,
                       "sparsity.method is \"%s\": needs latent weights \"%s\", not \"%s\"",
                       name, model_latent_names[method->latent],
                       model_latent_names[config->shape.latent]);
    if (method->latent == MODEL_LATENT_SCALED && strcmp(optimizer, "adamw") != 0)
        return err_set(err, ERR_INVALID,
                       "optimizer.name is \"%s\": %s scales its decay by adamw's second moment",
                       optimizer, name);
    if (method->late_branch && config->shape.adapter.kind != ADAPTER_LORA)
        return err_set(err, ERR_INVALID, "adapter.name is \"%s\": %s trains a lora branch",
                       adapter_names[config->shape.adapter.kind], name);
    if (method->late_branch &&
        !(config->method.branch_share > 0 && config->method.branch_share <= 1))
        return err_set(err, ERR_INVALID,
                       "sparsity.branch_share is %g: must be above 0 and at most 1",
                       config->method.branch_share);
    return 0;
}

static int create_buffers(struct trainer *trainer, struct err *err)
{
    size_t tokens = trainer->config.micro_batch * trainer->config.context;
    trainer->inputs = device_alloc(trainer->dev, tokens, sizeof *trainer->inputs);
    trainer->targets = device_alloc(trainer->dev, tokens, sizeof *trainer->targets);
    trainer->losses = device_alloc(trainer->dev, tokens, sizeof *trainer->losses);
    if (!trainer->inputs || !trainer->targets || !trainer->losses)
        return err_set(err, ERR_NO_MEMORY, "trainer: no memory for %zu tokens", tokens);
    return 0;
}

int trainer_create(struct trainer **out, const struct trainer_config *config,
                   struct device *dev, struct comm *comm, const struct dataset *data,
                   struct err *err)
{
    const char *optimizer = config->optimizer ? config->optimizer : "adamw";
    *out = NULL;
    int rc = check_batch(config, comm, err);
    if (rc == 0)
        rc = check_method(config, err);
    if (rc != 0)
        return rc;
    struct trainer *trainer = mem_zeroed(1, sizeof *trainer);
    if (!trainer)
        return err_set(err, ERR_NO_MEMORY, "trainer: no memory");
    *trainer = (struct trainer){.config = *config,
                                .dev = dev,
                                .comm = comm,
                                .data = data,
                                .validation_loss = (double)NAN};
    rc = model_create(&trainer->model, dev, &config->shape, config->micro_batch,
                      config->context, true, err);
    if (rc == 0)
        rc = optim_create(&trainer->optim, optimizer, config->beta1, config->beta2,
                          &config->optim, trainer->model, err);
    if (rc == 0)
        rc = create_buffers(trainer, err);
    if (rc == 0 && method_find(config->method.name)->refreshes)
        rc = refresher_create(&trainer->refresher, &config->method, trainer->model, err);
    if (rc != 0) {
        trainer_destroy(trainer);
        return rc;
    }
    model_init(trainer->model, config->seed);
    *out = trainer;
    return 0;
}

void trainer_destroy(struct trainer *trainer)
{
    if (!trainer)
        return;
    refresher_destroy(trainer->refresher);
    optim_destroy(trainer->optim);
    model_destroy(trainer->model);
    device_free(trainer->dev, trainer->inputs);
    device_free(trainer->dev, trainer->targets);
    device_free(trainer->dev, trainer->losses);
    free(trainer);
}

double trainer_lr(const struct trainer_config *config, size_t step)
{
    assert(step >= 1);
    if (step <= config->warmup)
        return config->lr * (double)step / (double)config->warmup;
    if (step >= config->steps)
        return config->lr * config->min_lr_ratio;
    double progress =
        (double)(step - config->warmup) / (double)(config->steps - config->warmup);
    double floor = config->min_lr_ratio;
    return config->lr * (floor + (1 - floor) * (1 + cos(PI * progress)) / 2);
}

size_t trainer_branch_step(const struct trainer_config *config, size_t step)
{
    if (!method_find(config->method.name)->late_branch)
        return step;
    const double rest = (double)config->steps * (1 - config->method.branch_share);
    const size_t before = (size_t)floor(rest + SHARE_EPS);
    return step > before ? step - before : 0;
}

/* A branch that was never trained adds nothing: the passes leave it out, and its gradients
 * stay 0. step: of the next update, or the last one done. */
static void rest_branch(struct trainer *trainer, size_t step)
{
    const struct trainer_config *config = &trainer->config;
    trainer->model->branch_rests =
        method_find(config->method.name)->late_branch && trainer_branch_step(config, step) == 0;
}

/* Entries of the slabs with a gradient: the branch's are the last ones. */
static size_t live_entries(const struct model *model)
{
    const size_t base = model_base_count(&model->shape);
    return model->branch_rests ? model->params[base].offset : model->count;
}

/* Loads window number sample of split into place `slot` of inputs and targets. */
static int load_window(struct trainer *trainer, enum dataset_split split, uint64_t sample,
                       size_t slot, struct err *err)
{
    size_t at = slot * trainer->config.context;
    return dataset_window(trainer->data, split, sample, trainer->inputs + at,
                          trainer->targets + at, err);
}

/* The windows of a pass to the device, and its losses back. */
static void windows_push(struct trainer *trainer, size_t sequences)
{
    const size_t tokens = sequences * trainer->config.context;
    device_push(trainer->dev, trainer->inputs, tokens * sizeof *trainer->inputs);
    device_push(trainer->dev, trainer->targets, tokens * sizeof *trainer->targets);
}

static double losses_sum(struct trainer *trainer, size_t tokens)
{
    double sum = 0;
    device_pull(trainer->dev, trainer->losses, tokens * sizeof *trainer->losses);
    for (size_t i = 0; i < tokens; i++)
        sum += (double)trainer->losses[i];
    return sum;
}

/* This rank's share of the step: gradients into the slab, *loss gets the sum over its tokens.
 */
static int accumulate(struct trainer *trainer, double *loss, struct err *err)
{
    const struct trainer_config *config = &trainer->config;
    struct model *model = trainer->model;
    size_t share = config->batch / (size_t)trainer->comm->size;
    uint64_t first = (trainer->step + trainer->guard.skipped) * config->batch +
                     (size_t)trainer->comm->rank * share;
    size_t tokens = config->micro_batch * config->context;
    real scale = (real)(1 / ((double)config->batch * (double)config->context));

    device_zero(trainer->dev, model->grads, model->count * sizeof *model->grads);
    *loss = 0;
    for (size_t done = 0; done < share; done += config->micro_batch) {
        for (size_t i = 0; i < config->micro_batch; i++) {
            int rc = load_window(trainer, SPLIT_TRAIN, first + done + i, i, err);
            if (rc != 0)
                return rc;
        }
        windows_push(trainer, config->micro_batch);
        model_forward_backward(model, trainer->inputs, trainer->targets, trainer->losses, scale,
                               config->micro_batch, config->context);
        *loss += losses_sum(trainer, tokens);
        comm_progress(trainer->comm);
    }
    return 0;
}

/* data[i] = sum over the ranks of what the device has, by way of the host. */
static int sum_by_host(struct trainer *trainer, real *data, size_t count, struct err *err)
{
    struct comm *comm = trainer->comm;
    device_pull(trainer->dev, data, count * sizeof *data);
    int rc = comm->ops->sum_real(comm, data, count, err);
    device_push(trainer->dev, data, count * sizeof *data);
    return rc;
}

/* Sums loss and gradients over the ranks. */
static int reduce(struct trainer *trainer, double *loss, struct err *err)
{
    struct comm *comm = trainer->comm;
    struct model *model = trainer->model;
    const size_t bucket = BUCKET_BYTES / sizeof *model->grads;
    int rc = comm->ops->sum_double(comm, loss, 1, err);
    if (rc == 0 && comm->size > 1 && comm->sum_device)
        return comm->sum_device(comm, model->grads, model->count, err);
    for (size_t at = 0; rc == 0 && comm->size > 1 && at < model->count; at += bucket) {
        size_t count = model->count - at < bucket ? model->count - at : bucket;
        rc = sum_by_host(trainer, model->grads + at, count, err);
    }
    return rc;
}

struct gradient_refresh {
    struct trainer *trainer;
    const struct refresh_observer *observer;
    struct err *err;
    int rc; /* the first failure */
};

/* Sums the matrix's dense gradient over the ranks and refreshes it. After a failure the
 * collectives go on, as the other ranks' do. */
static void refresh_target(void *context, struct param *param)
{
    struct gradient_refresh *state = context;
    struct trainer *trainer = state->trainer;
    struct comm *comm = trainer->comm;
    const size_t bucket = BUCKET_BYTES / sizeof(real), all = param->rows * param->cols;
    real *gradient = refresher_gradient(trainer->refresher);
    int rc = 0;
    device_pull(trainer->dev, gradient, all * sizeof *gradient); /* the refresh reads it */
    for (size_t at = 0; rc == 0 && at < all; at += bucket)
        rc = comm->ops->sum_real(comm, gradient + at, all - at < bucket ? all - at : bucket,
                                 state->rc ? NULL : state->err);
    if (rc == 0 && state->rc == 0)
        rc = refresher_run_matrix(trainer->refresher, param, trainer->step, trainer->refresh,
                                  state->observer, state->err);
    state->rc = state->rc ? state->rc : rc;
}

/* Gradient scores: one more pass, at the weights of after the step, over the first micro_batch
 * sequences of each rank's share of the step's batch. */
static int refresh_by_gradient(struct trainer *trainer, const struct refresh_observer *observer,
                               struct err *err)
{
    const struct trainer_config *config = &trainer->config;
    const size_t ranks = (size_t)trainer->comm->size, micro = config->micro_batch;
    const uint64_t first = (trainer->step - 1 + trainer->guard.skipped) * config->batch +
                           (size_t)trainer->comm->rank * (config->batch / ranks);
    const real scale = (real)(1 / ((double)(ranks * micro) * (double)config->context));
    struct gradient_refresh state = {.trainer = trainer, .observer = observer, .err = err};
    const struct model_probe probe = {.context = &state,
                                      .gradient = refresher_gradient(trainer->refresher),
                                      .target = refresh_target};
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < micro; i++)
        rc = load_window(trainer, SPLIT_TRAIN, first + i, i, err);
    rc = comm_agree(trainer->comm, rc, NULL, err);
    if (rc == 0) {
        windows_push(trainer, micro);
        model_probe(trainer->model, trainer->inputs, trainer->targets, trainer->losses, scale,
                    micro, config->context, &probe);
        rc = state.rc;
    }
    return rc;
}

/* The refresh after the step, if one is due, and the check that all ranks have the same masks.
 */
static int refresh(struct trainer *trainer, const struct refresh_observer *observer,
                   struct step_result *result, struct err *err)
{
    if (!trainer->refresher || !refresher_due(trainer->refresher, trainer->step))
        return 0;
    double began = clock_monotonic_s();
    result->refreshed = true;
    result->refresh = ++trainer->refresh;
    result->zeta = refresher_zeta(trainer->refresher, trainer->step);
    int rc =
        refresher_gradient(trainer->refresher)
            ? refresh_by_gradient(trainer, observer, err)
            : refresher_run(trainer->refresher, trainer->step, trainer->refresh, observer, err);
    rc = comm_agree(trainer->comm, rc, NULL, err);
    if (rc == 0)
        rc = masks_agree(trainer->model, trainer->comm, &result->masks, err);
    result->refresh_ms = (clock_monotonic_s() - began) * 1000;
    return rc;
}

/* The verdict on the step's loss and norm, the same on every rank. A rejected batch may come
 * from the damaged memory of one rank: the states are compared at once. */
static int judge(struct trainer *trainer, struct step_result *result, struct err *err)
{
    const struct guard_config *config = &trainer->config.guard;
    struct guard *guard = &trainer->guard;
    result->limit = guard_limit(guard, config);
    int rc = guard_agree(trainer->comm, result->loss, result->grad_norm, &result->verdict, err);
    if (rc == 0 && result->verdict == GUARD_ACCEPTED)
        result->verdict = guard_judge(guard, config, result->loss, result->grad_norm);
    if (rc != 0 || result->verdict == GUARD_ACCEPTED)
        return rc;
    guard_reject(guard);
    return trainer_compare(trainer, &result->state, err);
}

static struct latent_args latent_args(const struct trainer *trainer, size_t step)
{
    const struct trainer_config *config = &trainer->config;
    struct method_config method = config->method;
    method_settle(&method);
    return (struct latent_args){.penalty = method.penalty,
                                .lr = trainer_lr(config, step),
                                .beta2 = config->beta2,
                                .eps = config->eps,
                                .step = step,
                                .steps = config->steps,
                                .interval = LATENT_INTERVAL};
}

int trainer_step(struct trainer *trainer, const struct refresh_observer *observer,
                 struct step_result *result, struct err *err)
{
    const struct trainer_config *config = &trainer->config;
    struct model *model = trainer->model;
    size_t tokens = config->batch * config->context, step = trainer->step + 1;
    double loss = 0;
    if (!trainer->data)
        return err_set(err, ERR_INVALID, "trainer: no data to train on");
    rest_branch(trainer, step);
    int rc = comm_agree(trainer->comm, accumulate(trainer, &loss, err), NULL, err);
    if (rc == 0)
        rc = reduce(trainer, &loss, err);
    if (rc != 0)
        return rc;
    loss /= (double)tokens;
    struct latent_args latent = latent_args(trainer, step);
    if (model->effective)
        latent_gradient(model, &latent);
    double norm =
        sqrt(trainer->dev->ops->sum_squares(trainer->dev, model->grads, live_entries(model)));
    if (!device_shares_memory(trainer->dev)) /* then an op can fail on one rank alone */
        rc = comm_agree(trainer->comm, device_check(trainer->dev, err), NULL, err);
    if (rc != 0)
        return rc;
    *result = (struct step_result){.step = step,
                                   .batch = trainer->step + trainer->guard.skipped,
                                   .loss = loss,
                                   .grad_norm = norm,
                                   .lr = trainer_lr(config, step),
                                   .tokens = tokens};
    rc = judge(trainer, result, err);
    if (rc != 0 || result->verdict != GUARD_ACCEPTED)
        return rc;

    struct optim_args args = {.lr = result->lr,
                              .beta1 = config->beta1,
                              .beta2 = config->beta2,
                              .eps = config->eps,
                              .weight_decay = config->weight_decay,
                              .grad_scale = 1,
                              .step = step,
                              .branch_step = trainer_branch_step(config, step),
                              .comm = trainer->comm};
    if (config->grad_clip > 0 && norm > config->grad_clip - CLIP_EPS)
        args.grad_scale = config->grad_clip / (norm + CLIP_EPS);
    rc = trainer->optim->optimizer->step(trainer->optim, model, &args, err);
    if (rc != 0)
        return rc;
    if (model->effective)
        latent_update(model, &latent);
    trainer->step = step;
    trainer->tokens += tokens;
    guard_accept(&trainer->guard, &config->guard, loss);
    rc = refresh(trainer, observer, result, err);
    if (rc == 0 && config->compare_every > 0 && step % config->compare_every == 0)
        rc = trainer_compare(trainer, &result->state, err);
    return rc;
}

int trainer_compare(struct trainer *trainer, struct agreement *out, struct err *err)
{
    size_t bytes = 0;
    void *explored = NULL;
    if (trainer->refresher)
        explored = refresher_explored(trainer->refresher, &bytes);
    return states_agree(trainer->model, trainer->comm, explored, bytes, out, err);
}

void trainer_restart(struct trainer *trainer)
{
    struct model *model = trainer->model;
    size_t bytes = 0;
    memset(model->moment1, 0, model->count * sizeof *model->moment1);
    memset(model->moment2, 0, model->count * sizeof *model->moment2);
    if (model->refresh_age)
        memset(model->refresh_age, 0, model->param_count * sizeof *model->refresh_age);
    if (model->ages)
        memset(model->ages, 0, model->count * sizeof *model->ages);
    if (trainer->refresher) {
        void *explored = refresher_explored(trainer->refresher, &bytes);
        memset(explored, 0, bytes);
    }
    model_init(model, trainer->config.seed);
    trainer->step = trainer->refresh = 0;
    trainer->tokens = 0;
    trainer->validation_loss = (double)NAN;
}

/* Sum of losses and number of targets over this rank's windows [first, last) of the `sequences`
 * chosen. */
static int evaluate_share(struct trainer *trainer, size_t first, size_t last, size_t sequences,
                          double sums[2], struct err *err)
{
    size_t context = trainer->config.context, micro = trainer->config.micro_batch;
    size_t windows = dataset_windows(trainer->data, SPLIT_VALIDATION);
    for (size_t at = first; at < last; at += micro) {
        size_t count = last - at < micro ? last - at : micro;
        for (size_t i = 0; i < count; i++) {
            uint64_t window = (uint64_t)(at + i) * windows / sequences;
            int rc = load_window(trainer, SPLIT_VALIDATION, window, i, err);
            if (rc != 0)
                return rc;
        }
        windows_push(trainer, count);
        model_loss(trainer->model, trainer->inputs, trainer->targets, trainer->losses, count,
                   context);
        sums[0] += losses_sum(trainer, count * context);
        comm_progress(trainer->comm);
        for (size_t i = 0; i < count * context; i++)
            sums[1] += trainer->targets[i] >= 0 ? 1 : 0;
    }
    return 0;
}

int trainer_evaluate(struct trainer *trainer, size_t sequences, double *loss, size_t *tokens,
                     struct err *err)
{
    struct comm *comm = trainer->comm;
    if (!trainer->data)
        return err_set(err, ERR_INVALID, "trainer: no data to evaluate on");
    rest_branch(trainer, trainer->step);
    size_t windows = dataset_windows(trainer->data, SPLIT_VALIDATION);
    if (windows == 0)
        return err_set(err, ERR_NOT_FOUND,
                       "no validation data: set data.validation or data.validation_fraction");
    if (sequences == 0 || sequences > windows)
        sequences = windows;
    size_t rank = (size_t)comm->rank, ranks = (size_t)comm->size;
    double sums[2] = {0, 0};
    int rc = evaluate_share(trainer, rank * sequences / ranks, (rank + 1) * sequences / ranks,
                            sequences, sums, err);
    rc = comm_agree(comm, rc, NULL, err);
    if (rc == 0)
        rc = comm->ops->sum_double(comm, sums, 2, err);
    if (rc != 0)
        return rc;
    *loss = trainer->validation_loss = sums[0] / sums[1];
    trainer->validation_step = trainer->step;
    *tokens = (size_t)sums[1];
    return 0;
}
