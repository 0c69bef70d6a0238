#include "worker/control.h"

#include "proto/base/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { WORD_MAX = 64 };

static const char *const words[] = {
    [CONTROL_RUN] = "run",
    [CONTROL_CHECKPOINT] = "checkpoint",
    [CONTROL_STOP] = "stop",
};

static enum control_word word_read(const char *path)
{
    struct buf text;
    enum control_word found = CONTROL_RUN;
    buf_init(&text, WORD_MAX);
    if (fsx_read(&text, path, NULL) == 0 && text.data) {
        text.data[strcspn(text.data, " \r\n")] = '\0';
        for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
            if (strcmp(text.data, words[i]) == 0) {
                found = (enum control_word)i;
            }
        }
    }
    buf_release(&text);
    return found;
}

int control_init(struct control *control, const char *job, struct err *err)
{
    *control = (struct control){.next_poll_ms = 0, .pending = CONTROL_RUN};
    return fsx_path(control->path, err, "%s/control", job);
}

enum control_word control_poll(struct control *control, int64_t now_ms)
{
    if (control->pending != CONTROL_RUN) {
        enum control_word word = control->pending;
        control->pending = CONTROL_RUN;
        return word;
    }
    if (now_ms < control->next_poll_ms) {
        return CONTROL_RUN;
    }
    control->next_poll_ms = now_ms + CONTROL_POLL_MS;
    return word_read(control->path);
}

/* The file may say `stop` by now. It is exchanged with a file that says `run` in one act, so
 * that whatever word is taken out of its place is seen. */
int control_answer(struct control *control, struct err *err)
{
    char mine[FSX_PATH_MAX];
    int rc = fsx_path(mine, err, "%s.worker", control->path);
    if (rc == 0) {
        rc = fsx_publish(mine, "run\n", 4, 0644, err);
    }
    if (rc != 0) {
        return rc;
    }
    if (renameat2(AT_FDCWD, mine, AT_FDCWD, control->path, RENAME_EXCHANGE) == 0) {
        enum control_word taken = word_read(mine);
        control->pending = taken == CONTROL_CHECKPOINT ? CONTROL_RUN : taken;
        unlink(mine);
        return 0;
    }
    if (errno == ENOENT) { /* somebody removed the file: that means run */
        unlink(mine);
        return 0;
    }
    /* A file system without the exchange (NFS): the window is as small as it can be made. */
    if (word_read(control->path) == CONTROL_CHECKPOINT) {
        return fsx_rename(mine, control->path, err);
    }
    unlink(mine);
    return 0;
}
