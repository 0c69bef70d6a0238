#include "engine/checkpoint.h"

#include "engine/model_config.h"
#include "proto/base/fsx.h"
#include "proto/base/mem.h"
#include "proto/format/safetensors.h"
#include "proto/json/json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SOURCE_FILES_MAX = 1024, SOURCE_INDEX_BYTES_MAX = 64 << 20 };

/* The safetensors files of a folder, all mapped. */
struct source {
    struct st_file **files; /* (count) */
    size_t count;
};

static void source_release(struct source *source)
{
    for (size_t i = 0; i < source->count; i++) {
        st_close(source->files[i]);
    }
    free(source->files);
}

static int source_add(struct source *source, const char *folder, const char *name,
                      struct err *err)
{
    char path[FSX_PATH_MAX];
    if (strchr(name, '/') || name[0] == '.') {
        return err_set(err, ERR_CORRUPT, "%s: %s names a file \"%s\"", folder, MODEL_INDEX_FILE,
                       name);
    }
    if (source->count == SOURCE_FILES_MAX) {
        return err_set(err, ERR_LIMIT, "%s: more than %d files", folder, SOURCE_FILES_MAX);
    }
    int rc = fsx_path(path, err, "%s/%s", folder, name);
    if (rc == 0) {
        rc = st_open(&source->files[source->count], path, err);
    }
    source->count += rc == 0;
    return rc;
}

/* Opens every file that the index's weight_map names, once each. */
static int source_index(struct source *source, const char *folder, const char *path,
                        struct err *err)
{
    cJSON *root = NULL;
    int rc = json_read(&root, path, SOURCE_INDEX_BYTES_MAX, err);
    if (rc != 0) {
        return rc;
    }
    const cJSON *map = json_object(root, "weight_map");
    if (!map) {
        rc = err_set(err, ERR_CORRUPT, "%s: no weight_map", path);
    }
    const char *seen[SOURCE_FILES_MAX];
    size_t seen_count = 0;
    for (const cJSON *item = map ? map->child : NULL; rc == 0 && item; item = item->next) {
        if (!cJSON_IsString(item)) {
            rc = err_set(err, ERR_CORRUPT, "%s: weight_map of %s is not a file name", path,
                         item->string);
            break;
        }
        size_t at = 0;
        while (at < seen_count && strcmp(seen[at], item->valuestring) != 0) {
            at++;
        }
        if (at == seen_count) {
            rc = source_add(source, folder, item->valuestring, err);
            if (rc == 0) {
                seen[seen_count++] = item->valuestring;
            }
        }
    }
    cJSON_Delete(root);
    return rc;
}

static int source_open(struct source *source, const char *folder, struct err *err)
{
    char path[FSX_PATH_MAX];
    *source = (struct source){.files = mem_zeroed(SOURCE_FILES_MAX, sizeof *source->files)};
    if (!source->files) {
        return err_set(err, ERR_NO_MEMORY, "no memory to open %s", folder);
    }
    int rc = fsx_path(path, err, "%s/%s", folder, MODEL_INDEX_FILE);
    if (rc != 0) {
        return rc;
    }
    return fsx_exists(path) ? source_index(source, folder, path, err)
                            : source_add(source, folder, MODEL_WEIGHTS_FILE, err);
}

static const struct st_tensor *source_find(const struct source *source, const char *name,
                                           const struct st_file **file)
{
    for (size_t i = 0; i < source->count; i++) {
        const struct st_tensor *tensor = st_find(source->files[i], name);
        if (tensor) {
            *file = source->files[i];
            return tensor;
        }
    }
    return NULL;
}

static float f32_of_f16(uint16_t bits)
{
    uint32_t sign = (uint32_t)(bits & 0x8000u) << 16, exponent = bits >> 10 & 31u,
             mantissa = bits & 1023u;
    uint32_t word;
    if (exponent == 31) { /* infinity, NaN */
        word = sign | 0x7f800000u | mantissa << 13;
    } else if (exponent != 0) {
        word = sign | (exponent + 112) << 23 | mantissa << 13;
    } else { /* zero and subnormals: mantissa * 2^-24, exact in float */
        float value = (float)mantissa * 0x1p-24f;
        return sign ? -value : value;
    }
    float value;
    memcpy(&value, &word, sizeof value);
    return value;
}

/* Entry `index` of a tensor's data. */
static double entry(const unsigned char *data, enum st_type type, size_t index)
{
    uint16_t half;
    uint32_t word;
    float single;
    double wide;
    switch (type) {
    case ST_F64:
        memcpy(&wide, data + index * sizeof wide, sizeof wide);
        return wide;
    case ST_F32:
        memcpy(&single, data + index * sizeof single, sizeof single);
        return (double)single;
    case ST_F16:
        memcpy(&half, data + index * sizeof half, sizeof half);
        return (double)f32_of_f16(half);
    default: /* ST_BF16: param_read let no other type through */
        memcpy(&half, data + index * sizeof half, sizeof half);
        word = (uint32_t)half << 16;
        memcpy(&single, &word, sizeof single);
        return (double)single;
    }
}

/* Codes of one matrix from patterns.safetensors. */
static int codes_read(const struct param *param, const struct st_file *patterns,
                      struct err *err)
{
    char name[ST_NAME_MAX];
    snprintf(name, sizeof name, "%s.codes", param->name);
    const struct st_tensor *tensor = st_find(patterns, name);
    size_t count = param->rows * nm_groups(param->nm);
    if (!tensor || tensor->type != ST_U16 ||
        tensor->bytes != count * sizeof *param->nm->codes) {
        return err_set(err, ERR_CORRUPT, "%s: tensor %s is missing or of another size",
                       MODEL_PATTERNS_FILE, name);
    }
    memcpy(param->nm->codes, st_data(patterns, tensor), (size_t)tensor->bytes);
    int rc = nm_check(param->nm, err);
    return rc == 0 ? 0 : err_wrap(err, rc, "%s: %s", MODEL_PATTERNS_FILE, name);
}

/* Takes the active entries of a dense matrix into values; an entry outside the mask must be
 * zero. */
static int values_read(const struct param *param, const unsigned char *data, enum st_type type,
                       struct err *err)
{
    const struct nm *w = param->nm;
    real *value = w->values;
    for (size_t group = 0; group < w->dout * nm_groups(w); group++) {
        unsigned mask = w->patterns->mask[w->codes[group]];
        for (unsigned j = 0; j < w->m; j++) {
            double x = entry(data, type, group * w->m + j);
            if (mask >> j & 1u) {
                *value++ = (real)x;
            } else if (x != 0) {
                return err_set(
                    err, ERR_CORRUPT, "%s: row %zu column %zu is not zero outside the mask",
                    param->name, group / nm_groups(w), group % nm_groups(w) * w->m + j);
            }
        }
    }
    return 0;
}

static int param_read(struct model *model, const struct param *param,
                      const struct source *source, const struct st_file *patterns,
                      struct err *err)
{
    const struct st_file *file = NULL;
    const struct st_tensor *tensor = source_find(source, param->name, &file);
    if (!tensor) {
        return err_set(err, ERR_CORRUPT, "no tensor %s", param->name);
    }
    if (tensor->type != ST_F32 && tensor->type != ST_F16 && tensor->type != ST_BF16 &&
        tensor->type != ST_F64) {
        return err_set(err, ERR_UNSUPPORTED, "%s: only F64, F32, F16 and BF16 weights are read",
                       param->name);
    }
    bool vector = param->rows == 1 && tensor->rank == 1 && tensor->shape[0] == param->cols;
    bool matrix =
        tensor->rank == 2 && tensor->shape[0] == param->rows && tensor->shape[1] == param->cols;
    if (!vector && !matrix) {
        return err_set(err, ERR_CORRUPT, "%s: shape is not the config's (%zu, %zu)",
                       param->name, param->rows, param->cols);
    }
    const unsigned char *data = st_data(file, tensor);
    if (param->nm) {
        int rc = codes_read(param, patterns, err);
        return rc == 0 ? values_read(param, data, tensor->type, err) : rc;
    }
    real *weights = model->weights + param->offset;
    for (size_t i = 0; i < param->count; i++) {
        weights[i] = (real)entry(data, tensor->type, i);
    }
    return 0;
}

static int weights_import(struct model *model, const char *folder, struct err *err)
{
    char path[FSX_PATH_MAX];
    struct st_file *patterns = NULL;
    struct source source;
    int rc = source_open(&source, folder, err);
    if (rc == 0 && model->patterns) {
        rc = fsx_path(path, err, "%s/%s", folder, MODEL_PATTERNS_FILE);
        if (rc == 0) {
            rc = st_open(&patterns, path, err);
        }
    }
    for (size_t i = 0; rc == 0 && i < model->param_count; i++) {
        rc = param_read(model, &model->params[i], &source, patterns, err);
    }
    if (rc == 0) {
        model_repack(model);
    }
    st_close(patterns);
    source_release(&source);
    return rc;
}

int model_import(struct model **out, struct device *dev, const char *folder, size_t batch,
                 size_t context, struct err *err)
{
    struct model_shape shape;
    struct model_origin origin;
    struct model *model = NULL;
    int rc = model_config_read(&shape, folder, err);
    if (rc == 0) {
        rc = model_origin_read(&origin, folder, err);
    }
    if (rc == 0) {
        shape.n = origin.n;
        shape.m = origin.m;
        rc = model_shape_check(&shape, err);
    }
    if (rc == 0) {
        rc = model_create(&model, dev, &shape, batch, context ? context : shape.context, false,
                          err);
    }
    if (rc == 0) {
        rc = weights_import(model, folder, err);
    }
    if (rc != 0) {
        model_destroy(model);
        return err_wrap(err, rc, "import model %s", folder);
    }
    *out = model;
    return 0;
}
