/* Output head and cross-entropy, HEAD_PANELS panels of tokens at a time. Per chunk:
 *   1. blocks of the vocabulary: logits, and per token the block's max and sum of exponentials;
 *   2. panels: log-sum-exp over the blocks in order, loss;
 *   3. blocks of the vocabulary: logits become their gradient d, dw += d^T x;
 *   4. blocks of features: dx = d W. */
#include "engine/cpu/blas.h"
#include "engine/cpu/cpu.h"
#include "proto/base/mem.h"
#include <assert.h>
#include <math.h>
#include <string.h>

enum {
    HEAD_PANELS = 4,   /* panels of a chunk: 256 tokens */
    VOCAB_BLOCK = 128, /* vocabulary rows of a task */
    DIM_BLOCK = 128,   /* features of a task */
    LOGIT_ROWS = 4,    /* tokens that head_logits does in one pass over w */
};

struct head_job {
    const struct cpu_kernels *kernels;
    float *loss, *dx, *dw;
    const float *x, *w;
    const int32_t *targets; /* of the chunk's first row, like loss, x and dx */
    float scale;
    size_t rows, panels; /* of the chunk */
    size_t dim, vocab, blocks;
    float *logits;  /* (panels, vocab, CPU_PANEL) */
    float *partial; /* (panels, blocks, 2, CPU_PANEL): max, sum */
    float *lse;     /* (panels, CPU_PANEL) */
    float *weight;  /* (panels, CPU_PANEL): scale, or 0 where there is no target */
};

static bool head_floats(size_t *out, size_t vocab)
{
    size_t blocks = cpu_blocks(vocab, VOCAB_BLOCK), floats = 0;
    bool fits = size_add(&floats, vocab, 2 * blocks + 2) &&
                size_mul(out, floats, HEAD_PANELS * CPU_PANEL);
    return fits;
}

size_t cpu_head_scratch(size_t vocab, size_t dim)
{
    size_t loss = 0, logits = 0, bytes = 0;
    if (!head_floats(&loss, vocab) || !size_mul(&logits, LOGIT_ROWS, dim) ||
        !size_mul(&bytes, loss > logits ? loss : logits, sizeof(float)))
        return SIZE_MAX;
    return bytes;
}

static size_t block_rows(const struct head_job *job, size_t block)
{
    return cpu_min(VOCAB_BLOCK, job->vocab - block * VOCAB_BLOCK);
}

static float *block_logits(const struct head_job *job, size_t p, size_t block)
{
    return job->logits + (p * job->vocab + block * VOCAB_BLOCK) * CPU_PANEL;
}

static void logits_task(void *context, size_t block, unsigned thread)
{
    (void)thread;
    const struct head_job *job = context;
    size_t rows = block_rows(job, block);
    for (size_t p = 0; p < job->panels; p++) {
        float *logits = block_logits(job, p, block);
        float *max = job->partial + (p * job->blocks + block) * 2 * CPU_PANEL;
        blas_product(
            logits, CPU_PANEL,
            (struct blas_matrix){job->w + block * VOCAB_BLOCK * job->dim, job->dim, false},
            (struct blas_matrix){job->x + p * job->dim * CPU_PANEL, CPU_PANEL, false}, rows,
            CPU_PANEL, job->dim, false);
        job->kernels->softmax_lanes(logits, max, max + CPU_PANEL, rows, 1.0f, false);
    }
}

static void loss_task(void *context, size_t p, unsigned thread)
{
    (void)thread;
    const struct head_job *job = context;
    const float *partial = job->partial + p * job->blocks * 2 * CPU_PANEL;
    size_t lanes = cpu_lanes(job->rows, p);
    float *weight = job->weight + p * CPU_PANEL, *lse = job->lse + p * CPU_PANEL;
    for (size_t lane = 0; lane < CPU_PANEL; lane++) {
        float top = -INFINITY, sum = 0;
        for (size_t b = 0; b < job->blocks; b++)
            top = fmaxf(top, partial[b * 2 * CPU_PANEL + lane]);
        for (size_t b = 0; b < job->blocks; b++)
            sum += partial[(b * 2 + 1) * CPU_PANEL + lane] *
                   expf(partial[b * 2 * CPU_PANEL + lane] - top);
        lse[lane] = top + logf(sum);
        int32_t target = lane < lanes ? job->targets[p * CPU_PANEL + lane] : -1;
        assert(target < 0 || (size_t)target < job->vocab);
        weight[lane] = target < 0 ? 0.0f : job->scale;
        if (lane < lanes)
            job->loss[p * CPU_PANEL + lane] =
                target < 0
                    ? 0.0f
                    : lse[lane] -
                          job->logits[(p * job->vocab + (size_t)target) * CPU_PANEL + lane];
    }
}

static void weight_task(void *context, size_t block, unsigned thread)
{
    (void)thread;
    const struct head_job *job = context;
    size_t first = block * VOCAB_BLOCK, rows = block_rows(job, block);
    for (size_t p = 0; p < job->panels; p++) {
        float *d = block_logits(job, p, block);
        job->kernels->softmax_scaled(d, job->lse + p * CPU_PANEL, job->weight + p * CPU_PANEL,
                                     rows);
        for (size_t lane = 0; lane < cpu_lanes(job->rows, p); lane++) {
            int32_t target = job->targets[p * CPU_PANEL + lane];
            if (target >= 0 && (size_t)target >= first && (size_t)target < first + rows)
                d[((size_t)target - first) * CPU_PANEL + lane] -= job->scale;
        }
    }
    const struct cpu_weight_gradient gradient = {.dw = job->dw,
                                                 .dy = job->logits,
                                                 .x = job->x,
                                                 .dy_stride = job->vocab * CPU_PANEL,
                                                 .x_stride = job->dim * CPU_PANEL,
                                                 .panels = job->panels,
                                                 .din = job->dim};
    cpu_weight_gradient(&gradient, 0, cpu_blocks(job->dim, CPU_PANEL), first, first + rows);
}

/* Blocks of the vocabulary outside, panels inside: each tile of w is read once for all panels.
 */
static void input_task(void *context, size_t block, unsigned thread)
{
    (void)thread;
    const struct head_job *job = context;
    size_t i = block * DIM_BLOCK, features = cpu_min(DIM_BLOCK, job->dim - i);
    for (size_t v = 0; v < job->vocab; v += VOCAB_BLOCK)
        for (size_t p = 0; p < job->panels; p++)
            blas_product(job->dx + (p * job->dim + i) * CPU_PANEL, CPU_PANEL,
                         (struct blas_matrix){job->w + v * job->dim + i, job->dim, true},
                         (struct blas_matrix){job->logits + (p * job->vocab + v) * CPU_PANEL,
                                              CPU_PANEL, false},
                         features, CPU_PANEL, cpu_min(VOCAB_BLOCK, job->vocab - v), v > 0);
}

void cpu_head_loss(struct device *dev, real *loss, real *dx, real *dw, const real *x,
                   const real *w, const int32_t *targets, real scale, size_t rows, size_t dim,
                   size_t vocab)
{
    assert((dx == NULL) == (dw == NULL));
    assert(dev->scratch_bytes >= cpu_head_scratch(vocab, 0));
    struct head_job job = {.kernels = cpu_kernels_of(dev),
                           .dw = dw,
                           .w = w,
                           .scale = scale,
                           .dim = dim,
                           .vocab = vocab,
                           .blocks = cpu_blocks(vocab, VOCAB_BLOCK),
                           .logits = dev->scratch};
    job.partial = job.logits + HEAD_PANELS * vocab * CPU_PANEL;
    job.lse = job.partial + HEAD_PANELS * job.blocks * 2 * CPU_PANEL;
    job.weight = job.lse + HEAD_PANELS * CPU_PANEL;
    for (size_t row = 0; row < rows; row += HEAD_PANELS * CPU_PANEL) {
        job.rows = cpu_min(HEAD_PANELS * CPU_PANEL, rows - row);
        job.panels = cpu_panels(job.rows);
        job.loss = loss + row;
        job.targets = targets + row;
        job.x = x + row * dim;
        job.dx = dx ? dx + row * dim : NULL;
        pool_run(dev->pool, job.blocks, logits_task, &job);
        pool_run(dev->pool, job.panels, loss_task, &job);
        if (!dx)
            continue;
        pool_run(dev->pool, job.blocks, weight_task, &job);
        pool_run(dev->pool, cpu_blocks(dim, DIM_BLOCK), input_task, &job);
    }
}

struct rows_job {
    const struct cpu_kernels *kernels;
    float *logits;
    const float *x, *w; /* x: (count, dim) */
    size_t count, dim, vocab;
};

static void rows_task(void *context, size_t block, unsigned thread)
{
    (void)thread;
    const struct rows_job *job = context;
    size_t first = block * VOCAB_BLOCK, last = cpu_min(first + VOCAB_BLOCK, job->vocab);
    for (size_t v = first; v < last; v++)
        for (size_t r = 0; r < job->count; r++)
            job->logits[r * job->vocab + v] =
                job->kernels->dot(job->w + v * job->dim, job->x + r * job->dim, job->dim);
}

void cpu_head_logits(struct device *dev, real *logits, const real *x, const real *w,
                     size_t rows, size_t first, size_t count, size_t dim, size_t vocab)
{
    assert(first <= rows && count <= rows - first);
    assert(dev->scratch_bytes >= LOGIT_ROWS * dim * sizeof(float));
    float *part = dev->scratch;
    for (size_t done = 0; done < count; done += LOGIT_ROWS) {
        struct rows_job job = {.kernels = cpu_kernels_of(dev),
                               .logits = logits + done * vocab,
                               .x = part,
                               .w = w,
                               .count = cpu_min(LOGIT_ROWS, count - done),
                               .dim = dim,
                               .vocab = vocab};
        for (size_t r = 0; r < job.count; r++) {
            size_t row = first + done + r;
            for (size_t i = 0; i < dim; i++)
                part[r * dim + i] =
                    x[(row / CPU_PANEL * dim + i) * CPU_PANEL + row % CPU_PANEL];
        }
        pool_run(dev->pool, cpu_blocks(vocab, VOCAB_BLOCK), rows_task, &job);
    }
}
