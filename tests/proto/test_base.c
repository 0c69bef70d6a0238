/* proto/base: errors, sizes, buffers, files, locks, time, suggestions. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "proto/base/buf.h"
#include "proto/base/clock.h"
#include "proto/base/err.h"
#include "proto/base/fsx.h"
#include "proto/base/mem.h"
#include "proto/base/suggest.h"
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static int make_folder(void **state)
{
    char *folder = strdup("/tmp/hebb-base-XXXXXX");
    *state = folder;
    return folder && mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
    int rc = fsx_remove_tree(*state, NULL);
    free(*state);
    return rc;
}

static void error_text_is_one_line_and_may_quote_itself(void **state)
{
    (void)state;
    struct err err = {0};
    assert_int_equal(err_set(&err, ERR_IO, "open %s: %s", "a\nb", "no"), ERR_IO);
    assert_string_equal(err.text, "open a b: no");
    assert_int_equal(err_set(&err, ERR_INVALID, "again: %s", err.text), ERR_INVALID);
    assert_string_equal(err.text, "again: open a b: no");
    assert_int_equal(err_wrap(&err, err.code, "job %d", 7), ERR_INVALID);
    assert_string_equal(err.text, "job 7: again: open a b: no");
    assert_int_equal(err_set(NULL, ERR_LIMIT, "nobody listens"), ERR_LIMIT);
    assert_int_equal(err_wrap(NULL, ERR_LIMIT, "nobody listens"), ERR_LIMIT);
}

static void long_error_text_is_cut_inside_its_array(void **state)
{
    (void)state;
    struct err err = {0};
    char text[2 * ERR_TEXT_MAX];
    memset(text, 'x', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    err_set(&err, ERR_IO, "%s", text);
    assert_int_equal(strlen(err.text), ERR_TEXT_MAX - 1);
    err_wrap(&err, ERR_IO, "%s", text);
    assert_int_equal(strlen(err.text), ERR_TEXT_MAX - 1);
}

static void every_code_has_a_name_and_an_exit_code(void **state)
{
    (void)state;
    for (int code = ERR_INTERNAL; code < 0; code++) {
        assert_string_not_equal(err_name(code), "unknown");
        assert_int_not_equal(err_exit_code(code), EXIT_DONE);
    }
    assert_string_equal(err_name(ERR_NOT_FOUND), "not_found");
    assert_int_equal(err_exit_code(ERR_NETWORK), EXIT_UNREACHABLE);
    assert_int_equal(err_exit_code(ERR_UNSUPPORTED), EXIT_UNSUPPORTED);
    assert_string_equal(err_name(-999), "unknown");
}

static void sizes_that_overflow_are_refused(void **state)
{
    (void)state;
    size_t out = 5;
    assert_true(size_mul(&out, 6, 7));
    assert_int_equal(out, 42);
    assert_false(size_mul(&out, SIZE_MAX / 2 + 1, 2));
    assert_false(size_add(&out, SIZE_MAX, 1));
    assert_int_equal(out, 42);
    assert_true(size_add(&out, SIZE_MAX - 1, 1));
    assert_true(out == SIZE_MAX);
    assert_int_equal(size_round_up(65, 64), 128);
    assert_int_equal(size_round_up(128, 64), 128);
    assert_null(mem_zeroed(SIZE_MAX / 2, 3));
    assert_null(mem_aligned(SIZE_MAX / 2, 3));
    assert_null(mem_aligned(SIZE_MAX - 8, 1));
}

static void aligned_memory_is_zero_and_whole(void **state)
{
    (void)state;
    const size_t sizes[] = {0, 1, 63, 64, 65, 1000, (1 << 20) - 65, (1 << 20) + 1, 3 << 20};
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        unsigned char *memory = mem_aligned(sizes[i], 1);
        assert_non_null(memory);
        assert_int_equal((uintptr_t)memory % MEM_ALIGN, 0);
        for (size_t j = 0; j < sizes[i]; j++) {
            if (memory[j] != 0) {
                fail_msg("byte %zu of %zu is not zero", j, sizes[i]);
            }
        }
        memset(memory, 0xff, sizes[i]); /* the sanitizer sees a short block */
        mem_aligned_free(memory);
    }
    mem_aligned_free(NULL);
}

static void buffer_grows_and_stops_at_its_limit(void **state)
{
    (void)state;
    struct buf buf;
    buf_init(&buf, 1000);
    for (int i = 0; i < 100; i++) {
        buf_printf(&buf, "%09d,", i);
    }
    assert_false(buf.failed);
    assert_int_equal(buf.len, 1000);
    assert_int_equal(buf.data[1000], '\0');
    buf_puts(&buf, "x");
    assert_true(buf.failed);
    assert_int_equal(buf.len, 1000);
    buf_clear(&buf);
    buf_puts(&buf, "again");
    assert_false(buf.failed);
    assert_string_equal(buf.data, "again");
    char *text = buf_detach(&buf);
    assert_string_equal(text, "again");
    free(text);
    assert_int_equal(buf.len, 0);
    text = buf_detach(&buf); /* an empty buffer is an empty string */
    assert_string_equal(text, "");
    free(text);
    buf_add(&buf, "", 1001);
    assert_true(buf.failed);
    assert_null(buf_detach(&buf));
    buf_release(&buf);
}

static void published_file_holds_exactly_the_new_bytes(void **state)
{
    char path[FSX_PATH_MAX], temporary[FSX_PATH_MAX];
    struct err err = {0};
    struct buf text;
    struct stat info;
    buf_init(&text, 100);
    assert_int_equal(fsx_path(path, &err, "%s/file", (char *)*state), 0);
    assert_int_equal(fsx_path(temporary, &err, "%s.tmp", path), 0);
    assert_int_equal(fsx_publish(path, "first, longer", 13, 0600, &err), 0);
    assert_int_equal(fsx_publish(path, "second", 6, 0600, &err), 0);
    assert_int_equal(fsx_read(&text, path, &err), 0);
    assert_string_equal(text.data, "second");
    assert_false(fsx_exists(temporary));
    assert_int_equal(stat(path, &info), 0);
    assert_int_equal(info.st_mode & 0777, 0600);
    assert_int_equal(fsx_publish("/nowhere/at/all", "x", 1, 0600, &err), ERR_NOT_FOUND);
    buf_release(&text);
}

static void failed_publication_keeps_the_old_bytes(void **state)
{
    char path[FSX_PATH_MAX], blocker[FSX_PATH_MAX];
    struct err err = {0};
    struct buf text;
    buf_init(&text, 100);
    fsx_path(path, &err, "%s/file", (char *)*state);
    fsx_path(blocker, &err, "%s/file.tmp", (char *)*state);
    assert_int_equal(fsx_publish(path, "old", 3, 0600, &err), 0);
    assert_int_equal(fsx_mkdirs(blocker, 0700, &err),
                     0); /* the temporary file cannot be made */
    assert_int_equal(fsx_publish(path, "new", 3, 0600, &err), ERR_IO);
    assert_int_equal(fsx_read(&text, path, &err), 0);
    assert_string_equal(text.data, "old");
    buf_release(&text);
}

static void reading_has_a_limit_and_names_what_is_missing(void **state)
{
    char path[FSX_PATH_MAX];
    struct err err = {0};
    struct buf text;
    buf_init(&text, 5);
    fsx_path(path, &err, "%s/file", (char *)*state);
    assert_int_equal(fsx_read(&text, path, &err), ERR_NOT_FOUND);
    assert_non_null(strstr(err.text, path));
    assert_int_equal(fsx_publish(path, "123456", 6, 0600, &err), 0);
    assert_int_equal(fsx_read(&text, path, &err), ERR_LIMIT);
    buf_release(&text);
    assert_int_equal(fsx_publish(path, "", 0, 0600, &err), 0);
    assert_int_equal(fsx_read(&text, path, &err), 0);
    assert_string_equal(text.data, "");
    buf_release(&text);

    int fd = open(path, O_RDONLY);
    char byte;
    assert_int_equal(fsx_read_at(fd, &byte, 1, 0, &err), ERR_CORRUPT);
    close(fd);
}

static void paths_that_do_not_fit_are_refused(void **state)
{
    (void)state;
    static char component[FSX_PATH_MAX + 1];
    char path[FSX_PATH_MAX];
    memset(component, 'a', FSX_PATH_MAX);
    assert_int_equal(fsx_path(path, NULL, "/%s", component), ERR_LIMIT);
    assert_int_equal(fsx_path(path, NULL, "%.*s", FSX_PATH_MAX - 1, component), 0);
}

static void folders_are_made_and_removed_without_following_links(void **state)
{
    char deep[FSX_PATH_MAX], top[FSX_PATH_MAX], kept[FSX_PATH_MAX], link[FSX_PATH_MAX];
    struct err err = {0};
    fsx_path(top, &err, "%s/top", (char *)*state);
    fsx_path(deep, &err, "%s/a/b/c", top);
    fsx_path(kept, &err, "%s/kept", (char *)*state);
    fsx_path(link, &err, "%s/a/link", top);
    assert_int_equal(fsx_mkdirs(deep, 0700, &err), 0);
    assert_int_equal(fsx_mkdirs(deep, 0700, &err), 0);
    assert_int_equal(fsx_mkdirs(kept, 0700, &err), 0);
    char file[FSX_PATH_MAX];
    fsx_path(file, &err, "%s/file", kept);
    assert_int_equal(fsx_publish(file, "x", 1, 0600, &err), 0);
    assert_int_equal(symlink(kept, link), 0);
    assert_int_equal(fsx_mkdirs(file, 0700, &err), ERR_IO); /* a file is in the way */
    assert_int_equal(fsx_remove_tree(top, &err), 0);
    assert_false(fsx_exists(top));
    assert_true(fsx_exists(file));
    assert_int_equal(fsx_remove_tree(top, &err), 0);
}

static void lock_is_exclusive_and_dies_with_its_process(void **state)
{
    char path[FSX_PATH_MAX];
    struct err err = {0};
    bool held = true;
    int fd, other;
    fsx_path(path, &err, "%s/lock", (char *)*state);
    assert_int_equal(fsx_lock_held(&held, path, &err), 0);
    assert_false(held);
    int ready[2], done[2];
    char byte = 0;
    assert_int_equal(pipe(ready), 0);
    assert_int_equal(pipe(done), 0);
    pid_t child = fork();
    if (child == 0) {
        close(done[1]);
        byte = fsx_lock(&fd, path, NULL) == 0 ? 1 : 2;
        if (write(ready[1], &byte, 1) != 1 || read(done[0], &byte, 1) < 0) {
            _exit(1);
        }
        _exit(0); /* without unlocking */
    }
    close(done[0]);
    assert_int_equal(read(ready[0], &byte, 1), 1);
    assert_int_equal(byte, 1);
    assert_int_equal(fsx_lock_held(&held, path, &err), 0);
    assert_true(held);
    assert_int_equal(fsx_lock(&fd, path, &err), ERR_CONFLICT);
    close(done[1]);
    assert_int_equal(waitpid(child, NULL, 0), child);
    close(ready[0]);
    close(ready[1]);
    assert_int_equal(fsx_lock_held(&held, path, &err), 0);
    assert_false(held);
    assert_int_equal(fsx_lock(&fd, path, &err), 0);
    assert_int_equal(fsx_lock(&other, path, &err), ERR_CONFLICT);
    assert_true((fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0);
    close(fd);
}

static void stamps_are_rfc_3339_with_milliseconds(void **state)
{
    (void)state;
    char stamp[CLOCK_STAMP_MAX];
    assert_string_equal(clock_stamp(stamp, 0), "1970-01-01T00:00:00.000Z");
    assert_string_equal(clock_stamp(stamp, 1795395723456), "2026-11-23T01:02:03.456Z");
    assert_string_equal(clock_stamp(stamp, -1), "1969-12-31T23:59:59.999Z");
    int64_t before = clock_monotonic_ms();
    assert_true(clock_monotonic_ms() >= before);
}

static void nearest_name_is_suggested_only_when_near(void **state)
{
    (void)state;
    static const char *const names[] = {"hidden", "heads", "zeta", "steps"};
    static const struct {
        const char *typed, *wanted;
    } cases[] = {{"hiden", "hidden"}, {"haeds", "heads"}, {"step", "steps"}, {"ze", NULL},
                 {"momentum", NULL},  {"HIDDEN", NULL},   {"", NULL}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct suggestion best = {0};
        for (size_t j = 0; j < sizeof(names) / sizeof(names[0]); j++) {
            suggest_offer(&best, cases[i].typed, names[j]);
        }
        if (cases[i].wanted) {
            assert_non_null(best.name);
            assert_string_equal(best.name, cases[i].wanted);
        } else {
            assert_null(best.name);
        }
    }
}

#define FOLDER_TEST(test) cmocka_unit_test_setup_teardown(test, make_folder, remove_folder)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(error_text_is_one_line_and_may_quote_itself),
        cmocka_unit_test(long_error_text_is_cut_inside_its_array),
        cmocka_unit_test(every_code_has_a_name_and_an_exit_code),
        cmocka_unit_test(sizes_that_overflow_are_refused),
        cmocka_unit_test(aligned_memory_is_zero_and_whole),
        cmocka_unit_test(buffer_grows_and_stops_at_its_limit),
        FOLDER_TEST(published_file_holds_exactly_the_new_bytes),
        FOLDER_TEST(failed_publication_keeps_the_old_bytes),
        FOLDER_TEST(reading_has_a_limit_and_names_what_is_missing),
        cmocka_unit_test(paths_that_do_not_fit_are_refused),
        FOLDER_TEST(folders_are_made_and_removed_without_following_links),
        FOLDER_TEST(lock_is_exclusive_and_dies_with_its_process),
        cmocka_unit_test(stamps_are_rfc_3339_with_milliseconds),
        cmocka_unit_test(nearest_name_is_suggested_only_when_near),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
