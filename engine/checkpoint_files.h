/* Inside checkpoints: the files of a checkpoint's folder, shared by checkpoint_*.c. */
#ifndef HEBB_ENGINE_CHECKPOINT_FILES_H
#define HEBB_ENGINE_CHECKPOINT_FILES_H

#include "engine/checkpoint.h"
#include "proto/base/fsx.h"
#include "proto/format/safetensors.h"

#define CHECKPOINT_MODEL_FILE "model.safetensors"
#define CHECKPOINT_STATE_FILE "state.safetensors"
#define CHECKPOINT_TRAIN_FILE "train.json"

enum { CHECKPOINT_TRAIN_BYTES_MAX = 64 * 1024, CHECKPOINT_FILES = 3 };

/* The engine's number type in a file. */
#ifdef HEBB_REAL_DOUBLE
#define CHECKPOINT_REAL ST_F64
#else
#define CHECKPOINT_REAL ST_F32
#endif

/* One tensor of a checkpoint and where its bytes are in memory. */
struct checkpoint_tensor {
    struct st_tensor tensor;
    void *data;
};

struct checkpoint_tensors {
    struct checkpoint_tensor *items; /* owned */
    size_t count;
};

/* The tensors of model.safetensors: NAME.values and NAME.codes of every N:M matrix, NAME of
 * every other parameter, in the model's order. They point into the model.
 * checkpoint_tensors_release frees the list. */
int checkpoint_model_tensors(struct checkpoint_tensors *out, const struct model *model,
                             struct err *err);

/* The tensors of state.safetensors: NAME.m and NAME.v of every parameter in the shape of its
 * stored weights, NAME.age of every target if the optimizer keeps ages of entries,
 * `refresh_age` of every parameter if it keeps those of masks, and `explored`, the bit maps of
 * a method that refreshes. They point into the trainer. */
int checkpoint_state_tensors(struct checkpoint_tensors *out, const struct trainer *trainer,
                             struct err *err);
void checkpoint_tensors_release(struct checkpoint_tensors *tensors);

/* Writes path with these tensors in their order and fsyncs it. */
int checkpoint_tensors_write(const struct checkpoint_tensors *tensors, const char *path,
                             struct err *err);

/* ERR_CORRUPT if the file of weights at path is too short for the shape, which passed
 * model_shape_check: no memory is to be taken for it. */
int checkpoint_size_check(const struct model_shape *shape, const char *path, struct err *err);

/* Fills the tensors' memory from path. ERR_CORRUPT unless it holds exactly these, in name, type
 * and shape. */
int checkpoint_tensors_read(const struct checkpoint_tensors *tensors, const char *path,
                            struct err *err);

/* train.json: position and configuration. */
int checkpoint_meta_write(const struct trainer *trainer, const char *path, struct err *err);

/* Reads train.json of folder. With a trainer, its configuration must be the saved one, or
 * ERR_INVALID names the first field that is not, and its data files as long, or ERR_CORRUPT. */
int checkpoint_meta_read(struct checkpoint_info *out, const char *folder,
                         const struct trainer *trainer, struct err *err);

/* Removes the checkpoints of steps after `step`. */
int checkpoint_remove_after(const char *folder, uint64_t step, struct err *err);

/* The steps of the checkpoints in folder, newest first. A missing folder has none. The caller
 * frees *steps. */
int checkpoint_list(uint64_t **steps, size_t *count, const char *folder, struct err *err);

#endif
