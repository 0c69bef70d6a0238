/* A subcommand of `hebb`: one row of a table. cli_commands (daemon/cli) talk to the daemon,
 * tools_commands (worker/tools) use the engine; main() looks a name up in both. Both tables end
 * with a row whose name is NULL. */
#ifndef HEBB_BASE_COMMAND_H
#define HEBB_BASE_COMMAND_H

struct command {
    const char *name;
    const char *usage;   /* arguments after the name, e.g. "FILE [--watch] [--json]" */
    const char *summary; /* one line for `hebb help` */
    /* argv[0] is the command's name. Returns an exit_code. Data to stdout, messages to stderr. */
    int (*run)(int argc, char **argv);
    const char *help; /* whole help text for `hebb NAME --help`, NULL: usage and summary only */
};

extern const struct command cli_commands[];
extern const struct command tools_commands[];

#endif
