/* config.json and hebb.json of a model's folder: the shape as transformers' LlamaForCausalLM
 * names it, and what only hebb knows. */
#ifndef HEBB_ENGINE_MODEL_CONFIG_H
#define HEBB_ENGINE_MODEL_CONFIG_H

#include "engine/model.h"

#define MODEL_CONFIG_FILE "config.json"
#define MODEL_HEBB_FILE "hebb.json"
#define MODEL_WEIGHTS_FILE "model.safetensors"
#define MODEL_INDEX_FILE "model.safetensors.index.json"
#define MODEL_PATTERNS_FILE "patterns.safetensors"
#define MODEL_ADAPTER_FILE "adapter.safetensors"

enum { MODEL_WORD_MAX = 64, MODEL_CONFIG_BYTES_MAX = 1 << 20 };

/* hebb.json: {"format", "method", "layout", "n", "m", "tokenizer", "patterns", "adapter"}. */
struct model_origin {
    char method[MODEL_WORD_MAX];
    char tokenizer[MODEL_WORD_MAX]; /* "bytes", "none"; "" if there is no hebb.json */
    unsigned n, m;                  /* 1, 1 for a dense model */
    struct adapter_shape adapter;
    enum nm_layout layout;
};

/* Write folder/config.json and folder/hebb.json. */
int model_config_write(const struct model_shape *shape, const char *folder,
                       const char *tokenizer, struct err *err);
int model_origin_write(const struct model_origin *origin, const char *folder, struct err *err);

/* Reads config.json; n = m = 1. ERR_UNSUPPORTED names a field whose value this model does not
 * have, ERR_CORRUPT one that is missing or wrong. */
int model_config_read(struct model_shape *out, const char *folder, struct err *err);

/* Reads hebb.json; without it method "dense", n = m = 1 and no tokenizer. */
int model_origin_read(struct model_origin *out, const char *folder, struct err *err);

#endif
