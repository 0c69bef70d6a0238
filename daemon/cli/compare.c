/* hebb compare: jobs and job folders side by side. */
#include "daemon/cli/cli.h"
#include "daemon/cli/format.h"
#include "daemon/cli/record.h"
#include "proto/base/fsx.h"
#include "proto/base/mem.h"
#include "proto/json/json.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { COMPARE_MAX = 1000, COMPARE_ACROSS = 6 /* jobs beside each other in the text */ };

struct compare {
    struct client_config config;
    bool json, csv;
    struct client *client; /* made when the first id asks for it */
    cJSON **specs;         /* (count) owned */
    cJSON *rows;           /* array of record_json */
    cJSON *differences;    /* [{"field": POINTER, "values": [...]}] */
    size_t count;
};

/* --- loading --- */

static bool is_folder(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

static int load(struct compare *compare, const char *what, struct record *record)
{
    char id[CLIENT_ID_MAX];
    struct err err = {0};
    if (is_folder(what)) {
        return record_from_folder(record, what);
    }
    if (strchr(what, '/')) {
        fprintf(stderr, "hebb: %s is no folder\n", what);
        return EXIT_USAGE;
    }
    if (!compare->client && client_create(&compare->client, &compare->config, &err)) {
        return client_fail(&err);
    }
    int code = client_find_job(compare->client, what, id);
    return code == EXIT_DONE ? record_from_job(record, compare->client, id) : code;
}

static int load_all(struct compare *compare, char *const *names, size_t count)
{
    int code = EXIT_DONE;
    compare->rows = cJSON_CreateArray();
    compare->specs = mem_zeroed(count, sizeof(*compare->specs));
    if (!compare->rows || !compare->specs) {
        fprintf(stderr, "hebb: out of memory\n");
        return EXIT_FAILED;
    }
    for (size_t i = 0; i < count && code == EXIT_DONE; i++) {
        struct record record = {0};
        code = load(compare, names[i], &record);
        if (code == EXIT_DONE) {
            cJSON_AddItemToArray(compare->rows, record_json(&record));
            compare->specs[compare->count++] = record.spec;
            record.spec = NULL;
        }
        record_release(&record);
    }
    return code;
}

/* --- differences --- */

/* The value at pointer ("/a/b", as made here, keys without '/'); NULL: none. */
static const cJSON *value_at(const cJSON *tree, const char *pointer)
{
    char key[256];
    while (tree && *pointer == '/') {
        size_t len = strcspn(pointer + 1, "/");
        snprintf(key, sizeof(key), "%.*s", (int)(len < 255 ? len : 255), pointer + 1);
        tree = cJSON_GetObjectItemCaseSensitive(tree, key);
        pointer += len + 1;
    }
    return tree;
}

static bool all_equal(const struct compare *compare, const char *pointer)
{
    const cJSON *first = value_at(compare->specs[0], pointer);
    for (size_t i = 1; i < compare->count; i++) {
        const cJSON *other = value_at(compare->specs[i], pointer);
        if ((first || other) && !(first && other && cJSON_Compare(first, other, true))) {
            return false;
        }
    }
    return true;
}

static bool known(const struct compare *compare, const char *pointer)
{
    const cJSON *row;
    cJSON_ArrayForEach(row, compare->differences)
    {
        if (strcmp(cli_text(row, "field"), pointer) == 0) {
            return true;
        }
    }
    return false;
}

static void add_difference(struct compare *compare, const char *pointer)
{
    cJSON *row = cJSON_CreateObject(), *values;
    cJSON_AddStringToObject(row, "field", pointer);
    values = cJSON_AddArrayToObject(row, "values");
    for (size_t i = 0; i < compare->count; i++) {
        const cJSON *value = value_at(compare->specs[i], pointer);
        cJSON_AddItemToArray(values, value ? cJSON_Duplicate(value, true) : cJSON_CreateNull());
    }
    cJSON_AddItemToArray(compare->differences, row);
}

/* A job's sections are one level deep; its lists count as values. */
static void compare_members(struct compare *compare, const cJSON *object, const char *prefix)
{
    const cJSON *member;
    cJSON_ArrayForEach(member, object)
    {
        char pointer[512];
        snprintf(pointer, sizeof(pointer), "%s/%s", prefix, member->string);
        if (cJSON_IsObject(member)) {
            compare_members(compare, member, pointer);
        } else if (strcmp(pointer, "/name") != 0 && !all_equal(compare, pointer) &&
                   !known(compare, pointer)) {
            add_difference(compare, pointer);
        }
    }
}

/* --- output --- */

enum cell { CELL_TEXT, CELL_COUNT, CELL_WHOLE, CELL_LOSS, CELL_REAL, CELL_SHARE };

static const struct {
    const char *key, *title;
    enum cell cell;
} columns[] = {
    {"id", "", CELL_TEXT},
    {"name", "name", CELL_TEXT},
    {"state", "state", CELL_TEXT},
    {"method", "method", CELL_TEXT},
    {"sparsity", "N:M", CELL_TEXT},
    {"layout", "layout", CELL_TEXT},
    {"optimizer", "optimizer", CELL_TEXT},
    {"adapter", "adapter", CELL_TEXT},
    {"parameters", "parameters", CELL_COUNT},
    {"active_parameters", "stored", CELL_COUNT},
    {"adapter_parameters", "of an adapter", CELL_COUNT},
    {"density", "density", CELL_REAL},
    {"step", "step", CELL_WHOLE},
    {"steps", "of steps", CELL_WHOLE},
    {"tokens", "tokens", CELL_COUNT},
    {"final_loss", "validation loss", CELL_LOSS},
    {"final_perplexity", "perplexity", CELL_REAL},
    {"best_loss", "best loss", CELL_LOSS},
    {"best_perplexity", "best perplexity", CELL_REAL},
    {"best_step", "at step", CELL_WHOLE},
    {"tokens_per_s", "tokens/s, median", CELL_COUNT},
    {"refresh_share", "refresh time", CELL_SHARE},
    {"flip_rate", "mask flip rate", CELL_SHARE},
};
enum { COLUMNS = sizeof(columns) / sizeof(columns[0]), CELL_MAX = 128 };

static void cell_text(const cJSON *row, size_t column, char out[CELL_MAX])
{
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(row, columns[column].key);
    char text[FORMAT_TEXT_MAX];
    strcpy(out, "-");
    if (cJSON_IsString(value)) {
        snprintf(out, CELL_MAX, "%s", value->valuestring);
    } else if (cJSON_IsNumber(value)) {
        double number = value->valuedouble;
        switch (columns[column].cell) {
        case CELL_COUNT:
            snprintf(out, CELL_MAX, "%s", format_count(text, number));
            break;
        case CELL_LOSS:
            snprintf(out, CELL_MAX, "%s", format_loss(text, number));
            break;
        case CELL_SHARE:
            snprintf(out, CELL_MAX, "%.3g %%", 100 * number);
            break;
        case CELL_WHOLE:
            snprintf(out, CELL_MAX, "%.0f", number);
            break;
        case CELL_TEXT:
        case CELL_REAL:
            snprintf(out, CELL_MAX, "%.4g", number);
            break;
        }
    }
}

static void value_text(const cJSON *value, char out[CELL_MAX])
{
    struct buf text;
    buf_init(&text, CLIENT_BODY_MAX);
    if (cJSON_IsString(value)) {
        buf_puts(&text, value->valuestring);
    } else if (!cJSON_IsNull(value)) {
        json_print(value, &text);
    }
    snprintf(out, CELL_MAX, "%s", text.data ? text.data : "-");
    buf_release(&text);
}

/* Jobs first .. first + count - 1 as columns. */
static bool print_block(const struct compare *compare, size_t first, size_t count)
{
    struct table table;
    char text[COMPARE_ACROSS][CELL_MAX];
    const char *cells[COMPARE_ACROSS + 1];
    const cJSON *difference;
    table_init(&table, count + 1, 0);
    for (size_t c = 0; c < COLUMNS; c++) {
        cells[0] = columns[c].title;
        for (size_t i = 0; i < count; i++) {
            cell_text(cJSON_GetArrayItem(compare->rows, (int)(first + i)), c, text[i]);
            cells[i + 1] = text[i];
        }
        table_row(&table, cells);
    }
    cJSON_ArrayForEach(difference, compare->differences)
    {
        cells[0] = cli_text(difference, "field");
        for (size_t i = 0; i < count; i++) {
            value_text(cJSON_GetArrayItem(json_array(difference, "values"), (int)(first + i)),
                       text[i]);
            cells[i + 1] = text[i];
        }
        table_row(&table, cells);
    }
    bool whole = table_print(&table, stdout);
    table_release(&table);
    return whole;
}

static bool print_text(const struct compare *compare)
{
    bool whole = true;
    for (size_t first = 0; first < compare->count; first += COMPARE_ACROSS) {
        size_t left = compare->count - first;
        if (first > 0) {
            putchar('\n');
        }
        whole =
            print_block(compare, first, left < COMPARE_ACROSS ? left : COMPARE_ACROSS) && whole;
    }
    return whole;
}

/* One line a job, numbers in full. */
static bool print_csv(const struct compare *compare)
{
    struct table table;
    const char *cells[COLUMNS];
    const cJSON *row;
    table_init(&table, COLUMNS, 0);
    for (size_t c = 0; c < COLUMNS; c++) {
        cells[c] = columns[c].key;
    }
    table_row(&table, cells);
    cJSON_ArrayForEach(row, compare->rows)
    {
        char text[COLUMNS][CELL_MAX];
        for (size_t c = 0; c < COLUMNS; c++) {
            const cJSON *value = cJSON_GetObjectItemCaseSensitive(row, columns[c].key);
            value_text(value, text[c]);
            cells[c] = cJSON_IsNull(value) ? "" : text[c];
        }
        table_row(&table, cells);
    }
    bool whole = table_csv(&table, stdout);
    table_release(&table);
    return whole;
}

static int print_json(struct compare *compare)
{
    cJSON *root = cJSON_CreateObject();
    cJSON_AddItemToObject(root, "jobs", compare->rows);
    cJSON_AddItemToObject(root, "differences", compare->differences);
    compare->rows = compare->differences = NULL;
    int code = cli_print_json(root);
    cJSON_Delete(root);
    return code;
}

static int print(struct compare *compare)
{
    compare->differences = cJSON_CreateArray();
    for (size_t i = 0; i < compare->count; i++) {
        compare_members(compare, compare->specs[i], "");
    }
    if (compare->json) {
        return print_json(compare);
    }
    bool whole = (compare->csv ? print_csv : print_text)(compare);
    if (!whole) {
        fprintf(stderr, "hebb: out of memory\n");
    }
    return whole ? EXIT_DONE : EXIT_FAILED;
}

/* --- the command --- */

static void compare_release(struct compare *compare)
{
    for (size_t i = 0; i < compare->count; i++) {
        cJSON_Delete(compare->specs[i]);
    }
    free(compare->specs);
    cJSON_Delete(compare->rows);
    cJSON_Delete(compare->differences);
    client_destroy(compare->client);
}

int command_compare(int argc, char **argv)
{
    enum { JSON = CLI_OWN, CSV };
    static const struct option options[] = {
        CLI_OPTIONS,
        {"json", no_argument, NULL, JSON},
        {"csv", no_argument, NULL, CSV},
        {0},
    };
    struct compare compare = {0};
    int option;
    cli_begin();
    while ((option = cli_next(argc, argv, "", options, &compare.config)) != -1) {
        if (option != JSON && option != CSV) {
            return EXIT_USAGE;
        }
        compare.json = compare.json || option == JSON;
        compare.csv = compare.csv || option == CSV;
    }
    if (compare.json && compare.csv) {
        return cli_usage(argv[0], "--json and --csv exclude each other");
    }
    if (optind >= argc || argc - optind > COMPARE_MAX) {
        return cli_usage(argv[0], "which jobs? give 1 to %d IDs or job folders", COMPARE_MAX);
    }
    int code = load_all(&compare, argv + optind, (size_t)(argc - optind));
    if (code == EXIT_DONE) {
        code = print(&compare);
    }
    compare_release(&compare);
    return code;
}
