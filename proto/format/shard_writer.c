/* Writing token shards: tokens as they come, the header when their number and checksum are
 * known. */
#include "proto/base/fsx.h"
#include "proto/base/mem.h"
#include "proto/format/filemap.h"
#include "proto/format/shard_layout.h"
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { NARROW_TOKENS = 4096 }; /* tokens narrowed to 16 bits at a time */

struct shard_writer {
    struct file_writer *file;
    struct shard_header header;
    bool open_document; /* tokens were added since the last end of a document */
    char path[FSX_PATH_MAX], temporary[FSX_PATH_MAX];
};

static int check_arguments(const char *path, unsigned token_bytes, uint64_t vocab,
                           const char *tokenizer, struct err *err)
{
    if (token_bytes != 2 && token_bytes != 4)
        return err_set(err, ERR_INVALID, "%s: tokens of %u bytes, 2 and 4 are written", path,
                       token_bytes);
    uint64_t most = token_bytes == 2 ? UINT64_C(1) << 16 : UINT64_C(1) << 32;
    if (vocab < 1 || vocab > most)
        return err_set(err, ERR_INVALID,
                       "%s: vocab %" PRIu64 " does not fit tokens of %u bytes", path, vocab,
                       token_bytes);
    if (strlen(tokenizer) >= SHARD_TOKENIZER_MAX)
        return err_set(err, ERR_INVALID,
                       "%s: tokenizer name '%.20s...' is longer than %d bytes", path, tokenizer,
                       SHARD_TOKENIZER_MAX - 1);
    return 0;
}

int shard_writer_open(struct shard_writer **out, const char *path, unsigned token_bytes,
                      uint64_t vocab, const char *tokenizer, struct err *err)
{
    *out = NULL;
    int rc = check_arguments(path, token_bytes, vocab, tokenizer, err);
    if (rc)
        return rc;
    struct shard_writer *writer = mem_zeroed(1, sizeof(*writer));
    if (!writer)
        return err_set(err, ERR_NO_MEMORY, "write %s: no memory", path);
    writer->header = (struct shard_header){
        .version = SHARD_VERSION, .token_bytes = token_bytes, .vocab = vocab};
    memcpy(writer->header.magic, SHARD_MAGIC, sizeof(writer->header.magic));
    memcpy(writer->header.tokenizer, tokenizer, strlen(tokenizer));
    static const struct shard_header blank; /* no magic: a file left half-way is no shard */
    rc = fsx_path(writer->path, err, "%s", path);
    if (!rc)
        rc = fsx_path(writer->temporary, err, "%s.tmp", path);
    if (!rc)
        rc = file_writer_open(&writer->file, writer->temporary, err);
    if (!rc)
        rc = file_writer_add(writer->file, &blank, sizeof(blank), err);
    if (rc) {
        shard_writer_abort(writer);
        return rc;
    }
    file_writer_hash_restart(writer->file);
    *out = writer;
    return 0;
}

static int add_narrow(struct shard_writer *writer, const uint32_t *tokens, size_t count,
                      struct err *err)
{
    uint16_t narrow[NARROW_TOKENS];
    int rc = 0;
    for (size_t first = 0; first < count && !rc; first += NARROW_TOKENS) {
        size_t part = count - first < NARROW_TOKENS ? count - first : NARROW_TOKENS;
        for (size_t i = 0; i < part; i++)
            narrow[i] = (uint16_t)tokens[first + i];
        rc = file_writer_add(writer->file, narrow, part * sizeof(*narrow), err);
    }
    return rc;
}

int shard_writer_add(struct shard_writer *writer, const uint32_t *tokens, size_t count,
                     bool ends_document, struct err *err)
{
    for (size_t i = 0; i < count; i++) {
        if (tokens[i] >= writer->header.vocab)
            return err_set(
                err, ERR_INVALID, "%s: token %u at %" PRIu64 " is not below the vocab %" PRIu64,
                writer->path, tokens[i], writer->header.tokens + i, writer->header.vocab);
    }
    int rc = writer->header.token_bytes == 2
                 ? add_narrow(writer, tokens, count, err)
                 : file_writer_add(writer->file, tokens, count * sizeof(*tokens), err);
    if (rc)
        return rc;
    writer->header.tokens += count;
    writer->open_document = writer->open_document || count > 0;
    if (ends_document) {
        writer->header.documents++;
        writer->open_document = false;
    }
    return 0;
}

int shard_writer_finish(struct shard_writer *writer, struct err *err)
{
    writer->header.documents += writer->open_document; /* the last one was not ended */
    writer->header.hash = file_writer_hash(writer->file);
    int rc = 0;
    if (writer->header.tokens == 0)
        rc = err_set(err, ERR_INVALID, "%s: a shard without tokens", writer->path);
    if (!rc)
        rc = file_writer_patch(writer->file, &writer->header, sizeof(writer->header), err);
    if (rc) {
        shard_writer_abort(writer);
        return rc;
    }
    rc = file_writer_finish(writer->file, err);
    if (!rc) {
        rc = fsx_rename(writer->temporary, writer->path, err);
        if (rc)
            unlink(writer->temporary);
    }
    free(writer);
    return rc;
}

void shard_writer_abort(struct shard_writer *writer)
{
    if (!writer)
        return;
    file_writer_abort(writer->file);
    free(writer);
}
