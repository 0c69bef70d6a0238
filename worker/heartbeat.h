/* A rank's sign of life: attempt-N/heartbeat-R, rewritten every second by a thread that does
 * nothing else (docs/formats.md). The shim judges it. */
#ifndef HEBB_WORKER_HEARTBEAT_H
#define HEBB_WORKER_HEARTBEAT_H

#include "engine/comm.h"

enum { HEARTBEAT_MS = 1000, HEARTBEAT_BYTES = 64 };

struct heartbeat; /* opaque */

/* Writes the first one and starts the thread. attempt: the attempt's folder, which is there.
 * comm gives the rank and counts its progress; it must outlive the heartbeat. ERR_IO,
 * ERR_NO_MEMORY. */
int heartbeat_start(struct heartbeat **out, const char *attempt, struct comm *comm,
                    struct err *err);

/* Steps done, for those who read the file. */
void heartbeat_step(struct heartbeat *heartbeat, size_t step);

/* Ends the thread and removes the file: this rank is judged no more. NULL is fine. */
void heartbeat_stop(struct heartbeat *heartbeat);

#endif
