/* The HTTP side on a loop in a thread of its own, over a real store in a folder of its own,
 * with jobs replaced by a few lines that submit to the store and change states: what the state
 * machine does has tests of its own. The test's thread is the client, with raw sockets, so that
 * it can also be a bad one. */
#ifndef HEBB_TESTS_HTTP_FIXTURE_H
#define HEBB_TESTS_HTTP_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "daemon/http_internal.h"
#include "daemon/jobs.h"
#include "daemon/loop.h"
#include "proto/base/clock.h"
#include "proto/base/fsx.h"
#include "proto/json/json.h"
#include "proto/msg/event.h"
#include <arpa/inet.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

static const char fixture_token[] =
    "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

struct jobs {
    struct daemon *daemon;
    void (*listener)(void *context, const char *id);
    void *listener_context;
    int submitted;
    const char *admit_fault; /* reason of a fault at /resources/ranks, NULL: none */
};

struct fixture {
    char dir[64];
    struct daemon daemon;
    struct jobs jobs;
    pthread_t thread;
    int call_fd;
    sem_t called;
    void (*call)(struct fixture *fixture, void *context);
    void *call_context;
    bool fail_commit;             /* of the loop's thread */
    atomic_int commits, failures; /* of turns that had held answers */
};

/* --- jobs --- */

int jobs_ready(struct jobs *jobs, struct err *why)
{
    return store_writable(jobs->daemon->store)
               ? 0
               : err_set(why, ERR_NO_SPACE, "the disk is full or failing");
}

void jobs_admit(struct jobs *jobs, const struct job_spec *spec, struct spec_faults *faults)
{
    (void)spec;
    if (!jobs->admit_fault)
        return;
    snprintf(faults->items[faults->count].field, OPT_STRING_MAX, "/resources/ranks");
    snprintf(faults->items[faults->count++].reason, ERR_TEXT_MAX, "%s", jobs->admit_fault);
}

int jobs_submit(struct jobs *jobs, const struct job_spec *spec, const char *idem_key,
                const char *body_hash, struct job_row *out, bool *existing, struct err *err)
{
    struct buf text;
    buf_init(&text, 1 << 20);
    spec_print(spec, &text);
    *out = (struct job_row){.cores = 1, .created_ms = clock_wall_ms()};
    snprintf(out->id, sizeof(out->id), "%016x", ++jobs->submitted);
    snprintf(out->name, sizeof(out->name), "%s", spec->name);
    int rc = store_job_insert(jobs->daemon->store, out, text.data, idem_key, body_hash,
                              existing, err);
    buf_release(&text);
    return rc;
}

int jobs_act(struct jobs *jobs, const char *id, enum job_action action, struct job_row *out,
             struct err *err)
{
    static const enum job_state target[] = {JOB_CANCELLED, JOB_PAUSED, JOB_QUEUED, JOB_RUNNING};
    struct store *store = jobs->daemon->store;
    int rc = store_job_get(store, id, out, err);
    if (rc)
        return rc;
    if (job_state_final(out->state))
        return err_set(err, ERR_CONFLICT, "job is %s", job_state_name(out->state));
    rc = store_job_set_state(store, id, target[action], "asked", err);
    if (!rc)
        rc = store_job_get(store, id, out, err);
    if (!rc && jobs->listener)
        jobs->listener(jobs->listener_context, id);
    return rc;
}

int jobs_path(const struct jobs *jobs, const char *id, char *out, size_t size, struct err *err)
{
    (void)err;
    snprintf(out, size, "%s/jobs/%s", jobs->daemon->config.state_dir, id);
    return 0;
}

void jobs_set_listener(struct jobs *jobs, void (*fn)(void *context, const char *id),
                       void *context)
{
    jobs->listener = fn;
    jobs->listener_context = context;
}

void jobs_slots(const struct jobs *jobs, int *cores_used, int *cores, int *gpus_used, int *gpus)
{
    (void)jobs;
    *cores_used = 1, *cores = 2, *gpus_used = 0, *gpus = 0;
}

/* --- the loop's thread --- */

static void fixture_turn(void *context)
{
    struct fixture *f = context;
    struct err err = {0};
    bool held = f->daemon.http->held_commits > 0;
    bool good = store_commit(f->daemon.store, &err) == 0 && !f->fail_commit;
    f->commits += held && good;
    f->failures += held && !good;
    http_after_commit(f->daemon.http, good);
}

static void fixture_called(void *context, int fd)
{
    struct fixture *f = context;
    uint64_t count;
    if (read(fd, &count, sizeof(count)) != sizeof(count))
        return;
    f->call(f, f->call_context);
    sem_post(&f->called);
}

static void *fixture_thread(void *context)
{
    struct fixture *f = context;
    struct err err = {0};
    loop_run(f->daemon.loop, &err);
    return NULL;
}

/* Runs fn on the loop's thread and waits for it. */
static inline void on_loop(struct fixture *f,
                           void (*fn)(struct fixture *fixture, void *context), void *context)
{
    uint64_t one = 1;
    f->call = fn;
    f->call_context = context;
    assert_int_equal(write(f->call_fd, &one, sizeof(one)), sizeof(one));
    sem_wait(&f->called);
}

static inline int fixture_setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    struct err err = {0};
    assert_non_null(f);
    snprintf(f->dir, sizeof(f->dir), "/tmp/hebb-http-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    char web[128], page[256];
    snprintf(web, sizeof(web), "%s/web", f->dir);
    assert_int_equal(mkdir(web, 0700), 0);
    static const char *const files[][2] = {
        {"index.html", "<!doctype html><title>hebb</title>"},
        {"app.js", "'use strict';"},
        {".hidden.js", "no"},
        {"notes.txt", "no"},
    };
    for (size_t i = 0; i < 4; i++) {
        snprintf(page, sizeof(page), "%s/%s", web, files[i][0]);
        assert_int_equal(fsx_publish(page, files[i][1], strlen(files[i][1]), 0600, &err), 0);
    }
    struct daemon *d = &f->daemon;
    d->config.state_dir = f->dir;
    d->config.listen = strdup("127.0.0.1:0");
    d->config.web_dir = strdup(web);
    d->started_ms = clock_wall_ms();
    memcpy(d->token, fixture_token, sizeof(fixture_token));
    f->jobs.daemon = d;
    d->jobs = &f->jobs;
    if (store_open(&d->store, f->dir, &err) || loop_create(&d->loop, &err) ||
        http_create(&d->http, d, &err))
        fail_msg("%s", err.text);
    loop_set_after_turn(d->loop, fixture_turn, f);
    f->call_fd = eventfd(0, EFD_CLOEXEC);
    sem_init(&f->called, 0, 0);
    assert_int_equal(loop_add_fd(d->loop, f->call_fd, fixture_called, f, &err), 0);
    assert_int_equal(pthread_create(&f->thread, NULL, fixture_thread, f), 0);
    *state = f;
    return 0;
}

static void fixture_stop(struct fixture *f, void *context)
{
    (void)context;
    loop_stop(f->daemon.loop);
}

static inline int fixture_teardown(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    on_loop(f, fixture_stop, NULL);
    pthread_join(f->thread, NULL);
    http_destroy(f->daemon.http);
    store_close(f->daemon.store);
    loop_destroy(f->daemon.loop);
    close(f->call_fd);
    fsx_remove_tree(f->dir, &err);
    free(f->daemon.config.listen);
    free(f->daemon.config.web_dir);
    free(f);
    return 0;
}

/* --- a client --- */

enum { REPLY_MAX = 1 << 20 };

struct reply {
    int status;
    size_t len;
    char *body;           /* inside text */
    char text[REPLY_MAX]; /* head and body */
};

static inline int client_connect(struct fixture *f)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons(http_port(f->daemon.http)),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct timeval limit = {.tv_sec = 4};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    return fd;
}

static inline void client_send(int fd, const void *data, size_t len)
{
    assert_int_equal(send(fd, data, len, MSG_NOSIGNAL), len);
}

/* Reads to the end of the connection. A reply that never ends fails the test after 4 s. */
static inline void client_read_all(int fd, struct reply *reply)
{
    memset(reply, 0, offsetof(struct reply, text) + 1);
    for (;;) {
        ssize_t got = recv(fd, reply->text + reply->len, REPLY_MAX - 1 - reply->len, 0);
        if (got < 0 && reply->len > 0)
            fail_msg("no end after: %.200s", reply->text);
        if (got <= 0)
            break;
        reply->len += (size_t)got;
    }
    reply->text[reply->len] = '\0';
    sscanf(reply->text, "HTTP/1.1 %d", &reply->status);
    reply->body = strstr(reply->text, "\r\n\r\n");
    reply->body = reply->body ? reply->body + 4 : reply->text + reply->len;
}

/* Sends raw bytes, reads the reply to the connection's end, which the request must ask for. */
static inline struct reply *raw(struct fixture *f, const void *data, size_t len)
{
    static struct reply reply;
    int fd = client_connect(f);
    client_send(fd, data, len);
    client_read_all(fd, &reply);
    close(fd);
    return &reply;
}

/* One request with the token; headers: further lines, each with CR LF; body NULL: none. */
static inline struct reply *ask(struct fixture *f, const char *method, const char *target,
                                const char *headers, const char *body)
{
    size_t size = 4096 + strlen(headers) + (body ? strlen(body) : 0), len;
    char *text = malloc(size);
    assert_non_null(text);
    len = (size_t)snprintf(text, size,
                           "%s %s HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %s\r\n"
                           "Connection: close\r\n%s",
                           method, target, fixture_token, headers);
    if (body)
        len +=
            (size_t)snprintf(text + len, size - len,
                             "Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s",
                             strlen(body), body);
    else
        len += (size_t)snprintf(text + len, size - len, "\r\n");
    struct reply *reply = raw(f, text, len);
    free(text);
    return reply;
}

static inline struct reply *get(struct fixture *f, const char *target)
{
    return ask(f, "GET", target, "", NULL);
}

/* The body as JSON; the caller deletes it. */
static inline cJSON *json_of(const struct reply *reply)
{
    cJSON *json = NULL;
    struct err err = {0};
    if (json_parse(&json, reply->body, strlen(reply->body), &err))
        fail_msg("%s in: %.300s", err.text, reply->text);
    return json;
}

/* The value of a header of the reply, "" if it is not there. */
static inline const char *header_of(const struct reply *reply, const char *name)
{
    static char value[512];
    char needle[128];
    value[0] = '\0';
    snprintf(needle, sizeof(needle), "\r\n%s: ", name);
    const char *at = strstr(reply->text, needle);
    if (at && at < reply->body)
        sscanf(at + strlen(needle), "%511[^\r]", value);
    return value;
}

/* A problem with this status and code. */
static inline void assert_problem(const struct reply *reply, int status, const char *code)
{
    if (reply->status != status)
        fail_msg("status %d, not %d: %.400s", reply->status, status, reply->text);
    assert_string_equal(header_of(reply, "Content-Type"), "application/problem+json");
    cJSON *json = json_of(reply);
    int64_t said = 0;
    assert_true(json_int(&said, json, "status") && said == status);
    assert_string_equal(json_string(json, "code"), code);
    assert_non_null(json_string(json, "type"));
    assert_non_null(json_string(json, "title"));
    assert_true(json_string(json, "detail") && json_string(json, "detail")[0]);
    cJSON_Delete(json);
}

static const char good_job[] = "{\"name\":\"tiny\",\"data\":{\"train\":[\"corpus.txt\"]}}";

/* --- what a job would have done --- */

struct lines {
    const char *id;
    const char *const *lines; /* ends with NULL */
};

static inline void fixture_ingest(struct fixture *f, void *context)
{
    const struct lines *lines = context;
    struct err err = {0};
    for (size_t i = 0; lines->lines[i]; i++) {
        struct event event;
        const char *line = lines->lines[i];
        if (event_parse(&event, line, strlen(line), &err) ||
            store_event_add(f->daemon.store, lines->id, &event, line, strlen(line), &err))
            fprintf(stderr, "fixture: %s\n", err.text), abort();
        event_release(&event);
    }
    if (f->jobs.listener)
        f->jobs.listener(f->jobs.listener_context, lines->id);
}

static inline void ingest(struct fixture *f, const char *id, const char *const *text)
{
    struct lines lines = {id, text};
    on_loop(f, fixture_ingest, &lines);
}

struct state_change {
    const char *id;
    enum job_state state;
    int64_t attempt;
};

static inline void fixture_state(struct fixture *f, void *context)
{
    const struct state_change *change = context;
    struct err err = {0};
    struct job_row job;
    int rc = store_job_get(f->daemon.store, change->id, &job, &err);
    job.attempt = change->attempt;
    if (!rc)
        rc = store_job_update(f->daemon.store, &job, &err);
    if (!rc)
        rc = store_job_set_state(f->daemon.store, change->id, change->state, "test", &err);
    if (rc)
        fprintf(stderr, "fixture: %s\n", err.text), abort();
    if (f->jobs.listener)
        f->jobs.listener(f->jobs.listener_context, change->id);
}

static inline void set_state(struct fixture *f, const char *id, enum job_state state,
                             int64_t attempt)
{
    struct state_change change = {id, state, attempt};
    on_loop(f, fixture_state, &change);
}

#endif
