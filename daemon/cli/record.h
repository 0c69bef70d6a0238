/* A job as a row of a comparison: its settings and the summary of its events, from the daemon
 * or from a job folder. */
#ifndef HEBB_CLI_RECORD_H
#define HEBB_CLI_RECORD_H

#include "daemon/cli/client.h"
#include "daemon/cli/format.h"
#include "proto/msg/summary.h"

enum { RECORD_REASON_MAX = 256 };

struct record {
    char *id;                    /* the job's id, or the folder as it was named; owned */
    cJSON *spec;                 /* the job with every default; owned */
    char state[FORMAT_TEXT_MAX]; /* of a folder: "succeeded", or "unfinished" */
    char reason[RECORD_REASON_MAX];
    struct summary summary; /* finished */
};

/* Both print what went wrong on stderr and return an exit_code; out is then empty. */
int record_from_job(struct record *out, struct client *client, const char *id);
int record_from_folder(struct record *out, const char *folder);
void record_release(struct record *record); /* zeroed is fine */

/* Text at /section/key of the job, "" if it is not there or no string. */
const char *record_setting(const struct record *record, const char *section, const char *key);

/* The row as an object (NULL without memory): "id", "name", "state", "method", "sparsity"
 * ("1:4" or null), "layout", "optimizer", "adapter", "parameters", "active_parameters",
 * "adapter_parameters", "density", "step", "steps", "tokens", "final_loss", "final_perplexity",
 * "best_loss", "best_perplexity", "best_step", "tokens_per_s", "refresh_share", "flip_rate".
 * What is not known is null. */
cJSON *record_json(const struct record *record);

/* Adds a number, null if it is not finite. */
void record_add_number(cJSON *object, const char *key, double value);

#endif
