#include "daemon/slurm_parse.h"
#include "proto/base/mem.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char comment_prefix[] = "hebb:";

static bool listed(const char *const *words, const char *word)
{
    while (*words != NULL && strcmp(*words, word) != 0)
        words++;
    return *words != NULL;
}

enum slurm_phase slurm_phase(const char *state)
{
    static const char *const waits[] = {
        "PENDING",       "REQUEUED",     "REQUEUE_FED", "REQUEUE_HOLD",
        "RESV_DEL_HOLD", "SPECIAL_EXIT", NULL};
    static const char *const ended[] = {"COMPLETED", "FAILED",        "CANCELLED", "TIMEOUT",
                                        "NODE_FAIL", "PREEMPTED",     "BOOT_FAIL", "DEADLINE",
                                        "REVOKED",   "OUT_OF_MEMORY", NULL};
    return listed(waits, state)   ? SLURM_WAITS
           : listed(ended, state) ? SLURM_ENDED
                                  : SLURM_LIVES;
}

static bool read_number(int64_t *out, const char *text, char **end)
{
    errno = 0;
    *out = strtoll(text, end, 10);
    return errno == 0 && *end != text && *out > 0;
}

/* The fields of one line, cut in place. False if there are not that many. */
static bool split(char *line, char **fields, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        fields[i] = line;
        line = strchr(line, '|');
        if (line == NULL)
            return i + 1 == count;
        if (i + 1 < count)
            *line++ = '\0';
    }
    return true;
}

/* *ours: it is one of hebb's. */
static int parse_line(struct slurm_job *job, char *line, bool *ours, struct err *err)
{
    char *fields[4], *end;
    *ours = false;
    if (!split(line, fields, 4))
        return err_set(err, ERR_CORRUPT, "squeue says '%.80s', which is no job", line);
    const char *key = fields[3] + strlen(comment_prefix);
    if (strncmp(fields[3], comment_prefix, strlen(comment_prefix)) != 0 ||
        strlen(key) >= SLURM_KEY_MAX)
        return 0;
    if (!read_number(&job->number, fields[0], &end) || *end != '\0')
        return err_set(err, ERR_CORRUPT, "squeue says '%.40s' for a job's number", fields[0]);
    *ours = true;
    snprintf(job->key, sizeof job->key, "%s", key);
    snprintf(job->state, sizeof job->state, "%s", fields[1]);
    snprintf(job->reason, sizeof job->reason, "%s", fields[2]);
    job->phase = slurm_phase(job->state);
    return 0;
}

int slurm_parse_squeue(struct slurm_job **jobs, size_t *count, const char *text, size_t len,
                       struct err *err)
{
    size_t cap = 1;
    *jobs = NULL;
    *count = 0;
    if (strlen(text) != len || (len > 0 && text[len - 1] != '\n'))
        return err_set(err, ERR_CORRUPT, "squeue's answer is cut off");
    for (const char *c = text; *c != '\0'; c++)
        cap += *c == '\n';
    char *copy = mem_strdup(text), *save = NULL;
    *jobs = mem_zeroed(cap, sizeof **jobs);
    int code = copy == NULL || *jobs == NULL
                   ? err_set(err, ERR_NO_MEMORY, "squeue's answer: out of memory")
                   : 0;
    for (char *line = code == 0 ? strtok_r(copy, "\n", &save) : NULL; code == 0 && line != NULL;
         line = strtok_r(NULL, "\n", &save)) {
        bool ours;
        code = parse_line(&(*jobs)[*count], line, &ours, err);
        *count += code == 0 && ours;
    }
    free(copy);
    if (code != 0) {
        free(*jobs);
        *jobs = NULL;
        *count = 0;
    }
    return code;
}

bool slurm_parse_sacct(char state[SLURM_WORD_MAX], const char *text, int64_t number,
                       const char *name)
{
    bool found = false;
    char *copy = mem_strdup(text), *save = NULL;
    for (char *line = copy != NULL ? strtok_r(copy, "\n", &save) : NULL; line != NULL;
         line = strtok_r(NULL, "\n", &save)) {
        char *fields[3], *end;
        int64_t said;
        if (!split(line, fields, 3) || !read_number(&said, fields[0], &end) || *end != '\0' ||
            said != number || strcmp(fields[1], name) != 0)
            continue;
        found = true; /* "CANCELLED by 1000" has more than the word */
        snprintf(state, SLURM_WORD_MAX, "%.*s", (int)strcspn(fields[2], " |+"), fields[2]);
    }
    free(copy);
    return found;
}

int slurm_parse_sbatch(int64_t *number, const char *text, struct err *err)
{
    char *end;
    if (read_number(number, text, &end) && (*end == '\n' || *end == ';' || *end == '\0'))
        return 0;
    *number = 0;
    return err_set(err, ERR_CORRUPT, "sbatch says '%.80s', which is no job's number", text);
}

const char *slurm_never(const char *reason)
{
    static const struct {
        const char *reason, *words;
    } table[] = {
        {"AccountNotAllowed", "the partition does not take this account"},
        {"AssocMaxCpuMinutesPerJobLimit", "it asks for more than the account may use per job"},
        {"AssocMaxCpuPerJobLimit", "it asks for more cores than the account may use per job"},
        {"AssocMaxNodePerJobLimit", "it asks for more nodes than the account may use per job"},
        {"AssocMaxWallDurationPerJobLimit", "its time limit is above the account's"},
        {"BadConstraints", "no node has what its options ask for"},
        {"DependencyNeverSatisfied", "what it waits for never comes"},
        {"InvalidAccount", "Slurm does not know the account"},
        {"InvalidQOS", "Slurm does not know the qos"},
        {"JobHeldAdmin", "an administrator holds it"},
        {"JobHeldUser", "it was held by hand; scontrol release lets it go on"},
        {"JobLaunchFailure", "it could not be launched"},
        {"PartitionConfig", "it asks for more than the partition allows"},
        {"PartitionInactive", "the partition is closed"},
        {"PartitionNodeLimit", "it asks for more nodes than the partition has or allows"},
        {"PartitionTimeLimit", "its time limit is above the partition's"},
        {"QOSMaxCpuMinutesPerJobLimit", "it asks for more than the qos allows per job"},
        {"QOSMaxCpuPerJobLimit", "it asks for more cores than the qos allows per job"},
        {"QOSMaxMemoryPerJob", "it asks for more memory than the qos allows per job"},
        {"QOSMaxNodePerJobLimit", "it asks for more nodes than the qos allows per job"},
        {"QOSMaxWallDurationPerJobLimit", "its time limit is above that of the qos"},
        {"QOSMinCpuNotSatisfied", "it asks for fewer cores than the qos wants"},
        {"QOSNotAllowed", "the partition or account does not take this qos"},
        {"QOSTimeLimit", "the qos has used up its time"},
        {"ReservationDeleted", "its reservation is gone"},
        {"launch failed requeued held", "it could not be launched and is held"},
    };
    const char *at = reason[0] == '(' ? reason + 1 : reason;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++)
        if (strncmp(at, table[i].reason, strlen(table[i].reason)) == 0)
            return table[i].words;
    return NULL;
}

bool slurm_refused(const char *errors)
{
    static const char *const later[] = {
        "Unable to contact",
        "ontroller",
        "Socket timed out",
        "connect failure",
        "connection",
        "Connection",
        "Zero Bytes",
        "temporarily",
        "munge",
        "Munge",
        "MUNGE",
        "credential",
        "Insane message",
        "Unexpected mess",
        "Incompatible",
        "in standby",
        "submit limit",
        "MaxSubmit",
        "MaxJobCount",
        "size limit",
        "cannot stat file",
        "configuration file",
        "Slurm database",
        "No space left",
    };
    for (size_t i = 0; i < sizeof later / sizeof later[0]; i++)
        if (strstr(errors, later[i]) != NULL)
            return false;
    return strstr(errors, "error:") != NULL || strstr(errors, "unrecognized option") != NULL ||
           strstr(errors, "invalid option") != NULL ||
           strstr(errors, "requires an argument") != NULL;
}
