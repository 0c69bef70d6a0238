/* The three products of a linear layer, N:M and dense. Tasks are (block of rows or columns,
 * panel); a gradient with respect to weights is a sum over all tokens, so there a task owns a
 * tile of the weights and takes the panels in order. */
#include "engine/cpu/blas.h"
#include "engine/cpu/pack.h"
#include "proto/base/mem.h"
#include <assert.h>

enum {
    STRIP = 256,     /* rows of y or columns of dx of a task: 64 KiB of a panel */
    TILE_ROWS = 256, /* rows of a tile of weights: 64 KiB with CPU_PANEL columns */
    GROUP = 4,       /* panels of a task of an N:M product */
    SPANS = 2,       /* blocks of columns of a task of an N:M gradient */
    TILES = 4,       /* tiles of a task of the dense gradient */
};

/* What a product reads and writes: activations of `from` and `to` features. */
struct product_job {
    const struct cpu_kernels *kernels;
    struct cpu_nm nm;
    float *out;
    const float *in, *w; /* w: dense only */
    float *values;       /* N:M dX only: in the order of the columns */
    size_t from, to, panels, strips;
    bool accumulate;
};

static float *panel_out(const struct product_job *job, size_t p)
{
    return job->out + p * job->to * CPU_PANEL;
}

static const float *panel_in(const struct product_job *job, size_t p)
{
    return job->in + p * job->from * CPU_PANEL;
}

/* A task of an N:M product goes through a group of panels block by block, so that a block of
 * the weights is read from memory once for the group. Where that walk goes after panel p, block
 * `block` of `step` features: */
static const float *walk_next(const struct product_job *job, size_t p, size_t block,
                              size_t step)
{
    size_t first = p / GROUP * GROUP, last = cpu_min(first + GROUP, job->panels);
    size_t next = p + 1 < last ? p + 1 : first, feature = (block + (next == first)) * step;
    return panel_in(job, next) + cpu_min(feature, job->from - 1) * CPU_PANEL;
}

static void nm_forward_task(void *context, size_t task, unsigned thread)
{
    (void)thread;
    const struct product_job *job = context;
    size_t first = task % job->strips * STRIP, last = cpu_min(first + STRIP, job->to);
    size_t from = task / job->strips * GROUP, end = cpu_min(from + GROUP, job->panels);
    for (size_t block = 0; block < cpu_blocks(job->from, job->nm.block); block++)
        for (size_t p = from; p < end; p++)
            job->kernels->nm_forward(&job->nm, panel_out(job, p), panel_in(job, p),
                                     walk_next(job, p, block, job->nm.block), block, first,
                                     last);
}

void cpu_nm_forward(struct device *dev, real *y, const real *x, const struct nm *w, size_t rows)
{
    struct product_job job = {.kernels = cpu_kernels_of(dev),
                              .nm = cpu_pack_view(w),
                              .out = y,
                              .in = x,
                              .from = w->din,
                              .to = w->dout,
                              .panels = cpu_panels(rows),
                              .strips = cpu_blocks(w->dout, STRIP)};
    pool_run(dev->pool, cpu_blocks(job.panels, GROUP) * job.strips, nm_forward_task, &job);
}

size_t cpu_nm_scratch(size_t values)
{
    size_t bytes;
    return size_mul(&bytes, values, sizeof(float)) ? bytes : SIZE_MAX;
}

/* One block of rows of one strip. */
static void nm_values_task(void *context, size_t task, unsigned thread)
{
    (void)thread;
    const struct product_job *job = context;
    cpu_pack_values(&job->nm, job->values, task / job->strips, task % job->strips);
}

static void nm_backward_x_task(void *context, size_t task, unsigned thread)
{
    (void)thread;
    const struct product_job *job = context;
    size_t strip = task % job->strips;
    size_t from = task / job->strips * GROUP, end = cpu_min(from + GROUP, job->panels);
    for (size_t block = 0; block < cpu_blocks(job->from, CPU_BLOCK); block++) {
        const float *values = job->values + cpu_pack_start(&job->nm, block, strip);
        for (size_t p = from; p < end; p++)
            job->kernels->nm_backward_x(&job->nm, panel_out(job, p), panel_in(job, p),
                                        walk_next(job, p, block, CPU_BLOCK), values, block,
                                        strip, block == 0 && !job->accumulate);
    }
}

/* The values are brought into the order of the columns first, once for all panels. */
void cpu_nm_backward_x(struct device *dev, real *dx, const real *dy, const struct nm *w,
                       size_t rows, int accumulate)
{
    struct product_job job = {.kernels = cpu_kernels_of(dev),
                              .nm = cpu_pack_view(w),
                              .out = dx,
                              .in = dy,
                              .values = dev->scratch,
                              .from = w->dout,
                              .to = w->din,
                              .panels = cpu_panels(rows),
                              .accumulate = accumulate};
    assert(dev->scratch_bytes >= nm_count(w) * sizeof(float) && "device_reserve: nm_values");
    job.strips = cpu_pack_strips(&job.nm);
    pool_run(dev->pool, cpu_blocks(w->dout, CPU_BLOCK) * job.strips, nm_values_task, &job);
    pool_run(dev->pool, cpu_blocks(job.panels, GROUP) * job.strips, nm_backward_x_task, &job);
}

struct gradient_job {
    const struct cpu_kernels *kernels;
    struct cpu_nm nm;
    float *dvalues;
    const float *dy, *x;
    size_t panels, strips; /* strips of TILE_ROWS rows */
};

/* Some blocks of columns of a strip of rows, panel by panel: the strip's part of a panel of dy
 * stays in the second-level cache for those blocks. */
static void nm_backward_w_task(void *context, size_t task, unsigned thread)
{
    (void)thread;
    const struct gradient_job *job = context;
    const struct cpu_nm *nm = &job->nm;
    size_t row = task % job->strips * TILE_ROWS, end = cpu_min(row + TILE_ROWS, nm->dout);
    size_t first = task / job->strips * SPANS;
    size_t last = cpu_min(first + SPANS, cpu_blocks(nm->din, nm->block));
    for (size_t p = 0; p < job->panels; p++) {
        const float *x = job->x + p * nm->din * CPU_PANEL;
        for (size_t block = first; block < last; block++) {
            bool turn = block + 1 == last && p + 1 < job->panels;
            const float *next = turn ? x + (nm->din + first * nm->block) * CPU_PANEL
                                     : x + cpu_min(block + 1, last - 1) * nm->block * CPU_PANEL;
            job->kernels->nm_backward_w(nm, job->dvalues, job->dy + p * nm->dout * CPU_PANEL, x,
                                        next, block, row, end);
        }
    }
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
    pool_run(dev->pool, cpu_blocks(w->din, SPANS * job.nm.block) * job.strips,
             nm_backward_w_task, &job);
}

static void dense_forward_task(void *context, size_t task, unsigned thread)
{
    (void)thread;
    const struct product_job *job = context;
    size_t p = task / job->strips, first = task % job->strips * STRIP;
    blas_product(panel_out(job, p) + first * CPU_PANEL, CPU_PANEL,
                 (struct blas_matrix){job->w + first * job->from, job->from, false},
                 (struct blas_matrix){panel_in(job, p), CPU_PANEL, false},
                 cpu_min(STRIP, job->to - first), CPU_PANEL, job->from, false);
}

void cpu_dense_forward(struct device *dev, real *y, const real *x, const real *w, size_t rows,
                       size_t din, size_t dout)
{
    struct product_job job = {.kernels = cpu_kernels_of(dev),
                              .out = y,
                              .in = x,
                              .w = w,
                              .from = din,
                              .to = dout,
                              .panels = cpu_panels(rows),
                              .strips = cpu_blocks(dout, STRIP)};
    pool_run(dev->pool, job.panels * job.strips, dense_forward_task, &job);
}

static void dense_backward_x_task(void *context, size_t task, unsigned thread)
{
    (void)thread;
    const struct product_job *job = context;
    size_t p = task / job->strips, first = task % job->strips * STRIP;
    blas_product(panel_out(job, p) + first * CPU_PANEL, CPU_PANEL,
                 (struct blas_matrix){job->w + first, job->to, true},
                 (struct blas_matrix){panel_in(job, p), CPU_PANEL, false},
                 cpu_min(STRIP, job->to - first), CPU_PANEL, job->from, job->accumulate);
}

void cpu_dense_backward_x(struct device *dev, real *dx, const real *dy, const real *w,
                          size_t rows, size_t din, size_t dout, int accumulate)
{
    struct product_job job = {.kernels = cpu_kernels_of(dev),
                              .out = dx,
                              .in = dy,
                              .w = w,
                              .from = dout,
                              .to = din,
                              .panels = cpu_panels(rows),
                              .strips = cpu_blocks(din, STRIP),
                              .accumulate = accumulate};
    pool_run(dev->pool, job.panels * job.strips, dense_backward_x_task, &job);
}

void cpu_weight_gradient(const struct cpu_weight_gradient *job, size_t first_tile,
                         size_t last_tile, size_t first, size_t last)
{
    size_t column = first_tile * CPU_PANEL, end = cpu_min(last_tile * CPU_PANEL, job->din);
    for (size_t p = 0; p < job->panels; p++) {
        const float *dy = job->dy + p * job->dy_stride + first * CPU_PANEL;
        const float *x = job->x + p * job->x_stride + column * CPU_PANEL;
        blas_product(job->dw + first * job->din + column, job->din,
                     (struct blas_matrix){dy, CPU_PANEL, false},
                     (struct blas_matrix){x, CPU_PANEL, true}, last - first, end - column,
                     CPU_PANEL, true);
    }
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
    struct dense_gradient_job job = {.tiles = {.dw = dw,
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
