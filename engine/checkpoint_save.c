#include "engine/checkpoint.h"

#include "engine/checkpoint_files.h"
#include "proto/format/manifest.h"

#include <inttypes.h>

/* Writes the three files and the manifest into temporary, which exists and is empty. */
static int files_write(const struct trainer *trainer, const char *temporary, uint64_t *bytes,
                       struct err *err)
{
    static const char *const names[CHECKPOINT_FILES] = {
        CHECKPOINT_MODEL_FILE, CHECKPOINT_STATE_FILE, CHECKPOINT_TRAIN_FILE};
    char path[FSX_PATH_MAX];
    struct checkpoint_tensors weights = {0}, state = {0};
    int rc = checkpoint_model_tensors(&weights, trainer->model, err);
    if (rc == 0) {
        rc = checkpoint_state_tensors(&state, trainer, err);
    }
    if (rc == 0) {
        rc = fsx_path(path, err, "%s/%s", temporary, CHECKPOINT_MODEL_FILE);
    }
    if (rc == 0) {
        rc = checkpoint_tensors_write(&weights, path, err);
        comm_progress(trainer->comm);
    }
    if (rc == 0) {
        rc = fsx_path(path, err, "%s/%s", temporary, CHECKPOINT_STATE_FILE);
    }
    if (rc == 0) {
        rc = checkpoint_tensors_write(&state, path, err);
        comm_progress(trainer->comm);
    }
    if (rc == 0) {
        rc = fsx_path(path, err, "%s/%s", temporary, CHECKPOINT_TRAIN_FILE);
    }
    if (rc == 0) {
        rc = checkpoint_meta_write(trainer, path, err);
    }
    if (rc == 0) {
        rc = manifest_write(temporary, names, CHECKPOINT_FILES, bytes, err);
    }
    checkpoint_tensors_release(&weights);
    checkpoint_tensors_release(&state);
    return rc;
}

/* What rank 0 does: a hidden folder, filled, then renamed. */
static int folder_write(const struct trainer *trainer, const char *folder, uint64_t *bytes,
                        struct err *err)
{
    char temporary[FSX_PATH_MAX], final[FSX_PATH_MAX];
    int rc = fsx_path(final, err, "%s/step-%08zu", folder, trainer->step);
    if (rc == 0) {
        rc = fsx_path(temporary, err, "%s/.step-%08zu.tmp", folder, trainer->step);
    }
    if (rc == 0) {
        rc = fsx_remove_tree(temporary, err);
    }
    if (rc == 0) {
        rc = fsx_mkdirs(temporary, 0755, err);
    }
    if (rc != 0) {
        return rc;
    }
    rc = files_write(trainer, temporary, bytes, err);
    if (rc == 0) {
        rc = fsx_sync(temporary, err);
    }
    /* A folder of this step can be there only if it is not valid: a valid one would have been
     * resumed from. */
    if (rc == 0) {
        rc = fsx_remove_tree(final, err);
    }
    if (rc == 0) {
        rc = fsx_rename(temporary, final, err);
    }
    if (rc != 0) {
        fsx_remove_tree(temporary, NULL);
        return err_wrap(err, rc, "checkpoint of step %zu", trainer->step);
    }
    return 0;
}

int checkpoint_save(struct trainer *trainer, const char *folder, uint64_t *bytes,
                    struct err *err)
{
    *bytes = 0;
    int rc = 0;
    if (trainer->comm->rank == 0) {
        model_pull(trainer->model);
        rc = folder_write(trainer, folder, bytes, err);
    }
    rc = comm_agree(trainer->comm, rc, NULL, err);
    if (rc == 0) {
        rc = trainer->comm->ops->broadcast(trainer->comm, bytes, sizeof *bytes, 0, err);
    }
    return rc;
}
