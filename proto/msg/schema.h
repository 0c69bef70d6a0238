/* The job's description, printed from the option tables. */
#ifndef HEBB_MSG_SCHEMA_H
#define HEBB_MSG_SCHEMA_H

#include "proto/base/buf.h"

/* Appends a JSON Schema (2020-12) of a job on one line. Beside the standard words: "x-unit",
 * "x-owners" (the methods that have the option) and, at the top, "x-presets". Rules over more
 * than one field are in the descriptions only. */
void spec_schema(struct buf *out);

/* Appends docs/jobspec.md. */
void spec_markdown(struct buf *out);

#endif
