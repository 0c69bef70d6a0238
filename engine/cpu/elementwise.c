/* Ops that treat every element alike: sums, SwiGLU, AdamW, the sum of squares. */
#include "engine/cpu/cpu.h"

enum {
    CHUNK = 8192,     /* elements of a task: 32 KiB of each operand */
    SUM_CHUNKS = 256, /* partial sums of sum_squares */
};

struct elementwise_job {
    const struct cpu_kernels *kernels;
    float *out, *out2;
    const float *a, *b, *c;
    size_t count;
};

static size_t chunk_length(size_t count, size_t task)
{
    return cpu_min(CHUNK, count - task * CHUNK);
}

static void add_task(void *context, size_t task, unsigned thread)
{
    (void)thread;
    const struct elementwise_job *job = context;
    size_t at = task * CHUNK;
    job->kernels->add(job->out + at, job->a + at, job->b + at, chunk_length(job->count, task));
}

void cpu_act_add(struct device *dev, real *out, const real *a, const real *b, size_t rows,
                 size_t dim)
{
    struct elementwise_job job = {.kernels = cpu_kernels_of(dev),
                                  .out = out,
                                  .a = a,
                                  .b = b,
                                  .count = cpu_act_size(rows, dim)};
    pool_run(dev->pool, cpu_blocks(job.count, CHUNK), add_task, &job);
}

static void swiglu_forward_task(void *context, size_t task, unsigned thread)
{
    (void)thread;
    const struct elementwise_job *job = context;
    size_t at = task * CHUNK;
    job->kernels->swiglu_forward(job->out + at, job->a + at, job->b + at,
                                 chunk_length(job->count, task));
}

void cpu_swiglu_forward(struct device *dev, real *out, const real *gate, const real *up,
                        size_t rows, size_t dim)
{
    struct elementwise_job job = {.kernels = cpu_kernels_of(dev),
                                  .out = out,
                                  .a = gate,
                                  .b = up,
                                  .count = cpu_act_size(rows, dim)};
    pool_run(dev->pool, cpu_blocks(job.count, CHUNK), swiglu_forward_task, &job);
}

static void swiglu_backward_task(void *context, size_t task, unsigned thread)
{
    (void)thread;
    const struct elementwise_job *job = context;
    size_t at = task * CHUNK;
    job->kernels->swiglu_backward(job->out + at, job->out2 + at, job->a + at, job->b + at,
                                  job->c + at, chunk_length(job->count, task));
}

void cpu_swiglu_backward(struct device *dev, real *dgate, real *dup, const real *dout,
                         const real *gate, const real *up, size_t rows, size_t dim)
{
    struct elementwise_job job = {.kernels = cpu_kernels_of(dev),
                                  .out = dgate,
                                  .out2 = dup,
                                  .a = dout,
                                  .b = gate,
                                  .c = up,
                                  .count = cpu_act_size(rows, dim)};
    pool_run(dev->pool, cpu_blocks(job.count, CHUNK), swiglu_backward_task, &job);
}

struct adamw_job {
    const struct cpu_kernels *kernels;
    float *w, *m, *v;
    const float *g;
    size_t count;
    const struct adamw_args *args;
};

static void adamw_task(void *context, size_t task, unsigned thread)
{
    (void)thread;
    const struct adamw_job *job = context;
    size_t at = task * CHUNK;
    job->kernels->adamw(job->w + at, job->m + at, job->v + at, job->g + at,
                        chunk_length(job->count, task), job->args);
}

void cpu_adamw(struct device *dev, real *w, real *m, real *v, const real *g, size_t count,
               const struct adamw_args *args)
{
    struct adamw_job job = {.kernels = cpu_kernels_of(dev),
                            .w = w,
                            .m = m,
                            .v = v,
                            .g = g,
                            .count = count,
                            .args = args};
    pool_run(dev->pool, cpu_blocks(count, CHUNK), adamw_task, &job);
}

struct sum_job {
    const struct cpu_kernels *kernels;
    const float *x;
    size_t count, chunk;
    double partial[SUM_CHUNKS];
};

static void sum_task(void *context, size_t task, unsigned thread)
{
    (void)thread;
    struct sum_job *job = context;
    size_t at = task * job->chunk;
    job->partial[task] =
        job->kernels->sum_squares(job->x + at, cpu_min(job->chunk, job->count - at));
}

double cpu_sum_squares(struct device *dev, const real *x, size_t count)
{
    struct sum_job job = {.kernels = cpu_kernels_of(dev), .x = x, .count = count};
    job.chunk = count / SUM_CHUNKS + 1;
    size_t chunks = cpu_blocks(count, job.chunk);
    pool_run(dev->pool, chunks, sum_task, &job);
    double sum = 0;
    for (size_t i = 0; i < chunks; i++)
        sum += job.partial[i];
    return sum;
}
