#include "engine/model_private.h"
#include "engine/philox.h"
#include "engine/sparse/latent.h"
#include <math.h>
#include <string.h>

static const double EMBEDDING_STD = 0.02;
enum { ROWS_PER_TASK = 64 /* whole blocks */ };

struct init {
    const struct model *model;
    const struct param *param;
    uint64_t seed;
    uint32_t target; /* number among the targets */
    struct philox weight;
    double std;
};

/* Values of one row of an N:M matrix, whose codes are there; an element's draw is that of its
 * dense place. */
static void init_sparse_row(const struct init *init, size_t row)
{
    const struct nm *nm = init->param->nm;
    size_t groups = nm_groups(nm);
    for (size_t g = 0; g < groups; g++) {
        uint64_t group = row * groups + g;
        const size_t code = nm->codes[group];
        for (size_t i = 0; i < nm->n; i++) {
            uint64_t column = g * nm->m + nm->patterns->column[code * nm->n + i];
            double normal = philox_normal(&init->weight, row * nm->din + column);
            nm->values[group * nm->n + i] = (real)(init->std * normal);
        }
    }
}

static void init_task(void *context, size_t task, unsigned thread)
{
    const struct init *init = context;
    const struct param *param = init->param;
    real *weights = model_weight(init->model, param);
    size_t first = task * ROWS_PER_TASK, end = first + ROWS_PER_TASK;
    end = end < param->rows ? end : param->rows;
    (void)thread;
    if (param->nm)
        nm_init_mask_rows(param->nm, init->seed, init->target, first, end);
    for (size_t row = first; row < end; row++) {
        if (param->nm) {
            init_sparse_row(init, row);
            continue;
        }
        for (size_t column = 0; column < param->cols; column++) {
            size_t place = row * param->cols + column;
            weights[place] = (real)(init->std * philox_normal(&init->weight, place));
        }
    }
}

/* Standard deviation of a matrix; the two that write to the residual stream are scaled as in
 * Radford et al. 2019, so that the stream's variance does not grow with depth. */
static double init_std(const struct model *model, const struct param *param, size_t kind)
{
    const struct model_shape *shape = &model->shape;
    if (!param->target)
        return EMBEDDING_STD;
    double fan_in = (double)param->cols;
    if (param->nm)
        fan_in *= (double)shape->n / shape->m;
    double std = sqrt(1 / fan_in);
    if (kind == LAYER_O || kind == LAYER_DOWN)
        std /= sqrt(2 * (double)shape->layers);
    return std;
}

/* A branch that adds nothing yet: see engine/adapter.h. The random parts draw from streams
 * after those of the model's parameters, the same ones for every adapter. */
static void init_adapters(const struct model *model, uint64_t seed)
{
    size_t base = model_base_count(&model->shape), parts = adapter_parts(&model->shape.adapter);
    for (size_t i = base; i < model_adapter_end(&model->shape); i++) {
        const struct param *param = &model->params[i];
        size_t branch = (i - base) / parts, part = (i - base) % parts;
        struct init init = {
            .model = model,
            .param = param,
            .weight = {.seed = seed,
                       .purpose = PHILOX_INIT_WEIGHT,
                       .stream = (uint32_t)(base + branch * ADAPTER_PARTS + part)},
            .std = sqrt(1 / (double)param->cols),
        };
        if (adapter_random((enum adapter_part)part))
            pool_run(model->dev->pool, (param->rows + ROWS_PER_TASK - 1) / ROWS_PER_TASK,
                     init_task, &init);
        else
            memset(model_weight(model, param), 0, param->count * sizeof(real));
    }
}

void model_init(struct model *model, uint64_t seed)
{
    size_t target = 0;
    init_adapters(model, seed);
    for (size_t i = 0; i < model_base_count(&model->shape); i++) {
        const struct param *param = &model->params[i];
        struct init init = {
            .model = model,
            .param = param,
            .seed = seed,
            .target = (uint32_t)target,
            .weight = {.seed = seed, .purpose = PHILOX_INIT_WEIGHT, .stream = (uint32_t)i},
        };
        if (param->target)
            target++;
        if (!param->decay) { /* a norm */
            for (size_t k = 0; k < param->count; k++)
                model_weight(model, param)[k] = REAL(1.0);
            continue;
        }
        init.std = init_std(model, param, (i + LAYER_PARAMS - 1) % LAYER_PARAMS);
        pool_run(model->dev->pool, (param->rows + ROWS_PER_TASK - 1) / ROWS_PER_TASK, init_task,
                 &init);
    }
    for (size_t i = model_adapter_end(&model->shape); i < model->param_count; i++) /* scales */
        for (size_t k = 0; k < model->params[i].count; k++)
            model_weight(model, &model->params[i])[k] = REAL(1.0);
    if (model->effective)
        latent_select(model);
    model_push(model);
    model_repack(model);
}
