/* A job file of the command line. */
#ifndef HEBB_TOOLS_TOOL_SPEC_H
#define HEBB_TOOLS_TOOL_SPEC_H

#include "proto/msg/spec.h"

/* Reads and validates the job in path, with ranks and threads in place of its own where they
 * are not 0; its data paths are made absolute from the working folder. Prints every fault on
 * stderr. spec must be initialised; the caller releases it. */
int tool_spec_load(struct job_spec *spec, const char *path, uint64_t ranks, uint64_t threads,
                   struct err *err);

#endif
