/* What a run does about a batch that the guard rejected: leave it out, roll back, or give up.
 * All ranks come to the same answer by themselves. */
#include "proto/base/log.h"
#include "worker/run_private.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>

static const char *number_text(double value)
{
    return isnan(value) ? "nan" : isfinite(value) ? "finite" : value > 0 ? "inf" : "-inf";
}

/* The history and what the run remembers, back at the trainer's step. */
static int run_rewind(struct run *run, struct err *err)
{
    const struct trainer *trainer = run->trainer;
    run->evaluated = run->evaluated && run->evaluated_step <= trainer->step;
    run->prune_due = false;
    if (run->comm->rank != 0 || run->history->count == 0)
        return 0;
    return history_rewind(run->history, trainer->refresh, err);
}

static int start_again(struct run *run, struct err *err)
{
    struct trainer *trainer = run->trainer;
    const struct guard before = trainer->guard;
    const size_t from = trainer->step;
    trainer_restart(trainer);
    guard_forget(&trainer->guard);
    guard_rolled_back(&trainer->guard, &before, from, 0);
    int rc = 0;
    if (run->spec.model.init_from.count > 0)
        rc = model_start(trainer->model, run->spec.model.init_from.items[0], err);
    return run_agree(run, rc, err);
}

static int roll_back(struct run *run, struct err *err)
{
    struct trainer *trainer = run->trainer;
    struct err skipped = {0};
    const size_t from = trainer->step;
    bool found = false;
    int rc =
        checkpoint_roll_back(trainer, run->checkpoints,
                             (size_t)run->spec.train.checkpoint_every, &found, &skipped, err);
    if (rc == 0 && !found)
        rc = start_again(run, err);
    if (rc != 0)
        return rc;
    run->saved_step = found ? trainer->step : SIZE_MAX;
    rc = run_rewind(run, err);
    if (rc == 0 && run->comm->rank == 0) {
        log_warn("rolled back from step %zu to step %zu; %" PRIu64
                 " batches are left out so far",
                 from, trainer->step, trainer->guard.skipped);
        if (skipped.code != 0)
            rc = report_warning(run->log, "checkpoint_skipped", skipped.text, err);
        if (rc == 0)
            rc = report_rollback(run->log, trainer, from, err);
    }
    return run_agree(run, rc, err);
}

static int accept_level(struct run *run, const struct step_result *result, struct err *err)
{
    char detail[ERR_TEXT_MAX];
    guard_forget(&run->trainer->guard);
    snprintf(detail, sizeof detail,
             "losses like %g at step %zu are taken as the new level: %zu roll backs did not "
             "help",
             result->loss, result->step, run->trainer->guard.rollbacks);
    if (run->comm->rank != 0)
        return 0;
    log_warn("%s", detail);
    return report_warning(run->log, "level_accepted", detail, err);
}

static int give_up(struct run *run, const struct step_result *result, struct err *err)
{
    const bool loss = !isfinite(result->loss);
    const struct guard *guard = &run->trainer->guard;
    if (result->verdict == GUARD_DISAGREE)
        err_set(err, ERR_IO,
                "the ranks do not agree on the loss or gradient norm of %zu batches in a row "
                "up to step %zu: some memory is damaged",
                guard->streak, result->step);
    else
        err_set(
            err, ERR_INVALID,
            "%s is %s at step %zu: the run diverged, and %zu roll backs did not help; lower "
            "optimizer.lr or set optimizer.grad_clip",
            loss ? "loss" : "gradient norm",
            number_text(loss ? result->loss : result->grad_norm), result->step,
            guard->rollbacks);
    return run_agree(run, result->verdict == GUARD_DISAGREE ? ERR_IO : ERR_INVALID, err);
}

int run_rejected(struct run *run, const struct step_result *result, struct err *err)
{
    const struct guard *guard = &run->trainer->guard;
    int rc = 0;
    if (run->comm->rank == 0) {
        log_warn("step %zu: batch %" PRIu64 " is left out (%s): loss %g, gradient norm %g",
                 result->step, result->batch, guard_verdict_names[result->verdict],
                 result->loss, result->grad_norm);
        rc = report_skip(run->log, result, guard, err);
    }
    if (rc != 0)
        return rc;
    switch (guard_next(guard, &run->trainer->config.guard, result->verdict)) {
    case GUARD_GO_ON:
        return 0;
    case GUARD_ROLL_BACK:
        return roll_back(run, err);
    case GUARD_ACCEPT:
        return accept_level(run, result, err);
    case GUARD_GIVE_UP:
        break;
    }
    return give_up(run, result, err);
}
