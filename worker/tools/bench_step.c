#include "worker/tools/bench.h"

#include "proto/base/clock.h"
#include "worker/comms.h"
#include "worker/config.h"

#include <string.h>

enum { STEPS = 5 };

/* The first step is left out: it touches every slab for the first time. */
static int steps_time(struct bench_step *out, struct trainer *trainer,
                      struct bench_trace *trace, struct err *err)
{
    double seconds[STEPS], all = 0;
    size_t tokens = 0;
    int rc = 0;
    for (int i = -1; rc == 0 && i < STEPS; i++) {
        struct step_result result;
        double began = clock_monotonic_s();
        rc = trainer_step(trainer, NULL, &result, err);
        if (i < 0) {
            bench_trace_clear(trace);
            continue;
        }
        seconds[i] = clock_monotonic_s() - began;
        all += seconds[i];
        tokens = rc == 0 ? result.tokens : 0;
    }
    if (rc != 0) {
        return rc;
    }
    out->steps = STEPS;
    out->seconds = bench_median(seconds, STEPS);
    out->tokens_per_s = (double)tokens / out->seconds;
    out->rest_seconds = all / STEPS;
    for (size_t i = 0; i < trace->count; i++) {
        struct bench_op op = trace->rows[i];
        if (op.calls == 0) {
            continue;
        }
        op.calls /= STEPS;
        op.seconds /= STEPS;
        op.flops /= STEPS;
        op.bytes /= STEPS;
        out->rest_seconds -= op.seconds;
        out->ops[out->op_count++] = op;
    }
    return 0;
}

/* The step after the measured ones ends with a refresh (bench_step set the interval so). */
static int refresh_time(struct bench_step *out, struct trainer *trainer, struct err *err)
{
    struct step_result result;
    int rc = trainer_step(trainer, NULL, &result, err);
    if (rc == 0 && result.refreshed && out->refresh_interval > 0) {
        double training = out->seconds * 1e3 * (double)out->refresh_interval;
        out->refreshed = true;
        out->refresh_ms = result.refresh_ms;
        out->refresh_share = result.refresh_ms / (training + result.refresh_ms);
    }
    return rc;
}

int bench_step(struct bench_step *out, const struct job_spec *spec, struct device *dev,
               struct err *err)
{
    struct trainer_config config;
    struct dataset_config dataset;
    struct comm *comm = NULL;
    struct dataset *data = NULL;
    struct trainer *trainer = NULL;
    struct bench_trace trace;
    *out = (struct bench_step){0};
    int rc = comm_self_create(&comm, err);
    if (rc == 0) {
        rc = config_trainer(spec, 1, &config, err);
    }
    if (rc == 0) {
        out->refresh_interval = config.method.interval;
        config.method.interval = STEPS + 2;
        config_dataset(spec, &dataset);
        rc = dataset_open(&data, &dataset, 0, 1, err);
    }
    if (rc == 0) {
        rc = trainer_create(&trainer, &config, dev, comm, data, err);
    }
    if (rc == 0) {
        bench_trace_begin(&trace, dev);
        rc = steps_time(out, trainer, &trace, err);
        bench_trace_end(&trace, dev);
    }
    if (rc == 0) {
        rc = refresh_time(out, trainer, err);
    }
    trainer_destroy(trainer);
    dataset_close(data);
    if (comm) {
        comm->ops->destroy(comm);
    }
    return rc;
}
