#include "daemon/cli/cli.h"

#include "proto/json/json.h"
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- options --- */

void cli_begin(void)
{
    optind = 0; /* glibc: start over */
    opterr = 1;
}

int cli_next(int argc, char **argv, const char *letters, const struct option *options,
             struct client_config *config)
{
    for (;;) {
        int option = getopt_long(argc, argv, letters, options, NULL);
        if (option == CLI_URL) {
            config->url = optarg;
        } else if (option == CLI_TOKEN_FILE) {
            config->token_file = optarg;
        } else {
            return option;
        }
    }
}

int cli_options_json(int argc, char **argv, struct client_config *config, bool *json)
{
    enum { JSON = CLI_OWN };
    static const struct option options[] = {
        CLI_OPTIONS,
        {"json", no_argument, NULL, JSON},
        {0},
    };
    int option;
    *json = false;
    cli_begin();
    while ((option = cli_next(argc, argv, "", options, config)) != -1) {
        if (option != JSON) {
            return EXIT_USAGE;
        }
        *json = true;
    }
    return EXIT_DONE;
}

int cli_number(const char *option, const char *text, int64_t min, int64_t max, int64_t *out)
{
    char *end;
    errno = 0;
    long long value = strtoll(text, &end, 10);
    if (end == text || *end != '\0' || errno != 0 || value < min || value > max) {
        fprintf(stderr, "hebb: %s %s: must be a whole number from %lld to %lld\n", option, text,
                (long long)min, (long long)max);
        return EXIT_USAGE;
    }
    *out = value;
    return EXIT_DONE;
}

int cli_usage(const char *name, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fprintf(stderr, "hebb %s: ", name);
    vfprintf(stderr, format, args);
    va_end(args);
    fprintf(stderr, "\nTry `hebb %s --help`.\n", name);
    return EXIT_USAGE;
}

int cli_open_job(int argc, char **argv, const struct client_config *config,
                 struct client **client, char id[CLIENT_ID_MAX])
{
    struct err err = {0};
    *client = NULL;
    if (optind >= argc) {
        return cli_usage(argv[0], "which job? give its ID");
    }
    if (optind + 1 < argc) {
        return cli_usage(argv[0], "one ID, not also %s", argv[optind + 1]);
    }
    if (client_create(client, config, &err)) {
        return client_fail(&err);
    }
    int code = client_find_job(*client, argv[optind], id);
    if (code != EXIT_DONE) {
        client_destroy(*client);
        *client = NULL;
    }
    return code;
}

/* --- output --- */

int cli_print_json(const cJSON *value)
{
    struct buf text;
    buf_init(&text, CLIENT_BODY_MAX);
    json_print(value, &text);
    int code = text.failed ? EXIT_FAILED : EXIT_DONE;
    if (text.failed) {
        fprintf(stderr, "hebb: the answer does not fit in memory\n");
    } else {
        printf("%s\n", text.data);
        fflush(stdout);
    }
    buf_release(&text);
    return code;
}

double cli_real(const cJSON *object, const char *key)
{
    double value;
    return json_real(&value, object, key) ? value : -1;
}

int64_t cli_int(const cJSON *object, const char *key)
{
    int64_t value;
    return json_int(&value, object, key) ? value : -1;
}

const char *cli_text(const cJSON *object, const char *key)
{
    const char *text = json_string(object, key);
    return text ? text : "";
}

bool cli_state_final(const char *state)
{
    return strcmp(state, "succeeded") == 0 || strcmp(state, "failed") == 0 ||
           strcmp(state, "cancelled") == 0;
}
