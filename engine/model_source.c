#include "engine/model_source.h"

#include "engine/model_config.h"
#include "proto/base/fsx.h"
#include "proto/base/mem.h"
#include "proto/json/json.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

void model_source_release(struct model_source *source)
{
    for (size_t i = 0; i < source->count; i++) {
        st_close(source->files[i]);
    }
    free(source->files);
    *source = (struct model_source){0};
}

static int source_add(struct model_source *source, const char *folder, const char *name,
                      struct err *err)
{
    char path[FSX_PATH_MAX];
    if (strchr(name, '/') || name[0] == '.') {
        return err_set(err, ERR_CORRUPT, "%s: %s names a file \"%s\"", folder, MODEL_INDEX_FILE,
                       name);
    }
    if (source->count == MODEL_SOURCE_FILES_MAX) {
        return err_set(err, ERR_LIMIT, "%s: more than %d files", folder,
                       MODEL_SOURCE_FILES_MAX);
    }
    int rc = fsx_path(path, err, "%s/%s", folder, name);
    if (rc == 0) {
        rc = st_open(&source->files[source->count], path, err);
    }
    source->count += rc == 0;
    return rc;
}

/* Opens every file that the index's weight_map names, once each. */
static int source_index(struct model_source *source, const char *folder, const char *path,
                        struct err *err)
{
    cJSON *root = NULL;
    int rc = json_read(&root, path, MODEL_SOURCE_INDEX_MAX, err);
    if (rc != 0) {
        return rc;
    }
    const cJSON *map = json_object(root, "weight_map");
    if (!map) {
        rc = err_set(err, ERR_CORRUPT, "%s: no weight_map", path);
    }
    const char *seen[MODEL_SOURCE_FILES_MAX];
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

/* Adds what path holds to source, whose list is there. */
static int source_fill(struct model_source *source, const char *path, struct err *err)
{
    char index[FSX_PATH_MAX];
    struct stat status;
    if (stat(path, &status) != 0) {
        return err_set(err, errno == ENOENT ? ERR_NOT_FOUND : ERR_IO, "open %s: %s", path,
                       strerror(errno));
    }
    if (!S_ISDIR(status.st_mode)) {
        int rc = st_open(&source->files[0], path, err);
        source->count = rc == 0;
        return rc;
    }
    int rc = fsx_path(index, err, "%s/%s", path, MODEL_INDEX_FILE);
    if (rc != 0) {
        return rc;
    }
    return fsx_exists(index) ? source_index(source, path, index, err)
                             : source_add(source, path, MODEL_WEIGHTS_FILE, err);
}

int model_source_open(struct model_source *source, const char *path, struct err *err)
{
    *source = (struct model_source){
        .files = mem_zeroed(MODEL_SOURCE_FILES_MAX, sizeof *source->files)};
    if (!source->files) {
        return err_set(err, ERR_NO_MEMORY, "no memory to open %s", path);
    }
    int rc = source_fill(source, path, err);
    if (rc != 0) {
        model_source_release(source);
    }
    return rc;
}

const struct st_tensor *model_source_find(const struct model_source *source, const char *name,
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

int model_source_param(const struct model_source *source, const char *name, size_t rows,
                       size_t cols, const void **data, enum st_type *type, struct err *err)
{
    const struct st_file *file = NULL;
    const struct st_tensor *tensor = model_source_find(source, name, &file);
    if (!tensor) {
        return err_set(err, ERR_CORRUPT, "no tensor %s", name);
    }
    if (!model_source_real(tensor->type)) {
        return err_set(err, ERR_UNSUPPORTED, "%s: only F64, F32, F16 and BF16 weights are read",
                       name);
    }
    bool vector = rows == 1 && tensor->rank == 1 && tensor->shape[0] == cols;
    bool matrix = tensor->rank == 2 && tensor->shape[0] == rows && tensor->shape[1] == cols;
    if (!vector && !matrix) {
        return err_set(err, ERR_CORRUPT, "%s: shape is not the config's (%zu, %zu)", name, rows,
                       cols);
    }
    *data = st_data(file, tensor);
    *type = tensor->type;
    return 0;
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

bool model_source_real(enum st_type type)
{
    return type == ST_F64 || type == ST_F32 || type == ST_F16 || type == ST_BF16;
}

double model_source_entry(const void *values, enum st_type type, size_t index)
{
    const unsigned char *data = values;
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
    default:
        assert(type == ST_BF16);
        memcpy(&half, data + index * sizeof half, sizeof half);
        word = (uint32_t)half << 16;
        memcpy(&single, &word, sizeof single);
        return (double)single;
    }
}
