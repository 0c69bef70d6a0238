/* One field: from JSON into the struct with its type and bounds checked, and back. */
#include "proto/base/mem.h"
#include "proto/json/json.h"
#include "proto/msg/spec_private.h"
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { SPEC_QUOTE_MAX = SPEC_SHOWN_MAX - 4 };

const char *spec_show(const cJSON *value, char out[SPEC_SHOWN_MAX])
{
    struct buf text;
    buf_init(&text, SPEC_BODY_MAX * 8);
    json_print(value, &text);
    size_t len = text.len;
    if (len > SPEC_QUOTE_MAX) {
        for (len = SPEC_QUOTE_MAX; len > 0 && ((unsigned char)text.data[len] & 0xc0) == 0x80;) {
            len--; /* not inside a character */
        }
    }
    snprintf(out, SPEC_SHOWN_MAX, "%.*s%s", (int)len, text.data ? text.data : "",
             len < text.len ? "..." : "");
    buf_release(&text);
    return out;
}

static bool text_has_control(const char *text)
{
    for (; *text; text++) {
        if ((unsigned char)*text < 0x20 || *text == 0x7f) {
            return true;
        }
    }
    return false;
}

static void set_number(struct spec_draft *draft, const struct opt *row, const cJSON *value)
{
    char shown[SPEC_SHOWN_MAX];
    void *field = (char *)draft->spec + row->offset;
    int64_t whole = 0;
    bool is_int = row->type == OPT_INT;
    if (is_int ? !json_whole(&whole, value) : !cJSON_IsNumber(value)) {
        spec_fault(draft, row->path, "must be a %s, got %s", is_int ? "whole number" : "number",
                   spec_show(value, shown));
    } else if (!(value->valuedouble >= row->min && value->valuedouble <= row->max)) {
        struct buf text;
        buf_init(&text, ERR_TEXT_MAX);
        buf_puts(&text, "must be from ");
        json_print_number(row->min, &text);
        buf_puts(&text, " to ");
        json_print_number(row->max, &text);
        spec_fault(draft, row->path, "%s, got %s", text.data, spec_show(value, shown));
        buf_release(&text);
    } else if (is_int) {
        memcpy(field, &whole, sizeof(whole));
    } else {
        memcpy(field, &value->valuedouble, sizeof(double));
    }
}

static void set_enum(struct spec_draft *draft, const struct opt *row, const char *text,
                     const char *shown)
{
    struct buf choices;
    buf_init(&choices, ERR_TEXT_MAX);
    for (const char *const *choice = row->choices; *choice; choice++) {
        if (text && strcmp(*choice, text) == 0) {
            snprintf((char *)draft->spec + row->offset, OPT_STRING_MAX, "%s", text);
            buf_release(&choices);
            return;
        }
        buf_printf(&choices, "%s%s", choices.len > 0 ? ", " : "", *choice);
    }
    spec_fault(draft, row->path, "must be %s%s, got %s", row->choices[1] ? "one of " : "",
               choices.data, shown);
    buf_release(&choices);
}

static void set_text(struct spec_draft *draft, const struct opt *row, const cJSON *value)
{
    char shown[SPEC_SHOWN_MAX];
    const char *text = cJSON_IsString(value) ? value->valuestring : NULL;
    spec_show(value, shown);
    if (row->type == OPT_ENUM) {
        set_enum(draft, row, text, shown);
    } else if (!text) {
        spec_fault(draft, row->path, "must be a string, got %s", shown);
    } else if (strlen(text) < (size_t)row->min || strlen(text) > (size_t)row->max) {
        spec_fault(draft, row->path, "must be %.0f to %.0f bytes long, got %zu", row->min,
                   row->max, strlen(text));
    } else if (text_has_control(text)) {
        spec_fault(draft, row->path, "must not hold control characters, got %s", shown);
    } else {
        snprintf((char *)draft->spec + row->offset, OPT_STRING_MAX, "%s", text);
    }
}

static void set_seed(struct spec_draft *draft, const struct opt *row, const cJSON *value)
{
    char shown[SPEC_SHOWN_MAX];
    const char *text = cJSON_IsString(value) ? value->valuestring : "";
    uint64_t seed = 0;
    bool ok = *text != '\0';
    for (const char *c = text; ok && *c; c++) {
        ok = *c >= '0' && *c <= '9' && !__builtin_mul_overflow(seed, 10U, &seed) &&
             !__builtin_add_overflow(seed, (uint64_t)(*c - '0'), &seed);
    }
    if (!ok) {
        spec_fault(draft, row->path,
                   "must be a string of decimal digits below 2^64, such as \"1\", got %s",
                   spec_show(value, shown));
        return;
    }
    memcpy((char *)draft->spec + row->offset, &seed, sizeof(seed));
}

static void set_list(struct spec_draft *draft, const struct opt *row, const cJSON *value)
{
    char shown[SPEC_SHOWN_MAX];
    struct str_list *list = (struct str_list *)(void *)((char *)draft->spec + row->offset);
    if (!cJSON_IsArray(value)) {
        spec_fault(draft, row->path, "must be an array of strings, got %s",
                   spec_show(value, shown));
        return;
    }
    int count = cJSON_GetArraySize(value);
    if (count < (int)row->min || count > (int)row->max) {
        spec_fault(draft, row->path, "must have %.0f to %.0f items, got %d", row->min, row->max,
                   count);
        return;
    }
    list->items = mem_zeroed((size_t)count, sizeof(*list->items));
    size_t index = 0;
    for (const cJSON *item = value->child; item; item = item->next, index++) {
        const char *text = cJSON_IsString(item) ? item->valuestring : "";
        char field[OPT_STRING_MAX];
        snprintf(field, sizeof(field), "%s/%zu", row->path, index);
        if (*text == '\0' || strlen(text) > OPT_ITEM_MAX || text_has_control(text)) {
            spec_fault(draft, field,
                       "must be a string of 1 to %d bytes without control characters, got %s",
                       OPT_ITEM_MAX, spec_show(item, shown));
            draft->faulty[row - spec_options(&(size_t){0})] = true;
        } else if (list->items && (list->items[list->count] = mem_strdup(text))) {
            list->count++;
        } else {
            spec_no_memory(draft, field);
        }
    }
}

void spec_set_value(struct spec_draft *draft, const struct opt *row, const cJSON *value)
{
    char shown[SPEC_SHOWN_MAX];
    switch (row->type) {
    case OPT_BOOL:
        if (!cJSON_IsBool(value)) {
            spec_fault(draft, row->path, "must be true or false, got %s",
                       spec_show(value, shown));
        } else {
            *((bool *)(void *)((char *)draft->spec + row->offset)) = cJSON_IsTrue(value);
        }
        break;
    case OPT_INT:
    case OPT_REAL:
        set_number(draft, row, value);
        break;
    case OPT_STRING:
    case OPT_ENUM:
        set_text(draft, row, value);
        break;
    case OPT_STRINGS:
        set_list(draft, row, value);
        break;
    case OPT_SEED:
        set_seed(draft, row, value);
        break;
    }
}

void spec_print_value(const struct job_spec *spec, const struct opt *row, struct buf *out)
{
    const void *field = (const char *)spec + row->offset;
    const struct str_list *list = field;
    switch (row->type) {
    case OPT_BOOL:
        buf_puts(out, *(const bool *)field ? "true" : "false");
        break;
    case OPT_INT:
        buf_printf(out, "%" PRId64, *(const int64_t *)field);
        break;
    case OPT_REAL:
        json_print_number(*(const double *)field, out);
        break;
    case OPT_STRING:
    case OPT_ENUM:
        json_print_string(field, out);
        break;
    case OPT_SEED:
        buf_printf(out, "\"%" PRIu64 "\"", *(const uint64_t *)field);
        break;
    case OPT_STRINGS:
        buf_puts(out, "[");
        for (size_t i = 0; i < list->count; i++) {
            buf_puts(out, i > 0 ? "," : "");
            json_print_string(list->items[i], out);
        }
        buf_puts(out, "]");
        break;
    }
}
