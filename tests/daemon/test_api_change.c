/* What changes of jobs through the API: PATCH, conditions, waiting, cancelling many, files. */
#include "tests/daemon/http_fixture.h"

#define ID "0000000000000001"
#define ID2 "0000000000000002"
#define JOB(labels)                                                                            \
    "{\"name\":\"tiny\",\"labels\":" labels ",\"data\":{\"train\":[\"corpus.txt\"]}}"

static void submit(struct fixture *f, const char *body)
{
    assert_int_equal(ask(f, "POST", "/v1/jobs", "", body)->status, 201);
}

static void labels_come_with_the_job_and_are_found(void **state)
{
    struct fixture *f = *state;
    submit(f, JOB("[\"night\",\"team=a\"]"));
    submit(f, JOB("[\"night\"]"));
    submit(f, good_job);
    static const struct {
        const char *query;
        int count;
    } cases[] = {{"label=night", 2},
                 {"label=night,team%3Da", 1},
                 {"label=team", 0},
                 {"label=nigh", 0},
                 {"label=", 3},
                 {"label=night&state=paused", 0},
                 {"label=night&name=in", 2}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char path[128];
        snprintf(path, sizeof(path), "/v1/jobs?%s", cases[i].query);
        cJSON *json = json_of(get(f, path));
        if (cJSON_GetArraySize(json_array(json, "jobs")) != cases[i].count)
            fail_msg("%s", path);
        cJSON_Delete(json);
    }
    struct reply *reply = ask(f, "POST", "/v1/jobs", "", JOB("[\"a,b\",\"a\",\"a\",\" b\"]"));
    assert_problem(reply, 422, "invalid_job");
    assert_non_null(strstr(reply->body, "/labels/0"));
    assert_non_null(strstr(reply->body, "/labels/2"));
    assert_non_null(strstr(reply->body, "/labels/3"));
}

static void patch_changes_priority_and_labels_and_the_version(void **state)
{
    struct fixture *f = *state;
    submit(f, good_job);
    assert_string_equal(header_of(get(f, "/v1/jobs/" ID), "ETag"), "\"1.0\"");
    struct reply *reply = ask(f, "PATCH", "/v1/jobs/" ID, "If-Match: \"1.0\"\r\n",
                              "{\"priority\":7,\"labels\":[\"b\",\"a\"]}");
    assert_int_equal(reply->status, 200);
    assert_non_null(strstr(reply->body, "\"priority\":7"));
    assert_non_null(strstr(reply->body, "\"labels\":[\"a\",\"b\"]"));
    char tag[64];
    snprintf(tag, sizeof(tag), "%s", header_of(reply, "ETag"));
    assert_string_not_equal(tag, "\"1.0\"");
    assert_string_equal(header_of(get(f, "/v1/jobs/" ID), "ETag"), tag);
    assert_problem(ask(f, "PATCH", "/v1/jobs/" ID, "If-Match: \"1.0\"\r\n", "{\"priority\":1}"),
                   412, "precondition_failed");
    assert_problem(ask(f, "POST", "/v1/jobs/" ID "/cancel", "If-Match: \"1.0\"\r\n", NULL), 412,
                   "precondition_failed");
    assert_int_equal(ask(f, "POST", "/v1/jobs/" ID "/cancel", "If-Match: *\r\n", NULL)->status,
                     202);
    cJSON *json = json_of(get(f, "/v1/audit?action=patch"));
    const cJSON *event = cJSON_GetArrayItem(json_array(json, "events"), 0);
    assert_string_equal(json_string(event, "detail"), "priority 7; labels b, a");
    cJSON_Delete(json);
}

static void what_a_job_trained_is_no_conflict_but_makes_a_new_tag(void **state)
{
    struct fixture *f = *state;
    static const char *const step[] = {
        "{\"seq\":1,\"time\":\"2026-11-23T01:00:00.000Z\",\"type\":\"start\",\"attempt\":1,"
        "\"step\":0,\"steps\":100,\"tokens_per_step\":10}",
        NULL};
    submit(f, good_job);
    struct reply *reply = ask(f, "GET", "/v1/jobs/" ID, "If-None-Match: \"1.0\"\r\n", NULL);
    assert_int_equal(reply->status, 304);
    assert_string_equal(reply->body, "");
    ingest(f, ID, step);
    reply = ask(f, "GET", "/v1/jobs/" ID, "If-None-Match: \"1.0\"\r\n", NULL);
    assert_int_equal(reply->status, 200);
    assert_string_equal(header_of(reply, "ETag"), "\"1.1\"");
    assert_int_equal(
        ask(f, "PATCH", "/v1/jobs/" ID, "If-Match: \"1.0\"\r\n", "{\"priority\":1}")->status,
        200);
}

static void a_wrong_patch_names_its_faults_and_changes_nothing(void **state)
{
    struct fixture *f = *state;
    submit(f, good_job);
    static const struct {
        const char *body, *field;
    } cases[] = {
        {"{\"priority\":101}", "/priority"},
        {"{\"priority\":\"1\"}", "/priority"},
        {"{\"labels\":\"a\"}", "/labels"},
        {"{\"labels\":[\"a,b\"]}", "/labels/0"},
        {"{\"labels\":[\"ok\",1]}", "/labels/1"},
        {"{\"colour\":1}", "/colour"},
        {"{}", ""},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct reply *reply = ask(f, "PATCH", "/v1/jobs/" ID, "", cases[i].body);
        assert_problem(reply, 422, "invalid_body");
        char field[64];
        snprintf(field, sizeof(field), "\"field\":\"%s\"", cases[i].field);
        if (!strstr(reply->body, field))
            fail_msg("%s: %s", cases[i].body, reply->body);
    }
    assert_problem(ask(f, "PATCH", "/v1/jobs/" ID, "", "{\"priority\":1,\"priority\":2}"), 400,
                   "invalid_json");
    assert_problem(ask(f, "PATCH", "/v1/jobs/" ID2, "", "{\"priority\":1}"), 404, "not_found");
    assert_string_equal(header_of(get(f, "/v1/jobs/" ID), "ETag"), "\"1.0\"");
}

/* --- waiting --- */

static void wait_is_answered_by_a_change_or_the_state_asked_for(void **state)
{
    struct fixture *f = *state;
    static struct reply reply;
    char text[512];
    submit(f, good_job);
    static const char *const queries[] = {"wait=30", "wait=30&until=running"};
    for (size_t i = 0; i < 2; i++) {
        int fd = client_connect(f);
        int len = snprintf(text, sizeof(text),
                           "GET /v1/jobs/" ID "?%s HTTP/1.1\r\nHost: localhost\r\n"
                           "Connection: close\r\nAuthorization: Bearer %s\r\n\r\n",
                           queries[i], fixture_token);
        client_send(fd, text, (size_t)len);
        struct pollfd ready = {.fd = fd, .events = POLLIN};
        assert_int_equal(poll(&ready, 1, 100), 0); /* held */
        if (i == 1) {
            set_state(f, ID, JOB_STARTING, 1); /* not what was asked for */
            assert_int_equal(poll(&ready, 1, 100), 0);
            set_state(f, ID, JOB_RUNNING, 1);
        } else {
            assert_int_equal(ask(f, "PATCH", "/v1/jobs/" ID, "", "{\"priority\":3}")->status,
                             200);
        }
        client_read_all(fd, &reply);
        close(fd);
        assert_int_equal(reply.status, 200);
        assert_non_null(strstr(reply.body, i ? "\"state\":\"running\"" : "\"priority\":3"));
    }
    assert_int_equal(ask(f, "POST", "/v1/jobs/" ID "/cancel", "", NULL)->status, 202);
    assert_int_equal(get(f, "/v1/jobs/" ID "?wait=30&until=running")->status, 200);
    assert_problem(get(f, "/v1/jobs/" ID "?wait=1&until=sleeping"), 400, "invalid_query");
}

/* --- many --- */

static void many_are_cancelled_by_ids_or_filter(void **state)
{
    struct fixture *f = *state;
    submit(f, JOB("[\"a\"]"));
    submit(f, JOB("[\"a\"]"));
    submit(f, good_job);
    struct reply *reply = ask(f, "POST", "/v1/jobs/cancel", "",
                              "{\"ids\":[\"" ID "\",\"00000000000000ff\",\"x\"]}");
    assert_int_equal(reply->status, 200);
    assert_non_null(
        strstr(reply->body, "{\"id\":\"" ID "\",\"status\":202,\"state\":\"cancelled\"}"));
    assert_non_null(strstr(reply->body, "{\"id\":\"00000000000000ff\",\"status\":404"));
    assert_non_null(strstr(reply->body, "\"more\":false"));
    reply = ask(f, "POST", "/v1/jobs/cancel", "", "{\"ids\":[\"" ID "\"]}");
    assert_non_null(strstr(reply->body, "\"status\":409"));
    reply = ask(f, "POST", "/v1/jobs/cancel", "", "{\"label\":\"a\",\"state\":\"queued\"}");
    assert_non_null(strstr(reply->body, "\"id\":\"" ID2 "\",\"status\":202"));
    assert_null(strstr(reply->body, "0000000000000003"));
    reply = ask(f, "POST", "/v1/jobs/cancel", "", "{\"all\":true}");
    assert_non_null(strstr(reply->body, "\"id\":\"0000000000000003\",\"status\":202"));
    static const char *const bad[] = {"{}",
                                      "{\"all\":false}",
                                      "{\"all\":1}",
                                      "{\"ids\":\"" ID "\"}",
                                      "{\"ids\":[1]}",
                                      "{\"state\":\"lost\"}",
                                      "{\"state\":1}",
                                      "{\"ids\":[],\"state\":\"queued\"}",
                                      "{\"every\":true}"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_problem(ask(f, "POST", "/v1/jobs/cancel", "", bad[i]), 422, "invalid_body");
}

/* --- idempotency in flight --- */

static void stall(struct fixture *f, void *context)
{
    (void)f;
    usleep(*(useconds_t *)context);
}

static void a_key_is_409_while_its_first_request_has_no_answer(void **state)
{
    struct fixture *f = *state;
    char text[1024];
    static struct reply reply;
    int len = snprintf(text, sizeof(text),
                       "POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
                       "Authorization: Bearer %s\r\nIdempotency-Key: k\r\n"
                       "Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s",
                       fixture_token, strlen(good_job), good_job);
    /* Both arrive while the loop is busy, so that they are handled in one turn, before the
     * commit. */
    useconds_t pause_us = 200000;
    int first, second, conflicts = 0, created = 0;
    first = client_connect(f);
    second = client_connect(f);
    usleep(50000); /* accepted */
    uint64_t one = 1;
    f->call = stall;
    f->call_context = &pause_us;
    assert_int_equal(write(f->call_fd, &one, sizeof(one)), sizeof(one));
    usleep(50000);
    client_send(first, text, (size_t)len);
    client_send(second, text, (size_t)len);
    sem_wait(&f->called);
    const int fds[] = {first, second};
    for (size_t i = 0; i < 2; i++) {
        client_read_all(fds[i], &reply);
        close(fds[i]);
        created += reply.status == 201;
        conflicts += reply.status == 409 && strstr(reply.body, "idempotency_in_flight") != NULL;
    }
    assert_int_equal(created, 1);
    assert_int_equal(conflicts, 1);
    assert_int_equal(raw(f, text, (size_t)len)->status, 201);
    assert_int_equal(f->jobs.submitted,
                     2); /* the fixture counts before the store says "known" */
    cJSON *json = json_of(get(f, "/v1/jobs"));
    assert_int_equal(cJSON_GetArraySize(json_array(json, "jobs")), 1);
    cJSON_Delete(json);
}

/* --- files --- */

static void put_file(struct fixture *f, const char *name, const char *text)
{
    char path[256], folder[256];
    snprintf(path, sizeof(path), "%s/jobs/" ID "/%s", f->dir, name);
    snprintf(folder, sizeof(folder), "%s", path);
    *strrchr(folder, '/') = '\0';
    assert_int_equal(fsx_mkdirs(folder, 0700, NULL), 0);
    assert_int_equal(fsx_publish(path, text, strlen(text), 0600, NULL), 0);
}

static void files_are_downloaded_whole_or_by_range(void **state)
{
    struct fixture *f = *state;
#define FILE_URL "/v1/jobs/" ID "/checkpoints/12/model.safetensors"
    submit(f, good_job);
    assert_problem(get(f, FILE_URL), 404, "not_found");
    put_file(f, "checkpoints/step-00000012/model.safetensors", "0123456789");
    assert_problem(get(f, "/v1/jobs/" ID "/checkpoints/12"), 404, "not_found"); /* unfinished */
    put_file(f, "checkpoints/step-00000012/manifest.json", "{}");
    put_file(f, "model/config.json", "{\"a\":1}");
    put_file(f, "secret", "top");
    struct reply *reply = get(f, "/v1/jobs/" ID "/checkpoints/12");
    assert_non_null(strstr(reply->body, "{\"name\":\"model.safetensors\",\"bytes\":10}"));
    reply = get(f, FILE_URL);
    assert_int_equal(reply->status, 200);
    assert_string_equal(reply->body, "0123456789");
    assert_string_equal(header_of(reply, "Accept-Ranges"), "bytes");
    char tag[256], headers[512];
    snprintf(tag, sizeof(tag), "%s", header_of(reply, "ETag"));
    static const struct {
        const char *range, *body, *content_range;
        int status;
    } cases[] = {
        {"bytes=2-4", "234", "bytes 2-4/10", 206},
        {"bytes=7-", "789", "bytes 7-9/10", 206},
        {"bytes=-3", "789", "bytes 7-9/10", 206},
        {"bytes=0-99", "0123456789", "bytes 0-9/10", 206},
        {"bytes=0-1,3-4", "0123456789", "", 200},
        {"bytes=4-2", "0123456789", "", 200},
        {"bytes=a-b", "0123456789", "", 200},
        {"lines=1-2", "0123456789", "", 200},
        {"bytes=-99", "0123456789", "bytes 0-9/10", 206},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        snprintf(headers, sizeof(headers), "Range: %s\r\n", cases[i].range);
        reply = ask(f, "GET", FILE_URL, headers, NULL);
        if (reply->status != cases[i].status || strcmp(reply->body, cases[i].body) != 0)
            fail_msg("%s: %s", cases[i].range, reply->text);
        assert_string_equal(header_of(reply, "Content-Range"), cases[i].content_range);
    }
    reply = ask(f, "GET", FILE_URL, "Range: bytes=10-\r\n", NULL);
    assert_problem(reply, 416, "range");
    assert_string_equal(header_of(reply, "Content-Range"), "bytes */10");
    snprintf(headers, sizeof(headers), "Range: bytes=1-1\r\nIf-Range: %s\r\n", tag);
    assert_int_equal(ask(f, "GET", FILE_URL, headers, NULL)->status, 206);
    assert_int_equal(
        ask(f, "GET", FILE_URL, "Range: bytes=1-1\r\nIf-Range: \"old\"\r\n", NULL)->status,
        200);
    snprintf(headers, sizeof(headers), "If-None-Match: %s\r\n", tag);
    assert_int_equal(ask(f, "GET", FILE_URL, headers, NULL)->status, 304);
    assert_string_equal(get(f, "/v1/jobs/" ID "/model/config.json")->body, "{\"a\":1}");
    static const char *const none[] = {
        "checkpoints/12/..",
        "checkpoints/12/%2e%2e",
        "checkpoints/12/..%2fsecret",
        "checkpoints/12/.hidden",
        "checkpoints/..%2f..%2fx/y",
        "checkpoints/x/model.safetensors",
        "model/..%2fsecret",
        "model/%2fetc%2fpasswd",
        "checkpoints/-12/model.safetensors",
    };
    for (size_t i = 0; i < sizeof(none) / sizeof(none[0]); i++) {
        char path[128];
        snprintf(path, sizeof(path), "/v1/jobs/" ID "/%s", none[i]);
        if (get(f, path)->status != 404)
            fail_msg("%s is there", path);
    }
    char link[256];
    snprintf(link, sizeof(link), "%s/jobs/" ID "/model/link", f->dir);
    assert_int_equal(symlink("/etc/passwd", link), 0);
    assert_problem(get(f, "/v1/jobs/" ID "/model/link"), 404, "not_found");
}

static void attempts_are_told_with_their_ends(void **state)
{
    struct fixture *f = *state;
    submit(f, good_job);
    cJSON *json = json_of(get(f, "/v1/jobs/" ID "/attempts"));
    assert_int_equal(cJSON_GetArraySize(json_array(json, "attempts")), 0);
    cJSON_Delete(json);
    assert_problem(get(f, "/v1/jobs/" ID2 "/attempts"), 404, "not_found");
}

/* --- drain --- */

static void a_drain_is_kept_and_readyz_says_so(void **state)
{
    struct fixture *f = *state;
    submit(f, good_job);
    struct reply *reply = ask(f, "POST", "/v1/drain", "", "{\"draining\":true}");
    assert_string_equal(reply->body, "{\"draining\":true,\"running\":0,\"waiting\":1}");
    assert_problem(get(f, "/readyz"), 503, "unavailable");
    assert_int_equal(ask(f, "POST", "/v1/jobs", "", good_job)->status, 201);
    reply = ask(f, "POST", "/v1/drain", "", "{\"draining\":false}");
    assert_int_equal(reply->status, 200);
    assert_int_equal(get(f, "/readyz")->status, 200);
    assert_problem(ask(f, "POST", "/v1/drain", "", "{\"draining\":1}"), 422, "invalid_body");
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        T(labels_come_with_the_job_and_are_found),
        T(patch_changes_priority_and_labels_and_the_version),
        T(what_a_job_trained_is_no_conflict_but_makes_a_new_tag),
        T(a_wrong_patch_names_its_faults_and_changes_nothing),
        T(wait_is_answered_by_a_change_or_the_state_asked_for),
        T(many_are_cancelled_by_ids_or_filter),
        T(a_key_is_409_while_its_first_request_has_no_answer),
        T(files_are_downloaded_whole_or_by_range),
        T(attempts_are_told_with_their_ends),
        T(a_drain_is_kept_and_readyz_says_so),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
