#include "engine/checkpoint.h"

#include "engine/checkpoint_files.h"
#include "engine/model_private.h"
#include "proto/base/mem.h"
#include "proto/format/manifest.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

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
        model_push(model);
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
    if (rc == 0) {
        model_push(trainer->model);
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
        trainer->guard = info.guard;
        trainer->validation_loss = info.validation_loss;
        trainer->validation_step = (size_t)info.step;
    }
    return rc;
}

/* Adds a skipped checkpoint to what warning says of others. */
static void warn_skipped(struct err *warning, uint64_t step, const struct err *fault)
{
    char before[ERR_TEXT_MAX];
    if (!warning) {
        return;
    }
    memcpy(before, warning->text, sizeof before);
    err_set(warning, fault->code, "%s%sstep-%08" PRIu64 " skipped: %s",
            warning->code ? before : "", warning->code ? "; " : "", step, fault->text);
}

/* The newest step whose manifest holds, of those that are multiples of `every` (0: any) and
 * before `before`; UINT64_MAX if there is none. */
static int newest_valid(uint64_t *step, const char *folder, uint64_t before, uint64_t every,
                        struct err *warning, struct err *err)
{
    uint64_t *steps;
    size_t count;
    int rc = checkpoint_list(&steps, &count, folder, err);
    *step = UINT64_MAX;
    for (size_t i = 0; rc == 0 && i < count; i++) {
        char path[FSX_PATH_MAX];
        struct err fault = {0};
        if (steps[i] >= before || (every > 0 && steps[i] % every != 0)) {
            continue;
        }
        rc = fsx_path(path, err, "%s/step-%08" PRIu64, folder, steps[i]);
        if (rc == 0 && manifest_verify(path, NULL, &fault) == 0) {
            *step = steps[i];
            break;
        }
        if (rc == 0) {
            warn_skipped(warning, steps[i], &fault);
        }
    }
    free(steps);
    return rc;
}

/* Rank 0's choice, loaded on every rank. */
static int load_newest(struct trainer *trainer, const char *folder, uint64_t before,
                       uint64_t every, bool *found, struct err *warning, struct err *err)
{
    struct comm *comm = trainer->comm;
    uint64_t step = UINT64_MAX;
    int rc = 0;
    *found = false;
    if (comm->rank == 0) {
        rc = newest_valid(&step, folder, before, every, warning, err);
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

int checkpoint_resume(struct trainer *trainer, const char *folder, bool *found,
                      struct err *warning, struct err *err)
{
    return load_newest(trainer, folder, UINT64_MAX, 0, found, warning, err);
}

int checkpoint_roll_back(struct trainer *trainer, const char *folder, size_t every, bool *found,
                         struct err *warning, struct err *err)
{
    const struct guard before = trainer->guard;
    const size_t from = trainer->step;
    int rc = load_newest(trainer, folder, from, every, found, warning, err);
    if (rc != 0 || !*found) {
        return rc;
    }
    guard_rolled_back(&trainer->guard, &before, from, trainer->step);
    if (trainer->comm->rank == 0) {
        rc = checkpoint_remove_after(folder, trainer->step, err);
    }
    return comm_agree(trainer->comm, rc, NULL, err);
}

int checkpoint_newest(char **out, const char *folder, struct err *err)
{
    char path[FSX_PATH_MAX];
    uint64_t step;
    int rc = newest_valid(&step, folder, UINT64_MAX, 0, NULL, err);
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

int checkpoint_size_check(const struct model_shape *shape, const char *path, struct err *err)
{
    struct stat status;
    size_t count = 0, codes = 0;
    if (stat(path, &status) != 0) {
        return err_set(err, ERR_NOT_FOUND, "%s: %s", path, strerror(errno));
    }
    const uint64_t held = (uint64_t)status.st_size / sizeof(real) +
                          (uint64_t)model_param_count(shape) * MODEL_PARAM_ALIGN;
    if (!model_params_fill(NULL, shape, &count, &codes) || count > held) {
        return err_set(err, ERR_CORRUPT,
                       "%s has %jd bytes: too few for the shape that train.json names", path,
                       (intmax_t)status.st_size);
    }
    return 0;
}

int checkpoint_load_model(struct model **out, struct device *dev, const char *path,
                          size_t batch, size_t context, struct err *err)
{
    struct checkpoint_info info;
    struct model *model = NULL;
    char weights[FSX_PATH_MAX];
    int rc = manifest_verify(path, NULL, err);
    if (rc == 0) {
        rc = checkpoint_describe(&info, path, err);
    }
    if (rc == 0) {
        rc = model_shape_check(&info.shape, err);
    }
    if (rc == 0) {
        rc = fsx_path(weights, err, "%s/%s", path, CHECKPOINT_MODEL_FILE);
    }
    if (rc == 0) { /* before memory is taken for what a few bytes of JSON promise */
        rc = checkpoint_size_check(&info.shape, weights, err);
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
