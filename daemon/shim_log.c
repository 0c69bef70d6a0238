#include "daemon/shim_log.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { CHUNK = 16 * 1024, CHUNKS_PER_TURN = 64 };

int shim_log_init(struct shim_log *log, int file, size_t head, size_t tail, int *output,
                  struct err *err)
{
    int ends[2];
    *log = (struct shim_log){.pipe = -1, .file = file, .head = head, .ring_size = tail};
    if (pipe2(ends, O_CLOEXEC) != 0)
        return err_set(err, ERR_IO, "pipe: %s", strerror(errno));
    fcntl(ends[0], F_SETFL, O_NONBLOCK);
    log->pipe = ends[0];
    *output = ends[1];
    return 0;
}

static void write_out(struct shim_log *log, const char *data, size_t len)
{
    while (len > 0) {
        ssize_t done = write(log->file, data, len);
        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0) {
            log->lost += len;
            return;
        }
        data += done;
        len -= (size_t)done;
    }
}

static void keep(struct shim_log *log, const char *data, size_t len)
{
    if (log->ring == NULL)
        log->ring = malloc(log->ring_size);
    for (size_t i = 0; i < len && log->ring != NULL; i++)
        log->ring[(log->passed + i) % log->ring_size] = data[i];
    log->passed += len;
}

void shim_log_take(struct shim_log *log)
{
    char chunk[CHUNK];
    for (int i = 0; i < CHUNKS_PER_TURN && log->pipe >= 0; i++) {
        ssize_t got = read(log->pipe, chunk, sizeof chunk);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return; /* nothing there now */
        if (got == 0) {
            close(log->pipe);
            log->pipe = -1;
            return;
        }
        size_t len = (size_t)got, first = len < log->head ? len : log->head;
        write_out(log, chunk, first);
        log->head -= first;
        keep(log, chunk + first, len - first);
    }
}

static void write_end(struct shim_log *log)
{
    char line[160];
    size_t kept = log->passed < log->ring_size ? (size_t)log->passed : log->ring_size;
    if (log->ring == NULL)
        kept = 0;
    if (log->passed > kept) {
        int len =
            snprintf(line, sizeof line,
                     "\n[hebb-shim: the log is full; %" PRIu64 " bytes were left out here]\n",
                     log->passed - kept);
        write_out(log, line, (size_t)len);
    }
    size_t at = (size_t)((log->passed - kept) % (log->ring_size != 0 ? log->ring_size : 1));
    size_t first = kept < log->ring_size - at ? kept : log->ring_size - at;
    if (kept > 0) {
        write_out(log, log->ring + at, first);
        write_out(log, log->ring, kept - first);
    }
    if (log->lost > 0) {
        int len = snprintf(
            line, sizeof line,
            "\n[hebb-shim: the disk did not take %" PRIu64 " bytes of this log]\n", log->lost);
        write_out(log, line, (size_t)len);
    }
}

void shim_log_finish(struct shim_log *log)
{
    shim_log_take(
        log); /* what a process that does not die still holds open is not waited for */
    write_end(log);
    if (log->pipe >= 0)
        close(log->pipe);
    log->pipe = -1;
    free(log->ring);
    log->ring = NULL;
}
