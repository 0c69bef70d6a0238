/* The wire: who is let in, what is refused, limits, deadlines, files, the commit before the
 * answer. */
#include "tests/daemon/http_fixture.h"

static struct reply *raw_text(struct fixture *f, const char *text)
{
    return raw(f, text, strlen(text));
}

/* --- parts --- */

static void addresses_are_split_into_host_and_port(void **state)
{
    (void)state;
    char host[HTTP_HOST_MAX], port[8];
    struct err err = {0};
    assert_int_equal(http_split_address("127.0.0.1:7077", host, port, &err), 0);
    assert_string_equal(host, "127.0.0.1");
    assert_string_equal(port, "7077");
    assert_int_equal(http_split_address("[::1]:0", host, port, &err), 0);
    assert_string_equal(host, "::1");
    static const char *const bad[] = {"",        "localhost", ":7077", "::1:7077", "[::1]7077",
                                      "a:70777", "a:",        "a:-1",  "a:7 ",     "[]:1"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        if (http_split_address(bad[i], host, port, &err) != ERR_INVALID)
            fail_msg("%s was taken", bad[i]);
}

static void only_the_whole_token_is_good(void **state)
{
    (void)state;
    struct daemon daemon = {0};
    struct identity who;
    struct err err = {0};
    char dir[] = "/tmp/hebb-http-XXXXXX", header[128];
    assert_non_null(mkdtemp(dir));
    assert_int_equal(store_open(&daemon.store, dir, &err), 0);
    memcpy(daemon.token, fixture_token, sizeof(fixture_token));
    snprintf(header, sizeof(header), "Bearer %s", fixture_token);
    assert_int_equal(auth_token(&daemon, header, &who, &err), 0);
    assert_int_equal(who.role, AUTH_ADMIN);
    assert_string_equal(who.name, "local");
    snprintf(header, sizeof(header), "bearer  %s", fixture_token);
    assert_int_equal(auth_token(&daemon, header, &who, &err), 0);
    assert_int_equal(who.role, AUTH_ADMIN);
    char bad[4][128];
    snprintf(bad[0], sizeof(bad[0]), "Bearer %.63s", fixture_token);
    snprintf(bad[1], sizeof(bad[1]), "Bearer %s0", fixture_token);
    snprintf(bad[2], sizeof(bad[2]), "Basic %s", fixture_token);
    snprintf(bad[3], sizeof(bad[3]), "%s", fixture_token);
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(auth_token(&daemon, bad[i], &who, &err), 0);
        assert_int_equal(who.role, AUTH_NOBODY);
    }
    assert_int_equal(auth_token(&daemon, NULL, &who, &err), 0);
    assert_int_equal(who.role, AUTH_NOBODY);
    daemon.token[0] = '\0'; /* no local token: the empty one lets nobody in */
    assert_int_equal(auth_token(&daemon, "Bearer ", &who, &err), 0);
    assert_int_equal(who.role, AUTH_NOBODY);
    store_close(daemon.store);
    fsx_remove_tree(dir, NULL);
}

static void hosts_are_loopback_names_or_the_configured_one(void **state)
{
    (void)state;
    static struct daemon daemon; /* no further hosts */
    struct http http = {.daemon = &daemon, .listen_host = "hebb.example"};
    static const char *const good[] = {"localhost",      "LOCALHOST:7077", "127.0.0.1:1",
                                       "127.8.8.8",      "[::1]:7077",     "hebb.example",
                                       "Hebb.Example:80"};
    static const char *const bad[] = {"evil.example",
                                      "evil.example:7077",
                                      "localhost.evil.example",
                                      "192.0.2.1",
                                      "",
                                      ":7077",
                                      "::1",
                                      "[::1",
                                      "localhost:x",
                                      "localhost:",
                                      "[localhost]",
                                      "127.0.0.1.evil"};
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
        if (!http_host_good(&http, good[i]))
            fail_msg("%s was refused", good[i]);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        if (http_host_good(&http, bad[i]))
            fail_msg("%s was taken", bad[i]);
    http.wildcard = true;
    assert_true(http_host_good(&http, "192.0.2.1:7077"));
    assert_false(http_host_good(&http, "evil.example"));
}

/* --- tokens --- */

static void every_route_wants_the_token_but_healthz_and_the_files(void **state)
{
    struct fixture *f = *state;
    for (const struct api_route *route = api_routes; route->path; route++) {
        char path[128], text[512];
        const char *open = strchr(route->path, '{');
        if (open)
            snprintf(path, sizeof(path), "%.*s0123456789abcdef%s", (int)(open - route->path),
                     route->path, strchr(open, '}') + 1);
        else
            snprintf(path, sizeof(path), "%s", route->path);
        static const char *const tokens[] = {
            "",
            "Authorization: Bearer "
            "10112233445566778899aabbccddeeff00112233445566778899aabbccddeeff\r\n",
            "Authorization: Bearer 0011\r\n",
            "Authorization: Basic OjA=\r\n",
        };
        for (size_t i = 0; i < 4; i++) {
            snprintf(text, sizeof(text),
                     "%s %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n%s\r\n",
                     route->method, path, tokens[i]);
            struct reply *reply = raw_text(f, text);
            if (strcmp(route->path, "/healthz") == 0) {
                assert_int_equal(reply->status, 200);
                continue;
            }
            assert_problem(reply, 401, "unauthorized");
            assert_string_equal(header_of(reply, "WWW-Authenticate"), "Bearer realm=\"hebb\"");
        }
    }
    struct reply *reply =
        raw_text(f, "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    assert_int_equal(reply->status, 200);
}

static void a_token_in_the_address_is_not_looked_at(void **state)
{
    struct fixture *f = *state;
    char text[512];
    snprintf(text, sizeof(text),
             "GET /v1/jobs?token=%s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
             fixture_token);
    assert_problem(raw_text(f, text), 401, "unauthorized");
}

static void what_is_under_v1_is_not_told_without_a_token(void **state)
{
    struct fixture *f = *state;
    assert_problem(raw_text(f, "GET /v1/nothing HTTP/1.1\r\nHost: localhost\r\n"
                               "Connection: close\r\n\r\n"),
                   401, "unauthorized");
    assert_problem(get(f, "/v1/nothing"), 404, "not_found");
}

/* --- routes --- */

static void unknown_paths_and_methods_are_problems(void **state)
{
    struct fixture *f = *state;
    assert_problem(get(f, "/nothing"), 404, "not_found");
    assert_problem(get(f, "/v1/jobs/"), 404, "not_found");
    assert_problem(get(f, "/v1/jobs/0123456789abcdeg"), 404, "not_found");
    assert_problem(get(f, "/v1/jobs/..%2f..%2fstate.db"), 404, "not_found");
    assert_problem(get(f, "/v1/jobs/0123456789abcdef"), 404, "not_found");
    struct reply *reply = ask(f, "DELETE", "/v1/jobs", "", NULL);
    assert_problem(reply, 405, "method_not_allowed");
    assert_string_equal(header_of(reply, "Allow"), "POST, GET, HEAD");
    reply = ask(f, "PUT", "/app.js", "", NULL);
    assert_problem(reply, 405, "method_not_allowed");
    assert_string_equal(header_of(reply, "Allow"), "GET, HEAD");
    reply = get(f, "/v1/jobs/0123456789abcdef/cancel");
    assert_problem(reply, 405, "method_not_allowed");
    assert_string_equal(header_of(reply, "Allow"), "POST");
}

static void all_faults_of_a_query_are_named_at_once(void **state)
{
    struct fixture *f = *state;
    struct reply *reply = get(f, "/v1/jobs?limit=0&after=x&colour=red&limit=3&name=%ff&a=%0a");
    assert_problem(reply, 400, "invalid_query");
    cJSON *json = json_of(reply);
    static const char *const fields[] = {"?limit", "?after", "?colour", "?limit", "?name", "?"};
    const cJSON *errors = json_array(json, "errors");
    assert_int_equal(cJSON_GetArraySize(errors), 6);
    for (int i = 0; i < 6; i++)
        assert_string_equal(json_string(cJSON_GetArrayItem(errors, i), "field"), fields[i]);
    cJSON_Delete(json);
}

static void head_answers_as_get_without_a_body(void **state)
{
    struct fixture *f = *state;
    struct reply *reply = ask(f, "HEAD", "/v1/jobs", "", NULL);
    assert_int_equal(reply->status, 200);
    assert_string_equal(header_of(reply, "Content-Type"), "application/json");
    assert_string_equal(header_of(reply, "Cache-Control"), "no-store");
    assert_string_equal(header_of(reply, "X-Content-Type-Options"), "nosniff");
    assert_true(atoi(header_of(reply, "Content-Length")) > 0);
    assert_string_equal(reply->body, "");
}

/* --- malformed requests --- */

static void ambiguous_and_malformed_requests_are_refused(void **state)
{
    struct fixture *f = *state;
    static const struct {
        const char *text;
        size_t len;
    } bad[] = {
#define BAD(text) {text, sizeof(text) - 1}
        BAD("GET /healthz HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n"),
        BAD("GET /healthz HTTP/1.0\r\n\r\n"),
        BAD("POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n"
            "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        BAD("POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n"
            "Content-Length: 5\r\n\r\nabcde"),
        BAD("POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: gzip\r\n\r\n"),
        BAD("GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: a\0b\r\n\r\n"),
        BAD("GET /healthz HTTP/1.1\r\nHost: localhost\0.evil.example\r\n\r\n"),
        BAD("GET /healthz\0/../v1 HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        BAD("GET /healthz%00 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"),
        BAD("GET /healthz%0 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"),
        BAD("GET /healthz%0d HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"),
        BAD("GET http://evil.example/ HTTP/1.1\r\nHost: localhost\r\nConnection: "
            "close\r\n\r\n"),
        BAD("GET /healthz HTTP/1.1\nHost: localhost\nX: y\n\n"),
        BAD("GET /healthz HTTP/1.1\r\nHost : localhost\r\nHost: localhost\r\n\r\n"),
        BAD("GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: a\x01"
            "b\r\n\r\n"),
#undef BAD
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct reply *reply = raw(f, bad[i].text, bad[i].len);
        if (reply->status != 400)
            fail_msg("request %zu got %.200s", i, reply->text);
    }
}

static void a_long_address_is_414(void **state)
{
    struct fixture *f = *state;
    char target[HTTP_URI_MAX + 100];
    memset(target, 'a', sizeof(target));
    target[0] = '/';
    target[sizeof(target) - 1] = '\0';
    assert_problem(get(f, target), 414, "uri_too_long");
}

static void another_name_in_host_is_refused(void **state)
{
    struct fixture *f = *state;
    assert_problem(raw_text(f, "GET /healthz HTTP/1.1\r\nHost: evil.example\r\n"
                               "Connection: close\r\n\r\n"),
                   403, "wrong_host");
}

static void a_foreign_page_may_not_write(void **state)
{
    struct fixture *f = *state;
    assert_problem(ask(f, "POST", "/v1/jobs", "Origin: http://evil.example\r\n", good_job), 403,
                   "foreign_origin");
    assert_problem(ask(f, "POST", "/v1/jobs", "Origin: null\r\n", good_job), 403,
                   "foreign_origin");
    assert_int_equal(
        ask(f, "POST", "/v1/jobs", "Origin: http://localhost\r\n", good_job)->status, 201);
}

/* --- limits --- */

static void bodies_over_the_limit_are_413_however_they_are_sent(void **state)
{
    struct fixture *f = *state;
    size_t len = HTTP_BODY_MAX + 1;
    char *body = malloc(len + 4096);
    memset(body, ' ', len);
    body[len] = '\0';
    assert_problem(ask(f, "POST", "/v1/jobs", "", body), 413, "too_large");
    int head =
        snprintf(body, 4096,
                 "POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %s\r\n"
                 "Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n",
                 fixture_token, HTTP_BODY_MAX + 1);
    memset(body + head, ' ', len);
    memcpy(body + head + len, "\r\n0\r\n\r\n", 7);
    assert_problem(raw(f, body, (size_t)head + len + 7), 413, "too_large");
    /* A length that nobody should send: answered at once. */
    head = snprintf(body, 4096,
                    "POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %s\r\n"
                    "Content-Length: 99999999999999999999\r\n\r\n",
                    fixture_token);
    struct reply *reply = raw(f, body, (size_t)head);
    assert_true(reply->status == 413 || reply->status == 400);
    free(body);
}

static void a_refused_body_leaves_the_connection_usable(void **state)
{
    struct fixture *f = *state;
    static const char text[] =
        "POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n"
        "{\"a\": 12}"
        "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    struct reply *reply = raw_text(f, text);
    assert_int_equal(reply->status, 401);
    assert_non_null(strstr(reply->text, "{\"status\":\"ok\"}"));
}

static void shorten_limits(struct fixture *f, void *context)
{
    (void)context;
    f->daemon.http->limits.request_ms = 400;
}

/* libmicrohttpd's own time-out counts inactivity only: a byte now and then would keep such a
 * connection for ever. */
static void a_client_that_never_ends_its_request_is_closed(void **state)
{
    struct fixture *f = *state;
    on_loop(f, shorten_limits, NULL);
    int slow = client_connect(f), body = client_connect(f);
    static const char head[] = "GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: ";
    static const char post[] =
        "POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n{";
    client_send(slow, head, sizeof(head) - 1);
    client_send(body, post, sizeof(post) - 1);
    int64_t start = clock_monotonic_ms();
    while (clock_monotonic_ms() - start < 3000) {
        char byte;
        if (send(slow, "a", 1, MSG_NOSIGNAL) < 0 || recv(slow, &byte, 1, MSG_DONTWAIT) == 0)
            break;
        usleep(20000);
    }
    int64_t took = clock_monotonic_ms() - start;
    assert_true(took >= 300 && took < 2000);
    static struct reply reply;
    client_read_all(body, &reply); /* closed, too */
    assert_int_equal(reply.status, 0);
    close(slow);
    close(body);
    assert_int_equal(get(f, "/v1/jobs")->status, 200);
}

static void an_idle_connection_is_closed_and_a_used_one_is_kept(void **state)
{
    struct fixture *f = *state;
    on_loop(f, shorten_limits, NULL);
    static const char text[] = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
    char answer[1024];
    int fd = client_connect(f);
    for (int i = 0; i < 4; i++) {
        client_send(fd, text, sizeof(text) - 1);
        assert_true(recv(fd, answer, sizeof(answer), 0) > 0);
        usleep(200000); /* in all more than a request may take */
    }
    int64_t start = clock_monotonic_ms();
    assert_int_equal(recv(fd, answer, sizeof(answer), 0), 0);
    assert_true(clock_monotonic_ms() - start < 2000);
    close(fd);
}

/* --- files --- */

static void the_dashboard_is_served_from_memory(void **state)
{
    struct fixture *f = *state;
    char known[600];
    struct reply *reply = get(f, "/");
    assert_int_equal(reply->status, 200);
    assert_string_equal(header_of(reply, "Content-Type"), "text/html; charset=utf-8");
    assert_non_null(strstr(header_of(reply, "Content-Security-Policy"), "default-src 'none'"));
    assert_string_equal(reply->body, "<!doctype html><title>hebb</title>");
    assert_int_equal(get(f, "/index.html?v=2")->status, 200);
    reply = get(f, "/app.js");
    assert_string_equal(header_of(reply, "Content-Type"), "text/javascript; charset=utf-8");
    snprintf(known, sizeof(known), "If-None-Match: %s\r\n", header_of(reply, "ETag"));
    reply = ask(f, "GET", "/app.js", known, NULL);
    assert_int_equal(reply->status, 304);
    assert_string_equal(reply->body, "");
}

static void nothing_but_the_listed_files_is_served(void **state)
{
    struct fixture *f = *state;
    static const char *const paths[] = {
        "/.hidden.js",
        "/notes.txt",
        "/../state.db",
        "/%2e%2e/state.db",
        "/..%2fstate.db",
        "//etc/passwd",
        "/web/../state.db",
        "/app.js/",
        "/APP.JS",
        "/./app.js",
        "/../../../../etc/passwd",
    };
    for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
        struct reply *reply = get(f, paths[i]);
        if (reply->status != 404)
            fail_msg("%s got %d", paths[i], reply->status);
    }
}

/* --- the commit --- */

static void set_fail_commit(struct fixture *f, void *context)
{
    f->fail_commit = context != NULL;
}

static void a_write_is_answered_after_its_commit(void **state)
{
    struct fixture *f = *state;
    int before = f->commits;
    assert_int_equal(ask(f, "POST", "/v1/jobs", "", good_job)->status, 201);
    assert_int_equal(f->commits, before + 1);
    assert_int_equal(get(f, "/v1/jobs")->status, 200);
    assert_int_equal(f->commits, before + 1); /* a read waits for nothing */
}

/* libmicrohttpd without threads does not notice by itself that a connection was resumed: an
 * answer that left with the next tick only would need 250 ms. */
static void a_held_answer_does_not_wait_for_the_tick(void **state)
{
    struct fixture *f = *state;
    int64_t start = clock_monotonic_ms();
    for (int i = 0; i < 10; i++)
        assert_int_equal(ask(f, "POST", "/v1/jobs", "", good_job)->status, 201);
    assert_true(clock_monotonic_ms() - start < 1500);
}

static void a_write_whose_commit_failed_is_503(void **state)
{
    struct fixture *f = *state;
    on_loop(f, set_fail_commit, f);
    struct reply *reply = ask(f, "POST", "/v1/jobs", "", good_job);
    assert_problem(reply, 503, "not_committed");
    assert_string_equal(header_of(reply, "Retry-After"), "5");
    assert_string_equal(header_of(reply, "Location"), "");
    assert_int_equal(f->failures, 1);
    on_loop(f, set_fail_commit, NULL);
    assert_int_equal(ask(f, "POST", "/v1/jobs", "", good_job)->status, 201);
}

static void a_stopping_daemon_takes_no_jobs(void **state)
{
    struct fixture *f = *state;
    f->daemon.stopping = true;
    assert_problem(ask(f, "POST", "/v1/jobs", "", good_job), 503, "unavailable");
    assert_problem(get(f, "/readyz"), 503, "unavailable");
    assert_int_equal(get(f, "/healthz")->status, 200);
    f->daemon.stopping = false;
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(addresses_are_split_into_host_and_port),
        cmocka_unit_test(only_the_whole_token_is_good),
        cmocka_unit_test(hosts_are_loopback_names_or_the_configured_one),
        T(every_route_wants_the_token_but_healthz_and_the_files),
        T(a_token_in_the_address_is_not_looked_at),
        T(what_is_under_v1_is_not_told_without_a_token),
        T(unknown_paths_and_methods_are_problems),
        T(all_faults_of_a_query_are_named_at_once),
        T(head_answers_as_get_without_a_body),
        T(ambiguous_and_malformed_requests_are_refused),
        T(a_long_address_is_414),
        T(another_name_in_host_is_refused),
        T(a_foreign_page_may_not_write),
        T(bodies_over_the_limit_are_413_however_they_are_sent),
        T(a_refused_body_leaves_the_connection_usable),
        T(a_client_that_never_ends_its_request_is_closed),
        T(an_idle_connection_is_closed_and_a_used_one_is_kept),
        T(the_dashboard_is_served_from_memory),
        T(nothing_but_the_listed_files_is_served),
        T(a_write_is_answered_after_its_commit),
        T(a_held_answer_does_not_wait_for_the_tick),
        T(a_write_whose_commit_failed_is_503),
        T(a_stopping_daemon_takes_no_jobs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
