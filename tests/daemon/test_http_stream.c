/* Server-sent events and long polls. */
#include "tests/daemon/http_fixture.h"

#define ID "0000000000000001"
#define STEP(seq)                                                                              \
    "{\"seq\":" #seq ",\"time\":\"2026-11-23T01:00:00.000Z\",\"type\":\"step\",\"step\":" #seq \
    "}"

static const char *const three[] = {STEP(1), STEP(2), STEP(3), NULL};
static const char *const fourth[] = {STEP(4), NULL};

static int running_job(void **state)
{
    fixture_setup(state);
    struct fixture *f = *state;
    assert_int_equal(ask(f, "POST", "/v1/jobs", "", good_job)->status, 201);
    set_state(f, ID, JOB_RUNNING, 1);
    ingest(f, ID, three);
    return 0;
}

/* --- a streaming client --- */

struct stream {
    int fd;
    size_t len;
    char text[1 << 16];
};

static void stream_open(struct fixture *f, struct stream *stream, const char *headers)
{
    char text[512];
    int len = snprintf(text, sizeof(text),
                       "GET /v1/jobs/" ID "/events HTTP/1.1\r\nHost: localhost\r\n"
                       "Authorization: Bearer %s\r\n%s\r\n",
                       fixture_token, headers);
    stream->fd = client_connect(f);
    stream->len = 0;
    stream->text[0] = '\0';
    client_send(stream->fd, text, (size_t)len);
}

/* Reads until text has come, or fails after 3 s. */
static void stream_expect(struct stream *stream, const char *text)
{
    int64_t until = clock_monotonic_ms() + 3000;
    while (!strstr(stream->text, text)) {
        struct pollfd ready = {.fd = stream->fd, .events = POLLIN};
        if (clock_monotonic_ms() > until)
            fail_msg("no %s in %s", text, stream->text);
        if (poll(&ready, 1, 50) == 0)
            continue;
        ssize_t got = recv(stream->fd, stream->text + stream->len,
                           sizeof(stream->text) - 1 - stream->len, 0);
        if (got <= 0)
            fail_msg("ended before %s: %s", text, stream->text);
        stream->len += (size_t)got;
        stream->text[stream->len] = '\0';
    }
}

static void stream_forget(struct stream *stream)
{
    stream->len = 0;
    stream->text[0] = '\0';
}

static void a_stream_replays_all_events_and_then_tells_the_state(void **state)
{
    struct fixture *f = *state;
    static struct stream s;
    stream_open(f, &s, "");
    stream_expect(&s, "event: state\ndata: {\"id\":\"" ID "\"");
    assert_non_null(strstr(s.text, "Content-Type: text/event-stream\r\n"));
    assert_non_null(strstr(s.text, "X-Accel-Buffering: no\r\n"));
    assert_non_null(strstr(s.text, "retry: 2000\n"));
    assert_non_null(strstr(s.text, "id: 1\nevent: step\ndata: " STEP(1) "\n\n"));
    assert_non_null(strstr(s.text, "id: 3\nevent: step\ndata: " STEP(3) "\n\n"));
    assert_true(strstr(s.text, "id: 3") < strstr(s.text, "event: state"));
    close(s.fd);
}

static void a_stream_goes_on_after_the_last_event_id(void **state)
{
    struct fixture *f = *state;
    static struct stream s;
    stream_open(f, &s, "Last-Event-ID: 2\r\n");
    stream_expect(&s, "event: state");
    assert_null(strstr(s.text, "id: 2\n"));
    assert_non_null(strstr(s.text, "id: 3\n"));
    close(s.fd);
    struct reply *reply =
        ask(f, "GET", "/v1/jobs/" ID "/events", "Last-Event-ID: two\r\n", NULL);
    assert_problem(reply, 400, "bad_request");
}

static void news_reach_every_stream_of_their_job_at_once(void **state)
{
    struct fixture *f = *state;
    static struct stream s[8];
    for (int i = 0; i < 8; i++) {
        stream_open(f, &s[i], "Last-Event-ID: 3\r\n");
        stream_expect(&s[i], "event: state");
        stream_forget(&s[i]);
    }
    int64_t start = clock_monotonic_ms();
    ingest(f, ID, fourth);
    for (int i = 0; i < 8; i++)
        stream_expect(&s[i], "id: 4\n");
    assert_true(clock_monotonic_ms() - start < 1000);
    for (int i = 0; i < 8; i++) {
        assert_null(strstr(s[i].text, "event: state")); /* it did not change */
        close(s[i].fd);
    }
}

static void a_stream_ends_after_the_final_state(void **state)
{
    struct fixture *f = *state;
    static struct stream s;
    static struct reply rest;
    stream_open(f, &s, "Connection: close\r\n");
    stream_expect(&s, "\"state\":\"running\"");
    set_state(f, ID, JOB_SUCCEEDED, 1);
    stream_expect(&s, "\"state\":\"succeeded\"");
    client_read_all(s.fd, &rest); /* fails if there is no end */
    close(s.fd);
    stream_open(f, &s, "Connection: close\r\n");
    client_read_all(s.fd, &rest);
    assert_non_null(strstr(rest.text, "id: 3\n"));
    assert_non_null(strstr(rest.text, "\"state\":\"succeeded\""));
    close(s.fd);
}

static void short_comments(struct fixture *f, void *context)
{
    (void)context;
    f->daemon.http->limits.comment_ms = 200;
}

static void read_streams(struct fixture *f, void *count)
{
    *(size_t *)count = f->daemon.http->stats.streams;
}

static void a_silent_stream_gets_comments_by_which_a_gone_client_is_seen(void **state)
{
    struct fixture *f = *state;
    static struct stream s;
    on_loop(f, short_comments, NULL);
    stream_open(f, &s, "");
    stream_expect(&s, "event: state");
    stream_forget(&s);
    stream_expect(&s, ":\n\n");
    close(s.fd);
    size_t count = 1;
    for (int i = 0; i < 40 && count; i++) {
        usleep(50000);
        on_loop(f, read_streams, &count);
    }
    assert_int_equal(count, 0);
}

/* More than sockets buffer: the client takes none of it. */
static void flood(struct fixture *f, void *context)
{
    (void)context;
    static char line[300000];
    struct err err = {0};
    f->daemon.http->limits.stall_ms = 300;
    for (int seq = 4; seq < 60; seq++) {
        int head =
            snprintf(line, sizeof(line),
                     "{\"seq\":%d,\"time\":\"2026-11-23T01:00:00.000Z\",\"type\":\"warning\","
                     "\"code\":\"x\",\"detail\":\"",
                     seq);
        memset(line + head, 'y', sizeof(line) - (size_t)head - 3);
        memcpy(line + sizeof(line) - 3, "\"}", 3);
        struct event event;
        if (event_parse(&event, line, strlen(line), &err) ||
            store_event_add(f->daemon.store, ID, &event, line, strlen(line), &err))
            fprintf(stderr, "flood: %s\n", err.text), abort();
        event_release(&event);
    }
    f->jobs.listener(f->jobs.listener_context, ID);
}

static void a_client_that_takes_nothing_is_closed(void **state)
{
    struct fixture *f = *state;
    static struct stream s;
    stream_open(f, &s, "");
    stream_expect(&s, "event: state");
    on_loop(f, flood, NULL);
    size_t count = 1;
    for (int i = 0; i < 60 && count; i++) {
        usleep(50000);
        on_loop(f, read_streams, &count);
    }
    assert_int_equal(count, 0);
    close(s.fd);
}

static void few_streams(struct fixture *f, void *context)
{
    (void)context;
    f->daemon.http->limits.streams = 2;
}

static void there_is_a_limit_of_streams(void **state)
{
    struct fixture *f = *state;
    static struct stream s[3];
    on_loop(f, few_streams, NULL);
    for (int i = 0; i < 2; i++) {
        stream_open(f, &s[i], "");
        stream_expect(&s[i], "event: state");
    }
    assert_problem(get(f, "/v1/jobs/" ID "/events"), 503, "too_many_streams");
    close(s[0].fd);
    close(s[1].fd);
}

static void open_streams_and_polls_do_not_keep_the_daemon_from_stopping(void **state)
{
    struct fixture *f = *state;
    static struct stream s[4]; /* the teardown stops the daemon under them */
    for (int i = 0; i < 3; i++) {
        stream_open(f, &s[i], "");
        stream_expect(&s[i], "event: state");
    }
    char text[512];
    int len =
        snprintf(text, sizeof(text),
                 "GET /v1/jobs/" ID "/events?since=3&wait=60 HTTP/1.1\r\nHost: localhost\r\n"
                 "Authorization: Bearer %s\r\n\r\n",
                 fixture_token);
    s[3].fd = client_connect(f);
    client_send(s[3].fd, text, (size_t)len);
    usleep(50000);
}

/* --- long polls --- */

static void since_answers_events_as_json(void **state)
{
    struct fixture *f = *state;
    cJSON *json = json_of(get(f, "/v1/jobs/" ID "/events?since=1&limit=1"));
    assert_int_equal(cJSON_GetArraySize(json_array(json, "events")), 1);
    int64_t seq = 0;
    assert_true(json_int(&seq, json, "last_seq") && seq == 2);
    assert_string_equal(json_string(json, "state"), "running");
    cJSON_Delete(json);
    json = json_of(get(f, "/v1/jobs/" ID "/events?since=3"));
    assert_int_equal(cJSON_GetArraySize(json_array(json, "events")), 0);
    assert_true(json_int(&seq, json, "last_seq") && seq == 3);
    cJSON_Delete(json);
    assert_problem(get(f, "/v1/jobs/" ID "/events?wait=3"), 400, "invalid_query");
    assert_problem(get(f, "/v1/jobs/" ID "/events?since=0&wait=61"), 400, "invalid_query");
}

struct later {
    struct fixture *f;
    bool state; /* change the state, or add an event */
};

static void *do_later(void *context)
{
    struct later *later = context;
    usleep(150000);
    if (later->state)
        set_state(later->f, ID, JOB_PAUSED, 1);
    else
        ingest(later->f, ID, fourth);
    return NULL;
}

static void a_poll_waits_for_an_event_or_a_change_of_state(void **state)
{
    struct fixture *f = *state;
    for (int i = 0; i < 2; i++) {
        struct later later = {f, i == 1};
        pthread_t thread;
        char path[64];
        snprintf(path, sizeof(path), "/v1/jobs/" ID "/events?since=%d&wait=3", 3 + i);
        assert_int_equal(pthread_create(&thread, NULL, do_later, &later), 0);
        int64_t start = clock_monotonic_ms();
        cJSON *json = json_of(get(f, path));
        int64_t took = clock_monotonic_ms() - start;
        pthread_join(thread, NULL);
        assert_true(took >= 100 && took < 1500);
        assert_int_equal(cJSON_GetArraySize(json_array(json, "events")), i == 0);
        assert_string_equal(json_string(json, "state"), i == 0 ? "running" : "paused");
        cJSON_Delete(json);
    }
}

static void a_poll_with_nothing_new_answers_when_its_time_is_over(void **state)
{
    struct fixture *f = *state;
    int64_t start = clock_monotonic_ms();
    cJSON *json = json_of(get(f, "/v1/jobs/" ID "/events?since=3&wait=1"));
    int64_t took = clock_monotonic_ms() - start;
    assert_true(took >= 900 && took < 2500);
    assert_int_equal(cJSON_GetArraySize(json_array(json, "events")), 0);
    cJSON_Delete(json);
    set_state(f, ID, JOB_FAILED, 1);
    start = clock_monotonic_ms(); /* nothing will come any more */
    assert_int_equal(get(f, "/v1/jobs/" ID "/events?since=3&wait=3")->status, 200);
    assert_true(clock_monotonic_ms() - start < 900);
}

static void *keep_adding(void *context)
{
    struct fixture *f = context;
    for (int seq = 4; seq < 40; seq++) {
        char line[128];
        const char *const lines[] = {line, NULL};
        snprintf(
            line, sizeof(line),
            "{\"seq\":%d,\"time\":\"2026-11-23T01:00:00.000Z\",\"type\":\"step\",\"step\":1}",
            seq);
        ingest(f, ID, lines);
        usleep(50000);
    }
    return NULL;
}

static void news_that_a_poll_does_not_want_do_not_prolong_it(void **state)
{
    struct fixture *f = *state;
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, keep_adding, f), 0);
    int64_t start = clock_monotonic_ms();
    cJSON *json = json_of(get(f, "/v1/jobs/" ID "/events?since=1000&wait=1"));
    int64_t took = clock_monotonic_ms() - start;
    pthread_join(thread, NULL);
    assert_true(took >= 900 && took < 1600);
    assert_int_equal(cJSON_GetArraySize(json_array(json, "events")), 0);
    cJSON_Delete(json);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, running_job, fixture_teardown)
    const struct CMUnitTest tests[] = {
        T(a_stream_replays_all_events_and_then_tells_the_state),
        T(a_stream_goes_on_after_the_last_event_id),
        T(news_reach_every_stream_of_their_job_at_once),
        T(a_stream_ends_after_the_final_state),
        T(a_silent_stream_gets_comments_by_which_a_gone_client_is_seen),
        T(a_client_that_takes_nothing_is_closed),
        T(there_is_a_limit_of_streams),
        T(open_streams_and_polls_do_not_keep_the_daemon_from_stopping),
        T(since_answers_events_as_json),
        T(a_poll_waits_for_an_event_or_a_change_of_state),
        T(news_that_a_poll_does_not_want_do_not_prolong_it),
        T(a_poll_with_nothing_new_answers_when_its_time_is_over),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
