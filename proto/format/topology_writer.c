/* Writing topology files: header, records, per matrix groups and codes, an XXH3-64 of all of
 * it. */
#include "proto/base/fsx.h"
#include "proto/base/mem.h"
#include "proto/format/filemap.h"
#include "proto/format/topology_layout.h"
#include <assert.h>
#include <string.h>

bool topology_groups(uint64_t *out, uint32_t dout, uint32_t din, uint32_t n, uint32_t m)
{
    if (n < 1 || n >= m || m > TOPOLOGY_M_MAX || dout == 0 || din == 0 || din % m != 0)
        return false;
    *out = (uint64_t)dout * (din / m);
    return *out <= (uint64_t)UINT32_MAX + 1;
}

int topology_path(char *out, const char *folder, uint32_t refresh, struct err *err)
{
    if (refresh == 0)
        return fsx_path(out, err, "%s/masks-start.hbt", folder);
    return fsx_path(out, err, "%s/refresh-%06u.hbt", folder, refresh);
}

static int check_matrix(const struct topology_matrix *matrix, uint32_t refresh, struct err *err)
{
    uint64_t groups;
    size_t length = strnlen(matrix->name, TOPOLOGY_NAME_MAX);
    if (length == 0 || length == TOPOLOGY_NAME_MAX)
        return err_set(err, ERR_INVALID, "matrix name '%.20s...' is empty or too long",
                       matrix->name);
    if (!topology_groups(&groups, matrix->dout, matrix->din, matrix->n, matrix->m))
        return err_set(err, ERR_INVALID, "matrix %s: shape %u x %u with pattern %u:%u",
                       matrix->name, matrix->dout, matrix->din, matrix->n, matrix->m);
    if (refresh == 0 ? matrix->count != groups : matrix->count > groups)
        return err_set(err, ERR_INVALID, "matrix %s: %zu groups listed of %zu", matrix->name,
                       matrix->count, (size_t)groups);
    return 0;
}

/* Bytes of an array in the file, padding included. */
static size_t padded(size_t bytes) { return size_round_up(bytes, TOPOLOGY_ALIGN); }

static int write_padded(struct file_writer *file, const void *data, size_t bytes,
                        struct err *err)
{
    static const unsigned char zeros[TOPOLOGY_ALIGN];
    int rc = file_writer_add(file, data, bytes, err);
    return rc ? rc : file_writer_add(file, zeros, padded(bytes) - bytes, err);
}

static int write_front(struct file_writer *file, uint32_t refresh, uint64_t step,
                       const struct topology_matrix *matrices, size_t count, struct err *err)
{
    struct topology_header header = {
        .version = TOPOLOGY_VERSION, .refresh = refresh, .step = step, .matrices = count};
    memcpy(header.magic, TOPOLOGY_MAGIC, sizeof(header.magic));
    size_t bytes = sizeof(header) + count * sizeof(struct topology_record);
    for (size_t i = 0; i < count; i++) /* counts are below 2^32: no overflow */
        bytes += padded(matrices[i].count * sizeof(uint16_t)) +
                 (refresh ? padded(matrices[i].count * sizeof(uint32_t)) : 0);
    header.bytes = bytes + TOPOLOGY_TRAILER_BYTES;
    int rc = file_writer_add(file, &header, sizeof(header), err);
    for (size_t i = 0; i < count && !rc; i++) {
        const struct topology_matrix *matrix = &matrices[i];
        struct topology_record record = {.dout = matrix->dout,
                                         .din = matrix->din,
                                         .n = matrix->n,
                                         .m = matrix->m,
                                         .hash = matrix->hash,
                                         .count = matrix->count};
        memcpy(record.name, matrix->name, strlen(matrix->name));
        rc = file_writer_add(file, &record, sizeof(record), err);
    }
    return rc;
}

static int write_file(const char *path, uint32_t refresh, uint64_t step,
                      const struct topology_matrix *matrices, size_t count, struct err *err)
{
    struct file_writer *file = NULL;
    int rc = file_writer_open(&file, path, err);
    if (rc)
        return rc;
    rc = write_front(file, refresh, step, matrices, count, err);
    for (size_t i = 0; i < count && !rc; i++) {
        const struct topology_matrix *matrix = &matrices[i];
        if (refresh)
            rc = write_padded(file, matrix->groups, matrix->count * sizeof(uint32_t), err);
        if (!rc)
            rc = write_padded(file, matrix->codes, matrix->count * sizeof(uint16_t), err);
    }
    const uint64_t hash = file_writer_hash(file);
    if (!rc)
        rc = file_writer_add(file, &hash, sizeof(hash), err);
    if (rc) {
        file_writer_abort(file);
        return rc;
    }
    return file_writer_finish(file, err);
}

int topology_write(const char *folder, uint32_t refresh, uint64_t step,
                   const struct topology_matrix *matrices, size_t count, struct err *err)
{
    char path[FSX_PATH_MAX], temporary[FSX_PATH_MAX];
    if (count > TOPOLOGY_MATRICES_MAX)
        return err_set(err, ERR_LIMIT, "%zu matrices, at most %d fit a topology file", count,
                       TOPOLOGY_MATRICES_MAX);
    int rc = 0;
    for (size_t i = 0; i < count && !rc; i++)
        rc = check_matrix(&matrices[i], refresh, err);
    if (!rc)
        rc = topology_path(path, folder, refresh, err);
    if (!rc)
        rc = fsx_path(temporary, err, "%s.tmp", path);
    if (!rc)
        rc = write_file(temporary, refresh, step, matrices, count, err);
    return rc ? rc : fsx_rename(temporary, path, err);
}
