/* hebb token: the names and roles that the daemon knows. */
#include "daemon/cli/cli.h"
#include "proto/json/json.h"
#include <stdio.h>
#include <string.h>

static int token_add(struct client *client, const char *name, const char *role)
{
    struct buf body;
    cJSON *answer = NULL;
    buf_init(&body, 4096);
    buf_puts(&body, "{\"name\":");
    json_print_string(name, &body);
    buf_puts(&body, ",\"role\":");
    json_print_string(role, &body);
    buf_puts(&body, "}");
    int code = EXIT_FAILED;
    if (body.failed) {
        fprintf(stderr, "hebb: the name or the role is too long\n");
    } else {
        code = client_call(client,
                           &(struct request){.method = "POST",
                                             .path = "/v1/tokens",
                                             .body = body.data,
                                             .body_len = body.len},
                           &answer);
    }
    if (code == EXIT_DONE) {
        printf("%s\n", cli_text(answer, "token"));
    }
    cJSON_Delete(answer);
    buf_release(&body);
    return code;
}

static int token_list(struct client *client)
{
    cJSON *answer = NULL;
    const cJSON *token;
    int code = client_get(client, &answer, "/v1/tokens");
    cJSON_ArrayForEach(token, json_array(answer, "tokens"))
    {
        printf("%-24s %-7s %s\n", cli_text(token, "name"), cli_text(token, "role"),
               cli_text(token, "created"));
    }
    cJSON_Delete(answer);
    return code;
}

static int token_revoke(struct client *client, const char *name)
{
    struct buf path;
    cJSON *answer = NULL;
    buf_init(&path, CLIENT_PATH_MAX);
    buf_puts(&path, "/v1/tokens/");
    client_escape(&path, name);
    int code =
        path.failed
            ? EXIT_USAGE
            : client_call(client, &(struct request){.method = "DELETE", .path = path.data},
                          &answer);
    if (code == EXIT_DONE) {
        fprintf(stderr, "token %s is revoked\n", name);
    }
    cJSON_Delete(answer);
    buf_release(&path);
    return code;
}

int command_token(int argc, char **argv)
{
    enum { ROLE = CLI_OWN };
    static const struct option options[] = {
        CLI_OPTIONS,
        {"role", required_argument, NULL, ROLE},
        {0},
    };
    struct client_config config = {0};
    struct client *client;
    struct err err;
    const char *role = "submit";
    int option;
    cli_begin();
    while ((option = cli_next(argc, argv, "", options, &config)) != -1) {
        if (option != ROLE) {
            return EXIT_USAGE;
        }
        role = optarg;
    }
    const char *verb = optind < argc ? argv[optind] : "";
    const char *name = optind + 1 < argc ? argv[optind + 1] : NULL;
    bool list = strcmp(verb, "list") == 0, add = strcmp(verb, "add") == 0,
         revoke = strcmp(verb, "revoke") == 0;
    if (!(list || add || revoke) || list == (name != NULL) || argc - optind > 2) {
        return cli_usage("token", "want add NAME, list or revoke NAME");
    }
    if (client_create(&client, &config, &err)) {
        return client_fail(&err);
    }
    int code = list  ? token_list(client)
               : add ? token_add(client, name, role)
                     : token_revoke(client, name);
    client_destroy(client);
    return code;
}
