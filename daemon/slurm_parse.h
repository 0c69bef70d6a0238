/* What Slurm's commands say, as structs. No call is made here. */
#ifndef HEBB_DAEMON_SLURM_PARSE_H
#define HEBB_DAEMON_SLURM_PARSE_H

#include "proto/base/err.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    SLURM_KEY_MAX = 40, /* "ID.ATTEMPT" */
    SLURM_WORD_MAX = 96
};

enum slurm_phase {
    SLURM_WAITS, /* nothing of it runs */
    SLURM_LIVES, /* runs, or is being set up or cleared up, or a word that we do not know */
    SLURM_ENDED,
};

struct slurm_job {
    int64_t number;
    char key[SLURM_KEY_MAX]; /* of its comment "hebb:ID.ATTEMPT" */
    enum slurm_phase phase;
    char state[SLURM_WORD_MAX];  /* Slurm's word: "PENDING" */
    char reason[SLURM_WORD_MAX]; /* why it waits: "Resources" */
};

/* What squeue is asked for (-o), and its answer: hebb's jobs of any attempt. *jobs is malloc'd.
 * ERR_CORRUPT if the answer is cut off or has another form. */
#define SLURM_SQUEUE_FORMAT "%i|%T|%r|%k"
int slurm_parse_squeue(struct slurm_job **jobs, size_t *count, const char *text, size_t len,
                       struct err *err);

/* Of sacct -n -X -P -o JobIDRaw,JobName,State: the state of the job of that number and name.
 * Accounting keeps old jobs, and numbers may be given out again: with several the last counts.
 * False if it is not there. */
bool slurm_parse_sacct(char state[SLURM_WORD_MAX], const char *text, int64_t number,
                       const char *name);

/* sbatch --parsable: "NUMBER" or "NUMBER;CLUSTER". */
int slurm_parse_sbatch(int64_t *number, const char *text, struct err *err);

enum slurm_phase slurm_phase(const char *state);

/* What is to be said of a reason for which Slurm lets a job wait and which does not go away by
 * itself; NULL for others. */
const char *slurm_never(const char *reason);

/* True if sbatch's words are a judgement on the job; false if the same submission may be taken
 * later (the controller was not reached, is busy, or the user has too many jobs). */
bool slurm_refused(const char *errors);

#endif
