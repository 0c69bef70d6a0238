#include "daemon/loop.h"
#include "proto/base/clock.h"
#include "proto/base/mem.h"
#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { LOOP_FDS_MAX = 256, LOOP_TIMERS_MAX = 32 };

struct loop_fd {
    int fd; /* -1: removed during this turn */
    void (*fn)(void *context, int fd);
    void *context;
};

struct loop_timer {
    int id; /* 0: free */
    int64_t interval_ms, next_ms;
    void (*fn)(void *context);
    void *context;
};

struct loop {
    struct loop_fd fds[LOOP_FDS_MAX];
    struct pollfd polls[LOOP_FDS_MAX];
    size_t fd_count;
    struct loop_timer timers[LOOP_TIMERS_MAX];
    int last_timer_id;
    int64_t (*before_wait)(void *context);
    void *before_wait_context;
    void (*after_turn)(void *context);
    void *after_turn_context;
    bool stopping;
};

int loop_create(struct loop **out, struct err *err)
{
    *out = mem_zeroed(1, sizeof **out);
    return *out != NULL ? 0 : err_set(err, ERR_NO_MEMORY, "poll loop: out of memory");
}

void loop_destroy(struct loop *loop) { free(loop); }

int loop_add_fd(struct loop *loop, int fd, void (*fn)(void *context, int fd), void *context,
                struct err *err)
{
    assert(fd >= 0 && fn != NULL);
    if (loop->fd_count == LOOP_FDS_MAX)
        return err_set(err, ERR_LIMIT, "poll loop: more than %d descriptors",
                       (int)LOOP_FDS_MAX);
    loop->fds[loop->fd_count++] = (struct loop_fd){.fd = fd, .fn = fn, .context = context};
    return 0;
}

void loop_remove_fd(struct loop *loop, int fd)
{
    for (size_t i = 0; i < loop->fd_count; i++)
        if (loop->fds[i].fd == fd)
            loop->fds[i].fd =
                -1; /* dropped before the next wait, so that a callback may remove */
}

int loop_add_timer(struct loop *loop, int64_t interval_ms, void (*fn)(void *context),
                   void *context)
{
    assert(interval_ms > 0 && fn != NULL);
    for (size_t i = 0; i < LOOP_TIMERS_MAX; i++) {
        struct loop_timer *timer = &loop->timers[i];
        if (timer->id != 0)
            continue;
        *timer = (struct loop_timer){.id = ++loop->last_timer_id,
                                     .interval_ms = interval_ms,
                                     .next_ms = clock_monotonic_ms() + interval_ms,
                                     .fn = fn,
                                     .context = context};
        return timer->id;
    }
    assert(!"poll loop: too many timers");
    return 0;
}

void loop_remove_timer(struct loop *loop, int id)
{
    for (size_t i = 0; i < LOOP_TIMERS_MAX; i++)
        if (loop->timers[i].id == id)
            loop->timers[i].id = 0;
}

void loop_set_before_wait(struct loop *loop, int64_t (*fn)(void *context), void *context)
{
    loop->before_wait = fn;
    loop->before_wait_context = context;
}

void loop_set_after_turn(struct loop *loop, void (*fn)(void *context), void *context)
{
    loop->after_turn = fn;
    loop->after_turn_context = context;
}

void loop_stop(struct loop *loop) { loop->stopping = true; }

static void drop_removed(struct loop *loop)
{
    size_t kept = 0;
    for (size_t i = 0; i < loop->fd_count; i++)
        if (loop->fds[i].fd >= 0)
            loop->fds[kept++] = loop->fds[i];
    loop->fd_count = kept;
}

static int wait_ms(struct loop *loop)
{
    int64_t now = clock_monotonic_ms(), wait = 60 * 1000;
    for (size_t i = 0; i < LOOP_TIMERS_MAX; i++)
        if (loop->timers[i].id != 0 && loop->timers[i].next_ms - now < wait)
            wait = loop->timers[i].next_ms - now;
    if (loop->before_wait != NULL) {
        int64_t limit = loop->before_wait(loop->before_wait_context);
        if (limit >= 0 && limit < wait)
            wait = limit;
    }
    return wait > 0 ? (int)wait : 0;
}

static void run_timers(struct loop *loop)
{
    int64_t now = clock_monotonic_ms();
    for (size_t i = 0; i < LOOP_TIMERS_MAX; i++) {
        struct loop_timer *timer = &loop->timers[i];
        if (timer->id == 0 || timer->next_ms > now)
            continue;
        timer->next_ms += timer->interval_ms;
        if (timer->next_ms <= now) /* late: skip the missed beats */
            timer->next_ms = now + timer->interval_ms;
        timer->fn(timer->context);
    }
}

static void run_fds(struct loop *loop, size_t polled)
{
    for (size_t i = 0; i < polled; i++) {
        struct loop_fd *entry = &loop->fds[i];
        if (loop->polls[i].revents != 0 && entry->fd == loop->polls[i].fd)
            entry->fn(entry->context, entry->fd);
    }
}

int loop_run(struct loop *loop, struct err *err)
{
    while (!loop->stopping) {
        drop_removed(loop);
        size_t polled = loop->fd_count;
        for (size_t i = 0; i < polled; i++)
            loop->polls[i] = (struct pollfd){.fd = loop->fds[i].fd, .events = POLLIN};
        int ready = poll(loop->polls, polled, wait_ms(loop));
        if (ready < 0 && errno != EINTR)
            return err_set(err, ERR_IO, "poll: %s", strerror(errno));
        /* Timers first: they then meet a store whose last turn is committed. */
        run_timers(loop);
        if (ready > 0)
            run_fds(loop, polled);
        if (loop->after_turn != NULL)
            loop->after_turn(loop->after_turn_context);
    }
    loop->stopping = false;
    return 0;
}
