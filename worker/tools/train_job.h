/* The job folder of `hebb train`: made from a job's JSON, or checked against it when it is
 * there. */
#ifndef HEBB_TOOLS_TRAIN_JOB_H
#define HEBB_TOOLS_TRAIN_JOB_H

#include "proto/base/fsx.h"
#include "proto/msg/spec.h"

struct train_job {
    char folder[FSX_PATH_MAX]; /* absolute */
    struct job_spec spec;      /* resources: what this call asks for */
    int lock_fd;               /* held while the command runs; closed on exec */
    unsigned attempt;          /* the one to run next */
    bool done;                 /* the newest attempt ended with code 0 */
};

/* Reads the job, with ranks and threads in place of its own where they are not 0 and its data
 * paths made absolute from the working folder; makes folder with spec.json, or, if it holds
 * one, compares: only resources may differ. Prints every fault of the job on stderr.
 * ERR_CONFLICT: another attempt runs, or folder holds something else. */
int train_job_open(struct train_job *job, const char *path, const char *folder, uint64_t ranks,
                   uint64_t threads, struct err *err);
void train_job_close(struct train_job *job);

/* Makes attempt-N and takes its lock, which the attempt's processes inherit; control says run.
 */
int train_job_begin(const struct train_job *job, int *lock_fd, struct err *err);

/* exit.json of attempt N: code and, for reason_max bytes, reason. ERR_NOT_FOUND if there is
 * none. */
int train_job_end(const struct train_job *job, unsigned attempt, int *code, char *reason,
                  size_t reason_max, struct err *err);

#endif
