/* The safetensors files of a model's folder, read as one: a single model.safetensors, or the
 * files that model.safetensors.index.json names. */
#ifndef HEBB_ENGINE_MODEL_SOURCE_H
#define HEBB_ENGINE_MODEL_SOURCE_H

#include "proto/base/err.h"
#include "proto/format/safetensors.h"
#include <stdbool.h>

enum { MODEL_SOURCE_FILES_MAX = 1024, MODEL_SOURCE_INDEX_MAX = 64 << 20 };

struct model_source {
    struct st_file **files; /* (count) mapped */
    size_t count;
};

/* path: a folder, or one safetensors file. ERR_NOT_FOUND, ERR_CORRUPT; release is needed after
 * success only. */
int model_source_open(struct model_source *source, const char *path, struct err *err);
void model_source_release(struct model_source *source);

/* NULL if no file has the tensor; *file gets the one that does. */
const struct st_tensor *model_source_find(const struct model_source *source, const char *name,
                                          const struct st_file **file);

/* Data and type of the matrix `name` of shape (rows, cols), or of a vector if rows is 1.
 * ERR_CORRUPT if it is not there or has another shape, ERR_UNSUPPORTED if its type is not real.
 */
int model_source_param(const struct model_source *source, const char *name, size_t rows,
                       size_t cols, const void **data, enum st_type *type, struct err *err);

/* True for F64, F32, F16 and BF16: the types that model_source_entry reads. */
bool model_source_real(enum st_type type);

/* Entry `index` of the data of a tensor of a real type. Exact. */
double model_source_entry(const void *data, enum st_type type, size_t index);

#endif
