/* What a run's events say about it as a whole: the row of `hebb compare` and `hebb sweep`. */
#ifndef HEBB_MSG_SUMMARY_H
#define HEBB_MSG_SUMMARY_H

#include "proto/base/err.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct cJSON;

/* A step that was done; one that is done again after a resumption replaces the earlier one. */
struct summary_step {
    int64_t step;
    double ms, tokens_per_s;
};

struct summary_eval {
    int64_t step;
    double loss; /* NAN: was not finite */
};

struct summary_refresh {
    int64_t step;
    double ms, flip_rate; /* mean over the matrices */
};

/* Numbers that are not known are NAN, counts 0. */
struct summary {
    /* of the newest start event */
    int64_t attempts, steps;
    double parameters, active_parameters, adapter_parameters, density;
    /* so far */
    int64_t step;
    double tokens;
    bool done;
    /* made by summary_finish */
    double final_loss, best_loss; /* of the validation split; the last one and the smallest */
    int64_t best_step;            /* of best_loss; 0: none */
    double tokens_per_s;          /* median over steps */
    double refresh_share;         /* of the steps' time; 0 without a refresh */
    double flip_rate; /* mean over refreshes of the mean over matrices; 0 without a refresh */
    size_t refreshes;
    /* the run's history; owned */
    struct summary_step *step_rows;
    struct summary_eval *eval_rows;
    struct summary_refresh *refresh_rows;
    size_t step_count, step_cap, eval_count, eval_cap, refresh_count, refresh_cap;
};

void summary_init(struct summary *summary);
void summary_release(struct summary *summary);

/* Takes the next event, in the order of seq. A start at step S takes back what came after S:
 * those steps are done again. ERR_NO_MEMORY. */
int summary_add(struct summary *summary, const struct cJSON *event, struct err *err);

/* Computes the numbers above; more events may follow, and another call. ERR_NO_MEMORY. */
int summary_finish(struct summary *summary, struct err *err);

/* Mean and sample standard deviation (n - 1) of values; NAN where they do not exist or a value
 * is not finite. */
struct spread {
    double mean, deviation;
    size_t count;
};
struct spread spread_of(const double *values, size_t count);

#endif
