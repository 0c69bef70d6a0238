/* Programs that the daemon calls and waits for without blocking: argv built here and no shell,
 * an environment made from nothing, a limit of time and of output. The answer comes through the
 * poll loop. */
#ifndef HEBB_DAEMON_CALL_H
#define HEBB_DAEMON_CALL_H

#include "daemon/loop.h"
#include "proto/base/err.h"
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

enum {
    CALLS_MAX = 8,             /* at a time */
    CALL_OUTPUT_MAX = 8 << 20, /* bytes of stdout; more is a failure */
    CALL_ERRORS_MAX = 4096,    /* bytes of stderr that are kept */
    CALL_INPUT_MAX = 32 * 1024 /* fits a pipe: written before the program reads */
};

struct calls;

struct call_answer {
    int code;        /* exit code; -1 if a signal, the time or the output's limit ended it */
    const char *out; /* stdout, ends with a NUL */
    size_t out_len;
    const char *errors;         /* stderr, ends with a NUL */
    char trouble[ERR_TEXT_MAX]; /* code is not 0: the first line of stderr, or what happened */
};

struct call {
    const char *const *argv; /* argv[0] is the program's path; ends with NULL */
    const char *const *environment;
    const char *input; /* stdin; NULL: none */
    int keep_fd;       /* the program gets it as descriptor 3; -1: none */
    int64_t timeout_ms;
    void (*done)(void *context, const struct call_answer *answer);
    void *context;
};

int calls_create(struct calls **out, struct loop *loop, struct err *err);
/* Programs that still run go on without us; their answers are dropped. */
void calls_destroy(struct calls *calls);

/* ERR_NOT_FOUND if there is no such program, ERR_LIMIT if CALLS_MAX run already. The arguments
 * are not needed after the return. done is called once, never from in here. */
int calls_start(struct calls *calls, const struct call *call, struct err *err);

/* To be told of every child that waitpid gave. */
void calls_reaped(struct calls *calls, pid_t pid, int status);

#endif
