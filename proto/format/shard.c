/* Reading token shards: hebb's, llm.c's and raw arrays. */
#include "proto/format/shard.h"
#include "proto/base/fsx.h"
#include "proto/format/filemap.h"
#include "proto/format/shard_layout.h"
#include <assert.h>
#include <inttypes.h>
#include <string.h>

enum { LLMC_HEADER_BYTES = 256 * 4 };

/* llm.c's two kinds: GPT-2's tokens as uint16, LLaMA 3's as uint32. */
static const struct {
    int32_t magic, version;
    unsigned token_bytes;
} LLMC_KINDS[] = {{20240520, 1, 2}, {20240801, 7, 4}};

static const char NPY_MAGIC[] = "\x93NUMPY";
static const char MEGATRON_MAGIC[] = "MMIDIDX";

static bool starts_with(const struct filemap *map, const char *magic)
{
    size_t length = strlen(magic);
    return map->bytes >= length && memcmp(map->data, magic, length) == 0;
}

/* Index of the llm.c kind that the file begins as; -1: none. */
static int llmc_kind(const struct filemap *map)
{
    int32_t magic;
    if (map->bytes < sizeof(magic))
        return -1;
    memcpy(&magic, map->data, sizeof(magic));
    for (size_t i = 0; i < sizeof(LLMC_KINDS) / sizeof(LLMC_KINDS[0]); i++) {
        if (magic == LLMC_KINDS[i].magic)
            return (int)i;
    }
    return -1;
}

bool shard_has_magic(const void *data, size_t bytes)
{
    const struct filemap map = {.data = data, .bytes = bytes};
    return starts_with(&map, SHARD_MAGIC) || llmc_kind(&map) >= 0;
}

/* The header's promise against the file's length: tokens of token_bytes after `front` bytes. */
static int check_length(const struct filemap *map, size_t front, uint64_t tokens,
                        unsigned token_bytes, struct err *err)
{
    uint64_t have = map->bytes - front;
    if (tokens == 0)
        return err_set(err, ERR_CORRUPT, "holds no tokens");
    if (tokens > have / token_bytes)
        return err_set(err, ERR_CORRUPT,
                       "header says %" PRIu64 " tokens, the file holds %" PRIu64 ": truncated",
                       tokens, have / token_bytes);
    if (tokens * token_bytes != have)
        return err_set(err, ERR_CORRUPT, "%" PRIu64 " bytes after the %" PRIu64 " tokens",
                       have - tokens * token_bytes, tokens);
    return 0;
}

static int read_hebb(struct shard *out, const struct filemap *map, struct err *err)
{
    struct shard_header header;
    if (!starts_with(map, SHARD_MAGIC))
        return err_set(err, ERR_INVALID, "not a hebb shard: its magic is not %s", SHARD_MAGIC);
    if (map->bytes < sizeof(header))
        return err_set(err, ERR_CORRUPT, "%zu bytes, a shard's header has %d: truncated",
                       map->bytes, SHARD_HEADER_BYTES);
    memcpy(&header, map->data, sizeof(header));
    if (header.version != SHARD_VERSION)
        return err_set(err, ERR_UNSUPPORTED, "shard version %u, this build reads %d",
                       header.version, SHARD_VERSION);
    if (header.token_bytes != 2 && header.token_bytes != 4)
        return err_set(err, ERR_CORRUPT, "tokens of %u bytes, 2 and 4 are legal",
                       header.token_bytes);
    if (header.vocab < 1 || header.vocab > UINT64_C(1) << (8 * header.token_bytes))
        return err_set(err, ERR_CORRUPT, "vocab %" PRIu64 " does not fit tokens of %u bytes",
                       header.vocab, header.token_bytes);
    if (memchr(header.tokenizer, '\0', sizeof(header.tokenizer)) == NULL)
        return err_set(err, ERR_CORRUPT, "the tokenizer's name does not end");
    for (size_t i = 0; i < sizeof(header.reserved); i++) {
        if (header.reserved[i] != 0)
            return err_set(err, ERR_CORRUPT, "reserved bytes of the header are not zero");
    }
    int rc = check_length(map, sizeof(header), header.tokens, header.token_bytes, err);
    if (rc)
        return rc;
    out->format = SHARD_HEBB;
    out->token_bytes = header.token_bytes;
    out->tokens = header.tokens;
    out->documents = header.documents;
    out->vocab = header.vocab;
    memcpy(out->tokenizer, header.tokenizer, sizeof(out->tokenizer));
    out->data = map->data + sizeof(header);
    return 0;
}

static int read_llmc(struct shard *out, const struct filemap *map, struct err *err)
{
    int kind = llmc_kind(map);
    if (kind < 0)
        return err_set(err, ERR_INVALID, "not an llm.c shard: its magic is neither %d nor %d",
                       LLMC_KINDS[0].magic, LLMC_KINDS[1].magic);
    if (map->bytes < LLMC_HEADER_BYTES)
        return err_set(err, ERR_CORRUPT, "%zu bytes, an llm.c header has %d: truncated",
                       map->bytes, LLMC_HEADER_BYTES);
    int32_t header[3]; /* magic, version, tokens; the rest is unused */
    memcpy(header, map->data, sizeof(header));
    if (header[1] != LLMC_KINDS[kind].version)
        return err_set(err, ERR_UNSUPPORTED, "llm.c shard of magic %d and version %d, not %d",
                       header[0], header[1], LLMC_KINDS[kind].version);
    if (header[2] < 0)
        return err_set(err, ERR_CORRUPT, "header says %d tokens", header[2]);
    int rc = check_length(map, LLMC_HEADER_BYTES, (uint64_t)header[2],
                          LLMC_KINDS[kind].token_bytes, err);
    if (rc)
        return rc;
    out->format = SHARD_LLMC;
    out->token_bytes = LLMC_KINDS[kind].token_bytes;
    out->tokens = (uint64_t)header[2];
    out->data = map->data + LLMC_HEADER_BYTES;
    return 0;
}

static int refuse_npy(struct err *err)
{
    return err_set(err, ERR_UNSUPPORTED,
                   "is a NumPy .npy file, which has a header; write the array with tofile()");
}

static int read_raw(struct shard *out, const struct filemap *map, enum shard_format format,
                    struct err *err)
{
    unsigned token_bytes = format == SHARD_RAW_U16 ? 2 : 4;
    if (starts_with(map, SHARD_MAGIC) || llmc_kind(map) >= 0)
        return err_set(err, ERR_INVALID, "has a shard's header: its format is auto, not raw");
    if (starts_with(map, NPY_MAGIC))
        return refuse_npy(err);
    if (map->bytes % token_bytes != 0)
        return err_set(err, ERR_CORRUPT,
                       "%zu bytes are not a multiple of %u: truncated or of another type",
                       map->bytes, token_bytes);
    out->format = format;
    out->token_bytes = token_bytes;
    out->tokens = map->bytes / token_bytes;
    out->data = map->data;
    return 0;
}

/* Megatron's data are a .bin without header beside a .idx that says what is in it. */
static int refuse_megatron(const char *path, const struct filemap *map, struct err *err)
{
    char index[FSX_PATH_MAX];
    size_t length = strlen(path);
    struct filemap beside = {0};
    bool found = starts_with(map, MEGATRON_MAGIC);
    if (!found && length > 4 && strcmp(path + length - 4, ".bin") == 0 &&
        fsx_path(index, NULL, "%.*s.idx", (int)(length - 4), path) == 0 &&
        filemap_open(&beside, index, NULL) == 0)
        found = starts_with(&beside, MEGATRON_MAGIC);
    filemap_close(&beside);
    return found ? err_set(err, ERR_UNSUPPORTED,
                           "is a Megatron dataset (.bin and .idx), which is not read; "
                           "convert it to a shard or give its .bin an explicit raw format")
                 : 0;
}

static int read_auto(struct shard *out, const char *path, const struct filemap *map,
                     struct err *err)
{
    if (starts_with(map, SHARD_MAGIC))
        return read_hebb(out, map, err);
    if (llmc_kind(map) >= 0)
        return read_llmc(out, map, err);
    if (starts_with(map, NPY_MAGIC))
        return refuse_npy(err);
    int rc = refuse_megatron(path, map, err);
    if (rc)
        return rc;
    return err_set(err, ERR_INVALID,
                   "has no shard's magic; if it is an array of tokens, say which: format "
                   "raw-uint16 or raw-uint32");
}

int shard_open(struct shard *out, const char *path, enum shard_format format, struct err *err)
{
    *out = (struct shard){0};
    struct filemap map;
    int rc = filemap_open(&map, path, err);
    if (rc)
        return rc;
    if (map.bytes == 0)
        rc = err_set(err, ERR_CORRUPT, "is empty");
    else if (format == SHARD_AUTO)
        rc = read_auto(out, path, &map, err);
    else if (format == SHARD_HEBB)
        rc = read_hebb(out, &map, err);
    else if (format == SHARD_LLMC)
        rc = read_llmc(out, &map, err);
    else
        rc = read_raw(out, &map, format, err);
    if (rc) {
        err_wrap(err, rc, "%s", path);
        filemap_close(&map);
        *out = (struct shard){0};
        return rc;
    }
    out->map = (void *)(uintptr_t)map.data;
    out->map_bytes = map.bytes;
    return 0;
}

static struct filemap map_of(const struct shard *shard)
{
    return (struct filemap){.data = shard->map, .bytes = shard->map_bytes};
}

void shard_close(struct shard *shard)
{
    struct filemap map = map_of(shard);
    filemap_close(&map);
    *shard = (struct shard){0};
}

uint32_t shard_token(const struct shard *shard, uint64_t index)
{
    assert(index < shard->tokens);
    /* every header's length is a multiple of 4, so tokens are aligned */
    return shard->token_bytes == 2 ? ((const uint16_t *)shard->data)[index]
                                   : ((const uint32_t *)shard->data)[index];
}

uint32_t shard_max_token(const struct shard *shard, uint64_t first, uint64_t count)
{
    assert(first <= shard->tokens && count <= shard->tokens - first);
    uint32_t most = 0;
    if (shard->token_bytes == 2) {
        const uint16_t *tokens = (const uint16_t *)shard->data + first;
        uint16_t narrow = 0;
        for (uint64_t i = 0; i < count; i++)
            narrow = tokens[i] > narrow ? tokens[i] : narrow;
        most = narrow;
    } else {
        const uint32_t *tokens = (const uint32_t *)shard->data + first;
        for (uint64_t i = 0; i < count; i++)
            most = tokens[i] > most ? tokens[i] : most;
    }
    struct filemap map = map_of(shard);
    size_t front = (size_t)((const unsigned char *)shard->data - map.data);
    filemap_forget(&map, front + first * shard->token_bytes, count * shard->token_bytes);
    return most;
}

int shard_verify(const struct shard *shard, struct err *err)
{
    if (shard->format != SHARD_HEBB)
        return 0;
    struct shard_header header;
    memcpy(&header, shard->map, sizeof(header));
    struct filemap map = map_of(shard);
    uint64_t hash = filemap_hash(&map, sizeof(header));
    if (hash != header.hash)
        return err_set(err, ERR_CORRUPT,
                       "token checksum %016" PRIx64 ", the header says %016" PRIx64, hash,
                       header.hash);
    return 0;
}
