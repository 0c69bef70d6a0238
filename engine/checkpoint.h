/* Checkpoints: step-NNNNNNNN/ with model.safetensors (weights as values and codes),
 * state.safetensors (moments, ages, explored maps), train.json (position, seed, shape, method) and
 * manifest.json (lengths and XXH3-128 of the others, written last). Published by renaming a
 * hidden folder; a folder without a valid manifest is not a checkpoint. The bytes depend on the
 * training state only: no times, no host names. */
#ifndef HEBB_ENGINE_CHECKPOINT_H
#define HEBB_ENGINE_CHECKPOINT_H

#include "engine/trainer.h"

/* Writes folder/step-NNNNNNNN (all ranks call; rank 0 writes, the others wait). *bytes: its
 * size. */
int checkpoint_save(struct trainer *trainer, const char *folder, uint64_t *bytes,
                    struct err *err);

/* Finds the newest valid checkpoint in folder and loads it; *found false if there is none. A
 * checkpoint that fails its manifest is skipped and named in warning (may be NULL). ERR_INVALID
 * if it is of another shape or method. */
int checkpoint_resume(struct trainer *trainer, const char *folder, bool *found,
                      struct err *warning, struct err *err);

/* Removes all but the newest `keep` (>= 1) checkpoints and left-over hidden folders. */
int checkpoint_prune(const char *folder, size_t keep, struct err *err);

/* What train.json says of a checkpoint, without reading its weights. */
struct checkpoint_info {
    uint64_t step, refresh, tokens;
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
