/* The state machine of a job: a table of what may happen in which state. */
#ifndef HEBB_DAEMON_JOBS_STATE_H
#define HEBB_DAEMON_JOBS_STATE_H

#include "daemon/store.h"

enum job_event {
    EVENT_SCHEDULE, /* it got its slots */
    EVENT_BEGIN,    /* the attempt's first event was read */
    EVENT_PAUSE,    /* asked for by the user, like the next three */
    EVENT_RESUME,
    EVENT_CANCEL,
    EVENT_CHECKPOINT,
    EVENT_DONE,      /* the attempt ended: code 0 and a done event */
    EVENT_STOPPED,   /* code 75: a checkpoint is on disk */
    EVENT_FATAL,     /* code 2, 3 or 5: a retry won't help */
    EVENT_FAILED,    /* anything else, retries left */
    EVENT_EXHAUSTED, /* anything else, no retry left */
    EVENT_DUE,       /* the wait before a retry is over */
    JOB_EVENTS
};

const char *job_event_name(enum job_event event);

/* False if event cannot happen or is not allowed in state. *next may equal state: asking again
 * is fine. */
bool job_state_next(enum job_state state, enum job_event event, enum job_state *next);

#endif
