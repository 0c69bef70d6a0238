/* A run in three parts: run_open (everything that can be wrong is found there, before step 1),
 * run_train, run_finish. A failure of one rank inside a part that all ranks share is made known
 * to all by comm_agree. */
#include "worker/run.h"

#include "engine/checkpoint.h"
#include "proto/base/clock.h"
#include "proto/base/fsx.h"
#include "proto/base/log.h"
#include "worker/config.h"
#include "worker/control.h"
#include "worker/history.h"
#include "worker/report.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

struct run {
    const struct run_options *options;
    struct comm *comm;
    struct run_result *result;
    struct job_spec spec;
    char checkpoints[FSX_PATH_MAX], model[FSX_PATH_MAX], heartbeat[FSX_PATH_MAX];
    unsigned threads;
    struct pool *pool;
    struct device *dev;
    struct dataset *data;
    struct trainer *trainer;
    /* Rank 0 only, else NULL. */
    struct event_log *log;
    struct history *history;
    struct control control;

    double began_s;
    int64_t next_heartbeat_ms;
    size_t saved_step; /* of the newest checkpoint; SIZE_MAX: none */
    double last_loss;
    bool evaluated;
    size_t evaluated_step;
    double eval_loss;
};

/* One outcome of all ranks; notes whether they share it. */
static int run_agree(struct run *run, int code, struct err *err)
{
    int rank = -1;
    int rc = comm_agree(run->comm, code, &rank, err);
    if (rc != 0 && rank >= 0) {
        run->result->together = true;
        run->result->rank = rank;
    }
    return rc;
}

/* --- opening --- */

static int open_paths(struct run *run, struct err *err)
{
    const struct run_options *options = run->options;
    char attempt[FSX_PATH_MAX];
    int rc = fsx_path(run->checkpoints, err, "%s/checkpoints", options->job);
    if (rc == 0) {
        rc = fsx_path(run->model, err, "%s/model", options->job);
    }
    if (rc == 0) {
        rc = fsx_path(attempt, err, "%s/attempt-%u", options->job, options->attempt);
    }
    if (rc == 0) {
        rc = fsx_path(run->heartbeat, err, "%s/heartbeat", attempt);
    }
    if (rc == 0) {
        rc = fsx_mkdirs(run->checkpoints, 0755, err);
    }
    return rc == 0 ? fsx_mkdirs(attempt, 0755, err) : rc;
}

static int open_spec(struct run *run, struct err *err)
{
    char path[FSX_PATH_MAX];
    struct buf text;
    buf_init(&text, SPEC_BODY_MAX);
    int rc = fsx_path(path, err, "%s/spec.json", run->options->job);
    if (rc == 0) {
        rc = fsx_read(&text, path, err);
    }
    if (rc == 0) {
        rc = spec_parse(&run->spec, text.data, text.len, NULL, err);
        rc = rc == 0 ? 0 : err_wrap(err, rc, "%s", path);
    }
    buf_release(&text);
    return rc;
}

/* What a rank opens for itself, without talking to the others. */
static int open_local(struct run *run, struct trainer_config *config, struct err *err)
{
    size_t ranks = (size_t)run->comm->size;
    int rc = open_paths(run, err);
    if (rc == 0) {
        rc = open_spec(run, err);
    }
    if (rc == 0) {
        rc = config_trainer(&run->spec, ranks, config, err);
    }
    if (rc == 0) {
        run->threads = run->options->threads ? run->options->threads
                                             : (unsigned)run->spec.resources.threads;
        rc = pool_create(&run->pool, run->threads, err);
    }
    if (rc == 0) {
        rc = device_create(&run->dev, config_device(&run->spec), run->pool, err);
    }
    return rc;
}

/* Each rank checks its part of the tokens. Whatever is wrong with the files is wrong data, not
 * a wrong job. */
static int open_data(struct run *run, struct err *err)
{
    struct dataset_config dataset;
    config_dataset(&run->spec, &dataset);
    int rc = dataset_open(&run->data, &dataset, run->comm->rank, run->comm->size, err);
    rc = run_agree(run, rc, err);
    if (rc == ERR_INVALID || rc == ERR_NOT_FOUND || rc == ERR_CORRUPT) {
        run->result->exit_code = EXIT_DATA;
    }
    return rc;
}

/* What rank 0 writes to. */
static int open_output(struct run *run, struct err *err)
{
    char path[FSX_PATH_MAX];
    int rc = control_init(&run->control, run->options->job, err);
    if (rc == 0) {
        rc = fsx_path(path, err, "%s/events.jsonl", run->options->job);
    }
    if (rc == 0) {
        rc = event_log_open(&run->log, path, err);
    }
    if (rc == 0 && run->spec.resources.ranks != run->comm->size) {
        log_warn("%d ranks run; the job asks for %" PRId64, run->comm->size,
                 run->spec.resources.ranks);
    }
    return rc == 0 ? history_create(&run->history, run->options->job, run->trainer->model, err)
                   : rc;
}

/* Rank 0 after the resume: the history as it was at this step, and the start event. */
static int open_report(struct run *run, bool found, const struct err *skipped, struct err *err)
{
    struct report_start start = {run->options->attempt, run->threads, run->dev->ops->name};
    int rc = 0;
    if (skipped->code != 0) {
        log_warn("%s", skipped->text);
        rc = report_warning(run->log, "checkpoint_skipped", skipped->text, err);
    }
    if (rc == 0) {
        rc = report_start(run->log, run->trainer, &start, err);
    }
    if (rc == 0 && run->history->count > 0) {
        rc = found ? 0 : history_start(run->history, err);
        rc = rc == 0 ? history_rewind(run->history, run->trainer->refresh, err) : rc;
    }
    log_info("attempt %u: step %zu of %zu, %d ranks, %u threads each, %s",
             run->options->attempt, run->trainer->step, run->trainer->config.steps,
             run->comm->size, run->threads, start.device);
    return rc;
}

static int run_open(struct run *run, struct err *err)
{
    struct trainer_config config;
    struct err skipped = {0};
    bool found = false;
    int rc = run_agree(run, open_local(run, &config, err), err);
    if (rc == 0) {
        rc = open_data(run, err);
    }
    if (rc == 0) {
        rc = trainer_create(&run->trainer, &config, run->dev, run->comm, run->data, err);
        rc = run_agree(run, rc, err);
    }
    if (rc == 0) {
        rc = run_agree(run, run->comm->rank == 0 ? open_output(run, err) : 0, err);
    }
    if (rc == 0) {
        rc = checkpoint_resume(run->trainer, run->checkpoints, &found, &skipped, err);
    }
    if (rc == 0) {
        run->saved_step = found ? run->trainer->step : SIZE_MAX;
        rc = run->comm->rank == 0 ? open_report(run, found, &skipped, err) : 0;
        rc = run_agree(run, rc, err);
    }
    return rc;
}

static void run_close(struct run *run)
{
    history_destroy(run->history);
    event_log_close(run->log);
    trainer_destroy(run->trainer);
    dataset_close(run->data);
    device_destroy(run->dev);
    pool_destroy(run->pool);
    spec_release(&run->spec);
}

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

static int run_save(struct run *run, struct err *err)
{
    uint64_t bytes;
    double began = clock_monotonic_s();
    if (run->saved_step == run->trainer->step) {
        return 0;
    }
    int rc = checkpoint_save(run->trainer, run->checkpoints, &bytes, err);
    if (rc != 0) {
        return rc;
    }
    run->saved_step = run->trainer->step;
    if (run->comm->rank != 0) {
        return 0;
    }
    double ms = (clock_monotonic_s() - began) * 1000;
    struct err kept = {0};
    log_info("checkpoint at step %zu, %" PRIu64 " bytes", run->trainer->step, bytes);
    rc = report_checkpoint(run->log, run->trainer->step, bytes, ms, run->last_loss, err);
    if (rc == 0 &&
        checkpoint_prune(run->checkpoints, (size_t)run->spec.train.keep, &kept) != 0) {
        log_warn("%s", kept.text);
        rc = report_warning(run->log, "prune_failed", kept.text, err);
    }
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

/* Rank 0: what a step and its refresh did. */
static int run_report(struct run *run, const struct step_result *result, double ms,
                      struct err *err)
{
    int rc = report_step(run->log, run->trainer, result, ms, err);
    if (rc == 0 && result->refreshed) {
        rc = history_publish(run->history, result->refresh, result->step, err);
    }
    if (rc == 0 && result->refreshed) {
        rc = report_refresh(run->log, run->history, result, err);
    }
    if (rc == 0 && result->repaired > 0) {
        log_warn("step %zu: the masks of %zu matrices differed between ranks and were repaired",
                 result->step, result->repaired);
        rc = report_repair(run->log, result, err);
    }
    int64_t now = clock_monotonic_ms();
    if (rc == 0 && now >= run->next_heartbeat_ms) {
        run->next_heartbeat_ms = now + REPORT_HEARTBEAT_MS;
        rc = report_heartbeat(run->heartbeat, result->step, err);
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
    run->last_loss = result.loss;
    if (run->comm->rank == 0) {
        rc = run_report(run, &result, (clock_monotonic_s() - began) * 1000, err);
    }
    if (rc == 0 && due(result.step, run->spec.train.eval_every)) {
        rc = run_evaluate(run, err);
    }
    if (rc == 0 && due(result.step, run->spec.train.checkpoint_every)) {
        rc = run_save(run, err);
    }
    return rc;
}

static int run_train(struct run *run, struct err *err)
{
    while (run->trainer->step < run->trainer->config.steps) {
        enum control_word word;
        int rc = run_word(run, &word, err);
        if (rc == 0 && word != CONTROL_RUN) {
            rc = run_save(run, err);
        }
        if (rc == 0 && word == CONTROL_STOP) {
            run->result->stopped = true;
            return 0;
        }
        if (rc == 0 && word == CONTROL_CHECKPOINT && run->comm->rank == 0) {
            rc = control_answer(&run->control, err);
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
        rc = run_save(run, err);
    }
    if (rc == 0) {
        rc = run_agree(run, run->comm->rank == 0 ? export_model(run, err) : 0, err);
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
