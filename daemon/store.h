/* The two databases. state.db: jobs, attempts, intents, audit, idempotency keys (WAL,
 * synchronous=FULL). series.db: events, steps, evaluations, refreshes per matrix, checkpoints,
 * ingest offsets (WAL, NORMAL; rebuilt from the events files when lost). STRICT tables, foreign
 * keys, user_version migrations, bound values only.
 *
 * Writes join the turn's transaction (begun by the first write); store_commit makes them
 * durable. An answer that acknowledges a write leaves only after store_commit returned 0. When
 * a write fails the whole turn is rolled back by store_commit, and until then every further
 * write is refused.
 *
 * Listings call `each` per row; it returns 0 to go on, another value ends the listing and is
 * returned. It must not call the same listing. */
#ifndef HEBB_DAEMON_STORE_H
#define HEBB_DAEMON_STORE_H

#include "proto/base/buf.h"
#include "proto/base/err.h"
#include "proto/base/opt.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { STORE_ID_MAX = 17, STORE_TEXT_MAX = 512, STORE_NAME_MAX = 65 };

enum job_state {
    JOB_QUEUED,
    JOB_STARTING,
    JOB_RUNNING,
    JOB_PAUSING,
    JOB_PAUSED,
    JOB_RETRY_WAIT,
    JOB_CANCELLING,
    JOB_SUCCEEDED,
    JOB_FAILED,
    JOB_CANCELLED,
    JOB_STATES
};
const char *job_state_name(enum job_state state);
bool job_state_parse(enum job_state *out, const char *name);
bool job_state_final(enum job_state state);

struct job_row {
    int64_t row; /* order of submission: key of keyset pages */
    char id[STORE_ID_MAX];
    char name[256];
    enum job_state state;
    char reason[STORE_TEXT_MAX]; /* why it is in this state; "" if there is nothing to say */
    int64_t priority;
    int64_t cores, gpus; /* slots that it takes */
    int64_t attempt;     /* 0 before the first */
    int64_t failures;    /* attempts that count against restart.max */
    int64_t created_ms, updated_ms, started_ms, finished_ms; /* 0: not yet */
    int64_t retry_at_ms;                                     /* retry_wait only */
    int64_t version; /* counts the changes of the row, priority and labels included */
};

struct job_progress { /* from the ingested events; zeros before the first step */
    int64_t step, steps, tokens;
    double loss, tokens_per_s, eta_s, eval_loss;
    bool has_loss, has_eval;
    bool done;         /* the last attempt's events end with `done` */
    int64_t attempt;   /* of the last `start` event */
    int64_t bad_lines; /* lines of events.jsonl that could not be read and were passed over */
};

struct store;
int store_open(struct store **out, const char *state_dir, struct err *err);
void store_close(struct store *store);
int store_commit(struct store *store, struct err *err);
bool store_writable(
    const struct store *store); /* false after SQLITE_FULL / IOERR until a probe succeeds */
bool store_pending(const struct store *store); /* writes wait for store_commit */
/* series.db was made new or lost: the events files of all jobs are to be read again. Stays so
 * until _done is committed. */
int store_rebuild_pending(struct store *store, bool *pending, struct err *err);
int store_rebuild_done(struct store *store, struct err *err);

/* --- jobs --- */
/* spec is spec.json's text. ERR_CONFLICT when idem_key (may be NULL) is known with another body
 * hash; with the same hash *existing is true and job is the first submission's. */
int store_job_insert(struct store *store, struct job_row *job, const char *spec,
                     const char *idem_key, const char *body_hash, bool *existing,
                     struct err *err);
int store_job_get(struct store *store, const char *id, struct job_row *out,
                  struct err *err); /* ERR_NOT_FOUND */
int store_job_spec(struct store *store, const char *id, struct buf *out, struct err *err);
/* State change; refuses (ERR_CONFLICT) to leave a final state. Writes an audit event. */
int store_job_set_state(struct store *store, const char *id, enum job_state state,
                        const char *reason, struct err *err);
/* The reason alone, while the state stays. Writes no audit event. */
int store_job_set_reason(struct store *store, const char *id, const char *reason,
                         struct err *err);
int store_job_update(struct store *store, const struct job_row *job,
                     struct err *err); /* attempt, failures, retry_at, stamps */

struct job_filter {
    unsigned states;    /* bit per job_state; 0: all */
    const char *name;   /* substring, NULL: all */
    const char *labels; /* ",a,b,": jobs that have all of these label_count labels */
    size_t label_count;
    int64_t after; /* row of the last seen; 0: from the newest */
    size_t limit;  /* newest first */
};
int store_jobs_list(struct store *store, const struct job_filter *filter,
                    int (*each)(void *context, const struct job_row *job), void *context,
                    struct err *err);
/* All jobs that are not final, by priority (high first), then row. */
int store_jobs_active(struct store *store,
                      int (*each)(void *context, const struct job_row *job), void *context,
                      struct err *err);
/* Jobs that hold slots (starting, running, pausing, cancelling); jobs in retry_wait that are
 * due; the next of the queue. */
int store_jobs_launched(struct store *store,
                        int (*each)(void *context, const struct job_row *job), void *context,
                        struct err *err);
int store_jobs_due(struct store *store, int64_t now_ms, int64_t wait_max_ms,
                   int (*each)(void *context, const struct job_row *job), void *context,
                   struct err *err);
int store_jobs_head(struct store *store, struct job_row *out, bool *found, struct err *err);
/* Rows that no state machine could go on from (an unknown state, numbers below zero) become
 * failed, with a reason that says so; each is told of every one. */
int store_jobs_quarantine(struct store *store,
                          int (*each)(void *context, const char *id, int64_t attempt),
                          void *context, struct err *err);
/* The next of the queue that takes no slots. */
int store_jobs_slotless(struct store *store, struct job_row *out, bool *found, struct err *err);
int store_jobs_slots(struct store *store, int64_t *cores, int64_t *gpus,
                     struct err *err); /* in use */
int store_jobs_count(struct store *store, int64_t counts[JOB_STATES], struct err *err);

/* --- intents: committed before they are acted on, removed when done --- */
enum intent_kind { INTENT_START, INTENT_PAUSE, INTENT_CANCEL, INTENT_CHECKPOINT };
int store_intent_put(struct store *store, const char *id, enum intent_kind kind,
                     int64_t attempt, struct err *err);
int store_intent_remove(struct store *store, const char *id, enum intent_kind kind,
                        struct err *err);
int store_intents(struct store *store,
                  int (*each)(void *context, const char *id, enum intent_kind kind,
                              int64_t attempt),
                  void *context, struct err *err);

/* --- attempts: what exit.json said of each --- */
struct attempt_exit {
    int code, signal, rank;
    char reason[STORE_TEXT_MAX];
};
struct attempt_row {
    int64_t attempt, started_ms, finished_ms; /* finished_ms 0: not ended */
    struct attempt_exit end;
};
int store_attempt_begin(struct store *store, const char *id, int64_t attempt,
                        struct err *err); /* asking again is fine */
int store_attempt_end(struct store *store, const char *id, int64_t attempt,
                      const struct attempt_exit *end, struct err *err);
int store_attempts(struct store *store, const char *id,
                   int (*each)(void *context, const struct attempt_row *attempt), void *context,
                   struct err *err);

/* --- events and series --- */
int store_event_offset(struct store *store, const char *id, uint64_t *offset, uint64_t *seq,
                       struct err *err);
/* One transaction with the new offset: the raw line, and by type its rows. A seq that is
 * already there is skipped. */
struct event;
int store_event_add(struct store *store, const char *id, const struct event *event,
                    const char *line, size_t len, struct err *err);
int store_event_offset_set(struct store *store, const char *id, uint64_t offset,
                           struct err *err);
int store_event_bad(struct store *store, const char *id,
                    struct err *err); /* counts a line that was passed over */
int store_events_since(struct store *store, const char *id, uint64_t seq, size_t limit,
                       int (*each)(void *context, uint64_t seq, const char *type,
                                   const char *line),
                       void *context, struct err *err);
int store_progress(struct store *store, const char *id, struct job_progress *out,
                   struct err *err);

/* Columns of a series, decimated to at most `points` rows keeping each bucket's minimum and
 * maximum of the first key, and the two ends. keys: step columns loss grad_norm lr step_ms
 * tokens_per_s tokens, and eval_loss, perplexity. Appends {"step": [...], "loss": [...],
 * "eval_step": [...], "eval_loss": [...]} to out. ERR_INVALID for an unknown key. */
int store_series(struct store *store, const char *id, const char *const *keys, size_t key_count,
                 int64_t from, int64_t to, size_t points, struct buf *out, struct err *err);
/* {"refreshes": [{"refresh", "step", "zeta", "layers": [...]}]}; layer NULL: all. */
int store_topology(struct store *store, const char *id, const char *layer, int64_t from,
                   int64_t to, struct buf *out, struct err *err);
/* {"checkpoints": [{"step", "bytes", "loss", "path", "time"}]} */
int store_checkpoints(struct store *store, const char *id, struct buf *out, struct err *err);

/* --- labels and priority: what may change of a submitted job --- */
/* In the order of the alphabet. */
int store_labels(struct store *store, const char *id,
                 int (*each)(void *context, const char *label), void *context, struct err *err);
/* Puts these labels in place of those there are. Writes no audit event. */
int store_labels_set(struct store *store, const char *id, const struct str_list *labels,
                     struct err *err);
int store_job_set_priority(struct store *store, const char *id, int64_t priority,
                           struct err *err);

/* --- audit: who did what --- */
/* Who acts until the next call: the name of a token while a request is handled, else "daemon".
 */
void store_act_as(struct store *store, const char *actor);
int store_audit(struct store *store, const char *id, const char *action, const char *detail,
                struct err *err);
struct audit_row {
    int64_t seq, time_ms;
    char job[STORE_ID_MAX]; /* "" for what concerns no job */
    char actor[STORE_NAME_MAX];
    char action[32];
    char detail[2 * STORE_TEXT_MAX];
};
struct audit_filter {
    const char *job, *actor, *action; /* NULL: all */
    int64_t after;                    /* seq of the last seen; 0: from the newest */
    size_t limit;                     /* newest first */
};
int store_audit_list(struct store *store, const struct audit_filter *filter,
                     int (*each)(void *context, const struct audit_row *row), void *context,
                     struct err *err);

/* --- tokens: names, roles and SHA-256 hashes --- */
struct token_row {
    char name[STORE_NAME_MAX];
    char role[16];
    int64_t created_ms;
};
int store_token_add(struct store *store, const char *name, const char *role, const char *hash,
                    struct err *err); /* ERR_CONFLICT: the name is taken */
int store_token_remove(struct store *store, const char *name, struct err *err);
int store_token_find(struct store *store, const char *hash, struct token_row *out, bool *found,
                     struct err *err);
int store_tokens(struct store *store, int (*each)(void *context, const struct token_row *token),
                 void *context, struct err *err);

/* --- settings that outlive a restart --- */
int store_setting(struct store *store, const char *key, int64_t *value,
                  struct err *err); /* 0 if it was never set */
int store_setting_set(struct store *store, const char *key, int64_t value, struct err *err);

/* --- webhooks, and the outbox that state.db's triggers fill --- */
struct webhook_row {
    char name[STORE_NAME_MAX];
    char url[2048];
    char secret[64];  /* base64; not read back by store_webhooks */
    char states[256]; /* " failed succeeded "; "": all */
    int64_t created_ms, pending;
    char trouble[STORE_TEXT_MAX]; /* of the oldest delivery; "": none */
};
int store_webhook_add(struct store *store, const struct webhook_row *row,
                      struct err *err); /* ERR_CONFLICT: the name is taken */
int store_webhook_remove(struct store *store, const char *name, struct err *err);
int store_webhooks(struct store *store,
                   int (*each)(void *context, const struct webhook_row *row), void *context,
                   struct err *err);
struct delivery_row {
    int64_t seq, attempt, time_ms, tries;
    char webhook[STORE_NAME_MAX], url[2048], secret[64];
    char job[STORE_ID_MAX], name[256], was[16], state[16], reason[STORE_TEXT_MAX];
};
/* The oldest of each webhook that is due. */
int store_deliveries_due(struct store *store, int64_t now_ms, size_t limit,
                         int (*each)(void *context, const struct delivery_row *row),
                         void *context, struct err *err);
int store_delivery(struct store *store, int64_t seq, struct delivery_row *out, bool *found,
                   struct err *err);
int store_delivery_done(struct store *store, int64_t seq, struct err *err);
int store_delivery_later(struct store *store, int64_t seq, int64_t next_ms, const char *trouble,
                         struct err *err); /* counts a try */

/* --- retention --- */
/* Final jobs that ended before end_ms and whose history (or logs) is still there. */
int store_jobs_expired(struct store *store, bool logs, int64_t end_ms, size_t limit,
                       int (*each)(void *context, const char *id), void *context,
                       struct err *err);
/* Marks what store_jobs_expired lists as removed. */
int store_job_pruned(struct store *store, const char *id, bool logs, struct err *err);
/* Removes up to about limit rows of the job's events, steps, evaluations and refreshes; *more:
 * some are left. Progress and checkpoints stay. */
int store_history_remove(struct store *store, const char *id, size_t limit, bool *more,
                         struct err *err);
int store_keys_remove(struct store *store, int64_t before_ms, struct err *err);

/* --- backup: its own connections, also while a daemon writes --- */
/* Copies state.db and series.db (VACUUM INTO) into the new folder `to`, which appears whole or
 * not at all, and checks both. */
int store_backup(const char *state_dir, const char *to, struct err *err);

#endif
