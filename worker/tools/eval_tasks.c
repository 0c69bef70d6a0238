#include "worker/tools/eval_tasks.h"

#include "proto/base/mem.h"
#include "proto/json/json.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char white_space[] = " \t\r\n\v\f";

/* One file on its way. */
struct reading {
    struct eval_items *items;
    const char *path, *delimiter;
    size_t line, faults;
    bool no_memory;
};

static void __attribute__((format(printf, 2, 3)))
fault(struct reading *reading, const char *format, ...)
{
    va_list args;
    reading->faults++;
    if (reading->faults > EVAL_FAULTS_SHOWN) {
        return;
    }
    fprintf(stderr, "%s line %zu: ", reading->path, reading->line);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
}

static const char *kind_name(const cJSON *value)
{
    return !value                  ? "nothing"
           : cJSON_IsString(value) ? "a string"
           : cJSON_IsNumber(value) ? "a number"
           : cJSON_IsArray(value)  ? "an array"
           : cJSON_IsObject(value) ? "an object"
           : cJSON_IsNull(value)   ? "null"
                                   : "true or false";
}

/* The member's text; NULL after a fault. */
static const char *text_of(struct reading *reading, const cJSON *object, const char *key)
{
    const char *text = json_string(object, key);
    if (!text) {
        fault(reading, "/%s: must be a string, got %s", key,
              kind_name(cJSON_GetObjectItemCaseSensitive(object, key)));
    }
    return text;
}

static bool is_white(char c) { return c != '\0' && strchr(white_space, c) != NULL; }

/* What stands between context and text. */
static const char *delimiter_for(const struct reading *reading, const char *context,
                                 const char *text)
{
    if (reading->delimiter) {
        return reading->delimiter;
    }
    size_t len = strlen(context);
    bool joined = len == 0 || is_white(context[len - 1]) || is_white(text[0]);
    return joined ? "" : " ";
}

/* --- an item --- */

static void item_release(struct eval_item *item)
{
    for (size_t i = 0; i < item->count; i++) {
        free(item->continuations[i]);
    }
    free(item->continuations);
    free(item->context);
    *item = (struct eval_item){0};
}

static char *joined(const char *a, const char *b)
{
    size_t first = strlen(a), second = strlen(b);
    char *out = mem_zeroed(first + second + 1, 1);
    if (out) {
        memcpy(out, a, first);
        memcpy(out + first, b, second);
    }
    return out;
}

/* Room for count continuations. */
static bool item_begin(struct eval_item *item, const char *context, size_t count)
{
    item->context = mem_strdup(context);
    item->continuations = mem_zeroed(count, sizeof *item->continuations);
    return item->context && item->continuations;
}

static bool item_add(struct eval_item *item, const char *delimiter, const char *text)
{
    item->continuations[item->count] = joined(delimiter, text);
    return item->continuations[item->count++] != NULL;
}

/* Keeps the item of a line without a fault; takes it over. */
static void item_keep(struct reading *reading, struct eval_item *item, bool ok)
{
    struct eval_items *all = reading->items;
    if (ok && all->count == all->cap) {
        size_t cap = all->cap * 2 + 64, bytes;
        ok = size_mul(&bytes, cap, sizeof *all->items);
        struct eval_item *grown = ok ? realloc(all->items, bytes) : NULL;
        ok = grown != NULL;
        all->items = grown ? grown : all->items;
        all->cap = grown ? cap : all->cap;
    }
    if (ok) {
        all->items[all->count++] = *item;
    } else {
        reading->no_memory = true;
        item_release(item);
    }
}

/* --- the kinds of lines --- */

static void read_choices(struct reading *reading, const cJSON *line)
{
    size_t before = reading->faults;
    const char *context = text_of(reading, line, "context");
    const cJSON *choices = json_array(line, "choices"), *choice;
    int count = cJSON_GetArraySize(choices), index = 0;
    int64_t answer = -1;
    if (!choices) {
        fault(reading, "/choices: must be an array of strings, got %s",
              kind_name(cJSON_GetObjectItemCaseSensitive(line, "choices")));
    } else if (count < 2 || count > EVAL_CHOICES_MAX) {
        fault(reading, "/choices: must have 2 to %d items, has %d", EVAL_CHOICES_MAX, count);
    } else if (!json_int(&answer, line, "answer") || answer < 0 || answer >= count) {
        const cJSON *given = cJSON_GetObjectItemCaseSensitive(line, "answer");
        if (cJSON_IsNumber(given)) {
            fault(reading, "/answer: must be an index from 0 to %d, got %g", count - 1,
                  given->valuedouble);
        } else {
            fault(reading, "/answer: must be an index from 0 to %d, got %s", count - 1,
                  kind_name(given));
        }
    }
    cJSON_ArrayForEach(choice, choices)
    {
        if (!cJSON_IsString(choice)) {
            fault(reading, "/choices/%d: must be a string, got %s", index, kind_name(choice));
        } else if (choice->valuestring[0] == '\0') {
            fault(reading, "/choices/%d: is empty", index);
        }
        index++;
    }
    if (reading->faults > before) {
        return;
    }
    struct eval_item item = {.line = reading->line, .answer = (size_t)answer};
    bool ok = item_begin(&item, context, (size_t)count);
    cJSON_ArrayForEach(choice, choices)
    {
        const char *text = choice->valuestring;
        ok = ok && item_add(&item, delimiter_for(reading, context, text), text);
    }
    item_keep(reading, &item, ok);
}

/* {"text"}: the last word, with the white space before it. */
static void read_text(struct reading *reading, const cJSON *line)
{
    const char *text = text_of(reading, line, "text");
    if (!text) {
        return;
    }
    size_t end = strlen(text);
    while (end > 0 && is_white(text[end - 1])) {
        end--;
    }
    size_t start = end;
    while (start > 0 && !is_white(text[start - 1])) {
        start--;
    }
    size_t space = start;
    while (space > 0 && is_white(text[space - 1])) {
        space--;
    }
    if (space == 0) {
        fault(reading, "/text: must have at least two words");
        return;
    }
    struct eval_item item = {.line = reading->line};
    bool ok = item_begin(&item, text, 1) && item_add(&item, text + space, "");
    if (ok) {
        item.continuations[0][end - space] = '\0';
        item.context[space] = '\0';
    }
    item_keep(reading, &item, ok);
}

static void read_last_word(struct reading *reading, const cJSON *line)
{
    if (cJSON_GetObjectItemCaseSensitive(line, "text")) {
        if (cJSON_GetObjectItemCaseSensitive(line, "context") ||
            cJSON_GetObjectItemCaseSensitive(line, "answer")) {
            fault(reading, "/text: not beside /context and /answer");
            return;
        }
        read_text(reading, line);
        return;
    }
    const char *context = text_of(reading, line, "context");
    const char *answer = text_of(reading, line, "answer");
    if (answer && *answer == '\0') {
        fault(reading, "/answer: is empty");
    } else if (context && answer) {
        struct eval_item item = {.line = reading->line};
        bool ok = item_begin(&item, context, 1) &&
                  item_add(&item, delimiter_for(reading, context, answer), answer);
        item_keep(reading, &item, ok);
    }
}

/* --- the file --- */

static void read_line(struct reading *reading, enum eval_kind kind, const char *text,
                      size_t len)
{
    cJSON *line;
    struct err err = {0};
    if (strspn(text, white_space) == len) {
        return;
    }
    if (json_parse(&line, text, len, &err) != 0) {
        /* "line 1 column C": the line is the file's, not this text's */
        const char *reason = strstr(err.text, "column ");
        fault(reading, "%s", reason ? reason : err.text);
        return;
    }
    if (!cJSON_IsObject(line)) {
        fault(reading, "must be an object, got %s", kind_name(line));
    } else if (kind == EVAL_CHOICES) {
        read_choices(reading, line);
    } else {
        read_last_word(reading, line);
    }
    cJSON_Delete(line);
}

static int read_lines(struct reading *reading, enum eval_kind kind, FILE *file, struct err *err)
{
    char *text = NULL;
    size_t cap = 0;
    ssize_t len = 0;
    int rc = 0;
    while (rc == 0 && !reading->no_memory && (len = getline(&text, &cap, file)) >= 0) {
        reading->line++;
        if (len > EVAL_LINE_MAX) {
            rc = err_set(err, ERR_CORRUPT, "%s line %zu: longer than %d bytes", reading->path,
                         reading->line, EVAL_LINE_MAX);
        } else {
            len -= len > 0 && text[len - 1] == '\n';
            text[len] = '\0';
            read_line(reading, kind, text, (size_t)len);
        }
    }
    if (rc == 0 && ferror(file)) {
        rc = err_set(err, ERR_IO, "read %s: %s", reading->path, strerror(errno));
    }
    free(text);
    return rc;
}

int eval_items_read(struct eval_items *out, const char *path, enum eval_kind kind,
                    const char *delimiter, struct err *err)
{
    struct reading reading = {.items = out, .path = path, .delimiter = delimiter};
    *out = (struct eval_items){0};
    FILE *file = fopen(path, "re");
    if (!file) {
        return err_set(err, errno == ENOENT ? ERR_NOT_FOUND : ERR_IO, "open %s: %s", path,
                       strerror(errno));
    }
    int rc = read_lines(&reading, kind, file, err);
    fclose(file);
    if (reading.faults > EVAL_FAULTS_SHOWN) {
        fprintf(stderr, "%s: and %zu more faults\n", path, reading.faults - EVAL_FAULTS_SHOWN);
    }
    if (rc == 0 && reading.no_memory) {
        rc = err_set(err, ERR_NO_MEMORY, "%s: no memory for its lines", path);
    } else if (rc == 0 && reading.faults > 0) {
        rc = err_set(err, ERR_CORRUPT, "%s: %zu fault%s; nothing was evaluated", path,
                     reading.faults, reading.faults > 1 ? "s" : "");
    } else if (rc == 0 && out->count == 0) {
        rc = err_set(err, ERR_CORRUPT, "%s: holds no line to evaluate", path);
    }
    if (rc != 0) {
        eval_items_release(out);
    }
    return rc;
}

void eval_items_release(struct eval_items *items)
{
    for (size_t i = 0; i < items->count; i++) {
        item_release(&items->items[i]);
    }
    free(items->items);
    *items = (struct eval_items){0};
}
