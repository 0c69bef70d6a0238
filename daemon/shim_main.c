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
                            "FD] [--grace SECONDS] [--hung SECONDS]\n"
                            "                 [--stalled SECONDS] [--log-bytes N] -- PROGRAM "
                            "[ARGUMENT]...\n"
                            "\n"
                            "Runs PROGRAM as attempt N of the job in folder JOB (an absolute "
                            "path) and writes JOB/attempt-N/exit.json when it has\n"
                            "ended. The daemon starts it; SIGTERM asks PROGRAM to save and "
                            "stop, a second SIGTERM kills it.\n"
                            "\n"
                            "  --grace SECONDS    from the first SIGTERM to killing; 60\n"
                            "  --hung SECONDS     a rank whose heartbeat stands still for so "
                            "long is killed, and all with it; 20\n"
                            "  --stalled SECONDS  the same if no rank makes progress; 1800\n"
                            "  --log-bytes N      what log.txt keeps before it keeps the end "
                            "only; 16 MiB\n";

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

/* Options whose value is a number. */
static const struct number_option {
    int option;
    const char *name;
    long min, max;
} numbers[] = {
    {'a', "attempt", 1, INT_MAX},      {'r', "ranks", 1, INT_MAX},
    {'l', "lock-fd", 3, INT_MAX},      {'g', "grace", 0, 24 * 3600},
    {'u', "hung", 1, 24 * 3600},       {'s', "stalled", 1, 30 * 24 * 3600},
    {'b', "log-bytes", 4096, INT_MAX},
};

static int set_number(struct shim_options *shim, int option, const char *text)
{
    size_t i = 0;
    long value;
    while (numbers[i].option != option)
        i++;
    if (number(&value, numbers[i].name, text, numbers[i].min, numbers[i].max) != 0)
        return EXIT_USAGE;
    int *const fields[] = {NULL,           &shim->ranks,  &shim->lock_fd,
                           &shim->grace_s, &shim->hung_s, &shim->stalled_s};
    if (option == 'a')
        shim->attempt = value;
    else if (option == 'b')
        shim->log_head = (size_t)value;
    else
        *fields[i] = (int)value;
    return EXIT_DONE;
}

/* Returns EXIT_DONE to go on; *leave if the answer was already given. */
static int parse(struct shim_options *shim, int argc, char **argv, bool *leave)
{
    static const struct option options[] = {
        {"folder", required_argument, NULL, 'f'},
        {"attempt", required_argument, NULL, 'a'},
        {"ranks", required_argument, NULL, 'r'},
        {"lock-fd", required_argument, NULL, 'l'},
        {"grace", required_argument, NULL, 'g'},
        {"hung", required_argument, NULL, 'u'},
        {"stalled", required_argument, NULL, 's'},
        {"log-bytes", required_argument, NULL, 'b'},
        {"help", no_argument, NULL, 'h'},
        {"version", no_argument, NULL, 'v'},
        {NULL, 0, NULL, 0},
    };
    int option, at, code = EXIT_DONE;
    while (code == EXIT_DONE && (option = getopt_long(argc, argv, "+h", options, &at)) != -1) {
        if (option == 'h' || option == 'v') {
            fputs(option == 'h' ? usage : "hebb-shim " HEBB_VERSION "\n", stdout);
            *leave = true;
            return EXIT_DONE;
        }
        if (option == 'f')
            shim->folder = optarg;
        else if (option == '?') {
            fputs(usage, stderr);
            code = EXIT_USAGE;
        } else
            code = set_number(shim, option, optarg);
    }
    if (code == EXIT_DONE && (shim->folder == NULL || shim->attempt == 0 || optind >= argc)) {
        fputs(usage, stderr);
        code = EXIT_USAGE;
    }
    shim->program = argv + optind;
    return code;
}

int main(int argc, char **argv)
{
    struct shim_options shim = {.ranks = 1,
                                .lock_fd = -1,
                                .grace_s = SHIM_GRACE_S,
                                .hung_s = SHIM_HUNG_S,
                                .stalled_s = SHIM_STALLED_S,
                                .log_head = SHIM_LOG_HEAD};
    bool leave = false;
    int code = parse(&shim, argc, argv, &leave);
    if (code != EXIT_DONE || leave)
        return code;
    struct err err;
    code = shim_run(&shim, &err);
    if (code != 0)
        fprintf(stderr, "hebb-shim: %s\n", err.text);
    return code == 0 ? EXIT_DONE : err_exit_code(code);
}
