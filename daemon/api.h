/* The API apart from HTTP's wire: a route is one row of api_routes (api_table.c) and one
 * function. The HTTP side (http_request.c) finds the row, checks token and query, reads the
 * body and calls the function; /v1/openapi.json and docs are printed from the same rows.
 *
 * A handler fills an answer and never blocks. What it leaves in answer->next says when the
 * answer goes: at once, after the turn's commit, when something about job id happens (the
 * handler is then called again), or as a stream of server-sent events. */
#ifndef HEBB_DAEMON_API_H
#define HEBB_DAEMON_API_H

#include "daemon/auth.h"
#include "daemon/daemon.h"
#include "daemon/store.h"
#include "proto/base/buf.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    API_OPTIONS_MAX = 8, /* query options of a route */
    API_HEADERS_MAX = 4, /* of an answer, beside those that every answer has */
    API_ANSWER_MAX = 32 * 1024 * 1024,
    API_SEGMENT_MAX = 128, /* bytes of {id} and its like in a path, above it: not found */
    API_SEGMENTS_MAX = 3,
};

/* What {id}, {name}, {step} and {file} of a route's path matched, in their order. */
struct api_segments {
    size_t count;
    char text[API_SEGMENTS_MAX][API_SEGMENT_MAX];
};

enum api_option_type {
    API_INT,  /* whole decimal number within [min, max] */
    API_BOOL, /* 0, 1, false or true */
    API_TEXT, /* at most max bytes of UTF-8 without control characters */
};

/* A query option. def is text as a client would write it; NULL: absent unless given. */
struct api_option {
    const char *name;
    enum api_option_type type;
    int64_t min, max;
    const char *def;
    const char *help;
};

struct api_route;

/* A feed of one job for server-sent events: where the reader is. */
struct api_feed {
    char id[STORE_ID_MAX];
    uint64_t seq; /* of the last event sent */
    bool begun, has_state;
    enum job_state state; /* last state sent */
    int64_t attempt;
    char reason[STORE_TEXT_MAX];
};

struct api_request {
    struct daemon *daemon;
    const struct api_route *route;
    struct identity identity;
    char id[STORE_ID_MAX]; /* {id} of the path; 16 hex digits */
    struct api_segments segments;
    const char *body; /* (body_len), never NULL */
    size_t body_len;
    const char *content_type; /* header values, NULL if absent */
    const char *idempotency_key;
    const char *last_event_id;
    const char *if_match, *if_none_match;
    const char *range, *if_range;
    struct {
        bool given;
        int64_t number;
        const char *text;       /* NULL if absent without default */
    } options[API_OPTIONS_MAX]; /* in the order of the route's table */
    bool again, expired;        /* called again after API_WAIT; its time is over */
    int64_t memo;               /* the handler's own between calls; 0 at first */
};

enum api_next {
    API_DONE,         /* send now */
    API_AFTER_COMMIT, /* hold until the turn's writes are durable */
    API_WAIT,         /* discard; call again when job id changes or after wait_ms */
    API_STREAM,       /* send headers, then api_feed_fill until it says that the feed is over */
    API_FILE, /* send length bytes of fd from offset; fd is the HTTP side's from then on */
};

struct api_answer {
    int status;
    const char *type; /* content type; static text */
    struct buf body;
    struct {
        const char *name; /* static text */
        char value[192];
    } headers[API_HEADERS_MAX];
    size_t header_count;
    enum api_next next;
    int64_t wait_ms;
    struct api_feed feed;
    int fd;
    uint64_t offset, length;
    bool close; /* close the connection after it */
};

typedef void api_handler(struct api_request *request, struct api_answer *answer);

/* A good answer of a route, for OpenAPI. */
struct api_good {
    int status;         /* 0: there is none */
    const char *type;   /* content type */
    const char *schema; /* name in openapi.c's components; NULL: plain text */
    const char *when;   /* NULL: always */
};

struct api_route {
    const char *method;  /* GET (answers HEAD too), POST, PATCH or DELETE */
    const char *path;    /* "/v1/jobs/{id}"; {id} matches one segment */
    enum auth_role role; /* the least that may; not looked at if open */
    api_handler *handle;
    const char *name;    /* operationId: "submitJob" */
    const char *summary; /* one line */
    struct api_good good, other;
    const struct api_option *options; /* of the query; ends with a NULL name; NULL: none */
    const struct api_option *headers; /* that the handler looks at, for OpenAPI; likewise */
    const char *body; /* component of the request's JSON body; NULL: takes none */
    bool open;        /* needs no token */
};

extern const struct api_route api_routes[]; /* ends with a NULL path */
size_t api_route_count(void);

/* --- routing --- */
/* The row for method and decoded path, NULL if none. *allow (of size bytes) gets the methods of
 * the rows whose path fits, "GET, HEAD", or "" when no path fits. */
const struct api_route *api_route_find(const char *method, const char *path, char *allow,
                                       size_t size, struct api_segments *segments);

/* 16 lower-case hex digits. */
bool api_id_valid(const char *id);

/* Decodes %XX (and, in a query, +) in place. False on a malformed escape, %00, or a control
 * character. */
bool api_unescape(char *text, bool query);

/* Splits and decodes query (changed in place and kept by pointer) by the route's options. On
 * faults fills answer with an invalid_query problem that names all of them, and returns false.
 */
bool api_query_parse(struct api_request *request, char *query, struct api_answer *answer);

/* Parsed options by name; the name must be in the route's table. */
int64_t api_int(const struct api_request *request, const char *name);
const char *api_text(const struct api_request *request, const char *name);
bool api_given(const struct api_request *request, const char *name);

/* --- answers --- */
void api_answer_init(struct api_answer *answer);
void api_answer_release(struct api_answer *answer);
void api_answer_clear(struct api_answer *answer); /* empty again, memory kept */
/* Adds a header; the value is cut at its field's size. */
void api_answer_header(struct api_answer *answer, const char *name, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

struct cJSON;
/* Prints object (taken, may be NULL after a failed allocation) as the answer's body. */
void api_answer_json(struct api_answer *answer, int status, struct cJSON *object);
/* The same for one page of a list, with status 200 and next_after: last, the key of the page's
 * last item, if there is more behind it, else null. */
void api_answer_page(struct api_answer *answer, struct cJSON *object, bool more, int64_t last);

/* --- parts that handlers share --- */
/* The job as API object, without its spec: id, name, state, reason, attempt, progress, times.
 * NULL with err set. */
struct cJSON *api_job_object(struct daemon *daemon, const struct job_row *job, struct err *err);

/* Appends what is new on the feed as server-sent events, at most about 256 KiB a call. *over is
 * set once the job is final and everything was sent. Returns 0 or the store's error. */
int api_feed_fill(struct daemon *daemon, struct api_feed *feed, struct buf *out, bool *over,
                  struct err *err);

/* Parses the body as a JSON object with these members (ends with NULL), all optional here.
 * On faults fills answer and returns false; *out is freed by the caller. */
bool api_body(struct api_request *request, struct api_answer *answer, const char *const *keys,
              struct cJSON **out);
bool api_body_is_json(const struct api_request *request, struct api_answer *answer);
bool api_body_empty(const struct api_request *request); /* nothing, or {} */

/* False, with answer filled, while nothing can be written. */
bool api_can_write(const struct api_request *request, struct api_answer *answer);

/* A job's entity tag: its row's version, and the last event's seq. */
void api_job_tag(char out[64], const struct job_row *job, uint64_t seq);
/* False, with a 412 in answer, if If-Match is there and names another version of the job. What
 * a job trained since (the seq) is no conflict. */
bool api_match(const struct api_request *request, struct api_answer *answer,
               const struct job_row *job);

/* Bits of comma-separated states; false, with answer filled, if there is no such state. */
bool api_states(const char *text, unsigned *bits, const char *field, struct api_answer *answer);
/* ",a,b," for struct job_filter from "a,b", and their number; NULL for none. */
const char *api_labels(const char *text, char out[264], size_t *count);

void api_add_stamp(struct cJSON *object, const char *key, int64_t wall_ms); /* 0: null */

/* --- handlers: api_jobs.c, api_change.c, api_history.c, api_events.c, api_files.c,
 * api_admin.c, api_system.c --- */
api_handler api_jobs_submit, api_jobs_list, api_jobs_get, api_jobs_cancel, api_jobs_pause,
    api_jobs_resume, api_jobs_checkpoint;
api_handler api_jobs_patch, api_jobs_cancel_many;
api_handler api_attempts, api_checkpoint_files, api_checkpoint_file, api_model_files,
    api_model_file;
api_handler api_webhooks_add, api_webhooks_list, api_webhooks_remove;
api_handler api_tokens_add, api_tokens_list, api_tokens_remove, api_audit, api_drain,
    api_drain_show;
api_handler api_series, api_topology, api_checkpoints, api_log;
api_handler api_events;
api_handler api_spec, api_openapi, api_healthz, api_readyz, api_metrics;

#endif
