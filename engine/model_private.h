/* What the model_*.c files share. Not for others, but tests may look. */
#ifndef HEBB_ENGINE_MODEL_PRIVATE_H
#define HEBB_ENGINE_MODEL_PRIVATE_H

#include "engine/model.h"

/* Parameters of a block, in file order; params[1 + layer * LAYER_PARAMS + kind]. */
enum layer_param {
    LAYER_Q,
    LAYER_K,
    LAYER_V,
    LAYER_O,
    LAYER_GATE,
    LAYER_UP,
    LAYER_DOWN,
    LAYER_INPUT_NORM,
    LAYER_POST_NORM,
    LAYER_PARAMS,
};

/* Every parameter starts at a multiple of this many entries (a cache line of floats). */
enum { MODEL_PARAM_ALIGN = 16 };

/* What an adapter's branch leaves for backward. */
struct adapter_saved {
    real *z; /* (R, rank) A x */
    real *a; /* (R, adapter.hidden) W1 x */
};

/* What forward leaves for backward in one block. R = batch * context rows; all act but rstd,
 * lse. Normed inputs and the SwiGLU product are not kept: backward makes them again. */
struct layer_saved {
    real *x;         /* (R, hidden) input of the block */
    real *rstd_in;   /* (R) */
    real *q, *k, *v; /* (R, hidden), (R, kv), (R, kv); q and k rotated */
    real *att;       /* (R, hidden) attention output, heads joined */
    real *lse;       /* (R, heads) */
    real *mid;       /* (R, hidden) after the attention's residual */
    real *rstd_post; /* (R) */
    real *gate, *up; /* (R, intermediate) */
    struct adapter_saved adapter[MODEL_TARGETS_PER_LAYER]; /* LAYER_Q .. LAYER_DOWN */
};

/* An adapter's buffers. Training only: dz and below. */
struct adapter_work {
    real *g;  /* (R, rank) the gated z */
    real *s;  /* (R, adapter.hidden) the gate's hidden layer */
    real *dz; /* (R, rank) gradient of g, then of z */
    real *du; /* (R, rank) gradient before the gate's tanh */
    real *da; /* (R, adapter.hidden) gradient of a */
};

/* Shared by all blocks. Training only: dx and below. */
struct work {
    real *cosine, *sine; /* (context, head_dim / 2) */
    real *out;           /* (R, hidden) output of the last block */
    real *norm;          /* (R, hidden) */
    real *branch;      /* (R, hidden) a branch's output before its residual; backward: d norm */
    real *rstd_out;    /* (R) */
    real *wide;        /* (R, intermediate) SwiGLU's product; backward: its gradient */
    real *dx;          /* (R, hidden) gradient along the residual stream */
    real *dgate, *dup; /* (R, intermediate); share their memory with the next line */
    real *dq, *datt, *dk, *dv; /* (R, hidden) twice, (R, kv) twice */
    struct adapter_work adapter;
};

/* Called once per block with its rotated keys and its values, act (rows, kv), valid only then.
 */
struct model_capture {
    void *context;
    void (*layer)(void *context, size_t layer, const real *k, const real *v, size_t rows);
};

/* The weights of one adapter's branch. The gate's are NULL without one. */
struct model_branch {
    const struct param *a, *bt, *w1, *b1, *w2, *b2;
    struct como_args args;
};

struct model_private {
    size_t batch, context;      /* the largest pass */
    struct layer_saved *saved;  /* training: (layers); inference: (1), x == mid == work.out */
    struct layer_saved scratch; /* what a pass without backward uses for every block */
    struct work work;
    real *activations;
    size_t activation_count; /* elements of real */
    unsigned char *packs;
    size_t pack_bytes;
    const struct model_probe *probe;     /* of the pass under way, else NULL */
    const struct model_capture *capture; /* the same */
    struct nm *nms;                      /* one per target of an N:M model, latent or not */
};

static inline size_t model_head_dim(const struct model_shape *shape)
{
    return shape->hidden / shape->heads;
}

static inline size_t model_kv_dim(const struct model_shape *shape)
{
    return shape->kv_heads * model_head_dim(shape);
}

/* Targets are stored as N:M matrices. */
static inline bool model_sparse(const struct model_shape *shape)
{
    return shape->n < shape->m && shape->latent == MODEL_LATENT_NONE;
}

static inline struct param *model_layer_param(const struct model *model, size_t layer,
                                              enum layer_param kind)
{
    return &model->params[1 + layer * LAYER_PARAMS + (size_t)kind];
}

/* Number of the model's own parameters: an adapter's come after them. */
size_t model_base_count(const struct model_shape *shape);
/* Parameters of model and adapters: the scales of latent weights follow. */
size_t model_adapter_end(const struct model_shape *shape);

/* Part of the branch beside target `kind` (LAYER_Q .. LAYER_DOWN) of a layer. */
static inline struct param *model_adapter_param(const struct model *model, size_t layer,
                                                enum layer_param kind, enum adapter_part part)
{
    size_t branch = layer * MODEL_TARGETS_PER_LAYER + (size_t)kind;
    return &model->params[model_base_count(&model->shape) +
                          branch * adapter_parts(&model->shape.adapter) + (size_t)part];
}

static inline real *model_weight(const struct model *model, const struct param *param)
{
    return model->weights + param->offset;
}

/* What a dense param is multiplied by. */
static inline const real *model_factor(const struct model *model, const struct param *param)
{
    return param->effective ? param->effective : model->weights + param->offset;
}

static inline real *model_grad(const struct model *model, const struct param *param)
{
    return model->grads + param->offset;
}

size_t model_param_count(const struct model_shape *shape);

/* Writes all parameters with names, shapes and offsets (nm NULL) into params
 * (model_param_count), which may be NULL; *count gets the slab's entries, *codes the number of
 * codes. False on overflow. */
bool model_params_fill(struct param *params, const struct model_shape *shape, size_t *count,
                       size_t *codes);

/* Sets the pointers of saved (layers entries if training, else 1), scratch and work into base,
 * which may be NULL (sizes only; then saved may be NULL too). *count gets the elements of real.
 * False on overflow. */
bool model_layout(struct layer_saved *saved, struct layer_saved *scratch, struct work *work,
                  real *base, const struct ops *ops, const struct model_shape *shape,
                  size_t batch, size_t context, bool training, size_t *count);

/* Bytes of one target's pack in the pack slab, rounded to MEM_ALIGN. */
size_t model_pack_size(const struct ops *ops, size_t dout, size_t din, unsigned n, unsigned m);

/* Entries of the effective weights of all targets among params. */
size_t model_effective_count(const struct param *params, size_t count);

void model_limits(struct device_limits *out, const struct model_shape *shape, size_t batch,
                  size_t context);

/* Runs all blocks and the final norm; returns its output, act (batch * context, hidden), valid
 * until the next pass. keep: what backward needs stays in saved and work.out. */
real *model_forward(struct model *model, const int32_t *tokens, size_t batch, size_t context,
                    bool keep);

/* model_logits with a look at keys and values. */
void model_logits_capture(struct model *model, const int32_t *tokens, real *logits,
                          size_t batch, size_t context, size_t first, size_t count,
                          const struct model_capture *capture);

/* The branch beside a target; false if there is none or it rests. */
bool model_adapter_branch(struct model_branch *out, const struct model *model, size_t layer,
                          enum layer_param kind);
/* The adapter's branch beside a target; nothing without an adapter. x: the target's input, y
 * its output, s: what the pass keeps of the block. forward: y += branch(x). */
void model_adapter_forward(const struct model *model, const struct layer_saved *s, real *y,
                           const real *x, size_t layer, enum layer_param kind, size_t rows);
/* Adds the gradients of the branch's parameters; must be followed by backward_x. */
void model_adapter_backward_w(const struct model *model, const struct layer_saved *s,
                              const real *dy, const real *x, size_t layer,
                              enum layer_param kind, size_t rows);
/* dx += the branch's gradient. dx may be the memory of x. */
void model_adapter_backward_x(const struct model *model, real *dx, size_t layer,
                              enum layer_param kind, size_t rows);

/* The output head's weight: its own, or the embedding's when tied. */
const struct param *model_head(const struct model *model);

struct attention_shape model_attention(const struct model_shape *shape, size_t batch,
                                       size_t context);

#endif
