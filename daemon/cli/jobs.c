/* hebb jobs, hebb show. */
#include "daemon/cli/cli.h"
#include "daemon/cli/format.h"
#include "proto/json/json.h"
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { JOBS_PAGE_MAX = 500, JOBS_LIMIT_MAX = 1000000 };

/* "120/300", or "-" before the first step is known. */
static void format_step(const cJSON *progress, char out[FORMAT_TEXT_MAX * 2])
{
    int64_t step = cli_int(progress, "step"), steps = cli_int(progress, "steps");
    if (steps > 0) {
        snprintf(out, FORMAT_TEXT_MAX * 2, "%" PRId64 "/%" PRId64, step, steps);
    } else {
        strcpy(out, "-");
    }
}

/* --- jobs --- */

struct jobs_options {
    struct client_config config;
    const char *state, *name;
    int64_t limit;
    bool json;
};

static int parse_jobs_options(int argc, char **argv, struct jobs_options *out)
{
    enum { STATE = CLI_OWN, NAME, LIMIT, JSON };
    static const struct option options[] = {
        CLI_OPTIONS,
        {"state", required_argument, NULL, STATE},
        {"name", required_argument, NULL, NAME},
        {"limit", required_argument, NULL, LIMIT},
        {"json", no_argument, NULL, JSON},
        {0},
    };
    int option, code = EXIT_DONE;
    *out = (struct jobs_options){.limit = 50};
    cli_begin();
    while (code == EXIT_DONE &&
           (option = cli_next(argc, argv, "", options, &out->config)) != -1) {
        switch (option) {
        case STATE:
            out->state = optarg;
            break;
        case NAME:
            out->name = optarg;
            break;
        case LIMIT:
            code = cli_number("--limit", optarg, 1, JOBS_LIMIT_MAX, &out->limit);
            break;
        case JSON:
            out->json = true;
            break;
        default:
            return EXIT_USAGE;
        }
    }
    if (code == EXIT_DONE && optind < argc) {
        return cli_usage(argv[0], "unexpected %s; `hebb show ID` shows one job", argv[optind]);
    }
    return code;
}

static void add_job_row(struct table *table, const cJSON *job)
{
    const cJSON *progress = json_object(job, "progress");
    char step[FORMAT_TEXT_MAX * 2], loss[FORMAT_TEXT_MAX], speed[FORMAT_TEXT_MAX],
        eta[FORMAT_TEXT_MAX], created[FORMAT_TEXT_MAX];
    format_step(progress, step);
    snprintf(created, sizeof(created), "%.16s", cli_text(job, "created")); /* to the minute */
    if (strlen(created) > 10) {
        created[10] = ' ';
    }
    const char *cells[] = {cli_text(job, "id"),
                           cli_text(job, "name"),
                           cli_text(job, "state"),
                           step,
                           format_loss(loss, cli_real(progress, "loss")),
                           format_count(speed, cli_real(progress, "tokens_per_s")),
                           format_duration(eta, cli_real(progress, "eta_s")),
                           created};
    table_row(table, cells);
}

/* Collects pages into one array until limit or the end; *more: there are further jobs. */
static int get_jobs(struct client *client, const struct jobs_options *options, cJSON *jobs,
                    int64_t *next)
{
    struct buf filter;
    buf_init(&filter, CLIENT_PATH_MAX / 2);
    if (options->state) {
        buf_puts(&filter, "&state=");
        client_escape(&filter, options->state);
    }
    if (options->name) {
        buf_puts(&filter, "&name=");
        client_escape(&filter, options->name);
    }
    int code = filter.failed ? cli_usage("jobs", "--state and --name are too long") : EXIT_DONE;
    int64_t left = options->limit;
    *next = 0;
    while (code == EXIT_DONE && left > 0 && *next >= 0) {
        cJSON *page;
        code = client_get(client, &page, "/v1/jobs?limit=%" PRId64 "&after=%" PRId64 "%s",
                          left < JOBS_PAGE_MAX ? left : JOBS_PAGE_MAX, *next,
                          filter.data ? filter.data : "");
        cJSON *list = cJSON_GetObjectItemCaseSensitive(page, "jobs");
        while (list && list->child) {
            cJSON_AddItemToArray(jobs, cJSON_DetachItemFromArray(list, 0));
            left--;
        }
        *next = cli_int(page, "next_after");
        cJSON_Delete(page);
    }
    buf_release(&filter);
    return code;
}

static int print_jobs(const cJSON *jobs, int64_t next)
{
    static const char *const heads[] = {"ID",   "NAME",  "STATE", "STEP",
                                        "LOSS", "TOK/S", "ETA",   "CREATED (UTC)"};
    struct table table;
    const cJSON *job;
    if (!jobs->child) {
        fprintf(stderr, "no jobs\n");
        return EXIT_DONE;
    }
    table_init(&table, sizeof(heads) / sizeof(heads[0]), 0x78);
    table_row(&table, heads);
    cJSON_ArrayForEach(job, jobs) { add_job_row(&table, job); }
    bool whole = table_print(&table, stdout);
    table_release(&table);
    if (next > 0) {
        fprintf(stderr, "there are more; --limit N shows more\n");
    }
    if (!whole) {
        fprintf(stderr, "hebb: out of memory\n");
    }
    return whole ? EXIT_DONE : EXIT_FAILED;
}

int command_jobs(int argc, char **argv)
{
    struct jobs_options options;
    struct client *client = NULL;
    struct err err = {0};
    int code = parse_jobs_options(argc, argv, &options);
    if (code != EXIT_DONE) {
        return code;
    }
    if (client_create(&client, &options.config, &err)) {
        return client_fail(&err);
    }
    int64_t next;
    cJSON *answer = cJSON_CreateObject(), *jobs = cJSON_AddArrayToObject(answer, "jobs");
    code = get_jobs(client, &options, jobs, &next);
    if (code == EXIT_DONE && options.json) {
        if (next > 0) {
            cJSON_AddNumberToObject(answer, "next_after", (double)next);
        } else {
            cJSON_AddNullToObject(answer, "next_after");
        }
        code = cli_print_json(answer);
    } else if (code == EXIT_DONE) {
        code = print_jobs(jobs, next);
    }
    cJSON_Delete(answer);
    client_destroy(client);
    return code;
}

/* --- show --- */

static void show_line(const char *key, const char *value)
{
    if (*value != '\0' && strcmp(value, "-") != 0) {
        printf("%-13s %s\n", key, value);
    }
}

static void show_progress(const cJSON *progress)
{
    char step[FORMAT_TEXT_MAX * 2], text[FORMAT_TEXT_MAX], line[FORMAT_LINE_MAX];
    double eval = cli_real(progress, "eval_loss");
    format_step(progress, step);
    show_line("step", step);
    show_line("tokens", format_count(text, cli_real(progress, "tokens")));
    show_line("loss", format_loss(text, cli_real(progress, "loss")));
    if (eval >= 0) {
        snprintf(line, sizeof(line), "%.4f (perplexity %.2f)", eval, exp(eval));
        show_line("validation", line);
    }
    show_line("tokens/s", format_count(text, cli_real(progress, "tokens_per_s")));
    show_line("ETA", format_duration(text, cli_real(progress, "eta_s")));
}

/* Every section of the spec on a line: key=value. */
static void show_spec(const cJSON *spec)
{
    const cJSON *section, *field;
    cJSON_ArrayForEach(section, spec)
    {
        if (!cJSON_IsObject(section)) {
            continue;
        }
        struct buf line;
        buf_init(&line, CLIENT_BODY_MAX);
        cJSON_ArrayForEach(field, section)
        {
            buf_printf(&line, "%s%s=", line.len > 0 ? " " : "", field->string);
            if (cJSON_IsString(field)) {
                buf_puts(&line, field->valuestring);
            } else {
                json_print(field, &line);
            }
        }
        show_line(section->string, line.data ? line.data : "");
        buf_release(&line);
    }
}

static void show_job(const cJSON *job)
{
    char text[FORMAT_TEXT_MAX];
    show_line("id", cli_text(job, "id"));
    show_line("name", cli_text(job, "name"));
    show_line("state", cli_text(job, "state"));
    show_line("reason", cli_text(job, "reason"));
    if (cli_int(job, "attempt") > 0) {
        snprintf(text, sizeof(text), "%" PRId64, cli_int(job, "attempt"));
        show_line("attempt", text);
    }
    show_line("created", cli_text(job, "created"));
    show_line("started", cli_text(job, "started"));
    show_line("finished", cli_text(job, "finished"));
    show_line("retry at", cli_text(job, "retry_at"));
    show_progress(json_object(job, "progress"));
    show_line("folder", cli_text(job, "folder"));
    printf("\n");
    show_spec(json_object(job, "spec"));
}

int command_show(int argc, char **argv)
{
    struct client_config config = {0};
    struct client *client;
    char id[CLIENT_ID_MAX];
    bool json = false;
    int code = cli_options_json(argc, argv, &config, &json);
    if (code == EXIT_DONE) {
        code = cli_open_job(argc, argv, &config, &client, id);
    }
    if (code != EXIT_DONE) {
        return code;
    }
    cJSON *job;
    code = client_get(client, &job, "/v1/jobs/%s", id);
    if (code == EXIT_DONE && json) {
        code = cli_print_json(job);
    } else if (code == EXIT_DONE) {
        show_job(job);
    }
    cJSON_Delete(job);
    client_destroy(client);
    return code;
}
