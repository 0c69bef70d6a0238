/* Checkpoints: step-NNNNNNNN/ with model.safetensors (weights as values and codes),
 * state.safetensors (moments, ages, explored maps), train.json (position, guard, configuration)
 * and manifest.json (lengths and XXH3-128 of the others, written last). Published by renaming a
 * hidden folder; a folder without a valid manifest is not a checkpoint. The bytes depend on the
 * training state only: no times, no host names. */
#ifndef HEBB_ENGINE_CHECKPOINT_H
#define HEBB_ENGINE_CHECKPOINT_H

#include "engine/trainer.h"

/* Writes folder/step-NNNNNNNN (all ranks call; rank 0 writes, the others wait). *bytes: its
 * size. */
int checkpoint_save(struct trainer *trainer, const char *folder, uint64_t *bytes,
                    struct err *err);

/* Finds the newest valid checkpoint in folder and loads it; *found false if there is none.
 * Checkpoints that fail their manifest are skipped and named in warning (may be NULL).
 * ERR_INVALID if it is of another shape or method. */
int checkpoint_resume(struct trainer *trainer, const char *folder, bool *found,
                      struct err *warning, struct err *err);

/* The roll back: loads the newest valid checkpoint of a step that is a multiple of `every` and
 * before trainer->step, since one is known to be good only when a batch was accepted after it,
 * and since the others depend on when somebody paused the run (every 0: any step). *found false
 * if there is none: nothing was changed. The guard's cursor stays where it was
 * (guard_rolled_back). Rank 0 then removes the newer checkpoints, which led to the fault. All
 * ranks call. */
int checkpoint_roll_back(struct trainer *trainer, const char *folder, size_t every, bool *found,
                         struct err *warning, struct err *err);

/* Which checkpoints stay. */
struct checkpoint_keep {
    size_t last;  /* the newest; at least 1 */
    size_t best;  /* those with the smallest validation loss; of equal ones the older */
    size_t every; /* the newest whose step is a multiple of this; 0: none */
};

/* Removes the others and left-over hidden folders. ERR_CORRUPT, and nothing is removed, if the
 * newest does not verify. */
int checkpoint_prune(const char *folder, const struct checkpoint_keep *keep, struct err *err);

/* What train.json says of a checkpoint, without reading its weights. */
struct checkpoint_info {
    uint64_t step, refresh, tokens;
    double validation_loss; /* NaN: it was not evaluated at this step */
    struct guard guard;
    struct model_shape shape;
    char method[64];
};

/* ERR_NOT_FOUND, ERR_CORRUPT. */
int checkpoint_describe(struct checkpoint_info *out, const char *path, struct err *err);

/* The path of the newest checkpoint in folder whose manifest holds, malloc'd; ERR_NOT_FOUND if
 * there is none. */
int checkpoint_newest(char **out, const char *folder, struct err *err);

/* Loads weights and masks only, for inference: shape is read from train.json. context 0: the
 * shape's own. */
int checkpoint_load_model(struct model **out, struct device *dev, const char *path,
                          size_t batch, size_t context, struct err *err);

/* Puts the dense weights of path into model: a checkpoint of a dense run, or a model folder as
 * model_import takes it. N:M targets get the legal masks of largest magnitude and the weights
 * under them; latent ones the weights; moments stay. ERR_INVALID names a field in which the
 * shapes differ; ERR_NOT_FOUND, ERR_CORRUPT, ERR_UNSUPPORTED. After an error the weights are
 * undefined. */
int model_start(struct model *model, const char *path, struct err *err);

/* model/: config.json and model.safetensors (dense fp32, Hugging Face's LLaMA names, exact
 * zeros) plus hebb.json (method, N, M, tokenizer, adapter), patterns.safetensors (codes) and,
 * with an adapter, adapter.safetensors, since W + B A is no N:M matrix. Written
 * tensor by tensor into folder.tmp, which is then renamed. ERR_CONFLICT if folder exists. */
int model_export(const struct model *model, const char *folder, const char *method,
                 const char *tokenizer, struct err *err);

/* Loads such a folder, or any Hugging Face LLaMA folder with fp32, fp16 or bf16 safetensors
 * (one file or an index of several). N:M is read from hebb.json; without it the model is dense.
 * context 0: the shape's own. ERR_UNSUPPORTED names what this model does not have (biases,
 * scaled RoPE, another activation). */
int model_import(struct model **out, struct device *dev, const char *folder, size_t batch,
                 size_t context, struct err *err);

#endif
