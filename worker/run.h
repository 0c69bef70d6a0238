/* One attempt of a job on one rank: opens what the spec names, resumes, trains, saves, exports.
 */
#ifndef HEBB_WORKER_RUN_H
#define HEBB_WORKER_RUN_H

#include "engine/comm.h"
#include <signal.h>
#include <stdbool.h>

struct run_options {
    const char *job;                   /* the job folder */
    unsigned attempt;                  /* >= 1; job/attempt-N is made if it is missing */
    unsigned threads;                  /* 0: the spec's */
    unsigned local_rank;               /* among the ranks of this machine: picks the GPU */
    const volatile sig_atomic_t *stop; /* set by signals: save and leave */
};

struct run_result {
    bool stopped;  /* left on request with a checkpoint on disk */
    bool together; /* on an error: every rank returns it, and the world can be left in order */
    int rank;      /* on an error: the rank that it came from */
    int exit_code; /* EXIT_DONE, EXIT_STOPPED or what fits the error; wrong data is EXIT_DATA */
};

/* All ranks call. Returns 0 when the job is done or was stopped. On an error that is not
 * `together` this rank alone has failed: the others wait in a collective, and the caller must
 * end the world. */
int run_job(const struct run_options *options, struct comm *comm, struct run_result *result,
            struct err *err);

#endif
