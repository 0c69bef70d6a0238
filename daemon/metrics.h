/* /metrics in Prometheus' text format 0.0.4: jobs by state, slots, what running jobs do,
 * ingest, HTTP, the process. */
#ifndef HEBB_DAEMON_METRICS_H
#define HEBB_DAEMON_METRICS_H

#include "proto/base/buf.h"
#include "proto/base/err.h"

struct daemon;

int metrics_print(struct daemon *daemon, struct buf *out, struct err *err);

#endif
