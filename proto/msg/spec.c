#include "proto/msg/spec.h"

#include "proto/base/mem.h"
#include "proto/base/suggest.h"
#include "proto/json/json.h"
#include "proto/msg/spec_private.h"
#include <assert.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SPEC_SHOWN_MAX = 48 }; /* bytes of a wrong value that a fault quotes */

void spec_init(struct job_spec *spec) { memset(spec, 0, sizeof(*spec)); }

static void list_release(struct str_list *list)
{
    for (size_t i = 0; i < list->count; i++) {
        free(list->items[i]);
    }
    free(list->items);
    *list = (struct str_list){0};
}

void spec_release(struct job_spec *spec)
{
    list_release(&spec->data.train);
    list_release(&spec->data.validation);
    spec_init(spec);
}

/* --- drafts --- */

bool spec_given(const struct spec_draft *draft, const char *path)
{
    return draft->given[spec_row(path)];
}

bool spec_sound(const struct spec_draft *draft, const char *const *paths)
{
    for (; *paths; paths++) {
        if (draft->faulty[spec_row(*paths)]) {
            return false;
        }
    }
    return true;
}

void spec_fault(struct spec_draft *draft, const char *field, const char *format, ...)
{
    struct spec_faults *faults = draft->faults;
    if (faults->count < SPEC_FAULTS_MAX) {
        struct spec_fault *fault = &faults->items[faults->count];
        snprintf(fault->field, sizeof(fault->field), "%s", field);
        va_list args;
        va_start(args, format);
        vsnprintf(fault->reason, sizeof(fault->reason), format, args);
        va_end(args);
    }
    faults->count++;
    size_t count;
    const struct opt *rows = spec_options(&count);
    for (size_t i = 0; i < count; i++) {
        if (strcmp(rows[i].path, field) == 0) {
            draft->faulty[i] = true;
        }
    }
}

static void spec_duplicate(void *context, const char *pointer)
{
    spec_fault(context, pointer, "given more than once");
}

/* --- one value --- */

/* The start of a value's JSON text, for messages. */
static const char *value_show(const cJSON *value, char out[SPEC_SHOWN_MAX + 4])
{
    struct buf text;
    buf_init(&text, SPEC_BODY_MAX * 8);
    json_print(value, &text);
    size_t len = text.len;
    if (len > SPEC_SHOWN_MAX) {
        for (len = SPEC_SHOWN_MAX; len > 0 && ((unsigned char)text.data[len] & 0xc0) == 0x80;) {
            len--; /* not inside a character */
        }
    }
    snprintf(out, SPEC_SHOWN_MAX + 4, "%.*s%s", (int)len, text.data ? text.data : "",
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
    char shown[SPEC_SHOWN_MAX + 4];
    void *field = (char *)draft->spec + row->offset;
    int64_t whole = 0;
    bool is_int = row->type == OPT_INT;
    if (is_int ? !json_whole(&whole, value) : !cJSON_IsNumber(value)) {
        spec_fault(draft, row->path, "must be a %s, got %s", is_int ? "whole number" : "number",
                   value_show(value, shown));
    } else if (!(value->valuedouble >= row->min && value->valuedouble <= row->max)) {
        struct buf text;
        buf_init(&text, ERR_TEXT_MAX);
        buf_puts(&text, "must be from ");
        json_print_number(row->min, &text);
        buf_puts(&text, " to ");
        json_print_number(row->max, &text);
        spec_fault(draft, row->path, "%s, got %s", text.data, value_show(value, shown));
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
    char shown[SPEC_SHOWN_MAX + 4];
    const char *text = cJSON_IsString(value) ? value->valuestring : NULL;
    value_show(value, shown);
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
    char shown[SPEC_SHOWN_MAX + 4];
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
                   value_show(value, shown));
        return;
    }
    memcpy((char *)draft->spec + row->offset, &seed, sizeof(seed));
}

static void set_list(struct spec_draft *draft, const struct opt *row, const cJSON *value)
{
    char shown[SPEC_SHOWN_MAX + 4];
    struct str_list *list = (struct str_list *)(void *)((char *)draft->spec + row->offset);
    if (!cJSON_IsArray(value)) {
        spec_fault(draft, row->path, "must be an array of strings, got %s",
                   value_show(value, shown));
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
                       OPT_ITEM_MAX, value_show(item, shown));
            draft->faulty[row - spec_options(&(size_t){0})] = true;
        } else if (list->items && (list->items[list->count] = mem_strdup(text))) {
            list->count++;
        } else {
            spec_fault(draft, field, "out of memory");
        }
    }
}

static void set_value(struct spec_draft *draft, const struct opt *row, const cJSON *value)
{
    char shown[SPEC_SHOWN_MAX + 4];
    switch (row->type) {
    case OPT_BOOL:
        if (!cJSON_IsBool(value)) {
            spec_fault(draft, row->path, "must be true or false, got %s",
                       value_show(value, shown));
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

static void set_default(struct spec_draft *draft, const struct opt *row)
{
    if (!row->def || row->def[0] == '\0') {
        return;
    }
    cJSON *value;
    size_t before = draft->faults->count;
    if (json_parse(&value, row->def, strlen(row->def), NULL) != 0) {
        spec_fault(draft, row->path, "out of memory");
        return;
    }
    set_value(draft, row, value);
    cJSON_Delete(value);
    assert(draft->faults->count == before); /* defaults obey their own bounds */
}

/* --- the whole text --- */

/* The first row at path or inside the section path. */
static const struct opt *find_row(const char *path, bool *section)
{
    size_t count, len = strlen(path);
    const struct opt *rows = spec_options(&count);
    for (size_t i = 0; i < count; i++) {
        if (strncmp(rows[i].path, path, len) == 0 &&
            (rows[i].path[len] == '\0' || rows[i].path[len] == '/')) {
            *section = rows[i].path[len] == '/';
            return &rows[i];
        }
    }
    return NULL;
}

static void fault_unknown(struct spec_draft *draft, const char *pointer)
{
    struct suggestion best = {0};
    size_t count;
    const struct opt *rows = spec_options(&count);
    const char *name = strrchr(pointer, '/') + 1;
    for (size_t i = 0; i < count; i++) {
        suggest_offer(&best, name, strrchr(rows[i].path, '/') + 1);
    }
    const char *where = NULL; /* the same or nearest name, in its own section if it is there */
    for (size_t i = 0; best.name && i < count; i++) {
        bool same = strcmp(strrchr(rows[i].path, '/') + 1, best.name) == 0;
        bool beside = strncmp(rows[i].path, pointer, (size_t)(name - pointer)) == 0;
        if (same && (!where || beside)) {
            where = rows[i].path;
        }
    }
    if (where) {
        spec_fault(draft, pointer, "unknown field; did you mean %s?", where);
    } else {
        spec_fault(draft, pointer, "unknown field");
    }
}

/* One level of the tree: prefix "" or "/section". */
static void take_members(struct spec_draft *draft, const cJSON *object, const char *prefix)
{
    for (const cJSON *item = object->child; item; item = item->next) {
        struct buf pointer;
        buf_init(&pointer, SPEC_BODY_MAX * 4);
        buf_puts(&pointer, prefix);
        json_pointer_add(&pointer, item->string);
        const char *path = pointer.data ? pointer.data : "";
        bool section = false;
        const struct opt *row = find_row(path, &section);
        char shown[SPEC_SHOWN_MAX + 4];
        if (!row || (prefix[0] != '\0' && section)) {
            fault_unknown(draft, path);
        } else if (!section) {
            size_t index = (size_t)(row - spec_options(&(size_t){0}));
            if (!draft->given[index]) { /* the first of two; the second is a fault already */
                draft->given[index] = true;
                set_value(draft, row, item);
            }
        } else if (cJSON_IsObject(item)) {
            take_members(draft, item, path);
        } else {
            spec_fault(draft, path, "must be an object, got %s", value_show(item, shown));
        }
        buf_release(&pointer);
    }
}

static void take_tree(struct spec_draft *draft, const cJSON *tree)
{
    size_t count;
    const struct opt *rows = spec_options(&count);
    take_members(draft, tree, "");
    for (size_t i = 0; i < count; i++) {
        if (draft->given[i] && !draft->faulty[i]) {
            continue;
        }
        if (!draft->given[i] && !rows[i].def) {
            spec_fault(draft, rows[i].path, "required");
        }
        if (rows[i].type != OPT_STRINGS || !draft->given[i]) {
            set_default(draft, &rows[i]); /* a faulty field too, so that the rules can run */
        }
    }
    spec_complete(draft);
    spec_check(draft);
}

static int parse_text(struct spec_draft *draft, const char *json, size_t len)
{
    struct err err = {0};
    cJSON *tree = NULL;
    char shown[SPEC_SHOWN_MAX + 4];
    if (len > SPEC_BODY_MAX) {
        spec_fault(draft, "", "a job of %zu bytes; the limit is %d", len, SPEC_BODY_MAX);
        return ERR_LIMIT;
    }
    int rc = json_parse_keys(&tree, json, len, spec_duplicate, draft, &err);
    if (rc) {
        spec_fault(draft, "", "%s", err.text);
        return rc;
    }
    if (cJSON_IsObject(tree)) {
        take_tree(draft, tree);
    } else {
        spec_fault(draft, "", "a job must be an object, got %s", value_show(tree, shown));
    }
    cJSON_Delete(tree);
    return draft->faults->count > 0 ? ERR_INVALID : 0;
}

int spec_parse(struct job_spec *spec, const char *json, size_t len, struct spec_faults *faults,
               struct err *err)
{
    struct spec_faults *kept = faults ? faults : mem_zeroed(1, sizeof(*kept));
    spec_init(spec);
    if (!kept) {
        return err_set(err, ERR_NO_MEMORY, "job: out of memory");
    }
    kept->count = 0;
    struct spec_draft draft = {.spec = spec, .faults = kept};
    int rc = parse_text(&draft, json, len);
    if (rc) {
        const struct spec_fault *first = &kept->items[0];
        err_set(err, rc, "%s%s%s", first->field, first->field[0] ? ": " : "", first->reason);
        spec_release(spec);
    }
    if (kept != faults) {
        free(kept);
    }
    return rc;
}

/* --- printing --- */

static void print_value(const struct job_spec *spec, const struct opt *row, struct buf *out)
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

void spec_print(const struct job_spec *spec, struct buf *out)
{
    size_t count;
    const struct opt *rows = spec_options(&count);
    const char *section = ""; /* of the row before: points at its path */
    size_t section_len = 0;
    buf_puts(out, "{");
    for (size_t i = 0; i < count; i++) {
        const char *key = strrchr(rows[i].path, '/') + 1;
        size_t len = (size_t)(key - rows[i].path);
        if (!spec_row_applies(spec, &rows[i])) {
            continue;
        }
        bool same = len == section_len && strncmp(section, rows[i].path, len) == 0;
        if (!same && section_len > 1) {
            buf_puts(out, "}");
        }
        buf_puts(out, i > 0 && (same || len > 1) ? "," : "");
        if (!same && len > 1) {
            buf_printf(out, "\"%.*s\":{", (int)(len - 2), rows[i].path + 1);
        }
        buf_printf(out, "\"%s\":", key);
        print_value(spec, &rows[i], out);
        section = rows[i].path;
        section_len = len;
    }
    buf_puts(out, section_len > 1 ? "}}" : "}");
}
