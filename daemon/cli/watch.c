/* hebb watch: follows a job's events by long polls, so that a daemon that is restarted
 * meanwhile is found again and no event is missed. */
#include "daemon/cli/cli.h"
#include "daemon/cli/format.h"
#include "daemon/cli/interrupt.h"
#include "proto/base/clock.h"
#include "proto/json/json.h"
#include <inttypes.h>
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum {
    WATCH_WAIT_S = 25,        /* a long poll */
    WATCH_RETRY_MS = 1000,    /* between attempts to reach the daemon */
    WATCH_GIVE_UP_MS = 60000, /* without any answer */
    WATCH_LINE_MS = 2000,     /* between two lines of progress where there is no terminal */
    WATCH_COLUMNS = 80,       /* of a terminal that does not say */
    EXIT_DETACHED = 128 + SIGINT,
};

struct watch {
    struct client *client;
    const char *id;
    bool json, tty;
    int64_t since;
    char state[FORMAT_TEXT_MAX];
    struct progress progress;
    double step_ms;        /* running mean; speed and ETA follow it */
    int64_t line_ms;       /* when the last line of progress was printed; 0: never */
    bool bar_shown, stale; /* progress changed since it was shown */
    int64_t lost_ms;       /* since when the daemon does not answer; 0: it does */
};

/* --- output --- */

static void clear_bar(struct watch *watch)
{
    if (watch->bar_shown) {
        printf("\r\033[K");
        watch->bar_shown = false;
    }
}

static void __attribute__((format(printf, 2, 3)))
watch_line(struct watch *watch, const char *format, ...)
{
    if (watch->json) {
        return;
    }
    va_list args;
    clear_bar(watch);
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    printf("\n");
    fflush(stdout);
}

static void show_progress(struct watch *watch)
{
    char line[FORMAT_LINE_MAX];
    struct progress *progress = &watch->progress;
    if (!watch->stale || watch->json) {
        return;
    }
    double left = (double)(progress->steps - progress->step);
    progress->eta_s =
        watch->step_ms > 0 && progress->steps > 0 ? left * watch->step_ms / 1000 : -1;
    if (watch->tty) {
        struct winsize size = {0};
        bool known = ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0;
        progress_bar(progress, known ? size.ws_col - 1U : WATCH_COLUMNS - 1, line);
        printf("\r\033[K%s", line);
        fflush(stdout);
        watch->bar_shown = true;
    } else {
        int64_t now = clock_monotonic_ms();
        if (watch->line_ms != 0 && now - watch->line_ms < WATCH_LINE_MS &&
            progress->step != progress->steps) {
            return; /* stays stale: a later call shows it */
        }
        watch->line_ms = now;
        progress_text(progress, line);
        printf("%s\n", line);
        fflush(stdout);
    }
    watch->stale = false;
}

/* --- events --- */

static void on_start(struct watch *watch, const cJSON *event)
{
    char parameters[FORMAT_TEXT_MAX], active[FORMAT_TEXT_MAX], resumed[64] = "";
    int64_t step = cli_int(event, "step");
    watch->progress.steps = cli_int(event, "steps");
    watch->progress.step = step > 0 ? step : 0;
    watch->step_ms = 0;
    if (step > 0) {
        snprintf(resumed, sizeof(resumed), ", goes on after step %" PRId64, step);
    }
    watch_line(watch,
               "attempt %" PRId64 ": %" PRId64 " ranks x %" PRId64
               " threads on %s, %s parameters, %s stored, density %g%s",
               cli_int(event, "attempt"), cli_int(event, "ranks"), cli_int(event, "threads"),
               cli_text(event, "device"),
               format_count(parameters, cli_real(event, "parameters")),
               format_count(active, cli_real(event, "active_parameters")),
               cli_real(event, "density"), resumed);
}

static void on_step(struct watch *watch, const cJSON *event)
{
    static const double old_share = 0.95; /* of the running mean */
    double step_ms = cli_real(event, "step_ms"), tokens_per_s = cli_real(event, "tokens_per_s");
    watch->progress.step = cli_int(event, "step");
    watch->progress.loss = cli_real(event, "loss");
    if (step_ms > 0) {
        watch->step_ms = watch->step_ms > 0
                             ? old_share * watch->step_ms + (1 - old_share) * step_ms
                             : step_ms;
        tokens_per_s *= step_ms / watch->step_ms; /* tokens of a step over its mean time */
    }
    watch->progress.tokens_per_s = tokens_per_s;
    watch->stale = true;
    if (json_string(event, "nonfinite")) {
        watch_line(watch, "step %" PRId64 ": the loss or its gradient is %s",
                   watch->progress.step, json_string(event, "nonfinite"));
    }
}

static void on_eval(struct watch *watch, const cJSON *event)
{
    watch_line(watch, "step %" PRId64 ": %s loss %.4f, perplexity %.2f", cli_int(event, "step"),
               cli_text(event, "split"), cli_real(event, "loss"),
               cli_real(event, "perplexity"));
}

static void on_checkpoint(struct watch *watch, const cJSON *event)
{
    char size[FORMAT_TEXT_MAX];
    watch_line(watch, "step %" PRId64 ": checkpoint, %s", cli_int(event, "step"),
               format_bytes(size, cli_real(event, "bytes")));
}

static void on_repair(struct watch *watch, const cJSON *event)
{
    watch_line(watch, "step %" PRId64 ": %" PRId64 " masks differed between ranks, repaired",
               cli_int(event, "step"), cli_int(event, "matrices"));
}

static void on_skip(struct watch *watch, const cJSON *event)
{
    watch_line(watch, "step %" PRId64 ": a batch is left out: %s, loss %.4g",
               cli_int(event, "step"), cli_text(event, "reason"), cli_real(event, "loss"));
}

static void on_rollback(struct watch *watch, const cJSON *event)
{
    watch->progress.step = cli_int(event, "step");
    watch->stale = true;
    watch_line(watch, "rolled back from step %" PRId64 " to step %" PRId64,
               cli_int(event, "from"), watch->progress.step);
}

static void on_state_repair(struct watch *watch, const cJSON *event)
{
    watch_line(watch,
               "step %" PRId64 ": %" PRId64 " parameters differed between ranks, repaired",
               cli_int(event, "step"), cli_int(event, "parameters"));
}

static void on_warning(struct watch *watch, const cJSON *event)
{
    watch_line(watch, "warning: %s: %s", cli_text(event, "code"), cli_text(event, "detail"));
}

static void on_done(struct watch *watch, const cJSON *event)
{
    char seconds[FORMAT_TEXT_MAX], memory[FORMAT_TEXT_MAX];
    double perplexity = cli_real(event, "perplexity");
    show_progress(watch);
    watch_line(watch, "done: %" PRId64 " steps in %s, loss %.4f, peak memory %s",
               cli_int(event, "step"), format_duration(seconds, cli_real(event, "seconds")),
               cli_real(event, "loss"),
               format_bytes(memory, cli_real(event, "peak_rss_bytes")));
    if (perplexity >= 0) {
        watch_line(watch, "validation perplexity %.2f", perplexity);
    }
}

static const struct {
    const char *type;
    void (*on)(struct watch *watch, const cJSON *event);
} watch_events[] = {
    {"start", on_start},        {"step", on_step},
    {"eval", on_eval},          {"checkpoint", on_checkpoint},
    {"mask_repair", on_repair}, {"warning", on_warning},
    {"skip", on_skip},          {"rollback", on_rollback},
    {"done", on_done},          {"state_repair", on_state_repair},
};

static void watch_event(struct watch *watch, const cJSON *event)
{
    int64_t seq = cli_int(event, "seq");
    if (seq > watch->since) {
        watch->since = seq;
    }
    if (watch->json) {
        cli_print_json(event);
        return;
    }
    for (size_t i = 0; i < sizeof(watch_events) / sizeof(watch_events[0]); i++) {
        if (strcmp(watch_events[i].type, cli_text(event, "type")) == 0) {
            watch_events[i].on(watch, event);
        }
    }
}

/* --- states --- */

/* Takes state and, the first time, progress and the last event from the job. */
static void take_job(struct watch *watch, const cJSON *job)
{
    const cJSON *progress = json_object(job, "progress");
    const char *reason = cli_text(job, "reason");
    snprintf(watch->state, sizeof(watch->state), "%s", cli_text(job, "state"));
    watch_line(watch, "%s%s%s", watch->state, *reason ? ": " : "", reason);
    if (watch->since < 0) {
        watch->since = cli_int(job, "last_seq") > 0 ? cli_int(job, "last_seq") : 0;
        watch->progress = (struct progress){.step = cli_int(progress, "step"),
                                            .steps = cli_int(progress, "steps"),
                                            .loss = cli_real(progress, "loss"),
                                            .tokens_per_s = -1,
                                            .eta_s = -1}; /* both of the steps to come */
        watch->stale = watch->progress.step > 0;
    }
}

/* The answer of one long poll. */
static int take_answer(struct watch *watch, const struct reply *reply)
{
    cJSON *answer, *job;
    struct err err = {0};
    if (json_parse(&answer, reply->body.data, reply->body.len, &err)) {
        return client_fail(&err);
    }
    const cJSON *event, *events = json_array(answer, "events");
    bool more = events && events->child; /* the events before a state come first */
    cJSON_ArrayForEach(event, events) { watch_event(watch, event); }
    int code = EXIT_DONE;
    if (!more && strcmp(watch->state, cli_text(answer, "state")) != 0) {
        code = client_get(watch->client, &job, "/v1/jobs/%s", watch->id);
        if (code == EXIT_DONE) {
            take_job(watch, job);
        }
        cJSON_Delete(job);
    }
    show_progress(watch);
    cJSON_Delete(answer);
    return code;
}

/* --- the loop --- */

static int detach(struct watch *watch)
{
    clear_bar(watch);
    fflush(stdout);
    fprintf(stderr, "detached; the job goes on. `hebb watch %.6s` follows it again\n",
            watch->id);
    return EXIT_DETACHED;
}

/* No answer: waits a little, or gives up. EXIT_DONE: try again. */
static int lost(struct watch *watch, int stop_fd, const char *reason)
{
    int64_t now = clock_monotonic_ms();
    if (watch->lost_ms == 0) {
        watch->lost_ms = now;
        clear_bar(watch);
        fprintf(stderr, "%s; trying again\n", reason);
    }
    if (now - watch->lost_ms > WATCH_GIVE_UP_MS) {
        fprintf(stderr, "hebb: %s\n", reason);
        return EXIT_UNREACHABLE;
    }
    struct pollfd stop = {.fd = stop_fd, .events = POLLIN};
    return poll(&stop, 1, WATCH_RETRY_MS) > 0 ? detach(watch) : EXIT_DONE;
}

/* One long poll; EXIT_DONE: go on. */
static int watch_once(struct watch *watch, int stop_fd)
{
    char path[CLIENT_PATH_MAX];
    struct reply reply;
    struct err err = {0};
    /* a job that has not been asked for yet, or whose last line is held back, must not wait */
    int wait_s = watch->state[0] == '\0' ? 0 : (watch->stale ? 1 : WATCH_WAIT_S);
    snprintf(path, sizeof(path), "/v1/jobs/%s/events?since=%" PRId64 "&wait=%d&limit=1000",
             watch->id, watch->since, wait_s);
    struct request request = {.method = "GET", .path = path, .wait_s = wait_s};
    int code, rc = client_send(watch->client, &request, &reply, &err);
    if (client_stopped(watch->client)) {
        code = detach(watch);
    } else if (rc == ERR_NETWORK || (!rc && reply.status >= 500)) {
        code = lost(watch, stop_fd, rc ? err.text : "the daemon cannot answer");
    } else if (rc) {
        code = client_fail(&err);
    } else {
        watch->lost_ms = 0;
        code = client_check(watch->client, &reply);
        if (code == EXIT_DONE) {
            code = take_answer(watch, &reply);
        }
    }
    reply_release(&reply);
    return code;
}

static int watch_loop(struct watch *watch, int stop_fd)
{
    int code = EXIT_DONE;
    if (watch->since < 0) {
        cJSON *job;
        code = client_get(watch->client, &job, "/v1/jobs/%s", watch->id);
        if (code == EXIT_DONE) {
            take_job(watch, job);
            show_progress(watch);
        }
        cJSON_Delete(job);
    }
    while (code == EXIT_DONE && !cli_state_final(watch->state)) {
        code = watch_once(watch, stop_fd);
    }
    if (code == EXIT_DONE) {
        clear_bar(watch);
        code = strcmp(watch->state, "succeeded") == 0 ? EXIT_DONE : EXIT_FAILED;
    }
    return code;
}

int cli_watch(struct client *client, const char *id, int64_t since, bool json)
{
    int stop_fd = interrupt_begin();
    if (stop_fd < 0) {
        return EXIT_FAILED;
    }
    struct watch watch = {.client = client,
                          .id = id,
                          .json = json,
                          .tty = isatty(STDOUT_FILENO) == 1,
                          .since = since,
                          .progress = {.loss = -1, .tokens_per_s = -1, .eta_s = -1}};
    client_set_stop(client, stop_fd);
    int code = watch_loop(&watch, stop_fd);
    client_set_stop(client, -1);
    interrupt_end();
    return code;
}

int command_watch(int argc, char **argv)
{
    struct client_config config = {0};
    struct client *client;
    char id[CLIENT_ID_MAX];
    bool json = false;
    int code = cli_options_json(argc, argv, &config, &json);
    if (code == EXIT_DONE) {
        code = cli_open_job(argc, argv, &config, &client, id);
    }
    if (code == EXIT_DONE) {
        code = cli_watch(client, id, json ? 0 : -1, json);
        client_destroy(client);
    }
    return code;
}
