/* The files of one list as one stream of tokens: virtual concatenation, read by position. */
#ifndef HEBB_ENGINE_DATA_STREAM_H
#define HEBB_ENGINE_DATA_STREAM_H

#include "engine/data.h"
#include "engine/data_paths.h"
#include "proto/base/err.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Files that keep a descriptor; further ones are opened for each read, so that a corpus of very
 * many small files needs neither descriptors nor mappings. */
enum { DATA_OPEN_MAX = 128 };

struct data_file {
    const char *path;     /* inside the stream's paths */
    int fd;               /* -1: opened for each read */
    bool text;            /* bytes and one separator; else tokens of a shard */
    bool hashed;          /* the shard's header has a checksum */
    unsigned token_bytes; /* 1, 2 or 4 */
    uint64_t front;       /* bytes before the first token */
    uint64_t bytes;       /* of the file */
    uint64_t first;       /* the stream's tokens before this file */
    uint64_t tokens;
};

struct data_stream {
    struct data_paths paths;
    struct data_file *files; /* (paths.count) */
    uint64_t tokens;
};

/* Expands entries and looks at every file: kind, header, length. format: "auto", "text",
 * "shards" (by their magic, never text), "hebb", "llmc", "raw-uint16", "raw-uint32". stream is
 * zeroed on failure. */
int data_stream_init(struct data_stream *stream, const char *const *entries, size_t count,
                     const char *format, size_t vocab, struct err *err);
void data_stream_release(struct data_stream *stream);

/* Reads rank's share of the shards' tokens and refuses the first that is not below
 * config->vocab, by file and index; verifies the checksums of its share of the shards. */
int data_stream_check(const struct data_stream *stream, const struct dataset_config *config,
                      int rank, int world, struct err *err);

/* Tokens [first, first + context] to inputs (the first `context`) and targets (the last
 * `context`). ERR_IO or ERR_CORRUPT names a file that was removed or shortened since it was
 * opened. */
int data_stream_window(const struct data_stream *stream, uint64_t first, size_t context,
                       int32_t *inputs, int32_t *targets, struct err *err);

#endif
