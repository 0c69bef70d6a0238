/* Token shards in every format: whatever is accepted can be read to its last token. */
#include "proto/format/shard.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const enum shard_format formats[] = {SHARD_AUTO, SHARD_HEBB, SHARD_LLMC,
                                                SHARD_RAW_U16, SHARD_RAW_U32};
    const char *path = fuzz_file(data, size);
    for (size_t f = 0; f < sizeof(formats) / sizeof(formats[0]); f++) {
        struct shard shard;
        struct err err = {0};
        int rc = shard_open(&shard, path, formats[f], &err);
        FUZZ_CHECK((rc == 0) == (shard.map != NULL) && (rc == 0 || err.text[0] != '\0'));
        if (rc)
            continue;
        fuzz_accepted += shard.format == SHARD_HEBB || shard.format == SHARD_LLMC;
        FUZZ_CHECK(shard.tokens > 0 && shard.tokens <= size / shard.token_bytes);
        uint32_t most = 0;
        for (uint64_t i = 0; i < shard.tokens; i++)
            most = shard_token(&shard, i) > most ? shard_token(&shard, i) : most;
        FUZZ_CHECK(shard_max_token(&shard, 0, shard.tokens) == most);
        (void)shard_verify(&shard, NULL);
        shard_close(&shard);
    }
    return 0;
}
