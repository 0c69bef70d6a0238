/* Errors: a stable code and one sentence. Functions that can fail return 0 or a negative ERR_
 * code and fill `err` (which may be NULL when the caller needs the code only). */
#ifndef HEBB_BASE_ERR_H
#define HEBB_BASE_ERR_H

#include <stddef.h>

enum err_code {
    ERR_OK = 0,
    ERR_INVALID = -1,   /* the caller's or the user's input is wrong */
    ERR_NOT_FOUND = -2, /* a named thing does not exist */
    ERR_IO = -3,        /* the operating system refused or failed */
    ERR_NO_MEMORY = -4, /* an allocation failed or a size overflowed */
    ERR_CORRUPT = -5,   /* a file is not what its header or checksum says */
    ERR_CONFLICT = -6,  /* the state does not allow it now */
    ERR_LIMIT = -7,     /* a named limit was reached */
    ERR_UNSUPPORTED = -8, /* this build or machine does not have the feature */
    ERR_NETWORK = -9,   /* the peer could not be reached; says nothing about its state */
    ERR_INTERNAL = -10, /* a library broke its contract */
    ERR_NO_SPACE = -11, /* the disk or a quota is full: the same act may work later */
};

enum { ERR_TEXT_MAX = 512 };

struct err {
    int code;                  /* an err_code */
    char text[ERR_TEXT_MAX];   /* names the thing, the value and the reason; no newline */
};

/* Sets code and formatted text (cut at ERR_TEXT_MAX - 1) and returns code, so that
 * `return err_set(err, ERR_IO, "open %s: %s", path, strerror(errno));` reads as one act (-Wpedantic
 * refuses %m). Arguments may point into err. err may be NULL. */
int err_set(struct err *err, int code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Puts "context: " before the text that err holds; returns err's code. err may be NULL. */
int err_wrap(struct err *err, int code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* The code for a failed system call: ERR_NO_SPACE for ENOSPC and EDQUOT, otherwise ERR_IO. */
int err_of_errno(int number);

/* The code's name in lower case: "invalid", "not_found", ... */
const char *err_name(int code);

/* Process exit codes of every hebb program; docs/formats.md lists them. */
enum exit_code {
    EXIT_DONE = 0,
    EXIT_FAILED = 1,        /* the thing was tried and failed; a retry may help */
    EXIT_USAGE = 2,         /* command line, job or configuration is wrong; a retry won't help */
    EXIT_DATA = 3,          /* a data file, checkpoint or model is wrong; a retry won't help */
    EXIT_UNREACHABLE = 4,   /* the daemon could not be reached */
    EXIT_UNSUPPORTED = 5,   /* this build or machine does not have the feature */
    EXIT_STOPPED = 75,      /* a worker left on request, its checkpoint on disk */
};

/* The exit code that fits an err_code. */
int err_exit_code(int code);

#endif
