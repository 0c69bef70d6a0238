/* The three products of a linear layer, N:M and dense. Tasks are (block of rows or columns,
 * panel); a gradient with respect to weights is a sum over all tokens, so there a task owns a
 * tile of the weights and takes the panels in order. */
#include "engine/cpu/pack.h"
#include <assert.h>
#include <string.h>

enum {
    STRIP = 256,     /* rows of y or columns of dx of a task: 64 KiB of a panel */
    TILE_ROWS = 256, /* rows of a tile of weights: 64 KiB with CPU_PANEL columns */
    TILES = 4,       /* tiles of a task of the dense gradient */
};

struct product_job {
    const struct cpu_kernels *kernels;
    struct cpu_nm nm;
    float *out;
    const float *in, *w; /* w: dense only */
    size_t din, dout, strips;
    bool accumulate;
};

static void nm_forward_task(void *context, size_t task, unsigned thread)
{
    (void)thread;
    const struct product_job *job = context;
    size_t p = task / job->strips, first = task % job->strips * STRIP;
    job->kernels->nm_forward(&job->nm, job->out + p * job->dout * CPU_PANEL,
                             job->in + p * job->din * CPU_PANEL, first,
                             cpu_min(first + STRIP, job->dout));
}

void cpu_nm_forward(struct device *dev, real *y, const real *x, const struct nm *w, size_t rows)
{
    struct product_job job = {.kernels = cpu_kernels_of(dev),
                              .nm = cpu_pack_view(w),
                              .out = y,
                              .in = x,
                              .din = w->din,
                              .dout = w->dout,
                              .strips = cpu_blocks(w->dout, STRIP)};
    pool_run(dev->pool, cpu_panels(rows) * job.strips, nm_forward_task, &job);
}

static void nm_backward_x_task(void *context, size_t task, unsigned thread)
{
    (void)thread;
    const struct product_job *job = context;
    size_t groups = STRIP / job->nm.m, all = job->din / job->nm.m;
    size_t p = task / job->strips, first = task % job->strips * groups;
    job->kernels->nm_backward_x(&job->nm, job->out + p * job->din * CPU_PANEL,
                                job->in + p * job->dout * CPU_PANEL, first,
                                cpu_min(first + groups, all), job->accumulate);
}

void cpu_nm_backward_x(struct device *dev, real *dx, const real *dy, const struct nm *w,
                       size_t rows, int accumulate)
{
    struct product_job job = {.kernels = cpu_kernels_of(dev),
                              .nm = cpu_pack_view(w),
                              .out = dx,
                              .in = dy,
                              .din = w->din,
                              .dout = w->dout,
                              .strips = cpu_blocks(nm_groups(w), STRIP / w->m),
                              .accumulate = accumulate};
    pool_run(dev->pool, cpu_panels(rows) * job.strips, nm_backward_x_task, &job);
}

struct gradient_job {
    const struct cpu_kernels *kernels;
    struct cpu_nm nm;
    float *dvalues;
    const float *dy, *x;
    size_t panels, strips; /* strips of TILE_ROWS rows */
};

static void nm_backward_w_task(void *context, size_t task, unsigned thread)
{
    (void)thread;
    const struct gradient_job *job = context;
    size_t block = task / job->strips, first = task % job->strips * TILE_ROWS;
    for (size_t p = 0; p < job->panels; p++)
        job->kernels->nm_backward_w(&job->nm, job->dvalues,
                                    job->dy + p * job->nm.dout * CPU_PANEL,
                                    job->x + p * job->nm.din * CPU_PANEL, block, first,
                                    cpu_min(first + TILE_ROWS, job->nm.dout));
}

void cpu_nm_backward_w(struct device *dev, real *dvalues, const real *dy, const real *x,
                       const struct nm *w, size_t rows)
{
    struct gradient_job job = {.kernels = cpu_kernels_of(dev),
                               .nm = cpu_pack_view(w),
                               .dvalues = dvalues,
                               .dy = dy,
                               .x = x,
                               .panels = cpu_panels(rows),
                               .strips = cpu_blocks(w->dout, TILE_ROWS)};
    pool_run(dev->pool, cpu_blocks(w->din, job.nm.block) * job.strips, nm_backward_w_task,
             &job);
}

static void dense_forward_task(void *context, size_t task, unsigned thread)
{
    (void)thread;
    const struct product_job *job = context;
    size_t p = task / job->strips, first = task % job->strips * STRIP;
    job->kernels->gemm(job->out + (p * job->dout + first) * CPU_PANEL, CPU_PANEL,
                       job->w + first * job->din, job->din, 1,
                       job->in + p * job->din * CPU_PANEL, CPU_PANEL,
                       cpu_min(STRIP, job->dout - first), job->din, false);
}

void cpu_dense_forward(struct device *dev, real *y, const real *x, const real *w, size_t rows,
                       size_t din, size_t dout)
{
    struct product_job job = {.kernels = cpu_kernels_of(dev),
                              .out = y,
                              .in = x,
                              .w = w,
                              .din = din,
                              .dout = dout,
                              .strips = cpu_blocks(dout, STRIP)};
    pool_run(dev->pool, cpu_panels(rows) * job.strips, dense_forward_task, &job);
}

static void dense_backward_x_task(void *context, size_t task, unsigned thread)
{
    (void)thread;
    const struct product_job *job = context;
    size_t p = task / job->strips, first = task % job->strips * STRIP;
    job->kernels->gemm(job->out + (p * job->din + first) * CPU_PANEL, CPU_PANEL, job->w + first,
                       1, job->din, job->in + p * job->dout * CPU_PANEL, CPU_PANEL,
                       cpu_min(STRIP, job->din - first), job->dout, job->accumulate);
}

void cpu_dense_backward_x(struct device *dev, real *dx, const real *dy, const real *w,
                          size_t rows, size_t din, size_t dout, int accumulate)
{
    struct product_job job = {.kernels = cpu_kernels_of(dev),
                              .out = dx,
                              .in = dy,
                              .w = w,
                              .din = din,
                              .dout = dout,
                              .strips = cpu_blocks(din, STRIP),
                              .accumulate = accumulate};
    pool_run(dev->pool, cpu_panels(rows) * job.strips, dense_backward_x_task, &job);
}

/* One panel's share of a tile of dw. The tile of x is turned to (token, feature), so that the
 * tile of dw is a product of dy with it. */
static void gradient_tile(const struct cpu_weight_gradient *job, size_t p, size_t tile,
                          size_t first, size_t last)
{
    float turned[CPU_TILE] __attribute__((aligned(64)));
    float narrow[TILE_ROWS * CPU_PANEL] __attribute__((aligned(64)));
    size_t column = tile * CPU_PANEL, width = cpu_min(CPU_PANEL, job->din - column);
    const float *dy = job->dy + p * job->dy_stride + first * CPU_PANEL;
    float *dw = job->dw + first * job->din + column;
    if (width < CPU_PANEL)
        memset(turned, 0, sizeof turned);
    job->kernels->transpose(turned, CPU_PANEL, job->x + p * job->x_stride + column * CPU_PANEL,
                            CPU_PANEL, width, CPU_PANEL);
    if (width == CPU_PANEL) {
        job->kernels->gemm(dw, job->din, dy, CPU_PANEL, 1, turned, CPU_PANEL, last - first,
                           CPU_PANEL, true);
        return;
    }
    job->kernels->gemm(narrow, CPU_PANEL, dy, CPU_PANEL, 1, turned, CPU_PANEL, last - first,
                       CPU_PANEL, false);
    for (size_t o = 0; o < last - first; o++)
        job->kernels->add(dw + o * job->din, dw + o * job->din, narrow + o * CPU_PANEL, width);
}

void cpu_weight_gradient(const struct cpu_weight_gradient *job, size_t first_tile,
                         size_t last_tile, size_t first, size_t last)
{
    assert(last - first <= TILE_ROWS);
    for (size_t p = 0; p < job->panels; p++)
        for (size_t tile = first_tile; tile < last_tile; tile++)
            gradient_tile(job, p, tile, first, last);
}

struct dense_gradient_job {
    struct cpu_weight_gradient tiles;
    size_t dout, strips;
};

static void dense_backward_w_task(void *context, size_t task, unsigned thread)
{
    (void)thread;
    const struct dense_gradient_job *job = context;
    size_t first = task % job->strips * TILE_ROWS, tile = task / job->strips * TILES;
    cpu_weight_gradient(&job->tiles, tile,
                        cpu_min(tile + TILES, cpu_blocks(job->tiles.din, CPU_PANEL)), first,
                        cpu_min(first + TILE_ROWS, job->dout));
}

void cpu_dense_backward_w(struct device *dev, real *dw, const real *dy, const real *x,
                          size_t rows, size_t din, size_t dout)
{
    struct dense_gradient_job job = {.tiles = {.kernels = cpu_kernels_of(dev),
                                               .dw = dw,
                                               .dy = dy,
                                               .x = x,
                                               .dy_stride = dout * CPU_PANEL,
                                               .x_stride = din * CPU_PANEL,
                                               .panels = cpu_panels(rows),
                                               .din = din},
                                     .dout = dout,
                                     .strips = cpu_blocks(dout, TILE_ROWS)};
    pool_run(dev->pool, cpu_blocks(din, TILES * CPU_PANEL) * job.strips, dense_backward_w_task,
             &job);
}
