#include "engine/adapter_file.h"

#include "engine/model_config.h"
#include "engine/model_private.h"
#include "engine/model_source.h"
#include "proto/base/fsx.h"
#include "proto/base/mem.h"
#include "proto/format/safetensors.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A part in the file: B is the other way round than in the slab. */
struct entry {
    const struct param *param;
    bool turned;
    size_t rows, cols; /* in the file */
    char name[ST_NAME_MAX];
};

static struct entry entry_of(const struct model *model, size_t index)
{
    const struct model_shape *shape = &model->shape;
    const struct param *param = &model->params[index];
    size_t part = (index - model_base_count(shape)) % adapter_parts(&shape->adapter);
    bool turned = part == ADAPTER_BT;
    struct entry entry = {.param = param,
                          .turned = turned,
                          .rows = turned ? param->cols : param->rows,
                          .cols = turned ? param->rows : param->cols};
    snprintf(entry.name, sizeof entry.name, "%s", param->name);
    if (turned) { /* NAME.lora_BT.weight -> NAME.lora_B.weight */
        size_t stem = strlen(param->name) - strlen(adapter_suffix(ADAPTER_BT));
        snprintf(entry.name + stem, sizeof entry.name - stem, "lora_B.weight");
    }
    return entry;
}

/* The slab's place of element i of the file's tensor. */
static size_t entry_place(const struct entry *entry, size_t i)
{
    return entry->turned ? i % entry->cols * entry->rows + i / entry->cols : i;
}

/* Biases are vectors; a matrix of one row stays one. */
static bool entry_vector(const struct entry *entry) { return !entry->param->decay; }

static void entry_describe(const struct entry *entry, struct st_tensor *out)
{
    bool vector = entry_vector(entry);
    *out = (struct st_tensor){.type = ST_F32, .rank = vector ? 1 : 2};
    memcpy(out->name, entry->name, sizeof entry->name);
    out->shape[0] = vector ? entry->cols : entry->rows;
    out->shape[1] = vector ? 0 : entry->cols;
    out->bytes = (uint64_t)entry->param->count * sizeof(float);
}

static int entries_write(const struct model *model, struct st_writer *writer, struct err *err)
{
    int rc = 0;
    for (size_t i = model_base_count(&model->shape);
         rc == 0 && i < model_adapter_end(&model->shape); i++) {
        struct entry entry = entry_of(model, i);
        const real *weights = model_weight(model, entry.param);
        float *data = mem_zeroed(entry.param->count, sizeof *data);
        if (!data) {
            return err_set(err, ERR_NO_MEMORY, "no memory to write %s", entry.name);
        }
        for (size_t k = 0; k < entry.param->count; k++) {
            data[k] = (float)weights[entry_place(&entry, k)];
        }
        rc = st_writer_data(writer, data, entry.param->count * sizeof *data, err);
        free(data);
    }
    return rc;
}

int adapter_file_write(const struct model *model, const char *folder, struct err *err)
{
    char path[FSX_PATH_MAX];
    size_t base = model_base_count(&model->shape),
           count = model_adapter_end(&model->shape) - base;
    const char *const metadata[] = {"adapter", adapter_names[model->shape.adapter.kind], NULL};
    struct st_tensor *list = mem_zeroed(count, sizeof *list);
    struct st_writer *writer = NULL;
    int rc = list ? fsx_path(path, err, "%s/%s", folder, MODEL_ADAPTER_FILE)
                  : err_set(err, ERR_NO_MEMORY, "no memory for %zu tensors", count);
    for (size_t i = 0; rc == 0 && i < count; i++) {
        struct entry entry = entry_of(model, base + i);
        entry_describe(&entry, &list[i]);
    }
    if (rc == 0) {
        rc = st_writer_open(&writer, path, list, count, metadata, err);
    }
    free(list);
    if (rc != 0) {
        return rc;
    }
    rc = entries_write(model, writer, err);
    if (rc != 0) {
        st_writer_abort(writer);
        return rc;
    }
    return st_writer_finish(writer, err);
}

static int entry_read(struct model *model, const struct entry *entry,
                      const struct st_file *file, struct err *err)
{
    struct st_tensor want;
    const struct st_tensor *have = st_find(file, entry->name);
    entry_describe(entry, &want);
    if (!have || !model_source_real(have->type) || have->rank != want.rank ||
        have->shape[0] != want.shape[0] ||
        (want.rank == 2 && have->shape[1] != want.shape[1])) {
        return err_set(
            err, ERR_CORRUPT,
            "%s: tensor %s is missing or not F64, F32, F16 or BF16 of shape (%" PRIu64
            ", %" PRIu64 ")",
            MODEL_ADAPTER_FILE, entry->name, want.shape[0], want.rank == 2 ? want.shape[1] : 1);
    }
    const void *data = st_data(file, have);
    real *weights = model_weight(model, entry->param);
    for (size_t k = 0; k < entry->param->count; k++) {
        weights[entry_place(entry, k)] = (real)model_source_entry(data, have->type, k);
    }
    return 0;
}

int adapter_file_read(struct model *model, const char *folder, struct err *err)
{
    char path[FSX_PATH_MAX];
    struct st_file *file = NULL;
    int rc = fsx_path(path, err, "%s/%s", folder, MODEL_ADAPTER_FILE);
    if (rc == 0) {
        rc = st_open(&file, path, err);
    }
    for (size_t i = model_base_count(&model->shape);
         rc == 0 && i < model_adapter_end(&model->shape); i++) {
        struct entry entry = entry_of(model, i);
        rc = entry_read(model, &entry, file, err);
    }
    st_close(file);
    return rc;
}
