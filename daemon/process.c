#include "daemon/process.h"
#include "proto/base/buf.h"
#include "proto/base/fsx.h"
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <unistd.h>

enum { PROCESSES_MAX = 32768, ENVIRONMENT_MAX = 256 * 1024 };

int process_boot_id(char out[PROCESS_BOOT_ID_MAX], struct err *err)
{
    struct buf text;
    buf_init(&text, PROCESS_BOOT_ID_MAX - 1);
    int code = fsx_read(&text, "/proc/sys/kernel/random/boot_id", err);
    if (code == 0)
        snprintf(out, PROCESS_BOOT_ID_MAX, "%.*s", (int)strcspn(text.data, "\n"), text.data);
    buf_release(&text);
    return code;
}

/* Parent and start of a process; a zombie is none. The name between parentheses may hold
 * anything, so fields count from the last ')'. */
static int read_stat(pid_t pid, pid_t *parent, uint64_t *start_ticks)
{
    char path[64], text[1024];
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return ERR_NOT_FOUND;
    ssize_t got = read(fd, text, sizeof text - 1);
    close(fd);
    if (got <= 0)
        return ERR_NOT_FOUND;
    text[got] = '\0';
    char *at = strrchr(text, ')');
    char *save = NULL;
    int field = 3;
    for (char *word = at != NULL ? strtok_r(at + 1, " ", &save) : NULL; word != NULL;
         word = strtok_r(NULL, " ", &save), field++) {
        if (field == 3 && (word[0] == 'Z' || word[0] == 'X'))
            return ERR_NOT_FOUND;
        if (field == 4)
            *parent = (pid_t)strtol(word, NULL, 10);
        if (field == 22) {
            *start_ticks = strtoull(word, NULL, 10);
            return 0;
        }
    }
    return ERR_NOT_FOUND;
}

int process_identify(struct process_identity *out, pid_t pid, struct err *err)
{
    pid_t parent;
    memset(out, 0, sizeof *out);
    out->pid = pid;
    if (read_stat(pid, &parent, &out->start_ticks) != 0)
        return err_set(err, ERR_NOT_FOUND, "there is no process %d", (int)pid);
    return process_boot_id(out->boot_id, err);
}

int process_signal(const struct process_identity *identity, int signal, bool *sent,
                   struct err *err)
{
    *sent = false;
    if (identity->pid <= 1)
        return err_set(err, ERR_INVALID, "process %d cannot be one of ours",
                       (int)identity->pid);
    int fd = pidfd_open(identity->pid, 0);
    if (fd < 0)
        return errno == ESRCH ? 0
                              : err_set(err, ERR_IO, "pidfd_open %d: %s", (int)identity->pid,
                                        strerror(errno));
    struct process_identity now;
    int code =
        process_identify(&now, identity->pid, err); /* the descriptor keeps this very process */
    bool same = code == 0 && now.start_ticks == identity->start_ticks &&
                strcmp(now.boot_id, identity->boot_id) == 0;
    if (same) {
        if (pidfd_send_signal(fd, signal, NULL, 0) == 0)
            *sent = true;
        else if (errno != ESRCH)
            code = err_set(err, ERR_IO, "signal %d to process %d: %s", signal,
                           (int)identity->pid, strerror(errno));
    }
    close(fd);
    return code == ERR_NOT_FOUND ? 0 : code;
}

struct entry {
    pid_t pid, parent;
    bool descends;
};

static size_t list_processes(struct entry *entries, size_t max)
{
    size_t count = 0;
    DIR *proc = opendir("/proc");
    const struct dirent *item;
    while (proc != NULL && count < max && (item = readdir(proc)) != NULL) {
        uint64_t ticks;
        struct entry entry = {.pid = (pid_t)strtol(item->d_name, NULL, 10)};
        if (isdigit((unsigned char)item->d_name[0]) &&
            read_stat(entry.pid, &entry.parent, &ticks) == 0)
            entries[count++] = entry;
    }
    if (proc != NULL)
        closedir(proc);
    return count;
}

size_t process_kill_descendants(pid_t pid)
{
    struct entry *entries = calloc(PROCESSES_MAX, sizeof *entries);
    if (entries == NULL)
        return 0;
    size_t count = list_processes(entries, PROCESSES_MAX), killed = 0;
    for (bool grew = true; grew;) {
        grew = false;
        for (size_t i = 0; i < count; i++) {
            bool descends = entries[i].parent == pid;
            for (size_t j = 0; j < count && !descends && !entries[i].descends; j++)
                descends = entries[j].descends && entries[j].pid == entries[i].parent;
            if (descends && !entries[i].descends)
                grew = entries[i].descends = true;
        }
    }
    for (size_t i = 0; i < count; i++)
        if (entries[i].descends && kill(entries[i].pid, SIGKILL) == 0)
            killed++;
    free(entries);
    return killed;
}

static bool has_mark(pid_t pid, const char *mark, char *environment)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/environ", (int)pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    size_t len = 0;
    ssize_t got;
    while (len < ENVIRONMENT_MAX &&
           (got = read(fd, environment + len, ENVIRONMENT_MAX - len)) > 0)
        len += (size_t)got;
    close(fd);
    environment[len] = '\0';
    for (size_t at = 0; at < len; at += strlen(environment + at) + 1)
        if (strcmp(environment + at, mark) == 0)
            return true;
    return false;
}

size_t process_kill_marked(const char *mark)
{
    size_t killed = 0;
    char *environment = malloc(ENVIRONMENT_MAX + 1);
    struct entry *entries = calloc(PROCESSES_MAX, sizeof *entries);
    size_t count =
        environment != NULL && entries != NULL ? list_processes(entries, PROCESSES_MAX) : 0;
    for (size_t i = 0; i < count; i++) {
        int fd = entries[i].pid > 1 && entries[i].pid != getpid()
                     ? pidfd_open(entries[i].pid, 0)
                     : -1;
        if (fd < 0)
            continue;
        /* Opened before the look: the number cannot have changed hands in between. */
        if (has_mark(entries[i].pid, mark, environment) &&
            pidfd_send_signal(fd, SIGKILL, NULL, 0) == 0)
            killed++;
        close(fd);
    }
    free(entries);
    free(environment);
    return killed;
}
