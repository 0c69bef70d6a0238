/* The elementwise parts of the matrix optimizers, in chunks of fixed size. */
#include "engine/cpu/cpu.h"
#include <assert.h>

enum { CHUNK = 8192 }; /* elements of a task */

struct moments_job {
    const struct cpu_kernels *kernels;
    float *out, *p, *v; /* out: the update, or the weights */
    uint16_t *ages;
    const float *g, *o;
    size_t count;
    double mu;
    float grad_scale;
    const struct tans_args *tans;
    const struct matrix_step_args *step;
};

static void run_chunks(struct device *dev, struct moments_job *job,
                       void (*task)(void *context, size_t task, unsigned thread))
{
    job->kernels = cpu_kernels_of(dev);
    pool_run(dev->pool, cpu_blocks(job->count, CHUNK), task, job);
}

static void tans_task(void *context, size_t task, unsigned thread)
{
    (void)thread;
    const struct moments_job *job = context;
    size_t at = task * CHUNK;
    job->kernels->tans_moments(job->out + at, job->p + at, job->v + at,
                               job->ages ? job->ages + at : NULL, job->g + at,
                               cpu_min(CHUNK, job->count - at), job->tans);
}

void cpu_tans_moments(struct device *dev, real *u, real *p, real *v, uint16_t *ages,
                      const real *g, size_t count, const struct tans_args *args)
{
    assert(!ages || (args->correct_moment && args->correct_update));
    struct moments_job job = {
        .out = u, .p = p, .v = v, .ages = ages, .g = g, .count = count, .tans = args};
    run_chunks(dev, &job, tans_task);
}

static void muon_task(void *context, size_t task, unsigned thread)
{
    (void)thread;
    const struct moments_job *job = context;
    size_t at = task * CHUNK;
    job->kernels->muon_momentum(job->out + at, job->p + at, job->g + at,
                                cpu_min(CHUNK, job->count - at), job->mu, job->grad_scale);
}

void cpu_muon_momentum(struct device *dev, real *u, real *p, const real *g, size_t count,
                       double mu, real grad_scale)
{
    struct moments_job job = {
        .out = u, .p = p, .g = g, .count = count, .mu = mu, .grad_scale = grad_scale};
    run_chunks(dev, &job, muon_task);
}

static void step_task(void *context, size_t task, unsigned thread)
{
    (void)thread;
    const struct moments_job *job = context;
    size_t at = task * CHUNK;
    job->kernels->matrix_step(job->out + at, job->g + at, job->o ? job->o + at : NULL,
                              cpu_min(CHUNK, job->count - at), job->step);
}

void cpu_matrix_step(struct device *dev, real *w, const real *u, const real *o, size_t count,
                     const struct matrix_step_args *args)
{
    assert(o || !(args->gamma > 0.0f));
    struct moments_job job = {.out = w, .g = u, .o = o, .count = count, .step = args};
    run_chunks(dev, &job, step_task);
}
