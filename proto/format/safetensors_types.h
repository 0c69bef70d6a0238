/* What reader and writer of safetensors share; private to proto/format. */
#ifndef HEBB_FORMAT_SAFETENSORS_TYPES_H
#define HEBB_FORMAT_SAFETENSORS_TYPES_H

#include "proto/format/safetensors.h"
#include <stdbool.h>

/* Offsets travel as JSON numbers, which are doubles: whole up to 2^53. */
#define ST_DATA_MAX ((uint64_t)1 << 53)

const char *st_type_name(enum st_type type);             /* "F32" */
bool st_type_parse(enum st_type *out, const char *name); /* false: unknown */

/* *out = product of shape times bytes of the type; false on overflow or rank > ST_RANK_MAX. */
bool st_tensor_size(size_t *out, const struct st_tensor *tensor);

#endif
