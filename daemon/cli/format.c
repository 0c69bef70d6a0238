#include "daemon/cli/format.h"

#include "proto/base/mem.h"
#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { BAR_MIN = 10, BAR_MAX = 40 };

static char *format_none(char out[FORMAT_TEXT_MAX]) { return strcpy(out, "-"); }

/* value scaled by step as often as it fits; three significant digits. */
static char *format_scaled(char out[FORMAT_TEXT_MAX], double value, double step,
                           const char *const *units)
{
    if (!isfinite(value) || value < 0) {
        return format_none(out);
    }
    size_t unit = 0;
    while (units[unit + 1] && value >= (unit == 0 ? step : step - 0.5)) { /* no "1000k" */
        value /= step;
        unit++;
    }
    int digits = unit == 0 || value >= 99.95 ? 0 : 1;
    snprintf(out, FORMAT_TEXT_MAX, "%.*f%s", digits, value, units[unit]);
    return out;
}

char *format_bytes(char out[FORMAT_TEXT_MAX], double bytes)
{
    static const char *const units[] = {" B", " KiB", " MiB", " GiB", " TiB", " PiB", NULL};
    return format_scaled(out, bytes, 1024, units);
}

char *format_count(char out[FORMAT_TEXT_MAX], double count)
{
    static const char *const units[] = {"", "k", "M", "G", "T", "P", "E", NULL};
    return format_scaled(out, count, 1000, units);
}

char *format_duration(char out[FORMAT_TEXT_MAX], double seconds)
{
    if (!isfinite(seconds) || seconds < 0 || seconds > 1e9) {
        return format_none(out);
    }
    long whole = lround(seconds);
    long days = whole / 86400, hours = whole / 3600 % 24, minutes = whole / 60 % 60;
    if (days > 0) {
        snprintf(out, FORMAT_TEXT_MAX, "%ldd %02ldh", days, hours);
    } else if (hours > 0) {
        snprintf(out, FORMAT_TEXT_MAX, "%ldh %02ldm", hours, minutes);
    } else if (minutes > 0) {
        snprintf(out, FORMAT_TEXT_MAX, "%ldm %02lds", minutes, whole % 60);
    } else {
        snprintf(out, FORMAT_TEXT_MAX, "%lds", whole);
    }
    return out;
}

char *format_loss(char out[FORMAT_TEXT_MAX], double loss)
{
    if (!isfinite(loss) || loss < 0) {
        return format_none(out);
    }
    snprintf(out, FORMAT_TEXT_MAX, "%.4f", loss);
    return out;
}

size_t format_width(const char *text)
{
    size_t width = 0;
    for (; *text; text++) {
        width += ((unsigned char)*text & 0xc0) != 0x80;
    }
    return width;
}

/* --- tables --- */

void table_init(struct table *table, size_t columns, unsigned right)
{
    assert(columns > 0 && columns <= TABLE_COLUMNS_MAX);
    *table = (struct table){.columns = columns, .right = right};
}

void table_release(struct table *table)
{
    for (size_t i = 0; i < table->count; i++) {
        free(table->cells[i]);
    }
    free(table->cells);
    *table = (struct table){0};
}

void table_row(struct table *table, const char *const *cells)
{
    if (table->count + table->columns > table->cap) {
        size_t cap = table->cap * 2 + 8 * table->columns;
        char **grown = realloc(table->cells, cap * sizeof(*grown));
        if (!grown) {
            table->failed = true;
            return;
        }
        table->cells = grown;
        table->cap = cap;
    }
    for (size_t i = 0; i < table->columns; i++) {
        char *copy = mem_strdup(cells[i]);
        if (!copy) {
            table->failed = true;
        }
        table->cells[table->count++] = copy;
    }
}

static const char *table_cell(const struct table *table, size_t index)
{
    return table->cells[index] ? table->cells[index] : "";
}

bool table_print(const struct table *table, FILE *out)
{
    size_t widths[TABLE_COLUMNS_MAX] = {0};
    for (size_t i = 0; i < table->count; i++) {
        size_t width = format_width(table_cell(table, i));
        if (width > widths[i % table->columns]) {
            widths[i % table->columns] = width;
        }
    }
    for (size_t i = 0; i < table->count; i++) {
        size_t column = i % table->columns;
        const char *cell = table_cell(table, i);
        int pad = (int)(widths[column] - format_width(cell));
        bool last = column + 1 == table->columns;
        if (table->right & (1U << column)) {
            fprintf(out, "%*s%s%s", pad, "", cell, last ? "\n" : "  ");
        } else {
            fprintf(out, "%s%*s%s", cell, last ? 0 : pad, "", last ? "\n" : "  ");
        }
    }
    return !table->failed;
}

static void csv_cell(const char *text, FILE *out)
{
    if (!strpbrk(text, ",\"\r\n")) {
        fputs(text, out);
        return;
    }
    fputc('"', out);
    for (; *text; text++) {
        fputs(*text == '"' ? "\"\"" : (char[2]){*text, '\0'}, out);
    }
    fputc('"', out);
}

bool table_csv(const struct table *table, FILE *out)
{
    for (size_t i = 0; i < table->count; i++) {
        csv_cell(table_cell(table, i), out);
        fputc((i + 1) % table->columns == 0 ? '\n' : ',', out);
    }
    return !table->failed;
}

/* --- progress --- */

void progress_text(const struct progress *progress, char out[FORMAT_LINE_MAX])
{
    char text[FORMAT_TEXT_MAX];
    int used = snprintf(out, FORMAT_LINE_MAX, "step %lld", (long long)progress->step);
    size_t at = (size_t)used;
    if (progress->steps > 0) {
        at += (size_t)snprintf(out + at, FORMAT_LINE_MAX - at, "/%lld",
                               (long long)progress->steps);
    }
    if (progress->loss >= 0) {
        at += (size_t)snprintf(out + at, FORMAT_LINE_MAX - at, "  loss %s",
                               format_loss(text, progress->loss));
    }
    if (progress->tokens_per_s >= 0) {
        at += (size_t)snprintf(out + at, FORMAT_LINE_MAX - at, "  %s tokens/s",
                               format_count(text, progress->tokens_per_s));
    }
    if (progress->eta_s >= 0) {
        snprintf(out + at, FORMAT_LINE_MAX - at, "  ETA %s",
                 format_duration(text, progress->eta_s));
    }
}

void progress_bar(const struct progress *progress, size_t width, char out[FORMAT_LINE_MAX])
{
    char text[FORMAT_LINE_MAX];
    progress_text(progress, text);
    size_t room = width > strlen(text) + 11 ? width - strlen(text) - 11 : 0;
    if (progress->steps <= 0 || room < BAR_MIN) { /* no room for a bar: the text alone */
        snprintf(out, FORMAT_LINE_MAX, "%.*s",
                 (int)(width < FORMAT_LINE_MAX - 1 ? width : FORMAT_LINE_MAX - 1), text);
        return;
    }
    size_t cells = room < BAR_MAX ? room : BAR_MAX;
    double share = (double)progress->step / (double)progress->steps;
    share = share < 0 ? 0 : (share > 1 ? 1 : share);
    size_t full = (size_t)(share * (double)cells);
    char bar[BAR_MAX + 1];
    for (size_t i = 0; i < cells; i++) {
        bar[i] = i < full ? '=' : (i == full ? '>' : ' ');
    }
    bar[cells] = '\0';
    snprintf(out, FORMAT_LINE_MAX, "[%s] %3d %%  %.*s", bar, (int)(share * 100),
             FORMAT_LINE_MAX - BAR_MAX - 16, text);
}
