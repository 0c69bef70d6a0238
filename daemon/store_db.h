/* Inside the store: a connection with its prepared statements, migrations, and queries whose
 * values are always bound. Only daemon/store*.c include this. */
#ifndef HEBB_DAEMON_STORE_DB_H
#define HEBB_DAEMON_STORE_DB_H

#include "daemon/store.h"
#include <sqlite3.h>

enum {
    STORE_STATEMENTS_MAX = 160,
    STORE_BUSY_TIMEOUT_MS = 2000,
    STORE_PROBE_INTERVAL_MS = 1000
};

struct store_statement {
    const char *sql; /* a string literal: its address is the key */
    sqlite3_stmt *stmt;
};

struct store_db {
    sqlite3 *handle;
    const char *name; /* "state.db" or "series.db", for messages */
    bool begun;       /* a transaction of this turn is open */
    size_t statement_count;
    struct store_statement statements[STORE_STATEMENTS_MAX];
};

struct store {
    struct store_db state, series;
    bool failed;   /* a write of this turn failed: store_commit rolls the whole turn back */
    bool writable; /* false after a full disk or an I/O error, until a probe succeeds */
    int64_t probe_at_ms;        /* monotonic; when to try again */
    struct err failure;         /* why failed or not writable */
    char actor[STORE_NAME_MAX]; /* of the audit events; "": the daemon */
};

/* Opens path with the project's settings (WAL, foreign keys, defensive, no trusted schema).
 * synchronous: "FULL" or "NORMAL". ERR_CORRUPT when it is not a database. */
int store_db_open(struct store_db *db, const char *path, const char *name,
                  const char *synchronous, struct err *err);
void store_db_close(struct store_db *db);

/* Brings the database from its user_version to step_count by running the missing steps, each in
 * a transaction with the new version. ERR_UNSUPPORTED if the file is from a newer hebbd. */
int store_db_migrate(struct store_db *db, const char *const *steps, size_t step_count,
                     struct err *err);

/* Runs constant SQL without values. */
int store_db_exec(struct store_db *db, const char *sql, struct err *err);

/* One use of a cached statement. Bind in order with query_int/text/real/null, then query_run (a
 * write) or query_next (a read, until *row is false or query_end). The first failure of a bind
 * is kept and reported by run or next. */
struct query {
    struct store *store;
    struct store_db *db;
    sqlite3_stmt *stmt;
    int bound;
    int rc;
};

/* query_read leaves the turn's transaction alone, query_write begins it. sql must be a string
 * literal. A read that is still being stepped through must not be started again (callbacks of a
 * listing must not call the same listing). */
int query_read(struct query *query, struct store *store, struct store_db *db, const char *sql,
               struct err *err);
int query_write(struct query *query, struct store *store, struct store_db *db, const char *sql,
                struct err *err);
void query_int(struct query *query, int64_t value);
void query_real(struct query *query, double value); /* not finite: NULL */
void query_text(struct query *query,
                const char *value); /* NULL: SQL NULL; must live until run or end */
void query_bytes(struct query *query, const char *value, size_t len); /* text of len bytes */
/* Runs to the end and releases; *changes (may be NULL) gets the number of rows changed.
 * ERR_CONFLICT on a constraint. */
int query_run(struct query *query, int *changes, struct err *err);
int query_next(struct query *query, bool *row,
               struct err *err);     /* releases when *row is false or on an error */
void query_end(struct query *query); /* releases; a second call is fine */

int64_t column_int(const struct query *query, int column);
double column_real(const struct query *query, int column); /* 0 for NULL */
bool column_null(const struct query *query, int column);
const char *column_text(const struct query *query,
                        int column); /* "" for NULL; valid until the next step */
void column_copy(const struct query *query, int column, char *out, size_t size);

/* series.db's integer key of a job, made when missing and create is true. *stream is 0 when
 * there is none. */
int store_stream(struct store *store, const char *id, bool create, int64_t *stream,
                 struct err *err);

#endif
