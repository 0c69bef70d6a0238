#include "engine/sparse/refresher.h"
#include "proto/base/mem.h"
#include <assert.h>
#include <math.h>
#include <string.h>

/* ---- memory: one block, laid out by one function for both its size and its pointers ---- */

struct extent { /* of the matrices of a model: largest of each kind, sums where every matrix has
                   its own */
    size_t positions, groups, row_groups, tasks, dout, din, dim, row_words, col_words;
    size_t targets, explored;
};

static size_t larger(size_t a, size_t b) { return a > b ? a : b; }

static size_t product(size_t a, size_t b)
{
    size_t out = 0;
    bool fits = size_mul(&out, a, b);
    assert(fits); /* model_shape_check and model_create have bounded the shape */
    return out;
}

static size_t ceil_div(size_t a, size_t b) { return a / b + (a % b != 0); }

static void extent_add(struct extent *e, size_t dout, size_t din, unsigned m, size_t times)
{
    const size_t positions = product(dout, din);
    e->positions = larger(e->positions, positions);
    e->groups = larger(e->groups, positions / m);
    e->row_groups = larger(e->row_groups, din / m);
    e->tasks = larger(e->tasks, ceil_div(dout, REFRESH_ROWS));
    e->dout = larger(e->dout, dout);
    e->din = larger(e->din, din);
    e->dim = larger(e->dout, e->din);
    e->row_words = larger(e->row_words, product(dout, ceil_div(din, 64)));
    e->col_words = larger(e->col_words, product(din, ceil_div(dout, 64)));
    e->targets += times;
    e->explored += product(times, ceil_div(positions, 8));
}

/* Takes count elements from the block at *used; NULL while the block is only being measured. */
static void *take(char *block, size_t *used, size_t count, size_t size)
{
    size_t start = size_round_up(*used, MEM_ALIGN);
    bool fits = size_add(used, start, product(count, size));
    assert(fits);
    return block && count ? block + start : NULL;
}

static size_t layout(char *block, const struct extent *e, const struct method_config *config)
{
    size_t used = 0;
    struct refresher unused, *r = take(block, &used, 1, sizeof *r);
    if (!r)
        r = &unused;
    struct refresh_scratch *s = &r->scratch;
    const bool ri = config->removal == REMOVAL_RI;
    const bool ch = config->score == SCORE_CH2_L3N || config->score == SCORE_CH3_L3N;
    const bool gradient = config->score == SCORE_GRADIENT;
    r->targets = take(block, &used, e->targets, sizeof *r->targets);
    r->explored = take(block, &used, e->explored, 1);
    s->cells = take(block, &used, e->positions, sizeof(uint64_t));
    s->survivors = take(block, &used, e->groups, sizeof *s->survivors);
    s->codes_before = take(block, &used, e->groups, sizeof *s->codes_before);
    s->columns = take(block, &used, e->row_groups, sizeof *s->columns);
    s->count = take(block, &used, e->tasks, sizeof *s->count);
    s->row_sum = take(block, &used, ri ? e->dout : 0, sizeof *s->row_sum);
    s->col_sum = take(block, &used, ri ? e->din : 0, sizeof *s->col_sum);
    s->row_bits = take(block, &used, ch ? e->row_words : 0, sizeof *s->row_bits);
    s->col_bits = take(block, &used, ch ? e->col_words : 0, sizeof *s->col_bits);
    s->degree = take(block, &used, ch ? e->dim : 0, sizeof *s->degree);
    s->panel = take(block, &used, ch ? product(e->dim, REFRESH_PANEL) : 0, sizeof *s->panel);
    s->gradient = take(block, &used, gradient ? e->positions : 0, sizeof *s->gradient);
    return size_round_up(used, MEM_ALIGN);
}

size_t refresher_bytes(const struct model_shape *shape, const struct method_config *config)
{
    struct method_config settled = *config;
    if (!method_settle(&settled)->refreshes || shape->n == shape->m)
        return 0;
    const size_t kv = shape->hidden / shape->heads * shape->kv_heads;
    struct extent e = {0};
    extent_add(&e, shape->hidden, shape->hidden, shape->m, 2 * shape->layers); /* q, o */
    extent_add(&e, kv, shape->hidden, shape->m, 2 * shape->layers);            /* k, v */
    extent_add(&e, shape->intermediate, shape->hidden, shape->m,
               2 * shape->layers);                                               /* gate, up */
    extent_add(&e, shape->hidden, shape->intermediate, shape->m, shape->layers); /* down */
    return layout(NULL, &e, &settled);
}

/* ---- life ---- */

static void name_target(struct refresh_target *target, const char *name)
{
    static const char suffix[] = ".weight";
    const size_t tail = sizeof suffix - 1;
    size_t len = strnlen(name, MODEL_NAME_MAX - 1);
    if (len > tail && memcmp(name + len - tail, suffix, tail) == 0)
        len -= tail;
    memcpy(target->name, name, len);
    target->name[len] = '\0';
}

static void adopt_targets(struct refresher *r, struct model *model)
{
    for (size_t i = 0; i < model->param_count; i++) {
        struct param *param = &model->params[i];
        if (!param->nm)
            continue;
        struct refresh_target *target = &r->targets[r->target_count++];
        target->param = param;
        target->explored = r->explored + r->explored_bytes;
        name_target(target, param->name);
        r->explored_bytes += ceil_div(param->nm->dout * param->nm->din, 8);
    }
}

int refresher_create(struct refresher **out, const struct method_config *config,
                     struct model *model, struct err *err)
{
    *out = NULL;
    struct method_config settled = *config;
    if (!method_find(config->name))
        return err_set(err, ERR_INVALID, "method %s: unknown", config->name);
    const struct method *method = method_settle(&settled);
    if (!method->refreshes)
        return err_set(err, ERR_INVALID, "method %s: never refreshes its masks", config->name);
    struct extent e = {0};
    for (size_t i = 0; i < model->param_count; i++) {
        const struct nm *w = model->params[i].nm;
        if (!w)
            continue;
        extent_add(&e, w->dout, w->din, w->m, 1);
        if (w->layout == NM_LAYOUT_BLOCK && settled.mpr > 0)
            return err_set(
                err, ERR_INVALID,
                "sparsity.mpr is %g: motif pattern revisitation is for the layout row; "
                "in the layout block it must be 0",
                settled.mpr);
    }
    if (e.targets == 0)
        return err_set(err, ERR_INVALID, "method %s: the model has no N:M matrix",
                       config->name);
    const size_t bytes = layout(NULL, &e, &settled);
    char *block = device_alloc(model->dev, bytes, 1); /* an op writes the gradient */
    if (!block)
        return err_set(err, ERR_NO_MEMORY, "refresh of %zu matrices: no memory for %zu bytes",
                       e.targets, bytes);
    layout(block, &e, &settled);
    struct refresher *r = (struct refresher *)(void *)block;
    r->method = method;
    r->config = settled;
    r->model = model;
    adopt_targets(r, model);
    *out = r;
    return 0;
}

void refresher_destroy(struct refresher *refresher)
{
    if (refresher)
        device_free(refresher->model->dev, refresher);
}

uint8_t *refresher_explored(struct refresher *refresher, size_t *bytes)
{
    *bytes = refresher->explored_bytes;
    return refresher->explored;
}

/* ---- schedule ---- */

static double end_step(const struct method_config *config)
{
    return config->until * (double)config->steps;
}

bool refresher_due(const struct refresher *refresher, size_t step)
{
    const struct method_config *c = &refresher->config;
    return c->interval > 0 && step > 0 && step % c->interval == 0 && step < c->steps &&
           (double)step <= end_step(c) && c->zeta > 0;
}

double refresher_zeta(const struct refresher *refresher, size_t step)
{
    static const double pi = 3.14159265358979323846;
    const double end = end_step(&refresher->config);
    if (!((double)step < end))
        return 0;
    return refresher->config.zeta / 2 * (1 + cos(pi * (double)step / end));
}

double refresher_temperature(const struct refresher *refresher, size_t step)
{
    const struct method_config *c = &refresher->config;
    const double end = end_step(c);
    if (!((double)step < end))
        return c->temperature_end;
    return c->temperature_start +
           (c->temperature_end - c->temperature_start) * ((double)step / end);
}

size_t refresher_removed(double zeta, size_t links)
{
    assert(zeta >= 0 && zeta <= 1);
    size_t count = (size_t)floor(zeta * (double)links + 0.5);
    return count < links ? count : links;
}

/* ---- one refresh ---- */

struct philox refresh_stream(const struct refresh_job *job, enum philox_purpose purpose)
{
    return (struct philox){.seed = job->config->seed,
                           .purpose = purpose,
                           .stream = (uint32_t)job->target,
                           .round = job->refresh};
}

void refresh_rows(struct refresh_job *job, void (*fn)(void *job, size_t task, unsigned thread))
{
    pool_run(job->pool, ceil_div(job->w->dout, REFRESH_ROWS), fn, job);
}

bool refresh_lost(const struct refresh_job *job, size_t o, size_t g)
{
    const struct nm *w = job->w;
    const size_t groups = nm_groups(w);
    const size_t rows = w->layout == NM_LAYOUT_BLOCK ? NM_BLOCK : 1, first = o - o % rows;
    for (size_t i = first * groups + g; i < (first + rows) * groups; i += groups)
        if (job->scratch->survivors[i] != w->patterns->mask[w->codes[i]])
            return true;
    return false;
}

static int refresh_matrix(struct refresh_job *job, const struct refresh_observer *observer,
                          struct err *err)
{
    struct nm *w = job->w;
    struct refresh_stats stats;
    memcpy(job->scratch->codes_before, w->codes, w->dout * nm_groups(w) * sizeof *w->codes);
    if (job->remove > 0) {
        removal_run(job);
        score_run(job);
        project_run(job);
    }
    repair_run(job);
    struct device *dev = job->refresher->model->dev;
    dev->ops->nm_repack(dev, w);
    if (!observer || !observer->matrix)
        return 0;
    stats_fill(job, &stats);
    return observer->matrix(observer->context, job->target, w, job->scratch->codes_before,
                            &stats, err);
}

/* What a refresh reads and writes of a matrix, between the host and the device. */
static void entries_move(const struct model *model, const struct param *param,
                         void (*move)(struct device *dev, const void *memory, size_t bytes))
{
    const size_t at = param->offset, bytes = param->count * sizeof(real);
    move(model->dev, model->weights + at, bytes);
    if (model->moment1)
        move(model->dev, model->moment1 + at, bytes);
    if (model->moment2)
        move(model->dev, model->moment2 + at, bytes);
    if (model->ages)
        move(model->dev, model->ages + at, param->count * sizeof *model->ages);
}

static int run_target(struct refresher *refresher, size_t target, size_t step, size_t refresh,
                      const struct refresh_observer *observer, struct err *err)
{
    assert(refresh > 0 && refresh <= UINT32_MAX);
    struct nm *w = refresher->targets[target].param->nm;
    struct refresh_job job = {
        .refresher = refresher,
        .scratch = &refresher->scratch,
        .config = &refresher->config,
        .pool = refresher->model->dev->pool,
        .w = w,
        .target = target,
        .refresh = (uint32_t)refresh,
        .temperature = refresher_temperature(refresher, step),
        .remove = refresher_removed(refresher_zeta(refresher, step), nm_count(w)),
    };
    const struct param *param = refresher->targets[target].param;
    entries_move(refresher->model, param, device_pull);
    int rc = refresh_matrix(&job, observer, err);
    entries_move(refresher->model, param, device_push);
    return rc;
}

int refresher_run(struct refresher *refresher, size_t step, size_t refresh,
                  const struct refresh_observer *observer, struct err *err)
{
    assert(!refresher->scratch.gradient);
    for (size_t t = 0; t < refresher->target_count; t++) {
        int rc = run_target(refresher, t, step, refresh, observer, err);
        if (rc)
            return rc;
    }
    return 0;
}

real *refresher_gradient(struct refresher *refresher) { return refresher->scratch.gradient; }

int refresher_run_matrix(struct refresher *refresher, const struct param *param, size_t step,
                         size_t refresh, const struct refresh_observer *observer,
                         struct err *err)
{
    size_t target = 0;
    assert(refresher->scratch.gradient);
    while (refresher->targets[target].param != param) {
        target++;
        assert(target < refresher->target_count);
    }
    return run_target(refresher, target, step, refresh, observer, err);
}
