/* Opening the files of a stream and reading tokens by position. */
#include "engine/data_stream.h"
#include "engine/data.h"
#include "proto/base/fsx.h"
#include "proto/base/mem.h"
#include "proto/format/shard.h"
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    SNIFF_BYTES = 4096, /* looked at to tell text from other things */
    READ_BYTES = 8192,  /* read at a time; a multiple of every token's size */
};

#define DATA_TOKENS_MAX (UINT64_C(1) << 53)

static const struct {
    const char *name;
    enum shard_format format;
} SHARD_FORMATS[] = {
    {"shards", SHARD_AUTO},        {"hebb", SHARD_HEBB},          {"llmc", SHARD_LLMC},
    {"raw-uint16", SHARD_RAW_U16}, {"raw-uint32", SHARD_RAW_U32},
};

/* Opens for reading and checks that it is a regular file; *bytes is its length. */
static int open_file(int *fd, uint64_t *bytes, const char *path, struct err *err)
{
    struct stat st;
    *fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (*fd < 0)
        return err_set(err, errno == ENOENT ? ERR_NOT_FOUND : ERR_IO, "data: open %s: %s", path,
                       strerror(errno));
    int rc = 0;
    if (fstat(*fd, &st) != 0)
        rc = err_set(err, ERR_IO, "data: stat %s: %s", path, strerror(errno));
    else if (!S_ISREG(st.st_mode))
        rc = err_set(err, ERR_INVALID, "data: %s is not a regular file", path);
    else if (st.st_size == 0)
        rc = err_set(err, ERR_CORRUPT, "data: %s is empty", path);
    if (rc) {
        close(*fd);
        *fd = -1;
        return rc;
    }
    *bytes = (uint64_t)st.st_size;
    return 0;
}

static int use_shard(struct data_file *file, enum shard_format format, struct err *err)
{
    struct shard shard;
    int rc = shard_open(&shard, file->path, format, err);
    if (rc)
        return err_wrap(err, rc, "data");
    file->hashed = shard.format == SHARD_HEBB;
    file->token_bytes = shard.token_bytes;
    file->tokens = shard.tokens;
    file->front = (uint64_t)((const char *)shard.data - (const char *)shard.map);
    if (shard.map_bytes != file->bytes)
        rc =
            err_set(err, ERR_CONFLICT, "data: %s changes while it is being opened", file->path);
    shard_close(&shard);
    return rc;
}

static int use_text(struct data_file *file, size_t vocab, struct err *err)
{
    if (vocab < DATA_BYTES_VOCAB)
        return err_set(
            err, ERR_INVALID,
            "data: %s is text: its byte tokens need a vocab of %d, the model's is %zu",
            file->path, DATA_BYTES_VOCAB, vocab);
    file->text = true;
    file->token_bytes = 1;
    file->tokens = file->bytes + 1; /* the separator */
    return 0;
}

static bool has_suffix(const char *path, const char *suffix)
{
    size_t length = strlen(path), tail = strlen(suffix);
    return length > tail && strcmp(path + length - tail, suffix) == 0;
}

/* What a file is by its first bytes and its name. */
static int use_auto(struct data_file *file, int fd, size_t vocab, struct err *err)
{
    unsigned char head[SNIFF_BYTES];
    size_t count = file->bytes < SNIFF_BYTES ? (size_t)file->bytes : SNIFF_BYTES;
    int rc = fsx_read_at(fd, head, count, 0, err);
    if (rc)
        return err_wrap(err, rc, "data: %s", file->path);
    if (shard_has_magic(head, count) || has_suffix(file->path, ".bin") ||
        has_suffix(file->path, ".npy") || has_suffix(file->path, ".idx"))
        return use_shard(file, SHARD_AUTO, err);
    const unsigned char *nul = memchr(head, 0, count);
    if (nul)
        return err_set(
            err, ERR_INVALID,
            "data: %s is not text (a NUL at byte %zu) and has no shard's magic; give "
            "data.format: text, raw-uint16 or raw-uint32",
            file->path, (size_t)(nul - head));
    return use_text(file, vocab, err);
}

static int use_file(struct data_file *file, bool keep, const char *format, size_t vocab,
                    struct err *err)
{
    int fd;
    int rc = open_file(&fd, &file->bytes, file->path, err);
    if (rc)
        return rc;
    if (strcmp(format, "auto") == 0) {
        rc = use_auto(file, fd, vocab, err);
    } else if (strcmp(format, "text") == 0) {
        rc = use_text(file, vocab, err);
    } else {
        rc = err_set(err, ERR_INVALID, "data: format %.40s is unknown", format);
        for (size_t i = 0; i < sizeof(SHARD_FORMATS) / sizeof(SHARD_FORMATS[0]); i++) {
            if (strcmp(format, SHARD_FORMATS[i].name) == 0)
                rc = use_shard(file, SHARD_FORMATS[i].format, err);
        }
    }
    if (!rc && keep)
        file->fd = fd;
    else
        close(fd);
    return rc;
}

int data_stream_init(struct data_stream *stream, const char *const *entries, size_t count,
                     const char *format, size_t vocab, struct err *err)
{
    *stream = (struct data_stream){0};
    int rc = data_paths_expand(&stream->paths, entries, count, err);
    if (rc)
        return rc;
    stream->files = mem_zeroed(stream->paths.count + 1, sizeof(*stream->files));
    if (!stream->files)
        rc = err_set(err, ERR_NO_MEMORY, "no memory for %zu data files", stream->paths.count);
    for (size_t i = 0; i < stream->paths.count && stream->files; i++)
        stream->files[i] = (struct data_file){.path = stream->paths.items[i], .fd = -1};
    for (size_t i = 0; i < stream->paths.count && !rc; i++) {
        struct data_file *file = &stream->files[i];
        file->first = stream->tokens;
        rc = use_file(file, i < DATA_OPEN_MAX, format, vocab, err);
        if (!rc && file->tokens > DATA_TOKENS_MAX - stream->tokens)
            rc = err_set(err, ERR_LIMIT, "data: more than 2^53 tokens up to %s", file->path);
        stream->tokens += rc ? 0 : file->tokens;
    }
    if (rc)
        data_stream_release(stream);
    return rc;
}

void data_stream_release(struct data_stream *stream)
{
    for (size_t i = 0; stream->files && i < stream->paths.count; i++) {
        if (stream->files[i].fd >= 0)
            close(stream->files[i].fd);
    }
    free(stream->files);
    data_paths_release(&stream->paths);
    *stream = (struct data_stream){0};
}

/* --- reading --- */

struct window_sink {
    int32_t *inputs, *targets;
    size_t context, at; /* tokens put so far, context + 1 in the end */
};

static void put(struct window_sink *sink, uint32_t token)
{
    if (sink->at < sink->context)
        sink->inputs[sink->at] = (int32_t)token;
    if (sink->at > 0)
        sink->targets[sink->at - 1] = (int32_t)token;
    sink->at++;
}

static void put_bytes(struct window_sink *sink, const unsigned char *bytes, size_t count,
                      unsigned token_bytes)
{
    for (size_t i = 0; i < count; i += token_bytes) {
        uint16_t narrow;
        uint32_t token = bytes[i];
        if (token_bytes == 2) {
            memcpy(&narrow, bytes + i, sizeof(narrow));
            token = narrow;
        } else if (token_bytes == 4) {
            memcpy(&token, bytes + i, sizeof(token));
        }
        put(sink, token);
    }
}

/* Tokens [first, first + count) of a file's stored ones, the separator not among them. */
static int read_stored(const struct data_file *file, int fd, uint64_t first, uint64_t count,
                       struct window_sink *sink, struct err *err)
{
    unsigned char bytes[READ_BYTES];
    uint64_t at = file->front + first * file->token_bytes, left = count * file->token_bytes;
    while (left > 0) {
        size_t part = left < sizeof(bytes) ? (size_t)left : sizeof(bytes);
        int rc = fsx_read_at(fd, bytes, part, at, err);
        if (rc)
            return err_wrap(err, rc, "data: %s has changed", file->path);
        put_bytes(sink, bytes, part, file->token_bytes);
        at += part;
        left -= part;
    }
    return 0;
}

static int read_file(const struct data_file *file, uint64_t first, uint64_t count,
                     struct window_sink *sink, struct err *err)
{
    const bool separator = file->text && first + count == file->tokens;
    uint64_t bytes = file->bytes;
    int fd = file->fd, rc = 0;
    if (fd < 0)
        rc = open_file(&fd, &bytes, file->path, err);
    if (!rc && bytes != file->bytes)
        rc = err_set(err, ERR_CORRUPT,
                     "data: %s has changed: %" PRIu64 " bytes, it had %" PRIu64, file->path,
                     bytes, file->bytes);
    if (!rc)
        rc = read_stored(file, fd, first, count - separator, sink, err);
    if (!rc && separator)
        put(sink, DATA_SEPARATOR);
    if (file->fd < 0 && fd >= 0)
        close(fd);
    return rc;
}

/* Index of the file that holds the stream's token `position`. */
static size_t find_file(const struct data_stream *stream, uint64_t position)
{
    size_t low = 0, high = stream->paths.count - 1;
    while (low < high) {
        size_t middle = low + (high - low + 1) / 2;
        if (stream->files[middle].first <= position)
            low = middle;
        else
            high = middle - 1;
    }
    return low;
}

int data_stream_window(const struct data_stream *stream, uint64_t first, size_t context,
                       int32_t *inputs, int32_t *targets, struct err *err)
{
    assert(first < stream->tokens && context < stream->tokens - first);
    struct window_sink sink = {.inputs = inputs, .targets = targets, .context = context};
    for (size_t i = find_file(stream, first); sink.at <= context; i++) {
        const struct data_file *file = &stream->files[i];
        uint64_t from = first + sink.at - file->first;
        uint64_t count = context + 1 - sink.at;
        if (count > file->tokens - from)
            count = file->tokens - from;
        int rc = read_file(file, from, count, &sink, err);
        if (rc)
            return rc;
    }
    return 0;
}
