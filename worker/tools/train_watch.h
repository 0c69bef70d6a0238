/* Follows a job's events.jsonl and shows the progress: a bar on a terminal, plain lines
 * elsewhere, or the events themselves. */
#ifndef HEBB_TOOLS_TRAIN_WATCH_H
#define HEBB_TOOLS_TRAIN_WATCH_H

#include "proto/base/buf.h"
#include "proto/base/err.h"
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct train_watch {
    int fd;               /* -1 until the file is there */
    const char *path;     /* not owned */
    off_t offset;         /* of what was read */
    struct buf line;      /* an unfinished last line */
    bool json;            /* events go to stdout as they are */
    bool tty;             /* stderr is a terminal */
    bool bar;             /* a bar is on the screen's last line */
    int64_t next_line_ms; /* plain: when the next step line is due */
    double steps, step;   /* of the job, done */
    double loss, first_loss, tokens_per_s, eval_loss, perplexity, seconds_per_step;
    bool evaluated, finished;
};

/* Begins at the file's present end: earlier attempts are not shown again. path must outlive the
 * watch. */
void train_watch_init(struct train_watch *watch, const char *path, bool json);
void train_watch_release(struct train_watch *watch);

/* Takes in what was written since; never blocks. A line that is no event is passed over. */
int train_watch_poll(struct train_watch *watch, struct err *err);

/* The last words: final losses after the end. */
void train_watch_summary(const struct train_watch *watch, const char *folder);

#endif
