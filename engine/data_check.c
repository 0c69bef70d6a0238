/* The check of every stored token before step 1, shared out over the ranks. */
#include "engine/data_stream.h"
#include "proto/format/shard.h"
#include <assert.h>
#include <inttypes.h>

enum { CHECK_TOKENS = 1 << 20 }; /* tokens looked at together */

static int refuse_token(const struct shard *shard, const char *path, uint64_t first,
                        size_t vocab, struct err *err)
{
    uint64_t index = first;
    while (shard_token(shard, index) < vocab)
        index++;
    return err_set(err, ERR_CORRUPT,
                   "data: %s: token %" PRIu32 " at index %" PRIu64
                   " is not below the vocab %zu",
                   path, shard_token(shard, index), index, vocab);
}

/* A shard's tokens from `first` up to `end`. */
static int check_tokens(const struct shard *shard, const char *path, uint64_t first,
                        uint64_t end, const struct dataset_config *config, struct err *err)
{
    const size_t vocab = config->vocab;
    for (uint64_t at = first; at < end; at += CHECK_TOKENS) {
        uint64_t part = end - at < CHECK_TOKENS ? end - at : CHECK_TOKENS;
        if (shard_max_token(shard, at, part) >= vocab)
            return refuse_token(shard, path, at, vocab, err);
        if (config->progress)
            atomic_fetch_add_explicit(config->progress, 1, memory_order_relaxed);
    }
    return 0;
}

static enum shard_format format_of(const struct data_file *file)
{
    if (file->front > 0) /* has a header */
        return SHARD_AUTO;
    return file->token_bytes == 2 ? SHARD_RAW_U16 : SHARD_RAW_U32;
}

static int check_file(const struct data_file *file, uint64_t first, uint64_t end, bool verify,
                      const struct dataset_config *config, struct err *err)
{
    struct shard shard;
    int rc = shard_open(&shard, file->path, format_of(file), err);
    if (rc)
        return err_wrap(err, rc, "data");
    if (shard.tokens != file->tokens || shard.token_bytes != file->token_bytes)
        rc =
            err_set(err, ERR_CONFLICT, "data: %s changes while it is being opened", file->path);
    if (!rc && end > first)
        rc = check_tokens(&shard, file->path, first, end, config, err);
    if (!rc && verify) {
        rc = shard_verify(&shard, err);
        if (rc)
            err_wrap(err, rc, "data: %s", file->path);
    }
    shard_close(&shard);
    return rc;
}

int data_stream_check(const struct data_stream *stream, const struct dataset_config *config,
                      int rank, int world, struct err *err)
{
    const size_t vocab = config->vocab;
    assert(world > 0 && rank >= 0 && rank < world);
    const uint64_t r = (uint64_t)rank, w = (uint64_t)world;
    const uint64_t share = stream->tokens / w, rest = stream->tokens % w;
    /* this rank's share of the stream, text included: text needs no look, but counts */
    const uint64_t begin = share * r + (r < rest ? r : rest);
    const uint64_t end = begin + share + (r < rest);
    for (size_t i = 0; i < stream->paths.count; i++) {
        const struct data_file *file = &stream->files[i];
        if (file->text)
            continue;
        uint64_t from = begin > file->first ? begin - file->first : 0;
        uint64_t to = end > file->first ? end - file->first : 0;
        if (to > file->tokens)
            to = file->tokens;
        if (file->token_bytes == 2 && vocab > UINT16_MAX) /* every uint16 is legal */
            to = from;
        bool verify = file->hashed && i % w == r;
        if (to <= from && !verify)
            continue;
        int rc = check_file(file, from, to, verify, config, err);
        if (rc)
            return rc;
    }
    return 0;
}
