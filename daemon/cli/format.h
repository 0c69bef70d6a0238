/* Text for people: sizes, counts, times, tables, the progress bar. */
#ifndef HEBB_CLI_FORMAT_H
#define HEBB_CLI_FORMAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum { FORMAT_TEXT_MAX = 32, FORMAT_LINE_MAX = 512, TABLE_COLUMNS_MAX = 32 };

/* Each writes into out and returns it. A value that is not finite or negative is "-". */
char *format_bytes(char out[FORMAT_TEXT_MAX], double bytes); /* "1.4 GiB", "512 B" */
char *format_count(char out[FORMAT_TEXT_MAX], double count); /* "61.3M", "4.1k", "812" */
char *format_duration(char out[FORMAT_TEXT_MAX],
                      double seconds);                     /* "2h 05m", "3m 20s", "12s" */
char *format_loss(char out[FORMAT_TEXT_MAX], double loss); /* "3.4071" */

/* Columns that a terminal needs for UTF-8 text: one a character. */
size_t format_width(const char *text);

/* Rows of text cells, as wide as their widest cell. */
struct table {
    size_t columns;
    unsigned right; /* bit per column: aligned to the right */
    char **cells;   /* owned; (count), row by row */
    size_t count, cap;
    bool failed; /* out of memory: table_print says so */
};

void table_init(struct table *table, size_t columns, unsigned right);
void table_release(struct table *table);
void table_row(struct table *table, const char *const *cells); /* copies */
/* Two spaces between columns. False if a row was lost. */
bool table_print(const struct table *table, FILE *out);
/* The same as comma-separated values (RFC 4180, lines end with LF). */
bool table_csv(const struct table *table, FILE *out);

/* What is known of a run; a negative number is not known. */
struct progress {
    int64_t step, steps;
    double loss, tokens_per_s, eta_s;
};

/* "step 120/300  loss 3.4071  45.1k tokens/s  ETA 1m 02s"; what is not known is left out. */
void progress_text(const struct progress *progress, char out[FORMAT_LINE_MAX]);
/* "[=======>     ]  40 %  " and the text, cut to width columns. */
void progress_bar(const struct progress *progress, size_t width, char out[FORMAT_LINE_MAX]);

#endif
