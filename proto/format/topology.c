/* Reading topology files and rebuilding masks of the past. */
#include "proto/format/topology.h"
#include "proto/base/fsx.h"
#include "proto/base/mem.h"
#include "proto/format/filemap.h"
#include "proto/format/topology_layout.h"
#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

/* What topology_file.memory points to. */
struct topology_memory {
    struct filemap map;
};

/* C(m, n) for m <= 16: patterns, and so codes, of a group. */
static uint32_t pattern_count(uint32_t n, uint32_t m)
{
    uint32_t count = 1;
    for (uint32_t i = 1; i <= n; i++)
        count = count * (m - n + i) / i;
    return count;
}

static int read_front(struct topology_header *header, const struct filemap *map,
                      struct err *err)
{
    size_t least = sizeof(*header) + TOPOLOGY_TRAILER_BYTES;
    if (map->bytes < least)
        return err_set(err, ERR_CORRUPT, "%zu bytes are too short for a topology file",
                       map->bytes);
    memcpy(header, map->data, sizeof(*header));
    if (memcmp(header->magic, TOPOLOGY_MAGIC, sizeof(header->magic)) != 0)
        return err_set(err, ERR_CORRUPT, "not a topology file: its magic is not %s",
                       TOPOLOGY_MAGIC);
    if (header->version != TOPOLOGY_VERSION)
        return err_set(err, ERR_UNSUPPORTED, "topology version %u, this build reads %d",
                       header->version, TOPOLOGY_VERSION);
    if (header->bytes != map->bytes)
        return err_set(err, ERR_CORRUPT,
                       "%zu bytes, the header says %" PRIu64 ": truncated or extended",
                       map->bytes, header->bytes);
    if (header->reserved[0] | header->reserved[1] | header->reserved[2])
        return err_set(err, ERR_CORRUPT, "reserved bytes of the header are not zero");
    if (header->matrices > TOPOLOGY_MATRICES_MAX ||
        header->matrices > (map->bytes - least) / sizeof(struct topology_record))
        return err_set(err, ERR_CORRUPT, "%" PRIu64 " matrices do not fit %zu bytes",
                       header->matrices, map->bytes);
    uint64_t stored;
    memcpy(&stored, map->data + map->bytes - sizeof(stored), sizeof(stored));
    uint64_t hash = XXH3_64bits(map->data, map->bytes - sizeof(stored));
    if (hash != stored)
        return err_set(err, ERR_CORRUPT, "checksum %016" PRIx64 ", the file says %016" PRIx64,
                       hash, stored);
    return 0;
}

static int read_record(struct topology_matrix *matrix, const unsigned char *bytes,
                       uint32_t refresh, struct err *err)
{
    struct topology_record record;
    uint64_t groups;
    memcpy(&record, bytes, sizeof(record));
    size_t length = strnlen(record.name, sizeof(record.name));
    if (length == 0 || length == sizeof(record.name))
        return err_set(err, ERR_CORRUPT, "a matrix's name is empty or does not end");
    for (size_t i = length; i < sizeof(record.name); i++) {
        if (record.name[i] != '\0')
            return err_set(err, ERR_CORRUPT, "matrix %s: bytes after its name", record.name);
    }
    if (!topology_groups(&groups, record.dout, record.din, record.n, record.m))
        return err_set(err, ERR_CORRUPT, "matrix %s: shape %u x %u with pattern %u:%u",
                       record.name, record.dout, record.din, record.n, record.m);
    if (refresh == 0 ? record.count != groups : record.count > groups)
        return err_set(err, ERR_CORRUPT, "matrix %s: %" PRIu64 " groups listed of %" PRIu64,
                       record.name, record.count, groups);
    memcpy(matrix->name, record.name, sizeof(matrix->name));
    matrix->dout = record.dout;
    matrix->din = record.din;
    matrix->n = record.n;
    matrix->m = record.m;
    matrix->hash = record.hash;
    matrix->count = (size_t)record.count;
    return 0;
}

/* Takes `bytes` and their padding, which must be zero, from [*at, end); NULL if they do not
 * fit. */
static const void *take(const unsigned char *data, size_t *at, size_t end, size_t bytes)
{
    size_t whole = size_round_up(bytes, TOPOLOGY_ALIGN);
    if (whole > end - *at)
        return NULL;
    const unsigned char *from = data + *at;
    for (size_t i = bytes; i < whole; i++) {
        if (from[i] != 0)
            return NULL;
    }
    *at += whole;
    return from;
}

static int check_values(const struct topology_matrix *matrix, struct err *err)
{
    uint32_t patterns = pattern_count(matrix->n, matrix->m);
    uint64_t total = (uint64_t)matrix->dout * (matrix->din / matrix->m);
    for (size_t i = 0; i < matrix->count; i++) {
        if (matrix->codes[i] >= patterns)
            return err_set(err, ERR_CORRUPT, "matrix %s: code %u at %zu, patterns are %u",
                           matrix->name, matrix->codes[i], i, patterns);
        if (matrix->groups && (matrix->groups[i] >= total ||
                               (i > 0 && matrix->groups[i] <= matrix->groups[i - 1])))
            return err_set(err, ERR_CORRUPT,
                           "matrix %s: group %u at %zu is not ascending or not below %" PRIu64,
                           matrix->name, matrix->groups[i], i, total);
    }
    return 0;
}

static int compare_names(const void *a, const void *b)
{
    const struct topology_matrix *const *x = a, *const *y = b;
    return strcmp((*x)->name, (*y)->name);
}

static int check_distinct(const struct topology_file *file, struct err *err)
{
    const struct topology_matrix **sorted = mem_zeroed(file->count + 1, sizeof(*sorted));
    if (!sorted)
        return err_set(err, ERR_NO_MEMORY, "no memory for %zu matrices", file->count);
    int rc = 0;
    for (size_t i = 0; i < file->count; i++)
        sorted[i] = &file->matrices[i];
    qsort(sorted, file->count, sizeof(*sorted), compare_names);
    for (size_t i = 1; i < file->count && !rc; i++) {
        if (strcmp(sorted[i - 1]->name, sorted[i]->name) == 0)
            rc = err_set(err, ERR_CORRUPT, "matrix %s is listed twice", sorted[i]->name);
    }
    free(sorted);
    return rc;
}

static int read_matrices(struct topology_file *out, const struct filemap *map, struct err *err)
{
    struct topology_header header;
    int rc = read_front(&header, map, err);
    if (rc)
        return rc;
    out->refresh = header.refresh;
    out->step = header.step;
    out->count = (size_t)header.matrices;
    out->matrices = mem_zeroed(out->count + 1, sizeof(*out->matrices));
    if (!out->matrices)
        return err_set(err, ERR_NO_MEMORY, "no memory for %zu matrices", out->count);
    size_t at = sizeof(header), end = map->bytes - TOPOLOGY_TRAILER_BYTES;
    for (size_t i = 0; i < out->count && !rc; i++, at += sizeof(struct topology_record))
        rc = read_record(&out->matrices[i], map->data + at, out->refresh, err);
    for (size_t i = 0; i < out->count && !rc; i++) {
        struct topology_matrix *matrix = &out->matrices[i];
        if (out->refresh)
            matrix->groups = take(map->data, &at, end, matrix->count * sizeof(uint32_t));
        matrix->codes = take(map->data, &at, end, matrix->count * sizeof(uint16_t));
        if (!matrix->codes || (out->refresh && !matrix->groups))
            rc = err_set(err, ERR_CORRUPT, "matrix %s: its groups do not fit the file",
                         matrix->name);
        if (!rc)
            rc = check_values(matrix, err);
    }
    if (!rc && at != end)
        rc = err_set(err, ERR_CORRUPT, "%zu bytes after the last matrix", end - at);
    return rc ? rc : check_distinct(out, err);
}

int topology_read(struct topology_file *out, const char *path, struct err *err)
{
    *out = (struct topology_file){0};
    struct topology_memory *memory = mem_zeroed(1, sizeof(*memory));
    if (!memory)
        return err_set(err, ERR_NO_MEMORY, "%s: no memory", path);
    out->memory = memory;
    int rc = filemap_open(&memory->map, path, err);
    if (!rc) {
        rc = read_matrices(out, &memory->map, err);
        if (rc)
            err_wrap(err, rc, "%s", path);
    }
    if (rc)
        topology_release(out);
    return rc;
}

void topology_release(struct topology_file *file)
{
    struct topology_memory *memory = file->memory;
    if (memory)
        filemap_close(&memory->map);
    free(memory);
    free(file->matrices);
    *file = (struct topology_file){0};
}

static const struct topology_matrix *find_matrix(const struct topology_file *file,
                                                 const char *name)
{
    for (size_t i = 0; i < file->count; i++) {
        if (strcmp(file->matrices[i].name, name) == 0)
            return &file->matrices[i];
    }
    return NULL;
}

/* One file's part of a rebuild; *shape is the matrix as the first file and later the last one
 * had it. */
static int apply_file(const char *path, const char *name, uint32_t refresh,
                      struct topology_matrix *shape, uint16_t *codes, size_t count,
                      struct err *err)
{
    struct topology_file file;
    int rc = topology_read(&file, path, err);
    if (rc)
        return rc;
    const struct topology_matrix *matrix = find_matrix(&file, name);
    if (file.refresh != refresh) {
        rc = err_set(err, ERR_CORRUPT, "%s holds refresh %u", path, file.refresh);
    } else if (!matrix && refresh == 0) {
        rc = err_set(err, ERR_NOT_FOUND, "%s has no matrix %s", path, name);
    } else if (matrix && refresh == 0) {
        *shape = *matrix;
        if (matrix->count != count)
            rc = err_set(err, ERR_INVALID, "%s: matrix %s has %zu groups, not %zu", path, name,
                         matrix->count, count);
        else
            memcpy(codes, matrix->codes, count * sizeof(*codes));
    } else if (matrix) { /* a matrix that a refresh does not list is as it was */
        if (matrix->dout != shape->dout || matrix->din != shape->din || matrix->n != shape->n ||
            matrix->m != shape->m)
            rc = err_set(err, ERR_CORRUPT, "%s: matrix %s changed its shape", path, name);
        for (size_t i = 0; i < matrix->count && !rc; i++)
            codes[matrix->groups[i]] = matrix->codes[i];
        shape->hash = matrix->hash;
    }
    topology_release(&file);
    return rc;
}

int topology_rebuild(const char *folder, const char *matrix, uint32_t refresh, uint16_t *codes,
                     size_t count, struct err *err)
{
    char path[FSX_PATH_MAX];
    struct topology_matrix shape = {0};
    for (uint32_t i = 0;; i++) {
        int rc = topology_path(path, folder, i, err);
        if (!rc)
            rc = apply_file(path, matrix, i, &shape, codes, count, err);
        if (rc)
            return rc;
        if (i == refresh)
            break;
    }
    uint64_t hash = topology_mask_hash(shape.dout, shape.din, shape.n, shape.m, codes, count);
    if (hash != shape.hash)
        return err_set(err, ERR_CORRUPT,
                       "%s: rebuilt mask of %s has hash %016" PRIx64
                       ", the history says %016" PRIx64,
                       path, matrix, hash, shape.hash);
    return 0;
}
