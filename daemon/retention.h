/* Old history, logs and idempotency keys are removed: config.history_days, log_days, key_days.
 * A job's row, checkpoints and model stay. */
#ifndef HEBB_DAEMON_RETENTION_H
#define HEBB_DAEMON_RETENTION_H

#include "daemon/daemon.h"

/* Joins the loop with a timer. */
int retention_create(struct retention **out, struct daemon *daemon, struct err *err);
void retention_destroy(struct retention *retention);

/* One step, as the timer makes it: at most one job's logs, or a piece of one job's history.
 * *busy: there is more to do. */
int retention_step(struct daemon *daemon, int64_t now_ms, bool *busy, struct err *err);

#endif
