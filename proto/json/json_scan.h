/* The check that runs before cJSON: cJSON accepts more than JSON and drops what it cannot hold. */
#ifndef HEBB_JSON_SCAN_H
#define HEBB_JSON_SCAN_H

#include "proto/base/err.h"
#include <stddef.h>

enum { JSON_NUMBER_MAX = 63 }; /* characters of a number: the size of cJSON's buffer */

/* Accepts exactly one RFC 8259 value in valid UTF-8, nested at most JSON_DEPTH_MAX deep, without
 * NUL (raw or \u0000) and lone surrogates, whose numbers fit a finite double and JSON_NUMBER_MAX
 * characters. ERR_INVALID: "line L column C: reason"; columns count bytes, both start at 1. */
int json_scan(const char *text, size_t len, struct err *err);

/* Bytes of the UTF-8 character that text starts with; 0 if it is not one (RFC 3629: no overlong
 * form, no surrogate, at most U+10FFFF) or len cuts it. */
size_t json_utf8_length(const char *text, size_t len);

#endif
