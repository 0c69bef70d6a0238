/* hebb backup: the daemon's own program knows its databases; it is run in this one's place. */
#include "daemon/cli/cli.h"
#include "proto/base/fsx.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

int command_backup(int argc, char **argv)
{
    enum { STATE = CLI_OWN };
    static const struct option options[] = {{"state", required_argument, NULL, STATE}, {0}};
    char self[FSX_PATH_MAX], program[FSX_PATH_MAX];
    char *state = NULL;
    int option;
    cli_begin();
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (option != STATE) {
            return EXIT_USAGE;
        }
        state = optarg;
    }
    if (argc - optind != 1) {
        return cli_usage("backup", "want one FOLDER");
    }
    ssize_t len = readlink("/proc/self/exe", self, sizeof(self) - 1);
    if (len <= 0) {
        fprintf(stderr, "hebb: read /proc/self/exe: %s\n", strerror(errno));
        return EXIT_FAILED;
    }
    self[len] = '\0';
    *strrchr(self, '/') = '\0';
    if (fsx_path(program, NULL, "%s/hebbd", self)) {
        return EXIT_FAILED;
    }
    char *arguments[] = {program, "--backup", argv[optind], state ? "--state" : NULL,
                         state,   NULL};
    execv(program, arguments);
    fprintf(stderr, "hebb: run %s: %s\n", program, strerror(errno));
    return EXIT_UNSUPPORTED;
}
