/* Files, folders and globs to a list of files. */
#include "engine/data_paths.h"
#include "proto/base/fsx.h"
#include "proto/base/mem.h"
#include <dirent.h>
#include <errno.h>
#include <glob.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { FOLDER_DEPTH_MAX = 64 };

static int add_path(struct data_paths *paths, const char *path, struct err *err)
{
    if (paths->count == DATA_FILES_MAX)
        return err_set(err, ERR_LIMIT, "%s: more than %d data files; join them into shards",
                       path, DATA_FILES_MAX);
    if (paths->count == paths->capacity) {
        size_t capacity = paths->capacity ? 2 * paths->capacity : 64;
        char **items = realloc(paths->items, capacity * sizeof(*items));
        if (!items)
            return err_set(err, ERR_NO_MEMORY, "no memory for %zu data files", capacity);
        paths->items = items;
        paths->capacity = capacity;
    }
    char *copy = mem_strdup(path);
    if (!copy)
        return err_set(err, ERR_NO_MEMORY, "no memory for the path %s", path);
    paths->items[paths->count++] = copy;
    return 0;
}

static int walk(struct data_paths *paths, const char *folder, unsigned depth, struct err *err);

static int visit(struct data_paths *paths, const char *path, unsigned depth, struct err *err)
{
    struct stat st;
    if (lstat(path, &st) != 0)
        return err_set(err, ERR_IO, "data: stat %s: %s", path, strerror(errno));
    if (S_ISDIR(st.st_mode))
        return walk(paths, path, depth + 1, err);
    return S_ISREG(st.st_mode) ? add_path(paths, path, err) : 0;
}

static int walk(struct data_paths *paths, const char *folder, unsigned depth, struct err *err)
{
    if (depth > FOLDER_DEPTH_MAX)
        return err_set(err, ERR_LIMIT, "data: folder %s is more than %d levels deep", folder,
                       FOLDER_DEPTH_MAX);
    DIR *dir = opendir(folder);
    if (!dir)
        return err_set(err, ERR_IO, "data: open folder %s: %s", folder, strerror(errno));
    int rc = 0;
    size_t length = strlen(folder);
    const char *slash = length > 0 && folder[length - 1] == '/' ? "" : "/";
    while (!rc) {
        errno = 0;
        const struct dirent *entry = readdir(dir);
        if (!entry) {
            if (errno != 0)
                rc = err_set(err, ERR_IO, "data: read folder %s: %s", folder, strerror(errno));
            break;
        }
        char path[FSX_PATH_MAX];
        if (entry->d_name[0] == '.') /* hidden, and . and .. */
            continue;
        rc = fsx_path(path, err, "%s%s%s", folder, slash, entry->d_name);
        if (!rc)
            rc = visit(paths, path, depth, err);
    }
    closedir(dir);
    return rc;
}

static int compare_paths(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static int add_folder(struct data_paths *paths, const char *folder, struct err *err)
{
    size_t first = paths->count;
    int rc = walk(paths, folder, 0, err);
    if (!rc && paths->count == first)
        rc = err_set(
            err, ERR_NOT_FOUND,
            "data: folder %s has no file (hidden files and symbolic links do not count)",
            folder);
    if (!rc)
        qsort(paths->items + first, paths->count - first, sizeof(*paths->items), compare_paths);
    return rc;
}

/* A file or folder by its name; links in the name itself are followed. */
static int add_named(struct data_paths *paths, const char *path, struct err *err)
{
    struct stat st;
    if (stat(path, &st) != 0)
        return err_set(err, errno == ENOENT || errno == ENOTDIR ? ERR_NOT_FOUND : ERR_IO,
                       "data: %s: %s", path, strerror(errno));
    if (S_ISDIR(st.st_mode))
        return add_folder(paths, path, err);
    if (!S_ISREG(st.st_mode))
        return err_set(err, ERR_INVALID, "data: %s is neither a file nor a folder", path);
    return add_path(paths, path, err);
}

static int glob_failed(struct err *err, int status, const char *pattern)
{
    /* GLOB_ERR makes a folder that is not there an abort. */
    if (status == GLOB_NOMATCH ||
        (status == GLOB_ABORTED && (errno == ENOENT || errno == ENOTDIR)))
        return err_set(err, ERR_NOT_FOUND, "data: nothing matches %s", pattern);
    if (status == GLOB_NOSPACE)
        return err_set(err, ERR_NO_MEMORY, "data: %s: no memory", pattern);
    return err_set(err, ERR_IO, "data: %s: a folder cannot be read: %s", pattern,
                   strerror(errno));
}

static int add_glob(struct data_paths *paths, const char *pattern, struct err *err)
{
    glob_t found = {0};
    int rc = 0, status = glob(pattern, GLOB_ERR | GLOB_NOSORT, NULL, &found);
    if (status != 0)
        rc = glob_failed(err, status, pattern);
    else
        qsort(found.gl_pathv, found.gl_pathc, sizeof(*found.gl_pathv), compare_paths);
    for (size_t i = 0; i < found.gl_pathc && !rc; i++)
        rc = add_named(paths, found.gl_pathv[i], err);
    globfree(&found);
    return rc;
}

int data_paths_expand(struct data_paths *out, const char *const *entries, size_t count,
                      struct err *err)
{
    *out = (struct data_paths){0};
    int rc = 0;
    for (size_t i = 0; i < count && !rc; i++) {
        struct stat st;
        bool pattern = strpbrk(entries[i], "*?[") != NULL && lstat(entries[i], &st) != 0;
        rc = pattern ? add_glob(out, entries[i], err) : add_named(out, entries[i], err);
    }
    if (rc)
        data_paths_release(out);
    return rc;
}

void data_paths_release(struct data_paths *paths)
{
    for (size_t i = 0; i < paths->count; i++)
        free(paths->items[i]);
    free(paths->items);
    *paths = (struct data_paths){0};
}
