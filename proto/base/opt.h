/* Option tables: one row per option with its type, default and bounds. Parsing, validation, JSON
 * Schema, `--describe` and docs/jobspec.md are all made from the rows. */
#ifndef HEBB_BASE_OPT_H
#define HEBB_BASE_OPT_H

#include <stddef.h>

enum opt_type {
    OPT_BOOL,    /* bool */
    OPT_INT,     /* int64_t within [min, max]; a JSON number without fraction, |x| <= 2^53 */
    OPT_REAL,    /* double within [min, max], finite */
    OPT_STRING,  /* char[OPT_STRING_MAX], min to max bytes of UTF-8 without control characters */
    OPT_ENUM,    /* char[OPT_STRING_MAX], one of choices */
    OPT_STRINGS, /* struct str_list of min to max items, each 1 to OPT_ITEM_MAX bytes as above */
    OPT_SEED,    /* uint64_t; a JSON string of decimal digits, since JSON numbers have 53 bits */
};

enum { OPT_STRING_MAX = 256, OPT_STRINGS_MAX = 64, OPT_ITEM_MAX = 4095 };

struct str_list {
    char **items; /* owned, each item too */
    size_t count;
};

struct opt {
    const char *path; /* JSON pointer: "/train/steps" */
    enum opt_type type;
    size_t offset;    /* of the field in the struct that the table describes */
    const char *def;  /* JSON text of the default; NULL: required; "" : computed, `help` says how */
    double min, max;
    const char *const *choices; /* OPT_ENUM: ends with NULL */
    const char *unit;           /* "", "steps", "sequences", ... */
    const char *help;           /* one sentence */
    /* Values of the section's method or name that have this option; ends with NULL. NULL: all. */
    const char *const *owners;
};

#endif
