#include "worker/tools/options.h"

#include <assert.h>
#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

int tool_fail(const struct err *err)
{
    fprintf(stderr, "hebb: %s\n", err->text);
    return err_exit_code(err->code);
}

int tool_usage(const char *name, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fprintf(stderr, "hebb %s: ", name);
    vfprintf(stderr, format, args);
    fprintf(stderr, " (hebb %s --help)\n", name);
    va_end(args);
    return EXIT_USAGE;
}

static int list_add(struct option_list *list, const char *text, const char *tool)
{
    if (list->count == OPTION_LIST_MAX) {
        return tool_usage(tool, "more than %d arguments", OPTION_LIST_MAX);
    }
    list->items[list->count++] = text;
    return EXIT_DONE;
}

static int number_parse(const struct option_row *row, const char *text, const char *tool)
{
    char *end = NULL;
    bool whole = row->type == OPTION_COUNT;
    errno = 0;
    double value = strtod(text, &end);
    uint64_t count = 0;
    bool ok = end != text && *end == '\0' && errno == 0 && isfinite(value);
    if (ok && whole) { /* above 2^53 a double would round */
        count = strtoull(text, &end, 10);
        ok = text[0] >= '0' && text[0] <= '9' && *end == '\0' && errno == 0;
    }
    if (!ok || value < row->min || value > row->max) {
        return tool_usage(tool, "--%s %s: must be a %snumber from %.15g to %.15g", row->name,
                          text, whole ? "whole " : "", row->min, row->max);
    }
    if (whole) {
        *(uint64_t *)row->out = count;
    } else {
        *(double *)row->out = value;
    }
    return EXIT_DONE;
}

static int value_parse(const struct option_row *row, const char *text, const char *tool)
{
    switch (row->type) {
    case OPTION_FLAG:
        *(bool *)row->out = true;
        return EXIT_DONE;
    case OPTION_TEXT:
        *(const char **)row->out = text;
        return EXIT_DONE;
    case OPTION_LIST:
        return list_add(row->out, text, tool);
    case OPTION_COUNT:
    case OPTION_REAL:
        return number_parse(row, text, tool);
    }
    return EXIT_USAGE;
}

int options_parse(int argc, char **argv, const struct option_row *rows,
                  struct option_list *rest)
{
    struct option known[OPTIONS_MAX + 1] = {0};
    for (size_t i = 0; rows[i].name; i++) {
        assert(i < OPTIONS_MAX);
        known[i].name = rows[i].name;
        known[i].has_arg = rows[i].type == OPTION_FLAG ? no_argument : required_argument;
    }
    rest->count = 0;
    optind = 0; /* GNU: start afresh */
    opterr = 0;
    int option, at, rc = EXIT_DONE;
    /* "-": what is no option comes in its place, as option 1; ":": a missing argument is ':' */
    while (rc == EXIT_DONE && (option = getopt_long(argc, argv, "-:", known, &at)) != -1) {
        if (option == 1) {
            rc = list_add(rest, optarg, argv[0]);
        } else if (option == ':') {
            rc = tool_usage(argv[0], "%s needs a value", argv[optind - 1]);
        } else if (option == '?') {
            rc = tool_usage(argv[0], "no such option: %s", argv[optind - 1]);
        } else {
            rc = value_parse(&rows[at], optarg, argv[0]);
        }
    }
    for (; rc == EXIT_DONE && optind < argc; optind++) { /* after "--" */
        rc = list_add(rest, argv[optind], argv[0]);
    }
    return rc;
}
