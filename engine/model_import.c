#include "engine/checkpoint.h"

#include "engine/adapter_file.h"
#include "engine/model_config.h"
#include "engine/model_source.h"
#include "proto/base/fsx.h"

#include <stdio.h>
#include <string.h>

/* Codes of one matrix from patterns.safetensors. */
static int codes_read(const struct param *param, const struct st_file *patterns,
                      struct err *err)
{
    char name[ST_NAME_MAX];
    snprintf(name, sizeof name, "%s.codes", param->name);
    const struct st_tensor *tensor = st_find(patterns, name);
    size_t count = param->rows * nm_groups(param->nm);
    if (!tensor || tensor->type != ST_U16 ||
        tensor->bytes != count * sizeof *param->nm->codes) {
        return err_set(err, ERR_CORRUPT, "%s: tensor %s is missing or of another size",
                       MODEL_PATTERNS_FILE, name);
    }
    memcpy(param->nm->codes, st_data(patterns, tensor), (size_t)tensor->bytes);
    int rc = nm_check(param->nm, err);
    return rc == 0 ? 0 : err_wrap(err, rc, "%s: %s", MODEL_PATTERNS_FILE, name);
}

/* Takes the active entries of a dense matrix into values; an entry outside the mask must be
 * zero. */
static int values_read(const struct param *param, const void *data, enum st_type type,
                       struct err *err)
{
    const struct nm *w = param->nm;
    real *value = w->values;
    for (size_t group = 0; group < w->dout * nm_groups(w); group++) {
        unsigned mask = w->patterns->mask[w->codes[group]];
        for (unsigned j = 0; j < w->m; j++) {
            double x = model_source_entry(data, type, group * w->m + j);
            if (mask >> j & 1u) {
                *value++ = (real)x;
            } else if (x != 0) {
                return err_set(
                    err, ERR_CORRUPT, "%s: row %zu column %zu is not zero outside the mask",
                    param->name, group / nm_groups(w), group % nm_groups(w) * w->m + j);
            }
        }
    }
    return 0;
}

static int param_read(struct model *model, const struct param *param,
                      const struct model_source *source, const struct st_file *patterns,
                      struct err *err)
{
    const void *data;
    enum st_type type;
    int rc =
        model_source_param(source, param->name, param->rows, param->cols, &data, &type, err);
    if (rc != 0) {
        return rc;
    }
    if (param->nm) {
        rc = codes_read(param, patterns, err);
        return rc == 0 ? values_read(param, data, type, err) : rc;
    }
    real *weights = model->weights + param->offset;
    for (size_t i = 0; i < param->count; i++) {
        weights[i] = (real)model_source_entry(data, type, i);
    }
    return 0;
}

static int weights_import(struct model *model, const char *folder, struct err *err)
{
    char path[FSX_PATH_MAX];
    struct st_file *patterns = NULL;
    struct model_source source = {0};
    int rc = model_source_open(&source, folder, err);
    if (rc == 0 && model->patterns) {
        rc = fsx_path(path, err, "%s/%s", folder, MODEL_PATTERNS_FILE);
        if (rc == 0) {
            rc = st_open(&patterns, path, err);
        }
    }
    for (size_t i = 0; rc == 0 && i < model->param_count; i++) {
        if (!model->params[i].adapter) {
            rc = param_read(model, &model->params[i], &source, patterns, err);
        }
    }
    if (rc == 0 && model->shape.adapter.kind != ADAPTER_NONE) {
        rc = adapter_file_read(model, folder, err);
    }
    if (rc == 0) {
        model_push(model);
        model_repack(model);
    }
    st_close(patterns);
    model_source_release(&source);
    return rc;
}

int model_import(struct model **out, struct device *dev, const char *folder, size_t batch,
                 size_t context, struct err *err)
{
    struct model_shape shape;
    struct model_origin origin;
    struct model *model = NULL;
    int rc = model_config_read(&shape, folder, err);
    if (rc == 0) {
        rc = model_origin_read(&origin, folder, err);
    }
    if (rc == 0) {
        shape.n = origin.n;
        shape.m = origin.m;
        shape.adapter = origin.adapter;
        shape.layout = origin.layout;
        rc = model_shape_check(&shape, err);
    }
    if (rc == 0) {
        rc = model_create(&model, dev, &shape, batch, context ? context : shape.context, false,
                          err);
    }
    if (rc == 0) {
        rc = weights_import(model, folder, err);
    }
    if (rc != 0) {
        model_destroy(model);
        return err_wrap(err, rc, "import model %s", folder);
    }
    *out = model;
    return 0;
}
