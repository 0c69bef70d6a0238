#include "daemon/jobs_state.h"

static const char *const event_names[JOB_EVENTS] = {
    [EVENT_SCHEDULE] = "schedule",   [EVENT_BEGIN] = "begin",
    [EVENT_PAUSE] = "pause",         [EVENT_RESUME] = "resume",
    [EVENT_CANCEL] = "cancel",       [EVENT_CHECKPOINT] = "checkpoint",
    [EVENT_DONE] = "done",           [EVENT_STOPPED] = "stopped",
    [EVENT_FATAL] = "fatal",         [EVENT_FAILED] = "failed",
    [EVENT_EXHAUSTED] = "exhausted", [EVENT_DUE] = "due",
};

/* Entries are the next state + 1, so that what is not listed is "no". A cancellation that comes
 * too late changes nothing: a job that was done is succeeded. A job that failed while it was
 * asked to pause is paused, and tries again on resume. */
#define TO(state) ((unsigned char)((state) + 1))
static const unsigned char table[JOB_STATES][JOB_EVENTS] = {
    [JOB_QUEUED] = {[EVENT_SCHEDULE] = TO(JOB_STARTING),
                    [EVENT_PAUSE] = TO(JOB_PAUSED),
                    [EVENT_RESUME] = TO(JOB_QUEUED),
                    [EVENT_CANCEL] = TO(JOB_CANCELLED)},
    [JOB_STARTING] = {[EVENT_BEGIN] = TO(JOB_RUNNING),
                      [EVENT_PAUSE] = TO(JOB_PAUSING),
                      [EVENT_RESUME] = TO(JOB_STARTING),
                      [EVENT_CANCEL] = TO(JOB_CANCELLING),
                      [EVENT_CHECKPOINT] = TO(JOB_STARTING),
                      [EVENT_DONE] = TO(JOB_SUCCEEDED),
                      [EVENT_STOPPED] = TO(JOB_QUEUED),
                      [EVENT_FATAL] = TO(JOB_FAILED),
                      [EVENT_FAILED] = TO(JOB_RETRY_WAIT),
                      [EVENT_EXHAUSTED] = TO(JOB_FAILED)},
    [JOB_RUNNING] = {[EVENT_BEGIN] = TO(JOB_RUNNING),
                     [EVENT_PAUSE] = TO(JOB_PAUSING),
                     [EVENT_RESUME] = TO(JOB_RUNNING),
                     [EVENT_CANCEL] = TO(JOB_CANCELLING),
                     [EVENT_CHECKPOINT] = TO(JOB_RUNNING),
                     [EVENT_DONE] = TO(JOB_SUCCEEDED),
                     [EVENT_STOPPED] = TO(JOB_QUEUED),
                     [EVENT_FATAL] = TO(JOB_FAILED),
                     [EVENT_FAILED] = TO(JOB_RETRY_WAIT),
                     [EVENT_EXHAUSTED] = TO(JOB_FAILED)},
    [JOB_PAUSING] = {[EVENT_BEGIN] = TO(JOB_PAUSING),
                     [EVENT_PAUSE] = TO(JOB_PAUSING),
                     [EVENT_CANCEL] = TO(JOB_CANCELLING),
                     [EVENT_DONE] = TO(JOB_SUCCEEDED),
                     [EVENT_STOPPED] = TO(JOB_PAUSED),
                     [EVENT_FATAL] = TO(JOB_FAILED),
                     [EVENT_FAILED] = TO(JOB_PAUSED),
                     [EVENT_EXHAUSTED] = TO(JOB_FAILED)},
    [JOB_PAUSED] = {[EVENT_PAUSE] = TO(JOB_PAUSED),
                    [EVENT_RESUME] = TO(JOB_QUEUED),
                    [EVENT_CANCEL] = TO(JOB_CANCELLED)},
    [JOB_RETRY_WAIT] = {[EVENT_PAUSE] = TO(JOB_PAUSED),
                        [EVENT_RESUME] = TO(JOB_QUEUED),
                        [EVENT_CANCEL] = TO(JOB_CANCELLED),
                        [EVENT_DUE] = TO(JOB_QUEUED)},
    [JOB_CANCELLING] = {[EVENT_BEGIN] = TO(JOB_CANCELLING),
                        [EVENT_CANCEL] = TO(JOB_CANCELLING),
                        [EVENT_DONE] = TO(JOB_SUCCEEDED),
                        [EVENT_STOPPED] = TO(JOB_CANCELLED),
                        [EVENT_FATAL] = TO(JOB_CANCELLED),
                        [EVENT_FAILED] = TO(JOB_CANCELLED),
                        [EVENT_EXHAUSTED] = TO(JOB_CANCELLED)},
    [JOB_CANCELLED] = {[EVENT_CANCEL] = TO(JOB_CANCELLED)},
};
#undef TO

const char *job_event_name(enum job_event event) { return event_names[event]; }

bool job_state_next(enum job_state state, enum job_event event, enum job_state *next)
{
    unsigned char entry = table[state][event];
    if (entry == 0)
        return false;
    *next = (enum job_state)(entry - 1);
    return true;
}
