/* manifest.json: lengths and checksums of a folder's files, and the faults that verification
 * names. */
#include "tests/proto/folder_fixture.h"

#include "proto/format/manifest.h"
#include <stdio.h>
#include <unistd.h>

static void put(const char *name, const char *text)
{
    assert_int_equal(fsx_publish(in_folder(name), text, strlen(text), 0644, NULL), 0);
}

static const char *const names[] = {"a.bin", "empty"};

static void write_fine(void)
{
    put("a.bin", "abc");
    put("empty", "");
    assert_int_equal(manifest_write(folder, names, 2, NULL, NULL), 0);
}

static void faulty(const char *reason)
{
    struct err err = {0};
    assert_int_equal(manifest_verify(folder, NULL, &err), ERR_CORRUPT);
    if (!strstr(err.text, reason))
        fail_msg("'%s' does not say '%s'", err.text, reason);
}

static void a_written_manifest_verifies(void **state)
{
    (void)state;
    uint64_t bytes = 0;
    put("a.bin", "abc");
    put("empty", "");
    assert_int_equal(manifest_write(folder, names, 2, &bytes, NULL), 0);
    assert_int_equal(bytes, 3);
    bytes = 0;
    struct err err = {0};
    assert_int_equal(manifest_verify(folder, &bytes, &err), 0);
    assert_int_equal(bytes, 3);
}

static void the_text_is_the_specified_one(void **state)
{
    (void)state;
    write_fine();
    /* the digests are what xxhsum -H2 prints for "abc" and for nothing */
    const char expected[] =
        "{\"format\":\"hebb-manifest-1\",\"files\":[\n"
        "{\"name\":\"a.bin\",\"bytes\":3,\"xxh3_128\":\"06b05ab6733a618578af5f94892f3950\"},\n"
        "{\"name\":\"empty\",\"bytes\":0,\"xxh3_128\":\"99aa06d3014798d86001c324468d497f\"}\n]}"
        "\n";
    struct buf text;
    buf_init(&text, 4096);
    assert_int_equal(fsx_read(&text, in_folder("manifest.json"), NULL), 0);
    assert_string_equal(text.data, expected);
    buf_release(&text);
}

static void every_difference_is_named(void **state)
{
    (void)state;
    write_fine();
    put("a.bin", "abd");
    faulty("a.bin: checksum");
    put("a.bin", "abcd");
    faulty("a.bin has 4 bytes, the manifest says 3");
    assert_int_equal(unlink(in_folder("a.bin")), 0);
    faulty("a.bin");
    put("a.bin", "abc");
    assert_int_equal(manifest_verify(folder, NULL, NULL), 0);
}

static void a_folder_without_manifest_is_not_found(void **state)
{
    (void)state;
    unlink(in_folder("manifest.json"));
    struct err err = {0};
    assert_int_equal(manifest_verify(folder, NULL, &err), ERR_NOT_FOUND);
    assert_int_equal(manifest_verify("/nonexistent/folder", NULL, &err), ERR_NOT_FOUND);
}

#define FILES(entries) "{\"format\":\"hebb-manifest-1\",\"files\":[" entries "]}"
#define FILE_NAMED(name)                                                                       \
    "{\"name\":\"" name "\",\"bytes\":3,\"xxh3_128\":\"06b05ab6733a618578af5f94892f3950\"}"

static void names_that_leave_the_folder_are_refused(void **state)
{
    (void)state;
    write_fine();
    put("manifest.json", FILES(FILE_NAMED("a.bin")));
    assert_int_equal(manifest_verify(folder, NULL, NULL), 0);
    put("manifest.json", FILES(FILE_NAMED("../a.bin")));
    faulty("illegal file name '../a.bin'");
    put("manifest.json", FILES(FILE_NAMED("/etc/passwd")));
    faulty("illegal file name");
    put("manifest.json", FILES(FILE_NAMED(".hidden")));
    faulty("illegal file name");
    put("manifest.json", FILES(FILE_NAMED("")));
    faulty("illegal file name");
    put("manifest.json", FILES(FILE_NAMED("manifest.json")));
    faulty("illegal file name");
    const char *const outside[] = {"../a.bin"};
    assert_int_equal(manifest_write(folder, outside, 1, NULL, NULL), ERR_INVALID);
}

static void texts_that_are_no_manifest_are_refused(void **state)
{
    (void)state;
    write_fine();
    put("manifest.json", "");
    faulty("manifest");
    put("manifest.json", "{\"format\":\"hebb-manifest-1\",\"files\":[");
    faulty("manifest");
    put("manifest.json", "{\"format\":\"hebb-manifest-2\",\"files\":[]}");
    faulty("hebb-manifest-2");
    put("manifest.json", "{\"format\":\"hebb-manifest-1\",\"files\":[],\"x\":1}");
    faulty("exactly");
    put("manifest.json", FILES("7"));
    faulty("not {name, bytes, xxh3_128}");
    put("manifest.json", FILES("{\"name\":\"a.bin\",\"bytes\":3}"));
    faulty("not {name, bytes, xxh3_128}");
    put("manifest.json", FILES(FILE_NAMED("a.bin") "," FILE_NAMED("a.bin")));
    faulty("listed twice");
}

static void writing_needs_the_files(void **state)
{
    (void)state;
    const char *const missing[] = {"missing"};
    struct err err = {0};
    assert_int_equal(manifest_write(folder, missing, 1, NULL, &err), ERR_NOT_FOUND);
    assert_non_null(strstr(err.text, "missing"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_written_manifest_verifies),
        cmocka_unit_test(the_text_is_the_specified_one),
        cmocka_unit_test(every_difference_is_named),
        cmocka_unit_test(a_folder_without_manifest_is_not_found),
        cmocka_unit_test(names_that_leave_the_folder_are_refused),
        cmocka_unit_test(texts_that_are_no_manifest_are_refused),
        cmocka_unit_test(writing_needs_the_files),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
