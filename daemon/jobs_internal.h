/* Inside the jobs module: its context and the functions that its files share. Only
 * daemon/jobs*.c include this. */
#ifndef HEBB_DAEMON_JOBS_INTERNAL_H
#define HEBB_DAEMON_JOBS_INTERNAL_H

#include "daemon/jobs.h"
#include "daemon/jobs_state.h"
#include "daemon/launcher.h"

enum {
    JOBS_CANCEL_GRACE_S =
        30, /* from `stop` in control to SIGTERM for the shim, for a job to be cancelled */
    JOBS_PAUSE_GRACE_S =
        600, /* the same for a job to be paused: it may be in the middle of a long step */
    JOBS_KILL_AFTER_S = 15, /* from the moment at which the shim should have killed (SIGTERM and
                               its grace) to killing everything ourselves */
    JOBS_SHIM_SILENT_S = 30,  /* a shim without a beat for so long is woken, after as long again
                                 it is killed */
    JOBS_LOST_WAIT_S = 30,    /* for what a lost attempt left to die, before its job goes on */
    JOBS_STOPS_MAX = 10,      /* attempts in a row that end with code 75 unasked; the next one
                                 counts as a failure */
    JOBS_DISK_FREE_MIN = 16,  /* MiB free under the state folder: with less nothing is begun */
    JOBS_BACKOFF_MAX_S = 300, /* the longest wait before a retry */
    JOBS_COMPLAINT_S = 60,    /* the ticks come often: the same trouble is logged this seldom */
    JOBS_MATCHES_MAX = 100000,  /* files that one glob may match */
    JOBS_REBUILD_SLICE_MS = 50, /* time per tick for reading old events files again */
    JOBS_REBUILD_TRIES = 50, /* ticks in which an events file cannot be read, then it is left */
    JOBS_UNREADABLE_S = 60,  /* the same for a job whose attempt has ended: it goes on */
    INGEST_TURN_BYTES = 1 << 20,  /* read of one events file per tick */
    INGEST_BAD_LINES_LOGGED = 20, /* per job; all are counted */
};

/* What the ticks need to know of a job that holds slots. Made when first met, dropped when the
 * attempt has ended. */
struct job_run {
    char id[STORE_ID_MAX];
    const struct launcher *launcher;
    int64_t ranks, restart_max;
    double backoff_s;
    enum job_state stopping; /* JOB_PAUSING or JOB_CANCELLING once seen in it */
    int64_t next_ms;         /* monotonic; when to press harder */
    int stage;               /* 0: control says stop; 1: the shim was asked; 2: killing */
    int64_t beat;            /* launch_status.beat when it last changed */
    int64_t looked_ms;       /* monotonic; the last look at it */
    int64_t silent_ms;       /* seen without a change; a pause of this daemon does not count */
    bool woken;
    int64_t lost_ms;       /* monotonic; when it was seen to be lost, 0: not */
    int64_t unreadable_ms; /* monotonic; since when events.jsonl cannot be read, 0: it can */
};

struct jobs {
    struct daemon *daemon;
    struct store *store;
    struct slurm *slurm; /* NULL: not configured */
    int timer;
    void (*listener)(void *context, const char *id);
    void *listener_context;
    struct job_run *runs;
    size_t run_count, run_cap;
    char *ingest_buffer; /* EVENT_LINE_MAX bytes */
    char (
        *made)[STORE_ID_MAX]; /* folders made in this turn: removed again if its commit fails */
    size_t made_count, made_cap;
    struct err complaint;    /* the last trouble that was logged: not said again within
                                JOBS_COMPLAINT_S */
    int64_t complaint_at_ms; /* monotonic */
    bool rebuilding;
    bool unreadable; /* the last jobs_ingest could not read the file */
    int rebuild_failures;
    int64_t rebuild_after; /* row of the last job whose events were read again */
};

/* A growing list of rows: listings are read whole before any is acted on. */
struct job_rows {
    struct job_row *items;
    size_t count, cap;
};
int job_rows_add(
    void *rows,
    const struct job_row *job); /* for store's listings; context is a struct job_rows */
void job_rows_release(struct job_rows *rows);

/* jobs.c */
void jobs_notify(struct jobs *jobs, const char *id);
/* Moves the row along the state machine; ERR_CONFLICT "job is STATE" when the table does not
 * allow it. Updates *job. */
int jobs_move(struct jobs *jobs, struct job_row *job, enum job_event event, const char *reason,
              struct err *err);
void jobs_complain(struct jobs *jobs, const char *id,
                   const struct err *why); /* logs what a later tick may mend */
void jobs_fail_record(struct jobs *jobs, struct job_row *job,
                      const struct err *why); /* a record that cannot be used */
/* Ends what may still run of a job whose record is damaged: its launcher is unknown, the local
 * one looks for it. */
void jobs_end_processes(struct jobs *jobs, const char *id, int64_t attempt);
int jobs_file(const struct jobs *jobs, const char *id, const char *name, char out[FSX_PATH_MAX],
              struct err *err);
int jobs_control_write(struct jobs *jobs, const char *id, const char *word, struct err *err);

/* jobs_attempt.c */
int jobs_run_get(struct jobs *jobs, const char *id, struct job_run **out, struct err *err);
void jobs_run_drop(struct jobs *jobs, const char *id);
void jobs_launch_init(const struct jobs *jobs, const struct job_run *run, const char *folder,
                      int64_t attempt, struct launch *out);
int jobs_attempt_start(struct jobs *jobs, struct job_row *job, int64_t attempt,
                       struct err *err);
/* True in *begun if the attempt, whose start was decided, was started before the daemon died or
 * its commit failed; it is then the job's attempt. For a job that is to stop. */
int jobs_attempt_adopt(struct jobs *jobs, struct job_row *job, int64_t attempt, bool *begun,
                       struct err *err);
/* Looks at a job that holds slots: ingests, notices the end, presses a stop. */
int jobs_attempt_poll(struct jobs *jobs, struct job_row *job, struct err *err);

/* jobs_queue.c */
/* room: attempts may be started. */
int jobs_act_on_intents(struct jobs *jobs, bool room, struct err *err);
int jobs_requeue_due(struct jobs *jobs, struct err *err);
int jobs_schedule(struct jobs *jobs, struct err *err);
/* True in *pending if the attempt's start still waits for its turn. */
int jobs_start_pending(struct jobs *jobs, const char *id, bool *pending, struct err *err);

/* jobs_ingest.c */
/* Takes over new whole lines, at most about INGEST_TURN_BYTES. *caught_up: none is left. */
int jobs_ingest(struct jobs *jobs, const char *id, bool *caught_up, struct err *err);
int jobs_rebuild(struct jobs *jobs, struct err *err);

/* jobs_adopt.c */
void jobs_adopt(struct jobs *jobs);

/* jobs_admit.c */
/* out: a copy whose data paths are absolute. The caller releases it. */
int jobs_resolve(struct jobs *jobs, const struct job_spec *spec, struct job_spec *out,
                 struct err *err);
void jobs_slots_needed(const struct job_spec *spec, int64_t *cores, int64_t *gpus);

#endif
