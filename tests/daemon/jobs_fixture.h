/* A daemon without HTTP: state folder, store, loop and jobs, with this test program as the
 * worker (fake_worker.h). */
#ifndef HEBB_TEST_JOBS_FIXTURE_H
#define HEBB_TEST_JOBS_FIXTURE_H

#include "daemon/jobs.h"
#include "daemon/loop.h"
#include "proto/base/clock.h"
#include "proto/base/log.h"
#include "tests/daemon/fake_worker.h"
#include <sys/stat.h>
#include <sys/wait.h>

enum { FIXTURE_POLL_MS = 10, FIXTURE_WAIT_MS = 15000 };

struct fixture {
    char dir[64], data[96], worker[FSX_PATH_MAX], shim[FSX_PATH_MAX];
    char *roots[1];
    struct daemon daemon;
    bool (*until)(struct fixture *f, const char *id);
    const char *until_id;
    bool reached;
    int64_t deadline_ms;
};

static inline bool fixture_commit(struct fixture *f)
{
    bool ok = store_commit(f->daemon.store, NULL) == 0;
    jobs_after_commit(f->daemon.jobs, ok);
    return ok;
}

static inline void fixture_after_turn(void *context)
{
    struct fixture *f = context;
    bool ok = fixture_commit(f);
    jobs_reap(f->daemon.jobs);
    f->reached = ok && f->until(f, f->until_id);
    if (f->reached || clock_monotonic_ms() > f->deadline_ms)
        loop_stop(f->daemon.loop);
}

static inline void fixture_start(struct fixture *f)
{
    struct err err = {.text = ""};
    int code = loop_create(&f->daemon.loop, &err);
    if (code == 0)
        code = store_open(&f->daemon.store, f->dir, &err);
    if (code == 0)
        code = jobs_create(&f->daemon.jobs, &f->daemon, &err);
    if (code != 0)
        fail_msg("%s", err.text);
    loop_set_after_turn(f->daemon.loop, fixture_after_turn, f);
}

static inline void fixture_stop(struct fixture *f)
{
    jobs_destroy(f->daemon.jobs);
    store_close(f->daemon.store);
    loop_destroy(f->daemon.loop);
    f->daemon.jobs = NULL;
    f->daemon.store = NULL;
    f->daemon.loop = NULL;
}

static inline int fixture_setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    char file[128];
    log_setup("test", LOG_LEVEL_ERROR);
    strcpy(f->dir, "/tmp/hebb-jobs-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    snprintf(f->data, sizeof f->data, "%s/data", f->dir);
    assert_int_equal(mkdir(f->data, 0700), 0);
    snprintf(file, sizeof file, "%s/corpus.txt", f->data);
    assert_int_equal(fsx_publish(file, "some text\n", 10, 0600, NULL), 0);
    ssize_t len = readlink("/proc/self/exe", f->worker, sizeof f->worker - 1);
    assert_true(len > 0);
    snprintf(f->shim, sizeof f->shim, "%s/bin/hebb-shim", HEBB_BINARY_DIR);
    f->roots[0] = f->data;
    f->daemon.config = (struct daemon_config){.state_dir = f->dir,
                                              .data_roots = f->roots,
                                              .data_root_count = 1,
                                              .worker_path = f->worker,
                                              .shim_path = f->shim,
                                              .cores = 2,
                                              .poll_ms = FIXTURE_POLL_MS};
    fixture_start(f);
    *state = f;
    return 0;
}

static inline int fixture_teardown(void **state)
{
    struct fixture *f = *state;
    fixture_stop(f);
    while (waitpid(-1, NULL, 0) > 0)
        ;
    fsx_remove_tree(f->dir, NULL);
    free(f);
    return 0;
}

/* Runs the loop until the condition holds at the end of a turn; fails the test when it does not
 * in time. */
static inline void fixture_run(struct fixture *f,
                               bool (*until)(struct fixture *f, const char *id), const char *id)
{
    f->until = until;
    f->until_id = id;
    f->reached = false;
    f->deadline_ms = clock_monotonic_ms() + FIXTURE_WAIT_MS;
    assert_int_equal(loop_run(f->daemon.loop, NULL), 0);
    struct job_row job;
    if (!f->reached && id != NULL && store_job_get(f->daemon.store, id, &job, NULL) == 0)
        fail_msg("job %s stays %s: %s", job.name, job_state_name(job.state), job.reason);
    assert_true(f->reached);
}

static inline void fixture_spec(struct job_spec *spec, const char *name, const char *more)
{
    char text[1024];
    struct err err;
    snprintf(text, sizeof text, "{\"name\":\"%s\",\"data\":{\"train\":[\"corpus.txt\"]}%s%s}",
             name, more[0] != '\0' ? "," : "", more);
    if (spec_parse(spec, text, strlen(text), NULL, &err) != 0)
        fail_msg("%s", err.text);
}

/* The id of a new job; committed. */
static inline void fixture_submit(struct fixture *f, char id[STORE_ID_MAX], const char *name,
                                  const char *more)
{
    struct job_spec spec;
    struct job_row row;
    struct err err;
    bool existing;
    fixture_spec(&spec, name, more);
    if (jobs_submit(f->daemon.jobs, &spec, NULL, NULL, &row, &existing, &err) != 0)
        fail_msg("%s", err.text);
    spec_release(&spec);
    assert_true(fixture_commit(f));
    memcpy(id, row.id, STORE_ID_MAX);
}

static inline struct job_row fixture_job(struct fixture *f, const char *id)
{
    struct job_row job;
    struct err err;
    if (store_job_get(f->daemon.store, id, &job, &err) != 0)
        fail_msg("%s", err.text);
    return job;
}

static inline void fixture_act(struct fixture *f, const char *id, enum job_action action)
{
    struct job_row job;
    struct err err;
    if (jobs_act(f->daemon.jobs, id, action, &job, &err) != 0)
        fail_msg("%s", err.text);
    assert_true(fixture_commit(f));
}

static inline bool until_final(struct fixture *f, const char *id)
{
    return job_state_final(fixture_job(f, id).state);
}

static inline bool until_running(struct fixture *f, const char *id)
{
    return fixture_job(f, id).state == JOB_RUNNING;
}

static inline bool until_paused(struct fixture *f, const char *id)
{
    return fixture_job(f, id).state == JOB_PAUSED;
}

struct fixture_events {
    uint64_t count, last;
    int64_t dones, starts, checkpoints;
    bool holes;
};

static inline int fixture_count(void *context, uint64_t seq, const char *type, const char *line)
{
    struct fixture_events *events = context;
    (void)line;
    events->holes |= seq != events->last + 1;
    events->last = seq;
    events->count++;
    events->dones += strcmp(type, "done") == 0;
    events->starts += strcmp(type, "start") == 0;
    events->checkpoints += strcmp(type, "checkpoint") == 0;
    return 0;
}

/* The stored events, and that they are exactly the lines of the file. */
static inline struct fixture_events fixture_check_events(struct fixture *f, const char *id)
{
    struct fixture_events events = {.count = 0};
    char path[FSX_PATH_MAX];
    struct buf text;
    uint64_t lines = 0;
    assert_int_equal(
        store_events_since(f->daemon.store, id, 0, 1 << 20, fixture_count, &events, NULL), 0);
    assert_int_equal(fsx_path(path, NULL, "%s/jobs/%s/events.jsonl", f->dir, id), 0);
    buf_init(&text, 1 << 24);
    assert_int_equal(fsx_read(&text, path, NULL), 0);
    for (size_t i = 0; i < text.len; i++)
        lines += text.data[i] == '\n';
    buf_release(&text);
    assert_false(events.holes);
    assert_int_equal(events.count, lines);
    return events;
}

#endif
