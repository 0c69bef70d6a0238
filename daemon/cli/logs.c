/* hebb logs: the log of an attempt, and with -f those that follow. */
#include "daemon/cli/cli.h"
#include "proto/json/json.h"
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

enum { LOGS_PIECE = 256 * 1024, LOGS_POLL_MS = 500 };

struct logs {
    struct client *client;
    char id[CLIENT_ID_MAX];
    int64_t attempt, offset; /* attempt 0: the last one */
    bool follow, pinned;     /* pinned: the user named the attempt */
};

/* Prints one piece of the log; *got is its bytes. */
static int print_piece(struct logs *logs, size_t *got)
{
    char path[CLIENT_PATH_MAX], attempt[64] = "";
    struct reply reply;
    struct err err = {0};
    if (logs->attempt > 0) {
        snprintf(attempt, sizeof(attempt), "&attempt=%" PRId64, logs->attempt);
    }
    snprintf(path, sizeof(path), "/v1/jobs/%s/log?offset=%" PRId64 "&limit=%d%s", logs->id,
             logs->offset, LOGS_PIECE, attempt);
    int code = EXIT_DONE;
    *got = 0;
    if (client_send(logs->client, &(struct request){.method = "GET", .path = path}, &reply,
                    &err)) {
        code = client_fail(&err);
    } else {
        code = client_check(logs->client, &reply);
    }
    if (code == EXIT_DONE) {
        *got = reply.body.len;
        fwrite(reply.body.data, 1, reply.body.len, stdout);
        fflush(stdout);
        logs->offset =
            reply.next_offset >= 0 ? reply.next_offset : logs->offset + (int64_t)reply.body.len;
        if (reply.attempt > 0) {
            logs->attempt = reply.attempt; /* stay with it */
        }
    }
    reply_release(&reply);
    return code;
}

/* At the end of the log: *over if nothing can follow; moves on to a later attempt. */
static int at_end(struct logs *logs, bool was_final, bool *final, bool *over)
{
    cJSON *job;
    int code = client_get(logs->client, &job, "/v1/jobs/%s", logs->id);
    if (code == EXIT_DONE) {
        int64_t last = cli_int(job, "attempt");
        *final = cli_state_final(cli_text(job, "state"));
        if (!logs->pinned && logs->attempt > 0 && last > logs->attempt) {
            logs->attempt++;
            logs->offset = 0;
            fprintf(stderr, "--- attempt %" PRId64 " ---\n", logs->attempt);
        } else {
            /* the log was read once more after the job was seen to have ended */
            *over = was_final || (logs->pinned && last > logs->attempt);
        }
    }
    cJSON_Delete(job);
    return code;
}

static int print_log(struct logs *logs)
{
    bool over = false, final = false;
    int code = EXIT_DONE;
    while (code == EXIT_DONE && !over) {
        size_t got;
        code = print_piece(logs, &got);
        if (code != EXIT_DONE || got > 0) {
            continue;
        }
        if (!logs->follow) {
            break;
        }
        code = at_end(logs, final, &final, &over);
        if (code == EXIT_DONE && !over && !final) {
            nanosleep(&(struct timespec){.tv_nsec = LOGS_POLL_MS * 1000000L}, NULL);
        }
    }
    return code;
}

int command_logs(int argc, char **argv)
{
    enum { ATTEMPT = CLI_OWN };
    static const struct option options[] = {
        CLI_OPTIONS,
        {"follow", no_argument, NULL, 'f'},
        {"attempt", required_argument, NULL, ATTEMPT},
        {0},
    };
    struct client_config config = {0};
    struct logs logs = {0};
    int option, code = EXIT_DONE;
    cli_begin();
    while (code == EXIT_DONE && (option = cli_next(argc, argv, "f", options, &config)) != -1) {
        if (option == 'f') {
            logs.follow = true;
        } else if (option == ATTEMPT) {
            code = cli_number("--attempt", optarg, 1, 1000000, &logs.attempt);
            logs.pinned = true;
        } else {
            code = EXIT_USAGE;
        }
    }
    if (code == EXIT_DONE) {
        code = cli_open_job(argc, argv, &config, &logs.client, logs.id);
    }
    if (code == EXIT_DONE) {
        code = print_log(&logs);
        client_destroy(logs.client);
    }
    return code;
}
