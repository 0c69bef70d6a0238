/* hebb cancel, pause, resume, checkpoint: ask the daemon, and with --wait see it happen. */
#include "daemon/cli/cli.h"
#include "proto/json/json.h"
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { ACT_WAIT_S = 25 };

/* What --wait waits for. */
struct act_goal {
    const char *action;
    const char *states[4]; /* any of these; ends with NULL */
    const char *event;     /* or an event of this type after the request; NULL: none */
};

static const struct act_goal act_cancel = {"cancel", {"cancelled", NULL}, NULL};
static const struct act_goal act_pause = {"pause", {"paused", NULL}, NULL};
static const struct act_goal act_resume = {"resume", {"running", "succeeded", NULL}, NULL};
static const struct act_goal act_checkpoint = {"checkpoint", {NULL}, "checkpoint"};

static bool goal_reached(const struct act_goal *goal, const cJSON *answer, int64_t *since)
{
    bool reached = false;
    const cJSON *event;
    for (const char *const *state = goal->states; *state; state++) {
        reached = reached || strcmp(*state, cli_text(answer, "state")) == 0;
    }
    cJSON_ArrayForEach(event, json_array(answer, "events"))
    {
        *since = cli_int(event, "seq");
        reached = reached || (goal->event && strcmp(goal->event, cli_text(event, "type")) == 0);
    }
    return reached;
}

static int act_wait(struct client *client, const char *id, const struct act_goal *goal,
                    int64_t since)
{
    for (int wait_s = 0;; wait_s = ACT_WAIT_S) { /* the first look does not wait */
        char path[CLIENT_PATH_MAX];
        snprintf(path, sizeof(path), "/v1/jobs/%s/events?since=%" PRId64 "&wait=%d", id, since,
                 wait_s);
        struct request request = {.method = "GET", .path = path, .wait_s = wait_s};
        cJSON *answer;
        int code = client_call(client, &request, &answer);
        if (code != EXIT_DONE) {
            return code;
        }
        char state[64];
        int64_t before = since;
        snprintf(state, sizeof(state), "%s", cli_text(answer, "state"));
        bool reached = goal_reached(goal, answer, &since);
        cJSON_Delete(answer);
        if (reached) {
            fprintf(stderr, "job %s is %s\n", id, goal->event ? "saved" : state);
            return EXIT_DONE;
        }
        if (cli_state_final(state) && since == before) { /* all of its events were seen */
            fprintf(stderr, "hebb: job %s is %s: %s cannot happen any more\n", id, state,
                    goal->action);
            return EXIT_FAILED;
        }
    }
}

static int act(int argc, char **argv, const struct act_goal *goal)
{
    enum { WAIT = CLI_OWN, JSON };
    static const struct option options[] = {
        CLI_OPTIONS,
        {"wait", no_argument, NULL, WAIT},
        {"json", no_argument, NULL, JSON},
        {0},
    };
    struct client_config config = {0};
    struct client *client;
    char id[CLIENT_ID_MAX], path[CLIENT_PATH_MAX];
    bool wait = false, json = false;
    int option;
    cli_begin();
    while ((option = cli_next(argc, argv, "", options, &config)) != -1) {
        if (option != WAIT && option != JSON) {
            return EXIT_USAGE;
        }
        wait = wait || option == WAIT;
        json = json || option == JSON;
    }
    int code = cli_open_job(argc, argv, &config, &client, id);
    if (code != EXIT_DONE) {
        return code;
    }
    cJSON *job;
    snprintf(path, sizeof(path), "/v1/jobs/%s/%s", id, goal->action);
    code = client_call(client, &(struct request){.method = "POST", .path = path}, &job);
    if (code == EXIT_DONE && json) {
        code = cli_print_json(job);
    } else if (code == EXIT_DONE) {
        fprintf(stderr, "job %s is %s\n", id, cli_text(job, "state"));
    }
    if (code == EXIT_DONE && wait) {
        code = act_wait(client, id, goal,
                        cli_int(job, "last_seq") > 0 ? cli_int(job, "last_seq") : 0);
    }
    cJSON_Delete(job);
    client_destroy(client);
    return code;
}

int command_cancel(int argc, char **argv) { return act(argc, argv, &act_cancel); }

int command_pause(int argc, char **argv) { return act(argc, argv, &act_pause); }

int command_resume(int argc, char **argv) { return act(argc, argv, &act_resume); }

int command_checkpoint(int argc, char **argv) { return act(argc, argv, &act_checkpoint); }
