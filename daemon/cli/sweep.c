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

/* What is run: the tuning first, if there is one. */
struct sweep {
    struct sweep_options options;
    struct sweep_plan plan, tune;
    bool tunes;
    struct client *client; /* NULL with --local */
};

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

static int write_json(const struct sweep *sweep, const char *path)
{
    struct buf text;
    struct err err = {0};
    cJSON *tree = sweep_json(&sweep->plan, sweep->tunes ? &sweep->tune : NULL);
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
static int finish(const struct sweep *sweep)
{
    const struct sweep_options *options = &sweep->options;
    int code = EXIT_DONE;
    sweep_print_text(&sweep->plan, stdout);
    fflush(stdout);
    if (options->csv) {
        code = write_csv(&sweep->plan, options->csv);
    }
    if (options->json && code == EXIT_DONE) {
        code = write_json(sweep, options->json);
    }
    bool complete = sweep_print_failures(&sweep->plan);
    return code != EXIT_DONE || complete ? code : EXIT_FAILED;
}

/* --- stages --- */

static int load(struct sweep *sweep)
{
    const char *file = sweep->options.file;
    struct sweep_faults faults = {0};
    struct err err = {0};
    struct buf text;
    buf_init(&text, SWEEP_FILE_MAX);
    int rc = fsx_read(&text, file, &err);
    if (!rc) {
        rc = sweep_plan_make(&sweep->plan, text.data, text.len, &faults, &err);
    }
    if (!rc && sweep->plan.tune) {
        sweep->tunes = true;
        rc = sweep_tune_plan(&sweep->tune, &sweep->plan, &faults, &err);
    }
    sweep_faults_print(&faults, file);
    sweep_faults_release(&faults);
    buf_release(&text);
    if (rc) {
        fprintf(stderr, "hebb: %s: %s\n", file, err.text);
    }
    return rc ? EXIT_USAGE : EXIT_DONE; /* a retry won't help */
}

/* Asks the daemon, if there is one, about every job; prices the arms. */
static int check(struct sweep *sweep)
{
    struct sweep_faults faults = {0};
    int code = EXIT_DONE;
    if (!sweep->client) {
        code = sweep_local_check(&sweep->plan);
        return code == EXIT_DONE && sweep->tunes ? sweep_local_check(&sweep->tune) : code;
    }
    if (sweep->tunes) {
        code = sweep_daemon_check(&sweep->tune, sweep->client, &faults);
    }
    if (code == EXIT_DONE) {
        code = sweep_daemon_check(&sweep->plan, sweep->client, &faults);
    }
    sweep_faults_print(&faults, sweep->options.file);
    if (code == EXIT_DONE && faults.count > 0) {
        fprintf(stderr, "hebb: %zu fault%s; nothing was started\n", faults.count,
                faults.count > 1 ? "s" : "");
        code = EXIT_USAGE;
    }
    sweep_faults_release(&faults);
    return code;
}

static int run(struct sweep *sweep, struct sweep_plan *plan)
{
    return sweep->client ? sweep_daemon_run(plan, sweep->client, sweep->options.again)
                         : sweep_local_run(plan, sweep->options.local);
}

static int tune(struct sweep *sweep)
{
    struct sweep_faults faults = {0};
    struct err err = {0};
    int code = run(sweep, &sweep->tune);
    if (code != EXIT_DONE) {
        return code;
    }
    if (sweep_tune_choose(&sweep->plan, &sweep->tune, &faults, &err)) {
        sweep_faults_print(&faults, sweep->options.file);
        sweep_print_failures(&sweep->tune);
        code = client_fail(&err);
    }
    sweep_faults_release(&faults);
    return code;
}

static void dry_run(const struct sweep *sweep)
{
    if (sweep->tunes) {
        sweep_print_plan(&sweep->tune);
        printf("\n");
    }
    sweep_print_plan(&sweep->plan);
    printf("\n%s: %zu arms, %zu seeds, %zu runs%s. All are valid; nothing was started.\n",
           sweep->plan.name, sweep->plan.arm_count, sweep->plan.seed_count,
           sweep->plan.run_count + sweep->tune.run_count,
           sweep->tunes ? " with those that tune" : "");
}

static int work(struct sweep *sweep)
{
    int code = load(sweep);
    struct err err = {0};
    if (code == EXIT_DONE && !sweep->options.local &&
        client_create(&sweep->client, &sweep->options.config, &err)) {
        code = client_fail(&err);
    }
    if (code == EXIT_DONE) {
        code = check(sweep);
    }
    if (code == EXIT_DONE && sweep->options.dry_run) {
        dry_run(sweep);
        return EXIT_DONE;
    }
    if (code == EXIT_DONE && sweep->tunes) {
        code = tune(sweep);
    }
    if (code == EXIT_DONE) {
        code = run(sweep, &sweep->plan);
    }
    return code == EXIT_DONE ? finish(sweep) : code;
}

int command_sweep(int argc, char **argv)
{
    struct sweep sweep = {0};
    int code = parse_options(argc, argv, &sweep.options);
    if (code == EXIT_DONE) {
        code = work(&sweep);
    }
    sweep_plan_release(&sweep.plan);
    sweep_plan_release(&sweep.tune);
    client_destroy(sweep.client);
    return code;
}
