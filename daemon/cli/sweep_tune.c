/* Tuning: before its runs, every arm is run at every point of one grid with a seed of its own,
 * and goes on with the point that has the smallest final validation loss. */
#include "daemon/cli/cli.h"
#include "daemon/cli/sweep_private.h"
#include "proto/json/json.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

static const char default_seed[] = "0";

/* --- plan --- */

static void check_tune(const cJSON *tune, struct sweep_faults *faults)
{
    const cJSON *member, *set = cJSON_GetObjectItemCaseSensitive(tune, "set");
    const cJSON *grid = json_object(tune, "grid");
    const cJSON *seed = cJSON_GetObjectItemCaseSensitive(tune, "seed");
    cJSON_ArrayForEach(member, tune)
    {
        if (strcmp(member->string, "grid") != 0 && strcmp(member->string, "set") != 0 &&
            strcmp(member->string, "seed") != 0) {
            sweep_fault(faults, "tune", "\"%s\": unknown field; it has grid, set, seed",
                        member->string);
        }
    }
    if (!grid || !grid->child) {
        sweep_fault(faults, "tune", "\"grid\": must be an object {POINTER: [VALUE, ...]}");
    }
    if (set && !cJSON_IsObject(set)) {
        sweep_fault(faults, "tune", "\"set\": must be an object {POINTER: VALUE}");
    }
    cJSON_ArrayForEach(member, json_object(tune, "set"))
    {
        sweep_pointer_fits(faults, "tune", member->string);
    }
    if (seed && !cJSON_IsString(seed)) {
        sweep_fault(faults, "tune", "\"seed\": must be a string of digits, as \"0\"");
    }
}

/* The sweep of the tuning: one arm an arm, each with the tuning's grid. */
static cJSON *tune_tree(const struct sweep_plan *plan, struct sweep_faults *faults)
{
    cJSON *root = cJSON_CreateObject(), *base = cJSON_Duplicate(plan->base, true), *arms;
    const cJSON *item, *seed = cJSON_GetObjectItemCaseSensitive(plan->tune, "seed");
    cJSON_ArrayForEach(item, json_object(plan->tune, "set"))
    {
        if (!sweep_set_at(base, item->string, item)) {
            sweep_fault(faults, "tune", "%s: what it is inside of is no object", item->string);
        }
    }
    cJSON_AddStringToObject(root, "name", plan->name);
    cJSON_AddItemToObject(root, "base", base);
    arms = cJSON_AddArrayToObject(root, "arms");
    for (size_t i = 0; i < plan->arm_count; i++) {
        cJSON *arm = cJSON_CreateObject();
        struct buf name;
        buf_init(&name, SWEEP_FILE_MAX);
        buf_printf(&name, "tune %s", plan->arms[i].name);
        cJSON_AddStringToObject(arm, "name", name.data ? name.data : "");
        buf_release(&name);
        cJSON_AddItemToObject(arm, "set", cJSON_Duplicate(plan->arms[i].set, true));
        cJSON_AddItemToArray(arms, arm);
    }
    cJSON_AddItemToObject(root, "grid", cJSON_Duplicate(json_object(plan->tune, "grid"), true));
    arms = cJSON_AddArrayToObject(root, "seeds");
    cJSON_AddItemToArray(
        arms, cJSON_CreateString(cJSON_IsString(seed) ? seed->valuestring : default_seed));
    return root;
}

int sweep_tune_plan(struct sweep_plan *tune, const struct sweep_plan *plan,
                    struct sweep_faults *faults, struct err *err)
{
    *tune = (struct sweep_plan){0};
    check_tune(plan->tune, faults);
    if (faults->count > 0) {
        return err_set(err, ERR_INVALID, "%zu fault%s; nothing was started", faults->count,
                       faults->count > 1 ? "s" : "");
    }
    cJSON *root = tune_tree(plan, faults);
    int rc = sweep_plan_from(tune, root, faults, err);
    cJSON_Delete(root);
    return rc;
}

/* --- choice --- */

/* The value is the first or last of a list of three or more. */
static bool is_edge(const cJSON *list, const cJSON *value)
{
    int count = cJSON_GetArraySize(list);
    return count >= 3 && (cJSON_Compare(cJSON_GetArrayItem(list, 0), value, true) ||
                          cJSON_Compare(cJSON_GetArrayItem(list, count - 1), value, true));
}

static void take_point(struct sweep_plan *plan, struct sweep_arm *arm,
                       const struct sweep_arm *point)
{
    const cJSON *axis;
    arm->tuned = cJSON_CreateObject();
    cJSON_ArrayForEach(axis, json_object(plan->tune, "grid"))
    {
        const cJSON *value = cJSON_GetObjectItemCaseSensitive(point->set, axis->string);
        arm->at_edge = arm->at_edge || is_edge(axis, value);
        cJSON_AddItemToObject(arm->tuned, axis->string, cJSON_Duplicate(value, true));
        cJSON_AddItemToObject(arm->set, axis->string, cJSON_Duplicate(value, true));
    }
}

char *sweep_tuned_text(const struct sweep_arm *arm, char out[FORMAT_LINE_MAX])
{
    const cJSON *value;
    struct buf text;
    buf_init(&text, FORMAT_LINE_MAX);
    cJSON_ArrayForEach(value, arm->tuned)
    {
        buf_printf(&text, "%s%s=", text.len > 0 ? ", " : "", strrchr(value->string, '/') + 1);
        json_print(value, &text);
    }
    snprintf(out, FORMAT_LINE_MAX, "%s", text.data ? text.data : "");
    buf_release(&text);
    return out;
}

/* The points of an arm follow each other: tune's runs first .. first + points - 1. */
static int choose(struct sweep_plan *plan, size_t index, const struct sweep_plan *tune,
                  size_t points, struct err *err)
{
    const struct sweep_run *runs = &tune->runs[index * points];
    struct sweep_arm *arm = &plan->arms[index];
    size_t best = points;
    const char *why = "";
    char text[FORMAT_LINE_MAX];
    for (size_t i = 0; i < points; i++) {
        if (sweep_run_complete(&runs[i], &why) &&
            (best == points ||
             runs[i].record.summary.final_loss < runs[best].record.summary.final_loss)) {
            best = i;
        }
    }
    if (best == points) {
        return err_set(err, ERR_CONFLICT, "%.200s cannot be tuned: the last of its %zu runs %s",
                       arm->name, points, why);
    }
    take_point(plan, arm, &tune->arms[runs[best].arm]);
    fprintf(stderr, "%s: tuned to %s, validation loss %.4f, the best of %zu%s\n", arm->name,
            sweep_tuned_text(arm, text), runs[best].record.summary.final_loss, points,
            arm->at_edge ? "; it is the end of its list: a longer list may hold a better one"
                         : "");
    return 0;
}

int sweep_tune_choose(struct sweep_plan *plan, const struct sweep_plan *tune,
                      struct sweep_faults *faults, struct err *err)
{
    size_t points = tune->run_count / plan->arm_count;
    int rc = 0;
    for (size_t i = 0; i < plan->arm_count && !rc; i++) {
        rc = choose(plan, i, tune, points, err);
    }
    if (!rc) {
        rc = sweep_make_runs(plan, faults, err);
    }
    if (!rc && faults->count > 0) {
        rc = err_set(err, ERR_INVALID, "%zu faults after tuning", faults->count);
    }
    return rc;
}
