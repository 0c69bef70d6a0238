#include "worker/heartbeat.h"

#include "proto/base/fsx.h"
#include "proto/base/log.h"
#include "proto/base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

struct heartbeat {
    struct comm *comm;
    int fd;
    char path[FSX_PATH_MAX];
    _Atomic uint64_t step;
    pthread_t thread;
    pthread_mutex_t mutex; /* of `ends`, which `wake` announces */
    pthread_cond_t wake;   /* on the monotonic clock */
    bool ends, failed;     /* failed: a write did, and the log says so */
};

/* One pwrite in place: it needs no room on a full disk. */
static int beat(struct heartbeat *heartbeat, struct err *err)
{
    char line[2 * HEARTBEAT_BYTES];
    memset(line, ' ', sizeof line);
    const struct comm *comm = heartbeat->comm;
    int length = snprintf(
        line, sizeof line, "{\"rank\": %d, \"step\": %" PRIu64 ", \"progress\": %" PRIu64 "}",
        comm->rank, atomic_load(&heartbeat->step), atomic_load(&comm->progress));
    if (length < 0 || length >= HEARTBEAT_BYTES)
        return err_set(err, ERR_INTERNAL, "a heartbeat has more than %d bytes",
                       HEARTBEAT_BYTES);
    line[length] = ' '; /* the NUL */
    line[HEARTBEAT_BYTES - 1] = '\n';
    ssize_t done;
    do
        done = pwrite(heartbeat->fd, line, HEARTBEAT_BYTES, 0);
    while (done < 0 && errno == EINTR);
    return done == HEARTBEAT_BYTES ? 0
                                   : err_set(err, ERR_IO, "write a heartbeat: %s",
                                             done < 0 ? strerror(errno) : "a part only");
}

static struct timespec later(struct timespec from)
{
    from.tv_sec += HEARTBEAT_MS / 1000;
    from.tv_nsec += HEARTBEAT_MS % 1000 * 1000000L;
    if (from.tv_nsec >= 1000000000L) {
        from.tv_nsec -= 1000000000L;
        from.tv_sec++;
    }
    return from;
}

static void *run(void *context)
{
    struct heartbeat *heartbeat = context;
    struct err err;
    pthread_mutex_lock(&heartbeat->mutex);
    while (!heartbeat->ends) {
        struct timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        const struct timespec until = later(now);
        while (!heartbeat->ends &&
               pthread_cond_timedwait(&heartbeat->wake, &heartbeat->mutex, &until) == 0) {
        }
        if (beat(heartbeat, &err) != 0 && !heartbeat->failed) {
            heartbeat->failed = true;
            log_warn("%s", err.text);
        }
    }
    pthread_mutex_unlock(&heartbeat->mutex);
    return NULL;
}

/* Signals are for the training thread: the new one inherits a full mask. */
static int thread_start(struct heartbeat *heartbeat, struct err *err)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int code = pthread_create(&heartbeat->thread, NULL, run, heartbeat);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return code == 0 ? 0
                     : err_set(err, ERR_NO_MEMORY, "start the heartbeat: %s", strerror(code));
}

static void release(struct heartbeat *heartbeat)
{
    pthread_cond_destroy(&heartbeat->wake);
    pthread_mutex_destroy(&heartbeat->mutex);
    if (heartbeat->fd >= 0)
        close(heartbeat->fd);
    free(heartbeat);
}

int heartbeat_start(struct heartbeat **out, const char *attempt, struct comm *comm,
                    struct err *err)
{
    pthread_condattr_t clock;
    *out = NULL;
    struct heartbeat *heartbeat = mem_zeroed(1, sizeof *heartbeat);
    if (!heartbeat)
        return err_set(err, ERR_NO_MEMORY, "no memory for the heartbeat");
    heartbeat->comm = comm;
    pthread_mutex_init(&heartbeat->mutex, NULL);
    pthread_condattr_init(&clock);
    pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
    pthread_cond_init(&heartbeat->wake, &clock);
    pthread_condattr_destroy(&clock);
    heartbeat->fd = -1;
    int rc = fsx_path(heartbeat->path, err, "%s/heartbeat-%d", attempt, comm->rank);
    if (rc == 0)
        heartbeat->fd =
            open(heartbeat->path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
    if (rc == 0 && heartbeat->fd < 0)
        rc = err_set(err, ERR_IO, "open %s: %s", heartbeat->path, strerror(errno));
    if (rc == 0)
        rc = beat(heartbeat, err);
    if (rc == 0)
        rc = thread_start(heartbeat, err);
    if (rc != 0) {
        release(heartbeat);
        return rc;
    }
    *out = heartbeat;
    return 0;
}

void heartbeat_step(struct heartbeat *heartbeat, size_t step)
{
    atomic_store(&heartbeat->step, step);
    comm_progress(heartbeat->comm);
}

void heartbeat_stop(struct heartbeat *heartbeat)
{
    if (!heartbeat)
        return;
    pthread_mutex_lock(&heartbeat->mutex);
    heartbeat->ends = true;
    pthread_cond_signal(&heartbeat->wake);
    pthread_mutex_unlock(&heartbeat->mutex);
    pthread_join(heartbeat->thread, NULL);
    unlink(heartbeat->path);
    release(heartbeat);
}
