#include "proto/msg/spec.h"

#include "proto/base/mem.h"
#include "proto/base/suggest.h"
#include "proto/json/json.h"
#include "proto/msg/spec_private.h"
#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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
    list_release(&spec->labels);
    list_release(&spec->model.init_from);
    list_release(&spec->data.train);
    list_release(&spec->data.validation);
    list_release(&spec->slurm.options);
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

void spec_no_memory(struct spec_draft *draft, const char *field)
{
    spec_fault(draft, field, "out of memory");
    draft->no_memory = true;
}

static void spec_duplicate(void *context, const char *pointer)
{
    spec_fault(context, pointer, "given more than once");
}

/* --- the whole text --- */

static void set_default(struct spec_draft *draft, const struct opt *row)
{
    if (!row->def || row->def[0] == '\0') {
        return;
    }
    cJSON *value;
    size_t before = draft->faults->count;
    if (json_parse(&value, row->def, strlen(row->def), NULL) != 0) {
        spec_no_memory(draft, row->path);
        return;
    }
    spec_set_value(draft, row, value);
    cJSON_Delete(value);
    assert(draft->faults->count == before || draft->no_memory); /* defaults obey their bounds */
}

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

/* Offers the sections' names to a field at the top. */
static const char *nearest_section(const char *name, char section[OPT_STRING_MAX])
{
    size_t count;
    const struct opt *rows = spec_options(&count);
    struct suggestion best = {0};
    for (size_t i = 0; i < count; i++) {
        char candidate[OPT_STRING_MAX];
        snprintf(candidate, sizeof(candidate), "%s", rows[i].path + 1);
        char *slash = strchr(candidate, '/');
        if (slash) {
            *slash = '\0';
            suggest_offer(&best, name, candidate);
        }
        if (best.name == candidate) { /* the nearest so far: keep its text */
            strcpy(section, candidate);
            best.name = section;
        }
    }
    return best.name;
}

static void fault_unknown(struct spec_draft *draft, const char *pointer)
{
    struct suggestion best = {0};
    size_t count;
    const struct opt *rows = spec_options(&count);
    const char *name = strrchr(pointer, '/') + 1, *where = NULL;
    for (size_t i = 0; i < count; i++) {
        suggest_offer(&best, name, strrchr(rows[i].path, '/') + 1);
    }
    for (size_t i = 0; best.name && i < count; i++) { /* in the same section if it is there */
        const char *key = strrchr(rows[i].path, '/') + 1;
        size_t len = (size_t)(key - rows[i].path);
        bool beside =
            len == (size_t)(name - pointer) && memcmp(rows[i].path, pointer, len) == 0;
        if (strcmp(key, best.name) == 0 && (!where || beside)) {
            where = rows[i].path;
        }
    }
    char section[OPT_STRING_MAX];
    const char *near = name == pointer + 1 ? nearest_section(name, section) : NULL;
    if (near && (!where || best.distance > 0)) {
        spec_fault(draft, pointer, "unknown field; did you mean /%s?", near);
    } else if (where) {
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
        if (pointer.failed) {
            buf_release(&pointer);
            spec_no_memory(draft, "");
            return;
        }
        const char *path = pointer.data;
        bool section = false;
        const struct opt *row = find_row(path, &section);
        char shown[SPEC_SHOWN_MAX];
        if (!row || (prefix[0] != '\0' && section)) {
            fault_unknown(draft, path);
        } else if (!section) {
            size_t index = (size_t)(row - spec_options(&(size_t){0}));
            if (!draft->given[index]) { /* the first of two; the second is a fault already */
                draft->given[index] = true;
                spec_set_value(draft, row, item);
            }
        } else if (cJSON_IsObject(item)) {
            take_members(draft, item, path);
        } else {
            spec_fault(draft, path, "must be an object, got %s", spec_show(item, shown));
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
    char shown[SPEC_SHOWN_MAX];
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
        spec_fault(draft, "", "a job must be an object, got %s", spec_show(tree, shown));
    }
    cJSON_Delete(tree);
    if (draft->no_memory) {
        return ERR_NO_MEMORY; /* says nothing about the job */
    }
    return draft->faults->count > 0 ? ERR_INVALID : 0;
}

int spec_parse_partial(struct job_spec *spec, const char *json, size_t len,
                       struct spec_faults *faults, bool *partial, struct err *err)
{
    spec_init(spec);
    faults->count = 0;
    struct spec_draft draft = {.spec = spec, .faults = faults};
    int rc = parse_text(&draft, json, len);
    *partial = rc == 0 || (rc == ERR_INVALID && faults->items[0].field[0] != '\0');
    if (rc) {
        const struct spec_fault *first = &faults->items[0];
        err_set(err, rc, "%s%s%s", first->field, first->field[0] ? ": " : "", first->reason);
    }
    return rc;
}

int spec_parse(struct job_spec *spec, const char *json, size_t len, struct spec_faults *faults,
               struct err *err)
{
    struct spec_faults *kept = faults ? faults : mem_zeroed(1, sizeof(*kept));
    bool partial;
    if (!kept) {
        spec_init(spec);
        return err_set(err, ERR_NO_MEMORY, "job: out of memory");
    }
    int rc = spec_parse_partial(spec, json, len, kept, &partial, err);
    if (rc) {
        spec_release(spec);
    }
    if (kept != faults) {
        free(kept);
    }
    return rc;
}

/* --- printing --- */

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
        spec_print_value(spec, &rows[i], out);
        section = rows[i].path;
        section_len = len;
    }
    buf_puts(out, section_len > 1 ? "}}" : "}");
}
