/* The dashboard's files, read once at the start and served from memory: no path of a request
 * ever reaches the file system. */
#include "daemon/http_internal.h"
#include "proto/base/fsx.h"
#include "proto/base/mem.h"
#include "proto/format/digest.h"
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { FILES_MAX = 64, FILE_BYTES_MAX = 4 * 1024 * 1024 };

static const struct {
    const char *suffix, *type;
} types[] = {
    {".html", "text/html; charset=utf-8"},
    {".css", "text/css; charset=utf-8"},
    {".js", "text/javascript; charset=utf-8"},
    {".svg", "image/svg+xml"},
    {".png", "image/png"},
    {".ico", "image/x-icon"},
    {".json", "application/json"},
};

/* NULL for a kind of file that the dashboard has not. */
static const char *type_of(const char *name)
{
    const char *dot = strrchr(name, '.');
    for (size_t i = 0; dot && i < sizeof(types) / sizeof(types[0]); i++)
        if (strcmp(types[i].suffix, dot) == 0)
            return types[i].type;
    return NULL;
}

static int file_load(struct http_file *file, const char *path, const char *name,
                     const char *type, struct err *err)
{
    struct buf content;
    buf_init(&content, FILE_BYTES_MAX);
    int rc = fsx_read(&content, path, err);
    if (rc) {
        buf_release(&content);
        return rc;
    }
    size_t len = content.len, size = strlen(name) + 2;
    char digest[DIGEST_TEXT_MAX];
    file->data = buf_detach(&content);
    file->name = mem_zeroed(size, 1);
    if (!file->data || !file->name)
        return err_set(err, ERR_NO_MEMORY, "read %s: out of memory", path);
    snprintf(file->name, size, "/%s", name);
    snprintf(file->etag, sizeof(file->etag), "\"%s\"", digest_text(digest, file->data, len));
    file->len = len;
    file->type = type;
    return 0;
}

static int files_add(struct http_files *files, const char *dir, const char *name,
                     struct err *err)
{
    char path[FSX_PATH_MAX];
    struct stat stat;
    const char *type = name[0] == '.' ? NULL : type_of(name);
    if (!type)
        return 0;
    int rc = fsx_path(path, err, "%s/%s", dir, name);
    if (rc)
        return rc;
    if (lstat(path, &stat) || !S_ISREG(stat.st_mode))
        return 0;
    if (files->count == FILES_MAX)
        return err_set(err, ERR_LIMIT, "dashboard %s: more than %d files", dir, FILES_MAX);
    return file_load(&files->items[files->count++], path, name, type, err);
}

int http_files_load(struct http_files *files, const char *dir, struct err *err)
{
    *files = (struct http_files){0};
    DIR *stream = opendir(dir);
    if (!stream)
        return err_set(err, errno == ENOENT ? ERR_NOT_FOUND : ERR_IO, "dashboard %s: %s", dir,
                       strerror(errno));
    int rc = 0;
    files->items = mem_zeroed(FILES_MAX, sizeof(*files->items));
    if (!files->items)
        rc = err_set(err, ERR_NO_MEMORY, "dashboard %s: out of memory", dir);
    for (struct dirent *entry; !rc && (entry = readdir(stream));)
        rc = files_add(files, dir, entry->d_name, err);
    closedir(stream);
    if (rc)
        http_files_release(files);
    return rc;
}

void http_files_release(struct http_files *files)
{
    for (size_t i = 0; i < files->count; i++) {
        free(files->items[i].name);
        free(files->items[i].data);
    }
    free(files->items);
    *files = (struct http_files){0};
}

const struct http_file *http_files_find(const struct http_files *files, const char *path)
{
    const char *name = strcmp(path, "/") == 0 ? "/index.html" : path;
    for (size_t i = 0; i < files->count; i++)
        if (strcmp(files->items[i].name, name) == 0)
            return &files->items[i];
    return NULL;
}
