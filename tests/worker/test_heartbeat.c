/* A rank's sign of life, and the events of faults. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "proto/base/clock.h"
#include "proto/base/fsx.h"
#include "proto/json/json.h"
#include "worker/comms.h"
#include "worker/heartbeat.h"
#include "worker/report.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { WAIT_MS = 20000 };

static char folder[64];

static int folder_make(void **state)
{
    (void)state;
    strcpy(folder, "/tmp/test_heartbeat_XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

static int folder_remove(void **state)
{
    (void)state;
    return fsx_remove_tree(folder, NULL);
}

/* The file's three numbers; it is always whole. */
static void read_beat(int64_t *rank, int64_t *step, int64_t *progress)
{
    char path[FSX_PATH_MAX];
    struct buf text;
    struct err err = {0};
    cJSON *beat;
    buf_init(&text, 1000);
    assert_int_equal(fsx_path(path, NULL, "%s/heartbeat-0", folder), 0);
    assert_int_equal(fsx_read(&text, path, &err), 0);
    assert_int_equal(text.len, HEARTBEAT_BYTES);
    assert_int_equal(text.data[HEARTBEAT_BYTES - 1], '\n');
    if (json_parse(&beat, text.data, text.len, &err) != 0)
        fail_msg("%s", err.text);
    assert_true(json_int(rank, beat, "rank") && json_int(step, beat, "step") &&
                json_int(progress, beat, "progress"));
    cJSON_Delete(beat);
    buf_release(&text);
}

static void a_heartbeat_is_there_at_once_and_goes_on_by_itself(void **state)
{
    (void)state;
    struct comm *comm;
    struct heartbeat *heartbeat;
    struct err err = {0};
    int64_t rank, step, progress;
    const struct timespec nap = {.tv_nsec = 10000000};
    assert_int_equal(comm_self_create(&comm, &err), 0);
    comm_progress(comm);
    assert_int_equal(heartbeat_start(&heartbeat, folder, comm, &err), 0);
    read_beat(&rank, &step, &progress);
    assert_int_equal(rank, 0);
    assert_int_equal(step, 0);
    assert_int_equal(progress, 1);
    heartbeat_step(heartbeat, 7);
    const int64_t until = clock_monotonic_ms() + WAIT_MS;
    while (step != 7 && clock_monotonic_ms() < until) {
        nanosleep(&nap, NULL);
        read_beat(&rank, &step, &progress);
    }
    assert_int_equal(step, 7);
    assert_int_equal(progress, 2);
    char path[FSX_PATH_MAX];
    assert_int_equal(fsx_path(path, NULL, "%s/heartbeat-0", folder), 0);
    assert_true(fsx_exists(path));
    heartbeat_stop(heartbeat); /* it leaves: no longer judged */
    assert_false(fsx_exists(path));
    comm->ops->destroy(comm);
    heartbeat_stop(NULL);
}

static void a_heartbeat_that_cannot_be_written_is_an_error(void **state)
{
    (void)state;
    struct comm *comm;
    struct heartbeat *heartbeat;
    struct err err = {0};
    assert_int_equal(comm_self_create(&comm, &err), 0);
    assert_int_equal(heartbeat_start(&heartbeat, "/dev/null/here", comm, &err), ERR_IO);
    assert_null(heartbeat);
    comm->ops->destroy(comm);
}

/* The first event of the log as JSON; the caller frees. */
static cJSON *first_event(const char *path)
{
    struct buf text;
    struct event event;
    buf_init(&text, 1 << 16);
    assert_int_equal(fsx_read(&text, path, NULL), 0);
    assert_int_equal(event_parse(&event, text.data, strcspn(text.data, "\n"), NULL), 0);
    buf_release(&text);
    return event.json;
}

static double number(const cJSON *json, const char *key)
{
    double value;
    assert_true(json_real(&value, json, key));
    return value;
}

static void a_skip_says_which_batch_and_why(void **state)
{
    (void)state;
    const struct step_result results[] = {
        {.step = 5, .batch = 9, .verdict = GUARD_SPIKE, .loss = 7, .grad_norm = 2, .limit = 3},
        {.step = 5,
         .batch = 9,
         .verdict = GUARD_NONFINITE,
         .loss = (double)NAN,
         .grad_norm = 2,
         .limit = (double)INFINITY}};
    const struct guard guard = {.streak = 2, .skipped = 6};
    for (size_t i = 0; i < 2; i++) {
        char path[FSX_PATH_MAX];
        struct event_log *log;
        struct err err = {0};
        assert_int_equal(fsx_path(path, NULL, "%s/events-%zu", folder, i), 0);
        assert_int_equal(event_log_open(&log, path, &err), 0);
        assert_int_equal(report_skip(log, &results[i], &guard, &err), 0);
        event_log_close(log);
        cJSON *event = first_event(path);
        assert_string_equal(json_string(event, "type"), "skip");
        assert_string_equal(json_string(event, "reason"), i == 0 ? "spike" : "nonfinite");
        assert_true(number(event, "step") == 5 && number(event, "batch") == 9 &&
                    number(event, "streak") == 2 && number(event, "skipped") == 6);
        assert_true(i == 0 ? number(event, "limit") == 3 && number(event, "loss") == 7
                           : strcmp(json_string(event, "nonfinite"), "nan") == 0);
        cJSON_Delete(event);
    }
}

static void a_repair_names_the_first_parameter_and_the_rank(void **state)
{
    (void)state;
    const struct agreement found = {
        .compared = true, .repaired = 3, .first = "model.norm.weight", .root = 2};
    char path[FSX_PATH_MAX];
    struct event_log *log;
    assert_int_equal(fsx_path(path, NULL, "%s/repair", folder), 0);
    assert_int_equal(event_log_open(&log, path, NULL), 0);
    assert_int_equal(report_state_repair(log, 40, &found, NULL), 0);
    event_log_close(log);
    cJSON *event = first_event(path);
    assert_string_equal(json_string(event, "type"), "state_repair");
    assert_string_equal(json_string(event, "first"), "model.norm.weight");
    assert_true(number(event, "step") == 40 && number(event, "parameters") == 3 &&
                number(event, "rank") == 2);
    cJSON_Delete(event);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_heartbeat_is_there_at_once_and_goes_on_by_itself),
        cmocka_unit_test(a_heartbeat_that_cannot_be_written_is_an_error),
        cmocka_unit_test(a_skip_says_which_batch_and_why),
        cmocka_unit_test(a_repair_names_the_first_parameter_and_the_rank),
    };
    return cmocka_run_group_tests(tests, folder_make, folder_remove);
}
