/* The guard of a run: looks at the loss and the gradient norm of every batch before the
 * optimizer does, and decides what becomes of the batch. It is a pure function of these numbers
 * and of its own state, which is part of a checkpoint: every rank decides alike, and a resumed
 * run as the uninterrupted one.
 *
 * Batches are numbered by a cursor of their own: the next one is number step + skipped. A
 * rejected batch moves the cursor and not the step, so that schedules, refreshes and bias
 * corrections go by the updates that were made. A roll back puts the step back and leaves the
 * cursor: the batches since that checkpoint are not drawn again (Chowdhery et al. 2022, 5.1).
 */
#ifndef HEBB_ENGINE_GUARD_H
#define HEBB_ENGINE_GUARD_H

#include "engine/comm.h"

#include <stdbool.h>

enum { GUARD_WINDOW_MAX = 512 };

enum guard_verdict {
    GUARD_ACCEPTED,
    GUARD_NONFINITE, /* loss or gradient norm is not a number or infinite */
    GUARD_SPIKE,     /* the loss is far above those before it */
    GUARD_DISAGREE,  /* the ranks have not the same loss and norm: some memory is damaged */
};

/* "accepted", "nonfinite", "spike", "ranks_disagree", then NULL. */
extern const char *const guard_verdict_names[];

enum guard_action {
    GUARD_GO_ON,     /* the next batch */
    GUARD_ROLL_BACK, /* to a checkpoint; guard_rolled_back */
    GUARD_ACCEPT,    /* the losses' level has changed for good: guard_forget */
    GUARD_GIVE_UP,   /* what was tried did not help */
};

/* All 0: nothing is compared, and the first batch that is not finite ends the run. */
struct guard_config {
    size_t window;    /* accepted losses that a loss is compared with, at most GUARD_WINDOW_MAX;
                         0: none */
    double factor;    /* a spike is above median + max(factor * 1.4826 MAD, rise) */
    double rise;      /* nats per token */
    size_t skips;     /* batches in a row that are left out before a roll back */
    size_t rollbacks; /* of the whole run */
};

struct guard {
    double losses[GUARD_WINDOW_MAX]; /* (count) the last accepted, a ring from `next` on */
    size_t count, next;
    uint64_t skipped; /* batches drawn that the model was not trained on */
    size_t streak;    /* rejected since the last accepted */
    size_t rollbacks; /* done so far */
};

/* The loss above which a batch is a spike: median of the window + max(factor * 1.4826 * median
 * absolute deviation, rise); infinity while less than half of the window is filled. The median
 * of an even number is the mean of the middle two. */
double guard_limit(const struct guard *guard, const struct guard_config *config);

/* What guard_limit and the bits of both numbers say. An infinity or NaN is found by its
 * exponent's bits, whatever the compiler thinks of such numbers. */
enum guard_verdict guard_judge(const struct guard *guard, const struct guard_config *config,
                               double loss, double norm);

/* One verdict of all ranks on numbers that should be equal on all of them, by one collective:
 * GUARD_DISAGREE if a bit differs and none is infinite or NaN. *verdict is the same on every
 * rank. */
int guard_agree(struct comm *comm, double loss, double norm, enum guard_verdict *verdict,
                struct err *err);

/* The batch was trained on: its loss enters the window. A rejected one never does. */
void guard_accept(struct guard *guard, const struct guard_config *config, double loss);
void guard_reject(struct guard *guard);

/* What is to be done after a rejection with this verdict. A spike that comes back after all
 * roll backs is accepted as the new level; anything else then ends the run. */
enum guard_action guard_next(const struct guard *guard, const struct guard_config *config,
                             enum guard_verdict verdict);

/* Empties the window and ends the streak. */
void guard_forget(struct guard *guard);

/* guard holds what the checkpoint of step `to` says; before: what it was at step `from`. */
void guard_rolled_back(struct guard *guard, const struct guard *before, size_t from, size_t to);

#endif
