#include "engine/model_private.h"
#include "engine/sparse/latent.h"
#include "engine/sparse/refresher.h"
#include <assert.h>
#include <math.h>

struct latent_job { /* one target in one pass over its rows */
    struct model *model;
    const struct param *param;
    const struct latent_args *args;
    real correction; /* 1 - beta2^step */
};

void magnitude_mask(struct nm *w, const real *dense, size_t first, size_t end)
{
    const size_t groups = nm_groups(w);
    const size_t rows = w->layout == NM_LAYOUT_BLOCK ? NM_BLOCK : 1;
    assert(first % rows == 0 && end % rows == 0);
    for (size_t o = first; o < end; o += rows)
        for (size_t g = 0; g < groups; g++) {
            double score[NM_M_MAX];
            for (size_t i = 0; i < rows * w->m; i++)
                score[i] = fabs((double)dense[(o + i / w->m) * w->din + g * w->m + i % w->m]);
            if (rows == 1) {
                w->codes[o * groups + g] =
                    w->patterns->code_of[project_group(score, 0, w->n, w->m)];
                continue;
            }
            const struct block_table *blocks = w->patterns->blocks;
            const size_t best = project_block(score, 0, blocks);
            for (size_t r = 0; r < rows; r++)
                w->codes[(o + r) * groups + g] = blocks->code[best][r];
        }
}

static_assert(NM_BLOCK * NM_BLOCK <= NM_M_MAX, "a block's scores fit");

static size_t task_end(const struct param *param, size_t task)
{
    const size_t end = (task + 1) * REFRESH_ROWS;
    return end < param->rows ? end : param->rows;
}

/* Runs fn over the rows of every target, REFRESH_ROWS a task. */
static void over_targets(struct model *model, const struct latent_args *args,
                         void (*fn)(void *context, size_t task, unsigned thread))
{
    for (size_t i = 0; i < model->param_count; i++) {
        const struct param *param = &model->params[i];
        if (!param->latent)
            continue;
        struct latent_job job = {.model = model, .param = param, .args = args};
        if (args && args->step > 0)
            job.correction = (real)(1 - pow(args->beta2, (double)args->step));
        pool_run(model->dev->pool, (param->rows + REFRESH_ROWS - 1) / REFRESH_ROWS, fn, &job);
    }
}

static void select_rows(void *context, size_t task, unsigned thread)
{
    (void)thread;
    struct latent_job *job = context;
    const struct param *param = job->param;
    magnitude_mask(param->latent, job->model->weights + param->offset, task * REFRESH_ROWS,
                   task_end(param, task));
}

void latent_select(struct model *model) { over_targets(model, NULL, select_rows); }

static void mask_rows(void *context, size_t task, unsigned thread)
{
    (void)thread;
    struct latent_job *job = context;
    const struct param *param = job->param;
    const real *w = job->model->weights + param->offset;
    select_rows(context, task, thread);
    for (size_t i = task * REFRESH_ROWS * param->cols; i < task_end(param, task) * param->cols;
         i++)
        param->effective[i] = nm_active(param->latent, i) ? w[i] : 0;
}

/* The scale of position i of a target. */
static size_t scale_place(const struct param *param, size_t i)
{
    const size_t width = (size_t)param->latent->m * LATENT_SCALE_GROUPS;
    return i / param->cols * param->scale->cols + i % param->cols / width;
}

static void scale_rows(void *context, size_t task, unsigned thread)
{
    (void)thread;
    struct latent_job *job = context;
    const struct param *param = job->param;
    const real *w = job->model->weights + param->offset;
    const real *scale = job->model->weights + param->scale->offset;
    for (size_t i = task * REFRESH_ROWS * param->cols; i < task_end(param, task) * param->cols;
         i++)
        param->effective[i] = scale[scale_place(param, i)] * w[i];
}

/* The loops of this file are the host's: slabs of a device with memory of its own come and go. */
static void slab_move(const struct model *model, const real *slab,
                      void (*move)(struct device *dev, const void *memory, size_t bytes))
{
    move(model->dev, slab, model->count * sizeof *slab);
}

void latent_apply(struct model *model)
{
    over_targets(model, NULL,
                 model->shape.latent == MODEL_LATENT_MASKED ? mask_rows : scale_rows);
    device_push(model->dev, model->effective,
                model_effective_count(model->params, model->param_count) * sizeof(real));
}

static void penalize_rows(void *context, size_t task, unsigned thread)
{
    (void)thread;
    struct latent_job *job = context;
    const struct param *param = job->param;
    const real *w = job->model->weights + param->offset;
    const real penalty = (real)job->args->penalty;
    real *g = job->model->grads + param->offset;
    for (size_t i = task * REFRESH_ROWS * param->cols; i < task_end(param, task) * param->cols;
         i++)
        if (!nm_active(param->latent, i))
            g[i] += penalty * w[i];
}

static void scale_gradient_rows(void *context, size_t task, unsigned thread)
{
    (void)thread;
    struct latent_job *job = context;
    const struct model *model = job->model;
    const struct param *param = job->param;
    const real *w = model->weights + param->offset;
    const real *scale = model->weights + param->scale->offset;
    real *g = model->grads + param->offset, *ds = model->grads + param->scale->offset;
    const size_t width = (size_t)param->latent->m * LATENT_SCALE_GROUPS;
    for (size_t o = task * REFRESH_ROWS; o < task_end(param, task); o++)
        for (size_t p = 0; p < param->scale->cols; p++) {
            const size_t first = p * width, end = first + width;
            const size_t k = o * param->scale->cols + p;
            real sum = 0;
            for (size_t c = first; c < end && c < param->cols; c++) {
                const size_t i = o * param->cols + c;
                sum += w[i] * g[i];
                g[i] *= scale[k];
            }
            ds[k] = sum;
        }
}

void latent_gradient(struct model *model, const struct latent_args *args)
{
    assert(model->grads);
    if (model->shape.latent != MODEL_LATENT_SCALED && !(args->penalty > 0))
        return;
    slab_move(model, model->weights, device_pull);
    slab_move(model, model->grads, device_pull);
    over_targets(model, args,
                 model->shape.latent == MODEL_LATENT_SCALED ? scale_gradient_rows
                                                            : penalize_rows);
    slab_move(model, model->grads, device_push);
}

static void decay_rows(void *context, size_t task, unsigned thread)
{
    (void)thread;
    struct latent_job *job = context;
    const struct param *param = job->param;
    const real rate = (real)(job->args->lr * job->args->penalty), eps = (real)job->args->eps;
    const real *v = job->model->moment2 + param->offset;
    real *w = job->model->weights + param->offset;
    for (size_t i = task * REFRESH_ROWS * param->cols; i < task_end(param, task) * param->cols;
         i++) {
        if (nm_active(param->latent, i))
            continue;
        const real fall = rate / (real_sqrt(v[i] / job->correction) + eps);
        w[i] = w[i] > fall ? w[i] - fall : w[i] < -fall ? w[i] + fall : 0;
    }
}

static void cut_rows(void *context, size_t task, unsigned thread)
{
    (void)thread;
    struct latent_job *job = context;
    const struct param *param = job->param;
    real *w = job->model->weights + param->offset;
    for (size_t i = task * REFRESH_ROWS * param->cols; i < task_end(param, task) * param->cols;
         i++)
        if (!nm_active(param->latent, i))
            w[i] = 0;
}

void latent_update(struct model *model, const struct latent_args *args)
{
    slab_move(model, model->weights, device_pull);
    if (model->shape.latent == MODEL_LATENT_SCALED) {
        slab_move(model, model->moment2, device_pull);
        over_targets(model, args, decay_rows);
        if (args->step % args->interval == 0 || args->step == args->steps)
            latent_select(model);
        if (args->step == args->steps)
            over_targets(model, args, cut_rows);
        slab_move(model, model->weights, device_push);
    }
    latent_apply(model);
}
