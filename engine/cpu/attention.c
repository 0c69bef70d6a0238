/* Causal attention by blocks of CPU_PANEL queries and keys. A task is one key/value head of one
 * sequence with all query heads that share it, so that its dk and dv are summed by one thread
 * in a fixed order. The task sees its heads as panels that start with the sequence, copied
 * where the context is no multiple of CPU_PANEL; then every product is a small matrix times a
 * panel: forward: scores have queries as lanes, (keys, CPU_PANEL) for one block of queries at a
 * time; backward (Dao et al. 2022): scores have keys as lanes, one tile at a time, made again
 * from q, k and lse; dS is transposed for dq. */
#include "engine/cpu/blas.h"
#include "engine/cpu/cpu.h"
#include "proto/base/mem.h"
#include <assert.h>
#include <math.h>
#include <string.h>

struct attention_job {
    const struct cpu_kernels *kernels;
    struct attention_shape shape;
    float *out, *lse_out;             /* forward */
    float *dq, *dk, *dv;              /* backward */
    const float *dout, *out_in, *lse; /* backward */
    const float *q, *k, *v;
    float *scratch;
    size_t thread_floats;
    float scale; /* 1 / sqrt(D) */
};

/* Floats that one thread needs; the backward pass needs more. */
static bool attention_floats(size_t *out, size_t context, size_t head_dim)
{
    size_t panels = cpu_blocks(context, CPU_PANEL), head = 0, forward = 0, backward = 0;
    bool fits = size_mul(&head, panels * CPU_PANEL, head_dim);
    /* k, v, q, out; scores */
    fits =
        fits && size_mul(&forward, 4, head) && size_add(&forward, forward, panels * CPU_TILE);
    /* q, k, v, out, dout, dq, dk, dv; p, dp; lse, delta */
    fits = fits && size_mul(&backward, 8, head) &&
           size_add(&backward, backward, 2 * CPU_TILE + 2 * panels * CPU_PANEL);
    *out = forward > backward ? forward : backward;
    return fits;
}

size_t cpu_attention_scratch(size_t context, size_t head_dim, unsigned threads)
{
    size_t floats = 0, bytes = 0;
    if (!attention_floats(&floats, context, head_dim) || !size_mul(&bytes, floats, threads) ||
        !size_mul(&bytes, bytes, sizeof(float)))
        return SIZE_MAX;
    return bytes;
}

/* Where one head of one sequence lies in an activation (rows, heads * D). */
struct head_place {
    size_t dim, feature; /* features of the activation; the head's first */
    size_t first, rows;  /* the sequence's first row; rows of the activation */
    size_t context, D;
};

static struct head_place head_place(const struct attention_job *job, size_t heads, size_t b,
                                    size_t h)
{
    const struct attention_shape *shape = &job->shape;
    return (struct head_place){.dim = heads * shape->head_dim,
                               .feature = h * shape->head_dim,
                               .first = b * shape->context,
                               .rows = shape->batch * shape->context,
                               .context = shape->context,
                               .D = shape->head_dim};
}

/* Tokens of block p of the sequence. */
static size_t block_lanes(const struct head_place *at, size_t p)
{
    return cpu_min(CPU_PANEL, at->context - p * CPU_PANEL);
}

/* out (D, CPU_PANEL) = block p of the sequence, zeros past its end. */
static void gather_block(float *restrict out, const float *restrict act,
                         const struct head_place *at, size_t p)
{
    size_t row = at->first + p * CPU_PANEL, lanes = block_lanes(at, p);
    size_t lane = row % CPU_PANEL, head = cpu_min(lanes, CPU_PANEL - lane);
    const float *from = act + (row / CPU_PANEL * at->dim + at->feature) * CPU_PANEL;
    const float *next = from + at->dim * CPU_PANEL;
    for (size_t d = 0; d < at->D; d++) {
        float *to = out + d * CPU_PANEL;
        memcpy(to, from + d * CPU_PANEL + lane, head * sizeof *to);
        if (head < lanes)
            memcpy(to + head, next + d * CPU_PANEL, (lanes - head) * sizeof *to);
        if (lanes < CPU_PANEL)
            memset(to + lanes, 0, (CPU_PANEL - lanes) * sizeof *to);
    }
}

/* The way back; the last sequence also clears the padding of the activation's last panel. */
static void scatter_block(float *restrict act, const float *restrict in,
                          const struct head_place *at, size_t p)
{
    size_t row = at->first + p * CPU_PANEL, lanes = block_lanes(at, p);
    size_t lane = row % CPU_PANEL, head = cpu_min(lanes, CPU_PANEL - lane);
    float *to = act + (row / CPU_PANEL * at->dim + at->feature) * CPU_PANEL;
    float *next = to + at->dim * CPU_PANEL;
    size_t used = at->rows % CPU_PANEL;
    float *last = act + (at->rows / CPU_PANEL * at->dim + at->feature) * CPU_PANEL;
    bool clear = used > 0 && row + lanes == at->rows;
    for (size_t d = 0; d < at->D; d++) {
        const float *from = in + d * CPU_PANEL;
        memcpy(to + d * CPU_PANEL + lane, from, head * sizeof *to);
        if (head < lanes)
            memcpy(next + d * CPU_PANEL, from + head, (lanes - head) * sizeof *to);
        if (clear)
            memset(last + d * CPU_PANEL + used, 0, (CPU_PANEL - used) * sizeof *to);
    }
}

/* The blocks (D, CPU_PANEL) of a head, `stride` floats apart: where every sequence starts a
 * panel they lie in the activation as they are needed, else in a copy. */
struct head_view {
    float *data;
    size_t stride;
};

static bool lies_in_place(const struct head_place *at) { return at->context % CPU_PANEL == 0; }

static struct head_view head_view(float *copy, float *act, const struct head_place *at)
{
    if (!lies_in_place(at))
        return (struct head_view){copy, at->D * CPU_PANEL};
    return (struct head_view){act + (at->first / CPU_PANEL * at->dim + at->feature) * CPU_PANEL,
                              at->dim * CPU_PANEL};
}

static float *head_block(const struct head_view *view, size_t p)
{
    return view->data + p * view->stride;
}

/* A head to be read only. */
static struct head_view head_read(float *copy, const float *act, const struct head_place *at)
{
    const struct head_view view = head_view(copy, (float *)(uintptr_t)act, at);
    for (size_t p = 0; view.data == copy && p < cpu_blocks(at->context, CPU_PANEL); p++)
        gather_block(head_block(&view, p), act, at, p);
    return view;
}

/* A head that is summed up, from zeros; head_write ends that. */
static struct head_view head_clear(float *copy, float *act, const struct head_place *at)
{
    const struct head_view view = head_view(copy, act, at);
    for (size_t p = 0; p < cpu_blocks(at->context, CPU_PANEL); p++)
        memset(head_block(&view, p), 0, at->D * CPU_BLOCK_BYTES);
    return view;
}

static void head_write(float *act, const struct head_view *view, const struct head_place *at)
{
    for (size_t p = 0; !lies_in_place(at) && p < cpu_blocks(at->context, CPU_PANEL); p++)
        scatter_block(act, head_block(view, p), at, p);
}

/* A block of a head as BLAS sees it: (D, CPU_PANEL) or a tile (CPU_PANEL, CPU_PANEL). */
static struct blas_matrix tile(const float *data, bool turned)
{
    return (struct blas_matrix){data, CPU_PANEL, turned};
}

/* out (D, CPU_PANEL) for query block i; s: scores (keys up to the block's end, CPU_PANEL). */
static void attend_block(const struct attention_job *job, float *out, float *lse, float *s,
                         const float *q, const struct head_view *k, const struct head_view *v,
                         const struct head_place *at, size_t i)
{
    const struct cpu_kernels *kernels = job->kernels;
    size_t D = at->D, keys = i * CPU_PANEL + block_lanes(at, i);
    float max[CPU_PANEL], sum[CPU_PANEL];
    for (size_t j = 0; j <= i; j++)
        blas_product(s + j * CPU_TILE, CPU_PANEL, tile(head_block(k, j), true), tile(q, false),
                     block_lanes(at, j), CPU_PANEL, D, false);
    for (size_t key = 1; key < block_lanes(at, i); key++)
        for (size_t lane = 0; lane < key; lane++)
            s[i * CPU_TILE + key * CPU_PANEL + lane] = -INFINITY;
    kernels->softmax_lanes(s, max, sum, keys, job->scale, true);
    for (size_t j = 0; j <= i; j++)
        blas_product(out, CPU_PANEL, tile(head_block(v, j), false),
                     tile(s + j * CPU_TILE, false), D, CPU_PANEL, block_lanes(at, j), j > 0);
    for (size_t lane = 0; lane < CPU_PANEL; lane++) {
        lse[lane] = job->scale * max[lane] + logf(sum[lane]);
        sum[lane] = 1.0f / sum[lane];
    }
    kernels->scale_lanes(out, sum, D);
}

static void attention_forward_task(void *context, size_t task, unsigned thread)
{
    const struct attention_job *job = context;
    const struct attention_shape *shape = &job->shape;
    size_t H = shape->heads, K = shape->kv_heads, group = H / K, D = shape->head_dim;
    size_t b = task / K, kv = task % K, blocks = cpu_blocks(shape->context, CPU_PANEL);
    float *k_copy = job->scratch + thread * job->thread_floats;
    float *v_copy = k_copy + blocks * D * CPU_PANEL, *q_copy = v_copy + blocks * D * CPU_PANEL;
    float *out_copy = q_copy + blocks * D * CPU_PANEL, *s = out_copy + blocks * D * CPU_PANEL;
    struct head_place at = head_place(job, K, b, kv);
    const struct head_view k = head_read(k_copy, job->k, &at);
    const struct head_view v = head_read(v_copy, job->v, &at);
    for (size_t h = kv * group; h < (kv + 1) * group; h++) {
        at = head_place(job, H, b, h);
        const struct head_view q = head_read(q_copy, job->q, &at);
        const struct head_view out = head_view(out_copy, job->out, &at);
        for (size_t i = 0; i < blocks; i++) {
            float lse[CPU_PANEL];
            attend_block(job, head_block(&out, i), lse, s, head_block(&q, i), &k, &v, &at, i);
            for (size_t lane = 0; lane < block_lanes(&at, i); lane++)
                job->lse_out[(at.first + i * CPU_PANEL + lane) * H + h] = lse[lane];
        }
        head_write(job->out, &out, &at);
    }
}

static void attention_run(struct device *dev, struct attention_job *job,
                          void (*task)(void *context, size_t task, unsigned thread))
{
    const struct attention_shape *shape = &job->shape;
    assert(shape->heads % shape->kv_heads == 0);
    assert(dev->scratch_bytes >=
           cpu_attention_scratch(shape->context, shape->head_dim, pool_threads(dev->pool)));
    bool fits = attention_floats(&job->thread_floats, shape->context, shape->head_dim);
    assert(fits);
    job->kernels = cpu_kernels_of(dev);
    job->scratch = dev->scratch;
    job->scale = 1.0f / sqrtf((float)shape->head_dim);
    pool_run(dev->pool, shape->batch * shape->kv_heads, task, job);
}

void cpu_attention_forward(struct device *dev, real *out, real *lse, const real *q,
                           const real *k, const real *v, const struct attention_shape *shape)
{
    struct attention_job job = {
        .shape = *shape, .out = out, .lse_out = lse, .q = q, .k = k, .v = v};
    attention_run(dev, &job, attention_forward_task);
}

/* One thread's heads and tiles in the backward pass. */
struct backward_space {
    float *copies; /* eight heads */
    struct head_view q, k, v, dout, out;
    struct head_view dq, dk, dv;
    float *p, *dp;      /* tiles */
    float *lse, *delta; /* (blocks * CPU_PANEL) */
};

static struct backward_space backward_space(const struct attention_job *job, unsigned thread)
{
    size_t blocks = cpu_blocks(job->shape.context, CPU_PANEL);
    struct backward_space space = {.copies = job->scratch + thread * job->thread_floats};
    space.p = space.copies + 8 * blocks * job->shape.head_dim * CPU_PANEL;
    space.dp = space.p + CPU_TILE;
    space.lse = space.dp + CPU_TILE;
    space.delta = space.lse + blocks * CPU_PANEL;
    return space;
}

static float *space_copy(const struct backward_space *space, const struct head_place *at,
                         size_t number)
{
    return space->copies + number * cpu_blocks(at->context, CPU_PANEL) * at->D * CPU_PANEL;
}

/* Opens one query head; delta[t] = dout[t] . out[t]. */
static void backward_open(const struct attention_job *job, struct backward_space *space,
                          const struct head_place *at, size_t h)
{
    space->q = head_read(space_copy(space, at, 0), job->q, at);
    space->dout = head_read(space_copy(space, at, 1), job->dout, at);
    space->out = head_read(space_copy(space, at, 2), job->out_in, at);
    space->dq = head_clear(space_copy(space, at, 3), job->dq, at);
    for (size_t i = 0; i < cpu_blocks(at->context, CPU_PANEL); i++) {
        const float *out = head_block(&space->out, i), *dout = head_block(&space->dout, i);
        float sum[CPU_PANEL] = {0};
        for (size_t d = 0; d < at->D; d++)
            for (size_t lane = 0; lane < CPU_PANEL; lane++)
                sum[lane] += out[d * CPU_PANEL + lane] * dout[d * CPU_PANEL + lane];
        memcpy(space->delta + i * CPU_PANEL, sum, sizeof sum);
        for (size_t lane = 0; lane < block_lanes(at, i); lane++)
            space->lse[i * CPU_PANEL + lane] =
                job->lse[(at->first + i * CPU_PANEL + lane) * job->shape.heads + h];
    }
}

/* Query block i against key block j <= i. */
static void backward_tile(const struct attention_job *job, const struct backward_space *space,
                          const struct head_place *at, size_t i, size_t j)
{
    const struct cpu_kernels *kernels = job->kernels;
    size_t D = at->D, queries = block_lanes(at, i);
    const float *q = head_block(&space->q, i), *dout = head_block(&space->dout, i);
    const float *k = head_block(&space->k, j), *v = head_block(&space->v, j);
    blas_product(space->p, CPU_PANEL, tile(q, true), tile(k, false), queries, CPU_PANEL, D,
                 false);
    blas_product(space->dp, CPU_PANEL, tile(dout, true), tile(v, false), queries, CPU_PANEL, D,
                 false);
    if (i == j)
        for (size_t t = 0; t < queries; t++)
            for (size_t lane = t + 1; lane < CPU_PANEL; lane++)
                space->p[t * CPU_PANEL + lane] = -INFINITY;
    kernels->softmax_backward(space->p, space->dp, space->lse + i * CPU_PANEL,
                              space->delta + i * CPU_PANEL, job->scale, queries);
    blas_product(head_block(&space->dv, j), CPU_PANEL, tile(dout, false), tile(space->p, false),
                 D, CPU_PANEL, queries, true);
    blas_product(head_block(&space->dk, j), CPU_PANEL, tile(q, false), tile(space->dp, false),
                 D, CPU_PANEL, queries, true);
    blas_product(head_block(&space->dq, i), CPU_PANEL, tile(k, false), tile(space->dp, true), D,
                 queries, block_lanes(at, j), true);
}

static void attention_backward_task(void *context, size_t task, unsigned thread)
{
    const struct attention_job *job = context;
    const struct attention_shape *shape = &job->shape;
    size_t H = shape->heads, K = shape->kv_heads, group = H / K;
    size_t b = task / K, kv = task % K, blocks = cpu_blocks(shape->context, CPU_PANEL);
    struct backward_space space = backward_space(job, thread);
    struct head_place shared = head_place(job, K, b, kv);
    space.k = head_read(space_copy(&space, &shared, 4), job->k, &shared);
    space.v = head_read(space_copy(&space, &shared, 5), job->v, &shared);
    space.dk = head_clear(space_copy(&space, &shared, 6), job->dk, &shared);
    space.dv = head_clear(space_copy(&space, &shared, 7), job->dv, &shared);
    for (size_t h = kv * group; h < (kv + 1) * group; h++) {
        struct head_place at = head_place(job, H, b, h);
        backward_open(job, &space, &at, h);
        for (size_t i = 0; i < blocks; i++)
            for (size_t j = 0; j <= i; j++)
                backward_tile(job, &space, &at, i, j);
        head_write(job->dq, &space.dq, &at);
    }
    head_write(job->dk, &space.dk, &shared);
    head_write(job->dv, &space.dv, &shared);
}

void cpu_attention_backward(struct device *dev, real *dq, real *dk, real *dv, const real *dout,
                            const real *out, const real *lse, const real *q, const real *k,
                            const real *v, const struct attention_shape *shape)
{
    struct attention_job job = {.shape = *shape,
                                .dq = dq,
                                .dk = dk,
                                .dv = dv,
                                .dout = dout,
                                .out_in = out,
                                .lse = lse,
                                .q = q,
                                .k = k,
                                .v = v};
    attention_run(dev, &job, attention_backward_task);
}
