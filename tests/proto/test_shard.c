/* Token shards: exact bytes, every format, every refusal. */
#include "tests/proto/folder_fixture.h"

#include "proto/base/buf.h"
#include "proto/format/shard.h"
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>
#include <xxhash.h>

static void put(const char *name, const void *data, size_t bytes)
{
    int fd = open(in_folder(name), O_WRONLY | O_CREAT | O_TRUNC, 0644);
    assert_true(fd >= 0);
    assert_int_equal(fsx_write_all(fd, data, bytes, NULL), 0);
    close(fd);
}

static void refuses(const char *name, enum shard_format format, int code, const char *reason)
{
    struct shard shard;
    struct err err = {0};
    assert_int_equal(shard_open(&shard, in_folder(name), format, &err), code);
    if (!strstr(err.text, reason))
        fail_msg("'%s' does not say '%s'", err.text, reason);
    assert_non_null(strstr(err.text, name));
    assert_null(shard.map);
}

static const uint32_t some[5] = {7, 0, 256, 255, 1};

/* some, in two documents, of which the second is not ended */
static void write_some(const char *name, unsigned token_bytes)
{
    struct shard_writer *writer = NULL;
    assert_int_equal(
        shard_writer_open(&writer, in_folder(name), token_bytes, 257, "bytes", NULL), 0);
    assert_int_equal(shard_writer_add(writer, some, 2, false, NULL), 0);
    assert_int_equal(shard_writer_add(writer, some + 2, 1, true, NULL), 0);
    assert_int_equal(shard_writer_add(writer, some + 3, 2, false, NULL), 0);
    assert_int_equal(shard_writer_finish(writer, NULL), 0);
}

static void what_is_written_reads_back(void **state)
{
    (void)state;
    for (unsigned token_bytes = 2; token_bytes <= 4; token_bytes += 2) {
        write_some("some.tok", token_bytes);
        struct shard shard;
        assert_int_equal(shard_open(&shard, in_folder("some.tok"), SHARD_AUTO, NULL), 0);
        assert_int_equal(shard.format, SHARD_HEBB);
        assert_int_equal(shard.token_bytes, token_bytes);
        assert_int_equal(shard.tokens, 5);
        assert_int_equal(shard.documents, 2);
        assert_int_equal(shard.vocab, 257);
        assert_string_equal(shard.tokenizer, "bytes");
        for (size_t i = 0; i < 5; i++)
            assert_int_equal(shard_token(&shard, i), some[i]);
        assert_int_equal(shard_max_token(&shard, 0, 5), 256);
        assert_int_equal(shard_max_token(&shard, 3, 2), 255);
        assert_int_equal(shard_max_token(&shard, 5, 0), 0);
        assert_int_equal(shard_verify(&shard, NULL), 0);
        shard_close(&shard);
        assert_false(fsx_exists(in_folder("some.tok.tmp")));
    }
}

static void the_bytes_are_the_documented_ones(void **state)
{
    (void)state;
    write_some("some.tok", 2);
    const unsigned char tokens[10] = {7, 0, 0, 0, 0, 1, 255, 0, 1, 0};
    const uint64_t hash = XXH3_64bits(tokens, sizeof(tokens));
    unsigned char expected[SHARD_HEADER_BYTES + 10] = {0};
    memcpy(expected, "HEBBTOK1", 8);
    expected[8] = 1;
    expected[12] = 2;
    expected[16] = 1;
    expected[17] = 1; /* 257 */
    expected[24] = 5;
    expected[32] = 2;
    memcpy(expected + 40, &hash, 8);
    memcpy(expected + 48, "bytes", 5);
    memcpy(expected + 256, tokens, sizeof(tokens));
    struct buf file;
    buf_init(&file, 4096);
    assert_int_equal(fsx_read(&file, in_folder("some.tok"), NULL), 0);
    assert_int_equal(file.len, sizeof(expected));
    assert_memory_equal(file.data, expected, sizeof(expected));
    buf_release(&file);
}

static void a_long_shard_keeps_every_token_and_its_checksum(void **state)
{
    (void)state;
    enum { TOKENS = 700001 }; /* more than one write buffer */
    uint32_t *tokens = malloc(TOKENS * sizeof(*tokens));
    assert_non_null(tokens);
    for (uint32_t i = 0; i < TOKENS; i++)
        tokens[i] = i * 2654435761u >> 16;
    struct shard_writer *writer = NULL;
    assert_int_equal(shard_writer_open(&writer, in_folder("long.tok"), 2, 65536, "", NULL), 0);
    assert_int_equal(shard_writer_add(writer, tokens, 5001, true, NULL), 0);
    assert_int_equal(shard_writer_add(writer, tokens + 5001, TOKENS - 5001, true, NULL), 0);
    assert_int_equal(shard_writer_finish(writer, NULL), 0);
    struct shard shard;
    assert_int_equal(shard_open(&shard, in_folder("long.tok"), SHARD_HEBB, NULL), 0);
    assert_int_equal(shard.tokens, TOKENS);
    uint32_t most = 0;
    for (uint32_t i = 0; i < TOKENS; i++) {
        if (shard_token(&shard, i) != tokens[i])
            fail_msg("token %u", i);
        most = tokens[i] > most ? tokens[i] : most;
    }
    assert_int_equal(shard_max_token(&shard, 0, TOKENS), most);
    assert_int_equal(shard_verify(&shard, NULL), 0);
    assert_int_equal(shard_token(&shard, TOKENS - 1), tokens[TOKENS - 1]); /* still readable */
    shard_close(&shard);
    free(tokens);
}

static void writer_refuses_what_does_not_fit(void **state)
{
    (void)state;
    struct shard_writer *writer = NULL;
    struct err err = {0};
    const char *path = in_folder("bad.tok");
    assert_int_equal(shard_writer_open(&writer, path, 3, 257, "bytes", NULL), ERR_INVALID);
    assert_int_equal(shard_writer_open(&writer, path, 2, 65537, "bytes", NULL), ERR_INVALID);
    assert_int_equal(shard_writer_open(&writer, path, 2, 0, "bytes", NULL), ERR_INVALID);
    char name[SHARD_TOKENIZER_MAX + 1];
    memset(name, 'n', SHARD_TOKENIZER_MAX);
    name[SHARD_TOKENIZER_MAX] = '\0';
    assert_int_equal(shard_writer_open(&writer, path, 2, 257, name, NULL), ERR_INVALID);
    assert_int_equal(shard_writer_open(&writer, path, 2, 256, "bytes", NULL), 0);
    assert_int_equal(shard_writer_add(writer, some, 2, false, NULL), 0);
    assert_int_equal(shard_writer_add(writer, some + 2, 2, false, &err), ERR_INVALID);
    assert_non_null(strstr(err.text, "token 256 at 2"));
    shard_writer_abort(writer);
    assert_int_equal(shard_writer_open(&writer, path, 2, 256, "bytes", NULL), 0);
    assert_int_equal(shard_writer_finish(writer, NULL), ERR_INVALID); /* no tokens */
    assert_false(fsx_exists(path));
    assert_false(fsx_exists(in_folder("bad.tok.tmp")));
}

static void llm_c_shards_are_read_by_their_magic(void **state)
{
    (void)state;
    int32_t file[256 + 3] = {20240520, 1, 6};
    const uint16_t narrow[6] = {1, 2, 3, 50256, 5, 65535};
    memcpy(file + 256, narrow, sizeof(narrow));
    put("gpt2.bin", file, 1024 + 12);
    struct shard shard;
    assert_int_equal(shard_open(&shard, in_folder("gpt2.bin"), SHARD_AUTO, NULL), 0);
    assert_int_equal(shard.format, SHARD_LLMC);
    assert_int_equal(shard.token_bytes, 2);
    assert_int_equal(shard.tokens, 6);
    assert_int_equal(shard.vocab, 0);
    assert_int_equal(shard_token(&shard, 3), 50256);
    assert_int_equal(shard_max_token(&shard, 0, 6), 65535);
    shard_close(&shard);
    file[0] = 20240801;
    file[1] = 7;
    file[2] = 3;
    file[256] = 128255;
    put("llama3.bin", file, sizeof(file));
    assert_int_equal(shard_open(&shard, in_folder("llama3.bin"), SHARD_LLMC, NULL), 0);
    assert_int_equal(shard.token_bytes, 4);
    assert_int_equal(shard_token(&shard, 0), 128255);
    shard_close(&shard);
    put("cut.bin", file, sizeof(file) - 2);
    refuses("cut.bin", SHARD_AUTO, ERR_CORRUPT, "header says 3 tokens, the file holds 2");
    put("head.bin", file, 100);
    refuses("head.bin", SHARD_AUTO, ERR_CORRUPT, "truncated");
    file[2] = 2;
    put("more.bin", file, sizeof(file));
    refuses("more.bin", SHARD_AUTO, ERR_CORRUPT, "4 bytes after the 2 tokens");
    file[2] = -1;
    put("minus.bin", file, sizeof(file));
    refuses("minus.bin", SHARD_AUTO, ERR_CORRUPT, "-1");
    file[2] = 0;
    put("none.bin", file, 1024);
    refuses("none.bin", SHARD_AUTO, ERR_CORRUPT, "no tokens");
    file[1] = 9;
    put("version.bin", file, sizeof(file));
    refuses("version.bin", SHARD_AUTO, ERR_UNSUPPORTED, "version 9");
}

static void raw_arrays_need_an_explicit_type(void **state)
{
    (void)state;
    const uint32_t wide[2] = {70000, 5};
    put("raw.bin", wide, sizeof(wide));
    refuses("raw.bin", SHARD_AUTO, ERR_INVALID, "raw-uint16 or raw-uint32");
    refuses("raw.bin", SHARD_HEBB, ERR_INVALID, "HEBBTOK1");
    refuses("raw.bin", SHARD_LLMC, ERR_INVALID, "20240520");
    struct shard shard;
    assert_int_equal(shard_open(&shard, in_folder("raw.bin"), SHARD_RAW_U32, NULL), 0);
    assert_int_equal(shard.tokens, 2);
    assert_int_equal(shard_token(&shard, 0), 70000);
    shard_close(&shard);
    assert_int_equal(shard_open(&shard, in_folder("raw.bin"), SHARD_RAW_U16, NULL), 0);
    assert_int_equal(shard.tokens, 4);
    assert_int_equal(shard_token(&shard, 0), 70000 - 65536);
    shard_close(&shard);
    put("odd.bin", wide, 7);
    refuses("odd.bin", SHARD_RAW_U32, ERR_CORRUPT, "7 bytes");
    refuses("odd.bin", SHARD_RAW_U16, ERR_CORRUPT, "7 bytes");
    put("empty.bin", wide, 0);
    refuses("empty.bin", SHARD_RAW_U16, ERR_CORRUPT, "empty");
    refuses("empty.bin", SHARD_AUTO, ERR_CORRUPT, "empty");
    refuses("missing.bin", SHARD_AUTO, ERR_NOT_FOUND, "missing.bin");
    write_some("some.tok", 2);
    refuses("some.tok", SHARD_RAW_U16, ERR_INVALID, "not raw");
    put("array.npy", "\x93NUMPY\x01\x00 and more..", 18);
    refuses("array.npy", SHARD_AUTO, ERR_UNSUPPORTED, "NumPy");
    refuses("array.npy", SHARD_RAW_U16, ERR_UNSUPPORTED, "NumPy");
}

static void megatron_files_are_refused_by_name(void **state)
{
    (void)state;
    put("mega.bin", "\x01\x02\x03\x04", 4);
    refuses("mega.bin", SHARD_AUTO, ERR_INVALID, "no shard's magic");
    put("mega.idx", "MMIDIDX\0\0\x01", 10);
    refuses("mega.bin", SHARD_AUTO, ERR_UNSUPPORTED, "Megatron");
    refuses("mega.idx", SHARD_AUTO, ERR_UNSUPPORTED, "Megatron");
    struct shard shard;
    assert_int_equal(shard_open(&shard, in_folder("mega.bin"), SHARD_RAW_U16, NULL), 0);
    shard_close(&shard);
}

static void damaged_headers_are_refused(void **state)
{
    (void)state;
    static const struct {
        size_t at;
        unsigned char value;
        enum err_code code;
        const char *reason;
    } cases[] = {
        {8, 2, ERR_UNSUPPORTED, "version 2"}, {12, 3, ERR_CORRUPT, "3 bytes"},
        {12, 4, ERR_CORRUPT, "truncated"}, /* 5 tokens of 4 bytes */
        {19, 1, ERR_CORRUPT, "vocab"},        {24, 4, ERR_CORRUPT, "after the 4 tokens"},
        {24, 6, ERR_CORRUPT, "truncated"},    {24, 0, ERR_CORRUPT, "no tokens"},
        {31, 0x80, ERR_CORRUPT, "truncated"}, /* times 2 would overflow */
        {255, 1, ERR_CORRUPT, "reserved"},
    };
    write_some("some.tok", 2);
    struct buf file;
    buf_init(&file, 4096);
    assert_int_equal(fsx_read(&file, in_folder("some.tok"), NULL), 0);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char old = file.data[cases[i].at];
        file.data[cases[i].at] = (char)cases[i].value;
        put("damaged.tok", file.data, file.len);
        refuses("damaged.tok", SHARD_AUTO, cases[i].code, cases[i].reason);
        file.data[cases[i].at] = old;
    }
    memset(file.data + 48, 'x', SHARD_TOKENIZER_MAX);
    put("damaged.tok", file.data, file.len);
    refuses("damaged.tok", SHARD_AUTO, ERR_CORRUPT, "does not end");
    for (size_t bytes = 0; bytes < file.len; bytes++) {
        struct shard shard;
        put("damaged.tok", file.data, bytes);
        assert_int_not_equal(shard_open(&shard, in_folder("damaged.tok"), SHARD_AUTO, NULL), 0);
    }
    buf_release(&file);
}

static void a_changed_token_fails_the_checksum(void **state)
{
    (void)state;
    write_some("some.tok", 4);
    struct buf file;
    struct shard shard;
    struct err err = {0};
    buf_init(&file, 4096);
    assert_int_equal(fsx_read(&file, in_folder("some.tok"), NULL), 0);
    file.data[file.len - 1] ^= 1;
    put("some.tok", file.data, file.len);
    assert_int_equal(shard_open(&shard, in_folder("some.tok"), SHARD_AUTO, NULL), 0);
    assert_int_equal(shard_verify(&shard, &err), ERR_CORRUPT);
    assert_non_null(strstr(err.text, "checksum"));
    shard_close(&shard);
    buf_release(&file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_reads_back),
        cmocka_unit_test(the_bytes_are_the_documented_ones),
        cmocka_unit_test(a_long_shard_keeps_every_token_and_its_checksum),
        cmocka_unit_test(writer_refuses_what_does_not_fit),
        cmocka_unit_test(llm_c_shards_are_read_by_their_magic),
        cmocka_unit_test(raw_arrays_need_an_explicit_type),
        cmocka_unit_test(megatron_files_are_refused_by_name),
        cmocka_unit_test(damaged_headers_are_refused),
        cmocka_unit_test(a_changed_token_fails_the_checksum),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
