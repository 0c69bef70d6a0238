/* Series: columns over steps, thinned out so that a curve of any length draws the same. */
#include "daemon/store_db.h"
#include "proto/json/json.h"
#include <string.h>

enum { SERIES_KEYS_MAX = 8, SERIES_POINTS_MAX = 20000 };

/* step_keys: columns 1.. of the step query; eval_keys: columns 1.. of the evaluation query. */
static const char *const step_keys[] = {"loss",    "grad_norm",    "lr",
                                        "step_ms", "tokens_per_s", "tokens"};
static const char *const eval_keys[] = {"eval_loss", "perplexity"};
enum {
    STEP_KEYS = sizeof step_keys / sizeof step_keys[0],
    EVAL_KEYS = sizeof eval_keys / sizeof eval_keys[0]
};

struct point {
    int64_t step;
    double values[STEP_KEYS];
    bool null[STEP_KEYS];
};

struct table {
    const char *const *keys; /* what the query's columns 1.. are called */
    size_t key_count;
    const char *step_name; /* "step" or "eval_step" */
    const char *count_sql, *rows_sql;
    size_t wanted[SERIES_KEYS_MAX]; /* indices into keys */
    size_t wanted_count;
};

static size_t find_key(const char *const *keys, size_t count, const char *key)
{
    size_t i = 0;
    while (i < count && strcmp(keys[i], key) != 0)
        i++;
    return i;
}

static int want_keys(struct table *steps, struct table *evals, const char *const *keys,
                     size_t key_count, struct err *err)
{
    if (key_count == 0 || key_count > SERIES_KEYS_MAX)
        return err_set(err, ERR_INVALID, "between 1 and %d keys are possible, not %zu",
                       (int)SERIES_KEYS_MAX, key_count);
    for (size_t i = 0; i < key_count; i++) {
        struct table *table = steps;
        size_t at = find_key(steps->keys, steps->key_count, keys[i]);
        if (at == steps->key_count) {
            table = evals;
            at = find_key(evals->keys, evals->key_count, keys[i]);
        }
        if (at == table->key_count)
            return err_set(err, ERR_INVALID,
                           "there is no series '%s'; there are loss, grad_norm, lr, step_ms, "
                           "tokens_per_s, tokens, eval_loss and"
                           " perplexity",
                           keys[i]);
        bool known = false;
        for (size_t j = 0; j < table->wanted_count; j++)
            known |= table->wanted[j] == at;
        if (!known)
            table->wanted[table->wanted_count++] = at;
    }
    return 0;
}

struct output {
    const struct table *table;
    cJSON *steps, *columns[SERIES_KEYS_MAX];
    bool failed;
};

static void output_number(struct output *output, cJSON *array, double value, bool null)
{
    cJSON *item = null ? cJSON_CreateNull() : cJSON_CreateNumber(value);
    if (item == NULL || !cJSON_AddItemToArray(array, item)) {
        cJSON_Delete(item);
        output->failed = true;
    }
}

static void output_point(struct output *output, const struct point *point)
{
    output_number(output, output->steps, (double)point->step, false);
    for (size_t i = 0; i < output->table->wanted_count; i++) {
        size_t at = output->table->wanted[i];
        output_number(output, output->columns[i], point->values[at], point->null[at]);
    }
}

/* The rows of one bucket: only the lowest and the highest of the first wanted key go out, in
 * the order of their steps. A value that is not finite counts as the highest: it must be seen.
 */
struct bucket {
    struct point low, high;
    size_t seen;
};

static bool above(const struct point *a, const struct point *b, size_t key)
{
    if (a->null[key] || b->null[key])
        return a->null[key] && !b->null[key];
    return a->values[key] > b->values[key];
}

static void bucket_add(struct bucket *bucket, const struct point *point, size_t key)
{
    if (bucket->seen == 0 || above(point, &bucket->high, key))
        bucket->high = *point;
    if (bucket->seen == 0 || above(&bucket->low, point, key))
        bucket->low = *point;
    bucket->seen++;
}

static void bucket_flush(struct bucket *bucket, struct output *output)
{
    if (bucket->seen == 0)
        return;
    const struct point *first = &bucket->low, *second = &bucket->high;
    if (second->step < first->step) {
        first = &bucket->high;
        second = &bucket->low;
    }
    output_point(output, first);
    if (second->step != first->step)
        output_point(output, second);
    bucket->seen = 0;
}

static int count_rows(struct store *store, const struct table *table, int64_t stream,
                      int64_t from, int64_t to, uint64_t *count, struct err *err)
{
    struct query query;
    bool row = false;
    *count = 0;
    int code = query_read(&query, store, &store->series, table->count_sql, err);
    if (code != 0)
        return code;
    query_int(&query, stream);
    query_int(&query, from);
    query_int(&query, to);
    code = query_next(&query, &row, err);
    if (code == 0 && row) {
        *count = (uint64_t)column_int(&query, 0);
        query_end(&query);
    }
    return code;
}

static void read_point(const struct query *query, const struct table *table,
                       struct point *point)
{
    point->step = column_int(query, 0);
    for (size_t i = 0; i < table->key_count; i++) {
        point->null[i] = column_null(query, (int)i + 1);
        point->values[i] = column_real(query, (int)i + 1);
    }
}

static int read_rows(struct store *store, struct output *output, int64_t stream, int64_t from,
                     int64_t to, size_t points, struct err *err)
{
    const struct table *table = output->table;
    uint64_t count, index = 0;
    int code = count_rows(store, table, stream, from, to, &count, err);
    struct query query;
    if (code == 0)
        code = query_read(&query, store, &store->series, table->rows_sql, err);
    if (code != 0)
        return code;
    query_int(&query, stream);
    query_int(&query, from);
    query_int(&query, to);
    bool row, thin = count > points;
    uint64_t buckets = points >= 4 ? (points - 2) / 2 : 0, current = 0;
    struct bucket bucket = {.seen = 0};
    while ((code = query_next(&query, &row, err)) == 0 && row) {
        struct point point;
        read_point(&query, table, &point);
        if (!thin) {
            output_point(output, &point);
            continue;
        }
        if (index == 0 || index == count - 1) { /* the ends of a curve always go out */
            bucket_flush(&bucket, output);
            output_point(output, &point);
        } else if (buckets > 0) {
            uint64_t at = (index - 1) * buckets / (count - 2);
            if (at != current)
                bucket_flush(&bucket, output);
            current = at;
            bucket_add(&bucket, &point, table->wanted[0]);
        }
        index++;
    }
    if (code == 0)
        bucket_flush(&bucket, output);
    return code;
}

static int add_table(struct store *store, const struct table *table, int64_t stream,
                     int64_t from, int64_t to, size_t points, cJSON *object, struct err *err)
{
    if (table->wanted_count == 0)
        return 0;
    struct output output = {.table = table};
    output.steps = cJSON_AddArrayToObject(object, table->step_name);
    bool made = output.steps != NULL;
    for (size_t i = 0; i < table->wanted_count; i++) {
        output.columns[i] = cJSON_AddArrayToObject(object, table->keys[table->wanted[i]]);
        made = made && output.columns[i] != NULL;
    }
    if (!made)
        return err_set(err, ERR_NO_MEMORY, "series: out of memory");
    int code = read_rows(store, &output, stream, from, to, points, err);
    if (code == 0 && output.failed)
        code = err_set(err, ERR_NO_MEMORY, "series: out of memory");
    return code;
}

int store_series(struct store *store, const char *id, const char *const *keys, size_t key_count,
                 int64_t from, int64_t to, size_t points, struct buf *out, struct err *err)
{
    struct table steps = {
        .keys = step_keys,
        .key_count = STEP_KEYS,
        .step_name = "step",
        .count_sql = "SELECT count(*) FROM steps WHERE stream=? AND step BETWEEN ? AND ?",
        .rows_sql = "SELECT step, loss, grad_norm, lr, step_ms, tokens_per_s, tokens FROM "
                    "steps WHERE stream=? AND step"
                    " BETWEEN ? AND ? ORDER BY step",
    };
    struct table evals = {
        .keys = eval_keys,
        .key_count = EVAL_KEYS,
        .step_name = "eval_step",
        .count_sql = "SELECT count(*) FROM evals WHERE stream=? AND split='validation' AND "
                     "step BETWEEN ? AND ?",
        .rows_sql = "SELECT step, loss, perplexity FROM evals WHERE stream=? AND "
                    "split='validation' AND step BETWEEN ? AND ?"
                    " ORDER BY step",
    };
    int64_t stream;
    if (points == 0 || points > SERIES_POINTS_MAX)
        return err_set(err, ERR_INVALID, "points is %zu, must be from 1 to %d", points,
                       (int)SERIES_POINTS_MAX);
    int code = want_keys(&steps, &evals, keys, key_count, err);
    if (code == 0)
        code = store_stream(store, id, false, &stream, err);
    if (code != 0)
        return code;
    cJSON *object = cJSON_CreateObject();
    if (object == NULL)
        return err_set(err, ERR_NO_MEMORY, "series: out of memory");
    code = add_table(store, &steps, stream, from, to, points, object, err);
    if (code == 0)
        code = add_table(store, &evals, stream, from, to, points, object, err);
    if (code == 0)
        json_print(object, out);
    cJSON_Delete(object);
    if (code == 0 && out->failed)
        code = err_set(err, ERR_LIMIT, "series: the answer is longer than %zu bytes", out->max);
    return code;
}
