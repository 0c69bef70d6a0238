/* Writing safetensors: the header first, computed from the declared tensors, then the data in
 * that order. */
#include "proto/base/buf.h"
#include "proto/base/mem.h"
#include "proto/format/filemap.h"
#include "proto/format/safetensors.h"
#include "proto/format/safetensors_types.h"
#include "proto/json/json.h"
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { HEADER_ALIGN = 8 };

struct st_writer {
    struct file_writer *file;
    uint64_t declared; /* bytes of data that the header promises */
    uint64_t written;
};

static void put_string(struct buf *out, const char *text)
{
    cJSON *value = cJSON_CreateString(text);
    if (!value) {
        out->failed = true;
        return;
    }
    json_print(value, out);
    cJSON_Delete(value);
}

static void put_metadata(struct buf *out, const char *const *metadata)
{
    buf_puts(out, "{\"__metadata__\":{\"format\":\"pt\"");
    for (size_t i = 0; metadata && metadata[i]; i += 2) {
        buf_puts(out, ",");
        put_string(out, metadata[i]);
        buf_puts(out, ":");
        put_string(out, metadata[i + 1]);
    }
    buf_puts(out, "}");
}

/* Appends one tensor's entry; *offset is its place in the data and moves past it. */
static int put_tensor(struct buf *out, const struct st_tensor *tensor, uint64_t *offset,
                      struct err *err)
{
    size_t bytes, end;
    if (strnlen(tensor->name, ST_NAME_MAX) == ST_NAME_MAX || tensor->name[0] == '\0' ||
        strcmp(tensor->name, "__metadata__") == 0)
        return err_set(err, ERR_INVALID, "tensor name '%.*s' is empty, reserved or too long",
                       ST_NAME_MAX, tensor->name);
    if (!st_tensor_size(&bytes, tensor) || !size_add(&end, *offset, bytes) || end > ST_DATA_MAX)
        return err_set(err, ERR_LIMIT, "tensor %s: shape too large", tensor->name);
    buf_puts(out, ",");
    put_string(out, tensor->name);
    buf_printf(out, ":{\"dtype\":\"%s\",\"shape\":[", st_type_name(tensor->type));
    for (size_t i = 0; i < tensor->rank; i++)
        buf_printf(out, "%s%zu", i ? "," : "", tensor->shape[i]);
    buf_printf(out, "],\"data_offsets\":[%" PRIu64 ",%zu]}", *offset, end);
    *offset = end;
    return 0;
}

static int build_header(struct buf *out, const struct st_tensor *tensors, size_t count,
                        const char *const *metadata, uint64_t *data_bytes, struct err *err)
{
    *data_bytes = 0;
    put_metadata(out, metadata);
    for (size_t i = 0; i < count; i++) {
        int rc = put_tensor(out, &tensors[i], data_bytes, err);
        if (rc)
            return rc;
    }
    buf_puts(out, "}");
    while (!out->failed && out->len % HEADER_ALIGN != 0)
        buf_puts(out, " ");
    if (out->failed)
        return err_set(err, ERR_LIMIT, "safetensors header of %zu tensors is too large", count);
    return 0;
}

int st_writer_open(struct st_writer **out, const char *path, const struct st_tensor *tensors,
                   size_t count, const char *const *metadata, struct err *err)
{
    *out = NULL;
    struct buf header;
    buf_init(&header, ST_HEADER_MAX);
    struct st_writer *writer = mem_zeroed(1, sizeof(*writer));
    int rc = 0;
    if (!writer) {
        rc = err_set(err, ERR_NO_MEMORY, "write %s: no memory", path);
        goto out;
    }
    if (count > ST_TENSORS_MAX)
        rc = err_set(err, ERR_LIMIT, "%zu tensors, at most %d fit a file", count,
                     ST_TENSORS_MAX);
    if (!rc)
        rc = build_header(&header, tensors, count, metadata, &writer->declared, err);
    if (!rc)
        rc = file_writer_open(&writer->file, path, err);
    const uint64_t length = header.len;
    if (!rc)
        rc = file_writer_add(writer->file, &length, sizeof(length), err);
    if (!rc)
        rc = file_writer_add(writer->file, header.data, header.len, err);
out:
    buf_release(&header);
    if (rc)
        st_writer_abort(writer);
    else
        *out = writer;
    return rc;
}

int st_writer_data(struct st_writer *writer, const void *data, size_t bytes, struct err *err)
{
    if (bytes > writer->declared - writer->written)
        return err_set(err, ERR_INTERNAL,
                       "safetensors: %zu bytes more than the %" PRIu64 " declared", bytes,
                       writer->declared - writer->written);
    writer->written += bytes;
    return file_writer_add(writer->file, data, bytes, err);
}

int st_writer_finish(struct st_writer *writer, struct err *err)
{
    if (writer->written != writer->declared) {
        int rc = err_set(err, ERR_INTERNAL,
                         "safetensors: %" PRIu64 " of %" PRIu64 " declared bytes were written",
                         writer->written, writer->declared);
        st_writer_abort(writer);
        return rc;
    }
    int rc = file_writer_finish(writer->file, err);
    free(writer);
    return rc;
}

void st_writer_abort(struct st_writer *writer)
{
    if (!writer)
        return;
    file_writer_abort(writer->file);
    free(writer);
}
