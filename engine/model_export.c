#include "engine/checkpoint.h"

#include "engine/adapter_file.h"
#include "engine/model_config.h"
#include "proto/base/fsx.h"
#include "proto/base/mem.h"
#include "proto/format/safetensors.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A matrix goes to the file in pieces of whole rows of about this many entries, so that no
 * dense matrix is in memory. */
enum { PIECE_ENTRIES = 1 << 18 };

/* Buffers of one export. */
struct piece {
    real *dense; /* (size) */
    float *f32;  /* (size): what is written; dense itself when real is float */
    size_t size;
};

static int piece_init(struct piece *piece, const struct model *model, struct err *err)
{
    size_t widest = PIECE_ENTRIES;
    for (size_t i = 0; i < model->param_count; i++) {
        widest = model->params[i].cols > widest ? model->params[i].cols : widest;
    }
    *piece = (struct piece){.size = widest};
    piece->dense = mem_zeroed(widest, sizeof *piece->dense);
    piece->f32 = mem_zeroed(widest, sizeof *piece->f32);
    return piece->dense && piece->f32
               ? 0
               : err_set(err, ERR_NO_MEMORY, "no memory to export a model");
}

static void piece_release(struct piece *piece)
{
    free(piece->dense);
    free(piece->f32);
}

/* The effective weights under the mask. */
static void latent_fill(struct piece *piece, const struct param *param, size_t first,
                        size_t rows)
{
    const struct nm *mask = param->latent;
    const size_t before = first * param->cols;
    for (size_t i = 0; i < rows * param->cols; i++) {
        piece->dense[i] = nm_active(mask, before + i) ? param->effective[before + i] : 0;
    }
}

/* The mask of a target of an N:M model, latent or not; else NULL. */
static const struct nm *mask_of(const struct param *param)
{
    return param->nm ? param->nm : param->latent;
}

/* Rows [first, first + rows) of param as dense fp32 in piece->f32. */
static void piece_fill(struct piece *piece, const struct model *model,
                       const struct param *param, size_t first, size_t rows)
{
    const real *source = model->weights + param->offset + first * param->cols;
    if (param->nm) {
        struct nm part = *param->nm;
        part.dout = rows;
        part.values += first * nm_row_values(param->nm);
        part.codes += first * nm_groups(param->nm);
        part.pack = NULL;
        nm_to_dense(&part, piece->dense);
        source = piece->dense;
    } else if (param->latent) {
        latent_fill(piece, param, first, rows);
        source = piece->dense;
    }
    for (size_t i = 0; i < rows * param->cols; i++) {
        piece->f32[i] = (float)source[i];
    }
}

static int param_write(struct st_writer *writer, struct piece *piece, const struct model *model,
                       const struct param *param, struct err *err)
{
    size_t step = piece->size / param->cols;
    int rc = 0;
    for (size_t first = 0; rc == 0 && first < param->rows; first += step) {
        size_t rows = param->rows - first < step ? param->rows - first : step;
        piece_fill(piece, model, param, first, rows);
        rc = st_writer_data(writer, piece->f32, rows * param->cols * sizeof *piece->f32, err);
    }
    return rc;
}

/* The tensors of model.safetensors, or (codes) of patterns.safetensors; *count gets their
 * number. */
static struct st_tensor *tensors_describe(const struct model *model, bool codes, size_t *count)
{
    struct st_tensor *list = mem_zeroed(model->param_count, sizeof *list);
    *count = 0;
    for (size_t i = 0; list && i < model->param_count; i++) {
        const struct param *param = &model->params[i];
        if (param->adapter || (codes ? !mask_of(param) : param->folded)) {
            continue;
        }
        struct st_tensor *tensor = &list[(*count)++];
        size_t cols = codes ? nm_groups(mask_of(param)) : param->cols;
        snprintf(tensor->name, sizeof tensor->name, "%s%s", param->name, codes ? ".codes" : "");
        tensor->type = codes ? ST_U16 : ST_F32;
        tensor->rank = param->rows == 1 ? 1 : 2;
        tensor->shape[0] = param->rows == 1 ? cols : param->rows;
        tensor->shape[1] = param->rows == 1 ? 0 : cols;
        tensor->bytes = (uint64_t)param->rows * cols * st_type_bytes(tensor->type);
    }
    return list;
}

static int tensors_write(const struct model *model, const char *folder, const char *name,
                         bool codes, struct piece *piece, struct err *err)
{
    char path[FSX_PATH_MAX], n[12], m[12];
    snprintf(n, sizeof n, "%u", model->shape.n);
    snprintf(m, sizeof m, "%u", model->shape.m);
    const char *metadata[] = {"n", n, "m", m, NULL};
    int rc = fsx_path(path, err, "%s/%s", folder, name);
    if (rc != 0) {
        return rc;
    }
    size_t count;
    struct st_tensor *list = tensors_describe(model, codes, &count);
    if (!list) {
        return err_set(err, ERR_NO_MEMORY, "no memory to write %s", path);
    }
    struct st_writer *writer = NULL;
    rc = st_writer_open(&writer, path, list, count, codes ? metadata : NULL, err);
    free(list);
    for (size_t i = 0; rc == 0 && i < model->param_count; i++) {
        const struct param *param = &model->params[i];
        if (param->adapter) {
            continue;
        }
        const struct nm *mask = mask_of(param);
        if (!codes && !param->folded) {
            rc = param_write(writer, piece, model, param, err);
        } else if (codes && mask) {
            size_t bytes = param->rows * nm_groups(mask) * sizeof *mask->codes;
            rc = st_writer_data(writer, mask->codes, bytes, err);
        }
    }
    if (rc != 0) {
        st_writer_abort(writer);
        return rc;
    }
    return st_writer_finish(writer, err);
}

static int folder_fill(const struct model *model, const char *folder,
                       const struct model_origin *origin, struct err *err)
{
    struct piece piece;
    int rc = piece_init(&piece, model, err);
    if (rc == 0) {
        rc = model_config_write(&model->shape, folder, origin->tokenizer, err);
    }
    if (rc == 0) {
        rc = model_origin_write(origin, folder, err);
    }
    if (rc == 0) {
        rc = tensors_write(model, folder, MODEL_WEIGHTS_FILE, false, &piece, err);
    }
    if (rc == 0 && origin->n < origin->m) {
        rc = tensors_write(model, folder, MODEL_PATTERNS_FILE, true, &piece, err);
    }
    if (rc == 0 && origin->adapter.kind != ADAPTER_NONE) {
        rc = adapter_file_write(model, folder, err);
    }
    if (rc == 0) {
        rc = fsx_sync(folder, err);
    }
    piece_release(&piece);
    return rc;
}

int model_export(const struct model *model, const char *folder, const char *method,
                 const char *tokenizer, struct err *err)
{
    struct model_origin origin = {
        .n = model->shape.n,
        .m = model->shape.m,
        .layout = model->shape.layout,
        .adapter = model->shape.adapter};
    snprintf(origin.method, sizeof origin.method, "%s", method);
    snprintf(origin.tokenizer, sizeof origin.tokenizer, "%s", tokenizer);
    char temporary[FSX_PATH_MAX];
    if (fsx_exists(folder)) {
        return err_set(err, ERR_CONFLICT, "export model: %s exists", folder);
    }
    int rc = fsx_path(temporary, err, "%s.tmp", folder);
    if (rc == 0) {
        rc = fsx_remove_tree(temporary, err);
    }
    if (rc == 0) {
        rc = fsx_mkdirs(temporary, 0755, err);
    }
    if (rc != 0) {
        return rc;
    }
    model_pull(model);
    rc = folder_fill(model, temporary, &origin, err);
    if (rc == 0) {
        rc = fsx_rename(temporary, folder, err);
    }
    if (rc != 0) {
        fsx_remove_tree(temporary, NULL);
        return err_wrap(err, rc, "export model");
    }
    return 0;
}
