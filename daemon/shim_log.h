/* log.txt of an attempt: the output of mpirun and all ranks, passed on from a pipe so that it
 * is bounded. The first bytes are kept as they come; what follows goes through a ring whose
 * content, the last bytes, is written at the end after a line that says how much was left out.
 * A disk that is full costs log lines, never the job. */
#ifndef HEBB_DAEMON_SHIM_LOG_H
#define HEBB_DAEMON_SHIM_LOG_H

#include "proto/base/err.h"
#include <stddef.h>
#include <stdint.h>

struct shim_log {
    int pipe;    /* the end that is read; -1: everybody has closed the other one */
    int file;    /* log.txt, appended */
    size_t head; /* bytes that are still taken as they come */
    char *ring;  /* ring_size bytes, made when they are needed */
    size_t ring_size;
    uint64_t passed; /* bytes that went into the ring */
    uint64_t lost;   /* bytes that the disk did not take */
};

/* Makes the pipe; *output gets the end that the program writes to (close-on-exec). file stays
 * the caller's. */
int shim_log_init(struct shim_log *log, int file, size_t head, size_t tail, int *output,
                  struct err *err);
/* Takes over what is there without waiting. */
void shim_log_take(struct shim_log *log);
/* Takes the rest, writes the end of the log and closes the pipe. */
void shim_log_finish(struct shim_log *log);

#endif
