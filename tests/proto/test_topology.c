/* Topology files: masks of the past come back exactly, damaged files are refused. */
#include "tests/proto/folder_fixture.h"

#include "proto/base/buf.h"
#include "proto/format/topology.h"
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>
#include <xxhash.h>

enum { DOUT = 3, DIN = 8, N = 1, M = 4, GROUPS = DOUT * DIN / M, REFRESHES = 5 };

static struct topology_matrix matrix_of(const char *name, const uint16_t *codes)
{
    struct topology_matrix matrix = {
        .dout = DOUT, .din = DIN, .n = N, .m = M, .count = GROUPS, .codes = codes};
    strcpy(matrix.name, name);
    matrix.hash = topology_mask_hash(DOUT, DIN, N, M, codes, GROUPS);
    return matrix;
}

/* Code of a group after a refresh: refreshes change the groups that their number divides. */
static uint16_t code_at(size_t which, uint32_t refresh, uint32_t group)
{
    uint32_t code = group + (uint32_t)which;
    for (uint32_t r = 1; r <= refresh; r++)
        code += group % (r + 1) == 0 ? r : 0;
    return (uint16_t)(code % M);
}

static void codes_at(size_t which, uint32_t refresh, uint16_t codes[GROUPS])
{
    for (uint32_t g = 0; g < GROUPS; g++)
        codes[g] = code_at(which, refresh, g);
}

static void write_history(void)
{
    static const char *const names[2] = {"model.layers.0.mlp.up_proj", "q"};
    for (uint32_t r = 0; r <= REFRESHES; r++) {
        uint16_t full[2][GROUPS], changed[2][GROUPS];
        uint32_t groups[2][GROUPS];
        struct topology_matrix matrices[2];
        for (size_t i = 0; i < 2; i++) {
            codes_at(i, r, full[i]);
            matrices[i] = matrix_of(names[i], full[i]);
            if (r == 0)
                continue;
            size_t count = 0;
            for (uint32_t g = 0; g < GROUPS; g++) {
                if (full[i][g] == code_at(i, r - 1, g))
                    continue;
                groups[i][count] = g;
                changed[i][count++] = full[i][g];
            }
            matrices[i].count = count;
            matrices[i].groups = groups[i];
            matrices[i].codes = changed[i];
        }
        /* in refresh 3 the second matrix did not take part */
        assert_int_equal(topology_write(folder, r, 100 * r, matrices, r == 3 ? 1 : 2, NULL), 0);
    }
}

static void the_hash_is_xxh3_of_shape_and_codes(void **state)
{
    (void)state;
    const uint16_t codes[3] = {0, 1, 0x1234};
    const unsigned char bytes[38] = {
        [0] = 1, [8] = 12, [16] = 2, [24] = 4, [34] = 1, [36] = 0x34, [37] = 0x12};
    assert_true(topology_mask_hash(1, 12, 2, 4, codes, 3) == XXH3_64bits(bytes, sizeof(bytes)));
    assert_true(topology_mask_hash(1, 12, 2, 4, codes, 3) !=
                topology_mask_hash(12, 1, 2, 4, codes, 3));
    assert_true(topology_mask_hash(1, 12, 2, 4, NULL, 0) == XXH3_64bits(bytes, 32));
}

static void any_mask_of_the_past_is_rebuilt(void **state)
{
    (void)state;
    write_history();
    for (uint32_t r = 0; r <= REFRESHES; r++) {
        uint16_t expected[GROUPS], codes[GROUPS];
        struct err err = {0};
        codes_at(0, r, expected);
        memset(codes, 0xff, sizeof(codes));
        assert_int_equal(
            topology_rebuild(folder, "model.layers.0.mlp.up_proj", r, codes, GROUPS, &err), 0);
        assert_memory_equal(codes, expected, sizeof(codes));
    }
    uint16_t expected[GROUPS], codes[GROUPS];
    codes_at(1, 2, expected);
    assert_int_equal(topology_rebuild(folder, "q", 3, codes, GROUPS, NULL), 0);
    assert_memory_equal(codes, expected, sizeof(codes));
}

static void rebuilding_names_what_is_missing_or_wrong(void **state)
{
    (void)state;
    write_history();
    uint16_t codes[GROUPS + 1];
    struct err err = {0};
    assert_int_equal(topology_rebuild(folder, "nothing", 0, codes, GROUPS, &err),
                     ERR_NOT_FOUND);
    assert_int_equal(topology_rebuild(folder, "q", 0, codes, GROUPS + 1, &err), ERR_INVALID);
    assert_int_equal(topology_rebuild(folder, "q", REFRESHES + 1, codes, GROUPS, &err),
                     ERR_NOT_FOUND);
    assert_non_null(strstr(err.text, "refresh-000006.hbt"));
    /* q missed refresh 3; the changes of 4 on the mask of 2 give another mask than was recorded
     */
    assert_int_equal(topology_rebuild(folder, "q", 4, codes, GROUPS, &err), ERR_CORRUPT);
    assert_non_null(strstr(err.text, "hash"));
    char other[FSX_PATH_MAX];
    strcpy(other, in_folder("refresh-000001.hbt"));
    assert_int_equal(fsx_rename(in_folder("refresh-000002.hbt"), other, NULL), 0);
    assert_int_equal(
        topology_rebuild(folder, "model.layers.0.mlp.up_proj", 1, codes, GROUPS, &err),
        ERR_CORRUPT);
    assert_non_null(strstr(err.text, "holds refresh 2"));
}

static void the_file_has_the_documented_layout(void **state)
{
    (void)state;
    const uint32_t groups[3] = {0, 2, 5};
    const uint16_t codes[GROUPS] = {3, 0, 1}; /* the first three are written */
    struct topology_matrix matrix = matrix_of("abc", codes);
    matrix.count = 3;
    matrix.groups = groups;
    matrix.hash = 0x1122334455667788u;
    assert_int_equal(topology_write(folder, 7, 0x0102030405u, &matrix, 1, NULL), 0);
    unsigned char expected[64 + 128 + 16 + 8] = {0};
    memcpy(expected, "HEBBTOP1", 8);
    expected[8] = 1;
    expected[12] = 7;
    memcpy(expected + 16, "\x05\x04\x03\x02\x01", 5);
    expected[24] = 1;
    expected[32] = 224; /* bytes with the trailer */
    memcpy(expected + 64, "abc", 3);
    expected[160] = DOUT;
    expected[164] = DIN;
    expected[168] = N;
    expected[172] = M;
    memcpy(expected + 176, "\x88\x77\x66\x55\x44\x33\x22\x11", 8);
    expected[184] = 3;
    expected[196] = 2;
    expected[200] = 5;
    expected[208] = 3;
    expected[212] = 1;
    struct buf file;
    buf_init(&file, 4096);
    assert_int_equal(fsx_read(&file, in_folder("refresh-000007.hbt"), NULL), 0);
    assert_int_equal(file.len, sizeof(expected) + 8);
    assert_memory_equal(file.data, expected, sizeof(expected));
    uint64_t hash = XXH3_64bits(expected, sizeof(expected));
    assert_memory_equal(file.data + sizeof(expected), &hash, 8);
    buf_release(&file);
}

static void put(const char *path, const void *data, size_t bytes)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    assert_true(fd >= 0);
    assert_int_equal(fsx_write_all(fd, data, bytes, NULL), 0);
    close(fd);
}

/* Writes the file with one 4-byte field set and its checksum made to fit, and reads it. */
static int read_patched(const struct buf *file, size_t at, uint32_t value, struct err *err)
{
    unsigned char *copy = malloc(file->len);
    assert_non_null(copy);
    memcpy(copy, file->data, file->len);
    memcpy(copy + at, &value, sizeof(value));
    uint64_t hash = XXH3_64bits(copy, file->len - 8);
    memcpy(copy + file->len - 8, &hash, 8);
    const char *path = in_folder("patched.hbt");
    put(path, copy, file->len);
    free(copy);
    struct topology_file out;
    int rc = topology_read(&out, path, err);
    topology_release(&out);
    return rc;
}

static void fields_that_do_not_fit_are_refused_though_the_checksum_does(void **state)
{
    (void)state;
    const uint32_t groups[3] = {0, 2, 5};
    const uint16_t codes[GROUPS] = {3, 0, 1}; /* the first three are written */
    struct topology_matrix matrix = matrix_of("abc", codes);
    matrix.count = 3;
    matrix.groups = groups;
    assert_int_equal(topology_write(folder, 7, 1, &matrix, 1, NULL), 0);
    struct buf file;
    struct err err = {0};
    buf_init(&file, 4096);
    assert_int_equal(fsx_read(&file, in_folder("refresh-000007.hbt"), NULL), 0);
    assert_int_equal(read_patched(&file, 12, 7, &err), 0); /* unchanged */
    static const struct {
        size_t at;
        uint32_t value;
        const char *reason;
    } cases[] = {
        {0, 0, "magic"},           {12, 0, "groups listed"}, /* refresh 0 lists all */
        {24, 2, "do not fit"},     {24, UINT32_MAX, "do not fit"},
        {32, 8, "truncated"},      {40, 1, "reserved"},
        {64, 0, "name is empty"},  {100, 1, "after its name"},
        {160, 0, "shape"},         {164, 7, "shape"},
        {168, 4, "pattern"},       {172, 17, "pattern"},
        {184, 7, "groups listed"}, {184, 6, "do not fit"},
        {188, 1, "groups listed"}, {192, 2, "ascending"},
        {200, 6, "below"},         {204, 1, "do not fit"}, /* padding */
        {208, 4, "code 4"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_int_equal(read_patched(&file, cases[i].at, cases[i].value, &err), ERR_CORRUPT);
        if (!strstr(err.text, cases[i].reason))
            fail_msg("at %zu: '%s' does not say '%s'", cases[i].at, err.text, cases[i].reason);
    }
    assert_int_equal(read_patched(&file, 8, 2, &err), ERR_UNSUPPORTED);
    buf_release(&file);
}

static void every_flipped_bit_and_truncation_is_refused(void **state)
{
    (void)state;
    write_history();
    struct buf file;
    buf_init(&file, 4096);
    assert_int_equal(fsx_read(&file, in_folder("refresh-000001.hbt"), NULL), 0);
    char path[FSX_PATH_MAX];
    strcpy(path, in_folder("damaged.hbt"));
    struct topology_file out;
    for (size_t i = 0; i < file.len; i++) {
        file.data[i] ^= 1;
        put(path, file.data, file.len);
        assert_int_not_equal(topology_read(&out, path, NULL), 0);
        file.data[i] ^= 1;
        put(path, file.data, i);
        assert_int_equal(topology_read(&out, path, NULL), ERR_CORRUPT);
    }
    put(path, file.data, file.len);
    assert_int_equal(topology_read(&out, path, NULL), 0);
    assert_int_equal(out.refresh, 1);
    assert_int_equal(out.step, 100);
    assert_int_equal(out.count, 2);
    topology_release(&out);
    buf_release(&file);
}

static void writer_refuses_matrices_that_no_reader_would_take(void **state)
{
    (void)state;
    uint16_t codes[GROUPS] = {0};
    struct topology_matrix matrix = matrix_of("w", codes);
    matrix.count = GROUPS - 1;
    assert_int_equal(topology_write(folder, 0, 0, &matrix, 1, NULL), ERR_INVALID);
    matrix.count = GROUPS;
    matrix.din = DIN + 1;
    assert_int_equal(topology_write(folder, 0, 0, &matrix, 1, NULL), ERR_INVALID);
    matrix.din = DIN;
    matrix.name[0] = '\0';
    assert_int_equal(topology_write(folder, 0, 0, &matrix, 1, NULL), ERR_INVALID);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_hash_is_xxh3_of_shape_and_codes),
        cmocka_unit_test(any_mask_of_the_past_is_rebuilt),
        cmocka_unit_test(rebuilding_names_what_is_missing_or_wrong),
        cmocka_unit_test(the_file_has_the_documented_layout),
        cmocka_unit_test(fields_that_do_not_fit_are_refused_though_the_checksum_does),
        cmocka_unit_test(every_flipped_bit_and_truncation_is_refused),
        cmocka_unit_test(writer_refuses_matrices_that_no_reader_would_take),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
