/* The files of an attempt: shim.json, error-R.json, exit.json. */
#include "daemon/shim.h"
#include "proto/base/clock.h"
#include "proto/json/json.h"
#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { SMALL_FILE_MAX = 16 * 1024 };

enum { ID_DIGITS = 16 };

/* What names the job outside its folder: the folder's name if that is a job's ID, as the daemon
 * gives it, else a hash (FNV-1a) of its path: `hebb train` has folders that are named alike. */
static void shim_id(char out[ID_DIGITS + 1], const char *folder)
{
    const char *name = strrchr(folder, '/') + 1;
    if (strlen(name) == ID_DIGITS && strspn(name, "0123456789abcdef") == ID_DIGITS) {
        memcpy(out, name, ID_DIGITS + 1);
        return;
    }
    uint64_t hash = 0xcbf29ce484222325u;
    for (const char *c = folder; *c != '\0'; c++)
        hash = (hash ^ (unsigned char)*c) * 0x100000001b3u;
    snprintf(out, ID_DIGITS + 1, "%016" PRIx64, hash);
}

int shim_paths(struct shim_paths *out, const char *folder, int64_t attempt, struct err *err)
{
    if (folder[0] != '/')
        return err_set(err, ERR_INVALID, "the job folder '%s' must be an absolute path",
                       folder);
    char id[ID_DIGITS + 1];
    shim_id(id, folder);
    int code = fsx_path(out->attempt, err, "%s/attempt-%" PRId64, folder, attempt);
    if (code == 0)
        code = fsx_path(out->tmp, err, "%s/attempt-%" PRId64 "/tmp", folder, attempt);
    if (code == 0)
        code = fsx_path(out->shm, err, "/dev/shm/hebb-%s-%" PRId64, id, attempt);
    if (code == 0)
        code = fsx_path(out->mark, err, "HEBB_ATTEMPT=%s/attempt-%" PRId64, folder, attempt);
    return code;
}

int shim_clean(const struct shim_paths *paths, struct err *err)
{
    int first = fsx_remove_tree(paths->tmp, err);
    int second = fsx_remove_tree(paths->shm, first == 0 ? err : NULL);
    return first != 0 ? first : second;
}

static int publish(const char *attempt_path, const char *name, cJSON *object, struct err *err)
{
    char path[FSX_PATH_MAX];
    struct buf text;
    buf_init(&text, SMALL_FILE_MAX);
    json_print(object, &text);
    buf_puts(&text, "\n");
    int code = text.failed ? err_set(err, ERR_NO_MEMORY, "%s: out of memory", name) : 0;
    if (code == 0)
        code = fsx_path(path, err, "%s/%s", attempt_path, name);
    if (code == 0)
        code = fsx_publish(path, text.data, text.len, 0600, err);
    buf_release(&text);
    return code;
}

static int read_object(cJSON **out, const char *attempt_path, const char *name, struct err *err)
{
    char path[FSX_PATH_MAX];
    int code = fsx_path(path, err, "%s/%s", attempt_path, name);
    return code == 0 ? json_read(out, path, SMALL_FILE_MAX, err) : code;
}

int shim_identity_write(const char *attempt_path, struct err *err)
{
    struct process_identity self;
    char stamp[CLOCK_STAMP_MAX];
    int code = process_identify(&self, getpid(), err);
    if (code != 0)
        return code;
    cJSON *object = cJSON_CreateObject();
    if (object == NULL || !cJSON_AddNumberToObject(object, "pid", self.pid) ||
        !cJSON_AddStringToObject(object, "boot_id", self.boot_id) ||
        !cJSON_AddStringToObject(object, "started", clock_stamp(stamp, clock_wall_ms())) ||
        !cJSON_AddNumberToObject(object, "start_ticks", (double)self.start_ticks))
        code = err_set(err, ERR_NO_MEMORY, "shim.json: out of memory");
    else
        code = publish(attempt_path, "shim.json", object, err);
    cJSON_Delete(object);
    return code;
}

int shim_identity_read(struct process_identity *out, const char *attempt_path, struct err *err)
{
    cJSON *object;
    int64_t pid = 0, ticks = 0;
    memset(out, 0, sizeof *out);
    int code = read_object(&object, attempt_path, "shim.json", err);
    if (code != 0)
        return code;
    const char *boot_id = json_string(object, "boot_id");
    if (!json_int(&pid, object, "pid") || !json_int(&ticks, object, "start_ticks") ||
        boot_id == NULL || pid <= 1 || pid > INT32_MAX || ticks < 0)
        code = err_set(err, ERR_CORRUPT, "%s/shim.json does not name a process", attempt_path);
    else {
        out->pid = (pid_t)pid;
        out->start_ticks = (uint64_t)ticks;
        snprintf(out->boot_id, sizeof out->boot_id, "%s", boot_id);
    }
    cJSON_Delete(object);
    return code;
}

/* The error-R.json that was written first, by time and then by rank. */
static bool first_error(const char *attempt_path, struct shim_exit *out)
{
    DIR *folder = opendir(attempt_path);
    const struct dirent *item;
    struct timespec best = {0};
    bool found = false;
    while (folder != NULL && (item = readdir(folder)) != NULL) {
        int rank, end = 0;
        struct stat info;
        if (sscanf(item->d_name, "error-%d.json%n", &rank, &end) != 1 || end == 0 ||
            item->d_name[end] != '\0' ||
            fstatat(dirfd(folder), item->d_name, &info, AT_SYMLINK_NOFOLLOW) != 0 ||
            !S_ISREG(info.st_mode))
            continue;
        bool earlier = info.st_mtim.tv_sec != best.tv_sec ? info.st_mtim.tv_sec < best.tv_sec
                                                          : info.st_mtim.tv_nsec < best.tv_nsec;
        bool same = info.st_mtim.tv_sec == best.tv_sec && info.st_mtim.tv_nsec == best.tv_nsec;
        if (found && !earlier && !(same && rank < out->rank))
            continue;
        cJSON *object;
        if (read_object(&object, attempt_path, item->d_name, NULL) != 0)
            continue;
        const char *message = json_string(object, "message");
        if (message != NULL) {
            found = true;
            best = info.st_mtim;
            out->rank = rank;
            snprintf(out->reason, sizeof out->reason, "%s", message);
        }
        cJSON_Delete(object);
    }
    if (folder != NULL)
        closedir(folder);
    return found;
}

/* mpirun 4.1 says "... process rank 1 with PID 0 on node X exited on signal 9 (Killed)." of the
 * first rank that a signal ended. */
static bool killed_rank(const char *attempt_path, int *rank, int *signal)
{
    char path[FSX_PATH_MAX];
    bool found = false;
    if (fsx_path(path, NULL, "%s/log.txt", attempt_path) != 0)
        return false;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    char *text = malloc(SHIM_LOG_TAIL + 1);
    struct stat info;
    if (fd >= 0 && text != NULL && fstat(fd, &info) == 0) {
        off_t from = info.st_size > SHIM_LOG_TAIL ? info.st_size - SHIM_LOG_TAIL : 0;
        ssize_t got = pread(fd, text, SHIM_LOG_TAIL, from);
        text[got > 0 ? got : 0] = '\0';
        for (ssize_t i = 0; i < got; i++) /* a NUL in the log must not hide the rest */
            if (text[i] == '\0')
                text[i] = ' ';
        const char *line = strstr(text, "noticed that process rank ");
        const char *end = line != NULL ? strstr(line, "exited on signal ") : NULL;
        found = end != NULL && sscanf(line, "noticed that process rank %d", rank) == 1 &&
                sscanf(end, "exited on signal %d", signal) == 1;
    }
    free(text);
    if (fd >= 0)
        close(fd);
    return found;
}

void shim_exit_judge(struct shim_exit *out, const char *attempt_path, int status, int ranks,
                     const char *killed)
{
    memset(out, 0, sizeof *out);
    out->rank = -1;
    if (WIFSIGNALED(status)) {
        out->signal = WTERMSIG(status);
        out->code = 128 + out->signal;
    } else
        out->code = WEXITSTATUS(status);
    int rank, signal;
    if (out->code == EXIT_DONE)
        snprintf(out->reason, sizeof out->reason, "done");
    else if (out->code == EXIT_STOPPED)
        snprintf(out->reason, sizeof out->reason, "stopped");
    else if (killed != NULL)
        snprintf(out->reason, sizeof out->reason, "%s", killed);
    else if (first_error(attempt_path, out))
        ;
    else if (ranks > 1 && killed_rank(attempt_path, &rank, &signal)) {
        out->rank = rank;
        out->signal = signal;
        snprintf(out->reason, sizeof out->reason, "rank %d was killed by signal %d", rank,
                 signal);
    } else if (out->signal != 0) {
        out->rank = ranks == 1 ? 0 : -1;
        snprintf(out->reason, sizeof out->reason, "%s was killed by signal %d",
                 ranks == 1 ? "rank 0" : "mpirun", out->signal);
    } else {
        out->rank = ranks == 1 ? 0 : -1;
        snprintf(out->reason, sizeof out->reason, "exit code %d", out->code);
    }
}

int shim_exit_write(const char *attempt_path, const struct shim_exit *end, struct err *err)
{
    char stamp[CLOCK_STAMP_MAX];
    int code;
    cJSON *object = cJSON_CreateObject();
    if (object == NULL || !cJSON_AddNumberToObject(object, "code", end->code) ||
        !cJSON_AddNumberToObject(object, "signal", end->signal) ||
        !cJSON_AddNumberToObject(object, "rank", end->rank) ||
        !cJSON_AddStringToObject(object, "reason", end->reason) ||
        !cJSON_AddStringToObject(object, "time", clock_stamp(stamp, clock_wall_ms())))
        code = err_set(err, ERR_NO_MEMORY, "exit.json: out of memory");
    else
        code = publish(attempt_path, "exit.json", object, err);
    cJSON_Delete(object);
    return code;
}

int shim_exit_read(struct shim_exit *out, const char *attempt_path, struct err *err)
{
    cJSON *object;
    int64_t code_value, signal, rank;
    memset(out, 0, sizeof *out);
    int code = read_object(&object, attempt_path, "exit.json", err);
    if (code != 0)
        return code;
    const char *reason = json_string(object, "reason");
    if (!json_int(&code_value, object, "code") || !json_int(&signal, object, "signal") ||
        !json_int(&rank, object, "rank") || reason == NULL || code_value < 0 ||
        code_value > 255 || signal < 0 || signal > 64 || rank < -1 || rank > INT32_MAX)
        code = err_set(err, ERR_CORRUPT, "%s/exit.json does not say how the attempt ended",
                       attempt_path);
    else {
        out->code = (int)code_value;
        out->signal = (int)signal;
        out->rank = (int)rank;
        snprintf(out->reason, sizeof out->reason, "%s", reason);
    }
    cJSON_Delete(object);
    return code;
}
