#include "daemon/store_db.h"
#include "proto/base/clock.h"
#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

static int db_error(const struct store_db *db, int rc, const char *what, struct err *err)
{
    int code = ERR_INTERNAL;
    switch (rc & 0xff) {
    case SQLITE_FULL:
    case SQLITE_IOERR:
    case SQLITE_READONLY:
    case SQLITE_CANTOPEN:
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
    case SQLITE_PERM:
    case SQLITE_AUTH:
        code = ERR_IO;
        break;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
        code = ERR_CORRUPT;
        break;
    case SQLITE_NOMEM:
        code = ERR_NO_MEMORY;
        break;
    case SQLITE_CONSTRAINT:
        code = ERR_CONFLICT;
        break;
    default:
        break;
    }
    return err_set(err, code, "%s: %s: %s", db->name, what, sqlite3_errmsg(db->handle));
}

/* A failed write makes the whole turn fail, so that no half of it is ever committed. */
static int write_failed(struct store *store, const struct store_db *db, int rc,
                        const char *what, struct err *err)
{
    struct err local;
    int code = db_error(db, rc, what, &local);
    if (err != NULL)
        *err = local;
    if (code == ERR_CONFLICT)
        return code;
    if (!store->failed)
        store->failure = local;
    store->failed = true;
    int primary = rc & 0xff;
    if (primary == SQLITE_FULL || primary == SQLITE_IOERR || primary == SQLITE_READONLY ||
        primary == SQLITE_CANTOPEN) {
        store->writable = false;
        store->probe_at_ms = clock_monotonic_ms() + STORE_PROBE_INTERVAL_MS;
    }
    return code;
}

/* A read that fails in the middle of a turn's writes leaves them half done, just like a write.
 */
static int read_failed(struct store *store, const struct store_db *db, int rc, struct err *err)
{
    bool passing = (rc & 0xff) == SQLITE_NOMEM || (rc & 0xff) == SQLITE_IOERR;
    if (passing && (store->state.begun || store->series.begun))
        return write_failed(store, db, rc, "read", err);
    return db_error(db, rc, "read", err);
}

int store_db_exec(struct store_db *db, const char *sql, struct err *err)
{
    int rc = sqlite3_exec(db->handle, sql, NULL, NULL, NULL);
    return rc == SQLITE_OK ? 0 : db_error(db, rc, sql, err);
}

int store_db_open(struct store_db *db, const char *path, const char *name,
                  const char *synchronous, struct err *err)
{
    memset(db, 0, sizeof *db);
    db->name = name;
    int rc =
        sqlite3_open_v2(path, &db->handle,
                        SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, NULL);
    if (rc != SQLITE_OK) {
        int code =
            err_set(err, rc == SQLITE_NOTADB ? ERR_CORRUPT : ERR_IO, "open %s: %s", path,
                    db->handle != NULL ? sqlite3_errmsg(db->handle) : sqlite3_errstr(rc));
        store_db_close(db);
        return code;
    }
    sqlite3_extended_result_codes(db->handle, 1);
    sqlite3_busy_timeout(db->handle, STORE_BUSY_TIMEOUT_MS);
    sqlite3_db_config(db->handle, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
    sqlite3_db_config(db->handle, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, NULL);
    sqlite3_db_config(db->handle, SQLITE_DBCONFIG_DQS_DML, 0, NULL);
    sqlite3_db_config(db->handle, SQLITE_DBCONFIG_DQS_DDL, 0, NULL);
    char pragmas[256];
    snprintf(pragmas, sizeof pragmas,
             "PRAGMA journal_mode=WAL; PRAGMA synchronous=%s; PRAGMA foreign_keys=ON;"
             "PRAGMA journal_size_limit=67108864;",
             synchronous);
    int code = store_db_exec(db, pragmas, err);
    if (code != 0)
        store_db_close(db);
    return code;
}

void store_db_close(struct store_db *db)
{
    for (size_t i = 0; i < db->statement_count; i++)
        sqlite3_finalize(db->statements[i].stmt);
    db->statement_count = 0;
    if (db->handle != NULL)
        sqlite3_close(db->handle);
    db->handle = NULL;
}

static int user_version(struct store_db *db, int64_t *out, struct err *err)
{
    sqlite3_stmt *stmt = NULL;
    int rc = sqlite3_prepare_v2(db->handle, "PRAGMA user_version", -1, &stmt, NULL);
    if (rc == SQLITE_OK)
        rc = sqlite3_step(stmt);
    if (rc == SQLITE_ROW)
        *out = sqlite3_column_int64(stmt, 0);
    int code = rc == SQLITE_ROW ? 0 : db_error(db, rc, "read user_version", err);
    sqlite3_finalize(stmt);
    return code;
}

int store_db_migrate(struct store_db *db, const char *const *steps, size_t step_count,
                     struct err *err)
{
    int64_t version = 0;
    int code = user_version(db, &version, err);
    if (code != 0)
        return code;
    if (version < 0 || (size_t)version > step_count)
        return err_set(err, ERR_UNSUPPORTED, "%s: version %lld is newer than this hebbd's %zu",
                       db->name, (long long)version, step_count);
    for (size_t i = (size_t)version; i < step_count; i++) {
        char set[64];
        snprintf(set, sizeof set, "PRAGMA user_version=%zu", i + 1);
        code = store_db_exec(db, "BEGIN IMMEDIATE", err);
        if (code == 0)
            code = store_db_exec(db, steps[i], err);
        if (code == 0)
            code = store_db_exec(db, set, err);
        if (code == 0)
            code = store_db_exec(db, "COMMIT", err);
        if (code != 0) {
            sqlite3_exec(db->handle, "ROLLBACK", NULL, NULL, NULL);
            return err_wrap(err, code, "migrate %s to version %zu", db->name, i + 1);
        }
    }
    return 0;
}

/* Returns SQLite's code. */
static int statement(struct store_db *db, const char *sql, sqlite3_stmt **out)
{
    for (size_t i = 0; i < db->statement_count; i++)
        if (db->statements[i].sql == sql) {
            *out = db->statements[i].stmt;
            assert(!sqlite3_stmt_busy(*out));
            return SQLITE_OK;
        }
    assert(db->statement_count < STORE_STATEMENTS_MAX);
    int rc = sqlite3_prepare_v3(db->handle, sql, -1, SQLITE_PREPARE_PERSISTENT, out, NULL);
    if (rc == SQLITE_OK)
        db->statements[db->statement_count++] =
            (struct store_statement){.sql = sql, .stmt = *out};
    return rc;
}

int query_read(struct query *query, struct store *store, struct store_db *db, const char *sql,
               struct err *err)
{
    *query = (struct query){.store = store, .db = db, .rc = SQLITE_OK};
    int rc = statement(db, sql, &query->stmt);
    return rc == SQLITE_OK ? 0 : read_failed(store, db, rc, err);
}

int query_write(struct query *query, struct store *store, struct store_db *db, const char *sql,
                struct err *err)
{
    *query = (struct query){.store = store, .db = db, .rc = SQLITE_OK};
    if (store->failed || !store->writable)
        return err_set(err, ERR_IO, "the store takes no writes now: %s", store->failure.text);
    if (!db->begun) {
        int rc = sqlite3_exec(db->handle, "BEGIN IMMEDIATE", NULL, NULL, NULL);
        if (rc != SQLITE_OK)
            return write_failed(store, db, rc, "begin", err);
        db->begun = true;
    }
    int rc = statement(db, sql, &query->stmt);
    return rc == SQLITE_OK ? 0 : write_failed(store, db, rc, sql, err);
}

static void keep(struct query *query, int rc)
{
    if (query->rc == SQLITE_OK)
        query->rc = rc;
}

static void query_null(struct query *query)
{
    keep(query, sqlite3_bind_null(query->stmt, ++query->bound));
}

void query_int(struct query *query, int64_t value)
{
    keep(query, sqlite3_bind_int64(query->stmt, ++query->bound, value));
}

void query_real(struct query *query, double value)
{
    if (isfinite(value))
        keep(query, sqlite3_bind_double(query->stmt, ++query->bound, value));
    else
        query_null(query);
}

void query_text(struct query *query, const char *value)
{
    if (value != NULL)
        keep(query, sqlite3_bind_text64(query->stmt, ++query->bound, value, strlen(value),
                                        SQLITE_STATIC, SQLITE_UTF8));
    else
        query_null(query);
}

void query_bytes(struct query *query, const char *value, size_t len)
{
    keep(query, sqlite3_bind_text64(query->stmt, ++query->bound, value, len, SQLITE_STATIC,
                                    SQLITE_UTF8));
}

void query_end(struct query *query)
{
    if (query->stmt == NULL)
        return;
    sqlite3_reset(query->stmt);
    sqlite3_clear_bindings(query->stmt);
    query->stmt = NULL;
}

int query_run(struct query *query, int *changes, struct err *err)
{
    assert(query->bound == sqlite3_bind_parameter_count(query->stmt));
    int rc = query->rc;
    if (rc == SQLITE_OK)
        while ((rc = sqlite3_step(query->stmt)) == SQLITE_ROW)
            ;
    int code = 0;
    if (rc != SQLITE_DONE)
        code = write_failed(query->store, query->db, rc, "write", err);
    else if (changes != NULL)
        *changes = sqlite3_changes(query->db->handle);
    query_end(query);
    return code;
}

int query_next(struct query *query, bool *row, struct err *err)
{
    assert(query->bound == sqlite3_bind_parameter_count(query->stmt));
    int rc = query->rc == SQLITE_OK ? sqlite3_step(query->stmt) : query->rc;
    *row = rc == SQLITE_ROW;
    if (*row)
        return 0;
    int code = rc == SQLITE_DONE ? 0 : read_failed(query->store, query->db, rc, err);
    query_end(query);
    return code;
}

int64_t column_int(const struct query *query, int column)
{
    return sqlite3_column_int64(query->stmt, column);
}

double column_real(const struct query *query, int column)
{
    return sqlite3_column_double(query->stmt, column);
}

bool column_null(const struct query *query, int column)
{
    return sqlite3_column_type(query->stmt, column) == SQLITE_NULL;
}

const char *column_text(const struct query *query, int column)
{
    const char *text = (const char *)sqlite3_column_text(query->stmt, column);
    return text != NULL ? text : "";
}

void column_copy(const struct query *query, int column, char *out, size_t size)
{
    snprintf(out, size, "%s", column_text(query, column));
}
