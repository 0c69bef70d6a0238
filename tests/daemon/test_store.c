#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "daemon/store.h"
#include "daemon/store_db.h"
#include "proto/base/fsx.h"
#include "proto/json/json.h"
#include "proto/msg/event.h"
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

struct fixture {
    char dir[64];
    struct store *store;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    struct err err;
    strcpy(f->dir, "/tmp/hebb-store-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    if (store_open(&f->store, f->dir, &err) != 0)
        fail_msg("%s", err.text);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    store_close(f->store);
    fsx_remove_tree(f->dir, NULL);
    free(f);
    return 0;
}

static void reopen(struct fixture *f)
{
    struct err err;
    store_close(f->store);
    if (store_open(&f->store, f->dir, &err) != 0)
        fail_msg("%s", err.text);
}

static struct job_row make_row(unsigned number, const char *name)
{
    struct job_row row = {.state = JOB_QUEUED, .cores = 1};
    snprintf(row.id, sizeof row.id, "%016x", number);
    snprintf(row.name, sizeof row.name, "%s", name);
    return row;
}

static void insert(struct store *store, unsigned number, const char *name)
{
    struct job_row row = make_row(number, name);
    bool existing;
    assert_int_equal(store_job_insert(store, &row, "{}", NULL, NULL, &existing, NULL), 0);
    assert_false(existing);
}

static void commit(struct store *store)
{
    struct err err;
    if (store_commit(store, &err) != 0)
        fail_msg("%s", err.text);
}

static void add_event(struct store *store, const char *id, const char *line)
{
    struct event event;
    struct err err;
    if (event_parse(&event, line, strlen(line), &err) != 0)
        fail_msg("%s", err.text);
    if (store_event_add(store, id, &event, line, strlen(line), &err) != 0)
        fail_msg("%s", err.text);
    event_release(&event);
}

static void add_eventf(struct store *store, const char *id, const char *format, ...)
{
    char line[4096];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    add_event(store, id, line);
}

#define ID "00000000000000aa"
#define TIME "\"time\":\"2026-11-23T01:02:03.456Z\""

static void job_reads_back_after_reopening(void **state)
{
    struct fixture *f = *state;
    struct job_row row = make_row(0xaa, "tiny"), got;
    bool existing;
    row.priority = -3;
    row.cores = 4;
    assert_int_equal(
        store_job_insert(f->store, &row, "{\"name\":\"tiny\"}", NULL, NULL, &existing, NULL),
        0);
    commit(f->store);
    reopen(f);
    assert_int_equal(store_job_get(f->store, ID, &got, NULL), 0);
    assert_string_equal(got.name, "tiny");
    assert_int_equal(got.state, JOB_QUEUED);
    assert_int_equal(got.priority, -3);
    assert_int_equal(got.cores, 4);
    assert_true(got.created_ms > 0);
    struct buf spec;
    buf_init(&spec, 1024);
    assert_int_equal(store_job_spec(f->store, ID, &spec, NULL), 0);
    assert_string_equal(spec.data, "{\"name\":\"tiny\"}");
    buf_release(&spec);
    assert_int_equal(store_job_get(f->store, "ffffffffffffffff", &got, NULL), ERR_NOT_FOUND);
}

static void uncommitted_turn_leaves_nothing(void **state)
{
    struct fixture *f = *state;
    struct job_row got;
    insert(f->store, 0xaa, "never");
    assert_true(store_pending(f->store));
    reopen(f);
    assert_int_equal(store_job_get(f->store, ID, &got, NULL), ERR_NOT_FOUND);
}

static void same_key_and_body_is_the_same_job(void **state)
{
    struct fixture *f = *state;
    struct job_row first = make_row(1, "one"), second = make_row(2, "two"),
                   third = make_row(3, "three");
    bool existing;
    assert_int_equal(store_job_insert(f->store, &first, "{}", "key", "hash-1", &existing, NULL),
                     0);
    assert_false(existing);
    commit(f->store);
    assert_int_equal(
        store_job_insert(f->store, &second, "{}", "key", "hash-1", &existing, NULL), 0);
    assert_true(existing);
    assert_string_equal(second.id, first.id);
    assert_string_equal(second.name, "one");
    assert_int_equal(store_job_insert(f->store, &third, "{}", "key", "hash-2", &existing, NULL),
                     ERR_CONFLICT);
    int64_t counts[JOB_STATES];
    assert_int_equal(store_jobs_count(f->store, counts, NULL), 0);
    assert_int_equal(counts[JOB_QUEUED], 1);
}

struct ids {
    char text[2048];
    int64_t last_row;
    size_t count;
};

static int collect(void *context, const struct job_row *job)
{
    struct ids *ids = context;
    snprintf(ids->text + strlen(ids->text), sizeof ids->text - strlen(ids->text), "%s ",
             job->name);
    ids->last_row = job->row;
    ids->count++;
    return 0;
}

static void pages_follow_each_other_without_overlap(void **state)
{
    struct fixture *f = *state;
    for (unsigned i = 1; i <= 5; i++) {
        char name[8];
        snprintf(name, sizeof name, "j%u", i);
        insert(f->store, i, name);
    }
    struct ids page = {.count = 0};
    struct job_filter filter = {.limit = 2};
    assert_int_equal(store_jobs_list(f->store, &filter, collect, &page, NULL), 0);
    assert_string_equal(page.text, "j5 j4 ");
    insert(f->store, 6, "j6"); /* a new job must not shift the next page */
    filter.after = page.last_row;
    page = (struct ids){.count = 0};
    assert_int_equal(store_jobs_list(f->store, &filter, collect, &page, NULL), 0);
    assert_string_equal(page.text, "j3 j2 ");
    filter.after = page.last_row;
    page = (struct ids){.count = 0};
    assert_int_equal(store_jobs_list(f->store, &filter, collect, &page, NULL), 0);
    assert_string_equal(page.text, "j1 ");
}

static void list_filters_by_state_and_by_a_part_of_the_name(void **state)
{
    struct fixture *f = *state;
    insert(f->store, 1, "alpha_1");
    insert(f->store, 2, "alphaX1");
    insert(f->store, 3, "beta");
    assert_int_equal(store_job_set_state(f->store, "0000000000000003", JOB_STARTING, "", NULL),
                     0);
    struct ids found = {.count = 0};
    struct job_filter filter = {.limit = 10, .name = "alpha_"}; /* _ is itself, no wildcard */
    assert_int_equal(store_jobs_list(f->store, &filter, collect, &found, NULL), 0);
    assert_string_equal(found.text, "alpha_1 ");
    found = (struct ids){.count = 0};
    filter = (struct job_filter){.limit = 10, .states = 1u << JOB_STARTING | 1u << JOB_PAUSED};
    assert_int_equal(store_jobs_list(f->store, &filter, collect, &found, NULL), 0);
    assert_string_equal(found.text, "beta ");
}

static void queue_is_ordered_by_priority_then_by_age(void **state)
{
    struct fixture *f = *state;
    static const int64_t priorities[] = {0, 5, 0, 5};
    for (unsigned i = 0; i < 4; i++) {
        struct job_row row = make_row(i + 1, "x");
        bool existing;
        snprintf(row.name, sizeof row.name, "j%u", i + 1);
        row.priority = priorities[i];
        assert_int_equal(store_job_insert(f->store, &row, "{}", NULL, NULL, &existing, NULL),
                         0);
    }
    struct ids all = {.count = 0};
    assert_int_equal(store_jobs_active(f->store, collect, &all, NULL), 0);
    assert_string_equal(all.text, "j2 j4 j1 j3 ");
    struct job_row head;
    bool found;
    assert_int_equal(store_jobs_head(f->store, &head, &found, NULL), 0);
    assert_true(found);
    assert_string_equal(head.name, "j2");
}

static void final_state_is_written_once(void **state)
{
    struct fixture *f = *state;
    struct job_row got;
    insert(f->store, 0xaa, "x");
    assert_int_equal(store_job_set_state(f->store, ID, JOB_STARTING, "", NULL), 0);
    assert_int_equal(store_job_set_state(f->store, ID, JOB_SUCCEEDED, "", NULL), 0);
    assert_int_equal(store_job_set_state(f->store, ID, JOB_FAILED, "clean-up failed", NULL),
                     ERR_CONFLICT);
    assert_int_equal(store_job_get(f->store, ID, &got, NULL), 0);
    assert_int_equal(got.state, JOB_SUCCEEDED);
    assert_true(got.finished_ms >= got.started_ms && got.started_ms > 0);
}

static int count_rows(void *context, const struct job_row *job)
{
    (void)job;
    ++*(int *)context;
    return 0;
}

static int due_at(struct fixture *f, int64_t now_ms)
{
    int count = 0;
    assert_int_equal(store_jobs_due(f->store, now_ms, 300 * 1000, count_rows, &count, NULL), 0);
    return count;
}

/* A clock that was put back must not make a job wait for years, one that was put forward must
 * not keep it. */
static void retry_is_due_when_the_clock_was_changed(void **state)
{
    struct fixture *f = *state;
    const int64_t at = INT64_C(1800000000000);
    insert(f->store, 0xaa, "x");
    assert_int_equal(store_job_set_state(f->store, ID, JOB_RETRY_WAIT, "", NULL), 0);
    struct job_row job;
    assert_int_equal(store_job_get(f->store, ID, &job, NULL), 0);
    job.retry_at_ms = at;
    assert_int_equal(store_job_update(f->store, &job, NULL), 0);
    assert_int_equal(due_at(f, at - 1), 0);
    assert_int_equal(due_at(f, at - 300 * 1000), 0);
    assert_int_equal(due_at(f, at), 1);
    assert_int_equal(due_at(f, at + INT64_C(1000000000)), 1); /* forward */
    assert_int_equal(due_at(f, at - 300 * 1000 - 1), 1);      /* back, by more than any wait */
    assert_int_equal(due_at(f, 0), 1);
}

static int one_intent(void *context, const char *id, enum intent_kind kind, int64_t attempt)
{
    char *text = context;
    snprintf(text + strlen(text), 256 - strlen(text), "%s/%d/%d ", id + 14, (int)kind,
             (int)attempt);
    return 0;
}

static void intents_live_until_they_are_removed(void **state)
{
    struct fixture *f = *state;
    char text[256] = "";
    insert(f->store, 0xaa, "x");
    assert_int_equal(store_intent_put(f->store, ID, INTENT_START, 1, NULL), 0);
    assert_int_equal(store_intent_put(f->store, ID, INTENT_CANCEL, 1, NULL), 0);
    assert_int_equal(store_intent_put(f->store, ID, INTENT_START, 2, NULL),
                     0); /* one row per kind */
    commit(f->store);
    reopen(f);
    assert_int_equal(store_intents(f->store, one_intent, text, NULL), 0);
    assert_non_null(strstr(text, "aa/0/2 "));
    assert_non_null(strstr(text, "aa/2/1 "));
    assert_int_equal(store_intent_remove(f->store, ID, INTENT_START, NULL), 0);
    text[0] = '\0';
    assert_int_equal(store_intents(f->store, one_intent, text, NULL), 0);
    assert_string_equal(text, "aa/2/1 ");
}

static int one_attempt(void *context, const struct attempt_row *attempt)
{
    *(struct attempt_row *)context = *attempt;
    return 0;
}

static void attempt_keeps_its_first_end(void **state)
{
    struct fixture *f = *state;
    struct attempt_exit end = {.code = 137,
                               .signal = 9,
                               .rank = 1,
                               .reason = "rank 1 was killed by signal 9"},
                        later = {.code = 1};
    struct attempt_row got;
    insert(f->store, 0xaa, "x");
    assert_int_equal(store_attempt_begin(f->store, ID, 1, NULL), 0);
    assert_int_equal(store_attempt_begin(f->store, ID, 1, NULL), 0);
    assert_int_equal(store_attempt_end(f->store, ID, 1, &end, NULL), 0);
    assert_int_equal(store_attempt_end(f->store, ID, 1, &later, NULL), 0);
    assert_int_equal(store_attempts(f->store, ID, one_attempt, &got, NULL), 0);
    assert_int_equal(got.end.code, 137);
    assert_int_equal(got.end.signal, 9);
    assert_string_equal(got.end.reason, "rank 1 was killed by signal 9");
}

/* The child commits, tells, and is killed; what it told must be there. */
static void acknowledged_rows_survive_kill_9(void **state)
{
    struct fixture *f = *state;
    store_close(f->store);
    f->store = NULL;
    int told[2];
    assert_int_equal(pipe(told), 0);
    pid_t child = fork();
    if (child == 0) {
        struct store *store;
        if (store_open(&store, f->dir, NULL) != 0)
            _exit(1);
        for (unsigned i = 1;; i++) {
            struct job_row row = make_row(i, "x");
            bool existing;
            if (store_job_insert(store, &row, "{}", NULL, NULL, &existing, NULL) != 0 ||
                store_commit(store, NULL) != 0 || write(told[1], &i, sizeof i) != sizeof i)
                _exit(1);
        }
    }
    close(told[1]);
    unsigned last = 0, number;
    while (last < 20 && read(told[0], &number, sizeof number) == sizeof number)
        last = number;
    kill(child, SIGKILL);
    while (read(told[0], &number, sizeof number) == sizeof number)
        last = number;
    waitpid(child, NULL, 0);
    close(told[0]);
    assert_true(last >= 20);
    struct err err;
    if (store_open(&f->store, f->dir, &err) != 0)
        fail_msg("%s", err.text);
    for (unsigned i = 1; i <= last; i++) {
        struct job_row expected = make_row(i, "x"), got;
        assert_int_equal(store_job_get(f->store, expected.id, &got, NULL), 0);
    }
}

static void migration_runs_only_the_missing_steps(void **state)
{
    struct fixture *f = *state;
    static const char *const steps[] = {
        "CREATE TABLE t(a INTEGER) STRICT; INSERT INTO t VALUES(1);",
        "ALTER TABLE t ADD COLUMN b INTEGER NOT NULL DEFAULT 7;",
        "CREATE TABLE u(c INTEGER) STRICT; INSERT INTO nowhere VALUES(1);",
    };
    struct store store = {.writable = true};
    struct query query;
    struct err err;
    bool row;
    char path[128];
    snprintf(path, sizeof path, "%s/other.db", f->dir);
    assert_int_equal(store_db_open(&store.state, path, "other.db", "NORMAL", NULL), 0);
    assert_int_equal(store_db_migrate(&store.state, steps, 1, NULL), 0);
    assert_int_equal(store_db_migrate(&store.state, steps, 2, NULL), 0);
    assert_int_equal(
        query_read(&query, &store, &store.state, "SELECT a, b, count(*) FROM t", NULL), 0);
    assert_int_equal(query_next(&query, &row, NULL), 0);
    assert_int_equal(column_int(&query, 0), 1);
    assert_int_equal(column_int(&query, 1), 7);
    assert_int_equal(column_int(&query, 2), 1);
    query_end(&query);
    /* A step that fails leaves nothing of itself. */
    assert_true(store_db_migrate(&store.state, steps, 3, &err) < 0);
    assert_non_null(strstr(err.text, "version 3"));
    assert_true(store_db_exec(&store.state, "SELECT * FROM u", NULL) < 0);
    assert_int_equal(store_db_migrate(&store.state, steps, 2, NULL), 0);
    /* A file from a newer hebbd is refused. */
    assert_int_equal(store_db_migrate(&store.state, steps, 1, NULL), ERR_UNSUPPORTED);
    store_db_close(&store.state);
}

static int one_event(void *context, uint64_t seq, const char *type, const char *line)
{
    char *text = context;
    assert_non_null(strstr(line, type));
    snprintf(text + strlen(text), 256 - strlen(text), "%d:%s ", (int)seq, type);
    return 0;
}

static void event_is_stored_once_and_read_back_from_a_seq(void **state)
{
    struct fixture *f = *state;
    char text[256] = "";
    add_event(
        f->store, ID,
        "{\"seq\":1," TIME
        ",\"type\":\"start\",\"attempt\":1,\"step\":0,\"steps\":10,\"tokens_per_step\":8}");
    add_event(f->store, ID,
              "{\"seq\":2," TIME
              ",\"type\":\"step\",\"step\":1,\"tokens\":8,\"loss\":5.5,\"step_ms\":100}");
    add_event(f->store, ID,
              "{\"seq\":2," TIME
              ",\"type\":\"step\",\"step\":1,\"tokens\":8,\"loss\":1.0,\"step_ms\":100}");
    add_event(f->store, ID,
              "{\"seq\":3," TIME ",\"type\":\"warning\",\"code\":\"x\",\"detail\":\"y\"}");
    assert_int_equal(store_event_offset_set(f->store, ID, 300, NULL), 0);
    commit(f->store);
    assert_int_equal(store_events_since(f->store, ID, 0, 10, one_event, text, NULL), 0);
    assert_string_equal(text, "1:start 2:step 3:warning ");
    text[0] = '\0';
    assert_int_equal(store_events_since(f->store, ID, 1, 1, one_event, text, NULL), 0);
    assert_string_equal(text, "2:step ");
    uint64_t offset, seq;
    assert_int_equal(store_event_offset(f->store, ID, &offset, &seq, NULL), 0);
    assert_int_equal(offset, 300);
    assert_int_equal(seq, 3);
    struct job_progress progress;
    assert_int_equal(store_progress(f->store, ID, &progress, NULL), 0);
    assert_true(progress.has_loss &&
                progress.loss == 5.5); /* the repeated seq changed nothing */
    assert_int_equal(progress.step, 1);
    assert_true(progress.eta_s > 0.89 && progress.eta_s < 0.91); /* 9 steps of 100 ms */
    assert_false(progress.done);
}

static cJSON *series(struct store *store, const char *const *keys, size_t count, size_t points)
{
    struct buf out;
    struct err err;
    cJSON *json;
    buf_init(&out, 1 << 20);
    if (store_series(store, ID, keys, count, 0, INT64_MAX, points, &out, &err) != 0)
        fail_msg("%s", err.text);
    assert_int_equal(json_parse(&json, out.data, out.len, NULL), 0);
    buf_release(&out);
    return json;
}

static void resumed_attempt_takes_back_the_steps_after_its_checkpoint(void **state)
{
    struct fixture *f = *state;
    static const char *const keys[] = {"loss"};
    add_event(
        f->store, ID,
        "{\"seq\":1," TIME
        ",\"type\":\"start\",\"attempt\":1,\"step\":0,\"steps\":10,\"tokens_per_step\":8}");
    for (int i = 1; i <= 5; i++)
        add_eventf(f->store, ID,
                   "{\"seq\":%d," TIME
                   ",\"type\":\"step\",\"step\":%d,\"tokens\":8,\"loss\":%d}",
                   i + 1, i, i);
    add_event(
        f->store, ID,
        "{\"seq\":7," TIME
        ",\"type\":\"start\",\"attempt\":2,\"step\":3,\"steps\":10,\"tokens_per_step\":8}");
    add_event(f->store, ID,
              "{\"seq\":8," TIME ",\"type\":\"step\",\"step\":4,\"tokens\":32,\"loss\":44}");
    cJSON *json = series(f->store, keys, 1, 100);
    const cJSON *loss = json_array(json, "loss");
    assert_int_equal(cJSON_GetArraySize(loss), 4);
    assert_true(cJSON_GetArrayItem(loss, 3)->valuedouble == 44);
    cJSON_Delete(json);
    struct job_progress progress;
    assert_int_equal(store_progress(f->store, ID, &progress, NULL), 0);
    assert_int_equal(progress.attempt, 2);
    assert_int_equal(progress.step, 4);
}

static void a_roll_back_takes_back_the_steps_after_it(void **state)
{
    struct fixture *f = *state;
    static const char *const keys[] = {"loss"};
    add_event(
        f->store, ID,
        "{\"seq\":1," TIME
        ",\"type\":\"start\",\"attempt\":1,\"step\":0,\"steps\":10,\"tokens_per_step\":8}");
    for (int i = 1; i <= 5; i++)
        add_eventf(f->store, ID,
                   "{\"seq\":%d," TIME
                   ",\"type\":\"step\",\"step\":%d,\"tokens\":%d,\"loss\":%d}",
                   i + 1, i, 8 * i, i);
    add_event(f->store, ID,
              "{\"seq\":7," TIME ",\"type\":\"rollback\",\"step\":2,\"from\":5,\"tokens\":16}");
    struct job_progress progress;
    assert_int_equal(store_progress(f->store, ID, &progress, NULL), 0);
    assert_int_equal(progress.attempt, 1);
    assert_int_equal(progress.step, 2);
    assert_int_equal(progress.tokens, 16);
    assert_int_equal(progress.steps, 10);
    cJSON *json = series(f->store, keys, 1, 100);
    assert_int_equal(cJSON_GetArraySize(json_array(json, "loss")), 2);
    cJSON_Delete(json);
}

static void thinning_keeps_the_lowest_and_the_highest_of_every_bucket(void **state)
{
    struct fixture *f = *state;
    static const char *const keys[] = {"loss", "lr"};
    for (int i = 1; i <= 1000; i++) {
        double loss = i == 333 ? 99.0 : i == 777 ? -99.0 : 5.0 + (i % 7) * 0.01;
        add_eventf(f->store, ID,
                   "{\"seq\":%d," TIME
                   ",\"type\":\"step\",\"step\":%d,\"tokens\":8,\"loss\":%g,\"lr\":%g}",
                   i, i, loss, (double)i * 0.001);
    }
    cJSON *json = series(f->store, keys, 2, 20);
    const cJSON *steps = json_array(json, "step"), *loss = json_array(json, "loss"),
                *lr = json_array(json, "lr"), *item;
    int count = cJSON_GetArraySize(steps);
    assert_true(count <= 20 && count >= 10);
    assert_int_equal(cJSON_GetArraySize(loss), count);
    assert_int_equal(cJSON_GetArraySize(lr), count);
    bool high = false, low = false;
    int64_t last = 0;
    for (int i = 0; i < count; i++) {
        int64_t step = (int64_t)cJSON_GetArrayItem(steps, i)->valuedouble;
        assert_true(step > last);
        last = step;
        high |= step == 333 && cJSON_GetArrayItem(loss, i)->valuedouble == 99.0;
        low |= step == 777 && cJSON_GetArrayItem(loss, i)->valuedouble == -99.0;
        assert_true(fabs(cJSON_GetArrayItem(lr, i)->valuedouble - (double)step * 0.001) < 1e-9);
    }
    assert_true(high && low && last == 1000); /* and the curve keeps its ends */
    assert_true(cJSON_GetArrayItem(steps, 0)->valuedouble == 1.0);
    cJSON_Delete(json);
    json = series(f->store, keys, 1, 1000); /* room for all: nothing is left out */
    int all = 0;
    cJSON_ArrayForEach(item, json_array(json, "loss")) all++;
    assert_int_equal(all, 1000);
    cJSON_Delete(json);
}

static void loss_that_is_not_finite_is_null_and_survives_thinning(void **state)
{
    struct fixture *f = *state;
    static const char *const keys[] = {"loss", "eval_loss"};
    for (int i = 1; i <= 100; i++)
        add_eventf(f->store, ID,
                   "{\"seq\":%d," TIME
                   ",\"type\":\"step\",\"step\":%d,\"tokens\":8,\"loss\":%s}",
                   i, i, i == 50 ? "null,\"nonfinite\":\"nan\"" : "2.5");
    add_event(f->store, ID,
              "{\"seq\":101," TIME ",\"type\":\"eval\",\"step\":100,\"split\":\"validation\","
              "\"loss\":3.5,\"perplexity\":33}");
    cJSON *json = series(f->store, keys, 2, 10);
    const cJSON *item;
    int nulls = 0;
    cJSON_ArrayForEach(item, json_array(json, "loss")) nulls += cJSON_IsNull(item);
    assert_int_equal(nulls, 1);
    assert_int_equal(cJSON_GetArraySize(json_array(json, "eval_step")), 1);
    assert_true(cJSON_GetArrayItem(json_array(json, "eval_loss"), 0)->valuedouble == 3.5);
    cJSON_Delete(json);
    struct job_progress progress;
    assert_int_equal(store_progress(f->store, ID, &progress, NULL), 0);
    assert_true(progress.has_eval && progress.eval_loss == 3.5);
}

static void unknown_series_is_an_error_that_names_it(void **state)
{
    struct fixture *f = *state;
    static const char *const keys[] = {"loss", "los"};
    struct buf out;
    struct err err;
    buf_init(&out, 1024);
    assert_int_equal(store_series(f->store, ID, keys, 2, 0, 10, 10, &out, &err), ERR_INVALID);
    assert_non_null(strstr(err.text, "'los'"));
    assert_int_equal(store_series(f->store, ID, keys, 1, 0, 10, 0, &out, &err), ERR_INVALID);
    buf_release(&out);
}

static void topology_gives_each_refresh_with_its_layers(void **state)
{
    struct fixture *f = *state;
    for (int i = 1; i <= 3; i++)
        add_eventf(f->store, ID,
                   "{\"seq\":%d," TIME ",\"type\":\"refresh\",\"step\":%d,\"refresh\":%d,"
                   "\"zeta\":0.1,\"ms\":2,\"layers\":["
                   "{\"name\":\"a\",\"density\":0.25,\"removed\":16,\"changed_groups\":9,"
                   "\"flip_rate\":0.5,\"explored\":0.3,"
                   "\"patterns\":[1,2,3,4],\"dead_columns\":0,\"hash\":\"00000000000000ff\"},"
                   "{\"name\":\"b\",\"density\":0.25,\"removed\":1,\"changed_groups\":1,\"flip_"
                   "rate\":0.1,\"explored\":0.3,"
                   "\"dead_columns\":2,\"hash\":\"0000000000000001\"}]}",
                   i, i * 100, i);
    struct buf out;
    cJSON *json;
    buf_init(&out, 1 << 16);
    assert_int_equal(store_topology(f->store, ID, NULL, 150, INT64_MAX, &out, NULL), 0);
    assert_int_equal(json_parse(&json, out.data, out.len, NULL), 0);
    const cJSON *refreshes = json_array(json, "refreshes"),
                *first = cJSON_GetArrayItem(refreshes, 0);
    assert_int_equal(cJSON_GetArraySize(refreshes), 2);
    const cJSON *layers = json_array(first, "layers"), *a = cJSON_GetArrayItem(layers, 0),
                *b = cJSON_GetArrayItem(layers, 1);
    assert_int_equal(cJSON_GetArraySize(layers), 2);
    assert_string_equal(json_string(a, "name"), "a");
    assert_int_equal(cJSON_GetArraySize(json_array(a, "patterns")), 4);
    assert_string_equal(json_string(a, "hash"), "00000000000000ff");
    assert_null(json_array(b, "patterns"));
    cJSON_Delete(json);
    buf_clear(&out);
    assert_int_equal(store_topology(f->store, ID, "b", 0, INT64_MAX, &out, NULL), 0);
    assert_int_equal(json_parse(&json, out.data, out.len, NULL), 0);
    refreshes = json_array(json, "refreshes");
    assert_int_equal(cJSON_GetArraySize(refreshes), 3);
    layers = json_array(cJSON_GetArrayItem(refreshes, 2), "layers");
    assert_int_equal(cJSON_GetArraySize(layers), 1);
    assert_string_equal(json_string(cJSON_GetArrayItem(layers, 0), "name"), "b");
    cJSON_Delete(json);
    buf_release(&out);
}

static void checkpoints_are_listed_by_step(void **state)
{
    struct fixture *f = *state;
    struct buf out;
    buf_init(&out, 4096);
    add_event(f->store, ID,
              "{\"seq\":1," TIME ",\"type\":\"checkpoint\",\"step\":50,\"path\":\"checkpoints/"
              "step-00000050\",\"bytes\":123,"
              "\"ms\":4,\"loss\":2.5}");
    assert_int_equal(store_checkpoints(f->store, ID, &out, NULL), 0);
    assert_string_equal(out.data, "{\"checkpoints\":[{\"step\":50,\"bytes\":123,\"loss\":2.5,"
                                  "\"path\":\"checkpoints/step-00000050\","
                                  "\"time\":\"2026-11-23T01:02:03.456Z\"}]}");
    buf_release(&out);
}

static void lost_series_asks_to_be_built_again(void **state)
{
    struct fixture *f = *state;
    char path[128];
    bool pending;
    assert_int_equal(store_rebuild_pending(f->store, &pending, NULL), 0);
    assert_true(pending); /* new */
    assert_int_equal(store_rebuild_done(f->store, NULL), 0);
    insert(f->store, 0xaa, "x");
    commit(f->store);
    reopen(f);
    assert_int_equal(store_rebuild_pending(f->store, &pending, NULL), 0);
    assert_false(pending);
    store_close(f->store);
    snprintf(path, sizeof path, "%s/series.db", f->dir);
    assert_int_equal(
        fsx_publish(path, "this is no database, it only looks like a file", 40, 0600, NULL), 0);
    f->store = NULL;
    struct err err;
    if (store_open(&f->store, f->dir, &err) != 0)
        fail_msg("%s", err.text);
    assert_int_equal(store_rebuild_pending(f->store, &pending, NULL), 0);
    assert_true(pending);
    struct job_row got;
    assert_int_equal(store_job_get(f->store, ID, &got, NULL), 0);
}

/* A file size limit is what a full disk looks like to SQLite: the turn is rolled back, reads go
 * on, and writes come back. */
static void full_disk_rolls_the_turn_back_and_heals(void **state)
{
    struct fixture *f = *state;
    struct rlimit before, tight = {.rlim_cur = 256 * 1024};
    struct job_row got;
    insert(f->store, 0xaa, "kept");
    commit(f->store);
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    tight.rlim_max = before.rlim_max;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &tight), 0);
    char *big = calloc(1, 1 << 20);
    memset(big, 'x', (1 << 20) - 1);
    struct job_row row = make_row(0xbb, "too big");
    bool existing;
    int code = store_job_insert(f->store, &row, big, NULL, NULL, &existing, NULL);
    int committed = store_commit(f->store, NULL);
    bool writable = store_writable(f->store);
    int refused = store_intent_put(f->store, ID, INTENT_PAUSE, 0, NULL);
    setrlimit(RLIMIT_FSIZE, &before);
    assert_true(code != 0 || committed != 0);
    assert_true(committed != 0);
    assert_false(writable);
    assert_true(refused != 0);
    assert_int_equal(store_job_get(f->store, ID, &got, NULL), 0);
    assert_int_equal(store_job_get(f->store, "00000000000000bb", &got, NULL), ERR_NOT_FOUND);
    for (int i = 0; i < 30 && !store_writable(f->store); i++) {
        usleep(100 * 1000);
        store_commit(f->store, NULL);
    }
    assert_true(store_writable(f->store));
    assert_int_equal(store_job_insert(f->store, &row, big, NULL, NULL, &existing, NULL), 0);
    commit(f->store);
    free(big);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(job_reads_back_after_reopening),
        TEST(uncommitted_turn_leaves_nothing),
        TEST(same_key_and_body_is_the_same_job),
        TEST(pages_follow_each_other_without_overlap),
        TEST(list_filters_by_state_and_by_a_part_of_the_name),
        TEST(queue_is_ordered_by_priority_then_by_age),
        TEST(final_state_is_written_once),
        TEST(retry_is_due_when_the_clock_was_changed),
        TEST(intents_live_until_they_are_removed),
        TEST(attempt_keeps_its_first_end),
        TEST(acknowledged_rows_survive_kill_9),
        TEST(migration_runs_only_the_missing_steps),
        TEST(event_is_stored_once_and_read_back_from_a_seq),
        TEST(resumed_attempt_takes_back_the_steps_after_its_checkpoint),
        TEST(a_roll_back_takes_back_the_steps_after_it),
        TEST(thinning_keeps_the_lowest_and_the_highest_of_every_bucket),
        TEST(loss_that_is_not_finite_is_null_and_survives_thinning),
        TEST(unknown_series_is_an_error_that_names_it),
        TEST(topology_gives_each_refresh_with_its_layers),
        TEST(checkpoints_are_listed_by_step),
        TEST(lost_series_asks_to_be_built_again),
        TEST(full_disk_rolls_the_turn_back_and_heals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
