/* What an optimizer's step takes beside the passes of a training step: medians of a few rounds
 * in turns, so that a busy machine disturbs all alike. llama-60m, random weights and tokens.
 *
 *   bench_optim [sequences] [rounds] [threads] [vocab]
 *
 * Also the GF/s of Newton-Schulz on one (intermediate, hidden) matrix, counting 4 m^2 n + 2 m^3
 * per iteration as three full products take. */
#include "engine/cpu/cpu.h"
#include "engine/optim/newton_schulz.h"
#include "engine/philox.h"
#include "proto/base/clock.h"
#include "proto/base/mem.h"
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

enum { CONTEXT = 256, ROUNDS_MAX = 50, OPTIMIZERS = 3, DENSITIES = 3 };
static const char *const names[OPTIMIZERS] = {"adamw", "muon", "tans"};
static const unsigned densities[DENSITIES][2] = {{1, 1}, {2, 4}, {1, 4}};

static int ascending(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *times, size_t count)
{
    qsort(times, count, sizeof *times, ascending);
    return times[count / 2];
}

static double passes(struct model *model, const int32_t *tokens, float *losses, size_t batch)
{
    double began = clock_monotonic_s();
    model_forward_backward(model, tokens, tokens + 1, losses, 1.0f / (float)(batch * CONTEXT),
                           batch, CONTEXT);
    return clock_monotonic_s() - began;
}

static double step(struct optim *optim, struct model *model, size_t number)
{
    const struct optim_args args = {
        .lr = 1e-4, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-5, .grad_scale = 1, .step = number};
    double began = clock_monotonic_s();
    optim->optimizer->step(optim, model, &args, NULL);
    return clock_monotonic_s() - began;
}

static void bench_density(struct device *dev, const unsigned density[2], size_t batch,
                          size_t rounds, size_t vocab)
{
    const struct model_shape shape = {.hidden = 512,
                                      .intermediate = 1376,
                                      .layers = 8,
                                      .heads = 8,
                                      .kv_heads = 8,
                                      .vocab = vocab,
                                      .context = CONTEXT,
                                      .rope_theta = 10000,
                                      .norm_eps = 1e-6,
                                      .n = density[0],
                                      .m = density[1]};
    const struct optim_options options = {
        .adam_lr_ratio = 1, .adam_eps = 1e-8, .momentum = 0.95, .gamma_ns = 0.5};
    const struct philox key = {.seed = 1, .purpose = PHILOX_GENERATE};
    struct err err;
    struct model *model = NULL;
    struct optim *optims[OPTIMIZERS];
    double forward[ROUNDS_MAX], update[OPTIMIZERS][ROUNDS_MAX];
    int32_t *tokens = mem_zeroed(batch * CONTEXT + 1, sizeof *tokens);
    float *losses = mem_zeroed(batch * CONTEXT, sizeof *losses);
    int rc = model_create(&model, dev, &shape, batch, CONTEXT, true, &err);
    assert(rc == 0 && tokens && losses);
    model_init(model, 1);
    for (size_t i = 0; i <= batch * CONTEXT; i++)
        tokens[i] = (int32_t)(philox_u32(&key, i) % vocab);
    for (size_t k = 0; k < OPTIMIZERS; k++) {
        rc = optim_create(&optims[k], names[k], 0.9, 0.999, &options, model, &err);
        assert(rc == 0);
    }
    for (size_t r = 0; r < rounds; r++) {
        forward[r] = passes(model, tokens, losses, batch);
        for (size_t k = 0; k < OPTIMIZERS; k++)
            update[k][r] = step(optims[k], model, r + 1);
    }
    const double pass = median(forward, rounds);
    printf("%u:%u  passes %8.1f ms", density[0], density[1], pass * 1e3);
    for (size_t k = 0; k < OPTIMIZERS; k++) {
        const double time = median(update[k], rounds);
        printf("   %s %8.1f ms = %4.1f %% of the step", names[k], time * 1e3,
               100 * time / (time + pass));
        optim_destroy(optims[k]);
    }
    printf("\n");
    model_destroy(model);
    free(tokens);
    free(losses);
}

static void bench_newton_schulz(struct device *dev, size_t rows, size_t cols, size_t rounds)
{
    const struct matrix_scratch scratch = {.x = mem_aligned(rows * cols, sizeof(real)),
                                           .y = mem_aligned(rows * cols, sizeof(real)),
                                           .a = mem_aligned(rows * rows, sizeof(real)),
                                           .b = mem_aligned(rows * rows, sizeof(real))};
    const struct philox key = {.seed = 1, .purpose = PHILOX_GENERATE};
    double times[ROUNDS_MAX];
    real *spare = NULL;
    assert(scratch.x && scratch.y && scratch.a && scratch.b);
    for (size_t r = 0; r < rounds; r++) {
        for (size_t i = 0; i < rows * cols; i++)
            scratch.x[i] = (float)philox_normal(&key, i) * 1e-3f;
        double began = clock_monotonic_s();
        newton_schulz(dev, &scratch, newton_schulz_tans, rows, cols, &spare);
        times[r] = clock_monotonic_s() - began;
    }
    const double m = (double)rows, n = (double)cols, time = median(times, rounds);
    printf("Newton-Schulz (%zu, %zu): %.2f ms, %.0f GF/s\n", rows, cols, time * 1e3,
           NEWTON_SCHULZ_STEPS * (4 * m * m * n + 2 * m * m * m) / time * 1e-9);
    mem_aligned_free(scratch.x);
    mem_aligned_free(scratch.y);
    mem_aligned_free(scratch.a);
    mem_aligned_free(scratch.b);
}

int main(int argc, char **argv)
{
    size_t batch = argc > 1 ? strtoul(argv[1], NULL, 10) : 16;
    size_t rounds = argc > 2 ? strtoul(argv[2], NULL, 10) : 5;
    size_t threads = argc > 3 ? strtoul(argv[3], NULL, 10) : 1;
    size_t vocab = argc > 4 ? strtoul(argv[4], NULL, 10) : 32000;
    struct err err;
    struct pool *pool = NULL;
    struct device *dev = NULL;
    assert(batch >= 1 && rounds >= 1 && rounds <= ROUNDS_MAX);
    int rc = pool_create(&pool, (unsigned)threads, &err);
    assert(rc == 0);
    rc = device_create(&dev, "cpu", pool, &err);
    assert(rc == 0);
    printf("llama-60m, %zu x %d tokens, vocabulary %zu, %zu threads, %s\n", batch, CONTEXT,
           vocab, threads, cpu_kernels_of(dev)->isa);
    bench_newton_schulz(dev, 512, 512, rounds);
    bench_newton_schulz(dev, 512, 1376, rounds);
    for (size_t i = 0; i < DENSITIES; i++)
        bench_density(dev, densities[i], batch, rounds, vocab);
    device_destroy(dev);
    pool_destroy(pool);
    return 0;
}
