/* A sweep's runs as jobs of the daemon. Every job is submitted with a key made from sweep, arm
 * and seed, so that a sweep that is called again finds its jobs and makes none twice. */
#include "daemon/cli/cli.h"
#include "daemon/cli/interrupt.h"
#include "daemon/cli/sweep.h"
#include "proto/base/clock.h"
#include "proto/base/mem.h"
#include "proto/json/json.h"
#include <inttypes.h>
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    FOLLOW_POLL_MS = 500,
    FOLLOW_GIVE_UP_MS = 60000, /* without any answer */
    FOLLOW_PAGE = 500,
    KEY_MAX = SWEEP_KEY_MAX + CLIENT_ID_MAX + 1,
    EXIT_DETACHED = 128 + SIGINT,
};

/* --- validation --- */

/* Takes a refusal with its faults apart; false if it is another one. */
static bool take_faults(const struct reply *reply, const char *where,
                        struct sweep_faults *faults)
{
    cJSON *problem;
    const cJSON *fault;
    bool found = false;
    if (!reply->problem || json_parse(&problem, reply->body.data, reply->body.len, NULL) != 0) {
        return false;
    }
    cJSON_ArrayForEach(fault, json_array(problem, "errors"))
    {
        const char *field = cli_text(fault, "field");
        sweep_fault(faults, where, "%s%s%s", field, *field ? ": " : "",
                    cli_text(fault, "reason"));
        found = true;
    }
    cJSON_Delete(problem);
    return found;
}

static int check_run(struct sweep_plan *plan, const struct sweep_run *run,
                     struct client *client, struct sweep_faults *faults)
{
    struct request request = {.method = "POST",
                              .path = "/v1/jobs?dry_run=1",
                              .body = run->body,
                              .body_len = strlen(run->body)};
    struct reply reply;
    struct err err = {0};
    char where[FORMAT_LINE_MAX];
    int code = EXIT_DONE;
    if (client_send(client, &request, &reply, &err)) {
        code = client_fail(&err);
    } else if (reply.status >= 300) {
        if (!take_faults(&reply, sweep_run_name(plan, run, where), faults)) {
            code = client_check(client, &reply);
        }
    } else if (!plan->arms[run->arm].priced) {
        cJSON *answer = NULL;
        if (json_parse(&answer, reply.body.data, reply.body.len, &err)) {
            code = client_fail(&err);
        } else {
            sweep_price(&plan->arms[run->arm], json_object(answer, "estimate"));
        }
        cJSON_Delete(answer);
    }
    reply_release(&reply);
    return code;
}

int sweep_daemon_check(struct sweep_plan *plan, struct client *client,
                       struct sweep_faults *faults)
{
    int code = EXIT_DONE;
    for (size_t i = 0; i < plan->run_count && code == EXIT_DONE; i++) {
        code = check_run(plan, &plan->runs[i], client, faults);
    }
    return code;
}

/* --- submission --- */

/* What is followed. */
struct follow {
    struct sweep_plan *plan;
    struct client *client;
    int stop_fd;
    bool tty, bar;   /* stderr is a terminal; a bar is on its last line */
    size_t ended;    /* runs with a record */
    int64_t lost_ms; /* since when the daemon does not answer; 0: it does */
};

static int detach(const struct follow *follow)
{
    size_t left = 0;
    for (size_t i = 0; i < follow->plan->run_count; i++) {
        const struct sweep_run *run = &follow->plan->runs[i];
        left += run->id && !cli_state_final(run->state);
    }
    fprintf(stderr,
            "%sdetached; %zu job%s of the sweep go%s on. The same command goes on from here\n",
            follow->bar ? "\r\033[K" : "", left, left == 1 ? "" : "s", left == 1 ? "es" : "");
    return EXIT_DETACHED;
}

static bool is_key_conflict(const struct reply *reply)
{
    cJSON *problem = NULL;
    bool is = reply->status == 422 && reply->problem &&
              json_parse(&problem, reply->body.data, reply->body.len, NULL) == 0 &&
              strcmp(cli_text(problem, "code"), "idempotency_conflict") == 0;
    cJSON_Delete(problem);
    return is;
}

static int take_job(struct sweep_run *run, const struct reply *reply)
{
    cJSON *job = NULL;
    struct err err = {0};
    int code = EXIT_DONE;
    free(run->id);
    run->id = NULL;
    if (json_parse(&job, reply->body.data, reply->body.len, &err)) {
        code = client_fail(&err);
    } else if (!(run->id = mem_strdup(cli_text(job, "id")))) {
        fprintf(stderr, "hebb: out of memory\n");
        code = EXIT_FAILED;
    }
    snprintf(run->state, sizeof(run->state), "%s", cli_text(job, "state"));
    cJSON_Delete(job);
    return code;
}

static int submit_once(struct follow *follow, struct sweep_run *run, const char *key)
{
    struct request request = {.method = "POST",
                              .path = "/v1/jobs",
                              .body = run->body,
                              .body_len = strlen(run->body),
                              .idempotency_key = key};
    struct reply reply;
    struct err err = {0};
    char name[FORMAT_LINE_MAX];
    int code = EXIT_DONE, rc = client_send(follow->client, &request, &reply, &err);
    if (client_stopped(follow->client)) {
        code = detach(follow);
    } else if (rc) {
        code = client_fail(&err);
    } else if (is_key_conflict(&reply)) {
        fprintf(stderr,
                "hebb: sweep \"%s\" was submitted before with another job for %s; give the "
                "changed sweep another name\n",
                follow->plan->name, sweep_run_name(follow->plan, run, name));
        code = EXIT_USAGE;
    } else {
        code = client_check(follow->client, &reply);
        if (code == EXIT_DONE) {
            code = take_job(run, &reply);
        }
    }
    reply_release(&reply);
    return code;
}

/* Submits the run or finds its job. again: follows the chain of its failed jobs to one that did
 * not fail; each new one's key names the job before. */
static int submit_run(struct follow *follow, struct sweep_run *run, bool again)
{
    char key[KEY_MAX];
    snprintf(key, sizeof(key), "%s", run->key);
    int code = submit_once(follow, run, key);
    while (code == EXIT_DONE && again &&
           (strcmp(run->state, "failed") == 0 || strcmp(run->state, "cancelled") == 0)) {
        snprintf(key, sizeof(key), "%s/%s", run->key, run->id);
        code = submit_once(follow, run, key);
    }
    return code;
}

/* --- progress --- */

static void show_bar(struct follow *follow)
{
    double share = 0;
    size_t running = 0;
    if (!follow->tty) {
        return;
    }
    for (size_t i = 0; i < follow->plan->run_count; i++) {
        const struct sweep_run *run = &follow->plan->runs[i];
        share += run->recorded ? 1 : run->share;
        running += !run->recorded && strcmp(run->state, "running") == 0;
    }
    fprintf(stderr, "\r\033[K%zu of %zu runs ended, %zu running, %.0f %% of the steps done",
            follow->ended, follow->plan->run_count, running,
            100 * share / (double)follow->plan->run_count);
    follow->bar = true;
}

static void show_end(struct follow *follow, const struct sweep_run *run)
{
    char name[FORMAT_LINE_MAX], loss[FORMAT_TEXT_MAX];
    const char *reason = run->record.reason;
    fprintf(stderr, "%s[%zu/%zu] %s: %s", follow->bar ? "\r\033[K" : "", follow->ended,
            follow->plan->run_count, sweep_run_name(follow->plan, run, name), run->state);
    if (isfinite(run->record.summary.final_loss)) {
        fprintf(stderr, ", validation loss %s",
                format_loss(loss, run->record.summary.final_loss));
    }
    fprintf(stderr, "%s%s (%.6s)\n", *reason ? ": " : "", reason, run->id);
    follow->bar = false;
}

/* Takes in a run that has ended. */
static int end_run(struct follow *follow, struct sweep_run *run)
{
    int code = record_from_job(&run->record, follow->client, run->id);
    if (client_stopped(follow->client)) {
        return detach(follow);
    }
    if (code == EXIT_DONE) {
        run->recorded = true;
        follow->ended++;
        show_end(follow, run);
    }
    return code;
}

/* --- following --- */

static struct sweep_run *find_run(const struct sweep_plan *plan, const char *id)
{
    for (size_t i = 0; i < plan->run_count; i++) {
        if (!plan->runs[i].recorded && strcmp(plan->runs[i].id, id) == 0) {
            return &plan->runs[i];
        }
    }
    return NULL;
}

/* One page of the jobs whose name holds the sweep's; *after: of the next one, -1: none. */
static int take_page(struct follow *follow, const struct reply *reply, int64_t *after)
{
    cJSON *page = NULL;
    const cJSON *job;
    struct err err = {0};
    if (json_parse(&page, reply->body.data, reply->body.len, &err)) {
        return client_fail(&err);
    }
    cJSON_ArrayForEach(job, json_array(page, "jobs"))
    {
        struct sweep_run *run = find_run(follow->plan, cli_text(job, "id"));
        const cJSON *progress = json_object(job, "progress");
        int64_t steps = cli_int(progress, "steps");
        if (run) {
            snprintf(run->state, sizeof(run->state), "%s", cli_text(job, "state"));
            run->share =
                steps > 0 ? (double)cli_int(progress, "step") / (double)steps : run->share;
        }
    }
    *after = cli_int(page, "next_after");
    cJSON_Delete(page);
    return EXIT_DONE;
}

/* No answer: EXIT_DONE until it has lasted too long. */
static int lost(struct follow *follow, const char *reason)
{
    int64_t now = clock_monotonic_ms();
    if (follow->lost_ms == 0) {
        follow->lost_ms = now;
        fprintf(stderr, "%s%s; trying again\n", follow->bar ? "\r\033[K" : "", reason);
        follow->bar = false;
    }
    if (now - follow->lost_ms > FOLLOW_GIVE_UP_MS) {
        fprintf(stderr, "hebb: %s; the same command goes on from here\n", reason);
        return EXIT_UNREACHABLE;
    }
    return EXIT_DONE;
}

/* Asks for the states of all runs once. */
static int look(struct follow *follow)
{
    struct buf name;
    int code = EXIT_DONE;
    int64_t after = 0;
    buf_init(&name, CLIENT_PATH_MAX / 2);
    client_escape(&name, follow->plan->name);
    while (code == EXIT_DONE && after >= 0) {
        char path[CLIENT_PATH_MAX];
        struct reply reply;
        struct err err = {0};
        snprintf(path, sizeof(path), "/v1/jobs?limit=%d&after=%" PRId64 "&name=%s", FOLLOW_PAGE,
                 after, name.data ? name.data : "");
        int rc = client_send(follow->client, &(struct request){.method = "GET", .path = path},
                             &reply, &err);
        if (client_stopped(follow->client)) {
            code = detach(follow);
        } else if (rc == ERR_NETWORK || (!rc && reply.status >= 500)) {
            code = lost(follow, rc ? err.text : "the daemon cannot answer");
            after = -1;
        } else if (rc) {
            code = client_fail(&err);
        } else if ((code = client_check(follow->client, &reply)) == EXIT_DONE) {
            follow->lost_ms = 0;
            code = take_page(follow, &reply, &after);
        }
        reply_release(&reply);
    }
    buf_release(&name);
    return code;
}

static int follow_all(struct follow *follow)
{
    int code = EXIT_DONE;
    for (;;) {
        for (size_t i = 0; i < follow->plan->run_count && code == EXIT_DONE; i++) {
            struct sweep_run *run = &follow->plan->runs[i];
            if (!run->recorded && cli_state_final(run->state)) {
                code = end_run(follow, run);
            }
        }
        if (code != EXIT_DONE || follow->ended == follow->plan->run_count) {
            return code;
        }
        show_bar(follow);
        struct pollfd stop = {.fd = follow->stop_fd, .events = POLLIN};
        if (poll(&stop, 1, FOLLOW_POLL_MS) > 0) {
            return detach(follow);
        }
        code = look(follow);
    }
}

int sweep_daemon_run(struct sweep_plan *plan, struct client *client, bool again)
{
    int code = EXIT_DONE, stop_fd = interrupt_begin();
    if (stop_fd < 0) {
        return EXIT_FAILED;
    }
    struct follow follow = {
        .plan = plan, .client = client, .stop_fd = stop_fd, .tty = isatty(STDERR_FILENO) == 1};
    client_set_stop(client, stop_fd);
    for (size_t i = 0; i < plan->run_count && code == EXIT_DONE; i++) {
        code = submit_run(&follow, &plan->runs[i], again);
    }
    if (code == EXIT_DONE) {
        fprintf(stderr, "%zu runs are submitted; ctrl-C detaches, they go on\n",
                plan->run_count);
        code = follow_all(&follow);
    }
    client_set_stop(client, -1);
    interrupt_end();
    return code;
}
