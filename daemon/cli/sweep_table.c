/* A sweep's table: a row an arm. */
#include "daemon/cli/sweep.h"
#include "proto/base/mem.h"
#include "proto/json/json.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CELL_MAX = 64, RESULT_VALUES = 4 };

bool sweep_run_complete(const struct sweep_run *run, const char **why)
{
    *why = !run->recorded                              ? "was not run"
           : strcmp(run->state, "succeeded") != 0      ? run->state
           : !isfinite(run->record.summary.final_loss) ? "has no finite validation loss"
                                                       : NULL;
    return *why == NULL;
}

/* --- results --- */

static double known(double value) { return value >= 0 ? value : (double)NAN; }

void sweep_result_of(struct sweep_result *out, const struct sweep_plan *plan, size_t arm)
{
    const struct sweep_arm *a = &plan->arms[arm];
    double *values = mem_zeroed(plan->seed_count * RESULT_VALUES + 1, sizeof(*values));
    double *columns[RESULT_VALUES];
    size_t count = 0;
    *out = (struct sweep_result){
        .active_parameters = known(a->estimate.active_parameters),
        .flops_per_token = known(a->estimate.flops_per_token),
        .flops_share = known(a->estimate.flops_per_token / a->estimate.flops_per_token_dense),
        .train_flops = known(a->estimate.flops_per_token) * known(a->estimate.tokens)};
    for (size_t i = 0; i < RESULT_VALUES; i++) {
        columns[i] = values ? values + i * plan->seed_count : NULL;
    }
    for (size_t i = 0; i < plan->run_count; i++) {
        const struct sweep_run *run = &plan->runs[i];
        const struct summary *s = &run->record.summary;
        if (run->arm != arm) {
            continue;
        }
        out->runs++;
        if (!run->recorded || strcmp(run->state, "succeeded") != 0) {
            continue;
        }
        out->succeeded++;
        if (isfinite(s->active_parameters)) { /* counted, where the estimate is computed */
            out->active_parameters = s->active_parameters;
        }
        if (values) {
            columns[0][count] = s->final_loss;
            columns[1][count] = exp(s->final_loss);
            columns[2][count] = s->best_loss;
            columns[3][count++] = s->tokens_per_s;
        }
    }
    out->loss = spread_of(columns[0], count);
    out->perplexity = spread_of(columns[1], count);
    out->best_loss = spread_of(columns[2], count);
    out->tokens_per_s = spread_of(columns[3], count);
    free(values);
}

/* --- text --- */

/* "1.2345 +- 0.0123"; the second where there is one. */
static void spread_text(const struct spread *spread, int digits, char out[CELL_MAX])
{
    if (!isfinite(spread->mean)) {
        strcpy(out, "-");
    } else if (!isfinite(spread->deviation)) {
        snprintf(out, CELL_MAX, "%.*f", digits, spread->mean);
    } else {
        snprintf(out, CELL_MAX, "%.*f +- %.*f", digits, spread->mean, digits,
                 spread->deviation);
    }
}

static void share_text(double share, char out[FORMAT_TEXT_MAX])
{
    if (isfinite(share)) {
        snprintf(out, FORMAT_TEXT_MAX, "%.1f %%", 100 * share);
    } else {
        strcpy(out, "-");
    }
}

void sweep_print_plan(const struct sweep_plan *plan)
{
    static const char *const heads[] = {"ARM",      "RUNS",     "STORED", "FLOPS/TOKEN",
                                        "OF DENSE", "TRAINING", "MEMORY"};
    struct table table;
    table_init(&table, sizeof(heads) / sizeof(heads[0]), 0x7e);
    table_row(&table, heads);
    for (size_t i = 0; i < plan->arm_count; i++) {
        struct sweep_result r;
        char text[6][FORMAT_TEXT_MAX];
        sweep_result_of(&r, plan, i);
        snprintf(text[0], FORMAT_TEXT_MAX, "%zu", r.runs);
        share_text(r.flops_share, text[3]);
        const char *cells[] = {
            plan->arms[i].name,
            text[0],
            format_count(text[1], r.active_parameters),
            format_count(text[2], r.flops_per_token),
            text[3],
            format_count(text[4], r.train_flops),
            format_bytes(text[5], plan->arms[i].estimate.memory_total_bytes)};
        table_row(&table, cells);
    }
    table_print(&table, stdout);
    table_release(&table);
}

void sweep_print_text(const struct sweep_plan *plan, FILE *out)
{
    static const char *const heads[] = {"ARM",        "RUNS",     "VALIDATION LOSS",
                                        "PERPLEXITY", "STORED",   "FLOPS/TOKEN",
                                        "OF DENSE",   "TOKENS/S", "TUNED"};
    struct table table;
    /* the last column only where something was tuned */
    table_init(&table, sizeof(heads) / sizeof(heads[0]) - (plan->tune ? 0 : 1), 0xfe);
    table_row(&table, heads);
    for (size_t i = 0; i < plan->arm_count; i++) {
        struct sweep_result r;
        char runs[CELL_MAX], loss[CELL_MAX], perplexity[CELL_MAX], text[4][FORMAT_TEXT_MAX],
            tuned[FORMAT_LINE_MAX];
        sweep_result_of(&r, plan, i);
        snprintf(runs, sizeof(runs), "%zu/%zu", r.succeeded, r.runs);
        spread_text(&r.loss, 4, loss);
        spread_text(&r.perplexity, 3, perplexity);
        share_text(r.flops_share, text[2]);
        const char *cells[] = {plan->arms[i].name,
                               runs,
                               loss,
                               perplexity,
                               format_count(text[0], r.active_parameters),
                               format_count(text[1], r.flops_per_token),
                               text[2],
                               format_count(text[3], r.tokens_per_s.mean),
                               sweep_tuned_text(&plan->arms[i], tuned)};
        table_row(&table, cells);
    }
    if (!table_print(&table, out)) {
        fprintf(stderr, "hebb: out of memory\n");
    }
    table_release(&table);
}

/* --- CSV --- */

bool sweep_print_csv(const struct sweep_plan *plan, FILE *out)
{
    static const char *const heads[] = {"arm",
                                        "runs",
                                        "succeeded",
                                        "loss_mean",
                                        "loss_sd",
                                        "perplexity_mean",
                                        "perplexity_sd",
                                        "best_loss_mean",
                                        "best_loss_sd",
                                        "parameters",
                                        "flops_per_token",
                                        "flops_share",
                                        "train_flops",
                                        "tokens_per_s",
                                        "tuned"};
    enum { COLUMNS = sizeof(heads) / sizeof(heads[0]) };
    struct table table;
    table_init(&table, COLUMNS, 0);
    table_row(&table, heads);
    for (size_t i = 0; i < plan->arm_count; i++) {
        struct sweep_result r;
        const char *cells[COLUMNS] = {plan->arms[i].name};
        char text[COLUMNS][CELL_MAX], tuned[FORMAT_LINE_MAX];
        sweep_result_of(&r, plan, i);
        const double values[COLUMNS] = {0,
                                        (double)r.runs,
                                        (double)r.succeeded,
                                        r.loss.mean,
                                        r.loss.deviation,
                                        r.perplexity.mean,
                                        r.perplexity.deviation,
                                        r.best_loss.mean,
                                        r.best_loss.deviation,
                                        r.active_parameters,
                                        r.flops_per_token,
                                        r.flops_share,
                                        r.train_flops,
                                        r.tokens_per_s.mean};
        for (size_t c = 1; c + 1 < COLUMNS; c++) {
            struct buf number;
            buf_init(&number, CELL_MAX);
            json_print_number(values[c], &number);
            snprintf(text[c], CELL_MAX, "%s",
                     isfinite(values[c]) && number.data ? number.data : "");
            cells[c] = text[c];
            buf_release(&number);
        }
        cells[COLUMNS - 1] = sweep_tuned_text(&plan->arms[i], tuned);
        table_row(&table, cells);
    }
    bool whole = table_csv(&table, out);
    table_release(&table);
    return whole;
}

/* --- JSON --- */

static void add_spread(cJSON *object, const char *key, const struct spread *spread)
{
    cJSON *out = cJSON_AddObjectToObject(object, key);
    record_add_number(out, "mean", spread->mean);
    record_add_number(out, "sd", spread->deviation);
}

static cJSON *arm_json(const struct sweep_plan *plan, size_t arm)
{
    struct sweep_result r;
    cJSON *out = cJSON_CreateObject();
    sweep_result_of(&r, plan, arm);
    cJSON_AddStringToObject(out, "arm", plan->arms[arm].name);
    cJSON_AddItemToObject(out, "set", cJSON_Duplicate(plan->arms[arm].set, true));
    if (plan->arms[arm].tuned) {
        cJSON_AddItemToObject(out, "tuned", cJSON_Duplicate(plan->arms[arm].tuned, true));
        cJSON_AddBoolToObject(out, "tuned_at_edge", plan->arms[arm].at_edge);
    }
    cJSON_AddNumberToObject(out, "runs", (double)r.runs);
    cJSON_AddNumberToObject(out, "succeeded", (double)r.succeeded);
    add_spread(out, "loss", &r.loss);
    add_spread(out, "perplexity", &r.perplexity);
    add_spread(out, "best_loss", &r.best_loss);
    record_add_number(out, "parameters", r.active_parameters);
    record_add_number(out, "flops_per_token", r.flops_per_token);
    record_add_number(out, "flops_share", r.flops_share);
    record_add_number(out, "train_flops", r.train_flops);
    record_add_number(out, "tokens_per_s", r.tokens_per_s.mean);
    return out;
}

static cJSON *run_json(const struct sweep_plan *plan, const struct sweep_run *run)
{
    cJSON *row = run->recorded ? record_json(&run->record) : cJSON_CreateObject();
    cJSON_AddStringToObject(row, "arm", plan->arms[run->arm].name);
    cJSON_AddStringToObject(row, "seed", run->seed);
    cJSON_AddStringToObject(row, "reason", run->record.reason);
    return row;
}

static void add_runs(cJSON *root, const char *key, const struct sweep_plan *plan)
{
    cJSON *runs = cJSON_AddArrayToObject(root, key);
    for (size_t i = 0; i < plan->run_count; i++) {
        cJSON_AddItemToArray(runs, run_json(plan, &plan->runs[i]));
    }
}

cJSON *sweep_json(const struct sweep_plan *plan, const struct sweep_plan *tune)
{
    cJSON *root = cJSON_CreateObject();
    cJSON_AddStringToObject(root, "sweep", plan->name);
    cJSON *arms = cJSON_AddArrayToObject(root, "arms");
    for (size_t i = 0; i < plan->arm_count; i++) {
        cJSON_AddItemToArray(arms, arm_json(plan, i));
    }
    add_runs(root, "runs", plan);
    if (tune) {
        add_runs(root, "tuning", tune);
    }
    return root;
}

bool sweep_print_failures(const struct sweep_plan *plan)
{
    bool none = true;
    for (size_t i = 0; i < plan->run_count; i++) {
        const struct sweep_run *run = &plan->runs[i];
        const char *why, *reason = run->record.reason;
        char name[FORMAT_LINE_MAX];
        if (!sweep_run_complete(run, &why)) {
            fprintf(stderr, "hebb: %s: %s%s%s%s%s%s\n", sweep_run_name(plan, run, name), why,
                    *reason ? ": " : "", reason, run->id ? " (" : "", run->id ? run->id : "",
                    run->id ? ")" : "");
            none = false;
        }
    }
    return none;
}
