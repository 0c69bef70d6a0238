/* Activations in and out of panels, and the token embedding. A task is a panel, or for the
 * embedding's gradient a block of features, since tokens repeat. */
#include "engine/cpu/cpu.h"
#include "proto/base/mem.h"
#include <assert.h>
#include <string.h>

size_t cpu_act_size(size_t rows, size_t dim)
{
    size_t size = 0;
    bool fits = size_mul(&size, cpu_panels(rows), dim) && size_mul(&size, size, CPU_PANEL);
    assert(fits && "activation sizes are checked where the shape comes in");
    return size;
}

struct move_job {
    const struct cpu_kernels *kernels;
    float *out;
    const float *in;
    const int32_t *tokens;
    size_t rows, dim;
};

static void act_load_task(void *context, size_t p, unsigned thread)
{
    (void)thread;
    const struct move_job *job = context;
    float *panel = job->out + p * job->dim * CPU_PANEL;
    size_t lanes = cpu_lanes(job->rows, p);
    if (lanes < CPU_PANEL)
        memset(panel, 0, job->dim * CPU_BLOCK_BYTES);
    job->kernels->transpose(panel, CPU_PANEL, job->in + p * CPU_PANEL * job->dim, job->dim,
                            lanes, job->dim);
}

void cpu_act_load(struct device *dev, real *act, const real *host, size_t rows, size_t dim)
{
    struct move_job job = {
        .kernels = cpu_kernels_of(dev), .out = act, .in = host, .rows = rows, .dim = dim};
    pool_run(dev->pool, cpu_panels(rows), act_load_task, &job);
}

static void act_store_task(void *context, size_t p, unsigned thread)
{
    (void)thread;
    const struct move_job *job = context;
    job->kernels->transpose(job->out + p * CPU_PANEL * job->dim, job->dim,
                            job->in + p * job->dim * CPU_PANEL, CPU_PANEL, job->dim,
                            cpu_lanes(job->rows, p));
}

void cpu_act_store(struct device *dev, real *host, const real *act, size_t rows, size_t dim)
{
    struct move_job job = {
        .kernels = cpu_kernels_of(dev), .out = host, .in = act, .rows = rows, .dim = dim};
    pool_run(dev->pool, cpu_panels(rows), act_store_task, &job);
}

static void embed_forward_task(void *context, size_t p, unsigned thread)
{
    (void)thread;
    const struct move_job *job = context;
    float tile[CPU_TILE] __attribute__((aligned(64)));
    size_t lanes = cpu_lanes(job->rows, p);
    memset(tile, 0, sizeof tile);
    for (size_t i = 0; i < job->dim; i += CPU_PANEL) {
        size_t width = cpu_min(CPU_PANEL, job->dim - i);
        for (size_t lane = 0; lane < lanes; lane++) {
            int32_t token = job->tokens[p * CPU_PANEL + lane];
            assert(token >= 0);
            memcpy(tile + lane * CPU_PANEL, job->in + (size_t)token * job->dim + i,
                   width * sizeof *tile);
        }
        job->kernels->transpose(job->out + (p * job->dim + i) * CPU_PANEL, CPU_PANEL, tile,
                                CPU_PANEL, CPU_PANEL, width);
    }
}

void cpu_embed_forward(struct device *dev, real *out, const real *table, const int32_t *tokens,
                       size_t rows, size_t dim)
{
    struct move_job job = {.kernels = cpu_kernels_of(dev),
                           .out = out,
                           .in = table,
                           .tokens = tokens,
                           .rows = rows,
                           .dim = dim};
    pool_run(dev->pool, cpu_panels(rows), embed_forward_task, &job);
}

static void embed_backward_task(void *context, size_t block, unsigned thread)
{
    (void)thread;
    const struct move_job *job = context;
    float tile[CPU_TILE] __attribute__((aligned(64)));
    size_t i = block * CPU_PANEL, width = cpu_min(CPU_PANEL, job->dim - i);
    for (size_t p = 0; p < cpu_panels(job->rows); p++) {
        size_t lanes = cpu_lanes(job->rows, p);
        job->kernels->transpose(tile, CPU_PANEL, job->in + (p * job->dim + i) * CPU_PANEL,
                                CPU_PANEL, width, lanes);
        for (size_t lane = 0; lane < lanes; lane++) {
            size_t token = (size_t)job->tokens[p * CPU_PANEL + lane];
            float *row = job->out + token * job->dim + i;
            job->kernels->add(row, row, tile + lane * CPU_PANEL, width);
        }
    }
}

void cpu_embed_backward(struct device *dev, real *dtable, const real *dout,
                        const int32_t *tokens, size_t rows, size_t vocab, size_t dim)
{
    for (size_t r = 0; r < rows; r++)
        assert(tokens[r] >= 0 && (size_t)tokens[r] < vocab);
    struct move_job job = {.kernels = cpu_kernels_of(dev),
                           .out = dtable,
                           .in = dout,
                           .tokens = tokens,
                           .rows = rows,
                           .dim = dim};
    pool_run(dev->pool, cpu_blocks(dim, CPU_PANEL), embed_backward_task, &job);
}
