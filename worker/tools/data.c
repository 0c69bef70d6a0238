/* hebb data prepare: text to token shards. hebb data info: what a shard holds. */
#include "engine/data.h"
#include "engine/data_paths.h"
#include "proto/base/fsx.h"
#include "proto/base/mem.h"
#include "proto/format/shard.h"
#include "proto/json/json.h"
#include "worker/tools/options.h"
#include "worker/tools/tools.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { CHUNK = 64 * 1024, SHARDS_MAX = 100000, JSON_MAX = 4096 };

/* Writes one shard after another. A document is never cut: a shard ends with the document that
 * fills it. */
struct preparation {
    const char *out;       /* FILE.bin, or FILE-NNNNN.bin with shard_tokens */
    uint64_t shard_tokens; /* 0: one file */
    struct shard_writer *writer;
    size_t shards;
    uint64_t in_shard, tokens, documents;
    unsigned char *bytes; /* (CHUNK) */
    uint32_t *chunk;      /* (CHUNK + 1) */
};

static int shard_path(char path[FSX_PATH_MAX], const struct preparation *p, struct err *err)
{
    size_t stem = strlen(p->out);
    if (p->shard_tokens == 0) {
        return fsx_path(path, err, "%s", p->out);
    }
    const char *suffix = "";
    if (stem > 4 && strcmp(p->out + stem - 4, ".bin") == 0) {
        stem -= 4;
        suffix = ".bin";
    }
    return fsx_path(path, err, "%.*s-%05zu%s", (int)stem, p->out, p->shards, suffix);
}

static int shard_begin(struct preparation *p, struct err *err)
{
    char path[FSX_PATH_MAX];
    if (p->shards == SHARDS_MAX) {
        return err_set(err, ERR_LIMIT, "more than %d shards: give a larger --shard-tokens",
                       SHARDS_MAX);
    }
    int rc = shard_path(path, p, err);
    if (rc == 0) {
        rc = shard_writer_open(&p->writer, path, 2, DATA_BYTES_VOCAB, "bytes", err);
    }
    p->in_shard = 0;
    p->shards += rc == 0;
    return rc;
}

static int shard_end(struct preparation *p, struct err *err)
{
    struct shard_writer *writer = p->writer;
    p->writer = NULL;
    return writer ? shard_writer_finish(writer, err) : 0;
}

/* The bytes of one file and the separator. */
static int document_copy(struct preparation *p, int fd, const char *path, struct err *err)
{
    ssize_t got;
    do {
        do {
            got = read(fd, p->bytes, CHUNK);
        } while (got < 0 && errno == EINTR);
        if (got < 0) {
            return err_set(err, ERR_IO, "read %s: %s", path, strerror(errno));
        }
        size_t count = (size_t)got;
        for (size_t i = 0; i < count; i++) {
            p->chunk[i] = p->bytes[i];
        }
        if (got == 0) {
            p->chunk[count++] = DATA_SEPARATOR;
        }
        int rc = shard_writer_add(p->writer, p->chunk, count, got == 0, err);
        if (rc != 0) {
            return rc;
        }
        p->in_shard += count;
        p->tokens += count;
    } while (got > 0);
    p->documents++;
    return 0;
}

static int document_add(struct preparation *p, const char *path, struct err *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return err_set(err, errno == ENOENT ? ERR_NOT_FOUND : ERR_IO, "open %s: %s", path,
                       strerror(errno));
    }
    int rc = p->writer ? 0 : shard_begin(p, err);
    if (rc == 0) {
        rc = document_copy(p, fd, path, err);
    }
    close(fd);
    if (rc == 0 && p->shard_tokens > 0 && p->in_shard >= p->shard_tokens) {
        rc = shard_end(p, err);
    }
    return rc;
}

static int prepare(struct preparation *p, const struct option_list *inputs, struct err *err)
{
    struct data_paths paths = {0};
    p->bytes = mem_zeroed(CHUNK, sizeof *p->bytes);
    p->chunk = mem_zeroed(CHUNK + 1, sizeof *p->chunk);
    int rc =
        p->bytes && p->chunk ? 0 : err_set(err, ERR_NO_MEMORY, "no memory to prepare data");
    if (rc == 0) {
        rc = data_paths_expand(&paths, inputs->items, inputs->count, err);
    }
    for (size_t i = 0; rc == 0 && i < paths.count; i++) {
        rc = document_add(p, paths.items[i], err);
    }
    if (rc == 0) {
        rc = shard_end(p, err);
    }
    if (p->writer) {
        shard_writer_abort(p->writer);
    }
    data_paths_release(&paths);
    free(p->bytes);
    free(p->chunk);
    return rc;
}

static int data_prepare(int argc, char **argv)
{
    struct preparation p = {0};
    const char *tokenizer = "bytes";
    struct option_list rest;
    const struct option_row options[] = {
        {"out", OPTION_TEXT, &p.out, 0, 0},
        {"tokenizer", OPTION_TEXT, &tokenizer, 0, 0},
        {"shard-tokens", OPTION_COUNT, &p.shard_tokens, 1, 0x1p40},
        {0},
    };
    int code = options_parse(argc, argv, options, &rest);
    if (code != EXIT_DONE) {
        return code;
    }
    if (strcmp(tokenizer, "bytes") != 0) {
        return tool_usage("data", "--tokenizer %s: only \"bytes\" is there", tokenizer);
    }
    if (rest.count == 0 || !p.out) {
        return tool_usage("data", "prepare needs INPUT... and --out FILE.bin");
    }
    struct err err = {0};
    if (prepare(&p, &rest, &err) != 0) {
        return tool_fail(&err);
    }
    printf("%s: %" PRIu64 " tokens of %" PRIu64 " documents in %zu %s\n", p.out, p.tokens,
           p.documents, p.shards, p.shards == 1 ? "shard" : "shards");
    return EXIT_DONE;
}

static const char *const format_names[] = {
    [SHARD_AUTO] = "auto",          [SHARD_HEBB] = "hebb",          [SHARD_LLMC] = "llmc",
    [SHARD_RAW_U16] = "raw-uint16", [SHARD_RAW_U32] = "raw-uint32",
};

static uint32_t largest_token(const struct shard *shard)
{
    return shard->tokens > 0 ? shard_max_token(shard, 0, shard->tokens) : 0;
}

/* sound: the checksum of a hebb shard holds. */
static void print_text(const struct shard *shard, bool sound)
{
    printf("format %s\ntokens %" PRIu64 "\ntoken bytes %u\nlargest token %u\n",
           format_names[shard->format], shard->tokens, shard->token_bytes,
           largest_token(shard));
    if (shard->format == SHARD_HEBB) {
        printf("documents %" PRIu64 "\nvocab %" PRIu64 "\ntokenizer %s\nchecksum %s\n",
               shard->documents, shard->vocab, shard->tokenizer, sound ? "ok" : "wrong");
    }
}

static void print_json(const struct shard *shard, bool sound)
{
    struct buf text;
    buf_init(&text, JSON_MAX);
    cJSON *root = cJSON_CreateObject();
    cJSON_AddStringToObject(root, "format", format_names[shard->format]);
    cJSON_AddNumberToObject(root, "tokens", (double)shard->tokens);
    cJSON_AddNumberToObject(root, "token_bytes", shard->token_bytes);
    cJSON_AddNumberToObject(root, "largest_token", largest_token(shard));
    if (shard->format == SHARD_HEBB) {
        cJSON_AddNumberToObject(root, "documents", (double)shard->documents);
        cJSON_AddNumberToObject(root, "vocab", (double)shard->vocab);
        cJSON_AddStringToObject(root, "tokenizer", shard->tokenizer);
        cJSON_AddBoolToObject(root, "checksum_ok", sound);
    }
    json_print(root, &text);
    if (!text.failed) {
        puts(text.data);
    }
    cJSON_Delete(root);
    buf_release(&text);
}

static int data_info(int argc, char **argv)
{
    const char *format = "auto";
    bool json = false;
    struct option_list rest;
    const struct option_row options[] = {
        {"format", OPTION_TEXT, &format, 0, 0}, {"json", OPTION_FLAG, &json, 0, 0}, {0}};
    int code = options_parse(argc, argv, options, &rest);
    size_t known = 0, formats = sizeof format_names / sizeof *format_names;
    if (code != EXIT_DONE) {
        return code;
    }
    while (known < formats && strcmp(format_names[known], format) != 0) {
        known++;
    }
    if (rest.count != 1 || known == formats) {
        return tool_usage(
            "data",
            "info needs one FILE, and --format is auto, hebb, llmc, raw-uint16 or raw-uint32");
    }
    struct err err = {0};
    struct shard shard;
    int rc = shard_open(&shard, rest.items[0], (enum shard_format)known, &err);
    if (rc != 0) {
        return tool_fail(&err);
    }
    rc = shard.format == SHARD_HEBB ? shard_verify(&shard, &err) : 0;
    rc = rc == 0 ? 0 : err_wrap(&err, rc, "%s", rest.items[0]);
    (json ? print_json : print_text)(&shard, rc == 0);
    shard_close(&shard);
    return rc == 0 ? EXIT_DONE : tool_fail(&err);
}

int tool_data(int argc, char **argv)
{
    static char prepare_name[] = "data prepare", info_name[] = "data info";
    if (argc >= 2 && strcmp(argv[1], "prepare") == 0) {
        argv[1] = prepare_name; /* as messages call it */
        return data_prepare(argc - 1, argv + 1);
    }
    if (argc >= 2 && strcmp(argv[1], "info") == 0) {
        argv[1] = info_name;
        return data_info(argc - 1, argv + 1);
    }
    return tool_usage(argv[0], "prepare or info is needed");
}
