/* hebb: looks the subcommand up in the tables of cli and tools. */
#include "daemon/cli/client.h"
#include "proto/base/command.h"
#include "proto/base/err.h"
#include "proto/base/suggest.h"
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

static const struct command *find_in(const struct command *table, const char *name)
{
    for (const struct command *row = table; row->name; row++) {
        if (strcmp(row->name, name) == 0) {
            return row;
        }
    }
    return NULL;
}

static const struct command *find_command(const char *name)
{
    const struct command *row = find_in(cli_commands, name);
    return row ? row : find_in(tools_commands, name);
}

static void print_table(const struct command *table)
{
    for (const struct command *row = table; row->name; row++) {
        printf("  %-11s %s\n", row->name, row->summary);
    }
}

static void print_help(void)
{
    printf("hebb %s: pre-training of language models with N:M sparse layers\n\n"
           "Usage: hebb COMMAND [ARGUMENTS]\n\nJobs of the daemon hebbd:\n",
           HEBB_VERSION);
    print_table(cli_commands);
    printf("\nWithout the daemon:\n");
    print_table(tools_commands);
    printf("\n`hebb COMMAND --help` says more about one.\n\n%s"
           "\nExit codes: 0 done, 1 failed, 2 usage or job wrong, 3 data wrong, 4 daemon "
           "unreachable,\n5 not in this build or machine, 75 stopped on request.\n",
           client_help);
}

static void print_command_help(const struct command *command)
{
    printf("Usage: hebb %s %s\n\n%s\n", command->name, command->usage, command->summary);
    if (command->help) {
        printf("\n%s", command->help);
    }
    if (find_in(cli_commands, command->name) && strcmp(command->name, "spec") != 0 &&
        strcmp(command->name, "backup") != 0) {
        printf("\n%s", client_help);
    }
}

static int unknown_command(const char *name)
{
    struct suggestion best = {0};
    for (const struct command *row = cli_commands; row->name; row++) {
        suggest_offer(&best, name, row->name);
    }
    for (const struct command *row = tools_commands; row->name; row++) {
        suggest_offer(&best, name, row->name);
    }
    fprintf(stderr, "hebb: unknown command \"%s\"", name);
    if (best.name) {
        fprintf(stderr, "; did you mean %s?", best.name);
    }
    fprintf(stderr, "\n`hebb help` lists the commands.\n");
    return EXIT_USAGE;
}

static bool wants_help(int argc, char **argv)
{
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++) {
        if (strcmp(argv[i], "--help") == 0) {
            return true;
        }
    }
    return false;
}

static int dispatch(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : NULL;
    if (!name) {
        print_help();
        return EXIT_USAGE;
    }
    if (strcmp(name, "--version") == 0) {
        printf("hebb %s\n", HEBB_VERSION);
        return EXIT_DONE;
    }
    bool help =
        strcmp(name, "help") == 0 || strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0;
    if (help && argc == 2) {
        print_help();
        return EXIT_DONE;
    }
    const struct command *command = find_command(help ? argv[2] : name);
    if (!command) {
        return unknown_command(help ? argv[2] : name);
    }
    if (help || wants_help(argc - 1, argv + 1)) {
        print_command_help(command);
        return EXIT_DONE;
    }
    return command->run(argc - 1, argv + 1);
}

int main(int argc, char **argv)
{
    int code = dispatch(argc, argv);
    if (fflush(stdout) != 0 || ferror(stdout)) {
        fprintf(stderr, "hebb: standard output cannot be written\n");
        return code == EXIT_DONE ? EXIT_FAILED : code;
    }
    return code;
}
