#include "proto/base/fsx.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum {
    FSX_CHUNK = 64 * 1024,
    FSX_DEPTH_MAX = 64,  /* folders inside folders that fsx_remove_tree follows */
    FSX_LOCK_TRIES = 20, /* fsx_lock_held holds a lock for an instant: wait it out */
    FSX_LOCK_WAIT_MS = 5,
};

static int fsx_fail(struct err *err, const char *act, const char *path)
{
    return err_set(err, errno == ENOENT ? ERR_NOT_FOUND : err_of_errno(errno), "%s %s: %s", act,
                   path, strerror(errno));
}

int fsx_path(char out[FSX_PATH_MAX], struct err *err, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int len = vsnprintf(out, FSX_PATH_MAX, format, args);
    va_end(args);
    if (len < 0 || len >= FSX_PATH_MAX) {
        return err_set(err, ERR_LIMIT, "path %.64s...: longer than %d bytes", out,
                       FSX_PATH_MAX - 1);
    }
    return 0;
}

int fsx_read(struct buf *buf, const char *path, struct err *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return fsx_fail(err, "open", path);
    }
    int rc = 0;
    size_t start = buf->len;
    char *chunk = malloc(FSX_CHUNK);
    if (!chunk) {
        rc = err_set(err, ERR_NO_MEMORY, "read %s: out of memory", path);
        goto out;
    }
    for (;;) {
        ssize_t got = read(fd, chunk, FSX_CHUNK);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got < 0) {
            rc = err_set(err, ERR_IO, "read %s: %s", path, strerror(errno));
            goto out;
        }
        buf_add(buf, chunk, (size_t)got); /* zero bytes too: an empty file is "" */
        if (buf->failed) {
            rc = err_set(err, ERR_LIMIT, "read %s: larger than %zu bytes", path,
                         buf->max - start);
            goto out;
        }
        if (got == 0) {
            break;
        }
    }
out:
    free(chunk);
    close(fd);
    return rc;
}

/* fsync of the folder that holds path. */
static int fsx_sync_parent(const char *path, struct err *err)
{
    char folder[FSX_PATH_MAX];
    int rc = fsx_path(folder, err, "%s", path);
    if (rc) {
        return rc;
    }
    size_t len = strlen(folder);
    while (len > 1 && folder[len - 1] == '/') {
        folder[--len] = '\0';
    }
    char *slash = strrchr(folder, '/');
    if (!slash) {
        strcpy(folder, ".");
    } else {
        slash[slash == folder ? 1 : 0] = '\0';
    }
    return fsx_sync(folder, err);
}

int fsx_publish(const char *path, const void *data, size_t len, mode_t mode, struct err *err)
{
    char temporary[FSX_PATH_MAX];
    int rc = fsx_path(temporary, err, "%s.tmp", path);
    if (rc) {
        return rc;
    }
    int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, mode);
    if (fd < 0) {
        return fsx_fail(err, "create", temporary);
    }
    rc = fsx_write_all(fd, data, len, err);
    if (rc) {
        err_wrap(err, rc, "write %s", temporary);
    } else if (fsync(fd) != 0) {
        rc = err_set(err, err_of_errno(errno), "fsync %s: %s", temporary, strerror(errno));
    }
    if (close(fd) != 0 && !rc) {
        rc = err_set(err, err_of_errno(errno), "close %s: %s", temporary, strerror(errno));
    }
    if (!rc) {
        rc = fsx_rename(temporary, path, err);
    }
    if (rc) {
        unlink(temporary);
    }
    return rc;
}

int fsx_sync(const char *path, struct err *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return fsx_fail(err, "open", path);
    }
    int rc = fsync(fd) == 0
                 ? 0
                 : err_set(err, err_of_errno(errno), "fsync %s: %s", path, strerror(errno));
    close(fd);
    return rc;
}

int fsx_rename(const char *from, const char *to, struct err *err)
{
    if (rename(from, to) != 0) {
        return err_set(err, errno == ENOENT ? ERR_NOT_FOUND : err_of_errno(errno),
                       "rename %s to %s: %s", from, to, strerror(errno));
    }
    return fsx_sync_parent(to, err);
}

/* mkdir of one folder; fine if it is there and is a folder. */
static int fsx_mkdir(const char *path, mode_t mode, struct err *err)
{
    if (mkdir(path, mode) == 0) {
        return 0;
    }
    int reason = errno;
    struct stat info;
    if (stat(path, &info) == 0 && S_ISDIR(info.st_mode)) {
        return 0;
    }
    errno = reason == EEXIST ? ENOTDIR : reason;
    return err_set(err, err_of_errno(errno), "create folder %s: %s", path, strerror(errno));
}

int fsx_mkdirs(const char *path, mode_t mode, struct err *err)
{
    char partial[FSX_PATH_MAX];
    int rc = fsx_path(partial, err, "%s", path);
    for (char *slash = strchr(partial + 1, '/'); !rc && partial[0] && slash;
         slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        rc = fsx_mkdir(partial, mode, err);
        *slash = '/';
    }
    return rc ? rc : fsx_mkdir(path, mode, err);
}

/* Removes name inside the folder at; a missing one is fine. */
static int fsx_remove_at(int at, const char *name, int depth, struct err *err)
{
    if (unlinkat(at, name, 0) == 0 || errno == ENOENT) {
        return 0;
    }
    if (errno != EISDIR && errno != EPERM) {
        return err_set(err, ERR_IO, "remove %s: %s", name, strerror(errno));
    }
    if (depth == 0) {
        return err_set(err, ERR_LIMIT, "remove %s: folders nested deeper than %d", name,
                       FSX_DEPTH_MAX);
    }
    int fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *folder = fd < 0 ? NULL : fdopendir(fd);
    if (!folder) {
        int rc = err_set(err, ERR_IO, "remove %s: %s", name, strerror(errno));
        if (fd >= 0) {
            close(fd);
        }
        return rc;
    }
    int rc = 0;
    const struct dirent *entry;
    while (!rc && (entry = readdir(folder))) {
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0) {
            rc = fsx_remove_at(fd, entry->d_name, depth - 1, err);
        }
    }
    closedir(folder);
    if (!rc && unlinkat(at, name, AT_REMOVEDIR) != 0 && errno != ENOENT) {
        rc = err_set(err, ERR_IO, "remove folder %s: %s", name, strerror(errno));
    }
    return rc;
}

int fsx_remove_tree(const char *path, struct err *err)
{
    return fsx_remove_at(AT_FDCWD, path, FSX_DEPTH_MAX, err);
}

bool fsx_exists(const char *path) { return access(path, F_OK) == 0; }

int fsx_lock(int *out, const char *path, struct err *err)
{
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) {
        return fsx_fail(err, "open", path);
    }
    for (int i = 0; i < FSX_LOCK_TRIES; i++) {
        if (flock(fd, LOCK_EX | LOCK_NB) == 0) {
            *out = fd;
            return 0;
        }
        if (errno != EWOULDBLOCK && errno != EINTR) {
            break;
        }
        nanosleep(&(struct timespec){.tv_nsec = FSX_LOCK_WAIT_MS * 1000000L}, NULL);
    }
    int rc = errno == EWOULDBLOCK || errno == EINTR
                 ? err_set(err, ERR_CONFLICT, "lock %s: held by another process", path)
                 : err_set(err, err_of_errno(errno), "lock %s: %s", path, strerror(errno));
    close(fd);
    return rc;
}

int fsx_lock_held(bool *held, const char *path, struct err *err)
{
    *held = false;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return errno == ENOENT ? 0 : fsx_fail(err, "open", path);
    }
    int rc = 0;
    while (flock(fd, LOCK_SH | LOCK_NB) != 0) {
        if (errno == EINTR) {
            continue;
        }
        if (errno == EWOULDBLOCK) {
            *held = true;
        } else {
            rc = err_set(err, ERR_IO, "lock %s: %s", path, strerror(errno));
        }
        break;
    }
    close(fd);
    return rc;
}

int fsx_write_all(int fd, const void *data, size_t len, struct err *err)
{
    const char *at = data;
    while (len > 0) {
        ssize_t done = write(fd, at, len);
        if (done < 0 && errno == EINTR) {
            continue;
        }
        if (done <= 0) {
            return err_set(err, err_of_errno(errno), "write: %s", strerror(errno));
        }
        at += done;
        len -= (size_t)done;
    }
    return 0;
}

int fsx_read_at(int fd, void *data, size_t len, uint64_t offset, struct err *err)
{
    char *at = data;
    while (len > 0) {
        ssize_t done = pread(fd, at, len, (off_t)offset);
        if (done < 0 && errno == EINTR) {
            continue;
        }
        if (done < 0) {
            return err_set(err, ERR_IO, "read: %s", strerror(errno));
        }
        if (done == 0) {
            return err_set(err, ERR_CORRUPT,
                           "read: the file ends at byte %llu, %zu bytes early",
                           (unsigned long long)offset, len);
        }
        at += done;
        offset += (uint64_t)done;
        len -= (size_t)done;
    }
    return 0;
}
