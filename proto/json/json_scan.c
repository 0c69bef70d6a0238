#include "proto/json/json_scan.h"

#include "proto/json/json.h"
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct scan {
    const char *start, *at, *end;
    struct err *err;
};

static int scan_value(struct scan *scan, int depth);

/* ERR_INVALID at the position where. */
static int __attribute__((format(printf, 3, 4)))
scan_fail(struct scan *scan, const char *where, const char *format, ...)
{
    size_t line = 1, column = 1;
    for (const char *c = scan->start; c < where; c++) {
        column++;
        if (*c == '\n') {
            line++;
            column = 1;
        }
    }
    char reason[128];
    va_list args;
    va_start(args, format);
    vsnprintf(reason, sizeof(reason), format, args);
    va_end(args);
    return err_set(scan->err, ERR_INVALID, "line %zu column %zu: %s", line, column, reason);
}

static int scan_unexpected(struct scan *scan, const char *wanted)
{
    if (scan->at == scan->end) {
        return scan_fail(scan, scan->at, "the text ends where %s should be", wanted);
    }
    unsigned char c = (unsigned char)*scan->at;
    if (c > 0x20 && c < 0x7f) {
        return scan_fail(scan, scan->at, "'%c' where %s should be", c, wanted);
    }
    return scan_fail(scan, scan->at, "byte 0x%02x where %s should be", c, wanted);
}

static void scan_space(struct scan *scan)
{
    while (scan->at < scan->end &&
           (*scan->at == ' ' || *scan->at == '\t' || *scan->at == '\n' || *scan->at == '\r')) {
        scan->at++;
    }
}

static bool scan_take(struct scan *scan, char c)
{
    if (scan->at < scan->end && *scan->at == c) {
        scan->at++;
        return true;
    }
    return false;
}

/* Skips decimal digits and returns how many there were. */
static size_t scan_digits(struct scan *scan)
{
    const char *from = scan->at;
    while (scan->at < scan->end && *scan->at >= '0' && *scan->at <= '9') {
        scan->at++;
    }
    return (size_t)(scan->at - from);
}

static int scan_number(struct scan *scan)
{
    const char *from = scan->at;
    scan_take(scan, '-');
    if (scan_take(scan, '0')) {
        if (scan_digits(scan) > 0) {
            return scan_fail(scan, from, "a number with a leading zero");
        }
    } else if (scan_digits(scan) == 0) {
        return scan_unexpected(scan, "a digit");
    }
    if (scan_take(scan, '.') && scan_digits(scan) == 0) {
        return scan_unexpected(scan, "a digit");
    }
    if (scan_take(scan, 'e') || scan_take(scan, 'E')) {
        if (!scan_take(scan, '+')) {
            scan_take(scan, '-');
        }
        if (scan_digits(scan) == 0) {
            return scan_unexpected(scan, "a digit");
        }
    }
    size_t len = (size_t)(scan->at - from);
    if (len > JSON_NUMBER_MAX) {
        return scan_fail(scan, from, "a number longer than %d characters", JSON_NUMBER_MAX);
    }
    char text[JSON_NUMBER_MAX + 1];
    memcpy(text, from, len);
    text[len] = '\0';
    if (!isfinite(strtod(text, NULL))) {
        return scan_fail(scan, from, "the number %s does not fit a double", text);
    }
    return 0;
}

/* Four hexadecimal digits after "\u". */
static int scan_hex4(struct scan *scan, unsigned *out)
{
    *out = 0;
    for (int i = 0; i < 4; i++, scan->at++) {
        char c = scan->at < scan->end ? *scan->at : '\0';
        unsigned digit;
        if (c >= '0' && c <= '9') {
            digit = (unsigned)(c - '0');
        } else if (c >= 'a' && c <= 'f') {
            digit = (unsigned)(c - 'a') + 10;
        } else if (c >= 'A' && c <= 'F') {
            digit = (unsigned)(c - 'A') + 10;
        } else {
            return scan_unexpected(scan, "a hexadecimal digit");
        }
        *out = *out * 16 + digit;
    }
    return 0;
}

/* What follows a backslash in a string. */
static int scan_escape(struct scan *scan)
{
    const char *from = scan->at - 1;
    if (scan->at < scan->end && *scan->at != '\0' && strchr("\"\\/bfnrt", *scan->at)) {
        scan->at++;
        return 0;
    }
    if (!scan_take(scan, 'u')) {
        return scan_unexpected(scan, "an escape (one of \" \\ / b f n r t u)");
    }
    unsigned unit, low;
    int rc = scan_hex4(scan, &unit);
    if (rc) {
        return rc;
    }
    if (unit == 0) {
        return scan_fail(scan, from, "\\u0000 in a string");
    }
    if (unit < 0xd800 || unit > 0xdfff) {
        return 0;
    }
    if (unit > 0xdbff || !scan_take(scan, '\\') || !scan_take(scan, 'u')) {
        return scan_fail(scan, from, "a lone surrogate in a string");
    }
    rc = scan_hex4(scan, &low);
    if (!rc && (low < 0xdc00 || low > 0xdfff)) {
        rc = scan_fail(scan, from, "a lone surrogate in a string");
    }
    return rc;
}

static int scan_string(struct scan *scan)
{
    const char *from = scan->at;
    scan->at++;
    while (scan->at < scan->end) {
        unsigned char c = (unsigned char)*scan->at;
        if (c == '"') {
            scan->at++;
            return 0;
        }
        if (c < 0x20) {
            return scan_fail(scan, scan->at, "control character 0x%02x in a string", c);
        }
        size_t len = json_utf8_length(scan->at, (size_t)(scan->end - scan->at));
        if (len == 0) {
            return scan_fail(scan, scan->at, "byte 0x%02x is not UTF-8", c);
        }
        scan->at += len;
        if (c == '\\') {
            int rc = scan_escape(scan);
            if (rc) {
                return rc;
            }
        }
    }
    return scan_fail(scan, from, "a string without its end");
}

static int scan_members(struct scan *scan, char close, int depth)
{
    bool object = close == '}';
    if (depth >= JSON_DEPTH_MAX) {
        return scan_fail(scan, scan->at, "nested deeper than %d", JSON_DEPTH_MAX);
    }
    scan->at++;
    scan_space(scan);
    if (scan_take(scan, close)) {
        return 0;
    }
    for (;;) {
        scan_space(scan);
        if (object) {
            if (scan->at == scan->end || *scan->at != '"') {
                return scan_unexpected(scan, "a key in double quotes");
            }
            int rc = scan_string(scan);
            if (rc) {
                return rc;
            }
            scan_space(scan);
            if (!scan_take(scan, ':')) {
                return scan_unexpected(scan, "':'");
            }
            scan_space(scan);
        }
        int rc = scan_value(scan, depth + 1);
        if (rc) {
            return rc;
        }
        scan_space(scan);
        if (scan_take(scan, close)) {
            return 0;
        }
        if (!scan_take(scan, ',')) {
            return scan_unexpected(scan, object ? "',' or '}'" : "',' or ']'");
        }
    }
}

static int scan_value(struct scan *scan, int depth)
{
    static const char *const words[] = {"true", "false", "null"};
    char c = scan->at < scan->end ? *scan->at : '\0';
    if (c == '{' || c == '[') {
        return scan_members(scan, c == '{' ? '}' : ']', depth);
    }
    if (c == '"') {
        return scan_string(scan);
    }
    if (c == '-' || (c >= '0' && c <= '9')) {
        return scan_number(scan);
    }
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        size_t len = strlen(words[i]);
        if ((size_t)(scan->end - scan->at) >= len && memcmp(scan->at, words[i], len) == 0) {
            scan->at += len;
            return 0;
        }
    }
    return scan_unexpected(scan, "a value");
}

int json_scan(const char *text, size_t len, struct err *err)
{
    if (!text) { /* an empty struct buf */
        text = "";
    }
    struct scan scan = {.start = text, .at = text, .end = text + len, .err = err};
    scan_space(&scan);
    int rc = scan_value(&scan, 0);
    if (rc) {
        return rc;
    }
    scan_space(&scan);
    return scan.at == scan.end ? 0 : scan_unexpected(&scan, "the end of the text");
}

size_t json_utf8_length(const char *text, size_t len)
{
    const unsigned char *c = (const unsigned char *)text;
    if (len == 0) {
        return 0;
    }
    if (c[0] < 0x80) {
        return 1;
    }
    size_t need = c[0] >= 0xf0 ? 4 : c[0] >= 0xe0 ? 3 : 2;
    if (c[0] < 0xc2 || c[0] > 0xf4 || len < need) {
        return 0;
    }
    for (size_t i = 1; i < need; i++) {
        if ((c[i] & 0xc0) != 0x80) {
            return 0;
        }
    }
    bool overlong = (c[0] == 0xe0 && c[1] < 0xa0) || (c[0] == 0xf0 && c[1] < 0x90);
    bool surrogate = c[0] == 0xed && c[1] > 0x9f;
    bool beyond = c[0] == 0xf4 && c[1] > 0x8f;
    return overlong || surrogate || beyond ? 0 : need;
}
