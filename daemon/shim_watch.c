#include "daemon/shim_watch.h"
#include "proto/base/fsx.h"
#include "proto/base/mem.h"
#include "proto/json/json.h"
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int shim_watch_init(struct shim_watch *watch, int ranks, int hung_s, int stalled_s,
                    struct err *err)
{
    int watched = ranks < SHIM_RANKS_WATCHED ? ranks : SHIM_RANKS_WATCHED;
    *watch = (struct shim_watch){.ranks = watched,
                                 .hung = hung_s * 1000 / SHIM_LOOK_MS,
                                 .stalled = stalled_s * 1000 / SHIM_LOOK_MS};
    watch->beats = mem_zeroed((size_t)watched, sizeof *watch->beats);
    return watch->beats != NULL ? 0 : err_set(err, ERR_NO_MEMORY, "heartbeats: out of memory");
}

void shim_watch_release(struct shim_watch *watch)
{
    free(watch->beats);
    watch->beats = NULL;
}

/* -1: the text is no heartbeat, as when the rank is just writing it. */
static int64_t progress_of(const char *text)
{
    cJSON *beat;
    int64_t progress = -1;
    if (json_parse(&beat, text, strlen(text), NULL) != 0)
        return -1;
    if (!json_int(&progress, beat, "progress"))
        progress = -1;
    cJSON_Delete(beat);
    return progress;
}

static bool read_beat(struct shim_beat *now, const char *attempt_path, int rank)
{
    char path[FSX_PATH_MAX];
    struct stat info;
    memset(now, 0, sizeof *now);
    if (fsx_path(path, NULL, "%s/heartbeat-%d", attempt_path, rank) != 0)
        return false;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0)
        return false;
    ssize_t got = pread(fd, now->text, SHIM_BEAT_MAX, 0);
    now->seen = got > 0 && fstat(fd, &info) == 0 && S_ISREG(info.st_mode);
    if (now->seen)
        now->time_ns = (int64_t)info.st_mtim.tv_sec * 1000000000 + info.st_mtim.tv_nsec;
    close(fd);
    return now->seen;
}

/* *moved: the rank has got something done since the last look. */
static void look_at(struct shim_beat *beat, const char *attempt_path, int rank, bool *moved)
{
    struct shim_beat now;
    if (!read_beat(&now, attempt_path, rank)) { /* not begun, or left */
        *beat = now;
        return;
    }
    if (beat->seen && now.time_ns == beat->time_ns && strcmp(now.text, beat->text) == 0) {
        beat->still++;
        return;
    }
    now.progress = progress_of(now.text);
    *moved |= !beat->seen || now.progress != beat->progress;
    *beat = now;
}

bool shim_watch_look(struct shim_watch *watch, const char *attempt_path, int *rank,
                     char *reason, size_t size)
{
    bool moved = false, any = false;
    int worst = 0;
    for (int i = 0; i < watch->ranks; i++) {
        look_at(&watch->beats[i], attempt_path, i, &moved);
        any |= watch->beats[i].seen;
        if (watch->beats[i].still > watch->beats[worst].still)
            worst = i;
    }
    watch->idle = moved || !any ? 0 : watch->idle + 1;
    if (watch->beats[worst].still >= watch->hung) {
        *rank = worst;
        snprintf(reason, size, "rank %d hung: no heartbeat for %d s", worst,
                 watch->beats[worst].still * SHIM_LOOK_MS / 1000);
        return true;
    }
    if (watch->idle >= watch->stalled) {
        *rank = -1;
        snprintf(reason, size, "stalled: no rank made progress for %d s",
                 watch->idle * SHIM_LOOK_MS / 1000);
        return true;
    }
    return false;
}
