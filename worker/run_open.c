#include "worker/run_private.h"

#include "proto/base/log.h"
#include "worker/comms.h"
#include "worker/config.h"

#include <inttypes.h>

int run_agree(struct run *run, int code, struct err *err)
{
    int rank = -1;
    int rc = comm_agree(run->comm, code, &rank, err);
    if (rc != 0 && rank >= 0) {
        run->result->together = true;
        run->result->rank = rank;
    }
    return rc;
}

static int open_paths(struct run *run, struct err *err)
{
    const struct run_options *options = run->options;
    char attempt[FSX_PATH_MAX];
    int rc = fsx_path(attempt, err, "%s/attempt-%u", options->job, options->attempt);
    if (rc == 0) {
        rc = fsx_mkdirs(attempt, 0755, err);
    }
    if (rc == 0) {
        rc = heartbeat_start(&run->heartbeat, attempt, run->comm, err);
    }
    if (rc == 0) {
        rc = fsx_path(run->checkpoints, err, "%s/checkpoints", options->job);
    }
    if (rc == 0) {
        rc = fsx_path(run->model, err, "%s/model", options->job);
    }
    return rc == 0 ? fsx_mkdirs(run->checkpoints, 0755, err) : rc;
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
        rc = device_create_at(&run->dev, config_device(&run->spec), run->options->local_rank,
                              run->pool, err);
    }
    return rc;
}

/* Ranks on GPUs sum by NCCL if they can; the reason why they cannot is told, and MPI does it. */
static void open_nccl(struct run *run)
{
    if (run->comm->size == 1 || device_shares_memory(run->dev)) {
        return;
    }
    comm_nccl_attach(run->comm, run->dev, &run->nccl_refused);
}

/* Each rank checks its part of the tokens. Whatever is wrong with the files is wrong data, not
 * a wrong job. */
static int open_data(struct run *run, struct err *err)
{
    struct dataset_config dataset;
    config_dataset(&run->spec, &dataset);
    dataset.progress = &run->comm->progress;
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
    if (rc == 0) {
        event_log_on_full(run->log, run_wait_space, run);
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
    if (rc == 0 && run->nccl_refused.code != 0) {
        log_warn("%s", run->nccl_refused.text);
        rc = report_warning(run->log, "no_nccl", run->nccl_refused.text, err);
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

int run_open(struct run *run, struct err *err)
{
    struct trainer_config config;
    struct err skipped = {0};
    bool found = false;
    int rc = run_agree(run, open_local(run, &config, err), err);
    if (rc == 0) {
        open_nccl(run);
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
    if (rc == 0 && !found && run->spec.model.init_from.count > 0) {
        rc = model_start(run->trainer->model, run->spec.model.init_from.items[0], err);
        rc = run_agree(run, rc, err);
    }
    if (rc == 0 && found) { /* each rank read the files for itself */
        struct agreement state;
        rc = trainer_compare(run->trainer, &state, err);
        rc = rc == 0 ? run_repaired(run, &state, err) : rc;
    }
    if (rc == 0) {
        run->saved_step = found ? run->trainer->step : SIZE_MAX;
        rc = run->comm->rank == 0 ? open_report(run, found, &skipped, err) : 0;
        rc = run_agree(run, rc, err);
    }
    return rc;
}

void run_close(struct run *run)
{
    heartbeat_stop(run->heartbeat);
    history_destroy(run->history);
    event_log_close(run->log);
    trainer_destroy(run->trainer);
    dataset_close(run->data);
    comm_nccl_detach(run->comm);
    device_destroy(run->dev);
    pool_destroy(run->pool);
    spec_release(&run->spec);
}
