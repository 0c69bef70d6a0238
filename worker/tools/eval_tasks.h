/* Questions for `hebb eval`, one JSON object a line (docs/evaluation.md): multiple choice, and
 * the last word of a text. */
#ifndef HEBB_TOOLS_EVAL_TASKS_H
#define HEBB_TOOLS_EVAL_TASKS_H

#include "proto/base/err.h"
#include <stdbool.h>
#include <stddef.h>

enum eval_kind {
    EVAL_CHOICES,   /* {"context": TEXT, "choices": [TEXT, TEXT, ...], "answer": INDEX} */
    EVAL_LAST_WORD, /* {"context": TEXT, "answer": WORD} or {"text": TEXT} */
};

enum {
    EVAL_LINE_MAX = 1024 * 1024, /* bytes of a line */
    EVAL_CHOICES_MAX = 64,
    EVAL_FAULTS_SHOWN = 20, /* further faults of a file are counted */
};

/* One question. A continuation is what is scored: the delimiter and the choice's text. */
struct eval_item {
    size_t line; /* in the file, from 1 */
    char *context;
    char **continuations; /* (count): the choices; last word: one */
    size_t count, answer; /* answer: index of the right one */
};

struct eval_items {
    struct eval_item *items;
    size_t count, cap;
};

/* Reads a whole file; lines of white space alone are passed over. delimiter goes between
 * context and continuation; NULL: one space, unless one of them has white space there or the
 * context is empty. A {"text"} is split at the white space before its last word, which stays as
 * it is. Keys that are not named here are passed over. Every faulty line is named on stderr as
 * "PATH line N: /FIELD: reason"; with one, and without any question, the result is ERR_CORRUPT
 * and out is empty.
 */
int eval_items_read(struct eval_items *out, const char *path, enum eval_kind kind,
                    const char *delimiter, struct err *err);
void eval_items_release(struct eval_items *items);

#endif
