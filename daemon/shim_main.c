/* hebb-shim --folder JOB --attempt N [--ranks R] [--lock-fd FD] [--grace SECONDS] -- PROGRAM
 * ARGUMENTS... */
#include "daemon/shim.h"
#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char usage[] = "usage: hebb-shim --folder JOB --attempt N [--ranks R] [--lock-fd "
                            "FD] [--grace SECONDS] -- PROGRAM [ARGUMENT]...\n"
                            "\n"
                            "Runs PROGRAM as attempt N of the job in folder JOB (an absolute "
                            "path) and writes JOB/attempt-N/exit.json when it has\n"
                            "ended. The daemon starts it; SIGTERM asks PROGRAM to save and "
                            "stop, a second SIGTERM kills it.\n";

static int number(long *out, const char *name, const char *text, long min, long max)
{
    char *end;
    errno = 0;
    *out = strtol(text, &end, 10);
    if (errno == 0 && end != text && *end == '\0' && *out >= min && *out <= max)
        return 0;
    fprintf(stderr, "hebb-shim: --%s '%s' must be a number from %ld to %ld\n", name, text, min,
            max);
    return -1;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"folder", required_argument, NULL, 'f'}, {"attempt", required_argument, NULL, 'a'},
        {"ranks", required_argument, NULL, 'r'},  {"lock-fd", required_argument, NULL, 'l'},
        {"grace", required_argument, NULL, 'g'},  {"help", no_argument, NULL, 'h'},
        {"version", no_argument, NULL, 'v'},      {NULL, 0, NULL, 0},
    };
    struct shim_options shim = {.ranks = 1, .lock_fd = -1, .grace_s = SHIM_GRACE_S};
    int option, at;
    long value;
    while ((option = getopt_long(argc, argv, "+h", options, &at)) != -1) {
        switch (option) {
        case 'f':
            shim.folder = optarg;
            break;
        case 'a':
            if (number(&value, "attempt", optarg, 1, INT_MAX) != 0)
                return EXIT_USAGE;
            shim.attempt = value;
            break;
        case 'r':
            if (number(&value, "ranks", optarg, 1, INT_MAX) != 0)
                return EXIT_USAGE;
            shim.ranks = (int)value;
            break;
        case 'l':
            if (number(&value, "lock-fd", optarg, 3, INT_MAX) != 0)
                return EXIT_USAGE;
            shim.lock_fd = (int)value;
            break;
        case 'g':
            if (number(&value, "grace", optarg, 0, 24 * 3600) != 0)
                return EXIT_USAGE;
            shim.grace_s = (int)value;
            break;
        case 'h':
            fputs(usage, stdout);
            return EXIT_DONE;
        case 'v':
            puts("hebb-shim " HEBB_VERSION);
            return EXIT_DONE;
        default:
            fputs(usage, stderr);
            return EXIT_USAGE;
        }
    }
    if (shim.folder == NULL || shim.attempt == 0 || optind >= argc) {
        fputs(usage, stderr);
        return EXIT_USAGE;
    }
    shim.program = argv + optind;
    struct err err;
    int code = shim_run(&shim, &err);
    if (code != 0)
        fprintf(stderr, "hebb-shim: %s\n", err.text);
    return code == 0 ? EXIT_DONE : err_exit_code(code);
}
