#include "daemon/store.h"
#include "daemon/store_db.h"
#include "proto/base/clock.h"
#include "proto/base/fsx.h"
#include "proto/base/log.h"
#include "proto/base/mem.h"
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

/* One step per version, never changed once released: a new version is a new step at the end. */
static const char *const state_steps[] = {
    "CREATE TABLE jobs("
    " row INTEGER PRIMARY KEY AUTOINCREMENT,"
    " id TEXT NOT NULL UNIQUE,"
    " name TEXT NOT NULL,"
    " state TEXT NOT NULL,"
    " reason TEXT NOT NULL,"
    " priority INTEGER NOT NULL,"
    " cores INTEGER NOT NULL,"
    " gpus INTEGER NOT NULL,"
    " attempt INTEGER NOT NULL,"
    " failures INTEGER NOT NULL,"
    " created_ms INTEGER NOT NULL,"
    " updated_ms INTEGER NOT NULL,"
    " started_ms INTEGER NOT NULL,"
    " finished_ms INTEGER NOT NULL,"
    " retry_at_ms INTEGER NOT NULL,"
    " spec TEXT NOT NULL) STRICT;"
    "CREATE INDEX jobs_by_state ON jobs(state, priority DESC, row);"
    "CREATE TABLE attempts("
    " job TEXT NOT NULL REFERENCES jobs(id),"
    " attempt INTEGER NOT NULL,"
    " started_ms INTEGER NOT NULL,"
    " finished_ms INTEGER,"
    " code INTEGER, signal INTEGER, rank INTEGER, reason TEXT,"
    " PRIMARY KEY(job, attempt)) STRICT, WITHOUT ROWID;"
    "CREATE TABLE intents("
    " job TEXT NOT NULL REFERENCES jobs(id),"
    " kind TEXT NOT NULL,"
    " attempt INTEGER NOT NULL,"
    " created_ms INTEGER NOT NULL,"
    " PRIMARY KEY(job, kind)) STRICT, WITHOUT ROWID;"
    "CREATE TABLE idempotency("
    " key TEXT NOT NULL PRIMARY KEY,"
    " body_hash TEXT NOT NULL,"
    " job TEXT NOT NULL REFERENCES jobs(id),"
    " created_ms INTEGER NOT NULL) STRICT, WITHOUT ROWID;"
    "CREATE TABLE audit("
    " seq INTEGER PRIMARY KEY AUTOINCREMENT,"
    " time_ms INTEGER NOT NULL,"
    " job TEXT NOT NULL,"
    " action TEXT NOT NULL,"
    " detail TEXT NOT NULL) STRICT;"
    "CREATE INDEX audit_by_job ON audit(job, seq);"
    "CREATE TABLE probe(one INTEGER PRIMARY KEY CHECK(one = 1), time_ms INTEGER NOT NULL) "
    "STRICT;",

    /* 2: what the API needs. jobs.version counts every change of a row (for ETag); deliveries
     * is the outbox of the webhooks, filled by the same transaction that changes a state. */
    "ALTER TABLE jobs ADD COLUMN version INTEGER NOT NULL DEFAULT 1;"
    "ALTER TABLE jobs ADD COLUMN history_pruned_ms INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE jobs ADD COLUMN logs_pruned_ms INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE audit ADD COLUMN actor TEXT NOT NULL DEFAULT 'daemon';"
    "CREATE TRIGGER jobs_version AFTER UPDATE ON jobs WHEN NEW.version = OLD.version BEGIN"
    " UPDATE jobs SET version = OLD.version + 1 WHERE row = NEW.row; END;"
    "CREATE TABLE labels("
    " job TEXT NOT NULL REFERENCES jobs(id),"
    " label TEXT NOT NULL,"
    " PRIMARY KEY(job, label)) STRICT, WITHOUT ROWID;"
    "CREATE INDEX labels_by_label ON labels(label, job);"
    "CREATE TABLE tokens("
    " name TEXT NOT NULL PRIMARY KEY,"
    " role TEXT NOT NULL,"
    " hash TEXT NOT NULL UNIQUE,"
    " created_ms INTEGER NOT NULL) STRICT, WITHOUT ROWID;"
    "CREATE TABLE settings(key TEXT NOT NULL PRIMARY KEY, value INTEGER NOT NULL) STRICT, "
    "WITHOUT ROWID;"
    "CREATE TABLE webhooks("
    " name TEXT NOT NULL PRIMARY KEY,"
    " url TEXT NOT NULL,"
    " secret TEXT NOT NULL,"
    " states TEXT NOT NULL," /* " failed succeeded "; "": all */
    " created_ms INTEGER NOT NULL) STRICT, WITHOUT ROWID;"
    "CREATE TABLE deliveries("
    " seq INTEGER PRIMARY KEY AUTOINCREMENT,"
    " webhook TEXT NOT NULL REFERENCES webhooks(name) ON DELETE CASCADE,"
    " job TEXT NOT NULL,"
    " name TEXT NOT NULL,"
    " was TEXT NOT NULL," /* "": the job was submitted */
    " state TEXT NOT NULL,"
    " reason TEXT NOT NULL,"
    " attempt INTEGER NOT NULL,"
    " time_ms INTEGER NOT NULL,"
    " tries INTEGER NOT NULL DEFAULT 0,"
    " next_ms INTEGER NOT NULL DEFAULT 0,"
    " trouble TEXT NOT NULL DEFAULT '') STRICT;"
    "CREATE INDEX deliveries_by_webhook ON deliveries(webhook, seq);"
    "CREATE TRIGGER jobs_submitted AFTER INSERT ON jobs BEGIN"
    " INSERT INTO deliveries(webhook, job, name, was, state, reason, attempt, time_ms)"
    " SELECT name, NEW.id, NEW.name, '', NEW.state, NEW.reason, NEW.attempt, NEW.updated_ms"
    " FROM webhooks WHERE states = '' OR instr(states, ' ' || NEW.state || ' ') > 0; END;"
    "CREATE TRIGGER jobs_state AFTER UPDATE OF state ON jobs WHEN OLD.state <> NEW.state BEGIN"
    " INSERT INTO deliveries(webhook, job, name, was, state, reason, attempt, time_ms)"
    " SELECT name, NEW.id, NEW.name, OLD.state, NEW.state, NEW.reason, NEW.attempt,"
    " NEW.updated_ms"
    " FROM webhooks WHERE states = '' OR instr(states, ' ' || NEW.state || ' ') > 0; END;",
};

/* streams: one row per job, with how far its events file was read and what its last events
 * said. */
static const char *const series_steps[] = {
    "CREATE TABLE meta(key TEXT NOT NULL PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT "
    "ROWID;"
    "INSERT INTO meta VALUES('rebuild', 1);"
    "CREATE TABLE streams("
    " stream INTEGER PRIMARY KEY,"
    " id TEXT NOT NULL UNIQUE,"
    " offset INTEGER NOT NULL DEFAULT 0,"
    " seq INTEGER NOT NULL DEFAULT 0,"
    " bad_lines INTEGER NOT NULL DEFAULT 0,"
    " attempt INTEGER NOT NULL DEFAULT 0,"
    " done INTEGER NOT NULL DEFAULT 0,"
    " step INTEGER NOT NULL DEFAULT 0,"
    " steps INTEGER NOT NULL DEFAULT 0,"
    " tokens INTEGER NOT NULL DEFAULT 0,"
    " step_ms REAL,"
    " tokens_per_s REAL,"
    " loss REAL,"
    " eval_loss REAL) STRICT;"
    "CREATE TABLE events("
    " stream INTEGER NOT NULL REFERENCES streams(stream),"
    " seq INTEGER NOT NULL,"
    " type TEXT NOT NULL,"
    " line TEXT NOT NULL,"
    " PRIMARY KEY(stream, seq)) STRICT, WITHOUT ROWID;"
    "CREATE TABLE steps("
    " stream INTEGER NOT NULL REFERENCES streams(stream),"
    " step INTEGER NOT NULL,"
    " tokens INTEGER, loss REAL, grad_norm REAL, lr REAL, step_ms REAL, tokens_per_s REAL,"
    " PRIMARY KEY(stream, step)) STRICT, WITHOUT ROWID;"
    "CREATE TABLE evals("
    " stream INTEGER NOT NULL REFERENCES streams(stream),"
    " step INTEGER NOT NULL,"
    " split TEXT NOT NULL,"
    " loss REAL, perplexity REAL, tokens INTEGER,"
    " PRIMARY KEY(stream, split, step)) STRICT, WITHOUT ROWID;"
    "CREATE TABLE refreshes("
    " stream INTEGER NOT NULL REFERENCES streams(stream),"
    " refresh INTEGER NOT NULL,"
    " step INTEGER NOT NULL,"
    " zeta REAL, ms REAL,"
    " PRIMARY KEY(stream, refresh)) STRICT, WITHOUT ROWID;"
    "CREATE TABLE refresh_layers("
    " stream INTEGER NOT NULL,"
    " refresh INTEGER NOT NULL,"
    " position INTEGER NOT NULL,"
    " name TEXT NOT NULL,"
    " density REAL, removed INTEGER, changed_groups INTEGER, flip_rate REAL, explored REAL,"
    " patterns TEXT, dead_columns INTEGER, hash TEXT,"
    " PRIMARY KEY(stream, refresh, position),"
    " FOREIGN KEY(stream, refresh) REFERENCES refreshes(stream, refresh) ON DELETE CASCADE) "
    "STRICT, WITHOUT ROWID;"
    "CREATE INDEX refresh_layers_by_name ON refresh_layers(stream, name, refresh);"
    "CREATE TABLE checkpoints("
    " stream INTEGER NOT NULL REFERENCES streams(stream),"
    " step INTEGER NOT NULL,"
    " path TEXT NOT NULL,"
    " bytes INTEGER, ms REAL, loss REAL, time TEXT NOT NULL,"
    " PRIMARY KEY(stream, step)) STRICT, WITHOUT ROWID;",
};

static int open_state(struct store *store, const char *state_dir, struct err *err)
{
    char path[FSX_PATH_MAX];
    int code = fsx_path(path, err, "%s/state.db", state_dir);
    if (code == 0)
        code = store_db_open(&store->state, path, "state.db", "FULL", err);
    if (code == 0)
        code = store_db_migrate(&store->state, state_steps, COUNT(state_steps), err);
    return code;
}

/* Everything in series.db can be read again from the events files, so a damaged one is put
 * aside, never mourned. */
static int set_series_aside(const char *path, struct err *err)
{
    char aside[FSX_PATH_MAX], extra[FSX_PATH_MAX];
    int code = fsx_path(aside, err, "%s.damaged-%lld", path, (long long)clock_wall_ms());
    if (code == 0)
        code = fsx_rename(path, aside, err);
    static const char *const suffixes[] = {"-wal", "-shm"};
    for (size_t i = 0; code == 0 && i < COUNT(suffixes); i++) {
        code = fsx_path(extra, err, "%s%s", path, suffixes[i]);
        if (code == 0)
            unlink(extra);
    }
    if (code == 0)
        log_warn("series.db is damaged; kept as %s and built again from the events files",
                 aside);
    return code;
}

static int open_series(struct store *store, const char *state_dir, struct err *err)
{
    char path[FSX_PATH_MAX];
    int code = fsx_path(path, err, "%s/series.db", state_dir);
    if (code != 0)
        return code;
    for (int try = 0; try < 2; try++) {
        code = store_db_open(&store->series, path, "series.db", "NORMAL", err);
        if (code == 0)
            code = store_db_migrate(&store->series, series_steps, COUNT(series_steps), err);
        if (code != ERR_CORRUPT || try == 1)
            return code;
        store_db_close(&store->series);
        code = set_series_aside(path, err);
        if (code != 0)
            return code;
    }
    return code;
}

int store_open(struct store **out, const char *state_dir, struct err *err)
{
    struct store *store = mem_zeroed(1, sizeof *store);
    if (store == NULL)
        return err_set(err, ERR_NO_MEMORY, "store: out of memory");
    store->writable = true;
    int code = open_state(store, state_dir, err);
    if (code == 0)
        code = open_series(store, state_dir, err);
    if (code != 0) {
        store_close(store);
        return code;
    }
    *out = store;
    return 0;
}

void store_close(struct store *store)
{
    if (store == NULL)
        return;
    store_db_close(&store->series);
    store_db_close(&store->state);
    free(store);
}

static void roll_back(struct store_db *db)
{
    if (db->begun)
        sqlite3_exec(db->handle, "ROLLBACK", NULL, NULL,
                     NULL); /* may have rolled back by itself */
    db->begun = false;
}

static int commit_one(struct store *store, struct store_db *db, struct err *err)
{
    if (!db->begun)
        return 0;
    int code = store_db_exec(db, "COMMIT", err);
    if (code == 0)
        db->begun = false;
    else {
        store->writable = code != ERR_IO;
        store->probe_at_ms = clock_monotonic_ms() + STORE_PROBE_INTERVAL_MS;
    }
    return code;
}

static void probe(struct store *store)
{
    if (clock_monotonic_ms() < store->probe_at_ms)
        return;
    struct err err;
    store->writable = true;
    struct query query;
    int code = query_write(&query, store, &store->state,
                           "INSERT OR REPLACE INTO probe VALUES(1, ?)", &err);
    if (code == 0) {
        query_int(&query, clock_wall_ms());
        code = query_run(&query, NULL, &err);
    }
    if (code == 0)
        code = commit_one(store, &store->state, &err);
    if (code != 0) {
        roll_back(&store->state);
        store->failure = err;
        store->writable = false;
        store->probe_at_ms = clock_monotonic_ms() + STORE_PROBE_INTERVAL_MS;
    } else
        log_info("the store takes writes again");
    store->failed = false;
}

int store_commit(struct store *store, struct err *err)
{
    struct err local = store->failure;
    int code = store->failed ? store->failure.code : 0;
    /* series.db first: a job never becomes final in state.db without its last events. */
    if (code == 0)
        code = commit_one(store, &store->series, &local);
    if (code == 0)
        code = commit_one(store, &store->state, &local);
    if (code != 0) {
        roll_back(&store->series);
        roll_back(&store->state);
        store->failure = local;
        store->failed = false;
        log_error("the store rolled this turn back: %s", local.text);
        if (err != NULL)
            *err = local;
        return code;
    }
    if (!store->writable)
        probe(store);
    return 0;
}

bool store_writable(const struct store *store) { return store->writable; }

bool store_pending(const struct store *store)
{
    return store->state.begun || store->series.begun || store->failed;
}

int store_rebuild_pending(struct store *store, bool *pending, struct err *err)
{
    struct query query;
    bool row = false;
    *pending = false;
    int code = query_read(&query, store, &store->series,
                          "SELECT value FROM meta WHERE key='rebuild'", err);
    if (code == 0)
        code = query_next(&query, &row, err);
    if (code == 0 && row) {
        *pending = column_int(&query, 0) != 0;
        query_end(&query);
    }
    return code;
}

int store_rebuild_done(struct store *store, struct err *err)
{
    struct query query;
    int code = query_write(&query, store, &store->series,
                           "UPDATE meta SET value=0 WHERE key='rebuild'", err);
    return code == 0 ? query_run(&query, NULL, err) : code;
}
