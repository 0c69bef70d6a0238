/* Mapping files and writing them from front to back. */
#define XXH_STATIC_LINKING_ONLY /* the state's size */
#include "proto/format/filemap.h"
#include "proto/base/fsx.h"
#include "proto/base/mem.h"
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

enum {
    WRITER_BUFFER_BYTES = 1 << 20,
    HASH_CHUNK_BYTES = 4 << 20, /* bytes hashed before their pages are let go */
};

struct file_writer {
    XXH3_state_t hash; /* first: it asks for 64-byte alignment, which mem_aligned gives */
    int fd;
    char *path;
    unsigned char *buffer; /* (WRITER_BUFFER_BYTES) */
    size_t used;           /* bytes in buffer */
    uint64_t bytes;        /* added */
};

int filemap_open(struct filemap *out, const char *path, struct err *err)
{
    *out = (struct filemap){0};
    /* O_NONBLOCK: a FIFO must not stop us before fstat can refuse it. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return err_set(err, errno == ENOENT ? ERR_NOT_FOUND : ERR_IO, "open %s: %s", path,
                       strerror(errno));
    int rc = 0;
    struct stat st;
    if (fstat(fd, &st) != 0) {
        rc = err_set(err, ERR_IO, "stat %s: %s", path, strerror(errno));
        goto out;
    }
    if (!S_ISREG(st.st_mode)) {
        rc = err_set(err, ERR_INVALID, "%s is not a regular file", path);
        goto out;
    }
    if (st.st_size > 0) {
        void *data = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
        if (data == MAP_FAILED) {
            rc = err_set(err, ERR_IO, "map %s: %s", path, strerror(errno));
            goto out;
        }
        *out = (struct filemap){.data = data, .bytes = (size_t)st.st_size};
    }
out:
    close(fd);
    return rc;
}

void filemap_close(struct filemap *map)
{
    if (map->data)
        munmap((void *)(uintptr_t)map->data, map->bytes);
    *map = (struct filemap){0};
}

void filemap_forget(const struct filemap *map, size_t first, size_t bytes)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t begin = size_round_up(first, page);
    size_t end = (first + bytes) / page * page;
    if (end > begin) /* a hint: failure changes nothing that is read */
        (void)madvise((void *)(uintptr_t)(map->data + begin), end - begin, MADV_DONTNEED);
}

static void hash_start(XXH3_state_t *state)
{
    XXH3_INITSTATE(state);
    XXH_errorcode status = XXH3_64bits_reset(state);
    assert(status == XXH_OK);
}

uint64_t filemap_hash(const struct filemap *map, size_t first)
{
    XXH3_state_t state;
    hash_start(&state);
    for (size_t at = first; at < map->bytes; at += HASH_CHUNK_BYTES) {
        size_t part = map->bytes - at < HASH_CHUNK_BYTES ? map->bytes - at : HASH_CHUNK_BYTES;
        XXH_errorcode status = XXH3_64bits_update(&state, map->data + at, part);
        assert(status == XXH_OK);
        filemap_forget(map, at, part);
    }
    return XXH3_64bits_digest(&state);
}

static void writer_free(struct file_writer *writer)
{
    if (writer->fd >= 0)
        close(writer->fd);
    free(writer->buffer);
    free(writer->path);
    mem_aligned_free(writer);
}

int file_writer_open(struct file_writer **out, const char *path, struct err *err)
{
    *out = NULL;
    struct file_writer *writer = mem_aligned(1, sizeof(*writer));
    if (!writer)
        return err_set(err, ERR_NO_MEMORY, "write %s: no memory", path);
    writer->fd = -1;
    writer->path = mem_strdup(path);
    writer->buffer = malloc(WRITER_BUFFER_BYTES);
    if (!writer->path || !writer->buffer) {
        writer_free(writer);
        return err_set(err, ERR_NO_MEMORY, "write %s: no memory", path);
    }
    writer->fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (writer->fd < 0) {
        int rc = err_set(err, err_of_errno(errno), "create %s: %s", path, strerror(errno));
        writer_free(writer);
        return rc;
    }
    file_writer_hash_restart(writer);
    *out = writer;
    return 0;
}

static int writer_flush(struct file_writer *writer, struct err *err)
{
    int rc = fsx_write_all(writer->fd, writer->buffer, writer->used, err);
    writer->used = 0;
    return rc ? err_wrap(err, rc, "write %s", writer->path) : 0;
}

int file_writer_add(struct file_writer *writer, const void *data, size_t bytes, struct err *err)
{
    if (bytes == 0)
        return 0;
    XXH_errorcode status = XXH3_64bits_update(&writer->hash, data, bytes);
    assert(status == XXH_OK);
    writer->bytes += bytes;
    if (bytes > WRITER_BUFFER_BYTES - writer->used) {
        int rc = writer_flush(writer, err);
        if (rc)
            return rc;
        if (bytes >= WRITER_BUFFER_BYTES) {
            rc = fsx_write_all(writer->fd, data, bytes, err);
            return rc ? err_wrap(err, rc, "write %s", writer->path) : 0;
        }
    }
    memcpy(writer->buffer + writer->used, data, bytes);
    writer->used += bytes;
    return 0;
}

uint64_t file_writer_hash(const struct file_writer *writer)
{
    return XXH3_64bits_digest(&writer->hash);
}

void file_writer_hash_restart(struct file_writer *writer) { hash_start(&writer->hash); }

int file_writer_patch(struct file_writer *writer, const void *data, size_t bytes,
                      struct err *err)
{
    assert(bytes <= writer->bytes);
    int rc = writer_flush(writer, err);
    if (rc)
        return rc;
    if (lseek(writer->fd, 0, SEEK_SET) < 0)
        return err_set(err, ERR_IO, "seek %s: %s", writer->path, strerror(errno));
    rc = fsx_write_all(writer->fd, data, bytes, err);
    if (rc)
        return err_wrap(err, rc, "write %s", writer->path);
    if (lseek(writer->fd, 0, SEEK_END) < 0)
        return err_set(err, ERR_IO, "seek %s: %s", writer->path, strerror(errno));
    return 0;
}

int file_writer_finish(struct file_writer *writer, struct err *err)
{
    int rc = writer_flush(writer, err);
    if (!rc && fsync(writer->fd) != 0)
        rc = err_set(err, err_of_errno(errno), "fsync %s: %s", writer->path, strerror(errno));
    int fd = writer->fd;
    writer->fd = -1;
    if (close(fd) != 0 && !rc)
        rc = err_set(err, err_of_errno(errno), "close %s: %s", writer->path, strerror(errno));
    if (rc)
        unlink(writer->path);
    writer_free(writer);
    return rc;
}

void file_writer_abort(struct file_writer *writer)
{
    if (!writer)
        return;
    unlink(writer->path);
    writer_free(writer);
}
