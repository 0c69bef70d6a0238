#include "daemon/cli/record.h"

#include "daemon/cli/cli.h"
#include "proto/base/fsx.h"
#include "proto/base/mem.h"
#include "proto/json/json.h"
#include "proto/msg/event.h"
#include "proto/msg/spec.h"
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { RECORD_EVENTS = 1000 /* of one answer */ };

void record_release(struct record *record)
{
    free(record->id);
    cJSON_Delete(record->spec);
    summary_release(&record->summary);
    *record = (struct record){0};
}

/* --- from the daemon --- */

/* Adds one page of events; *last gets the seq of its last one, 0 if it is empty. */
static int add_page(struct summary *summary, struct client *client, const char *id,
                    int64_t since, int64_t *last)
{
    cJSON *answer;
    struct err err = {0};
    int code = client_get(client, &answer, "/v1/jobs/%s/events?since=%" PRId64 "&limit=%d", id,
                          since, RECORD_EVENTS);
    const cJSON *event, *events = json_array(answer, "events");
    *last = 0;
    if (code == EXIT_DONE && !events) {
        fprintf(stderr, "hebb: job %s: the answer has no events\n", id);
        code = EXIT_FAILED;
    }
    cJSON_ArrayForEach(event, events)
    {
        if (code == EXIT_DONE && summary_add(summary, event, &err)) {
            code = client_fail(&err);
        }
        *last = cli_int(event, "seq");
    }
    cJSON_Delete(answer);
    return code;
}

static int finish(struct record *record)
{
    struct err err = {0};
    return summary_finish(&record->summary, &err) ? client_fail(&err) : EXIT_DONE;
}

int record_from_job(struct record *out, struct client *client, const char *id)
{
    cJSON *job;
    *out = (struct record){.id = mem_strdup(id)};
    summary_init(&out->summary);
    int code = client_get(client, &job, "/v1/jobs/%s", id);
    if (code == EXIT_DONE) {
        out->spec = cJSON_DetachItemFromObjectCaseSensitive(job, "spec");
        snprintf(out->state, sizeof(out->state), "%s", cli_text(job, "state"));
        snprintf(out->reason, sizeof(out->reason), "%s", cli_text(job, "reason"));
    }
    cJSON_Delete(job);
    for (int64_t since = 0, last = 1; code == EXIT_DONE && last > 0; since = last) {
        code = add_page(&out->summary, client, id, since, &last);
    }
    if (code == EXIT_DONE) {
        code = finish(out);
    }
    if (code != EXIT_DONE) {
        record_release(out);
    }
    return code;
}

/* --- from a folder --- */

static int read_events(struct summary *summary, const char *path, struct err *err)
{
    char *line = NULL;
    size_t cap = 0, number = 0;
    ssize_t len;
    int rc = 0;
    FILE *file = fopen(path, "re");
    if (!file && errno == ENOENT) {
        return 0; /* not started */
    }
    if (!file) {
        return err_set(err, ERR_IO, "open %s: %s", path, strerror(errno));
    }
    while (!rc && (len = getline(&line, &cap, file)) > 0 && line[len - 1] == '\n') {
        struct event event;
        number++;
        rc = event_parse(&event, line, (size_t)len - 1, err);
        if (rc) {
            err_wrap(err, rc, "%s line %zu", path, number);
        } else {
            rc = summary_add(summary, event.json, err);
            event_release(&event);
        }
    }
    if (!rc && ferror(file)) {
        rc = err_set(err, ERR_IO, "read %s: %s", path, strerror(errno));
    }
    free(line);
    fclose(file);
    return rc;
}

int record_from_folder(struct record *out, const char *folder)
{
    char path[FSX_PATH_MAX];
    struct err err = {0};
    *out = (struct record){.id = mem_strdup(folder)};
    summary_init(&out->summary);
    int rc = fsx_path(path, &err, "%s/spec.json", folder);
    if (!rc) {
        rc = json_read(&out->spec, path, SPEC_BODY_MAX, &err);
    }
    if (!rc) {
        rc = fsx_path(path, &err, "%s/events.jsonl", folder);
    }
    if (!rc) {
        rc = read_events(&out->summary, path, &err);
    }
    snprintf(out->state, sizeof(out->state), "%s",
             out->summary.done ? "succeeded" : "unfinished");
    int code = rc ? client_fail(&err) : finish(out);
    if (code != EXIT_DONE) {
        record_release(out);
    }
    return code;
}

/* --- the row --- */

const char *record_setting(const struct record *record, const char *section, const char *key)
{
    return cli_text(json_object(record->spec, section), key);
}

void record_add_number(cJSON *object, const char *key, double value)
{
    if (isfinite(value)) {
        cJSON_AddNumberToObject(object, key, value);
    } else {
        cJSON_AddNullToObject(object, key);
    }
}

static void add_text(cJSON *object, const char *key, const char *text)
{
    if (*text != '\0') {
        cJSON_AddStringToObject(object, key, text);
    } else {
        cJSON_AddNullToObject(object, key);
    }
}

static void add_settings(cJSON *row, const struct record *record)
{
    const cJSON *sparsity = json_object(record->spec, "sparsity");
    char text[2 * FORMAT_TEXT_MAX] = "";
    int64_t n = cli_int(sparsity, "n"), m = cli_int(sparsity, "m");
    if (n > 0 && m > 0) {
        snprintf(text, sizeof(text), "%" PRId64 ":%" PRId64, n, m);
    }
    add_text(row, "method", cli_text(sparsity, "method"));
    add_text(row, "sparsity", text);
    add_text(row, "layout", cli_text(sparsity, "layout"));
    add_text(row, "optimizer", record_setting(record, "optimizer", "name"));
    add_text(row, "adapter", record_setting(record, "adapter", "name"));
}

cJSON *record_json(const struct record *record)
{
    const struct summary *s = &record->summary;
    cJSON *row = cJSON_CreateObject();
    add_text(row, "id", record->id ? record->id : "");
    add_text(row, "name", cli_text(record->spec, "name"));
    add_text(row, "state", record->state);
    add_settings(row, record);
    record_add_number(row, "parameters", s->parameters);
    record_add_number(row, "active_parameters", s->active_parameters);
    record_add_number(row, "adapter_parameters", s->adapter_parameters);
    record_add_number(row, "density", s->density);
    record_add_number(row, "step", (double)s->step);
    record_add_number(row, "steps",
                      (double)cli_int(json_object(record->spec, "train"), "steps"));
    record_add_number(row, "tokens", s->tokens);
    record_add_number(row, "final_loss", s->final_loss);
    record_add_number(row, "final_perplexity", exp(s->final_loss));
    record_add_number(row, "best_loss", s->best_loss);
    record_add_number(row, "best_perplexity", exp(s->best_loss));
    record_add_number(row, "best_step", s->best_step > 0 ? (double)s->best_step : (double)NAN);
    record_add_number(row, "tokens_per_s", s->tokens_per_s);
    record_add_number(row, "refresh_share", s->refresh_share);
    record_add_number(row, "flip_rate", s->refreshes > 0 ? s->flip_rate : (double)NAN);
    return row;
}
