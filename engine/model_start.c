/* Training from given dense weights: a checkpoint of a dense run, or a model folder. */
#include "engine/checkpoint.h"

#include "engine/checkpoint_files.h"
#include "engine/model_config.h"
#include "engine/model_source.h"
#include "engine/sparse/latent.h"
#include "proto/base/fsx.h"
#include "proto/base/mem.h"
#include "proto/format/manifest.h"

#include <stdlib.h>

static bool holds(const char *folder, const char *name)
{
    char path[FSX_PATH_MAX];
    return fsx_path(path, NULL, "%s/%s", folder, name) == 0 && fsx_exists(path);
}

static int folder_shape_read(struct model_shape *out, const char *path, struct err *err)
{
    struct model_origin origin;
    int rc = model_config_read(out, path, err);
    if (rc == 0) {
        rc = model_origin_read(&origin, path, err);
    }
    if (rc == 0) {
        out->adapter = origin.adapter;
    }
    return rc;
}

static int shape_read(struct model_shape *out, const char *path, struct err *err)
{
    if (!holds(path, CHECKPOINT_TRAIN_FILE)) {
        return holds(path, MODEL_CONFIG_FILE)
                   ? folder_shape_read(out, path, err)
                   : err_set(err, ERR_NOT_FOUND,
                             "%s: no checkpoint (train.json) and no model (config.json)", path);
    }
    struct checkpoint_info info;
    int rc = manifest_verify(path, NULL, err);
    if (rc == 0) {
        rc = checkpoint_describe(&info, path, err);
    }
    if (rc == 0 && info.shape.n < info.shape.m) {
        rc = err_set(err, ERR_INVALID,
                     "%s: the checkpoint is of %u:%u weights, not of dense ones", path,
                     info.shape.n, info.shape.m);
    }
    *out = rc == 0 ? info.shape : (struct model_shape){0};
    return rc;
}

/* All that the weights depend on; context and sparsity may differ. An adapter of the source has
 * no place to go: its branch cannot be folded into the matrices. */
static int shape_compare(const struct model_shape *is, const struct model_shape *wanted,
                         const char *path, struct err *err)
{
    const struct {
        const char *name;
        double is, wanted;
    } fields[] = {
        {"hidden", (double)is->hidden, (double)wanted->hidden},
        {"intermediate", (double)is->intermediate, (double)wanted->intermediate},
        {"layers", (double)is->layers, (double)wanted->layers},
        {"heads", (double)is->heads, (double)wanted->heads},
        {"kv_heads", (double)is->kv_heads, (double)wanted->kv_heads},
        {"vocab", (double)is->vocab, (double)wanted->vocab},
        {"rope_theta", is->rope_theta, wanted->rope_theta},
        {"norm_eps", is->norm_eps, wanted->norm_eps},
        {"tie_embeddings", is->tie_embeddings, wanted->tie_embeddings},
    };
    if (is->adapter.kind != ADAPTER_NONE) {
        return err_set(err, ERR_UNSUPPORTED,
                       "%s: its model has the adapter %s; only one without "
                       "can be started from",
                       path, adapter_names[is->adapter.kind]);
    }
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        if (fields[i].is < fields[i].wanted || fields[i].is > fields[i].wanted) {
            return err_set(err, ERR_INVALID, "%s: model.%s is %g there and %g here", path,
                           fields[i].name, fields[i].is, fields[i].wanted);
        }
    }
    return 0;
}

/* Rows first .. first + rows - 1 of an N:M matrix from their dense form. */
static void rows_project(const struct nm *w, const real *dense, size_t first, size_t rows)
{
    struct nm part = *w;
    part.dout = rows;
    part.codes += first * nm_groups(w);
    real *value = w->values + first * nm_row_values(w);
    magnitude_mask(&part, dense, 0, rows);
    for (size_t i = 0; i < rows * w->din; i++) {
        if (nm_active(&part, i)) {
            *value++ = dense[i];
        }
    }
}

/* dense: NM_BLOCK rows of the widest matrix. */
static int param_start(struct model *model, const struct param *param,
                       const struct model_source *source, real *dense, struct err *err)
{
    const void *data;
    enum st_type type;
    int rc =
        model_source_param(source, param->name, param->rows, param->cols, &data, &type, err);
    for (size_t first = 0; rc == 0 && first < param->rows; first += NM_BLOCK) {
        size_t rows = param->rows - first < NM_BLOCK ? param->rows - first : NM_BLOCK;
        real *to = param->nm ? dense : model->weights + param->offset + first * param->cols;
        for (size_t i = 0; i < rows * param->cols; i++) {
            to[i] = (real)model_source_entry(data, type, first * param->cols + i);
        }
        if (param->nm) {
            rows_project(param->nm, dense, first, rows);
        }
    }
    return rc;
}

int model_start(struct model *model, const char *path, struct err *err)
{
    struct model_shape shape;
    struct model_source source = {0};
    size_t widest = 0;
    real *dense = NULL;
    int rc = shape_read(&shape, path, err);
    if (rc == 0) {
        rc = shape_compare(&shape, &model->shape, path, err);
    }
    if (rc == 0) {
        rc = model_source_open(&source, path, err);
    }
    if (rc != 0) {
        return rc;
    }
    for (size_t i = 0; i < model->param_count; i++) {
        widest = model->params[i].cols > widest ? model->params[i].cols : widest;
    }
    dense = mem_zeroed(NM_BLOCK * widest, sizeof *dense);
    if (!dense) {
        rc = err_set(err, ERR_NO_MEMORY, "no memory to read %s", path);
    }
    for (size_t i = 0; rc == 0 && i < model->param_count; i++) {
        if (!model->params[i].folded && !model->params[i].adapter) { /* these start as ever */
            rc = param_start(model, &model->params[i], &source, dense, err);
        }
    }
    if (rc == 0) {
        latent_select(model);
        model_push(model);
        model_repack(model);
    }
    free(dense);
    model_source_release(&source);
    return rc == 0 ? 0 : err_wrap(err, rc, "start from %s", path);
}
