/* safetensors: what we write reads back, bytes are as specified, and a reader that refuses
 * everything else. */
#include "tests/proto/folder_fixture.h"

#include "proto/base/buf.h"
#include "proto/format/safetensors.h"
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

static void write_bytes(const char *path, const void *data, size_t bytes)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    assert_true(fd >= 0);
    assert_int_equal(fsx_write_all(fd, data, bytes, NULL), 0);
    close(fd);
}

/* A file of this header (as given, no padding) and data_bytes counting bytes. */
static const char *file_with(const char *header, size_t header_bytes, size_t data_bytes)
{
    struct buf file;
    buf_init(&file, 1 << 20);
    uint64_t length = header_bytes;
    buf_add(&file, &length, sizeof(length));
    buf_add(&file, header, header_bytes);
    for (size_t i = 0; i < data_bytes; i++) {
        char byte = (char)i;
        buf_add(&file, &byte, 1);
    }
    assert_false(file.failed);
    const char *path = in_folder("made.safetensors");
    write_bytes(path, file.data, file.len);
    buf_release(&file);
    return path;
}

static void refuses(const char *header, size_t data_bytes, int code, const char *reason)
{
    struct st_file *file = NULL;
    struct err err = {0};
    const char *path = file_with(header, strlen(header), data_bytes);
    assert_int_equal(st_open(&file, path, &err), code);
    assert_null(file);
    if (!strstr(err.text, reason))
        fail_msg("'%s' does not say '%s'", err.text, reason);
    assert_non_null(strstr(err.text, path));
}

static const struct st_tensor two[] = {
    {.name = "model.b.weight", .type = ST_F32, .rank = 2, .shape = {2, 3}},
    {.name = "a.codes", .type = ST_U16, .rank = 1, .shape = {5}},
    {.name = "none", .type = ST_I64, .rank = 2, .shape = {0, 7}},
    {.name = "scalar", .type = ST_F64, .rank = 0},
};

static void write_two(const char *path)
{
    const float weight[6] = {1, -2, 3.5f, 0, 1e-30f, -0.0f};
    const uint16_t codes[5] = {0, 1, 2, 3, 65535};
    const double scalar = 0.1;
    const char *const metadata[] = {"note", "quote \" and \\ and \xc3\xa9", NULL};
    struct st_writer *writer = NULL;
    assert_int_equal(st_writer_open(&writer, path, two, 4, metadata, NULL), 0);
    assert_int_equal(st_writer_data(writer, weight, 8, NULL), 0); /* in any pieces */
    assert_int_equal(st_writer_data(writer, (const char *)weight + 8, 16, NULL), 0);
    assert_int_equal(st_writer_data(writer, codes, sizeof(codes), NULL), 0);
    assert_int_equal(st_writer_data(writer, &scalar, sizeof(scalar), NULL), 0);
    assert_int_equal(st_writer_finish(writer, NULL), 0);
}

static void what_is_written_reads_back(void **state)
{
    (void)state;
    const char *path = in_folder("two.safetensors");
    write_two(path);
    struct st_file *file = NULL;
    struct err err = {0};
    assert_int_equal(st_open(&file, path, &err), 0);
    assert_int_equal(st_count(file), 4);
    const struct st_tensor *weight = st_find(file, "model.b.weight");
    assert_non_null(weight);
    assert_int_equal(weight->type, ST_F32);
    assert_int_equal(weight->rank, 2);
    assert_int_equal(weight->shape[0], 2);
    assert_int_equal(weight->shape[1], 3);
    assert_int_equal(weight->bytes, 24);
    float value;
    memcpy(&value, (const char *)st_data(file, weight) + 8, sizeof(value));
    assert_true(value == 3.5f);
    const struct st_tensor *codes = st_find(file, "a.codes");
    const unsigned char last[2] = {0xff, 0xff};
    assert_memory_equal((const char *)st_data(file, codes) + 8, last, 2);
    assert_int_equal(st_find(file, "none")->bytes, 0);
    assert_int_equal(st_find(file, "scalar")->rank, 0);
    assert_null(st_find(file, "a"));
    assert_null(st_find(file, "a.codes2"));
    assert_string_equal(st_metadata(file, "format"), "pt");
    assert_string_equal(st_metadata(file, "note"), "quote \" and \\ and \xc3\xa9");
    assert_null(st_metadata(file, "Note"));
    st_close(file);
}

static void the_bytes_are_the_specified_ones(void **state)
{
    (void)state;
    const struct st_tensor one[] = {{.name = "w", .type = ST_I16, .rank = 1, .shape = {2}}};
    const int16_t data[2] = {1, -2};
    struct st_writer *writer = NULL;
    const char *path = in_folder("one.safetensors");
    assert_int_equal(st_writer_open(&writer, path, one, 1, NULL, NULL), 0);
    assert_int_equal(st_writer_data(writer, data, sizeof(data), NULL), 0);
    assert_int_equal(st_writer_finish(writer, NULL), 0);
    const char expected[] = "\x58\0\0\0\0\0\0\0"
                            "{\"__metadata__\":{\"format\":\"pt\"},\"w\":{\"dtype\":\"I16\","
                            "\"shape\":[2],\"data_offsets\":[0,4]}}   "
                            "\x01\x00\xfe\xff";
    struct buf file;
    buf_init(&file, 4096);
    assert_int_equal(fsx_read(&file, path, NULL), 0);
    assert_int_equal(file.len, sizeof(expected) - 1);
    assert_memory_equal(file.data, expected, file.len);
    buf_release(&file);
}

static void the_data_begin_at_a_multiple_of_eight(void **state)
{
    (void)state;
    for (size_t length = 1; length <= 9; length++) {
        struct st_tensor one = {.type = ST_U8, .rank = 1, .shape = {1}};
        memset(one.name, 'n', length);
        struct st_writer *writer = NULL;
        const char *path = in_folder("align.safetensors");
        assert_int_equal(st_writer_open(&writer, path, &one, 1, NULL, NULL), 0);
        assert_int_equal(st_writer_data(writer, "x", 1, NULL), 0);
        assert_int_equal(st_writer_finish(writer, NULL), 0);
        struct st_file *file = NULL;
        assert_int_equal(st_open(&file, path, NULL), 0);
        assert_int_equal((uintptr_t)st_data(file, st_tensor(file, 0)) % 8,
                         0); /* maps are page-aligned */
        st_close(file);
    }
}

static void writer_holds_the_caller_to_the_declared_bytes(void **state)
{
    (void)state;
    struct st_writer *writer = NULL;
    struct err err = {0};
    char data[64] = {0};
    const char *path = in_folder("short.safetensors");
    assert_int_equal(st_writer_open(&writer, path, two, 4, NULL, NULL), 0);
    assert_int_equal(st_writer_data(writer, data, 41, NULL), 0);
    assert_int_equal(st_writer_finish(writer, &err), ERR_INTERNAL);
    assert_non_null(strstr(err.text, "41 of 42"));
    assert_false(fsx_exists(path));
    assert_int_equal(st_writer_open(&writer, path, two, 4, NULL, NULL), 0);
    assert_int_equal(st_writer_data(writer, data, 43, &err), ERR_INTERNAL);
    st_writer_abort(writer);
    assert_false(fsx_exists(path));
    st_writer_abort(NULL);
}

static void writer_refuses_names_and_shapes_that_do_not_fit(void **state)
{
    (void)state;
    struct st_writer *writer = NULL;
    struct st_tensor bad = {.name = "", .type = ST_F32, .rank = 1, .shape = {1}};
    const char *path = in_folder("bad.safetensors");
    assert_int_equal(st_writer_open(&writer, path, &bad, 1, NULL, NULL), ERR_INVALID);
    memset(bad.name, 'x', ST_NAME_MAX);
    assert_int_equal(st_writer_open(&writer, path, &bad, 1, NULL, NULL), ERR_INVALID);
    strcpy(bad.name, "big");
    bad.rank = 2;
    bad.shape[0] = bad.shape[1] = (size_t)1 << 40;
    assert_int_equal(st_writer_open(&writer, path, &bad, 1, NULL, NULL), ERR_LIMIT);
    assert_null(writer);
    assert_false(fsx_exists(path));
}

static void reader_takes_any_order_of_entries(void **state)
{
    (void)state;
    const char *header =
        "{\"b\":{\"data_offsets\":[4,6],\"shape\":[2],\"dtype\":\"BOOL\"},"
        "\"a\":{\"dtype\":\"BF16\",\"shape\":[1,2],\"data_offsets\":[0,4]}}  \n";
    struct st_file *file = NULL;
    assert_int_equal(st_open(&file, file_with(header, strlen(header), 6), NULL), 0);
    assert_string_equal(st_tensor(file, 0)->name, "a");
    assert_int_equal(((const unsigned char *)st_data(file, st_find(file, "b")))[1], 5);
    assert_null(st_metadata(file, "format"));
    st_close(file);
}

#define ENTRY(name, type, shape, begin, end)                                                   \
    "\"" name "\":{\"dtype\":\"" type "\",\"shape\":" shape ",\"data_offsets\":[" begin        \
    "," end "]}"

static void reader_refuses_what_is_not_a_safetensors_file(void **state)
{
    (void)state;
    const char *two_fine =
        "{" ENTRY("a", "U8", "[4]", "0", "4") "," ENTRY("b", "U8", "[4]", "4", "8") "}";
    struct st_file *file = NULL;
    assert_int_equal(st_open(&file, file_with(two_fine, strlen(two_fine), 8), NULL), 0);
    st_close(file);
    refuses(two_fine, 7, ERR_CORRUPT, "truncated");
    refuses(two_fine, 9, ERR_CORRUPT, "1 bytes after");
    refuses("{" ENTRY("a", "U8", "[4]", "0", "4") "," ENTRY("b", "U8", "[4]", "5", "9") "}", 9,
            ERR_CORRUPT, "begins at 5, not at 4"); /* hole */
    refuses("{" ENTRY("a", "U8", "[4]", "0", "4") "," ENTRY("b", "U8", "[4]", "3", "7") "}", 7,
            ERR_CORRUPT, "begins at 3, not at 4"); /* overlap */
    refuses("{" ENTRY("a", "U8", "[4]", "1", "5") "}", 5, ERR_CORRUPT, "begins at 1");
    refuses("{" ENTRY("a", "F32", "[4]", "0", "4") "}", 4, ERR_CORRUPT, "do not fit");
    refuses("{" ENTRY("a", "F7", "[4]", "0", "4") "}", 4, ERR_UNSUPPORTED, "F7");
    refuses("{" ENTRY("a", "U8", "[4]", "4", "0") "}", 4, ERR_CORRUPT, "data_offsets");
    refuses("{" ENTRY("a", "U8", "[-4]", "0", "4") "}", 4, ERR_CORRUPT, "whole numbers");
    refuses("{" ENTRY("a", "U8", "[0.5]", "0", "4") "}", 4, ERR_CORRUPT, "whole numbers");
    refuses("{" ENTRY("a", "U8", "[\"4\"]", "0", "4") "}", 4, ERR_CORRUPT, "whole numbers");
    refuses("{" ENTRY("a", "U8", "[1,1,1,1,4]", "0", "4") "}", 4, ERR_UNSUPPORTED,
            "dimensions");
    refuses("{" ENTRY("a", "U8", "[4294967296,4294967296,16]", "0", "4") "}", 4, ERR_CORRUPT,
            "do not fit"); /* the product overflows */
    refuses("{" ENTRY("a", "U8", "[4]", "0", "4") "," ENTRY("a", "U8", "[4]", "0", "4") "}", 4,
            ERR_CORRUPT, "duplicate");
    refuses("{\"a\":{\"dtype\":\"U8\",\"shape\":[4]}}", 4, ERR_CORRUPT, "exactly");
    refuses("{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1],\"more\":1}}", 1,
            ERR_CORRUPT, "exactly");
    refuses("{\"a\":7}", 0, ERR_CORRUPT, "exactly");
    refuses("{\"\":{}}", 0, ERR_UNSUPPORTED, "name");
    refuses("{\"__metadata__\":{\"format\":1}}", 0, ERR_CORRUPT, "not a string");
    refuses("{\"__metadata__\":[]}", 0, ERR_CORRUPT, "not an object");
    refuses("{\"a\":}", 0, ERR_CORRUPT, "line 1");
    refuses(" {}", 0, ERR_CORRUPT, "'{'");
    refuses("[]", 0, ERR_CORRUPT, "'{'");
    refuses("", 3, ERR_CORRUPT, "'{'");
}

static void reader_refuses_headers_longer_than_file_or_limit(void **state)
{
    (void)state;
    struct st_file *file = NULL;
    struct err err = {0};
    const char *path = in_folder("length.safetensors");
    uint64_t length = 100;
    write_bytes(path, &length, sizeof(length));
    assert_int_equal(st_open(&file, path, &err), ERR_CORRUPT);
    assert_non_null(strstr(err.text, "truncated"));
    length = (uint64_t)ST_HEADER_MAX + 1;
    write_bytes(path, &length, sizeof(length));
    assert_int_equal(st_open(&file, path, &err), ERR_CORRUPT);
    assert_non_null(strstr(err.text, "at most"));
    length = UINT64_MAX;
    write_bytes(path, &length, sizeof(length));
    assert_int_equal(st_open(&file, path, &err), ERR_CORRUPT);
    write_bytes(path, &length, 7);
    assert_int_equal(st_open(&file, path, &err), ERR_CORRUPT);
    write_bytes(path, &length, 0);
    assert_int_equal(st_open(&file, path, &err), ERR_CORRUPT);
    assert_int_equal(st_open(&file, in_folder("missing"), &err), ERR_NOT_FOUND);
    assert_int_equal(st_open(&file, folder, &err), ERR_INVALID);
}

static void reader_refuses_every_truncation(void **state)
{
    (void)state;
    write_two(in_folder("two.safetensors"));
    struct buf whole;
    buf_init(&whole, 1 << 16);
    assert_int_equal(fsx_read(&whole, in_folder("two.safetensors"), NULL), 0);
    for (size_t bytes = 0; bytes < whole.len; bytes++) {
        struct st_file *file = NULL;
        const char *path = in_folder("cut.safetensors");
        write_bytes(path, whole.data, bytes);
        assert_int_equal(st_open(&file, path, NULL), ERR_CORRUPT);
    }
    buf_release(&whole);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_reads_back),
        cmocka_unit_test(the_bytes_are_the_specified_ones),
        cmocka_unit_test(the_data_begin_at_a_multiple_of_eight),
        cmocka_unit_test(writer_holds_the_caller_to_the_declared_bytes),
        cmocka_unit_test(writer_refuses_names_and_shapes_that_do_not_fit),
        cmocka_unit_test(reader_takes_any_order_of_entries),
        cmocka_unit_test(reader_refuses_what_is_not_a_safetensors_file),
        cmocka_unit_test(reader_refuses_headers_longer_than_file_or_limit),
        cmocka_unit_test(reader_refuses_every_truncation),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
