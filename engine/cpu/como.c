/* The gate of CoMoLoRA, a panel a task, and the gradient of a bias, a feature a task. */
#include "engine/cpu/cpu.h"

struct como_job {
    const struct cpu_kernels *kernels;
    const struct como_args *args;
    float *g, *s, *dz, *du, *da; /* outputs of either pass */
    const float *dg, *z, *a, *kept;
    size_t rows;
};

static void como_forward_task(void *context, size_t p, unsigned thread)
{
    (void)thread;
    const struct como_job *job = context;
    size_t narrow = p * job->args->rank * CPU_PANEL, gate = p * job->args->hidden * CPU_PANEL;
    job->kernels->como_forward(job->g + narrow, job->s + gate, job->z + narrow, job->a + gate,
                               job->args, cpu_lanes(job->rows, p));
}

void cpu_como_forward(struct device *dev, real *g, real *s, const real *z, const real *a,
                      const struct como_args *args, size_t rows)
{
    struct como_job job = {.kernels = cpu_kernels_of(dev),
                           .args = args,
                           .g = g,
                           .s = s,
                           .z = z,
                           .a = a,
                           .rows = rows};
    pool_run(dev->pool, cpu_panels(rows), como_forward_task, &job);
}

static void como_backward_task(void *context, size_t p, unsigned thread)
{
    (void)thread;
    const struct como_job *job = context;
    size_t narrow = p * job->args->rank * CPU_PANEL, gate = p * job->args->hidden * CPU_PANEL;
    job->kernels->como_backward(job->dz + narrow, job->du + narrow, job->da + gate,
                                job->dg + narrow, job->kept + gate, job->z + narrow,
                                job->a + gate, job->args);
}

void cpu_como_backward(struct device *dev, real *dz, real *du, real *da, const real *dg,
                       const real *s, const real *z, const real *a,
                       const struct como_args *args, size_t rows)
{
    struct como_job job = {.kernels = cpu_kernels_of(dev),
                           .args = args,
                           .dz = dz,
                           .du = du,
                           .da = da,
                           .dg = dg,
                           .kept = s,
                           .z = z,
                           .a = a,
                           .rows = rows};
    pool_run(dev->pool, cpu_panels(rows), como_backward_task, &job);
}

struct bias_job {
    const struct cpu_kernels *kernels;
    float *db;
    const float *dy;
    size_t panels, dim;
};

static void bias_backward_task(void *context, size_t feature, unsigned thread)
{
    (void)thread;
    const struct bias_job *job = context;
    float sums[CPU_PANEL] = {0};
    for (size_t p = 0; p < job->panels; p++)
        job->kernels->add(sums, sums, job->dy + (p * job->dim + feature) * CPU_PANEL,
                          CPU_PANEL);
    job->db[feature] += job->kernels->lane_sum(sums);
}

void cpu_bias_backward(struct device *dev, real *db, const real *dy, size_t rows, size_t dim)
{
    struct bias_job job = {.kernels = cpu_kernels_of(dev),
                           .db = db,
                           .dy = dy,
                           .panels = cpu_panels(rows),
                           .dim = dim};
    pool_run(dev->pool, dim, bias_backward_task, &job);
}
