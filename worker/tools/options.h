/* The command line of a tool as a table: one row per option, parsed by getopt_long. */
#ifndef HEBB_TOOLS_OPTIONS_H
#define HEBB_TOOLS_OPTIONS_H

#include "proto/base/err.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum option_type {
    OPTION_FLAG,  /* bool *out = true */
    OPTION_COUNT, /* uint64_t *out, a whole number within [min, max] */
    OPTION_REAL,  /* double *out within [min, max] */
    OPTION_TEXT,  /* const char **out */
    OPTION_LIST,  /* struct option_list *out, appended; the option may come again */
};

enum { OPTIONS_MAX = 16, OPTION_LIST_MAX = 256 };

struct option_list {
    const char *items[OPTION_LIST_MAX]; /* point into argv */
    size_t count;
};

struct option_row {
    const char *name; /* without "--"; NULL ends the table */
    enum option_type type;
    void *out;
    double min, max;
};

/* Parses argv[1] and on; what is no option is appended to rest (its order kept). Returns
 * EXIT_DONE, or EXIT_USAGE after a message on stderr. */
int options_parse(int argc, char **argv, const struct option_row *rows,
                  struct option_list *rest);

/* Prints "hebb: text" for a failure and returns its exit code. */
int tool_fail(const struct err *err);

/* Prints "hebb NAME: text" and returns EXIT_USAGE. */
int tool_usage(const char *name, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
