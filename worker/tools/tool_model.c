#include "worker/tools/tool_model.h"

#include "engine/model_config.h"
#include "proto/base/fsx.h"
#include "proto/base/mem.h"
#include "proto/msg/spec.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool holds(const char *folder, const char *name)
{
    char path[FSX_PATH_MAX];
    return fsx_path(path, NULL, "%s/%s", folder, name) == 0 && fsx_exists(path);
}

static int place_path(struct tool_place *out, const char *path, struct err *err)
{
    out->path = mem_strdup(path);
    return out->path ? 0 : err_set(err, ERR_NO_MEMORY, "no memory for a path");
}

static int place_checkpoint(struct tool_place *out, const char *path, struct err *err)
{
    struct checkpoint_info info;
    int rc = checkpoint_describe(&info, path, err);
    if (rc != 0) {
        return rc;
    }
    out->kind = TOOL_MODEL_CHECKPOINT;
    out->shape = info.shape;
    out->step = info.step;
    snprintf(out->method, sizeof out->method, "%s", info.method);
    /* A checkpoint does not name its tokenizer; only the byte tokenizer has 257 tokens. */
    strcpy(out->tokenizer, info.shape.vocab == DATA_BYTES_VOCAB ? "bytes" : "none");
    return place_path(out, path, err);
}

static int place_folder(struct tool_place *out, const char *path, struct err *err)
{
    struct model_origin origin;
    int rc = model_config_read(&out->shape, path, err);
    if (rc == 0) {
        rc = model_origin_read(&origin, path, err);
    }
    if (rc != 0) {
        return rc;
    }
    out->kind = TOOL_MODEL_FOLDER;
    out->shape.n = origin.n;
    out->shape.m = origin.m;
    out->shape.layout = origin.layout;
    strcpy(out->method, origin.method);
    strcpy(out->tokenizer, origin.tokenizer[0] ? origin.tokenizer : "none");
    return place_path(out, path, err);
}

static int place_job(struct tool_place *out, const char *path, struct err *err)
{
    char inside[FSX_PATH_MAX];
    char *newest = NULL;
    int rc = fsx_path(inside, err, "%s/model", path);
    if (rc == 0 && holds(inside, MODEL_CONFIG_FILE)) {
        return place_folder(out, inside, err);
    }
    if (rc == 0) {
        rc = fsx_path(inside, err, "%s/checkpoints", path);
    }
    if (rc == 0) {
        rc = checkpoint_newest(&newest, inside, err);
    }
    if (rc == 0) {
        rc = place_checkpoint(out, newest, err);
    }
    free(newest);
    return rc;
}

int tool_place_find(struct tool_place *out, const char *path, struct err *err)
{
    *out = (struct tool_place){0};
    int rc;
    if (holds(path, "spec.json")) {
        rc = place_job(out, path, err);
    } else if (holds(path, "train.json")) {
        rc = place_checkpoint(out, path, err);
    } else if (holds(path, MODEL_CONFIG_FILE)) {
        rc = place_folder(out, path, err);
    } else {
        rc = err_set(
            err, ERR_NOT_FOUND,
            "%s: no job folder (spec.json), checkpoint (train.json) or model (config.json)",
            path);
    }
    if (rc != 0) {
        tool_place_release(out);
    }
    return rc;
}

void tool_place_release(struct tool_place *place)
{
    free(place->path);
    place->path = NULL;
}

int tool_model_open(struct tool_model *out, const struct tool_place *place, size_t batch,
                    size_t context, size_t threads, struct err *err)
{
    *out = (struct tool_model){0};
    int rc = pool_create(&out->pool, (unsigned)threads, err);
    if (rc == 0) {
        rc = device_create(&out->dev, "cpu", out->pool, err);
    }
    if (rc == 0) {
        rc =
            place->kind == TOOL_MODEL_CHECKPOINT
                ? checkpoint_load_model(&out->model, out->dev, place->path, batch, context, err)
                : model_import(&out->model, out->dev, place->path, batch, context, err);
    }
    if (rc != 0) {
        tool_model_close(out);
    }
    return rc;
}

void tool_model_close(struct tool_model *tool)
{
    model_destroy(tool->model);
    device_destroy(tool->dev);
    pool_destroy(tool->pool);
    *tool = (struct tool_model){0};
}
