#include "proto/msg/schema.h"

#include "proto/json/json.h"
#include "proto/msg/spec_private.h"
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* Length of "/section/" in a row's path; 1 for a row at the top. */
static size_t section_length(const struct opt *row)
{
    return (size_t)(strrchr(row->path, '/') - row->path) + 1;
}

static bool same_section(const struct opt *a, const struct opt *b)
{
    size_t len = section_length(a);
    return len == section_length(b) && strncmp(a->path, b->path, len) == 0;
}

static const char *row_key(const struct opt *row) { return row->path + section_length(row); }

/* --- JSON Schema --- */

static void print_names(const char *key, const char *const *names, struct buf *out)
{
    buf_printf(out, ",\"%s\":[", key);
    for (size_t i = 0; names[i]; i++) {
        buf_puts(out, i > 0 ? "," : "");
        json_print_string(names[i], out);
    }
    buf_puts(out, "]");
}

static void print_bounds(const char *least, const char *most, const struct opt *row,
                         struct buf *out)
{
    buf_printf(out, ",\"%s\":", least);
    json_print_number(row->min, out);
    buf_printf(out, ",\"%s\":", most);
    json_print_number(row->max, out);
}

static void schema_type(const struct opt *row, struct buf *out)
{
    switch (row->type) {
    case OPT_BOOL:
        buf_puts(out, "\"type\":\"boolean\"");
        break;
    case OPT_INT:
        buf_puts(out, "\"type\":\"integer\"");
        print_bounds("minimum", "maximum", row, out);
        break;
    case OPT_REAL:
        buf_puts(out, "\"type\":\"number\"");
        print_bounds("minimum", "maximum", row, out);
        break;
    case OPT_STRING:
        buf_puts(out, "\"type\":\"string\"");
        print_bounds("minLength", "maxLength", row, out);
        break;
    case OPT_ENUM:
        buf_puts(out, "\"type\":\"string\"");
        print_names("enum", row->choices, out);
        break;
    case OPT_STRINGS:
        buf_printf(out,
                   "\"type\":\"array\",\"items\":{\"type\":\"string\",\"minLength\":1,"
                   "\"maxLength\":%d}",
                   OPT_ITEM_MAX);
        print_bounds("minItems", "maxItems", row, out);
        break;
    case OPT_SEED:
        buf_puts(out, "\"type\":\"string\",\"pattern\":\"^[0-9]+$\"");
        break;
    }
}

static void schema_row(const struct opt *row, struct buf *out)
{
    json_print_string(row_key(row), out);
    buf_puts(out, ":{");
    schema_type(row, out);
    if (row->def && row->def[0] != '\0') {
        buf_printf(out, ",\"default\":%s", row->def);
    }
    if (row->unit[0] != '\0') {
        buf_puts(out, ",\"x-unit\":");
        json_print_string(row->unit, out);
    }
    if (row->owners) {
        print_names("x-owners", row->owners, out);
    }
    buf_puts(out, ",\"description\":");
    json_print_string(row->help, out);
    buf_puts(out, "}");
}

/* The "required" of the object whose rows are [first, last), if a row of it has no default. */
static void schema_required(const struct opt *first, const struct opt *last, struct buf *out)
{
    size_t count = 0;
    for (const struct opt *row = first; row < last; row++) {
        if (!row->def) {
            buf_puts(out, count++ > 0 ? "," : ",\"required\":[");
            json_print_string(row_key(row), out);
        }
    }
    buf_puts(out, count > 0 ? "]" : "");
}

/* One section's object, or the rows at the top. Returns the row after it; *required is set if a
 * row has no default. */
static const struct opt *schema_section(const struct opt *first, const struct opt *end,
                                        bool *required, struct buf *out)
{
    size_t len = section_length(first);
    bool top = len == 1;
    const struct opt *row = first;
    *required = false;
    if (!top) {
        buf_printf(out, "\"%.*s\":{\"type\":\"object\",\"additionalProperties\":false,",
                   (int)(len - 2), first->path + 1);
        buf_puts(out, "\"properties\":{");
    }
    for (; row < end && same_section(row, first); row++) {
        buf_puts(out, row > first ? "," : "");
        schema_row(row, out);
        *required = *required || !row->def;
    }
    if (!top) {
        buf_puts(out, "}");
        schema_required(first, row, out);
        buf_puts(out, "}");
    }
    return row;
}

void spec_schema(struct buf *out)
{
    size_t count, presets, needed = 0;
    const struct opt *row = spec_options(&count), *end = row + count;
    const struct spec_preset *preset = spec_presets(&presets);
    struct buf needs;
    buf_init(&needs, SPEC_BODY_MAX);
    buf_puts(out, "{\"$schema\":\"https://json-schema.org/draft/2020-12/schema\","
                  "\"title\":\"hebb job\",\"type\":\"object\",\"additionalProperties\":false,"
                  "\"properties\":{");
    for (const struct opt *first = row; row < end; first = row) {
        bool required;
        buf_puts(out, first > spec_options(&count) ? "," : "");
        row = schema_section(first, end, &required, out);
        if (required) {
            buf_printf(&needs, "%s\"%.*s\"", needed++ > 0 ? "," : "",
                       (int)(section_length(first) - 2), first->path + 1);
        }
    }
    buf_printf(out, "},\"required\":[%s],\"x-presets\":{", needs.data ? needs.data : "");
    for (size_t i = 0; i < presets; i++) {
        buf_printf(out,
                   "%s\"%s\":{\"hidden\":%" PRId64 ",\"intermediate\":%" PRId64
                   ",\"layers\":%" PRId64 ",\"heads\":%" PRId64 "}",
                   i > 0 ? "," : "", preset[i].name, preset[i].hidden, preset[i].intermediate,
                   preset[i].layers, preset[i].heads);
    }
    buf_puts(out, "}}");
    buf_release(&needs);
}

/* --- Markdown --- */

static void markdown_values(const struct opt *row, struct buf *out)
{
    static const char *const kinds[] = {
        [OPT_BOOL] = "true or false",
        [OPT_INT] = "whole number",
        [OPT_REAL] = "number",
        [OPT_STRING] = "string",
        [OPT_ENUM] = "",
        [OPT_STRINGS] = "strings",
        [OPT_SEED] = "string of decimal digits",
    };
    buf_puts(out, kinds[row->type]);
    if (row->type == OPT_ENUM) {
        for (size_t i = 0; row->choices[i]; i++) {
            buf_printf(out, "%s`%s`", i > 0 ? ", " : "", row->choices[i]);
        }
    } else if (row->type == OPT_INT || row->type == OPT_REAL) {
        buf_puts(out, ", ");
        json_print_number(row->min, out);
        buf_puts(out, " to ");
        json_print_number(row->max, out);
        buf_printf(out, "%s%s", row->unit[0] ? " " : "", row->unit);
    } else if (row->type == OPT_STRING || row->type == OPT_STRINGS) {
        buf_printf(out, ", %.0f to %.0f %s", row->min, row->max,
                   row->type == OPT_STRING ? "bytes" : "items");
    }
}

static void markdown_row(const struct opt *row, struct buf *out)
{
    buf_printf(out, "| `%s` | ", row_key(row));
    markdown_values(row, out);
    if (!row->def) {
        buf_puts(out, " | required | ");
    } else if (row->def[0] == '\0') {
        buf_puts(out, " | see right | ");
    } else {
        buf_printf(out, " | `%s` | ", row->def);
    }
    buf_puts(out, row->help);
    if (row->owners) {
        buf_puts(out, " Only for ");
        for (size_t i = 0; row->owners[i]; i++) {
            buf_printf(out, "%s`%s`", i > 0 ? ", " : "", row->owners[i]);
        }
        buf_puts(out, ".");
    }
    buf_puts(out, " |\n");
}

static void markdown_presets(struct buf *out)
{
    size_t count;
    const struct spec_preset *presets = spec_presets(&count);
    buf_puts(out,
             "\n## Presets\n\n"
             "| preset | hidden | intermediate | layers | heads |\n|---|---|---|---|---|\n");
    for (size_t i = 0; i < count; i++) {
        buf_printf(out, "| `%s` | %" PRId64 " | %" PRId64 " | %" PRId64 " | %" PRId64 " |\n",
                   presets[i].name, presets[i].hidden, presets[i].intermediate,
                   presets[i].layers, presets[i].heads);
    }
    buf_puts(
        out,
        "\nThe shapes are those of the CHTsNM paper, but for one: its 1B model has an "
        "intermediate width of 5461,\nwhich no group length divides; `llama-1b` uses 5504.\n");
}

void spec_markdown(struct buf *out)
{
    size_t count;
    const struct opt *rows = spec_options(&count);
    buf_puts(
        out,
        "# The job\n\n"
        "<!-- Printed by `hebb spec --markdown` from proto/msg/spec_table.c. -->\n\n"
        "A job is one JSON object. Every field but `data.train` has a default; an unknown or "
        "duplicate key, a value of\nthe wrong type or out of range, and an option that the "
        "chosen method does not have are errors, and all errors\nof a job are reported at "
        "once, each with a JSON pointer to its field. `hebb spec --json` and `GET /v1/spec`\n"
        "print the same table as a JSON Schema. The smallest job:\n\n"
        "    {\"data\": {\"train\": [\"corpus.txt\"]}}\n");
    for (size_t i = 0; i < count; i++) {
        if (i == 0 || !same_section(&rows[i], &rows[i - 1])) {
            size_t len = section_length(&rows[i]);
            buf_printf(out, "\n## %.*s\n\n", len > 1 ? (int)(len - 2) : 7,
                       len > 1 ? rows[i].path + 1 : "The job");
            buf_puts(out, "| field | values | default | what it is |\n|---|---|---|---|\n");
        }
        markdown_row(&rows[i], out);
    }
    markdown_presets(out);
}
