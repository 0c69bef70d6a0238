/* The life of jobs: admission, the queue, the state machine, launchers, retries, adoption,
 * ingest.
 *
 *   queued -> starting -> running -> succeeded | failed
 *   running -> pausing -> paused -> queued (resume)
 *   running -> retry_wait -> queued        (a failure that a retry may help, below restart.max)
 *   any not final -> cancelling -> cancelled
 *
 * A request becomes an intent row; the tick acts on intents after the commit. What happened to
 * an attempt is learnt from its lock, exit.json and events, never from a missing process alone.
 */
#ifndef HEBB_DAEMON_JOBS_H
#define HEBB_DAEMON_JOBS_H

#include "daemon/daemon.h"
#include "daemon/store.h"
#include "proto/msg/spec.h"

struct jobs;

/* Reconciles intents and running attempts with the disk (adoption), then starts the timers on
 * the loop. */
int jobs_create(struct jobs **out, struct daemon *daemon, struct err *err);
void jobs_destroy(struct jobs *jobs); /* running jobs go on */

/* Checks what the table cannot: data paths exist under the data roots, slots suffice, launcher
 * known. Adds faults. */
void jobs_admit(struct jobs *jobs, const struct job_spec *spec, struct spec_faults *faults);

/* Makes the job folder and the row (state queued). As store_job_insert for idem_key, body_hash,
 * *existing. */
int jobs_submit(struct jobs *jobs, const struct job_spec *spec, const char *idem_key,
                const char *body_hash, struct job_row *out, bool *existing, struct err *err);

enum job_action { ACTION_CANCEL, ACTION_PAUSE, ACTION_RESUME, ACTION_CHECKPOINT };
/* ERR_NOT_FOUND, or ERR_CONFLICT with "job is STATE" when the state does not allow it. Asking
 * again is fine. */
int jobs_act(struct jobs *jobs, const char *id, enum job_action action, struct job_row *out,
             struct err *err);

/* Path of a job's folder: STATE/jobs/ID. */
int jobs_path(const struct jobs *jobs, const char *id, char *out, size_t size, struct err *err);

/* Told after every ingest that added events of job id, and after every state change. One
 * listener (http's streams). */
void jobs_set_listener(struct jobs *jobs, void (*fn)(void *context, const char *id),
                       void *context);

/* After the turn's commit: when it failed, folders made in this turn are removed again. */
void jobs_after_commit(struct jobs *jobs, bool commit_ok);

/* After SIGCHLD: takes ended shims out of the process table. */
void jobs_reap(struct jobs *jobs);

/* 0 if new jobs can be taken and begun; otherwise why not: the store takes no writes, or the
 * disk is nearly full. Running jobs go on meanwhile, and nothing needs a restart afterwards. */
int jobs_ready(struct jobs *jobs, struct err *why);

/* Slots in use and in all, for /metrics and /readyz. */
void jobs_slots(const struct jobs *jobs, int *cores_used, int *cores, int *gpus_used,
                int *gpus);

#endif
