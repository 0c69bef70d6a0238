/* A run in three parts: run_open (everything that can be wrong is found there, before step 1),
 * run_train, run_finish. A failure of one rank inside a part that all ranks share is made known
 * to all by comm_agree. */
#include "proto/base/clock.h"
#include "proto/base/log.h"
#include "worker/run_private.h"

#include <inttypes.h>
#include <math.h>
#include <sys/resource.h>

/* --- training --- */

/* What to do before the next step: the same word on every rank. Rank 0 looks at the control
 * file; a signal to any rank is a stop. */
static int run_word(struct run *run, enum control_word *word, struct err *err)
{
    uint64_t wish = *run->options->stop ? CONTROL_STOP : CONTROL_RUN;
    if (run->comm->rank == 0) {
        uint64_t found = control_poll(&run->control, clock_monotonic_ms());
        wish = found > wish ? found : wish;
    }
    int rc = run->comm->ops->max_u64(run->comm, &wish, 1, err);
    *word = (enum control_word)wish;
    return rc;
}

static int run_evaluate(struct run *run, struct err *err)
{
    size_t tokens;
    bool here = run->evaluated && run->evaluated_step == run->trainer->step;
    if (here || dataset_windows(run->data, SPLIT_VALIDATION) == 0) {
        return 0;
    }
    int rc = trainer_evaluate(run->trainer, (size_t)run->spec.train.eval_sequences,
                              &run->eval_loss, &tokens, err);
    if (rc != 0) {
        return rc;
    }
    run->evaluated = true;
    run->evaluated_step = run->trainer->step;
    if (run->comm->rank != 0) {
        return 0;
    }
    log_info("step %zu: validation loss %.4f", run->trainer->step, run->eval_loss);
    return report_eval(run->log, run->trainer->step, run->eval_loss, tokens, err);
}

static int publish_masks(struct run *run, struct err *err)
{
    return history_publish(run->history, run->trainer->refresh, run->trainer->step, err);
}

/* Rank 0: what a step and its refresh did. */
static int run_report(struct run *run, const struct step_result *result, double ms,
                      struct err *err)
{
    int rc = report_step(run->log, run->trainer, result, ms, err);
    if (rc == 0 && result->refreshed) {
        rc = run_write(run, publish_masks, err);
    }
    if (rc == 0 && result->refreshed) {
        rc = report_refresh(run->log, run->history, result, err);
    }
    if (rc == 0 && result->masks.repaired > 0) {
        log_warn("step %zu: the masks of %zu matrices differed between ranks and were repaired",
                 result->step, result->masks.repaired);
        rc = report_repair(run->log, result, err);
    }
    return rc;
}

static bool due(size_t step, int64_t every) { return every > 0 && step % (size_t)every == 0; }

static int run_step(struct run *run, struct err *err)
{
    struct step_result result;
    struct refresh_observer observer = {0};
    double began = clock_monotonic_s();
    if (run->history) {
        observer = history_observer(run->history);
    }
    int rc = trainer_step(run->trainer, run->history ? &observer : NULL, &result, err);
    if (rc != 0) {
        return rc;
    }
    heartbeat_step(run->heartbeat, run->trainer->step);
    rc = run_repaired(run, &result.state, err);
    if (rc != 0 || result.verdict != GUARD_ACCEPTED) {
        return rc == 0 ? run_rejected(run, &result, err) : rc;
    }
    run->last_loss = result.loss;
    if (run->comm->rank == 0) {
        rc = run_report(run, &result, (clock_monotonic_s() - began) * 1000, err);
    }
    if (rc == 0) {
        rc = run_prune(run, err);
    }
    if (rc == 0 && due(result.step, run->spec.train.eval_every)) {
        rc = run_evaluate(run, err);
    }
    if (rc == 0 && due(result.step, run->spec.train.checkpoint_every)) {
        rc = run_save(run, false, err);
    }
    return rc;
}

static int answer_control(struct run *run, struct err *err)
{
    return control_answer(&run->control, err);
}

static int run_train(struct run *run, struct err *err)
{
    while (run->trainer->step < run->trainer->config.steps) {
        enum control_word word;
        int rc = run_word(run, &word, err);
        if (rc == 0 && word != CONTROL_RUN) {
            rc = run_save(run, word == CONTROL_STOP, err);
        }
        if (rc == 0 && word == CONTROL_STOP) {
            run->result->stopped = true;
            return 0;
        }
        if (rc == 0 && word == CONTROL_CHECKPOINT && run->comm->rank == 0) {
            rc = run_write(run, answer_control, err);
        }
        if (rc == 0) {
            rc = run_step(run, err);
        }
        if (rc != 0) {
            return rc;
        }
    }
    return 0;
}

/* --- the end --- */

static int export_model(struct run *run, struct err *err)
{
    int rc = fsx_remove_tree(run->model, err);
    return rc == 0 ? model_export(run->trainer->model, run->model, run->spec.sparsity.method,
                                  run->spec.data.tokenizer, err)
                   : rc;
}

static int run_finish(struct run *run, struct err *err)
{
    struct rusage usage = {0};
    int rc = run_evaluate(run, err);
    if (rc == 0) {
        rc = run_save(run, true, err);
    }
    if (rc == 0) {
        rc = run_prune(run, err);
    }
    if (rc == 0) {
        rc = run_agree(run, run->comm->rank == 0 ? run_write(run, export_model, err) : 0, err);
    }
    getrusage(RUSAGE_SELF, &usage);
    uint64_t peak = (uint64_t)usage.ru_maxrss * 1024; /* Linux counts it in KiB */
    if (rc == 0) {
        rc = run->comm->ops->max_u64(run->comm, &peak, 1, err);
    }
    if (rc != 0 || run->comm->rank != 0) {
        return rc;
    }
    struct report_done done = {.loss = run->last_loss,
                               .evaluated = run->evaluated,
                               .eval_loss = run->eval_loss,
                               .seconds = clock_monotonic_s() - run->began_s,
                               .peak_rss_bytes = peak};
    log_info("done: %zu steps, loss %.4f", run->trainer->step, run->last_loss);
    return report_done(run->log, run->trainer, &done, err);
}

int run_job(const struct run_options *options, struct comm *comm, struct run_result *result,
            struct err *err)
{
    struct run run = {.options = options,
                      .comm = comm,
                      .result = result,
                      .began_s = clock_monotonic_s(),
                      .saved_step = SIZE_MAX,
                      .last_loss = (double)NAN};
    *result = (struct run_result){.rank = comm->rank};
    spec_init(&run.spec);
    int rc = run_open(&run, err);
    if (rc == 0) {
        rc = run_train(&run, err);
    }
    if (rc == 0 && !result->stopped) {
        rc = run_finish(&run, err);
    }
    run_close(&run);
    if (rc != 0 && result->exit_code == EXIT_DONE) {
        result->exit_code = err_exit_code(rc);
    } else if (rc == 0) {
        result->exit_code = result->stopped ? EXIT_STOPPED : EXIT_DONE;
    }
    return rc;
}
