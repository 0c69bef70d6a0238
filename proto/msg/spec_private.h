/* What the files of the job spec share. */
#ifndef HEBB_MSG_SPEC_PRIVATE_H
#define HEBB_MSG_SPEC_PRIVATE_H

#include "proto/msg/spec.h"

struct cJSON;

enum {
    SPEC_ROWS_MAX = 96,
    SPEC_SHOWN_MAX = 52, /* a wrong value as a fault quotes it, "..." and NUL included */
};

/* A spec on its way from JSON: which rows were given, and which are faulty already. */
struct spec_draft {
    struct job_spec *spec;
    struct spec_faults *faults;
    bool given[SPEC_ROWS_MAX];
    bool faulty[SPEC_ROWS_MAX];
    bool no_memory; /* what the faults say is not the job's doing */
};

/* Index of the row with this path; asserts that there is one. */
size_t spec_row(const char *path);
bool spec_given(const struct spec_draft *draft, const char *path);
/* True if none of the rows (paths, ends with NULL) has a fault: a rule over them makes sense.
 */
bool spec_sound(const struct spec_draft *draft, const char *const *paths);

/* Keeps one fault and marks its row, if it has one. */
void spec_fault(struct spec_draft *draft, const char *field, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* The same when memory ran out: the text may be right. */
void spec_no_memory(struct spec_draft *draft, const char *field);

/* Puts value into row's field, or keeps a fault that names it. */
void spec_set_value(struct spec_draft *draft, const struct opt *row, const struct cJSON *value);
/* Appends the field's JSON. */
void spec_print_value(const struct job_spec *spec, const struct opt *row, struct buf *out);
/* The start of a value's JSON text, for messages. Returns out. */
const char *spec_show(const struct cJSON *value, char out[SPEC_SHOWN_MAX]);

/* The value of the field of the section's selector: what rows' owners name. NULL: none. */
const char *spec_owner(const struct job_spec *spec, const struct opt *row);
bool spec_row_applies(const struct job_spec *spec, const struct opt *row);

/* Fills presets and computed defaults, then checks combinations of values. */
void spec_complete(struct spec_draft *draft);
void spec_check(struct spec_draft *draft);
void spec_check_slurm(struct spec_draft *draft);

#endif
