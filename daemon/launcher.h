/* Launchers: how an attempt is started, asked to end, and looked at. One file and one row per
 * launcher (launcher.c). */
#ifndef HEBB_DAEMON_LAUNCHER_H
#define HEBB_DAEMON_LAUNCHER_H

#include "daemon/shim.h"
#include "proto/base/err.h"
#include <stdint.h>

struct slurm;

/* exit.json's reason where the launcher itself ended the attempt's time: not a stop from
 * outside. */
#define LAUNCH_TIME_IS_UP "stopped by Slurm before its time was up"

/* One attempt of a job. The launcher reads it and keeps nothing. */
struct launch {
    const char *folder; /* of the job, absolute */
    int64_t attempt;
    int64_t ranks;
    const char *shim_path, *worker_path;
    int stop_grace_s, hung_s; /* the shim's --grace and --hung; 0: its defaults */
    bool stopping;            /* the job is to stop: pausing or cancelling */
    struct slurm *slurm;      /* of the launcher slurm; NULL: the daemon has none */
};

enum launch_state {
    LAUNCH_RUNNING, /* something of the attempt lives */
    LAUNCH_EXITED,  /* exit.json tells how it ended */
    LAUNCH_LOST,    /* nothing lives and nothing tells */
};

struct launch_status {
    enum launch_state state;
    bool busy;    /* a process of it may still live, whatever state says: the next attempt must
                     wait */
    int64_t beat; /* LAUNCH_RUNNING: changes at least every second while whoever looks after the
                     attempt (the shim) does its work; 0: this launcher cannot tell */
    char reason[ERR_TEXT_MAX]; /* LAUNCH_RUNNING: what a user should know, such as why it waits
                                */
    struct shim_exit end;      /* LAUNCH_EXITED: exit.json; LAUNCH_LOST: code 1 and a reason */
};

enum launch_signal {
    LAUNCH_STOP, /* save and leave; after SHIM_GRACE_S the shim kills */
    LAUNCH_KILL, /* end now */
    LAUNCH_WAKE, /* the shim is silent: it may only be stopped (SIGCONT) */
    LAUNCH_END,  /* it stays silent: end it too, without an exit.json */
};

struct launcher {
    const char *name; /* resources.launcher */
    /* Starts the attempt. Asking again for an attempt that was started is fine and does
     * nothing. */
    int (*start)(const struct launch *launch, struct err *err);
    int (*status)(const struct launch *launch, struct launch_status *out, struct err *err);
    int (*signal)(const struct launch *launch, enum launch_signal signal, struct err *err);
    /* After LAUNCH_LOST: ends and removes what the attempt left behind. ERR_CONFLICT while a
     * process of it was still there: it was killed, ask again. */
    int (*clean)(const struct launch *launch, struct err *err);
};

/* NULL if there is none of that name. */
const struct launcher *launcher_find(const char *name);

extern const struct launcher launcher_local;

#endif
