/* jobs/ID/control: one word from the daemon, which replaces the file by rename. Rank 0 only. */
#ifndef HEBB_WORKER_CONTROL_H
#define HEBB_WORKER_CONTROL_H

#include "proto/base/fsx.h"

enum control_word {
    CONTROL_RUN,
    CONTROL_CHECKPOINT,
    CONTROL_STOP
}; /* later words outrank earlier ones */

enum { CONTROL_POLL_MS = 100 };

struct control {
    char path[FSX_PATH_MAX];
    int64_t next_poll_ms;      /* on the monotonic clock */
    enum control_word pending; /* found while answering another word */
};

int control_init(struct control *control, const char *job, struct err *err);

/* The word now asked for; looks at the file at most every CONTROL_POLL_MS. A missing file, or a
 * word that is not one of the three, means run. */
enum control_word control_poll(struct control *control, int64_t now_ms);

/* After a checkpoint that was asked for: puts `run` in place of `checkpoint`. A word that the
 * daemon wrote meanwhile is not lost: the next poll returns it. */
int control_answer(struct control *control, struct err *err);

#endif
