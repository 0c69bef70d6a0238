/* Databases of every earlier version open, keep their rows, and take new ones. schema/ has one
 * SQL file per database and version; a new version adds the file of the one before it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "daemon/store.h"
#include "daemon/store_db.h"
#include "proto/base/fsx.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { VERSIONS_MAX = 32 };

static void make_database(const char *dir, const char *name, int version)
{
    char path[256];
    struct buf sql;
    sqlite3 *db;
    char *why = NULL;
    snprintf(path, sizeof path, HEBB_SOURCE_DIR "/tests/daemon/schema/%s-%d.sql", name,
             version);
    buf_init(&sql, 1 << 20);
    assert_int_equal(fsx_read(&sql, path, NULL), 0);
    snprintf(path, sizeof path, "%s/%s.db", dir, name);
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    if (sqlite3_exec(db, sql.data, NULL, NULL, &why) != SQLITE_OK)
        fail_msg("%s version %d: %s", name, version, why);
    sqlite3_close(db);
    buf_release(&sql);
}

static int64_t pragma(struct store_db *db, const char *sql, char text[64])
{
    sqlite3_stmt *stmt;
    assert_int_equal(sqlite3_prepare_v2(db->handle, sql, -1, &stmt, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_step(stmt), SQLITE_ROW);
    int64_t value = sqlite3_column_int64(stmt, 0);
    snprintf(text, 64, "%s", (const char *)sqlite3_column_text(stmt, 0));
    sqlite3_finalize(stmt);
    return value;
}

/* The schema as text, so that an old database ends as a new one begins. */
static void schema_of(struct store_db *db, struct buf *out)
{
    sqlite3_stmt *stmt;
    assert_int_equal(
        sqlite3_prepare_v2(db->handle,
                           "SELECT name, type FROM sqlite_schema UNION ALL "
                           "SELECT m.name || '.' || p.name, p.type || p.\"notnull\" "
                           "FROM sqlite_schema m, pragma_table_info(m.name) p "
                           "WHERE m.type='table' ORDER BY 1, 2",
                           -1, &stmt, NULL),
        SQLITE_OK);
    while (sqlite3_step(stmt) == SQLITE_ROW)
        buf_printf(out, "%s %s\n", sqlite3_column_text(stmt, 0), sqlite3_column_text(stmt, 1));
    sqlite3_finalize(stmt);
}

static int last_version(const char *name)
{
    struct store *store;
    char dir[] = "/tmp/hebb-migrate-XXXXXX", text[64];
    assert_non_null(mkdtemp(dir));
    assert_int_equal(store_open(&store, dir, NULL), 0);
    int version = (int)pragma(strcmp(name, "state") == 0 ? &store->state : &store->series,
                              "PRAGMA user_version", text);
    store_close(store);
    fsx_remove_tree(dir, NULL);
    return version;
}

static int keep(void *context, const char *label)
{
    snprintf(context, 64, "%s", label);
    return 0;
}

/* What every version's rows must still say, and what must work on them. */
static void check_rows(struct store *store)
{
    struct job_row job;
    struct err err = {.text = ""};
    bool existing = false;
    char label[64] = "";
    char *items[] = {(char[]){"old"}};
    const struct str_list labels = {items, 1};
    assert_int_equal(store_job_get(store, "00000000000000a1", &job, &err), 0);
    assert_string_equal(job.name, "first");
    assert_int_equal(job.state, JOB_SUCCEEDED);
    assert_int_equal(job.cores, 2);
    assert_true(job.version >= 1);
    assert_int_equal(store_job_get(store, "00000000000000a2", &job, &err), 0);
    assert_int_equal(job.priority, 5);
    struct job_row again = {.cores = 1};
    strcpy(again.id, "00000000000000a3");
    assert_int_equal(store_job_insert(store, &again, "{}", "key-1", "hash-1", &existing, &err),
                     0);
    assert_true(existing);
    assert_string_equal(again.id, "00000000000000a1");
    int64_t version = job.version;
    assert_int_equal(store_job_set_state(store, "00000000000000a2", JOB_STARTING, "", &err), 0);
    assert_int_equal(store_labels_set(store, "00000000000000a2", &labels, &err), 0);
    assert_int_equal(store_commit(store, &err), 0);
    assert_int_equal(store_job_get(store, "00000000000000a2", &job, &err), 0);
    assert_true(job.version > version);
    assert_int_equal(store_labels(store, "00000000000000a2", keep, label, &err), 0);
    assert_string_equal(label, "old");
    struct job_progress progress;
    assert_int_equal(store_progress(store, "00000000000000a1", &progress, &err), 0);
    assert_int_equal(progress.step, 2);
    assert_true(progress.has_loss && progress.loss == 4.5);
}

static void every_earlier_version_is_brought_to_the_newest(void **state)
{
    (void)state;
    int states = last_version("state"), serieses = last_version("series"), tried = 0;
    assert_true(states < VERSIONS_MAX && serieses < VERSIONS_MAX);
    struct buf wanted;
    buf_init(&wanted, 1 << 16);
    char fresh[] = "/tmp/hebb-migrate-XXXXXX", text[64];
    struct store *store;
    struct err err = {.text = ""};
    assert_non_null(mkdtemp(fresh));
    assert_int_equal(store_open(&store, fresh, NULL), 0);
    schema_of(&store->state, &wanted);
    store_close(store);
    fsx_remove_tree(fresh, NULL);
    for (int s = 1; s < states; s++) {
        char dir[] = "/tmp/hebb-migrate-XXXXXX";
        assert_non_null(mkdtemp(dir));
        make_database(dir, "state", s);
        make_database(dir, "series", s < serieses ? s : serieses);
        if (store_open(&store, dir, &err) != 0)
            fail_msg("version %d: %s", s, err.text);
        assert_int_equal(pragma(&store->state, "PRAGMA user_version", text), states);
        assert_int_equal(pragma(&store->series, "PRAGMA user_version", text), serieses);
        pragma(&store->state, "PRAGMA integrity_check", text);
        assert_string_equal(text, "ok");
        struct buf got;
        buf_init(&got, 1 << 16);
        schema_of(&store->state, &got);
        assert_string_equal(got.data, wanted.data);
        buf_release(&got);
        check_rows(store);
        store_close(store);
        assert_int_equal(store_open(&store, dir, &err),
                         0); /* a second time there is nothing to do */
        store_close(store);
        fsx_remove_tree(dir, NULL);
        tried++;
    }
    buf_release(&wanted);
    assert_int_equal(tried, states - 1);
}

static void a_newer_database_is_refused_and_left_alone(void **state)
{
    (void)state;
    char dir[] = "/tmp/hebb-migrate-XXXXXX", path[128];
    struct store *store;
    struct err err = {.text = ""};
    sqlite3 *db;
    assert_non_null(mkdtemp(dir));
    make_database(dir, "state", 1);
    snprintf(path, sizeof path, "%s/state.db", dir);
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, "PRAGMA user_version=99", NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
    assert_int_equal(store_open(&store, dir, &err), ERR_UNSUPPORTED);
    assert_non_null(strstr(err.text, "newer than this hebbd"));
    fsx_remove_tree(dir, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_earlier_version_is_brought_to_the_newest),
        cmocka_unit_test(a_newer_database_is_refused_and_left_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
