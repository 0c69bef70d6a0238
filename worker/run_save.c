/* Checkpoints of a run: when one cannot be written, when the ranks differ, when the disk is
 * full. */
#include "proto/base/clock.h"
#include "proto/base/log.h"
#include "worker/run_private.h"

#include <inttypes.h>
#include <time.h>

enum { SPACE_WAIT_S = 1, SPACE_SAY_MS = 60000 };

bool run_wait_space(void *context, const struct err *why)
{
    struct run *run = context;
    const int64_t now = clock_monotonic_ms();
    const struct timespec pause = {.tv_sec = SPACE_WAIT_S};
    if (now >= run->say_full_ms) {
        run->say_full_ms = now + SPACE_SAY_MS;
        log_warn("%s; waiting for space", why->text);
    }
    nanosleep(&pause, NULL);
    comm_progress(run->comm); /* rank 0 lives and knows what it waits for */
    return !*run->options->stop &&
           control_poll(&run->control, clock_monotonic_ms()) != CONTROL_STOP;
}

int run_write(struct run *run, int (*write)(struct run *run, struct err *err), struct err *err)
{
    struct err why = {0};
    int rc;
    do
        rc = write(run, &why);
    while (rc == ERR_NO_SPACE && run_wait_space(run, &why));
    return rc == 0 ? 0 : err_set(err, rc, "%s", why.text);
}

/* All ranks have the same rc. True on all of them if rank 0 found that it should be tried
 * again. */
static bool save_again(struct run *run, int rc, const struct err *why)
{
    uint64_t again = 0;
    if (rc != ERR_NO_SPACE)
        return false;
    if (run->comm->rank == 0)
        again = run_wait_space(run, why);
    return run->comm->ops->max_u64(run->comm, &again, 1, NULL) == 0 && again != 0;
}

/* The checkpoints before are as they were. */
static int save_failed(struct run *run, const struct err *why, struct err *err)
{
    if (run->comm->rank != 0)
        return 0;
    log_warn("%s", why->text);
    return report_warning(run->log, "checkpoint_failed", why->text, err);
}

int run_save(struct run *run, bool must, struct err *err)
{
    uint64_t bytes;
    struct agreement state;
    struct trainer *trainer = run->trainer;
    struct err why = {0};
    if (run->saved_step == trainer->step)
        return 0;
    int rc = trainer_compare(trainer, &state, err);
    if (rc == 0)
        rc = run_repaired(run, &state, err);
    if (rc != 0)
        return rc;
    const double began = clock_monotonic_s();
    do
        rc = checkpoint_save(trainer, run->checkpoints, &bytes, &why);
    while (must && save_again(run, rc, &why));
    if (rc != 0 && must) {
        if (err)
            *err = why;
        return run_agree(run, rc, err);
    }
    if (rc != 0)
        return save_failed(run, &why, err);
    run->saved_step = trainer->step;
    run->prune_due = true;
    if (run->comm->rank != 0)
        return 0;
    const double ms = (clock_monotonic_s() - began) * 1000;
    log_info("checkpoint at step %zu, %" PRIu64 " bytes", trainer->step, bytes);
    return report_checkpoint(run->log, trainer->step, bytes, ms, run->last_loss, err);
}

int run_prune(struct run *run, struct err *err)
{
    const struct checkpoint_keep keep = {.last = (size_t)run->spec.train.keep,
                                         .best = (size_t)run->spec.train.keep_best,
                                         .every = (size_t)run->spec.train.checkpoint_every};
    struct err kept = {0};
    if (!run->prune_due)
        return 0;
    run->prune_due = false;
    if (run->comm->rank != 0 || checkpoint_prune(run->checkpoints, &keep, &kept) == 0)
        return 0;
    log_warn("%s", kept.text);
    return report_warning(run->log, "prune_failed", kept.text, err);
}

int run_repaired(struct run *run, const struct agreement *found, struct err *err)
{
    if (run->comm->rank != 0 || found->repaired == 0)
        return 0;
    log_warn("step %zu: %zu parameters differed between ranks (%s first) and were taken from "
             "rank %d",
             run->trainer->step, found->repaired, found->first, found->root);
    return report_state_repair(run->log, run->trainer->step, found, err);
}
