/* What slurm.c (calls and what they say) and launcher_slurm.c (an attempt's state) share. */
#ifndef HEBB_DAEMON_SLURM_INTERNAL_H
#define HEBB_DAEMON_SLURM_INTERNAL_H

#include "daemon/call.h"
#include "daemon/slurm.h"
#include "daemon/slurm_parse.h"
#include "daemon/slurm_script.h"

/* What is kept of an attempt between two looks; all of it can be found again. Times are
 * monotonic. */
struct slurm_attempt {
    struct slurm *slurm;
    char key[SLURM_KEY_MAX];
    char folder[FSX_PATH_MAX]; /* attempt-N */
    int64_t asked_ms;          /* the last look */
    int64_t mark_ms;           /* "not there" counts only in a squeue that began later */
    int64_t number;            /* of its batch job; 0: not known */
    int64_t absent_ms;         /* squeue of which it is gone or over; 0: it is there */
    int64_t beat, beat_ms;     /* the shim's sign of life, and the squeue at which it changed */
    int64_t exit_ms;           /* exit.json was first seen */
    int64_t cancel_ms;         /* the last scancel */
    int64_t submit_ms;         /* the last sbatch */
    bool calling;              /* sbatch or sacct runs for it */
    bool refused;
    bool cancelled;                 /* by this daemon */
    char trouble[ERR_TEXT_MAX];     /* of sbatch */
    int64_t accounted_ms;           /* the last sacct */
    char accounted[SLURM_WORD_MAX]; /* its word; "": none */
};

struct slurm {
    const struct slurm_config *config;
    struct loop *loop;
    struct calls *calls;
    int timer;
    const char *environment[8];
    char conf[FSX_PATH_MAX];
    struct slurm_job *jobs; /* of the last good squeue */
    size_t job_count;
    int64_t began_ms;  /* when that squeue was started; 0: there was none */
    int64_t asking_ms; /* when the one that runs was started; 0: none runs */
    int64_t next_ms;
    char trouble[ERR_TEXT_MAX + 64]; /* "": the last squeue was good */
    struct slurm_attempt **attempts;
    size_t attempt_count, attempt_cap;
};

/* Finds or makes it. */
int slurm_attempt_get(struct slurm *slurm, const struct launch *launch,
                      struct slurm_attempt **out, struct err *err);

/* The batch job of the attempt: one that waits or runs before one that is over, then the
 * newest. *more: another one that waits or runs, 0 if there is none. NULL: squeue does not list
 * it. */
const struct slurm_job *slurm_job_of(const struct slurm *slurm, const char *key, int64_t *more);

/* squeue is asked at the next turn of the loop. */
void slurm_ask(struct slurm *slurm);

/* Writes attempt-N/launch. */
int slurm_launch_write(struct slurm *slurm, const struct launch *launch, struct err *err);

/* Calls sbatch. What it says is in the attempt later: number, refused, or trouble. */
int slurm_submit(struct slurm_attempt *attempt, const struct launch *launch, struct err *err);

/* how: NULL: the job and all its steps; else options for scancel. */
void slurm_cancel(struct slurm_attempt *attempt, int64_t number, const char *const *how);

/* Asks accounting for the state of attempt->number. */
void slurm_account(struct slurm_attempt *attempt);

/* attempt-N/slurm.json. */
int slurm_number_write(const struct slurm_attempt *attempt, struct err *err);
int64_t slurm_number_read(const struct slurm_attempt *attempt); /* 0: none */

#endif
