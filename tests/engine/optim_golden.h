/* The optimizers against tests/reference/optim_reference.py: the same draws, many steps, masks
 * that change; for the engine in float and in double. */
#ifndef HEBB_TESTS_ENGINE_OPTIM_GOLDEN_H
#define HEBB_TESTS_ENGINE_OPTIM_GOLDEN_H

#include "engine/method.h"
#include "engine/method_rules.h"
#include "engine/optim/optim.h"
#include "engine/sparse/refresher.h"
#include "proto/format/safetensors.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define OPTIM_GOLDEN HEBB_SOURCE_DIR "/tests/golden/optim.safetensors"

static const char *const OPTIM_CASES[] = {"tans14",    "tans24",    "tans12", "tans38",
                                          "tansdense", "muondense", "muon24"};
enum { OPTIM_CASE_COUNT = sizeof OPTIM_CASES / sizeof OPTIM_CASES[0] };

/* One case at work. */
struct optim_run {
    const struct st_file *file;
    const char *name;
    struct device *dev;
    struct model *model;
    struct optim *optim;
    struct refresher *refresher; /* sparse cases */
    struct optim_args args;
    size_t steps, every;
};

static inline const char *optim_text(const struct optim_run *run, const char *key)
{
    char full[ST_NAME_MAX];
    snprintf(full, sizeof full, "%s.%s", run->name, key);
    const char *text = st_metadata(run->file, full);
    assert_non_null(text);
    return text;
}

static inline double optim_number(const struct optim_run *run, const char *key)
{
    return strtod(optim_text(run, key), NULL);
}

/* ---- the draws, as the reference's first lines define them ---- */

static inline uint32_t optim_draw(uint32_t stream, uint64_t round, uint64_t index)
{
    const struct philox key = {.seed = 3, .purpose = 77, .stream = stream, .round = round};
    return philox_u32(&key, index);
}

static inline real optim_unit(uint32_t stream, uint64_t round, uint64_t index)
{
    return (real)(optim_draw(stream, round, index) >> 8) / (real)(1 << 23) - 1;
}

/* Dense position of stored entry i. */
static inline size_t optim_position(const struct param *param, size_t i)
{
    const struct nm *w = param->nm;
    if (!w)
        return i;
    return i / w->n * w->m + w->patterns->column[(size_t)w->codes[i / w->n] * w->n + i % w->n];
}

static inline void optim_draw_codes(struct nm *w, uint32_t t, uint64_t change)
{
    for (size_t k = 0; k < w->dout * nm_groups(w); k++) {
        const uint32_t word = optim_draw(300 + t, change, k);
        if (change == 0 || (word >> 16) % 3 == 0)
            w->codes[k] = (uint16_t)((word & 0xffff) % w->patterns->count);
    }
}

static inline void optim_draw_weights(struct model *model)
{
    for (size_t t = 0; t < model->param_count; t++) {
        const struct param *param = &model->params[t];
        if (param->nm)
            optim_draw_codes(param->nm, (uint32_t)t, 0);
        for (size_t i = 0; i < param->count; i++)
            model->weights[param->offset + i] =
                param->rows == 1 ? 1 : optim_unit((uint32_t)t, 0, optim_position(param, i)) / 4;
    }
}

static inline void optim_draw_gradients(struct model *model, size_t step)
{
    for (size_t t = 0; t < model->param_count; t++) {
        const struct param *param = &model->params[t];
        for (size_t i = 0; i < param->count; i++) {
            const size_t at = optim_position(param, i);
            model->grads[param->offset + i] = (optim_unit(100 + (uint32_t)t, 0, at) / 2 +
                                               optim_unit(200 + (uint32_t)t, step, at)) /
                                              64;
        }
    }
}

/* ---- the run ---- */

/* A mask from outside instead of the refresh's own choice; all else is the refresh's. */
static inline void optim_change_masks(struct optim_run *run, size_t change)
{
    struct refresher *refresher = run->refresher;
    for (size_t k = 0; k < refresher->target_count; k++) {
        struct param *param = refresher->targets[k].param;
        struct nm *w = param->nm;
        struct refresh_job job = {.refresher = refresher,
                                  .scratch = &refresher->scratch,
                                  .config = &refresher->config,
                                  .pool = run->dev->pool,
                                  .w = w,
                                  .target = k,
                                  .refresh = (uint32_t)change};
        memcpy(job.scratch->codes_before, w->codes, w->dout * nm_groups(w) * sizeof *w->codes);
        optim_draw_codes(w, (uint32_t)(param - run->model->params), change);
        repair_run(&job);
        run->dev->ops->nm_repack(run->dev, w);
    }
}

static inline struct optim_options optim_case_options(const struct optim_run *run)
{
    const int scale = rule_find(scale_rule_names, optim_text(run, "scale"));
    const int rms = rule_find(rms_rule_names, optim_text(run, "rms"));
    assert_true(scale >= 0 && rms >= 0);
    return (struct optim_options){.adam_lr_ratio = optim_number(run, "adam_lr_ratio"),
                                  .adam_eps = optim_number(run, "adam_eps"),
                                  .momentum = optim_number(run, "momentum"),
                                  .scale = (enum scale_rule)scale,
                                  .gamma_ns = optim_number(run, "gamma_ns"),
                                  .ramp = (size_t)optim_number(run, "ramp"),
                                  .rms = (enum rms_rule)rms,
                                  .age_correction = optim_number(run, "age_correction") > 0};
}

static inline void optim_run_create(struct optim_run *run, const struct st_file *file,
                                    const char *name, const char *device, struct pool *pool)
{
    *run = (struct optim_run){.file = file, .name = name};
    struct err err = {0};
    const struct model_shape shape = {.hidden = 16,
                                      .intermediate = 24,
                                      .layers = 1,
                                      .heads = 2,
                                      .kv_heads = 1,
                                      .vocab = 6,
                                      .context = 4,
                                      .rope_theta = 10000,
                                      .norm_eps = 1e-6,
                                      .n = (unsigned)optim_number(run, "n"),
                                      .m = (unsigned)optim_number(run, "m")};
    const struct optim_options options = optim_case_options(run);
    run->steps = (size_t)optim_number(run, "steps");
    run->every = (size_t)optim_number(run, "every");
    run->args = (struct optim_args){.lr = optim_number(run, "lr"),
                                    .beta1 = optim_number(run, "beta1"),
                                    .beta2 = optim_number(run, "beta2"),
                                    .eps = optim_number(run, "eps"),
                                    .weight_decay = optim_number(run, "weight_decay"),
                                    .grad_scale = optim_number(run, "grad_scale")};
    assert_int_equal(device_create(&run->dev, device, pool, NULL), 0);
    assert_int_equal(model_create(&run->model, run->dev, &shape, 1, 4, true, NULL), 0);
    if (optim_create(&run->optim, optim_text(run, "optimizer"), run->args.beta1,
                     run->args.beta2, &options, run->model, &err) != 0)
        fail_msg("%s", err.text);
    if (shape.n < shape.m) {
        const struct method_config method = {
            .name = "set",
            .steps = run->steps,
            .interval = run->every,
            .until = 1,
            .zeta = 0.1,
            .temperature_start = 1,
            .temperature_end = 1,
            .score = SCORE_RANDOM,
            .repair = (enum repair_rule)rule_find(repair_rule_names, optim_text(run, "repair")),
        };
        if (refresher_create(&run->refresher, &method, run->model, &err) != 0)
            fail_msg("%s", err.text);
    }
    optim_draw_weights(run->model);
    model_repack(run->model);
}

static inline void optim_run_destroy(struct optim_run *run)
{
    refresher_destroy(run->refresher);
    optim_destroy(run->optim);
    model_destroy(run->model);
    device_destroy(run->dev);
}

static inline void optim_run_step(struct optim_run *run, size_t step)
{
    optim_draw_gradients(run->model, step);
    run->args.step = step;
    run->optim->optimizer->step(run->optim, run->model, &run->args, NULL);
    if (run->refresher && step % run->every == 0 && step < run->steps)
        optim_change_masks(run, step / run->every);
}

static inline const void *optim_expected(const struct optim_run *run, size_t t,
                                         const char *state, size_t count)
{
    char name[ST_NAME_MAX];
    snprintf(name, sizeof name, "%s.%zu.%s", run->name, t, state);
    const struct st_tensor *tensor = st_find(run->file, name);
    if (!tensor)
        fail_msg("%s has no %s", OPTIM_GOLDEN, name);
    assert_int_equal(tensor->bytes, count * st_type_bytes(tensor->type));
    return st_data(run->file, tensor);
}

/* Largest difference over the largest value. */
static inline void optim_compare(const struct optim_run *run, size_t t, const char *state,
                                 const real *slab, double tolerance)
{
    const struct param *param = &run->model->params[t];
    const double *want = optim_expected(run, t, state, param->count);
    double top = 1e-30, worst = 0;
    for (size_t i = 0; i < param->count; i++) {
        double value;
        memcpy(&value, want + i, sizeof value); /* the mapping is aligned to bytes only */
        top = fmax(top, fabs(value));
        const double difference = fabs((double)slab[param->offset + i] - value);
        worst = fmax(worst, isnan(difference) ? HUGE_VAL : difference);
    }
    if (!(worst <= tolerance * top))
        fail_msg("%s on %s, %s: %s is %.2e off, largest %.2e", run->name, run->dev->ops->name,
                 param->name, state, worst, top);
}

/* Ages of masks and of entries are whole numbers: equal. */
static inline void optim_compare_ages(const struct optim_run *run, size_t t)
{
    const struct param *param = &run->model->params[t];
    int32_t want = 0;
    if (!run->model->refresh_age || !param->target)
        return;
    memcpy(&want, optim_expected(run, t, "tau", 1), sizeof want);
    assert_int_equal(run->model->refresh_age[t], want);
    if (!run->model->ages)
        return;
    const char *ages = optim_expected(run, t, "age", param->count);
    for (size_t i = 0; i < param->count; i++) {
        memcpy(&want, ages + i * sizeof want, sizeof want);
        assert_int_equal(run->model->ages[param->offset + i], want);
    }
}

static inline void optim_check_case(const struct st_file *file, const char *name,
                                    const char *device, double tolerance)
{
    struct optim_run run;
    optim_run_create(&run, file, name, device, NULL);
    for (size_t step = 1; step <= run.steps; step++)
        optim_run_step(&run, step);
    for (size_t t = 0; t < run.model->param_count; t++) {
        optim_compare(&run, t, "W", run.model->weights, tolerance);
        optim_compare(&run, t, "P", run.model->moment1, tolerance);
        optim_compare(&run, t, "V", run.model->moment2, tolerance);
        optim_compare_ages(&run, t);
    }
    optim_run_destroy(&run);
}

#endif
