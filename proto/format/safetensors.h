/* safetensors: u64 little-endian header length, JSON header, data. Written tensor by tensor, read by mapping.
 * The reader refuses what is not exactly such a file: holes, overlaps, sizes that do not fit, unknown types. */
#ifndef HEBB_FORMAT_SAFETENSORS_H
#define HEBB_FORMAT_SAFETENSORS_H

#include "proto/base/err.h"
#include <stddef.h>
#include <stdint.h>

enum { ST_NAME_MAX = 128, ST_RANK_MAX = 4, ST_TENSORS_MAX = 100000, ST_HEADER_MAX = 100000000 };

enum st_type { ST_F64, ST_F32, ST_F16, ST_BF16, ST_I64, ST_I32, ST_I16, ST_I8, ST_U8, ST_U16, ST_U32, ST_U64, ST_BOOL };
size_t st_type_bytes(enum st_type type);

struct st_tensor {
    char name[ST_NAME_MAX];
    enum st_type type;
    size_t rank, shape[ST_RANK_MAX];
    uint64_t offset, bytes;  /* inside the data part */
};

/* --- writing --- */
struct st_writer;
/* Declare every tensor first (offset and bytes are computed, in the given order), then write the data in that
 * order with any number of calls. metadata: pairs of strings, NULL-terminated, may be NULL;
 * "format": "pt" is always written. The file is path itself (publication is the caller's);
 * st_writer_finish fsyncs. */
int st_writer_open(struct st_writer **out, const char *path, const struct st_tensor *tensors, size_t count,
                   const char *const *metadata, struct err *err);
int st_writer_data(struct st_writer *writer, const void *data, size_t bytes, struct err *err);
/* ERR_INTERNAL if the declared bytes were not all written. Frees writer in every case. */
int st_writer_finish(struct st_writer *writer, struct err *err);
void st_writer_abort(struct st_writer *writer); /* frees and unlinks; NULL is fine */

/* --- reading --- */
struct st_file;
int st_open(struct st_file **out, const char *path, struct err *err);
void st_close(struct st_file *file);
size_t st_count(const struct st_file *file);
const struct st_tensor *st_tensor(const struct st_file *file, size_t index);
const struct st_tensor *st_find(const struct st_file *file, const char *name); /* NULL: none */
const void *st_data(const struct st_file *file, const struct st_tensor *tensor); /* may be unaligned */
const char *st_metadata(const struct st_file *file, const char *key);           /* NULL: none */

#endif
