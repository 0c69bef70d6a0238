/* Reading safetensors: the header is checked completely before the first tensor is handed out.
 */
#include "proto/format/safetensors.h"
#include "proto/base/mem.h"
#include "proto/format/filemap.h"
#include "proto/format/safetensors_types.h"
#include "proto/json/json.h"
#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { LENGTH_BYTES = 8 };
static const char METADATA_KEY[] = "__metadata__";

struct st_file {
    struct filemap map;
    const unsigned char *data;        /* the data part, inside map */
    struct st_tensor *tensors;        /* (count) by ascending offset */
    const struct st_tensor **by_name; /* (count) by ascending name */
    size_t count;
    cJSON *metadata; /* owned object of strings; NULL: none */
};

static const struct {
    const char *name;
    size_t bytes;
} TYPES[] = {
    [ST_F64] = {"F64", 8},   [ST_F32] = {"F32", 4}, [ST_F16] = {"F16", 2},
    [ST_BF16] = {"BF16", 2}, [ST_I64] = {"I64", 8}, [ST_I32] = {"I32", 4},
    [ST_I16] = {"I16", 2},   [ST_I8] = {"I8", 1},   [ST_U8] = {"U8", 1},
    [ST_U16] = {"U16", 2},   [ST_U32] = {"U32", 4}, [ST_U64] = {"U64", 8},
    [ST_BOOL] = {"BOOL", 1},
};

size_t st_type_bytes(enum st_type type)
{
    assert((size_t)type < sizeof(TYPES) / sizeof(TYPES[0]));
    return TYPES[type].bytes;
}

const char *st_type_name(enum st_type type)
{
    assert((size_t)type < sizeof(TYPES) / sizeof(TYPES[0]));
    return TYPES[type].name;
}

bool st_type_parse(enum st_type *out, const char *name)
{
    for (size_t i = 0; i < sizeof(TYPES) / sizeof(TYPES[0]); i++) {
        if (strcmp(TYPES[i].name, name) == 0) {
            *out = (enum st_type)i;
            return true;
        }
    }
    return false;
}

bool st_tensor_size(size_t *out, const struct st_tensor *tensor)
{
    if (tensor->rank > ST_RANK_MAX)
        return false;
    size_t bytes = st_type_bytes(tensor->type);
    for (size_t i = 0; i < tensor->rank; i++) {
        if (!size_mul(&bytes, bytes, tensor->shape[i]))
            return false;
    }
    *out = bytes;
    return true;
}

/* A whole number >= 0 of an array's element. */
static bool whole(uint64_t *out, const cJSON *item)
{
    if (!cJSON_IsNumber(item) || !(item->valuedouble >= 0) ||
        item->valuedouble > (double)ST_DATA_MAX)
        return false;
    *out = (uint64_t)item->valuedouble;
    return (double)*out == item->valuedouble;
}

static int parse_shape(struct st_tensor *tensor, const cJSON *shape, struct err *err)
{
    const cJSON *item;
    cJSON_ArrayForEach(item, shape)
    {
        uint64_t size;
        if (tensor->rank == ST_RANK_MAX)
            return err_set(err, ERR_UNSUPPORTED, "tensor %s has more than %d dimensions",
                           tensor->name, ST_RANK_MAX);
        if (!whole(&size, item))
            return err_set(err, ERR_CORRUPT, "tensor %s: shape is not of whole numbers",
                           tensor->name);
        tensor->shape[tensor->rank++] = (size_t)size;
    }
    return 0;
}

/* One entry of the header: {"dtype", "shape", "data_offsets"} and nothing else. */
static int parse_tensor(struct st_tensor *tensor, const cJSON *entry, struct err *err)
{
    size_t length = strlen(entry->string), bytes;
    if (length == 0 || length >= ST_NAME_MAX)
        return err_set(err, ERR_UNSUPPORTED, "tensor name '%.40s' has %zu bytes, 1 to %d fit",
                       entry->string, length, ST_NAME_MAX - 1);
    memcpy(tensor->name, entry->string, length + 1);
    const char *dtype = json_string(entry, "dtype");
    const cJSON *shape = json_array(entry, "shape"), *range = json_array(entry, "data_offsets");
    if (!dtype || !shape || !range || cJSON_GetArraySize(entry) != 3)
        return err_set(err, ERR_CORRUPT,
                       "tensor %s: needs exactly dtype, shape and data_offsets", tensor->name);
    if (!st_type_parse(&tensor->type, dtype))
        return err_set(err, ERR_UNSUPPORTED, "tensor %s: dtype %.20s is unknown", tensor->name,
                       dtype);
    int rc = parse_shape(tensor, shape, err);
    if (rc)
        return rc;
    uint64_t begin, end;
    if (cJSON_GetArraySize(range) != 2 || !whole(&begin, range->child) ||
        !whole(&end, range->child->next) || end < begin)
        return err_set(err, ERR_CORRUPT, "tensor %s: data_offsets is not [begin, end]",
                       tensor->name);
    if (!st_tensor_size(&bytes, tensor) || bytes != end - begin)
        return err_set(err, ERR_CORRUPT,
                       "tensor %s: %" PRIu64 " bytes do not fit its shape and dtype",
                       tensor->name, end - begin);
    tensor->offset = begin;
    tensor->bytes = bytes;
    return 0;
}

static int check_metadata(const cJSON *metadata, struct err *err)
{
    if (!cJSON_IsObject(metadata))
        return err_set(err, ERR_CORRUPT, "__metadata__ is not an object");
    const cJSON *item;
    cJSON_ArrayForEach(item, metadata)
    {
        if (!cJSON_IsString(item))
            return err_set(err, ERR_CORRUPT, "__metadata__: %.60s is not a string",
                           item->string);
    }
    return 0;
}

static int by_offset(const void *a, const void *b)
{
    const struct st_tensor *x = a, *y = b;
    if (x->offset != y->offset)
        return x->offset < y->offset ? -1 : 1;
    if (x->bytes != y->bytes) /* empty tensors first: they end where they begin */
        return x->bytes < y->bytes ? -1 : 1;
    return strcmp(x->name, y->name);
}

static int by_name(const void *a, const void *b)
{
    const struct st_tensor *const *x = a, *const *y = b;
    return strcmp((*x)->name, (*y)->name);
}

/* No holes, no overlaps, and the last tensor ends with the file. */
static int check_layout(const struct st_file *file, uint64_t data_bytes, struct err *err)
{
    uint64_t end = 0;
    for (size_t i = 0; i < file->count; i++) {
        const struct st_tensor *tensor = &file->tensors[i];
        if (tensor->offset != end)
            return err_set(err, ERR_CORRUPT, "tensor %s begins at %" PRIu64 ", not at %" PRIu64,
                           tensor->name, tensor->offset, end);
        end +=
            tensor->bytes; /* each below 2^53 and chained: no overflow before the check fails */
        if (end > data_bytes)
            return err_set(err, ERR_CORRUPT,
                           "tensor %s ends at %" PRIu64 " of %" PRIu64 " bytes: truncated",
                           tensor->name, end, data_bytes);
    }
    if (end != data_bytes)
        return err_set(err, ERR_CORRUPT, "%" PRIu64 " bytes after the last tensor",
                       data_bytes - end);
    return 0;
}

static int parse_entries(struct st_file *file, const cJSON *header, struct err *err)
{
    size_t entries = (size_t)cJSON_GetArraySize(header);
    if (entries > ST_TENSORS_MAX)
        return err_set(err, ERR_LIMIT, "%zu tensors, at most %d are read", entries,
                       ST_TENSORS_MAX);
    file->tensors = mem_zeroed(entries + 1, sizeof(*file->tensors));
    file->by_name = mem_zeroed(entries + 1, sizeof(*file->by_name));
    if (!file->tensors || !file->by_name)
        return err_set(err, ERR_NO_MEMORY, "no memory for %zu tensors", entries);
    const cJSON *entry;
    cJSON_ArrayForEach(entry, header)
    {
        int rc = strcmp(entry->string, METADATA_KEY) == 0
                     ? check_metadata(entry, err)
                     : parse_tensor(&file->tensors[file->count], entry, err);
        if (rc)
            return rc;
        if (strcmp(entry->string, METADATA_KEY) != 0)
            file->count++;
    }
    qsort(file->tensors, file->count, sizeof(*file->tensors), by_offset);
    for (size_t i = 0; i < file->count; i++)
        file->by_name[i] = &file->tensors[i];
    qsort(file->by_name, file->count, sizeof(*file->by_name), by_name);
    return 0;
}

static int read_header(struct st_file *file, struct err *err)
{
    uint64_t length;
    if (file->map.bytes < LENGTH_BYTES)
        return err_set(err, ERR_CORRUPT, "%zu bytes are too short for a safetensors file",
                       file->map.bytes);
    memcpy(&length, file->map.data, LENGTH_BYTES);
    if (length > ST_HEADER_MAX)
        return err_set(err, ERR_CORRUPT, "header of %" PRIu64 " bytes, at most %d are legal",
                       length, ST_HEADER_MAX);
    if (length > file->map.bytes - LENGTH_BYTES)
        return err_set(err, ERR_CORRUPT,
                       "header of %" PRIu64 " bytes in a file of %zu: truncated", length,
                       file->map.bytes);
    const char *text = (const char *)file->map.data + LENGTH_BYTES;
    if (length == 0 || text[0] != '{')
        return err_set(err, ERR_CORRUPT, "the header does not start with '{'");
    cJSON *header = NULL;
    int rc = json_parse(&header, text, (size_t)length, err);
    if (rc) /* a bad text is a bad file here */
        return err_wrap(err, rc == ERR_INVALID ? ERR_CORRUPT : rc, "header");
    rc = parse_entries(file, header, err);
    if (!rc) {
        file->metadata = cJSON_DetachItemFromObjectCaseSensitive(header, METADATA_KEY);
        file->data = file->map.data + LENGTH_BYTES + length;
        rc = check_layout(file, file->map.bytes - LENGTH_BYTES - length, err);
    }
    cJSON_Delete(header);
    return rc;
}

int st_open(struct st_file **out, const char *path, struct err *err)
{
    *out = NULL;
    struct st_file *file = mem_zeroed(1, sizeof(*file));
    if (!file)
        return err_set(err, ERR_NO_MEMORY, "%s: no memory", path);
    int rc = filemap_open(&file->map, path, err);
    if (!rc) {
        rc = read_header(file, err);
        if (rc)
            err_wrap(err, rc, "%s", path);
    }
    if (rc)
        st_close(file);
    else
        *out = file;
    return rc;
}

void st_close(struct st_file *file)
{
    if (!file)
        return;
    filemap_close(&file->map);
    cJSON_Delete(file->metadata);
    free(file->tensors);
    free(file->by_name);
    free(file);
}

size_t st_count(const struct st_file *file) { return file->count; }

const struct st_tensor *st_tensor(const struct st_file *file, size_t index)
{
    assert(index < file->count);
    return &file->tensors[index];
}

const struct st_tensor *st_find(const struct st_file *file, const char *name)
{
    size_t low = 0, high = file->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = strcmp(file->by_name[middle]->name, name);
        if (order == 0)
            return file->by_name[middle];
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

const void *st_data(const struct st_file *file, const struct st_tensor *tensor)
{
    return file->data + tensor->offset;
}

const char *st_metadata(const struct st_file *file, const char *key)
{
    return file->metadata ? json_string(file->metadata, key) : NULL;
}
