/* The model that a path names: a job folder (its model/, else its newest checkpoint), a
 * checkpoint, or a model folder (ours or any Hugging Face LLaMA). */
#ifndef HEBB_TOOLS_TOOL_MODEL_H
#define HEBB_TOOLS_TOOL_MODEL_H

#include "engine/checkpoint.h"

enum tool_model_kind { TOOL_MODEL_CHECKPOINT, TOOL_MODEL_FOLDER };

struct tool_place {
    enum tool_model_kind kind;
    char *path;         /* of the checkpoint or model folder itself; owned */
    char method[64];    /* "dense" for a foreign model */
    char tokenizer[64]; /* "bytes", "none" */
    struct model_shape shape;
    uint64_t step; /* of a checkpoint */
};

/* ERR_NOT_FOUND: path holds none of the three. */
int tool_place_find(struct tool_place *out, const char *path, struct err *err);
void tool_place_release(struct tool_place *place);

/* A device and the model of a place on it, for inference. */
struct tool_model {
    struct pool *pool;
    struct device *dev;
    struct model *model;
};

/* batch, context: of the largest pass; context 0: the model's own. */
int tool_model_open(struct tool_model *out, const struct tool_place *place, size_t batch,
                    size_t context, size_t threads, struct err *err);
void tool_model_close(struct tool_model *tool);

#endif
