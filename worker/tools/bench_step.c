#include "worker/tools/bench.h"

#include "proto/base/clock.h"
#include "worker/comms.h"
#include "worker/config.h"

#include <stdlib.h>

enum { STEPS = 5 };

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The first step is left out: it touches every slab for the first time. */
static int steps_time(double *tokens_per_s, struct trainer *trainer, struct err *err)
{
    double rates[STEPS];
    int rc = 0;
    for (int i = -1; rc == 0 && i < STEPS; i++) {
        struct step_result result;
        double began = clock_monotonic_s();
        rc = trainer_step(trainer, NULL, &result, err);
        if (rc == 0 && i >= 0) {
            rates[i] = (double)result.tokens / (clock_monotonic_s() - began);
        }
    }
    if (rc == 0) {
        qsort(rates, STEPS, sizeof *rates, ascending);
        *tokens_per_s = rates[STEPS / 2];
    }
    return rc;
}

int bench_step(double *tokens_per_s, const struct job_spec *spec, struct device *dev,
               struct err *err)
{
    struct trainer_config config;
    struct dataset_config dataset;
    struct comm *comm = NULL;
    struct dataset *data = NULL;
    struct trainer *trainer = NULL;
    int rc = comm_self_create(&comm, err);
    if (rc == 0) {
        rc = config_trainer(spec, 1, &config, err);
    }
    if (rc == 0) {
        config_dataset(spec, &dataset);
        rc = dataset_open(&data, &dataset, 0, 1, err);
    }
    if (rc == 0) {
        rc = trainer_create(&trainer, &config, dev, comm, data, err);
    }
    if (rc == 0) {
        rc = steps_time(tokens_per_s, trainer, err);
    }
    trainer_destroy(trainer);
    dataset_close(data);
    if (comm) {
        comm->ops->destroy(comm);
    }
    return rc;
}
