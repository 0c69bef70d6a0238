/* Whether the ranks of an attempt live: their heartbeat files are looked at every second
 * (docs/formats.md). Looks are counted, not time, so that a machine that was paused, or a shim
 * that was, accuses nobody. */
#ifndef HEBB_DAEMON_SHIM_WATCH_H
#define HEBB_DAEMON_SHIM_WATCH_H

#include "proto/base/err.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { SHIM_BEAT_MAX = 64, SHIM_LOOK_MS = 1000, SHIM_RANKS_WATCHED = 4096 };

struct shim_beat {
    bool seen;
    char text[SHIM_BEAT_MAX + 1]; /* of the file when it last changed */
    int64_t time_ns;              /* its modification time then */
    int64_t progress;             /* in the text */
    int still;                    /* looks without a change */
};

struct shim_watch {
    struct shim_beat *beats; /* one per rank */
    int ranks;
    int hung, stalled; /* looks */
    int idle;          /* looks without progress of any rank */
};

/* ranks above SHIM_RANKS_WATCHED are not watched. */
int shim_watch_init(struct shim_watch *watch, int ranks, int hung_s, int stalled_s,
                    struct err *err);
void shim_watch_release(struct shim_watch *watch);

/* One look, SHIM_LOOK_MS after the last. True if the attempt must be ended: *rank (-1: all of
 * them) and reason say why. */
bool shim_watch_look(struct shim_watch *watch, const char *attempt_path, int *rank,
                     char *reason, size_t size);

#endif
