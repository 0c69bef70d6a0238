/* Plain matrices for the optimizers: products by BLAS over fixed tiles, so that the bits do not
 * depend on the number of threads, and the way between stored entries and a dense matrix. */
#include "engine/cpu/blas.h"
#include "engine/cpu/cpu.h"
#include <assert.h>
#include <string.h>

enum {
    PRODUCT_ROWS = 128, /* of a tile of matrix_product */
    PRODUCT_COLUMNS = 512,
    STRIP_ROWS = 64,  /* of a strip of a symmetric product */
    SPREAD_ROWS = 64, /* rows of W of a task of spread and collect */
};

struct matrix_job {
    const struct cpu_kernels *kernels;
    float *c;
    const float *a, *b, *d;
    bool square; /* b is a^T */
    float alpha, beta, gamma;
    size_t M, N, K, tiles; /* tiles: of a row of tiles, or strips */
};

static void product_task(void *context, size_t task, unsigned thread)
{
    (void)thread;
    const struct matrix_job *job = context;
    size_t row = task / job->tiles * PRODUCT_ROWS, column = task % job->tiles * PRODUCT_COLUMNS;
    blas_product(job->c + row * job->N + column, job->N,
                 (struct blas_matrix){.data = job->a + row * job->K, .stride = job->K},
                 (struct blas_matrix){.data = job->b + column, .stride = job->N},
                 cpu_min(PRODUCT_ROWS, job->M - row), cpu_min(PRODUCT_COLUMNS, job->N - column),
                 job->K, false);
}

void cpu_matrix_product(struct device *dev, real *c, const real *a, const real *b, size_t M,
                        size_t N, size_t K)
{
    assert(c != a && c != b);
    struct matrix_job job = {.c = c,
                             .a = a,
                             .b = b,
                             .M = M,
                             .N = N,
                             .K = K,
                             .tiles = cpu_blocks(N, PRODUCT_COLUMNS)};
    pool_run(dev->pool, cpu_blocks(M, PRODUCT_ROWS) * job.tiles, product_task, &job);
}

/* Rows [first, first + rows) of a symmetric matrix to their mirror places. */
static void mirror_strip(const struct matrix_job *job, size_t first, size_t rows)
{
    const size_t M = job->M;
    float *c = job->c;
    for (size_t j = 0; j < first; j += STRIP_ROWS)
        job->kernels->transpose(c + j * M + first, M, c + first * M + j, M, rows, STRIP_ROWS);
    for (size_t i = first; i < first + rows; i++)
        for (size_t j = i + 1; j < first + rows; j++)
            c[i * M + j] = c[j * M + i];
}

/* A strip of rows of a symmetric product, up to the diagonal, the longest strips first. */
static void strip_task(void *context, size_t task, unsigned thread)
{
    (void)thread;
    const struct matrix_job *job = context;
    const size_t M = job->M, first = (job->tiles - 1 - task) * STRIP_ROWS;
    const size_t rows = cpu_min(STRIP_ROWS, M - first), width = first + rows;
    const struct blas_matrix a = {.data = job->a + first * job->K, .stride = job->K};
    const struct blas_matrix b = {
        .data = job->b, .stride = job->square ? job->K : M, .turned = job->square};
    float *c = job->c + first * M;
    blas_scaled_product(c, M, a, b, rows, width, job->K, job->alpha, 0.0f);
    for (size_t i = 0; i < rows; i++) {
        float *row = c + i * M;
        if (job->d)
            job->kernels->blend(row, row, job->d + (first + i) * M, 1.0f, job->beta, width);
        row[first + i] += job->gamma;
    }
    mirror_strip(job, first, rows);
}

void cpu_matrix_square(struct device *dev, real *c, const real *a, const real *d, real alpha,
                       real beta, real gamma, size_t M, size_t K)
{
    assert(c != a && c != d);
    struct matrix_job job = {.kernels = cpu_kernels_of(dev),
                             .c = c,
                             .a = a,
                             .b = a,
                             .d = d,
                             .square = true,
                             .alpha = alpha,
                             .beta = beta,
                             .gamma = gamma,
                             .M = M,
                             .K = K,
                             .tiles = cpu_blocks(M, STRIP_ROWS)};
    pool_run(dev->pool, job.tiles, strip_task, &job);
}

void cpu_matrix_commute(struct device *dev, real *c, const real *a, const real *b, size_t M)
{
    assert(c != a && c != b);
    struct matrix_job job = {.kernels = cpu_kernels_of(dev),
                             .c = c,
                             .a = a,
                             .b = b,
                             .alpha = 1.0f,
                             .M = M,
                             .K = M,
                             .tiles = cpu_blocks(M, STRIP_ROWS)};
    pool_run(dev->pool, job.tiles, strip_task, &job);
}

struct spread_job {
    const struct cpu_kernels *kernels;
    const struct nm *w; /* NULL: every entry is stored */
    float *out;
    const float *in;
    size_t dout, din;
    float scale;
    bool transposed;
};

/* Columns of a block: whole groups. */
static size_t spread_block(const struct nm *w)
{
    return w ? CPU_PANEL / w->m * w->m : CPU_PANEL;
}

/* Stored entries of row o that belong to columns before `column`. */
static size_t stored_before(const struct nm *w, size_t column)
{
    return w ? column / w->m * w->n : column;
}

/* Row o, columns [column, column + width), from the stored entries to `dense` and back. */
static void row_spread(const struct spread_job *job, float *dense, size_t o, size_t column,
                       size_t width)
{
    const struct nm *w = job->w;
    const float *values = job->in + o * stored_before(w, job->din) + stored_before(w, column);
    if (!w) {
        job->kernels->blend(dense, values, NULL, job->scale, 0.0f, width);
        return;
    }
    const uint16_t *codes = w->codes + o * nm_groups(w) + column / w->m;
    memset(dense, 0, width * sizeof *dense);
    for (size_t g = 0; g < width / w->m; g++) {
        const uint8_t *columns = w->patterns->column + (size_t)codes[g] * w->n;
        for (size_t k = 0; k < w->n; k++)
            dense[g * w->m + columns[k]] = job->scale * values[g * w->n + k];
    }
}

static void row_collect(const struct spread_job *job, const float *dense, size_t o,
                        size_t column, size_t width)
{
    const struct nm *w = job->w;
    float *values = job->out + o * stored_before(w, job->din) + stored_before(w, column);
    if (!w) {
        memcpy(values, dense, width * sizeof *values);
        return;
    }
    const uint16_t *codes = w->codes + o * nm_groups(w) + column / w->m;
    for (size_t g = 0; g < width / w->m; g++) {
        const uint8_t *columns = w->patterns->column + (size_t)codes[g] * w->n;
        for (size_t k = 0; k < w->n; k++)
            values[g * w->n + k] = dense[g * w->m + columns[k]];
    }
}

static void spread_task(void *context, size_t task, unsigned thread)
{
    (void)thread;
    const struct spread_job *job = context;
    float tile[SPREAD_ROWS * CPU_PANEL] __attribute__((aligned(64)));
    const size_t first = task * SPREAD_ROWS, rows = cpu_min(SPREAD_ROWS, job->dout - first);
    const size_t step = job->transposed ? spread_block(job->w) : job->din;
    for (size_t column = 0; column < job->din; column += step) {
        size_t width = cpu_min(step, job->din - column);
        for (size_t i = 0; i < rows; i++)
            row_spread(
                job, job->transposed ? tile + i * CPU_PANEL : job->out + (first + i) * job->din,
                first + i, column, width);
        if (job->transposed)
            job->kernels->transpose(job->out + column * job->dout + first, job->dout, tile,
                                    CPU_PANEL, rows, width);
    }
}

void cpu_matrix_spread(struct device *dev, real *out, const real *values, const struct nm *w,
                       size_t dout, size_t din, real scale, int transposed)
{
    assert(!w || (w->dout == dout && w->din == din));
    struct spread_job job = {.kernels = cpu_kernels_of(dev),
                             .w = w,
                             .out = out,
                             .in = values,
                             .dout = dout,
                             .din = din,
                             .scale = scale,
                             .transposed = transposed};
    pool_run(dev->pool, cpu_blocks(dout, SPREAD_ROWS), spread_task, &job);
}

static void collect_task(void *context, size_t task, unsigned thread)
{
    (void)thread;
    const struct spread_job *job = context;
    float tile[SPREAD_ROWS * CPU_PANEL] __attribute__((aligned(64)));
    const size_t first = task * SPREAD_ROWS, rows = cpu_min(SPREAD_ROWS, job->dout - first);
    const size_t step = job->transposed ? spread_block(job->w) : job->din;
    for (size_t column = 0; column < job->din; column += step) {
        size_t width = cpu_min(step, job->din - column);
        if (job->transposed)
            job->kernels->transpose(tile, CPU_PANEL, job->in + column * job->dout + first,
                                    job->dout, width, rows);
        for (size_t i = 0; i < rows; i++)
            row_collect(
                job, job->transposed ? tile + i * CPU_PANEL : job->in + (first + i) * job->din,
                first + i, column, width);
    }
}

void cpu_matrix_collect(struct device *dev, real *values, const real *in, const struct nm *w,
                        size_t dout, size_t din, int transposed)
{
    assert(!w || (w->dout == dout && w->din == din));
    struct spread_job job = {.kernels = cpu_kernels_of(dev),
                             .w = w,
                             .out = values,
                             .in = in,
                             .dout = dout,
                             .din = din,
                             .transposed = transposed};
    pool_run(dev->pool, cpu_blocks(dout, SPREAD_ROWS), collect_task, &job);
}
