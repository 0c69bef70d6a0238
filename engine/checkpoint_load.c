#include "engine/checkpoint.h"

#include "engine/checkpoint_files.h"
#include "proto/base/mem.h"
#include "proto/format/manifest.h"

#include <inttypes.h>
#include <stdlib.h>

/* Weights and codes of folder into the model; codes are checked and the packs rebuilt. */
static int weights_read(struct model *model, const char *folder, struct err *err)
{
    char path[FSX_PATH_MAX];
    struct checkpoint_tensors weights = {0};
    int rc = fsx_path(path, err, "%s/%s", folder, CHECKPOINT_MODEL_FILE);
    if (rc == 0) {
        rc = checkpoint_model_tensors(&weights, model, err);
    }
    if (rc == 0) {
        rc = checkpoint_tensors_read(&weights, path, err);
    }
    checkpoint_tensors_release(&weights);
    for (size_t i = 0; rc == 0 && i < model->param_count; i++) {
        const struct param *param = &model->params[i];
        const struct nm *mask = param->nm ? param->nm : param->latent;
        if (mask && (rc = nm_check(mask, err)) != 0) {
            rc = err_wrap(err, rc, "%s: %s", path, param->name);
        }
    }
    if (rc == 0) {
        model_repack(model);
    }
    return rc;
}

static int state_read(struct trainer *trainer, const char *folder, struct err *err)
{
    char path[FSX_PATH_MAX];
    struct checkpoint_tensors state = {0};
    int rc = fsx_path(path, err, "%s/%s", folder, CHECKPOINT_STATE_FILE);
    if (rc == 0) {
        rc = checkpoint_state_tensors(&state, trainer, err);
    }
    if (rc == 0) {
        rc = checkpoint_tensors_read(&state, path, err);
    }
    checkpoint_tensors_release(&state);
    return rc;
}

static int trainer_load(struct trainer *trainer, const char *folder, struct err *err)
{
    struct checkpoint_info info;
    int rc = checkpoint_meta_read(&info, folder, trainer, err);
    if (rc == 0) {
        rc = weights_read(trainer->model, folder, err);
    }
    if (rc == 0) {
        rc = state_read(trainer, folder, err);
    }
    if (rc == 0) {
        trainer->step = (size_t)info.step;
        trainer->refresh = (size_t)info.refresh;
        trainer->tokens = info.tokens;
    }
    return rc;
}

/* The newest step whose manifest holds; UINT64_MAX if there is none. */
static int newest_valid(uint64_t *step, const char *folder, struct err *warning,
                        struct err *err)
{
    uint64_t *steps;
    size_t count;
    int rc = checkpoint_list(&steps, &count, folder, err);
    *step = UINT64_MAX;
    for (size_t i = 0; rc == 0 && i < count; i++) {
        char path[FSX_PATH_MAX];
        struct err fault = {0};
        rc = fsx_path(path, err, "%s/step-%08" PRIu64, folder, steps[i]);
        if (rc == 0 && manifest_verify(path, NULL, &fault) == 0) {
            *step = steps[i];
            break;
        }
        if (rc == 0 && warning) {
            err_set(warning, fault.code, "step-%08" PRIu64 " skipped: %s", steps[i],
                    fault.text);
        }
    }
    free(steps);
    return rc;
}

int checkpoint_resume(struct trainer *trainer, const char *folder, bool *found,
                      struct err *warning, struct err *err)
{
    struct comm *comm = trainer->comm;
    uint64_t step = UINT64_MAX;
    int rc = 0;
    *found = false;
    if (comm->rank == 0) {
        rc = newest_valid(&step, folder, warning, err);
    }
    rc = comm_agree(comm, rc, NULL, err);
    if (rc == 0) {
        rc = comm->ops->broadcast(comm, &step, sizeof step, 0, err);
    }
    if (rc != 0 || step == UINT64_MAX) {
        return rc;
    }
    char path[FSX_PATH_MAX];
    rc = fsx_path(path, err, "%s/step-%08" PRIu64, folder, step);
    if (rc == 0) {
        rc = trainer_load(trainer, path, err);
    }
    rc = comm_agree(comm, rc, NULL, err);
    *found = rc == 0;
    return rc;
}

int checkpoint_newest(char **out, const char *folder, struct err *err)
{
    char path[FSX_PATH_MAX];
    uint64_t step;
    int rc = newest_valid(&step, folder, NULL, err);
    if (rc == 0 && step == UINT64_MAX) {
        rc = err_set(err, ERR_NOT_FOUND, "%s: no checkpoint", folder);
    }
    if (rc == 0) {
        rc = fsx_path(path, err, "%s/step-%08" PRIu64, folder, step);
    }
    if (rc == 0 && !(*out = mem_strdup(path))) {
        rc = err_set(err, ERR_NO_MEMORY, "no memory for a path");
    }
    return rc;
}

int checkpoint_load_model(struct model **out, struct device *dev, const char *path,
                          size_t batch, size_t context, struct err *err)
{
    struct checkpoint_info info;
    struct model *model = NULL;
    int rc = manifest_verify(path, NULL, err);
    if (rc == 0) {
        rc = checkpoint_describe(&info, path, err);
    }
    if (rc == 0) {
        rc = model_shape_check(&info.shape, err);
    }
    if (rc == 0) {
        rc = model_create(&model, dev, &info.shape, batch,
                          context ? context : info.shape.context, false, err);
    }
    if (rc == 0) {
        rc = weights_read(model, path, err);
    }
    if (rc != 0) {
        model_destroy(model);
        return err_wrap(err, rc, "load checkpoint");
    }
    *out = model;
    return 0;
}
