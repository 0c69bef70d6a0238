/* A LLaMA-style model: parameters, forward, backward.
 *
 * Parameters live in four slabs of equal length (weights, gradients, first and second moments),
 * each parameter a range in all four that starts at a multiple of 16 entries (gaps stay zero);
 * an N:M matrix takes dout * din * N / M entries there and its codes in a fifth slab. With
 * latent weights a target takes dout * din entries, as a dense one, and has its effective
 * weights in a sixth. The target matrices (q, k, v, o, gate, up, down of every block) are N:M,
 * or dense when n == m; embedding, head and norms are dense. Names are Hugging Face's. An
 * adapter's parameters (engine/adapter.h) come after them, so that those of the model are where
 * they are without one; the scales of latent weights come last.
 */
#ifndef HEBB_ENGINE_MODEL_H
#define HEBB_ENGINE_MODEL_H

#include "engine/adapter.h"
#include "engine/ops.h"
#include <stdbool.h>

enum { MODEL_NAME_MAX = 96, MODEL_TARGETS_PER_LAYER = 7 };

/* A dense weight behind every N:M target (sparse/latent.h): none, masked (ste, srste), scaled
 * (cast). */
enum model_latent { MODEL_LATENT_NONE, MODEL_LATENT_MASKED, MODEL_LATENT_SCALED };

/* "none", "masked", "scaled", then NULL. */
extern const char *const model_latent_names[];

struct model_shape {
    size_t hidden, intermediate, layers, heads, kv_heads, vocab, context;
    double rope_theta, norm_eps;
    bool tie_embeddings;
    unsigned n, m;                /* of the target matrices; n == m (1, 1): dense */
    enum nm_layout layout;        /* of the target matrices; row for a dense model */
    enum model_latent latent;     /* none for a dense model */
    struct adapter_shape adapter; /* beside every target matrix */
};

struct param {
    char name[MODEL_NAME_MAX]; /* "model.layers.0.self_attn.q_proj.weight" */
    size_t rows, cols;         /* logical shape (dout, din); norms: (1, dim) */
    size_t offset, count;      /* entries in the slabs */
    bool target;               /* one of the seven per layer */
    bool decay;                /* weight decay applies (matrices, not norms and biases) */
    bool adapter;              /* a part of an adapter's branch */
    struct nm *nm;             /* target of a sparse model, else NULL; owned by the model */
    /* Target of a model with latent weights, else NULL: the mask (codes; neither values nor
     * pack), what the products take in place of the weights (rows, cols), and for scaled ones
     * the learned scales (rows, latent_scales). */
    struct nm *latent;
    real *effective;
    struct param *scale;
    bool folded; /* a scale: export multiplies it into its matrix */
};

struct model {
    struct model_shape shape;
    struct device *dev;   /* not owned */
    struct param *params; /* (param_count), in file order: embed, layers, norm, head, adapter */
    size_t param_count;
    size_t count; /* entries of each slab */
    real *weights, *grads, *moment1,
        *moment2; /* (count) each; grads, moments NULL for inference */
    /* What an optimizer keeps of the masks' history, NULL unless model_keep_ages gave it: */
    uint32_t
        *refresh_age; /* (param_count) updates since the matrix's last refresh or the start */
    uint16_t *ages;   /* (count) updates since the entry became active, at most AGE_MAX */
    uint16_t *codes;  /* all codes of all targets, in params order */
    size_t code_count;
    struct pattern_table *patterns;     /* NULL for a dense model */
    real *effective;                    /* of all targets with latent weights, else NULL */
    bool branch_rests;                  /* passes leave out the adapter's branch */
    struct model_private *private_data; /* activations, pointers per layer */
};

/* Bytes of each part, a pure function of the arguments: what model_create allocates, without
 * the directory of parameters. The shape must pass model_shape_check and the device be one of
 * this build. */
struct model_bytes {
    size_t weights, codes, packs, gradients, optimizer, activations, scratch;
    size_t latent; /* effective weights: what latent weights take beyond a dense model */
};

/* Checks a shape: hidden % heads, heads % kv_heads, even head_dim, din % m, n <= m, limits.
 * ERR_INVALID names field, value and reason. */
int model_shape_check(const struct model_shape *shape, struct err *err);

/* rows = sequences * context of one pass. training: gradients, moments and saved activations
 * too. */
int model_create(struct model **out, struct device *dev, const struct model_shape *shape,
                 size_t batch, size_t context, bool training, struct err *err);
void model_destroy(struct model *model);
void model_sizes(struct model_bytes *out, const char *device, unsigned threads,
                 const struct model_shape *shape, size_t batch, size_t context, bool training);

/* Weights N(0, s^2): embedding and head s = 0.02; a target s = sqrt(1 / fan_in_active) with
 * fan_in_active = din * n / m (din for latent weights), for o, down scaled by 1 / sqrt(2
 * layers); norms 1; an adapter's A and W1 s = sqrt(1 / din), its other parts 0. Masks uniform
 * over the legal patterns (blocks in the block layout). Pure function of the seed; with an
 * adapter all else, and the model's output, is as without. */
void model_init(struct model *model, uint64_t seed);

/* Gives a model made for training refresh_age, and ages if entries; all 0. A refresh sets the
 * matrix's refresh_age to 0 and treats ages as it treats the moments. */
int model_keep_ages(struct model *model, bool entries, struct err *err);

/* Weights, moments and ages from the host's copy to the device's, or back (device_push, device_pull): after
 * the host wrote them, before it reads them. Masks are always the host's own. */
void model_push(struct model *model);
void model_pull(const struct model *model);

/* After codes or weights changed (refresh, load; weights pushed): rebuilds the devices' packs and the effective
 * weights. */
void model_repack(struct model *model);

/* tokens, targets: (batch, context) int32; targets < 0 are left out. loss: (batch * context).
 * forward_backward adds to the gradient slab, each token's loss weighted by scale. */
void model_loss(struct model *model, const int32_t *tokens, const int32_t *targets, real *loss,
                size_t batch, size_t context);
void model_forward_backward(struct model *model, const int32_t *tokens, const int32_t *targets,
                            real *loss, real scale, size_t batch, size_t context);
/* One matrix's dense gradient after the other. */
struct model_probe {
    void *context;
    real *gradient; /* scratch, (dout, din) of the largest target */
    /* Called once per N:M target, last block first, when gradient holds the gradient of its
     * dense matrix and the pass has no more need of the matrix: values and codes may change. */
    void (*target)(void *context, struct param *param);
};

/* A forward and backward pass like model_forward_backward for gradients of places outside the
 * masks as well. Leaves nothing of use in the gradient slab. */
void model_probe(struct model *model, const int32_t *tokens, const int32_t *targets, real *loss,
                 real scale, size_t batch, size_t context, const struct model_probe *probe);

/* logits (count, vocab) of rows first .. first + count - 1 of the flattened (batch, context).
 */
void model_logits(struct model *model, const int32_t *tokens, real *logits, size_t batch,
                  size_t context, size_t first, size_t count);

/* Finds a parameter by name; NULL if there is none. */
struct param *model_param(const struct model *model, const char *name);

#endif
