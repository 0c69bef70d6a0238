#include "proto/json/json.h"

#include "proto/base/fsx.h"
#include "proto/json/json_scan.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { JSON_POINTER_MAX = 4096 };

static const double json_int_max = 9007199254740992.0; /* 2^53 */

/* --- memory --- */

/* cJSON_Add... leaves a member out when memory runs out, and nobody looks at all of their
 * results: what was left out is counted here, and json_print then refuses. Per thread, since an
 * object is built and printed by one. */
static _Thread_local unsigned json_failures;

static void *json_malloc(size_t size)
{
    void *memory = malloc(size);
    json_failures += memory == NULL;
    return memory;
}

__attribute__((constructor)) static void json_count_failures(void)
{
    cJSON_Hooks hooks = {.malloc_fn = json_malloc, .free_fn = free};
    cJSON_InitHooks(&hooks);
}

/* --- duplicate keys --- */

struct json_dups {
    json_duplicate_fn *fn;
    void *context;
    struct buf pointer; /* of the value being looked at */
};

static int json_compare_keys(const void *a, const void *b)
{
    const cJSON *const *x = a, *const *y = b;
    return strcmp((*x)->string, (*y)->string);
}

void json_pointer_add(struct buf *pointer, const char *key)
{
    buf_puts(pointer, "/");
    for (const char *c = key; *c; c++) {
        if (*c == '~') {
            buf_puts(pointer, "~0");
        } else if (*c == '/') {
            buf_puts(pointer, "~1");
        } else {
            buf_add(pointer, c, 1);
        }
    }
}

static void json_pointer_cut(struct buf *pointer, size_t len)
{
    if (pointer->data) {
        pointer->len = len;
        pointer->data[len] = '\0';
    }
    pointer->failed = false;
}

/* Reports the keys of one object that occur more than once, each once. False: out of memory. */
static bool json_object_dups(struct json_dups *dups, const cJSON *object)
{
    size_t count = 0, i = 0;
    for (const cJSON *item = object->child; item; item = item->next) {
        count++;
    }
    if (count < 2) {
        return true;
    }
    const cJSON **items = calloc(count, sizeof(*items));
    if (!items) {
        return false;
    }
    for (const cJSON *item = object->child; item; item = item->next) {
        items[i++] = item;
    }
    qsort(items, count, sizeof(*items), json_compare_keys);
    for (i = 1; i < count; i++) {
        bool same = strcmp(items[i]->string, items[i - 1]->string) == 0;
        if (same && (i < 2 || strcmp(items[i]->string, items[i - 2]->string) != 0)) {
            size_t len = dups->pointer.len;
            json_pointer_add(&dups->pointer, items[i]->string);
            dups->fn(dups->context, dups->pointer.data ? dups->pointer.data : "");
            json_pointer_cut(&dups->pointer, len);
        }
    }
    free(items);
    return true;
}

static bool json_find_dups(struct json_dups *dups, const cJSON *value)
{
    if (cJSON_IsObject(value) && !json_object_dups(dups, value)) {
        return false;
    }
    size_t index = 0;
    for (const cJSON *item = value->child; item; item = item->next, index++) {
        if (!item->child) {
            continue;
        }
        size_t len = dups->pointer.len;
        if (item->string) {
            json_pointer_add(&dups->pointer, item->string);
        } else {
            buf_printf(&dups->pointer, "/%zu", index);
        }
        if (!json_find_dups(dups, item)) {
            return false;
        }
        json_pointer_cut(&dups->pointer, len);
    }
    return true;
}

/* --- parsing --- */

int json_parse_keys(cJSON **out, const char *text, size_t len, json_duplicate_fn *duplicate,
                    void *context, struct err *err)
{
    *out = NULL;
    int rc = json_scan(text, len, err);
    if (rc) {
        return rc;
    }
    cJSON *value = cJSON_ParseWithLength(text, len);
    if (!value) {
        json_failures = 0; /* told here */
        return err_set(err, ERR_NO_MEMORY, "JSON of %zu bytes: out of memory", len);
    }
    struct json_dups dups = {.fn = duplicate, .context = context};
    buf_init(&dups.pointer, JSON_POINTER_MAX);
    bool ok = json_find_dups(&dups, value);
    buf_release(&dups.pointer);
    if (!ok) {
        cJSON_Delete(value);
        return err_set(err, ERR_NO_MEMORY, "JSON of %zu bytes: out of memory", len);
    }
    *out = value;
    return 0;
}

struct json_first_dup {
    bool found;
    char pointer[ERR_TEXT_MAX];
};

static void json_keep_first(void *context, const char *pointer)
{
    struct json_first_dup *first = context;
    if (!first->found) {
        first->found = true;
        snprintf(first->pointer, sizeof(first->pointer), "%s", pointer);
    }
}

int json_parse(cJSON **out, const char *text, size_t len, struct err *err)
{
    struct json_first_dup first = {0};
    int rc = json_parse_keys(out, text, len, json_keep_first, &first, err);
    if (!rc && first.found) {
        cJSON_Delete(*out);
        *out = NULL;
        rc = err_set(err, ERR_INVALID, "duplicate key %s", first.pointer);
    }
    return rc;
}

int json_read(cJSON **out, const char *path, size_t max, struct err *err)
{
    struct buf text;
    buf_init(&text, max);
    *out = NULL;
    int rc = fsx_read(&text, path, err);
    if (!rc) {
        rc = json_parse(out, text.data, text.len, err);
        if (rc) {
            err_wrap(err, rc, "%s", path);
        }
    }
    buf_release(&text);
    return rc;
}

/* --- printing --- */

void json_print_number(double value, struct buf *out)
{
    if (!isfinite(value)) {
        buf_puts(out, "null");
    } else if (fabs(value) <= json_int_max && value == floor(value)) {
        buf_printf(out, "%.0f", value);
    } else {
        char text[40];
        for (int digits = 15; digits <= 17; digits++) {
            snprintf(text, sizeof(text), "%.*g", digits, value);
            if (strtod(text, NULL) == value) {
                break;
            }
        }
        char *exponent = strchr(text, 'e');
        if (exponent) { /* 1e-08 -> 1e-8, 1e+20 -> 1e20 */
            char *digits = exponent + 2;
            digits += strspn(digits, "0");
            char *to = exponent + (exponent[1] == '-' ? 2 : 1);
            memmove(to, digits, strlen(digits) + 1);
        }
        buf_puts(out, text);
    }
}

void json_print_string(const char *text, struct buf *out)
{
    static const char *const replacement = "\xef\xbf\xbd"; /* U+FFFD */
    buf_puts(out, "\"");
    const char *end = text + strlen(text);
    while (text < end) {
        unsigned char c = (unsigned char)*text;
        size_t len = json_utf8_length(text, (size_t)(end - text));
        if (len == 0) {
            buf_puts(out, replacement);
            len = 1;
        } else if (c == '"' || c == '\\') {
            buf_printf(out, "\\%c", c);
        } else if (c == '\n') {
            buf_puts(out, "\\n");
        } else if (c == '\t') {
            buf_puts(out, "\\t");
        } else if (c < 0x20) {
            buf_printf(out, "\\u%04x", c);
        } else {
            buf_add(out, text, len);
        }
        text += len;
    }
    buf_puts(out, "\"");
}

static void json_print_value(const cJSON *value, struct buf *out)
{
    if (cJSON_IsNumber(value)) {
        json_print_number(value->valuedouble, out);
    } else if (cJSON_IsString(value)) {
        json_print_string(value->valuestring, out);
    } else if (cJSON_IsRaw(value)) {
        buf_puts(out, value->valuestring);
    } else if (cJSON_IsBool(value)) {
        buf_puts(out, cJSON_IsTrue(value) ? "true" : "false");
    } else if (cJSON_IsArray(value) || cJSON_IsObject(value)) {
        bool object = cJSON_IsObject(value);
        buf_puts(out, object ? "{" : "[");
        for (const cJSON *item = value->child; item; item = item->next) {
            if (object) {
                json_print_string(item->string, out);
                buf_puts(out, ":");
            }
            json_print_value(item, out);
            if (item->next) {
                buf_puts(out, ",");
            }
        }
        buf_puts(out, object ? "}" : "]");
    } else {
        buf_puts(out, "null");
    }
}

void json_print(const cJSON *value, struct buf *out)
{
    json_print_value(value, out);
    out->failed |= json_failures > 0;
    json_failures = 0;
}

/* --- look-ups --- */

bool json_whole(int64_t *out, const cJSON *value)
{
    if (!cJSON_IsNumber(value) || !(fabs(value->valuedouble) <= json_int_max) ||
        value->valuedouble != floor(value->valuedouble)) {
        return false;
    }
    *out = (int64_t)value->valuedouble;
    return true;
}

bool json_int(int64_t *out, const cJSON *object, const char *key)
{
    return json_whole(out, cJSON_GetObjectItemCaseSensitive(object, key));
}

bool json_real(double *out, const cJSON *object, const char *key)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);
    if (!cJSON_IsNumber(item)) {
        return false;
    }
    *out = item->valuedouble;
    return true;
}

bool json_bool(bool *out, const cJSON *object, const char *key)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);
    if (!cJSON_IsBool(item)) {
        return false;
    }
    *out = cJSON_IsTrue(item);
    return true;
}

const char *json_string(const cJSON *object, const char *key)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);
    return cJSON_IsString(item) ? item->valuestring : NULL;
}

const cJSON *json_array(const cJSON *object, const char *key)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);
    return cJSON_IsArray(item) ? item : NULL;
}

const cJSON *json_object(const cJSON *object, const char *key)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);
    return cJSON_IsObject(item) ? item : NULL;
}
