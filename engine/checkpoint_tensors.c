/* The lists of tensors that a checkpoint's two safetensors files hold, and their writing and
 * reading. One list serves both ways, so that what is written is what is asked for. */
#include "engine/checkpoint_files.h"

#include "proto/base/mem.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int tensors_reserve(struct checkpoint_tensors *out, size_t count, struct err *err)
{
    out->items = mem_zeroed(count ? count : 1, sizeof *out->items);
    out->count = 0;
    return out->items
               ? 0
               : err_set(err, ERR_NO_MEMORY, "no memory for a list of %zu tensors", count);
}

static void tensors_add(struct checkpoint_tensors *list, const char *name, const char *suffix,
                        enum st_type type, size_t rows, size_t cols, void *data)
{
    struct checkpoint_tensor *item = &list->items[list->count++];
    snprintf(item->tensor.name, sizeof item->tensor.name, "%s%s", name, suffix);
    item->tensor.type = type;
    item->tensor.rank = rows == 1 ? 1 : 2;
    item->tensor.shape[0] = rows == 1 ? cols : rows;
    item->tensor.shape[1] = rows == 1 ? 0 : cols;
    item->tensor.bytes = (uint64_t)rows * cols * st_type_bytes(type);
    item->data = data;
}

/* Entries of a row as stored. */
static size_t param_stored_cols(const struct param *param)
{
    return param->nm ? nm_row_values(param->nm) : param->cols;
}

int checkpoint_model_tensors(struct checkpoint_tensors *out, const struct model *model,
                             struct err *err)
{
    int rc = tensors_reserve(out, 2 * model->param_count, err);
    for (size_t i = 0; rc == 0 && i < model->param_count; i++) {
        const struct param *param = &model->params[i];
        tensors_add(out, param->name, param->nm ? ".values" : "", CHECKPOINT_REAL, param->rows,
                    param_stored_cols(param), model->weights + param->offset);
        const struct nm *mask = param->nm ? param->nm : param->latent;
        if (mask) {
            tensors_add(out, param->name, ".codes", ST_U16, param->rows, nm_groups(mask),
                        mask->codes);
        }
    }
    return rc;
}

int checkpoint_state_tensors(struct checkpoint_tensors *out, const struct trainer *trainer,
                             struct err *err)
{
    const struct model *model = trainer->model;
    int rc = tensors_reserve(out, 3 * model->param_count + 2, err);
    for (size_t i = 0; rc == 0 && i < model->param_count; i++) {
        const struct param *param = &model->params[i];
        size_t cols = param_stored_cols(param);
        tensors_add(out, param->name, ".m", CHECKPOINT_REAL, param->rows, cols,
                    model->moment1 + param->offset);
        tensors_add(out, param->name, ".v", CHECKPOINT_REAL, param->rows, cols,
                    model->moment2 + param->offset);
        if (model->ages && param->target)
            tensors_add(out, param->name, ".age", ST_U16, param->rows, cols,
                        model->ages + param->offset);
    }
    if (rc == 0 && model->refresh_age) {
        tensors_add(out, "refresh_age", "", ST_U32, 1, model->param_count, model->refresh_age);
    }
    if (rc == 0 && trainer->refresher) {
        size_t bytes = 0;
        uint8_t *explored = refresher_explored(trainer->refresher, &bytes);
        tensors_add(out, "explored", "", ST_U8, 1, bytes, explored);
    }
    return rc;
}

void checkpoint_tensors_release(struct checkpoint_tensors *tensors)
{
    free(tensors->items);
    *tensors = (struct checkpoint_tensors){0};
}

int checkpoint_tensors_write(const struct checkpoint_tensors *tensors, const char *path,
                             struct err *err)
{
    struct st_tensor *headers =
        mem_zeroed(tensors->count ? tensors->count : 1, sizeof *headers);
    if (!headers) {
        return err_set(err, ERR_NO_MEMORY, "no memory to write %s", path);
    }
    for (size_t i = 0; i < tensors->count; i++) {
        headers[i] = tensors->items[i].tensor;
    }
    struct st_writer *writer = NULL;
    int rc = st_writer_open(&writer, path, headers, tensors->count, NULL, err);
    free(headers);
    for (size_t i = 0; rc == 0 && i < tensors->count; i++) {
        const struct checkpoint_tensor *item = &tensors->items[i];
        rc = st_writer_data(writer, item->data, (size_t)item->tensor.bytes, err);
    }
    if (rc != 0) {
        st_writer_abort(writer);
        return rc;
    }
    return st_writer_finish(writer, err);
}

static int tensor_read(const struct checkpoint_tensor *item, const struct st_file *file,
                       const char *path, struct err *err)
{
    const struct st_tensor *want = &item->tensor;
    const struct st_tensor *have = st_find(file, want->name);
    if (!have) {
        return err_set(err, ERR_CORRUPT, "%s: no tensor %s", path, want->name);
    }
    bool same =
        have->type == want->type && have->rank == want->rank && have->bytes == want->bytes;
    for (size_t i = 0; same && i < want->rank; i++) {
        same = have->shape[i] == want->shape[i];
    }
    if (!same) {
        return err_set(err, ERR_CORRUPT,
                       "%s: tensor %s has another type or shape than the run's (%" PRIu64
                       " bytes, not %" PRIu64 ")",
                       path, want->name, have->bytes, want->bytes);
    }
    memcpy(item->data, st_data(file, have), (size_t)want->bytes);
    return 0;
}

int checkpoint_tensors_read(const struct checkpoint_tensors *tensors, const char *path,
                            struct err *err)
{
    struct st_file *file = NULL;
    int rc = st_open(&file, path, err);
    if (rc != 0) {
        return rc;
    }
    for (size_t i = 0; rc == 0 && i < tensors->count; i++) {
        rc = tensor_read(&tensors->items[i], file, path, err);
    }
    if (rc == 0 && st_count(file) != tensors->count) {
        rc = err_set(err, ERR_CORRUPT, "%s: %zu tensors, %zu expected", path, st_count(file),
                     tensors->count);
    }
    st_close(file);
    return rc;
}
