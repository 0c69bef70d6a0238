/* Strict JSON on top of cJSON 1.7.15, which accepts more than JSON and drops what it cannot hold.
 * Every text from outside goes through json_parse; facts about cJSON are in docs/formats.md. */
#ifndef HEBB_JSON_H
#define HEBB_JSON_H

#include "proto/base/buf.h"
#include "proto/base/err.h"
#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stdint.h>

enum { JSON_DEPTH_MAX = 16 };

/* Parses len bytes of text: UTF-8, RFC 8259 grammar, depth <= JSON_DEPTH_MAX, no duplicate key, no
 * NUL (raw or escaped), numbers that fit a finite double, nothing after the value. ERR_INVALID
 * with "line L column C: reason", or "duplicate key POINTER". *out is freed with cJSON_Delete. */
int json_parse(cJSON **out, const char *text, size_t len, struct err *err);

/* The same, but duplicate keys are reported (each once, as a JSON pointer) and not refused. */
typedef void json_duplicate_fn(void *context, const char *pointer);
int json_parse_keys(cJSON **out, const char *text, size_t len, json_duplicate_fn *duplicate,
                    void *context, struct err *err);

/* Reads and parses a file of at most max bytes. */
int json_read(cJSON **out, const char *path, size_t max, struct err *err);

/* Appends compact text; out->failed if, on this thread and since the last call, an allocation of
 * cJSON failed: the object may lack members. Numbers print as the shortest text that reads back as the same double,
 * integers up to 2^53 without fraction or exponent. */
void json_print(const cJSON *value, struct buf *out);
void json_print_number(double value, struct buf *out);     /* not finite: null */
void json_print_string(const char *text, struct buf *out); /* bytes that are not UTF-8: U+FFFD */

/* Appends "/key" to a JSON pointer, '~' and '/' in key escaped (RFC 6901). */
void json_pointer_add(struct buf *pointer, const char *key);

/* Typed look-ups of an object's member, case-sensitive. False if missing, of another type, or (int)
 * not a whole number within +-2^53. */
bool json_whole(int64_t *out, const cJSON *value); /* the rule of json_int for a value itself */
bool json_int(int64_t *out, const cJSON *object, const char *key);
bool json_real(double *out, const cJSON *object, const char *key);
bool json_bool(bool *out, const cJSON *object, const char *key);
const char *json_string(const cJSON *object, const char *key); /* NULL if missing */
const cJSON *json_array(const cJSON *object, const char *key);
const cJSON *json_object(const cJSON *object, const char *key);

#endif
