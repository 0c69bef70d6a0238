#include "worker/tools/train_watch.h"

#include "proto/base/clock.h"
#include "proto/base/fsx.h"
#include "proto/json/json.h"
#include "proto/msg/event.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    LINE_MAX_BYTES = 16 << 20,
    CHUNK_BYTES = 64 * 1024,
    PLAIN_EVERY_MS = 2000,
    BAR_CELLS = 24
};

void train_watch_init(struct train_watch *watch, const char *path, bool json)
{
    struct stat status;
    *watch = (struct train_watch){.fd = -1, .path = path, .json = json};
    watch->offset = stat(path, &status) == 0 ? status.st_size : 0;
    watch->tty = isatty(STDERR_FILENO) == 1;
    buf_init(&watch->line, LINE_MAX_BYTES);
}

void train_watch_release(struct train_watch *watch)
{
    buf_release(&watch->line);
    if (watch->fd >= 0) {
        close(watch->fd);
    }
}

/* Text of a duration: "1:02:03" or "2:03". Returns out. */
static const char *duration(char out[32], double seconds)
{
    long s = seconds > 0 && seconds < 1e9 ? (long)(seconds + 0.5) : 0;
    if (s >= 3600) {
        snprintf(out, 32, "%ld:%02ld:%02ld", s / 3600, s / 60 % 60, s % 60);
    } else {
        snprintf(out, 32, "%ld:%02ld", s / 60, s % 60);
    }
    return out;
}

static void bar_clear(struct train_watch *watch)
{
    if (watch->bar) {
        fputs("\r\033[K", stderr);
        watch->bar = false;
    }
}

static void step_show(struct train_watch *watch)
{
    char left[32];
    double share = watch->steps > 0 ? watch->step / watch->steps : 0;
    bool last = watch->step >= watch->steps;
    int64_t now = clock_monotonic_ms();
    duration(left, (watch->steps - watch->step) * watch->seconds_per_step);
    if (watch->tty) {
        int full = (int)(share * BAR_CELLS);
        fputs("\r[", stderr);
        for (int i = 0; i < BAR_CELLS; i++) {
            fputc(i < full ? '#' : '.', stderr);
        }
        fprintf(stderr, "] %3.0f%% step %.0f/%.0f loss %.4f %.0f tok/s ETA %s\033[K",
                share * 100, watch->step, watch->steps, watch->loss, watch->tokens_per_s, left);
        watch->bar = true;
    } else if (last || now >= watch->next_line_ms) {
        fprintf(stderr, "step %.0f/%.0f loss %.4f %.0f tok/s ETA %s\n", watch->step,
                watch->steps, watch->loss, watch->tokens_per_s, left);
        watch->next_line_ms = now + PLAIN_EVERY_MS;
    }
}

static void take_start(struct train_watch *watch, const cJSON *event)
{
    double attempt = 0, parameters = 0, density = 0;
    json_real(&watch->steps, event, "steps");
    json_real(&watch->step, event, "step");
    json_real(&attempt, event, "attempt");
    json_real(&parameters, event, "active_parameters");
    json_real(&density, event, "density");
    if (!watch->json) {
        fprintf(stderr,
                "attempt %.0f: step %.0f of %.0f, %.0f active parameters, density %.4g\n",
                attempt, watch->step, watch->steps, parameters, density);
    }
}

static void take_step(struct train_watch *watch, const cJSON *event)
{
    double ms = 0;
    json_real(&watch->step, event, "step");
    json_real(&watch->loss, event, "loss");
    json_real(&watch->tokens_per_s, event, "tokens_per_s");
    json_real(&ms, event, "step_ms");
    /* Smoothed for the ETA: refreshes make single steps longer. */
    watch->seconds_per_step = watch->seconds_per_step > 0
                                  ? 0.95 * watch->seconds_per_step + 0.05 * ms / 1000
                                  : ms / 1000;
    if (watch->first_loss <= 0) {
        watch->first_loss = watch->loss;
    }
    if (!watch->json) {
        step_show(watch);
    }
}

static void take_eval(struct train_watch *watch, const cJSON *event)
{
    json_real(&watch->eval_loss, event, "loss");
    json_real(&watch->perplexity, event, "perplexity");
    watch->evaluated = true;
    if (!watch->json) {
        bar_clear(watch);
        fprintf(stderr, "step %.0f: validation loss %.4f, perplexity %.4g\n", watch->step,
                watch->eval_loss, watch->perplexity);
    }
}

static void take_skip(struct train_watch *watch, const cJSON *event)
{
    double step = 0;
    const char *reason = json_string(event, "reason");
    json_real(&step, event, "step");
    if (!watch->json) {
        bar_clear(watch);
        fprintf(stderr, "step %.0f: a batch is left out: %s\n", step, reason ? reason : "");
    }
}

static void take_rollback(struct train_watch *watch, const cJSON *event)
{
    double from = 0;
    json_real(&watch->step, event, "step");
    json_real(&from, event, "from");
    if (!watch->json) {
        bar_clear(watch);
        fprintf(stderr, "rolled back from step %.0f to step %.0f\n", from, watch->step);
    }
}

static void take_warning(struct train_watch *watch, const cJSON *event)
{
    const char *detail = json_string(event, "detail");
    if (!watch->json) {
        bar_clear(watch);
        fprintf(stderr, "warning: %s\n", detail ? detail : "");
    }
}

static void take_done(struct train_watch *watch, const cJSON *event)
{
    (void)event;
    watch->finished = true;
    if (!watch->json) {
        bar_clear(watch);
    }
}

static const struct {
    const char *type;
    void (*take)(struct train_watch *watch, const cJSON *event);
} takers[] = {
    {"start", take_start},       {"step", take_step}, {"eval", take_eval},
    {"warning", take_warning},   {"done", take_done}, {"skip", take_skip},
    {"rollback", take_rollback},
};

static void line_take(struct train_watch *watch, const char *line, size_t length)
{
    struct event event;
    if (event_parse(&event, line, length, NULL) != 0) {
        return;
    }
    if (watch->json) {
        fwrite(line, 1, length, stdout);
        fputc('\n', stdout);
        fflush(stdout);
    }
    for (size_t i = 0; i < sizeof takers / sizeof *takers; i++) {
        if (strcmp(event.type, takers[i].type) == 0) {
            takers[i].take(watch, event.json);
        }
    }
    event_release(&event);
}

/* Takes the whole lines out of watch->line and keeps the rest. */
static void lines_take(struct train_watch *watch)
{
    size_t begin = 0;
    for (size_t i = 0; i < watch->line.len; i++) {
        if (watch->line.data[i] == '\n') {
            line_take(watch, watch->line.data + begin, i - begin);
            begin = i + 1;
        }
    }
    if (begin > 0) {
        memmove(watch->line.data, watch->line.data + begin, watch->line.len - begin + 1);
        watch->line.len -= begin;
    }
}

int train_watch_poll(struct train_watch *watch, struct err *err)
{
    char chunk[CHUNK_BYTES];
    ssize_t got = 0;
    if (watch->fd < 0) {
        watch->fd = open(watch->path, O_RDONLY | O_CLOEXEC);
        if (watch->fd < 0) {
            return errno == ENOENT
                       ? 0
                       : err_set(err, ERR_IO, "open %s: %s", watch->path, strerror(errno));
        }
        /* A torn last line was cut off since. */
        struct stat status;
        if (fstat(watch->fd, &status) == 0 && status.st_size < watch->offset) {
            watch->offset = status.st_size;
        }
    }
    while ((got = pread(watch->fd, chunk, sizeof chunk, watch->offset)) > 0) {
        watch->offset += got;
        buf_add(&watch->line, chunk, (size_t)got);
        if (watch->line.failed) {
            return err_set(err, ERR_CORRUPT, "%s: a line of more than %d bytes", watch->path,
                           LINE_MAX_BYTES);
        }
        lines_take(watch);
    }
    return got == 0 || errno == EINTR
               ? 0
               : err_set(err, ERR_IO, "read %s: %s", watch->path, strerror(errno));
}

void train_watch_summary(const struct train_watch *watch, const char *folder)
{
    if (watch->json) {
        return;
    }
    printf("%s: step %.0f of %.0f, loss %.4f -> %.4f", folder, watch->step, watch->steps,
           watch->first_loss, watch->loss);
    if (watch->evaluated) {
        printf(", validation loss %.4f, perplexity %.4g", watch->eval_loss, watch->perplexity);
    }
    printf("%s\n", watch->finished ? "; model exported" : "");
}
