/* Token shards. hebb's own: a 256-byte little-endian header (magic "HEBBTOK1", token bytes 2 or
 * 4, vocab, tokens, documents, XXH3-64 of the data, tokenizer name), then the tokens. Also
 * llm.c's (magic 20240520 uint16 / 20240801 uint32, 256 x int32 header) and raw arrays of a
 * type that the caller names. */
#ifndef HEBB_FORMAT_SHARD_H
#define HEBB_FORMAT_SHARD_H

#include "proto/base/err.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum shard_format { SHARD_AUTO, SHARD_HEBB, SHARD_LLMC, SHARD_RAW_U16, SHARD_RAW_U32 };
enum { SHARD_HEADER_BYTES = 256, SHARD_TOKENIZER_MAX = 64 };

struct shard {
    enum shard_format format;
    unsigned token_bytes;       /* 2 or 4 */
    uint64_t tokens, documents; /* documents: 0 if the format does not say */
    uint64_t vocab;             /* 0 if the format does not say */
    char tokenizer[SHARD_TOKENIZER_MAX];
    const void *data; /* (tokens), inside the map */
    void *map;
    size_t map_bytes;
};

/* Maps and checks header and length. SHARD_AUTO: by magic; a file without one is ERR_INVALID
 * asking for an explicit raw type; a Megatron .idx beside it is ERR_UNSUPPORTED by name. */
int shard_open(struct shard *out, const char *path, enum shard_format format, struct err *err);
void shard_close(struct shard *shard);
/* True if a file that begins with these bytes (8 suffice) is a shard of hebb or llm.c. */
bool shard_has_magic(const void *data, size_t bytes);
uint32_t shard_token(const struct shard *shard, uint64_t index);

/* The largest token of [first, first + count): what the vocab check reads. Leaves no page of it
 * resident. */
uint32_t shard_max_token(const struct shard *shard, uint64_t first, uint64_t count);
/* ERR_CORRUPT if the data do not match the header's checksum (hebb format only). */
int shard_verify(const struct shard *shard, struct err *err);

struct shard_writer;
int shard_writer_open(struct shard_writer **out, const char *path, unsigned token_bytes,
                      uint64_t vocab, const char *tokenizer, struct err *err);
int shard_writer_add(struct shard_writer *writer, const uint32_t *tokens, size_t count,
                     bool ends_document, struct err *err);
/* Header, fsync, rename from path.tmp to path. ERR_INVALID without tokens. Frees writer in
 * every case; abort leaves nothing. A document that was not ended counts as one. */
int shard_writer_finish(struct shard_writer *writer, struct err *err);
void shard_writer_abort(struct shard_writer *writer);

#endif
