#include "worker/report.h"

#include "proto/base/clock.h"
#include "proto/base/fsx.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static cJSON *event_create(const char *type)
{
    cJSON *object = cJSON_CreateObject();
    if (!cJSON_AddStringToObject(object, "type", type)) {
        cJSON_Delete(object);
        return NULL;
    }
    return object;
}

static int event_append(struct event_log *log, cJSON *object, struct err *err)
{
    if (!object) {
        return err_set(err, ERR_NO_MEMORY, "no memory for an event");
    }
    return event_log_append(log, object, err);
}

/* Logical parameters of the model; *target gets those of the N:M matrices, *active those
 * inside their masks. */
static size_t count_parameters(const struct model *model, size_t *target, size_t *active)
{
    size_t total = 0;
    *target = 0;
    *active = 0;
    for (size_t i = 0; i < model->param_count; i++) {
        const struct param *param = &model->params[i];
        total += param->rows * param->cols;
        *target += param->target ? param->rows * param->cols : 0;
        *active +=
            param->target ? param->rows * param->cols / model->shape.m * model->shape.n : 0;
    }
    return total;
}

static size_t count_adapter(const struct model *model)
{
    size_t count = 0;
    for (size_t i = 0; i < model->param_count; i++) {
        count += model->params[i].adapter ? model->params[i].count : 0;
    }
    return count;
}

int report_start(struct event_log *log, const struct trainer *trainer,
                 const struct report_start *start, struct err *err)
{
    const struct trainer_config *config = &trainer->config;
    size_t target, active, adapter = count_adapter(trainer->model);
    size_t total = count_parameters(trainer->model, &target, &active);
    const struct {
        const char *key;
        double value;
    } numbers[] = {
        {"parameters", (double)total},
        {"active_parameters", (double)(total - target + active)},
        {"adapter_parameters", (double)adapter},
        {"adapter_share", (double)adapter / (double)(total - adapter)},
        {"density", (double)active / (double)target},
        {"tokens_per_step", (double)(config->batch * config->context)},
        {"steps", (double)config->steps},
        {"train_tokens", (double)dataset_tokens(trainer->data, SPLIT_TRAIN)},
        {"validation_tokens", (double)dataset_tokens(trainer->data, SPLIT_VALIDATION)},
    };
    cJSON *event = event_create("start");
    if (event) {
        event_add_number(event, "attempt", start->attempt);
        event_add_number(event, "step", (double)trainer->step);
        event_add_number(event, "ranks", trainer->comm->size);
        event_add_number(event, "threads", start->threads);
        cJSON_AddStringToObject(event, "device", start->device);
        for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
            event_add_number(event, numbers[i].key, numbers[i].value);
        }
        cJSON_AddStringToObject(event, "version", HEBB_VERSION);
    }
    return event_append(log, event, err);
}

int report_step(struct event_log *log, const struct trainer *trainer,
                const struct step_result *result, double ms, struct err *err)
{
    cJSON *event = event_create("step");
    if (event) {
        event_add_number(event, "step", (double)result->step);
        event_add_number(event, "tokens", (double)trainer->tokens);
        event_add_number(event, "loss", result->loss);
        event_add_number(event, "grad_norm", result->grad_norm);
        event_add_number(event, "lr", result->lr);
        event_add_number(event, "step_ms", ms);
        event_add_number(event, "tokens_per_s",
                         ms > 0 ? (double)result->tokens * 1000 / ms : 0);
    }
    return event_append(log, event, err);
}

static bool layer_add(cJSON *layers, const char *name, const struct refresh_stats *stats)
{
    cJSON *layer = cJSON_CreateObject();
    char hash[17];
    if (!layer || !cJSON_AddItemToArray(layers, layer)) {
        cJSON_Delete(layer);
        return false;
    }
    snprintf(hash, sizeof hash, "%016" PRIx64, stats->hash);
    cJSON_AddStringToObject(layer, "name", name);
    event_add_number(layer, "density", stats->density);
    event_add_number(layer, "removed", (double)stats->removed);
    event_add_number(layer, "changed_groups", (double)stats->changed_groups);
    if (stats->blocks > 0) {
        event_add_number(layer, "changed_blocks", (double)stats->changed_blocks);
    }
    event_add_number(layer, "flip_rate", stats->flip_rate);
    event_add_number(layer, "explored", stats->explored);
    if (stats->pattern_count > 0) {
        cJSON *patterns = cJSON_AddArrayToObject(layer, "patterns");
        for (size_t i = 0; i < stats->pattern_count; i++) {
            cJSON_AddItemToArray(patterns, cJSON_CreateNumber((double)stats->patterns[i]));
        }
    }
    event_add_number(layer, "dead_columns", (double)stats->dead_columns);
    return cJSON_AddStringToObject(layer, "hash", hash) != NULL;
}

int report_refresh(struct event_log *log, const struct history *history,
                   const struct step_result *result, struct err *err)
{
    cJSON *event = event_create("refresh");
    bool ok = event != NULL;
    if (ok) {
        event_add_number(event, "step", (double)result->step);
        event_add_number(event, "refresh", (double)result->refresh);
        event_add_number(event, "zeta", result->zeta);
        event_add_number(event, "ms", result->refresh_ms);
        cJSON *layers = cJSON_AddArrayToObject(event, "layers");
        ok = layers != NULL;
        for (size_t i = 0; ok && i < history->count; i++) {
            ok = layer_add(layers, history->matrices[i].name, &history->stats[i]);
        }
    }
    if (!ok) {
        cJSON_Delete(event);
        event = NULL;
    }
    return event_append(log, event, err);
}

int report_repair(struct event_log *log, const struct step_result *result, struct err *err)
{
    cJSON *event = event_create("mask_repair");
    if (event) {
        event_add_number(event, "step", (double)result->step);
        event_add_number(event, "refresh", (double)result->refresh);
        event_add_number(event, "matrices", (double)result->masks.repaired);
    }
    return event_append(log, event, err);
}

int report_skip(struct event_log *log, const struct step_result *result,
                const struct guard *guard, struct err *err)
{
    cJSON *event = event_create("skip");
    if (event) {
        event_add_number(event, "step", (double)result->step);
        event_add_number(event, "batch", (double)result->batch);
        cJSON_AddStringToObject(event, "reason", guard_verdict_names[result->verdict]);
        event_add_number(event, "loss", result->loss);
        event_add_number(event, "grad_norm", result->grad_norm);
        if (isfinite(result->limit)) {
            event_add_number(event, "limit", result->limit);
        }
        event_add_number(event, "streak", (double)guard->streak);
        event_add_number(event, "skipped", (double)guard->skipped);
    }
    return event_append(log, event, err);
}

int report_rollback(struct event_log *log, const struct trainer *trainer, size_t from,
                    struct err *err)
{
    cJSON *event = event_create("rollback");
    if (event) {
        event_add_number(event, "step", (double)trainer->step);
        event_add_number(event, "from", (double)from);
        event_add_number(event, "tokens", (double)trainer->tokens);
        event_add_number(event, "rollbacks", (double)trainer->guard.rollbacks);
        event_add_number(event, "skipped", (double)trainer->guard.skipped);
    }
    return event_append(log, event, err);
}

int report_state_repair(struct event_log *log, size_t step, const struct agreement *found,
                        struct err *err)
{
    cJSON *event = event_create("state_repair");
    if (event) {
        event_add_number(event, "step", (double)step);
        event_add_number(event, "parameters", (double)found->repaired);
        cJSON_AddStringToObject(event, "first", found->first);
        event_add_number(event, "rank", found->root);
    }
    return event_append(log, event, err);
}

int report_eval(struct event_log *log, size_t step, double loss, size_t tokens, struct err *err)
{
    cJSON *event = event_create("eval");
    if (event) {
        event_add_number(event, "step", (double)step);
        cJSON_AddStringToObject(event, "split", "validation");
        event_add_number(event, "loss", loss);
        event_add_number(event, "perplexity", exp(loss));
        event_add_number(event, "tokens", (double)tokens);
    }
    return event_append(log, event, err);
}

int report_checkpoint(struct event_log *log, size_t step, uint64_t bytes, double ms,
                      double loss, struct err *err)
{
    cJSON *event = event_create("checkpoint");
    char path[64];
    if (event) {
        snprintf(path, sizeof path, "checkpoints/step-%08zu", step);
        event_add_number(event, "step", (double)step);
        cJSON_AddStringToObject(event, "path", path);
        event_add_number(event, "bytes", (double)bytes);
        event_add_number(event, "ms", ms);
        event_add_number(event, "loss", loss);
    }
    return event_append(log, event, err);
}

int report_warning(struct event_log *log, const char *code, const char *detail, struct err *err)
{
    cJSON *event = event_create("warning");
    if (event) {
        cJSON_AddStringToObject(event, "code", code);
        cJSON_AddStringToObject(event, "detail", detail);
    }
    return event_append(log, event, err);
}

int report_done(struct event_log *log, const struct trainer *trainer,
                const struct report_done *done, struct err *err)
{
    cJSON *event = event_create("done");
    if (event) {
        event_add_number(event, "step", (double)trainer->step);
        event_add_number(event, "tokens", (double)trainer->tokens);
        event_add_number(event, "loss", done->loss);
        if (done->evaluated) {
            event_add_number(event, "eval_loss", done->eval_loss);
            event_add_number(event, "perplexity", exp(done->eval_loss));
        }
        event_add_number(event, "seconds", done->seconds);
        event_add_number(event, "peak_rss_bytes", (double)done->peak_rss_bytes);
        cJSON_AddStringToObject(event, "model", "model");
    }
    return event_append(log, event, err);
}
