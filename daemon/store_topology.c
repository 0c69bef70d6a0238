/* The history of the topology, and the checkpoints, as JSON. */
#include "daemon/store_db.h"
#include "proto/json/json.h"
#include <stdbool.h>

static bool put(cJSON *object, const char *key, cJSON *item)
{
    if (item != NULL && cJSON_AddItemToObject(object, key, item))
        return true;
    cJSON_Delete(item);
    return false;
}

static bool put_int(cJSON *object, const char *key, const struct query *query, int column)
{
    return put(object, key,
               column_null(query, column)
                   ? cJSON_CreateNull()
                   : cJSON_CreateNumber((double)column_int(query, column)));
}

static bool put_real(cJSON *object, const char *key, const struct query *query, int column)
{
    return put(object, key,
               column_null(query, column) ? cJSON_CreateNull()
                                          : cJSON_CreateNumber(column_real(query, column)));
}

static bool put_text(cJSON *object, const char *key, const struct query *query, int column)
{
    return put(object, key, cJSON_CreateString(column_text(query, column)));
}

/* Columns of the query in store_topology. */
enum {
    COL_REFRESH,
    COL_STEP,
    COL_ZETA,
    COL_MS,
    COL_NAME,
    COL_DENSITY,
    COL_REMOVED,
    COL_CHANGED,
    COL_FLIP,
    COL_EXPLORED,
    COL_PATTERNS,
    COL_DEAD,
    COL_HASH
};

static bool add_layer(cJSON *layers, const struct query *query)
{
    if (column_null(query, COL_NAME)) /* a refresh without layers */
        return true;
    cJSON *layer = cJSON_CreateObject();
    if (layer == NULL || !cJSON_AddItemToArray(layers, layer)) {
        cJSON_Delete(layer);
        return false;
    }
    bool ok = put_text(layer, "name", query, COL_NAME) &&
              put_real(layer, "density", query, COL_DENSITY) &&
              put_int(layer, "removed", query, COL_REMOVED) &&
              put_int(layer, "changed_groups", query, COL_CHANGED) &&
              put_real(layer, "flip_rate", query, COL_FLIP) &&
              put_real(layer, "explored", query, COL_EXPLORED);
    if (ok && !column_null(query, COL_PATTERNS)) /* our own print of the event's array */
        ok = put(layer, "patterns", cJSON_CreateRaw(column_text(query, COL_PATTERNS)));
    return ok && put_int(layer, "dead_columns", query, COL_DEAD) &&
           put_text(layer, "hash", query, COL_HASH);
}

static cJSON *add_refresh(cJSON *refreshes, const struct query *query)
{
    cJSON *refresh = cJSON_CreateObject();
    if (refresh == NULL || !cJSON_AddItemToArray(refreshes, refresh)) {
        cJSON_Delete(refresh);
        return NULL;
    }
    if (!put_int(refresh, "refresh", query, COL_REFRESH) ||
        !put_int(refresh, "step", query, COL_STEP) ||
        !put_real(refresh, "zeta", query, COL_ZETA) || !put_real(refresh, "ms", query, COL_MS))
        return NULL;
    return cJSON_AddArrayToObject(refresh, "layers");
}

static int read_refreshes(struct query *query, cJSON *refreshes, struct err *err)
{
    bool row;
    int code;
    int64_t last = -1;
    cJSON *layers = NULL;
    while ((code = query_next(query, &row, err)) == 0 && row) {
        if (layers == NULL || column_int(query, COL_REFRESH) != last)
            layers = add_refresh(refreshes, query);
        last = column_int(query, COL_REFRESH);
        if (layers == NULL || !add_layer(layers, query)) {
            code = err_set(err, ERR_NO_MEMORY, "topology: out of memory");
            break;
        }
    }
    query_end(query);
    return code;
}

static int print(const cJSON *object, struct buf *out, const char *what, struct err *err)
{
    json_print(object, out);
    return out->failed ? err_set(err, ERR_LIMIT, "%s: the answer is longer than %zu bytes",
                                 what, out->max)
                       : 0;
}

int store_topology(struct store *store, const char *id, const char *layer, int64_t from,
                   int64_t to, struct buf *out, struct err *err)
{
    int64_t stream;
    struct query query;
    int code = store_stream(store, id, false, &stream, err);
    if (code == 0)
        code = query_read(
            &query, store, &store->series,
            "SELECT r.refresh, r.step, r.zeta, r.ms, l.name, l.density, l.removed, "
            "l.changed_groups, l.flip_rate,"
            " l.explored, l.patterns, l.dead_columns, l.hash FROM refreshes r LEFT JOIN "
            "refresh_layers l ON"
            " l.stream = r.stream AND l.refresh = r.refresh AND (?4 IS NULL OR l.name = ?4)"
            " WHERE r.stream = ?1 AND r.step BETWEEN ?2 AND ?3 ORDER BY r.refresh, l.position",
            err);
    if (code != 0)
        return code;
    query_int(&query, stream);
    query_int(&query, from);
    query_int(&query, to);
    query_text(&query, layer);
    cJSON *object = cJSON_CreateObject();
    cJSON *refreshes = object != NULL ? cJSON_AddArrayToObject(object, "refreshes") : NULL;
    if (refreshes != NULL)
        code = read_refreshes(&query, refreshes, err);
    else
        code = err_set(err, ERR_NO_MEMORY, "topology: out of memory");
    query_end(&query);
    if (code == 0)
        code = print(object, out, "topology", err);
    cJSON_Delete(object);
    return code;
}

int store_checkpoints(struct store *store, const char *id, struct buf *out, struct err *err)
{
    int64_t stream;
    struct query query;
    bool row;
    int code = store_stream(store, id, false, &stream, err);
    if (code == 0)
        code = query_read(&query, store, &store->series,
                          "SELECT step, bytes, loss, path, time FROM checkpoints WHERE "
                          "stream=? ORDER BY step",
                          err);
    if (code != 0)
        return code;
    query_int(&query, stream);
    cJSON *object = cJSON_CreateObject();
    cJSON *list = object != NULL ? cJSON_AddArrayToObject(object, "checkpoints") : NULL;
    bool ok = list != NULL;
    while (ok && (code = query_next(&query, &row, err)) == 0 && row) {
        cJSON *item = cJSON_CreateObject();
        ok = item != NULL && cJSON_AddItemToArray(list, item);
        if (!ok)
            cJSON_Delete(item);
        ok = ok && put_int(item, "step", &query, 0) && put_int(item, "bytes", &query, 1) &&
             put_real(item, "loss", &query, 2) && put_text(item, "path", &query, 3) &&
             put_text(item, "time", &query, 4);
    }
    query_end(&query);
    if (code == 0 && !ok)
        code = err_set(err, ERR_NO_MEMORY, "checkpoints: out of memory");
    if (code == 0)
        code = print(object, out, "checkpoints", err);
    cJSON_Delete(object);
    return code;
}
