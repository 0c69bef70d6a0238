#include "daemon/beneath.h"
#include "proto/base/fsx.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The kernel may answer EAGAIN when something was renamed meanwhile. */
static int open_below(int dir, const char *path, int flags)
{
    const struct open_how how = {.flags = (uint64_t)(unsigned)(flags | O_CLOEXEC),
                                 .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS |
                                            RESOLVE_NO_MAGICLINKS};
    for (int try = 0;; try++) {
        int fd = (int)syscall(SYS_openat2, dir, path, &how, sizeof how);
        if (fd >= 0 || try == 8 || (errno != EINTR && errno != EAGAIN))
            return fd;
    }
}

static int refusal(const char *path, struct err *err)
{
    int why = errno;
    if (why == ENOENT || why == ENOTDIR)
        return err_set(err, ERR_NOT_FOUND, "there is no '%s'", path);
    if (why == ELOOP || why == EXDEV)
        return err_set(err, ERR_INVALID, "'%s' leads out of its folder or through a link",
                       path);
    return err_set(err, ERR_IO, "open '%s': %s", path, strerror(why));
}

static int open_root(int *fd, const char *root, struct err *err)
{
    *fd = open(root, O_PATH | O_DIRECTORY | O_CLOEXEC);
    return *fd >= 0 ? 0
                    : err_set(err, errno == ENOENT ? ERR_NOT_FOUND : ERR_IO, "open '%s': %s",
                              root, strerror(errno));
}

int beneath_open(int *fd, const char *root, const char *path, struct err *err)
{
    int dir;
    int code = open_root(&dir, root, err);
    if (code != 0)
        return code;
    *fd = open_below(dir, path, O_RDONLY | O_NONBLOCK);
    if (*fd < 0)
        code = refusal(path, err);
    close(dir);
    return code;
}

int beneath_open_file(int *fd, int64_t *size, const char *root, const char *path,
                      struct err *err)
{
    struct stat info;
    int code = beneath_open(fd, root, path, err);
    if (code != 0)
        return code;
    if (fstat(*fd, &info) != 0 || !S_ISREG(info.st_mode)) {
        close(*fd);
        *fd = -1;
        return err_set(err, ERR_NOT_FOUND, "'%s' is no regular file", path);
    }
    *size = info.st_size;
    return 0;
}

/* --- patterns --- */

struct walk {
    size_t max, count;
    int depth;
    struct err *err;
};

enum { WALK_DEPTH_MAX = 32, SEGMENT_MAX = 256 };

static int walk_into(struct walk *walk, int dir, const char *pattern);

/* One name that fits: the end of the pattern, or a folder to go on in. */
static int walk_name(struct walk *walk, int dir, const char *name, const char *rest)
{
    int fd = open_below(dir, name, O_PATH | (*rest != '\0' ? O_DIRECTORY : 0));
    if (fd < 0 && (errno == ENOENT || errno == ENOTDIR))
        return 0;
    if (fd < 0)
        return refusal(name, walk->err);
    int code = 0;
    if (*rest != '\0')
        code = walk_into(walk, fd, rest);
    else if (walk->count++ == walk->max)
        code = err_set(walk->err, ERR_LIMIT, "more than %zu files match", walk->max);
    close(fd);
    return code;
}

static int walk_list(struct walk *walk, int dir, const char *segment, const char *rest)
{
    int fd = open_below(dir, ".", O_RDONLY | O_DIRECTORY);
    DIR *stream = fd >= 0 ? fdopendir(fd) : NULL;
    if (stream == NULL) {
        int code = refusal(segment, walk->err);
        if (fd >= 0)
            close(fd);
        return code;
    }
    int code = 0;
    for (struct dirent *entry; code == 0 && (entry = readdir(stream)) != NULL;)
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0 &&
            fnmatch(segment, entry->d_name, FNM_PERIOD) == 0)
            code = walk_name(walk, dir, entry->d_name, rest);
    closedir(stream);
    return code;
}

static int walk_into(struct walk *walk, int dir, const char *pattern)
{
    char segment[SEGMENT_MAX];
    size_t len = strcspn(pattern, "/");
    const char *rest = pattern + len + strspn(pattern + len, "/");
    if (len >= sizeof segment || walk->depth >= WALK_DEPTH_MAX)
        return err_set(walk->err, ERR_INVALID, "'%.64s...' is too long or too deep", pattern);
    snprintf(segment, sizeof segment, "%.*s", (int)len, pattern);
    if (strcmp(segment, "..") == 0)
        return err_set(walk->err, ERR_INVALID, "'..' is not taken in a path");
    walk->depth++;
    int code = strpbrk(segment, "*?[") != NULL ? walk_list(walk, dir, segment, rest)
                                               : walk_name(walk, dir, segment, rest);
    walk->depth--;
    return code;
}

int beneath_glob(const char *root, const char *pattern, size_t max, size_t *count,
                 struct err *err)
{
    struct walk walk = {.max = max, .err = err};
    int dir;
    int code = open_root(&dir, root, err);
    *count = 0;
    if (code != 0)
        return code;
    pattern += strspn(pattern, "/");
    code = walk_into(&walk, dir, *pattern != '\0' ? pattern : ".");
    close(dir);
    *count = walk.count;
    return code;
}
