/* The arms of a sweep: those of the file, multiplied out by the grids. */
#include "daemon/cli/sweep_private.h"
#include "proto/base/mem.h"
#include "proto/base/opt.h"
#include "proto/json/json.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { AXES_MAX = 16, ARMS_MAX = 1000 };

/* --- values and pointers --- */

/* A value as it stands in an arm's name. */
static void put_value(struct buf *out, const cJSON *value)
{
    if (cJSON_IsString(value)) {
        buf_puts(out, value->valuestring);
    } else {
        json_print(value, out);
    }
}

/* The next token of an RFC 6901 pointer into key; false at the end. *ok: false for a bad escape
 * or a key that is too long. */
static bool pointer_next(const char **at, char key[OPT_STRING_MAX], bool *ok)
{
    const char *text = *at;
    size_t len = 0;
    if (*text != '/') {
        *ok = *ok && *text == '\0';
        return false;
    }
    for (text++; *text != '\0' && *text != '/'; text++) {
        char c = *text;
        if (c == '~') {
            text++;
            *ok = *ok && (*text == '0' || *text == '1');
            c = *text == '1' ? '/' : '~';
        }
        *ok = *ok && len + 1 < OPT_STRING_MAX;
        if (!*ok) {
            return false;
        }
        key[len++] = c;
    }
    key[len] = '\0';
    *at = text;
    return true;
}

bool sweep_set_at(cJSON *root, const char *pointer, const cJSON *value)
{
    char key[OPT_STRING_MAX], next[OPT_STRING_MAX];
    bool ok = true;
    if (!pointer_next(&pointer, key, &ok) || !cJSON_IsObject(root)) {
        return false;
    }
    while (pointer_next(&pointer, next, &ok)) {
        cJSON *inner = cJSON_GetObjectItemCaseSensitive(root, key);
        root = inner ? inner : cJSON_AddObjectToObject(root, key);
        if (!cJSON_IsObject(root)) {
            return false;
        }
        strcpy(key, next);
    }
    cJSON *copy = ok ? cJSON_Duplicate(value, true) : NULL;
    if (!copy) {
        return false;
    }
    cJSON_DeleteItemFromObjectCaseSensitive(root, key);
    return cJSON_AddItemToObject(root, key, copy);
}

bool sweep_pointer_fits(struct sweep_faults *faults, const char *where, const char *pointer)
{
    char key[OPT_STRING_MAX];
    const char *at = pointer;
    bool ok = *pointer == '/';
    while (ok && pointer_next(&at, key, &ok)) {
    }
    if (!ok) {
        sweep_fault(faults, where, "\"%s\" is no JSON pointer to a field, as /optimizer/lr is",
                    pointer);
    } else if (strcmp(pointer, "/name") == 0 || strcmp(pointer, "/train/seed") == 0) {
        sweep_fault(faults, where, "%s is set by the sweep%s", pointer,
                    pointer[1] == 't' ? ": list them in \"seeds\"" : "");
        ok = false;
    }
    return ok;
}

/* --- arms --- */

/* One arm of the file with its grid and the file's, or the file's grid alone. */
struct axes {
    const cJSON *items[AXES_MAX]; /* arrays; ->string is the pointer */
    size_t count;
};

static void take_grid(struct axes *axes, const cJSON *grid, const char *where,
                      struct sweep_faults *faults)
{
    const cJSON *axis;
    if (grid && !cJSON_IsObject(grid)) {
        sweep_fault(faults, where, "grid: must be an object {POINTER: [VALUE, ...]}");
        return;
    }
    cJSON_ArrayForEach(axis, grid)
    {
        if (!sweep_pointer_fits(faults, where, axis->string)) {
            continue;
        }
        for (size_t i = 0; i < axes->count; i++) {
            if (strcmp(axes->items[i]->string, axis->string) == 0) {
                sweep_fault(faults, where, "%s is in two grids", axis->string);
            }
        }
        if (!cJSON_IsArray(axis) || !axis->child) {
            sweep_fault(faults, where, "grid %s: must be an array with a value", axis->string);
        } else if (axes->count == AXES_MAX) {
            sweep_fault(faults, where, "grid: more than %d fields", AXES_MAX);
        } else {
            axes->items[axes->count++] = axis;
        }
    }
}

/* The last part of the pointer, or all of it where another axis ends alike. */
static const char *axis_title(const struct axes *axes, size_t index)
{
    const char *pointer = axes->items[index]->string, *last = strrchr(pointer, '/') + 1;
    for (size_t i = 0; i < axes->count; i++) {
        if (i != index && strcmp(strrchr(axes->items[i]->string, '/') + 1, last) == 0) {
            return pointer + 1;
        }
    }
    return last;
}

/* Adds the arm at point `number` of the grid; the last axis runs fastest. */
static int add_point(struct sweep_plan *plan, const cJSON *arm, const struct axes *axes,
                     size_t number, struct sweep_faults *faults, struct err *err)
{
    const char *title = json_string(arm, "name");
    const cJSON *item, *values[AXES_MAX];
    struct sweep_arm *out = &plan->arms[plan->arm_count];
    struct buf name;
    for (size_t i = axes->count; i-- > 0;) {
        size_t size = (size_t)cJSON_GetArraySize(axes->items[i]);
        values[i] = cJSON_GetArrayItem(axes->items[i], (int)(number % size));
        number /= size;
    }
    buf_init(&name, SWEEP_FILE_MAX);
    buf_puts(&name, title ? title : "");
    out->set = cJSON_CreateObject();
    cJSON_ArrayForEach(item, json_object(arm, "set"))
    {
        cJSON_AddItemToObject(out->set, item->string, cJSON_Duplicate(item, true));
    }
    for (size_t i = 0; i < axes->count; i++) {
        if (cJSON_GetObjectItemCaseSensitive(out->set, axes->items[i]->string)) {
            sweep_fault(faults, title ? title : "", "%s is in \"set\" and in a grid",
                        axes->items[i]->string);
        }
        cJSON_AddItemToObject(out->set, axes->items[i]->string,
                              cJSON_Duplicate(values[i], true));
        buf_printf(&name, "%s%s=", name.len > 0 ? ", " : "", axis_title(axes, i));
        put_value(&name, values[i]);
    }
    buf_puts(&name, name.len > 0 ? "" : "base");
    plan->arm_count++;
    out->name = buf_detach(&name);
    if (!out->name || !out->set) {
        return err_set(err, ERR_NO_MEMORY, "no memory for the sweep's arms");
    }
    for (size_t i = 0; i + 1 < plan->arm_count; i++) {
        if (strcmp(plan->arms[i].name, out->name) == 0) {
            sweep_fault(faults, "arms", "two are called \"%s\"", out->name);
            break;
        }
    }
    return 0;
}

/* Checks one arm of the file; where: its name or place. */
static void check_arm(const cJSON *arm, const char *where, struct sweep_faults *faults)
{
    const cJSON *member, *set = cJSON_GetObjectItemCaseSensitive(arm, "set"), *item;
    if (!cJSON_IsObject(arm)) {
        sweep_fault(faults, where, "must be an object with \"name\", \"set\", \"grid\"");
        return;
    }
    cJSON_ArrayForEach(member, arm)
    {
        if (strcmp(member->string, "name") != 0 && strcmp(member->string, "set") != 0 &&
            strcmp(member->string, "grid") != 0) {
            sweep_fault(faults, where, "\"%s\": unknown field; an arm has name, set, grid",
                        member->string);
        }
    }
    const char *name = json_string(arm, "name");
    if (!name || !*name) {
        sweep_fault(faults, where, "\"name\": must be a text that is not empty");
    }
    if (set && !cJSON_IsObject(set)) {
        sweep_fault(faults, where, "\"set\": must be an object {POINTER: VALUE}");
    }
    cJSON_ArrayForEach(item, json_object(arm, "set"))
    {
        sweep_pointer_fits(faults, where, item->string);
    }
}

static int add_arm(struct sweep_plan *plan, const cJSON *arm, const cJSON *grid,
                   const char *where, struct sweep_faults *faults, struct err *err)
{
    struct axes axes = {0};
    size_t points = 1, before = faults->count, bytes;
    take_grid(&axes, cJSON_GetObjectItemCaseSensitive(arm, "grid"), where, faults);
    take_grid(&axes, grid, where, faults);
    if (faults->count > before) {
        return 0;
    }
    for (size_t i = 0; i < axes.count && points <= SWEEP_RUNS_MAX; i++) {
        points *= (size_t)cJSON_GetArraySize(axes.items[i]);
    }
    if (plan->arm_count + points > SWEEP_RUNS_MAX) {
        sweep_fault(faults, "", "more than %d arms", SWEEP_RUNS_MAX);
        return 0;
    }
    if (!size_mul(&bytes, plan->arm_count + points, sizeof(*plan->arms))) {
        return err_set(err, ERR_NO_MEMORY, "no memory for the sweep's arms");
    }
    struct sweep_arm *grown = realloc(plan->arms, bytes);
    if (!grown) {
        return err_set(err, ERR_NO_MEMORY, "no memory for the sweep's arms");
    }
    plan->arms = grown;
    memset(plan->arms + plan->arm_count, 0, points * sizeof(*plan->arms));
    int rc = 0;
    for (size_t i = 0; i < points && !rc; i++) {
        rc = add_point(plan, arm, &axes, i, faults, err);
    }
    return rc;
}

int sweep_add_arms(struct sweep_plan *plan, const cJSON *root, struct sweep_faults *faults,
                   struct err *err)
{
    const cJSON *arms = cJSON_GetObjectItemCaseSensitive(root, "arms"), *arm;
    const cJSON *grid = cJSON_GetObjectItemCaseSensitive(root, "grid");
    int rc = 0, index = 0;
    if (!arms) {
        return add_arm(plan, NULL, grid, "", faults, err);
    }
    if (!cJSON_IsArray(arms) || !arms->child || cJSON_GetArraySize(arms) > ARMS_MAX) {
        sweep_fault(faults, "arms", "must be an array of 1 to %d arms", ARMS_MAX);
        return 0;
    }
    cJSON_ArrayForEach(arm, arms)
    {
        char place[FORMAT_TEXT_MAX];
        const char *name = json_string(arm, "name");
        snprintf(place, sizeof(place), "arms/%d", index++);
        check_arm(arm, name ? name : place, faults);
        if (!rc) {
            rc = add_arm(plan, arm, grid, name ? name : place, faults, err);
        }
    }
    return rc;
}
