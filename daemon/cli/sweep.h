/* hebb sweep: a file (docs/sweep.md) becomes a plan of runs, arm by arm and seed by seed; the
 * runs are done by the daemon or in folders; their records become one table.
 *
 * sweep_plan.c, sweep_arms.c: file to plan. sweep_tune.c: the runs before. sweep_daemon.c,
 * sweep_local.c: plan to records. sweep_table.c: records to text, CSV and JSON. sweep.c: the
 * command. */
#ifndef HEBB_CLI_SWEEP_H
#define HEBB_CLI_SWEEP_H

#include "daemon/cli/record.h"
#include "proto/msg/estimate.h"

enum {
    SWEEP_FILE_MAX = 1024 * 1024,
    SWEEP_NAME_MAX = 64,
    SWEEP_RUNS_MAX = 4096,
    SWEEP_FAULTS_MAX = 64, /* different ones; further ones are counted */
    SWEEP_KEY_MAX = 64,
};

/* --- faults --- */

/* A fault, and in how many runs it was found. */
struct sweep_fault {
    char *where; /* the first run, or the file's field */
    char *text;
    size_t runs;
};

struct sweep_faults {
    struct sweep_fault items[SWEEP_FAULTS_MAX];
    size_t count; /* may exceed SWEEP_FAULTS_MAX: the rest is not kept */
};

/* Keeps a fault; the same text of another run is counted with the first. */
void sweep_fault(struct sweep_faults *faults, const char *where, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void sweep_faults_print(const struct sweep_faults *faults, const char *file);
void sweep_faults_release(struct sweep_faults *faults);

/* --- plan --- */

struct sweep_arm {
    char *name;   /* unique; owned */
    cJSON *set;   /* {POINTER: value}: what its job has over the base; owned */
    cJSON *tuned; /* {POINTER: value} chosen by tuning; NULL: not tuned; owned */
    bool at_edge; /* one of them is the first or last of its list */
    bool priced;  /* estimate is known */
    struct {
        double active_parameters, flops_per_token, flops_per_token_dense, tokens,
            memory_total_bytes;
    } estimate;
};

struct sweep_run {
    size_t arm;              /* index */
    const char *seed;        /* in the plan's seeds */
    char *body;              /* the job's JSON; owned */
    char key[SWEEP_KEY_MAX]; /* names sweep, arm and seed: the Idempotency-Key */
    char *id;                /* job, or its folder; NULL until it is known; owned */
    struct record record;    /* filled when the run has ended; its state says how */
    bool recorded;
    char state[FORMAT_TEXT_MAX]; /* as last seen */
    double share;                /* of its steps that are done */
};

struct sweep_plan {
    char *name;
    cJSON *base;  /* owned */
    cJSON *tune;  /* the file's "tune"; NULL: none; owned */
    char **seeds; /* (seed_count) */
    struct sweep_arm *arms;
    struct sweep_run *runs; /* all arms of the first seed, then of the second, ... */
    size_t seed_count, arm_count, run_count;
};

/* Makes the plan of a sweep's text: arms and grids multiplied out, every job validated
 * (spec_parse). All faults go to faults; with any, or on another error, plan is empty and the
 * result not 0. */
int sweep_plan_make(struct sweep_plan *plan, const char *text, size_t len,
                    struct sweep_faults *faults, struct err *err);
void sweep_plan_release(struct sweep_plan *plan);

/* The plan of the runs that tune plan's arms (plan->tune must be there): each arm at each point
 * of the tuning grid, with the tuning's seed and settings. Faults as above. */
int sweep_tune_plan(struct sweep_plan *tune, const struct sweep_plan *plan,
                    struct sweep_faults *faults, struct err *err);
/* Gives every arm of plan the point whose run in tune has the smallest final validation loss
 * (ties: the first), says so on stderr, and makes its runs anew. ERR_CONFLICT if an arm has no
 * run with such a loss. */
int sweep_tune_choose(struct sweep_plan *plan, const struct sweep_plan *tune,
                      struct sweep_faults *faults, struct err *err);

/* "ARM, seed SEED", cut to out. Returns out. */
char *sweep_run_name(const struct sweep_plan *plan, const struct sweep_run *run,
                     char out[FORMAT_LINE_MAX]);
/* Keeps the numbers of a dry run's "estimate" for the run's arm. */
void sweep_price(struct sweep_arm *arm, const cJSON *estimate);

/* --- runs --- */

/* Dry-runs every job; faults are kept. Prints other failures and returns an exit_code. */
int sweep_daemon_check(struct sweep_plan *plan, struct client *client,
                       struct sweep_faults *faults);
/* Submits what is not there yet, follows all to their ends, fills the records. again: a run
 * that failed or was cancelled is submitted anew. */
int sweep_daemon_run(struct sweep_plan *plan, struct client *client, bool again);

/* The estimates without a daemon. */
int sweep_local_check(struct sweep_plan *plan);
/* One run after the other by `hebb train` in folders of folder. EXIT_STOPPED after ctrl-C. */
int sweep_local_run(struct sweep_plan *plan, const char *folder);

/* --- results --- */

/* What the table says about an arm; numbers that are not known are NAN. */
struct sweep_result {
    size_t runs, succeeded;
    struct spread loss, perplexity, best_loss, tokens_per_s; /* of the runs that succeeded */
    double active_parameters, flops_per_token, flops_share, train_flops;
};
void sweep_result_of(struct sweep_result *out, const struct sweep_plan *plan, size_t arm);

/* True if the run succeeded with a finite final validation loss; else *why says what it lacks.
 */
bool sweep_run_complete(const struct sweep_run *run, const char **why);

/* "lr=0.003" of what tuning chose, "" if nothing. Returns out. */
char *sweep_tuned_text(const struct sweep_arm *arm, char out[FORMAT_LINE_MAX]);

void sweep_print_plan(const struct sweep_plan *plan); /* --dry-run */
void sweep_print_text(const struct sweep_plan *plan, FILE *out);
bool sweep_print_csv(const struct sweep_plan *plan, FILE *out);
/* tune: the tuning's runs, or NULL. NULL without memory. */
cJSON *sweep_json(const struct sweep_plan *plan, const struct sweep_plan *tune);
/* Names every run that is not complete on stderr; true if there is none. */
bool sweep_print_failures(const struct sweep_plan *plan);

#endif
