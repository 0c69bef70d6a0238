/* The events of a run (docs/formats.md). Rank 0 only; every function appends
 * one line. */
#ifndef HEBB_WORKER_REPORT_H
#define HEBB_WORKER_REPORT_H

#include "engine/trainer.h"
#include "proto/msg/event.h"
#include "worker/history.h"

struct report_start {
    unsigned attempt, threads;
    const char *device;
};

int report_start(struct event_log *log, const struct trainer *trainer,
                 const struct report_start *start, struct err *err);

/* ms: wall time of the step, its refresh included; tokens_per_s is of this one step. */
int report_step(struct event_log *log, const struct trainer *trainer,
                const struct step_result *result, double ms, struct err *err);

/* After history_publish of the same refresh. */
int report_refresh(struct event_log *log, const struct history *history,
                   const struct step_result *result, struct err *err);

/* A batch that was left out; guard: with it. */
int report_skip(struct event_log *log, const struct step_result *result,
                const struct guard *guard, struct err *err);
/* The trainer is at the step that it went back to. */
int report_rollback(struct event_log *log, const struct trainer *trainer, size_t from,
                    struct err *err);
int report_state_repair(struct event_log *log, size_t step, const struct agreement *found,
                        struct err *err);
int report_repair(struct event_log *log, const struct step_result *result, struct err *err);
int report_eval(struct event_log *log, size_t step, double loss, size_t tokens,
                struct err *err);
int report_checkpoint(struct event_log *log, size_t step, uint64_t bytes, double ms,
                      double loss, struct err *err);
int report_warning(struct event_log *log, const char *code, const char *detail,
                   struct err *err);

struct report_done {
    double loss;    /* of the last step; NaN if this attempt made none */
    bool evaluated; /* false: no validation data; eval_loss and perplexity are left out */
    double eval_loss, seconds;
    uint64_t peak_rss_bytes;
};

int report_done(struct event_log *log, const struct trainer *trainer,
                const struct report_done *done, struct err *err);

#endif
