/* The 256-byte header of hebb's token shards, shared by writer and reader; private to
 * proto/format. */
#ifndef HEBB_FORMAT_SHARD_LAYOUT_H
#define HEBB_FORMAT_SHARD_LAYOUT_H

#include "proto/format/shard.h"

#define SHARD_MAGIC "HEBBTOK1"

struct shard_header {
    char magic[8];
    uint32_t version;
    uint32_t token_bytes; /* 2 or 4 */
    uint64_t vocab;       /* every token is below; at least 1 */
    uint64_t tokens;
    uint64_t documents;
    uint64_t hash;                       /* XXH3-64 of the tokens' bytes */
    char tokenizer[SHARD_TOKENIZER_MAX]; /* padded with NUL, at least one */
    unsigned char reserved[144];
};

enum { SHARD_VERSION = 1 };

_Static_assert(sizeof(struct shard_header) == SHARD_HEADER_BYTES, "the header has 256 bytes");

#endif
