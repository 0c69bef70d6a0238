/* hebb sweep: the command. */
#include "daemon/cli/sweep.h"
#include "daemon/cli/cli.h"
#include "proto/base/fsx.h"
#include "proto/json/json.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct sweep_options {
    struct client_config config;
    const char *file, *csv, *json, *local;
    bool dry_run, again;
};

static int parse_options(int argc, char **argv, struct sweep_options *out)
{
    enum { CSV = CLI_OWN, JSON, LOCAL, DRY_RUN, AGAIN };
    static const struct option options[] = {
        CLI_OPTIONS,
        {"csv", required_argument, NULL, CSV},
        {"json", required_argument, NULL, JSON},
        {"local", required_argument, NULL, LOCAL},
        {"dry-run", no_argument, NULL, DRY_RUN},
        {"retry", no_argument, NULL, AGAIN},
        {0},
    };
    int option;
    *out = (struct sweep_options){0};
    cli_begin();
    while ((option = cli_next(argc, argv, "", options, &out->config)) != -1) {
        switch (option) {
        case CSV:
            out->csv = optarg;
            break;
        case JSON:
            out->json = optarg;
            break;
        case LOCAL:
            out->local = optarg;
            break;
        case DRY_RUN:
            out->dry_run = true;
            break;
        case AGAIN:
            out->again = true;
            break;
        default:
            return EXIT_USAGE;
        }
    }
    if (optind + 1 != argc) {
        return cli_usage(argv[0], "one FILE is needed");
    }
    out->file = argv[optind];
    return EXIT_DONE;
}

/* --- results --- */

static int write_csv(const struct sweep_plan *plan, const char *path)
{
    char *text = NULL;
    size_t len = 0;
    struct err err = {0};
    FILE *out = open_memstream(&text, &len);
    bool whole = out && sweep_print_csv(plan, out);
    whole = out && fclose(out) == 0 && whole;
    int rc = whole ? fsx_publish(path, text, len, 0644, &err)
                   : err_set(&err, ERR_NO_MEMORY, "%s: out of memory", path);
    free(text);
    return rc ? client_fail(&err) : EXIT_DONE;
}

static int write_json(const struct sweep_plan *plan, const char *path)
{
    struct buf text;
    struct err err = {0};
    cJSON *tree = sweep_json(plan);
    buf_init(&text, CLIENT_BODY_MAX);
    json_print(tree, &text);
    buf_puts(&text, "\n");
    cJSON_Delete(tree);
    int rc = text.failed ? err_set(&err, ERR_NO_MEMORY, "%s: out of memory", path)
                         : fsx_publish(path, text.data, text.len, 0644, &err);
    buf_release(&text);
    return rc ? client_fail(&err) : EXIT_DONE;
}

/* The table in every form that was asked for. */
static int finish(const struct sweep_plan *plan, const struct sweep_options *options)
{
    int code = EXIT_DONE;
    sweep_print_text(plan, stdout);
    fflush(stdout);
    if (options->csv) {
        code = write_csv(plan, options->csv);
    }
    if (options->json && code == EXIT_DONE) {
        code = write_json(plan, options->json);
    }
    bool complete = sweep_print_failures(plan);
    return code != EXIT_DONE || complete ? code : EXIT_FAILED;
}

/* --- the command --- */

static int run_local(struct sweep_plan *plan, const struct sweep_options *options)
{
    int code = sweep_local_check(plan);
    if (code == EXIT_DONE && options->dry_run) {
        sweep_print_plan(plan);
        return EXIT_DONE;
    }
    if (code == EXIT_DONE) {
        code = sweep_local_run(plan, options->local);
    }
    return code == EXIT_DONE ? finish(plan, options) : code;
}

static int run_daemon(struct sweep_plan *plan, const struct sweep_options *options)
{
    struct sweep_faults faults = {0};
    struct client *client = NULL;
    struct err err = {0};
    if (client_create(&client, &options->config, &err)) {
        return client_fail(&err);
    }
    int code = sweep_daemon_check(plan, client, &faults);
    sweep_faults_print(&faults, options->file);
    if (code == EXIT_DONE && faults.count > 0) {
        fprintf(stderr, "hebb: %zu faults; nothing was started\n", faults.count);
        code = EXIT_USAGE;
    }
    sweep_faults_release(&faults);
    if (code == EXIT_DONE && options->dry_run) {
        sweep_print_plan(plan);
    } else if (code == EXIT_DONE) {
        code = sweep_daemon_run(plan, client, options->again);
        code = code == EXIT_DONE ? finish(plan, options) : code;
    }
    client_destroy(client);
    return code;
}

static int load(struct sweep_plan *plan, const char *file)
{
    struct sweep_faults faults = {0};
    struct err err = {0};
    struct buf text;
    buf_init(&text, SWEEP_FILE_MAX);
    int rc = fsx_read(&text, file, &err);
    if (!rc) {
        rc = sweep_plan_make(plan, text.data, text.len, &faults, &err);
        sweep_faults_print(&faults, file);
        sweep_faults_release(&faults);
    }
    buf_release(&text);
    if (rc) {
        fprintf(stderr, "hebb: %s: %s\n", file, err.text);
    }
    return rc ? EXIT_USAGE : EXIT_DONE; /* a retry won't help */
}

int command_sweep(int argc, char **argv)
{
    struct sweep_options options;
    struct sweep_plan plan = {0};
    int code = parse_options(argc, argv, &options);
    if (code == EXIT_DONE) {
        code = load(&plan, options.file);
    }
    if (code == EXIT_DONE) {
        code = (options.local ? run_local : run_daemon)(&plan, &options);
    }
    sweep_plan_release(&plan);
    return code;
}
