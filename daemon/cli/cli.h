/* What the commands that talk to the daemon share. A command is one file here and one row in
 * commands.c. */
#ifndef HEBB_CLI_CLI_H
#define HEBB_CLI_CLI_H

#include "daemon/cli/client.h"
#include "proto/base/command.h"
#include <getopt.h>

int command_submit(int argc, char **argv);
int command_jobs(int argc, char **argv);
int command_show(int argc, char **argv);
int command_watch(int argc, char **argv);
int command_logs(int argc, char **argv);
int command_cancel(int argc, char **argv);
int command_pause(int argc, char **argv);
int command_resume(int argc, char **argv);
int command_checkpoint(int argc, char **argv);
int command_compare(int argc, char **argv);
int command_sweep(int argc, char **argv);
int command_spec(int argc, char **argv);
int command_token(int argc, char **argv);
int command_backup(int argc, char **argv);

/* --- options --- */
enum {
    CLI_URL = 256,
    CLI_TOKEN_FILE,
    CLI_OWN
}; /* a command's own long options start at CLI_OWN */

/* clang-format off */
#define CLI_OPTIONS \
    {"url", required_argument, NULL, CLI_URL}, \
    {"token-file", required_argument, NULL, CLI_TOKEN_FILE}
/* clang-format on */

/* The next option as getopt_long gives it, after taking --url and --token-file; -1 at the end,
 * '?' after a message on stderr. Call cli_begin first. */
void cli_begin(void);
int cli_next(int argc, char **argv, const char *letters, const struct option *options,
             struct client_config *config);

/* Takes the options of a command that has --json and no other of its own; EXIT_USAGE after a
 * message. */
int cli_options_json(int argc, char **argv, struct client_config *config, bool *json);

/* A whole number within [min, max], or a message that names option and EXIT_USAGE. */
int cli_number(const char *option, const char *text, int64_t min, int64_t max, int64_t *out);

/* Prints "hebb NAME: text" and how to get help; returns EXIT_USAGE. */
int cli_usage(const char *name, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Makes the client and finds the job that argv[optind], the only operand, names. On failure
 * client is NULL. */
int cli_open_job(int argc, char **argv, const struct client_config *config,
                 struct client **client, char id[CLIENT_ID_MAX]);

/* --- output --- */
int cli_print_json(const cJSON *value);                     /* one line on stdout */
double cli_real(const cJSON *object, const char *key);      /* -1 if it is null or missing */
int64_t cli_int(const cJSON *object, const char *key);      /* -1 likewise */
const char *cli_text(const cJSON *object, const char *key); /* "" likewise */

bool cli_state_final(const char *state);

/* Follows a job to its end: watch.c. since: events up to this seq are not shown; -1: those
 * before now. */
int cli_watch(struct client *client, const char *id, int64_t since, bool json);

#endif
