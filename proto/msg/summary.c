#include "proto/msg/summary.h"

#include "proto/base/mem.h"
#include "proto/json/json.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define NOT_KNOWN ((double)NAN)

void summary_init(struct summary *summary)
{
    *summary = (struct summary){.parameters = NOT_KNOWN,
                                .active_parameters = NOT_KNOWN,
                                .adapter_parameters = NOT_KNOWN,
                                .density = NOT_KNOWN,
                                .tokens = 0,
                                .final_loss = NOT_KNOWN,
                                .best_loss = NOT_KNOWN,
                                .tokens_per_s = NOT_KNOWN,
                                .refresh_share = NOT_KNOWN,
                                .flip_rate = NOT_KNOWN};
}

void summary_release(struct summary *summary)
{
    free(summary->step_rows);
    free(summary->eval_rows);
    free(summary->refresh_rows);
    summary_init(summary);
}

/* --- rows --- */

/* Room for one more element at *rows. */
static int grow(void *rows, size_t *cap, size_t count, size_t size, struct err *err)
{
    void *old, *grown;
    size_t more = *cap * 2 + 64, bytes;
    if (count < *cap) {
        return 0;
    }
    memcpy(&old, rows, sizeof(old)); /* rows: the address of a pointer to any type */
    if (!size_mul(&bytes, more, size) || !(grown = realloc(old, bytes))) {
        return err_set(err, ERR_NO_MEMORY, "out of memory for %zu events", more);
    }
    memcpy(rows, &grown, sizeof(grown));
    *cap = more;
    return 0;
}

static double number_of(const cJSON *object, const char *key)
{
    double value;
    return json_real(&value, object, key) ? value : NOT_KNOWN;
}

static int64_t whole_of(const cJSON *object, const char *key)
{
    int64_t value;
    return json_int(&value, object, key) ? value : 0;
}

/* Takes back what came after step. */
static void rewind_to(struct summary *summary, int64_t step)
{
    while (summary->step_count > 0 && summary->step_rows[summary->step_count - 1].step > step) {
        summary->step_count--;
    }
    while (summary->eval_count > 0 && summary->eval_rows[summary->eval_count - 1].step > step) {
        summary->eval_count--;
    }
    while (summary->refresh_count > 0 &&
           summary->refresh_rows[summary->refresh_count - 1].step > step) {
        summary->refresh_count--;
    }
    summary->done = false;
}

/* --- events --- */

static int on_start(struct summary *summary, const cJSON *event, struct err *err)
{
    (void)err;
    summary->attempts++;
    summary->steps = whole_of(event, "steps");
    summary->parameters = number_of(event, "parameters");
    summary->active_parameters = number_of(event, "active_parameters");
    summary->adapter_parameters = number_of(event, "adapter_parameters");
    summary->density = number_of(event, "density");
    summary->step = whole_of(event, "step");
    summary->tokens = (double)summary->step * (double)whole_of(event, "tokens_per_step");
    rewind_to(summary, summary->step);
    return 0;
}

static int on_rollback(struct summary *summary, const cJSON *event, struct err *err)
{
    (void)err;
    summary->step = whole_of(event, "step");
    summary->tokens = number_of(event, "tokens");
    rewind_to(summary, summary->step);
    return 0;
}

static int on_step(struct summary *summary, const cJSON *event, struct err *err)
{
    int rc = grow(&summary->step_rows, &summary->step_cap, summary->step_count,
                  sizeof(*summary->step_rows), err);
    if (!rc) {
        summary->step = whole_of(event, "step");
        summary->tokens = number_of(event, "tokens");
        summary->step_rows[summary->step_count++] =
            (struct summary_step){.step = summary->step,
                                  .ms = number_of(event, "step_ms"),
                                  .tokens_per_s = number_of(event, "tokens_per_s")};
    }
    return rc;
}

static int on_eval(struct summary *summary, const cJSON *event, struct err *err)
{
    const char *split = json_string(event, "split");
    if (!split || strcmp(split, "validation") != 0) {
        return 0;
    }
    int64_t step = whole_of(event, "step");
    if (summary->eval_count > 0 && summary->eval_rows[summary->eval_count - 1].step == step) {
        summary->eval_count--; /* evaluated again after a resumption at this very step */
    }
    int rc = grow(&summary->eval_rows, &summary->eval_cap, summary->eval_count,
                  sizeof(*summary->eval_rows), err);
    if (!rc) {
        summary->eval_rows[summary->eval_count++] =
            (struct summary_eval){.step = step, .loss = number_of(event, "loss")};
    }
    return rc;
}

static int on_refresh(struct summary *summary, const cJSON *event, struct err *err)
{
    const cJSON *layer;
    double sum = 0;
    size_t count = 0;
    cJSON_ArrayForEach(layer, json_array(event, "layers"))
    {
        sum += number_of(layer, "flip_rate");
        count++;
    }
    int rc = grow(&summary->refresh_rows, &summary->refresh_cap, summary->refresh_count,
                  sizeof(*summary->refresh_rows), err);
    if (!rc) {
        summary->refresh_rows[summary->refresh_count++] =
            (struct summary_refresh){.step = whole_of(event, "step"),
                                     .ms = number_of(event, "ms"),
                                     .flip_rate = count > 0 ? sum / (double)count : 0};
    }
    return rc;
}

static int on_done(struct summary *summary, const cJSON *event, struct err *err)
{
    (void)event;
    (void)err;
    summary->done = true;
    return 0;
}

int summary_add(struct summary *summary, const cJSON *event, struct err *err)
{
    static const struct {
        const char *type;
        int (*take)(struct summary *summary, const cJSON *event, struct err *err);
    } rows[] = {
        {"start", on_start},     {"step", on_step}, {"eval", on_eval},
        {"refresh", on_refresh}, {"done", on_done}, {"rollback", on_rollback},
    };
    const char *type = json_string(event, "type");
    for (size_t i = 0; type && i < sizeof(rows) / sizeof(rows[0]); i++) {
        if (strcmp(rows[i].type, type) == 0) {
            return rows[i].take(summary, event, err);
        }
    }
    return 0;
}

/* --- the whole --- */

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The median; not known of nothing. values is sorted. */
static double median_of(double *values, size_t count)
{
    if (count == 0) {
        return NOT_KNOWN;
    }
    qsort(values, count, sizeof(*values), ascending);
    return count % 2 == 1 ? values[count / 2] : (values[count / 2 - 1] + values[count / 2]) / 2;
}

static int finish_speed(struct summary *summary, struct err *err)
{
    double *speeds = mem_zeroed(summary->step_count + 1, sizeof(*speeds));
    double steps_ms = 0, refreshes_ms = 0;
    size_t known = 0;
    if (!speeds) {
        return err_set(err, ERR_NO_MEMORY, "out of memory for %zu steps", summary->step_count);
    }
    for (size_t i = 0; i < summary->step_count; i++) {
        if (isfinite(summary->step_rows[i].tokens_per_s)) {
            speeds[known++] = summary->step_rows[i].tokens_per_s;
        }
        steps_ms += summary->step_rows[i].ms;
    }
    for (size_t i = 0; i < summary->refresh_count; i++) {
        refreshes_ms += summary->refresh_rows[i].ms;
    }
    summary->tokens_per_s = median_of(speeds, known);
    summary->refresh_share = steps_ms > 0 ? refreshes_ms / steps_ms : NOT_KNOWN;
    free(speeds);
    return 0;
}

int summary_finish(struct summary *summary, struct err *err)
{
    summary->final_loss = summary->best_loss = NOT_KNOWN;
    summary->best_step = 0;
    for (size_t i = 0; i < summary->eval_count; i++) {
        const struct summary_eval *row = &summary->eval_rows[i];
        summary->final_loss = row->loss;
        if (isfinite(row->loss) &&
            (isnan(summary->best_loss) || row->loss < summary->best_loss)) {
            summary->best_loss = row->loss;
            summary->best_step = row->step;
        }
    }
    double flips = 0;
    for (size_t i = 0; i < summary->refresh_count; i++) {
        flips += summary->refresh_rows[i].flip_rate;
    }
    summary->refreshes = summary->refresh_count;
    summary->flip_rate =
        summary->refresh_count > 0 ? flips / (double)summary->refresh_count : 0;
    return finish_speed(summary, err);
}

struct spread spread_of(const double *values, size_t count)
{
    struct spread out = {.mean = NOT_KNOWN, .deviation = NOT_KNOWN, .count = count};
    double sum = 0, squares = 0;
    for (size_t i = 0; i < count; i++) {
        sum += values[i];
    }
    if (count == 0 || !isfinite(sum)) {
        return out;
    }
    out.mean = sum / (double)count;
    for (size_t i = 0; i < count; i++) {
        squares += (values[i] - out.mean) * (values[i] - out.mean);
    }
    if (count > 1) {
        out.deviation = sqrt(squares / (double)(count - 1));
    }
    return out;
}
