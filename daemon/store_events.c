/* Events: the raw lines, the offset up to which each job's events file was read, and a table
 * row per kind of event. */
#include "daemon/store_db.h"
#include "proto/json/json.h"
#include "proto/msg/event.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

int store_stream(struct store *store, const char *id, bool create, int64_t *stream,
                 struct err *err)
{
    struct query query;
    bool row;
    *stream = 0;
    int code =
        query_read(&query, store, &store->series, "SELECT stream FROM streams WHERE id=?", err);
    if (code != 0)
        return code;
    query_text(&query, id);
    code = query_next(&query, &row, err);
    if (code == 0 && row) {
        *stream = column_int(&query, 0);
        query_end(&query);
        return 0;
    }
    if (code != 0 || !create)
        return code;
    code = query_write(&query, store, &store->series, "INSERT INTO streams(id) VALUES(?)", err);
    if (code != 0)
        return code;
    query_text(&query, id);
    code = query_run(&query, NULL, err);
    *stream = sqlite3_last_insert_rowid(store->series.handle);
    return code;
}

int store_event_offset(struct store *store, const char *id, uint64_t *offset, uint64_t *seq,
                       struct err *err)
{
    struct query query;
    bool row;
    *offset = *seq = 0;
    int code = query_read(&query, store, &store->series,
                          "SELECT offset, seq FROM streams WHERE id=?", err);
    if (code != 0)
        return code;
    query_text(&query, id);
    code = query_next(&query, &row, err);
    if (code == 0 && row) {
        *offset = (uint64_t)column_int(&query, 0);
        *seq = (uint64_t)column_int(&query, 1);
        query_end(&query);
    }
    return code;
}

int store_event_offset_set(struct store *store, const char *id, uint64_t offset,
                           struct err *err)
{
    int64_t stream;
    int code = store_stream(store, id, true, &stream, err);
    struct query query;
    if (code == 0)
        code = query_write(&query, store, &store->series,
                           "UPDATE streams SET offset=? WHERE stream=?", err);
    if (code != 0)
        return code;
    query_int(&query, (int64_t)offset);
    query_int(&query, stream);
    return query_run(&query, NULL, err);
}

int store_event_bad(struct store *store, const char *id, struct err *err)
{
    int64_t stream;
    int code = store_stream(store, id, true, &stream, err);
    struct query query;
    if (code == 0)
        code = query_write(&query, store, &store->series,
                           "UPDATE streams SET bad_lines=bad_lines+1 WHERE stream=?", err);
    if (code != 0)
        return code;
    query_int(&query, stream);
    return query_run(&query, NULL, err);
}

/* --- one function per type of event; what is absent or null becomes NULL --- */

static double real_of(const cJSON *json, const char *key)
{
    double value;
    return json_real(&value, json, key) ? value : (double)NAN;
}

static int64_t int_of(const cJSON *json, const char *key)
{
    int64_t value;
    return json_int(&value, json, key) ? value : 0;
}

static const char *text_of(const cJSON *json, const char *key)
{
    const char *value = json_string(json, key);
    return value != NULL ? value : "";
}

struct add {
    struct store *store;
    int64_t stream;
    const cJSON *json;
    struct err *err;
};

/* What was done after this step is done again. */
static int undo_after(const struct add *add, int64_t step)
{
    static const char *const undo[] = {
        "DELETE FROM steps WHERE stream=? AND step>?",
        "DELETE FROM evals WHERE stream=? AND step>?",
        "DELETE FROM refreshes WHERE stream=? AND step>?",
        "DELETE FROM checkpoints WHERE stream=? AND step>?",
    };
    struct query query;
    for (size_t i = 0; i < sizeof undo / sizeof undo[0]; i++) {
        int code = query_write(&query, add->store, &add->store->series, undo[i], add->err);
        if (code != 0)
            return code;
        query_int(&query, add->stream);
        query_int(&query, step);
        if ((code = query_run(&query, NULL, add->err)) != 0)
            return code;
    }
    return 0;
}

static int add_start(const struct add *add)
{
    struct query query;
    int64_t step = int_of(add->json, "step");
    int code = undo_after(add, step);
    if (code == 0)
        code = query_write(&query, add->store, &add->store->series,
                           "UPDATE streams SET attempt=?, done=0, step=?, steps=?, tokens=?, "
                           "step_ms=NULL, tokens_per_s=NULL"
                           " WHERE stream=?",
                           add->err);
    if (code != 0)
        return code;
    query_int(&query, int_of(add->json, "attempt"));
    query_int(&query, step);
    query_int(&query, int_of(add->json, "steps"));
    query_int(&query, step * int_of(add->json, "tokens_per_step"));
    query_int(&query, add->stream);
    return query_run(&query, NULL, add->err);
}

static int add_rollback(const struct add *add)
{
    struct query query;
    int64_t step = int_of(add->json, "step");
    int code = undo_after(add, step);
    if (code == 0)
        code = query_write(&query, add->store, &add->store->series,
                           "UPDATE streams SET step=?, tokens=? WHERE stream=?", add->err);
    if (code != 0)
        return code;
    query_int(&query, step);
    query_int(&query, int_of(add->json, "tokens"));
    query_int(&query, add->stream);
    return query_run(&query, NULL, add->err);
}

static int add_step(const struct add *add)
{
    struct query query;
    int code = query_write(&query, add->store, &add->store->series,
                           "INSERT OR REPLACE INTO steps VALUES(?,?,?,?,?,?,?,?)", add->err);
    if (code != 0)
        return code;
    query_int(&query, add->stream);
    query_int(&query, int_of(add->json, "step"));
    query_int(&query, int_of(add->json, "tokens"));
    query_real(&query, real_of(add->json, "loss"));
    query_real(&query, real_of(add->json, "grad_norm"));
    query_real(&query, real_of(add->json, "lr"));
    query_real(&query, real_of(add->json, "step_ms"));
    query_real(&query, real_of(add->json, "tokens_per_s"));
    code = query_run(&query, NULL, add->err);
    if (code == 0) /* step_ms: moving average over about 20 steps, for the time left */
        code = query_write(
            &query, add->store, &add->store->series,
            "UPDATE streams SET step=?1, tokens=?2, loss=?3, tokens_per_s=?4,"
            " step_ms=CASE WHEN step_ms IS NULL OR ?5 IS NULL THEN coalesce(?5, step_ms)"
            " ELSE step_ms + 0.05 * (?5 - step_ms) END WHERE stream=?6",
            add->err);
    if (code != 0)
        return code;
    query_int(&query, int_of(add->json, "step"));
    query_int(&query, int_of(add->json, "tokens"));
    query_real(&query, real_of(add->json, "loss"));
    query_real(&query, real_of(add->json, "tokens_per_s"));
    query_real(&query, real_of(add->json, "step_ms"));
    query_int(&query, add->stream);
    return query_run(&query, NULL, add->err);
}

static int add_eval(const struct add *add)
{
    struct query query;
    int code =
        query_write(&query, add->store, &add->store->series,
                    "INSERT OR REPLACE INTO evals(stream,step,split,loss,perplexity,tokens) "
                    "VALUES(?,?,?,?,?,?)",
                    add->err);
    if (code != 0)
        return code;
    query_int(&query, add->stream);
    query_int(&query, int_of(add->json, "step"));
    query_text(&query, text_of(add->json, "split"));
    query_real(&query, real_of(add->json, "loss"));
    query_real(&query, real_of(add->json, "perplexity"));
    query_int(&query, int_of(add->json, "tokens"));
    code = query_run(&query, NULL, add->err);
    if (code == 0)
        code = query_write(&query, add->store, &add->store->series,
                           "UPDATE streams SET eval_loss=? WHERE stream=?", add->err);
    if (code != 0)
        return code;
    query_real(&query, real_of(add->json, "loss"));
    query_int(&query, add->stream);
    return query_run(&query, NULL, add->err);
}

static int add_layer(const struct add *add, int64_t refresh, int64_t position,
                     const cJSON *layer)
{
    struct buf patterns;
    buf_init(&patterns, 64 * 1024);
    const cJSON *counts = json_array(layer, "patterns");
    if (counts != NULL)
        json_print(counts, &patterns);
    struct query query;
    int code = query_write(
        &query, add->store, &add->store->series,
        "INSERT OR REPLACE INTO refresh_layers VALUES(?,?,?,?,?,?,?,?,?,?,?,?)", add->err);
    if (code == 0) {
        query_int(&query, add->stream);
        query_int(&query, refresh);
        query_int(&query, position);
        query_text(&query, text_of(layer, "name"));
        query_real(&query, real_of(layer, "density"));
        query_int(&query, int_of(layer, "removed"));
        query_int(&query, int_of(layer, "changed_groups"));
        query_real(&query, real_of(layer, "flip_rate"));
        query_real(&query, real_of(layer, "explored"));
        query_text(&query, patterns.data);
        query_int(&query, int_of(layer, "dead_columns"));
        query_text(&query, text_of(layer, "hash"));
        code = query_run(&query, NULL, add->err);
    }
    buf_release(&patterns);
    return code;
}

static int add_refresh(const struct add *add)
{
    struct query query;
    int64_t refresh = int_of(add->json, "refresh"), position = 0;
    int code = query_write(&query, add->store, &add->store->series,
                           "INSERT OR REPLACE INTO refreshes VALUES(?,?,?,?,?)", add->err);
    if (code != 0)
        return code;
    query_int(&query, add->stream);
    query_int(&query, refresh);
    query_int(&query, int_of(add->json, "step"));
    query_real(&query, real_of(add->json, "zeta"));
    query_real(&query, real_of(add->json, "ms"));
    code = query_run(&query, NULL, add->err);
    const cJSON *layers = json_array(add->json, "layers"), *layer;
    cJSON_ArrayForEach(layer, layers)
    {
        if (code != 0)
            break;
        if (cJSON_IsObject(layer))
            code = add_layer(add, refresh, position++, layer);
    }
    return code;
}

static int add_checkpoint(const struct add *add)
{
    struct query query;
    int code =
        query_write(&query, add->store, &add->store->series,
                    "INSERT OR REPLACE INTO checkpoints VALUES(?,?,?,?,?,?,?)", add->err);
    if (code != 0)
        return code;
    query_int(&query, add->stream);
    query_int(&query, int_of(add->json, "step"));
    query_text(&query, text_of(add->json, "path"));
    query_int(&query, int_of(add->json, "bytes"));
    query_real(&query, real_of(add->json, "ms"));
    query_real(&query, real_of(add->json, "loss"));
    query_text(&query, text_of(add->json, "time"));
    return query_run(&query, NULL, add->err);
}

static int add_done(const struct add *add)
{
    struct query query;
    int code = query_write(&query, add->store, &add->store->series,
                           "UPDATE streams SET done=1, step=?, tokens=?, eval_loss=coalesce(?, "
                           "eval_loss) WHERE stream=?",
                           add->err);
    if (code != 0)
        return code;
    query_int(&query, int_of(add->json, "step"));
    query_int(&query, int_of(add->json, "tokens"));
    query_real(&query, real_of(add->json, "eval_loss"));
    query_int(&query, add->stream);
    return query_run(&query, NULL, add->err);
}

/* Types without a row here are kept as raw lines only. */
static const struct {
    const char *type;
    int (*add)(const struct add *add);
} adders[] = {
    {"start", add_start}, {"rollback", add_rollback}, {"step", add_step},
    {"eval", add_eval},   {"refresh", add_refresh},   {"checkpoint", add_checkpoint},
    {"done", add_done},
};

int store_event_add(struct store *store, const char *id, const struct event *event,
                    const char *line, size_t len, struct err *err)
{
    struct add add = {.store = store, .json = event->json, .err = err};
    struct query query;
    int changes = 0;
    int code = store_stream(store, id, true, &add.stream, err);
    if (code == 0)
        code = query_write(&query, store, &store->series,
                           "INSERT OR IGNORE INTO events VALUES(?,?,?,?)", err);
    if (code != 0)
        return code;
    query_int(&query, add.stream);
    query_int(&query, (int64_t)event->seq);
    query_text(&query, event->type);
    query_bytes(&query, line, len);
    code = query_run(&query, &changes, err);
    if (code != 0 || changes == 0)
        return code; /* a seq that is there already */
    code = query_write(&query, store, &store->series,
                       "UPDATE streams SET seq=max(seq, ?) WHERE stream=?", err);
    if (code != 0)
        return code;
    query_int(&query, (int64_t)event->seq);
    query_int(&query, add.stream);
    code = query_run(&query, NULL, err);
    for (size_t i = 0; code == 0 && i < sizeof adders / sizeof adders[0]; i++)
        if (strcmp(adders[i].type, event->type) == 0)
            code = adders[i].add(&add);
    return code;
}

int store_events_since(struct store *store, const char *id, uint64_t seq, size_t limit,
                       int (*each)(void *context, uint64_t seq, const char *type,
                                   const char *line),
                       void *context, struct err *err)
{
    struct query query;
    bool row;
    int64_t stream;
    int code = store_stream(store, id, false, &stream, err);
    if (code == 0)
        code = query_read(
            &query, store, &store->series,
            "SELECT seq, type, line FROM events WHERE stream=? AND seq>? ORDER BY seq LIMIT ?",
            err);
    if (code != 0)
        return code;
    query_int(&query, stream);
    query_int(&query, (int64_t)seq);
    query_int(&query, (int64_t)limit);
    while ((code = query_next(&query, &row, err)) == 0 && row)
        if ((code = each(context, (uint64_t)column_int(&query, 0), column_text(&query, 1),
                         column_text(&query, 2))) != 0)
            break;
    query_end(&query);
    return code;
}

int store_progress(struct store *store, const char *id, struct job_progress *out,
                   struct err *err)
{
    memset(out, 0, sizeof *out);
    struct query query;
    bool row;
    int code = query_read(&query, store, &store->series,
                          "SELECT step, steps, tokens, loss, tokens_per_s, step_ms, eval_loss, "
                          "done, attempt, bad_lines"
                          " FROM streams WHERE id=?",
                          err);
    if (code != 0)
        return code;
    query_text(&query, id);
    code = query_next(&query, &row, err);
    if (code != 0 || !row)
        return code;
    out->step = column_int(&query, 0);
    out->steps = column_int(&query, 1);
    out->tokens = column_int(&query, 2);
    out->has_loss = !column_null(&query, 3);
    out->loss = column_real(&query, 3);
    out->tokens_per_s = column_real(&query, 4);
    if (out->steps > out->step)
        out->eta_s = column_real(&query, 5) * (double)(out->steps - out->step) / 1000.0;
    out->has_eval = !column_null(&query, 6);
    out->eval_loss = column_real(&query, 6);
    out->done = column_int(&query, 7) != 0;
    out->attempt = column_int(&query, 8);
    out->bad_lines = column_int(&query, 9);
    query_end(&query);
    return 0;
}
