/* hebb spec: the option table as people, programs and the documentation read it. */
#include "proto/msg/spec.h"
#include "daemon/cli/cli.h"
#include "daemon/cli/format.h"
#include "proto/msg/schema.h"
#include <stdio.h>
#include <string.h>

enum { SPEC_TEXT_MAX = 1024 * 1024 };

static int print_table(void)
{
    static const char *const heads[] = {"FIELD", "DEFAULT", "WHAT IT IS"};
    struct table table;
    size_t count;
    const struct opt *rows = spec_options(&count);
    table_init(&table, sizeof(heads) / sizeof(heads[0]), 0);
    table_row(&table, heads);
    for (size_t i = 0; i < count; i++) {
        const char *def = !rows[i].def ? "required" : (*rows[i].def ? rows[i].def : "computed");
        const char *const cells[] = {rows[i].path, def, rows[i].help};
        table_row(&table, cells);
    }
    bool whole = table_print(&table, stdout);
    table_release(&table);
    return whole ? EXIT_DONE : EXIT_FAILED;
}

int command_spec(int argc, char **argv)
{
    enum { JSON = CLI_OWN, MARKDOWN };
    static const struct option options[] = {
        {"json", no_argument, NULL, JSON},
        {"markdown", no_argument, NULL, MARKDOWN},
        {0},
    };
    struct client_config none = {0};
    int option, form = 0;
    cli_begin();
    while ((option = cli_next(argc, argv, "", options, &none)) != -1) {
        if (option == '?' || (form != 0 && form != option)) {
            return option == '?'
                       ? EXIT_USAGE
                       : cli_usage(argv[0], "--json and --markdown exclude each other");
        }
        form = option;
    }
    if (optind < argc) {
        return cli_usage(argv[0], "unexpected %s", argv[optind]);
    }
    if (form == 0) {
        return print_table();
    }
    struct buf text;
    buf_init(&text, SPEC_TEXT_MAX);
    if (form == JSON) {
        spec_schema(&text);
        buf_puts(&text, "\n");
    } else {
        spec_markdown(&text);
    }
    int code = text.failed ? EXIT_FAILED : EXIT_DONE;
    if (text.failed) {
        fprintf(stderr, "hebb: out of memory\n");
    } else {
        fwrite(text.data, 1, text.len, stdout);
    }
    buf_release(&text);
    return code;
}
