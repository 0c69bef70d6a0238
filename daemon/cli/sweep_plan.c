/* A sweep's file to its runs. */
#include "daemon/cli/cli.h"
#include "daemon/cli/sweep_private.h"
#include "proto/base/mem.h"
#include "proto/format/digest.h"
#include "proto/json/json.h"
#include "proto/msg/spec.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NAME_IN_JOB_MAX = 128, SEEDS_MAX = 100 };

/* --- life --- */

static void release_runs(struct sweep_plan *plan)
{
    for (size_t i = 0; i < plan->run_count; i++) {
        free(plan->runs[i].body);
        free(plan->runs[i].id);
        record_release(&plan->runs[i].record);
    }
    free(plan->runs);
    plan->runs = NULL;
    plan->run_count = 0;
}

void sweep_plan_release(struct sweep_plan *plan)
{
    for (size_t i = 0; i < plan->seed_count; i++) {
        free(plan->seeds[i]);
    }
    for (size_t i = 0; i < plan->arm_count; i++) {
        free(plan->arms[i].name);
        cJSON_Delete(plan->arms[i].set);
        cJSON_Delete(plan->arms[i].tuned);
    }
    release_runs(plan);
    free(plan->seeds);
    free(plan->arms);
    free(plan->name);
    cJSON_Delete(plan->base);
    cJSON_Delete(plan->tune);
    *plan = (struct sweep_plan){0};
}

char *sweep_run_name(const struct sweep_plan *plan, const struct sweep_run *run,
                     char out[FORMAT_LINE_MAX])
{
    snprintf(out, FORMAT_LINE_MAX, "%.400s, seed %s", plan->arms[run->arm].name, run->seed);
    return out;
}

void sweep_price(struct sweep_arm *arm, const cJSON *estimate)
{
    arm->priced = true;
    arm->estimate.active_parameters = cli_real(estimate, "active_parameters");
    arm->estimate.flops_per_token = cli_real(estimate, "flops_per_token");
    arm->estimate.flops_per_token_dense = cli_real(estimate, "flops_per_token_dense");
    arm->estimate.tokens = cli_real(estimate, "tokens");
    arm->estimate.memory_total_bytes = cli_real(estimate, "memory_total_bytes");
}

/* --- seeds, name, base --- */

static int add_seeds(struct sweep_plan *plan, const cJSON *root, struct sweep_faults *faults,
                     struct err *err)
{
    const cJSON *seeds = cJSON_GetObjectItemCaseSensitive(root, "seeds"), *seed;
    int count = cJSON_GetArraySize(seeds);
    if (seeds && (!cJSON_IsArray(seeds) || count < 1 || count > SEEDS_MAX)) {
        sweep_fault(faults, "seeds", "must be an array of 1 to %d seeds", SEEDS_MAX);
        return 0;
    }
    plan->seeds = mem_zeroed((size_t)count + 1, sizeof(*plan->seeds));
    if (plan->seeds && !seeds) {
        plan->seeds[plan->seed_count++] = mem_strdup("1");
    }
    cJSON_ArrayForEach(seed, seeds)
    {
        if (!cJSON_IsString(seed)) {
            sweep_fault(faults, "seeds", "must be strings of digits, as \"1\"");
            continue;
        }
        for (size_t i = 0; i < plan->seed_count; i++) {
            if (strcmp(plan->seeds[i], seed->valuestring) == 0) {
                sweep_fault(faults, "seeds", "\"%s\" is listed twice", seed->valuestring);
            }
        }
        if (plan->seeds) {
            plan->seeds[plan->seed_count] = mem_strdup(seed->valuestring);
            plan->seed_count += plan->seeds[plan->seed_count] != NULL;
        }
    }
    return plan->seeds ? 0 : err_set(err, ERR_NO_MEMORY, "no memory for the seeds");
}

static int check_top(struct sweep_plan *plan, const cJSON *root, struct sweep_faults *faults,
                     struct err *err)
{
    static const char *const known[] = {"name", "base", "grid", "arms", "seeds", "tune"};
    const cJSON *member;
    cJSON_ArrayForEach(member, root)
    {
        bool found = false;
        for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
            found = found || strcmp(known[i], member->string) == 0;
        }
        if (!found) {
            sweep_fault(
                faults, "",
                "\"%s\": unknown field; a sweep has name, base, grid, arms, seeds, tune",
                member->string);
        }
    }
    const char *name = json_string(root, "name");
    if (!name || !*name || strlen(name) > SWEEP_NAME_MAX) {
        sweep_fault(faults, "name", "must be a text of 1 to %d bytes", SWEEP_NAME_MAX);
    }
    if (!json_object(root, "base")) {
        sweep_fault(faults, "base", "must be an object: the job that all arms start from");
    }
    plan->name = mem_strdup(name ? name : "");
    plan->base = cJSON_Duplicate(json_object(root, "base"), true);
    return plan->name ? 0 : err_set(err, ERR_NO_MEMORY, "no memory for the sweep");
}

/* --- runs --- */

/* "SWEEP/ARM/SEED"; the arm is cut where the whole would be too long for a job. */
static void name_job(const struct sweep_plan *plan, const struct sweep_run *run,
                     char out[NAME_IN_JOB_MAX + 1])
{
    const char *arm = plan->arms[run->arm].name;
    size_t fixed = strlen(plan->name) + strlen(run->seed) + 2, room = 0;
    if (fixed < NAME_IN_JOB_MAX) {
        room = NAME_IN_JOB_MAX - fixed;
    }
    if (strlen(arm) < room) {
        room = strlen(arm);
    }
    while (room > 0 && ((unsigned char)arm[room] & 0xc0) == 0x80) {
        room--; /* not inside a character */
    }
    snprintf(out, NAME_IN_JOB_MAX + 1, "%s/%.*s/%s", plan->name, (int)room, arm, run->seed);
}

static void key_of(const struct sweep_plan *plan, struct sweep_run *run)
{
    char digest[DIGEST_TEXT_MAX];
    struct buf text;
    const char *const parts[] = {plan->name, plan->arms[run->arm].name, run->seed};
    buf_init(&text, SWEEP_FILE_MAX);
    for (size_t i = 0; i < 3; i++) {
        buf_add(&text, parts[i], strlen(parts[i]) + 1);
    }
    snprintf(run->key, sizeof(run->key), "hebb-sweep-%s",
             digest_text(digest, text.data, text.len));
    buf_release(&text);
}

/* The base with the arm's values, name and seed; a fault where that is no job. */
static cJSON *run_tree(const struct sweep_plan *plan, const struct sweep_run *run,
                       struct sweep_faults *faults)
{
    char name[NAME_IN_JOB_MAX + 1], where[FORMAT_LINE_MAX];
    cJSON *tree = cJSON_Duplicate(plan->base, true), *value, *text;
    cJSON_ArrayForEach(value, plan->arms[run->arm].set)
    {
        if (!sweep_set_at(tree, value->string, value)) {
            sweep_fault(faults, sweep_run_name(plan, run, where),
                        "%s: what it is inside of is no object", value->string);
        }
    }
    name_job(plan, run, name);
    text = cJSON_CreateString(name);
    bool ok = sweep_set_at(tree, "/name", text);
    cJSON_Delete(text);
    text = cJSON_CreateString(run->seed);
    ok = sweep_set_at(tree, "/train/seed", text) && ok;
    cJSON_Delete(text);
    if (!ok) {
        sweep_fault(faults, "base", "train: must be an object");
    }
    return tree;
}

static int make_run(struct sweep_plan *plan, struct sweep_run *run, struct sweep_faults *faults,
                    struct err *err)
{
    struct spec_faults found = {0};
    struct job_spec spec;
    struct buf body;
    char where[FORMAT_LINE_MAX];
    buf_init(&body, SWEEP_FILE_MAX);
    cJSON *tree = run_tree(plan, run, faults);
    json_print(tree, &body);
    cJSON_Delete(tree);
    run->share = 0;
    key_of(plan, run);
    run->body = buf_detach(&body);
    if (!run->body) {
        return err_set(err, ERR_NO_MEMORY, "no memory for the sweep's jobs");
    }
    int rc = spec_parse(&spec, run->body, strlen(run->body), &found, err);
    for (size_t i = 0; i < found.count && i < SPEC_FAULTS_MAX; i++) {
        sweep_fault(faults, sweep_run_name(plan, run, where), "%s%s%s", found.items[i].field,
                    found.items[i].field[0] ? ": " : "", found.items[i].reason);
    }
    if (!rc) {
        spec_release(&spec);
    }
    return rc && found.count == 0 ? rc : 0;
}

int sweep_make_runs(struct sweep_plan *plan, struct sweep_faults *faults, struct err *err)
{
    release_runs(plan);
    size_t count = plan->seed_count * plan->arm_count;
    if (count > SWEEP_RUNS_MAX) {
        sweep_fault(faults, "", "%zu runs; the limit is %d", count, SWEEP_RUNS_MAX);
        return 0;
    }
    plan->runs = mem_zeroed(count + 1, sizeof(*plan->runs));
    if (!plan->runs) {
        return err_set(err, ERR_NO_MEMORY, "no memory for %zu runs", count);
    }
    int rc = 0;
    for (size_t s = 0; s < plan->seed_count; s++) {
        for (size_t a = 0; a < plan->arm_count && !rc; a++) {
            struct sweep_run *run = &plan->runs[plan->run_count++];
            run->arm = a;
            run->seed = plan->seeds[s];
            rc = make_run(plan, run, faults, err);
        }
    }
    return rc;
}

int sweep_plan_from(struct sweep_plan *plan, const cJSON *root, struct sweep_faults *faults,
                    struct err *err)
{
    *plan = (struct sweep_plan){0};
    int rc = check_top(plan, root, faults, err);
    if (!rc) {
        rc = add_seeds(plan, root, faults, err);
    }
    if (!rc) {
        rc = sweep_add_arms(plan, root, faults, err);
    }
    if (!rc && faults->count == 0) {
        rc = sweep_make_runs(plan, faults, err);
    }
    if (!rc && faults->count > 0) {
        rc = err_set(err, ERR_INVALID, "%zu fault%s; nothing was started", faults->count,
                     faults->count > 1 ? "s" : "");
    }
    if (rc) {
        sweep_plan_release(plan);
    }
    return rc;
}

int sweep_plan_make(struct sweep_plan *plan, const char *text, size_t len,
                    struct sweep_faults *faults, struct err *err)
{
    cJSON *root = NULL;
    *plan = (struct sweep_plan){0};
    int rc = json_parse(&root, text, len, err);
    if (!rc && !cJSON_IsObject(root)) {
        rc = err_set(err, ERR_INVALID, "a sweep must be an object");
    }
    if (!rc) {
        rc = sweep_plan_from(plan, root, faults, err);
    }
    if (!rc) {
        plan->tune = cJSON_DetachItemFromObjectCaseSensitive(root, "tune");
    }
    cJSON_Delete(root);
    return rc;
}
