/* The routes: what they take, what they answer. */
#include "tests/daemon/http_fixture.h"

#include "daemon/problem.h"

#define ID "0000000000000001"

static const char *const history[] = {
    "{\"seq\":1,\"time\":\"2026-11-23T01:00:00.000Z\",\"type\":\"start\",\"attempt\":1,"
    "\"step\":0,"
    "\"steps\":100,\"tokens_per_step\":10}",
    "{\"seq\":2,\"time\":\"2026-11-23T01:00:01.000Z\",\"type\":\"step\",\"step\":1,\"tokens\":"
    "10,"
    "\"loss\":5.5,\"grad_norm\":1,\"lr\":0.001,\"step_ms\":100,\"tokens_per_s\":100}",
    "{\"seq\":3,\"time\":\"2026-11-23T01:00:02.000Z\",\"type\":\"step\",\"step\":2,\"tokens\":"
    "20,"
    "\"loss\":null,\"nonfinite\":\"nan\",\"grad_norm\":1,\"lr\":0.002,\"step_ms\":100,"
    "\"tokens_per_s\":110}",
    "{\"seq\":4,\"time\":\"2026-11-23T01:00:03.000Z\",\"type\":\"refresh\",\"step\":2,"
    "\"refresh\":1,"
    "\"zeta\":0.1,\"ms\":3,\"layers\":[{\"name\":\"model.layers.0.self_attn.q_proj\","
    "\"density\":"
    "0.25,\"removed\":4,\"changed_groups\":3,\"flip_rate\":0.1,\"explored\":0.3,\"patterns\":["
    "1,2,3,"
    "4],\"dead_columns\":0,\"hash\":\"9f0c000000000000\"},{\"name\":"
    "\"model.layers.0.self_attn.k_proj\",\"density\":0.25,\"removed\":4,\"changed_groups\":3,"
    "\"flip_rate\":0.1,\"explored\":0.3,\"patterns\":[1,2,3,4],\"dead_columns\":0,\"hash\":"
    "\"9f0c000000000001\"}]}",
    "{\"seq\":5,\"time\":\"2026-11-23T01:00:04.000Z\",\"type\":\"step\",\"step\":3,\"tokens\":"
    "30,"
    "\"loss\":4.5,\"grad_norm\":1,\"lr\":0.003,\"step_ms\":100,\"tokens_per_s\":120}",
    "{\"seq\":6,\"time\":\"2026-11-23T01:00:05.000Z\",\"type\":\"eval\",\"step\":3,\"split\":"
    "\"validation\",\"loss\":4.4,\"perplexity\":81.4,\"tokens\":99}",
    "{\"seq\":7,\"time\":\"2026-11-23T01:00:06.000Z\",\"type\":\"checkpoint\",\"step\":3,"
    "\"path\":"
    "\"checkpoints/step-00000003\",\"bytes\":1234,\"ms\":5,\"loss\":4.5}",
    NULL,
};

static void submit_one(struct fixture *f)
{
    assert_int_equal(ask(f, "POST", "/v1/jobs", "", good_job)->status, 201);
}

static double number_at(const cJSON *object, const char *key)
{
    double value = -1;
    assert_true(json_real(&value, object, key));
    return value;
}

/* --- submit --- */

static void a_submitted_job_has_a_location_where_it_is_found(void **state)
{
    struct fixture *f = *state;
    struct reply *reply = ask(f, "POST", "/v1/jobs", "", good_job);
    assert_int_equal(reply->status, 201);
    assert_string_equal(header_of(reply, "Location"), "/v1/jobs/" ID);
    cJSON *json = json_of(reply);
    assert_string_equal(json_string(json, "id"), ID);
    assert_string_equal(json_string(json, "name"), "tiny");
    assert_string_equal(json_string(json, "state"), "queued");
    cJSON_Delete(json);
    json = json_of(get(f, "/v1/jobs/" ID));
    const cJSON *spec = json_object(json, "spec");
    assert_non_null(spec);
    assert_true(number_at(json_object(spec, "sparsity"), "m") ==
                4); /* defaults are filled in */
    assert_true(cJSON_IsNull(cJSON_GetObjectItemCaseSensitive(json, "started")));
    assert_true(
        cJSON_IsNull(cJSON_GetObjectItemCaseSensitive(json_object(json, "progress"), "loss")));
    assert_non_null(strstr(json_string(json, "created"), "Z"));
    assert_non_null(strstr(json_string(json, "folder"), "/jobs/" ID));
    cJSON_Delete(json);
}

static void all_faults_of_a_job_are_named_at_once(void **state)
{
    struct fixture *f = *state;
    struct reply *reply = ask(f, "POST", "/v1/jobs", "",
                              "{\"nmae\":\"x\",\"sparsity\":{\"n\":0,\"method\":\"magic\"},"
                              "\"train\":{\"steps\":\"many\"}}");
    assert_problem(reply, 422, "invalid_job");
    cJSON *json = json_of(reply);
    const cJSON *errors = json_array(json, "errors"), *error;
    static const char *const fields[] = {"/nmae", "/sparsity/n", "/sparsity/method",
                                         "/train/steps", "/data/train"};
    assert_int_equal(cJSON_GetArraySize(errors), 5);
    for (size_t i = 0; i < 5; i++) {
        bool found = false;
        cJSON_ArrayForEach(error, errors)
        {
            found |= strcmp(json_string(error, "field"), fields[i]) == 0;
            assert_true(json_string(error, "reason")[0]);
        }
        if (!found)
            fail_msg("no fault for %s in %s", fields[i], reply->body);
    }
    cJSON_Delete(json);
    json = json_of(get(f, "/v1/jobs"));
    assert_int_equal(cJSON_GetArraySize(json_array(json, "jobs")), 0);
    cJSON_Delete(json);
}

static void what_is_not_json_is_400_with_its_place(void **state)
{
    struct fixture *f = *state;
    static const char *const bad[] = {"",     "{",     "{\"a\":01}",
                                      "[1,]", "{} {}", "{\"name\":\"\\u0000\"}"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct reply *reply = ask(f, "POST", "/v1/jobs", "", bad[i]);
        assert_problem(reply, 400, "invalid_json");
        assert_non_null(strstr(reply->body, "line 1 column"));
    }
}

static void only_application_json_is_taken(void **state)
{
    struct fixture *f = *state;
    char text[1024];
    static const struct {
        const char *type;
        int status;
    } cases[] = {{"application/json", 201},
                 {"Application/JSON; charset=UTF-8", 201},
                 {"application/json; charset=latin1", 415},
                 {"application/jsonp", 415},
                 {"text/plain", 415},
                 {"application/x-www-form-urlencoded", 415}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        int len =
            snprintf(text, sizeof(text),
                     "POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %s\r\n"
                     "Connection: close\r\nContent-Type: %s\r\nContent-Length: %zu\r\n\r\n%s",
                     fixture_token, cases[i].type, strlen(good_job), good_job);
        struct reply *reply = raw(f, text, (size_t)len);
        if (reply->status != cases[i].status)
            fail_msg("%s got %d", cases[i].type, reply->status);
    }
}

static void what_this_machine_cannot_run_is_a_fault_too(void **state)
{
    struct fixture *f = *state;
    f->jobs.admit_fault = "wants 64 cores, there are 2";
    struct reply *reply = ask(f, "POST", "/v1/jobs", "", good_job);
    assert_problem(reply, 422, "invalid_job");
    assert_non_null(
        strstr(reply->body, "{\"field\":\"/resources/ranks\",\"reason\":\"wants 64"));
    assert_problem(ask(f, "POST", "/v1/jobs?dry_run=1", "", good_job), 422, "invalid_job");
}

static void a_dry_run_estimates_and_starts_nothing(void **state)
{
    struct fixture *f = *state;
    struct reply *reply = ask(f, "POST", "/v1/jobs?dry_run=1", "", good_job);
    assert_int_equal(reply->status, 200);
    assert_string_equal(header_of(reply, "Location"), "");
    cJSON *json = json_of(reply);
    const cJSON *estimate = json_object(json, "estimate");
    assert_true(number_at(estimate, "parameters") > 1e6);
    assert_true(number_at(json_object(estimate, "memory_per_rank_bytes"), "total") > 1e6);
    assert_true(number_at(estimate, "flops_per_token") > 1e6);
    assert_string_equal(json_string(json_object(json, "spec"), "name"), "tiny");
    cJSON_Delete(json);
    assert_int_equal(f->jobs.submitted, 0);
}

/* --- idempotency --- */

static void the_same_key_and_body_answer_the_first_job(void **state)
{
    struct fixture *f = *state;
    static const char key[] = "Idempotency-Key: run-42\r\n";
    struct reply *reply = ask(f, "POST", "/v1/jobs", key, good_job);
    assert_int_equal(reply->status, 201);
    assert_string_equal(header_of(reply, "Idempotency-Replayed"), "");
    reply = ask(f, "POST", "/v1/jobs", key, good_job);
    assert_int_equal(reply->status, 201);
    assert_string_equal(header_of(reply, "Location"), "/v1/jobs/" ID);
    assert_string_equal(header_of(reply, "Idempotency-Replayed"), "true");
    cJSON *json = json_of(get(f, "/v1/jobs"));
    assert_int_equal(cJSON_GetArraySize(json_array(json, "jobs")), 1);
    cJSON_Delete(json);
}

static void the_same_key_with_another_body_is_422(void **state)
{
    struct fixture *f = *state;
    static const char key[] = "Idempotency-Key: run-42\r\n";
    assert_int_equal(ask(f, "POST", "/v1/jobs", key, good_job)->status, 201);
    assert_problem(ask(f, "POST", "/v1/jobs", key, "{\"data\":{\"train\":[\"other.txt\"]}}"),
                   422, "idempotency_conflict");
    assert_problem(ask(f, "POST", "/v1/jobs", "Idempotency-Key: a b\r\n", good_job), 400,
                   "bad_request");
}

/* --- list --- */

static void the_list_pages_by_key_and_filters(void **state)
{
    struct fixture *f = *state;
    for (int i = 0; i < 5; i++)
        submit_one(f);
    assert_int_equal(ask(f, "POST", "/v1/jobs/" ID "/cancel", "", NULL)->status, 202);
    char path[64] = "/v1/jobs?limit=2";
    int seen = 0;
    for (int page = 0; page < 3; page++) {
        cJSON *json = json_of(get(f, path)), *job;
        cJSON_ArrayForEach(job, json_array(json, "jobs"))
        {
            char id[STORE_ID_MAX];
            snprintf(id, sizeof(id), "%016x", 5 - seen++); /* newest first, none twice */
            assert_string_equal(json_string(job, "id"), id);
        }
        int64_t after = 0;
        assert_int_equal(json_int(&after, json, "next_after"), page < 2);
        snprintf(path, sizeof(path), "/v1/jobs?limit=2&after=%lld", (long long)after);
        cJSON_Delete(json);
    }
    assert_int_equal(seen, 5);
    cJSON *json = json_of(get(f, "/v1/jobs?state=cancelled,failed&name=in"));
    assert_int_equal(cJSON_GetArraySize(json_array(json, "jobs")), 1);
    cJSON_Delete(json);
    json = json_of(get(f, "/v1/jobs?name=%25"));
    assert_int_equal(cJSON_GetArraySize(json_array(json, "jobs")), 0);
    cJSON_Delete(json);
    assert_problem(get(f, "/v1/jobs?state=queued,lost"), 400, "invalid_query");
}

/* --- actions --- */

static void an_action_answers_202_with_the_new_state_or_409(void **state)
{
    struct fixture *f = *state;
    submit_one(f);
    static const struct {
        const char *action, *state;
    } steps[] = {{"pause", "paused"},
                 {"resume", "queued"},
                 {"checkpoint", "running"},
                 {"cancel", "cancelled"}};
    for (size_t i = 0; i < 4; i++) {
        char path[64];
        snprintf(path, sizeof(path), "/v1/jobs/" ID "/%s", steps[i].action);
        struct reply *reply = ask(f, "POST", path, "", i ? "{}" : NULL);
        assert_int_equal(reply->status, 202);
        cJSON *json = json_of(reply);
        assert_string_equal(json_string(json, "state"), steps[i].state);
        cJSON_Delete(json);
    }
    struct reply *reply = ask(f, "POST", "/v1/jobs/" ID "/pause", "", NULL);
    assert_problem(reply, 409, "conflict");
    assert_non_null(strstr(reply->body, "job is cancelled"));
    assert_problem(ask(f, "POST", "/v1/jobs/00000000000000ff/pause", "", NULL), 404,
                   "not_found");
    assert_problem(ask(f, "POST", "/v1/jobs/" ID "/pause", "", "{\"hard\":true}"), 400,
                   "bad_request");
}

/* --- history --- */

static void series_come_as_columns_of_equal_length(void **state)
{
    struct fixture *f = *state;
    submit_one(f);
    ingest(f, ID, history);
    cJSON *json = json_of(get(f, "/v1/jobs/" ID "/series?keys=loss,lr,eval_loss&from=1&to=3"));
    const cJSON *loss = json_array(json, "loss");
    assert_int_equal(cJSON_GetArraySize(json_array(json, "step")), 3);
    assert_int_equal(cJSON_GetArraySize(loss), 3);
    assert_int_equal(cJSON_GetArraySize(json_array(json, "lr")), 3);
    assert_true(cJSON_IsNull(cJSON_GetArrayItem(loss, 1))); /* it was not a number */
    assert_true(cJSON_GetArrayItem(loss, 2)->valuedouble == 4.5);
    assert_true(cJSON_GetArrayItem(json_array(json, "eval_loss"), 0)->valuedouble == 4.4);
    cJSON_Delete(json);
    json = json_of(get(f, "/v1/jobs/" ID "/series"));
    assert_int_equal(cJSON_GetArraySize(json_array(json, "loss")), 3);
    cJSON_Delete(json);
    assert_problem(get(f, "/v1/jobs/" ID "/series?keys=loss,mood"), 400, "invalid_query");
    assert_problem(get(f, "/v1/jobs/" ID "/series?keys=,"), 400, "invalid_query");
    assert_problem(get(f, "/v1/jobs/00000000000000ff/series"), 404, "not_found");
}

static void progress_and_last_seq_follow_the_events(void **state)
{
    struct fixture *f = *state;
    submit_one(f);
    ingest(f, ID, history);
    set_state(f, ID, JOB_RUNNING, 1);
    cJSON *json = json_of(get(f, "/v1/jobs/" ID));
    const cJSON *progress = json_object(json, "progress");
    assert_true(number_at(progress, "step") == 3 && number_at(progress, "steps") == 100);
    assert_true(number_at(progress, "tokens") == 30 && number_at(progress, "loss") == 4.5);
    assert_true(number_at(progress, "eval_loss") == 4.4);
    assert_true(number_at(progress, "tokens_per_s") == 120 && number_at(progress, "eta_s") > 0);
    assert_true(number_at(json, "last_seq") == 7 && number_at(json, "attempt") == 1);
    cJSON_Delete(json);
}

static void topology_is_told_per_refresh_and_matrix(void **state)
{
    struct fixture *f = *state;
    submit_one(f);
    ingest(f, ID, history);
    cJSON *json = json_of(get(f, "/v1/jobs/" ID "/topology"));
    const cJSON *refresh = cJSON_GetArrayItem(json_array(json, "refreshes"), 0);
    assert_true(number_at(refresh, "step") == 2);
    assert_int_equal(cJSON_GetArraySize(json_array(refresh, "layers")), 2);
    cJSON_Delete(json);
    json = json_of(get(f, "/v1/jobs/" ID "/topology?layer=model.layers.0.self_attn.k_proj"));
    refresh = cJSON_GetArrayItem(json_array(json, "refreshes"), 0);
    const cJSON *layer = cJSON_GetArrayItem(json_array(refresh, "layers"), 0);
    assert_int_equal(cJSON_GetArraySize(json_array(refresh, "layers")), 1);
    assert_string_equal(json_string(layer, "hash"), "9f0c000000000001");
    assert_int_equal(cJSON_GetArraySize(json_array(layer, "patterns")), 4);
    cJSON_Delete(json);
    json = json_of(get(f, "/v1/jobs/" ID "/topology?from=3"));
    assert_int_equal(cJSON_GetArraySize(json_array(json, "refreshes")), 0);
    cJSON_Delete(json);
}

static void checkpoints_are_listed_while_they_are_on_disk(void **state)
{
    struct fixture *f = *state;
    char folder[256], manifest[300];
    submit_one(f);
    ingest(f, ID, history);
    cJSON *json = json_of(get(f, "/v1/jobs/" ID "/checkpoints"));
    assert_int_equal(cJSON_GetArraySize(json_array(json, "checkpoints")), 0); /* pruned */
    cJSON_Delete(json);
    snprintf(folder, sizeof(folder), "%s/jobs/" ID "/checkpoints/step-00000003",
             f->daemon.config.state_dir);
    snprintf(manifest, sizeof(manifest), "%s/manifest.json", folder);
    assert_int_equal(fsx_mkdirs(folder, 0700, NULL), 0);
    assert_int_equal(fsx_publish(manifest, "{}", 2, 0600, NULL), 0);
    json = json_of(get(f, "/v1/jobs/" ID "/checkpoints"));
    const cJSON *row = cJSON_GetArrayItem(json_array(json, "checkpoints"), 0);
    assert_true(number_at(row, "step") == 3 && number_at(row, "bytes") == 1234);
    assert_true(number_at(row, "loss") == 4.5);
    cJSON_Delete(json);
}

/* --- logs --- */

static void write_log(struct fixture *f, int attempt, const char *text)
{
    char path[256];
    struct err err = {0};
    snprintf(path, sizeof(path), "%s/jobs/" ID "/attempt-%d", f->dir, attempt);
    assert_int_equal(fsx_mkdirs(path, 0700, &err), 0);
    snprintf(path, sizeof(path), "%s/jobs/" ID "/attempt-%d/log.txt", f->dir, attempt);
    assert_int_equal(fsx_publish(path, text, strlen(text), 0600, &err), 0);
}

static void a_log_is_read_in_pieces_that_join(void **state)
{
    struct fixture *f = *state;
    submit_one(f);
    set_state(f, ID, JOB_RUNNING, 2);
    write_log(f, 1, "first");
    write_log(f, 2, "0123456789");
    char path[96], text[32] = "", offset[16] = "0";
    for (int i = 0; i < 3; i++) {
        snprintf(path, sizeof(path), "/v1/jobs/" ID "/log?limit=4&offset=%s", offset);
        struct reply *reply = get(f, path);
        assert_int_equal(reply->status, 200);
        assert_string_equal(header_of(reply, "Content-Type"), "text/plain; charset=utf-8");
        assert_string_equal(header_of(reply, "X-Attempt"), "2");
        strcat(text, reply->body);
        snprintf(offset, sizeof(offset), "%.15s", header_of(reply, "X-Next-Offset"));
    }
    assert_string_equal(text, "0123456789");
    assert_string_equal(offset, "10");
    assert_string_equal(get(f, "/v1/jobs/" ID "/log?offset=-3")->body, "789");
    assert_string_equal(get(f, "/v1/jobs/" ID "/log?offset=-99")->body, "0123456789");
    assert_string_equal(get(f, "/v1/jobs/" ID "/log?offset=99")->body, "");
    assert_string_equal(get(f, "/v1/jobs/" ID "/log?attempt=1")->body, "first");
    assert_problem(get(f, "/v1/jobs/" ID "/log?attempt=3"), 404, "not_found");
}

static void a_log_that_is_not_there_yet_is_empty_and_links_are_not_followed(void **state)
{
    struct fixture *f = *state;
    submit_one(f);
    struct reply *reply = get(f, "/v1/jobs/" ID "/log");
    assert_int_equal(reply->status, 200);
    assert_string_equal(header_of(reply, "X-Next-Offset"), "0");
    set_state(f, ID, JOB_RUNNING, 1);
    write_log(f, 1, "");
    char path[256];
    snprintf(path, sizeof(path), "%s/jobs/" ID "/attempt-1/log.txt", f->dir);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(get(f, "/v1/jobs/" ID "/log")->status, 200);
    assert_int_equal(symlink("/etc/passwd", path), 0);
    reply = get(f, "/v1/jobs/" ID "/log");
    assert_problem(reply, 500, "internal");
    assert_null(strstr(reply->body, "root:"));
}

/* --- the daemon about itself --- */

static void check_refs(const cJSON *node, const cJSON *root)
{
    const char *ref = json_string(node, "$ref");
    if (ref && strncmp(ref, "#/components/", 13) == 0) {
        char path[128];
        const cJSON *at = json_object(root, "components");
        snprintf(path, sizeof(path), "%s", ref + 13);
        for (char *save, *part = strtok_r(path, "/", &save); part;
             part = strtok_r(NULL, "/", &save))
            at = cJSON_GetObjectItemCaseSensitive(at, part);
        if (!at)
            fail_msg("%s leads nowhere", ref);
    }
    for (const cJSON *child = node->child; child; child = child->next)
        if (cJSON_IsObject(child) || cJSON_IsArray(child))
            check_refs(child, root);
}

static void openapi_has_every_route_and_its_references_resolve(void **state)
{
    struct fixture *f = *state;
    cJSON *json = json_of(get(f, "/v1/openapi.json"));
    assert_string_equal(json_string(json, "openapi"), "3.1.0");
    check_refs(json, json);
    for (const struct api_route *route = api_routes; route->path; route++) {
        const cJSON *path =
            cJSON_GetObjectItemCaseSensitive(json_object(json, "paths"), route->path);
        static const char *const methods[][2] = {
            {"GET", "get"}, {"POST", "post"}, {"PATCH", "patch"}, {"DELETE", "delete"}};
        const cJSON *operation = NULL;
        for (size_t i = 0; i < 4; i++)
            if (strcmp(methods[i][0], route->method) == 0)
                operation = json_object(path, methods[i][1]);
        assert_non_null(operation);
        assert_string_equal(json_string(operation, "operationId"), route->name);
        int options = 0;
        for (const char *c = route->path; *c; c++)
            options += *c == '{';
        for (const struct api_option *o = route->options; o && o->name; o++)
            options++;
        for (const struct api_option *o = route->headers; o && o->name; o++)
            options++;
        assert_int_equal(cJSON_GetArraySize(json_array(operation, "parameters")), options);
        /* "security": [] takes the token requirement away: for open routes only */
        assert_int_equal(json_array(operation, "security") != NULL, route->open);
    }
    cJSON_Delete(json);
}

static void docs_name_every_route_option_and_code(void **state)
{
    (void)state;
    struct buf docs;
    struct err err = {0};
    char text[128];
    buf_init(&docs, 1 << 20);
    if (fsx_read(&docs, HEBB_SOURCE_DIR "/docs/api.md", &err))
        fail_msg("%s", err.text);
    for (int i = 0; i < PROBLEM_COUNT; i++) {
        snprintf(text, sizeof(text), "| %d | `%s` |", problem_status((enum problem)i),
                 problem_code((enum problem)i));
        if (!strstr(docs.data, text))
            fail_msg("docs/api.md has no row %s", text);
    }
    for (const struct api_route *route = api_routes; route->path; route++) {
        const char *last = strrchr(route->path, '/');
        const char *wanted = last[1] != '{'                 ? last + 1
                             : strcmp(last, "/{id}") == 0   ? "/v1/jobs/ID`"
                             : strcmp(last, "/{name}") == 0 ? "/NAME`"
                             : strcmp(last, "/{step}") == 0 ? "/STEP`"
                                                            : "/FILE`";
        if (!strstr(docs.data, wanted))
            fail_msg("docs/api.md does not name %s", route->path);
        for (const struct api_option *o = route->options; o && o->name; o++)
            if (snprintf(text, sizeof(text), "%s=", o->name), !strstr(docs.data, text))
                fail_msg("docs/api.md does not name option %s of %s", o->name, route->path);
    }
    buf_release(&docs);
}

static void spec_is_the_schema_of_a_job(void **state)
{
    struct fixture *f = *state;
    struct reply *reply = get(f, "/v1/spec");
    assert_string_equal(header_of(reply, "Content-Type"), "application/schema+json");
    cJSON *json = json_of(reply);
    const cJSON *properties = json_object(json, "properties");
    assert_non_null(json_object(properties, "sparsity"));
    assert_non_null(json_object(properties, "train"));
    cJSON_Delete(json);
}

static void metrics_are_prometheus_text(void **state)
{
    struct fixture *f = *state;
    submit_one(f);
    ingest(f, ID, history);
    set_state(f, ID, JOB_RUNNING, 1);
    struct reply *reply = get(f, "/metrics");
    assert_int_equal(reply->status, 200);
    static const char *const wanted[] = {
        "# TYPE hebb_jobs gauge\n",
        "\nhebb_jobs{state=\"running\"} 1\n",
        "\nhebb_jobs{state=\"queued\"} 0\n",
        "\nhebb_slots{resource=\"cores\"} 2\n",
        "\nhebb_job_step{job=\"" ID "\"} 3\n",
        "\nhebb_job_loss{job=\"" ID "\"} 4.5\n",
        "\nhebb_ingest_events{job=\"" ID "\"} 7\n",
        "\nhebb_http_requests_total{method=\"POST\",route=\"/v1/jobs\",class=\"2xx\"} 1\n",
        "\nhebb_http_connections 1\n",
        "\nprocess_resident_memory_bytes ",
    };
    for (size_t i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++)
        if (!strstr(reply->body, wanted[i]))
            fail_msg("no %s in %s", wanted[i], reply->body);
    for (char *save, *line = strtok_r(reply->body, "\n", &save); line;
         line = strtok_r(NULL, "\n", &save)) {
        char name[64];
        double value;
        if (line[0] != '#' && sscanf(line, "%63[a-z_]%*[^ ] %lf", name, &value) != 2 &&
            sscanf(line, "%63[a-z_] %lf", name, &value) != 2)
            fail_msg("not a sample: %s", line);
    }
}

static void readyz_says_version_and_slots(void **state)
{
    struct fixture *f = *state;
    cJSON *json = json_of(get(f, "/readyz"));
    assert_string_equal(json_string(json, "version"), HEBB_VERSION);
    assert_true(number_at(json_object(json, "slots"), "cores") == 2);
    cJSON_Delete(json);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        T(a_submitted_job_has_a_location_where_it_is_found),
        T(all_faults_of_a_job_are_named_at_once),
        T(what_is_not_json_is_400_with_its_place),
        T(only_application_json_is_taken),
        T(what_this_machine_cannot_run_is_a_fault_too),
        T(a_dry_run_estimates_and_starts_nothing),
        T(the_same_key_and_body_answer_the_first_job),
        T(the_same_key_with_another_body_is_422),
        T(the_list_pages_by_key_and_filters),
        T(an_action_answers_202_with_the_new_state_or_409),
        T(series_come_as_columns_of_equal_length),
        T(progress_and_last_seq_follow_the_events),
        T(topology_is_told_per_refresh_and_matrix),
        T(checkpoints_are_listed_while_they_are_on_disk),
        T(a_log_is_read_in_pieces_that_join),
        T(a_log_that_is_not_there_yet_is_empty_and_links_are_not_followed),
        T(openapi_has_every_route_and_its_references_resolve),
        cmocka_unit_test(docs_name_every_route_option_and_code),
        T(spec_is_the_schema_of_a_job),
        T(metrics_are_prometheus_text),
        T(readyz_says_version_and_slots),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
