/* hebb inspect: shapes, density, pattern counts and legality of every target matrix. A
 * checkpoint's masks are read from its codes; in a dense file (our model/, or anybody's) they
 * are where the weights are not zero. */
#include "engine/model_config.h"
#include "engine/model_source.h"
#include "proto/base/fsx.h"
#include "proto/base/mem.h"
#include "proto/json/json.h"
#include "worker/tools/options.h"
#include "worker/tools/tool_model.h"
#include "worker/tools/tools.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PATTERNS_SHOWN_MAX = 16, JSON_MAX = 64 << 20 };

struct matrix_report {
    char name[ST_NAME_MAX];
    size_t rows, cols;
    size_t active;          /* codes: stored links; dense: weights that are not zero */
    size_t illegal;         /* groups with more than n links */
    size_t illegal_columns; /* layout block: columns of a block with more than n links */
    size_t dead_columns;
    size_t patterns[PATTERNS_SHOWN_MAX]; /* groups per code */
    size_t pattern_count;                /* 0: not counted */
    size_t other; /* dense: groups with fewer than n weights that are not zero */
};

struct inspection {
    const struct pattern_table *table; /* NULL: no N:M asked for */
    enum nm_layout layout;
    struct matrix_report *items;
    size_t count, capacity;
    size_t parameters; /* of all tensors, logical */
};

struct column {
    bool alive;
    unsigned links; /* in the rows of the block so far */
};

static int matrix_add(struct inspection *all, struct matrix_report **out, const char *name,
                      size_t rows, size_t cols, struct err *err)
{
    if (all->count == all->capacity) {
        size_t grown = all->capacity ? all->capacity * 2 : 64;
        struct matrix_report *moved = realloc(all->items, grown * sizeof *moved);
        if (!moved) {
            return err_set(err, ERR_NO_MEMORY, "no memory for %zu matrices", grown);
        }
        all->items = moved;
        all->capacity = grown;
    }
    *out = &all->items[all->count++];
    **out = (struct matrix_report){.rows = rows, .cols = cols};
    snprintf((*out)->name, sizeof(*out)->name, "%s", name);
    bool counted =
        all->table && cols % all->table->m == 0 && all->table->count <= PATTERNS_SHOWN_MAX;
    (*out)->pattern_count = counted ? all->table->count : 0;
    return 0;
}

/* Takes in the mask of group number `group`. columns: (cols) of the matrix. */
static void group_add(struct matrix_report *report, const struct inspection *all, size_t group,
                      unsigned mask, struct column *columns)
{
    const struct pattern_table *table = all->table;
    const size_t groups = report->cols / table->m, row = group / groups;
    struct column *column = columns + group % groups * table->m;
    unsigned links = (unsigned)__builtin_popcount(mask);
    report->active += links;
    report->illegal += links > table->n;
    report->other += links < table->n;
    if (report->pattern_count > 0 && links == table->n) {
        report->patterns[table->code_of[mask]]++;
    }
    for (unsigned j = 0; j < table->m; j++) {
        column[j].links = (row % NM_BLOCK == 0 ? 0 : column[j].links) + (mask >> j & 1u);
        column[j].alive |= mask >> j & 1u;
        report->illegal_columns += all->layout == NM_LAYOUT_BLOCK &&
                                   row % NM_BLOCK == NM_BLOCK - 1 && column[j].links > table->n;
    }
}

/* Counts the columns without any link and frees columns. */
static void dead_count(struct matrix_report *report, struct column *columns)
{
    for (size_t i = 0; i < report->cols; i++) {
        report->dead_columns += !columns[i].alive;
    }
    free(columns);
}

static int inspect_codes(struct inspection *all, const struct model *model, struct err *err)
{
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < model->param_count; i++) {
        const struct param *param = &model->params[i];
        struct matrix_report *report;
        all->parameters += param->rows * param->cols;
        if (!param->target) {
            continue;
        }
        rc = matrix_add(all, &report, param->name, param->rows, param->cols, err);
        const struct nm *w = param->nm ? param->nm : param->latent;
        if (rc == 0 && !w) {
            report->active = param->count;
            continue;
        }
        struct column *columns = rc == 0 ? mem_zeroed(param->cols, sizeof *columns) : NULL;
        if (rc == 0 && !columns) {
            rc = err_set(err, ERR_NO_MEMORY, "no memory to inspect %s", param->name);
        }
        for (size_t group = 0; rc == 0 && group < w->dout * nm_groups(w); group++) {
            group_add(report, all, group, w->patterns->mask[w->codes[group]], columns);
        }
        if (rc == 0) {
            dead_count(report, columns);
        }
    }
    return rc;
}

static bool is_target(const char *name)
{
    static const char *const targets[] = {"q_proj",    "k_proj",  "v_proj",   "o_proj",
                                          "gate_proj", "up_proj", "down_proj"};
    for (size_t i = 0; i < sizeof targets / sizeof *targets; i++) {
        if (strstr(name, targets[i])) {
            return true;
        }
    }
    return false;
}

static int dense_matrix(struct inspection *all, const struct st_file *file,
                        const struct st_tensor *tensor, struct err *err)
{
    struct matrix_report *report;
    size_t rows = tensor->shape[0], cols = tensor->shape[1];
    unsigned m = all->table ? all->table->m : 1;
    if (all->table && cols % m != 0) {
        return err_set(err, ERR_INVALID, "%s: %zu columns are no multiple of m = %u",
                       tensor->name, cols, m);
    }
    if (all->layout == NM_LAYOUT_BLOCK && rows % NM_BLOCK != 0) {
        return err_set(err, ERR_INVALID, "%s: %zu rows are no multiple of %d, a block's side",
                       tensor->name, rows, NM_BLOCK);
    }
    int rc = matrix_add(all, &report, tensor->name, rows, cols, err);
    struct column *columns = rc == 0 ? mem_zeroed(cols, sizeof *columns) : NULL;
    if (rc != 0 || !columns) {
        return rc != 0 ? rc
                       : err_set(err, ERR_NO_MEMORY, "no memory to inspect %s", tensor->name);
    }
    const void *data = st_data(file, tensor);
    for (size_t group = 0; group < rows * (cols / m); group++) {
        unsigned mask = 0;
        for (unsigned j = 0; j < m; j++) {
            mask |= (model_source_entry(data, tensor->type, group * m + j) != 0 ? 1u : 0u) << j;
        }
        if (all->table) {
            group_add(report, all, group, mask, columns);
        } else {
            report->active += mask;
            columns[group % cols].alive |= mask != 0;
        }
    }
    dead_count(report, columns);
    return 0;
}

static int inspect_dense(struct inspection *all, const char *path, struct err *err)
{
    struct model_source source;
    int rc = model_source_open(&source, path, err);
    if (rc != 0) {
        return rc;
    }
    for (size_t i = 0; rc == 0 && i < source.count; i++) {
        for (size_t k = 0; rc == 0 && k < st_count(source.files[i]); k++) {
            const struct st_tensor *tensor = st_tensor(source.files[i], k);
            if (!model_source_real(tensor->type)) {
                continue;
            }
            all->parameters += (size_t)(tensor->bytes / st_type_bytes(tensor->type));
            if (tensor->rank == 2 && is_target(tensor->name)) {
                rc = dense_matrix(all, source.files[i], tensor, err);
            }
        }
    }
    model_source_release(&source);
    return rc;
}

struct inspect_totals {
    size_t active, size, illegal;
};

static struct inspect_totals totals(const struct inspection *all)
{
    struct inspect_totals sum = {0};
    for (size_t i = 0; i < all->count; i++) {
        sum.active += all->items[i].active;
        sum.size += all->items[i].rows * all->items[i].cols;
        sum.illegal += all->items[i].illegal + all->items[i].illegal_columns;
    }
    return sum;
}

static double share(size_t part, size_t whole)
{
    return whole > 0 ? (double)part / (double)whole : 0;
}

static cJSON *matrix_json(const struct matrix_report *report, const struct inspection *all)
{
    cJSON *item = cJSON_CreateObject();
    cJSON_AddStringToObject(item, "name", report->name);
    cJSON_AddNumberToObject(item, "rows", (double)report->rows);
    cJSON_AddNumberToObject(item, "cols", (double)report->cols);
    cJSON_AddNumberToObject(item, "density",
                            share(report->active, report->rows * report->cols));
    if (all->table) {
        cJSON_AddNumberToObject(item, "illegal_groups", (double)report->illegal);
        if (all->layout == NM_LAYOUT_BLOCK) {
            cJSON_AddNumberToObject(item, "illegal_columns", (double)report->illegal_columns);
        }
        cJSON_AddNumberToObject(item, "short_groups", (double)report->other);
    }
    if (report->pattern_count > 0) {
        cJSON *patterns = cJSON_AddArrayToObject(item, "patterns");
        for (size_t i = 0; i < report->pattern_count; i++) {
            cJSON_AddItemToArray(patterns, cJSON_CreateNumber((double)report->patterns[i]));
        }
    }
    cJSON_AddNumberToObject(item, "dead_columns", (double)report->dead_columns);
    return item;
}

static void shape_json(cJSON *root, const struct tool_place *place)
{
    const struct model_shape *shape = &place->shape;
    cJSON *object = cJSON_AddObjectToObject(root, "shape");
    cJSON_AddNumberToObject(object, "hidden", (double)shape->hidden);
    cJSON_AddNumberToObject(object, "intermediate", (double)shape->intermediate);
    cJSON_AddNumberToObject(object, "layers", (double)shape->layers);
    cJSON_AddNumberToObject(object, "heads", (double)shape->heads);
    cJSON_AddNumberToObject(object, "kv_heads", (double)shape->kv_heads);
    cJSON_AddNumberToObject(object, "vocab", (double)shape->vocab);
    cJSON_AddNumberToObject(object, "context", (double)shape->context);
    cJSON_AddBoolToObject(object, "tie_embeddings", shape->tie_embeddings);
    cJSON_AddStringToObject(root, "method", place->method);
    if (place->kind == TOOL_MODEL_CHECKPOINT) {
        cJSON_AddNumberToObject(root, "step", (double)place->step);
    }
}

static void print_json(const struct inspection *all, const char *path,
                       const struct tool_place *place)
{
    const struct inspect_totals sum = totals(all);
    struct buf text;
    cJSON *root = cJSON_CreateObject();
    cJSON_AddStringToObject(root, "path", path);
    if (place) {
        shape_json(root, place);
    }
    cJSON_AddNumberToObject(root, "parameters", (double)all->parameters);
    cJSON_AddNumberToObject(root, "active_parameters",
                            (double)(all->parameters - sum.size + sum.active));
    cJSON_AddNumberToObject(root, "density", share(sum.active, sum.size));
    if (all->table) {
        cJSON_AddNumberToObject(root, "n", all->table->n);
        cJSON_AddNumberToObject(root, "m", all->table->m);
        cJSON_AddStringToObject(root, "layout", nm_layout_names[all->layout]);
        cJSON_AddBoolToObject(root, "legal", sum.illegal == 0);
    }
    cJSON *matrices = cJSON_AddArrayToObject(root, "matrices");
    for (size_t i = 0; i < all->count; i++) {
        cJSON_AddItemToArray(matrices, matrix_json(&all->items[i], all));
    }
    buf_init(&text, JSON_MAX);
    json_print(root, &text);
    puts(text.data ? text.data : "");
    cJSON_Delete(root);
    buf_release(&text);
}

static void print_text(const struct inspection *all, const char *path,
                       const struct tool_place *place)
{
    const struct inspect_totals sum = totals(all);
    printf("%s\n", path);
    if (place) {
        const struct model_shape *shape = &place->shape;
        printf("hidden %zu, intermediate %zu, layers %zu, heads %zu/%zu, vocab %zu, context "
               "%zu; %s\n",
               shape->hidden, shape->intermediate, shape->layers, shape->heads, shape->kv_heads,
               shape->vocab, shape->context, place->method);
    }
    for (size_t i = 0; i < all->count; i++) {
        const struct matrix_report *r = &all->items[i];
        printf("%-48s %5zu x %-5zu density %.4f dead columns %zu", r->name, r->rows, r->cols,
               share(r->active, r->rows * r->cols), r->dead_columns);
        if (all->table) {
            printf(" illegal groups %zu", r->illegal);
        }
        if (all->table && all->layout == NM_LAYOUT_BLOCK) {
            printf(" illegal columns of blocks %zu", r->illegal_columns);
        }
        for (size_t p = 0; p < r->pattern_count; p++) {
            printf("%s%zu", p == 0 ? " patterns " : " ", r->patterns[p]);
        }
        putchar('\n');
    }
    printf("parameters %zu, active %zu, density of the target matrices %.4f\n", all->parameters,
           all->parameters - sum.size + sum.active, share(sum.active, sum.size));
    if (all->table) {
        printf("%u:%u %s, %s\n", all->table->n, all->table->m, nm_layout_names[all->layout],
               sum.illegal != 0                 ? "NOT legal"
               : all->layout == NM_LAYOUT_BLOCK ? "legal in every row and column of every block"
                                                : "legal in every group");
    }
}

/* The table and layout of the N:M to check: the options', else the place's own. */
static int table_choose(struct pattern_table **out, enum nm_layout *layout,
                        const struct tool_place *place, uint64_t n, uint64_t m, bool block,
                        struct err *err)
{
    *layout = block ? NM_LAYOUT_BLOCK : NM_LAYOUT_ROW;
    *out = NULL;
    if (n == 0 && m == 0 && place && place->shape.n < place->shape.m) {
        n = place->shape.n;
        m = place->shape.m;
        *layout = block ? NM_LAYOUT_BLOCK : place->shape.layout;
    }
    if (*layout == NM_LAYOUT_BLOCK && m != NM_BLOCK) {
        return err_set(err, ERR_INVALID, "--block: m is %u; blocks are of %d x %d", (unsigned)m,
                       NM_BLOCK, NM_BLOCK);
    }
    return n == 0 && m == 0 ? 0 : pattern_table_create(out, (unsigned)n, (unsigned)m, err);
}

static int inspect(struct inspection *all, const struct tool_place *place, const char *path,
                   struct err *err)
{
    if (!place || place->kind == TOOL_MODEL_FOLDER) {
        return inspect_dense(all, place ? place->path : path, err);
    }
    struct tool_model tool;
    int rc = tool_model_open(&tool, place, 1, 1, 1, err);
    if (rc == 0) {
        rc = inspect_codes(all, tool.model, err);
        tool_model_close(&tool);
    }
    return rc;
}

int tool_inspect(int argc, char **argv)
{
    uint64_t n = 0, m = 0;
    bool json = false, block = false;
    struct option_list rest;
    const struct option_row options[] = {
        {"n", OPTION_COUNT, &n, 1, NM_M_MAX},
        {"m", OPTION_COUNT, &m, 2, NM_M_MAX},
        {"block", OPTION_FLAG, &block, 0, 0},
        {"json", OPTION_FLAG, &json, 0, 0},
        {0},
    };
    int code = options_parse(argc, argv, options, &rest);
    if (code != EXIT_DONE) {
        return code;
    }
    if (rest.count != 1 || (n == 0) != (m == 0)) {
        return tool_usage(argv[0], "one path is needed, and --n with --m");
    }
    struct err err = {0};
    struct tool_place place;
    struct pattern_table *table = NULL;
    struct inspection all = {0};
    /* A path that is none of ours may be a safetensors file, or a folder of them. */
    int rc = tool_place_find(&place, rest.items[0], &err);
    bool ours = rc == 0;
    if (rc == ERR_NOT_FOUND) {
        rc = 0;
    }
    if (rc == 0) {
        rc = table_choose(&table, &all.layout, ours ? &place : NULL, n, m, block, &err);
    }
    if (rc == 0) {
        all.table = table;
        rc = inspect(&all, ours ? &place : NULL, rest.items[0], &err);
    }
    if (rc == 0) {
        (json ? print_json : print_text)(&all, rest.items[0], ours ? &place : NULL);
    }
    code = rc != 0 ? tool_fail(&err) : totals(&all).illegal == 0 ? EXIT_DONE : EXIT_DATA;
    free(all.items);
    pattern_table_destroy(table);
    if (ours) {
        tool_place_release(&place);
    }
    return code;
}
