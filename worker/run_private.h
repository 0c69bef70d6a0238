/* Inside the run of a job: its state, and its opening (run_open.c). */
#ifndef HEBB_WORKER_RUN_PRIVATE_H
#define HEBB_WORKER_RUN_PRIVATE_H

#include "engine/checkpoint.h"
#include "proto/base/fsx.h"
#include "proto/msg/spec.h"
#include "worker/control.h"
#include "worker/heartbeat.h"
#include "worker/history.h"
#include "worker/report.h"
#include "worker/run.h"

struct run {
    const struct run_options *options;
    struct comm *comm;
    struct run_result *result;
    struct job_spec spec;
    char checkpoints[FSX_PATH_MAX], model[FSX_PATH_MAX];
    unsigned threads;
    struct pool *pool;
    struct device *dev;
    struct err nccl_refused; /* why GPUs do not sum by NCCL; code 0: they do, or there are none */
    struct dataset *data;
    struct trainer *trainer;
    /* Rank 0 only, else NULL. */
    struct event_log *log;
    struct history *history;
    struct control control;

    struct heartbeat *heartbeat;
    double began_s;
    int64_t say_full_ms; /* when to say again that the disk is full */
    size_t saved_step;   /* of the newest checkpoint; SIZE_MAX: none */
    bool prune_due;      /* it is not known to be good yet: no batch was accepted since */
    double last_loss;
    bool evaluated;
    size_t evaluated_step;
    double eval_loss;
};

/* One outcome of all ranks; notes in the result whether they share it. */
int run_agree(struct run *run, int code, struct err *err);

/* Opens everything that the spec names and resumes: whatever is wrong with job, data or
 * checkpoint is found here, before step 1. run has options, comm and result; the rest is zero.
 * run_close is needed after a failure too. */
int run_open(struct run *run, struct err *err);
void run_close(struct run *run);

/* Compares the ranks and writes a checkpoint, unless there is one of this step. A checkpoint
 * that cannot be written is a warning; one that must be, since the run leaves after it, is
 * tried until the disk has room or somebody stops the run, and otherwise an error. */
int run_save(struct run *run, bool must, struct err *err);

/* Older checkpoints go once the newest is known to be good: a batch was accepted after it, or
 * the run ends with it. */
int run_prune(struct run *run, struct err *err);

/* Rank 0, on a full disk: waits a second; false if the run is to stop. context: the run. */
bool run_wait_space(void *context, const struct err *why);
/* Rank 0: calls write again for as long as the disk is full. */
int run_write(struct run *run, int (*write)(struct run *run, struct err *err), struct err *err);

/* After trainer_step rejected a batch. */
int run_rejected(struct run *run, const struct step_result *result, struct err *err);

/* Notes what a comparison of the ranks' states repaired, if anything. */
int run_repaired(struct run *run, const struct agreement *found, struct err *err);

#endif
