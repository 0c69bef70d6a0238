/* hebbd's root context and its one poll loop.
 *
 * One thread: libmicrohttpd's epoll descriptors, a signalfd, children, timers and the event
 * files share a loop (loop.c). No lock. Every turn: handle what is ready, then store_commit()
 * once, then send what waits on the commit. */
#ifndef HEBB_DAEMON_H
#define HEBB_DAEMON_H

#include "proto/base/err.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct store;
struct jobs;
struct http;
struct loop;
struct webhooks;
struct retention;

struct slurm_config {
    char *commands; /* folder of sbatch, squeue, scancel, sacct; NULL: no launcher slurm */
    char *programs; /* folder of hebb-shim and hebb-worker on the nodes; NULL: as here */
    char **allowed; /* patterns of the options of sbatch that jobs may give */
    size_t allowed_count;
    int poll_ms;   /* between two calls of squeue */
    int grace_s;   /* from a batch job's end without exit.json to "lost" */
    int warning_s; /* before the end of its time a job is told to save */
};

/* docs/configuration.md says what each is; config_table.c has the rows. */
struct daemon_config {
    char *state_dir;   /* STATE: /var/lib/hebb or $XDG_STATE_HOME/hebb */
    char *listen;      /* "127.0.0.1:7077" */
    char *socket;      /* Unix socket; NULL: none */
    char **data_roots; /* canonical folders that a job's data paths must be under */
    size_t data_root_count;
    char **hosts; /* further names that Host may have */
    size_t host_count;
    char **webhook_urls; /* beginnings of addresses that webhooks may have */
    size_t webhook_url_count;
    bool webhook_private; /* webhooks may go to private addresses */
    bool local_token;     /* STATE/token is made and taken */
    char *worker_path;    /* hebb-worker, hebb-shim: beside hebbd unless configured */
    char *shim_path;
    char *web_dir; /* dashboard files */
    struct slurm_config slurm;
    int cores, gpus; /* slots; 0 cores: of the machine */
    int memory_mb;   /* MiB that one job may need; 0: not looked at */
    int poll_ms;     /* event files and controls, default 200 */
    /* Bounds of a stop in seconds, 0: the default (jobs_internal.h, shim.h). */
    int cancel_grace_s; /* from `stop` in control to SIGTERM for the shim, cancelling */
    int pause_grace_s;  /* the same, pausing */
    int stop_grace_s;   /* from SIGTERM to SIGKILL */
    int shim_silent_s;  /* a shim without a sign of life for so long is woken, then killed */
    int hung_s;         /* a rank without a heartbeat for so long is hung */
    int connections;    /* 0 in these four: http.c's default */
    int connections_per_address, streams, request_s;
    int history_days, log_days, key_days; /* 0: kept for ever */
};

struct daemon {
    struct daemon_config config;
    struct loop *loop;
    struct store *store;
    struct jobs *jobs;
    struct http *http;
    struct webhooks *webhooks;
    struct retention *retention;
    char token[65]; /* 64 hex digits, STATE/token, mode 0600; "": none */
    int64_t started_ms;
    bool stopping;
    bool draining; /* no further attempts are started (POST /v1/drain) */
};

#endif
