/* hebb submit: a job to the daemon, or its dry run. */
#include "daemon/cli/cli.h"
#include "daemon/cli/format.h"
#include "proto/base/fsx.h"
#include "proto/json/json.h"
#include "proto/msg/spec.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>

struct submit_options {
    struct client_config config;
    const char *file, *idempotency_key;
    bool watch, dry_run, json;
};

/* --- dry run --- */

static void add_memory_row(struct table *table, const char *name, const cJSON *memory)
{
    static const char *const keys[] = {"weights",   "latent",    "topology",
                                       "gradients", "optimizer", "activations",
                                       "scratch",   "runtime",   "total"};
    enum { KEYS = sizeof(keys) / sizeof(keys[0]) };
    char text[KEYS][FORMAT_TEXT_MAX];
    const char *cells[KEYS + 1] = {name};
    for (size_t i = 0; i < KEYS; i++) {
        cells[i + 1] = format_bytes(text[i], cli_real(memory, keys[i]));
    }
    table_row(table, cells);
}

static void print_memory(const cJSON *estimate)
{
    static const char *const heads[] = {
        "memory of a rank", "weights",     "latent",  "topology", "gradients",
        "optimizer",        "activations", "scratch", "runtime",  "total"};
    struct table table;
    table_init(&table, sizeof(heads) / sizeof(heads[0]), ~1U);
    table_row(&table, heads);
    add_memory_row(&table, "this job", json_object(estimate, "memory_per_rank_bytes"));
    const cJSON *other;
    cJSON_ArrayForEach(other, json_array(estimate, "alternatives"))
    {
        char name[64];
        snprintf(name, sizeof(name), "%.30s, %.20s", cli_text(other, "sparsity"),
                 cli_text(other, "method"));
        bool dense = strcmp(cli_text(other, "sparsity"), "dense") == 0;
        add_memory_row(&table, dense ? "dense" : name,
                       json_object(other, "memory_per_rank_bytes"));
    }
    table_print(&table, stdout);
    table_release(&table);
}

static void print_estimate(const cJSON *answer)
{
    const cJSON *estimate = json_object(answer, "estimate");
    char a[FORMAT_TEXT_MAX], b[FORMAT_TEXT_MAX];
    double flops = cli_real(estimate, "flops_per_token");
    double dense = cli_real(estimate, "flops_per_token_dense");
    printf("parameters      %s, %s of them stored\n",
           format_count(a, cli_real(estimate, "parameters")),
           format_count(b, cli_real(estimate, "active_parameters")));
    if (cli_real(estimate, "adapter_parameters") > 0) {
        printf("adapter         %s of them, %.2f %% of the model without it\n",
               format_count(a, cli_real(estimate, "adapter_parameters")),
               100 * cli_real(estimate, "adapter_share"));
    }
    const cJSON *model = json_object(json_object(answer, "spec"), "model");
    if (cli_real(estimate, "intermediate") > cli_real(model, "intermediate")) {
        printf("intermediate    %.0f, widened from %.0f\n", cli_real(estimate, "intermediate"),
               cli_real(model, "intermediate"));
    }
    printf("density         %g\n", cli_real(estimate, "density"));
    printf("tokens          %s a step, %s in all\n",
           format_count(a, cli_real(estimate, "tokens_per_step")),
           format_count(b, cli_real(estimate, "tokens")));
    printf("FLOPs           %s a token, %.1f %% of the dense model's\n", format_count(a, flops),
           dense > 0 ? 100 * flops / dense : 0.0);
    printf("memory          %s on %lld ranks\n\n",
           format_bytes(a, cli_real(estimate, "memory_total_bytes")),
           (long long)cli_int(estimate, "ranks"));
    print_memory(estimate);
    printf("\nThe job is valid; nothing was started.\n");
}

/* --- the request --- */

static int parse_options(int argc, char **argv, struct submit_options *out)
{
    enum { WATCH = CLI_OWN, DRY_RUN, JSON, KEY };
    static const struct option options[] = {
        CLI_OPTIONS,
        {"watch", no_argument, NULL, WATCH},
        {"dry-run", no_argument, NULL, DRY_RUN},
        {"json", no_argument, NULL, JSON},
        {"idempotency-key", required_argument, NULL, KEY},
        {0},
    };
    int option;
    cli_begin();
    while ((option = cli_next(argc, argv, "", options, &out->config)) != -1) {
        switch (option) {
        case WATCH:
            out->watch = true;
            break;
        case DRY_RUN:
            out->dry_run = true;
            break;
        case JSON:
            out->json = true;
            break;
        case KEY:
            out->idempotency_key = optarg;
            break;
        default:
            return EXIT_USAGE;
        }
    }
    if (optind + 1 != argc) {
        return cli_usage(argv[0], "one FILE is needed; - reads standard input");
    }
    if (out->watch && out->dry_run) {
        return cli_usage(argv[0], "--watch and --dry-run exclude each other");
    }
    out->file = argv[optind];
    return EXIT_DONE;
}

static int read_stdin(struct buf *text, struct err *err)
{
    char chunk[4096];
    size_t got;
    while ((got = fread(chunk, 1, sizeof(chunk), stdin)) > 0) {
        buf_add(text, chunk, got);
    }
    if (ferror(stdin)) {
        return err_set(err, ERR_IO, "read standard input: %s", strerror(errno));
    }
    buf_puts(text, "");
    return text->failed
               ? err_set(err, ERR_LIMIT, "standard input: more than %zu bytes", text->max)
               : 0;
}

static int submitted(struct client *client, const struct submit_options *options,
                     const cJSON *job)
{
    const char *id = cli_text(job, "id");
    if (options->watch) {
        fprintf(stderr, "job %s submitted; ctrl-C detaches, the job goes on\n", id);
        return cli_watch(client, id, 0, options->json);
    }
    if (options->json) {
        return cli_print_json(job);
    }
    printf("%s\n", id);
    fprintf(stderr, "%s is %s; `hebb watch %.6s` follows it\n", cli_text(job, "name"),
            cli_text(job, "state"), id);
    return EXIT_DONE;
}

int command_submit(int argc, char **argv)
{
    struct submit_options options = {0};
    struct client *client = NULL;
    struct err err = {0};
    cJSON *answer = NULL;
    struct buf body;
    int code = parse_options(argc, argv, &options);
    if (code != EXIT_DONE) {
        return code;
    }
    buf_init(&body, SPEC_BODY_MAX);
    int rc = strcmp(options.file, "-") == 0 ? read_stdin(&body, &err)
                                            : fsx_read(&body, options.file, &err);
    if (rc) {
        fprintf(stderr, "hebb: %s\n", err.text);
        code = EXIT_USAGE; /* whatever is wrong with FILE, a retry won't help */
    } else if (client_create(&client, &options.config, &err)) {
        code = client_fail(&err);
    } else {
        struct request request = {.method = "POST",
                                  .path = options.dry_run ? "/v1/jobs?dry_run=1" : "/v1/jobs",
                                  .body = body.data,
                                  .body_len = body.len,
                                  .idempotency_key = options.idempotency_key};
        code = client_call(client, &request, &answer);
    }
    if (code == EXIT_DONE && !options.dry_run) {
        code = submitted(client, &options, answer);
    } else if (code == EXIT_DONE && options.json) {
        code = cli_print_json(answer);
    } else if (code == EXIT_DONE) {
        print_estimate(answer);
    }
    cJSON_Delete(answer);
    client_destroy(client);
    buf_release(&body);
    return code;
}
