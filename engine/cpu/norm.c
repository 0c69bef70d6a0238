/* RMSNorm and rotary positions. A task is a panel; the norm weight's gradient, a sum over all
 * tokens, is done by blocks of features with the panels in order. */
#include "engine/cpu/cpu.h"
#include <string.h>

enum { NORM_BLOCK = 16 }; /* features of a task of the weight's gradient */

struct norm_job {
    const struct cpu_kernels *kernels;
    float *out, *rstd_out, *dw;
    const float *dout, *x, *w, *rstd;
    float eps;
    size_t rows, dim;
};

/* rstd of panel p for all lanes, 0 in the padding. */
static void norm_lanes(float lanes[CPU_PANEL], const struct norm_job *job, size_t p)
{
    size_t used = cpu_lanes(job->rows, p);
    memset(lanes, 0, CPU_BLOCK_BYTES);
    memcpy(lanes, job->rstd + p * CPU_PANEL, used * sizeof *lanes);
}

static void norm_forward_task(void *context, size_t p, unsigned thread)
{
    (void)thread;
    const struct norm_job *job = context;
    size_t at = p * job->dim * CPU_PANEL, used = cpu_lanes(job->rows, p);
    float lanes[CPU_PANEL];
    job->kernels->rmsnorm_forward(job->out + at, lanes, job->x + at, job->w, job->eps, job->dim,
                                  used);
    memcpy(job->rstd_out + p * CPU_PANEL, lanes, used * sizeof *lanes);
}

void cpu_rmsnorm_forward(struct device *dev, real *out, real *rstd, const real *x,
                         const real *w, real eps, size_t rows, size_t dim)
{
    struct norm_job job = {.kernels = cpu_kernels_of(dev),
                           .out = out,
                           .rstd_out = rstd,
                           .x = x,
                           .w = w,
                           .eps = eps,
                           .rows = rows,
                           .dim = dim};
    pool_run(dev->pool, cpu_panels(rows), norm_forward_task, &job);
}

static void norm_backward_x_task(void *context, size_t p, unsigned thread)
{
    (void)thread;
    const struct norm_job *job = context;
    size_t at = p * job->dim * CPU_PANEL;
    float lanes[CPU_PANEL];
    norm_lanes(lanes, job, p);
    job->kernels->rmsnorm_backward_x(job->out + at, job->dout + at, job->x + at, job->w, lanes,
                                     job->dim);
}

static void norm_backward_w_task(void *context, size_t block, unsigned thread)
{
    (void)thread;
    const struct norm_job *job = context;
    size_t i = block * NORM_BLOCK, count = cpu_min(NORM_BLOCK, job->dim - i);
    float sums[NORM_BLOCK * CPU_PANEL] = {0}, lanes[CPU_PANEL];
    for (size_t p = 0; p < cpu_panels(job->rows); p++) {
        size_t at = (p * job->dim + i) * CPU_PANEL;
        norm_lanes(lanes, job, p);
        job->kernels->rmsnorm_backward_w(sums, job->dout + at, job->x + at, lanes, count);
    }
    for (size_t j = 0; j < count; j++)
        job->dw[i + j] += job->kernels->lane_sum(sums + j * CPU_PANEL);
}

void cpu_rmsnorm_backward(struct device *dev, real *dx, real *dw, const real *dout,
                          const real *x, const real *w, const real *rstd, size_t rows,
                          size_t dim)
{
    struct norm_job job = {.kernels = cpu_kernels_of(dev),
                           .out = dx,
                           .dw = dw,
                           .dout = dout,
                           .x = x,
                           .w = w,
                           .rstd = rstd,
                           .rows = rows,
                           .dim = dim};
    pool_run(dev->pool, cpu_panels(rows), norm_backward_x_task, &job);
    pool_run(dev->pool, cpu_blocks(dim, NORM_BLOCK), norm_backward_w_task, &job);
}

struct rope_job {
    const struct cpu_kernels *kernels;
    float *x;
    const float *cosine, *sine;
    size_t rows, context, heads, half;
    float direction;
};

/* (half, CPU_PANEL) of the angles' table for the tokens of panel p, a part of it at a time. */
static void rope_lanes(float *out, const float *table, const struct rope_job *job, size_t p,
                       size_t first, size_t count)
{
    for (size_t lane = 0; lane < CPU_PANEL; lane++) {
        const float *row = table + (p * CPU_PANEL + lane) % job->context * job->half + first;
        for (size_t i = 0; i < count; i++)
            out[i * CPU_PANEL + lane] = row[i];
    }
}

static void rope_task(void *context, size_t p, unsigned thread)
{
    (void)thread;
    enum { PAIRS = 32 };
    const struct rope_job *job = context;
    float cosine[PAIRS * CPU_PANEL], sine[PAIRS * CPU_PANEL];
    float *panel = job->x + p * job->heads * 2 * job->half * CPU_PANEL;
    for (size_t i = 0; i < job->half; i += PAIRS) {
        size_t count = cpu_min(PAIRS, job->half - i);
        rope_lanes(cosine, job->cosine, job, p, i, count);
        rope_lanes(sine, job->sine, job, p, i, count);
        job->kernels->rope(panel + i * CPU_PANEL, cosine, sine, job->heads, job->half, count,
                           job->direction);
    }
}

static void rope_run(struct device *dev, real *x, const real *cosine, const real *sine,
                     const struct attention_shape *shape, size_t heads, float direction)
{
    struct rope_job job = {.kernels = cpu_kernels_of(dev),
                           .x = x,
                           .cosine = cosine,
                           .sine = sine,
                           .rows = shape->batch * shape->context,
                           .context = shape->context,
                           .heads = heads,
                           .half = shape->head_dim / 2,
                           .direction = direction};
    pool_run(dev->pool, cpu_panels(job.rows), rope_task, &job);
}

void cpu_rope_forward(struct device *dev, real *x, const real *cosine, const real *sine,
                      const struct attention_shape *shape, size_t heads)
{
    rope_run(dev, x, cosine, sine, shape, heads, 1.0f);
}

void cpu_rope_backward(struct device *dev, real *dx, const real *cosine, const real *sine,
                       const struct attention_shape *shape, size_t heads)
{
    rope_run(dev, dx, cosine, sine, shape, heads, -1.0f);
}
