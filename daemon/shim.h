/* hebb-shim: one per attempt. Starts mpirun (or the one worker), outlives the daemon, waits,
 * kills what is left over, cleans up and writes exit.json last. Its lock on attempt-N/lock says
 * that the attempt lives.
 *
 * While it lives it sets the times of the lock every second, so that a stopped shim can be
 * told; it judges the ranks by their heartbeats (docs/formats.md), and passes their output on
 * to log.txt, which it keeps below SHIM_LOG_HEAD + SHIM_LOG_TAIL bytes.
 *
 * Signals: the first SIGTERM asks the program to stop (SIGUSR1, which mpirun hands to the
 * ranks: they save and leave with 75); a second one, or SHIM_GRACE_S without an end, kills
 * everything. */
#ifndef HEBB_DAEMON_SHIM_H
#define HEBB_DAEMON_SHIM_H

#include "daemon/process.h"
#include "proto/base/err.h"
#include "proto/base/fsx.h"
#include <stdbool.h>
#include <stdint.h>

enum {
    SHIM_GRACE_S = 60,        /* from the first SIGTERM to SIGKILL */
    SHIM_REAP_S = 10,         /* waiting for killed processes to be gone */
    SHIM_HUNG_S = 20,         /* a rank whose heartbeat stands still for so long is hung */
    SHIM_STALLED_S = 1800,    /* so is the attempt if no rank makes progress for so long */
    SHIM_LOG_HEAD = 16 << 20, /* bytes of log.txt that are kept as they come; after them the
                                 last SHIM_LOG_TAIL bytes are kept for the end */
    SHIM_MESSAGE_MAX = 400,   /* bytes of a reason */
    SHIM_LOG_TAIL = 64 * 1024 /* of log.txt, searched for what mpirun said of a killed rank */
};

/* Everything about an attempt that follows from its folder and number. */
struct shim_paths {
    char attempt[FSX_PATH_MAX]; /* JOB/attempt-N */
    char tmp[FSX_PATH_MAX];     /* JOB/attempt-N/tmp: TMPDIR and HOME of the program */
    char shm[FSX_PATH_MAX];  /* /dev/shm/hebb-ID-N: Open MPI's shared memory; ID: the folder's
                                name, or a hash of its path if the name is no job's ID */
    char mark[FSX_PATH_MAX]; /* "HEBB_ATTEMPT=JOB/attempt-N", in the environment of every
                                process of the attempt */
};
/* folder must be absolute. */
int shim_paths(struct shim_paths *out, const char *folder, int64_t attempt, struct err *err);
/* Removes tmp and shm. */
int shim_clean(const struct shim_paths *paths, struct err *err);

/* attempt-N/shim.json. */
int shim_identity_write(const char *attempt_path, struct err *err); /* of this process */
int shim_identity_read(struct process_identity *out, const char *attempt_path, struct err *err);

/* What exit.json says. */
struct shim_exit {
    int code, signal, rank;
    char reason[SHIM_MESSAGE_MAX];
};
/* From waitpid's status, the error-R.json files and, for a rank that a signal ended, mpirun's
 * words in log.txt. killed: the shim's own reason for having killed the program, or NULL. */
void shim_exit_judge(struct shim_exit *out, const char *attempt_path, int status, int ranks,
                     const char *killed);
int shim_exit_write(const char *attempt_path, const struct shim_exit *end, struct err *err);
/* ERR_NOT_FOUND while there is none. */
int shim_exit_read(struct shim_exit *out, const char *attempt_path, struct err *err);

struct shim_options {
    const char *folder;
    int64_t attempt;
    int ranks;
    int lock_fd;     /* the lock's descriptor, inherited from the launcher; -1: take it */
    int grace_s;     /* SHIM_GRACE_S */
    int hung_s;      /* SHIM_HUNG_S */
    int stalled_s;   /* SHIM_STALLED_S */
    size_t log_head; /* SHIM_LOG_HEAD */
    char **program;  /* argv, ends with NULL */
};
/* Runs the attempt to its end. Returns 0 when exit.json was written. */
int shim_run(const struct shim_options *options, struct err *err);

#endif
