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
 * with "line L column C: reason". *out is freed with cJSON_Delete. */
int json_parse(cJSON **out, const char *text, size_t len, struct err *err);

/* Reads and parses a file of at most max bytes. */
int json_read(cJSON **out, const char *path, size_t max, struct err *err);

/* Appends compact text. Numbers print as the shortest text that reads back as the same double,
 * integers up to 2^53 without fraction or exponent. */
void json_print(const cJSON *value, struct buf *out);

/* Typed look-ups of an object's member, case-sensitive. False if missing, of another type, or (int)
 * not a whole number within +-2^53. */
bool json_int(int64_t *out, const cJSON *object, const char *key);
bool json_real(double *out, const cJSON *object, const char *key);
bool json_bool(bool *out, const cJSON *object, const char *key);
const char *json_string(const cJSON *object, const char *key); /* NULL if missing */
const cJSON *json_array(const cJSON *object, const char *key);
const cJSON *json_object(const cJSON *object, const char *key);

#endif
