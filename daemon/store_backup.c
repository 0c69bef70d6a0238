/* A copy of both databases by SQLite's VACUUM INTO: a read transaction each, so a daemon may
 * write meanwhile. state.db goes first: a job that it calls final has its last events in
 * series.db already (store_commit's order), and what the copy of series.db has beyond is read
 * again from the events files. */
#include "daemon/store_db.h"
#include "proto/base/fsx.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int db_failed(sqlite3 *db, const char *path, struct err *err)
{
    int rc = sqlite3_errcode(db) & 0xff;
    int code = rc == SQLITE_CORRUPT || rc == SQLITE_NOTADB ? ERR_CORRUPT : ERR_IO;
    return err_set(err, code, "backup of %s: %s", path, sqlite3_errmsg(db));
}

static int run(sqlite3 *db, const char *sql, const char *text, const char *path,
               char answer[64], struct err *err)
{
    sqlite3_stmt *stmt = NULL;
    int rc = sqlite3_prepare_v2(db, sql, -1, &stmt, NULL);
    if (rc == SQLITE_OK && text != NULL)
        rc = sqlite3_bind_text(stmt, 1, text, -1, SQLITE_STATIC);
    if (rc == SQLITE_OK)
        rc = sqlite3_step(stmt);
    if (rc == SQLITE_ROW && answer != NULL)
        snprintf(answer, 64, "%s", (const char *)sqlite3_column_text(stmt, 0));
    int code = rc == SQLITE_ROW || rc == SQLITE_DONE ? 0 : db_failed(db, path, err);
    sqlite3_finalize(stmt);
    return code;
}

static int open_copy(sqlite3 **db, const char *path, int flags, struct err *err)
{
    *db = NULL;
    if (sqlite3_open_v2(path, db, flags | SQLITE_OPEN_NOMUTEX, NULL) != SQLITE_OK)
        return *db != NULL ? db_failed(*db, path, err)
                           : err_set(err, ERR_NO_MEMORY, "backup of %s: out of memory", path);
    sqlite3_busy_timeout(*db, 10000);
    return 0;
}

static int copy_one(const char *state_dir, const char *folder, const char *name,
                    struct err *err)
{
    char from[FSX_PATH_MAX], to[FSX_PATH_MAX], answer[64] = "";
    sqlite3 *db = NULL;
    int code = fsx_path(from, err, "%s/%s", state_dir, name);
    if (code == 0)
        code = fsx_path(to, err, "%s/%s", folder, name);
    if (code == 0 && !fsx_exists(from))
        code = err_set(err, ERR_NOT_FOUND, "there is no %s", from);
    if (code == 0)
        code = open_copy(&db, from, SQLITE_OPEN_READWRITE, err);
    if (code == 0)
        code = run(db, "VACUUM INTO ?", to, from, NULL, err);
    sqlite3_close(db);
    db = NULL;
    if (code == 0)
        code = open_copy(&db, to, SQLITE_OPEN_READONLY, err);
    if (code == 0)
        code = run(db, "PRAGMA integrity_check", NULL, to, answer, err);
    sqlite3_close(db);
    if (code == 0 && strcmp(answer, "ok") != 0)
        code = err_set(err, ERR_CORRUPT, "backup %s: %s", to, answer);
    if (code == 0)
        code = fsx_sync(to, err);
    return code;
}

int store_backup(const char *state_dir, const char *to, struct err *err)
{
    char part[FSX_PATH_MAX];
    if (to[0] == '\0')
        return err_set(err, ERR_INVALID, "--backup: needs FOLDER");
    if (fsx_exists(to))
        return err_set(err, ERR_CONFLICT, "backup %s: it is there already", to);
    int code = fsx_path(part, err, "%s.part-%ld", to, (long)getpid());
    if (code != 0)
        return code;
    if (mkdir(part, 0700) != 0)
        return err_set(err, ERR_IO, "make folder %s: %s", part, strerror(errno));
    code = copy_one(state_dir, part, "state.db", err);
    if (code == 0)
        code = copy_one(state_dir, part, "series.db", err);
    if (code == 0)
        code = fsx_sync(part, err);
    if (code == 0)
        code = fsx_rename(part, to, err);
    if (code != 0)
        fsx_remove_tree(part, NULL);
    return code;
}
