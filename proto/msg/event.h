/* Events: one JSON object a line in jobs/ID/events.jsonl, appended by rank 0 only.
 *
 * Types: start step refresh eval checkpoint warning mask_repair done. docs/formats.md lists the
 * fields of each. Every line has "seq" (1, 2, ... without holes over all attempts), "time" (RFC
 * 3339) and "type". A non-finite number is null, and "nonfinite" says which kind. */
#ifndef HEBB_MSG_EVENT_H
#define HEBB_MSG_EVENT_H

#include "proto/base/err.h"
#include "proto/base/buf.h"
#include <stdbool.h>
#include <stdint.h>

struct cJSON;

enum { EVENT_LINE_MAX = 4 * 1024 * 1024 }; /* bytes of a line with its newline */

/* --- writing --- */
struct event_log; /* opaque: descriptor and the next seq */

/* Opens path for appending, makes it if missing, cuts a torn last line off, continues seq. */
int event_log_open(struct event_log **out, const char *path, struct err *err);
void event_log_close(struct event_log *log);

/* Takes ownership of object (a cJSON object with "type" and the event's own fields), puts seq and
 * time before its fields, appends one line with one write(2). On failure nothing of the line stays and its
 * seq is free. */
int event_log_append(struct event_log *log, struct cJSON *object, struct err *err);

/* What a full disk means to event_log_append: it calls wait (err is not NULL then) and, if that returns true, tries again; without
 * one, or on false, it fails with ERR_NO_SPACE. */
void event_log_on_full(struct event_log *log, bool (*wait)(void *context, const struct err *why), void *context);

/* A number for an event: finite -> the shortest text that reads back as the same double;
 * otherwise null and "nonfinite": "nan" | "inf" | "-inf" in object. */
void event_add_number(struct cJSON *object, const char *key, double value);

/* --- reading --- */
struct event {
    uint64_t seq;
    const char *type;      /* inside json */
    struct cJSON *json;    /* owned by the struct */
};

/* Parses one line of len bytes without its newline; ERR_CORRUPT names what is wrong. */
int event_parse(struct event *event, const char *line, size_t len, struct err *err);
void event_release(struct event *event);

#endif
