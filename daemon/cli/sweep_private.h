/* What the files that make a sweep's plan share. */
#ifndef HEBB_CLI_SWEEP_PRIVATE_H
#define HEBB_CLI_SWEEP_PRIVATE_H

#include "daemon/cli/sweep.h"

/* Puts value (copied) at a JSON pointer (RFC 6901) of objects; objects on the way are made.
 * False if something there is no object, or out of memory. */
bool sweep_set_at(cJSON *root, const char *pointer, const cJSON *value);

/* Adds the arms of the file's "arms" and "grid" to the plan. */
int sweep_add_arms(struct sweep_plan *plan, const cJSON *root, struct sweep_faults *faults,
                   struct err *err);

/* True if pointer is one to a field that a sweep may set, else a fault. */
bool sweep_pointer_fits(struct sweep_faults *faults, const char *where, const char *pointer);

/* The plan of a sweep's object, "tune" not looked at. */
int sweep_plan_from(struct sweep_plan *plan, const cJSON *root, struct sweep_faults *faults,
                    struct err *err);

/* Makes the runs of the plan's arms and seeds anew. */
int sweep_make_runs(struct sweep_plan *plan, struct sweep_faults *faults, struct err *err);

#endif
